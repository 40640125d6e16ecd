//! Everything that runs, put together from a [`Config`]: store, ledger, zones. `serve` and a standalone `issue` run the same engine.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use authdns::{Name, ZoneError, Zones};
use prometheus_client::registry::Registry;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    backends::{self, BackendError, Watch, WatchMetrics},
    claim::Backend,
    config::Config,
    dispatch::{DispatchMetrics, Dispatcher, Pace, QueueMetrics, Route},
    ledger::{EmbeddedZones, Ledger},
    propagation::{Guide, Propagation, ResolveError, Resolver, ServerMetrics, Whom},
    store::{DataFolder, SqliteStore, Store, StoreError, StoreMetrics},
    sweep::Sweeper,
};

/// The parts that doors and the issuer work with; clones share them.
#[derive(Clone)]
pub struct Engine {
    /// What the program was told.
    pub config: Arc<Config>,
    /// The data folder, locked for this process.
    pub folder: Arc<DataFolder>,
    /// What is on disk.
    pub store: Arc<dyn Store>,
    /// The embedded zones.
    pub zones: Zones,
    /// The claims.
    pub ledger: Ledger,
    /// The backends of the configuration that have a credential of their own, in its order.
    pub routes: Vec<Route>,
    /// The watch over their credentials; it watches once it is run.
    pub watch: Watch,
    /// What sees values at the servers of their zones, and what it learned of those.
    pub propagation: Arc<Propagation>,
    /// What marks the records of this installation, where a provider can carry a mark.
    pub mark: Arc<str>,
    /// What makes claims true at the backends.
    pub dispatch: Dispatcher,
}

/// Why the engine cannot run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The data folder or the database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The zones of the configuration.
    #[error("dns.zones: {0}")]
    Zone(#[from] ZoneError),
    /// A backend that cannot be made.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

impl Engine {
    /// Locks the data folder, opens the store, and makes the zones from what it holds. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// As [`EngineError`] says.
    pub fn open(config: Arc<Config>, registry: &mut Registry) -> Result<Self, EngineError> {
        let folder = Arc::new(DataFolder::open(&config.data)?);
        let zones = Zones::new(config.dns.as_ref().map(|dns| dns.zones.clone()).unwrap_or_default())?;
        let names: Vec<Name> = zones.names();
        let metrics = StoreMetrics::register(registry);
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(folder.path(), &names, Arc::new(EmbeddedZones(zones.clone())), metrics)?);
        let mark = backends::mark(&store.pepper());
        let checks = config.backends.iter().filter_map(|backend| Some((backend.name.to_string(), backend.check?)));
        let propagation = Arc::new(Propagation::new(&config.propagation).with_checks(checks));
        let made = backends::routes(&config, &mark, propagation.clone())?;
        let routes = made.configured().to_vec();
        let metrics = DispatchMetrics::register(registry);
        let stop = CancellationToken::new();
        let dispatch = Dispatcher::measured(store.clone(), made, propagation.clone(), Pace::default(), metrics, stop);
        // What has no credential of its own cannot be tried.
        let watched = routes.iter().zip(config.backends.iter().filter(|backend| !backend.is_lent()));
        let watched = watched.map(|(route, backend)| (route.clone(), backend.kind.id, backend.verify));
        let watch = Watch::new(watched, dispatch.clone());
        registry.register_collector(Box::new(WatchMetrics(watch.clone())));
        registry.register_collector(Box::new(QueueMetrics(dispatch.clone())));
        registry.register_collector(Box::new(ServerMetrics(propagation.clone())));
        let ledger = Ledger::new(store.clone(), zones.clone(), dispatch.clone());
        Ok(Self { config, folder, store, zones, ledger, routes, watch, propagation, mark, dispatch })
    }

    /// Runs what has to run beside the doors (expiry, dispatch) until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        self.ledger.run(stop).await;
    }

    /// What looks for values that were left behind.
    pub fn sweeper(&self) -> Sweeper {
        Sweeper::new(self.store.clone(), self.ledger.clone(), self.dispatch.clone(), self.routes.clone(), self.mark.clone())
    }

    /// Waits until what was released is gone from the backends, for as long as that may be expected within `patience`; gives the number of values that are left.
    ///
    /// # Errors
    /// As the store says.
    pub async fn removed(&self, patience: Duration) -> Result<usize, StoreError> {
        self.dispatch.removed(Instant::now() + patience).await
    }

    /// Ends the dispatch, writes what is waiting, and closes the store; the lock goes with the last clone.
    pub async fn close(&self) {
        self.dispatch.close().await;
        self.store.close().await;
    }
}

/// Names outside of our zones are asked of the resolvers. A name that a backend serves is asked of its own servers: a resolver, and a CA behind it, would
/// remember that it was not there before its value was. Names in embedded zones lead nowhere.
#[async_trait]
impl Guide for Engine {
    async fn whom(&self, name: &Name) -> Result<Whom, ResolveError> {
        match self.ledger.lane_of(name).await {
            Ok(lane) if lane.backend == Backend::Embedded => Ok(Whom::Nobody),
            Ok(lane) => {
                let servers = self.propagation.own_servers(&lane).await.map_err(|error| ResolveError::NoServers(error.to_string()))?;
                Ok(servers.map_or(Whom::Nobody, Whom::These))
            }
            // Where a backend cannot be asked, the name is taken for somebody else's: most are.
            Err(_) => Ok(Whom::These(Resolver::configured(&self.config.propagation))),
        }
    }
}
