//! Google Cloud DNS, by its REST API (v1).
//!
//! A change names the whole RRset that it takes away and the whole one that it puts there instead, and is made only if the first is exactly what stands
//! there: that is the compare-and-swap. Many such pairs go in one call, all or nothing.

mod api;
mod credential;
mod rrset;

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use authdns::Name;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use reqwest::{Method, StatusCode, Url};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use self::{
    api::{ChangeBody, ChangeMade, Failure, ManagedZone, Page, Place, Project, Quota},
    credential::{Credential, Impersonation, Source},
    rrset::{Plan, Rrset, Standing},
};
use crate::{
    Calls, Change, Context, Error, Limits, Listing, Progress, Provider, Receipt, TxtSet, Zone,
    batch::{self, Refusal},
    http::{self, Http, Reply},
    kind,
    limiter::Limiter,
    secret::SecretRef,
    zones::MOST_LISTED,
};

/// Where the API is.
const ENDPOINT: &str = "https://dns.googleapis.com/";
/// Where the IAM Service Account Credentials API is.
const IAM_ENDPOINT: &str = "https://iamcredentials.googleapis.com/";
/// The documentation says that requests are counted by the minute, and leaves the number to each project's quota page. This many pass in any project, and
/// are plenty: a call carries up to a thousand RRsets.
const CALLS_A_SECOND: u64 = 10;
const BURST: u32 = 50;
/// Up to so many owners are asked for one by one; for more, the zone is listed.
const FEW: usize = 20;
/// Reads under way at once.
const AT_ONCE: usize = 8;
/// RRsets asked for in a page. The server may give fewer.
const PAGE: &str = "1000";

/// Google Cloud DNS.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// The project that holds the zones. By default the credential's own.
    project: Option<String>,
    /// The JSON key of a service account. Without it and `workload_identity`, the application default credentials are used: the file that
    /// GOOGLE_APPLICATION_CREDENTIALS names, gcloud's, or the metadata server (GKE workload identity, Compute Engine, Cloud Run).
    service_account: Option<SecretRef>,
    /// The credential configuration file of workload identity federation (`gcloud iam workload-identity-pools create-cred-config`).
    workload_identity: Option<PathBuf>,
    /// The e-mail address of a service account to act as. The credential needs the role Service Account Token Creator on it.
    impersonate: Option<String>,
    /// The e-mail addresses of the service accounts between the credential and `impersonate`, each allowed to act as the next.
    delegates: Vec<String>,
    /// The API's base URL, by default `https://dns.googleapis.com/`.
    endpoint: Option<String>,
    /// The base URL of the IAM Service Account Credentials API, which `impersonate` asks, by default `https://iamcredentials.googleapis.com/`.
    iam_endpoint: Option<String>,
    /// PEM with the roots that `endpoint` and `iam_endpoint` use, instead of the system's.
    ca_file: Option<PathBuf>,
}

impl kind::Settings for Settings {
    const ID: &'static str = "clouddns";
    const TITLE: &'static str = "Google Cloud DNS";

    fn build(self, context: &Context) -> Result<Arc<dyn Provider>, String> {
        let endpoint = http::endpoint(self.endpoint.as_deref().unwrap_or(ENDPOINT))?;
        let iam = http::endpoint(self.iam_endpoint.as_deref().unwrap_or(IAM_ENDPOINT)).map_err(|text| format!("iam_{text}"))?;
        let source = match (self.service_account, self.workload_identity) {
            (Some(_), Some(_)) => return Err("service_account and workload_identity are two credentials: give one".to_owned()),
            (Some(key), None) => Source::Key(key),
            (None, Some(path)) => Source::Federation(path),
            (None, None) => Source::Default,
        };
        let impersonation = match self.impersonate {
            Some(account) => Some(Impersonation::new(&account, &self.delegates)?),
            None if self.delegates.is_empty() => None,
            None => return Err("delegates: they lead to a service account, which `impersonate` has to name".to_owned()),
        };
        if let Some(project) = &self.project
            && (project.is_empty() || !project.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.:".contains(&byte)))
        {
            return Err(format!("project: {project} is no project id: write it as `gcloud projects list` shows it"));
        }
        // A private root is not Google's: it stands for the IAM API only where that too is reached through a gateway.
        let iam_roots = self.iam_endpoint.as_ref().and(self.ca_file.as_deref());
        let tokens = Http::new(iam_roots, Arc::new(Limiter::new(Duration::from_millis(100), 10)))?;
        let limiter = Arc::new(Limiter::new(Duration::from_millis(1000 / CALLS_A_SECOND), BURST));
        Ok(Arc::new(CloudDns {
            credential: Credential::new(source, impersonation, context.secrets.clone(), tokens, iam),
            project: self.project,
            endpoint,
            http: Http::new(self.ca_file.as_deref(), limiter)?,
            ttl: context.ttl,
            quota: Mutex::default(),
        }))
    }
}

/// The provider.
struct CloudDns {
    credential: Credential,
    project: Option<String>,
    endpoint: Url,
    http: Http,
    ttl: u32,
    /// What a change may hold, once the project has said so.
    quota: Mutex<Option<Quota>>,
}

/// Where a change can be asked for.
#[derive(Serialize, Deserialize)]
struct Made {
    project: String,
    zone: String,
    change: String,
}

#[async_trait]
impl Provider for CloudDns {
    fn limits(&self) -> Limits {
        let quota = self.known_quota();
        Limits { owners: quota.rrset_additions_per_change, values: quota.resource_records_per_rrset, ..Limits::default() }
    }

