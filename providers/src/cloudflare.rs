//! Cloudflare by its API v4.
//!
//! Every value is a record object of its own, so a change never rewrites what is somebody else's: it posts records and deletes records by their ids.
//! Our records carry [`Context::mark`] as their comment. Many changes go out as one batch, which Cloudflare carries out as one transaction.
//!
//! The API's filters ignore letter case, and challenge values do not: whatever was filtered is compared again here.

mod api;
mod plan;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    sync::Arc,
};

use async_trait::async_trait;
use authdns::Name;
use futures_util::{StreamExt, stream};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    Calls, Change, Context, Error, Limits, Listing, Marked, Provider, Receipt, TxtSet, Zone, batch, http, kind,
    secret::SecretRef,
    txt::{self, Escapes},
    zones,
};
use api::{Api, Auth, Failure, Record, Token, TokenStatus, ZoneObject};
use plan::{Batch, Plan, Standing};

const ENDPOINT: &str = "https://api.cloudflare.com/client/v4";
/// Changes in a batch: what every plan takes, and what the paid ones take.
const FREE_BATCH: usize = 200;
const PAID_BATCH: usize = 3500;
/// Zones and records on a page.
const ZONES_A_PAGE: &str = "50";
const RECORDS_A_PAGE: &str = "1000";
/// How often a listing is begun anew when the zone changes under it.
const MOST_LISTINGS: usize = 3;
/// Look-ups of single names in flight.
const PARALLEL: usize = 4;
const CHALLENGES: &str = "_acme-challenge.";
/// TTLs that zones of every plan take; 1 is "automatic".
const TTL: std::ops::RangeInclusive<u32> = 60..=86_400;

/// How acmegate reaches Cloudflare: with an API token (best), or with the e-mail address and the global API key of a user.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// An API token with the permission Zone / DNS / Edit, and with Zone / Zone / Read unless there is a `zone_token` or every zone is pinned by its id.
    #[serde(default)]
    token: Option<SecretRef>,
    /// An API token with the permission Zone / Zone / Read, if `token` may not look zones up.
    #[serde(default)]
    zone_token: Option<SecretRef>,
    /// The e-mail address of the user whose global API key `key` is. A token is better: it can be limited to the zones and the rights it needs.
    #[serde(default)]
    email: Option<String>,
    /// The global API key of a user.
    #[serde(default)]
    key: Option<SecretRef>,
    /// The id of the account whose zones are meant, where the credential sees several accounts. Tokens that an account owns are verified with it.
    #[serde(default)]
    account_id: Option<String>,
    /// How many changes one batch takes: 200 on the free plan, which is the default; up to 3500 on the others.
    #[serde(default = "free_batch")]
    plan_batch: usize,
    /// Where the API is, instead of https://api.cloudflare.com/client/v4.
    #[serde(default)]
    endpoint: Option<String>,
    /// A PEM file with the root certificates of the endpoint, instead of the system's.
    #[serde(default)]
    ca_file: Option<PathBuf>,
}

fn free_batch() -> usize {
    FREE_BATCH
}

impl kind::Settings for Settings {
    const ID: &'static str = "cloudflare";
    const TITLE: &'static str = "Cloudflare";

    fn build(self, context: &Context) -> Result<Arc<dyn Provider>, String> {
        let auth = match (self.token, self.zone_token, self.email, self.key) {
            (Some(token), zone_token, None, None) => Auth::Tokens { records: token, zones: zone_token },
            (None, None, Some(email), Some(key)) if !email.is_empty() && email.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Auth::Key { email, key }
            }
            (None, None, Some(_), Some(_)) => return Err("email: it has to be an e-mail address, without blanks".to_owned()),
            (Some(_), _, _, _) => return Err("token: give either a token, or email and key, not both".to_owned()),
            (None, Some(_), _, _) => return Err("zone_token: it goes with a token for the records, under `token`".to_owned()),
            _ => return Err("token: an API token is missing (or email and key)".to_owned()),
        };
        if !(1..=PAID_BATCH).contains(&self.plan_batch) {
            return Err(format!("plan_batch: it has to be from 1 to {PAID_BATCH} (the free plan takes {FREE_BATCH})"));
        }
        let base = http::endpoint(self.endpoint.as_deref().unwrap_or(ENDPOINT))?;
        Ok(Arc::new(Cloudflare {
            api: Api::new(base, self.ca_file.as_deref(), auth, context.secrets.clone())?,
            account: self.account_id,
            batch: self.plan_batch,
            ttl: if context.ttl == 1 { 1 } else { context.ttl.clamp(*TTL.start(), *TTL.end()) },
            mark: context.mark.clone(),
        }))
    }
}

