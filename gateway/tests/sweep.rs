//! The sweep: it finds what was left behind, removes exactly that, and says what it could not.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

mod common;

use std::{path::Path, sync::Arc, time::Duration};

use authdns::Zones;
use common::{FakeDns, Fault, name};
use gateway::{
    claim::{Lane, Timestamp},
    dispatch::{Blind, Dispatcher, Pace, Route},
    ledger::{EmbeddedZones, Holder, Ledger, Release, Request},
    store::{NewClaim, SqliteStore, Store, StoreMetrics},
    sweep::{Outcome, Report, Schedule, SweepError, SweepMetrics, SweepRequest, Sweeper, Why},
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio_util::sync::CancellationToken;

const OWNER: &str = "_acme-challenge.www.example.com";

struct House {
    store: Arc<SqliteStore>,
    ledger: Ledger,
    dispatch: Dispatcher,
    sweeper: Sweeper,
}

const HOUR: Duration = Duration::from_secs(3600);

impl House {
    fn open(folder: &Path, routes: Vec<Route>) -> Self {
        let zones = Zones::new(Vec::new()).expect("no zones");
        let metrics = StoreMetrics::register(&mut Registry::default());
        let store = Arc::new(SqliteStore::open(folder, &[], Arc::new(EmbeddedZones(zones.clone())), metrics).expect("a store"));
        // A failed attempt would be repeated in an hour: what the sweep asks for has to happen at once all the same.
        let pace = Pace { first: HOUR, refused: HOUR, longest: HOUR, ..Pace::default() };
        let dispatch = Dispatcher::new(store.clone(), routes.clone(), Arc::new(Blind), pace, CancellationToken::new());
        let ledger = Ledger::new(store.clone(), zones, dispatch.clone());
        let sweeper = Sweeper::new(store.clone(), ledger.clone(), dispatch.clone(), routes, "acmegate 0123456789ab".into());
        Self { store, ledger, dispatch, sweeper: sweeper.with_patience(Duration::from_secs(20)) }
    }

    async fn claim(&self, value: &str, holder: &str, lifetime: Option<Duration>) {
        let request = Request {
            holder: Holder::from(holder),
            owner: name(OWNER),
            value: value.parse().expect("a value"),
            backend: None,
            lifetime,
            keep: None,
        };
        self.ledger.claim(vec![request]).await.expect("claimed");
    }

    async fn sweep(&self, apply: bool) -> Report {
        self.sweeper.sweep(&SweepRequest { apply, backend: None }).await.expect("a report")
    }

    async fn close(self) {
        self.dispatch.close().await;
        self.store.close().await;
    }
}

fn outcomes(report: &Report) -> Vec<(&str, Why, &Outcome)> {
    report.rows.iter().map(|row| (row.value.as_str(), row.why, &row.outcome)).collect()
}

#[tokio::test]
async fn what_outstayed_its_time_is_listed_and_then_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let dns = FakeDns::serving("example.com");
    dns.insert(&name(OWNER), "a stranger's");
    let house = House::open(folder.path(), vec![common::route("corp", dns.clone())]);
    house.claim("a-value-that-expired", "webhook:ns/a", Some(Duration::from_millis(1))).await;
    house.claim("a-value-that-stays", "webhook:ns/a", None).await;
    house.claim("let-go", "webhook:ns/b", None).await;
    // The removal fails, and would not be tried again for an hour.
    dns.faults.lock().push_back(Fault::Refuse);
    let release = Release { holder: Holder::from("webhook:ns/b"), owner: None, value: "let-go".parse().expect("a value") };
    let mut rounds = house.dispatch.rounds();
    house.ledger.release(vec![release]).await.expect("released");
    while !dns.faults.lock().is_empty() {
        rounds.changed().await.expect("rounds");
    }

    let listed = house.sweep(false).await;
    let stands = Outcome::WouldRemove;
    assert_eq!(outcomes(&listed), [("a-value-…", Why::Expired, &stands), ("let-go", Why::Released, &stands)]);
    let row = &listed.rows[0];
    assert_eq!((row.backend.as_str(), row.zone.as_str(), row.owner.as_str()), ("corp", "example.com", OWNER));
    assert!(listed.rows.iter().all(|row| row.since.is_some()), "{listed:?}");
    assert_eq!(dns.values(OWNER).len(), 4, "looking changes nothing");

    let applied = house.sweep(true).await;
    assert_eq!(outcomes(&applied), [("a-value-…", Why::Expired, &Outcome::Removed), ("let-go", Why::Released, &Outcome::Removed)]);
    assert_eq!(dns.values(OWNER), ["a stranger's", "a-value-that-stays"]);
    assert_eq!(house.sweep(true).await.to_string(), "nothing was left behind");
    house.close().await;
}

