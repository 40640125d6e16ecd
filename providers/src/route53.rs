//! Amazon Route 53, through its SDK.
//!
//! **Compare-and-swap.** The version of an RRset is what was read, in Route 53's own text. A change is DELETE of exactly that and CREATE of the new RRset in
//! one batch, which is all or nothing; a batch whose old RRset is gone or changed is refused, and says which.
//!
//! **Rate.** An account has five requests a second, whatever the zone: many owners are read by few pages ([`listing`]), many changes go out in one batch, and
//! one receipt stands for all of them. The SDK does not retry: the limiter paces, and the caller decides what may be sent again.
//!
//! **Wildcards and other special names** are written with octal escapes ([`name`]).

mod failure;
mod listing;
mod name;
mod rrset;
mod session;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    future::Future,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use authdns::Name;
use aws_sdk_route53::{
    config::{SharedHttpClient, http::HttpResponse},
    error::{ProvideErrorMetadata, SdkError},
    types::{ChangeBatch, ChangeStatus, HostedZone, RrType},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use self::{
    failure::{Failure, PAUSE},
    listing::{Marker, Page, gallop},
    rrset::{MOST_CHARACTERS, MOST_RECORDS, Plan, Standing},
    session::Session,
};
use crate::{
    Calls, Change, Context, Error, Limits, Listing, Progress, Provider, Receipt, TxtSet, Zone, batch, http, kind,
    limiter::Limiter,
    secret::{SecretRef, Secrets},
    zones::MOST_LISTED,
};

/// Five requests a second for each account (Route 53's quotas).
const INTERVAL: Duration = Duration::from_millis(200);
const BURST: u32 = 5;
/// Zones in a page, at most.
const ZONES: i32 = 100;

/// Route 53. Without a credential here, the SDK's own chain is used: environment, profile files, web identity (IRSA), container (ECS, EKS Pod Identity)
/// and instance role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// The profile of the AWS configuration files to use.
    pub(crate) profile: Option<String>,
    /// Where the id of an access key is, for a fixed key.
    pub(crate) access_key_id: Option<SecretRef>,
    /// Where its secret is.
    pub(crate) secret_access_key: Option<SecretRef>,
    /// Where its session token is, for a temporary one.
    pub(crate) session_token: Option<SecretRef>,
    /// A role to take with the token of a web identity (OIDC).
    pub(crate) web_identity: Option<WebIdentity>,
    /// A role to take with the credential above, such as one in the account of the zones.
    pub(crate) assume_role: Option<AssumeRole>,
    /// The region that names the partition (Route 53 is the same in all regions of one): by default that of the environment or profile, else `us-east-1`.
    pub(crate) region: Option<String>,
    /// Another base URL than Route 53's own.
    pub(crate) endpoint: Option<String>,
    /// Another base URL than that of the region's Security Token Service.
    pub(crate) sts_endpoint: Option<String>,
    /// PEM with the roots to trust for HTTPS instead of the system's.
    pub(crate) ca_file: Option<PathBuf>,
}

/// A role that trusts the issuer of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebIdentity {
    /// The file with the token; read again whenever the role is taken anew.
    pub(crate) token_file: PathBuf,
    /// The role's ARN.
    pub(crate) role_arn: String,
    /// What the session is called in the account's logs; by default `acmegate`.
    #[serde(default)]
    pub(crate) session_name: Option<String>,
}

/// A role that trusts another credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AssumeRole {
    /// The role's ARN.
    pub(crate) role_arn: String,
    /// The external id that the role's trust policy asks for.
    #[serde(default)]
    pub(crate) external_id: Option<String>,
    /// What the session is called in the account's logs; by default `acmegate`.
    #[serde(default)]
    pub(crate) session_name: Option<String>,
}

impl kind::Settings for Settings {
    const ID: &'static str = "route53";
    const TITLE: &'static str = "Amazon Route 53";

