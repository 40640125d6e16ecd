//! The standalone issuer: from names to a certificate, with nothing left behind.
//!
//! ```text
//!            ┌─ delegations: _acme-challenge.<name> ──CNAME──▶ owner in a zone of ours; the zone's servers ─┐
//!  names ────┤                                                                                              ├─▶ claims ─▶ seen at every server
//!            └─ account ─▶ order ─▶ authorizations (those the CA remembers are skipped) ───────────────────┘               │
//!                                                                                                                          ▼
//!  handed on ◀── checked: chain, names, key ◀── download ◀── finalize (values released meanwhile) ◀── order ready ◀── challenges submitted
//! ```
//!
//! What holds on every way out, errors and cancellation included:
//! - **No value stays.** A run has a holder of its own in the ledger, and lets everything of that holder go at its end. A crash leaves claims that
//!   end by themselves after [`CLAIM_LIFETIME`].
//! - **Nothing is submitted that is not visible**, so that a slow or broken DNS costs no failure at the CA.
//! - **The account key is on disk before the CA sees it**, and the certificate is handed on only after chain, names and key fit together.
//! - Pending authorizations of a run that failed are *left*: CAs give the same ones to the next order for the same names, and drop them by
//!   themselves.
//!
//! The files: [`request`], [`event`], [`issued`] and [`error`] are what callers see; [`names`] and [`target`] say what may be asked for and
//! where values go; [`run`] is one run, [`claims`] its values, [`caa`] what forbids an order, [`caches`] who may remember
//! older ones; [`certificate`] checks what came of it; [`acme`] talks to the CA; [`accounts`] is for those who look after the accounts there.

mod accounts;
mod acme;
mod caa;
mod caches;
mod certificate;
mod claims;
mod error;
mod event;
mod issued;
mod names;
mod request;
mod run;
mod target;

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;

pub use accounts::{AccountAction, AccountReport, AccountRequest};
pub use acme::{Problem, Subproblem};
pub(crate) use certificate::check_pair;
#[cfg(test)]
pub(crate) use certificate::tests::Authority;
pub use error::{Failure, IssueError};
pub use event::{Event, Reporter};
pub use issued::{Issued, Outcome, PrivateKeyPem, Rehearsal, Stage, Target, Timings};
pub use names::{CertName, MAX_NAMES, Names};
pub use request::{BadKeyType, Fallback, IssueRequest, KeyType};

use self::{acme::Clients, caches::Caches, claims::Claims, run::Run};
use crate::{engine::Engine, ledger::Holder};

/// How long a run's claims outlive a crash.
pub const CLAIM_LIFETIME: Duration = Duration::from_secs(3600);

/// Issues certificates. Make one for the life of the process and clone it: clones share connections, nonces and accounts.
#[derive(Clone)]
pub struct Issuer {
    engine: Engine,
    clients: Clients,
    caches: Caches,
}

impl Issuer {
    /// An issuer that claims in `engine`'s ledger.
    pub fn new(engine: Engine) -> Self {
        Self { engine, clients: Clients::default(), caches: Caches::default() }
    }

    /// Gets a certificate, or rehearses getting one (`dry_run`). Cancelling `cancel` stops it in an orderly way; dropping the future removes the
    /// values too, but in the background.
    ///
    /// # Errors
    /// [`IssueError`]. The run's values are out of the ledger, or a warning was reported that says when they will be.
    pub fn issue(
        &self,
        request: IssueRequest,
        reporter: Reporter,
        cancel: CancellationToken,
    ) -> impl Future<Output = Result<Outcome, IssueError>> + Send {
        // Said here, so that what is not `Send` is an error of this file and not of its callers.
        self.run(request, reporter, cancel)
    }

    async fn run(&self, request: IssueRequest, reporter: Reporter, cancel: CancellationToken) -> Result<Outcome, IssueError> {
        let names = Names::parse(&request.names)?;
        let id = Uuid::new_v4();
        let claims = Claims::new(&self.engine, self.caches.clone(), Holder::issue(id));
        let span = tracing::info_span!("issue", run = %id, names = %names.to_strings().join(" "));
        async {
            let mut directories = request.directories().into_iter().peekable();
            let mut outcome = Err(IssueError::Cancelled);
            while let Some(directory) = directories.next() {
                let run = Run {
                    engine: &self.engine,
                    clients: &self.clients,
                    request: &request,
                    directory,
                    names: &names,
                    reporter: &reporter,
                    claims: &claims,
                };
                outcome = tokio::select! {
                    biased;
                    () = cancel.cancelled() => Err(IssueError::Cancelled),
                    outcome = Box::pin(run.go()) => outcome,
                };
                match (&outcome, directories.peek()) {
                    (Err(error), Some(next)) if error.is_the_cas() => {
                        reporter.warn(format!("{} did not issue, and {} is tried: {error}", directory.name, next.name));
                        claims.release(&reporter).await;
                    }
                    _ => break,
                }
            }
            claims.release(&reporter).await;
            match &outcome {
                Ok(Outcome::Issued(issued)) => tracing::info!(url = issued.url, timings = %issued.timings, "certificate issued"),
                Ok(Outcome::Rehearsed(rehearsal)) => tracing::info!(timings = %rehearsal.timings, "rehearsed"),
                Err(error) => tracing::warn!(%error, "no certificate"),
            }
            outcome
        }
        .instrument(span)
        .await
    }
}
