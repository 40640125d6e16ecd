//! Azure DNS and what is needed to reach it: Microsoft Entra's token endpoint, the metadata service of virtual machines, the identity service of App
//! Service, and the resource manager with `Microsoft.Network/dnsZones` in version 2018-05-01.
//!
//! All of them answer at one address, by HTTP and by HTTPS (Microsoft's own libraries sign in by HTTPS alone).

mod arm;
mod doors;
mod entra;
mod zones;

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{ConnectInfo, State as Shared},
    http::{HeaderValue, Request, Response, StatusCode},
};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::task::AbortHandle;

use crate::{Fault, Faults, Nameservers};

pub use zones::RecordSet;

/// The subscription.
pub const SUBSCRIPTION: &str = "4ab0c3f2-6f6b-4f2f-9a51-0d2e5a4d7b10";
/// The tenant.
pub const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
/// The application (client) id.
pub const CLIENT: &str = "0d5ed1e6-11ab-4d0a-9c3a-0f6a51a6a8f1";
/// Its client secret.
pub const SECRET: &str = "s3cr3t~of.the-application_Q";
/// The client id of the machine's user-assigned identity.
pub const IDENTITY: &str = "9c41e2a5-6d3b-4e0c-8a2f-5b7d9e1f3a60";
/// What `IDENTITY_HEADER` holds in App Service.
pub const APP_SERVICE_HEADER: &str = "853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a";

/// Largest request.
const MOST_BYTES: usize = 1024 * 1024;
/// How long a request may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// The running cloud; clones share it. It ends with the last clone.
#[derive(Debug, Clone)]
pub struct AzureDns {
    cloud: Arc<Cloud>,
    _servers: Arc<Servers>,
}

/// What the doors share.
struct Cloud {
    state: Mutex<State>,
    faults: Faults,
    token_faults: Faults,
    nameservers: Nameservers,
    /// The URLs of both doors.
    bases: [String; 2],
    /// PEM of the authority behind the second.
    ca: String,
    /// What tokens may be for.
    audiences: Vec<String>,
}

#[derive(Default)]
struct State {
    zones: Vec<zones::Zone>,
    /// Resource groups without a zone.
    groups: Vec<String>,
    entra: entra::Entra,
    rates: arm::Rates,
    /// Writes to come that meet another operation on the same object.
    conflicts: u32,
    interfered: u32,
    /// Most entries of a page, whatever is asked for.
    page: Option<usize>,
    /// Where lists go on, instead of here.
    elsewhere: Option<String>,
    /// The only place where the credential has rights.
    scope: Option<String>,
    /// Zones that are gone, and have to be taken from the name servers.
    withdrawn: Vec<String>,
    created: usize,
}

impl AzureDns {
    /// Starts it; each change is published at `nameservers`.
    ///
    /// # Panics
    /// When it cannot listen on loopback.
    pub async fn start(nameservers: Nameservers) -> Self {
        let (tls, ca) = doors::tls();
        let doors = [doors::Door::open(None).await, doors::Door::open(Some(tls)).await];
        let bases = [format!("http://{}", doors[0].address()), format!("https://{}", doors[1].address())];
        let audiences = [&bases[..], &["https://management.azure.com".to_owned()]].concat();
        let cloud = Arc::new(Cloud {
            state: Mutex::default(),
            faults: Faults::default(),
            token_faults: Faults::default(),
            nameservers,
            bases,
            ca,
            audiences,
        });
        let mut tasks = Vec::new();
        for (at, door) in doors.into_iter().enumerate() {
            let cloud = Arc::clone(&cloud);
            let handle = move |shared, cut, request| serve(shared, cut, request, at);
            let service = Router::new().fallback(handle).with_state(cloud).into_make_service_with_connect_info::<doors::Cut>();
            tasks.push(tokio::spawn(async move { axum::serve(door, service).await }).abort_handle());
        }
        Self { cloud, _servers: Arc::new(Servers(tasks)) }
    }

    /// Authority, resource manager and metadata service by HTTP.
    pub fn url(&self) -> &str {
        &self.cloud.bases[0]
    }

    /// The same by HTTPS.
    pub fn https_url(&self) -> &str {
        &self.cloud.bases[1]
    }

    /// The value of `IDENTITY_ENDPOINT` in App Service.
    pub fn app_service(&self) -> String {
        format!("{}/msi/token", self.url())
    }

