//! The zones of PowerDNS' HTTP API as servers from 5.0 on have it, after its documentation and the server's own behaviour: what Debian's real server
//! (4.7) cannot show, EXTEND and PRUNE.
//!
//! What is enforced: the API key; content in the server's own writing; canonical names; TTLs that agree within an RRset, and records that do not stand twice; a
//! CNAME alone at its name where an RRset is replaced (EXTEND does not look). EXTEND and PRUNE write the RRset without its disabled records, and comments go
//! with the last record, as at the real one.

mod zone;

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Query, State},
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use zone::Zone;
pub use zone::{StoredRecord, StoredRrset};

use crate::{Fault, Faults, Nameservers, door::Door};

/// The emulator; clones share it. It ends with the last clone.
#[derive(Debug, Clone)]
pub struct PowerDns {
    door: Door,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<Inner>,
    faults: Faults,
    nameservers: Nameservers,
}

#[derive(Debug)]
struct Inner {
    key: String,
    version: String,
    zones: BTreeMap<String, Zone>,
    interferences: u64,
    /// Zones whose secondaries were to be notified, in turn.
    notified: Vec<String>,
}

/// A request, read.
struct Call {
    method: Method,
    path: Vec<String>,
    query: BTreeMap<String, String>,
    body: Value,
}

/// An answer that refuses: its status, and the server's words.
#[derive(Debug)]
struct Refused(StatusCode, String);

impl PowerDns {
    /// Starts it on a port of loopback, with this API key.
    ///
    /// # Panics
    /// When no port can be had.
    #[allow(clippy::expect_used, reason = "a test cannot go on without it")]
    pub async fn start(key: &str, nameservers: Nameservers) -> Self {
        let inner =
            Inner { key: key.to_owned(), version: "5.0.2".to_owned(), zones: BTreeMap::new(), interferences: 0, notified: Vec::new() };
        let shared = Arc::new(Shared { state: Mutex::new(inner), faults: Faults::default(), nameservers });
        let door = Door::open(Router::new().fallback(serve).with_state(Arc::clone(&shared))).await;
        Self { door, shared }
    }

    /// The base of its API.
    pub fn url(&self) -> String {
        format!("http://{}", self.door.address)
    }

    /// What goes wrong from now on. The server never throttles: [`Fault::Throttle`] is an error of the proxy in front of it.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Is of another version from now on, such as 4.9.12, which shows the disabled records of one name no more.
    pub fn set_version(&self, version: &str) {
        self.shared.state.lock().version = version.to_owned();
    }

    /// Takes another API key from now on.
    pub fn set_key(&self, key: &str) {
        self.shared.state.lock().key = key.to_owned();
    }

    /// Makes a zone of a kind such as `Native` or `Master`, with its SOA.
    pub fn add_zone(&self, name: &str, kind: &str) {
        let mut state = self.shared.state.lock();
        state.zones.insert(canonical(name), Zone::new(&canonical(name), kind));
        self.shared.publish(&state, &canonical(name));
    }

    /// Removes a zone with its records.
    pub fn remove_zone(&self, name: &str) {
        self.shared.state.lock().zones.remove(&canonical(name));
        self.shared.nameservers.withdraw(name);
    }

    /// The TXT RRset at a name as it stands.
    pub fn txt(&self, owner: &str) -> StoredRrset {
        let state = self.shared.state.lock();
        state.zones.values().find_map(|zone| zone.rrset(&canonical(owner), "TXT")).unwrap_or_default()
    }

    /// Writes an RRset past the API, as a stranger would.
    ///
    /// # Panics
    /// When there is no such zone.
    #[allow(clippy::expect_used, reason = "a test that asks for what cannot be is wrong")]
    pub fn stranger_writes(&self, zone: &str, owner: &str, kind: &str, rrset: StoredRrset) {
        let mut state = self.shared.state.lock();
        let found = state.zones.get_mut(&canonical(zone)).expect("a zone");
        found.write(&canonical(owner), kind, rrset);
        self.shared.publish(&state, &canonical(zone));
    }

    /// The zones whose secondaries were to be notified, in turn.
    pub fn notified(&self) -> Vec<String> {
        self.shared.state.lock().notified.clone()
    }
}

