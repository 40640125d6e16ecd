//! Azure DNS by its REST API (`Microsoft.Network/dnsZones`, version 2018-05-01).
//!
//! A change is one `PUT` (or `DELETE`) of the whole record set under the ETag that it was read with, so that what somebody else wrote meanwhile is never
//! lost; there are no batches. Private zones are another type of resource and are not seen.
//!
//! ```text
//!   azuredns ──▶ record_set   what a change makes of a record set
//!      ├───────▶ listing      which zones there are, and what lies below one
//!      │
//!      └───────▶ arm ──▶ auth ──▶ credential, assertion, metadata
//!                 └────▶ words   what Azure's errors mean
//! ```

mod arm;
mod assertion;
mod auth;
mod credential;
mod listing;
mod metadata;
mod record_set;
mod words;

use std::{collections::HashMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use authdns::Name;
use futures_util::future::join_all;
use parking_lot::Mutex;
use reqwest::{
    Url,
    header::{IF_MATCH, IF_NONE_MATCH},
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use self::{
    arm::{Arm, Kind, List, PAGE, good},
    auth::Tokens,
    credential::Credential,
    listing::unlisted,
    record_set::{Answer, Precondition, Write},
};
use crate::{
    Calls, Change, Context, Error, Limits, Listing, Provider, Receipt, TxtSet, Zone,
    http::{self, Http},
    kind,
    limiter::Limiter,
    zones,
};

/// Reads, and writes, under way at a time.
const PARALLEL: usize = 8;
/// Records of a record set, where the zone does not say otherwise.
const MOST_RECORDS: usize = 20;
/// Owners that are worth handing over at once.
const MOST_OWNERS: usize = 50;
/// More owners than this are read as a list.
const FEW_OWNERS: usize = 10;
/// Zones whose limits are remembered.
const MOST_REMEMBERED: usize = 10_000;
/// Writes of one kind in a zone and a minute that Azure documents ("Public DNS resource record operations").
const WRITES_PER_MINUTE: u32 = 200;

/// The settings of `provider: azuredns`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// The id of the subscription.
    pub subscription: String,
    /// The resource group of the zones; by default all of the subscription. With it, a credential does that may read and write single zones alone.
    #[serde(default)]
    pub resource_group: Option<String>,
    /// The cloud.
    #[serde(default)]
    pub cloud: Cloud,
    /// Who acmegate is at Microsoft Entra.
    #[serde(default)]
    pub credential: Credential,
    /// Where tokens are asked for; by default the cloud's (or `AZURE_AUTHORITY_HOST`).
    #[serde(default)]
    pub authority: Option<String>,
    /// The resource manager; by default the cloud's.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// What tokens are for; by default the cloud's resource manager, or `endpoint` for `custom`.
    #[serde(default)]
    pub audience: Option<String>,
    /// PEM with the roots that both of them use, instead of the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// How often record sets are written in one zone, each minute. Azure allows 200 writes and as many deletions to everybody who writes there together.
    #[serde(default = "writes_per_minute")]
    #[schemars(range(min = 1))]
    pub writes_per_minute: u32,
}

fn writes_per_minute() -> u32 {
    WRITES_PER_MINUTE
}

/// Clouds that are apart from each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum Cloud {
    /// Azure, as most know it.
    #[default]
    Public,
    /// Azure Government (USA).
    Usgovernment,
    /// Azure operated by 21Vianet (China).
    China,
    /// Another one: `authority` and `endpoint` say where it is.
    Custom,
}

impl Cloud {
    /// Authority, resource manager, and the audience of its tokens, as Microsoft's libraries have them.
    fn places(self) -> Option<(&'static str, &'static str, &'static str)> {
        match self {
            Self::Public => Some(("https://login.microsoftonline.com", "https://management.azure.com", "https://management.azure.com")),
            Self::Usgovernment => Some((
                "https://login.microsoftonline.us",
                "https://management.usgovcloudapi.net",
                "https://management.core.usgovcloudapi.net",
            )),
            Self::China => {
                Some(("https://login.chinacloudapi.cn", "https://management.chinacloudapi.cn", "https://management.chinacloudapi.cn"))
            }
            Self::Custom => None,
        }
    }
}

impl kind::Settings for Settings {
    const ID: &'static str = "azuredns";
    const TITLE: &'static str = "Azure DNS";

    fn build(self, context: &Context) -> Result<Arc<dyn Provider>, String> {
        let variables = Arc::new(|name: &str| std::env::var(name).ok());
        self.provider(context, variables).map(|provider| Arc::new(provider) as Arc<dyn Provider>)
    }
}

