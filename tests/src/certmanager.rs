//! cert-manager: its own controllers at work in a cluster of ours, with its own definitions and its own rights, and what a person would have them do.
//!
//! Its webhook, which validates objects, is not there: what a test applies is taken as it is.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, process::Command, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    kubernetes::{Api, Cluster, condition},
    peers::peer,
    process::Process,
    read,
    testca::TestCa,
    wait::{LIMIT, until_within},
};

/// The namespace of cert-manager itself, of its ServiceAccount (which has the same name), and of the secrets of ClusterIssuers.
pub const NAMESPACE: &str = "cert-manager";

/// How long a certificate may take: cert-manager tries again after 5, 20 and 40 s, and one failure is lawful.
const ISSUANCE: Duration = Duration::from_secs(180);

/// Running controllers.
pub struct CertManager {
    process: Process,
}

/// How an Issuer has challenges met: by a webhook.
#[derive(Debug, Clone)]
pub struct Solver {
    group: String,
    name: String,
    config: Option<Value>,
    follow: bool,
    wait: Option<&'static str>,
}

/// An Issuer of a namespace, or a ClusterIssuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// Its namespace; none makes it a ClusterIssuer.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl CertManager {
    /// Installs cert-manager's definitions and rights in a cluster, and starts its controllers with `resolver` as the only DNS they ask.
    ///
    /// # Panics
    /// When something does not come up.
    pub async fn start(cluster: &Cluster, resolver: SocketAddr) -> Self {
        Self::start_with(cluster, resolver, &[]).await
    }

    /// The same with more flags, such as `--max-concurrent-challenges=10`.
    ///
    /// # Panics
    /// When something does not come up.
    pub async fn start_with(cluster: &Cluster, resolver: SocketAddr, flags: &[&str]) -> Self {
        define(cluster).await;
        let mut command = Command::new(peer("certmanager"));
        command.arg("--kubeconfig").arg(account(cluster, "cert-manager", &["serviceaccount.yaml", "rbac.yaml"]).await);
        command.args([format!("--dns01-recursive-nameservers={resolver}"), "--dns01-recursive-nameservers-only".into()]);
        command.args([format!("--cluster-resource-namespace={NAMESPACE}"), "--dns01-check-retry-period=1s".into()]).args(flags);
        let process = Process::spawn("cert-manager", command);
        process.stdout_line("its line \"running\"", |line| (line == "running").then_some(())).await;
        Self { process }
    }

    /// The same with the CA injector beside them, which has an account of its own.
    ///
    /// # Panics
    /// When something does not come up.
    pub async fn start_with_injector(cluster: &Cluster, resolver: SocketAddr) -> Self {
        cluster.namespace(NAMESPACE).await;
        let injector = account(cluster, "cert-manager-cainjector", &["cainjector-serviceaccount.yaml", "cainjector-rbac.yaml"]).await;
        Self::start_with(cluster, resolver, &[&format!("--cainjector-kubeconfig={}", injector.display())]).await
    }

    /// Ends the controllers by SIGKILL.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// The controllers' log so far.
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// The ends of their streams, on standard error: for a test that fails while it has them together with others.
    pub fn show_logs(&self) {
        eprintln!("{}", self.process.log());
    }
}

/// Installs cert-manager's definitions alone.
///
/// # Panics
/// When the API server does not take them.
pub async fn define(cluster: &Cluster) {
    cluster.apply_files(&[&peer("certmanager").with_file_name("crds")]).await;
    cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "customresourcedefinitions", "--all"]).await.succeeded();
    cluster.namespace(NAMESPACE).await;
}

/// A ServiceAccount with the rights that cert-manager's chart gives it by these templates; gives its kubeconfig, good for a day.
async fn account(cluster: &Cluster, name: &str, templates: &[&str]) -> PathBuf {
    let chart = peer("certmanager").with_file_name("chart").display().to_string();
    let rights: Vec<_> = templates.iter().map(|template| format!("--show-only=templates/{template}")).collect();
    let mut arguments = vec!["template", "cert-manager", &chart, "--namespace", NAMESPACE];
    arguments.extend(rights.iter().map(String::as_str));
    let rendered = cluster.helm(&arguments).await;
    cluster.apply(&rendered.succeeded().stdout).await;
    let token = cluster.token_for(NAMESPACE, name, &json!({"expirationSeconds": 86_400})).await;
    cluster.kubeconfig_of_token(name, &token)
}