#[tokio::test]
async fn what_carries_our_mark_and_no_claim_is_removed_and_nothing_else() {
    let dns = FakeDns::marking("example.com");
    let lost = tempfile::tempdir().expect("a folder");
    let before = House::open(lost.path(), vec![common::route("corp", dns.clone())]);
    before.claim("left-behind", "webhook:ns/a", None).await;
    before.claim("claimed-again", "webhook:ns/a", None).await;
    before.close().await;
    dns.insert(&name(OWNER), "a stranger's");

    // The data folder is lost; two backends see the zone.
    let folder = tempfile::tempdir().expect("a folder");
    let routes = vec![common::route("corp", dns.clone()), common::route("other", dns.clone())];
    let house = House::open(folder.path(), routes);
    house.claim("claimed-again", "webhook:ns/a", None).await;
    let report = house.sweep(true).await;
    assert_eq!(outcomes(&report), [("left-beh…", Why::Unclaimed, &Outcome::Removed)]);
    assert_eq!(dns.values(OWNER), ["a stranger's", "claimed-again"]);
    assert_eq!(house.sweep(true).await.rows, []);
    let census = house.store.census().await.expect("counted");
    assert_eq!(census.iter().map(|(_, count)| count).sum::<u64>(), 1, "the adopted claim is gone: {census:?}");
    house.close().await;
}

#[tokio::test]
async fn what_cannot_be_removed_or_asked_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let dns = FakeDns::marking("example.com");
    let house = House::open(folder.path(), vec![common::route("corp", dns.clone())]);
    house.claim("expired", "webhook:ns/a", Some(Duration::from_millis(1))).await;
    dns.faults.lock().push_back(Fault::Refuse);
    let report = house.sweep(true).await;
    let refused = Outcome::Failed { reason: "refused: not today".to_owned() };
    assert_eq!(outcomes(&report), [("expired", Why::Expired, &refused)]);
    assert_eq!((report.remaining(), dns.values(OWNER).len()), (1, 1));

    let error = house.sweeper.sweep(&SweepRequest { apply: true, backend: Some("crop".to_owned()) }).await.expect_err("no such backend");
    assert_eq!(error, SweepError::NoBackend { backend: "crop".to_owned(), known: vec!["corp".to_owned()] });
    house.close().await;

    // The next process cannot reach the provider.
    *dns.down.lock() = true;
    let house = House::open(folder.path(), vec![common::route("corp", dns.clone())]);
    let report = house.sweep(true).await;
    assert_eq!(report.rows, []);
    let unasked: Vec<_> = report.unasked.iter().map(|one| (one.backend.as_str(), one.zone.as_deref(), one.reason.as_str())).collect();
    assert_eq!(unasked, [("corp", None, "not sent: nobody answers"), ("corp", Some("example.com"), "not sent: nobody answers")]);
    house.close().await;

    // And the one after that has another configuration.
    let house = House::open(folder.path(), Vec::new());
    let report = house.sweep(true).await;
    let [row] = report.rows.as_slice() else { panic!("{report:?}") };
    assert!(matches!(&row.outcome, Outcome::Failed { reason } if reason.starts_with("no backend of this name is configured")), "{row:?}");
    house.close().await;
}

#[tokio::test]
async fn a_claim_that_was_never_placed_is_no_leftover() {
    let folder = tempfile::tempdir().expect("a folder");
    let dns = FakeDns::serving("example.com");
    dns.insert(&name(OWNER), "theirs");
    let house = House::open(folder.path(), vec![common::route("corp", dns.clone())]);
    house.claim("theirs", "webhook:ns/a", Some(Duration::from_millis(1))).await;
    assert_eq!(house.sweep(true).await.rows, []);
    assert_eq!(dns.values(OWNER), ["theirs"]);
    house.close().await;
}

#[tokio::test]
async fn serve_sweeps_by_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let dns = FakeDns::serving("example.com");
    let house = House::open(folder.path(), vec![common::route("corp", dns.clone())]);
    house.claim("a-value-that-expired", "webhook:ns/a", None).await;
    house.claim("a-value-that-stays", "webhook:ns/a", None).await;
    // Its time was over long ago, and nothing here releases it.
    let expired = NewClaim {
        lane: Lane { backend: "corp".into(), zone: name("example.com") },
        owner: name(OWNER),
        value: "a-value-that-expired".parse().expect("a value"),
        holder: Holder::from("webhook:ns/a"),
        expires: Some(Timestamp(1)),
        keep: None,
    };
    house.store.claim(vec![expired]).await.expect("renewed");
    let mut registry = Registry::default();
    let schedule = Schedule::new(house.sweeper.clone(), SweepMetrics::register(&mut registry));
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { schedule.run(stop).await }
    });
    // It has begun to wait; now it is later than its first sweep can be.
    tokio::task::yield_now().await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(400)).await;
    tokio::time::resume();
    let exported = || {
        let mut text = String::new();
        encode(&mut text, &registry).expect("written");
        text
    };
    let counted = async {
        while !exported().contains("sweep_removed_total{backend=\"corp\"} 1\n") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), counted).await.expect("it sweeps");
    assert_eq!(dns.values(OWNER), ["a-value-that-stays"]);
    stop.cancel();
    running.await.expect("it stops");
    house.close().await;
}
