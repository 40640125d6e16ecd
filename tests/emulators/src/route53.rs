//! Route 53 as a gate before ministack: ministack keeps zones and records and answers as Route 53 does, and the gate adds what it lacks.
//!
//! - names in the form in which Route 53 keeps them (`\052` for `*`), whatever form they are written in;
//! - five requests a second for the account, and `Throttling` beyond;
//! - the limits of a batch (1,000 records, 32,000 characters), what may stand beside what, and every fault of a refused batch in one answer;
//! - a change that is `PENDING` for as long as one likes;
//! - faults on demand, calls counted, and each zone served by DNS as soon as it changes.
//!
//! Other services (the token service) pass through as they are.
#![allow(clippy::expect_used, reason = "a test fails by panicking, in its tools too")]

mod batch;
mod names;
mod record;
mod xml;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use parking_lot::Mutex;

pub use self::record::RecordSet;
use self::{batch::Operation, xml::Element};
use crate::{Fault, Faults, Nameservers, door::Door};

const NAMESPACE: &str = "https://route53.amazonaws.com/doc/2013-04-01/";
const PREFIX: &str = "/2013-04-01";
const MOST_BODY: usize = 1024 * 1024;
/// The credential of the gate's own calls: ministack takes any.
const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/route53/aws4_request, SignedHeaders=host, Signature=0";
/// Requests a second for an account, and as many at once.
const RATE: f64 = 5.0;
/// What a request may come early by: a client that keeps the rate exactly is not punished for a hiccup of the network.
const SLACK: f64 = 1.0;

