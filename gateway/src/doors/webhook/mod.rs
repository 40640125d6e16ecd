//! The cert-manager webhook door: an aggregated Kubernetes API server with one resource that can only be created.
//!
//! cert-manager posts a `ChallengePayload` to `/apis/<group>/v1alpha1/<solver>`, through the Kubernetes API server; the rest of the routes is what that
//! server asks before it lets anybody through. Three rules stand above all others, for cert-manager turns their breach into an outage:
//! what we say about a failure is the same text each time (it goes into the Challenge's status, and a changing status is a hot loop); a failure always
//! has a text (an empty one counts as success); and there is always an answer in time, without `Retry-After`.

mod callers;
mod discovery;
mod issuer;
mod metrics;
mod openapi;
mod payload;
mod solve;
mod status;

#[cfg(test)]
mod tests;

pub use callers::{Caller, Callers, Certificates, ClusterCallers};
pub(crate) use issuer::{Wanted, wanted};

use std::{net::SocketAddr, sync::Arc, time::Instant};

use axum::{
    Router,
    extract::Request,
    http::{Method, StatusCode},
    middleware::from_fn_with_state,
    response::Response,
    routing::{get, post},
};
use prometheus_client::registry::Registry;

use self::{
    callers::{Gate, HEALTH, READY, check},
    discovery::Documents,
    metrics::Metrics,
    solve::Solver,
    status::Status,
};
use crate::{
    config,
    engine::Engine,
    kubernetes::Events,
    policy::{Namespaces, NoCluster},
    web::{BindError, Bound},
};

/// The API version of the resource, in our group and in cert-manager's.
pub const VERSION: &str = "v1alpha1";
/// The group in which cert-manager defines the payload.
const PAYLOAD_GROUP: &str = "webhook.acme.cert-manager.io";
/// The payload's kind.
const PAYLOAD_KIND: &str = "ChallengePayload";

/// Binds the door's listener: on a loopback address, if nobody is asked who they are.
///
/// # Errors
/// [`BindError::NotLoopback`] for any other address then; else as [`web::bind`](crate::web::bind).
pub fn bind(address: SocketAddr, callers: &Callers) -> Result<Bound, BindError> {
    if matches!(callers, Callers::Anyone) && !address.ip().to_canonical().is_loopback() {
        return Err(BindError::NotLoopback(address));
    }
    crate::web::bind(address)
}

/// What the door knows of the cluster that it serves.
pub struct Surroundings {
    /// Who may call.
    pub callers: Callers,
    /// The labels of namespaces, for the policy.
    pub namespaces: Arc<dyn Namespaces>,
    /// Where people are told what they have to mend.
    pub events: Option<Events>,
}

impl Surroundings {
    /// No cluster at all.
    pub fn none(callers: Callers) -> Self {
        Self { callers, namespaces: Arc::new(NoCluster), events: None }
    }
}

/// The door's routes. Those of health apart, they answer who may call alone.
pub fn router(engine: &Engine, config: &config::Webhook, around: Surroundings, registry: &mut Registry) -> Router {
    let Surroundings { callers, namespaces, events } = around;
    let metrics = Metrics::register(registry);
    let solver = Arc::new(Solver::new(engine, config, namespaces, events, metrics.clone()));
    let documents = Documents::new(&config.group, &config.solver);
    let resource = format!("/apis/{}/{VERSION}/{}", config.group, config.solver);
    let solve = async move |request: Request| {
        let begun = Instant::now();
        let answer = solver.answer(request).await;
        metrics.took(begun.elapsed());
        answer
    };
    let mut router = Router::new().route(&resource, post(solve)).route("/apis", get(documents.groups()));
    for (path, document) in documents.into_documents() {
        router = router.route(&path, get(move |request: Request| async move { document.answer(request.headers()) }));
    }
    for path in HEALTH {
        // The routes exist once the store is open and the zones are loaded: whoever is known can be served.
        let callers = callers.clone();
        router = router.route(path, get(async move || health(path == READY && !callers.ready())));
    }
    router
        .fallback(async || Status::not_found().reply())
        .method_not_allowed_fallback(async |request: Request| other_method(request.method()))
        .layer(from_fn_with_state(Gate::new(callers), check))
}

fn health(waiting: bool) -> (StatusCode, &'static str) {
    if waiting {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "it is not known yet who may call: the cluster's extension-apiserver-authentication was not read\n",
        );
    }
    (StatusCode::OK, "ok")
}

/// The router adds `Allow` by itself.
fn other_method(method: &Method) -> Response {
    Status::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not supported here")).reply()
}