    fn build(self, context: &Context) -> Result<Arc<dyn Provider>, String> {
        if self.access_key_id.is_some() != self.secret_access_key.is_some() {
            return Err("access_key_id and secret_access_key belong together: give both or neither".to_owned());
        }
        if self.session_token.is_some() && self.access_key_id.is_none() {
            return Err("session_token belongs to an access key: give access_key_id and secret_access_key too".to_owned());
        }
        let sources = [self.profile.is_some(), self.access_key_id.is_some(), self.web_identity.is_some()];
        if sources.iter().filter(|given| **given).count() > 1 {
            return Err("profile, access_key_id and web_identity are three ways to one credential: give one of them".to_owned());
        }
        if let Some(endpoint) = &self.endpoint {
            http::endpoint(endpoint)?;
        }
        if let Some(endpoint) = &self.sts_endpoint {
            http::endpoint(endpoint).map_err(|error| format!("sts_{error}"))?;
        }
        let http = self.ca_file.as_deref().map(session::https).transpose()?;
        Ok(Arc::new(Route53 {
            settings: self,
            http,
            ttl: context.ttl,
            secrets: Arc::clone(&context.secrets),
            limiter: Limiter::new(INTERVAL, BURST),
            session: Mutex::default(),
        }))
    }
}

/// Route 53, reached with one credential.
struct Route53 {
    settings: Settings,
    http: Option<SharedHttpClient>,
    ttl: u32,
    secrets: Arc<dyn Secrets>,
    limiter: Limiter,
    /// Made when it is first needed, and made anew after the credential was refused: files and environment are then read again.
    session: Mutex<Option<Session>>,
}

impl Route53 {
    async fn session(&self) -> Session {
        let mut session = self.session.lock().await;
        match &*session {
            Some(session) => session.clone(),
            None => {
                let opened = Box::pin(Session::open(&self.settings, self.http.clone(), &self.secrets)).await;
                session.insert(opened).clone()
            }
        }
    }

    /// Sends a request, when it is its turn.
    async fn call<T, E>(&self, request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>> + Send) -> Result<T, Failure>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + 'static,
    {
        self.limiter.acquire().await?;
        // The SDK's futures are many kilobytes.
        let failure = match Box::pin(request).await {
            Ok(answer) => return Ok(answer),
            Err(error) => Failure::of(&error),
        };
        match &failure.error {
            Error::RateLimited { .. } => self.limiter.throttled(PAUSE),
            Error::Transport(_) | Error::Unsent(_) => self.limiter.failed(),
            _ => {}
        }
        if failure.is_of_credential() {
            *self.session.lock().await = None;
        }
        Err(failure)
    }

    /// The hosted zones with exactly this apex.
    async fn named(&self, apex: &Name) -> Result<Vec<HostedZone>, Failure> {
        let session = self.session().await;
        let (mut found, mut from) = (Vec::new(), (name::written(apex), None));
        loop {
            let request = session.route53.list_hosted_zones_by_name().dns_name(&from.0).set_hosted_zone_id(from.1.clone()).max_items(ZONES);
            let page = self.call(request.send()).await?;
            for zone in page.hosted_zones {
                if name::parse(&zone.name).as_ref() != Some(apex) {
                    return Ok(found);
                }
                found.push(zone);
            }
            let next = (page.next_dns_name.unwrap_or_default(), page.next_hosted_zone_id);
            if !page.is_truncated || name::parse(&next.0).as_ref() != Some(apex) || next == from {
                return Ok(found);
            }
            from = next;
        }
    }

    /// All hosted zones; `None` if there are too many.
    async fn all(&self) -> Result<Option<Vec<HostedZone>>, Failure> {
        let session = self.session().await;
        let (mut found, mut marker) = (Vec::new(), None);
        loop {
            let page = self.call(session.route53.list_hosted_zones().set_marker(marker.clone()).max_items(ZONES).send()).await?;
            found.extend(page.hosted_zones);
            if !page.is_truncated || page.next_marker.is_none() || page.next_marker == marker {
                return Ok(Some(found));
            }
            if found.len() >= MOST_LISTED {
                return Ok(None);
            }
            marker = page.next_marker;
        }
    }

