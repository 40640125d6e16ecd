//! The cert-manager webhook door.

use std::net::SocketAddr;

use axum::Router;
use prometheus_client::registry::Registry;

use crate::{
    config,
    engine::Engine,
    web::{BindError, Bound},
};

/// Binds the door's listener: on a loopback address, because callers are not authenticated yet.
///
/// # Errors
/// [`BindError::NotLoopback`] for any other address; else as [`web::bind`](crate::web::bind).
pub fn bind(address: SocketAddr) -> Result<Bound, BindError> {
    if !address.ip().to_canonical().is_loopback() {
        return Err(BindError::NotLoopback(address));
    }
    crate::web::bind(address)
}

/// The door's routes.
pub fn router(engine: &Engine, config: &config::Webhook, registry: &mut Registry) -> Router {
    let _ = (engine, config, registry);
    Router::new()
}
