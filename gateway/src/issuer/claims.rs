//! The values of one run, and that they go away with it.

use std::sync::atomic::{AtomicBool, Ordering};

use authdns::Name;

use super::{
    CLAIM_LIFETIME,
    error::IssueError,
    event::{Event, Reporter},
};
use crate::ledger::{Holder, Ledger, Request, Value};

/// The claims of one run. Dropped with claims standing (the run's future was dropped, or it panicked), it releases them in the background.
pub(super) struct Claims {
    ledger: Ledger,
    holder: Holder,
    /// Set before the ledger is asked: a claim that was cut off may have been taken.
    standing: AtomicBool,
}

impl Claims {
    pub(super) fn new(ledger: Ledger, holder: Holder) -> Self {
        Self { ledger, holder, standing: AtomicBool::new(false) }
    }

    /// Claims all values in one transaction.
    ///
    /// # Errors
    /// [`IssueError::Claim`] and [`IssueError::Store`].
    pub(super) async fn set(&self, values: Vec<(Name, String)>) -> Result<(), IssueError> {
        let request = |(owner, value): (Name, String)| {
            let value: Value = value.parse().map_err(|error| IssueError::Claim { text: format!("{owner}: {error}"), later: false })?;
            Ok(Request { holder: self.holder.clone(), owner, value, lifetime: Some(CLAIM_LIFETIME), keep: None })
        };
        let requests = values.into_iter().map(request).collect::<Result<Vec<_>, IssueError>>()?;
        self.standing.store(true, Ordering::SeqCst);
        Ok(self.ledger.claim(requests).await?)
    }

    /// Lets everything go. Does nothing if nothing stands.
    pub(super) async fn release(&self, reporter: &Reporter) {
        if !self.standing.load(Ordering::SeqCst) {
            return;
        }
        match self.ledger.release_all(&self.holder).await {
            Ok(_) => reporter.send(Event::Released),
            Err(error) => reporter.warn(format!(
                "the values could not be removed: {error}. They end by themselves within {} minutes",
                CLAIM_LIFETIME.as_secs() / 60
            )),
        }
        // Cleared only now: a run that is cancelled while it releases releases again.
        self.standing.store(false, Ordering::SeqCst);
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        if !self.standing.load(Ordering::SeqCst) {
            return;
        }
        let (ledger, holder) = (self.ledger.clone(), self.holder.clone());
        // Without a runtime the process is ending; the claims' lifetime sees to the rest.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = ledger.release_all(&holder).await {
                    tracing::warn!(%holder, %error, "the values of a run could not be removed; they end by themselves");
                }
            });
        }
    }
}
