//! Present and CleanUp.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::Request as HttpRequest,
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use tokio::time::timeout;
use tracing::{error, info};

use super::{
    metrics::{ActionLabel, Metrics, OutcomeLabel},
    payload::{Action, Challenge, Invalid},
    status::{Status, json},
};
use crate::{
    ledger::{ClaimError, Ledger, Release, Request},
    policy::is_account_name,
    store::StoreError,
    web::read_body,
};

/// Largest request body, in bytes; a real one has less than one thousand, most of it the issuer's `config`.
const MAX_BODY: usize = 256 * 1024;

/// How long a value stands if nobody cleans it up. cert-manager cleans up always, sooner or later; each Present starts the time anew. So this ends only
/// what a deleted cluster has left behind.
const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long the ledger gets. Together with the time for the body this stays below the 34 s after which Go's webhooks give up, and the API server
/// takes that for granted.
const PATIENCE: Duration = Duration::from_secs(22);

/// What a call may take beyond that, in the store: the ledger ends its waiting by itself, and then knows the reason.
const GRACE: Duration = Duration::from_secs(1);

/// Answers challenges out of the ledger.
pub(super) struct Solver {
    ledger: Ledger,
    group: String,
    metrics: Metrics,
}

impl Solver {
    pub(super) fn new(ledger: Ledger, group: String, metrics: Metrics) -> Self {
        Self { ledger, group, metrics }
    }

    pub(super) async fn answer(&self, request: HttpRequest) -> Response {
        match self.read(request).await {
            Ok(challenge) => self.solve(&challenge).await,
            Err(status) => {
                info!(reason = status.message(), "webhook request refused");
                self.metrics.count(ActionLabel::unknown, OutcomeLabel::refused);
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
    async fn solve(&self, challenge: &Challenge) -> Response {
        let (label, done) = match challenge.action() {
            Ok(Action::Present) => (ActionLabel::present, self.present(challenge).await),
            Ok(Action::CleanUp) => (ActionLabel::cleanup, self.clean_up(challenge).await),
            Err(invalid) => (ActionLabel::unknown, Err(Failure::Invalid(invalid))),
        };
        let namespace = challenge.namespace().unwrap_or("(invalid)");
        let owner = challenge.owner().map(|owner| owner.to_string()).unwrap_or_default();
        let (outcome, message) = match &done {
            Ok(()) => (OutcomeLabel::ok, Ok(())),
            Err(failure) => (failure.outcome(), Err(failure.message())),
        };
        match (&done, &message) {
            (Err(Failure::Claim(ClaimError::Store(error))), _) => {
                error!(action = ?label, namespace, owner, %error, "webhook request failed")
            }
            (Err(_), Err(reason)) => info!(action = ?label, namespace, owner, reason, "webhook request failed"),
            _ => info!(action = ?label, namespace, owner, "webhook request done"),
        }
        self.metrics.count(label, outcome);
        json(StatusCode::CREATED, &challenge.reply(message.as_ref().copied().map_err(String::as_str)))
    }

    async fn present(&self, challenge: &Challenge) -> Result<(), Failure> {
        challenge.check_type()?;
        let value = challenge.value()?;
        let owner = challenge.owner()?;
        let holder = challenge.holder()?;
        if self.ledger.zone_of(&owner).is_some_and(|zone| is_account_name(&owner, &zone)) {
            return Err(Failure::AccountName(owner));
        }
        let request = Request { holder, owner, value, lifetime: Some(LIFETIME), keep: None };
        let ledger = self.ledger.clone();
        in_time(async move { ledger.claim_within(vec![request], PATIENCE).await }).await
    }

    /// Lets go what Present recorded, wherever that was: the CNAME may have changed since. What could not have been presented is not there, and
    /// cert-manager repeats a failed CleanUp for ever, so anything that names no claim succeeds.
    async fn clean_up(&self, challenge: &Challenge) -> Result<(), Failure> {
        let (Ok(value), Ok(holder)) = (challenge.value(), challenge.holder()) else { return Ok(()) };
        let ledger = self.ledger.clone();
        in_time(async move { ledger.release(vec![Release { holder, owner: None, value }]).await.map(drop) }).await
    }
}

/// Gives up waiting in time, and lets the work go on: the next call of cert-manager finds it done. Nor does it end with the connection.
async fn in_time(work: impl Future<Output = Result<(), ClaimError>> + Send + 'static) -> Result<(), Failure> {
    match timeout(PATIENCE + GRACE, tokio::spawn(work)).await {
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
    AccountName(authdns::Name),
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
            Self::Invalid(_) | Self::AccountName(_) | Self::Claim(ClaimError::NoZone(_)) => OutcomeLabel::refused,
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
