//! What the tests share: one control plane with cert-manager's controllers, and acmegate behind an APIService, in a small internet of their own.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    ops::Deref,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use acmegate_tests::{
    acmegate::{Acmegate, Config},
    certmanager::{CertManager, Solver},
    kubernetes::Cluster,
    webhook::{SERVICE, Webhook},
    world::{World, ZONE},
};
use serde_json::{Value, json};
use tokio::sync::Mutex;

/// The API group and the solver of the configuration.
pub(crate) const GROUP: &str = "acme.acmegate.io";
pub(crate) const SOLVER: &str = "acmegate";
/// A free port.
pub(crate) const ANY: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));

/// acmegate's configuration here, beside that of every [`World`]: the one place where it stands. Who may call is for the cluster of this kubeconfig to say.
pub(crate) fn configuration(door: &Webhook, address: SocketAddr, kubeconfig: &Path, config: Config) -> Config {
    let config = config.section("kubernetes", &format!("kubeconfig: {kubeconfig:?}"));
    door.configure_at(config, address, "callers: {cluster: true}")
}

/// acmegate with a zone and nothing else, its door at this address, for this cluster.
pub(crate) async fn alone(cluster: &Cluster, address: SocketAddr) -> (Acmegate, Webhook) {
    let (door, kubeconfig) = (Webhook::new(), cluster.delegated("acmegate", "acmegate").await);
    (Acmegate::started(configuration(&door, address, &kubeconfig, zone())).await, door)
}

/// An account that may, beside what every aggregated API server may, keep the authority in its APIService; gives its kubeconfig.
pub(crate) async fn self_made(cluster: &Cluster) -> PathBuf {
    let (namespace, name) = SERVICE;
    let kubeconfig = cluster.delegated(namespace, name).await;
    let rights = json!({"kind": "List", "apiVersion": "v1", "items": [
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "acmegate"}, "rules": [{
            "apiGroups": ["apiregistration.k8s.io"], "resources": ["apiservices"], "resourceNames": [format!("v1alpha1.{GROUP}")],
            "verbs": ["get", "list", "watch", "patch"],
        }]},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "acmegate"},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "acmegate"},
         "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}]},
    ]});
    cluster.apply(&rights.to_string()).await;
    kubeconfig
}

/// A Service as a chart makes it; gives the address at which acmegate has to listen to be it, after each start the same one.
pub(crate) async fn service(cluster: &Cluster) -> SocketAddr {
    let (namespace, name) = SERVICE;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
        "spec": {"ports": [{"name": "https", "port": 443, "targetPort": "https"}], "selector": {"app.kubernetes.io/name": "acmegate"}},
    });
    cluster.namespace(namespace).await;
    cluster.apply(&service.to_string()).await;
    cluster.service_address(namespace, name).await
}

/// The zone, and nothing else.
pub(crate) fn zone() -> Config {
    Config::new().dns(ANY).zone_with(ZONE, &format!("ns1.{ZONE}"), &[&format!("ns1.{ZONE}. 3600 A 198.51.100.1")])
}

/// What cert-manager asks for an Issuer of this namespace, for a name whose challenge nothing leads elsewhere.
pub(crate) fn payload(action: &str, namespace: &str, name: &str) -> Value {
    json!({"request": {
        "uid": "", "action": action, "type": "dns-01", "dnsName": name, "key": "123d==", "resourceNamespace": namespace,
        "resolvedFQDN": format!("_acme-challenge.{name}."), "resolvedZone": "", "config": null,
    }})
}

/// Everything, running. The controllers end before the API server that they talk to.
pub(crate) struct Lab {
    pub certmanager: CertManager,
    pub cluster: Cluster,
    pub world: World,
    pub door: Arc<Webhook>,
}

/// A test's share of it; shows the logs of the shared processes if that test fails.
pub(crate) struct Share(Arc<Lab>);

impl Lab {
    /// The one that other tests use at this moment, or a new one. It ends with the last test that has it.
    pub(crate) async fn share() -> Share {
        static SHARED: Mutex<Weak<Lab>> = Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(lab) = shared.upgrade() {
            return Share(lab);
        }
        let lab = Arc::new(Self::start().await);
        *shared = Arc::downgrade(&lab);
        Share(lab)
    }

    async fn start() -> Self {
        let cluster = Cluster::start_with_controllers().await;
        cluster.apply(EVENTS).await;
        let kubeconfig = cluster.delegated("acmegate", "acmegate").await;
        let door = Arc::new(Webhook::new());
        let configured = Arc::clone(&door);
        let world = World::builder().config(move |config| configuration(&configured, ANY, &kubeconfig, config)).start().await;
        cluster.route(GROUP, SERVICE, world.acmegate.door("webhook"), door.certificate()).await;
        cluster.apply(DOMAIN_SOLVER).await;
        let certmanager = CertManager::start(&cluster, world.resolver.dns()).await;
        Self { certmanager, cluster, world, door }
    }

    /// How an Issuer calls acmegate.
    pub(crate) fn solver(&self) -> Solver {
        Solver::webhook(GROUP, SOLVER)
    }
}

impl Deref for Share {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.0
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if std::thread::panicking() && Arc::strong_count(&self.0) > 1 {
            self.certmanager.show_logs();
            self.cluster.show_logs();
        }
    }
}

/// What lets acmegate tell people of their challenges, as the chart would have it.
pub(crate) const EVENTS: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: acmegate}
rules:
- {apiGroups: [events.k8s.io], resources: [events], verbs: [create, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: acmegate}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: acmegate}
subjects:
- {kind: ServiceAccount, name: acmegate, namespace: acmegate}
";

/// What lets cert-manager's ServiceAccount call the webhook, as the chart would have it.
pub(crate) const DOMAIN_SOLVER: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: acmegate:domain-solver}
rules:
- {apiGroups: [acme.acmegate.io], resources: ['*'], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: acmegate:domain-solver}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: acmegate:domain-solver}
subjects:
- {kind: ServiceAccount, name: cert-manager, namespace: cert-manager}
";