impl Solver {
    /// The webhook `name` of an API group. The authority is called on a second after Present, without a self-check: after a good self-check
    /// cert-manager's worker would sleep 60 s.
    pub fn webhook(group: &str, name: &str) -> Self {
        Self { group: group.into(), name: name.into(), config: None, follow: false, wait: Some("1s") }
    }

    /// With this `config`.
    #[must_use]
    pub fn config(mut self, config: Value) -> Self {
        self.config = Some(config);
        self
    }

    /// With `cnameStrategy: Follow`.
    #[must_use]
    pub fn follow(mut self) -> Self {
        self.follow = true;
        self
    }

    /// With cert-manager's own self-check.
    #[must_use]
    pub fn self_check(mut self) -> Self {
        self.wait = None;
        self
    }

    /// Without the second, as quickly as cert-manager goes.
    #[must_use]
    pub fn at_once(mut self) -> Self {
        self.wait = Some("1ms");
        self
    }

    /// Stops after Present: the authority would be called on in an hour.
    #[must_use]
    pub fn stuck(mut self) -> Self {
        self.wait = Some("1h");
        self
    }

    fn manifest(&self) -> Value {
        let mut webhook = json!({"groupName": self.group, "solverName": self.name});
        if let Some(config) = &self.config {
            webhook["config"] = config.clone();
        }
        let mut solver = json!({"dns01": {"webhook": webhook}});
        if self.follow {
            solver["dns01"]["cnameStrategy"] = json!("Follow");
        }
        if let Some(wait) = self.wait {
            solver["waitInsteadOfSelfCheck"] = json!(wait);
        }
        solver
    }
}

impl Issuer {
    /// Creates an Issuer, and its namespace, and waits until it has its account at the authority.
    ///
    /// # Panics
    /// When it never has.
    pub async fn create(cluster: &Cluster, namespace: &str, name: &str, ca: &TestCa, solver: &Solver) -> Self {
        cluster.namespace(namespace).await;
        Self { namespace: Some(namespace.into()), name: name.into() }.apply(cluster, ca, solver).await
    }

    /// Creates a ClusterIssuer and waits until it has its account at the authority.
    ///
    /// # Panics
    /// When it never has.
    pub async fn create_cluster_wide(cluster: &Cluster, name: &str, ca: &TestCa, solver: &Solver) -> Self {
        Self { namespace: None, name: name.into() }.apply(cluster, ca, solver).await
    }

    async fn apply(self, cluster: &Cluster, ca: &TestCa, solver: &Solver) -> Self {
        let mut metadata = json!({"name": self.name});
        let (kind, place) = match &self.namespace {
            Some(namespace) => {
                metadata["namespace"] = json!(namespace);
                ("Issuer", format!("namespaces/{namespace}/issuers"))
            }
            None => ("ClusterIssuer", "clusterissuers".to_owned()),
        };
        let manifest = json!({
            "apiVersion": "cert-manager.io/v1", "kind": kind, "metadata": metadata,
            "spec": {"acme": {
                "server": ca.directory(), "caBundle": STANDARD.encode(read(&ca.ca_file())),
                "privateKeySecretRef": {"name": format!("{}-account", self.name)}, "solvers": [solver.manifest()],
            }},
        });
        cluster.apply(&manifest.to_string()).await;
        let path = format!("/apis/cert-manager.io/v1/{place}?fieldSelector=metadata.name={}", self.name);
        let mut last = Value::Null;
        let is_ready = |_: &str, issuer: &Value| {
            last = issuer["status"].clone();
            (condition(issuer, "Ready")["status"] == "True").then_some(())
        };
        let ready = cluster.api().watch(&path, LIMIT, is_ready).await;
        assert!(ready.is_some(), "the {kind} {} never became ready: {last}", self.name);
        self
    }

