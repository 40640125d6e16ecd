//! Cloudflare's API v4, the part about zones and DNS records, after its OpenAPI schema and the error codes that its users report.
//!
//! What is enforced: rights of tokens, page sizes, filters that ignore letter case, identical records (81058), batches as one transaction in the order
//! deletes, patches, puts, posts, the number of changes in a batch by plan, TTLs, and the rate of calls where a test asks for it.

mod access;
mod answer;
mod records;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{Query, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Uri},
    response::{IntoResponse, Response},
};
use parking_lot::Mutex;
use serde_json::{Value, json};

pub use access::Right;
use access::{Access, Caller};
use answer::{Answer, Refused, page};
pub use records::StoredRecord;
use records::{Draft, Records};

use crate::{Fault, Faults, Nameservers, door::Door};

/// The account that zones are in unless a test says otherwise.
pub const ACCOUNT: &str = "023e105f4ecef8ad9ca31a8372d0c353";
/// Dates are the same in every run.
const DATE: &str = "2026-01-02T03:04:05Z";

/// The emulator; clones share it. It ends with the last clone.
#[derive(Debug, Clone)]
pub struct Cloudflare {
    door: Door,
    shared: Arc<Shared>,
}

/// A zone to be made.
#[derive(Debug, Clone)]
pub struct NewZone {
    /// Its apex, without the last dot.
    pub name: String,
    /// `active`, `pending`, `moved` or `initializing`.
    pub status: String,
    /// `full`, `partial`, `secondary` or `internal`.
    pub kind: String,
    /// The account that it is in.
    pub account: String,
    /// Its servers' names.
    pub name_servers: Vec<String>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<Inner>,
    faults: Faults,
    nameservers: Nameservers,
}

#[derive(Debug)]
struct Inner {
    zones: BTreeMap<String, Zone>,
    access: Access,
    /// The last number given to an object.
    last: u64,
    /// Changes in each batch that was carried out.
    batches: Vec<usize>,
    batch_limit: usize,
    names_offenders: bool,
    interferences: u64,
}

#[derive(Debug)]
struct Zone {
    made: NewZone,
    records: Records,
}

/// A request, read.
struct Call {
    method: Method,
    path: Vec<String>,
    query: Vec<(String, String)>,
    body: Value,
}

impl Cloudflare {
    /// Starts it on a port of loopback, with one token that may do everything.
    ///
    /// # Panics
    /// When no port can be had.
    #[allow(clippy::expect_used, reason = "a test cannot go on without it")]
    pub async fn start(token: &str, nameservers: Nameservers) -> Self {
        let mut access = Access::default();
        access.grant(token, &[Right::ZoneRead, Right::DnsEdit]);
        let inner = Inner {
            zones: BTreeMap::new(),
            access,
            last: 0,
            batches: Vec::new(),
            batch_limit: 200,
            names_offenders: false,
            interferences: 0,
        };
        let shared = Arc::new(Shared { state: Mutex::new(inner), faults: Faults::default(), nameservers });
        let door = Door::open(Router::new().fallback(serve).with_state(Arc::clone(&shared))).await;
        Self { door, shared }
    }

    /// What goes where `https://api.cloudflare.com/client/v4` would.
    pub fn url(&self) -> String {
        format!("http://{}/client/v4", self.door.address)
    }

    /// What goes wrong from now on.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Makes an active zone in the usual account; gives its id.
    pub fn add_zone(&self, name: &str) -> String {
        self.make_zone(NewZone {
            name: name.to_owned(),
            status: "active".to_owned(),
            kind: "full".to_owned(),
            account: ACCOUNT.to_owned(),
            name_servers: vec!["ada.ns.cloudflare.com".to_owned(), "bob.ns.cloudflare.com".to_owned()],
        })
    }

    /// Makes a zone; gives its id. Several may have one name, in different accounts.
    pub fn make_zone(&self, made: NewZone) -> String {
        let mut state = self.shared.state.lock();
        let id = state.next_id();
        state.zones.insert(id.clone(), Zone { made, records: Records::default() });
        self.shared.publish(&state, &id);
        id
    }