    /// Public zones as a listing, with the servers of those that share a name: only these need to be told apart.
    async fn public(&self, hosted: Vec<HostedZone>) -> Result<Vec<Zone>, Failure> {
        let mut zones: BTreeMap<Name, BTreeSet<String>> = BTreeMap::new();
        for zone in hosted {
            if zone.config().is_none_or(|config| !config.private_zone())
                && let Some(name) = name::parse(&zone.name)
            {
                zones.entry(name).or_default().insert(bare(&zone.id).to_owned());
            }
        }
        let mut listed = Vec::new();
        for (name, ids) in zones {
            let several = ids.len() > 1;
            for id in ids {
                let nameservers = if several { self.nameservers(&id).await? } else { BTreeSet::new() };
                listed.push(Zone { id, name: name.clone(), nameservers });
            }
        }
        Ok(listed)
    }

    async fn nameservers(&self, id: &str) -> Result<BTreeSet<Name>, Failure> {
        let zone = self.call(self.session().await.route53.get_hosted_zone().id(id).send()).await?;
        let servers = zone.delegation_set.map(|set| set.name_servers).unwrap_or_default();
        Ok(servers.iter().filter_map(|server| server.parse().ok()).collect())
    }

    async fn page(&self, session: &Session, zone: &Zone, from: Marker, items: i32) -> Result<Page, Error> {
        let request = session.route53.list_resource_record_sets().hosted_zone_id(&zone.id).max_items(items);
        let request = request.start_record_name(from.name).start_record_type(from.kind).set_start_record_identifier(from.identifier);
        let page = self.call(request.send()).await.map_err(|failure| failure.error)?;
        let next = page.next_record_name.filter(|_| page.is_truncated).map(|name| Marker {
            name,
            kind: page.next_record_type.unwrap_or(RrType::Txt),
            identifier: page.next_record_identifier,
        });
        Ok(Page { sets: page.resource_record_sets, next })
    }

    /// Sends the plans of some changes as one batch.
    async fn send(&self, zone: &Zone, run: Vec<Change>, plans: &HashMap<Name, Plan>) -> Result<Receipt, batch::Refusal> {
        let operations =
            run.iter().filter_map(|change| plans.get(&change.owner)).flat_map(|plan| plan.operations.iter().cloned()).collect();
        let batch = ChangeBatch::builder().set_changes(Some(operations)).build();
        let batch = batch.map_err(|error| Error::Rejected(format!("no call can be made of the changes: {error}")))?;
        let request = self.session().await.route53.change_resource_record_sets().hosted_zone_id(&zone.id).change_batch(batch);
        match self.call(request.send()).await {
            Ok(answer) => Ok(Receipt(answer.change_info.map(|change| bare(&change.id).to_owned()).unwrap_or_default())),
            Err(failure) => Err(failure.refusal(&run.iter().map(|change| &change.owner).collect::<Vec<_>>())),
        }
    }
}

#[async_trait]
impl Provider for Route53 {
    fn limits(&self) -> Limits {
        Limits { owners: MOST_RECORDS, values: 100, poll: Duration::from_secs(2), removes: true }
    }

    async fn zones(&self, apex: Option<&Name>) -> Result<Listing, Error> {
        let found = match apex {
            Some(apex) => self.named(apex).await.map(Some),
            None => self.all().await,
        };
        match found {
            Ok(Some(hosted)) => Ok(Listing { zones: self.public(hosted).await.map_err(|failure| failure.error)?, complete: true }),
            Ok(None) => Ok(Listing::default()),
            // Who may not list all may still ask for one by its name.
            Err(failure) if failure.is_denied() && apex.is_none() => Ok(Listing::default()),
            Err(failure) if failure.is_denied() => {
                Err(Error::Auth(format!("{}; allow route53:ListHostedZonesByName, or give the zones with their ids", failure.said())))
            }
            Err(failure) => Err(failure.error),
        }
    }

    async fn read(&self, zone: &Zone, owners: &[Name]) -> Vec<Result<TxtSet, Error>> {
        let session = &self.session().await;
        let listed = gallop(owners, |marker, items| self.page(session, zone, marker, items)).await;
        listed.into_iter().map(|sets| sets.map(|sets| Standing::of(&sets).seen(&sets))).collect()
    }

