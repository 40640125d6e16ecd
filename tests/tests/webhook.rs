//! The webhook door: what cert-manager and the Kubernetes API server send, over HTTPS, and what has to come back.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    collections::BTreeSet,
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
};

use acmegate_tests::{
    acmedns::{register, update, value},
    acmegate::{Acmegate, Config},
    dns,
    http::{Connection, Response, request},
    wait::LIMIT,
    webhook::EVERYTHING,
};
use hickory_proto::{op::ResponseCode, rr::RecordType};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tempfile::TempDir;

const ZONE: &str = "auth.example.org";
const RESOURCE: &str = "/apis/acme.acmegate.io/v1alpha1/acmegate";

// --- Present and CleanUp.

#[tokio::test]
async fn present_and_clean_up_as_cert_manager_sends_them() {
    let gateway = Gateway::start(Config::new()).await;
    let (one, other) = (challenge("a", &value(1)), challenge("a", &value(2)));
    for (number, payload) in [&one, &other, &one].into_iter().enumerate() {
        gateway.succeeds("Present", payload).await;
        assert_eq!(gateway.txt("a").await.len(), number.min(1) + 1, "each value once, however often it is presented");
    }
    gateway.succeeds("CleanUp", &other).await;
    assert_eq!(gateway.txt("a").await, BTreeSet::from([value(1)]), "the other value stays");
    gateway.succeeds("CleanUp", &other).await;
    assert_eq!(gateway.txt("a").await, BTreeSet::from([value(1)]));
    gateway.succeeds("CleanUp", &one).await;
    let answer = dns::ask(gateway.acmegate.dns(), &name("a"), RecordType::TXT).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain, "the name goes with its last value");
    gateway.succeeds("CleanUp", &one).await;
    gateway.succeeds("Present", &one).await;
    assert_eq!(gateway.txt("a").await, BTreeSet::from([value(1)]), "and comes back");
}

/// Who reads the log later finds each call, and can tell two values apart.
#[tokio::test]
async fn each_call_leaves_an_audit_line() {
    let gateway = Gateway::start(Config::new()).await;
    let payload = challenge("audited", &value(7));
    gateway.succeeds("Present", &payload).await;
    let audited = |line: &str| serde_json::from_str::<Value>(line).ok().filter(|line| line["target"] == "acmegate::audit");
    let line = gateway.acmegate.process().stderr_line("an audit line", audited).await;
    let said = ["action", "outcome", "caller", "namespace", "owner", "backend", "reason"].map(|key| line[key].as_str().unwrap_or("(none)"));
    let owner = format!("{}.", name("audited").trim_end_matches('.'));
    assert_eq!(said, ["present", "ok", "anonymous", "cert-manager", &owner, "embedded", ""], "{line}");
    let digest = line["digest"].as_str().expect("a digest");
    assert!(digest.len() == 16 && !line.to_string().contains(&value(7)), "{line}");
}