    /// Removes every zone of this name, with its records.
    pub fn remove_zone(&self, name: &str) {
        self.shared.state.lock().zones.retain(|_, zone| zone.made.name != name);
        self.shared.nameservers.withdraw(name);
    }

    /// Lets a token do these things, in all zones.
    pub fn grant(&self, token: &str, rights: &[Right]) {
        self.shared.state.lock().access.grant(token, rights);
    }

    /// Lets a token reach only the zones with these ids.
    pub fn restrict(&self, token: &str, zones: &[&str]) {
        self.shared.state.lock().access.restrict(token, zones);
    }

    /// Makes a token one that an account owns, not a user.
    pub fn give_to_account(&self, token: &str) {
        self.shared.state.lock().access.give_to_account(token);
    }

    /// Lets a global API key do everything.
    pub fn grant_key(&self, email: &str, key: &str) {
        self.shared.state.lock().access.grant_key(email, key);
    }

    /// The token is over.
    pub fn expire(&self, token: &str) {
        self.shared.state.lock().access.expire(token);
    }

    /// Sets how many changes a batch takes: 200 on the free plan, 3,500 on others.
    pub fn set_batch_limit(&self, changes: usize) {
        self.shared.state.lock().batch_limit = changes;
    }

    /// Sets how many records a zone takes.
    pub fn set_quota(&self, zone: &str, records: usize) {
        for zone in self.shared.state.lock().zones.values_mut().filter(|found| found.made.name == zone) {
            zone.records.set_quota(records);
        }
    }

    /// Has refusals of batches say which element was bad, as the schema of errors allows (`source.pointer`); they do not by default.
    pub fn name_offenders(&self, yes: bool) {
        self.shared.state.lock().names_offenders = yes;
    }

    /// Takes so many calls in each window, and then blocks everything for a window; `None` takes all.
    pub fn limit_rate(&self, limit: Option<(u32, Duration)>) {
        self.shared.state.lock().access.limit_rate(limit);
    }

    /// The records of the zone of this name as they stand, in the order they were made.
    pub fn records(&self, zone: &str) -> Vec<StoredRecord> {
        let state = self.shared.state.lock();
        state.zones.values().filter(|found| found.made.name == zone).flat_map(|zone| zone.records.all().to_vec()).collect()
    }

    /// The contents of the TXT records at an owner, as they were sent, sorted.
    pub fn contents(&self, owner: &str) -> Vec<String> {
        let state = self.shared.state.lock();
        let all = state.zones.values().flat_map(|zone| zone.records.all());
        let mut found: Vec<String> =
            all.filter(|record| record.kind == "TXT" && record.name == owner).map(|record| record.content.clone()).collect();
        found.sort();
        found
    }

    /// Writes a record past the API, as a stranger would; gives its id. `name` is absolute.
    ///
    /// # Panics
    /// When there is no such zone, or the record cannot stand there.
    #[allow(clippy::expect_used, reason = "a test that asks for what cannot be is wrong")]
    pub fn stranger_adds(&self, zone: &str, name: &str, kind: &str, content: &str, ttl: u32) -> String {
        let mut state = self.shared.state.lock();
        let id = state.next_id();
        let zone_id = state.zone_id(zone).expect("a zone");
        let draft = Draft { name: name.to_owned(), kind: kind.to_owned(), content: content.to_owned(), ttl, ..Draft::default() };
        let zone = state.zones.get_mut(&zone_id).expect("a zone");
        zone.records.add(id.clone(), draft, &zone.made.name).expect("a record that can stand");
        self.shared.publish(&state, &zone_id);
        id
    }

    /// Removes a record past the API, as a stranger would.
    pub fn stranger_removes(&self, id: &str) {
        let mut state = self.shared.state.lock();
        let ids: Vec<String> = state.zones.keys().cloned().collect();
        for zone_id in ids {
            let removed = state.zones.get_mut(&zone_id).is_some_and(|zone| zone.records.remove(id).is_ok());
            if removed {
                self.shared.publish(&state, &zone_id);
            }
        }
    }

    /// The number of changes in each batch that was carried out.
    pub fn batches(&self) -> Vec<usize> {
        self.shared.state.lock().batches.clone()
    }
}

