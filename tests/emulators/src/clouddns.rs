//! Google Cloud DNS: the v1 REST API with its preconditions, quotas and errors, and beside it everything that gives Google's tokens: OAuth's token
//! endpoint, the metadata server, the security token service and the IAM credentials API.
//!
//! What it is checked against: Google's discovery document of dns v1, its page of error messages, and the errors that users quote in issues.

mod api;
mod data;
mod tokens;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::{Query, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{Fault, Faults, Nameservers, door::Door};

pub use api::{NewZone, Rrset};
pub use tokens::TokenCalls;

/// The emulator; clones share it. It ends with the last clone.
#[derive(Debug, Clone)]
pub struct CloudDns {
    door: Door,
    shared: Arc<Shared>,
}

/// How "too often" is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Throttling {
    /// 429, with Retry-After.
    TooManyRequests,
    /// 403 with the reason `rateLimitExceeded`, and no word of when to come back.
    Forbidden,
}

/// How an entry of a change is named in an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wording {
    /// `entity.change.deletions[3]`.
    Index,
    /// `entity.change.deletions[a.example.com.][TXT]`.
    Name,
}

/// What a change may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// RRsets added in one change.
    pub additions: usize,
    /// RRsets deleted in one change.
    pub deletions: usize,
    /// Bytes of data in one change.
    pub size: usize,
    /// Records of one RRset.
    pub records: usize,
}

#[derive(Debug)]
struct Shared {
    project: String,
    url: String,
    state: Mutex<Inner>,
    faults: Faults,
    nameservers: Nameservers,
}

#[derive(Debug)]
struct Inner {
    zones: BTreeMap<String, api::Zone>,
    tokens: tokens::Tokens,
    quota: Quota,
    /// Permissions that nobody has.
    denied: BTreeSet<String>,
    throttling: Throttling,
    wording: Wording,
    polls: u32,
    page: usize,
    rate: Option<(u32, Duration)>,
    window: Option<(Instant, u32)>,
    changes: Vec<(usize, usize)>,
    interferences: u64,
    last_id: u64,
}

impl CloudDns {
    /// Starts it on a port of loopback, with one project and no zone.
    ///
    /// # Panics
    /// When no port can be had.
    #[allow(clippy::expect_used, reason = "a test cannot go on without it")]
    pub async fn start(project: &str, nameservers: Nameservers) -> Self {
        let inner = Inner {
            zones: BTreeMap::new(),
            tokens: tokens::Tokens::default(),
            quota: Quota { additions: 1000, deletions: 1000, size: 100_000, records: 100 },
            denied: BTreeSet::new(),
            throttling: Throttling::TooManyRequests,
            wording: Wording::Index,
            polls: 1,
            page: 100,
            rate: None,
            window: None,
            changes: Vec::new(),
            interferences: 0,
            last_id: 0,
        };
        let (listener, address) = Door::reserve().await;
        let (project, url) = (project.to_owned(), format!("http://{address}"));
        let shared = Arc::new(Shared { project, url, state: Mutex::new(inner), faults: Faults::default(), nameservers });
        let door = Door::serve(listener, address, Router::new().fallback(serve).with_state(Arc::clone(&shared)));
        Self { door, shared }
    }

    /// What goes where `https://dns.googleapis.com` would; the IAM credentials API is there too.
    pub fn url(&self) -> String {
        self.shared.url.clone()
    }

    /// What `GCE_METADATA_HOST` has to say to have this metadata server asked.
    pub fn metadata_host(&self) -> String {
        self.door.address.to_string()
    }

    /// What goes wrong from now on with calls of the DNS API.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// How "too often" is said from now on; at first, 429.
    pub fn throttle_with(&self, throttling: Throttling) {
        self.shared.state.lock().throttling = throttling;
    }

    /// How entries of a change are named in errors from now on; at first, by index.
    pub fn name_entries_by(&self, wording: Wording) {
        self.shared.state.lock().wording = wording;
    }

    /// So many looks at a change find it pending; at first, one.
    pub fn set_polls(&self, polls: u32) {
        self.shared.state.lock().polls = polls;
    }

    /// The largest page of a listing; at first, 100.
    pub fn set_page(&self, entries: usize) {
        self.shared.state.lock().page = entries.max(1);
    }

    /// What a change may hold from now on.
    pub fn set_quota(&self, quota: Quota) {
        self.shared.state.lock().quota = quota;
    }

    /// So many calls in each window of so long; more are throttled.
    pub fn limit_rate(&self, limit: Option<(u32, Duration)>) {
        self.shared.state.lock().rate = limit;
    }

    /// Nobody has this permission (such as `dns.managedZones.list`) from now on.
    pub fn deny(&self, permission: &str) {
        self.shared.state.lock().denied.insert(permission.to_owned());
    }

