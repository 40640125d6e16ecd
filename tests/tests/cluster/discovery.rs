//! The cluster itself, and what it and kubectl want to know of an aggregated API server.

use acmegate_tests::{dns, kubernetes::Cluster, wait::until, webhook::SERVICE, world::ZONE};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::lab::{self, GROUP, Lab, SOLVER};

/// A ServiceAccount is who its token says, and may do what it was given.
#[tokio::test]
async fn a_service_account_may_do_what_it_was_given() {
    let lab = Lab::share().await;
    lab.cluster.service_account("accounts", "robot").await;
    let robot = lab.cluster.api_with(Some(lab.cluster.token("accounts", "robot").await));
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let found = robot.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", &review).await;
    assert_eq!(found["status"]["userInfo"]["username"], "system:serviceaccount:accounts:robot");

    let call = format!("/apis/{GROUP}/v1alpha1/{SOLVER}");
    let refused = robot.ask(Method::POST, &call, Some(&json!({}))).await.expect("an answer");
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{refused:?}");
    let message = refused.body["message"].as_str().expect("a message");
    assert!(message.contains("accounts:robot") && message.contains(GROUP), "{message}");
    let nobody = lab.cluster.api_with(None).ask(Method::POST, &call, Some(&json!({}))).await.expect("an answer");
    assert_eq!(nobody.status, StatusCode::FORBIDDEN, "{nobody:?}");

    // Whoever calls with the right gets through: the answer is acmegate's own.
    let role = json!({"kind": "List", "apiVersion": "v1", "items": [{
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "robot:domain-solver"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "acmegate:domain-solver"},
        "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "accounts"}],
    }]});
    lab.cluster.apply(&role.to_string()).await;
    let name = format!("_acme-challenge.robot.{}", ZONE);
    let payload = |action: &str| {
        json!({"request": {
            "uid": "", "action": action, "type": "dns-01", "dnsName": name.trim_start_matches("_acme-challenge."), "key": "123d==",
            "resourceNamespace": "accounts", "resolvedFQDN": format!("{name}."), "resolvedZone": "", "config": null,
        }})
    };
    // RBAC goes by what its informers have seen.
    let allowed = || async {
        let answer = robot.ask(Method::POST, &call, Some(&payload("Present"))).await?;
        if answer.status == StatusCode::FORBIDDEN { Err(anyhow::anyhow!("{}", answer.body)) } else { Ok(answer) }
    };
    let answer = until("the right to reach the API server", allowed).await;
    assert_eq!((answer.status, &answer.body["response"]["success"]), (StatusCode::CREATED, &json!(true)), "{answer:?}");
    dns::txt_becomes(lab.world.acmegate.dns(), &name, &["123d=="]).await;
    let answer = robot.create(&call, &payload("CleanUp")).await;
    assert_eq!(answer["response"]["success"], true, "{answer}");
    dns::txt_becomes(lab.world.acmegate.dns(), &name, &[]).await;
}

