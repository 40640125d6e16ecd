//! `powerdns` against Debian's server, which knows whole RRsets alone, and against an emulator of a newer one.
#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc, time::Duration};

use acmegate_tests::{
    addresses::Address,
    bind, dns,
    pdns::{API_KEY, Pdns, PdnsRecord},
    temporary_folder,
    updates::Updates,
};
use authdns::Name;
use emulators::{
    Fault, Nameservers,
    powerdns::{PowerDns, StoredRecord, StoredRrset},
};
use providers::{Change, Context, Error, Provider, TxtSet, Zone, kind, secret::LocalSecrets};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UdpSocket;

const ZONE: &str = "example.test";

enum Server {
    /// 4.7, from Debian.
    Real(Pdns),
    /// 5.0.
    Emulated(PowerDns),
}

struct World {
    server: Server,
    folder: TempDir,
    provider: Arc<dyn Provider>,
}

impl World {
    async fn real() -> Self {
        let address = Address::reserve();
        let zones = [(ZONE, bind::zone(ZONE, &address))];
        Self::new(Server::Real(Pdns::start(address, &zones, &Updates::default()).await))
    }

    async fn emulated() -> (Self, PowerDns) {
        let server = PowerDns::start(API_KEY, Nameservers::none()).await;
        server.add_zone(ZONE, "Native");
        (Self::new(Server::Emulated(server.clone())), server)
    }

    fn new(server: Server) -> Self {
        let folder = temporary_folder("powerdns");
        let provider = build(&server.url(), &folder, json!({})).expect("good settings");
        Self { server, folder, provider }
    }

    async fn read(&self, owner: &str) -> Result<TxtSet, Error> {
        self.provider.read(&zone(), &[name(owner)]).await.remove(0)
    }

    async fn values(&self, owner: &str) -> BTreeSet<String> {
        self.read(owner).await.expect("read").values
    }

    /// Reads, then applies.
    async fn change(&self, owner: &str, add: &[&str], remove: &[&str]) -> Result<(), Error> {
        let version = self.read(owner).await?.version;
        self.apply(change(owner, add, remove, &version)).await
    }

    async fn apply(&self, change: Change) -> Result<(), Error> {
        self.provider.apply(&zone(), &[change]).await.remove(0).map(|_| ())
    }
}

impl Server {
    fn url(&self) -> String {
        match self {
            Self::Real(pdns) => pdns.api(),
            Self::Emulated(server) => server.url(),
        }
    }

    async fn records(&self, owner: &str) -> Vec<PdnsRecord> {
        match self {
            Self::Real(pdns) => pdns.records(owner).await,
            Self::Emulated(server) => {
                let StoredRrset { ttl, records, .. } = server.txt(owner);
                let mut records: Vec<_> = records.into_iter().map(|r| record(&r.content, ttl, r.disabled)).collect();
                records.sort();
                records
            }
        }
    }

    async fn insert(&self, owner: &str, kind: &str, record: PdnsRecord) {
        match self {
            Self::Real(pdns) => pdns.insert(ZONE, owner, kind, &record).await,
            Self::Emulated(server) => {
                let mut rrset = if kind == "TXT" { server.txt(owner) } else { StoredRrset::default() };
                rrset.ttl = record.ttl;
                rrset.records.push(StoredRecord { content: record.content, disabled: record.disabled });
                server.stranger_writes(ZONE, owner, kind, rrset);
            }
        }
    }

    async fn comment(&self, owner: &str, text: &str) {
        match self {
            Self::Real(pdns) => pdns.comment(ZONE, owner, text).await,
            Self::Emulated(server) => {
                let mut rrset = server.txt(owner);
                rrset.comments.push(text.to_owned());
                server.stranger_writes(ZONE, owner, "TXT", rrset);
            }
        }
    }

    async fn comments(&self, owner: &str) -> Vec<String> {
        match self {
            Self::Real(pdns) => pdns.comments(owner).await,
            Self::Emulated(server) => server.txt(owner).comments,
        }
    }
}

fn record(content: &str, ttl: u32, disabled: bool) -> PdnsRecord {
    PdnsRecord { content: content.to_owned(), ttl, disabled }
}

