//! Certificates of `acmegate issue` in Secrets of a cluster, and a Deployment that is told.

use acmegate_tests::{
    certificates::assert_holds,
    kubernetes::Cluster,
    world::{World, ZONE},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

const NAMESPACE: &str = "apps";

/// What acmegate's account may do in one namespace, and in no other.
async fn account(cluster: &Cluster) -> std::path::PathBuf {
    cluster.service_account("acmegate", "acmegate").await;
    cluster.namespace(NAMESPACE).await;
    cluster.namespace("foreign").await;
    let rights = json!({"kind": "List", "apiVersion": "v1", "items": [
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "acmegate", "namespace": NAMESPACE}, "rules": [
            {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["web", "other", "theirs", "opaque"], "verbs": ["create", "patch"]},
            {"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["web"], "verbs": ["patch"]},
        ]},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "acmegate", "namespace": NAMESPACE},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "acmegate"},
         "subjects": [{"kind": "ServiceAccount", "name": "acmegate", "namespace": "acmegate"}]},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": NAMESPACE}, "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "web"}]}},
        }},
        {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "theirs", "namespace": NAMESPACE},
         "data": {"tls.crt": STANDARD.encode("old"), "tls.key": STANDARD.encode("old")}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "opaque", "namespace": NAMESPACE}, "stringData": {"a": "b"}},
    ]});
    cluster.apply(&rights.to_string()).await;
    let token = cluster.token("acmegate", "acmegate").await;
    cluster.kubeconfig_of_token("acmegate", &token)
}

fn entry(secret: &Value, key: &str) -> String {
    let bytes = secret["data"][key].as_str().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
    String::from_utf8(bytes).expect("a text")
}

#[tokio::test]
async fn a_certificate_goes_into_secrets_that_are_ours() {
    let cluster = Cluster::start().await;
    let kubeconfig = account(&cluster).await;
    let world = World::builder().config(move |config| config.section("kubernetes", &format!("kubeconfig: {kubeconfig:?}"))).start().await;
    let name = format!("www.{ZONE}");
    let issue = async |arguments: &[&str]| {
        let order = arguments.iter().fold(world.acmegate.issue(&[&name]), |order, argument| order.argument(argument));
        order.run().await
    };
    let path = |name: &str| format!("/api/v1/namespaces/{NAMESPACE}/secrets/{name}");

    // A new one, and its renewal.
    let mut keys = Vec::new();
    for _ in 0..2 {
        issue(&["--secret", "apps/web", "--secret-ca"]).await.output.succeeded().says("wrote the Secret apps/web");
        let secret = cluster.api().get(&path("web")).await;
        assert_eq!(secret["type"], "kubernetes.io/tls");
        assert_holds(&entry(&secret, "tls.crt"), &entry(&secret, "tls.key"), &world.ca, &[&name]).await;
        assert!(entry(&secret, "tls.crt").ends_with(&entry(&secret, "ca.crt")) && !entry(&secret, "ca.crt").is_empty());
        assert_eq!(secret["metadata"]["annotations"]["acmegate.io/names"], name.as_str());
        assert!(secret["metadata"]["annotations"]["acmegate.io/not-after"].as_str().is_some_and(|time| time.ends_with('Z')));
        assert_eq!(secret["metadata"]["managedFields"][0]["manager"], "acmegate");
        keys.push(entry(&secret, "tls.key"));
    }
    assert_ne!(keys[0], keys[1]);

    // Without --secret-ca the key goes again: it is ours.
    issue(&["--secret", "apps/web"]).await.output.succeeded();
    assert!(cluster.api().get(&path("web")).await["data"]["ca.crt"].is_null());

    // Somebody else's stays as it is; the certificate is in its folder and in the other Secret, and nobody is told.
    let before = cluster.api().get(&path("theirs")).await;
    let refused = issue(&["--secret", "apps/theirs", "--secret", "apps/other", "--rollout-restart", "apps/web"]).await;
    refused.output.exited(1).says("Secret apps/theirs: somebody else keeps it (kubectl)").says("--secret-force").says("it is in ");
    refused.output.says("restart of the Deployment apps/web: not done").says("wrote the Secret apps/other");
    assert!(refused.folder().join("privkey.pem").exists());
    assert_eq!(cluster.api().get(&path("theirs")).await, before);
    issue(&["--secret", "apps/theirs", "--secret-force"]).await.output.succeeded();
    let taken = cluster.api().get(&path("theirs")).await;
    assert_holds(&entry(&taken, "tls.crt"), &entry(&taken, "tls.key"), &world.ca, &[&name]).await;

    // What cannot be, and what to do.
    let cannot = issue(&["--secret", "apps/opaque", "--secret", "foreign/web", "--secret-force"]).await;
    cannot.output.exited(1).says("kubectl delete secret opaque --namespace apps");
    cannot.output.says("Secret foreign/web: acmegate's account may not write it: give it a Role with the verbs create and patch");

    // The Deployment is restarted as kubectl does it.
    issue(&["--secret", "apps/web", "--rollout-restart", "apps/web"]).await.output.succeeded().says("restarted the Deployment apps/web");
    let deployment = cluster.api().get(&format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/web")).await;
    let restarted = &deployment["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"];
    assert!(restarted.as_str().is_some_and(|time| time.ends_with('Z')), "{deployment}");
    let nowhere = issue(&["--rollout-restart", "apps/other"]).await;
    nowhere.output.exited(1).says("a Role with the verb patch for the Deployment other in the namespace apps");
}
