//! `rfc2136` against BIND, Knot and PowerDNS.
#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    any::Any,
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use acmegate_tests::{
    addresses::Address,
    bind::{self, Bind},
    dns,
    knot::Knot,
    pdns::Pdns,
    temporary_folder,
    updates::{TsigKey, Updates},
    wait::LIMIT,
};
use authdns::Name;
use hickory_proto::rr::{RData, RecordType};
use providers::{Change, Context, Error, Provider, TxtSet, Zone, secret::LocalSecrets};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, UdpSocket},
};

const ZONE: &str = "example.test";
/// Records of strangers, appended to the zone.
const FOREIGN: &str = r#"
foreign.example.test. 1234 TXT "quo\"te" "back\\slash"
foreign.example.test. 1234 TXT "\200\255 not UTF-8"
alias.example.test. CNAME target.example.org.
child.example.test. NS ns.child.example.test.
ns.child.example.test. A 127.0.0.1
"#;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Bind,
    Knot,
    Pdns,
}

/// A server of one zone, and what keeps it alive.
struct Served {
    dns: SocketAddr,
    _server: Box<dyn Any>,
    folder: TempDir,
}

async fn served(kind: Kind, updates: &Updates) -> Served {
    let address = Address::reserve();
    let zones = [(ZONE, bind::zone(ZONE, &address) + FOREIGN)];
    let dns = address.dns();
    let server: Box<dyn Any> = match kind {
        Kind::Bind => Box::new(Bind::start_signed(address, &zones, updates).await),
        Kind::Knot => Box::new(Knot::start_signed(address, &zones, updates).await),
        Kind::Pdns => Box::new(Pdns::start(address, &zones, updates).await),
    };
    Served { dns, _server: server, folder: temporary_folder("rfc2136") }
}

fn key() -> TsigKey {
    TsigKey::new("acmegate", "hmac-sha256")
}

fn updates() -> Updates {
    Updates { keys: vec![key()], ..Updates::default() }
}

fn build(settings: Value) -> Result<Arc<dyn Provider>, String> {
    build_with_ttl(settings, 60)
}

fn build_with_ttl(settings: Value, ttl: u32) -> Result<Arc<dyn Provider>, String> {
    let context = Context { backend: "dns".into(), ttl, mark: String::new(), secrets: Arc::new(LocalSecrets) };
    (providers::kind("rfc2136").expect("in the table").build)(settings, &context)
}

impl Served {
    fn settings(&self, key: &TsigKey) -> Value {
        let file = self.folder.path().join(format!("{}-{}", key.name, key.algorithm));
        acmegate_tests::write(&file, &key.secret);
        json!({"server": self.dns.to_string(), "tsig": {"name": key.name, "algorithm": key.algorithm, "key": {"file": file}}})
    }

    fn provider(&self) -> Arc<dyn Provider> {
        build(self.settings(&key())).expect("good settings")
    }

    /// The provider with more settings.
    fn provider_with(&self, key: &TsigKey, more: Value) -> Arc<dyn Provider> {
        let mut settings = self.settings(key);
        let (Value::Object(all), Value::Object(more)) = (&mut settings, more) else { panic!("no maps") };
        all.extend(more);
        build(settings).expect("good settings")
    }

    async fn serial(&self) -> u32 {
        let answer = dns::ask(self.dns, ZONE, RecordType::SOA).await;
        answer.answers.iter().find_map(|r| if let RData::SOA(soa) = &r.data { Some(soa.serial) } else { None }).expect("a SOA")
    }

