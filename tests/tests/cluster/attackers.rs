//! Tenants and strangers who want more than is theirs: by the `config` of an Issuer, by its size, and by tokens that are good no longer or for somebody
//! else. Everything is refused, told in the log, and nothing secret is in it.

use std::collections::BTreeSet;

use acmegate_tests::{
    acmegate::Acmegate,
    certmanager::{Certificates, Issuer, NAMESPACE},
    dns,
    wait::{LIMIT, until},
    webhook::Webhook,
    world::ZONE,
};
use reqwest::{Client, Method, StatusCode, tls::Certificate};
use serde_json::{Value, json};

use super::lab::{self, ANY, GROUP, Lab, SOLVER, payload};

/// Stands where no secret may stand; nobody may ever read it in a log or an answer's message.
const SECRET: &str = "correct-horse-battery-staple";

/// What a tenant can write into an Issuer reaches the door as it is. It names things of acmegate's own configuration, or nothing.
#[tokio::test]
async fn a_config_names_no_secret_of_others_and_no_place() {
    let lab = Lab::share().await;
    let manager = lab.cluster.api_with(Some(lab.cluster.token(NAMESPACE, "cert-manager").await));
    let path = format!("/apis/{GROUP}/v1alpha1/{SOLVER}");
    let own_secret = "the name of a Secret in the issuer's own namespace and nothing else";
    for (number, (config, said)) in [
        (json!({"backend": "corp", "secret": {"name": "token", "namespace": "kube-system"}}), own_secret),
        (json!({"backend": "corp", "secret": {"name": "token", "key": "token", "namespace": NAMESPACE}}), own_secret),
        (json!({"backend": "corp", "secret": SECRET}), own_secret),
        (json!({"backend": "corp", "secret": {"name": "../../kube-system/secrets/token"}}), own_secret),
        (json!({"backend": "corp", "secret": {"name": "token"}}), "but not with a Secret of its own"),
        (json!({"url": "https://attacker.invalid/"}), "the key \"url\" is not known"),
        (json!({"backend": "embedded", "endpoint": "http://169.254.169.254/latest/meta-data/"}), "the key \"endpoint\" is not known"),
        (json!({"backend": "https://attacker.invalid/"}), "backend must be the name of a backend"),
        (json!({"backend": {"server": "attacker.invalid", "key": SECRET}}), "backend must be the name of a backend"),
        (json!({"token": SECRET}), "the key \"token\" is not known"),
        (json!(SECRET), "config must be an object"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("config-{number}.{ZONE}");
        let mut asked = payload("Present", NAMESPACE, &name);
        asked["request"]["config"] = config;
        let refused = manager.create(&path, &asked).await;
        let message = refused["response"]["status"]["message"].as_str().unwrap_or_default();
        assert_eq!(refused["response"]["success"], false, "{refused}");
        assert!(message.contains(said) && !message.contains(SECRET), "{message:?} does not say {said:?}");
        assert_eq!(manager.create(&path, &asked).await["response"], refused["response"], "the same words each time");
        // A CleanUp that fails would hold up the namespace for ever; there is nothing to clean up.
        asked["request"]["action"] = json!("CleanUp");
        assert_eq!(manager.create(&path, &asked).await["response"]["success"], true, "{asked}");
        assert_eq!(dns::txt(lab.world.acmegate.dns(), &format!("_acme-challenge.{name}")).await, BTreeSet::new(), "{name}");
        for action in ["present", "cleanup"] {
            let line = audit_line(&lab.world.acmegate, &name, action).await;
            let caller = format!("system:serviceaccount:{NAMESPACE}:cert-manager");
            assert_eq!((&line["outcome"], &line["caller"]), (&json!("refused"), &json!(caller)), "{line}");
        }
    }
    assert!(!log(&lab.world.acmegate).contains(SECRET));
}

/// The same by cert-manager itself, and a config of a megabyte, which the API server keeps: the Challenge says what is wrong, and can be deleted.
#[tokio::test]
async fn an_issuer_that_wants_too_much_gets_nothing() {
    let lab = Lab::share().await;
    for (namespace, config, said) in [
        (
            "greedy",
            json!({"backend": "corp", "secret": {"name": "token", "namespace": "kube-system"}}),
            "in the issuer's own namespace and nothing else",
        ),
        ("gluttonous", json!({"backend": SECRET.repeat((1 << 20) / SECRET.len())}), "backend must be the name of a backend"),
    ] {
        let issuer = Issuer::create(&lab.cluster, namespace, "acme", &lab.world.ca, &lab.solver().config(config)).await;
        let certificates = Certificates::of(&lab.cluster, namespace).await;
        let name = format!("{namespace}.{ZONE}");
        certificates.create("certificate", &issuer, &[&name]).await;
        let refused = |challenge: &Value| challenge["status"]["reason"].as_str().filter(|reason| reason.contains(said)).map(drop);
        certificates.challenge("a refused challenge", refused).await;
        assert_eq!(dns::txt(lab.world.acmegate.dns(), &format!("_acme-challenge.{name}")).await, BTreeSet::new());
        certificates.delete("certificate").await;
        certificates.without_challenges().await;
    }
    assert!(!log(&lab.world.acmegate).contains(SECRET));
}

/// No Issuer can hold so much, and the API server passes it on all the same. The door says no, and goes on.
#[tokio::test]
async fn what_is_larger_than_any_issuer_is_refused_and_the_door_goes_on() {
    let lab = Lab::share().await;
    let manager = lab.cluster.api_with(Some(lab.cluster.token(NAMESPACE, "cert-manager").await));
    let path = format!("/apis/{GROUP}/v1alpha1/{SOLVER}");
    let name = format!("huge.{ZONE}");
    let mut huge = payload("Present", NAMESPACE, &name);
    huge["request"]["config"] = json!({"backend": SECRET.repeat((4 << 20) / SECRET.len())});
    let refused = manager.ask(Method::POST, &path, Some(&huge)).await.expect("an answer");
    assert_eq!((refused.status, &refused.body["kind"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("Status")), "{refused:?}");
    assert_eq!(refused.body["message"], "the request body is too large");
    let told = |line: &str| (line.contains("webhook request refused") && line.contains("the request body is too large")).then_some(());
    lab.world.acmegate.process().stderr_line("why it was refused", told).await;
    assert!(!log(&lab.world.acmegate).contains(SECRET));
    for action in ["Present", "CleanUp"] {
        let answer = manager.create(&path, &payload(action, NAMESPACE, &name)).await;
        assert_eq!(answer["response"]["success"], true, "{answer}");
    }
}

/// Past the API server, with a token of somebody who may call; but it is over, or meant for another server, or another's, or its owner is gone.
#[tokio::test]
async fn a_token_that_is_over_or_for_another_server_is_nobodys() {
    let lab = Lab::share().await;
    let (acmegate, door) = lab::alone(&lab.cluster, ANY).await;
    for account in ["robot", "leaver"] {
        lab.cluster.service_account("tokens", account).await;
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": format!("{account}:tokens")},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "acmegate:domain-solver"},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": "tokens"}],
        });
        lab.cluster.apply(&binding.to_string()).await;
    }
    let good = lab.cluster.token("tokens", "robot").await;
    let back = |by: i64| {
        lab.cluster.token_with(&good, |claims| {
            for time in ["iat", "nbf", "exp"] {
                claims[time] = json!(claims[time].as_i64().expect("a time") - by);
            }
        })
    };
    let leaver = lab.cluster.token("tokens", "leaver").await;
    // RBAC goes by what its informers have seen; and a token that the test signed is as good as one of the API server, as long as its time lasts.
    for token in [&good, &back(1), &leaver] {
        let allowed = || async {
            let (status, body) = present(&acmegate, &door, token).await;
            if status == StatusCode::CREATED { Ok(body) } else { Err(format!("{status}: {body}")) }
        };
        assert_eq!(until("the right to call", allowed).await["response"]["success"], true);
    }

    lab.cluster.kubectl(&["delete", "serviceaccount", "leaver", "--namespace=tokens"]).await.succeeded();
    let another = lab.cluster.token_for("tokens", "robot", &json!({"audiences": ["https://vault.test"]})).await;
    let (unsigned, _) = good.rsplit_once('.').expect("a signature");
    let forged = format!("{unsigned}.{}", another.rsplit_once('.').expect("a signature").1);
    // What the API server said of a token holds for some seconds.
    let gone = || async {
        let (status, body) = present(&acmegate, &door, &leaver).await;
        if status == StatusCode::UNAUTHORIZED { Ok(()) } else { Err(format!("{status}: {body}")) }
    };
    until("the token of a deleted account to be nobody's", gone).await;
    for token in [&back(2 * 3600), &another, &forged, &format!("{unsigned}."), SECRET] {
        let (status, body) = present(&acmegate, &door, token).await;
        assert_eq!(
            (status, &body["message"], &body["reason"]),
            (StatusCode::UNAUTHORIZED, &json!("Unauthorized"), &json!("Unauthorized")),
            "{token}"
        );
    }
    let log = log(&acmegate);
    assert!(log.matches("its bearer token is nobody's, or no longer").count() >= 6, "{log}");
    for token in [&good, &another, &leaver, SECRET] {
        assert!(!log.contains(token.rsplit('.').next().unwrap_or(token)), "a token, or its signature, is in the log");
    }
}

/// Presents a value at the door itself, with this token.
async fn present(acmegate: &Acmegate, door: &Webhook, token: &str) -> (StatusCode, Value) {
    let root = Certificate::from_pem(door.certificate().as_bytes()).expect("the door's certificate");
    let client = Client::builder().tls_certs_only([root]).timeout(LIMIT).build().expect("a client");
    let url = format!("https://localhost:{}/apis/{GROUP}/v1alpha1/{SOLVER}", acmegate.door("webhook").port());
    let sent = client.post(url).bearer_auth(token).json(&payload("Present", NAMESPACE, &format!("token.{ZONE}"))).send().await;
    let answer = sent.expect("an answer");
    (answer.status(), answer.json().await.expect("JSON"))
}

/// The audit line of an action for a name.
async fn audit_line(acmegate: &Acmegate, name: &str, action: &str) -> Value {
    let dns_name = format!("{name}.");
    let is_it = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["target"] == "acmegate::audit" && line["dns_name"] == dns_name && line["action"] == action).then_some(line)
    };
    acmegate.process().stderr_line("an audit line", is_it).await
}

fn log(acmegate: &Acmegate) -> String {
    acmegate.process().stderr()
}