/// The provider.
struct Cloudflare {
    api: Api,
    account: Option<String>,
    batch: usize,
    ttl: u32,
    mark: String,
}

impl fmt::Debug for Cloudflare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cloudflare").field("account", &self.account).field("batch", &self.batch).finish_non_exhaustive()
    }
}

#[async_trait]
impl Provider for Cloudflare {
    fn limits(&self) -> Limits {
        Limits { owners: self.batch, ..Limits::default() }
    }

    async fn zones(&self, apex: Option<&Name>) -> Result<Listing, Error> {
        let name = apex.map(Name::to_relative_string);
        let mut query: Vec<(&str, &str)> = vec![("per_page", ZONES_A_PAGE)];
        query.extend(name.as_deref().map(|name| ("name", name)));
        query.extend(self.account.as_deref().map(|account| ("account.id", account)));
        let mut found: Vec<ZoneObject> = Vec::new();
        for page in 1usize.. {
            let number = page.to_string();
            let mut query = query.clone();
            query.push(("page", &number));
            let answer = self.api.get::<Vec<ZoneObject>>(Token::Zones, &["zones"], &query).await?;
            if answer.total.is_some_and(|total| total > zones::MOST_LISTED) {
                return Ok(Listing::default());
            }
            let (last, empty) = (answer.is_last(page), answer.result.is_empty());
            found.extend(answer.result);
            if last || empty {
                break;
            }
            if found.len() > zones::MOST_LISTED {
                return Ok(Listing::default());
            }
        }
        Ok(Listing { zones: served(&found), complete: true })
    }

    async fn read(&self, zone: &Zone, owners: &[Name]) -> Vec<Result<TxtSet, Error>> {
        match owners {
            [] => Vec::new(),
            [owner] => vec![self.read_one(zone, owner).await],
            _ => match self.list(zone, owners).await {
                Ok(Some(records)) => owners.iter().map(|owner| Ok(self.txt_set(owner, &records))).collect(),
                // The zone is large, and the names are few.
                Ok(None) => {
                    let calls: Vec<_> = owners.iter().map(|owner| self.read_one(zone, owner)).collect();
                    stream::iter(calls).buffered(PARALLEL).collect().await
                }
                Err(error) => owners.iter().map(|_| Err(error.clone())).collect(),
            },
        }
    }

    async fn apply(&self, zone: &Zone, changes: &[Change]) -> Vec<Result<Receipt, Error>> {
        let mut results: Vec<Result<Receipt, Error>> = Vec::with_capacity(changes.len());
        let mut to_send: Vec<(usize, Change)> = Vec::new();
        for (place, change) in changes.iter().enumerate() {
            let plan = Plan::of(change, self.ttl);
            if plan.as_ref().is_ok_and(|plan| plan.len() > 0) {
                to_send.push((place, change.clone()));
            }
            results.push(plan.map(|_| Receipt::default()));
        }
        let (places, to_send): (Vec<usize>, Vec<Change>) = to_send.into_iter().unzip();
        let fit = |run: &[&Change]| {
            let sizes = run.iter().map(|change| Plan::of(change, self.ttl).map_or(0, |plan| plan.len()));
            let sums = sizes.scan(0usize, |sum, size| {
                *sum += size;
                Some(*sum)
            });
            sums.take_while(|sum| *sum <= self.batch).count()
        };
        let sent = batch::send(&to_send, fit, |run| self.send(zone, run)).await;
        for (place, result) in places.into_iter().zip(sent) {
            if let Some(slot) = results.get_mut(place) {
                *slot = result;
            }
        }
        results
    }