    fn reference(&self) -> Value {
        let kind = if self.namespace.is_some() { "Issuer" } else { "ClusterIssuer" };
        json!({"group": "cert-manager.io", "kind": kind, "name": self.name})
    }
}

/// The Certificates of one namespace.
pub struct Certificates<'a> {
    cluster: &'a Cluster,
    api: Api,
    namespace: String,
}

impl<'a> Certificates<'a> {
    /// Those of this namespace, which is made if it is not there.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn of(cluster: &'a Cluster, namespace: &str) -> Self {
        cluster.namespace(namespace).await;
        Self { cluster, api: cluster.api(), namespace: namespace.into() }
    }

    /// Asks for a certificate for these names; it goes into a Secret of the same name.
    ///
    /// # Panics
    /// When the API server refuses.
    pub async fn create(&self, name: &str, issuer: &Issuer, dns_names: &[&str]) {
        let certificate = json!({
            "apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": {"name": name},
            "spec": {
                "secretName": name, "dnsNames": dns_names, "issuerRef": issuer.reference(),
                "privateKey": {"algorithm": "ECDSA", "size": 256},
            },
        });
        self.api.create(&self.path("cert-manager.io/v1", "certificates"), &certificate).await;
    }

    /// Waits until all of these are ready.
    ///
    /// # Panics
    /// When one never is, with what cert-manager says of its challenges.
    pub async fn ready(&self, names: &[&str]) {
        let mut ready: BTreeMap<&str, bool> = names.iter().map(|&name| (name, false)).collect();
        let pick = |_: &str, certificate: &Value| {
            if let Some(state) = certificate["metadata"]["name"].as_str().and_then(|name| ready.get_mut(name)) {
                *state = is_ready(certificate);
            }
            ready.values().all(|&ready| ready).then_some(())
        };
        if self.api.watch(&self.path("cert-manager.io/v1", "certificates"), ISSUANCE, pick).await.is_none() {
            ready.retain(|_, ready| !*ready);
            panic!("not ready after {} s: {:?}\n{}", ISSUANCE.as_secs(), ready.keys(), self.explained().await);
        }
    }

    /// Has a certificate renewed now, as `cmctl renew` does, and waits until it is.
    ///
    /// # Panics
    /// When it never is.
    pub async fn renew(&self, name: &str) {
        let all = self.path("cert-manager.io/v1", "certificates");
        // It can be ready before the controller that issued it has finished, which would undo what is done here.
        let settled = |_: &str, certificate: &Value| {
            let is_settled = is_ready(certificate) && condition(certificate, "Issuing")["status"] != "True";
            (certificate["metadata"]["name"] == name && is_settled).then(|| certificate.clone())
        };
        let Some(before) = self.api.watch(&all, ISSUANCE, settled).await else {
            panic!("{name} is never ready to be renewed\n{}", self.explained().await);
        };
        let mut conditions = before["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.retain(|condition| condition["type"] != "Issuing");
        conditions.push(json!({
            "type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "a test wants it",
            "observedGeneration": before["metadata"]["generation"],
        }));
        self.api.patch(&format!("{all}/{name}/status"), &json!({"status": {"conditions": conditions}})).await;
        let revision = before["status"]["revision"].as_u64().unwrap_or_default();
        let renewed = |_: &str, certificate: &Value| {
            let is_new = certificate["status"]["revision"].as_u64().is_some_and(|now| now > revision);
            (certificate["metadata"]["name"] == name && is_new && is_ready(certificate)).then_some(())
        };
        if self.api.watch(&all, ISSUANCE, renewed).await.is_none() {
            panic!("{name} was not renewed after {} s\n{}", ISSUANCE.as_secs(), self.explained().await);
        }
    }

    /// Asks for a certificate's deletion; its challenges go with it.
    ///
    /// # Panics
    /// When the API server refuses.
    pub async fn delete(&self, name: &str) {
        self.api.delete(&format!("{}/{name}", self.path("cert-manager.io/v1", "certificates"))).await;
    }

    /// The chain and the key of an issued certificate, both in PEM.
    ///
    /// # Panics
    /// When its Secret is not there.
    pub async fn issued(&self, name: &str) -> (String, String) {
        let secret = self.api.get(&format!("{}/{name}", self.path("", "secrets"))).await;
        let text = |field: &str| {
            let decoded = secret["data"][field].as_str().and_then(|data| STANDARD.decode(data).ok());
            decoded.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_else(|| panic!("the Secret {name} has no {field}"))
        };
        (text("tls.crt"), text("tls.key"))
    }

    /// The Challenges that are there.
    ///
    /// # Panics
    /// When the API server refuses.
    pub async fn challenges(&self) -> Vec<Value> {
        self.api.list(&self.path("acme.cert-manager.io/v1", "challenges")).await
    }

    /// Waits until a Challenge passes `pick`, and gives what it picked.
    ///
    /// # Panics
    /// When none ever does.
    pub async fn challenge<T>(&self, what: &str, mut pick: impl FnMut(&Value) -> Option<T>) -> T {
        let path = self.path("acme.cert-manager.io/v1", "challenges");
        let found = self.api.watch(&path, ISSUANCE, |_, challenge| pick(challenge)).await;
        match found {
            Some(found) => found,
            None => panic!("waited {} s in vain for {what}\n{}", ISSUANCE.as_secs(), self.explained().await),
        }
    }

    /// Waits until no Challenge is left: each has had its CleanUp, and its finalizer is gone.
    ///
    /// # Panics
    /// When one stays.
    pub async fn without_challenges(&self) {
        let none = || async {
            let left: Vec<_> = self.challenges().await.iter().map(told).collect();
            if left.is_empty() { Ok(()) } else { Err(left.join("\n")) }
        };
        until_within(ISSUANCE, &format!("the challenges of {} to go", self.namespace), none).await;
    }

    /// Deletes the namespace and waits until it is gone, which takes a cluster with controllers.
    ///
    /// # Panics
    /// When it stays.
    pub async fn delete_namespace(self) {
        self.begin_deletion().await;
        self.gone().await;
    }

    /// Asks for the namespace's deletion.
    ///
    /// # Panics
    /// When the API server refuses.
    pub async fn begin_deletion(&self) {
        self.api.delete(&format!("/api/v1/namespaces/{}", self.namespace)).await;
    }

    /// Waits until the namespace is gone.
    ///
    /// # Panics
    /// When it stays.
    pub async fn gone(self) {
        let path = format!("/api/v1/namespaces/{}", self.namespace);
        let gone = || async {
            let answer = self.api.ask(reqwest::Method::GET, &path, None).await?;
            if answer.status == reqwest::StatusCode::NOT_FOUND { Ok(()) } else { Err(anyhow::anyhow!("{}", answer.body["status"])) }
        };
        until_within(ISSUANCE, &format!("the namespace {} to go", self.namespace), gone).await;
    }

    /// What cert-manager says of all that is under way here.
    async fn explained(&self) -> String {
        let challenges: Vec<_> = self.challenges().await.iter().map(told).collect();
        let events = self.cluster.kubectl(&["get", "events", "--namespace", &self.namespace, "--sort-by=.lastTimestamp"]).await;
        format!("{}\n{}", challenges.join("\n"), events.stdout)
    }

    fn path(&self, group_version: &str, resource: &str) -> String {
        let base = if group_version.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{group_version}") };
        format!("{base}/namespaces/{}/{resource}", self.namespace)
    }
}

/// Whether a Certificate is ready as it is now specified.
fn is_ready(certificate: &Value) -> bool {
    let ready = condition(certificate, "Ready");
    ready["status"] == "True" && ready["observedGeneration"] == certificate["metadata"]["generation"]
}

/// A Challenge in a line.
fn told(challenge: &Value) -> String {
    let (spec, status, metadata) = (&challenge["spec"], &challenge["status"], &challenge["metadata"]);
    format!("challenge of {}: {status}, finalizers {}, deleted {}", spec["dnsName"], metadata["finalizers"], metadata["deletionTimestamp"])
}
