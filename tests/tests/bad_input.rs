//! Input that nobody should send, at every HTTP door: each gets one clear refusal or a closed connection, the process stays well, and all that was
//! acknowledged before is answered after.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use acmegate_tests::{
    acmedns::{Account, register, update, value},
    acmegate::{Acmegate, Config},
    dns,
    http::{Connection, Response, request},
    skip,
    wait::{LIMIT, bounded},
    webhook::EVERYTHING,
};
use hickory_proto::rr::RecordType;
use reqwest::Client;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::interval,
};

const ZONE: &str = "auth.example.org";
const RESOURCE: &str = "/apis/acme.acmegate.io/v1alpha1/acmegate";

// --- HTTP that is none.

#[tokio::test]
async fn malformed_http_is_refused_and_harms_nobody() {
    let gateway = Gateway::start().await;
    let long = |length| "x".repeat(length);
    let fields = |count| (0..count).map(|n| format!("X-Field-{n}: 1\r\n")).collect::<String>();
    let broken: Vec<Vec<u8>> = vec![
        b"\0".repeat(100),
        b"\r\n\r\n\r\n\r\n\r\nGARBAGE\r\n\r\n".to_vec(),
        (0..=255).cycle().take(4096).collect(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"GET /healthz\r\n\r\n".to_vec(),
        b"GET /healthz HTTP/9.9\r\nHost: x\r\n\r\n".to_vec(),
        b"GET /healthz HTTP/1.1 extra\r\nHost: x\r\n\r\n".to_vec(),
        b"G\x01T /healthz HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"GET /a\x00b HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"GET /healthz HTTP/1.1\r\nHost x\r\n\r\n".to_vec(),
        b"GET /healthz HTTP/1.1\r\nBad Name: x\r\n\r\n".to_vec(),
        b"GET /healthz HTTP/1.1\r\nX: a\x00b\r\n\r\n".to_vec(),
        b"GET /healthz HTTP/1.1\r\nX: a\r\n folded\r\n\r\n".to_vec(),
        b"POST /update HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n".to_vec(),
        b"POST /update HTTP/1.1\r\nHost: x\r\nContent-Length: 5x\r\n\r\nhello".to_vec(),
        b"POST /update HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n".to_vec(),
        b"POST /update HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello".to_vec(),
        b"POST /update HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\nhello".to_vec(),
        format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", long(70_000)).into_bytes(),
        format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", long(20_000)).into_bytes(),
        format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{}: 1\r\n\r\n", long(20_000)).into_bytes(),
        format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{}\r\n", fields(500)).into_bytes(),
    ];
    for door in DOORS {
        for bytes in &broken {
            let mut connection = gateway.open(door).await;
            let reply = connection.exchange(bytes).await;
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
            match reply {
                Ok(None) | Err(_) => {}
                Ok(Some(reply)) => assert!((400..500).contains(&reply.status), "{door:?}: {} to {shown:?}", reply.status),
            }
        }
        gateway.is_well().await;
    }
}

/// Two readings of where a body ends let one request hide in another: it must not be answered as two.
#[tokio::test]
async fn a_request_cannot_hide_in_another() {
    let gateway = Gateway::start().await;
    let hidden = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    let smuggled = [
        format!(
            "POST /update HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}",
            5 + hidden.len()
        ),
        format!(
            "POST /update HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\nContent-Length: {}\r\n\r\n{hidden}",
            hidden.len()
        ),
        format!("POST /update HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len()),
        format!("POST /update HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{hidden}"),
        format!("POST /update HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n{hidden}"),
        format!("POST /update HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n{hidden}"),
    ];
    for bytes in &smuggled {
        let mut connection = gateway.open(Door::Metrics).await;
        let _ = connection.send(bytes.as_bytes()).await;
        let _ = connection.finish().await;
        let mut replies = Vec::new();
        while let Ok(Some(reply)) = connection.response().await {
            replies.push(reply);
        }
        assert!(replies.len() <= 1, "{bytes:?} was answered as {} requests", replies.len());
        assert!(replies.iter().all(|reply| reply.status >= 400), "{bytes:?}: {replies:?}");
    }
    gateway.is_well().await;
}

// --- JSON that is none, or too much of it.

#[tokio::test]
async fn malformed_and_deep_json_is_refused() {
    let gateway = Gateway::start().await;
    let account = &gateway.account;
    let mut bodies: Vec<Vec<u8>> = [
        "",
        " ",
        "{",
        "}",
        "[",
        "nul",
        "nullnull",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{'a':1}",
        "[1,]",
        "01",
        "1e",
        "\"",
        "\"\\x\"",
        "\"\\ud800\"",
        "{\"subdomain\":1e999999}",
        "{\"subdomain\":[],\"txt\":{}}",
        "\u{feff}{}",
        "// comment",
        "{\"a\":\u{1}\"x\"}",
    ]
    .iter()
    .map(|body| body.as_bytes().to_vec())
    .collect();
    bodies.push(b"{\"subdomain\":\"\xff\xfe\"}".to_vec());
    bodies.push(b"\"\x00\"".to_vec());
    for depth in [100, 1_000, 10_000, 30_000] {
        bodies.push(b"[".repeat(depth));
        bodies.push([b"[".repeat(depth), b"]".repeat(depth)].concat());
        bodies.push(["{\"a\":".repeat(depth / 3), "}".repeat(depth / 3)].concat().into_bytes());
    }
    bodies.push(format!("{{\"subdomain\":\"{}\"}}", "x".repeat(60_000)).into_bytes());
    bodies.push(format!("{{{}\"a\":1}}", "\"a\":1,".repeat(10_000)).into_bytes());
    bodies.push(format!("[{}1]", "1,".repeat(30_000)).into_bytes());
    let (user, key) = (format!("X-Api-User: {}", account.username), format!("X-Api-Key: {}", account.password));
    for body in &bodies {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let reply = gateway.exchange(Door::AcmeDns, &request("POST", "/update", &[&user, &key], body)).await;
        assert_eq!((reply.status, reply.text().as_str()), (401, "{\"error\": \"forbidden\"}"), "{shown:?}");
        let reply = gateway.exchange(Door::AcmeDns, &request("POST", "/register", &[], body)).await;
        assert!(matches!(reply.status, 201 | 400), "{shown:?}: {reply:?}");
        let reply = gateway.exchange(Door::Webhook, &request("POST", RESOURCE, &["Content-Type: application/json"], body)).await;
        assert_eq!(reply.status, 400, "{shown:?}: {reply:?}");
        assert!(reply.body.len() < 1000, "an error is short: {}", reply.text());
    }
    gateway.is_well().await;
}

// --- Bodies that are too large.

#[tokio::test]
async fn oversized_bodies_are_refused_before_they_are_read() {
    let gateway = Gateway::start().await;
    let keys = format!("X-Api-User: {}\r\nX-Api-Key: {}\r\n", gateway.account.username, gateway.account.password);
    let json = "Content-Type: application/json\r\n";
    for (door, path, headers, size, status) in [
        (Door::AcmeDns, "/register", "", 65 * 1024, 413),
        (Door::AcmeDns, "/update", keys.as_str(), 65 * 1024, 413),
        (Door::AcmeDns, "/update", keys.as_str(), 4 << 30, 413),
        // Who may not come in has no body read at all.
        (Door::AcmeDns, "/update", "", 4 << 30, 401),
        (Door::Webhook, RESOURCE, json, (3 << 20) + 1, 413),
        (Door::Webhook, RESOURCE, json, 4 << 30, 413),
    ] {
        let announced = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {size}\r\n\r\n");
        let reply = gateway.exchange(door, announced.as_bytes()).await;
        assert_eq!(reply.status, status, "{door:?} {path}, {size} bytes announced: {reply:?}");
        let mut connection = gateway.open(door).await;
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Transfer-Encoding: chunked\r\n\r\n");
        let reply = flood(&mut connection, &head, size.min(8 << 20)).await;
        assert!(reply.as_ref().is_none_or(|reply| reply.status == status), "{door:?} {path}, {size} bytes in chunks: {reply:?}");
    }
    let expecting = format!("POST /update HTTP/1.1\r\nHost: localhost\r\n{keys}Expect: 100-continue\r\nContent-Length: 10000000\r\n\r\n");
    assert_eq!(gateway.exchange(Door::AcmeDns, expecting.as_bytes()).await.status, 413, "and never 100 Continue");
    gateway.is_well().await;
}

/// Memory is bounded: what clients send without end is not gathered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_bodies_is_not_gathered() {
    const SENDERS: usize = 64;
    const EACH: u64 = 4 << 20;
    let gateway = Arc::new(Gateway::start().await);
    let before = gateway.resident();
    let mut senders = JoinSet::new();
    for number in 0..SENDERS {
        let gateway = Arc::clone(&gateway);
        senders.spawn(async move {
            let (door, path) = [(Door::AcmeDns, "/register"), (Door::Webhook, RESOURCE), (Door::Metrics, "/metrics")][number % 3];
            let mut connection = gateway.open(door).await;
            flood(&mut connection, &format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"), EACH).await;
        });
    }
    senders.join_all().await;
    let grown = gateway.resident().saturating_sub(before);
    assert!(grown < SENDERS as u64 * EACH / 4, "{SENDERS} clients sent {EACH} bytes each, and {grown} of them are still here");
    gateway.is_well().await;
}

// --- Clients that hold on.

/// Slow senders of every kind, all at once: each is cut off by the server's own limits, and nobody else waits for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_senders_are_cut_off_and_hold_nobody_up() {
    let gateway = Gateway::start().await;
    let keys = format!("X-Api-User: {}\r\nX-Api-Key: {}\r\n", gateway.account.username, gateway.account.password);
    let half_body =
        |path: &str| format!("POST {path} HTTP/1.1\r\nHost: x\r\n{keys}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{");
    let half_head = "POST /update HTTP/1.1\r\nHost: x\r\nX-Slow: ".to_owned();
    let mut slow = JoinSet::new();
    for door in DOORS {
        for _ in 0..4 {
            for sent in [String::new(), half_head.clone()] {
                let mut connection = gateway.open(door).await;
                connection.send(sent.as_bytes()).await.expect("it takes the beginning");
                slow.spawn(async move { cut_off(connection, None).await });
                let mut connection = gateway.open(door).await;
                connection.send(sent.as_bytes()).await.expect("it takes the beginning");
                slow.spawn(async move { cut_off(connection, Some(b"x")).await });
            }
        }
    }
    for (door, path) in [(Door::AcmeDns, "/update"), (Door::AcmeDns, "/register"), (Door::Webhook, RESOURCE)] {
        for trickle in [None, Some(&b" "[..])] {
            let mut connection = gateway.open(door).await;
            connection.send(half_body(path).as_bytes()).await.expect("it takes the beginning");
            slow.spawn(async move {
                let reply = cut_off(connection, trickle).await;
                assert!(reply.as_ref().is_some_and(|reply| reply.status == 408), "{path}: 408, it is said once: {reply:?}");
                reply
            });
        }
    }
    for bytes in [&b""[..], b"\x16\x03\x01\x02\x00"] {
        let mut stream = TcpStream::connect(gateway.acmegate.door("webhook")).await.expect("it listens");
        stream.write_all(bytes).await.expect("it takes the beginning");
        slow.spawn(async move {
            // The TLS handshake never comes: the end does.
            let _ = stream.read_to_end(&mut Vec::new()).await;
            None
        });
    }
    // Meanwhile the door is open for everybody else.
    let client = Client::new();
    let base = gateway.acmegate.url("acmedns", "");
    let mut updates = 0;
    let first = loop {
        match slow.try_join_next() {
            Some(ended) => break ended,
            None => update(&client, &base, &gateway.account, &value(updates % 8)).await.expect("others are served"),
        }
        updates += 1;
    };
    first.expect("it is cut off in time");
    while let Some(ended) = bounded("the last slow sender to be cut off", slow.join_next()).await {
        ended.expect("each is cut off in time");
    }
    assert!(updates > 10, "only {updates} updates while slow senders were about");
    gateway.is_well().await;
}

/// More connections than a door takes, all idle, at every door: the next client is served all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_do_not_close_the_doors() {
    const IDLE: usize = 4200;
    if !may_open(IDLE as u64 + 1000) {
        return skip("this test needs more file descriptors than the system allows it");
    }
    let gateway = Gateway::start().await;
    let mut idle = Vec::with_capacity(IDLE + 400);
    for number in 0..IDLE {
        idle.push(TcpStream::connect(gateway.acmegate.door("acmedns")).await.unwrap_or_else(|e| panic!("idle connection {number}: {e}")));
    }
    for _ in 0..200 {
        idle.push(TcpStream::connect(gateway.acmegate.door("metrics")).await.expect("it listens"));
        idle.push(TcpStream::connect(gateway.acmegate.door("webhook")).await.expect("it listens"));
    }
    gateway.is_well().await;
    drop(idle);
    gateway.is_well().await;
}

