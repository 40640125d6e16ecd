//! Everything that runs, put together from a [`Config`]: store, ledger, zones. `serve` and a standalone `issue` run the same engine.

use std::sync::Arc;

use authdns::Zones;

use crate::{config::Config, ledger::Ledger, store::Store, telemetry::Metrics};

/// The parts that doors and the issuer work with; clones share them.
#[derive(Clone)]
pub struct Engine {
    /// What the program was told.
    pub config: Arc<Config>,
    /// What is on disk.
    pub store: Arc<dyn Store>,
    /// The embedded zones.
    pub zones: Zones,
    /// The claims.
    pub ledger: Ledger,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}
