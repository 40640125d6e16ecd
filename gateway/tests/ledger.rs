//! The ledger as a state machine: random sequences of claim, release, expiry, backend failure, strangers and crash. At the end DNS holds what the
//! ledger says and what strangers put there, and nothing else.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use authdns::{Name, ZoneConfig, Zones};
use common::{FakeDns, Fault, name};
use gateway::{
    claim::Timestamp,
    dispatch::{Blind, Dispatcher, Lent, Pace, Route, Routes, Sight},
    ledger::{Backend, ClaimError, EmbeddedZones, Holder, Ledger, Release, Request},
    store::{SqliteStore, Store, StoreMetrics},
};
use prometheus_client::registry::Registry;
use proptest::prelude::*;
use providers::Error;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const EMBEDDED: &str = "auth.test";
const REMOTE: &str = "example.com";

/// One process: what is lost when it is killed.
struct Process {
    ledger: Ledger,
    dispatch: Dispatcher,
    store: Arc<SqliteStore>,
    zones: Zones,
}

impl Process {
    fn start(folder: &Path, dns: &Arc<FakeDns>) -> Self {
        Self::with(folder, dns, Duration::from_millis(1), Arc::new(Blind))
    }

    fn with(folder: &Path, dns: &Arc<FakeDns>, refused: Duration, sight: Arc<dyn Sight>) -> Self {
        let first = Duration::from_millis(1);
        let zones =
            Zones::new(vec![ZoneConfig::new(name(EMBEDDED), vec![name("ns1.auth.test")], name("hostmaster.auth.test"))]).expect("a zone");
        let metrics = StoreMetrics::register(&mut Registry::default());
        let store = Arc::new(SqliteStore::open(folder, &zones.names(), Arc::new(EmbeddedZones(zones.clone())), metrics).expect("a store"));
        let pace = Pace {
            gather: Duration::ZERO,
            first,
            refused,
            longest: refused.max(first * 4),
            deadline: Duration::from_secs(20),
            idle: first,
        };
        let dispatch = Dispatcher::new(store.clone(), vec![common::route("corp", dns.clone())], sight, pace, CancellationToken::new());
        let ledger = Ledger::new(store.clone(), zones.clone(), dispatch.clone());
        Self { ledger, dispatch, store, zones }
    }

    /// Ends wherever it is: the lanes are dropped at whatever they await, and only what was committed remains.
    async fn kill(self) {
        self.dispatch.close().await;
        self.store.close().await;
    }