    async fn zones(&self, apex: Option<&Name>) -> Result<Listing, Error> {
        let project = self.project().await?;
        let (mut zones, mut token) = (Vec::new(), None);
        loop {
            let mut query = Vec::new();
            query.extend(apex.map(|apex| ("dnsName", apex.to_string())));
            query.extend(token.take().map(|token| ("pageToken", token)));
            let page: Page = self.get(&[&project, "managedZones"], &query).await?;
            zones.extend(page.managed_zones.iter().filter(|zone| zone.is_public()).filter_map(ManagedZone::zone));
            token = page.next();
            if token.is_none() || zones.len() >= MOST_LISTED {
                break;
            }
        }
        zones.truncate(MOST_LISTED);
        Ok(Listing { zones, complete: token.is_none() })
    }

    async fn read(&self, zone: &Zone, owners: &[Name]) -> Vec<Result<TxtSet, Error>> {
        let project = match self.project().await {
            Ok(project) => project,
            Err(error) => return owners.iter().map(|_| Err(error.clone())).collect(),
        };
        if owners.len() > FEW {
            match self.listed(&project, zone, owners).await {
                Ok(Some(found)) => return found.into_iter().map(Ok).collect(),
                Ok(None) => {}
                Err(error) => return owners.iter().map(|_| Err(error.clone())).collect(),
            }
        }
        let reads: Vec<_> = owners.iter().map(|owner| self.read_one(&project, zone, owner)).collect();
        stream::iter(reads).buffered(AT_ONCE).collect().await
    }

    async fn apply(&self, zone: &Zone, changes: &[Change]) -> Vec<Result<Receipt, Error>> {
        let mut results: Vec<Option<Result<Receipt, Error>>> = Vec::with_capacity(changes.len());
        let mut sent = Vec::new();
        let plans: Vec<Plan> = changes.iter().map(|change| Plan::of(change, self.ttl)).collect();
        let writes = plans.iter().any(|plan| matches!(plan, Plan::Write(_)));
        let quota = if writes { self.quota().await } else { Quota::default() };
        for (change, plan) in changes.iter().zip(plans) {
            results.push(match plan {
                Plan::Nothing => Some(Ok(Receipt::default())),
                Plan::Refused(error) => Some(Err(error)),
                Plan::Write(swap) => {
                    let records = swap.addition.map_or(0, |rrset| rrset.rrdatas.len());
                    if records <= quota.resource_records_per_rrset {
                        sent.push(change.clone());
                        None
                    } else {
                        Some(Err(Error::Rejected(format!(
                            "{records} values at {} would be more than the {} that the project's quota lets stand at one name",
                            change.owner.to_relative_string(),
                            quota.resource_records_per_rrset
                        ))))
                    }
                }
            });
        }
        let mut answers = batch::send(&sent, |run| self.fit(run, &quota), |run| self.change(zone, run)).await.into_iter();
        let left_out = || Err(Error::Unsent("it was left out of every call".to_owned()));
        results.into_iter().map(|result| result.or_else(|| answers.next()).unwrap_or_else(left_out)).collect()
    }

