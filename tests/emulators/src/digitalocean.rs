//! DigitalOcean's API v2, the part about domains and their records, after its OpenAPI specification.
//!
//! What is enforced: rights of tokens, pages of 20 and of 200 at most, names of records relative to the domain (`@` is the apex) while the filter takes whole
//! ones, TTLs from 30 seconds on, 512 characters of TXT data, and the two rates, by the hour and by the minute, where a test asks for them. Records may stand
//! twice. TXT data is the value itself, without quotes.

mod records;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Query, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use records::Domain;
pub use records::StoredRecord;

use crate::{Fault, Faults, Nameservers, door::Door};

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);
/// The documented rates by the hour and by the minute.
const RATES: (usize, usize) = (5000, 250);

/// The emulator; clones share it. It ends with the last clone.
#[derive(Debug, Clone)]
pub struct DigitalOcean {
    door: Door,
    shared: Arc<Shared>,
}

/// What a token may be allowed; one without any is good for nothing but to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// `account:read`.
    Account,
    /// `domain:read`.
    Read,
    /// `domain:create`, `domain:update` and `domain:delete`.
    Write,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<Inner>,
    faults: Faults,
    nameservers: Nameservers,
}

#[derive(Debug, Default)]
struct Inner {
    tokens: BTreeMap<String, Vec<Right>>,
    domains: BTreeMap<String, Domain>,
    /// The last number given to a record.
    last: u64,
    interferences: u64,
    rates: Option<(usize, usize)>,
    /// The calls of the last hour.
    calls: VecDeque<Instant>,
}

/// An answer that refuses.
#[derive(Debug)]
struct Refused {
    status: StatusCode,
    id: &'static str,
    message: String,
    retry_after: Option<u64>,
}

/// A request, read.
struct Call {
    method: Method,
    path: Vec<String>,
    query: BTreeMap<String, String>,
    body: Value,
    /// Where the API is, for the links of lists.
    base: String,
}

impl DigitalOcean {
    /// Starts it on a port of loopback, with one token that may do everything.
    ///
    /// # Panics
    /// When no port can be had.
    #[allow(clippy::expect_used, reason = "a test cannot go on without it")]
    pub async fn start(token: &str, nameservers: Nameservers) -> Self {
        let mut inner = Inner::default();
        inner.tokens.insert(token.to_owned(), vec![Right::Account, Right::Read, Right::Write]);
        let shared = Arc::new(Shared { state: Mutex::new(inner), faults: Faults::default(), nameservers });
        let door = Door::open(Router::new().fallback(serve).with_state(Arc::clone(&shared))).await;
        Self { door, shared }
    }

    /// What goes where `https://api.digitalocean.com` would.
    pub fn url(&self) -> String {
        format!("http://{}", self.door.address)
    }

    /// What goes wrong from now on.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Makes a domain, with the NS and SOA records that every one has.
    pub fn add_domain(&self, name: &str) {
        let mut state = self.shared.state.lock();
        state.add_domain(name);
        self.shared.publish(&state, name);
    }

    /// Removes a domain with its records.
    pub fn remove_domain(&self, name: &str) {
        self.shared.state.lock().domains.remove(name);
        self.shared.nameservers.withdraw(name);
    }

    /// Lets a token do these things.
    pub fn grant(&self, token: &str, rights: &[Right]) {
        self.shared.state.lock().tokens.insert(token.to_owned(), rights.to_vec());
    }

    /// The token is over.
    pub fn revoke(&self, token: &str) {
        self.shared.state.lock().tokens.remove(token);
    }

    /// Takes so many calls by the hour and by the minute; `None` takes all.
    pub fn limit_rate(&self, rates: Option<(usize, usize)>) {
        let mut state = self.shared.state.lock();
        state.rates = rates;
        state.calls.clear();
    }

    /// The records of a domain as they stand, in the order they were made.
    pub fn records(&self, domain: &str) -> Vec<StoredRecord> {
        self.shared.state.lock().domains.get(domain).map(|domain| domain.records.clone()).unwrap_or_default()
    }

    /// The data of the TXT records at a name, which is absolute, sorted.
    pub fn values(&self, owner: &str) -> Vec<String> {
        let state = self.shared.state.lock();
        let at = |(name, domain): (&String, &Domain)| -> Vec<String> {
            let kept = domain.records.iter().filter(|record| record.kind == "TXT" && record.absolute(name) == owner);
            kept.map(|record| record.data.clone()).collect()
        };
        let mut values: Vec<String> = state.domains.iter().flat_map(at).collect();
        values.sort();
        values
    }