/// The gate; clones share it. It ends with the last.
#[derive(Debug, Clone)]
pub struct Route53 {
    door: Door,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Where ministack is, as `http://127.0.0.1:4566`.
    upstream: String,
    client: reqwest::Client,
    faults: Faults,
    nameservers: Nameservers,
    state: Mutex<Inner>,
    /// One change at a time, so that zones are published in the order of their changes.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Inner {
    calls: BTreeMap<String, u64>,
    throttled: u64,
    bucket: Option<Bucket>,
    /// The one access key that is good, if not any is.
    only: Option<String>,
    /// How long a change is pending; ministack's own way (until it was asked for once) if not set.
    pending: Option<Duration>,
    changes: HashMap<String, Instant>,
    strangers: u64,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Route53 {
    /// Starts a gate before the ministack at `upstream`; zones are served by `nameservers`. The rate is not enforced yet.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn start(upstream: SocketAddr, nameservers: Nameservers) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let shared = Shared {
            upstream: format!("http://{upstream}"),
            client,
            faults: Faults::default(),
            nameservers,
            state: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        };
        let shared = Arc::new(shared);
        let door = Door::open(Router::new().fallback(serve).with_state(Arc::clone(&shared))).await;
        Self { door, shared }
    }

    /// What goes where `https://route53.amazonaws.com` would, and where the token service would.
    pub fn url(&self) -> String {
        format!("http://{}", self.door.address)
    }

    /// What goes wrong from now on.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Enforces five requests a second, or no longer.
    pub fn limit_rate(&self, on: bool) {
        self.shared.state.lock().bucket = on.then(|| Bucket { tokens: RATE + SLACK, at: Instant::now() });
    }

    /// From now on one access key alone is good, and it is good for everything.
    pub fn allow_only(&self, access_key: &str) {
        self.shared.state.lock().only = Some(access_key.to_owned());
    }

    /// From now on a change is `PENDING` for so long.
    pub fn pend(&self, pending: Duration) {
        self.shared.state.lock().pending = Some(pending);
    }

    /// The calls so far, by the API's name of the operation; the token service's are there too.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.shared.state.lock().calls.clone()
    }

    /// The calls so far of one operation.
    pub fn count(&self, operation: &str) -> u64 {
        self.shared.state.lock().calls.get(operation).copied().unwrap_or_default()
    }

    /// How many calls were answered with `Throttling`.
    pub fn throttled(&self) -> u64 {
        self.shared.state.lock().throttled
    }

    /// Makes a hosted zone, not through the gate, and gives its id. A private one is not served.
    ///
    /// # Panics
    /// When ministack will not.
    pub async fn create_zone(&self, name: &str, private: bool) -> String {
        let vpc = if private { "<VPC><VPCRegion>us-east-1</VPCRegion><VPCId>vpc-1</VPCId></VPC>" } else { "" };
        let reference = uuid::Uuid::new_v4();
        let body = format!(
            "<CreateHostedZoneRequest xmlns=\"{NAMESPACE}\"><Name>{name}</Name>{vpc}<CallerReference>{reference}</CallerReference></CreateHostedZoneRequest>"
        );
        let root = self.shared.ask(Method::POST, "/hostedzone", body).await.expect("a zone");
        let id = bare(root.child("HostedZone").map_or("", |zone| zone.value("Id"))).to_owned();
        assert!(!id.is_empty(), "no zone {name} was made: {root:?}");
        self.shared.publish(&id).await;
        id
    }

    /// Removes a hosted zone with everything in it, not through the gate.
    ///
    /// # Panics
    /// When ministack will not.
    pub async fn delete_zone(&self, id: &str) {
        let (name, _) = self.shared.zone(id).await.expect("the zone");
        let records = self.records(id).await;
        let rest: Vec<_> = records.iter().filter(|set| !(set.name == name && matches!(set.kind.as_str(), "SOA" | "NS"))).collect();
        let changes: String = rest.iter().map(|set| set.change("DELETE")).collect();
        if !changes.is_empty() {
            self.shared.change(id, &changes).await.expect("an empty zone");
        }
        self.shared.ask(Method::DELETE, &format!("/hostedzone/{id}"), String::new()).await.expect("no zone");
        self.shared.nameservers.withdraw(&name);
    }

    /// All record sets of a zone as they stand, SOA and NS included, read not through the gate.
    ///
    /// # Panics
    /// When there is no such zone.
    pub async fn records(&self, zone: &str) -> Vec<RecordSet> {
        self.shared.records(zone).await.expect("the zone's records")
    }

    /// The values (Route 53's text) and the TTL of the simple TXT RRset at an owner; none if there is none.
    ///
    /// # Panics
    /// When there is no such zone.
    pub async fn txt(&self, zone: &str, owner: &str) -> Option<(u32, Vec<String>)> {
        let owner = names::kept(owner);
        let set = self.records(zone).await.into_iter().find(|set| set.name == owner && set.kind == "TXT" && set.identifier.is_none())?;
        Some((set.ttl.unwrap_or_default(), set.values))
    }

    /// Somebody else puts a record set in the place of the one that stands there (same owner, type and identifier), not through the gate; one
    /// without values and alias is removed.
    ///
    /// # Panics
    /// When ministack will not.
    pub async fn stranger(&self, zone: &str, set: RecordSet) {
        let _turn = self.shared.turn.lock().await;
        self.shared.stranger(zone, set).await;
    }
}

async fn serve(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MOST_BODY).await else { return error(StatusCode::BAD_REQUEST, "InvalidInput", "The body is too large.") };
    let operation = operation(&parts.method, parts.uri.path(), &body);
    *shared.state.lock().calls.entry(operation.clone()).or_default() += 1;
    if !parts.uri.path().starts_with(PREFIX) {
        return shared.forward(&parts.method, &parts.uri, &parts.headers, body).await;
    }
    let writes = parts.method != Method::GET;
    if !shared.take_token() {
        return error(StatusCode::BAD_REQUEST, "Throttling", "Rate exceeded");
    }
    let fault = if writes { shared.faults.write() } else { shared.faults.read() };
    let fault = if shared.is_known(&parts.headers) { fault } else { Some(Fault::Unauthorized) };
    let internal = || error(StatusCode::INTERNAL_SERVER_ERROR, "InternalFailure", "We encountered an internal error. Please try again.");
    match fault {
        // Route 53 never says for how long.
        Some(Fault::Throttle(_)) => {
            shared.state.lock().throttled += 1;
            return error(StatusCode::BAD_REQUEST, "Throttling", "Rate exceeded");
        }
        Some(Fault::ErrorBefore) => return internal(),
        Some(Fault::LostRequest) => cut(),
        Some(Fault::Unauthorized) => {
            return error(StatusCode::FORBIDDEN, "InvalidClientTokenId", "The security token included in the request is invalid.");
        }
        _ => {}
    }
    let answer = match operation.as_str() {
        "ChangeResourceRecordSets" => shared.change_sets(&parts.uri, &parts.headers, &body, fault == Some(Fault::Interfere)).await,
        "GetChange" => shared.get_change(&parts.uri, &parts.headers).await,
        "CreateHostedZone" | "DeleteHostedZone" => shared.change_zones(&parts.method, &parts.uri, &parts.headers, body).await,
        _ => shared.forward(&parts.method, &parts.uri, &parts.headers, body).await,
    };
    match fault {
        Some(Fault::ErrorAfter) => internal(),
        Some(Fault::LostReply) => cut(),
        _ => answer,
    }
}