    /// Waits until nothing is left to do.
    async fn drain(&self) {
        self.dispatch.resume().await.expect("lanes");
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.store.lanes().await.expect("lanes").is_empty() {
            assert!(Instant::now() < deadline, "the lanes do not come to rest");
            tokio::task::yield_now().await;
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Claim {
        owner: usize,
        value: usize,
        holder: usize,
        lifetime: Option<u64>,
        keep: Option<u32>,
    },
    Release {
        owner: Option<usize>,
        value: usize,
        holder: usize,
    },
    ReleaseAll {
        holder: usize,
    },
    /// So many seconds later.
    Expire {
        after: u64,
    },
    Faults(Vec<Fault>),
    Slow(u32),
    /// A stranger puts a value there, perhaps one that somebody will claim or has claimed.
    Stranger {
        owner: usize,
        value: usize,
    },
    Rest,
    Kill,
}

const OWNERS: [&str; 4] = ["a.auth.test", "b.deep.auth.test", "_acme-challenge.example.com", "x.y.example.com"];
const HOLDERS: [&str; 3] = ["acmedns:1", "webhook:ns/example.com", "webhook:ns/example.net"];

fn owner(index: usize) -> Name {
    name(OWNERS[index])
}

fn is_remote(owner: &Name) -> bool {
    owner.is_within(&name(REMOTE))
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let place = || (0..OWNERS.len(), 0..4usize, 0..HOLDERS.len());
    let fault = prop_oneof![
        Just(Fault::Refuse),
        Just(Fault::Throttle),
        Just(Fault::LoseAnswer),
        Just(Fault::LoseRequest),
        Just(Fault::Interfere),
        Just(Fault::Hang)
    ];
    let step = prop_oneof![
        6 => (place(), prop::option::of(1..50u64), prop::option::of(1..3u32))
            .prop_map(|((owner, value, holder), lifetime, keep)| Step::Claim { owner, value, holder, lifetime, keep }),
        4 => (place(), any::<bool>())
            .prop_map(|((owner, value, holder), anywhere)| Step::Release { owner: (!anywhere).then_some(owner), value, holder }),
        1 => (0..HOLDERS.len()).prop_map(|holder| Step::ReleaseAll { holder }),
        1 => (0..60u64).prop_map(|after| Step::Expire { after }),
        2 => prop::collection::vec(fault, 1..4).prop_map(Step::Faults),
        1 => (0..3u32).prop_map(Step::Slow),
        1 => (2..OWNERS.len(), 0..6usize).prop_map(|(owner, value)| Step::Stranger { owner, value }),
        2 => Just(Step::Rest),
        2 => Just(Step::Kill),
    ];
    prop::collection::vec(step, 1..40)
}

/// What should be: claims in the order they were made or renewed, with their time.
#[derive(Default)]
struct Model {
    claims: Vec<(Name, String, String, Option<Timestamp>)>,
}

impl Model {
    fn claim(&mut self, owner: &Name, value: &str, holder: &str, expires: Option<Timestamp>, keep: Option<u32>) {
        self.claims.retain(|(o, v, h, _)| !(o == owner && v == value && h == holder));
        self.claims.push((owner.clone(), value.to_owned(), holder.to_owned(), expires));
        if let Some(keep) = keep {
            let of_holder = |(o, _, h, _): &(Name, String, String, _)| o == owner && h == holder;
            let mut surplus = self.claims.iter().filter(|c| of_holder(c)).count().saturating_sub(keep as usize);
            self.claims.retain(|claim| {
                let goes = surplus > 0 && of_holder(claim);
                surplus -= usize::from(goes);
                !goes
            });
        }
    }

    fn standing(&self) -> BTreeMap<Name, BTreeSet<String>> {
        let mut standing: BTreeMap<Name, BTreeSet<String>> = BTreeMap::new();
        for (owner, value, _, _) in &self.claims {
            standing.entry(owner.clone()).or_default().insert(value.clone());
        }
        standing
    }
}

async fn play(steps: Vec<Step>) {
    let folder = tempfile::tempdir().expect("a folder");
    let dns = FakeDns::serving(REMOTE);
    let bystander = "nobody claims this";
    for owner in OWNERS.map(name).iter().filter(|owner| is_remote(owner)) {
        dns.insert(owner, bystander);
    }
    let mut foreign: BTreeSet<(Name, String)> =
        OWNERS.map(name).into_iter().filter(is_remote).map(|owner| (owner, bystander.to_owned())).collect();
    let mut model = Model::default();
    let mut process = Process::start(folder.path(), &dns);
    let mut elapsed = Duration::ZERO;
    let start = Timestamp::now();

    for step in steps {
        match step {
            Step::Claim { owner: at, value, holder, lifetime, keep } => {
                let (owner, value) = (owner(at), format!("value-{value}"));
                // Lifetimes are counted from the wall clock, which the test shifts by `elapsed`; a minute of slack keeps the two apart.
                let lifetime = lifetime.map(|minutes| elapsed + Duration::from_secs(60 * minutes));
                let request = Request {
                    holder: Holder::from(HOLDERS[holder]),
                    owner: owner.clone(),
                    value: value.parse().expect("a value"),
                    backend: None,
                    lifetime,
                    keep: keep.and_then(std::num::NonZeroU32::new),
                };
                let claimed = if is_remote(&owner) {
                    // The door may go away before the provider has answered: the claim stands all the same.
                    let claimed = tokio::time::timeout(Duration::from_millis(30), process.ledger.claim(vec![request])).await;
                    process.store.census().await.expect("what was asked before is in the store now");
                    claimed.unwrap_or(Err(ClaimError::InProgress))
                } else {
                    process.ledger.claim(vec![request]).await
                };
                match claimed {
                    Ok(()) if is_remote(&owner) => {
                        assert!(dns.records.lock()[&owner].contains(&value), "visible, and not there");
                    }
                    Ok(()) => assert!(process.zones.txt(&owner).iter().any(|v| **v == *value), "acknowledged, and not answered"),
                    Err(ClaimError::Backend(_) | ClaimError::InProgress) => assert!(is_remote(&owner)),
                    Err(error) => panic!("{error}"),
                }
                model.claim(&owner, &value, HOLDERS[holder], lifetime.map(|lifetime| start.after(lifetime)), keep);
            }
            Step::Release { owner: at, value, holder } => {
                let value = format!("value-{value}");
                let at = at.map(owner);
                let release = Release { holder: Holder::from(HOLDERS[holder]), owner: at.clone(), value: value.parse().expect("a value") };
                process.ledger.release(vec![release]).await.expect("released");
                model.claims.retain(|(o, v, h, _)| !(at.as_ref().is_none_or(|at| at == o) && *v == value && h == HOLDERS[holder]));
            }
            Step::ReleaseAll { holder } => {
                process.ledger.release_all(&Holder::from(HOLDERS[holder])).await.expect("released");
                model.claims.retain(|(_, _, h, _)| h != HOLDERS[holder]);
            }
            Step::Expire { after } => {
                elapsed += Duration::from_secs(60 * after);
                // Half a minute past the whole one, so that the seconds the test itself takes do not matter.
                let now = start.after(elapsed + Duration::from_secs(30));
                process.ledger.expire(now).await.expect("expired");
                model.claims.retain(|(.., expires)| expires.is_none_or(|at| at > now));
            }
            Step::Faults(faults) => dns.faults.lock().extend(faults),
            Step::Slow(polls) => *dns.pending.lock() = polls,
            Step::Stranger { owner: at, value } => {
                let (owner, value) = (owner(at), format!("value-{value}"));
                // Where our own claim stands or stood, the same value is one record: whose it is cannot be told apart, so only fresh ones count.
                let known =
                    process_knows(&process, &owner, &value).await || dns.records.lock().get(&owner).is_some_and(|v| v.contains(&value));
                if !known {
                    dns.insert(&owner, &value);
                    foreign.insert((owner, value));
                }
            }
            Step::Rest => {
                for _ in 0..50 {
                    tokio::task::yield_now().await;
                }
            }
            Step::Kill => {
                process.kill().await;
                process = Process::start(folder.path(), &dns);
                process.dispatch.resume().await.expect("resumed");
            }
        }
    }

    dns.faults.lock().clear();
    process.kill().await;
    let process = Process::start(folder.path(), &dns);
    process.drain().await;

    let standing = model.standing();
    for owner in OWNERS.map(name) {
        let ours = standing.get(&owner).cloned().unwrap_or_default();
        if is_remote(&owner) {
            let mut expected = ours;
            expected.extend(foreign.iter().filter(|(o, _)| *o == owner).map(|(_, v)| v.clone()));
            expected.extend(dns.interferences.lock().iter().filter(|(o, _)| *o == owner).map(|(_, v)| v.clone()));
            assert_eq!(dns.records.lock().get(&owner).cloned().unwrap_or_default(), expected, "at {owner}");
        } else {
            let answered: BTreeSet<String> = process.zones.txt(&owner).iter().map(ToString::to_string).collect();
            assert_eq!(answered, ours, "at {owner}");
        }
    }
}

/// True if the ledger has had this value at this owner and may still be working on it.
async fn process_knows(process: &Process, owner: &Name, value: &str) -> bool {
    let lane = gateway::claim::Lane { backend: "corp".into(), zone: name(REMOTE) };
    process.store.work(&lane).await.expect("work").iter().any(|claim| claim.owner == *owner && claim.value.as_str() == value)
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn dns_ends_equal_to_the_ledger_and_strangers_keep_what_is_theirs(steps in steps()) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(play(steps));
    }
}

#[tokio::test]
async fn a_name_that_nobody_serves_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::start(folder.path(), &FakeDns::serving(REMOTE));
    let request = Request {
        holder: Holder::from("issue:1"),
        owner: name("notexample.com"),
        value: "v".parse().expect("a value"),
        backend: None,
        lifetime: None,
        keep: None,
    };
    assert_eq!(process.ledger.claim(vec![request]).await, Err(ClaimError::NoZone(name("notexample.com"))));
}

