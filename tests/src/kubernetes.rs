//! Kubernetes: a real API server with its etcd, on loopback, without a node. Nothing that a pod would do happens: the test starts acmegate itself,
//! and sends the cluster to it.
//!
//! Two ways lead from an `APIService` to a local process:
//! - [`Cluster::route`]: a Service of type `ExternalName` that means `localhost`, and the port that the process has. Quick, and any port will do.
//! - [`Cluster::service_address`]: a Service as a chart makes it. The cluster's range of Service addresses lies in 127.96.0.0/16, so the process listens on the
//!   Service's own address and port.

mod api;
mod pki;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

pub use self::{
    api::{Answer, Api},
    pki::{Authority, FRONT_PROXY, Pair, Pki},
};
use crate::{
    peers::peer,
    ports::Port,
    process::{Output, Process, run},
    temporary_folder,
    wait::{LIMIT, until, until_within},
    write,
};

/// A running control plane.
pub struct Cluster {
    api: Option<Process>,
    controllers: Option<Process>,
    etcd: Process,
    pki: Pki,
    ports: Ports,
    services: Services,
    folder: TempDir,
}

struct Ports {
    etcd: Port,
    etcd_peers: Port,
    api: Port,
    controllers: Port,
}

/// The controllers that make a cluster without pods behave: namespaces go, owned objects go, and each namespace has its ServiceAccount.
const CONTROLLERS: &str = "namespace-controller,garbage-collector-controller,serviceaccount-controller,serviceaccount-token-controller,\
                           root-ca-certificate-publisher-controller,clusterrole-aggregation-controller";

/// How long the control plane may take to start. It needs 4 s on an idle machine.
const START: Duration = Duration::from_secs(120);

impl Cluster {
    /// Starts etcd and the API server. Without controllers no namespace ever goes, and none has a ServiceAccount that was not created.
    ///
    /// # Panics
    /// When they do not come up.
    pub async fn start() -> Self {
        let folder = temporary_folder("cluster");
        let services = Services::reserve();
        let pki = Pki::make(folder.path().join("pki"), services.address(1));
        let ports = Ports { etcd: Port::reserve(), etcd_peers: Port::reserve(), api: Port::reserve(), controllers: Port::reserve() };
        let etcd = etcd(&ports, folder.path());
        let mut cluster = Self { api: None, controllers: None, etcd, pki, ports, services, folder };
        write(&cluster.kubeconfig(), &cluster.kubeconfig_text(&json!(identity(cluster.pki.admin()))));
        cluster.start_api_server().await;
        cluster
    }

    /// Starts the controller manager, too.
    ///
    /// # Panics
    /// When something does not come up.
    pub async fn start_with_controllers() -> Self {
        let mut cluster = Self::start().await;
        let kubeconfig = cluster.folder.path().join("controllers.kubeconfig");
        write(&kubeconfig, &cluster.kubeconfig_text(&identity(cluster.pki.controllers())));
        let mut command = kubelab("kube-controller-manager");
        for flag in ["--kubeconfig", "--authentication-kubeconfig", "--authorization-kubeconfig"] {
            command.arg(flag).arg(&kubeconfig);
        }
        command.args(["--leader-elect=false", "--use-service-account-credentials", "--bind-address=127.0.0.1"]);
        command.args(["--controllers", CONTROLLERS, "--secure-port", &cluster.ports.controllers.address().port().to_string()]);
        command.arg("--service-account-private-key-file").arg(cluster.pki.folder().join("service-accounts.key"));
        command.arg("--root-ca-file").arg(cluster.pki.folder().join("ca.crt"));
        let process = Process::spawn("kube-controller-manager", command);
        let api = cluster.api();
        let works = || async {
            assert!(process.is_running(), "kube-controller-manager ended at its start");
            found(&api, "/api/v1/namespaces/default/serviceaccounts/default").await?;
            found(&api, "/api/v1/namespaces/default/configmaps/kube-root-ca.crt").await
        };
        until_within(START, "the controllers to work", works).await;
        cluster.controllers = Some(process);
        cluster
    }

    /// Ends the API server by SIGKILL: nobody answers there until [`start_api_server`](Self::start_api_server).
    pub fn stop_api_server(&mut self) {
        self.api = None;
    }

    /// Starts the API server (again, on the same port) and waits until it is ready.
    ///
    /// # Panics
    /// When it runs already, or does not come up.
    pub async fn start_api_server(&mut self) {
        assert!(self.api.is_none(), "the API server runs already");
        let process = Process::spawn("kube-apiserver", self.api_server());
        let client = self.api();
        let ready = || async {
            assert!(process.is_running(), "kube-apiserver ended at its start");
            assert!(self.etcd.is_running(), "etcd has ended");
            found(&client, "/readyz").await
        };
        until_within(START, "the API server to be ready", ready).await;
        self.api = Some(process);
    }