/// The DNS door over TCP: one address may hold so many connections, others are served, and so is UDP.
#[tokio::test]
async fn idle_dns_connections_do_not_keep_others_out() {
    let gateway = Gateway::start().await;
    let server = gateway.acmegate.door("dns-tcp");
    let query = dns::query(&gateway.account.fulldomain, RecordType::TXT).to_vec().expect("a query encodes");
    let from = async |address: Ipv4Addr| -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(IpAddr::V4(address), 0))?;
        socket.connect(server).await
    };
    let mut idle = Vec::new();
    for _ in 0..300 {
        let mut stream = from(Ipv4Addr::LOCALHOST).await.expect("it listens");
        // Half a frame, the length of a message that never comes.
        let _ = stream.write_all(&[0]).await;
        idle.push(stream);
    }
    let mut other = from(Ipv4Addr::new(127, 0, 0, 3)).await.expect("it listens");
    dns::write_framed(&mut other, &query).await.expect("it takes a query");
    let reply = bounded("a reply over TCP", dns::read_framed(&mut other)).await.expect("DNS");
    assert!(reply.is_some_and(|reply| reply.len() > query.len()), "another address is served");
    assert!(dns::udp(server, &query, LIMIT).await.expect("UDP is served").is_some());
    drop(idle);
    gateway.is_well().await;
}

