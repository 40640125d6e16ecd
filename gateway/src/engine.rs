//! Everything that runs, put together from a [`Config`]: store, ledger, zones. `serve` and a standalone `issue` run the same engine.

use std::sync::Arc;

use authdns::{Name, ZoneError, Zones};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    dispatch::{Blind, Dispatcher, Pace},
    ledger::{EmbeddedZones, Ledger},
    store::{DataFolder, SqliteStore, Store, StoreError, StoreMetrics},
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
    dispatch: Dispatcher,
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
        let dispatch = Dispatcher::new(store.clone(), Vec::new(), Arc::new(Blind), Pace::default(), CancellationToken::new());
        let ledger = Ledger::new(store.clone(), zones.clone(), dispatch.clone());
        Ok(Self { config, folder, store, zones, ledger, dispatch })
    }

    /// Runs what has to run beside the doors (expiry, dispatch) until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        self.ledger.run(stop).await;
    }

    /// Ends the dispatch, writes what is waiting, and closes the store; the lock goes with the last clone.
    pub async fn close(&self) {
        self.dispatch.close().await;
        self.store.close().await;
    }
}