    /// Ends the API server by SIGKILL and starts it again.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn restart_api_server(&mut self) {
        self.stop_api_server();
        self.start_api_server().await;
    }

    /// Starts the API server again with another authority for its certificate as a front proxy: it then writes the ConfigMap
    /// `extension-apiserver-authentication` anew.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn rotate_front_proxy(&mut self) {
        self.stop_api_server();
        self.pki.renew_front_proxy();
        self.start_api_server().await;
    }

    /// Where the API server listens.
    pub fn address(&self) -> SocketAddr {
        self.ports.api.address()
    }

    /// The URL of the API server.
    pub fn url(&self) -> String {
        format!("https://{}", self.address())
    }

    /// The certificates and keys of the cluster.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// All that the API server has said so far, this time.
    ///
    /// # Panics
    /// When it does not run.
    pub fn api_server_log(&self) -> String {
        self.api.as_ref().unwrap_or_else(|| panic!("the API server does not run")).stderr()
    }

    /// The API as its administrator uses it.
    pub fn api(&self) -> Api {
        Api::new(self.url(), self.pki.clients().certificate(), Some(self.pki.admin()), None)
    }

    /// The API as whoever has this token uses it; as nobody without one.
    pub fn api_with(&self, token: Option<String>) -> Api {
        Api::new(self.url(), self.pki.clients().certificate(), None, token)
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// A kubeconfig for a bearer token; it lies in the cluster's folder.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn kubeconfig_of_token(&self, name: &str, token: &str) -> PathBuf {
        let file = self.folder.path().join(format!("{name}.kubeconfig"));
        write(&file, &self.kubeconfig_text(&json!({ "token": token })));
        file
    }

    /// Makes sure that a namespace is there.
    ///
    /// # Panics
    /// When that fails.
    pub async fn namespace(&self, name: &str) {
        self.ensure("/api/v1/namespaces", &json!({"metadata": {"name": name}})).await;
    }

    /// Makes sure that a ServiceAccount and its namespace are there.
    ///
    /// # Panics
    /// When that fails.
    pub async fn service_account(&self, namespace: &str, name: &str) {
        self.namespace(namespace).await;
        self.ensure(&format!("/api/v1/namespaces/{namespace}/serviceaccounts"), &json!({"metadata": {"name": name}})).await;
    }

    /// A token of a ServiceAccount that is there, for an hour and for the API server.
    ///
    /// # Panics
    /// When it is not there.
    pub async fn token(&self, namespace: &str, account: &str) -> String {
        self.token_for(namespace, account, &json!({})).await
    }

    /// A token with a `spec` of its own, such as `{"expirationSeconds": 600, "audiences": ["other"]}`.
    ///
    /// # Panics
    /// When the account is not there, or the API server refuses.
    pub async fn token_for(&self, namespace: &str, account: &str, spec: &Value) -> String {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        let made = self.api().create(&path, &request).await;
        made["status"]["token"].as_str().unwrap_or_else(|| panic!("no token in {made}")).to_owned()
    }

    /// A ServiceAccount with the rights that an aggregated API server needs to know who calls it and what they may: it reads the front proxy's authority, and
    /// has tokens and rights reviewed. Gives its kubeconfig.
    ///
    /// # Panics
    /// When that fails.
    pub async fn delegated(&self, namespace: &str, account: &str) -> PathBuf {
        self.service_account(namespace, account).await;
        let binding = |kind: &str, within: Value, role: (&str, &str)| {
            let mut metadata = within;
            metadata["name"] = json!(format!("{namespace}:{account}:{}", role.1));
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role.0, "name": role.1},
                "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
            })
        };
        let reader = binding("RoleBinding", json!({"namespace": "kube-system"}), ("Role", "extension-apiserver-authentication-reader"));
        let delegator = binding("ClusterRoleBinding", json!({}), ("ClusterRole", "system:auth-delegator"));
        self.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [reader, delegator]}).to_string()).await;
        let token = self.token(namespace, account).await;
        self.kubeconfig_of_token(&format!("{namespace}-{account}"), &token)
    }

    /// Runs kubectl as the administrator.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn kubectl(&self, arguments: &[&str]) -> Output {
        self.tool("kubectl", arguments).await
    }

    /// Runs helm as the administrator.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn helm(&self, arguments: &[&str]) -> Output {
        self.tool("helm", arguments).await
    }

    /// Applies manifests, on the server's side: YAML documents, or JSON.
    ///
    /// # Panics
    /// When the API server refuses one.
    pub async fn apply(&self, manifests: &str) {
        let file = self.file(manifests);
        self.apply_files(&[file.path()]).await;
    }

    /// Applies the manifests of files or folders.
    ///
    /// # Panics
    /// When the API server refuses one.
    pub async fn apply_files(&self, files: &[&Path]) {
        let mut arguments = vec!["apply".to_owned(), "--server-side".into(), "--force-conflicts".into()];
        arguments.extend(files.iter().map(|file| format!("--filename={}", file.display())));
        self.kubectl(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await.succeeded();
    }

    /// Routes an API group to whoever listens at `address` of 127.0.0.1, and waits until it is available. The process shows a certificate of `authority` (PEM)
    /// for `NAME.NAMESPACE.svc`, where `service` is `(namespace, name)`.
    ///
    /// # Panics
    /// When it never becomes available.
    pub async fn route(&self, group: &str, service: (&str, &str), address: SocketAddr, authority: &str) {
        let (namespace, name) = service;
        assert_eq!(address.ip(), IpAddr::V4(Ipv4Addr::LOCALHOST), "`localhost` of the API server");
        self.namespace(namespace).await;
        let target = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        });
        self.apply(&target.to_string()).await;
        self.register(group, service, address.port(), authority).await;
    }

    /// Tells the cluster that a Service (namespace and name), at this port, serves version `v1alpha1` of a group, and waits until it is available.
    ///
    /// # Panics
    /// When it never becomes available.
    pub async fn register(&self, group: &str, service: (&str, &str), port: u16, authority: &str) {
        let (namespace, name) = service;
        let api_service = json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": format!("v1alpha1.{group}")},
            "spec": {
                "group": group, "version": "v1alpha1", "groupPriorityMinimum": 1000, "versionPriority": 15,
                "caBundle": STANDARD.encode(authority),
                "service": {"namespace": namespace, "name": name, "port": port},
            },
        });
        self.apply(&api_service.to_string()).await;
        self.available(group).await;
    }

    /// Waits until the API server has found the group's server there. It looks again every 30 s, and sooner when something has changed.
    ///
    /// # Panics
    /// When it never does.
    pub async fn available(&self, group: &str) {
        let path = format!("/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.{group}");
        let api = self.api();
        let attempt = || async {
            let found = api.ask(Method::GET, &path, None).await?;
            let available = condition(&found.body, "Available");
            if available["status"] == "True" { Ok(()) } else { Err(anyhow::anyhow!("{available}")) }
        };
        until(&format!("the APIService of {group} to be available"), attempt).await;
    }

    /// Where a process has to listen to be the Service of this namespace and name, which is there already (a chart made it): the Service's own address and
    /// first port. It gets an EndpointSlice, as a ready pod would give it one.
    ///
    /// # Panics
    /// When the Service is not there.
    pub async fn service_address(&self, namespace: &str, name: &str) -> SocketAddr {
        let service = self.api().get(&format!("/api/v1/namespaces/{namespace}/services/{name}")).await;
        let port = &service["spec"]["ports"][0];
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": format!("{name}-test"), "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
            // No address of this machine may stand in one. Nobody is ever sent to it: the API server goes to the Service's address.
            "addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.254"], "conditions": {"ready": true}}],
            "ports": [{"name": port["name"].as_str().unwrap_or_default(), "port": port["port"], "protocol": "TCP"}],
        });
        self.apply(&slice.to_string()).await;
        let address = service["spec"]["clusterIP"].as_str().and_then(|ip| ip.parse::<IpAddr>().ok());
        let number = port["port"].as_u64().and_then(|number| u16::try_from(number).ok());
        let (Some(address), Some(number)) = (address, number) else { panic!("{namespace}/{name} has no address and port: {service}") };
        assert!(address.is_loopback(), "{address} is no address of this machine");
        SocketAddr::new(address, number)
    }

    /// An address of the cluster's range that a manifest can ask for as `clusterIP`; `number` is 2 or more.
    pub fn cluster_ip(&self, number: u8) -> IpAddr {
        self.services.address(number)
    }

    /// The processes' logs, on standard error: for a test that fails while it has the cluster together with others.
    pub fn show_logs(&self) {
        for process in self.api.iter().chain(&self.controllers) {
            eprintln!("{}", process.log());
        }
    }

    fn api_server(&self) -> Command {
        let file = |name: &str| self.pki.folder().join(name).display().to_string();
        let mut command = kubelab("kube-apiserver");
        let flags = [
            ("etcd-servers", format!("http://{}", self.ports.etcd.address())),
            ("bind-address", "127.0.0.1".into()),
            ("advertise-address", "127.0.0.1".into()),
            ("secure-port", self.address().port().to_string()),
            // An endpoint on loopback would be refused.
            ("endpoint-reconciler-type", "none".into()),
            ("service-cluster-ip-range", self.services.range()),
            ("authorization-mode", "RBAC".into()),
            ("client-ca-file", file("ca.crt")),
            ("tls-cert-file", file("apiserver.crt")),
            ("tls-private-key-file", file("apiserver.key")),
            ("service-account-issuer", "https://kubernetes.default.svc.cluster.local".into()),
            ("service-account-key-file", file("service-accounts.pub")),
            ("service-account-signing-key-file", file("service-accounts.key")),
            ("requestheader-client-ca-file", file("front-proxy-ca.crt")),
            ("requestheader-allowed-names", FRONT_PROXY.into()),
            ("requestheader-username-headers", "X-Remote-User".into()),
            ("requestheader-group-headers", "X-Remote-Group".into()),
            ("requestheader-extra-headers-prefix", "X-Remote-Extra-".into()),
            ("proxy-client-cert-file", file(&format!("{FRONT_PROXY}.crt"))),
            ("proxy-client-key-file", file(&format!("{FRONT_PROXY}.key"))),
        ];
        command.args(flags.map(|(flag, value)| format!("--{flag}={value}")));
        command
    }

    /// YAML in its JSON form.
    fn kubeconfig_text(&self, user: &Value) -> String {
        let authority = STANDARD.encode(self.pki.clients().certificate());
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url(), "certificate-authority-data": authority}}],
            "users": [{"name": "test", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        })
        .to_string()
    }

    /// Both keep what they have learned of a cluster in the home folder: they get one of this cluster.
    async fn tool(&self, name: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(peer("kubectl").with_file_name(name));
        command.args(arguments).env("HOME", self.folder.path()).env("KUBECONFIG", self.kubeconfig());
        for variable in ["XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "KUBECACHEDIR"] {
            command.env_remove(variable);
        }
        run(name, command, LIMIT).await
    }

    async fn ensure(&self, path: &str, object: &Value) {
        let answer = self.api().ask(Method::POST, path, Some(object)).await.unwrap_or_else(|e| panic!("POST {path}: {e:?}"));
        let done = answer.status.is_success() || answer.status == StatusCode::CONFLICT;
        assert!(done, "POST {path}: {} {}", answer.status, answer.body);
    }

    fn file(&self, text: &str) -> tempfile::NamedTempFile {
        let made = tempfile::Builder::new().prefix("manifest-").suffix(".yaml").tempfile_in(self.folder.path());
        let file = made.unwrap_or_else(|e| panic!("cannot make a file: {e}"));
        write(file.path(), text);
        file
    }
}