/// Ends the connection without an answer: the task that serves it unwinds, and no panic hook runs.
fn cut() -> ! {
    std::panic::resume_unwind(Box::new("the connection is cut"))
}

/// The API's name of what is asked; of other services the `Action`.
fn operation(method: &Method, path: &str, body: &[u8]) -> String {
    let Some(path) = path.strip_prefix(PREFIX) else {
        let body = String::from_utf8_lossy(body);
        return body.split('&').find_map(|pair| pair.strip_prefix("Action=")).unwrap_or("other").to_owned();
    };
    let parts: Vec<_> = path.trim_matches('/').split('/').collect();
    let name = match (method.as_str(), parts.as_slice()) {
        ("GET", ["hostedzone"]) => "ListHostedZones",
        ("POST", ["hostedzone"]) => "CreateHostedZone",
        ("GET", ["hostedzonesbyname"]) => "ListHostedZonesByName",
        ("GET", ["hostedzone", _]) => "GetHostedZone",
        ("DELETE", ["hostedzone", _]) => "DeleteHostedZone",
        ("GET", ["hostedzone", _, "rrset"]) => "ListResourceRecordSets",
        ("POST", ["hostedzone", _, "rrset"]) => "ChangeResourceRecordSets",
        ("GET", ["change", _]) => "GetChange",
        _ => "other",
    };
    name.to_owned()
}

impl Shared {
    /// True if the access key that a request is signed with is good.
    fn is_known(&self, headers: &HeaderMap) -> bool {
        let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        self.state.lock().only.as_ref().is_none_or(|key| authorization.contains(&format!("Credential={key}/")))
    }

    fn take_token(&self) -> bool {
        let mut state = self.state.lock();
        let Some(bucket) = &mut state.bucket else { return true };
        let now = Instant::now();
        bucket.tokens = (bucket.tokens + now.duration_since(bucket.at).as_secs_f64() * RATE).min(RATE + SLACK);
        bucket.at = now;
        let taken = bucket.tokens >= 1.0;
        if taken {
            bucket.tokens -= 1.0;
        } else {
            state.throttled += 1;
        }
        taken
    }

