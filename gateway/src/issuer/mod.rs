//! The standalone issuer: from names to a certificate, with nothing left behind.
//!
//! ```text
//!                      ┌─ delegations: _acme-challenge.<name> ──CNAME──▶ owner in a zone of ours; the zone's servers ─┐
//!  names ─▶ account ───┤                                                                                              ├─▶ order ─▶ authorizations
//!                      └─ CAA ────────────────────────────────────────────────────────────────────────────────────────┘            │ (those the CA
//!                                                                                                                                  ▼  remembers are skipped)
//!  handed on ◀── checked: chain, names, key ◀── download ◀── finalize ◀── order ready ◀── challenges submitted ◀── seen at every server ◀── claims
//! ```
//!
//! What holds on every way out, errors and cancellation included:
//! - **No value stays.** A run has a holder of its own in the ledger, and lets everything of that holder go at its end. After a crash the next process lets it go,
//!   or goes on with it.
//! - **No order is placed twice**: what is known of it is on disk before it is needed ([`journal`]).
//! - **Nothing is submitted that is not visible**, so that a slow or broken DNS costs no failure at the CA.
//! - **The account key is on disk before the CA sees it**, and the certificate is handed on only after chain, names and key fit together.
//! - Pending authorizations of a run that failed are *left*: CAs give the same ones to the next order for the same names, and drop them by
//!   themselves.
//!
//! The files: [`request`], [`event`], [`issued`] and [`error`] are what callers see; [`target`] says where values go; [`run`] is one run, [`journal`] what of
//! it is on disk, [`claims`] its values, [`caa`] what forbids an order, [`budget`] what the CAs' rate limits leave, [`charge`] what runs take of it, [`metrics`] what is counted,
//! [`caches`] who may remember older values; [`certificate`] checks what came of it; [`acme`] talks to the CA; [`accounts`] is for those who look after the
//! accounts there, [`renewal_info`] and [`revocation`] for those who look after certificates.

mod accounts;
mod acme;
mod budget;
mod caa;
mod caches;
mod certificate;
mod charge;
mod claims;
mod error;
mod event;
mod issued;
mod journal;
mod metrics;
mod renewal_info;
mod request;
mod revocation;
mod run;
mod target;

