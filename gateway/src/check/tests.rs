//! The ladder over a world in memory: a resolver, the servers of a zone, and a provider whose values they answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{RData, Record, RecordType, rdata},
};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use providers::{
    Calls, Change, Error, Limits, Listing, Provider, Receipt, TxtSet, Zone,
    zones::{Delegations, Finder},
};
use tempfile::TempDir;
use tokio::sync::Notify;

use super::*;
use crate::{
    config::Check,
    dispatch::{Blind, Pace, Sight},
    ledger::EmbeddedZones,
    propagation::fake::{Fake, reply},
    store::{SqliteStore, StoreMetrics},
};

const SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 78);
const LAME: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 79);
const CHALLENGE: &str = "_acme-challenge.www.example.test";

/// A DNS provider in memory, for `example.test` alone.
#[derive(Debug, Default)]
struct Cloud {
    records: Mutex<BTreeMap<Name, BTreeSet<String>>>,
    /// Nothing that is written reaches the servers.
    stuck: AtomicBool,
    /// What a try of the credential says, if it does not work.
    refused: Option<Error>,
    wrote: Notify,
    /// Values cannot be removed.
    keeps: bool,
}

#[async_trait]
impl Provider for Cloud {
    fn limits(&self) -> Limits {
        Limits { values: 2, poll: Duration::from_millis(1), removes: !self.keeps, ..Limits::default() }
    }

    async fn zones(&self, _: Option<&Name>) -> Result<Listing, Error> {
        let zone = Zone { id: "1".to_owned(), name: name("example.test"), nameservers: BTreeSet::new() };
        Ok(Listing { zones: vec![zone], complete: true })
    }

    async fn read(&self, _: &Zone, owners: &[Name]) -> Vec<Result<TxtSet, Error>> {
        let records = self.records.lock();
        let set = |owner| Ok(TxtSet { values: records.get(owner).cloned().unwrap_or_default(), version: String::new() });
        owners.iter().map(set).collect()
    }

    async fn apply(&self, _: &Zone, changes: &[Change]) -> Vec<Result<Receipt, Error>> {
        let mut records = self.records.lock();
        for change in changes {
            let values = records.entry(change.owner.clone()).or_default();
            values.extend(change.add.iter().cloned());
            values.retain(|value| !change.remove.contains(value));
        }
        self.wrote.notify_one();
        changes.iter().map(|_| Ok(Receipt::default())).collect()
    }

    async fn verify(&self) -> Result<String, Error> {
        self.refused.clone().map_or_else(|| Ok("a cloud in memory".to_owned()), Err)
    }

    fn calls(&self) -> Calls {
        Calls::default()
    }
}

struct Undelegated;

#[async_trait]
impl Delegations for Undelegated {
    async fn nameservers(&self, _: &Name) -> Vec<Name> {
        Vec::new()
    }
}

/// What the resolver knows besides the zone and its servers.
#[derive(Clone, Copy, Default)]
struct Known {
    /// CNAMEs; an owner that begins with `*.` is a wildcard.
    cnames: &'static [(&'static str, &'static str)],
    /// Zones below the cloud's, on the same server.
    cuts: &'static [&'static str],
    /// A second server of the zone, which refuses.
    lame: bool,
}

struct World {
    ladder: Ladder,
    cloud: Arc<Cloud>,
    dispatch: Dispatcher,
    /// The names that the resolver was asked for.
    asked: Arc<Mutex<BTreeSet<Name>>>,
    _servers: Vec<Fake>,
    _folder: TempDir,
}

impl World {
    async fn start(known: Known, cloud: Option<Cloud>) -> Self {
        Self::with(known, cloud, Arc::new(Blind)).await
    }

