//! PowerDNS Authoritative Server by its HTTP API.
//!
//! Servers from 4.9.12 and 5.0.2 on know EXTEND and PRUNE, which add and remove one record each: no state is compared and nobody's change is lost. Older ones
//! know REPLACE alone, a whole RRset that overwrites: the RRset is read again just before, one write at a time, and what somebody else writes in those
//! milliseconds is lost, as with every client of such a server. Where that may happen, `rfc2136` is the better way to the same server. Which of the two a server
//! knows is learnt from the first change, and asked again now and then.
//!
//! A PATCH is one transaction over many RRsets. SQLite refuses parallel ones ("database is locked"), so there is one at a time for each server.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use authdns::Name;
use parking_lot::Mutex;
use reqwest::{
    Method, StatusCode, Url,
    header::{HeaderMap, HeaderValue, RETRY_AFTER},
};
use schemars::JsonSchema;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::{
    Calls, Change, Context, Error, Limits, Listing, Provider, Receipt, TxtSet, Zone,
    batch::{self, Refusal},
    http::{self, Http, Reply},
    limiter::Limiter,
    secret::{SecretRef, Secrets, token},
    txt::{Escapes, decode_text, quote},
    zones::MOST_LISTED,
};

/// Owner names in one PATCH, and its size: the server's default limit is 2 MB.
const MOST_OWNERS: usize = 200;
const MOST_BYTES: usize = 500_000;
/// Up to so many owners are read one by one; more by reading the zone.
const FEW: usize = 20;
/// How often a locked database is tried again, and the first pause, which doubles.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(100);
/// How long it is believed that a server does not know EXTEND and PRUNE: it may be upgraded.
const BELIEVED: Duration = Duration::from_secs(3600);

/// Settings of `provider: powerdns`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// The base of the API, such as `https://ns1.example.net:8081`; HTTPS unless it is on this machine.
    endpoint: String,
    /// The server behind the API; `localhost` is what PowerDNS calls itself.
    #[serde(default = "localhost")]
    server_id: String,
    /// The API key (`api-key` in pdns.conf).
    api_key: SecretRef,
    /// PEM with the roots of the API's HTTPS, instead of the system's.
    #[serde(default)]
    ca_file: Option<PathBuf>,
}

fn localhost() -> String {
    "localhost".to_owned()
}

impl crate::registry::Settings for Settings {
    const ID: &'static str = "powerdns";
    const TITLE: &'static str = "PowerDNS";

    fn build(self, context: &Context) -> Result<Arc<dyn Provider>, String> {
        let mut base = http::endpoint(self.endpoint.trim_end_matches('/').trim_end_matches("/api/v1"))?;
        base.set_query(None);
        if self.server_id.is_empty() {
            return Err("server_id: it is empty: leave it out for `localhost`".to_owned());
        }
        extend(&mut base, &["api", "v1", "servers", &self.server_id]);
        // The server is one's own and says nothing of limits: this only keeps a mistake of ours from being a flood.
        let limiter = Arc::new(Limiter::new(Duration::from_millis(20), 50));
        Ok(Arc::new(Api {
            base,
            http: Http::new(self.ca_file.as_deref(), limiter)?,
            key: self.api_key,
            ttl: context.ttl,
            secrets: Arc::clone(&context.secrets),
            turn: tokio::sync::Mutex::default(),
            whole_since: Mutex::default(),
        }))
    }
}

/// The provider.
struct Api {
    base: Url,
    http: Http,
    key: SecretRef,
    ttl: u32,
    secrets: Arc<dyn Secrets>,
    /// One write at a time.
    turn: tokio::sync::Mutex<()>,
    /// Since when the server is known to know nothing but whole RRsets.
    whole_since: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "powerdns {}", self.base)
    }
}

#[derive(Deserialize)]
struct ApiZone {
    id: String,
    name: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    rrsets: Vec<RrSet>,
}

#[derive(Deserialize)]
struct RrSet {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    ttl: u32,
    #[serde(default)]
    records: Vec<Record>,
}

/// A record as the server has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    content: String,
    #[serde(default)]
    disabled: bool,
}

/// A TXT RRset as the server has it: the version of a [`TxtSet`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    ttl: Option<u32>,
    records: Vec<Record>,
}

/// An RRset in a PATCH.
#[derive(Serialize)]
struct Patch {
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    ttl: u32,
    changetype: &'static str,
    records: Vec<Record>,
}