// --- Names.

#[tokio::test]
async fn names_that_cannot_be_are_refused_with_a_reason() {
    let gateway = Gateway::start().await;
    let label = |length| "x".repeat(length);
    let names = [
        String::new(),
        ".".into(),
        "..".into(),
        format!(".{ZONE}."),
        format!("a..b.{ZONE}."),
        format!("{}.{ZONE}.", label(64)),
        format!("{}.{ZONE}.", [label(63), label(63), label(63), label(63)].join(".")),
        format!("ü.{ZONE}."),
        format!("a\\300.{ZONE}."),
        format!("a b.{ZONE}.\n"),
        format!("a\u{0}b.{ZONE}."),
        label(100_000),
        "_acme-challenge.example.com.".into(),
        "org.".into(),
        format!("not{ZONE}."),
        format!("{ZONE}.example.com."),
    ];
    for name in names {
        let shown: String = name.chars().take(80).collect();
        let body = json!({"request": {
            "uid": "", "action": "Present", "type": "dns-01", "dnsName": "example.com", "key": value(1), "resourceNamespace": "ns",
            "resolvedFQDN": name, "resolvedZone": ZONE, "allowAmbientCredentials": false,
        }});
        let post = request("POST", RESOURCE, &["Content-Type: application/json"], body.to_string().as_bytes());
        let first = gateway.exchange(Door::Webhook, &post).await;
        let reply: Value = serde_json::from_slice(&first.body).expect("JSON");
        let message = reply["response"]["status"]["message"].as_str().unwrap_or_default();
        assert_eq!((first.status, &reply["response"]["success"]), (201, &json!(false)), "{shown:?}: {message}");
        assert!(!message.is_empty() && message.len() < 500 && !message.contains('\0'), "{shown:?}: {message:?}");
        assert_eq!(gateway.exchange(Door::Webhook, &post).await.body, first.body, "the same bytes each time");
    }
    // At the acme-dns door names are not chosen; what pretends to be one is another account's subdomain.
    let account = &gateway.account;
    let (user, key) = (format!("X-Api-User: {}", account.username), format!("X-Api-Key: {}", account.password));
    let upper = account.subdomain.to_uppercase();
    for subdomain in
        ["", ".", "*", "ns1", "ü", "..", "a.b", "\u{0}", &account.fulldomain, &label(300), &format!("{} ", account.subdomain), &upper]
    {
        let body = json!({"subdomain": subdomain, "txt": value(1)}).to_string();
        let reply = gateway.exchange(Door::AcmeDns, &request("POST", "/update", &[&user, &key], body.as_bytes())).await;
        assert_eq!((reply.status, reply.text().as_str()), (401, "{\"error\": \"forbidden\"}"), "{subdomain:?}");
    }
    for bytes in [&b"\xff\xfe"[..], b"a\x80b", b"\xc3\xbc"] {
        let head =
            [&b"POST /update HTTP/1.1\r\nHost: x\r\nX-Api-User: "[..], bytes, b"\r\nX-Api-Key: ", bytes, b"\r\nContent-Length: 0\r\n\r\n"]
                .concat();
        assert_eq!(gateway.exchange(Door::AcmeDns, &head).await.status, 401);
    }
    for path in ["/%00", "/%ff%fe/update", "/../update/..", "/update%2f", "//", "/update?x=%zz", "/..%2f..%2fetc%2fpasswd"] {
        for door in DOORS {
            let status = gateway.exchange(door, &request("GET", path, &[], b"")).await.status;
            assert!(matches!(status, 404 | 405), "{door:?} {path}: {status}");
        }
    }
    gateway.is_well().await;
}

