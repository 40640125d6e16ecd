//! Present and CleanUp.

use std::{sync::Arc, time::Duration};

use authdns::Name;
use axum::{
    body::Bytes,
    extract::Request as HttpRequest,
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use tokio::time::{Instant, timeout_at};
use tracing::{error, info};

use super::{
    callers::Caller,
    metrics::{ActionLabel, Metrics, OutcomeLabel},
    payload::{Action, Challenge, Invalid},
    status::{Status, json},
};
use crate::{
    config,
    engine::Engine,
    kubernetes::{Events, Notice},
    ledger::{Backend, ClaimError, Ledger, Release, Request},
    policy::{Attempt, Namespaces, Policy, Refusal, is_account_name},
    store::StoreError,
    web::read_body,
};

/// Largest request body, in bytes; a real one has less than one thousand, most of it the issuer's `config`. Yet a tenant's issuer can hold as much as etcd
/// takes (1.5 MiB), and its CleanUp has to be read like any other: a refused one would keep the tenant's namespace from going, for ever. This is what Go's
/// webhooks take.
const MAX_BODY: usize = 3 * 1024 * 1024;

/// How long a value stands if nobody cleans it up. cert-manager cleans up always, sooner or later; each Present starts the time anew. So this ends only
/// what a deleted cluster has left behind.
const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long the ledger gets. Together with the time for the body this stays below the 34 s after which Go's webhooks give up, and the API server
/// takes that for granted.
const PATIENCE: Duration = Duration::from_secs(22);

/// What a call may take beyond that, in the store: the ledger ends its waiting by itself, and then knows the reason.
const GRACE: Duration = Duration::from_secs(1);

/// Answers challenges out of the ledger, as far as the policy allows.
pub(super) struct Solver {
    ledger: Ledger,
    group: String,
    policy: Policy,
    namespaces: Arc<dyn Namespaces>,
    /// The embedded zones.
    zones: Vec<Name>,
    metrics: Metrics,
    events: Option<Events>,
}

impl Solver {
    pub(super) fn new(
        engine: &Engine,
        config: &config::Webhook,
        namespaces: Arc<dyn Namespaces>,
        events: Option<Events>,
        metrics: Metrics,
    ) -> Self {
        let (ledger, zones) = (engine.ledger.clone(), engine.zones.names());
        Self { ledger, group: config.group.clone(), policy: config.policy.clone(), namespaces, zones, metrics, events }
    }

    pub(super) async fn answer(&self, request: HttpRequest) -> Response {
        let caller = request.extensions().get::<Caller>().map_or_else(String::new, |caller| caller.0.clone());
        match self.read(request).await {
            Ok(challenge) => self.solve(&challenge, &caller).await,
            Err(status) => {
                info!(caller, reason = status.message(), "webhook request refused");
                self.metrics.count(None, ActionLabel::unknown, OutcomeLabel::refused);
                status.reply()
            }
        }
    }

    async fn read(&self, request: HttpRequest) -> Result<Challenge, Status> {
        check_content_type(request.headers())?;
        let body: Bytes = read_body(request.into_body(), MAX_BODY).await?;
        Challenge::parse(&body, &self.group)
    }

    /// 201 for a failure, too: that is how the protocol says it.
    async fn solve(&self, challenge: &Challenge, caller: &str) -> Response {
        let mut backend = None;
        let (label, done) = match challenge.action() {
            Ok(Action::Present) => (ActionLabel::present, self.present(challenge, &mut backend).await.map(|()| Done::Asked)),
            Ok(Action::CleanUp) => (ActionLabel::cleanup, self.clean_up(challenge).await),
            Err(invalid) => (ActionLabel::unknown, Err(Failure::Invalid(invalid))),
        };
        let (outcome, message) = match &done {
            Ok(Done::Asked) => (OutcomeLabel::ok, Ok(())),
            Ok(Done::Refused(_)) => (OutcomeLabel::refused, Ok(())),
            Err(failure) => (failure.outcome(), Err(failure.message())),
        };
        if let Err(Failure::Claim(ClaimError::Store(error))) = &done {
            error!(%error, "the store failed a webhook request");
        }
        let reason = match (&done, &message) {
            (Ok(Done::Refused(refused)), _) => format!("what its namespace had presented is let go, though: {refused}"),
            (_, Err(message)) => message.clone(),
            _ => String::new(),
        };
        let namespace = challenge.namespace().ok();
        self.audit(challenge, caller, (label, outcome), backend.as_ref(), &reason);
        self.metrics.count(namespace, label, outcome);
        if let (Err(message), Some(namespace)) = (&message, namespace) {
            self.tell(namespace, challenge, outcome, message);
        }
        json(StatusCode::CREATED, &challenge.reply(message.as_ref().copied().map_err(String::as_str)))
    }

    /// The audit line: who wanted what, and what became of it. The value itself is public once it stands; its digest tells two of them apart.
    fn audit(
        &self,
        challenge: &Challenge,
        caller: &str,
        (action, outcome): (ActionLabel, OutcomeLabel),
        backend: Option<&Backend>,
        reason: &str,
    ) {
        let namespace = challenge.namespace().unwrap_or("(invalid)");
        let owner = challenge.owner().map(|owner| owner.to_string()).unwrap_or_default();
        let dns_name = challenge.dns_name().ok().flatten().map(|name| name.to_string()).unwrap_or_default();
        let digest = challenge.value().map(|value| blake3::hash(value.as_str().as_bytes()).to_hex()[..16].to_owned()).unwrap_or_default();
        let backend = backend.map(Backend::as_str).unwrap_or_default();
        info!(target: "acmegate::audit", ?action, ?outcome, caller, namespace, dns_name, owner, digest, backend, reason, "webhook");
    }

    /// Tells the people of the namespace what somebody has to mend. That something takes its time is no news.
    fn tell(&self, namespace: &str, challenge: &Challenge, outcome: OutcomeLabel, message: &str) {
        let reason = match outcome {
            OutcomeLabel::refused => "ChallengeRefused",
            OutcomeLabel::failed => "ChallengeFailed",
            OutcomeLabel::ok | OutcomeLabel::in_progress => return,
        };
        if let (Some(events), Ok(Some(dns_name))) = (&self.events, challenge.dns_name()) {
            let note = format!("{}: {message}", dns_name.to_relative_string());
            events.tell(Notice { namespace: namespace.to_owned(), reason, note });
        }
    }

    async fn present(&self, challenge: &Challenge, chosen: &mut Option<Backend>) -> Result<(), Failure> {
        challenge.check_type()?;
        let value = challenge.value()?;
        let owner = challenge.owner()?;
        let holder = challenge.holder()?;
        let selection = challenge.selection()?;
        let wanted = selection.backend_in(challenge.namespace()?);
        chosen.clone_from(&wanted);
        // Who may not write the name at all has no provider asked on its behalf, and no Secret read.
        self.check(challenge, &owner, wanted.as_ref())?;
        if self.ledger.zone_of(&owner).is_some_and(|zone| is_account_name(&owner, &zone)) {
            return Err(Failure::AccountName(owner));
        }
        let deadline = Instant::now() + PATIENCE;
        let (ledger, name) = (self.ledger.clone(), owner.clone());
        let lane = in_time(deadline, async move {
            match wanted {
                Some(backend) => ledger.lane_in(&backend, &name).await,
                None => ledger.lane_of(&name).await,
            }
        });
        let backend = lane.await?.backend;
        *chosen = Some(backend.clone());
        self.check(challenge, &owner, Some(&backend))?;
        // The backend that was allowed is the one that is claimed at, whatever zones come and go meanwhile.
        let request = Request { holder, owner, value, backend: Some(backend), lifetime: Some(LIFETIME), keep: None };
        let ledger = self.ledger.clone();
        let patience = deadline.saturating_duration_since(Instant::now());
        in_time(deadline, async move { ledger.claim_within(vec![request], patience).await }).await
    }

    /// Lets go what Present recorded, wherever that was: the CNAME may have changed since. What could not have been presented is not there, and
    /// cert-manager repeats a failed CleanUp for ever, so anything that names no claim succeeds.
    ///
    /// The policy is asked, and what it refuses is told to the log and to the metrics; yet it is done, and called a success. A CleanUp that fails keeps the
    /// finalizer of its Challenge, and with it the namespace in which that stands, for ever: whoever narrows the policy, or deletes a tenant, would
    /// be left with a namespace that cannot go. Nothing is given away by it: a release touches nothing but claims of the holder itself.
    async fn clean_up(&self, challenge: &Challenge) -> Result<Done, Failure> {
        let refused = self.check_clean_up(challenge).err();
        if let (Ok(value), Ok(holder)) = (challenge.value(), challenge.holder()) {
            let ledger = self.ledger.clone();
            let release = async move { ledger.release(vec![Release { holder, owner: None, value }]).await.map(drop) };
            in_time(Instant::now() + PATIENCE, release).await?;
        }
        Ok(refused.map_or(Done::Asked, Done::Refused))
    }

    /// Would this be refused if it were presented, as far as that can be told without asking a provider?
    fn check_clean_up(&self, challenge: &Challenge) -> Result<(), Failure> {
        let (owner, selection) = (challenge.owner()?, challenge.selection()?);
        self.check(challenge, &owner, selection.backend_in(challenge.namespace()?).as_ref())
    }

    /// Asks the policy; without a backend, whether it allows any.
    fn check(&self, challenge: &Challenge, owner: &Name, backend: Option<&Backend>) -> Result<(), Failure> {
        let (namespace, dns_name) = (challenge.namespace()?, challenge.dns_name()?);
        let labels = self.namespaces.labels(namespace);
        let attempt = Attempt {
            namespace,
            labels: labels.as_ref(),
            dns_name: dns_name.as_ref(),
            owner,
            backend: backend.map(Backend::configured),
            secret: backend.is_some_and(|backend| backend.secret().is_some()),
            zones: &self.zones,
        };
        Ok(self.policy.allows(&attempt).map(drop)?)
    }
}

/// What became of a challenge that is answered with success.
enum Done {
    /// What it asked for.
    Asked,
    /// A CleanUp of what may not be presented (any more).
    Refused(Failure),
}

/// Gives up waiting soon after the deadline, and lets the work go on: the next call of cert-manager finds it done. Nor does it end with the connection.
async fn in_time<T: Send + 'static>(
    deadline: Instant,
    work: impl Future<Output = Result<T, ClaimError>> + Send + 'static,
) -> Result<T, Failure> {
    match timeout_at(deadline + GRACE, tokio::spawn(work)).await {
        Ok(Ok(done)) => Ok(done?),
        Ok(Err(_panic)) => Err(Failure::Defect),
        Err(_elapsed) => Err(Failure::Claim(ClaimError::InProgress)),
    }
}