    async fn apply(&self, zone: &Zone, changes: &[Change]) -> Vec<Result<Receipt, Error>> {
        // Who has not read gives no version: then what stands there now is what is changed.
        let unread: Vec<Name> = changes.iter().filter(|change| change.version.is_empty()).map(|change| change.owner.clone()).collect();
        let read = if unread.is_empty() { Vec::new() } else { self.read(zone, &unread).await };
        let mut read: HashMap<Name, Result<TxtSet, Error>> = unread.into_iter().zip(read).collect();

        let (mut plans, mut settled) = (HashMap::new(), HashMap::new());
        for change in changes {
            let version = match read.remove(&change.owner) {
                Some(set) => set.map(|set| set.version),
                None => Ok(change.version.clone()),
            };
            let planned = version.and_then(|version| {
                let standing =
                    Standing::from_version(&version).ok_or_else(|| Error::Conflict("it was read by something else".to_owned()))?;
                standing.plan(change, self.ttl)
            });
            match planned {
                Ok(Some(plan)) => drop(plans.insert(change.owner.clone(), plan)),
                Ok(None) => drop(settled.insert(&change.owner, Ok(Receipt::default()))),
                Err(error) => drop(settled.insert(&change.owner, Err(error))),
            }
        }

        let open: Vec<Change> = changes.iter().filter(|change| plans.contains_key(&change.owner)).cloned().collect();
        let sent = batch::send(&open, |run| fit(run, &plans), |run| self.send(zone, run, &plans)).await;
        settled.extend(open.iter().map(|change| &change.owner).zip(sent));
        let missing = || Err(Error::Unsent("it was left out of every call".to_owned()));
        changes.iter().map(|change| settled.remove(&change.owner).unwrap_or_else(missing)).collect()
    }

    async fn progress(&self, receipt: &Receipt) -> Result<Progress, Error> {
        match self.call(self.session().await.route53.get_change().id(&receipt.0).send()).await {
            Ok(answer) if answer.change_info().is_some_and(|change| change.status == ChangeStatus::Insync) => Ok(Progress::Done),
            Ok(_) => Ok(Progress::Pending),
            // It is kept for long after it is done, and not for ever.
            Err(failure) if failure.code == "NoSuchChange" => Ok(Progress::Done),
            Err(failure) => Err(failure.error),
        }
    }

    async fn verify(&self) -> Result<String, Error> {
        let session = self.session().await;
        // Any credential may ask who it is; where the token service cannot be reached, this is left out.
        let whose = match Box::pin(session.sts.get_caller_identity().send()).await {
            Ok(identity) => {
                format!("AWS account {} ({})", identity.account.unwrap_or_default(), failure::readable(&identity.arn.unwrap_or_default()))
            }
            Err(error) => {
                let failure = Failure::of(&error);
                if failure.is_unsigned() {
                    *self.session.lock().await = None;
                    return Err(failure.error);
                }
                "the AWS credential".to_owned()
            }
        };
        match self.call(session.route53.list_hosted_zones().max_items(1).send()).await {
            Ok(_) => Ok(format!("{whose} may list hosted zones")),
            Err(failure) if failure.is_denied() => {
                Ok(format!("{whose} may not list hosted zones: give the zones with their ids, or allow route53:ListHostedZones"))
            }
            Err(failure) => Err(failure.error),
        }
    }

    fn calls(&self) -> Calls {
        self.limiter.calls()
    }
}

impl fmt::Debug for Route53 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route53").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// How many of the changes, from the first on, fit in one batch.
fn fit(run: &[&Change], plans: &HashMap<Name, Plan>) -> usize {
    let (mut records, mut characters) = (0, 0);
    let fits = move |change: &&&Change| {
        let Some(plan) = plans.get(&change.owner) else { return true };
        records += plan.records;
        characters += plan.characters;
        records <= MOST_RECORDS && characters <= MOST_CHARACTERS
    };
    run.iter().take_while(fits).count()
}

/// An identifier without the path that Route 53 puts before it.
fn bare(id: &str) -> &str {
    id.rsplit('/').next().unwrap_or(id)
}