#[tokio::test]
async fn a_claim_goes_to_the_backend_that_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = common::open(folder.path(), &[EMBEDDED]);
    let (wide, deep) = (FakeDns::serving("example.com"), FakeDns::serving("deep.example.com"));
    let routes = vec![common::route("wide", wide.clone()), common::route("deep", deep.clone())];
    let dispatch = Dispatcher::new(store.clone(), routes, Arc::new(Blind), Pace::default(), CancellationToken::new());
    let zone = ZoneConfig::new(name(EMBEDDED), vec![name("ns1.auth.test")], name("hostmaster.auth.test"));
    let ledger = Ledger::new(store.clone(), Zones::new(vec![zone]).expect("a zone"), dispatch.clone());
    let owner = "_acme-challenge.deep.example.com";
    let through = |backend: &str, owner: &str, value: &str| Request { backend: Some(Backend::from(backend)), ..request(owner, value) };

    assert_eq!(ledger.claim(vec![request(owner, "1"), through("wide", owner, "2"), through("deep", owner, "3")]).await, Ok(()));
    assert_eq!((deep.values(owner), wide.values(owner)), (vec!["1".to_owned(), "3".to_owned()], vec!["2".to_owned()]));
    assert_eq!(ledger.claim(vec![through("embedded", "a.auth.test", "4")]).await, Ok(()));

    let not_served = |backend: &str, owner: &str| Err(ClaimError::NotServed { backend: backend.to_owned(), owner: name(owner) });
    for (backend, owner) in [("deep", "_acme-challenge.example.com"), ("embedded", owner), ("wide", "a.auth.test")] {
        assert_eq!(ledger.claim(vec![through(backend, owner, "5")]).await, not_served(backend, owner));
    }
    assert_eq!(ledger.claim(vec![through("wild", owner, "5")]).await, Err(ClaimError::NoBackend("wild".to_owned())));
    dispatch.close().await;
}