impl Settings {
    fn provider(self, context: &Context, variables: credential::Variables) -> Result<AzureDns, String> {
        segment("subscription", &self.subscription)?;
        if let Some(group) = &self.resource_group {
            segment("resource_group", group)?;
        }
        if self.writes_per_minute == 0 {
            return Err("writes_per_minute: 0 would never write: leave it out, or give a larger number".to_owned());
        }
        self.credential.check()?;
        let (cloud_authority, cloud_endpoint, cloud_audience) = match self.cloud.places() {
            Some(places) => places,
            None if self.authority.is_some() && self.endpoint.is_some() => ("", "", ""),
            None => return Err("cloud: custom needs both authority and endpoint".to_owned()),
        };
        let endpoint = self.endpoint.as_deref().unwrap_or(cloud_endpoint);
        let authority = self.authority.as_deref().map(http::endpoint).transpose().map_err(|error| format!("authority: {error}"))?;
        let audience = match (&self.audience, self.cloud) {
            (Some(audience), _) => audience,
            (None, Cloud::Custom) => endpoint,
            (None, _) => cloud_audience,
        };
        let client = |limiter| Http::new(self.ca_file.as_deref(), limiter);
        // Tokens live for an hour and more: ten at once are for a start that fails.
        let for_tokens = || Arc::new(Limiter::new(Duration::from_secs(1), 10));
        let tokens = Tokens {
            authority,
            cloud_authority,
            audience: audience.trim_end_matches('/').to_owned(),
            http: client(for_tokens())?,
            local: Http::direct(for_tokens())?,
            secrets: context.secrets.clone(),
            variables,
            cached: tokio::sync::Mutex::default(),
            credential: self.credential,
        };
        let [reads, writes, deletes] = arm::limiters();
        let clients = [client(reads)?, client(writes)?, client(deletes)?];
        Ok(AzureDns {
            arm: Arm::new(http::endpoint(endpoint)?, tokens, clients),
            subscription: self.subscription,
            resource_group: self.resource_group,
            ttl: context.ttl,
            writes_per_minute: self.writes_per_minute,
            reading: tokio::sync::Semaphore::new(PARALLEL),
            writing: tokio::sync::Semaphore::new(PARALLEL),
            known: Mutex::default(),
        })
    }
}

/// What becomes a segment of a path must not be able to lead elsewhere.
fn segment(key: &str, text: &str) -> Result<(), String> {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '(' | ')');
    let fits = !text.is_empty() && text.chars().all(plain) && !matches!(text, "." | "..");
    fits.then_some(()).ok_or_else(|| format!("{key}: {text:?} cannot be one: it has characters that Azure does not allow there"))
}

/// Azure DNS with one credential.
struct AzureDns {
    arm: Arm,
    subscription: String,
    resource_group: Option<String>,
    ttl: u32,
    writes_per_minute: u32,
    /// Calls under way, whoever asked for them; apart, so that reads do not wait behind writes that wait for their turn.
    reading: tokio::sync::Semaphore,
    writing: tokio::sync::Semaphore,
    /// By the zone's id.
    known: Mutex<HashMap<String, Arc<Known>>>,
}

/// What is remembered of a zone.
#[derive(Debug)]
struct Known {
    /// Most records of a record set, if the zone has been seen.
    records: Mutex<Option<usize>>,
    /// The DNS service counts writes and deletions of each zone, beside what the resource manager counts.
    writes: Limiter,
    deletes: Limiter,
}

/// A zone as the API gives it.
#[derive(Deserialize)]
struct Answered {
    id: String,
    name: String,
    #[serde(default)]
    properties: ZoneProperties,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ZoneProperties {
    #[serde(default)]
    name_servers: Option<Vec<String>>,
    #[serde(default)]
    max_number_of_records_per_record_set: Option<usize>,
    /// A preview of private zones had them under the same type.
    #[serde(default)]
    zone_type: Option<String>,
}

#[async_trait]
impl Provider for AzureDns {
    fn limits(&self) -> Limits {
        // There are no batches, and what is done is known when all of it is: a quarter of a minute's writes keeps nobody waiting for long.
        let owners = usize::try_from(self.writes_per_minute / 4).unwrap_or(MOST_OWNERS).clamp(1, MOST_OWNERS);
        Limits { owners, values: MOST_RECORDS, ..Limits::default() }
    }

    async fn zones(&self, apex: Option<&Name>) -> Result<Listing, Error> {
        if let (Some(apex), Some(group)) = (apex, &self.resource_group) {
            return self.zone_of_group(group, apex).await;
        }
        let url = self.listing(PAGE)?;
        let list: List<Answered> = match self.arm.list(url, usize::MAX, zones::MOST_LISTED).await? {
            Ok(list) => list,
            // Whoever may see single zones of a group alone is asked for them one by one.
            Err(reply) if words::is_forbidden(&reply) && self.resource_group.is_some() => return Ok(Listing::default()),
            Err(reply) => return Err(unlisted(words::error(&reply))),
        };
        let zones: Vec<Zone> = list.entries.into_iter().filter_map(|zone| self.seen(zone)).collect();
        Ok(match apex {
            Some(apex) => Listing { zones: zones.into_iter().filter(|zone| zone.name == *apex).collect(), complete: list.complete },
            None => Listing { zones, complete: list.complete },
        })
    }