/// What an aggregated API server has to ask its cluster, it may ask with the rights that a chart gives it, and no more.
#[tokio::test]
async fn a_delegated_account_may_ask_about_callers() {
    let lab = Lab::share().await;
    lab.cluster.delegated("delegated", "gateway").await;
    let gateway = lab.cluster.api_with(Some(lab.cluster.token("delegated", "gateway").await));
    let authorities = gateway.get("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication").await;
    let front_proxy = authorities["data"]["requestheader-client-ca-file"].as_str().expect("the front proxy's authority");
    assert_eq!(front_proxy.trim(), lab.cluster.pki().front_proxy().certificate().trim());

    lab.cluster.service_account("delegated", "caller").await;
    let token = lab.cluster.token("delegated", "caller").await;
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let reviewed = gateway.create("/apis/authentication.k8s.io/v1/tokenreviews", &review).await;
    assert_eq!(reviewed["status"]["user"]["username"], "system:serviceaccount:delegated:caller");
    let attributes = json!({"group": GROUP, "version": "v1alpha1", "resource": SOLVER, "verb": "create"});
    let review = |user: &str| json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {"user": user, "resourceAttributes": attributes}});
    for (user, allowed) in [("system:serviceaccount:delegated:caller", false), ("system:serviceaccount:cert-manager:cert-manager", true)] {
        let reviewed = gateway.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review(user)).await;
        assert_eq!(reviewed["status"]["allowed"], allowed, "{user}: {reviewed}");
    }
    let secrets = gateway.ask(Method::GET, "/api/v1/secrets", None).await.expect("an answer");
    assert_eq!(secrets.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn kubectl_finds_the_resource() {
    let lab = Lab::share().await;
    let group_version = format!("{GROUP}/v1alpha1");
    let raw = async |path: &str| lab.cluster.kubectl(&["get", "--raw", path]).await.succeeded().stdout.clone();
    let resources: Value = serde_json::from_str(&raw(&format!("/apis/{group_version}")).await).expect("JSON");
    assert_eq!((&resources["groupVersion"], &resources["resources"][0]["name"]), (&json!(group_version), &json!(SOLVER)));

    let listed = lab.cluster.kubectl(&["api-resources", "--no-headers", &format!("--api-group={GROUP}")]).await;
    let columns: Vec<_> = listed.succeeded().stdout.split_whitespace().collect();
    assert_eq!(columns, [SOLVER, &group_version, "false", "ChallengePayload"], "{listed}");
    // One server that does not answer would spoil it for all.
    lab.cluster.kubectl(&["api-resources"]).await.succeeded().never_says("unable to retrieve").says("certificates");

    let all: Value = serde_json::from_str(&raw("/openapi/v3").await).expect("JSON");
    let path = all["paths"][format!("apis/{group_version}")]["serverRelativeURL"].as_str().expect("the group's schema");
    let schema: Value = serde_json::from_str(&raw(path).await).expect("JSON");
    assert!(schema["openapi"].as_str().is_some_and(|version| version.starts_with("3.0")), "{schema}");
    let merged: Value = serde_json::from_str(&raw("/openapi/v2").await).expect("JSON");
    assert_eq!(merged["swagger"], "2.0");

    lab.cluster.kubectl(&["explain", SOLVER, &format!("--api-version={group_version}")]).await.succeeded().says("ChallengePayload");
}

/// Whatever kubectl has found: the API server itself has nothing to complain of.
#[tokio::test]
async fn the_api_server_has_no_complaint() {
    let lab = Lab::share().await;
    lab.cluster.kubectl(&["get", "--raw", "/openapi/v2"]).await.succeeded();
    lab.cluster.kubectl(&["api-resources"]).await.succeeded();
    let log = lab.cluster.api_server_log();
    let complaints: Vec<_> = log.lines().filter(|line| line.contains(GROUP) && line.starts_with(['E', 'W', 'F'])).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// A Service as a chart makes it, whose address acmegate has; and a restart of the API server loses nothing.
#[tokio::test]
async fn a_service_of_its_own_leads_there_after_a_restart_too() {
    let mut cluster = Cluster::start().await;
    let address = lab::service(&cluster).await;
    let (_acmegate, door) = lab::alone(&cluster, address).await;
    cluster.register(GROUP, SERVICE, address.port(), door.certificate()).await;

    let path = format!("/apis/{GROUP}/v1alpha1");
    let before = cluster.api().get(&path).await;
    assert_eq!(before["resources"][0]["name"], SOLVER);
    cluster.restart_api_server().await;
    // It is ready before it has asked all aggregated ones.
    let api = cluster.api();
    let again = || async {
        let answer = api.ask(Method::GET, &path, None).await?;
        anyhow::ensure!(answer.status == StatusCode::OK, "{answer:?}");
        anyhow::Ok(answer.body)
    };
    assert_eq!(until("the API server to lead there again", again).await, before);
}