    async fn progress(&self, receipt: &Receipt) -> Result<Progress, Error> {
        let made: Made =
            serde_json::from_str(&receipt.0).map_err(|_| Error::NotFound("the change: this receipt is not one of Cloud DNS".to_owned()))?;
        let change: ChangeMade = self.get(&[&made.project, "managedZones", &made.zone, "changes", &made.change], &[]).await?;
        // Done says that the servers have been sent the change, not that each of them answers it.
        Ok(if change.status == "done" { Progress::Done } else { Progress::Pending })
    }

    async fn verify(&self) -> Result<String, Error> {
        let project = self.project().await?;
        let reply = self.send(Method::GET, &[&project, "managedZones"], &[("maxResults", "1".to_owned())], None).await?;
        let who = self.credential.identity().await;
        if reply.status.is_success() {
            return Ok(format!("{who}, which may list the zones of the project {project}"));
        }
        let failure = self.failure(&reply).await;
        // A role on single zones is a good credential too, as long as the zones are pinned.
        if failure.is_denied(reply.status) {
            return Ok(format!(
                "{who}, which may not list the zones of the project {project}: grant it dns.managedZones.list (roles/dns.admin has it), or pin each zone by its id under `zones:`"
            ));
        }
        Err(failure.error)
    }

    fn calls(&self) -> Calls {
        self.http.limiter().calls()
    }
}

impl CloudDns {
    async fn project(&self) -> Result<String, Error> {
        match &self.project {
            Some(project) => Ok(project.clone()),
            None => self.credential.project().await,
        }
    }

    /// All owners by listing the zone; `None` where it has so many pages that asking for each owner is cheaper.
    async fn listed(&self, project: &str, zone: &Zone, owners: &[Name]) -> Result<Option<Vec<TxtSet>>, Error> {
        let mut standing: HashMap<&Name, Standing> = owners.iter().map(|owner| (owner, Standing::default())).collect();
        let mut token = None;
        for _ in 0..owners.len().div_ceil(4) {
            let mut query = vec![("maxResults", PAGE.to_owned())];
            query.extend(token.take().map(|token| ("pageToken", token)));
            let page: Page = self.get(&[project, "managedZones", &zone.id, "rrsets"], &query).await?;
            token = page.next();
            for rrset in page.rrsets {
                if let Ok(owner) = rrset.name.parse::<Name>()
                    && let Some(standing) = standing.get_mut(&owner)
                {
                    standing.take(rrset);
                }
            }
            if token.is_none() {
                return Ok(Some(owners.iter().map(|owner| standing.get(owner).map(Standing::set).unwrap_or_default()).collect()));
            }
        }
        Ok(None)
    }

    /// Everything at one owner: a CNAME there matters too, so the type is not asked for.
    async fn read_one(&self, project: &str, zone: &Zone, owner: &Name) -> Result<TxtSet, Error> {
        let (mut standing, mut token) = (Standing::default(), None);
        loop {
            let mut query = vec![("name", owner.to_string())];
            query.extend(token.take().map(|token| ("pageToken", token)));
            let page: Page = self.get(&[project, "managedZones", &zone.id, "rrsets"], &query).await?;
            token = page.next();
            page.rrsets.into_iter().for_each(|rrset| standing.take(rrset));
            if token.is_none() {
                return Ok(standing.set());
            }
        }
    }

    /// How many of these changes one call can take.
    fn fit(&self, run: &[&Change], quota: &Quota) -> usize {
        let (mut additions, mut deletions, mut size) = (0, 0, 0);
        for (place, change) in run.iter().enumerate() {
            let Plan::Write(swap) = Plan::of(change, self.ttl) else { continue };
            additions += usize::from(swap.addition.is_some());
            deletions += usize::from(swap.deletion.is_some());
            size += swap.deletion.iter().chain(&swap.addition).map(Rrset::size).sum::<usize>();
            if additions > quota.rrset_additions_per_change
                || deletions > quota.rrset_deletions_per_change
                || size > quota.total_rrdata_size_per_change
            {
                return place;
            }
        }
        run.len()
    }