    /// Additions and deletions of each change that was made through the API.
    pub fn changes(&self) -> Vec<(usize, usize)> {
        self.shared.state.lock().changes.clone()
    }
}

/// A refusal in Google's form.
#[derive(Debug)]
struct Refused {
    status: StatusCode,
    reason: &'static str,
    message: String,
    retry_after: Option<Duration>,
}

impl Refused {
    fn new(status: u16, reason: &'static str, message: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, reason, message: message.into(), retry_after: None }
    }

    fn unauthorized() -> Self {
        Self::new(
            401,
            "authError",
            "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential.",
        )
    }

    fn throttled(throttling: Throttling, pause: Duration) -> Self {
        match throttling {
            Throttling::TooManyRequests => {
                Self { retry_after: Some(pause), ..Self::new(429, "rateLimitExceeded", "Resource has been exhausted (e.g. check quota).") }
            }
            Throttling::Forbidden => Self::new(403, "rateLimitExceeded", "Rate Limit Exceeded"),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (code, message) = (self.status.as_u16(), self.message);
        let status = match code {
            400 => "INVALID_ARGUMENT",
            401 => "UNAUTHENTICATED",
            403 => "PERMISSION_DENIED",
            404 => "NOT_FOUND",
            409 => "ALREADY_EXISTS",
            412 => "FAILED_PRECONDITION",
            429 => "RESOURCE_EXHAUSTED",
            _ => "INTERNAL",
        };
        let mut error = json!({"message": message, "domain": "global", "reason": self.reason});
        if code == 401 {
            error["location"] = json!("Authorization");
            error["locationType"] = json!("header");
        }
        let body = json!({"error": {"code": code, "message": message, "errors": [error], "status": status}});
        let mut response = (self.status, axum::Json(body)).into_response();
        if let Some(pause) = self.retry_after
            && let Ok(value) = HeaderValue::from_str(&pause.as_secs().max(1).to_string())
        {
            response.headers_mut().insert(RETRY_AFTER, value);
        }
        response
    }
}

/// A call of the DNS API.
struct Call {
    method: Method,
    /// What comes after `/dns/v1/projects/`, decoded.
    path: Vec<String>,
    query: BTreeMap<String, String>,
    body: Value,
}

async fn serve(State(shared): State<Arc<Shared>>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let path: Vec<String> = uri.path().trim_start_matches('/').split('/').map(decoded).collect();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let rest = match path.as_slice() {
        ["dns", "v1", "projects", rest @ ..] => rest,
        other => return tokens::serve(&shared, &method, other, &headers, &body),
    };
    let call = Call {
        path: rest.iter().map(|segment| (*segment).to_owned()).collect(),
        query: fields(&uri),
        body: serde_json::from_slice(&body).unwrap_or_default(),
        method,
    };
    let fault = if call.method == Method::GET { shared.faults.read() } else { shared.faults.write() };
    let mut state = shared.state.lock();
    let refused = match fault {
        Some(Fault::LostRequest) => cut(),
        Some(Fault::ErrorBefore) => Some(Refused::new(500, "backendError", "Internal error encountered.")),
        Some(Fault::Throttle(pause)) => Some(Refused::throttled(state.throttling, pause)),
        Some(Fault::Unauthorized) => Some(Refused::unauthorized()),
        Some(Fault::Interfere) => {
            shared.interfere(&mut state, &call);
            None
        }
        _ => state.too_often(),
    };
    let answer = match refused {
        Some(refused) => Err(refused),
        None => shared.answer(&mut state, &headers, &call),
    };
    match fault {
        Some(Fault::ErrorAfter) => Refused::new(500, "backendError", "Internal error encountered.").into_response(),
        Some(Fault::LostReply) => cut(),
        _ => answer.map_or_else(IntoResponse::into_response, IntoResponse::into_response),
    }
}

/// Ends the connection without an answer: the task that serves it unwinds, and no panic hook runs.
fn cut() -> ! {
    std::panic::resume_unwind(Box::new("the connection is cut"))
}

impl Inner {
    fn too_often(&mut self) -> Option<Refused> {
        let (most, length) = self.rate?;
        let now = Instant::now();
        let (began, count) = self.window.filter(|(began, _)| now - *began < length).unwrap_or((now, 0));
        self.window = Some((began, count + 1));
        (count >= most).then(|| Refused::throttled(self.throttling, length.saturating_sub(now - began)))
    }
}

/// The fields of a query.
fn fields(uri: &Uri) -> BTreeMap<String, String> {
    Query::<BTreeMap<String, String>>::try_from_uri(uri).map(|Query(fields)| fields).unwrap_or_default()
}

/// A segment of a path without its percent signs.
fn decoded(segment: &str) -> String {
    let bytes = segment.as_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%').then(|| segment.get(at + 1..at + 3)).flatten().and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(escaped.unwrap_or(byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}
