//! The acme-dns door over the wire: what its clients really send, byte for byte, and what the original answers to it.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use acmegate_tests::{
    acmedns::{Account, value},
    acmegate::{Acmegate, Config},
    dns,
    http::{self, Connection, Response, request},
    wait::until,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hickory_proto::{
    op::ResponseCode,
    rr::{RData, RecordType},
};
use regex::Regex;

const ZONE: &str = "auth.example.org";

// --- What the clients send.

/// A client's two requests; `{user}`, `{key}`, `{subdomain}`, `{txt}` and `{length}` of the body stand for what changes.
struct Client {
    name: &'static str,
    register: Option<(&'static str, &'static str)>,
    update: (&'static str, &'static str),
}

const CLIENTS: &[Client] = &[
    Client {
        name: "lego 4 and 5 (goacmedns)",
        register: Some((
            "POST /register HTTP/1.1\r\nHost: localhost\r\nUser-Agent: goacmedns (linux; amd64)\r\nContent-Length: {length}\r\nAccept: application/json\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n",
            "null\n",
        )),
        update: (
            "POST /update HTTP/1.1\r\nHost: localhost\r\nUser-Agent: goacmedns (linux; amd64)\r\nContent-Length: {length}\r\nAccept: application/json\r\nContent-Type: application/json\r\nX-Api-Key: {key}\r\nX-Api-User: {user}\r\nAccept-Encoding: gzip\r\n\r\n",
            "{\"subdomain\":\"{subdomain}\",\"txt\":\"{txt}\"}\n",
        ),
    },
    Client {
        name: "lego with allowfrom",
        register: Some((
            "POST /register HTTP/1.1\r\nHost: localhost\r\nUser-Agent: goacmedns (linux; amd64)\r\nContent-Length: {length}\r\nAccept: application/json\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n",
            "{\"allowfrom\":[\"127.0.0.0/8\"]}\n",
        )),
        update: (
            "POST /update HTTP/1.1\r\nHost: localhost\r\nUser-Agent: goacmedns (linux; amd64)\r\nContent-Length: {length}\r\nAccept: application/json\r\nContent-Type: application/json\r\nX-Api-Key: {key}\r\nX-Api-User: {user}\r\nAccept-Encoding: gzip\r\n\r\n",
            "{\"subdomain\":\"{subdomain}\",\"txt\":\"{txt}\"}\n",
        ),
    },
    Client {
        name: "Caddy (libdns/acmedns)",
        register: None,
        update: (
            "POST /update HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: {length}\r\nContent-Type: application/json\r\nX-Api-Key: {key}\r\nX-Api-User: {user}\r\nAccept-Encoding: gzip\r\n\r\n",
            "{\"subdomain\":\"{subdomain}\",\"txt\":\"{txt}\"}",
        ),
    },
    Client {
        name: "acme.sh (curl)",
        register: Some((
            "POST /register HTTP/1.1\r\nHost: localhost\r\nUser-Agent: acme.sh/3.1.4 (https://github.com/acmesh-official/acme.sh)\r\nAccept: */*\r\nContent-Length: 0\r\n\r\n",
            "",
        )),
        update: (
            "POST /update HTTP/1.1\r\nHost: localhost\r\nUser-Agent: acme.sh/3.1.4 (https://github.com/acmesh-official/acme.sh)\r\nAccept: */*\r\nX-Api-User: {user}\r\nX-Api-Key: {key}\r\nContent-Length: {length}\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n",
            "{\"subdomain\":\"{subdomain}\", \"txt\": \"{txt}\"}",
        ),
    },
    Client {
        name: "Posh-ACME (PowerShell), with Basic authentication beside",
        register: Some((
            "POST /register HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic dXNlcjpwYXNz\r\nUser-Agent: Posh-ACME/4.29 PowerShell/7.5\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: {length}\r\n\r\n",
            "{}",
        )),
        update: (
            "POST /update HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic dXNlcjpwYXNz\r\nX-Api-Key: {key}\r\nX-Api-User: {user}\r\nUser-Agent: Posh-ACME/4.29 PowerShell/7.5\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: {length}\r\n\r\n",
            "{\"subdomain\":\"{subdomain}\",\"txt\":\"{txt}\"}",
        ),
    },
    Client {
        name: "simple-acme (.NET), Basic authentication from the URL",
        register: Some((
            "POST /register HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic dXNlcjpwYXNz\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 0\r\n\r\n",
            "",
        )),
        update: (
            "POST /update HTTP/1.1\r\nHost: localhost\r\nX-Api-User: {user}\r\nX-Api-Key: {key}\r\nAuthorization: Basic dXNlcjpwYXNz\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: {length}\r\n\r\n",
            "{\"subdomain\":\"{subdomain}\",\"txt\":\"{txt}\"}",
        ),
    },
    Client {
        name: "pyacmedns and the certbot plugins (requests)",
        register: Some((
            "POST /register HTTP/1.1\r\nHost: localhost\r\nUser-Agent: python-requests/2.34.2\r\nAccept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
            "",
        )),
        update: (
            "POST /update HTTP/1.1\r\nHost: localhost\r\nUser-Agent: python-requests/2.34.2\r\nAccept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\nX-Api-User: {user}\r\nX-Api-Key: {key}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n",
            "{\"subdomain\": \"{subdomain}\", \"txt\": \"{txt}\"}",
        ),
    },
    Client {
        name: "pyacmedns with allowfrom and no Content-Type",
        register: Some((
            "POST /register HTTP/1.1\r\nHost: localhost\r\nUser-Agent: python-requests/2.34.2\r\nAccept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\nContent-Length: {length}\r\n\r\n",
            "{\"allowfrom\": [\"127.0.0.0/8\"]}",
        )),
        update: (
            "POST /update HTTP/1.1\r\nHost: localhost\r\nUser-Agent: python-requests/2.34.2\r\nConnection: keep-alive\r\nX-Api-User: {user}\r\nX-Api-Key: {key}\r\nContent-Length: {length}\r\n\r\n",
            "{\"txt\": \"{txt}\", \"subdomain\": \"{subdomain}\"}",
        ),
    },
    Client {
        name: "a client that sends its body in chunks",
        register: Some(("POST /register HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n", "2\r\n{}\r\n0\r\n\r\n")),
        update: (
            "POST /update HTTP/1.1\r\nhost: localhost\r\nx-api-user: {user}\r\nx-api-key: {key}\r\ntransfer-encoding: chunked\r\n\r\n",
            "3b\r\n{\"subdomain\":\"{subdomain}\",\"txt\":\"\r\n2d\r\n{txt}\"}\r\n0\r\n\r\n",
        ),
    },
];