    /// With a dispatcher that sees values, or does not.
    async fn with(known: Known, cloud: Option<Cloud>, sight: Arc<dyn Sight>) -> Self {
        let routed = cloud.is_some();
        let cloud = Arc::new(cloud.unwrap_or_default());
        let server = Fake::at(SocketAddr::new(SERVER.into(), 0), {
            let cloud = cloud.clone();
            move |query, _| vec![served(query, known, &cloud)]
        })
        .await;
        let port = server.address.port();
        let mut servers = vec![server];
        if known.lame {
            let refuse = |query: &Message, _: bool| {
                let mut answer = reply(query, false, &[]);
                answer.metadata.response_code = ResponseCode::Refused;
                vec![answer]
            };
            servers.push(Fake::at(SocketAddr::new(LAME.into(), port), refuse).await);
        }
        let asked: Arc<Mutex<BTreeSet<Name>>> = Arc::default();
        let resolver = Fake::start({
            let asked = asked.clone();
            move |query, _| {
                asked.lock().insert(name(&query.queries[0].name.to_ascii()));
                vec![resolved(query, known)]
            }
        })
        .await;
        let checker = Checker::over(&[resolver.address], port);
        servers.push(resolver);

        let folder = tempfile::tempdir().unwrap();
        let zone = authdns::ZoneConfig::new(name("auth.test"), vec![name("ns.auth.test")], name("hostmaster.auth.test"));
        let zones = Zones::new(vec![zone]).unwrap();
        let metrics = StoreMetrics::register(&mut Registry::default());
        let store = SqliteStore::open(folder.path(), &zones.names(), Arc::new(EmbeddedZones(zones.clone())), metrics).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let finder = Finder::new(cloud.clone(), Vec::new(), Arc::new(Undelegated));
        let routes = if routed { vec![Route { name: "corp".into(), provider: cloud.clone(), finder }] } else { Vec::new() };
        // A failed attempt would be repeated in an hour.
        let pace = Pace { first: Duration::from_secs(3600), longest: Duration::from_secs(3600), ..Pace::default() };
        let dispatch = Dispatcher::new(store.clone(), routes.clone(), sight, pace, CancellationToken::new());
        let ledger = Ledger::new(store.clone(), zones.clone(), dispatch.clone());
        let propagation =
            Propagation { resolvers: Vec::new(), ca_file: None, check: Check::Authoritative, timeout: Duration::from_millis(100) };
        let ladder = Ladder {
            store,
            zones,
            ledger,
            dispatch: dispatch.clone(),
            routes,
            checker,
            propagation,
            checks: Vec::new(),
            directories: Vec::new(),
            serving: true,
        };
        Self { ladder, cloud, dispatch, asked, _servers: servers, _folder: folder }
    }

    async fn climb(&self, name: &str, write: bool) -> Report {
        let request = CheckRequest { name: name.to_owned(), write };
        self.ladder.climb(&request, &CancellationToken::new()).await.unwrap()
    }

