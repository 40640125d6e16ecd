//! The values of one run, and that they go away with it.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use authdns::Name;
use parking_lot::Mutex;

use super::{
    CLAIM_LIFETIME,
    caches::Caches,
    error::IssueError,
    event::{Event, Reporter},
};
use crate::{
    config::Config,
    engine::Engine,
    ledger::{Holder, Ledger, Request, Value},
    store::{OrderEnd, OrderEntry, Store},
};

/// The claims of one run. Dropped with claims standing (the run's future was dropped, or it panicked), it releases them in the background.
pub(super) struct Claims {
    ledger: Ledger,
    holder: Holder,
    /// Set before the ledger is asked: a claim that was cut off may have been taken.
    standing: AtomicBool,
    store: Arc<dyn Store>,
    config: Arc<Config>,
    caches: Caches,
    owners: Mutex<BTreeSet<Name>>,
}

/// How long a backend may take with all that comes before its servers are asked: its calls, and its limits.
const DISPATCH: Duration = Duration::from_secs(60);

impl Claims {
    /// `left` says that an earlier run may have left some standing.
    pub(super) fn new(engine: &Engine, caches: Caches, holder: Holder, left: bool) -> Self {
        let (ledger, store, config) = (engine.ledger.clone(), engine.store.clone(), engine.config.clone());
        Self { ledger, holder, standing: AtomicBool::new(left), store, config, caches, owners: Mutex::default() }
    }

    /// The TTL of our values at a name, in seconds; where backends have different ones, the longest.
    fn ttl(&self, owner: &Name) -> u32 {
        let embedded = self.config.dns.iter().flat_map(|dns| &dns.zones);
        let longest = match self.ledger.zone_of(owner) {
            Some(_) => embedded.map(|zone| zone.txt_ttl).max(),
            None => self.config.backends.iter().map(|backend| backend.ttl).max(),
        };
        longest.unwrap_or_default()
    }

    fn outdated(&self, owners: impl IntoIterator<Item = Name>) {
        self.caches.outdated(owners.into_iter().map(|owner| {
            let ttl = self.ttl(&owner);
            (owner, ttl)
        }));
    }

    /// Claims all values in one transaction, in which their order is written down, too.
    ///
    /// # Errors
    /// [`IssueError::Claim`] and [`IssueError::Store`].
    pub(super) async fn set(&self, values: Vec<(Name, String)>, order: Option<OrderEntry>) -> Result<(), IssueError> {
        let owners: BTreeSet<Name> = values.iter().map(|(owner, _)| owner.clone()).collect();
        let joined = self.store.shared(owners.iter().cloned().collect(), &self.holder).await?;
        *self.owners.lock() = owners;
        let request = |(owner, value): (Name, String)| {
            let value: Value = value.parse().map_err(|error| IssueError::Claim { text: format!("{owner}: {error}"), later: false })?;
            Ok(Request { holder: self.holder.clone(), owner, value, backend: None, lifetime: Some(CLAIM_LIFETIME), keep: None })
        };
        let requests = values.into_iter().map(request).collect::<Result<Vec<_>, IssueError>>()?;
        self.standing.store(true, Ordering::SeqCst);
        let patience = self.config.propagation.timeout + DISPATCH;
        match order {
            Some(order) => self.ledger.claim_for(order, requests, patience).await?,
            None => self.ledger.claim_within(requests, patience).await?,
        }
        self.outdated(joined);
        Ok(())
    }

    /// Waits until no resolver can remember what stood at these names before.
    pub(super) async fn outlast_caches(&self) {
        let owners = self.owners.lock().clone();
        self.caches.forgotten(&owners).await;
    }

    /// Lets everything go. Does nothing if nothing stands.
    pub(super) async fn release(&self, reporter: &Reporter) {
        if !self.standing.load(Ordering::SeqCst) {
            return;
        }
        match self.ledger.release_all(&self.holder).await {
            Ok(released) => self.gone(released, reporter),
            Err(error) => reporter.warn(format!(
                "the values could not be removed: {error}. They end by themselves within {} minutes",
                CLAIM_LIFETIME.as_secs() / 60
            )),
        }
        // Cleared only now: a run that is cancelled while it releases releases again.
        self.standing.store(false, Ordering::SeqCst);
    }

    /// Lets everything go with the end of the order, in one transaction.
    ///
    /// # Errors
    /// [`IssueError::Store`]; then everything stands yet.
    pub(super) async fn end(&self, end: OrderEnd, reporter: &Reporter) -> Result<(), IssueError> {
        let released = self.ledger.end_order(OrderEnd { holder: Some(self.holder.clone()), ..end }).await?;
        self.gone(released, reporter);
        self.standing.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn gone(&self, released: usize, reporter: &Reporter) {
        // What an earlier run may have left may not have been there.
        if released > 0 {
            let owners = self.owners.lock().clone();
            self.outdated(owners);
            reporter.send(Event::Released);
        }
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use prometheus_client::registry::Registry;
    use uuid::Uuid;

    use super::*;

    fn engine(folder: &Path) -> Engine {
        let yaml = format!(
            "version: v1\ndata: {}\ndns:\n  listen: [\"127.0.0.1:0\"]\n  zones: [{{name: auth.test, nameservers: [ns.example.test], contact: h.example.test}}]\n",
            folder.display()
        );
        let config = Config::from_yaml(&yaml, Path::new("test.yaml")).unwrap();
        Engine::open(Arc::new(config), &mut Registry::default()).unwrap()
    }

    async fn claimed(engine: &Engine) -> Claims {
        let claims = Claims::new(engine, Caches::default(), Holder::issue(Uuid::new_v4()), false);
        let owner = "example.com.auth.test".parse().unwrap();
        claims.set(vec![(owner, "v".repeat(43))], None).await.unwrap();
        claims
    }

    #[tokio::test]
    async fn released_once_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let engine = engine(folder.path());
        let claims = claimed(&engine).await;
        let (sender, mut events) = tokio::sync::mpsc::channel(4);
        let reporter = Reporter::new(sender);
        claims.release(&reporter).await;
        claims.release(&reporter).await;
        assert_eq!(events.try_recv(), Ok(Event::Released));
        assert!(events.try_recv().is_err());
        assert_eq!(engine.ledger.release_all(&claims.holder).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_run_that_is_dropped_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let engine = engine(folder.path());
        let claims = claimed(&engine).await;
        let holder = claims.holder.clone();
        drop(claims);
        // One thread: the release is handed to the store before this goes on, and the store works in order.
        tokio::task::yield_now().await;
        assert_eq!(engine.ledger.release_all(&holder).await.unwrap(), 0);
    }
}