async fn serve(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let fault = if method == Method::GET { shared.faults.read() } else { shared.faults.write() };
    let path = uri.path().trim_start_matches("/client/v4/").split('/').map(str::to_owned).collect();
    let call = Call { method, path, query, body: serde_json::from_slice(&body).unwrap_or_default() };
    let mut state = shared.state.lock();
    let refused = match fault {
        Some(Fault::LostRequest) => cut(),
        Some(Fault::ErrorBefore) => Some(Refused::new(500, 10001, "Internal server error")),
        Some(Fault::Throttle(pause)) => Some(Refused::throttled(pause)),
        Some(Fault::Unauthorized) => Some(Refused::new(403, 10000, "Authentication error")),
        Some(Fault::Interfere) => {
            shared.interfere(&mut state, &call);
            None
        }
        _ => None,
    };
    let answer = match refused {
        Some(refused) => Err(refused),
        None => state.access.count_call().and_then(|()| shared.answer(&mut state, &headers, &call)),
    };
    match fault {
        Some(Fault::ErrorAfter) => Refused::new(500, 10001, "Internal server error").into_response(),
        Some(Fault::LostReply) => cut(),
        _ => (rate_headers(&state.access), answer.map_or_else(IntoResponse::into_response, IntoResponse::into_response)).into_response(),
    }
}

/// Ends the connection without an answer: the task that serves it unwinds, and no panic hook runs.
fn cut() -> ! {
    std::panic::resume_unwind(Box::new("the connection is cut"))
}

fn rate_headers(access: &Access) -> HeaderMap {
    let (remaining, reset, quota, window) = access.rate();
    let lines =
        [("ratelimit", format!("\"default\";r={remaining};t={reset}")), ("ratelimit-policy", format!("\"default\";q={quota};w={window}"))];
    lines.into_iter().filter_map(|(name, value)| Some((HeaderName::from_static(name), HeaderValue::from_str(&value).ok()?))).collect()
}

impl Shared {
    fn answer(&self, state: &mut Inner, headers: &HeaderMap, call: &Call) -> Result<Answer, Refused> {
        let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
        if let (&Method::GET, ["user", "tokens", "verify"]) = (&call.method, path.as_slice()) {
            return state.access.verify(headers, None);
        }
        if let (&Method::GET, ["accounts", account, "tokens", "verify"]) = (&call.method, path.as_slice()) {
            return state.access.verify(headers, Some(*account));
        }
        let caller = state.access.caller(headers)?;
        match (&call.method, path.as_slice()) {
            (&Method::GET, ["zones"]) => state.list_zones(&caller, &call.query),
            (&Method::GET, ["zones", zone]) => {
                caller.may(Right::ZoneRead, zone)?;
                state.zones.get(*zone).map(|found| Answer::of(found.made.shown(zone))).ok_or_else(|| Refused::no_zone(zone))
            }
            (_, ["zones", zone, "dns_records", rest @ ..]) => {
                caller.may(if call.method == Method::GET { Right::DnsRead } else { Right::DnsEdit }, zone)?;
                if !state.zones.contains_key(*zone) {
                    return Err(Refused::no_zone(zone));
                }
                let answer = state.at_records(zone, rest, call)?;
                if call.method != Method::GET {
                    self.publish(state, zone);
                }
                Ok(answer)
            }
            _ => Err(Refused::new(404, 7000, "No route for that URI")),
        }
    }

    /// A stranger writes at the name that the call is about.
    fn interfere(&self, state: &mut Inner, call: &Call) {
        let [_, zone_id, ..] = call.path.as_slice() else { return };
        let id = state.next_id();
        state.interferences += 1;
        let content = format!("\"interference {}\"", state.interferences);
        let Some(zone) = state.zones.get_mut(zone_id) else { return };
        let first = |list: &str, field: &str| call.body[list][0][field].as_str().map(str::to_owned);
        let removed = first("deletes", "id").and_then(|id| zone.records.get(&id).map(|record| record.name.clone()));
        let name = call.body["name"].as_str().map(str::to_owned).or_else(|| first("posts", "name")).or(removed);
        let draft = Draft { name: name.unwrap_or_default(), kind: "TXT".to_owned(), content, ttl: 300, ..Draft::default() };
        let _ = zone.records.add(id, draft, &zone.made.name);
        self.publish(state, zone_id);
    }