fn canonical(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

async fn serve(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let fault = if method == Method::PATCH { shared.faults.write() } else { shared.faults.read() };
    let path = uri.path().trim_start_matches('/').split('/').map(|part| part.replace("%2A", "*")).collect();
    let call = Call { method, path, query, body: serde_json::from_slice(&body).unwrap_or_default() };
    let mut state = shared.state.lock();
    let refused = match fault {
        Some(Fault::LostRequest) => cut(),
        Some(Fault::ErrorBefore) => Some(Refused(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error".to_owned())),
        Some(Fault::Throttle(_)) => Some(Refused(StatusCode::TOO_MANY_REQUESTS, "Too Many Requests".to_owned())),
        Some(Fault::Unauthorized) => Some(Refused::unauthorized()),
        Some(Fault::Interfere) => {
            state.interfere(&call);
            None
        }
        _ => None,
    };
    let answer = match refused {
        Some(refused) => Err(refused),
        None => shared.answer(&mut state, &headers, &call),
    };
    match fault {
        Some(Fault::ErrorAfter) => Refused(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error".to_owned()).into_response(),
        Some(Fault::LostReply) => cut(),
        _ => answer.unwrap_or_else(IntoResponse::into_response),
    }
}

/// Ends the connection without an answer: the task that serves it unwinds, and no panic hook runs.
fn cut() -> ! {
    std::panic::resume_unwind(Box::new("the connection is cut"))
}

impl Shared {
    fn answer(&self, state: &mut Inner, headers: &HeaderMap, call: &Call) -> Result<Response, Refused> {
        if headers.get("x-api-key").and_then(|key| key.to_str().ok()) != Some(state.key.as_str()) {
            return Err(Refused::unauthorized());
        }
        let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
        let ["api", "v1", "servers", "localhost", rest @ ..] = path.as_slice() else { return Err(Refused::not_found()) };
        match (&call.method, rest) {
            (&Method::GET, []) => {
                let server = json!({"daemon_type": "authoritative", "id": "localhost", "type": "Server", "version": state.version});
                Ok(Json(server).into_response())
            }
            (&Method::GET, ["zones"]) => {
                let named = call.query.get("zone");
                if let Some(name) = named.filter(|name| !name.ends_with('.')) {
                    return Err(Refused::invalid(format!("DNS Name '{name}' is not canonical")));
                }
                let zones = state.zones.values().filter(|zone| named.is_none_or(|name| *name == zone.name));
                Ok(Json(zones.map(Zone::shown).collect::<Value>()).into_response())
            }
            (&Method::GET, ["zones", id]) => {
                let zone = state.zones.get(*id).ok_or_else(Refused::not_found)?;
                let one = call.query.get("rrset_name").map(String::as_str);
                // Servers before 5.0 show them with the whole zone alone.
                let asked = call.query.get("include_disabled").is_some_and(|text| text == "true") && !state.version.starts_with('4');
                let mut shown = zone.shown();
                shown["rrsets"] = zone.shown_rrsets(one, one.is_none() || asked);
                Ok(Json(shown).into_response())
            }
            (&Method::PATCH, ["zones", id]) => {
                let zone = state.zones.get_mut(*id).ok_or_else(Refused::not_found)?;
                let patches = call.body["rrsets"].as_array().cloned().unwrap_or_default();
                // A transaction: all or nothing.
                *zone = zone.clone().patched(&patches).map_err(Refused::invalid)?;
                self.publish(state, id);
                Ok(StatusCode::NO_CONTENT.into_response())
            }
            (&Method::PUT, ["zones", id, "notify"]) => {
                let zone = state.zones.get(*id).ok_or_else(Refused::not_found)?;
                if zone.kind != "Master" {
                    return Err(Refused::invalid(format!("Domain '{id}' is not a primary domain (or has no primary defined)")));
                }
                state.notified.push((*id).to_owned());
                Ok(Json(json!({"result": "Notification queued"})).into_response())
            }
            _ => Err(Refused::not_found()),
        }
    }

    fn publish(&self, state: &Inner, name: &str) {
        if self.nameservers.addresses().is_empty() {
            return;
        }
        if let Some(zone) = state.zones.get(name) {
            self.nameservers.publish(name.trim_end_matches('.'), zone.served());
        }
    }
}

impl Inner {
    /// A stranger writes at the names that a PATCH is about.
    fn interfere(&mut self, call: &Call) {
        let [.., id] = call.path.as_slice() else { return };
        let Some(zone) = self.zones.get_mut(id) else { return };
        for patch in call.body["rrsets"].as_array().into_iter().flatten() {
            self.interferences += 1;
            let owner = patch["name"].as_str().unwrap_or_default();
            let mut rrset = zone.rrset(owner, "TXT").unwrap_or_default();
            if rrset.records.is_empty() {
                rrset.ttl = 3600;
            }
            rrset.records.push(StoredRecord { content: format!("\"interference {}\"", self.interferences), disabled: false });
            zone.write(owner, "TXT", rrset);
        }
    }
}

impl Refused {
    fn unauthorized() -> Self {
        Self(StatusCode::UNAUTHORIZED, "Unauthorized".to_owned())
    }

    fn not_found() -> Self {
        Self(StatusCode::NOT_FOUND, "Not Found".to_owned())
    }

    fn invalid(words: impl Into<String>) -> Self {
        Self(StatusCode::UNPROCESSABLE_ENTITY, words.into())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self.0 {
            // These come from the web server and not from the API.
            StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND => (self.0, self.1).into_response(),
            status => (status, Json(json!({"error": self.1}))).into_response(),
        }
    }
}
