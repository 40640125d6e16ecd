//! The metrics door: `/metrics`, `/healthz`, `/readyz`.

use std::{fmt, sync::Arc, time::Duration};

use authdns::{Counters, Rcode, Transport};
use axum::{
    Router, extract,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text::encode},
    metrics::{MetricType, counter::ConstCounter, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

use super::{Health, Phase, process::Process};
use crate::{backends::Watch, claim::State, store::Store};

/// OpenMetrics 1.0 text.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// How long a scrape waits for the store; a store that hangs must not hide what the rest has counted.
const CENSUS_PATIENCE: Duration = Duration::from_secs(2);

/// A registry that holds what the process says of itself. Every other part adds its own families to it.
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Process::new()));
    let acmegate = registry.sub_registry_with_prefix("acmegate");
    acmegate.register("build", "Version of this program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
    registry
}

/// Exports the counters of the embedded DNS server.
pub fn register_dns(registry: &mut Registry, counters: Arc<Counters>) {
    registry.register_collector(Box::new(Dns(counters)));
}

/// The routes of the metrics door.
pub fn router(mut registry: Registry, health: Health, store: Arc<dyn Store>, watch: Watch) -> Router {
    let claims = Family::<ClaimState, Gauge>::default();
    registry.sub_registry_with_prefix("acmegate").register("claims", "Claims in the ledger, by state", claims.clone());
    let door = Door { registry: Arc::new(registry), health, store, watch, claims };
    Router::new().route("/metrics", get(metrics)).route("/healthz", get(healthz)).route("/readyz", get(readyz)).with_state(door)
}

#[derive(Clone)]
struct Door {
    registry: Arc<Registry>,
    health: Health,
    store: Arc<dyn Store>,
    watch: Watch,
    claims: Family<ClaimState, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClaimState {
    state: &'static str,
}

async fn metrics(extract::State(door): extract::State<Door>) -> Response {
    if let Ok(Ok(census)) = tokio::time::timeout(CENSUS_PATIENCE, door.store.census()).await {
        for state in State::ALL {
            let number = census.iter().find(|&&(counted, _)| counted == state).map_or(0, |&(_, number)| number);
            let gauge = door.claims.get_or_create(&ClaimState { state: state.as_str() });
            gauge.set(i64::try_from(number).unwrap_or(i64::MAX));
        }
    }
    // Ten thousand certificates take a while to write down, in which nobody else shall wait.
    let written = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        encode(&mut text, &door.registry).map(|()| text)
    });
    match written.await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Ok(Err(fmt::Error)) | Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written\n").into_response(),
    }
}

/// Alive: a restart would not help.
async fn healthz(extract::State(door): extract::State<Door>) -> Response {
    match door.store.broken() {
        None => "ok\n".into_response(),
        Some(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

/// Ready: a client that comes now is served. A credential that no longer works changes nothing about that: DNS answers, and the other backends
/// work; `?verbose` tells of it.
async fn readyz(extract::State(door): extract::State<Door>, extract::RawQuery(query): extract::RawQuery) -> Response {
    let (status, mut text) = match (door.health.phase(), door.store.broken()) {
        (Phase::Ready, None) => (StatusCode::OK, "ready\n".to_owned()),
        (Phase::Starting, _) => (StatusCode::SERVICE_UNAVAILABLE, "starting\n".to_owned()),
        (Phase::Draining, _) => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned()),
        (Phase::Ready, Some(error)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    };
    let verbose = |query: &str| query.split('&').any(|part| part == "verbose" || part.starts_with("verbose="));
    if query.as_deref().is_some_and(verbose) {
        text.extend(door.watch.lines().iter().flat_map(|line| [line.as_str(), "\n"]));
    }
    (status, text).into_response()
}

/// The DNS server's counters at each scrape: the hot path knows nothing of metrics.
#[derive(Debug)]
struct Dns(Arc<Counters>);

impl Collector for Dns {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counters = &self.0;
        let by_transport = Transport::ALL.map(|transport| (label_of(transport), counters.queries(transport)));
        labelled(&mut encoder, "acmegate_dns_queries", "DNS messages that came in, by transport.", "transport", &by_transport)?;
        let by_rcode = Rcode::ALL.map(|rcode| (rcode.as_str(), counters.responses(rcode)));
        labelled(&mut encoder, "acmegate_dns_responses", "DNS responses, by response code.", "rcode", &by_rcode)?;
        for (name, help, value) in [
            ("acmegate_dns_truncated", "DNS responses with the TC bit.", counters.truncated()),
            ("acmegate_dns_dropped", "DNS messages that got no response.", counters.dropped()),
            ("acmegate_dns_unsent", "UDP responses that the system did not take.", counters.unsent()),
            ("acmegate_dns_tcp_connections", "DNS connections over TCP.", counters.tcp_connections()),
            ("acmegate_dns_tcp_refused", "DNS connections over TCP that were closed at once, for a limit.", counters.tcp_refused()),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}

fn label_of(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
        Transport::Tls => "tls",
        Transport::Https => "https",
        Transport::Quic => "quic",
    }
}

fn labelled(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, label: &str, values: &[(&str, u64)]) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None::<&Unit>, MetricType::Counter)?;
    for &(value, count) in values {
        let labels = [(label, value)];
        ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::{body::Body, http::Request};
    use tower::ServiceExt;

    use super::*;
    use crate::{config::Config, engine::Engine};

    async fn get(router: &Router, path: &str) -> (StatusCode, String, String) {
        let response = router.clone().oneshot(Request::get(path).body(Body::empty()).expect("request")).await.expect("infallible");
        let (status, kind) = (response.status(), response.headers().get(header::CONTENT_TYPE).cloned());
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("body");
        let kind = kind.map(|kind| kind.to_str().expect("text").to_owned()).unwrap_or_default();
        (status, kind, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn the_door_tells_the_phase_and_writes_open_metrics() {
        let folder = tempfile::tempdir().expect("folder");
        let mut config = Config::embedded().expect("valid");
        config.data = folder.path().to_owned();
        let mut registry = registry();
        let engine = Engine::open(Arc::new(config), registry.sub_registry_with_prefix("acmegate")).expect("open");
        register_dns(&mut registry, Arc::default());
        let health = Health::default();
        let router = router(registry, health.clone(), engine.store.clone(), engine.watch.clone());

        assert_eq!(get(&router, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
        health.enter(Phase::Ready);
        assert_eq!(get(&router, "/readyz").await.0, StatusCode::OK);
        health.enter(Phase::Draining);
        assert_eq!(get(&router, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(get(&router, "/healthz").await.0, StatusCode::OK);

        let (status, kind, text) = get(&router, "/metrics").await;
        assert_eq!((status, kind.as_str()), (StatusCode::OK, CONTENT_TYPE));
        for line in [
            &format!("acmegate_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")),
            "acmegate_claims{state=\"visible\"} 0",
            "acmegate_dns_queries_total{transport=\"udp\"} 0",
            "acmegate_dns_responses_total{rcode=\"NXDOMAIN\"} 0",
            "# TYPE acmegate_store_commit_seconds histogram",
        ] {
            assert!(text.lines().any(|given| given == line), "no {line} in\n{text}");
        }
        assert!(text.lines().any(|line| line.starts_with("process_open_fds ")), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
        engine.close().await;
    }
}