    /// Passes a request on to ministack, the names in its query brought into the form in which they are kept.
    async fn forward(&self, method: &Method, uri: &Uri, headers: &HeaderMap, body: Bytes) -> Response {
        let is_listing = uri.path().ends_with("/rrset");
        let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let query = pairs.map(|pair| match pair.split_once('=') {
            Some(("name", name)) if is_listing => format!("name={}", percent_encode(&names::kept(&percent_decode(name)))),
            _ => pair.to_owned(),
        });
        let query: Vec<String> = query.collect();
        let url = format!("{}{}?{}", self.upstream, uri.path(), query.join("&"));
        let mut request = self.client.request(method.clone(), url).body(body);
        for (name, value) in headers.iter().filter(|(name, _)| !matches!(**name, header::HOST | header::CONTENT_LENGTH | header::EXPECT)) {
            request = request.header(name, value);
        }
        let Ok(answer) = request.send().await else {
            return error(StatusCode::BAD_GATEWAY, "ServiceUnavailable", "ministack does not answer.");
        };
        let (status, kind) = (answer.status(), answer.headers().get(header::CONTENT_TYPE).cloned());
        let Ok(body) = answer.bytes().await else { return error(StatusCode::BAD_GATEWAY, "ServiceUnavailable", "ministack broke off.") };
        let mut response = (status, body).into_response();
        if let Some(kind) = kind {
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        response
    }

    async fn change_sets(&self, uri: &Uri, headers: &HeaderMap, body: &[u8], interfere: bool) -> Response {
        let id = uri.path().trim_matches('/').split('/').nth(2).unwrap_or_default();
        let Some(mut request) = Element::parse(&String::from_utf8_lossy(body)) else {
            return error(StatusCode::BAD_REQUEST, "InvalidInput", "The body is not XML.");
        };
        batch::keep_names(&mut request);
        let operations = batch::operations(&request);
        let _turn = self.turn.lock().await;
        if interfere && let Some(Operation { set, .. }) = operations.first() {
            self.interfere(id, &set.name).await;
        }
        let (Some((zone, _)), Some(standing)) = (self.zone(id).await, self.records(id).await) else {
            return error(StatusCode::NOT_FOUND, "NoSuchHostedZone", &format!("No hosted zone found with ID: {id}"));
        };
        let mut wrong = batch::malformed(&zone, &operations);
        if wrong.is_empty() {
            wrong = batch::conflicts(&zone, &standing, &operations);
        }
        if !wrong.is_empty() {
            return error(StatusCode::BAD_REQUEST, "InvalidChangeBatch", &format!("[{}]", wrong.join(", ")));
        }
        let answer = self.forward(&Method::POST, uri, headers, request.write().into()).await;
        if answer.status().is_success() {
            self.publish(id).await;
        }
        self.noted(answer).await
    }

    /// Notes when a change was made.
    async fn noted(&self, answer: Response) -> Response {
        let (parts, body) = answer.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
        let root = Element::parse(&String::from_utf8_lossy(&body)).unwrap_or_default();
        if let Some(change) = root.child("ChangeInfo") {
            self.state.lock().changes.insert(bare(change.value("Id")).to_owned(), Instant::now());
        }
        Response::from_parts(parts, Body::from(body))
    }

    async fn get_change(&self, uri: &Uri, headers: &HeaderMap) -> Response {
        let id = bare(uri.path());
        let age = {
            let state = self.state.lock();
            state.pending.zip(state.changes.get(id)).map(|(pending, at)| at.elapsed() >= pending)
        };
        let Some(done) = age else { return self.forward(&Method::GET, uri, headers, Bytes::new()).await };
        let status = if done { "INSYNC" } else { "PENDING" };
        let info = format!(
            "<ChangeInfo><Id>/change/{id}</Id><Status>{status}</Status><SubmittedAt>2026-01-01T00:00:00.000Z</SubmittedAt></ChangeInfo>"
        );
        document(StatusCode::OK, &format!("<GetChangeResponse xmlns=\"{NAMESPACE}\">{info}</GetChangeResponse>"))
    }

    async fn change_zones(&self, method: &Method, uri: &Uri, headers: &HeaderMap, body: Bytes) -> Response {
        let before = if *method == Method::DELETE { self.zone(bare(uri.path())).await } else { None };
        let answer = self.noted(self.forward(method, uri, headers, body).await).await;
        if !answer.status().is_success() {
            return answer;
        }
        if let Some((name, _)) = before {
            self.nameservers.withdraw(&name);
            return answer;
        }
        let (parts, body) = answer.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
        let root = Element::parse(&String::from_utf8_lossy(&body)).unwrap_or_default();
        if let Some(zone) = root.child("HostedZone") {
            self.publish(bare(zone.value("Id"))).await;
        }
        Response::from_parts(parts, Body::from(body))
    }

    /// Asks ministack for something of the gate's own.
    async fn ask(&self, method: Method, path: &str, body: String) -> Option<Element> {
        let request = self.client.request(method, format!("{}{PREFIX}{path}", self.upstream)).header(header::AUTHORIZATION, AUTHORIZATION);
        let answer = request.body(body).send().await.ok()?.error_for_status().ok()?;
        Element::parse(&answer.text().await.ok()?)
    }

    async fn change(&self, zone: &str, changes: &str) -> Option<Element> {
        let body = format!(
            "<ChangeResourceRecordSetsRequest xmlns=\"{NAMESPACE}\"><ChangeBatch><Changes>{changes}</Changes></ChangeBatch></ChangeResourceRecordSetsRequest>"
        );
        self.ask(Method::POST, &format!("/hostedzone/{zone}/rrset/"), body).await
    }

    /// The name of a zone, and whether it is private.
    async fn zone(&self, id: &str) -> Option<(String, bool)> {
        let root = self.ask(Method::GET, &format!("/hostedzone/{id}"), String::new()).await?;
        let zone = root.child("HostedZone")?;
        let private = zone.child("Config").is_some_and(|config| config.value("PrivateZone") == "true");
        Some((names::kept(zone.value("Name")), private))
    }

    async fn records(&self, zone: &str) -> Option<Vec<RecordSet>> {
        let (mut sets, mut from) = (Vec::new(), String::new());
        loop {
            let page = self.ask(Method::GET, &format!("/hostedzone/{zone}/rrset?maxitems=300{from}"), String::new()).await?;
            sets.extend(page.list("ResourceRecordSets").iter().map(RecordSet::read));
            if page.value("IsTruncated") != "true" {
                return Some(sets);
            }
            let next = [("name", "NextRecordName"), ("type", "NextRecordType"), ("identifier", "NextRecordIdentifier")];
            from = next.iter().map(|(key, element)| format!("&{key}={}", percent_encode(page.value(element)))).collect();
        }
    }

    async fn publish(&self, zone: &str) {
        if let (Some((name, false)), Some(records)) = (self.zone(zone).await, self.records(zone).await) {
            // The servers' own names and numbers are made up by those who serve.
            let own = |set: &&RecordSet| set.name != name || !matches!(set.kind.as_str(), "NS" | "SOA");
            let records = records.iter().filter(own).flat_map(RecordSet::served).collect();
            self.nameservers.publish(&name, records);
        }
    }

    async fn stranger(&self, zone: &str, set: RecordSet) {
        let standing = self.records(zone).await.unwrap_or_default();
        let old = standing.iter().find(|old| (&old.name, &old.kind, &old.identifier) == (&set.name, &set.kind, &set.identifier));
        let mut changes = old.map(|old| old.change("DELETE")).unwrap_or_default();
        if !set.values.is_empty() || set.others.contains_key("AliasTarget") {
            changes += &set.change("CREATE");
        }
        if !changes.is_empty() {
            assert!(self.change(zone, &changes).await.is_some(), "ministack does not let a stranger write {set:?}");
            self.publish(zone).await;
        }
    }

    /// A stranger adds a value of its own to the TXT at an owner.
    async fn interfere(&self, zone: &str, owner: &str) {
        let number = {
            let mut state = self.state.lock();
            state.strangers += 1;
            state.strangers
        };
        let standing = self.records(zone).await.unwrap_or_default();
        let old = standing.into_iter().find(|set| set.name == owner && set.kind == "TXT" && set.identifier.is_none());
        let mut set = old.unwrap_or_else(|| RecordSet::txt(owner, 300, &[]));
        set.values.push(format!("\"stranger-{number}\""));
        self.stranger(zone, set).await;
    }
}

fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let kind = if status.is_server_error() { "Receiver" } else { "Sender" };
    let request = uuid::Uuid::new_v4();
    document(
        status,
        &format!(
            "<ErrorResponse xmlns=\"{NAMESPACE}\"><Error><Type>{kind}</Type><Code>{code}</Code><Message>{}</Message></Error><RequestId>{request}</RequestId></ErrorResponse>",
            xml::escape(message)
        ),
    )
}

fn document(status: StatusCode, text: &str) -> Response {
    (status, [(header::CONTENT_TYPE, "text/xml")], format!("<?xml version=\"1.0\"?>\n{text}")).into_response()
}

/// An identifier without the path before it.
fn bare(id: &str) -> &str {
    id.trim_end_matches('/').rsplit('/').next().unwrap_or(id)
}

fn percent_encode(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok()).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (byte, hex) {
            (b'%', Some(decoded)) => {
                bytes.push(decoded);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