    async fn read(&self, zone: &Zone, owners: &[Name]) -> Vec<Result<TxtSet, Error>> {
        // Once for all: a credential that is refused is not asked about for each owner.
        if let Err(error) = self.arm.tokens.get().await {
            return owners.iter().map(|_| Err(error.clone())).collect();
        }
        let mut found = HashMap::new();
        let mut everything = false;
        if owners.len() > FEW_OWNERS {
            match self.read_list(zone, owners.len()).await {
                Ok((sets, complete)) => (found, everything) = (sets, complete),
                Err(error) => return owners.iter().map(|_| Err(error.clone())).collect(),
            }
        }
        let one = |owner: &Name| {
            let listed = found.remove(owner);
            let owner = owner.clone();
            async move {
                match listed {
                    Some(set) => set,
                    None if everything => record_set::absent(),
                    None => self.read_one(zone, &owner).await,
                }
            }
        };
        let tasks: Vec<_> = owners.iter().map(one).collect();
        join_all(tasks).await
    }

    async fn apply(&self, zone: &Zone, changes: &[Change]) -> Vec<Result<Receipt, Error>> {
        if let Err(error) = self.arm.tokens.get().await {
            return changes.iter().map(|_| Err(error.clone())).collect();
        }
        let tasks: Vec<_> = changes.iter().map(|change| self.write(zone, change)).collect();
        let done = join_all(tasks).await;
        done.into_iter().map(|result| result.map(|()| Receipt::default())).collect()
    }

    async fn verify(&self) -> Result<String, Error> {
        let reply = self.arm.get(self.listing(1)?).await?;
        let scope = match &self.resource_group {
            Some(group) => format!("the resource group {group} of the subscription {}", self.subscription),
            None => format!("the subscription {}", self.subscription),
        };
        let who = self.arm.tokens.credential.describe();
        if words::is_forbidden(&reply) {
            // Right for a role that was given at a zone alone.
            return Ok(format!(
                "{who} signs in, and may not list the zones of {scope}: they have to be named under `zones`, with `resource_group` set or with their ids"
            ));
        }
        good(reply)?;
        Ok(format!("{who} may list the zones of {scope}"))
    }

    fn calls(&self) -> Calls {
        self.arm.calls()
    }
}

impl AzureDns {
    fn known(&self, id: &str) -> Arc<Known> {
        let mut known = self.known.lock();
        if known.len() >= MOST_REMEMBERED && !known.contains_key(id) {
            known.clear();
        }
        let pace = || Limiter::new(Duration::from_secs(60) / self.writes_per_minute, self.writes_per_minute);
        known.entry(id.to_owned()).or_insert_with(|| Arc::new(Known { records: Mutex::default(), writes: pace(), deletes: pace() })).clone()
    }

    async fn read_one(&self, zone: &Zone, owner: &Name) -> Result<TxtSet, Error> {
        let url = self.below(zone, &["TXT", &record_set::relative(zone, owner)?])?;
        let _place = self.reading.acquire().await;
        let reply = self.arm.get(url).await?;
        if words::is_absent(&reply) {
            return record_set::absent();
        }
        good(reply)?.json::<Answer>()?.into_set()
    }

    /// The TXT record sets of a zone by owner, and whether these are all. A zone that is much larger than what is asked for is not read to its end.
    async fn read_list(&self, zone: &Zone, owners: usize) -> Result<(HashMap<Name, Result<TxtSet, Error>>, bool), Error> {
        let mut url = self.below(zone, &["TXT"])?;
        url.query_pairs_mut().append_pair("$top", &PAGE.to_string());
        let list = match self.arm.list::<Answer>(url, 1 + owners / FEW_OWNERS, usize::MAX).await? {
            Ok(list) => list,
            Err(reply) => return Err(words::error(&reply)),
        };
        let owner = |relative: &str| match relative {
            "@" => Some(zone.name.clone()),
            other => other.parse::<Name>().ok()?.under(&zone.name).ok(),
        };
        let sets = list.entries.into_iter().filter_map(|entry| Some((owner(&entry.name)?, entry.into_set()))).collect();
        Ok((sets, list.complete))
    }