#[derive(Deserialize, Default)]
struct Words {
    #[serde(default)]
    error: String,
    #[serde(default)]
    errors: Vec<String>,
}

#[async_trait]
impl Provider for Api {
    fn limits(&self) -> Limits {
        Limits { owners: MOST_OWNERS, ..Limits::default() }
    }

    async fn zones(&self, apex: Option<&Name>) -> Result<Listing, Error> {
        let mut url = self.url(&["zones"]);
        match apex {
            Some(apex) => url.query_pairs_mut().append_pair("zone", &apex.to_string()),
            // Whether each is signed costs the server a query each.
            None => url.query_pairs_mut().append_pair("dnssec", "false"),
        };
        let found: Vec<ApiZone> = match self.call(Method::GET, url, None).await {
            // A listing has no pages: of a server with very many zones it is not taken.
            Err(Error::Transport(text)) if apex.is_none() && text.contains("is larger than") => return Ok(Listing::default()),
            reply => good(reply?)?.json()?,
        };
        if found.len() > MOST_LISTED {
            return Ok(Listing::default());
        }
        // Copies of another server's zones are overwritten by the next transfer.
        let ours = found.into_iter().filter(|zone| !["Slave", "Secondary", "Consumer"].contains(&zone.kind.as_str()));
        let zones = ours.filter_map(|zone| Some(Zone { name: zone.name.parse().ok()?, id: zone.id, nameservers: Default::default() }));
        let mut zones: Vec<Zone> = zones.collect();
        if let Some(apex) = apex {
            zones.retain(|zone| zone.name == *apex);
        }
        Ok(Listing { zones, complete: true })
    }

    async fn read(&self, zone: &Zone, owners: &[Name]) -> Vec<Result<TxtSet, Error>> {
        let states = self.states(zone, owners).await;
        states.into_iter().map(|state| state.map(|state| state.set())).collect()
    }

    async fn apply(&self, zone: &Zone, changes: &[Change]) -> Vec<Result<Receipt, Error>> {
        let _turn = self.turn.lock().await;
        batch::send(changes, fit, |run| self.patch(zone, run)).await
    }

    async fn verify(&self) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct Server {
            #[serde(default)]
            daemon_type: String,
            #[serde(default)]
            version: String,
        }

        let server: Server = good(self.call(Method::GET, self.url(&[]), None).await?)?.json()?;
        if server.daemon_type != "authoritative" {
            return Err(Error::Rejected(format!("the API is that of a {}, which has no zones", server.daemon_type)));
        }
        Ok(format!("PowerDNS {}, the API key may do everything", server.version))
    }

    fn calls(&self) -> Calls {
        self.http.limiter().calls()
    }
}

