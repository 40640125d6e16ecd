//! The API from the client's side of a real socket, over the real store: what cert-manager and the Kubernetes API server send, and what they rely on.

use std::{collections::BTreeMap, sync::Arc};

use axum::{body::Body, http::StatusCode};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use super::{Callers, Surroundings, bind, metrics::Metrics, router, solve::Solver};
use crate::{
    doors::testing::{Bench, ZONE},
    policy::Namespaces,
    web::{
        BindError, Limits,
        testing::{Reply, Site},
    },
};

const PATH: &str = "/apis/acme.corp.test/v1alpha1/mysolver";
const KEY: &str = "LPsIwTo7o8BoG0-vjCyGQGBWSVIPxI-i_X336eUOQZo";

struct Door {
    bench: Bench,
    site: Site,
}

/// The rule that everything is allowed by.
const EVERYTHING: &str = "{namespaces: [\"*\"], names: [\"*\"], targets: [\"*\"]}";

/// The section `webhook`, with these rules.
fn section(rules: &[&str]) -> String {
    format!("webhook:\n  listen: \"127.0.0.1:0\"\n  group: acme.corp.test\n  solver: mysolver\n  policy: [{}]\n", rules.join(", "))
}

impl Door {
    fn open() -> Self {
        Self::with(&[EVERYTHING])
    }

    fn with(rules: &[&str]) -> Self {
        Self::over(Bench::open(&section(rules)))
    }

    /// The next process, on the same store, with other rules.
    async fn reopen(self, rules: &[&str]) -> Self {
        let Self { bench, site } = self;
        site.stop.cancel();
        site.served.await.unwrap();
        bench.engine.close().await;
        let Bench { engine, folder, .. } = bench;
        drop(engine);
        Self::over(Bench::reopen(folder, &section(rules)))
    }

    fn over(mut bench: Bench) -> Self {
        let config = bench.engine.config.webhook.clone().unwrap();
        let router = router(&bench.engine, &config, Surroundings::none(Callers::Anyone), &mut bench.registry);
        Self { site: Site::start(router, Limits::default(), None), bench }
    }

