//! Who may call the door, as a real API server says: past it at the door itself, through it, and when what it says changes.

use std::net::SocketAddr;

use acmegate_tests::{
    acmegate::Acmegate,
    certmanager::NAMESPACE,
    dns,
    kubernetes::{Authority, Cluster, Pair},
    wait::{LIMIT, until},
    webhook::SERVICE,
    world::ZONE,
};
use reqwest::{Client, Identity, StatusCode, tls::Certificate};
use serde_json::{Value, json};

use super::lab::{self, ANY, GROUP, Lab, SOLVER, payload, zone};

const CERT_MANAGER: &str = "system:serviceaccount:cert-manager:cert-manager";

/// Somebody who reaches the door without the API server between.
struct Caller {
    client: Client,
    door: SocketAddr,
    token: Option<String>,
}

impl Caller {
    fn new(door: SocketAddr, authority: &str, identity: Option<&Pair>, token: Option<String>) -> Self {
        let root = Certificate::from_pem(authority.as_bytes()).expect("the door's certificate");
        let mut client = Client::builder().tls_certs_only([root]).timeout(LIMIT);
        if let Some(Pair { certificate, key }) = identity {
            client = client.identity(Identity::from_pem(format!("{certificate}{key}").as_bytes()).expect("an identity"));
        }
        Self { client: client.build().expect("a client"), door, token }
    }

    /// Presents a value in the name of these users and groups; the status, and the answer's body.
    async fn present(&self, name: &str, forged: &[(&str, &str)]) -> (StatusCode, Value) {
        let url = format!("https://localhost:{}/apis/{GROUP}/v1alpha1/{SOLVER}", self.door.port());
        let mut request = self.client.post(url).json(&payload("Present", NAMESPACE, name));
        for (header, value) in forged {
            request = request.header(*header, *value);
        }
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.expect("an answer");
        (answer.status(), answer.json().await.expect("JSON"))
    }
}

#[tokio::test]
async fn past_the_api_server_nobody_gets_through_by_what_they_say() {
    let lab = Lab::share().await;
    let (door, authority) = (lab.world.acmegate.door("webhook"), lab.door.certificate());
    let pki = lab.cluster.pki();
    let stranger = Authority::new("front-proxy");
    lab.cluster.service_account("attackers", "pod").await;
    let token = lab.cluster.token("attackers", "pod").await;
    let manager = [("X-Remote-User", CERT_MANAGER), ("X-Remote-Group", "system:serviceaccounts"), ("X-Remote-Group", "system:masters")];
    let name = format!("stolen.{ZONE}");
    for (identity, token, forged, code) in [
        (None, None, &[][..], StatusCode::UNAUTHORIZED),
        (None, None, &manager[..], StatusCode::UNAUTHORIZED),
        (Some(stranger.client("front-proxy-client", None)), None, &manager[..], StatusCode::UNAUTHORIZED),
        (Some(pki.front_proxy().client("not-allowed", None)), None, &manager[..], StatusCode::UNAUTHORIZED),
        (Some(pki.clients().client("somebody", None)), None, &manager[..], StatusCode::FORBIDDEN),
        (None, Some("not.a.token".to_owned()), &manager[..], StatusCode::UNAUTHORIZED),
        (None, Some(token), &manager[..], StatusCode::FORBIDDEN),
    ] {
        let caller = Caller::new(door, authority, identity.as_ref(), token);
        let (status, body) = caller.present(&name, forged).await;
        assert_eq!((status, &body["kind"], &body["status"]), (code, &json!("Status"), &json!("Failure")), "{body}");
    }
    assert!(dns::txt(lab.world.acmegate.dns(), &format!("_acme-challenge.{name}")).await.is_empty());
}

#[tokio::test]
async fn a_right_that_is_withdrawn_is_gone_within_seconds() {
    let lab = Lab::share().await;
    let (door, authority) = (lab.world.acmegate.door("webhook"), lab.door.certificate());
    lab.cluster.service_account("withdrawn", "robot").await;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "withdrawn:domain-solver"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "acmegate:domain-solver"},
        "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "withdrawn"}],
    });
    lab.cluster.apply(&binding.to_string()).await;
    let robot = Caller::new(door, authority, None, Some(lab.cluster.token("withdrawn", "robot").await));
    let name = format!("withdrawn.{ZONE}");
    let becomes = async |code: StatusCode| {
        let attempt = || async {
            let (status, body) = robot.present(&name, &[]).await;
            if status == code { Ok(body) } else { Err(anyhow::anyhow!("{status}: {body}")) }
        };
        until(&format!("the door to answer {code}"), attempt).await
    };
    assert_eq!(becomes(StatusCode::CREATED).await["response"]["success"], true);
    lab.cluster.kubectl(&["delete", "clusterrolebinding", "withdrawn:domain-solver"]).await.succeeded();
    assert_eq!(becomes(StatusCode::FORBIDDEN).await["reason"], "Forbidden");
}

/// acmegate makes its certificate, and tells the API server whom to trust; the API server changes its own, and is known by the new one; each without a restart.
#[tokio::test]
async fn certificates_change_on_both_sides_without_a_restart() {
    let (namespace, name) = SERVICE;
    let mut cluster = Cluster::start().await;
    let kubeconfig = lab::self_made(&cluster).await;
    let config = zone()
        .section("kubernetes", &format!("kubeconfig: {kubeconfig:?}"))
        .section("webhook", &format!("listen: \"{ANY}\"\nservice: {{name: {name}, namespace: {namespace}}}\ncallers: {{cluster: true}}"));
    let acmegate = Acmegate::started(config).await;
    // Somebody else's authority stands there at first.
    let wrong = Authority::new("somebody");
    cluster.route(GROUP, SERVICE, acmegate.door("webhook"), wrong.certificate()).await;
    let path = format!("/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.{GROUP}");
    let bundle = cluster.api().get(&path).await["spec"]["caBundle"].clone();
    assert!(bundle.as_str().is_some_and(|bundle| !bundle.is_empty()));

    cluster.rotate_front_proxy().await;
    cluster.available(GROUP).await;
    let found = cluster.api().get(&format!("/apis/{GROUP}/v1alpha1")).await;
    assert_eq!(found["resources"][0]["name"], SOLVER);
    assert_eq!(cluster.api().get(&path).await["spec"]["caBundle"], bundle, "its authority stays");
}

/// What nobody allows is told where the people of the namespace look, once, and counted.
#[tokio::test]
async fn a_refusal_is_an_event_of_the_namespace() {
    let lab = Lab::share().await;
    lab.cluster.namespace("told").await;
    let payload = payload("Present", "told", "elsewhere.invalid");
    for _ in 0..2 {
        let answer = lab.cluster.api().create(&format!("/apis/{GROUP}/v1alpha1/{SOLVER}"), &payload).await;
        assert_eq!(answer["response"]["success"], false, "{answer}");
    }
    let told = || async {
        let events = lab.cluster.api().get("/apis/events.k8s.io/v1/namespaces/told/events").await;
        let events = events["items"].as_array().cloned().unwrap_or_default();
        if events.is_empty() { Err(anyhow::anyhow!("no Event")) } else { Ok(events) }
    };
    let events = until("an Event", told).await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["reason"], "ChallengeRefused");
    assert!(events[0]["note"].as_str().is_some_and(|note| note.starts_with("elsewhere.invalid: ")), "{events:?}");
}