/// A backend that works with Secrets: `a`'s zone is example.com, `b`'s is a zone of another account of that name.
struct Tenants {
    a: Arc<FakeDns>,
    b: Arc<FakeDns>,
    gone: AtomicBool,
}

#[async_trait]
impl Lent for Tenants {
    fn names(&self) -> Vec<Arc<str>> {
        vec!["lent".into()]
    }

    fn route(&self, backend: &Backend) -> Result<Route, String> {
        match backend.secret() {
            Some(("team-a", "dns")) => Ok(common::route(backend.as_str(), self.a.clone())),
            Some(("team-b", "dns")) => Ok(common::route(backend.as_str(), self.b.clone())),
            _ => Err("no such Secret".to_owned()),
        }
    }

    async fn check(&self, _: &Backend) -> Result<(), Error> {
        if self.gone.load(Ordering::Relaxed) { Err(Error::Auth("the Secret is gone".to_owned())) } else { Ok(()) }
    }
}

#[tokio::test]
async fn a_backend_that_works_with_secrets_is_one_for_each_secret_and_survives_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let tenants = Arc::new(Tenants { a: FakeDns::serving(REMOTE), b: FakeDns::serving(REMOTE), gone: AtomicBool::new(false) });
    let own = FakeDns::serving("other.test");
    let start = || {
        let (store, _) = common::open(folder.path(), &[EMBEDDED]);
        let routes = Routes::new(vec![common::route("own", own.clone())], tenants.clone());
        let dispatch = Dispatcher::new(store.clone(), routes, Arc::new(Blind), Pace::default(), CancellationToken::new());
        let zone = ZoneConfig::new(name(EMBEDDED), vec![name("ns1.auth.test")], name("hostmaster.auth.test"));
        let ledger = Ledger::new(store.clone(), Zones::new(vec![zone]).expect("a zone"), dispatch.clone());
        (store, dispatch, ledger)
    };
    let owner = "_acme-challenge.example.com";
    let through = |backend: Backend, value: &str| Request { backend: Some(backend), ..request(owner, value) };
    let (a, b) = (Backend::with_secret("lent", "team-a", "dns"), Backend::with_secret("lent", "team-b", "dns"));

    let (store, dispatch, ledger) = start();
    assert_eq!(ledger.claim(vec![through(a.clone(), "1"), through(b.clone(), "2")]).await, Ok(()));
    assert_eq!((tenants.a.values(owner), tenants.b.values(owner)), (vec!["1".to_owned()], vec!["2".to_owned()]));
    let counted: Vec<Arc<str>> = dispatch.waiting().into_iter().map(|(backend, _)| backend).collect();
    assert_eq!(counted, ["own".into(), "lent".into()], "metrics go by the names of the configuration");
    // Nobody gets there by a name alone, or by a Secret where there is no need of one.
    assert_eq!(ledger.claim(vec![request(owner, "3")]).await, Err(ClaimError::NoZone(name(owner))));
    let named = |backend: Backend| ledger.claim(vec![through(backend, "3")]);
    assert_eq!(named("lent".into()).await, Err(ClaimError::NeedsSecret("lent".to_owned())));
    assert_eq!(named(Backend::with_secret("own", "team-a", "dns")).await, Err(ClaimError::OwnCredential("own".to_owned())));
    assert_eq!(named(Backend::with_secret("embedded", "team-a", "dns")).await, Err(ClaimError::OwnCredential("embedded".to_owned())));
    assert_eq!(named(Backend::with_secret("none", "team-a", "dns")).await, Err(ClaimError::NoBackend("none".to_owned())));
    // Whoever takes the Secret away has nothing new presented with it.
    tenants.gone.store(true, Ordering::Relaxed);
    let gone = "the credential was refused: the Secret is gone".to_owned();
    assert_eq!(named(a.clone()).await, Err(ClaimError::Backend(gone)));
    dispatch.close().await;
    store.close().await;

    // What was presented goes, by another process, and though the Secret is gone.
    let (store, dispatch, ledger) = start();
    for value in ["1", "2"] {
        let release = Release { holder: request(owner, value).holder, owner: None, value: value.parse().expect("a value") };
        assert_eq!(ledger.release(vec![release]).await, Ok(1));
    }
    assert_eq!(dispatch.removed(Instant::now() + Duration::from_secs(20)).await.expect("a store"), 0);
    assert_eq!((tenants.a.values(owner), tenants.b.values(owner)), (Vec::<String>::new(), Vec::new()));
    dispatch.close().await;
    store.close().await;
}

