//! DigitalOcean by its API v2.
//!
//! Every value is a record of its own, so a change never rewrites what is somebody else's. There are no batches and no marks: a value takes a call to add and
//! a call to remove, a few at a time, at the pace that DigitalOcean allows. A change of several parts that fails midway is told as "no answer", so that what
//! stands is read again.
//!
//! TXT data is the value itself, without quotes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use authdns::Name;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use reqwest::{Method, RequestBuilder, StatusCode, Url, header::HeaderMap};
use schemars::JsonSchema;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::{
    Calls, Change, Context, Error, Limits, Listing, Provider, Receipt, TxtSet, Zone,
    http::{self, Http, Reply},
    kind,
    limiter::Limiter,
    secret::{self, SecretRef, Secrets},
    zones,
};

const ENDPOINT: &str = "https://api.digitalocean.com";
/// The servers of every domain.
const NAMESERVERS: [&str; 3] = ["ns1.digitalocean.com", "ns2.digitalocean.com", "ns3.digitalocean.com"];
/// The documented limits are 250 calls a minute, which this keeps (40 and one each 300 ms are 240), and 5,000 an hour, which the headers tell of.
const INTERVAL: Duration = Duration::from_millis(300);
const BURST: u32 = 40;
/// With fewer calls left than this in the hour, what is left is spread.
const FEW: u32 = 1000;
/// Calls in flight.
const PARALLEL: usize = 4;
const PAGE: usize = 200;
/// How often a listing is begun anew when the domain changes under it.
const MOST_LISTINGS: usize = 3;
const LEAST_TTL: u32 = 30;
/// The longest TXT data, which is documented nowhere and found by those who tried.
const MOST_DATA: usize = 512;

/// How acmegate reaches DigitalOcean.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// A personal access token with the scopes `domain:read`, `domain:create` and `domain:delete`.
    token: SecretRef,
    /// Where the API is, instead of https://api.digitalocean.com.
    #[serde(default)]
    endpoint: Option<String>,
    /// A PEM file with the root certificates of the endpoint, instead of the system's.
    #[serde(default)]
    ca_file: Option<PathBuf>,
}

impl kind::Settings for Settings {
    const ID: &'static str = "digitalocean";
    const TITLE: &'static str = "DigitalOcean";

    fn build(self, context: &Context) -> Result<Arc<dyn Provider>, String> {
        let base = http::endpoint(self.endpoint.as_deref().unwrap_or(ENDPOINT))?;
        let http = Http::new(self.ca_file.as_deref(), Arc::new(Limiter::new(INTERVAL, BURST)))?;
        let ttl = context.ttl.max(LEAST_TTL);
        Ok(Arc::new(DigitalOcean { http, base, token: self.token, secrets: context.secrets.clone(), ttl }))
    }
}

/// The provider.
struct DigitalOcean {
    http: Http,
    base: Url,
    token: SecretRef,
    secrets: Arc<dyn Secrets>,
    ttl: u32,
}

impl fmt::Debug for DigitalOcean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DigitalOcean").finish_non_exhaustive()
    }
}

/// The TXT records at one owner: what [`TxtSet::version`] holds, as JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Standing {
    /// The TTL that the RRset has.
    ttl: Option<u32>,
    /// The ids of the records with each value; there may be several.
    records: BTreeMap<String, Vec<u64>>,
}

/// What one change takes.
#[derive(Debug, Default)]
struct Plan {
    posts: Vec<String>,
    deletes: Vec<u64>,
    ttl: u32,
}

#[derive(Debug, Clone, Deserialize)]
struct Record {
    id: u64,
    #[serde(rename = "type")]
    kind: String,
    name: String,
    #[serde(default)]
    data: Option<String>,
    #[serde(default)]
    ttl: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct Records {
    domain_records: Vec<Record>,
    #[serde(default)]
    meta: Meta,
}

#[derive(Debug, Deserialize)]
struct Domains {
    domains: Vec<Domain>,
    #[serde(default)]
    meta: Meta,
}

#[derive(Debug, Deserialize)]
struct Domain {
    name: String,
}

#[derive(Debug, Deserialize)]
struct OneDomain {
    domain: Domain,
}

#[derive(Debug, Default, Deserialize)]
struct Meta {
    #[serde(default)]
    total: usize,
}

#[derive(Debug, Deserialize)]
struct OneAccount {
    account: Account,
}

#[derive(Debug, Deserialize)]
struct Account {
    #[serde(default)]
    email: String,
    #[serde(default)]
    status: String,
}

/// The error body; its `request_id` is left alone, because it is another one each time.
#[derive(Debug, Default, Deserialize)]
struct Told {
    #[serde(default)]
    id: String,
    #[serde(default)]
    message: String,
}

#[async_trait]
impl Provider for DigitalOcean {
    fn limits(&self) -> Limits {
        // What goes at once; the rest waits for the rate anyway, and is better planned anew.
        Limits { owners: BURST as usize, ..Limits::default() }
    }