    async fn get(&self, path: &str, headers: &str) -> Reply {
        self.site.ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).await
    }

    async fn document(&self, path: &str) -> Value {
        let reply = self.get(path, "Accept: application/json, */*\r\n").await;
        assert_eq!((&*reply.status, reply.header("content-type")), ("200 OK", "application/json"), "{path}");
        serde_json::from_str(&reply.body).unwrap()
    }

    async fn post(&self, path: &str, headers: &str, body: &str) -> Reply {
        self.site.ask(&format!("POST {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())).await
    }

    /// Posts a challenge; gives the response, and checks that the rest of the reply is as it must be.
    async fn solve(&self, request: &Value) -> Value {
        let reply = self.post(PATH, "Content-Type: application/json\r\n", &json!({ "request": request }).to_string()).await;
        assert_eq!((&*reply.status, reply.header("content-type")), ("201 Created", "application/json"), "{}", reply.body);
        let reply: Value = serde_json::from_str(&reply.body).unwrap();
        assert_eq!(reply["apiVersion"], "webhook.acme.cert-manager.io/v1alpha1");
        assert_eq!(reply["kind"], "ChallengePayload");
        assert_eq!(&reply["request"], request);
        assert_eq!(reply["response"]["uid"], "");
        if reply["response"]["success"] == false {
            assert_eq!(reply["response"]["status"]["status"], "Failure");
            assert_ne!(reply["response"]["status"]["message"], "");
        }
        reply["response"].clone()
    }

    async fn succeeds(&self, request: &Value) {
        let response = self.solve(request).await;
        assert_eq!(response, json!({"uid": "", "success": true}), "{request}");
    }

    /// The message of a failure, which must be the same the second time.
    async fn fails(&self, request: &Value) -> String {
        let response = self.solve(request).await;
        assert_eq!(response["success"], false, "{request}");
        assert_eq!(self.solve(request).await, response);
        response["status"]["message"].as_str().unwrap().to_owned()
    }
}

/// What cert-manager sends, with the fields that a test changes.
fn challenge(action: &str, changes: Value) -> Value {
    let mut request = json!({"uid": "", "action": action, "type": "dns-01", "dnsName": "example.com", "key": KEY,
        "resourceNamespace": "cert-manager", "resolvedFQDN": format!("_acme-challenge.example.com.{ZONE}."), "resolvedZone": format!("{ZONE}."),
        "allowAmbientCredentials": true, "config": {}});
    for (key, value) in changes.as_object().unwrap() {
        request[key] = value.clone();
    }
    request
}

fn owner() -> String {
    format!("_acme-challenge.example.com.{ZONE}")
}

fn status(reply: &Reply, code: StatusCode, reason: &str) {
    assert!(reply.status.starts_with(code.as_str()), "{reply:?}");
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!(reply.header("retry-after"), "");
    let object: Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!((&object["kind"], &object["apiVersion"], &object["status"]), (&json!("Status"), &json!("v1"), &json!("Failure")));
    assert_eq!((&object["reason"], &object["code"]), (&json!(reason), &json!(code.as_u16())));
    assert_ne!(object["message"], "");
}

#[tokio::test]
async fn present_and_clean_up_may_be_repeated() {
    let door = Door::open();
    for _ in 0..2 {
        door.succeeds(&challenge("Present", json!({}))).await;
        assert_eq!(door.bench.txt(&owner()), [KEY]);
    }
    for _ in 0..2 {
        door.succeeds(&challenge("CleanUp", json!({}))).await;
        assert_eq!(door.bench.txt(&owner()), [""; 0]);
    }
    assert_eq!(
        door.bench.metrics("acmegate_webhook_requests_total"),
        [
            "acmegate_webhook_requests_total{namespace=\"cert-manager\",action=\"cleanup\",outcome=\"ok\"} 2",
            "acmegate_webhook_requests_total{namespace=\"cert-manager\",action=\"present\",outcome=\"ok\"} 2"
        ]
    );
    assert_eq!(door.bench.metrics("acmegate_webhook_request_seconds_count"), ["acmegate_webhook_request_seconds_count 4"]);
}

#[tokio::test]
async fn what_is_cleaned_up_is_the_own_value_alone() {
    let door = Door::open();
    let other = json!({"key": "anothertestingkey"});
    let tenant = json!({"resourceNamespace": "tenant"});
    for changes in [&json!({}), &other, &tenant] {
        door.succeeds(&challenge("Present", changes.clone())).await;
    }
    assert_eq!(door.bench.txt(&owner()), [KEY, "anothertestingkey"]);
    door.succeeds(&challenge("CleanUp", other)).await;
    assert_eq!(door.bench.txt(&owner()), [KEY]);
    // Two namespaces claim the value: it stands until both have let go.
    door.succeeds(&challenge("CleanUp", json!({}))).await;
    assert_eq!(door.bench.txt(&owner()), [KEY]);
    door.succeeds(&challenge("CleanUp", tenant)).await;
    assert_eq!(door.bench.txt(&owner()), [""; 0]);
}

#[tokio::test]
async fn clean_up_goes_by_what_present_recorded() {
    let door = Door::open();
    door.succeeds(&challenge("Present", json!({}))).await;
    // The CNAME has changed since.
    door.succeeds(&challenge("CleanUp", json!({"resolvedFQDN": "_acme-challenge.elsewhere.test.", "resolvedZone": "elsewhere.test."})))
        .await;
    assert_eq!(door.bench.txt(&owner()), [""; 0]);
}

#[tokio::test]
async fn clean_up_of_what_cannot_be_there_succeeds() {
    let door = Door::open();
    for changes in [
        json!({}),
        json!({"key": ""}),
        json!({"resolvedFQDN": "not..a.name"}),
        json!({"resourceNamespace": "A/B"}),
        json!({"dnsName": "é"}),
        json!({"config": {"url": "https://attacker.test/"}}),
    ] {
        door.succeeds(&challenge("CleanUp", changes)).await;
    }
}

#[tokio::test]
async fn fields_that_the_conformance_suite_leaves_out_are_not_missed() {
    let door = Door::open();
    let mut request = challenge("Present", json!({"key": "123d==", "resolvedFQDN": format!("cert-manager-dns01-tests.{ZONE}.")}));
    for field in ["type", "dnsName", "config", "allowAmbientCredentials"] {
        request.as_object_mut().unwrap().remove(field);
    }
    door.succeeds(&request).await;
    assert_eq!(door.bench.txt(&format!("cert-manager-dns01-tests.{ZONE}")), ["123d=="]);
    let body = json!({"apiVersion": "webhook.acme.cert-manager.io/v1alpha1", "kind": "ChallengePayload", "request": request}).to_string();
    assert_eq!(door.post(PATH, "", &body).await.status, "201 Created");
}

#[tokio::test]
async fn what_cannot_be_presented_is_explained_the_same_way_each_time() {
    let door = Door::open();
    let account = "8e5700ea-a4bf-41c7-8a77-e990661dcc6a";
    let mut messages = Vec::new();
    for changes in [
        json!({"action": "Delete"}),
        json!({"action": ""}),
        json!({"type": "http-01"}),
        json!({"key": ""}),
        json!({"key": "k".repeat(1025)}),
        json!({"key": "ключ"}),
        json!({"resolvedFQDN": "_acme-challenge.example.com."}),
        json!({"resolvedFQDN": format!("_acme-challenge.not{ZONE}.")}),
        json!({"resolvedFQDN": ""}),
        json!({"resolvedFQDN": format!("{}.{ZONE}", "x".repeat(64))}),
        json!({"resolvedFQDN": format!("{account}.{ZONE}.")}),
        json!({"resolvedFQDN": format!("_acme-challenge.{}.{ZONE}.", account.to_uppercase())}),
        json!({"dnsName": "exa mple.com"}),
        json!({"resourceNamespace": ""}),
        json!({"resourceNamespace": "../kube-system"}),
        json!({"config": ["backend"]}),
        json!({"config": {"url": "https://attacker.test/"}}),
        json!({"config": {"backend": {"name": "corp"}}}),
        json!({"config": {"backend": "corp"}}),
        json!({"config": {"backend": "embedded"}, "resolvedFQDN": "_acme-challenge.example.com."}),
    ] {
        messages.push(door.fails(&challenge("Present", changes)).await);
    }
    insta::assert_snapshot!(messages.join("\n"));
}

#[tokio::test]
async fn the_policy_decides_what_is_presented() {
    let team_a = "{namespaces: [team-a], names: [a.example.com]}";
    let door = Door::with(&[team_a, "{namespaces: [team-b], names: [\"*\"], targets: [\"*\"], backends: [embedded]}"]);
    let own = json!({"resourceNamespace": "team-a", "dnsName": "a.example.com", "resolvedFQDN": format!("a.example.com.{ZONE}.")});
    let with = |changes: Value| {
        let mut own = own.clone();
        own.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        challenge("Present", own)
    };
    door.succeeds(&with(json!({}))).await;
    door.succeeds(&with(json!({"config": {"backend": "embedded"}}))).await;
    door.succeeds(&with(json!({"resourceNamespace": "team-b", "resolvedFQDN": format!("anything.{ZONE}.")}))).await;
    assert_eq!(door.bench.txt(&format!("a.example.com.{ZONE}")), [KEY]);
    let mut messages = Vec::new();
    for changes in [
        json!({"resourceNamespace": "team-c"}),
        json!({"dnsName": "b.example.com", "resolvedFQDN": format!("b.example.com.{ZONE}.")}),
        // The CNAME of a tenant leads to somebody else's place.
        json!({"resolvedFQDN": format!("b.example.com.{ZONE}.")}),
        json!({"dnsName": "", "resolvedFQDN": format!("b.example.com.{ZONE}.")}),
        json!({"config": {"backend": "corp", "secret": {"name": "dns"}}}),
        json!({"resourceNamespace": "team-b", "config": {"backend": "corp"}}),
    ] {
        messages.push(door.fails(&with(changes)).await);
    }
    insta::assert_snapshot!("refusals", messages.join("\n"));
    assert_eq!(door.bench.txt(&format!("b.example.com.{ZONE}")), [""; 0]);
    assert_eq!(
        door.bench.metrics("acmegate_webhook_requests_total"),
        [
            "acmegate_webhook_requests_total{namespace=\"team-a\",action=\"present\",outcome=\"ok\"} 2",
            "acmegate_webhook_requests_total{namespace=\"team-a\",action=\"present\",outcome=\"refused\"} 8",
            "acmegate_webhook_requests_total{namespace=\"team-b\",action=\"present\",outcome=\"ok\"} 1",
            "acmegate_webhook_requests_total{namespace=\"team-b\",action=\"present\",outcome=\"refused\"} 2",
            "acmegate_webhook_requests_total{namespace=\"team-c\",action=\"present\",outcome=\"refused\"} 2"
        ]
    );
}

/// A CleanUp that failed would hold the Challenge's finalizer, and the deletion of its namespace, for ever.
#[tokio::test]
async fn a_clean_up_outside_the_policy_lets_go_what_its_own_namespace_presented() {
    let door = Door::open();
    let other = json!({"resourceNamespace": "tenant", "key": "of-another-tenant"});
    door.succeeds(&challenge("Present", json!({}))).await;
    door.succeeds(&challenge("Present", other.clone())).await;
    let door = door.reopen(&["{namespaces: [tenant], names: [nothing.test]}"]).await;
    assert_eq!(door.bench.txt(&owner()), [KEY, "of-another-tenant"]);
    assert_ne!(door.fails(&challenge("Present", other.clone())).await, "");
    // Whoever knows a value and is not its holder changes nothing.
    door.succeeds(&challenge("CleanUp", json!({"key": "of-another-tenant"}))).await;
    door.succeeds(&challenge("CleanUp", json!({"config": {"url": "https://attacker.test/"}, "resourceNamespace": "stranger"}))).await;
    assert_eq!(door.bench.txt(&owner()), [KEY, "of-another-tenant"]);
    door.succeeds(&challenge("CleanUp", json!({}))).await;
    assert_eq!(door.bench.txt(&owner()), ["of-another-tenant"]);
    door.succeeds(&challenge("CleanUp", other)).await;
    assert_eq!(door.bench.txt(&owner()), [""; 0]);
    assert_eq!(
        door.bench.metrics("acmegate_webhook_requests_total"),
        [
            "acmegate_webhook_requests_total{namespace=\"cert-manager\",action=\"cleanup\",outcome=\"refused\"} 2",
            "acmegate_webhook_requests_total{namespace=\"stranger\",action=\"cleanup\",outcome=\"refused\"} 1",
            "acmegate_webhook_requests_total{namespace=\"tenant\",action=\"cleanup\",outcome=\"refused\"} 1",
            "acmegate_webhook_requests_total{namespace=\"tenant\",action=\"present\",outcome=\"refused\"} 2"
        ]
    );
}

#[tokio::test]
async fn an_empty_policy_refuses_everything_and_shows_the_rule_to_add() {
    let door = Door::with(&[]);
    let message = door.fails(&challenge("Present", json!({}))).await;
    assert_eq!(
        message,
        "webhook.policy has no rule, so that nothing is allowed: add {namespaces: [\"cert-manager\"], names: [\"example.com\"]}"
    );
    let elsewhere = json!({"resolvedFQDN": format!("elsewhere.{ZONE}.")});
    let message = door.fails(&challenge("Present", elsewhere)).await;
    assert!(message.ends_with("names: [\"example.com\"], targets: [\"elsewhere.auth.test\"]}"), "{message}");
}

/// One namespace with one label.
struct TeamA;

impl Namespaces for TeamA {
    fn labels(&self, namespace: &str) -> Option<BTreeMap<String, String>> {
        (namespace == "team-a").then(|| BTreeMap::from([("team".to_owned(), "a".to_owned())]))
    }
}

#[tokio::test]
async fn namespaces_may_be_meant_by_their_labels() {
    let bench = Bench::open(&section(&["{selector: {matchLabels: {team: a}}, names: [\"*\"]}"]));
    let config = bench.engine.config.webhook.clone().unwrap();
    let solver = Solver::new(&bench.engine, &config, Arc::new(TeamA), None, Metrics::register(&mut Registry::default()));
    let present = async |namespace: &str| {
        let request = challenge("Present", json!({"resourceNamespace": namespace}));
        let body = Body::from(json!({ "request": request }).to_string());
        let reply = solver.answer(axum::extract::Request::post(PATH).body(body).unwrap()).await;
        let body = axum::body::to_bytes(reply.into_body(), usize::MAX).await.unwrap();
        serde_json::from_slice::<Value>(&body).unwrap()["response"].clone()
    };
    assert_eq!(present("team-a").await["success"], true);
    let refused = present("team-b").await;
    assert!(refused["status"]["message"].as_str().unwrap().contains("its labels, by which some rules go, are not known"), "{refused}");
}

#[tokio::test]
async fn a_store_that_fails_is_a_failure_without_details() {
    let door = Door::open();
    door.succeeds(&challenge("Present", json!({}))).await;
    door.bench.engine.close().await;
    for action in ["Present", "CleanUp"] {
        assert_eq!(door.fails(&challenge(action, json!({}))).await, "acmegate is stopping: try again after it has started");
    }
}

#[tokio::test]
async fn malformed_requests_are_answered_with_a_status() {
    let door = Door::open();
    for body in ["", "{", "null", "{}", "{\"request\":5}", "{\"kind\":\"Pod\",\"request\":{}}"] {
        status(&door.post(PATH, "", body).await, StatusCode::BAD_REQUEST, "BadRequest");
    }
    status(
        &door.post(PATH, "Content-Type: application/vnd.kubernetes.protobuf\r\n", "k8s").await,
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "UnsupportedMediaType",
    );
    // Refused for what it announces, before a byte is read.
    let large = format!("POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{{", 4 << 20);
    status(&door.site.ask(&large).await, StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge");
    let deep = format!("{{\"request\":{{\"config\":{}{}}}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(door.post(PATH, "", &deep).await.status, "201 Created");
    for path in ["/", "/api", "/apis/other.test", "/apis/acme.corp.test/v1", &format!("{PATH}/name"), "/apis/acme.corp.test/v1alpha1/other"]
    {
        status(&door.get(path, "").await, StatusCode::NOT_FOUND, "NotFound");
    }
    let reply = door.get(PATH, "").await;
    status(&reply, StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed");
    assert_eq!(reply.header("allow"), "POST");
    let reply = door.post("/apis", "", "{}").await;
    status(&reply, StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed");
    assert_eq!(reply.header("allow"), "GET,HEAD");
}

/// As large as etcd keeps an issuer: it is refused for what it says, and its CleanUp is a CleanUp.
#[tokio::test]
async fn a_config_as_large_as_an_issuer_can_be_keeps_no_challenge_from_going() {
    let door = Door::open();
    for config in [json!({"backend": "x".repeat(3 << 19)}), json!({"x".repeat(3 << 19): null}), json!("x".repeat(3 << 19))] {
        assert!(door.fails(&challenge("Present", json!({"config": config}))).await.len() < 300);
        door.succeeds(&challenge("CleanUp", json!({"config": config}))).await;
    }
}

#[tokio::test]
async fn a_slow_request_is_answered_with_a_status() {
    let bench = Bench::open(&section(&[]));
    let config = bench.engine.config.webhook.clone().unwrap();
    let router = router(&bench.engine, &config, Surroundings::none(Callers::Anyone), &mut Registry::default());
    let site = Site::start(router, Limits { body: std::time::Duration::from_millis(50), ..Limits::default() }, None);
    let reply = site.ask(&format!("POST {PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")).await;
    status(&reply, StatusCode::REQUEST_TIMEOUT, "Timeout");
}

#[tokio::test]
async fn the_aggregator_finds_what_it_asks_for() {
    let door = Door::open();
    assert_eq!(
        door.document("/apis/acme.corp.test/v1alpha1").await,
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "acme.corp.test/v1alpha1", "resources": [{
            "name": "mysolver", "singularName": "ChallengePayload", "namespaced": false,
            "group": "webhook.acme.cert-manager.io", "version": "v1alpha1", "kind": "ChallengePayload", "verbs": ["create"]}]})
    );
    let version = json!({"groupVersion": "acme.corp.test/v1alpha1", "version": "v1alpha1"});
    let group = json!({"name": "acme.corp.test", "versions": [version], "preferredVersion": version});
    let mut object = group.clone();
    object["kind"] = json!("APIGroup");
    object["apiVersion"] = json!("v1");
    assert_eq!(door.document("/apis/acme.corp.test").await, object);
    assert_eq!(door.document("/apis").await, json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]}));
    assert_eq!(door.document("/openapi/v2").await["swagger"], "2.0");
    let schemas = door.document("/openapi/v3").await;
    let url = schemas["paths"]["apis/acme.corp.test/v1alpha1"]["serverRelativeURL"].as_str().unwrap();
    assert_eq!(door.document(url).await["openapi"], "3.0.0");
    assert!(door.document("/version").await["gitVersion"].as_str().unwrap().starts_with('v'));
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(door.get(path, "").await.body, "ok");
    }
}