    /// Sends changes in one call.
    async fn change(&self, zone: &Zone, run: Vec<Change>) -> Result<Receipt, Refusal> {
        let mut body = ChangeBody::default();
        // Which change each entry of the body belongs to.
        let (mut added, mut deleted) = (Vec::new(), Vec::new());
        for (place, change) in run.iter().enumerate() {
            if let Plan::Write(swap) = Plan::of(change, self.ttl) {
                deleted.extend(swap.deletion.is_some().then_some(place));
                added.extend(swap.addition.is_some().then_some(place));
                body.deletions.extend(swap.deletion);
                body.additions.extend(swap.addition);
            }
        }
        let project = self.project().await?;
        let text = serde_json::to_vec(&body).map_err(|error| Error::Rejected(format!("the change cannot be written as JSON: {error}")))?;
        let reply = self.send(Method::POST, &[&project, "managedZones", &zone.id, "changes"], &[], Some(text)).await?;
        if reply.status.is_success() {
            let change = reply.json::<ChangeMade>()?.id;
            let made = Made { project, zone: zone.id.clone(), change };
            return Ok(Receipt(serde_json::to_string(&made).unwrap_or_default()));
        }
        let Failure { error, places, .. } = self.failure(&reply).await;
        // No zone, no change: there is nothing to search for.
        if matches!(error, Error::NotFound(_)) && places.is_empty() {
            let culprits = (0..run.len()).map(|place| (place, error.clone())).collect();
            return Err(Refusal { error, culprits });
        }
        let mut culprits: Vec<(usize, Error)> = Vec::new();
        for (place, error) in places {
            let found = match place {
                Place::Addition(at) => added.get(at).copied(),
                Place::Deletion(at) => deleted.get(at).copied(),
                Place::Named(name) => name.parse::<Name>().ok().and_then(|name| run.iter().position(|change| change.owner == name)),
            };
            if let Some(place) = found
                && culprits.iter().all(|(known, _)| *known != place)
            {
                culprits.push((place, error));
            }
        }
        Err(Refusal { error, culprits })
    }

    fn known_quota(&self) -> Quota {
        self.quota.lock().clone().unwrap_or_default()
    }

    /// What a change may hold: asked for once, the documented defaults where it may not be.
    async fn quota(&self) -> Quota {
        if let Some(quota) = &*self.quota.lock() {
            return quota.clone();
        }
        let Ok(project) = self.project().await else { return Quota::default() };
        let quota = match self.get::<Project>(&[&project], &[]).await {
            Ok(project) => project.quota.at_least_one(),
            Err(Error::Auth(_) | Error::NotFound(_) | Error::Rejected(_)) => Quota::default(),
            // It can be asked again; what is sent now will say what is wrong.
            Err(_) => return Quota::default(),
        };
        *self.quota.lock() = Some(quota.clone());
        quota
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, String)]) -> Result<T, Error> {
        let reply = self.send(Method::GET, path, query, None).await?;
        if reply.status.is_success() { reply.json() } else { Err(self.failure(&reply).await.error) }
    }

    /// Sends a call; `path` begins with the project.
    async fn send(&self, method: Method, path: &[&str], query: &[(&str, String)], body: Option<Vec<u8>>) -> Result<Reply, Error> {
        let mut url = self.endpoint.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["dns", "v1", "projects"]).extend(path);
        }
        let mut request = self.http.client().request(method, url).headers(self.credential.headers().await?).query(query);
        if let Some(body) = body {
            request = request.header(reqwest::header::CONTENT_TYPE, "application/json").body(body);
        }
        self.http.send(request).await
    }

    /// What a refusal says, and what follows from it for the credential and the limiter.
    async fn failure(&self, reply: &Reply) -> Failure {
        let failure = Failure::of(reply);
        if reply.status == StatusCode::UNAUTHORIZED {
            self.credential.forget().await;
        }
        // Too often, with a status that is not the usual one.
        if let Error::RateLimited { retry_after, .. } = &failure.error
            && reply.status != StatusCode::TOO_MANY_REQUESTS
        {
            self.http.limiter().throttled(retry_after.unwrap_or(Duration::from_secs(2)));
        }
        failure
    }
}

impl fmt::Debug for CloudDns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let project = self.project.as_deref().unwrap_or("the credential's project");
        f.debug_struct("CloudDns").field("project", &project).field("endpoint", &self.endpoint.as_str()).finish_non_exhaustive()
    }
}

impl ManagedZone {
    fn zone(&self) -> Option<Zone> {
        let nameservers: BTreeSet<Name> = self.name_servers.iter().filter_map(|server| server.parse().ok()).collect();
        Some(Zone { id: self.name.clone(), name: self.dns_name.parse().ok()?, nameservers })
    }
}