/// The values of the conformance suite are not of 43 characters; Kubernetes' proxy sends chunks and its own headers.
#[tokio::test]
async fn odd_but_lawful_requests_work() {
    let gateway = Gateway::start(Config::new()).await;
    let mut payload = challenge("conformance", "123d==");
    gateway.succeeds("Present", &payload).await;
    payload["request"]["key"] = json!("anothertestingkey");
    gateway.succeeds("Present", &payload).await;
    assert_eq!(gateway.txt("conformance").await, BTreeSet::from(["123d==".to_owned(), "anothertestingkey".to_owned()]));

    for (number, envelope) in (10..).zip([
        json!({}),
        json!({"apiVersion": "webhook.acme.cert-manager.io/v1alpha1", "kind": "ChallengePayload"}),
        json!({"apiVersion": "acme.acmegate.io/v1alpha1", "kind": "ChallengePayload", "metadata": {"creationTimestamp": null}}),
    ]) {
        let mut payload = challenge("envelope", &value(number));
        for (key, given) in envelope.as_object().expect("an object") {
            payload[key] = given.clone();
        }
        gateway.succeeds("Present", &payload).await;
        assert!(gateway.txt("envelope").await.contains(&value(number)));
    }

    let mut payload = challenge("Chunks", &value(20));
    payload["request"]["action"] = json!("Present");
    let body = payload.to_string();
    let chunked = format!(
        "POST {RESOURCE}?timeout=30s HTTP/1.1\r\nHost: acmegate.cert-manager.svc\r\nUser-Agent: cert-manager-challenges/v1.21.2\r\nX-Remote-User: system:serviceaccount:cert-manager:cert-manager\r\nX-Remote-Group: system:authenticated\r\nAccept: application/json, */*\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    let reply = gateway.exchange(chunked.as_bytes()).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    assert_eq!(gateway.txt("chunks").await, BTreeSet::from([value(20)]), "names have no letter case");
}

/// `cnameStrategy: Follow`, and the CNAME was changed between Present and CleanUp: what was presented goes.
#[tokio::test]
async fn clean_up_removes_what_was_presented_wherever_that_was() {
    let gateway = Gateway::start(Config::new()).await;
    let mut payload = challenge("before", &value(1));
    gateway.succeeds("Present", &payload).await;
    payload["request"]["resolvedFQDN"] = json!(format!("{}.", name("after")));
    gateway.succeeds("CleanUp", &payload).await;
    assert_eq!(gateway.txt("before").await, BTreeSet::new());

    gateway.succeeds("Present", &payload).await;
    assert_eq!(gateway.txt("after").await, BTreeSet::from([value(1)]));
    for elsewhere in ["_acme-challenge.example.com.", "not a name..", ""] {
        payload["request"]["resolvedFQDN"] = json!(elsewhere);
        gateway.succeeds("CleanUp", &payload).await;
        assert_eq!(gateway.txt("after").await, BTreeSet::new(), "the zone is not even ours any more");
    }
}

/// Who did not present a value cannot take it away, and a CleanUp of nothing succeeds: cert-manager would repeat it for ever.
#[tokio::test]
async fn clean_up_of_the_unknown_succeeds_and_takes_nothing() {
    let gateway = Gateway::start(Config::new()).await;
    let own = challenge("a", &value(1));
    gateway.succeeds("Present", &own).await;
    let mut others = vec![challenge("a", &value(2)), challenge("b", &value(3))];
    for (key, given) in [("resourceNamespace", "other"), ("dnsName", "other.example.com"), ("key", "")] {
        let mut payload = own.clone();
        payload["request"][key] = json!(given);
        others.push(payload);
    }
    for payload in &others {
        gateway.succeeds("CleanUp", payload).await;
        assert_eq!(gateway.txt("a").await, BTreeSet::from([value(1)]), "{payload}");
    }
    // The same value at the same name, wanted twice: it stands until both have let go.
    let mut twin = own.clone();
    twin["request"]["resourceNamespace"] = json!("other");
    gateway.succeeds("Present", &twin).await;
    gateway.succeeds("CleanUp", &own).await;
    assert_eq!(gateway.txt("a").await, BTreeSet::from([value(1)]), "it is still wanted");
    gateway.succeeds("CleanUp", &twin).await;
    assert_eq!(gateway.txt("a").await, BTreeSet::new());
}

/// What was presented is there after SIGKILL, and can be cleaned up then.
#[tokio::test]
async fn a_presented_value_outlives_the_process() {
    let mut gateway = Gateway::start(Config::new()).await;
    let payload = challenge("a", &value(1));
    gateway.succeeds("Present", &payload).await;
    gateway.acmegate.kill();
    gateway.acmegate.start().await;
    assert_eq!(gateway.txt("a").await, BTreeSet::from([value(1)]));
    gateway.succeeds("CleanUp", &payload).await;
    assert_eq!(gateway.txt("a").await, BTreeSet::new());
}

/// Sixty challenges at once over as many connections, at names of their own and at one that all share.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_challenges_at_once() {
    let gateway = std::sync::Arc::new(Gateway::start(Config::new()).await);
    for action in ["Present", "CleanUp"] {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..60 {
            let gateway = std::sync::Arc::clone(&gateway);
            tasks.spawn(async move {
                let label = if number % 2 == 0 { "shared".to_owned() } else { format!("own{number}") };
                gateway.succeeds(action, &challenge(&label, &value(number))).await;
                assert_eq!(gateway.txt(&label).await.contains(&value(number)), action == "Present", "{action} {number}");
            });
        }
        tasks.join_all().await;
        let shared = if action == "Present" { (0..60).step_by(2).map(value).collect() } else { BTreeSet::new() };
        assert_eq!(gateway.txt("shared").await, shared);
    }
}

// --- Failures.

