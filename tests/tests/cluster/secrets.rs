//! Issuers with credentials of their own: a Secret beside the Issuer, and none anywhere else.

use std::collections::BTreeSet;

use acmegate_tests::{
    acmegate::{Acmegate, Config},
    addresses::Address,
    bind::zone,
    dns,
    kubernetes::Cluster,
    pdns::{API_KEY, Pdns},
    updates::Updates,
    wait::until,
    webhook::{SERVICE, Webhook},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::lab::{GROUP, SOLVER};

/// The zone of the tenants' DNS service.
const TENANTS: &str = "tenants.test";
/// A key that the service does not know.
const STALE_KEY: &str = "a-key-of-last-year";

/// A cluster with acmegate in it, at the address of a Service, and a DNS service that asks for a key.
struct Tenants {
    cluster: Cluster,
    acmegate: Acmegate,
    service: Pdns,
    _door: Webhook,
}

impl Tenants {
    async fn start() -> Self {
        let (namespace, name) = SERVICE;
        let (cluster, address, door) = (Cluster::start().await, Address::reserve(), Webhook::new());
        let text = zone(TENANTS, &address);
        let service = Pdns::start(address, &[(TENANTS, text)], &Updates::default()).await;
        let kubeconfig = cluster.delegated(namespace, name).await;
        let own = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
            "spec": {"ports": [{"name": "https", "port": 443}], "selector": {"app.kubernetes.io/name": "acmegate"}},
        });
        cluster.apply(&own.to_string()).await;
        let address = cluster.service_address(namespace, name).await;
        let (of_tenants, of_acmegate) = (
            format!(
                "- name: tenants\n  provider: powerdns\n  check: none\n  settings: {{endpoint: {:?}, api_key: {{issuer: api-key}}}}",
                service.api()
            ),
            format!(
                "- name: own\n  provider: powerdns\n  check: none\n  zones: [own.test]\n  settings: {{endpoint: {:?}, api_key: {{env: PATH}}}}",
                service.api()
            ),
        );
        let policy = format!(
            "policy:\n- {{namespaces: [team-a, team-b, team-x], names: [{TENANTS}], backends: [tenants, own], secrets: true}}\n\
             - {{namespaces: [team-c], names: [{TENANTS}]}}\ncallers: {{cluster: true}}"
        );
        let config = Config::new()
            .section("kubernetes", &format!("kubeconfig: {kubeconfig:?}"))
            .section("backends", &format!("{of_tenants}\n{of_acmegate}"));
        let acmegate = Acmegate::started(door.configure_with(config, address, &policy)).await;
        cluster.register(GROUP, SERVICE, address.port(), door.certificate()).await;
        Self { cluster, acmegate, service, _door: door }
    }

    /// Gives a namespace a Secret with this key, which acmegate may read.
    async fn secret(&self, namespace: &str, key: &str) {
        self.cluster.namespace(namespace).await;
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "dns", "namespace": namespace}, "stringData": {"api-key": key}},
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "dns", "namespace": namespace},
             "rules": [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["dns", "empty"], "verbs": ["get"]}]},
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "dns", "namespace": namespace},
             "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "dns"},
             "subjects": [{"kind": "ServiceAccount", "name": SERVICE.1, "namespace": SERVICE.0}]},
        ]});
        self.cluster.apply(&objects.to_string()).await;
    }

    /// What cert-manager would be told, by way of the API server.
    async fn call(&self, action: &str, namespace: &str, value: &str, config: Value) -> Result<(), String> {
        let payload = json!({"request": {
            "uid": "", "action": action, "type": "dns-01", "dnsName": TENANTS, "key": value, "resourceNamespace": namespace,
            "resolvedFQDN": format!("_acme-challenge.{TENANTS}."), "resolvedZone": format!("{TENANTS}."), "config": config,
        }});
        let answer = self.cluster.api().create(&format!("/apis/{GROUP}/v1alpha1/{SOLVER}"), &payload).await;
        let response = &answer["response"];
        if response["success"] == true { Ok(()) } else { Err(response["status"]["message"].as_str().expect("a message").to_owned()) }
    }

    /// Waits until acmegate, just started, knows who may call.
    async fn answers(&self) {
        let api = self.cluster.api();
        let answers = || async {
            let answer = api.ask(Method::GET, &format!("/apis/{GROUP}/v1alpha1"), None).await?;
            anyhow::ensure!(answer.status == StatusCode::OK, "{answer:?}");
            anyhow::Ok(())
        };
        until("acmegate to answer through the API server", answers).await;
    }

    /// Waits until these values stand, and no others.
    async fn stand(&self, values: &[&str]) {
        let wanted: BTreeSet<String> = values.iter().map(|&value| value.to_owned()).collect();
        let stand = || async {
            let found = dns::txt(self.service.dns(), &format!("_acme-challenge.{TENANTS}")).await;
            if found == wanted { Ok(()) } else { Err(anyhow::anyhow!("{found:?}")) }
        };
        until(&format!("{wanted:?} to stand"), stand).await;
    }
}

