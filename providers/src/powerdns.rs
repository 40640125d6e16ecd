//! PowerDNS Authoritative Server by its HTTP API.
//!
//! Servers from 4.9.12 and 5.0.2 on know EXTEND and PRUNE, which add and remove one record each: no state is compared and nobody's change is lost. Older ones
//! know REPLACE alone, a whole RRset that overwrites: the RRset is read again just before, one write at a time, and what somebody else writes in those
//! milliseconds is lost, as with every client of such a server. Where that may happen, `rfc2136` is the better way to the same server. Which of the two a server
//! knows is learnt from the first change, and asked again now and then.
//!
//! Disabled records belong to the RRset and are not served. EXTEND and PRUNE drop them, so where there are any, the RRset is replaced with them. Servers before 5.0
//! show them only with the whole zone, which is therefore what is read there.
//!
//! A PATCH is one transaction over many RRsets. SQLite refuses parallel ones (HTTP 500, and "database is locked" in the server's log), so there is one at a
//! time for each server, and what fails so is tried again; what is to replace a whole RRset is read again before each attempt.
//!
//! A primary looks for zones to notify its secondaries of once a minute; it is asked to do so at once.

mod reply;
mod rrset;

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use authdns::Name;
use parking_lot::Mutex;
use reqwest::{Method, StatusCode, Url, header::HeaderValue};
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
    zones::MOST_LISTED,
};
use reply::{good, is_busy, is_too_large, taken, words};
use rrset::{Patch, RrSet, State, state};

/// Owner names in one PATCH, and its size: the server's default limit is 2 MB.
const MOST_OWNERS: usize = 200;
const MOST_BYTES: usize = 500_000;
/// Up to so many owners are read one by one (from 5.0 on); more by reading the zone.
const FEW: usize = 20;
/// How often a server that fails is tried, and the first pause, which doubles.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(100);
/// How long it is believed what a server can do: it may be upgraded.
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