/// A condition of an object's status by its type; null if it has none such.
pub fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

fn etcd(ports: &Ports, folder: &Path) -> Process {
    let (clients, peers) = (format!("http://{}", ports.etcd.address()), format!("http://{}", ports.etcd_peers.address()));
    let mut command = kubelab("etcd");
    command.args(["--name=test", &format!("--initial-cluster=test={peers}"), "--log-level=warn"]);
    // What survives a killed process is enough here; a killed machine takes the test along.
    command.arg("--unsafe-no-fsync").arg("--data-dir").arg(folder.join("etcd"));
    command.args([format!("--listen-client-urls={clients}"), format!("--advertise-client-urls={clients}")]);
    command.args([format!("--listen-peer-urls={peers}"), format!("--initial-advertise-peer-urls={peers}")]);
    Process::spawn("etcd", command)
}

/// The peer that is all three programs.
fn kubelab(program: &str) -> Command {
    let mut command = Command::new(peer("kubelab"));
    command.arg(program);
    command
}

/// The user of a kubeconfig who has a certificate.
fn identity(pair: &Pair) -> Value {
    json!({"client-certificate-data": STANDARD.encode(&pair.certificate), "client-key-data": STANDARD.encode(&pair.key)})
}

/// Whether the API server answers 200 there.
async fn found(api: &Api, path: &str) -> anyhow::Result<()> {
    let answer = api.ask(Method::GET, path, None).await?;
    anyhow::ensure!(answer.status == StatusCode::OK, "{path}: {} {}", answer.status, answer.body);
    Ok(())
}

/// The addresses of a cluster's Services, 127.96.N.0/24, which no other cluster has for as long as this value lives.
struct Services {
    network: u8,
    _reservation: TcpListener,
}

/// The port whose listener reserves a range, as that of [`crate::addresses`] reserves an address.
const RESERVATION: u16 = 15353;

impl Services {
    fn reserve() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let start = std::process::id().wrapping_mul(7919);
        for _ in 0..=u8::MAX {
            let [network, ..] = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)).to_le_bytes();
            if let Ok(reservation) = TcpListener::bind((Ipv4Addr::new(127, 96, network, 0), RESERVATION)) {
                return Self { network, _reservation: reservation };
            }
        }
        panic!("no range of 127.96.0.0/16 is free");
    }

    fn address(&self, host: u8) -> IpAddr {
        Ipv4Addr::new(127, 96, self.network, host).into()
    }

    fn range(&self) -> String {
        format!("{}/24", self.address(0))
    }
}
