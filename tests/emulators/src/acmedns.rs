//! acme-dns as the original answers (2.0): what it keeps of values, what it refuses and in which words.
//!
//! An account has two rows, and an update overwrites the one that was written in the oldest second: of several, the one that was made first. Whatever is wrong with
//! who asks or with the JSON is `401 forbidden`; then comes `400 bad_txt`. A name without values does not exist. Unlike the original, passwords are compared as they
//! are, and DNS is served by [`Nameservers`].

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{Fault, Faults, Nameservers, Record, door::Door};

/// The emulator; clones share it. It ends with the last clone.
#[derive(Debug, Clone)]
pub struct AcmeDns {
    door: Door,
    shared: Arc<Shared>,
}

/// An account as registration gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// `X-Api-User`.
    pub username: String,
    /// `X-Api-Key`.
    pub password: String,
    /// Where its values stand.
    pub fulldomain: String,
    /// The first label of that.
    pub subdomain: String,
    /// The networks it was registered for; they are kept, and let everybody in.
    pub allowfrom: Vec<String>,
}

#[derive(Debug)]
struct Shared {
    domain: String,
    state: Mutex<Inner>,
    faults: Faults,
    nameservers: Nameservers,
}

#[derive(Debug)]
struct Inner {
    /// In front of every path.
    prefix: String,
    closed: bool,
    /// The second that it always is.
    frozen: Option<u64>,
    accounts: Vec<Account>,
    /// By subdomain: value and second of each row.
    rows: BTreeMap<String, [(String, u64); 2]>,
    interferences: u64,
}