    async fn write(&self, zone: &Zone, change: &Change) -> Result<(), Error> {
        let relative = record_set::relative(zone, &change.owner)?;
        let url = self.below(zone, &["TXT", &relative])?;
        let known = self.known(&zone.id);
        match record_set::plan(change, self.ttl)? {
            Write::Nothing => Ok(()),
            Write::Put { precondition, body, records } => {
                if records > MOST_RECORDS && records > self.most_records(zone, &known).await {
                    return Err(Error::Rejected(format!(
                        "the TXT record set of {} would have {records} records, more than the zone allows: remove some that nobody needs",
                        change.owner.to_relative_string(),
                    )));
                }
                known.writes.acquire().await?;
                self.put(url, &precondition, &body).await
            }
            Write::Delete { etag } => {
                known.deletes.acquire().await?;
                let _place = self.writing.acquire().await;
                let reply = self.arm.call(Kind::Delete, |client| client.delete(url.clone()).header(IF_MATCH, etag.clone())).await?;
                if words::is_absent(&reply) {
                    return Ok(());
                }
                good(reply).map(drop)
            }
        }
    }

    async fn put(&self, url: Url, precondition: &Precondition, body: &Value) -> Result<(), Error> {
        let _place = self.writing.acquire().await;
        let reply = self.arm.call(Kind::Write, |client| {
            let request = client.put(url.clone()).json(body);
            match precondition {
                Precondition::Same(etag) => request.header(IF_MATCH, etag.clone()),
                Precondition::Absent => request.header(IF_NONE_MATCH, "*"),
            }
        });
        let reply = reply.await?;
        if words::is_absent(&reply) {
            return Err(Error::Conflict("the record set is gone by now".to_owned()));
        }
        good(reply).map(drop)
    }
}

impl fmt::Debug for AzureDns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureDns")
            .field("subscription", &self.subscription)
            .field("resource_group", &self.resource_group)
            .field("arm", &self.arm)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::LocalSecrets;

    fn provider(settings: serde_json::Value, variables: credential::Variables) -> AzureDns {
        let settings: Settings = serde_json::from_value(settings).expect("good settings");
        let context = Context { backend: "test".into(), ttl: 60, mark: String::new(), secrets: Arc::new(LocalSecrets) };
        settings.provider(&context, variables).expect("a provider")
    }

    #[test]
    fn each_cloud_has_its_places() {
        let places = |settings: serde_json::Value| {
            let provider = provider(settings, Arc::new(|_| None));
            let token_url = provider.arm.tokens.token_url("t").expect("a URL");
            let url = provider.listing(1).expect("a URL");
            (
                token_url.host_str().unwrap_or_default().to_owned(),
                url.host_str().unwrap_or_default().to_owned(),
                provider.arm.tokens.audience,
            )
        };
        let of = |cloud: &str| places(serde_json::json!({"subscription": "s", "cloud": cloud}));
        let texts = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        let public = texts("login.microsoftonline.com", "management.azure.com", "https://management.azure.com");
        assert_eq!(of("public"), public);
        assert_eq!(places(serde_json::json!({"subscription": "s"})), public);
        assert_eq!(
            of("usgovernment"),
            texts("login.microsoftonline.us", "management.usgovcloudapi.net", "https://management.core.usgovcloudapi.net")
        );
        assert_eq!(of("china"), texts("login.chinacloudapi.cn", "management.chinacloudapi.cn", "https://management.chinacloudapi.cn"));
        let custom = serde_json::json!({
            "subscription": "s", "cloud": "custom", "authority": "https://login.stack.example/adfs",
            "endpoint": "https://management.stack.example/",
        });
        assert_eq!(places(custom.clone()), texts("login.stack.example", "management.stack.example", "https://management.stack.example"));
        let mut audience = custom;
        audience["audience"] = "https://management.stack.example/4f6a".into();
        assert_eq!(places(audience).2, "https://management.stack.example/4f6a");
    }

    #[test]
    fn the_authority_is_the_settings_or_the_environments_or_the_clouds() {
        let url = |authority: serde_json::Value, host: Option<&'static str>| {
            let settings = serde_json::json!({"subscription": "s", "authority": authority});
            let variables = Arc::new(move |name: &str| host.filter(|_| name == "AZURE_AUTHORITY_HOST").map(str::to_owned));
            provider(settings, variables).arm.tokens.token_url("t").map(String::from)
        };
        let end = "/t/oauth2/v2.0/token";
        assert_eq!(url(serde_json::Value::Null, None), Ok(format!("https://login.microsoftonline.com{end}")));
        assert_eq!(url(serde_json::Value::Null, Some("login.example.com")), Ok(format!("https://login.example.com{end}")));
        assert_eq!(url(serde_json::Value::Null, Some("https://login.example.com/")), Ok(format!("https://login.example.com{end}")));
        assert_eq!(url("https://mine.example.com".into(), Some("login.example.com")), Ok(format!("https://mine.example.com{end}")));
        assert!(
            matches!(url(serde_json::Value::Null, Some("http://login.example.com")), Err(Error::Auth(text)) if text.contains("in the clear"))
        );
    }
}