use std::{
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;
use tracing::Instrument;

pub use accounts::{AccountAction, AccountReport, AccountRequest};
pub use acme::{Problem, Subproblem};
pub use budget::{Budget, Came, Exhausted, Left, Limit, OrderKind, OrderShape, Scope};
#[cfg(test)]
pub(crate) use certificate::tests::Authority;
pub(crate) use certificate::{check_pair, serial_number};
pub use charge::Paid;
pub use error::{Failure, IssueError};
pub use event::{Event, Reporter};
pub use issued::{Issued, Outcome, PrivateKeyPem, Rehearsal, Stage, Target, Timings};
pub use journal::Keep;
pub(crate) use journal::job_of;
pub(crate) use metrics::DirectoryNames;
pub use renewal_info::{BadCertificateId, CertificateId, RenewalInfo, Replaces};
pub use request::{Fallback, IssueRequest};
pub use revocation::{BadRevocationReason, RevocationReason, Revoked};

pub use crate::config::{BadKeyType, CertName, KeyType, MAX_NAMES, Names};

use self::{
    acme::Clients,
    caches::Caches,
    charge::Limits,
    claims::Claims,
    journal::{Job, Jobs, Journal},
    metrics::IssuerMetrics,
    run::Run,
};
use crate::{claim::Timestamp, engine::Engine, ledger::Holder, store::OrderEnd};

/// How long a run's claims outlive a crash.
pub const CLAIM_LIFETIME: Duration = Duration::from_secs(3600);

/// Issues certificates. Make one for the life of the process and clone it: clones share connections, nonces and accounts.
#[derive(Clone)]
pub struct Issuer {
    engine: Engine,
    clients: Clients,
    caches: Caches,
    jobs: Jobs,
    limits: Limits,
    metrics: IssuerMetrics,
}

impl Issuer {
    /// An issuer that claims in `engine`'s ledger.
    pub fn new(engine: Engine) -> Self {
        let metrics = IssuerMetrics::default();
        let clients = Clients::new(metrics.clone());
        Self { engine, clients, caches: Caches::default(), jobs: Jobs::default(), limits: Limits::default(), metrics }
    }

    /// Gets a certificate that somebody waits for, or rehearses getting one (`dry_run`). Cancelling `cancel` stops it in an orderly way; dropping the future removes
    /// the values too, but in the background. Whoever got the certificate to its place says so ([`Issuer::delivered`]): until then, the same request comes to the same
    /// certificate, for an hour.
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
        self.run(None, request, reporter, cancel)
    }

    /// Gets a certificate of the list, by its name there. It is in the store when this returns, by what `keep` makes of it. An order that was cut off is gone on with.
    ///
    /// # Errors
    /// [`IssueError`], as for [`Issuer::issue`].
    pub fn renew(
        &self,
        name: String,
        keep: Keep,
        request: IssueRequest,
        reporter: Reporter,
        cancel: CancellationToken,
    ) -> impl Future<Output = Result<Outcome, IssueError>> + Send {
        self.run(Some((name, keep)), request, reporter, cancel)
    }

    /// Forgets the order of a certificate that is where it should be.
    pub async fn delivered(&self, issued: &Issued) {
        let end = OrderEnd { job: issued.job.clone(), ..OrderEnd::default() };
        if let Err(error) = self.engine.store.end_order(end).await {
            tracing::warn!(%error, "the order's end could not be written down; the same request comes to the same certificate for an hour");
        }
    }

    async fn run(
        &self,
        listed: Option<(String, Keep)>,
        request: IssueRequest,
        reporter: Reporter,
        cancel: CancellationToken,
    ) -> Result<Outcome, IssueError> {
        let names = Names::parse(&request.names)?;
        let (job, keep) = match listed {
            Some((name, keep)) => (Job::Listed(name), Some(keep)),
            None => (Job::OneShot(journal::wish(&request, &request.directory, &names)), None),
        };
        let journal = Journal::open(self.engine.store.clone(), self.jobs.clone(), job).await?;
        let id = journal.run();
        let claims = Claims::new(&self.engine, self.caches.clone(), Holder::issue(id), journal.goes_on());
        let span = tracing::info_span!("issue", run = %id, names = %names.to_strings().join(" "));
        async {
            let outcome = self.at_each(&request, &names, &claims, &journal, &reporter, &cancel).await;
            let kept = match (&outcome, keep) {
                (Ok(Outcome::Issued(issued)), Some(keep)) => claims.end(journal.end(keep, issued), &reporter).await,
                _ => Ok(()),
            };
            let outcome = kept.and(outcome);
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

    /// One CA after the other, until one issues.
    async fn at_each(
        &self,
        request: &IssueRequest,
        names: &Names,
        claims: &Claims,
        journal: &Journal,
        reporter: &Reporter,
        cancel: &CancellationToken,
    ) -> Result<Outcome, IssueError> {
        let mut directories = request.directories().into_iter().peekable();
        let mut outcome = Err(IssueError::Cancelled);
        while let Some(directory) = directories.next() {
            let run = Run {
                engine: &self.engine,
                clients: &self.clients,
                limits: &self.limits,
                request,
                directory,
                names,
                reporter,
                claims,
                journal,
                charged: AtomicBool::new(false),
                begun: Timestamp::now(),
            };
            let begun = Instant::now();
            outcome = run.to_its_end(cancel).await;
            self.metrics.attempted(&directory.name, &outcome, begun.elapsed());
            match (&outcome, directories.peek()) {
                (Err(error), Some(next)) if error.is_the_cas() => {
                    reporter.warn(format!("{} did not issue, and {} is tried: {error}", directory.name, next.name));
                    claims.release(reporter).await;
                }
                _ => break,
            }
        }
        outcome
    }
}
