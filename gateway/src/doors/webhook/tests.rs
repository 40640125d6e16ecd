//! The API from the client's side of a real socket, over the real store: what cert-manager and the Kubernetes API server send, and what they rely on.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{bind, router};
use crate::{
    doors::testing::{Bench, ZONE},
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

impl Door {
    fn open() -> Self {
        let mut bench = Bench::open("webhook:\n  listen: \"127.0.0.1:0\"\n  group: acme.corp.test\n  solver: mysolver\n");
        let config = bench.engine.config.webhook.clone().unwrap();
        let router = router(&bench.engine, &config, &mut bench.registry);
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
        "allowAmbientCredentials": true, "config": {"any": ["json", 1.0]}});
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
            "acmegate_webhook_requests_total{action=\"cleanup\",outcome=\"ok\"} 2",
            "acmegate_webhook_requests_total{action=\"present\",outcome=\"ok\"} 2"
        ]
    );
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
    ] {
        messages.push(door.fails(&challenge("Present", changes)).await);
    }
    insta::assert_snapshot!(messages.join("\n"));
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
    let large = json!({"request": challenge("Present", json!({"config": "x".repeat(300_000)}))}).to_string();
    status(&door.post(PATH, "", &large).await, StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge");
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

#[tokio::test]
async fn a_slow_request_is_answered_with_a_status() {
    let bench = Bench::open("webhook:\n  listen: \"127.0.0.1:0\"\n  group: acme.corp.test\n  solver: mysolver\n");
    let config = bench.engine.config.webhook.clone().unwrap();
    let router = router(&bench.engine, &config, &mut prometheus_client::registry::Registry::default());
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
async fn the_door_opens_on_loopback_alone() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[::ffff:192.0.2.1]:0"] {
        assert!(matches!(bind(address.parse().unwrap()), Err(BindError::NotLoopback(_))), "{address}");
    }
    assert!(bind("127.0.0.2:0".parse().unwrap()).is_ok());
}