// --- What they share.

#[derive(Debug, Clone, Copy)]
enum Door {
    AcmeDns,
    Webhook,
    Metrics,
}

const DOORS: [Door; 3] = [Door::AcmeDns, Door::Webhook, Door::Metrics];

/// acmegate with every HTTP door open, an account, and values that were acknowledged before anything bad came.
struct Gateway {
    acmegate: Acmegate,
    certificate: CertificateDer<'static>,
    account: Account,
    /// Nobody touches these values.
    kept: Account,
    _folder: TempDir,
}

impl Gateway {
    async fn start() -> Self {
        let folder = acmegate_tests::temporary_folder("bad-input");
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
        acmegate_tests::write(&chain, &made.cert.pem());
        acmegate_tests::write(&key, &made.signing_key.serialize_pem());
        let webhook = format!("listen: \"127.0.0.1:0\"\ntls: {{ certificate: {chain:?}, key: {key:?} }}\n{EVERYTHING}");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = Config::new().dns(any).zone_with(ZONE, "ns1.auth.example.org", &["ns1.auth.example.org. 3600 A 198.51.100.1"]);
        let acmegate = Acmegate::started(config.acmedns().metrics().section("webhook", &webhook)).await;
        let (client, base) = (Client::new(), acmegate.url("acmedns", ""));
        let account = register(&client, &base).await.expect("it registers");
        let kept = register(&client, &base).await.expect("it registers");
        for seed in 0..8 {
            update(&client, &base, &kept, &value(seed)).await.expect("it updates");
        }
        update(&client, &base, &account, &value(0)).await.expect("it updates");
        Self { acmegate, certificate: made.cert.der().clone(), account, kept, _folder: folder }
    }