    async fn verify(&self) -> Result<String, Error> {
        let mut said = Vec::new();
        for token in self.api.tokens() {
            said.extend(self.verify_token(token).await?);
        }
        let mut query = vec![("per_page", "1")];
        query.extend(self.account.as_deref().map(|account| ("account.id", account)));
        // A token may be fine for records without being allowed to list zones; one that nothing is known of yet has to do this at least.
        match self.api.get::<Vec<ZoneObject>>(Token::Zones, &["zones"], &query).await {
            Ok(answer) => said.push(match answer.total {
                Some(total) => format!("{total} zones can be seen"),
                None => "zones can be seen".to_owned(),
            }),
            Err(Error::Auth(_)) if !said.is_empty() => said.push("zones cannot be listed: pin each by its id".to_owned()),
            Err(error) => return Err(error),
        }
        Ok(said.join("; "))
    }

    async fn marked(&self, zone: &Zone) -> Result<Option<Vec<Marked>>, Error> {
        let filters = [("comment.exact", self.mark.as_str())];
        let records = self.records(zone, &filters, usize::MAX).await?.unwrap_or_default();
        let ours = records.iter().filter(|record| record.comment.as_deref() == Some(self.mark.as_str()));
        let mut marked: Vec<Marked> = ours.filter_map(|record| Some(Marked { owner: record.owner()?, value: value(record) })).collect();
        marked.sort();
        marked.dedup();
        Ok(Some(marked))
    }

    fn calls(&self) -> Calls {
        self.api.calls()
    }
}

impl Cloudflare {
    /// The TXT set of one owner, by a look-up of this name alone.
    async fn read_one(&self, zone: &Zone, owner: &Name) -> Result<TxtSet, Error> {
        let name = owner.to_relative_string();
        let records = self.records(zone, &[("name.exact", &name)], usize::MAX).await?.unwrap_or_default();
        Ok(self.txt_set(owner, &by_owner(records)))
    }

    /// The records at many owners, by listing the zone; `None` if a look-up for each is cheaper.
    async fn list(&self, zone: &Zone, owners: &[Name]) -> Result<Option<BTreeMap<Name, Vec<Record>>>, Error> {
        let challenges = owners.iter().all(|owner| owner.to_relative_string().starts_with(CHALLENGES));
        let filters: &[(&str, &str)] = if challenges { &[("name.startswith", CHALLENGES)] } else { &[] };
        Ok(self.records(zone, filters, owners.len()).await?.map(by_owner))
    }