    async fn zones(&self, apex: Option<&Name>) -> Result<Listing, Error> {
        let mut names = Vec::new();
        if let Some(apex) = apex {
            match self.get::<OneDomain>(&["domains", &apex.to_relative_string()], &[]).await {
                Ok(found) => names.push(found.domain.name),
                Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        } else {
            for page in 1usize.. {
                let query = [("per_page", PAGE.to_string()), ("page", page.to_string())];
                let answer: Domains = self.get(&["domains"], &query).await?;
                if answer.meta.total > zones::MOST_LISTED || names.len() > zones::MOST_LISTED {
                    return Ok(Listing::default());
                }
                let last = answer.domains.is_empty() || page * PAGE >= answer.meta.total;
                names.extend(answer.domains.into_iter().map(|domain| domain.name));
                if last {
                    break;
                }
            }
        }
        let nameservers: BTreeSet<Name> = NAMESERVERS.iter().filter_map(|server| server.parse().ok()).collect();
        let zone = |id: String| Some(Zone { name: id.parse().ok()?, id, nameservers: nameservers.clone() });
        Ok(Listing { zones: names.into_iter().filter_map(zone).collect(), complete: true })
    }

    async fn read(&self, zone: &Zone, owners: &[Name]) -> Vec<Result<TxtSet, Error>> {
        match owners {
            [] => Vec::new(),
            [owner] => vec![self.read_one(zone, owner).await],
            _ => match self.records(zone, None, owners.len()).await {
                Ok(Some(records)) => owners.iter().map(|owner| Ok(Standing::of(zone, owner, &records).into_set())).collect(),
                // The domain is large, and the names are few.
                Ok(None) => {
                    let calls: Vec<_> = owners.iter().map(|owner| self.read_one(zone, owner)).collect();
                    stream::iter(calls).buffered(PARALLEL).collect().await
                }
                Err(error) => owners.iter().map(|_| Err(error.clone())).collect(),
            },
        }
    }

    async fn apply(&self, zone: &Zone, changes: &[Change]) -> Vec<Result<Receipt, Error>> {
        // What stops everything after it: the credential, the rate, the zone, or no answer.
        let stopped: Mutex<Option<Error>> = Mutex::new(None);
        let calls: Vec<_> = changes.iter().map(|change| self.apply_one(zone, change, &stopped)).collect();
        stream::iter(calls).buffered(PARALLEL).collect().await
    }

    async fn verify(&self) -> Result<String, Error> {
        let mut said = Vec::new();
        match self.get::<OneAccount>(&["account"], &[]).await {
            Ok(OneAccount { account }) if account.status == "locked" => {
                return Err(Error::Auth(format!("the account of {} is locked: ask DigitalOcean why", account.email)));
            }
            Ok(OneAccount { account }) => said.push(format!("the account of {}, {}", account.email, account.status)),
            // A token for domains alone may not ask whose it is.
            Err(Error::Auth(_)) => {}
            Err(error) => return Err(error),
        }
        let domains: Domains = self.get(&["domains"], &[("per_page", "1".to_owned())]).await?;
        said.push(format!("{} domains can be seen", domains.meta.total));
        Ok(said.join("; "))
    }

    fn calls(&self) -> Calls {
        self.http.limiter().calls()
    }
}

impl DigitalOcean {
    async fn read_one(&self, zone: &Zone, owner: &Name) -> Result<TxtSet, Error> {
        let records = self.records(zone, Some(owner), usize::MAX).await?.unwrap_or_default();
        Ok(Standing::of(zone, owner, &records).into_set())
    }