/// Each failure is told in the protocol's way, with a message, and in the same bytes each time: cert-manager writes it into an object's status.
#[tokio::test]
async fn failures_are_told_in_the_same_words_each_time() {
    let gateway = Gateway::start(Config::new()).await;
    let client = reqwest::Client::new();
    let base = gateway.acmegate.url("acmedns", "");
    let account = register(&client, &base).await.expect("it registers");
    update(&client, &base, &account, &value(77)).await.expect("it updates");
    let cases: [(&str, Value, &str); 10] = [
        ("resolvedFQDN", json!("_acme-challenge.example.com."), "example.com"),
        ("resolvedFQDN", json!("org."), "org"),
        ("resolvedFQDN", json!("notauth.example.org."), "notauth.example.org"),
        ("resolvedFQDN", json!(""), "resolvedFQDN"),
        ("resolvedFQDN", json!(format!("{}.{ZONE}.", "x".repeat(64))), "resolvedFQDN"),
        ("resolvedFQDN", json!(format!("{}.", account.fulldomain)), "acme-dns account"),
        ("key", json!(""), "key"),
        ("key", json!("x".repeat(70_000)), "key"),
        ("type", json!("http-01"), "dns-01"),
        ("resourceNamespace", json!("Not/A/Namespace"), "resourceNamespace"),
    ];
    for (field, given, said) in cases {
        let mut payload = challenge("a", &value(1));
        payload["request"]["action"] = json!("Present");
        payload["request"][field] = given;
        let body = payload.to_string();
        let first = gateway.post(&body).await;
        assert_eq!((first.status, first.header("retry-after")), (201, ""), "{field}: {first:?}");
        let reply: Value = serde_json::from_slice(&first.body).expect("JSON");
        assert_eq!(reply["response"]["success"], false, "{reply}");
        let status = reply["response"]["status"].as_object().expect("the failure stands in `status`");
        let message = status["message"].as_str().expect("a message");
        assert!(message.contains(said) && message.len() < 500, "{message:?} does not say {said:?}");
        assert_eq!(reply["request"], payload["request"], "the request is echoed");
        for _ in 0..2 {
            assert_eq!(gateway.post(&body).await.body, first.body, "the same bytes each time");
        }
    }
    assert_eq!(dns::txt(gateway.acmegate.dns(), &account.fulldomain).await, BTreeSet::from([value(77)]), "nobody else writes there");
    assert_eq!(gateway.txt("a").await, BTreeSet::new(), "nothing was presented");

    let mut unknown = challenge("a", &value(1));
    unknown["request"]["action"] = json!("present");
    let reply: Value = serde_json::from_slice(&gateway.post(&unknown.to_string()).await.body).expect("JSON");
    assert_eq!(reply["response"]["success"], false, "actions have a letter case: {reply}");
}

/// What is no challenge at all is answered as the Kubernetes API does it: a `Status` whose message is shown, and never a 2xx.
#[tokio::test]
async fn what_is_no_challenge_gets_a_status() {
    let gateway = Gateway::start(Config::new()).await;
    let json = "Content-Type: application/json";
    let post = |header: &str, body: &str| request("POST", RESOURCE, &[header], body.as_bytes());
    let cases = [
        (post(json, ""), 400),
        (post(json, "{"), 400),
        (post(json, "null"), 400),
        (post(json, "[]"), 400),
        (post(json, "{}"), 400),
        (post(json, "{\"request\":null}"), 400),
        (post(json, "{\"request\":{\"key\":5}}"), 400),
        (post(json, "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"request\":{}}"), 400),
        (post("Content-Type: application/vnd.kubernetes.protobuf", "k8s\0"), 415),
        (request("GET", RESOURCE, &[], b""), 405),
        (request("DELETE", RESOURCE, &[], b""), 405),
        (request("PATCH", RESOURCE, &[], b""), 405),
        (request("POST", "/apis/acme.acmegate.io/v1alpha1/other", &[json], b"{}"), 404),
        (request("POST", "/apis/acme.acmegate.io/v1/acmegate", &[json], b"{}"), 404),
        (request("GET", "/api/v1/pods", &[], b""), 404),
    ];
    for (bytes, expected) in cases {
        let first = gateway.exchange(&bytes).await;
        assert_eq!((first.status, first.header("retry-after")), (expected, ""), "{} to {}", first.text(), String::from_utf8_lossy(&bytes));
        let status: Value = serde_json::from_slice(&first.body).expect("JSON");
        assert_eq!(
            (&status["kind"], &status["apiVersion"], &status["status"]),
            (&json!("Status"), &json!("v1"), &json!("Failure")),
            "{status}"
        );
        assert_eq!(status["code"], expected, "{status}");
        assert!(status["message"].as_str().is_some_and(|message| !message.is_empty()), "{status}");
        assert_eq!(gateway.exchange(&bytes).await.body, first.body, "the same bytes each time");
    }
}

// --- Discovery.

