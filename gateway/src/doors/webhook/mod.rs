//! The cert-manager webhook door: an aggregated Kubernetes API server with one resource that can only be created.
//!
//! cert-manager posts a `ChallengePayload` to `/apis/<group>/v1alpha1/<solver>`, through the Kubernetes API server; the rest of the routes is what that
//! server asks before it lets anybody through. Three rules stand above all others, for cert-manager turns their breach into an outage:
//! what we say about a failure is the same text each time (it goes into the Challenge's status, and a changing status is a hot loop); a failure always
//! has a text (an empty one counts as success); and there is always an answer in time, without `Retry-After`.

mod discovery;
mod metrics;
mod payload;
mod solve;
mod status;

#[cfg(test)]
mod tests;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::Request,
    http::{Method, StatusCode},
    response::Response,
    routing::{get, post},
};
use prometheus_client::registry::Registry;

use self::{discovery::Documents, metrics::Metrics, solve::Solver, status::Status};
use crate::{
    config,
    engine::Engine,
    web::{BindError, Bound},
};

/// The API version of the resource, in our group and in cert-manager's.
const VERSION: &str = "v1alpha1";
/// The group in which cert-manager defines the payload.
const PAYLOAD_GROUP: &str = "webhook.acme.cert-manager.io";
/// The payload's kind.
const PAYLOAD_KIND: &str = "ChallengePayload";

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
///
/// Authentication of callers will be a layer over all of them but the health checks.
pub fn router(engine: &Engine, config: &config::Webhook, registry: &mut Registry) -> Router {
    let solver = Arc::new(Solver::new(engine.ledger.clone(), config.group.clone(), Metrics::register(registry)));
    let documents = Documents::new(&config.group, &config.solver);
    let resource = format!("/apis/{}/{VERSION}/{}", config.group, config.solver);
    let mut router = Router::new()
        .route(&resource, post(move |request: Request| async move { solver.answer(request).await }))
        .route("/apis", get(documents.groups()));
    for (path, document) in documents.into_documents() {
        router = router.route(&path, get(move |request: Request| async move { document.answer(request.headers()) }));
    }
    for path in ["/healthz", "/livez", "/readyz"] {
        // The routes exist once the store is open and the zones are loaded: whoever reads this can be served.
        router = router.route(path, get(async || "ok"));
    }
    router
        .fallback(async || Status::not_found().reply())
        .method_not_allowed_fallback(async |request: Request| other_method(request.method()))
}

/// The router adds `Allow` by itself.
fn other_method(method: &Method) -> Response {
    Status::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not supported here")).reply()
}