    fn values(&self) -> usize {
        self.cloud.records.lock().values().map(BTreeSet::len).sum()
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// The zones that a server has, as it answers with authority.
fn served(query: &Message, known: Known, cloud: &Cloud) -> Message {
    let asked = &query.queries[0];
    let owner = name(&asked.name.to_ascii());
    let zone = known.cuts.iter().map(|cut| name(cut)).find(|cut| owner.is_within(cut)).unwrap_or_else(|| name("example.test"));
    let mut answer = reply(query, true, &[]);
    let server = |number: usize| -> hickory_proto::rr::Name { format!("ns{number}.example.test.").parse().unwrap() };
    let data: Vec<RData> = match asked.query_type {
        RecordType::NS if owner == zone => (0..1 + usize::from(known.lame)).map(|number| RData::NS(rdata::NS(server(number)))).collect(),
        RecordType::SOA if owner == zone => vec![RData::SOA(rdata::SOA::new(server(0), server(0), 7, 60, 60, 60, 60))],
        RecordType::TXT if !cloud.stuck.load(Ordering::SeqCst) => {
            let values = cloud.records.lock().get(&owner).cloned().unwrap_or_default();
            values.into_iter().map(|value| RData::TXT(rdata::TXT::new(vec![value]))).collect()
        }
        RecordType::CNAME => cname(&owner, known).into_iter().collect(),
        _ => Vec::new(),
    };
    answer.answers.extend(data.into_iter().map(|data| Record::from_rdata(asked.name.clone(), 60, data)));
    answer
}

fn cname(owner: &Name, known: Known) -> Option<RData> {
    let leads = |from: &str| match from.strip_prefix("*.") {
        Some(above) => *owner != name(above) && owner.is_within(&name(above)),
        None => *owner == name(from),
    };
    let (_, to) = known.cnames.iter().find(|(from, _)| leads(from))?;
    Some(RData::CNAME(rdata::CNAME(to.parse().unwrap())))
}

/// What a resolver answers.
fn resolved(query: &Message, known: Known) -> Message {
    let asked = &query.queries[0];
    let owner = name(&asked.name.to_ascii());
    let mut answer = reply(query, false, &[]);
    let apex = owner == name("example.test") || known.cuts.iter().any(|cut| owner == name(cut));
    let ns = |number: u8| RData::NS(rdata::NS(format!("ns{number}.example.test.").parse().unwrap()));
    let data = match asked.query_type {
        RecordType::NS if owner == name("test") || apex => Some(ns(0)),
        RecordType::A if owner == name("ns0.example.test") => Some(RData::A(SERVER.into())),
        RecordType::A if owner == name("ns1.example.test") => Some(RData::A(LAME.into())),
        RecordType::CNAME => cname(&owner, known),
        _ => None,
    };
    answer.answers.extend(data.map(|data| Record::from_rdata(asked.name.clone(), 60, data)));
    answer
}

fn rung(report: &Report, id: RungId) -> &Rung {
    report.rungs.iter().find(|rung| rung.id == id).unwrap()
}

fn outcomes(report: &Report) -> Vec<(&'static str, &'static str)> {
    report.rungs.iter().map(|rung| (rung.id.as_str(), rung.outcome.as_str())).collect()
}

#[tokio::test]
async fn a_healthy_name_is_written_seen_and_left_as_it_was() {
    let world = World::start(Known::default(), Some(Cloud::default())).await;
    let stranger = || BTreeSet::from(["a stranger's value".to_owned()]);
    world.cloud.records.lock().insert(name(CHALLENGE), stranger());
    let report = world.climb("www.example.test", true).await;
    let ok = |id| (id, "ok");
    let rungs = ["chain", "backend", "delegation", "servers", "credential", "allowed", "write", "seen", "removed", "caa", "dnssec"];
    assert_eq!(outcomes(&report), [vec![("clock", "skipped")], rungs.map(ok).to_vec()].concat(), "{}", report.text(false));
    assert_eq!(*world.cloud.records.lock(), BTreeMap::from([(name(CHALLENGE), stranger())]));
    assert_eq!(
        (report.backend.as_deref(), report.zone.as_deref(), report.owner.as_deref()),
        (Some("corp"), Some("example.test"), Some(CHALLENGE))
    );
    let allowed = rung(&report, RungId::Allowed);
    assert_eq!(allowed.evidence, ["stands: a strang…"], "no value is shown whole");
    assert!(!world.asked.lock().contains(&name(CHALLENGE)), "a resolver would remember that there is nothing");
    assert_eq!(world.ladder.store.census().await.unwrap().iter().map(|(_, count)| count).sum::<u64>(), 0, "no claim stays");
    // Nothing was asked for, nothing is done.
    let report = world.climb("www.example.test", false).await;
    assert_eq!((rung(&report, RungId::Write).outcome, report.outcome), (Outcome::Skipped, Outcome::Ok));
}

#[tokio::test]
async fn a_value_that_no_server_answers_is_taken_back_and_said() {
    let cloud = Cloud { stuck: true.into(), ..Cloud::default() };
    let world = World::start(Known::default(), Some(cloud)).await;
    let report = world.climb("www.example.test", true).await;
    assert_eq!(rung(&report, RungId::Write).outcome, Outcome::Ok);
    let seen = rung(&report, RungId::Seen);
    assert!(seen.outcome == Outcome::Failed && seen.evidence[0].ends_with("does not answer the value"), "{seen:?}");
    assert_eq!(rung(&report, RungId::Removed).outcome, Outcome::Ok);
    assert_eq!(world.values(), 0);
}

/// Sees nothing.
struct Sightless;

#[async_trait]
impl Sight for Sightless {
    async fn wait(
        &self,
        _: &Lane,
        _: &BTreeMap<Name, BTreeSet<String>>,
        _: &(dyn for<'a> Fn(&'a Name) + Send + Sync),
    ) -> Result<(), String> {
        Err("fog".to_owned())
    }
}

#[tokio::test]
async fn a_value_that_was_taken_and_is_not_seen_is_no_refusal() {
    let cloud = Cloud { stuck: true.into(), ..Cloud::default() };
    let world = World::with(Known::default(), Some(cloud), Arc::new(Sightless)).await;
    let report = world.climb("www.example.test", true).await;
    let seen = rung(&report, RungId::Seen);
    assert_eq!((rung(&report, RungId::Write).outcome, seen.outcome), (Outcome::Ok, Outcome::Failed), "{}", report.text(false));
    assert!(seen.summary.contains("fog") && seen.evidence[0].ends_with("does not answer the value"), "{seen:?}");
    assert_eq!((rung(&report, RungId::Removed).outcome, world.values()), (Outcome::Ok, 0));
}

#[tokio::test]
async fn servers_that_the_configuration_leaves_alone_are_left_alone() {
    let mut world = World::start(Known::default(), Some(Cloud::default())).await;
    world.ladder.checks = vec![("corp".into(), Check::Recursive)];
    let report = world.climb("www.example.test", true).await;
    for id in [RungId::Delegation, RungId::Servers] {
        let rung = rung(&report, id);
        assert!(rung.outcome == Outcome::Skipped && rung.summary.contains("not to ask"), "{rung:?}");
    }
    let seen = rung(&report, RungId::Seen);
    assert!(seen.outcome == Outcome::Ok && seen.summary.contains("recursive"), "{seen:?}");
    assert_eq!(world.values(), 0);
}

#[tokio::test]
async fn a_check_that_is_stopped_lets_its_value_go() {
    let cloud = Cloud { stuck: true.into(), ..Cloud::default() };
    let mut world = World::start(Known::default(), Some(cloud)).await;
    world.ladder.propagation.timeout = Duration::from_secs(600);
    let request = CheckRequest { name: "www.example.test".to_owned(), write: true };
    let cancel = CancellationToken::new();
    let stop = async {
        world.cloud.wrote.notified().await;
        assert_eq!(world.values(), 1);
        cancel.cancel();
    };
    let (report, ()) = tokio::join!(world.ladder.climb(&request, &cancel), stop);
    assert_eq!(report, Err(CheckError::Stopped));
    assert_eq!(world.values(), 0, "its removal was waited for");
}

#[tokio::test]
async fn a_check_that_is_dropped_lets_its_value_go() {
    let cloud = Cloud { stuck: true.into(), ..Cloud::default() };
    let mut world = World::start(Known::default(), Some(cloud)).await;
    world.ladder.propagation.timeout = Duration::from_secs(600);
    let request = CheckRequest { name: "www.example.test".to_owned(), write: true };
    let mut rounds = world.dispatch.rounds();
    let cancel = CancellationToken::new();
    tokio::select! {
        report = world.ladder.climb(&request, &cancel) => panic!("it has to wait for the servers: {report:?}"),
        () = world.cloud.wrote.notified() => {}
    }
    while world.values() > 0 {
        rounds.changed().await.unwrap();
    }
}

#[tokio::test]
async fn a_refused_credential_stops_what_stands_on_it() {
    let cloud = Cloud { refused: Some(Error::Auth("expired".to_owned())), ..Cloud::default() };
    let world = World::start(Known::default(), Some(cloud)).await;
    let report = world.climb("www.example.test", true).await;
    assert_eq!(rung(&report, RungId::Credential).summary, "corp: the credential was refused: expired");
    for id in [RungId::Allowed, RungId::Write, RungId::Seen, RungId::Removed] {
        let rung = rung(&report, id);
        assert!(rung.outcome == Outcome::Skipped && rung.summary.contains("the credential does not work"), "{rung:?}");
    }
    assert_eq!(
        (report.outcome, rung(&report, RungId::Servers).outcome),
        (Outcome::Failed, Outcome::Ok),
        "the rest is looked at all the same"
    );
}

#[tokio::test]
async fn a_full_name_is_said_and_what_cannot_be_removed_is_not_written() {
    for (keeps, allowed) in [(false, Outcome::Warning), (true, Outcome::Ok)] {
        let world = World::start(Known::default(), Some(Cloud { keeps, ..Cloud::default() })).await;
        let values = BTreeSet::from(["one".to_owned(), "two".to_owned()]);
        world.cloud.records.lock().insert(name(CHALLENGE), values.clone());
        let report = world.climb("www.example.test", keeps).await;
        assert_eq!(
            (rung(&report, RungId::Allowed).outcome, rung(&report, RungId::Write).outcome),
            (allowed, Outcome::Skipped),
            "{report:?}"
        );
        assert_eq!(rung(&report, RungId::Write).summary.contains("cannot remove values"), keeps);
        assert_eq!(world.cloud.records.lock().get(&name(CHALLENGE)), Some(&values));
    }
}

#[tokio::test]
async fn a_lame_server_is_named() {
    let world = World::start(Known { lame: true, ..Known::default() }, Some(Cloud::default())).await;
    let report = world.climb("www.example.test", false).await;
    let servers = rung(&report, RungId::Servers);
    assert_eq!(servers.outcome, Outcome::Warning, "{servers:?}");
    assert!(servers.summary.starts_with("1 of 2 addresses do not serve example.test: ns1.example.test (127.0.0.79:"), "{servers:?}");
    assert!(
        servers.evidence[0].ends_with("NOERROR, serial 7") && servers.evidence[1].ends_with("REFUSED, without authority"),
        "{servers:?}"
    );
}

#[tokio::test]
async fn a_zone_that_is_cut_off_below_the_backends_is_found() {
    let world = World::start(Known { cuts: &["www.example.test"], ..Known::default() }, Some(Cloud::default())).await;
    let report = world.climb("www.example.test", false).await;
    let delegation = rung(&report, RungId::Delegation);
    assert!(delegation.outcome == Outcome::Failed && delegation.summary.contains("lies in www.example.test"), "{delegation:?}");
    assert_eq!(rung(&report, RungId::Backend).evidence[0], "the world finds the name in the zone www.example.test");
}

#[tokio::test]
async fn the_chain_is_told_and_judged() {
    let chain = |known: Known, backend: bool, name: &'static str| async move {
        let world = World::start(known, backend.then(Cloud::default)).await;
        let report = world.climb(name, false).await;
        (rung(&report, RungId::Chain).clone(), report.owner)
    };
    let cnames: &[(&str, &str)] = &[
        ("*.wild.example.test", "www.example.test."),
        ("_acme-challenge.own.test", "own.test.auth.test."),
        ("_acme-challenge.client.test", "8e5700ea-a4bf-41c7-8a77-e990661dcc6a.auth.test."),
        ("_acme-challenge.other.test", "else.auth.test."),
        ("_acme-challenge.loop.test", "_acme-challenge.pool.test."),
        ("_acme-challenge.pool.test", "_acme-challenge.loop.test."),
    ];
    let known = Known { cnames, ..Known::default() };
    let record = |domain: &str| format!("create the record\n_acme-challenge.{domain}. CNAME {domain}.auth.test.");
    for (backend, name, outcome, said, next, owner) in [
        (false, "own.test", Outcome::Ok, "where `acmegate issue` puts", None, Some("own.test.auth.test")),
        (false, "client.test", Outcome::Ok, "belongs to an acme-dns account", None, Some("8e5700ea-a4bf-41c7-8a77-e990661dcc6a.auth.test")),
        (false, "other.test", Outcome::Warning, "may not write", Some(record("other.test")), Some("else.auth.test")),
        (false, "none.test", Outcome::Failed, "has no CNAME record", Some(record("none.test")), None),
        (true, "www.example.test", Outcome::Ok, "at the name itself", None, Some(CHALLENGE)),
        (false, "x.wild.example.test", Outcome::Failed, "a wildcard CNAME above it", Some(record("x.wild.example.test")), None),
        (true, "x.wild.example.test", Outcome::Warning, "a wildcard CNAME above it", None, Some("_acme-challenge.x.wild.example.test")),
        (false, "loop.test", Outcome::Failed, "in a circle", Some("correct the CNAME records".to_owned()), None),
        (false, "www.auth.test", Outcome::Ok, "in a zone of acmegate's own", None, Some("_acme-challenge.www.auth.test")),
    ] {
        let (rung, found) = chain(known, backend, name).await;
        assert!(rung.outcome == outcome && rung.summary.contains(said), "{name}: {rung:?}");
        assert!(next.as_deref().is_none_or(|next| rung.next.as_deref().unwrap_or_default().contains(next)), "{name}: {rung:?}");
        assert_eq!(found.as_deref(), owner, "{name}");
    }
    let (wild, _) = chain(known, true, "x.wild.example.test").await;
    assert_eq!(
        wild.evidence,
        ["_acme-challenge.x.wild.example.test CNAME www.example.test (by a wildcard: every name beside it leads there)"]
    );
}

#[tokio::test]
async fn a_name_in_no_zone_of_ours_says_why_for_each_backend() {
    let world = World::start(Known::default(), Some(Cloud::default())).await;
    let report = world.climb("www.other.test", true).await;
    let backend = rung(&report, RungId::Backend);
    assert_eq!((backend.outcome, report.backend.as_deref()), (Outcome::Failed, None));
    assert_eq!(
        backend.evidence[1..],
        ["embedded: none of its zones encloses the name (auth.test)".to_owned(), "corp: sees no zone that encloses the name".to_owned()]
    );
    assert!(backend.next.as_deref().unwrap().ends_with("_acme-challenge.www.other.test. CNAME www.other.test.auth.test."), "{backend:?}");
    assert_eq!(rung(&report, RungId::Credential).summary, "no backend is chosen");
    assert_eq!(rung(&report, RungId::Write).summary, "no backend is chosen");
}