    /// PEM of the authority behind its HTTPS.
    pub fn ca(&self) -> &str {
        &self.cloud.ca
    }

    /// What goes wrong with calls of the resource manager, and how many there were; tokens are apart.
    pub fn faults(&self) -> &Faults {
        &self.cloud.faults
    }

    /// What goes wrong with requests for a token; all of them count as reads.
    pub fn token_faults(&self) -> &Faults {
        &self.cloud.token_faults
    }

    /// Requests for a token so far, whomever they went to.
    pub fn token_calls(&self) -> u64 {
        self.cloud.state.lock().entra.calls
    }

    /// Makes a certificate and registers it with the application; gives PEM with the certificate and its RSA key.
    pub fn issue_certificate(&self) -> String {
        let (der, pem) = doors::application_certificate();
        self.cloud.state.lock().entra.certificates.push(der);
        pem
    }

    /// The certificates that were registered are good no longer, and neither are the tokens that were given.
    pub fn forget_certificates(&self) {
        let mut state = self.cloud.state.lock();
        state.entra.certificates.clear();
        state.entra.forget();
    }

    /// Trusts a token of another issuer, word by word.
    pub fn trust_assertion(&self, token: &str) {
        self.cloud.state.lock().entra.assertions.insert(token.to_owned());
    }

    /// The application's client secret from now on; `None`: no secret is good. Tokens that were given until now are good no longer.
    pub fn set_secret(&self, secret: Option<&str>) {
        let mut state = self.cloud.state.lock();
        state.entra.secret = secret.map(str::to_owned);
        state.entra.forget();
    }

    /// No token that was given until now is good any longer.
    pub fn expire_tokens(&self) {
        self.cloud.state.lock().entra.forget();
    }

    /// How long new tokens live.
    pub fn token_lifetime(&self, lifetime: Duration) {
        self.cloud.state.lock().entra.lifetime = Some(lifetime);
    }

    /// The credential has rights at this resource (an id) and below it alone; `None`: everywhere.
    pub fn restrict(&self, scope: Option<&str>) {
        self.cloud.state.lock().scope = scope.map(str::to_owned);
    }

    /// Pages hold no more entries than this, whatever is asked for.
    pub fn page_size(&self, entries: usize) {
        self.cloud.state.lock().page = Some(entries);
    }

    /// The next pages of lists are said to be at this base URL.
    pub fn lists_go_on_at(&self, base: &str) {
        self.cloud.state.lock().elsewhere = Some(base.to_owned());
    }

    /// Refuses what goes beyond the documented rates, as the resource manager and the DNS service do.
    pub fn enforce_rates(&self) {
        self.cloud.state.lock().rates.enforced = true;
    }

    /// The next writes meet another operation on the same object (409), as happens after throttling.
    pub fn pending_operations(&self, writes: u32) {
        self.cloud.state.lock().conflicts = writes;
    }

    /// Makes an empty resource group.
    pub fn create_group(&self, group: &str) {
        self.cloud.state.lock().groups.push(group.to_owned());
    }

    /// Makes a zone; gives its id.
    pub fn create_zone(&self, group: &str, name: &str) -> String {
        self.create(group, name, None)
    }

    /// Makes a zone that is served by these servers, as far as the API says; gives its id.
    pub fn create_zone_at(&self, group: &str, name: &str, nameservers: &[&str]) -> String {
        self.create(group, name, Some(nameservers.iter().map(|name| (*name).to_owned()).collect()))
    }

    fn create(&self, group: &str, name: &str, nameservers: Option<Vec<String>>) -> String {
        let mut state = self.cloud.state.lock();
        let at = state.create(group, name, nameservers);
        state.publish(&self.cloud.nameservers);
        state.zones[at].id(SUBSCRIPTION)
    }

    /// Deletes a zone.
    pub fn delete_zone(&self, id: &str) {
        let mut state = self.cloud.state.lock();
        let name = state.zone(id).name.clone();
        state.zones.retain(|zone| !zone.id(SUBSCRIPTION).eq_ignore_ascii_case(id));
        state.withdrawn.push(name);
        state.publish(&self.cloud.nameservers);
    }

    /// The API says of the zone that it is private, as a preview of private zones did.
    pub fn hide_zone(&self, id: &str) {
        self.cloud.state.lock().zone(id).public = false;
    }

