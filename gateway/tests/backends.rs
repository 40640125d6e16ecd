//! The watch over credentials: a dead one shows in metrics and in `/readyz?verbose`, and takes nothing out of service.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

mod common;

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, http::Request};
use common::{FakeDns, Fault};
use gateway::{
    backends::{Standing, Watch, WatchMetrics},
    dispatch::{Blind, DispatchMetrics, Dispatcher, Pace, QueueMetrics},
    ledger::{ClaimError, Holder, Ledger, Request as Claim},
    telemetry::{self, Health, Phase},
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use providers::Error;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

async fn get(router: &Router, path: &str) -> (u16, String) {
    let response = router.clone().oneshot(Request::get(path).body(Body::empty()).expect("a request")).await.expect("infallible");
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a body");
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

#[tokio::test]
async fn a_dead_credential_shows_and_readiness_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = common::open(folder.path(), &[]);
    let (good, bad) = (FakeDns::serving("example.com"), FakeDns::serving("example.org"));
    let every = Duration::from_secs(900);
    let routes = [("corp", good.clone()), ("other", bad.clone())];
    let routes = routes.map(|(name, dns)| common::route(name, dns));
    let dispatch = Dispatcher::new(store.clone(), routes.to_vec(), Arc::new(Blind), Pace::default(), CancellationToken::new());
    let watch = Watch::new(routes.map(|route| (route, "memory", every)), dispatch);
    let mut registry = telemetry::registry();
    registry.sub_registry_with_prefix("acmegate").register_collector(Box::new(WatchMetrics(watch.clone())));
    let health = Health::default();
    health.enter(Phase::Ready);
    let router = telemetry::router(registry, health, store.clone(), watch.clone());

    let (status, text) = get(&router, "/readyz?verbose").await;
    assert_eq!((status, text.lines().nth(1)), (200, Some("[ ] backend corp (memory): its credential is being tried")));
    assert!(!get(&router, "/metrics").await.1.contains("acmegate_backend_credential_valid{"));

    *bad.refused.lock() = Some(Error::Auth("the token has expired".to_owned()));
    watch.try_all().await;
    let (status, text) = get(&router, "/readyz?verbose").await;
    assert_eq!(status, 200, "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[1].starts_with("[+] backend corp (memory): a DNS in memory (tried 20"), "{text}");
    assert!(lines[2].starts_with("[-] backend other (memory): the credential was refused: the token has expired (since 20"), "{text}");
    assert_eq!(get(&router, "/readyz").await, (200, "ready\n".to_owned()));
    let (_, metrics) = get(&router, "/metrics").await;
    for line in [
        "acmegate_backend_credential_valid{backend=\"corp\"} 1",
        "acmegate_backend_credential_valid{backend=\"other\"} 0",
        "acmegate_backend_calls_total{backend=\"corp\",outcome=\"answered\"} 0",
    ] {
        assert!(metrics.lines().any(|given| given == line), "no {line} in\n{metrics}");
    }
    assert!(metrics.contains("acmegate_backend_last_verified_timestamp_seconds{backend=\"corp\"} "), "{metrics}");
    assert!(!metrics.contains("acmegate_backend_last_verified_timestamp_seconds{backend=\"other\"} "), "{metrics}");

    *bad.refused.lock() = None;
    watch.try_all().await;
    assert!(watch.standings().iter().all(|(_, standing)| matches!(standing, Standing::Valid { .. })), "{:?}", watch.standings());
}

#[tokio::test]
async fn what_waits_for_a_credential_goes_out_when_it_works_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = common::open(folder.path(), &[]);
    let dns = FakeDns::serving("example.com");
    let route = common::route("corp", dns.clone());
    // Nobody waits for so long here: only the watch can set the claim going.
    let pace = Pace { refused: Duration::from_secs(3600), longest: Duration::from_secs(3600), ..Pace::default() };
    let mut registry = Registry::default();
    let (metrics, stop) = (DispatchMetrics::register(&mut registry), CancellationToken::new());
    let dispatch = Dispatcher::measured(store.clone(), vec![route.clone()], Arc::new(Blind), pace, metrics, stop);
    registry.register_collector(Box::new(QueueMetrics(dispatch.clone())));
    let watch = Watch::new([(route, "memory", Duration::from_secs(900))], dispatch.clone());
    let zones = authdns::Zones::new(Vec::new()).expect("no zone");
    let ledger = Ledger::new(store.clone(), zones, dispatch.clone());

    *dns.refused.lock() = Some(Error::Auth("the token has expired".to_owned()));
    watch.try_all().await;
    dns.faults.lock().push_back(Fault::Refuse);
    let request = Claim {
        holder: Holder::from("webhook:ns/example.com"),
        owner: common::name("_acme-challenge.example.com"),
        value: "v".parse().expect("a value"),
        backend: None,
        lifetime: None,
        keep: None,
    };
    let refused = ledger.claim(vec![request.clone()]).await;
    assert_eq!(refused, Err(ClaimError::Backend("refused: not today".to_owned())));
    assert!(dns.values("_acme-challenge.example.com").is_empty());
    let exported = || {
        let mut text = String::new();
        encode(&mut text, &registry).expect("written");
        text
    };
    let text = exported();
    assert!(text.contains("dispatch_changes_total{backend=\"corp\",outcome=\"rejected\"} 1\n"), "{text}");
    assert!(text.contains("dispatch_waiting{backend=\"corp\"} 1\n"), "{text}");

    *dns.refused.lock() = None;
    watch.try_all().await;
    assert_eq!(ledger.claim(vec![request]).await, Ok(()));
    assert_eq!(dns.values("_acme-challenge.example.com"), ["v"]);
    let text = exported();
    for line in [
        "dispatch_changes_total{backend=\"corp\",outcome=\"applied\"} 1",
        "dispatch_batch_owners_count{backend=\"corp\"} 2",
        "dispatch_visible_seconds_count{backend=\"corp\"} 1",
    ] {
        assert!(text.lines().any(|given| given == line), "no {line} in\n{text}");
    }
    dispatch.close().await;
}