#[tokio::test]
async fn a_lane_without_work_is_forgotten_and_made_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let dns = FakeDns::serving(REMOTE);
    let process = Process::start(folder.path(), &dns);
    for round in 0..20 {
        let value = round.to_string();
        assert_eq!(process.ledger.claim(vec![request("_acme-challenge.example.com", &value)]).await, Ok(()));
        while process.dispatch.busy_lanes() > 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(dns.values("_acme-challenge.example.com").len(), 20);
    process.kill().await;
}

fn request(owner: &str, value: &str) -> Request {
    Request {
        holder: Holder::from("webhook:ns/example.com"),
        owner: name(owner),
        value: value.parse().expect("a value"),
        backend: None,
        lifetime: None,
        keep: None,
    }
}

#[tokio::test]
async fn a_refusal_is_told_at_once_and_tried_again_when_somebody_asks() {
    let folder = tempfile::tempdir().expect("a folder");
    let dns = FakeDns::serving(REMOTE);
    dns.faults.lock().push_back(Fault::Refuse);
    let process = Process::with(folder.path(), &dns, Duration::from_secs(300), Arc::new(Blind));
    // However patient the caller is.
    let claimed = process.ledger.claim_within(vec![request("_acme-challenge.example.com", "v")], Duration::from_secs(3600));
    let error = tokio::time::timeout(Duration::from_secs(60), claimed).await.expect("told at once").expect_err("refused at first");
    assert_eq!(error, ClaimError::Backend("refused: not today".to_owned()));
    process.dispatch.hurry("corp").await.expect("kicked");
    process.drain().await;
    assert!(dns.records.lock()[&name("_acme-challenge.example.com")].contains("v"));
}

#[tokio::test]
async fn what_time_mends_is_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let dns = FakeDns::serving(REMOTE);
    dns.faults.lock().extend([Fault::Throttle, Fault::LoseRequest, Fault::Interfere, Fault::LoseAnswer]);
    let process = Process::start(folder.path(), &dns);
    assert_eq!(process.ledger.claim(vec![request("_acme-challenge.example.com", "v")]).await, Ok(()));
    assert!(dns.records.lock()[&name("_acme-challenge.example.com")].contains("v"));
}