impl crate::kind::Settings for Settings {
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
            shows_disabled: Mutex::default(),
            primaries: Mutex::default(),
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
    /// Whether it shows the disabled records of one name, and since when that is known.
    shows_disabled: Mutex<Option<(bool, Instant)>>,
    /// The zones that were read and have secondaries to be notified, by id.
    primaries: Mutex<BTreeSet<String>>,
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

/// What the API says of itself.
#[derive(Deserialize)]
struct ApiServer {
    #[serde(default)]
    daemon_type: String,
    #[serde(default)]
    version: String,
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
        let found: Vec<ApiZone> = match self.call(Method::GET, url).await {
            // A listing has no pages: of a server with very many zones it is not taken.
            Err(error) if apex.is_none() && is_too_large(&error) => return Ok(Listing::default()),
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
        let server = self.server().await?;
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

    /// Sends a request that reads, again if the server fails.
    async fn call(&self, method: Method, url: Url) -> Result<Reply, Error> {
        let mut patience = Patience::default();
        loop {
            let reply = self.once(method.clone(), url.clone(), None).await?;
            if !is_busy(&reply) || !patience.wait().await {
                return Ok(reply);
            }
        }
    }

    async fn once(&self, method: Method, url: Url, body: Option<&serde_json::Value>) -> Result<Reply, Error> {
        let key = token(self.secrets.as_ref(), &self.key).await?;
        let mut value = HeaderValue::from_str(key.expose_secret()).map_err(|_| Error::Auth(format!("{} is no API key", self.key)))?;
        value.set_sensitive(true);
        let mut request = self.http.client().request(method, url).header("X-API-Key", value);
        if let Some(body) = body {
            request = request.json(body);
        }
        self.http.send(request).await
    }

    /// What the API says of itself.
    async fn server(&self) -> Result<ApiServer, Error> {
        let reply = self.call(Method::GET, self.url(&[])).await?;
        if reply.status == StatusCode::NOT_FOUND {
            let path = self.base.path();
            return Err(Error::Rejected(format!("there is no {path} at the endpoint: compare `endpoint` and `server_id` (HTTP 404)")));
        }
        let server: ApiServer = good(reply)?.json()?;
        let major = server.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        *self.shows_disabled.lock() = Some((major.is_some_and(|major| major >= 5), Instant::now()));
        Ok(server)
    }

    /// Whether the server shows the disabled records of one name.
    async fn shows_disabled(&self) -> Result<bool, Error> {
        let known = *self.shows_disabled.lock();
        match known {
            Some((shows, since)) if since.elapsed() < BELIEVED => Ok(shows),
            _ => {
                self.server().await?;
                Ok(self.shows_disabled.lock().is_some_and(|(shows, _)| shows))
            }
        }
    }

    /// The TXT RRset of each owner as it stands.
    async fn states(&self, zone: &Zone, owners: &[Name]) -> Vec<Result<State, Error>> {
        let failed = |error: Error| owners.iter().map(|_| Err(error.clone())).collect();
        let one_by_one = match self.shows_disabled().await {
            Ok(shows) => shows,
            Err(error) => return failed(error),
        };
        if owners.len() > FEW || !one_by_one {
            match self.rrsets(zone, None).await {
                Err(error) if is_too_large(&error) && !one_by_one => {
                    return failed(Error::Rejected(format!(
                        "the zone {} is too large to be read whole, and servers before 5.0 show disabled records in no other way: update it with `provider: rfc2136`",
                        zone.name.to_relative_string()
                    )));
                }
                Err(error) if is_too_large(&error) => {}
                Err(error) => return failed(error),
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

    /// The RRsets of a zone, or of one owner in it, by owner, disabled records with them.
    async fn rrsets(&self, zone: &Zone, owner: Option<&Name>) -> Result<HashMap<Name, Vec<RrSet>>, Error> {
        let mut url = self.url(&["zones", &zone.id]);
        if let Some(owner) = owner {
            url.query_pairs_mut().append_pair("rrset_name", &owner.to_string()).append_pair("include_disabled", "true");
        }
        let found: ApiZone = good(self.call(Method::GET, url).await?)?.json()?;
        if ["Master", "Primary", "Producer"].contains(&found.kind.as_str()) {
            self.primaries.lock().insert(zone.id.clone());
        } else {
            self.primaries.lock().remove(&zone.id);
        }
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
        let mut failed = false;
        match self.attempts(zone, &run, &mut failed).await {
            // Whatever the last attempt met: one before it may have been carried out.
            Err(refusal) if failed && refusal.error.is_untouched() => {
                Err(Error::Transport(format!("the server failed (HTTP 500), and then: {}", refusal.error)).into())
            }
            outcome => outcome,
        }
    }

    /// The attempts at a PATCH; `failed` is set once one has failed without a word of what was done.
    async fn attempts(&self, zone: &Zone, run: &[Change], failed: &mut bool) -> Result<Receipt, Refusal> {
        let mut whole = self.whole_since.lock().is_some_and(|since| since.elapsed() < BELIEVED);
        let mut patience = Patience::default();
        loop {
            let rrsets = self.planned(zone, run, whole).await?;
            if rrsets.is_empty() {
                return Ok(Receipt::default());
            }
            let body = serde_json::json!({ "rrsets": rrsets });
            let reply = self.once(Method::PATCH, self.url(&["zones", &zone.id]), Some(&body)).await?;
            if is_busy(&reply) {
                *failed = true;
                if patience.wait().await {
                    continue;
                }
            }
            if !whole && reply.status == StatusCode::UNPROCESSABLE_ENTITY {
                let words = words(&reply).to_lowercase();
                let is_unknown = words.contains("changetype");
                if is_unknown {
                    tracing::debug!("the server does not know EXTEND and PRUNE: RRsets are replaced");
                    *self.whole_since.lock() = Some(Instant::now());
                }
                // Records of one RRset with several TTLs, or with another than they had.
                if is_unknown || words.contains("different ttl") {
                    whole = true;
                    continue;
                }
            }
            let receipt = taken(&reply, run)?;
            self.notify(zone).await;
            return Ok(receipt);
        }
    }

    /// What a PATCH has to say: `whole` RRsets (read again now), or single records where that loses nothing.
    async fn planned(&self, zone: &Zone, run: &[Change], whole: bool) -> Result<Vec<Patch>, Refusal> {
        let mut rrsets = Vec::new();
        let mut replaced = Vec::new();
        for (place, change) in run.iter().enumerate() {
            let state = State::when_read(change);
            if whole || state.loses_by(change) {
                replaced.push((place, change));
            } else {
                rrsets.extend(state.by_record(change, self.ttl));
            }
        }
        if replaced.is_empty() {
            return Ok(rrsets);
        }
        let owners: Vec<Name> = replaced.iter().map(|(_, change)| change.owner.clone()).collect();
        let mut culprits = Vec::new();
        for ((place, change), state) in replaced.into_iter().zip(self.states(zone, &owners).await) {
            match state {
                Ok(state) => rrsets.extend(state.by_rrset(change, self.ttl)),
                Err(error @ Error::Rejected(_)) => culprits.push((place, error)),
                Err(error) => return Err(error.into()),
            }
        }
        match culprits.first() {
            Some((_, error)) => Err(Refusal { error: error.clone(), culprits }),
            None => Ok(rrsets),
        }
    }

    /// Has the secondaries told of what was written, if there are any. What was written stands, whatever comes of it.
    async fn notify(&self, zone: &Zone) {
        let has_secondaries = self.primaries.lock().contains(&zone.id);
        if has_secondaries {
            let told = self.once(Method::PUT, self.url(&["zones", &zone.id, "notify"]), None).await;
            if let Err(error) = told.and_then(good) {
                tracing::debug!(%error, zone = %zone.name, "the secondaries were not told at once");
            }
        }
    }
}

/// How long a server that fails is tried.
struct Patience {
    tries: u32,
    pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { tries: TRIES, pause: PAUSE }
    }
}

impl Patience {
    /// Waits for somebody else to end writing; false if that was done often enough.
    async fn wait(&mut self) -> bool {
        self.tries = self.tries.saturating_sub(1);
        if self.tries > 0 {
            sleep(self.pause).await;
            self.pause *= 2;
        }
        self.tries > 0
    }
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