impl Api {
    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        extend(&mut url, segments);
        url
    }

    async fn call(&self, method: Method, url: Url, body: Option<&serde_json::Value>) -> Result<Reply, Error> {
        let key = token(self.secrets.as_ref(), &self.key).await?;
        let mut value = HeaderValue::from_str(key.expose_secret()).map_err(|_| Error::Auth(format!("{} is no API key", self.key)))?;
        value.set_sensitive(true);
        let mut pause = PAUSE;
        for attempt in 1.. {
            let mut request = self.http.client().request(method.clone(), url.clone()).header("X-API-Key", value.clone());
            if let Some(body) = body {
                request = request.json(body);
            }
            let reply = self.http.send(request).await?;
            if !(reply.status == StatusCode::INTERNAL_SERVER_ERROR && words(&reply).contains("database is locked")) {
                return Ok(reply);
            }
            if attempt == TRIES {
                break;
            }
            // Rate shaping: somebody else writes.
            sleep(pause).await;
            pause *= 2;
        }
        let reason = "the server's database stays locked: too many write to it at once".to_owned();
        Err(Error::RateLimited { reason, retry_after: Some(Duration::from_secs(2)) })
    }

    /// The TXT RRset of each owner as it stands.
    async fn states(&self, zone: &Zone, owners: &[Name]) -> Vec<Result<State, Error>> {
        if owners.len() > FEW {
            match self.rrsets(zone, None).await {
                Err(Error::Transport(text)) if text.contains("is larger than") => {}
                Err(error) => return owners.iter().map(|_| Err(error.clone())).collect(),
                Ok(rrsets) => return owners.iter().map(|owner| state(&rrsets, owner)).collect(),
            }
        }
        let mut states = Vec::with_capacity(owners.len());
        for owner in owners {
            states.push(match self.rrsets(zone, Some(owner)).await {
                Ok(rrsets) => state(&rrsets, owner),
                Err(error) => Err(error),
            });
        }
        states
    }

    /// The RRsets of a zone, or of one owner in it (older servers give the zone all the same), by owner.
    async fn rrsets(&self, zone: &Zone, owner: Option<&Name>) -> Result<HashMap<Name, Vec<RrSet>>, Error> {
        let mut url = self.url(&["zones", &zone.id]);
        if let Some(owner) = owner {
            url.query_pairs_mut().append_pair("rrset_name", &owner.to_string());
        }
        let found: ApiZone = good(self.call(Method::GET, url, None).await?)?.json()?;
        let mut rrsets: HashMap<Name, Vec<RrSet>> = HashMap::new();
        for rrset in found.rrsets.into_iter().filter(|rrset| ["TXT", "CNAME"].contains(&rrset.kind.as_str())) {
            if let Ok(owner) = rrset.name.parse() {
                rrsets.entry(owner).or_default().push(rrset);
            }
        }
        Ok(rrsets)
    }

    /// Makes a run of changes, in one PATCH.
    async fn patch(&self, zone: &Zone, run: Vec<Change>) -> Result<Receipt, Refusal> {
        let whole = self.whole_since.lock().is_some_and(|since| since.elapsed() < BELIEVED);
        if !whole {
            let rrsets: Vec<Patch> = run.iter().flat_map(|change| self.by_record(change)).collect();
            let reply = self.send(zone, &rrsets).await?;
            let unknown = reply.status == StatusCode::UNPROCESSABLE_ENTITY && words(&reply).to_lowercase().contains("changetype");
            if !unknown {
                return taken(&reply, &run);
            }
            tracing::debug!("the server does not know EXTEND and PRUNE: RRsets are replaced");
            *self.whole_since.lock() = Some(Instant::now());
        }
        let owners: Vec<Name> = run.iter().map(|change| change.owner.clone()).collect();
        let mut rrsets = Vec::new();
        let mut culprits = Vec::new();
        for (place, (change, state)) in run.iter().zip(self.states(zone, &owners).await).enumerate() {
            match state {
                Ok(state) => rrsets.extend(self.by_rrset(change, state)),
                Err(error @ Error::Rejected(_)) => culprits.push((place, error)),
                Err(error) => return Err(error.into()),
            }
        }
        if let Some((_, error)) = culprits.first() {
            return Err(Refusal { error: error.clone(), culprits });
        }
        taken(&self.send(zone, &rrsets).await?, &run)
    }

    async fn send(&self, zone: &Zone, rrsets: &[Patch]) -> Result<Reply, Error> {
        if rrsets.is_empty() {
            return Ok(Reply { status: StatusCode::NO_CONTENT, headers: HeaderMap::new(), body: Vec::new() });
        }
        let body = serde_json::json!({ "rrsets": rrsets });
        self.call(Method::PATCH, self.url(&["zones", &zone.id]), Some(&body)).await
    }

    /// A change, record by record: removals first, so that the count of records stays low.
    fn by_record(&self, change: &Change) -> Vec<Patch> {
        let state: State = serde_json::from_str(&change.version).unwrap_or_default();
        if state.records.iter().any(|record| record.disabled) {
            // EXTEND and PRUNE write the RRset anew without its disabled records: it has to be replaced with them.
            return self.by_rrset(change, state).into_iter().collect();
        }
        let removed = change.remove.difference(&change.add).map(|value| ("PRUNE", value));
        let added = change.add.iter().map(|value| ("EXTEND", value));
        let patch = |(changetype, value): (&'static str, &String)| {
            // In the server's own writing, where it has the value: contents are compared as text.
            let written = state.records.iter().find(|record| record.value() == *value).map(|record| record.content.clone());
            let content = written.unwrap_or_else(|| quote(value.as_bytes(), Escapes::Decimal));
            self.rrset(change, &state, changetype, vec![Record { content, disabled: false }])
        };
        removed.chain(added).map(patch).collect()
    }

    /// A change as its whole RRset; `None` if nothing changes.
    fn by_rrset(&self, change: &Change, state: State) -> Option<Patch> {
        let is_ours = |record: &Record, values: &std::collections::BTreeSet<String>| values.contains(&record.value());
        let mut records = state.records.clone();
        records.retain(|record| change.add.contains(&record.value()) || !is_ours(record, &change.remove));
        for value in &change.add {
            match records.iter_mut().find(|record| record.value() == *value) {
                Some(standing) => standing.disabled = false,
                None => records.push(Record { content: quote(value.as_bytes(), Escapes::Decimal), disabled: false }),
            }
        }
        (records != state.records).then(|| self.rrset(change, &state, "REPLACE", records))
    }

    fn rrset(&self, change: &Change, state: &State, changetype: &'static str, records: Vec<Record>) -> Patch {
        Patch { name: change.owner.to_string(), kind: "TXT", ttl: state.ttl.unwrap_or(self.ttl), changetype, records }
    }
}