/// An answer that refuses.
struct Refused(StatusCode, &'static str);

const FORBIDDEN: Refused = Refused(StatusCode::UNAUTHORIZED, "forbidden");

impl AcmeDns {
    /// Starts its API on a port of loopback; `domain` is where its accounts' names stand.
    ///
    /// # Panics
    /// When no port can be had.
    #[allow(clippy::expect_used, reason = "a test cannot go on without it")]
    pub async fn start(domain: &str, nameservers: Nameservers) -> Self {
        let inner =
            Inner { prefix: String::new(), closed: false, frozen: None, accounts: Vec::new(), rows: BTreeMap::new(), interferences: 0 };
        let shared = Arc::new(Shared { domain: domain.to_owned(), state: Mutex::new(inner), faults: Faults::default(), nameservers });
        shared.publish(&shared.state.lock());
        let door = Door::open(Router::new().fallback(serve).with_state(Arc::clone(&shared))).await;
        Self { door, shared }
    }

    /// The base of its API.
    pub fn url(&self) -> String {
        format!("http://{}{}", self.door.address, self.shared.state.lock().prefix)
    }

    /// What goes wrong from now on: registration and updates are writes.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Stands behind a proxy that takes this away from the front of every path, such as `/a-secret`; without it, everything is 404.
    pub fn behind(&self, prefix: &str) {
        self.shared.state.lock().prefix = prefix.to_owned();
    }

    /// Registers nobody any more.
    pub fn close_registration(&self) {
        self.shared.state.lock().closed = true;
    }

    /// Lets it be this second, until there is another; `None` lets time go on.
    pub fn freeze(&self, second: Option<u64>) {
        self.shared.state.lock().frozen = second;
    }

    /// Registers an account past the API.
    pub fn register(&self) -> Account {
        self.shared.state.lock().register(&self.shared.domain, Vec::new())
    }

    /// The accounts, in the order they were registered.
    pub fn accounts(&self) -> Vec<Account> {
        self.shared.state.lock().accounts.clone()
    }

    /// Gives an account another password.
    pub fn set_password(&self, subdomain: &str, password: &str) {
        let mut state = self.shared.state.lock();
        state
            .accounts
            .iter_mut()
            .filter(|account| account.subdomain == subdomain)
            .for_each(|account| account.password = password.to_owned());
    }

    /// Removes an account with its values.
    pub fn remove(&self, subdomain: &str) {
        let mut state = self.shared.state.lock();
        state.accounts.retain(|account| account.subdomain != subdomain);
        state.rows.remove(subdomain);
        self.shared.publish(&state);
    }

    /// Updates an account as another client with the same password would.
    pub fn stranger_updates(&self, subdomain: &str, value: &str) {
        let mut state = self.shared.state.lock();
        state.update(subdomain, value);
        self.shared.publish(&state);
    }

    /// The two rows of an account: value and second. Empty for no account.
    pub fn rows(&self, subdomain: &str) -> Vec<(String, u64)> {
        self.shared.state.lock().rows.get(subdomain).map(|rows| rows.to_vec()).unwrap_or_default()
    }
}

async fn serve(State(shared): State<Arc<Shared>>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let fault = if method == Method::GET { shared.faults.read() } else { shared.faults.write() };
    let mut state = shared.state.lock();
    let refused = match fault {
        Some(Fault::LostRequest) => cut(),
        Some(Fault::ErrorBefore) => Some(Refused(StatusCode::INTERNAL_SERVER_ERROR, "db_error").into_response()),
        // The original has no rate; a proxy in front of it may.
        Some(Fault::Throttle(pause)) => {
            let seconds = pause.as_millis().div_ceil(1000).to_string();
            Some((StatusCode::TOO_MANY_REQUESTS, [("retry-after", seconds)]).into_response())
        }
        Some(Fault::Unauthorized) => Some(FORBIDDEN.into_response()),
        Some(Fault::Interfere) => {
            let update: Value = serde_json::from_slice(&body).unwrap_or_default();
            state.interferences += 1;
            let value = format!("{:0>43}", state.interferences);
            state.update(update["subdomain"].as_str().unwrap_or_default(), &value);
            None
        }
        _ => None,
    };
    let answer = match refused {
        Some(refused) => refused,
        None => shared.answer(&mut state, &method, uri.path(), &headers, &body).unwrap_or_else(IntoResponse::into_response),
    };
    shared.publish(&state);
    match fault {
        Some(Fault::ErrorAfter) => Refused(StatusCode::INTERNAL_SERVER_ERROR, "db_error").into_response(),
        Some(Fault::LostReply) => cut(),
        _ => answer,
    }
}

/// Ends the connection without an answer: the task that serves it unwinds, and no panic hook runs.
fn cut() -> ! {
    std::panic::resume_unwind(Box::new("the connection is cut"))
}

impl Shared {
    fn answer(&self, state: &mut Inner, method: &Method, path: &str, headers: &HeaderMap, body: &[u8]) -> Result<Response, Refused> {
        match (path.strip_prefix(state.prefix.as_str()), method.as_str()) {
            (Some("/health"), "GET") => Ok(StatusCode::OK.into_response()),
            (Some("/register"), "POST") if !state.closed => {
                let asked: Value = match body {
                    [] => Value::Null,
                    body => serde_json::from_slice(body).map_err(|_| Refused(StatusCode::BAD_REQUEST, "malformed_json_payload"))?,
                };
                let allowfrom: Vec<String> = asked["allowfrom"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|network| network.as_str().unwrap_or_default().to_owned())
                    .collect();
                if !allowfrom.iter().all(|network| is_network(network)) {
                    return Err(Refused(StatusCode::BAD_REQUEST, "invalid_allowfrom_cidr"));
                }
                let account = state.register(&self.domain, allowfrom);
                // One line, in this order.
                let body = format!(
                    r#"{{"username":{},"password":{},"fulldomain":{},"subdomain":{},"allowfrom":{}}}"#,
                    json!(account.username),
                    json!(account.password),
                    json!(account.fulldomain),
                    json!(account.subdomain),
                    json!(account.allowfrom)
                );
                Ok((StatusCode::CREATED, [(CONTENT_TYPE, "application/json")], body).into_response())
            }
            (Some("/update"), "POST") => {
                let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
                let (user, key) = (header("x-api-user"), header("x-api-key"));
                let account = state.accounts.iter().find(|account| account.username == user && account.password == key).ok_or(FORBIDDEN)?;
                let asked: Value = serde_json::from_slice(body).map_err(|_| FORBIDDEN)?;
                if asked["subdomain"] != account.subdomain.as_str() {
                    return Err(FORBIDDEN);
                }
                let value = asked["txt"].as_str().unwrap_or_default();
                if value.len() != 43 || !value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
                    return Err(Refused(StatusCode::BAD_REQUEST, "bad_txt"));
                }
                let subdomain = account.subdomain.clone();
                state.update(&subdomain, value);
                Ok(([(CONTENT_TYPE, "application/json")], format!(r#"{{"txt": "{value}"}}"#)).into_response())
            }
            (Some("/health" | "/update"), _) => Ok((StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n").into_response()),
            (Some("/register"), _) if !state.closed => Ok((StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n").into_response()),
            _ => Ok((StatusCode::NOT_FOUND, "404 page not found\n").into_response()),
        }
    }

    fn publish(&self, state: &Inner) {
        if self.nameservers.addresses().is_empty() {
            return;
        }
        let mut records = Vec::new();
        for (subdomain, rows) in &state.rows {
            let mut values: Vec<&String> = rows.iter().map(|(value, _)| value).filter(|value| !value.is_empty()).collect();
            values.dedup();
            let owner = format!("{subdomain}.{}", self.domain);
            let record =
                |value: &String| Record { owner: owner.clone(), ttl: 1, kind: "TXT".to_owned(), data: vec![value.clone().into_bytes()] };
            records.extend(values.into_iter().map(record));
        }
        self.nameservers.publish(&self.domain, records);
    }
}

impl Inner {
    fn register(&mut self, domain: &str, allowfrom: Vec<String>) -> Account {
        let subdomain = Uuid::new_v4().to_string();
        let password: String = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()).chars().take(40).collect();
        let account =
            Account { username: Uuid::new_v4().to_string(), password, fulldomain: format!("{subdomain}.{domain}"), subdomain, allowfrom };
        self.rows.insert(account.subdomain.clone(), Default::default());
        self.accounts.push(account.clone());
        account
    }

    fn update(&mut self, subdomain: &str, value: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let second = self.frozen.unwrap_or(now);
        if let Some([first, last]) = self.rows.get_mut(subdomain) {
            let oldest = if last.1 < first.1 { last } else { first };
            *oldest = (value.to_owned(), second);
        }
    }
}

fn is_network(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, length)| {
        let most = if address.contains(':') { 128 } else { 32 };
        address.parse::<std::net::IpAddr>().is_ok() && length.parse::<u8>().is_ok_and(|length| length <= most)
    })
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, [(CONTENT_TYPE, "application/json")], format!(r#"{{"error": "{}"}}"#, self.1)).into_response()
    }
}
