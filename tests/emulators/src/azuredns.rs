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
    http::{Request, Response, StatusCode},
};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::task::AbortHandle;

use crate::{Faults, Nameservers};

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

/// The running cloud; it ends with the handle.
#[derive(Debug)]
pub struct AzureDns {
    cloud: Arc<Cloud>,
    ca: String,
    tasks: Vec<AbortHandle>,
}

/// What the doors share.
struct Cloud {
    state: Mutex<State>,
    faults: Faults,
    nameservers: Nameservers,
    /// The URLs of both doors.
    bases: [String; 2],
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
        let cloud = Arc::new(Cloud { state: Mutex::default(), faults: Faults::default(), nameservers, bases, audiences });
        let mut tasks = Vec::new();
        for (at, door) in doors.into_iter().enumerate() {
            let cloud = Arc::clone(&cloud);
            let handle = move |shared, cut, request| serve(shared, cut, request, at);
            let service = Router::new().fallback(handle).with_state(cloud).into_make_service_with_connect_info::<doors::Cut>();
            tasks.push(tokio::spawn(async move { axum::serve(door, service).await }).abort_handle());
        }
        Self { cloud, ca, tasks }
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
        &self.ca
    }

    /// What goes wrong with calls of the resource manager, and how many there were; tokens are apart.
    pub fn faults(&self) -> &Faults {
        &self.cloud.faults
    }

    /// Requests for a token so far, whomever they went to.
    pub fn token_calls(&self) -> u64 {
        self.cloud.state.lock().entra.calls
    }

    /// Registers a certificate (DER) with the application.
    pub fn register_certificate(&self, der: &[u8]) {
        self.cloud.state.lock().entra.certificates.push(der.to_vec());
    }

    /// Trusts a token of another issuer, word by word.
    pub fn trust_assertion(&self, token: &str) {
        self.cloud.state.lock().entra.assertions.insert(token.to_owned());
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

    /// Sets how many records a record set of the zone may have.
    pub fn most_records(&self, id: &str, records: usize) {
        self.cloud.state.lock().zone(id).most_records = records;
    }

    /// All record sets of a zone, as they stand.
    pub fn record_sets(&self, id: &str) -> Vec<RecordSet> {
        self.cloud.state.lock().zone(id).sets.values().cloned().collect()
    }

    /// The TXT record set of a name relative to the zone (`@` at the apex).
    pub fn txt(&self, id: &str, relative: &str) -> Option<RecordSet> {
        self.cloud.state.lock().zone(id).sets.get(&("TXT".to_owned(), relative.to_ascii_lowercase())).cloned()
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
    pub fn stranger(&self, id: &str, relative: &str, ttl: u64, metadata: &[(&str, &str)], values: &[&[&str]]) {
        let mut state = self.cloud.state.lock();
        let metadata: Map<String, Value> = metadata.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let records: Vec<Value> = values.iter().map(|chunks| json!({ "value": chunks })).collect();
        state.zone(id).set("TXT", relative, ttl, metadata, json!(records));
        state.publish(&self.cloud.nameservers);
    }

    /// A stranger removes a TXT record set.
    pub fn stranger_removes(&self, id: &str, relative: &str) {
        let mut state = self.cloud.state.lock();
        state.zone(id).sets.remove(&("TXT".to_owned(), relative.to_ascii_lowercase()));
        state.publish(&self.cloud.nameservers);
    }
}

impl Drop for AzureDns {
    fn drop(&mut self) {
        for task in &self.tasks {
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

    fn zone(&mut self, id: &str) -> &mut zones::Zone {
        let found = self.zones.iter_mut().find(|zone| zone.id(SUBSCRIPTION).eq_ignore_ascii_case(id));
        found.unwrap_or_else(|| panic!("there is no zone {id}"))
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
    match segments.as_slice() {
        ["metadata", "identity", "oauth2", "token"] => {
            let (status, body) = cloud.state.lock().entra.metadata(&query, &parts.headers);
            plain(status, body)
        }
        ["msi", "token"] => {
            let (status, body) = cloud.state.lock().entra.app_service(&query, &parts.headers);
            plain(status, body)
        }
        [tenant, "oauth2", "v2.0", "token"] | [tenant @ "adfs", "oauth2", "token"] => {
            let here: Vec<String> = cloud.bases.iter().map(|base| format!("{base}{path}")).collect();
            let (status, body) = cloud.state.lock().entra.token(tenant, &form(&String::from_utf8_lossy(&body)), &here);
            plain(status, body)
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
    response.headers_mut().insert("content-type", axum::http::HeaderValue::from_static("application/json; charset=utf-8"));
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