#[tokio::test]
async fn aggregated_discovery_has_a_tag() {
    const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let door = Door::open();
    let reply = door.get("/apis", &format!("Accept: {V2}\r\n")).await;
    assert_eq!((&*reply.status, reply.header("content-type"), reply.header("vary")), ("200 OK", V2, "Accept"));
    let object: Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!((&object["kind"], &object["apiVersion"]), (&json!("APIGroupDiscoveryList"), &json!("apidiscovery.k8s.io/v2")));
    assert_eq!(
        object["items"][0]["versions"][0]["resources"][0],
        json!({"resource": "mysolver", "singularResource": "ChallengePayload", "scope": "Cluster", "verbs": ["create"],
            "responseKind": {"group": "webhook.acme.cert-manager.io", "version": "v1alpha1", "kind": "ChallengePayload"}})
    );
    let again = door.get("/apis", &format!("Accept: {V2}\r\nIf-None-Match: {}\r\n", reply.header("etag"))).await;
    assert_eq!((&*again.status, &*again.body, again.header("etag")), ("304 Not Modified", "", reply.header("etag")));
}

#[tokio::test]
async fn a_door_that_asks_nobody_opens_on_loopback_alone() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[::ffff:192.0.2.1]:0"] {
        assert!(matches!(bind(address.parse().unwrap(), &Callers::Anyone), Err(BindError::NotLoopback(_))), "{address}");
    }
    assert!(bind("127.0.0.2:0".parse().unwrap(), &Callers::Anyone).is_ok());
}