    /// Writes a record past the API, as a stranger would; gives its id. `name` is absolute.
    ///
    /// # Panics
    /// When there is no such domain.
    #[allow(clippy::expect_used, reason = "a test that asks for what cannot be is wrong")]
    pub fn stranger_adds(&self, domain: &str, name: &str, kind: &str, data: &str, ttl: u32) -> u64 {
        let mut state = self.shared.state.lock();
        let id = state.next_id();
        let found = state.domains.get_mut(domain).expect("a domain");
        found.records.push(StoredRecord::new(id, &records::relative(name, domain), kind, data, ttl));
        self.shared.publish(&state, domain);
        id
    }

    /// Removes a record past the API, as a stranger would.
    pub fn stranger_removes(&self, id: u64) {
        let mut state = self.shared.state.lock();
        let mut changed = Vec::new();
        for (name, domain) in &mut state.domains {
            let before = domain.records.len();
            domain.records.retain(|record| record.id != id);
            if domain.records.len() != before {
                changed.push(name.clone());
            }
        }
        changed.iter().for_each(|name| self.shared.publish(&state, name));
    }
}

async fn serve(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let fault = if method == Method::GET { shared.faults.read() } else { shared.faults.write() };
    let host = headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
    let path = uri.path().trim_start_matches("/v2/").split('/').map(|part| part.replace("%2A", "*")).collect();
    let base = format!("http://{host}{}", uri.path());
    let call = Call { method, path, query, body: serde_json::from_slice(&body).unwrap_or_default(), base };
    let mut state = shared.state.lock();
    let refused = match fault {
        Some(Fault::LostRequest) => cut(),
        Some(Fault::ErrorBefore) => Some(Refused::new(500, "server_error", "Unexpected server-side error")),
        Some(Fault::Throttle(pause)) => Some(Refused::throttled(Some(pause))),
        Some(Fault::Unauthorized) => Some(Refused::new(401, "unauthorized", "Unable to authenticate you")),
        Some(Fault::Interfere) => {
            shared.interfere(&mut state, &call);
            None
        }
        _ => None,
    };
    let answer = match refused {
        Some(refused) => Err(refused),
        None => state.count_call().and_then(|()| shared.answer(&mut state, &headers, &call)),
    };
    match fault {
        Some(Fault::ErrorAfter) => Refused::new(500, "server_error", "Unexpected server-side error").into_response(),
        Some(Fault::LostReply) => cut(),
        _ => (state.rate_headers(), answer.unwrap_or_else(IntoResponse::into_response)).into_response(),
    }
}

/// Ends the connection without an answer: the task that serves it unwinds, and no panic hook runs.
fn cut() -> ! {
    std::panic::resume_unwind(Box::new("the connection is cut"))
}

impl Shared {
    fn answer(&self, state: &mut Inner, headers: &HeaderMap, call: &Call) -> Result<Response, Refused> {
        let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
        let token = headers.get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let rights = token.and_then(|token| state.tokens.get(token)).cloned();
        let rights = rights.ok_or_else(|| Refused::new(401, "unauthorized", "Unable to authenticate you"))?;
        let needed = match (path.first(), &call.method) {
            (Some(&"account"), _) => Right::Account,
            (_, &Method::GET) => Right::Read,
            _ => Right::Write,
        };
        if !rights.contains(&needed) {
            return Err(Refused::new(403, "forbidden", "You are not authorized to perform this operation"));
        }
        match (&call.method, path.as_slice()) {
            (&Method::GET, ["account"]) => {
                let account = json!({"email": "admin@example.com", "uuid": "b6fr89dbf6d9156cace5f3c78dc9851d957381ef", "status": "active"});
                Ok(Json(json!({"account": account})).into_response())
            }
            (&Method::GET, ["domains"]) => {
                let all = state.domains.iter().map(|(name, domain)| domain.shown(name)).collect();
                Ok(call.page("domains", all))
            }
            (&Method::POST, ["domains"]) => {
                let name = call.body["name"].as_str().unwrap_or_default().to_lowercase();
                if name.is_empty() || state.domains.contains_key(&name) {
                    return Err(Refused::new(422, "unprocessable_entity", "domain cannot be created: it has no name, or it exists"));
                }
                state.add_domain(&name);
                self.publish(state, &name);
                let shown = state.domains.get(&name).map(|domain| domain.shown(&name));
                Ok((StatusCode::CREATED, Json(json!({"domain": shown}))).into_response())
            }
            (&Method::GET, ["domains", name]) => {
                let domain = state.domains.get(*name).ok_or_else(Refused::not_found)?;
                Ok(Json(json!({"domain": domain.shown(name)})).into_response())
            }
            (_, ["domains", name, "records", rest @ ..]) => {
                let id = state.next_id();
                let domain = state.domains.get_mut(*name).ok_or_else(Refused::not_found)?;
                let answer = domain.answer(name, rest, call, id)?;
                if call.method != Method::GET {
                    self.publish(state, name);
                }
                Ok(answer)
            }
            _ => Err(Refused::not_found()),
        }
    }