#[tokio::test]
async fn every_client_is_answered_as_by_the_original() {
    let acmegate = Acmegate::started(config("")).await;
    let door = acmegate.door("acmedns");
    for (number, client) in (0..).zip(CLIENTS) {
        let account = match client.register {
            Some((head, body)) => {
                let head = head.replace("{length}", &body.len().to_string());
                let reply = exchange(door, format!("{head}{body}").as_bytes()).await;
                registered(&reply, if body.contains("allowfrom") { r#"["127.0.0.0/8"]"# } else { "[]" })
            }
            None => register(door).await,
        };
        let txt = value(number);
        let (head, body) = client.update;
        let fill = |text: &str| {
            let text = text.replace("{user}", &account.username).replace("{key}", &account.password);
            text.replace("{subdomain}", &account.subdomain).replace("{txt}", &txt)
        };
        let body = fill(body);
        let head = fill(head).replace("{length}", &body.len().to_string());
        let reply = exchange(door, format!("{head}{body}").as_bytes()).await;
        assert_eq!(acknowledged(&reply), format!("{{\"txt\": \"{txt}\"}}"), "{}", client.name);
        assert_eq!(dns::txt(acmegate.dns(), &account.fulldomain).await, BTreeSet::from([txt]), "{}", client.name);
    }
}

// --- What the original answers.

#[tokio::test]
async fn replies_are_those_of_the_original() {
    let acmegate = Acmegate::started(config("prefixes: [/, /secret/acme-dns]")).await;
    let door = acmegate.door("acmedns");
    for body in [
        "",
        "{}",
        "null",
        "null\n",
        " \n{} ",
        "{\"unknown\":[1,{\"a\":null}]}",
        "{\"allowfrom\":[]}",
        "{\"allowfrom\":null}",
        "{\"AllowFrom\":[]}",
    ] {
        let reply = exchange(door, &request("POST", "/register", &["Content-Type: x/y"], body.as_bytes())).await;
        registered(&reply, "[]");
    }
    let nets = r#"["192.0.2.0/24","2001:db8::/32"]"#;
    for key in ["allowfrom", "ALLOWFROM", "allowFrom"] {
        let reply = exchange(door, &request("POST", "/register", &[], format!("{{\"{key}\":{nets}}}").as_bytes())).await;
        registered(&reply, nets);
    }

    let json = "application/json";
    let text = "text/plain; charset=utf-8";
    let malformed = "{\"error\": \"malformed_json_payload\"}";
    let bad_net = "{\"error\": \"invalid_allowfrom_cidr\"}";
    let missing = "404 page not found\n";
    let cases: &[(&str, &str, &str, u16, &str, &str)] = &[
        ("POST", "/register", "{", 400, json, malformed),
        ("POST", "/register", "{} x", 400, json, malformed),
        ("POST", "/register", "[]", 400, json, malformed),
        ("POST", "/register", "\"x\"", 400, json, malformed),
        ("POST", "/register", "{\"allowfrom\":\"10.0.0.0/8\"}", 400, json, malformed),
        ("POST", "/register", "{\"allowfrom\":[1]}", 400, json, malformed),
        ("POST", "/register", "{\"allowfrom\":[\"10.0.0.1\"]}", 400, json, bad_net),
        ("POST", "/register", "{\"allowfrom\":[\"\"]}", 400, json, bad_net),
        ("POST", "/register", "{\"allowfrom\":[\"10.0.0.0/8\",\"10.0.0.0/33\"]}", 400, json, bad_net),
        ("POST", "/update", "", 401, json, "{\"error\": \"forbidden\"}"),
        ("GET", "/health", "", 200, "", ""),
        ("GET", "/secret/acme-dns/health", "", 200, "", ""),
        ("GET", "/", "", 404, text, missing),
        ("GET", "/nowhere", "", 404, text, missing),
        ("POST", "/secret/register", "", 404, text, missing),
        ("POST", "/secret/acme-dn/register", "", 404, text, missing),
        ("POST", "/register2", "", 404, text, missing),
        ("GET", "/register", "", 405, text, "Method Not Allowed\n"),
        ("DELETE", "/update", "", 405, text, "Method Not Allowed\n"),
        ("PUT", "/update", "", 405, text, "Method Not Allowed\n"),
        ("POST", "/health", "", 405, text, "Method Not Allowed\n"),
    ];
    for &(method, path, body, status, content_type, expected) in cases {
        let reply = exchange(door, &request(method, path, &[], body.as_bytes())).await;
        let got = (reply.status, reply.header("content-type"), reply.text());
        assert_eq!(got, (status, content_type, expected.to_owned()), "{method} {path} {body}");
    }
    assert_eq!(exchange(door, &request("GET", "/update", &[], b"")).await.header("allow"), "OPTIONS, POST");

    // The whole API under the other prefix.
    let reply = exchange(door, &request("POST", "/secret/acme-dns/register", &[], b"")).await;
    let account = registered(&reply, "[]");
    let reply = exchange(door, &update_at("/secret/acme-dns/update", &account, &value(1))).await;
    assert_eq!(acknowledged(&reply), format!("{{\"txt\": \"{}\"}}", value(1)));
}

/// Many requests over one connection, and no account like another.
#[tokio::test]
async fn accounts_are_random_and_connections_are_kept() {
    let acmegate = Acmegate::started(config("")).await;
    let mut connection = Connection::open(acmegate.door("acmedns")).await.expect("the door listens");
    let mut secrets = HashSet::new();
    for _ in 0..50 {
        let reply = connection.exchange(&request("POST", "/register", &[], b"")).await.expect("HTTP").expect("a response");
        let account = registered(&reply, "[]");
        for secret in [account.username, account.subdomain, account.password] {
            assert!(secrets.insert(secret), "a secret came twice");
        }
    }
}

// --- The order of the checks.

/// What can be wrong with an update, in the order in which the original looks.
const DEFECTS: [&str; 7] = ["user", "key", "account", "allowfrom", "json", "subdomain", "txt"];

/// Every combination of defects: all but the last are `forbidden`, and the last alone is `bad_txt`.
#[tokio::test]
async fn every_combination_of_defects_is_answered_by_the_first() {
    let acmegate = Acmegate::started(config("")).await;
    let door = acmegate.door("acmedns");
    let friend = register(door).await;
    let reply = exchange(door, &request("POST", "/register", &[], br#"{"allowfrom":["192.0.2.0/24"]}"#)).await;
    let stranger = registered(&reply, r#"["192.0.2.0/24"]"#);
    for combination in 0..1 << DEFECTS.len() {
        let has = |defect: &str| DEFECTS.iter().position(|known| *known == defect).is_some_and(|bit| combination >> bit & 1 == 1);
        let account = if has("allowfrom") { &stranger } else { &friend };
        let user = if has("user") { "not-a-uuid" } else { &account.username };
        let wrong_key = "w".repeat(40);
        let key = match (has("key"), has("account")) {
            (true, _) => &account.password[..39],
            (false, true) => &wrong_key,
            (false, false) => &account.password,
        };
        let subdomain = if has("subdomain") { &acmegate_tests::acmedns::value(0)[..36] } else { &account.subdomain };
        let txt = if has("txt") { value(1).replace('1', "!") } else { value(1) };
        let end = if has("json") { "" } else { "}" };
        let body = format!("{{\"subdomain\":\"{subdomain}\",\"txt\":\"{txt}\"{end}");
        let headers = [format!("X-Api-User: {user}"), format!("X-Api-Key: {key}")];
        let reply = exchange(door, &request("POST", "/update", &headers.each_ref().map(String::as_str), body.as_bytes())).await;
        let expected = match DEFECTS.iter().find(|defect| has(defect)) {
            None => (200, format!("{{\"txt\": \"{txt}\"}}")),
            Some(&"txt") => (400, "{\"error\": \"bad_txt\"}".to_owned()),
            Some(_) => (401, "{\"error\": \"forbidden\"}".to_owned()),
        };
        let defects: Vec<_> = DEFECTS.iter().filter(|defect| has(defect)).collect();
        assert_eq!((reply.status, reply.text()), expected, "{defects:?}");
        assert_eq!(reply.header("content-type"), "application/json", "{defects:?}");
    }
}

#[tokio::test]
async fn values_have_43_characters_of_base64url() {
    let acmegate = Acmegate::started(config("")).await;
    let door = acmegate.door("acmedns");
    let account = register(door).await;
    let good = "_-AZaz09".to_owned() + &"x".repeat(35);
    assert_eq!(exchange(door, &update(&account, &good)).await.status, 200);
    for bad in [
        "".to_owned(),
        "x".repeat(42),
        "x".repeat(44),
        "x".repeat(42) + "=",
        "x".repeat(42) + "+",
        "x".repeat(42) + " ",
        "x".repeat(41) + "é",
    ] {
        let reply = exchange(door, &update(&account, &bad)).await;
        assert_eq!((reply.status, reply.text().as_str()), (400, "{\"error\": \"bad_txt\"}"), "{bad:?}");
    }
    assert_eq!(dns::txt(acmegate.dns(), &account.fulldomain).await, BTreeSet::from([good]), "nothing else was stored");
}

// --- Who may come.

const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

#[tokio::test]
async fn allowfrom_counts_the_peer_and_believes_no_header() {
    let acmegate = Acmegate::started(config("")).await;
    let door = acmegate.door("acmedns");
    let here = register_from(door, r#"["127.0.0.1/32"]"#).await;
    let elsewhere = register_from(door, r#"["192.0.2.0/24","2001:db8::/32"]"#).await;
    let forged = ["X-Forwarded-For: 192.0.2.1", "X-Real-IP: 192.0.2.1", "Forwarded: for=192.0.2.1", "Client-IP: 192.0.2.1"];
    assert_eq!(status_from(Ipv4Addr::LOCALHOST, door, &here, &[]).await, 200);
    assert_eq!(status_from(PROXY, door, &here, &[]).await, 401, "another address of this machine is another client");
    assert_eq!(status_from(PROXY, door, &here, &["X-Forwarded-For: 127.0.0.1"]).await, 401);
    assert_eq!(status_from(Ipv4Addr::LOCALHOST, door, &elsewhere, &[]).await, 401);
    for header in forged {
        assert_eq!(status_from(Ipv4Addr::LOCALHOST, door, &elsewhere, &[header]).await, 401, "{header}");
    }
}

#[tokio::test]
async fn a_trusted_proxy_speaks_for_its_client_and_the_client_for_nobody() {
    let acmegate = Acmegate::started(config("trusted_proxies: [127.0.0.2/32, 198.51.100.0/24]")).await;
    let door = acmegate.door("acmedns");
    let account = register_from(door, r#"["192.0.2.0/24","2001:db8::/32"]"#).await;
    for (client, header, expected) in [
        (PROXY, "192.0.2.1", 200),
        (PROXY, "2001:db8::1", 200),
        (PROXY, "[2001:db8::1]:443", 200),
        (PROXY, "203.0.113.9, 192.0.2.1", 200),
        (PROXY, "192.0.2.1, 198.51.100.7", 200),
        (PROXY, "203.0.113.9", 401),
        (PROXY, "192.0.2.1, 203.0.113.9", 401),
        (PROXY, "192.0.2.1, 203.0.113.9, 198.51.100.7", 401),
        (PROXY, "192.0.2.1, nonsense", 401),
        (PROXY, "", 401),
        (Ipv4Addr::LOCALHOST, "192.0.2.1", 401),
        (Ipv4Addr::LOCALHOST, "192.0.2.1, 127.0.0.2", 401),
    ] {
        let status = status_from(client, door, &account, &[&format!("X-Forwarded-For: {header}")]).await;
        assert_eq!(status, expected, "from {client} with {header:?}");
    }
    let two_lines = ["X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 203.0.113.9"];
    assert_eq!(status_from(PROXY, door, &account, &two_lines).await, 401, "the last line is the nearest");
    let other_header = ["X-Real-IP: 192.0.2.1"];
    assert_eq!(status_from(PROXY, door, &account, &other_header).await, 401, "another header than the configured one");
}

#[tokio::test]
async fn registration_wants_a_token_where_it_is_told_to() {
    let tokens = acmegate_tests::temporary_folder("tokens");
    let file = tokens.path().join("tokens");
    acmegate_tests::write(&file, "first-token-0123456789\nsecond~token-0123456789\n");
    let acmegate = Acmegate::started(config(&format!("registration: token\ntokens_file: {file:?}\nprefixes: [/, /base]"))).await;
    let door = acmegate.door("acmedns");
    let basic = |user: &str, password: &str| format!("Authorization: Basic {}", STANDARD.encode(format!("{user}:{password}")));
    let try_it = async |path: &str, headers: &[&str]| exchange(door, &request("POST", path, headers, b"")).await;
    for (path, header) in [
        ("/register", "Authorization: Bearer first-token-0123456789".to_owned()),
        ("/register", "authorization: bearer second~token-0123456789".to_owned()),
        ("/register", basic("anybody", "first-token-0123456789")),
        ("/register", basic("", "second~token-0123456789")),
        ("/first-token-0123456789/register", "X-Nothing: 1".to_owned()),
        ("/second%7Etoken-0123456789/register", "X-Nothing: 1".to_owned()),
        ("/base/first-token-0123456789/register", "X-Nothing: 1".to_owned()),
    ] {
        registered(&try_it(path, &[&header]).await, "[]");
    }
    let refused = [
        ("/register", "X-Nothing: 1".to_owned()),
        ("/register", "Authorization: Bearer".to_owned()),
        ("/register", "Authorization: Bearer first-token-012345678".to_owned()),
        ("/register", "Authorization: Bearer FIRST-TOKEN-0123456789".to_owned()),
        ("/register", "Authorization: first-token-0123456789".to_owned()),
        ("/register", basic("first-token-0123456789", "")),
        ("/register", basic("first-token-0123456789", "wrong")),
        ("/register", "Authorization: Basic !!!".to_owned()),
        ("/wrong/register", "X-Nothing: 1".to_owned()),
    ];
    for (path, header) in &refused {
        let reply = try_it(path, &[header]).await;
        assert_eq!((reply.status, reply.text().as_str()), (401, "{\"error\": \"forbidden\"}"), "{path} {header}");
    }
    // An update needs no token, and its path may have one.
    let account = registered(&try_it("/first-token-0123456789/register", &[]).await, "[]");
    for path in ["/update", "/first-token-0123456789/update", "/base/first-token-0123456789/update", "/withdrawn/update"] {
        assert_eq!(exchange(door, &update_at(path, &account, &value(1))).await.status, 200, "{path}");
    }
    let log = acmegate.process().stderr();
    assert!(!log.contains("first-token-0123456789") && !log.contains(&account.password), "secrets stay out of the log:\n{log}");
}

#[tokio::test]
async fn closed_registration_is_no_route_at_all() {
    let mut acmegate = Acmegate::started(config("")).await;
    let account = register(acmegate.door("acmedns")).await;
    acmegate.stop().await;
    let closed = Acmegate::started(config("registration: closed").data(acmegate.data())).await;
    let door = closed.door("acmedns");
    for method in ["POST", "GET", "OPTIONS"] {
        let reply = exchange(door, &request(method, "/register", &[], b"")).await;
        assert_eq!((reply.status, reply.text().as_str()), (404, "404 page not found\n"), "{method}");
    }
    assert_eq!(exchange(door, &update(&account, &value(1))).await.status, 200, "accounts of before go on");
}

// --- Which values stand, and for how long.

/// Nine updates within less than a second, in which the original's rotation would stand still: the first gives way, in the order in which they
/// came; a value that is repeated counts as new.
#[tokio::test]
async fn the_newest_eight_values_stand() {
    let acmegate = Acmegate::started(config("")).await;
    let mut connection = Connection::open(acmegate.door("acmedns")).await.expect("the door listens");
    let account = register(acmegate.door("acmedns")).await;
    let mut set = async |seed: u64| {
        let reply = connection.exchange(&update(&account, &value(seed))).await.expect("HTTP").expect("a response");
        assert_eq!(reply.status, 200);
    };
    let standing = async || dns::txt(acmegate.dns(), &account.fulldomain).await;
    let values = |seeds: &[u64]| seeds.iter().map(|&seed| value(seed)).collect::<BTreeSet<_>>();
    for seed in 1..=8 {
        set(seed).await;
    }
    assert_eq!(standing().await, values(&[1, 2, 3, 4, 5, 6, 7, 8]));
    set(9).await;
    assert_eq!(standing().await, values(&[2, 3, 4, 5, 6, 7, 8, 9]), "the ninth evicts the first");
    set(2).await;
    assert_eq!(standing().await, values(&[2, 3, 4, 5, 6, 7, 8, 9]), "a repeated value stands once");
    set(10).await;
    assert_eq!(standing().await, values(&[2, 4, 5, 6, 7, 8, 9, 10]), "and is the newest since");
    let other = register(acmegate.door("acmedns")).await;
    assert_eq!(exchange(acmegate.door("acmedns"), &update(&other, &value(1))).await.status, 200);
    assert_eq!(standing().await.len(), 8, "accounts do not evict each other");
    for seed in 100..200 {
        set(seed).await;
    }
    assert_eq!(standing().await, (192..200).map(value).collect());
}

#[tokio::test]
async fn the_order_of_values_outlives_a_restart() {
    let mut acmegate = Acmegate::started(config("values: 2")).await;
    let account = register(acmegate.door("acmedns")).await;
    for seed in [1, 2, 1] {
        assert_eq!(exchange(acmegate.door("acmedns"), &update(&account, &value(seed))).await.status, 200);
    }
    acmegate.kill();
    acmegate.start().await;
    assert_eq!(dns::txt(acmegate.dns(), &account.fulldomain).await, BTreeSet::from([value(1), value(2)]));
    assert_eq!(exchange(acmegate.door("acmedns"), &update(&account, &value(3))).await.status, 200);
    assert_eq!(dns::txt(acmegate.dns(), &account.fulldomain).await, BTreeSet::from([value(1), value(3)]), "2 was the oldest");
}

#[tokio::test]
async fn values_end_with_their_lifetime() {
    let acmegate = Acmegate::started(config("lifetime: 3s")).await;
    let account = register(acmegate.door("acmedns")).await;
    assert_eq!(exchange(acmegate.door("acmedns"), &update(&account, &value(1))).await.status, 200);
    assert_eq!(dns::txt(acmegate.dns(), &account.fulldomain).await, BTreeSet::from([value(1)]));
    dns::txt_becomes(acmegate.dns(), &account.fulldomain, &[]).await;
    let answer = dns::ask(acmegate.dns(), &account.fulldomain, RecordType::TXT).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain, "the name has gone with its last value");
    assert_eq!(exchange(acmegate.door("acmedns"), &update(&account, &value(2))).await.status, 200, "the account has not");
    assert_eq!(dns::txt(acmegate.dns(), &account.fulldomain).await, BTreeSet::from([value(2)]));
}

/// Each reply is followed by one question over UDP, on many connections at once: the answer has the value, every time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_is_answered_at_the_instant_of_its_reply() {
    const CONNECTIONS: u64 = 16;
    const UPDATES: u64 = 25;
    let acmegate = Acmegate::started(config("")).await;
    let (door, server) = (acmegate.door("acmedns"), acmegate.dns());
    let clients = (0..CONNECTIONS).map(|client| async move {
        let mut connection = Connection::open(door).await.expect("the door listens");
        let account = register(door).await;
        let mut serial = 0;
        for number in 0..UPDATES {
            let txt = value(client * 1000 + number);
            let reply = connection.exchange(&update(&account, &txt)).await.expect("HTTP").expect("a response");
            assert_eq!(reply.status, 200);
            assert!(dns::txt(server, &account.fulldomain).await.contains(&txt), "an acknowledged value is not answered");
            let now = soa_serial(server).await;
            assert!(now > serial, "the serial {serial} has not grown with an update: {now}");
            serial = now;
        }
    });
    let tasks: tokio::task::JoinSet<()> = clients.collect();
    tasks.join_all().await;
}

// --- HTTPS.

#[tokio::test]
async fn a_changed_certificate_is_shown_to_new_connections_and_old_ones_live_on() {
    let folder = acmegate_tests::temporary_folder("tls");
    let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
    let make = || {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        (made.cert.pem(), made.signing_key.serialize_pem(), made.cert.der().clone())
    };
    let replace = |chain_pem: &str, key_pem: &str| {
        for (path, text) in [(&chain, chain_pem), (&key, key_pem)] {
            let new = path.with_extension("new");
            fs::write(&new, text).expect("a file");
            fs::rename(&new, path).expect("it replaces the old one");
        }
    };
    let (first_pem, first_key, first) = make();
    replace(&first_pem, &first_key);
    let acmegate = Acmegate::started(config(&format!("tls: {{ certificate: {chain:?}, key: {key:?} }}"))).await;
    let door = acmegate.door("acmedns");
    let mut old = Connection::open_tls(door, &first).await.expect("TLS with the first certificate");
    assert_eq!(old.certificate(), Some(&first));
    let reply = old.exchange(&request("POST", "/register", &[], b"")).await.expect("HTTP").expect("a response");
    let account = registered(&reply, "[]");

    // A pair that does not belong together is not taken: the first goes on.
    let (second_pem, second_key, second) = make();
    let broken = |log: &str| log.contains("previous certificate").then_some(());
    replace(&second_pem, &first_key);
    acmegate.process().stderr_line("a line about the TLS files", broken).await;
    assert!(Connection::open_tls(door, &first).await.is_ok(), "the last good certificate goes on");

    replace(&second_pem, &second_key);
    let attempt = || async { Connection::open_tls(door, &second).await };
    let mut new = until("the second certificate", attempt).await;
    assert!(Connection::open_tls(door, &first).await.is_err(), "the first is shown no more");
    for (number, connection) in [(1, &mut old), (2, &mut new)] {
        let reply = connection.exchange(&update(&account, &value(number))).await.expect("HTTP").expect("a response");
        assert_eq!(reply.status, 200, "connection {number}");
    }
    assert_eq!(dns::txt(acmegate.dns(), &account.fulldomain).await, BTreeSet::from([value(1), value(2)]));
    let plain = http::exchange(door, &request("GET", "/health", &[], b"")).await;
    assert!(!matches!(plain, Ok(Some(Response { status: 200, .. }))), "no plain HTTP on an HTTPS port");
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_stops_the_start() {
    let folder = acmegate_tests::temporary_folder("tls");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        acmegate_tests::write(&path, text);
        path
    };
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let chain = file("chain.pem", &made.cert.pem());
    let empty = file("empty.pem", "nothing");
    for key in [file("key.pem", &other.signing_key.serialize_pem()), empty, folder.path().join("missing.pem")] {
        let acmegate = Acmegate::new(config(&format!("tls: {{ certificate: {chain:?}, key: {key:?} }}")));
        let output = acmegate.serve().output(acmegate_tests::wait::LIMIT).await;
        assert!(output.code.is_some_and(|code| code == 1 || code == 2), "{output}");
        output.says(key.to_str().expect("a path of text")).never_says("panicked");
    }
}

// --- What they share.

fn config(acmedns: &str) -> Config {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let records = ["ns1.auth.example.org. 3600 A 198.51.100.1"];
    Config::new().dns(any).zone_with(ZONE, "ns1.auth.example.org", &records).acmedns_with(acmedns)
}

async fn exchange(door: SocketAddr, bytes: &[u8]) -> Response {
    let reply = http::exchange(door, bytes).await.unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(bytes)));
    reply.unwrap_or_else(|| panic!("no response: {}", String::from_utf8_lossy(bytes)))
}

async fn register(door: SocketAddr) -> Account {
    registered(&exchange(door, &request("POST", "/register", &[], b"")).await, "[]")
}

async fn register_from(door: SocketAddr, networks: &str) -> Account {
    let body = format!("{{\"allowfrom\":{networks}}}");
    registered(&exchange(door, &request("POST", "/register", &[], body.as_bytes())).await, networks)
}

/// Asserts the reply to a registration, byte by byte, and reads it.
fn registered(reply: &Response, networks: &str) -> Account {
    assert_eq!((reply.status, reply.header("content-type")), (201, "application/json"), "{reply:?}");
    let uuid = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}";
    let pattern = format!(
        r#"^\{{"username":"{uuid}","password":"[A-Za-z0-9_-]{{40}}","fulldomain":"({uuid})\.auth\.example\.org","subdomain":"({uuid})","allowfrom":{}\}}$"#,
        regex::escape(networks)
    );
    let text = reply.text();
    let found = Regex::new(&pattern).expect("a pattern").captures(&text).map(|found| found[1] == found[2]);
    assert_eq!(found, Some(true), "{text} is not {pattern}");
    serde_json::from_str(&text).expect("JSON")
}

/// Asserts what every acknowledgement has, and gives its body.
fn acknowledged(reply: &Response) -> String {
    assert_eq!((reply.status, reply.header("content-type")), (200, "application/json"), "{reply:?}");
    assert_eq!(reply.header("content-encoding"), "", "it is not compressed, whatever the client would take");
    reply.text()
}

fn update(account: &Account, txt: &str) -> Vec<u8> {
    update_at("/update", account, txt)
}

fn update_at(path: &str, account: &Account, txt: &str) -> Vec<u8> {
    update_with(path, account, txt, &[])
}

fn update_with(path: &str, account: &Account, txt: &str, more: &[&str]) -> Vec<u8> {
    let (user, key) = (format!("X-Api-User: {}", account.username), format!("X-Api-Key: {}", account.password));
    let headers = [&[user.as_str(), key.as_str()], more].concat();
    let body = format!("{{\"subdomain\":\"{}\",\"txt\":\"{txt}\"}}", account.subdomain);
    request("POST", path, &headers, body.as_bytes())
}

/// The status of an update that comes from this address with these headers.
async fn status_from(client: Ipv4Addr, door: SocketAddr, account: &Account, headers: &[&str]) -> u16 {
    let mut connection = Connection::open_from(IpAddr::V4(client), door).await.expect("the door listens");
    let update = update_with("/update", account, &value(1), headers);
    connection.exchange(&update).await.expect("HTTP").expect("a response").status
}

async fn soa_serial(server: SocketAddr) -> u32 {
    let answer = dns::ask(server, ZONE, RecordType::SOA).await;
    match answer.answers.first().map(|record| &record.data) {
        Some(RData::SOA(soa)) => soa.serial,
        other => panic!("no SOA: {other:?}"),
    }
}