    fn publish(&self, state: &Inner, zone: &str) {
        if self.nameservers.addresses().is_empty() {
            return;
        }
        if let Some(zone) = state.zones.get(zone).filter(|zone| zone.made.status != "moved") {
            self.nameservers.publish(&zone.made.name, zone.records.served());
        }
    }
}

impl Inner {
    fn next_id(&mut self) -> String {
        self.last += 1;
        // Spread like a hash, and the same in every run.
        format!("{:016x}{:016x}", self.last.wrapping_mul(0x9e37_79b9_7f4a_7c15), self.last)
    }

    fn zone_id(&self, name: &str) -> Option<String> {
        self.zones.iter().find(|(_, zone)| zone.made.name == name).map(|(id, _)| id.clone())
    }

    fn list_zones(&self, caller: &Caller, query: &[(String, String)]) -> Result<Answer, Refused> {
        let asked = |key: &str| query.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        let types: Vec<&str> = asked("type").unwrap_or("full,partial,secondary").split(',').collect();
        let mut found: Vec<Value> = Vec::new();
        for (id, zone) in &self.zones {
            let made = &zone.made;
            let wanted = caller.sees(id)
                && types.contains(&made.kind.as_str())
                && asked("name").is_none_or(|name| name.eq_ignore_ascii_case(&made.name))
                && asked("status").is_none_or(|status| status == made.status)
                && asked("account.id").is_none_or(|account| account == made.account);
            if wanted {
                found.push(made.shown(id));
            }
        }
        page(found, query, 20, 50)
    }

    /// A call under `/zones/{zone}/dns_records`; the zone is there.
    fn at_records(&mut self, zone: &str, rest: &[&str], call: &Call) -> Result<Answer, Refused> {
        let id = self.next_id();
        let (limit, names_offenders) = (self.batch_limit, self.names_offenders);
        let spare = self.last;
        let zone = self.zones.get_mut(zone).ok_or_else(|| Refused::no_zone(zone))?;
        let apex = zone.made.name.clone();
        let records = &mut zone.records;
        match (&call.method, rest) {
            (&Method::GET, []) => page(records.filtered(&call.query)?, &call.query, 100, 5_000_000),
            (&Method::POST, []) => records.add(id, Draft::read(&call.body)?, &apex).map(Answer::of),
            (&Method::POST, ["batch"]) => {
                let (answer, count) = records.batch(&call.body, &apex, limit, names_offenders, spare)?;
                self.last += count as u64;
                self.batches.push(count);
                Ok(Answer::of(answer))
            }
            (&Method::GET, [record]) => records.get(record).map(|record| Answer::of(record.shown())).ok_or_else(Refused::no_record),
            (&Method::PUT, [record]) => records.replace(record, Draft::read(&call.body)?, &apex).map(Answer::of),
            (&Method::PATCH, [record]) => records.patch(record, &call.body, &apex).map(Answer::of),
            (&Method::DELETE, [record]) => records.remove(record).map(|_| Answer::of(json!({"id": record}))),
            _ => Err(Refused::new(405, 10405, "Method not allowed for this authentication scheme")),
        }
    }
}

impl NewZone {
    fn shown(&self, id: &str) -> Value {
        json!({
            "id": id, "name": self.name, "status": self.status, "paused": false, "type": self.kind, "development_mode": 0,
            "name_servers": self.name_servers, "original_name_servers": null, "original_registrar": null, "original_dnshost": null,
            "created_on": DATE, "modified_on": DATE, "activated_on": DATE,
            "meta": {"step": 2, "custom_certificate_quota": 0, "page_rule_quota": 3, "phishing_detected": false},
            "owner": {"id": null, "type": "user", "email": null},
            "account": {"id": self.account, "name": "Example's account"},
            "tenant": {"id": null, "name": null}, "tenant_unit": {"id": null},
            "permissions": ["#dns_records:edit", "#dns_records:read", "#zone:read"],
            "plan": {"id": "0feeeeeeeeeeeeeeeeeeeeeeeeeeeeee", "name": "Free Website", "price": 0, "currency": "USD", "legacy_id": "free"},
        })
    }
}