    /// The TXT records that the filters leave over; `None` if they stand on more than so many pages (the first is read nevertheless).
    async fn records(&self, zone: &Zone, filters: &[(&str, &str)], most_pages: usize) -> Result<Option<Vec<Record>>, Error> {
        let path = ["zones", zone.id.as_str(), "dns_records"];
        'listing: for _ in 0..MOST_LISTINGS {
            let mut records: Vec<Record> = Vec::new();
            let mut total = None;
            for page in 1usize.. {
                let number = page.to_string();
                let mut query = vec![("type", "TXT"), ("per_page", RECORDS_A_PAGE), ("page", &number)];
                query.extend_from_slice(filters);
                let answer = self.api.get::<Vec<Record>>(Token::Records, &path, &query).await?;
                // Records that come and go move others across the edges of pages: one of ours could be missed.
                if page > 1 && answer.total != total {
                    continue 'listing;
                }
                total = answer.total;
                if answer.pages.is_some_and(|pages| pages > most_pages) {
                    return Ok(None);
                }
                let (last, empty) = (answer.is_last(page), answer.result.is_empty());
                records.extend(answer.result.into_iter().filter(|record| record.kind == "TXT"));
                if last || empty {
                    return Ok(Some(records));
                }
            }
        }
        Err(Error::Conflict("the zone's records changed while they were listed: read again".to_owned()))
    }

    fn txt_set(&self, owner: &Name, records: &BTreeMap<Name, Vec<Record>>) -> TxtSet {
        Standing::of(records.get(owner).map_or(&[], Vec::as_slice), &self.mark).into_set()
    }

    /// One batch.
    async fn send(&self, zone: &Zone, run: Vec<Change>) -> Result<Receipt, batch::Refusal> {
        let plans = run.iter().map(|change| Plan::of(change, self.ttl)).collect::<Result<Vec<_>, _>>()?;
        let batch = Batch::of(&run, &plans, &self.mark);
        let Err(Failure { error, pointers }) = self.api.post_batch(&zone.id, &batch).await else {
            return Ok(Receipt::default());
        };
        let named: BTreeSet<usize> = pointers.iter().filter_map(|pointer| batch.change_at(pointer)).collect();
        let places: Vec<usize> = match &error {
            // The zone is gone for all of them.
            Error::NotFound(_) => (0..run.len()).collect(),
            Error::Conflict(_) | Error::Rejected(_) if !named.is_empty() => named.into_iter().collect(),
            Error::Conflict(_) => self.stale(zone, &run, &plans).await,
            _ => Vec::new(),
        };
        let culprits = places.into_iter().map(|place| (place, error.clone())).collect();
        Err(batch::Refusal { error, culprits })
    }

    /// The changes that no longer fit what stands, by reading it again: something to delete is gone, or something to post is there.
    async fn stale(&self, zone: &Zone, run: &[Change], plans: &[Plan]) -> Vec<usize> {
        let owners: Vec<Name> = run.iter().map(|change| change.owner.clone()).collect();
        let now = self.read(zone, &owners).await;
        let stale = plans.iter().zip(now).enumerate().filter(|(_, (plan, now))| now.as_ref().is_ok_and(|now| !plan.still_fits(now)));
        stale.map(|(place, _)| place).collect()
    }

    /// Asks about a token at the endpoints for that; `None` if they do not know it, which says nothing yet of a token that an account owns.
    async fn verify_token(&self, token: Token) -> Result<Option<String>, Error> {
        let user: [&str; 3] = ["user", "tokens", "verify"];
        let of_account = self.account.as_deref().map(|account| ["accounts", account, "tokens", "verify"]);
        let mut asked = vec![user.as_slice()];
        asked.extend(of_account.as_ref().map(|path| path.as_slice()));
        for path in asked {
            match self.api.get::<TokenStatus>(token, path, &[]).await {
                Ok(answer) if answer.result.status == "active" => return Ok(Some(answer.result.to_string())),
                Ok(answer) => return Err(Error::Auth(format!("the API token is {}: make a new one", answer.result.status))),
                Err(Error::Auth(_) | Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// The zones whose records Cloudflare serves and lets us write: no secondaries, no set-ups by CNAME, no internal ones. Of several of one name, Cloudflare has
/// at most one active, which is the one that is delegated to it.
fn served(found: &[ZoneObject]) -> Vec<Zone> {
    let full: Vec<(&ZoneObject, Zone)> =
        found.iter().filter(|zone| zone.kind == "full").filter_map(|zone| Some((zone, zone.zone()?))).collect();
    let active: BTreeSet<&Name> = full.iter().filter(|(object, _)| object.is_active()).map(|(_, zone)| &zone.name).collect();
    let kept = full.iter().filter(|(object, zone)| object.is_active() || !active.contains(&zone.name));
    kept.map(|(_, zone)| zone.clone()).collect()
}

fn by_owner(records: Vec<Record>) -> BTreeMap<Name, Vec<Record>> {
    let mut sorted: BTreeMap<Name, Vec<Record>> = BTreeMap::new();
    for record in records {
        if let Some(owner) = record.owner() {
            sorted.entry(owner).or_default().push(record);
        }
    }
    sorted
}

/// The value of a TXT record. What begins with a quote is presentation format; older records stand without quotes, as one value.
fn value(record: &Record) -> String {
    let content = record.content.as_deref().unwrap_or_default();
    if content.trim_start().starts_with('"') { txt::decode_text(content, Escapes::Decimal) } else { content.to_owned() }
}