#[tokio::test]
async fn the_api_server_finds_what_it_asks_for() {
    let gateway = Gateway::start(Config::new()).await;
    let get = async |path: &str, headers: &[&str]| {
        let reply = gateway.exchange(&request("GET", path, headers, b"")).await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        reply
    };
    let document = async |path: &str| serde_json::from_slice::<Value>(&get(path, &[]).await.body).expect("JSON");

    let resources = document("/apis/acme.acmegate.io/v1alpha1").await;
    assert_eq!((&resources["kind"], &resources["groupVersion"]), (&json!("APIResourceList"), &json!("acme.acmegate.io/v1alpha1")));
    let resource = &resources["resources"];
    assert_eq!(resource.as_array().map(Vec::len), Some(1));
    assert_eq!((&resource[0]["name"], &resource[0]["namespaced"]), (&json!("acmegate"), &json!(false)));
    assert_eq!(
        (&resource[0]["kind"], &resource[0]["verbs"]),
        (&json!("ChallengePayload"), &json!(["create"])),
        "nothing can be listed or watched"
    );

    let group = document("/apis/acme.acmegate.io").await;
    assert_eq!((&group["kind"], &group["name"]), (&json!("APIGroup"), &json!("acme.acmegate.io")));
    assert_eq!(group["preferredVersion"]["groupVersion"], "acme.acmegate.io/v1alpha1");
    let groups = document("/apis").await;
    assert_eq!((&groups["kind"], &groups["groups"][0]["name"]), (&json!("APIGroupList"), &json!("acme.acmegate.io")));
    assert!(document("/version").await["gitVersion"].as_str().is_some_and(|version| version.starts_with('v')));
    assert_eq!(document("/openapi/v2").await["swagger"], "2.0");
    assert!(document("/openapi/v3").await["paths"].is_object());
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(get(path, &[]).await.text(), "ok", "{path}");
    }

    for version in ["v2", "v2beta1"] {
        let kind = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
        let reply = get("/apis", &[&format!("Accept: {kind}")]).await;
        assert_eq!(reply.header("content-type").replace(' ', ""), kind);
        let list: Value = serde_json::from_slice(&reply.body).expect("JSON");
        assert_eq!(
            (&list["kind"], &list["apiVersion"]),
            (&json!("APIGroupDiscoveryList"), &json!(format!("apidiscovery.k8s.io/{version}")))
        );
        let found = &list["items"][0]["versions"][0];
        assert_eq!((&list["items"][0]["metadata"]["name"], &found["version"]), (&json!("acme.acmegate.io"), &json!("v1alpha1")));
        assert_eq!((&found["resources"][0]["resource"], &found["resources"][0]["verbs"]), (&json!("acmegate"), &json!(["create"])));
        let tag = reply.header("etag").to_owned();
        let again = gateway.exchange(&request("GET", "/apis", &[&format!("Accept: {kind}"), &format!("If-None-Match: {tag}")], b"")).await;
        assert_eq!((again.status, again.body.len()), (304, 0), "who has it is not sent it again");
    }
}

#[tokio::test]
async fn five_probes_at_once_are_answered_and_names_are_configurable() {
    let gateway = Gateway::start_with(Config::new(), "group: acme.corp.example\nsolver: corp").await;
    let probes = (0..5).map(|_| async { gateway.exchange(&request("GET", "/apis/acme.corp.example/v1alpha1", &[], b"")).await.status });
    assert_eq!(futures_util::future::join_all(probes).await, [200; 5]);
    assert_eq!(gateway.exchange(&request("GET", "/apis/acme.acmegate.io/v1alpha1", &[], b"")).await.status, 404);
    let mut payload = challenge("a", &value(1));
    payload["request"]["action"] = json!("Present");
    let post =
        request("POST", "/apis/acme.corp.example/v1alpha1/corp", &["Content-Type: application/json"], payload.to_string().as_bytes());
    assert_eq!(gateway.exchange(&post).await.status, 201);
    assert_eq!(gateway.txt("a").await, BTreeSet::from([value(1)]));
}

// --- Where it listens.

/// Nobody is asked who he is yet: the door opens on loopback alone, and anything else is a wrong configuration, not a failure.
#[tokio::test]
async fn an_address_that_others_reach_is_refused_at_the_start() {
    let mut addresses = vec!["0.0.0.0:0".to_owned(), "[::]:0".to_owned(), "192.0.2.1:8443".to_owned()];
    // An address of this machine that is not loopback, if it has one: nothing is sent to find it.
    let route = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()));
    addresses.extend(route.ok().filter(|address| !address.ip().is_loopback()).map(|address| SocketAddr::new(address.ip(), 0).to_string()));
    for address in addresses {
        let section = format!("listen: [\"127.0.0.1:0\", \"{address}\"]");
        let output = Acmegate::new(base(Config::new()).section("webhook", &section)).serve().output(LIMIT).await;
        output.exited(2).says("webhook.listen").says("loopback").never_says("ready").never_says("panicked");
    }
}