    async fn open(&self, door: Door) -> Connection {
        let opened = match door {
            Door::AcmeDns => Connection::open(self.acmegate.door("acmedns")).await,
            Door::Webhook => Connection::open_tls(self.acmegate.door("webhook"), &self.certificate).await,
            Door::Metrics => Connection::open(self.acmegate.door("metrics")).await,
        };
        opened.unwrap_or_else(|e| panic!("{door:?} is open no more: {e}"))
    }

    async fn exchange(&self, door: Door, bytes: &[u8]) -> Response {
        let reply = self.open(door).await.exchange(bytes).await;
        let shown = || String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        reply
            .unwrap_or_else(|e| panic!("{door:?}: {e} after {:?}", shown()))
            .unwrap_or_else(|| panic!("{door:?}: no reply to {:?}", shown()))
    }

    /// All doors are served, what was acknowledged is answered, new values are taken, and nothing has panicked.
    async fn is_well(&self) {
        for (door, path) in
            [(Door::AcmeDns, "/health"), (Door::Webhook, "/healthz"), (Door::Metrics, "/healthz"), (Door::Metrics, "/readyz")]
        {
            let reply = self.exchange(door, &request("GET", path, &[], b"")).await;
            assert_eq!(reply.status, 200, "{door:?} {path}: {reply:?}");
        }
        let kept: BTreeSet<_> = (0..8).map(value).collect();
        assert_eq!(dns::txt(self.acmegate.dns(), &self.kept.fulldomain).await, kept, "what was acknowledged before is answered");
        let (client, base) = (Client::new(), self.acmegate.url("acmedns", ""));
        update(&client, &base, &self.account, &value(1_000)).await.expect("new values are taken");
        assert!(dns::txt(self.acmegate.dns(), &self.account.fulldomain).await.contains(&value(1_000)));
        let log = self.acmegate.process().stderr();
        assert!(!log.contains("panicked"), "something panicked");
        assert!(!log.contains(&self.account.password), "a secret stands in the log");
    }