/// Why a challenge is not fulfilled.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("{0} belongs to an acme-dns account of acmegate; point the CNAME at a name of its own in the zone")]
    AccountName(Name),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Claim(#[from] ClaimError),
    #[error("acmegate failed; its log says why")]
    Defect,
}

impl Failure {
    /// For cert-manager: the same text each time, so nothing that a database or the system says.
    fn message(&self) -> String {
        match self {
            Self::Claim(ClaimError::Store(StoreError::Failed(_) | StoreError::Unusable(_) | StoreError::Locked(_))) => {
                "acmegate's store failed; its log says why".to_owned()
            }
            other => other.to_string(),
        }
    }

    fn outcome(&self) -> OutcomeLabel {
        match self {
            Self::Invalid(_)
            | Self::AccountName(_)
            | Self::Refused(_)
            | Self::Claim(
                ClaimError::NoZone(_)
                | ClaimError::NoBackend(_)
                | ClaimError::NeedsSecret(_)
                | ClaimError::OwnCredential(_)
                | ClaimError::NotServed { .. },
            ) => OutcomeLabel::refused,
            Self::Claim(ClaimError::InProgress) => OutcomeLabel::in_progress,
            Self::Claim(ClaimError::Backend(_) | ClaimError::Full(_) | ClaimError::Store(_)) | Self::Defect => OutcomeLabel::failed,
        }
    }
}

/// JSON, said or unsaid; Kubernetes' other encodings are never sent by cert-manager.
fn check_content_type(headers: &HeaderMap) -> Result<(), Status> {
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let media_type = given.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Status::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json"))
}