#[tokio::test]
async fn without_files_the_certificate_is_self_made() {
    let acmegate = Acmegate::started(base(Config::new()).webhook()).await;
    let url = format!("https://{}/healthz", acmegate.door("webhook"));
    let careless = reqwest::Client::builder().danger_accept_invalid_certs(true).build().expect("a client");
    assert_eq!(careless.get(&url).send().await.expect("HTTPS is served").status(), 200);
    assert!(reqwest::Client::new().get(&url).send().await.is_err(), "nobody vouches for it");
    let plain = acmegate_tests::http::exchange(acmegate.door("webhook"), &request("GET", "/healthz", &[], b"")).await;
    assert!(!matches!(plain, Ok(Some(Response { status: 200, .. }))), "no plain HTTP");
}

// --- What they share.

/// acmegate with the webhook door on HTTPS with a certificate that the test knows.
struct Gateway {
    acmegate: Acmegate,
    certificate: CertificateDer<'static>,
    _folder: TempDir,
}

impl Gateway {
    async fn start(config: Config) -> Self {
        Self::start_with(config, "").await
    }

    async fn start_with(config: Config, lines: &str) -> Self {
        let folder = acmegate_tests::temporary_folder("webhook");
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let file = |name: &str, text: &str| -> PathBuf {
            let path = folder.path().join(name);
            acmegate_tests::write(&path, text);
            path
        };
        let (chain, key) = (file("chain.pem", &made.cert.pem()), file("key.pem", &made.signing_key.serialize_pem()));
        let section = format!("listen: \"127.0.0.1:0\"\ntls: {{ certificate: {chain:?}, key: {key:?} }}\n{EVERYTHING}\n{lines}");
        let acmegate = Acmegate::started(base(config).section("webhook", &section)).await;
        Self { acmegate, certificate: made.cert.der().clone(), _folder: folder }
    }

    async fn exchange(&self, bytes: &[u8]) -> Response {
        let mut connection = Connection::open_tls(self.acmegate.door("webhook"), &self.certificate).await.expect("the door listens");
        connection.exchange(bytes).await.expect("HTTP").unwrap_or_else(|| panic!("no response to {}", String::from_utf8_lossy(bytes)))
    }

    async fn post(&self, body: &str) -> Response {
        let headers = ["Content-Type: application/json", "Accept: application/json, */*", "User-Agent: cert-manager-challenges/v1.21.2"];
        self.exchange(&request("POST", RESOURCE, &headers, body.as_bytes())).await
    }

    /// Asserts 201 and success, and that the request is echoed.
    async fn succeeds(&self, action: &str, payload: &Value) {
        let mut payload = payload.clone();
        payload["request"]["action"] = json!(action);
        let reply = self.post(&payload.to_string()).await;
        assert_eq!((reply.status, reply.header("content-type")), (201, "application/json"), "{action}: {reply:?}");
        let reply: Value = serde_json::from_slice(&reply.body).expect("JSON");
        assert_eq!(reply["response"], json!({"uid": payload["request"]["uid"], "success": true}), "{action}: {reply}");
        assert_eq!((&reply["kind"], &reply["request"]), (&json!("ChallengePayload"), &payload["request"]), "the request is echoed");
    }

    async fn txt(&self, label: &str) -> BTreeSet<String> {
        dns::txt(self.acmegate.dns(), &name(label)).await
    }
}

fn base(config: Config) -> Config {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    config.dns(any).zone_with(ZONE, "ns1.auth.example.org", &["ns1.auth.example.org. 3600 A 198.51.100.1"]).acmedns()
}

fn name(label: &str) -> String {
    format!("{label}.{ZONE}")
}

/// A payload as cert-manager 1.21 sends it: no `apiVersion` and no `kind`.
fn challenge(label: &str, key: &str) -> Value {
    json!({"request": {
        "uid": "", "action": "", "type": "dns-01", "dnsName": format!("{}.example.com", label.to_lowercase()), "key": key,
        "resourceNamespace": "cert-manager", "resolvedFQDN": format!("{}.", name(label)), "resolvedZone": format!("{ZONE}."),
        "allowAmbientCredentials": true, "config": {"backend": "embedded"},
    }})
}