    /// Resident memory in bytes.
    fn resident(&self) -> u64 {
        let file = format!("/proc/{}/status", self.acmegate.process().id());
        let status = std::fs::read_to_string(file).expect("the process is there");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }
}

/// Raises the limit on file descriptors of this program as far as needed, if that is allowed.
fn may_open(files: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    let allowed = limit.maximum.is_none_or(|maximum| maximum >= files);
    limit.current.is_none_or(|current| current >= files)
        || allowed && setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum: limit.maximum }).is_ok()
}

/// Sends a body of `size` bytes in chunks until it is all sent or the server has had enough, and gives what the server said, if that could be read.
async fn flood(connection: &mut Connection, head: &str, size: u64) -> Option<Response> {
    let data = vec![b' '; 64 * 1024];
    let chunk = [format!("{:x}\r\n", data.len()).as_bytes(), &data, b"\r\n"].concat();
    let all = async {
        connection.send(head.as_bytes()).await?;
        for _ in 0..size.div_ceil(data.len() as u64) {
            connection.send(&chunk).await?;
        }
        connection.send(b"0\r\n\r\n").await
    };
    let sent: io::Result<()> = bounded("the server to take or refuse a body", all).await;
    match (connection.response().await, sent) {
        (Ok(reply), _) => reply,
        // The refusal may be lost when the server closes while we still send (RFC 9112, 9.6).
        (Err(_), _) => None,
    }
}

/// Waits until the server ends the connection, sending a few bytes now and then if there are any; gives what it said.
async fn cut_off(mut connection: Connection, trickle: Option<&[u8]>) -> Option<Response> {
    let Some(bytes) = trickle else { return connection.response().await.ok().flatten() };
    let mut pace = interval(Duration::from_secs(1));
    for _ in 0..LIMIT.as_secs() {
        pace.tick().await;
        if connection.is_over() || connection.send(bytes).await.is_err() {
            return connection.response().await.ok().flatten();
        }
    }
    panic!("a slow sender is still there after {} s", LIMIT.as_secs())
}