    /// The TXT records of the domain, or of one owner; `None` if they stand on more than so many pages (the first is read nevertheless).
    async fn records(&self, zone: &Zone, owner: Option<&Name>, most_pages: usize) -> Result<Option<Vec<Record>>, Error> {
        'listing: for _ in 0..MOST_LISTINGS {
            let mut records: Vec<Record> = Vec::new();
            let mut total = 0;
            for page in 1usize.. {
                let mut query = vec![("type", "TXT".to_owned()), ("per_page", PAGE.to_string()), ("page", page.to_string())];
                // The filter takes the whole name, where records have a relative one.
                query.extend(owner.map(|owner| ("name", owner.to_relative_string())));
                let answer: Records = self.get(&["domains", &zone.id, "records"], &query).await?;
                // Records that come and go move others across the edges of pages: one of ours could be missed.
                if page > 1 && answer.meta.total != total {
                    continue 'listing;
                }
                total = answer.meta.total;
                if total.div_ceil(PAGE) > most_pages {
                    return Ok(None);
                }
                let last = answer.domain_records.is_empty() || page * PAGE >= total;
                records.extend(answer.domain_records.into_iter().filter(|record| record.kind == "TXT"));
                if last {
                    return Ok(Some(records));
                }
            }
        }
        Err(Error::Conflict("the domain's records changed while they were listed: read again".to_owned()))
    }

    async fn apply_one(&self, zone: &Zone, change: &Change, stopped: &Mutex<Option<Error>>) -> Result<Receipt, Error> {
        let plan = Plan::of(change, self.ttl)?;
        for (done, step) in plan.steps().enumerate() {
            let before = stopped.lock().clone();
            let result = match before {
                Some(error) => Err(error),
                None => self.step(zone, &change.owner, plan.ttl, step).await,
            };
            if let Err(error) = result {
                match &error {
                    Error::Transport(text) => {
                        *stopped.lock() = Some(Error::Unsent(format!("a call before this one got no answer: {text}")));
                    }
                    Error::Auth(_) | Error::RateLimited { .. } | Error::NotFound(_) | Error::Unsent(_) => {
                        *stopped.lock() = Some(error.clone())
                    }
                    Error::Conflict(_) | Error::Rejected(_) => {}
                }
                return Err(if done == 0 { error } else { Error::Transport(format!("a part of the change was made, and then: {error}")) });
            }
        }
        Ok(Receipt::default())
    }

    async fn step(&self, zone: &Zone, owner: &Name, ttl: u32, step: Step<'_>) -> Result<(), Error> {
        match step {
            Step::Post(value) => {
                let body = json!({"type": "TXT", "name": relative(owner, zone), "data": value, "ttl": ttl});
                let request = self.request(Method::POST, &["domains", &zone.id, "records"]).await?.json(&body);
                self.send(request).await.map(|_| ())
            }
            Step::Delete(id) => {
                let request = self.request(Method::DELETE, &["domains", &zone.id, "records", &id.to_string()]).await?;
                match self.send(request).await {
                    // Somebody else was faster, or the whole domain is gone.
                    Ok(_) | Err(Error::NotFound(_)) => Ok(()),
                    Err(error) => Err(error),
                }
            }
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, String)]) -> Result<T, Error> {
        let request = self.request(Method::GET, path).await?.query(query);
        self.send(request).await?.json()
    }

    async fn request(&self, method: Method, path: &[&str]) -> Result<RequestBuilder, Error> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v2").extend(path);
        }
        let token = secret::token(&*self.secrets, &self.token).await?;
        Ok(self.http.client().request(method, url).bearer_auth(token.expose_secret()))
    }

    /// Sends a request, tells the limiter what the answer says of the rate, and sorts errors.
    async fn send(&self, request: RequestBuilder) -> Result<Reply, Error> {
        let reply = self.http.send(request).await?;
        let rate = rate(&reply.headers);
        if let Some((remaining, reset)) = rate.filter(|(remaining, _)| *remaining < FEW) {
            self.http.limiter().observe(remaining, reset);
        }
        if reply.status.is_success() {
            return Ok(reply);
        }
        let told: Told = reply.json().unwrap_or_default();
        Err(match reply.error(&told.message) {
            // The limit by the hour says when a call is free again, and not how long that is.
            Error::RateLimited { reason, retry_after: None } => Error::RateLimited { reason, retry_after: rate.map(|(_, reset)| reset) },
            Error::Auth(said) if reply.status == StatusCode::FORBIDDEN || told.id == "forbidden" => {
                Error::Auth(format!("{said} (has the token the scopes domain:read, domain:create and domain:delete?)"))
            }
            error => error,
        })
    }
}

impl Standing {
    fn of(zone: &Zone, owner: &Name, found: &[Record]) -> Self {
        let mut standing = Self::default();
        for record in found.iter().filter(|record| absolute(&record.name, zone).as_ref() == Some(owner)) {
            standing.ttl = standing.ttl.or(record.ttl);
            standing.records.entry(record.data.clone().unwrap_or_default()).or_default().push(record.id);
        }
        standing
    }