fn name(text: &str) -> Name {
    text.parse().expect(text)
}

fn zone() -> Zone {
    Zone { id: format!("{ZONE}."), name: name(ZONE), nameservers: BTreeSet::new() }
}

fn set(values: &[&str]) -> BTreeSet<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

fn change(owner: &str, add: &[&str], remove: &[&str], version: &str) -> Change {
    Change { owner: name(owner), add: set(add), remove: set(remove), version: version.to_owned() }
}

fn build(url: &str, folder: &TempDir, more: Value) -> Result<Arc<dyn Provider>, String> {
    let file = folder.path().join("key");
    if !file.exists() {
        acmegate_tests::write(&file, API_KEY);
    }
    let mut settings = json!({"endpoint": url, "api_key": {"file": file}});
    let (Value::Object(all), Value::Object(more)) = (&mut settings, more) else { panic!("no maps") };
    all.extend(more);
    let context = Context { backend: "dns".into(), ttl: 60, mark: String::new(), secrets: Arc::new(LocalSecrets) };
    (kind("powerdns").expect("in the table").build)(settings, &context)
}

/// What every server has to do alike.
async fn battery(world: &World) {
    let provider = &world.provider;
    assert_eq!(provider.zones(Some(&name(ZONE))).await.expect("an answer").zones, [zone()]);
    assert_eq!(provider.zones(Some(&name("www.example.test"))).await.expect("an answer").zones, []);
    let listing = provider.zones(None).await.expect("an answer");
    assert_eq!((listing.zones, listing.complete), (vec![zone()], true));

    let owner = "_acme-challenge.www.example.test";
    assert_eq!(world.read(owner).await, Ok(TxtSet::default()));
    world.change(owner, &["one", "two"], &[]).await.expect("added");
    assert_eq!(world.values(owner).await, set(&["one", "two"]));
    assert_eq!(world.server.records(owner).await, [record("\"one\"", 60, false), record("\"two\"", 60, false)]);
    world.change(owner, &["one"], &["three"]).await.expect("nothing to do");
    world.change(owner, &[], &["one"]).await.expect("removed");
    assert_eq!(world.values(owner).await, set(&["two"]));

    // Beside foreign values, with their TTL, one that is disabled, and comments.
    let foreign = "foreign.example.test";
    let strange = [r#""quo\"te" "back\\slash""#, r#""\200\255 not UTF-8""#, r#""semi;colon""#, r#""""#];
    for content in strange {
        world.server.insert(foreign, "TXT", record(content, 1234, false)).await;
    }
    world.server.insert(foreign, "TXT", record("\"not served\"", 1234, true)).await;
    world.server.comment(foreign, "somebody's").await;
    let before = world.server.records(foreign).await;
    assert_eq!(world.values(foreign).await.len(), strange.len());
    world.change(foreign, &["ours", "ours as well"], &[]).await.expect("added");
    let mut expected = before.clone();
    expected.extend([record("\"ours\"", 1234, false), record("\"ours as well\"", 1234, false)]);
    expected.sort();
    assert_eq!(world.server.records(foreign).await, expected);
    world.change(foreign, &[], &["ours", "ours as well"]).await.expect("removed");
    assert_eq!(world.server.records(foreign).await, before);
    assert_eq!(world.server.comments(foreign).await.len(), 1);

    // A comment where nothing else is.
    let lonely = "lonely.example.test";
    world.server.comment(lonely, "nothing here yet").await;
    let before = world.server.comments(lonely).await;
    world.change(lonely, &["ours"], &[]).await.expect("added");
    assert_eq!(world.server.records(lonely).await, [record("\"ours\"", 60, false)], "with our TTL");
    world.change(lonely, &["next"], &["ours"]).await.expect("exchanged");
    assert_eq!(world.server.comments(lonely).await, before);
    world.change(lonely, &[], &["next"]).await.expect("removed");
    assert_eq!((world.server.records(lonely).await, world.server.comments(lonely).await), (vec![], before));

    // The apex, a wildcard, an IDN, a long value, and one with everything that is escaped.
    let long = "x".repeat(600);
    for (owner, value) in
        [(ZONE, "apex"), ("*.example.test", "wild"), ("xn--bcher-kva.example.test", long.as_str()), (owner, r#"a "b\ ;c"#)]
    {
        world.change(owner, &[value], &[]).await.unwrap_or_else(|error| panic!("{owner}: {error}"));
        assert!(world.values(owner).await.contains(value), "{owner}");
        world.change(owner, &[], &[value]).await.unwrap_or_else(|error| panic!("{owner}: {error}"));
        assert!(!world.values(owner).await.contains(value), "{owner}");
    }

    // Many names: read at once and written at once, a bad one among them alone refused.
    world.server.insert("n7.example.test", "CNAME", record("target.example.org", 60, false)).await;
    let owners: Vec<String> = (0..199).map(|n| format!("n{n}.example.test")).collect();
    let names: Vec<Name> = owners.iter().map(|owner| name(owner)).collect();
    let sent = provider.calls().sent;
    let read = provider.read(&zone(), &names).await;
    assert_eq!(provider.calls().sent, sent + 1, "one call reads them");
    assert!(matches!(&read[7], Err(Error::Rejected(text)) if text.contains("a CNAME stands at n7.example.test")), "{:?}", read[7]);
    let changes: Vec<Change> = owners.iter().map(|owner| change(owner, &["a value of 43 characters, as they all are."], &[], "")).collect();
    let results = provider.apply(&zone(), &[&changes[..7], &changes[8..]].concat()).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert!(provider.calls().sent - sent <= 4, "one call writes them, another one reads before where that is needed");
    let outside = change("n1.example.org", &["v"], &[], "");
    let results = provider.apply(&zone(), &[changes[1].clone(), outside, changes[2].clone()]).await;
    assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
    assert!(matches!(&results[1], Err(Error::Rejected(text)) if text.contains("out of zone")), "{results:?}");

    // A zone that is not there.
    let gone = Zone { id: "gone.test.".to_owned(), name: name("gone.test"), nameservers: BTreeSet::new() };
    let result = provider.apply(&gone, &[change("a.gone.test", &["v"], &[], "")]).await.remove(0);
    assert!(matches!(result, Err(Error::NotFound(_))), "{result:?}");
    let result = provider.read(&gone, &[name("a.gone.test")]).await.remove(0);
    assert!(matches!(result, Err(Error::NotFound(_))), "{result:?}");
}

#[tokio::test]
async fn whole_rrsets_at_the_real_server() {
    let world = World::real().await;
    battery(&world).await;
    let Server::Real(pdns) = &world.server else { panic!("it is real") };
    assert_eq!(dns::txt(pdns.dns(), "n8.example.test").await.len(), 1);
    let said = world.provider.verify().await.expect("good");
    assert!(said.starts_with("PowerDNS 4."), "{said}");
    // Read again just before it is written: what is done meanwhile is kept.
    let version = world.read("foreign.example.test").await.expect("read").version;
    pdns.insert(ZONE, "foreign.example.test", "TXT", &record("\"meanwhile\"", 1234, false)).await;
    world.apply(change("foreign.example.test", &["ours"], &[], &version)).await.expect("added");
    let values = world.values("foreign.example.test").await;
    assert!(values.contains("meanwhile") && values.contains("ours"), "{values:?}");
    pdns.drop_zone(ZONE).await;
    let error = world.change("a.example.test", &["v"], &[]).await.expect_err("no zone");
    assert!(matches!(error, Error::NotFound(_)), "{error}");
    pdns.restore_zone(ZONE).await;
    world.change("a.example.test", &["v"], &[]).await.expect("the zone is back");
}

#[tokio::test]
async fn record_by_record_at_a_newer_one() {
    let (world, server) = World::emulated().await;
    battery(&world).await;
    assert_eq!(world.provider.verify().await.expect("good"), "PowerDNS 5.0.2, the API key may do everything");

    // Whatever somebody else does between reading and writing, nobody loses anything.
    let owner = "shared.example.test";
    world.change(owner, &["first"], &[]).await.expect("added");
    for (fault, add, remove) in [(Fault::Interfere, &["second"][..], &[][..]), (Fault::Interfere, &[], &["first"])] {
        server.faults().on_writes([fault]);
        world.change(owner, add, remove).await.expect("changed");
    }
    let values = world.values(owner).await;
    assert!(values.contains("second") && !values.contains("first") && values.len() == 3, "{values:?}");

    // Somebody else was quicker, with another TTL.
    let version = world.read("fresh.example.test").await.expect("read").version;
    server.faults().on_writes([Fault::Interfere]);
    world.apply(change("fresh.example.test", &["ours"], &[], &version)).await.expect("added");
    let StoredRrset { ttl, records, .. } = server.txt("fresh.example.test");
    assert_eq!((ttl, records.len()), (3600, 2));
}

#[tokio::test]
async fn servers_that_hide_disabled_records_lose_none() {
    let (world, server) = World::emulated().await;
    server.set_version("4.9.12");
    let owner = "half.example.test";
    world.server.insert(owner, "TXT", record("\"served\"", 300, false)).await;
    world.server.insert(owner, "TXT", record("\"hidden\"", 300, true)).await;
    let before = world.server.records(owner).await;
    world.change(owner, &["ours"], &[]).await.expect("added");
    assert_eq!(world.values(owner).await, set(&["ours", "served"]));
    world.change(owner, &[], &["ours"]).await.expect("removed");
    assert_eq!(world.server.records(owner).await, before);
}

#[tokio::test]
async fn writers_side_by_side_wait_for_each_other() {
    let world = World::real().await;
    let others: Vec<_> = (0..4).map(|_| build(&world.server.url(), &world.folder, json!({})).expect("good settings")).collect();
    let tasks: Vec<_> = (0..24)
        .map(|n| {
            let provider = Arc::clone(&others[n % others.len()]);
            tokio::spawn(async move {
                let owner = format!("n{n}.example.test");
                provider.apply(&zone(), &[change(&owner, &["v"], &[], "")]).await.remove(0)
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic").expect("written");
    }
    for n in 0..24 {
        assert_eq!(world.server.records(&format!("n{n}.example.test")).await.len(), 1);
    }
}

#[tokio::test]
async fn secondaries_are_told_at_once() {
    let world = World::real().await;
    let Server::Real(pdns) = &world.server else { panic!("it is real") };
    let secondary = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    pdns.notifies(ZONE, secondary.local_addr().expect("bound")).await;
    world.change("a.example.test", &["v"], &[]).await.expect("added");
    let mut message = [0; 512];
    let notified = async {
        loop {
            let (length, _) = secondary.recv_from(&mut message).await.expect("a datagram");
            // Opcode 4 (RFC 1996).
            if length > 12 && message[2] >> 3 & 0xF == 4 {
                break;
            }
        }
    };
    // It looks by itself once a minute.
    tokio::time::timeout(Duration::from_secs(20), notified).await.expect("a NOTIFY");

    let (world, server) = World::emulated().await;
    world.change("a.example.test", &["v"], &[]).await.expect("added");
    assert!(server.notified().is_empty(), "a native zone has no secondaries");
    server.add_zone(ZONE, "Master");
    world.change("a.example.test", &["v"], &[]).await.expect("added");
    assert_eq!(server.notified(), ["example.test."]);
}

#[tokio::test]
async fn faults_become_the_errors_that_say_what_to_do() {
    let (world, server) = World::emulated().await;
    let attempt = async |fault: Fault, value: &str| {
        server.faults().on_writes([fault]);
        world.apply(change("a.example.test", &[value], &[], "")).await
    };
    assert_eq!(attempt(Fault::ErrorBefore, "a").await, Ok(()), "tried again");
    assert_eq!(attempt(Fault::ErrorAfter, "b").await, Ok(()), "done again, nothing changes");
    assert!(matches!(attempt(Fault::LostReply, "c").await, Err(Error::Transport(_))));
    assert!(matches!(attempt(Fault::LostRequest, "d").await, Err(Error::Transport(_))));
    assert!(matches!(attempt(Fault::Unauthorized, "e").await, Err(Error::Auth(text)) if text.contains("compare it with `api-key`")));
    assert_eq!(world.values("a.example.test").await, set(&["a", "b", "c"]), "what was lost after the effect stands");
    server.faults().on_writes([Fault::ErrorAfter, Fault::Unauthorized]);
    let error = world.apply(change("a.example.test", &["h"], &[], "")).await.expect_err("the second attempt is refused");
    assert!(matches!(&error, Error::Transport(text) if text.contains("and then: the credential was refused")), "{error:?}");
    world.change("a.example.test", &[], &["h"]).await.expect("the first one was carried out");
    // What replaces an RRset is read again before it is tried again.
    world.server.insert("b.example.test", "TXT", record("\"hidden\"", 300, true)).await;
    let version = world.read("b.example.test").await.expect("read").version;
    server.faults().on_writes([Fault::ErrorBefore, Fault::ErrorBefore]);
    let (reads, _) = server.faults().calls();
    world.apply(change("b.example.test", &["v"], &[], &version)).await.expect("the third attempt");
    assert_eq!(server.faults().calls().0, reads + 3);
    server.faults().outage(Some(Fault::ErrorBefore));
    let error = world.apply(change("a.example.test", &["f"], &[], "")).await.expect_err("it fails for good");
    assert!(matches!(&error, Error::Transport(text) if text.contains("its log says why")), "{error}");
    assert!(matches!(world.read("a.example.test").await, Err(Error::Transport(_))));
    server.faults().outage(None);
    // The API of another product, or another path.
    let other = build(&world.server.url(), &world.folder, json!({"server_id": "elsewhere"})).expect("good settings");
    let error = other.verify().await.expect_err("no such server");
    assert!(matches!(&error, Error::Rejected(text) if text.contains("compare `endpoint` and `server_id`")), "{error}");
    let throttled = attempt(Fault::Throttle(Duration::ZERO), "g").await;
    assert!(matches!(throttled, Err(Error::RateLimited { .. })), "{throttled:?}");
    let nobody = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()).expect("a port");
    let alone = build(&format!("http://{nobody}"), &world.folder, json!({})).expect("good settings");
    let result = alone.apply(&zone(), &[change("a.example.test", &["v"], &[], "")]).await.remove(0);
    assert!(matches!(result, Err(Error::Unsent(_))), "{result:?}");
}

#[tokio::test]
async fn keys_are_read_when_they_are_needed_and_never_shown() {
    let world = World::real().await;
    let Server::Real(pdns) = &world.server else { panic!("it is real") };
    let file = world.folder.path().join("key");
    pdns.set_api_key("another-key-of-the-api").await;
    let error = world.change("a.example.test", &["v"], &[]).await.expect_err("the old key");
    assert!(matches!(error, Error::Auth(_)), "{error}");
    let mut said = vec![format!("{:?} {error}", world.provider)];
    acmegate_tests::write(&file, &format!("{API_KEY}\nX-Injected: header"));
    let error = world.provider.verify().await.expect_err("two lines");
    assert!(matches!(error, Error::Auth(_)), "{error}");
    said.push(error.to_string());
    acmegate_tests::write(&file, "another-key-of-the-api\n");
    world.change("a.example.test", &["v"], &[]).await.expect("the new key");
    for text in said {
        assert!(!text.contains(API_KEY) && !text.contains("another-key") && !text.contains("Injected"), "{text}");
    }
}

#[test]
fn settings_say_what_is_wrong_with_them() {
    let folder = temporary_folder("powerdns");
    for (more, said) in [
        (json!({"endpoint": "http://ns1.example.com:8081"}), "in the clear"),
        (json!({"endpoint": "ns1.example.com"}), "no URL"),
        (json!({"server_id": ""}), "server_id: "),
        (json!({"token": "x"}), "unknown field"),
        (json!({"ca_file": folder.path().join("none")}), "cannot be read"),
    ] {
        let error = build("https://ns1.example.com:8081", &folder, more.clone()).expect_err("bad settings");
        assert!(error.contains(said), "{more}: {error}");
    }
    for endpoint in ["https://ns1.example.com:8081/", "https://ns1.example.com/api/v1", "https://ns1.example.com/base/"] {
        assert!(build(endpoint, &folder, json!({})).is_ok(), "{endpoint}");
    }
}