    /// The TXT RRset as it is served: its TTLs, and the strings of each record.
    async fn strings(&self, name: &str) -> (BTreeSet<u32>, BTreeSet<Vec<Vec<u8>>>) {
        let answer = dns::ask(self.dns, name, RecordType::TXT).await;
        let strings =
            |data: &RData| if let RData::TXT(txt) = data { txt.txt_data.iter().map(|s| s.to_vec()).collect() } else { Vec::new() };
        (answer.answers.iter().map(|r| r.ttl).collect(), answer.answers.iter().map(|r| strings(&r.data)).collect())
    }
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

fn change(owner: &str, add: &[&str], remove: &[&str]) -> Change {
    Change { owner: name(owner), add: set(add), remove: set(remove), version: String::new() }
}

async fn read(provider: &dyn Provider, owner: &str) -> Result<TxtSet, Error> {
    provider.read(&zone(), &[name(owner)]).await.remove(0)
}

/// Reads, as far as that is allowed, then applies.
async fn apply(provider: &dyn Provider, change: Change) -> Result<(), Error> {
    let version = provider.read(&zone(), std::slice::from_ref(&change.owner)).await.remove(0).map(|set| set.version).unwrap_or_default();
    provider.apply(&zone(), &[Change { version, ..change }]).await.remove(0).map(|_| ())
}

/// What every server has to do alike.
async fn battery(kind: Kind) {
    let served = served(kind, &updates()).await;
    let provider = served.provider();

    let listing = provider.zones(Some(&name(ZONE))).await.expect("an answer");
    assert_eq!(listing.zones, [zone()]);
    assert_eq!(provider.zones(Some(&name("www.example.test"))).await.expect("an answer").zones, []);
    assert_eq!(provider.zones(Some(&name("example.org"))).await.expect("an answer").zones, []);
    assert!(!provider.zones(None).await.expect("nothing is asked").complete, "a server cannot be listed");

    let owner = "_acme-challenge.www.example.test";
    assert_eq!(read(&*provider, owner).await, Ok(TxtSet::default()));
    apply(&*provider, change(owner, &["one", "two"], &[])).await.expect("added");
    let found = read(&*provider, owner).await.expect("read");
    assert_eq!((found.values, found.version.as_str()), (set(&["one", "two"]), "60"));
    assert_eq!(dns::txt(served.dns, owner).await, set(&["one", "two"]));

    let serial = served.serial().await;
    apply(&*provider, change(owner, &["one"], &["three"])).await.expect("nothing to do");
    assert_eq!(served.serial().await, serial, "what changes nothing is no change of the zone");
    apply(&*provider, change(owner, &[], &["one"])).await.expect("removed");
    assert_eq!(dns::txt(served.dns, owner).await, set(&["two"]));

    // Beside foreign values, with their TTL.
    let before = served.strings("foreign.example.test").await;
    apply(&*provider, change("foreign.example.test", &["ours"], &[])).await.expect("added");
    let (ttls, mut strings) = served.strings("foreign.example.test").await;
    assert_eq!(ttls, BTreeSet::from([1234]));
    assert!(strings.remove(&vec![b"ours".to_vec()]), "{strings:?}");
    assert_eq!(strings, before.1, "byte for byte");
    apply(&*provider, change("foreign.example.test", &[], &["ours"])).await.expect("removed");
    assert_eq!(served.strings("foreign.example.test").await, before);

    // The apex, a wildcard, an IDN, a long value, and one with everything that masters files escape.
    let long = "x".repeat(600);
    for (owner, value) in
        [(ZONE, "apex"), ("*.example.test", "wild"), ("xn--bcher-kva.example.test", long.as_str()), (owner, r#"a "b\ ;c"#)]
    {
        apply(&*provider, change(owner, &[value], &[])).await.expect("added");
        assert!(read(&*provider, owner).await.expect("read").values.contains(value), "{owner}");
        apply(&*provider, change(owner, &[], &[value])).await.expect("removed");
        assert!(!read(&*provider, owner).await.expect("read").values.contains(value), "{owner}");
    }

    // Many names: one message, one new serial.
    let owners: Vec<String> = (0..200).map(|n| format!("_acme-challenge.n{n}.example.test")).collect();
    let changes: Vec<Change> = owners.iter().map(|owner| change(owner, &["a value of 43 characters, as they all are."], &[])).collect();
    let (serial, sent) = (served.serial().await, provider.calls().sent);
    for result in provider.apply(&zone(), &changes).await {
        result.expect("added");
    }
    assert_eq!(provider.calls().sent - sent, 1, "one message");
    assert_eq!(served.serial().await, serial + 1, "one change of the zone");
    let names: Vec<Name> = owners.iter().map(|owner| name(owner)).collect();
    for found in provider.read(&zone(), &names).await {
        assert_eq!(found.expect("read").values.len(), 1);
    }

    // Somebody else is quicker, with a TTL of their own: that name alone is to be read again.
    let changes: Vec<Change> = (0..3).map(|n| change(&format!("fresh{n}.example.test"), &["ours"], &[])).collect();
    let stranger = build_with_ttl(served.settings(&key()), 777).expect("good settings");
    stranger.apply(&zone(), &[change("fresh1.example.test", &["theirs"], &[])]).await.remove(0).expect("added");
    let results = provider.apply(&zone(), &changes).await;
    assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
    assert!(matches!(&results[1], Err(Error::Conflict(text)) if text.contains("fresh1.example.test")), "{results:?}");
    assert_eq!(served.strings("fresh1.example.test").await.0, BTreeSet::from([777]));
    apply(&*provider, changes[1].clone()).await.expect("after another look");
    let (ttls, strings) = served.strings("fresh1.example.test").await;
    assert_eq!((ttls, strings.len()), (BTreeSet::from([777]), 2));

    // Where nothing of ours can be seen.
    let error = read(&*provider, "alias.example.test").await.expect_err("a CNAME");
    assert!(matches!(&error, Error::Rejected(text) if text.contains("a CNAME stands at")), "{error}");
    let error = read(&*provider, "_acme-challenge.child.example.test").await.expect_err("a delegation");
    assert!(matches!(&error, Error::Rejected(text) if text.contains("delegated away")), "{error}");

    // A zone that is not there.
    let gone = Zone { id: String::new(), name: name("gone.test"), nameservers: BTreeSet::new() };
    let result = provider.apply(&gone, &[change("a.gone.test", &["v"], &[])]).await.remove(0);
    assert!(matches!(result, Err(Error::NotFound(_))), "{result:?}");
    let result = provider.read(&gone, &[name("a.gone.test")]).await.remove(0);
    assert!(matches!(result, Err(Error::NotFound(_))), "{result:?}");
}

#[tokio::test]
async fn bind() {
    battery(Kind::Bind).await;
}

#[tokio::test]
async fn knot() {
    battery(Kind::Knot).await;
}

#[tokio::test]
async fn powerdns() {
    battery(Kind::Pdns).await;
}

/// Every algorithm is taken; a key that is wrong, unknown or not allowed is told apart.
async fn keys(kind: Kind) {
    let algorithms = ["hmac-md5", "hmac-sha1", "hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512"];
    let known: Vec<TsigKey> = algorithms.iter().map(|algorithm| TsigKey::new(&format!("key-{algorithm}"), algorithm)).collect();
    let idle = TsigKey::new("idle", "hmac-sha256");
    let served = served(kind, &Updates { keys: known.clone(), idle: vec![idle.clone()], denied: None }).await;
    for key in &known {
        let provider = served.provider_with(key, json!({"probe_zone": ZONE}));
        let said = provider.verify().await.unwrap_or_else(|error| panic!("{key:?}: {error}"));
        assert!(said.contains("takes updates of example.test") && said.contains(&key.algorithm), "{said}");
        served.provider_with(key, json!({})).verify().await.unwrap_or_else(|error| panic!("{key:?} at the root: {error}"));
        apply(&*provider, change("a.example.test", &[&key.name], &[])).await.unwrap_or_else(|error| panic!("{key:?}: {error}"));
    }
    assert_eq!(dns::txt(served.dns, "a.example.test").await.len(), algorithms.len());

    let mut wrong = known[3].clone();
    wrong.secret = TsigKey::new("other", "hmac-sha256").secret;
    let unknown = TsigKey::new("nobody", "hmac-sha256");
    // What each server has against a key, and does not always say.
    let rights = ["update nothing in example.test"].as_slice();
    let (secret, named, rights): (&[&str], &[&str], &[&str]) = match kind {
        Kind::Bind => (&["another secret (BADSIG)"], &["BADKEY"], rights),
        Kind::Knot => (&["another secret (BADSIG)"], &["BADKEY"], &["none that may do this here (BADKEY)"]),
        Kind::Pdns => {
            let either = ["does not take the TSIG key", "compare the key's secret"].as_slice();
            (either, either, rights)
        }
    };
    for (key, said, refused) in [(&wrong, secret, false), (&unknown, named, false), (&idle, rights, true)] {
        let provider = served.provider_with(key, json!({"probe_zone": ZONE}));
        let mut errors = vec![
            apply(&*provider, change("b.example.test", &["v"], &[])).await.expect_err("a key that is not taken"),
            provider.verify().await.expect_err("a key that is not taken"),
        ];
        if !refused {
            errors.push(read(&*provider, "b.example.test").await.expect_err("a key that is not taken"));
            errors.push(provider.zones(Some(&name(ZONE))).await.expect_err("a key that is not taken"));
            // Without a zone to look at, Knot does not look at the key either.
            match served.provider_with(key, json!({})).verify().await {
                Err(error) => errors.push(error),
                Ok(text) => assert!(kind == Kind::Knot && text.contains("has not looked at"), "{kind:?}: {text}"),
            }
        }
        for error in &errors {
            assert!(matches!(error, Error::Auth(text) if said.iter().any(|said| text.contains(said))), "{kind:?} {said:?}: {errors:?}");
            assert!(!error.to_string().contains(&key.secret) && !format!("{provider:?}").contains(&key.secret));
        }
    }
    let many: Vec<Change> = (0..50).map(|n| change(&format!("n{n}.example.test"), &["v"], &[])).collect();
    let provider = served.provider_with(&idle, json!({}));
    let sent = provider.calls().sent;
    assert!(provider.apply(&zone(), &many).await.iter().all(|result| matches!(result, Err(Error::Auth(_)))));
    assert!(provider.calls().sent - sent <= 2, "that the key may nothing is found out once, and not name by name");
}

#[tokio::test]
async fn keys_of_bind() {
    keys(Kind::Bind).await;
}

#[tokio::test]
async fn keys_of_knot() {
    keys(Kind::Knot).await;
}

#[tokio::test]
async fn keys_of_powerdns() {
    keys(Kind::Pdns).await;
}

#[tokio::test]
async fn one_denied_name_does_not_hold_back_the_others() {
    let served = served(Kind::Bind, &Updates { denied: Some("n7.example.test".to_owned()), ..updates() }).await;
    let provider = served.provider_with(&key(), json!({"probe_zone": ZONE}));
    assert!(provider.verify().await.is_ok());
    let changes: Vec<Change> = (0..20).map(|n| change(&format!("n{n}.example.test"), &["v"], &[])).collect();
    let results = provider.apply(&zone(), &changes).await;
    for (number, result) in results.iter().enumerate() {
        match number {
            7 => assert!(matches!(result, Err(Error::Rejected(text)) if text.contains("n7.example.test may not be updated")), "{result:?}"),
            _ => assert!(result.is_ok(), "{number}: {result:?}"),
        }
    }
    assert_eq!(dns::txt(served.dns, "n8.example.test").await, set(&["v"]));
    assert_eq!(dns::txt(served.dns, "n7.example.test").await, set(&[]));
}

/// Datagrams: small messages, and what is cut off is asked for again by TCP.
async fn datagrams(kind: Kind) {
    let served = served(kind, &updates()).await;
    let provider = served.provider_with(&key(), json!({"transport": "udp"}));
    assert_eq!(provider.zones(Some(&name(ZONE))).await.expect("an answer").zones, [zone()]);
    let owners: Vec<String> = (0..30).map(|n| format!("_acme-challenge.n{n}.example.test")).collect();
    let changes: Vec<Change> = owners.iter().map(|owner| change(owner, &["a value of 43 characters, as they all are."], &[])).collect();
    assert!(provider.apply(&zone(), &changes).await.iter().all(Result::is_ok));
    let sent = provider.calls().sent;
    assert!((4..=12).contains(&sent), "{sent} messages of 1,200 bytes");
    let names: Vec<Name> = owners.iter().map(|owner| name(owner)).collect();
    assert!(provider.read(&zone(), &names).await.into_iter().all(|found| found.expect("read").values.len() == 1));

    let values: Vec<String> = (0..60).map(|n| format!("{n} of sixty values that do not fit in a datagram of 1232 bytes")).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    apply(&*provider, change("full.example.test", &values, &[])).await.expect("one change is never cut: it goes by TCP");
    assert_eq!(read(&*provider, "full.example.test").await.expect("read").values, set(&values));
}

#[tokio::test]
async fn datagrams_of_bind() {
    datagrams(Kind::Bind).await;
}

#[tokio::test]
async fn datagrams_of_knot() {
    datagrams(Kind::Knot).await;
}

#[tokio::test]
async fn datagrams_of_powerdns() {
    datagrams(Kind::Pdns).await;
}

#[tokio::test]
async fn where_nobody_listens_nothing_was_sent() {
    let address = Address::reserve();
    for transport in ["tcp", "udp"] {
        let provider = build(json!({"server": address.dns().to_string(), "transport": transport})).expect("loopback needs no key");
        let error = apply(&*provider, change("a.example.test", &["v"], &[])).await.expect_err("nobody is there");
        assert!(matches!(error, Error::Unsent(_)), "{transport}: {error:?}");
        assert!(matches!(read(&*provider, "a.example.test").await, Err(Error::Unsent(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_mute_server_is_not_waited_for() {
    let tcp = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let udp = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    for (transport, server) in [("tcp", tcp.local_addr()), ("udp", udp.local_addr())] {
        let settings = json!({"server": server.expect("bound").to_string(), "transport": transport});
        let error = apply(&*build(settings).expect("good settings"), change("a.example.test", &["v"], &[])).await.expect_err("mute");
        assert!(matches!(error, Error::Transport(_)), "{transport}: {error:?}");
    }
}

#[tokio::test]
async fn after_a_lost_answer_the_change_may_have_been_made() {
    let served = served(Kind::Bind, &updates()).await;
    let between = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let mut settings = served.settings(&key());
    settings["server"] = between.local_addr().expect("bound").to_string().into();
    let server = served.dns;
    tokio::spawn(async move {
        loop {
            let (mut client, _) = between.accept().await.expect("a client");
            let request = dns::read_framed(&mut client).await.expect("whole").expect("a request");
            dns::tcp(server, &request).await.expect("carried out");
            // Cut, without the answer.
            let _ = client.shutdown().await;
        }
    });
    let provider = build(settings).expect("good settings");
    let changes = [change("a.example.test", &["v"], &[]), change("b.example.test", &["v"], &[])];
    for result in provider.apply(&zone(), &changes).await {
        assert!(matches!(result, Err(Error::Transport(_))), "{result:?}");
    }
    assert_eq!(dns::txt(served.dns, "b.example.test").await, set(&["v"]));
    let serial = served.serial().await;
    for change in changes {
        apply(&*served.provider(), change).await.expect("done already");
    }
    assert_eq!(served.serial().await, serial, "done again, nothing changes");
}

#[tokio::test]
async fn what_a_repeated_datagram_finds_may_be_the_work_of_the_first() {
    let served = served(Kind::Bind, &updates()).await;
    let between = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let mut settings = served.settings(&key());
    (settings["server"], settings["transport"]) = (between.local_addr().expect("bound").to_string().into(), "udp".into());
    let server = served.dns;
    tokio::spawn(async move {
        let mut request = [0; 2048];
        // The answer to the first is lost.
        for answers in [false, true] {
            let (length, client) = between.recv_from(&mut request).await.expect("a request");
            let answer = dns::udp(server, &request[..length], LIMIT).await.expect("carried out").expect("an answer");
            if answers {
                between.send_to(&answer, client).await.expect("sent");
            }
        }
    });
    let change = change("a.example.test", &["v"], &[]);
    let result = build(settings).expect("good settings").apply(&zone(), &[change]).await.remove(0);
    assert!(matches!(result, Err(Error::Transport(_))), "nobody else has made it: {result:?}");
    assert_eq!(dns::txt(served.dns, "a.example.test").await, set(&["v"]));
}

#[tokio::test]
async fn an_answer_that_is_not_signed_is_not_believed() {
    let served = served(Kind::Bind, &Updates::default()).await;
    let between = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let mut settings = served.settings(&key());
    settings["server"] = between.local_addr().expect("bound").to_string().into();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = between.accept().await.expect("a client");
            let mut request = dns::read_framed(&mut client).await.expect("whole").expect("a request");
            // NOERROR, and nothing else.
            request.truncate(12);
            request[2] |= 0x80;
            request[4..].fill(0);
            dns::write_framed(&mut client, &request).await.expect("written");
        }
    });
    let error = apply(&*build(settings).expect("good settings"), change("a.example.test", &["v"], &[])).await.expect_err("forged");
    assert!(matches!(&error, Error::Transport(text) if text.contains("not signed")), "{error:?}");
}

#[test]
fn settings_say_what_is_wrong_with_them() {
    for (settings, said) in [
        (json!({}), "missing field `server`"),
        (json!({"server": "ns1.example.com"}), "would not be signed"),
        (json!({"server": "https://ns1.example.com", "unsigned": true}), "HOST:PORT"),
        (json!({"server": "ns1.example.com", "transport": "tls"}), "unknown variant"),
        (json!({"server": "127.0.0.1", "ca_file": "x"}), "unknown field `ca_file`"),
        (json!({"server": "127.0.0.1", "probe_zone": "a..b"}), "probe_zone: "),
        (json!({"server": "127.0.0.1", "unsigned": true, "tsig": {"name": "k", "key": {"env": "K"}}}), "leave one of them out"),
        (json!({"server": "127.0.0.1", "tsig": {"name": "k", "algorithm": "sha256", "key": {"env": "K"}}}), "hmac-sha256"),
    ] {
        let error = build(settings.clone()).expect_err("bad settings");
        assert!(error.contains(said), "{settings}: {error}");
    }
    assert!(build(json!({"server": "ns1.example.com", "unsigned": true})).is_ok());
    assert!(build(json!({"server": "ns1.example.com", "tsig": {"name": "k", "key": {"env": "K"}}})).is_ok());
    let long = json!({"name": "k", "algorithm": "hmac-md5.sig-alg.reg.int", "key": {"env": "K"}});
    assert!(build(json!({"server": "ns1.example.com", "tsig": long})).is_ok(), "its name on the wire");
}

#[tokio::test]
async fn a_key_that_is_none_says_where_it_is() {
    let folder = temporary_folder("key");
    let file = folder.path().join("key");
    let settings = json!({"server": "127.0.0.1", "tsig": {"name": "k", "key": {"file": file}}});
    let provider = build(settings).expect("the file is read when it is needed");
    let error = apply(&*provider, change("a.example.test", &["v"], &[])).await.expect_err("no file");
    assert!(matches!(&error, Error::Auth(text) if text.contains("cannot be read")), "{error}");
    acmegate_tests::write(&file, "se$cret");
    let error = read(&*provider, "a.example.test").await.expect_err("no base64");
    assert!(matches!(&error, Error::Auth(text) if text.contains("not base64") && !text.contains("se$cret")), "{error}");
}
