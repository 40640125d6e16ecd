//! What runs take of the CAs' limits, and what they learn of them.

use std::sync::{Arc, atomic::Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::OnceCell;

use super::{Budget, Came, Issuer, OrderKind, OrderShape, Scope, error::IssueError, issued::Outcome, run::Run};
use crate::{
    claim::Timestamp,
    store::{BudgetRow, Store, StoreError},
};

/// What is known of the CAs' limits, read from the store when it is first needed; clones share it.
#[derive(Clone, Default)]
pub(super) struct Limits(Arc<OnceCell<Mutex<Budget>>>);

/// What whoever planned an order knows of its cost.
#[derive(Debug, Clone)]
pub struct Paid {
    /// The URL of the directory whose limits they are.
    pub directory: String,
    /// What the order is to that CA.
    pub kind: OrderKind,
    /// What was taken for it already, to be written with the intent; `None` if nothing was, because an order is under way that was paid for.
    pub taken: Option<Vec<BudgetRow>>,
}

impl Limits {
    async fn budget(&self, store: &dyn Store) -> Result<&Mutex<Budget>, StoreError> {
        self.0.get_or_try_init(|| async { Ok(Mutex::new(Budget::new(store.budget().await?))) }).await
    }

    /// What was read; `None` before.
    pub(super) fn known(&self) -> Option<&Mutex<Budget>> {
        self.0.get()
    }
}

impl Issuer {
    /// What the CAs' limits leave. It is the same for all runs of this process; whoever changes it writes the rows that come back.
    ///
    /// # Errors
    /// As the store says.
    pub async fn budget(&self) -> Result<MutexGuard<'_, Budget>, StoreError> {
        Ok(self.limits.budget(&*self.engine.store).await?.lock())
    }
}

impl Run<'_> {
    /// Takes of the limits what a new order costs, unless that was done already.
    ///
    /// # Errors
    /// [`IssueError::Limited`] if a limit is used up: nothing was sent. [`IssueError::Store`].
    pub(super) async fn charge(&self, names: &[String]) -> Result<Vec<BudgetRow>, IssueError> {
        let paid = self.paid();
        let taken = paid.and_then(|paid| paid.taken.clone());
        // A second order of the same run is paid for anew.
        if let (Some(taken), false) = (taken, self.charged.swap(true, Ordering::SeqCst)) {
            return Ok(taken);
        }
        let now = Timestamp::now();
        let mut budget = self.limits.budget(&*self.engine.store).await?.lock();
        // Whether the CA has certified the names of a one-shot before is not known: it is asked for as if it had, which keeps nobody from what a CA gives, and counted as
        // if it had not.
        let (asked, counted) = paid.map_or((OrderKind::Renewal, OrderKind::New), |paid| (paid.kind, paid.kind));
        let order = OrderShape { directory: &self.directory.url, names, kind: asked };
        budget.ask(&order, now).map_err(|limit| IssueError::Limited { limit: Box::new(limit) })?;
        Ok(budget.take(&OrderShape { kind: counted, ..order }, now))
    }

    /// What the limits were told before the run, if that was about this CA.
    fn paid(&self) -> Option<&Paid> {
        self.request.paid.as_ref().filter(|paid| paid.directory == self.directory.url)
    }

    /// What a run's end says of the limits. `placed` says whether there is an order at the CA.
    pub(super) async fn settle(&self, outcome: &Result<Outcome, IssueError>, placed: bool) {
        if self.request.dry_run {
            return;
        }
        let names = self.names.to_strings();
        let rows = match self.limits.budget(&*self.engine.store).await {
            Ok(budget) => self.learn(&mut budget.lock(), outcome, &names, placed),
            Err(_) => return,
        };
        // A certificate of the list is yet to be written: one commit does both.
        let rows = if outcome.is_ok() { self.journal.learned(rows) } else { rows };
        if rows.is_empty() {
            return;
        }
        if let Err(error) = self.engine.store.save_budget(rows).await {
            tracing::warn!(%error, "what the CA said of its limits could not be written down; it is remembered until acmegate ends");
        }
    }

    fn learn(&self, budget: &mut Budget, outcome: &Result<Outcome, IssueError>, names: &[String], placed: bool) -> Vec<BudgetRow> {
        let (now, directory) = (Timestamp::now(), self.directory.url.as_str());
        let error = match outcome {
            Ok(_) => {
                let order = OrderShape { directory, names, kind: self.paid().map_or(OrderKind::New, |paid| paid.kind) };
                return budget.issued(&order, self.begun, now);
            }
            Err(error) => error,
        };
        let mut rows = Vec::new();
        // A later attempt goes on with the order: nothing comes back for it.
        let over = error.ends_the_order() || !placed;
        let taken = self.charged.load(Ordering::SeqCst) || self.paid().is_some_and(|paid| paid.taken.is_some());
        if over && taken && !matches!(error, IssueError::Limited { .. }) {
            let kind = self.paid().map_or(OrderKind::New, |paid| paid.kind);
            let came = if placed { Came::NotFinalized } else { Came::NotPlaced };
            rows.extend(budget.give_back(&OrderShape { directory, names, kind }, came, now));
        }
        match error {
            IssueError::Later { problem, retry_at: Some(until), .. } => {
                rows.extend(budget.told(directory, &Scope::of(problem, names), (*until).into(), now));
            }
            IssueError::Invalid { failures } => {
                let failed: Vec<_> = failures.iter().map(|failure| failure.name.clone()).collect();
                rows.extend(budget.failed(directory, &failed, now));
            }
            _ => {}
        }
        rows
    }
}