    fn into_set(self) -> TxtSet {
        // A map of strings and numbers cannot fail to become JSON.
        let version = serde_json::to_string(&self).unwrap_or_default();
        TxtSet { values: self.records.into_keys().collect(), version }
    }
}

#[derive(Debug)]
enum Step<'a> {
    Post(&'a str),
    Delete(u64),
}

impl Plan {
    /// What a change takes; new RRsets get `ttl`.
    fn of(change: &Change, ttl: u32) -> Result<Self, Error> {
        let standing: Standing = serde_json::from_str(&change.version)
            .map_err(|_| Error::Conflict("the change says nothing of what stood before it: read first".to_owned()))?;
        let posts: Vec<String> = change.add.iter().filter(|value| !standing.records.contains_key(*value)).cloned().collect();
        for value in &posts {
            if value.is_empty() || value.len() > MOST_DATA {
                return Err(Error::Rejected(format!(
                    "DigitalOcean takes TXT values of 1 to {MOST_DATA} bytes; this one has {}",
                    value.len()
                )));
            }
            if value.contains('\\') {
                return Err(Error::Rejected("DigitalOcean does not keep a backslash in a TXT value as it is".to_owned()));
            }
        }
        let deletes = change.remove.iter().filter_map(|value| standing.records.get(value)).flatten().copied().collect();
        Ok(Self { posts, deletes, ttl: standing.ttl.unwrap_or(ttl).max(LEAST_TTL) })
    }

    /// Its calls. Values come before others go, so that a name is never without what somebody waits for.
    fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        self.posts.iter().map(|value| Step::Post(value)).chain(self.deletes.iter().map(|id| Step::Delete(*id)))
    }
}

/// A record's name as the API wants it: relative to the domain, `@` at the apex.
fn relative(owner: &Name, zone: &Zone) -> String {
    let (owner, apex) = (owner.to_relative_string(), zone.name.to_relative_string());
    if owner == apex { "@".to_owned() } else { owner.strip_suffix(&format!(".{apex}")).unwrap_or(&owner).to_owned() }
}

fn absolute(name: &str, zone: &Zone) -> Option<Name> {
    match name {
        "@" | "" => Some(zone.name.clone()),
        _ => name.parse::<Name>().ok()?.under(&zone.name).ok(),
    }
}

/// Calls left in the hour, and when the oldest one no longer counts (a date in the header).
fn rate(headers: &HeaderMap) -> Option<(u32, Duration)> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let reset = Duration::from_secs(number("ratelimit-reset")?).saturating_sub(now);
    Some((u32::try_from(number("ratelimit-remaining")?).unwrap_or(u32::MAX), reset))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Zone {
        Zone { id: "example.com".to_owned(), name: "example.com".parse().expect("a name"), nameservers: BTreeSet::new() }
    }

    #[test]
    fn names_are_relative_and_back() {
        for (whole, part) in [("example.com", "@"), ("*.example.com", "*"), ("_acme-challenge.a.example.com", "_acme-challenge.a")] {
            let whole: Name = whole.parse().expect("a name");
            assert_eq!(relative(&whole, &zone()), part);
            assert_eq!(absolute(part, &zone()), Some(whole));
        }
        let twice: Name = "example.com.example.com".parse().expect("a name");
        assert_eq!(relative(&twice, &zone()), "example.com");
    }

    #[test]
    fn all_records_with_a_value_go_and_new_values_come_first() {
        let owner: Name = "a.example.com".parse().expect("a name");
        let record =
            |id: u64, data: &str| Record { id, kind: "TXT".to_owned(), name: "a".to_owned(), data: Some(data.to_owned()), ttl: Some(1800) };
        let set = Standing::of(&zone(), &owner, &[record(1, "twice"), record(2, "Twice"), record(3, "twice")]).into_set();
        let change = |add: &str| Change {
            owner: owner.clone(),
            add: BTreeSet::from([add.to_owned()]),
            remove: BTreeSet::from(["twice".to_owned(), "gone".to_owned()]),
            version: set.version.clone(),
        };
        let plan = Plan::of(&change("new"), 60).expect("a plan");
        let steps: Vec<String> = plan.steps().map(|step| format!("{step:?}")).collect();
        assert_eq!(steps, ["Post(\"new\")", "Delete(1)", "Delete(3)"]);
        assert_eq!(plan.ttl, 1800, "the RRset keeps its TTL");
        for bad in ["", "back\\slash", &"x".repeat(513)] {
            assert!(matches!(Plan::of(&change(bad), 60), Err(Error::Rejected(_))), "{bad}");
        }
    }
}