    /// A stranger writes at the name that the call is about.
    fn interfere(&self, state: &mut Inner, call: &Call) {
        let [_, name, _, rest @ ..] = call.path.as_slice() else { return };
        let id = state.next_id();
        state.interferences += 1;
        let data = format!("interference {}", state.interferences);
        let Some(domain) = state.domains.get_mut(name) else { return };
        let removed = rest.first().and_then(|id| domain.records.iter().find(|record| record.id.to_string() == *id));
        let owner = removed.map(|record| record.name.clone()).or_else(|| call.body["name"].as_str().map(str::to_owned));
        domain.records.push(StoredRecord::new(id, &owner.unwrap_or_default(), "TXT", &data, 1800));
        self.publish(state, name);
    }

    fn publish(&self, state: &Inner, name: &str) {
        if self.nameservers.addresses().is_empty() {
            return;
        }
        if let Some(domain) = state.domains.get(name) {
            self.nameservers.publish(name, domain.served(name));
        }
    }
}

impl Inner {
    fn next_id(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn add_domain(&mut self, name: &str) {
        let mut records = vec![StoredRecord::new(self.next_id(), "@", "SOA", "1800", 1800)];
        for server in ["ns1", "ns2", "ns3"] {
            records.push(StoredRecord::new(self.next_id(), "@", "NS", &format!("{server}.digitalocean.com"), 1800));
        }
        self.domains.insert(name.to_owned(), Domain { records });
    }

    fn count_call(&mut self) -> Result<(), Refused> {
        let now = Instant::now();
        while self.calls.front().is_some_and(|call| now - *call >= HOUR) {
            self.calls.pop_front();
        }
        if let Some((hour, minute)) = self.rates {
            let recent: Vec<Instant> = self.calls.iter().copied().filter(|call| now - *call < MINUTE).collect();
            if let Some(first) = recent.first().filter(|_| recent.len() >= minute) {
                return Err(Refused::throttled(Some(MINUTE - (now - *first))));
            }
            // Only the limit by the minute comes with Retry-After.
            if self.calls.len() >= hour {
                return Err(Refused::throttled(None));
            }
        }
        self.calls.push_back(now);
        Ok(())
    }

    /// The hour's calls: how many in all, how many are left, and when the oldest one no longer counts.
    fn rate_headers(&self) -> HeaderMap {
        let (hour, _) = self.rates.unwrap_or(RATES);
        let frees = self.calls.front().map_or(Duration::ZERO, |oldest| HOUR.saturating_sub(oldest.elapsed()));
        let reset = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + frees;
        let mut headers = HeaderMap::new();
        headers.insert("ratelimit-limit", HeaderValue::from(hour));
        headers.insert("ratelimit-remaining", HeaderValue::from(hour.saturating_sub(self.calls.len())));
        headers.insert("ratelimit-reset", HeaderValue::from(reset.as_secs()));
        headers
    }
}

impl Call {
    /// One page of a list, with the links and the total that go with it.
    fn page(&self, key: &str, all: Vec<Value>) -> Response {
        let number =
            |key: &str, default: usize| self.query.get(key).and_then(|text| text.parse().ok()).filter(|n| *n > 0).unwrap_or(default);
        let (page, per_page): (usize, usize) = (number("page", 1), number("per_page", 20).min(200));
        let (total, last) = (all.len(), all.len().div_ceil(per_page).max(1));
        let shown: Vec<Value> = all.into_iter().skip((page - 1).saturating_mul(per_page)).take(per_page).collect();
        let link = |page: usize| json!(format!("{}?page={page}&per_page={per_page}", self.base));
        let mut pages = json!({});
        if page > 1 {
            (pages["first"], pages["prev"]) = (link(1), link(page - 1));
        }
        if page < last {
            (pages["next"], pages["last"]) = (link(page + 1), link(last));
        }
        let links = if last > 1 { json!({"pages": pages}) } else { json!({}) };
        Json(json!({key: shown, "links": links, "meta": {"total": total}})).into_response()
    }
}

impl Refused {
    fn new(status: u16, id: &'static str, message: &str) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, id, message: message.to_owned(), retry_after: None }
    }

    fn throttled(pause: Option<Duration>) -> Self {
        let retry_after = pause.map(|pause| pause.as_millis().div_ceil(1000) as u64);
        Self { retry_after, ..Self::new(429, "too_many_requests", "API Rate limit exceeded.") }
    }

    fn not_found() -> Self {
        Self::new(404, "not_found", "The resource you were accessing could not be found.")
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = json!({"id": self.id, "message": self.message, "request_id": "4d9d8375-3c56-4925-a3e7-eb137fed17e9"});
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert("retry-after", HeaderValue::from(seconds));
        }
        response
    }
}