#[tokio::test]
async fn a_tenant_brings_a_secret_of_its_own_namespace_and_of_no_other() {
    let mut tenants = Tenants::start().await;
    let with_secret = || json!({"backend": "tenants", "secret": {"name": "dns"}});
    tenants.secret("team-a", API_KEY).await;
    tenants.secret("team-b", STALE_KEY).await;
    tenants.secret("team-c", API_KEY).await;
    tenants.cluster.namespace("team-x").await;
    assert_eq!(tenants.call("Present", "team-a", "one", with_secret()).await, Ok(()));
    tenants.stand(&["one"]).await;

    let refused = async |namespace: &str, config: Value, said: &str| {
        let message = tenants.call("Present", namespace, "stolen", config.clone()).await.expect_err("a refusal");
        assert!(message.contains(said), "{namespace} {config}: {message}");
    };
    refused("team-b", with_secret(), "the credential was refused").await;
    refused("team-c", with_secret(), "not with a Secret of its own").await;
    refused("team-x", with_secret(), "a Role with the verb get for the Secret dns in the namespace team-x").await;
    refused("team-a", json!({"backend": "tenants", "secret": {"name": "empty"}}), "does not exist in the namespace team-a").await;
    refused("team-a", json!({"backend": "tenants"}), "name a Secret of the issuer's namespace").await;
    refused("team-a", json!({"backend": "own", "secret": {"name": "dns"}}), "remove the key secret").await;
    refused("team-a", json!({"secret": {"name": "dns"}}), "a secret is for one backend").await;
    refused("team-b", json!({"backend": "tenants", "secret": {"name": "dns", "namespace": "team-a"}}), "in the issuer's own namespace")
        .await;
    refused("team-b", json!({"backend": "tenants", "secret": {"name": "team-a/dns"}}), "in the issuer's own namespace").await;
    tenants.stand(&["one"]).await;

    // What a process presented before it was killed, the next one takes away: it knows whose Secret that was.
    let mut log = tenants.acmegate.process().stderr();
    tenants.acmegate.kill();
    tenants.acmegate.start().await;
    tenants.answers().await;
    assert_eq!(tenants.call("Present", "team-a", "two", with_secret()).await, Ok(()));
    assert_eq!(tenants.call("CleanUp", "team-a", "one", with_secret()).await, Ok(()));
    tenants.stand(&["two"]).await;

    // The Secret goes first when a namespace is deleted. Nothing new is presented with it, and what stands goes all the same.
    tenants.cluster.kubectl(&["delete", "secret", "dns", "--namespace", "team-a"]).await.succeeded();
    let gone = || async {
        match tenants.call("Present", "team-a", "three", with_secret()).await {
            Err(message) if message.contains("does not exist in the namespace team-a") => Ok(()),
            other => Err(anyhow::anyhow!("{other:?}")),
        }
    };
    until("the Secret to be missed", gone).await;
    assert_eq!(tenants.call("CleanUp", "team-a", "three", with_secret()).await, Ok(()));
    assert_eq!(tenants.call("CleanUp", "team-a", "two", with_secret()).await, Ok(()));
    tenants.stand(&[]).await;

    log += &tenants.acmegate.process().stderr();
    for line in ["tenants@team-a/dns", "tenants@team-b/dns"] {
        assert!(log.contains(line), "the log names {line}");
    }
    for key in [API_KEY, STALE_KEY] {
        assert!(!log.contains(key), "a key stands in the log");
    }
}