    /// Sets how many records a record set of the zone may have.
    pub fn most_records(&self, id: &str, records: usize) {
        self.cloud.state.lock().zone(id).most_records = records;
    }

    /// All record sets of a zone, as they stand; none of a zone that is gone.
    pub fn record_sets(&self, id: &str) -> Vec<RecordSet> {
        self.cloud.state.lock().find(id).map(|zone| zone.sets.values().cloned().collect()).unwrap_or_default()
    }

    /// The TXT record set of a name relative to the zone (`@` at the apex).
    pub fn txt(&self, id: &str, relative: &str) -> Option<RecordSet> {
        self.cloud.state.lock().find(id)?.sets.get(&("TXT".to_owned(), relative.to_ascii_lowercase())).cloned()
    }

    /// The TXT values of a name relative to the zone, the chunks of each, in their order.
    pub fn values(&self, id: &str, relative: &str) -> Vec<Vec<String>> {
        let set = self.txt(id, relative);
        let records = set.as_ref().and_then(|set| set.records.1.as_array()).cloned().unwrap_or_default();
        let chunks = |record: &Value| {
            let chunks = record["value"].as_array().cloned().unwrap_or_default();
            chunks.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        records.iter().map(chunks).collect()
    }

    /// A stranger writes a TXT record set, whatever stands there: `values` are the chunks of each record.
    pub fn stranger_sets(&self, id: &str, relative: &str, ttl: u64, metadata: &[(&str, &str)], values: &[&[&str]]) {
        let metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        self.written(id, |zone| zone.set("TXT", relative, ttl, metadata, values.iter().map(|chunks| json!({ "value": chunks })).collect()));
    }

    /// A stranger writes a record set of any type with these records, in the form of the API.
    pub fn stranger_sets_other(&self, id: &str, kind: &str, relative: &str, ttl: u64, records: Value) {
        self.written(id, |zone| zone.set(kind, relative, ttl, Map::new(), records));
    }

    /// A stranger adds a TXT record of these chunks to what stands there; the TTL is for a record set that is new.
    pub fn stranger_adds(&self, id: &str, relative: &str, ttl: u64, chunks: &[&str]) {
        self.written(id, |zone| zone.add(relative, ttl, json!({ "value": chunks })));
    }

    /// A stranger removes a TXT record of these chunks, and the record set if nothing is left of it.
    pub fn stranger_removes(&self, id: &str, relative: &str, chunks: &[&str]) {
        self.written(id, |zone| zone.remove(relative, &json!({ "value": chunks })));
    }

    /// A stranger deletes a TXT record set.
    pub fn stranger_deletes(&self, id: &str, relative: &str) {
        self.written(id, |zone| {
            zone.sets.remove(&("TXT".to_owned(), relative.to_ascii_lowercase()));
        });
    }

    fn written(&self, id: &str, write: impl FnOnce(&mut zones::Zone)) {
        let mut state = self.cloud.state.lock();
        write(state.zone(id));
        state.publish(&self.cloud.nameservers);
    }
}

#[derive(Debug)]
struct Servers(Vec<AbortHandle>);

impl Drop for Servers {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl State {
    fn create(&mut self, group: &str, name: &str, nameservers: Option<Vec<String>>) -> usize {
        self.created += 1;
        let set = 1 + self.created % 9;
        let azure =
            || ["com", "net", "org", "info"].iter().enumerate().map(|(at, tld)| format!("ns{}-0{set}.azure-dns.{tld}.", at + 1)).collect();
        self.zones.push(zones::Zone::new(group, name, nameservers.unwrap_or_else(azure)));
        self.zones.len() - 1
    }

    fn find(&mut self, id: &str) -> Option<&mut zones::Zone> {
        self.zones.iter_mut().find(|zone| zone.id(SUBSCRIPTION).eq_ignore_ascii_case(id))
    }

    fn zone(&mut self, id: &str) -> &mut zones::Zone {
        self.find(id).unwrap_or_else(|| panic!("there is no zone {id}"))
    }