impl Record {
    fn value(&self) -> String {
        decode_text(&self.content, Escapes::Decimal)
    }
}

impl State {
    fn set(&self) -> TxtSet {
        let values = self.records.iter().filter(|record| !record.disabled).map(Record::value).collect();
        let version = if self.records.is_empty() { String::new() } else { serde_json::to_string(self).unwrap_or_default() };
        TxtSet { values, version }
    }
}

/// The TXT RRset of `owner`; an error if a CNAME stands there, beside which EXTEND would write without a word.
fn state(rrsets: &HashMap<Name, Vec<RrSet>>, owner: &Name) -> Result<State, Error> {
    let here = rrsets.get(owner).map(Vec::as_slice).unwrap_or_default();
    if here.iter().any(|rrset| rrset.kind == "CNAME" && rrset.records.iter().any(|record| !record.disabled)) {
        let name = owner.to_relative_string();
        return Err(Error::Rejected(format!("a CNAME stands at {name}, and nothing can stand beside it: the value belongs at its target")));
    }
    let txt = here.iter().find(|rrset| rrset.kind == "TXT");
    Ok(txt.map(|rrset| State { ttl: Some(rrset.ttl), records: rrset.records.clone() }).unwrap_or_default())
}

/// A reply that is a success, or its error.
fn good(reply: Reply) -> Result<Reply, Error> {
    if reply.status.is_success() { Ok(reply) } else { Err(error(&reply)) }
}

fn error(reply: &Reply) -> Error {
    let words = words(reply);
    let text = words.to_lowercase();
    if reply.status == StatusCode::UNPROCESSABLE_ENTITY && (text.contains("could not find domain") || text.contains("not found")) {
        return Error::NotFound(words);
    }
    if reply.status == StatusCode::UNAUTHORIZED {
        return Error::Auth("the server does not take the API key (HTTP 401): compare it with `api-key` in its pdns.conf".to_owned());
    }
    let mut error = reply.error(&words);
    // A proxy in front may say so; PowerDNS does not.
    if reply.status == StatusCode::SERVICE_UNAVAILABLE && !reply.headers.contains_key(RETRY_AFTER) {
        error = Error::Transport(format!("HTTP 503: {words}"));
    }
    error
}

/// What the server says of a refusal.
fn words(reply: &Reply) -> String {
    match serde_json::from_slice::<Words>(&reply.body) {
        Ok(words) => std::iter::once(words.error).chain(words.errors).filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; "),
        Err(_) => String::from_utf8_lossy(&reply.body).into_owned(),
    }
}

/// The outcome of a PATCH. Refusals name the RRset that they are about.
fn taken(reply: &Reply, run: &[Change]) -> Result<Receipt, Refusal> {
    if reply.status.is_success() {
        return Ok(Receipt::default());
    }
    let error = error(reply);
    let words = words(reply);
    let named: Vec<&str> = words.split([' ', '/', ',', ';', '\'', '"']).map(|word| word.trim_end_matches(':')).collect();
    let mut culprits = Vec::new();
    if matches!(error, Error::Rejected(_)) {
        let about = |change: &Change| named.contains(&change.owner.to_string().as_str());
        culprits.extend(run.iter().enumerate().filter(|(_, change)| about(change)).map(|(place, _)| (place, error.clone())));
    }
    Err(Refusal { error, culprits })
}

/// How many of the changes one PATCH takes.
fn fit(run: &[&Change]) -> usize {
    let mut size = 0;
    let fits = run.iter().take(MOST_OWNERS).take_while(|change| {
        let values = change.add.iter().chain(&change.remove);
        size += change.version.len() + values.map(|value| 2 * value.len() + 2 * change.owner.as_wire().len() + 120).sum::<usize>();
        size <= MOST_BYTES
    });
    fits.count()
}

fn extend(url: &mut Url, segments: &[&str]) {
    // An http URL always has a path.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
}