#[tokio::test]
async fn a_thousand_claims_are_a_handful_of_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let dns = FakeDns::serving(REMOTE);
    let process = Process::start(folder.path(), &dns);
    let claims = (0..1000).map(|n| {
        let ledger = process.ledger.clone();
        async move { ledger.claim(vec![request(&format!("_acme-challenge.n{}.example.com", n / 2), &format!("value-{n}"))]).await }
    });
    for claimed in futures_util::future::join_all(claims).await {
        assert_eq!(claimed, Ok(()));
    }
    let applied = dns.applied.lock().clone();
    assert!(applied.len() <= 10 && applied.iter().sum::<usize>() >= 500, "{applied:?}");
    let holder = Holder::from("webhook:ns/example.com");
    assert_eq!(process.ledger.release_all(&holder).await, Ok(1000));
    assert_eq!(process.dispatch.removed(Instant::now() + Duration::from_secs(20)).await, Ok(0));
    assert!(dns.records.lock().is_empty());
}

#[tokio::test]
async fn what_stands_already_takes_no_place_in_the_queue() {
    let folder = tempfile::tempdir().expect("a folder");
    let dns = FakeDns::serving(REMOTE);
    let process = Process::start(folder.path(), &dns);
    let again = || vec![request("_acme-challenge.example.com", "v"); 100];
    // More than one tenant may have waiting.
    for _ in 0..60 {
        assert_eq!(process.ledger.claim(again()).await, Ok(()));
        let recounted = async {
            while process.dispatch.waiting().iter().any(|(_, waiting)| *waiting > 0) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), recounted).await.expect("the lane counts anew");
    }
}

/// Sees what a test lets it see.
struct Gate {
    waits: tokio::sync::Semaphore,
    opened: tokio::sync::Notify,
}

#[async_trait::async_trait]
impl Sight for Gate {
    async fn wait(
        &self,
        _lane: &gateway::claim::Lane,
        values: &BTreeMap<Name, BTreeSet<String>>,
        seen: &(dyn for<'a> Fn(&'a Name) + Send + Sync),
    ) -> Result<(), String> {
        self.waits.add_permits(1);
        self.opened.notified().await;
        values.keys().for_each(seen);
        Ok(())
    }
}

#[tokio::test]
async fn a_claim_is_visible_when_the_world_sees_it_and_not_by_an_older_look() {
    let folder = tempfile::tempdir().expect("a folder");
    let dns = FakeDns::serving(REMOTE);
    let gate = Arc::new(Gate { waits: tokio::sync::Semaphore::new(0), opened: tokio::sync::Notify::new() });
    let process = Process::with(folder.path(), &dns, Duration::from_millis(1), gate.clone());
    let owner = "_acme-challenge.example.com";
    let claim = |process: &Process| {
        let ledger = process.ledger.clone();
        tokio::spawn(async move { ledger.claim(vec![request(owner, "v")]).await })
    };
    let first = claim(&process);
    gate.waits.acquire().await.expect("a look").forget();
    assert!(dns.records.lock()[&name(owner)].contains("v"), "applied");
    assert!(!first.is_finished(), "applied is not visible");
    // Let go, and claimed anew: only a new look counts.
    process.ledger.release_all(&Holder::from("webhook:ns/example.com")).await.expect("released");
    process.drain().await;
    let second = claim(&process);
    gate.waits.acquire().await.expect("another look").forget();
    // The older look sees it first: it was there first.
    gate.opened.notify_one();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let states = |claims: Vec<gateway::claim::Claim>| claims.iter().map(|claim| claim.state).collect::<Vec<_>>();
    let lane = gateway::claim::Lane { backend: "corp".into(), zone: name(REMOTE) };
    assert_eq!(states(process.store.work(&lane).await.expect("work")), [gateway::claim::State::Applied]);
    gate.opened.notify_one();
    assert_eq!(second.await.expect("the task"), Ok(()));
    assert_eq!(first.await.expect("the task"), Ok(()), "whoever waited for a claim that is gone does not wait for ever");
}