    /// The first zone of a name is the one that is delegated to, and so served.
    fn publish(&mut self, nameservers: &Nameservers) {
        for name in self.withdrawn.drain(..) {
            nameservers.withdraw(&name);
        }
        let mut seen = Vec::new();
        for zone in &mut self.zones {
            if seen.contains(&zone.name) {
                continue;
            }
            seen.push(zone.name.clone());
            let served = zone.served();
            if zone.published.as_ref() != Some(&served) {
                nameservers.publish(&zone.name, served.clone());
                zone.published = Some(served);
            }
        }
    }
}

async fn serve(
    Shared(cloud): Shared<Arc<Cloud>>,
    ConnectInfo(cut): ConnectInfo<doors::Cut>,
    request: Request<Body>,
    door: usize,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(Ok(body)) = tokio::time::timeout(PATIENCE, to_bytes(body, MOST_BYTES)).await else {
        return plain(StatusCode::BAD_REQUEST, json!({"error": {"code": "RequestContentTooLarge"}}));
    };
    let query = form(parts.uri.query().unwrap_or_default());
    let path = parts.uri.path().to_owned();
    let base = cloud.bases.get(door).cloned().unwrap_or_default();
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let here: Vec<String> = cloud.bases.iter().map(|base| format!("{base}{path}")).collect();
    let fields = || form(&String::from_utf8_lossy(&body));
    match segments.as_slice() {
        ["metadata", "identity", "oauth2", "token"] => token(&cloud, &cut, |entra| entra.metadata(&query, &parts.headers)),
        ["msi", "token"] => token(&cloud, &cut, |entra| entra.app_service(&query, &parts.headers)),
        [tenant, "oauth2", "v2.0", "token"] | [tenant @ "adfs", "oauth2", "token"] => {
            token(&cloud, &cut, |entra| entra.token(tenant, &fields(), &here))
        }
        [tenant, "v2.0", ".well-known", "openid-configuration"] => {
            plain(StatusCode::OK, configuration(&format!("{base}/{tenant}"), "oauth2/v2.0"))
        }
        [tenant @ "adfs", ".well-known", "openid-configuration"] => {
            plain(StatusCode::OK, configuration(&format!("{base}/{tenant}"), "oauth2"))
        }
        _ => {
            let base = cloud.state.lock().elsewhere.clone().unwrap_or(base);
            let request = arm::Request { method: &parts.method, uri: &parts.uri, query, headers: &parts.headers, body: &body, base };
            arm::serve(&cloud, &request, &cut)
        }
    }
}

/// Answers a request for a token, unless something goes wrong with it.
fn token(cloud: &Cloud, cut: &doors::Cut, answer: impl FnOnce(&mut entra::Entra) -> entra::Answer) -> Response<Body> {
    let mut state = cloud.state.lock();
    let unavailable =
        || plain(StatusCode::SERVICE_UNAVAILABLE, json!({"error": "temporarily_unavailable", "error_description": "AADSTS90033: later"}));
    match cloud.token_faults.read() {
        Some(Fault::Throttle(pause)) => {
            let body = json!({"error": "temporarily_unavailable", "error_description": "AADSTS50196: a client request loop"});
            let mut response = plain(StatusCode::TOO_MANY_REQUESTS, body);
            response.headers_mut().insert("retry-after", HeaderValue::from(pause.as_secs()));
            return response;
        }
        Some(Fault::ErrorBefore | Fault::ErrorAfter) => return unavailable(),
        Some(Fault::LostReply | Fault::LostRequest) => {
            cut.now();
            return unavailable();
        }
        Some(Fault::Unauthorized) => state.entra.refuse_next = true,
        Some(Fault::Interfere) | None => {}
    }
    let (status, body) = answer(&mut state.entra);
    plain(status, body)
}

/// What a library looks up before it signs in (OpenID Connect Discovery, 4).
fn configuration(tenant: &str, version: &str) -> Value {
    json!({
        "issuer": tenant,
        "authorization_endpoint": format!("{tenant}/{version}/authorize"),
        "token_endpoint": format!("{tenant}/{version}/token"),
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
    })
}

fn plain(status: StatusCode, body: Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json; charset=utf-8"));
    response
}

/// The fields of a form or a query.
fn form(text: &str) -> HashMap<String, String> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (unescape(key), unescape(value)))
        .collect()
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    while let [byte, after @ ..] = rest {
        rest = after;
        match (byte, after) {
            (b'%', [high, low, after @ ..]) if digit(*high).is_some() && digit(*low).is_some() => {
                bytes.push((digit(*high).unwrap_or(0) * 16 + digit(*low).unwrap_or(0)) as u8);
                rest = after;
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl std::fmt::Debug for Cloud {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cloud").field("bases", &self.bases).finish_non_exhaustive()
    }
}
