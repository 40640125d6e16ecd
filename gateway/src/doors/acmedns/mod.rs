//! The acme-dns door: the HTTP API of acme-dns, so that each of its clients works here unmodified.
//!
//! Status codes, bodies and the order of the checks are the original's, to the byte, as clients have grown around them. What differs is behind the
//! door: keys are of 240 random bits and need no slow hash, an update is answered when it is durable *and* in DNS, and an account keeps more than two
//! values.
//!
//! ```text
//! POST /register  -> 201  makes an account: a user name, a key, and a subdomain to point a CNAME at
//! POST /update    -> 200  claims a TXT value at that subdomain
//! GET  /health    -> 200
//! ```

mod accounts;
mod address;
mod json;
mod metrics;
mod register;
mod reply;
mod routes;
mod update;

#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use authdns::Name;
use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
    response::Response,
};
use prometheus_client::registry::Registry;
use tower::{Service, service_fn};
use tower_http::cors::{AllowOrigin, CorsLayer};

use self::{
    accounts::Accounts,
    address::ClientAddress,
    metrics::Metrics,
    register::Gate,
    routes::{Route, Routes},
};
use crate::{
    config::{self, Registration},
    doors::throttle::Throttle,
    engine::Engine,
    ledger::Ledger,
    store::{Store, StoreError},
    web::Peer,
};

/// Largest request body, in bytes: a registration with a thousand networks fits.
const MAX_BODY: usize = 64 * 1024;

const API_USER: HeaderName = HeaderName::from_static("x-api-user");
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Loads the accounts and gives the door's routes.
///
/// # Errors
/// The store's, if the accounts cannot be read.
pub async fn open(engine: &Engine, config: &config::AcmeDns, registry: &mut Registry) -> Result<Router, StoreError> {
    let metrics = Metrics::register(registry);
    let accounts = Accounts::load(&*engine.store).await?;
    metrics.accounts.set(i64::try_from(accounts.len()).unwrap_or(i64::MAX));
    let door = Door {
        gate: Gate::new(&config.registration, |token| accounts.hash(token)),
        accounts,
        store: engine.store.clone(),
        ledger: engine.ledger.clone(),
        zone: config.zone.clone(),
        values: config.values,
        lifetime: config.lifetime,
        routes: Routes::new(&config.prefixes, !matches!(config.registration, Registration::Open)),
        client_address: ClientAddress::new(&config.client_ip_header, &config.trusted_proxies),
        metrics,
        strangers: Throttle::default(),
    };
    let router = Router::new().fallback(dispatch).with_state(Arc::new(door));
    Ok(match cors(&config.cors_origins) {
        Some(layer) => for_browsers(router, layer),
        None => router,
    })
}

/// Only browsers send an `Origin`; nobody else's replies change.
fn for_browsers(router: Router, cors: CorsLayer) -> Router {
    let with_cors = router.clone().layer(cors);
    Router::new().fallback_service(service_fn(move |request: Request| {
        let mut router = if request.headers().contains_key(header::ORIGIN) { with_cors.clone() } else { router.clone() };
        router.call(request)
    }))
}

/// What every request works with.
struct Door {
    accounts: Accounts,
    gate: Gate,
    store: Arc<dyn Store>,
    ledger: Ledger,
    zone: Name,
    values: NonZeroU32,
    lifetime: Option<Duration>,
    routes: Routes,
    client_address: ClientAddress,
    metrics: Metrics,
    /// For the lines that anybody can cause.
    strangers: Throttle,
}

async fn dispatch(State(door): State<Arc<Door>>, request: Request) -> Response {
    let Some(route) = door.routes.of(request.uri().path()) else { return reply::not_found() };
    let method = request.method();
    match route {
        Route::Register(_) if door.gate.is_closed() => reply::not_found(),
        Route::Register(_) | Route::Update if method != Method::POST => reply::other_method(method, "OPTIONS, POST"),
        Route::Health if method != Method::GET => reply::other_method(method, "GET, OPTIONS"),
        Route::Health => reply::empty(),
        Route::Update => door.update(request).await,
        Route::Register(token) => {
            let admitted = door.gate.admits(token.as_deref(), request.headers(), |token| door.accounts.hash(token));
            door.register(admitted, request).await
        }
    }
}

impl Door {
    fn client(&self, request: &Request) -> Option<IpAddr> {
        self.client_address.of(peer(request), request.headers())
    }
}

fn peer(request: &Request) -> Option<SocketAddr> {
    request.extensions().get::<Peer>().and_then(|peer| peer.0)
}

/// The first line of a header, as the original takes it.
fn header_bytes(headers: &HeaderMap, name: HeaderName) -> &[u8] {
    headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default()
}

/// Lets pages of these origins call the API from a browser; `None` if there are none.
fn cors(origins: &[String]) -> Option<CorsLayer> {
    let origin = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        let listed: Vec<_> = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
        if listed.is_empty() {
            return None;
        }
        AllowOrigin::list(listed)
    };
    let headers = [header::CONTENT_TYPE, header::AUTHORIZATION, API_USER, API_KEY];
    Some(CorsLayer::new().allow_origin(origin).allow_methods([Method::GET, Method::POST]).allow_headers(headers))
}
