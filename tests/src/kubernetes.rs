//! Kubernetes: a real API server with its etcd, on loopback, without a node. Nothing that a pod would do happens: the test starts acmegate itself,
//! and sends the cluster to it.
//!
//! Two ways lead from an `APIService` to a local process:
//! - [`Cluster::route`]: a Service of type `ExternalName` that means `localhost`, and the port that the process has. Quick, and any port will do.
//! - [`Cluster::service_address`]: a Service as a chart makes it. The cluster's range of Service addresses lies in 127.96.0.0/16, so the process listens on the
//!   Service's own address and port.

mod api;
mod objects;
mod pki;
mod processes;
mod routing;

use std::{net::SocketAddr, path::PathBuf, process::Command, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use self::processes::{Ports, Services};
pub use self::{
    api::{Answer, Api},
    pki::{Authority, FRONT_PROXY, Pair, Pki},
};
use crate::{
    peers::peer,
    process::{Output, Process, run},
    temporary_folder,
    wait::{LIMIT, until_within},
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
        let ports = Ports::reserve();
        let etcd = Process::spawn("etcd", processes::etcd(&ports, &folder.path().join("etcd")));
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
        let process = Process::spawn("kube-controller-manager", processes::controllers(&cluster.ports, &cluster.pki, &kubeconfig));
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
        let process = Process::spawn("kube-apiserver", processes::api_server(&self.ports, &self.services, &self.pki));
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

    /// The processes' logs, on standard error: for a test that fails while it has the cluster together with others.
    pub fn show_logs(&self) {
        for process in self.api.iter().chain(&self.controllers) {
            eprintln!("{}", process.log());
        }
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
}

/// A condition of an object's status by its type; null if it has none such.
pub fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
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
