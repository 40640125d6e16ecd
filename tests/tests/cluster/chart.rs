//! The chart as helm installs it in a cluster: its Service, its APIService, its rights, its certificate and its policy are those at work.
//!
//! A node is what is missing. The test does what a kubelet would: it starts acmegate with the configuration of the chart's own ConfigMap and a token of the
//! chart's own ServiceAccount, behind the address of the chart's own Service. Other than in a pod are the addresses that the doors listen on, the folders,
//! and that the token comes in a kubeconfig.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use acmegate_tests::{
    acmegate::Acmegate,
    addresses::Address,
    certificates::assert_holds,
    certmanager::{self, CertManager, Certificates, Issuer, Solver},
    dns,
    kubernetes::Cluster,
    peers::peer,
    process::Output,
    temporary_folder,
    wait::LIMIT,
    workspace,
    world::{CUSTOMER, World},
    write,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::lab::{ANY, GROUP, payload};

/// cert-manager makes the webhook's certificate, and its CA injector tells the API server of it; by default ClusterIssuers may write and nobody else may;
/// an upgrade lets a tenant in; and when the release goes, nothing of it is left but its ledger.
#[tokio::test]
async fn with_a_certificate_of_cert_manager() {
    let site = Site::start().await;
    let mut release = Release::install(&site, "acmegate", "dns", json!({})).await;
    release.notes.says(&format!("kubectl get apiservice v1alpha1.{GROUP}")).says("\n   cert-manager: *\n").never_says("may write no DNS");
    let bundle = release.bundle().await;
    assert!(bundle.is_string(), "the CA injector wrote it");

    // Who may call is cert-manager, and whom it may call for is told by the policy.
    let manager = site.cluster.api_with(Some(site.cluster.token(certmanager::NAMESPACE, "cert-manager").await));
    site.cluster.service_account("tenant", "robot").await;
    let robot = site.cluster.api_with(Some(site.cluster.token("tenant", "robot").await));
    let (path, name) = (release.resource(), format!("policy.{}", release.zone));
    let refused =
        robot.ask(reqwest::Method::POST, &path, Some(&payload("Present", certmanager::NAMESPACE, &name))).await.expect("an answer");
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{refused:?}");
    let refused = manager.create(&path, &payload("Present", "tenant", &name)).await;
    let message = refused["response"]["status"]["message"].as_str().expect("a reason");
    assert!(message.starts_with("no rule of webhook.policy is for the namespace tenant: "), "{refused}");
    told(&site.cluster, "tenant", message).await;
    for action in ["Present", "CleanUp"] {
        let answer = manager.create(&path, &payload(action, certmanager::NAMESPACE, &name)).await;
        assert_eq!(answer["response"]["success"], true, "{answer}");
    }

    let everybodys = Issuer::create_cluster_wide(&site.cluster, "everybodys", &site.world.ca, &release.solver()).await;
    release.issues("first", &everybodys, "apps").await;

    // A tenant's own issuer has to wait until a rule lets it; cert-manager asks again by itself.
    let own = Issuer::create(&site.cluster, "tenant", "own", &site.world.ca, &release.solver()).await;
    let tenant = Certificates::of(&site.cluster, "tenant").await;
    let name = release.delegate("tenant").await;
    tenant.create("tenant", &own, &[&name]).await;
    let is_refused =
        |challenge: &Value| challenge["status"]["reason"].as_str().filter(|reason| reason.contains("webhook.policy")).map(drop);
    tenant.challenge("a refused challenge", is_refused).await;
    let before = release.checksum().await;
    let rules = json!([
        {"namespaces": ["{{ .Values.certManagerNamespace }}"], "names": ["*"]},
        {"namespaces": ["tenant"], "names": [format!("tenant.{CUSTOMER}")]},
    ]);
    release.upgrade(json!({"policy": rules})).await;
    assert_ne!(release.checksum().await, before, "another configuration is another pod");
    assert_eq!(release.bundle().await, bundle, "an upgrade leaves the authority where it is");
    tenant.ready(&["tenant"]).await;
    release.nothing_stands(&tenant, &name).await;
    release.issues("second", &everybodys, "apps").await;

    let claim = BTreeSet::from(["PersistentVolumeClaim dns/acmegate".to_owned()]);
    assert_eq!(release.uninstall().await, claim, "the ledger stays, and nothing else");
    Certificates::of(&site.cluster, "dns").await.delete_namespace().await;
}

/// acmegate makes its certificate itself; and a second install has its own group, its own authority and its own rights, and goes on when the first is gone.
#[tokio::test]
async fn two_installs_that_make_their_certificates_themselves() {
    let site = Site::start().await;
    let values = |group: &str| json!({"groupName": group, "certManager": {"enabled": false}, "persistence": {"keep": false}});
    let mut first = Release::install(&site, "first", "dns-first", values("acme.first.test")).await;
    let second = Release::install(&site, "second", "dns-second", values("acme.second.test")).await;
    let (bundle, other) = (first.bundle().await, second.bundle().await);
    assert!(bundle.is_string() && other.is_string() && bundle != other, "each wrote its own");
    for release in [&first, &second] {
        let issuer = Issuer::create_cluster_wide(&site.cluster, release.name, &site.world.ca, &release.solver()).await;
        release.issues("certificate", &issuer, release.name).await;
    }
    for (one, other, answer) in [(&first, &first, "yes"), (&first, &second, "no"), (&second, &second, "yes"), (&second, &first, "no")] {
        let who = format!("--as=system:serviceaccount:{}:{}-acmegate", one.namespace, one.name);
        let asked = site.cluster.kubectl(&["auth", "can-i", "patch", &format!("apiservices/v1alpha1.{}", other.group), &who]).await;
        assert_eq!(asked.stdout.trim(), answer, "{asked}");
    }

    first.upgrade(json!({"log": {"level": "debug"}})).await;
    assert_eq!(first.bundle().await, bundle, "the authority is in the data folder, and helm does not touch the bundle");
    let again = Issuer { namespace: None, name: first.name.into() };
    first.issues("again", &again, first.name).await;

    assert_eq!(first.uninstall().await, BTreeSet::new(), "not even the ledger is kept");
    Certificates::of(&site.cluster, "dns-first").await.delete_namespace().await;
    let issuer = Issuer { namespace: None, name: second.name.into() };
    second.issues("alone", &issuer, second.name).await;
}

/// What helm makes of each set of values is what a real API server takes, unknown and doubled fields being errors: its own kinds, cert-manager's, and
/// Prometheus Operator's, by their own definitions.
#[tokio::test]
async fn a_real_api_server_takes_every_object() {
    let cluster = Cluster::start().await;
    certmanager::define(&cluster).await;
    let monitoring = peer("monitoring");
    cluster.apply_files(&[&monitoring]).await;
    cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "customresourcedefinitions", "--all"]).await.succeeded();
    let folder = temporary_folder("rendered");
    let (file, mut sets) = (folder.path().join("objects.yaml"), 0);
    let mut namespaces = BTreeSet::from(["kube-system".to_owned()]);
    let manifest = file.display().to_string();
    let applied = async |objects: &str| {
        write(&file, objects);
        cluster.kubectl(&["apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename", &manifest]).await
    };
    for values in fs::read_dir(Path::new(&chart()).join("ci")).expect("the values") {
        let values = values.expect("a file").path().display().to_string();
        let rendered = cluster.helm(&["template", "gate", &chart(), "--namespace", "dns", "--values", &values]).await;
        let objects = &rendered.succeeded().stdout;
        for namespace in objects.lines().filter_map(|line| line.strip_prefix("  namespace: ")) {
            if namespaces.insert(namespace.to_owned()) {
                cluster.namespace(namespace).await;
            }
        }
        applied(objects).await.succeeded();
        for (field, wrong) in
            [("\n  replicas:", "\n  replicaz:"), ("\n  endpoints:", "\n  endpointz:"), ("\n  secretName:", "\n  secretNam:")]
        {
            if objects.contains(field) {
                applied(&objects.replace(field, wrong)).await.exited(1);
            }
        }
        sets += 1;
    }
    assert!(sets > 3, "{sets} sets of values");
}

/// A cluster with cert-manager and its CA injector, and a small internet. acmegate is not there yet.
struct Site {
    _certmanager: CertManager,
    cluster: Cluster,
    world: World,
}

impl Site {
    async fn start() -> Self {
        let cluster = Cluster::start_with_controllers().await;
        let world = World::builder().without_serve().start().await;
        let _certmanager = CertManager::start_with_injector(&cluster, world.resolver.dns()).await;
        Self { _certmanager, cluster, world }
    }
}

/// A release of the chart, with the pod that its Deployment means, and a zone that is delegated to it.
struct Release<'a> {
    site: &'a Site,
    name: &'static str,
    namespace: &'static str,
    group: String,
    zone: String,
    values: Value,
    /// What helm said when it was installed.
    notes: Output,
    pod: Acmegate,
    dns: Address,
    /// Where the volumes of the pod are mounted.
    volumes: TempDir,
}

impl<'a> Release<'a> {
    /// Installs it with these values beside those of its zone, and starts the pod.
    async fn install(site: &'a Site, name: &'static str, namespace: &'static str, values: Value) -> Self {
        let (zone, dns, volumes) = (format!("{name}.gateway.test"), Address::reserve(), temporary_folder("pod"));
        let glue = format!("ns1.{zone}. 60 A {}", dns.ip());
        site.world.bind.update(&[format!("add {zone}. 60 NS ns1.{zone}."), format!("add {glue}")]).await;
        let mut all = json!({
            "dns": {
                "enabled": true, "service": {"type": "ClusterIP"},
                "zones": [{"name": zone, "nameservers": [format!("ns1.{zone}")], "contact": format!("hostmaster.{zone}"), "records": [glue]}],
            },
            "propagation": {"resolvers": [site.world.resolver.dns().to_string()], "timeout": "20s"},
        });
        merge(&mut all, values);
        let (group, pod) = (all["groupName"].as_str().unwrap_or(GROUP).to_owned(), Acmegate::with_file(|_| String::new()));
        let file = volumes.path().join("values.yaml");
        write(&file, &all.to_string());
        let file = file.display().to_string();
        let arguments = ["install", name, &chart(), "--namespace", namespace, "--create-namespace", "--values", &file];
        let notes = site.cluster.helm(&arguments).await;
        notes.succeeded();
        let mut release = Self { site, name, namespace, group, zone, values: all, notes, pod, dns, volumes };
        release.run().await;
        release
    }

    /// Changes these values, and starts the pod anew.
    async fn upgrade(&mut self, values: Value) {
        merge(&mut self.values, values);
        let file = self.volumes.path().join("values.yaml");
        write(&file, &self.values.to_string());
        let file = file.display().to_string();
        self.site.cluster.helm(&["upgrade", self.name, &chart(), "--namespace", self.namespace, "--values", &file]).await.succeeded();
        self.pod.stop().await.succeeded();
        self.run().await;
    }

    /// Uninstalls it, ends the pod, and gives what is left of the release.
    async fn uninstall(&mut self) -> BTreeSet<String> {
        assert!(self.objects().await.len() > 10, "they are found as long as they are there");
        self.site.cluster.helm(&["uninstall", self.name, "--namespace", self.namespace]).await.succeeded();
        self.pod.stop().await.succeeded();
        self.objects().await
    }

    /// Starts acmegate as a kubelet would, and waits until the API server reaches it.
    async fn run(&mut self) {
        let configuration = self.configuration().await;
        write(self.pod.config(), &configuration.to_string());
        self.pod.start().await;
        self.site.cluster.available(&self.group).await;
    }

    /// What the pod reads, but for its addresses, its folders, and the way to the API server.
    async fn configuration(&self) -> Value {
        let (cluster, api) = (&self.site.cluster, self.site.cluster.api());
        let deployment = self.deployment().await;
        let pod = &deployment["spec"]["template"]["spec"];
        let volumes: BTreeMap<&str, &Value> =
            pod["volumes"].as_array().expect("volumes").iter().filter_map(|volume| Some((volume["name"].as_str()?, volume))).collect();
        let core = |kind: &str, name: &Value| format!("/api/v1/namespaces/{}/{kind}/{}", self.namespace, name.as_str().expect("a name"));

        let map = api.get(&core("configmaps", &volumes["config"]["configMap"]["name"])).await;
        let text = map["data"]["config.yaml"].as_str().expect("a configuration");
        let mut config: Value = serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));

        // A kubelet starts no container whose volumes are not there.
        if let Some(tls) = volumes.get("tls") {
            let path = core("secrets", &tls["secret"]["secretName"]);
            let (list, name) = path.rsplit_once('/').expect("a name");
            let files = |_: &str, secret: &Value| {
                let file = |key: &str| secret["data"][key].as_str().and_then(|data| String::from_utf8(STANDARD.decode(data).ok()?).ok());
                file("tls.crt").zip(file("tls.key"))
            };
            let found = api.watch(&format!("{list}?fieldSelector=metadata.name={name}"), LIMIT, files).await;
            let (certificate, key) = found.unwrap_or_else(|| panic!("cert-manager never made the Secret {name}"));
            for (option, file, text) in [("certificate", "tls.crt", certificate), ("key", "tls.key", key)] {
                let path = self.volumes.path().join(file);
                write(&path, &text);
                assert_eq!(config["webhook"]["tls"][option], format!("/etc/acmegate/tls/{file}"), "where the volume is mounted");
                config["webhook"]["tls"][option] = json!(path);
            }
        }

        let account = pod["serviceAccountName"].as_str().expect("an account");
        let token = cluster.token(self.namespace, account).await;
        config["kubernetes"] = json!({"kubeconfig": cluster.kubeconfig_of_token(&format!("{}-{account}", self.namespace), &token)});
        let api_service = api.get(&self.api_service()).await;
        let service = &api_service["spec"]["service"];
        let address = cluster.service_address(self.namespace, service["name"].as_str().expect("a Service")).await;
        assert_eq!((&service["namespace"], &service["port"]), (&json!(self.namespace), &json!(address.port())), "{api_service}");
        config["webhook"]["listen"] = json!(address);
        config["metrics"]["listen"] = json!(ANY);
        config["dns"]["listen"] = json!([self.dns.dns()]);
        config["data"] = json!(self.pod.data());
        config
    }

    async fn deployment(&self) -> Value {
        let all = self.site.cluster.api().list(&format!("/apis/apps/v1/namespaces/{}/deployments", self.namespace)).await;
        assert_eq!(all.len(), 1, "the release is alone in its namespace");
        all.into_iter().next().unwrap_or_default()
    }

    /// Changes with the configuration, so that the pod does.
    async fn checksum(&self) -> Value {
        self.deployment().await["spec"]["template"]["metadata"]["annotations"]["checksum/config"].clone()
    }

    async fn bundle(&self) -> Value {
        self.site.cluster.api().get(&self.api_service()).await["spec"]["caBundle"].clone()
    }

    fn api_service(&self) -> String {
        format!("/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.{}", self.group)
    }

    fn resource(&self) -> String {
        format!("/apis/{}/v1alpha1/acmegate", self.group)
    }

    /// As the notes have it.
    fn solver(&self) -> Solver {
        Solver::webhook(&self.group, "acmegate").follow()
    }

    /// Every object of the release, in any namespace or in none; without those that belong to another object and go with it.
    async fn objects(&self) -> BTreeSet<String> {
        let kinds = self.site.cluster.kubectl(&["api-resources", "--verbs=list", "--output=name"]).await;
        let kinds = kinds.succeeded().stdout.split_whitespace().collect::<Vec<_>>().join(",");
        let selector = format!("--selector=app.kubernetes.io/instance={}", self.name);
        let found = self.site.cluster.kubectl(&["get", &kinds, "--all-namespaces", &selector, "--output=json"]).await;
        let found: Value = serde_json::from_str(&found.succeeded().stdout).expect("JSON");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let named = |object: &Value| {
            let metadata = &object["metadata"];
            format!("{} {}/{}", text(&object["kind"]), text(&metadata["namespace"]), text(&metadata["name"]))
        };
        let items = found["items"].as_array().expect("items").iter();
        items.filter(|object| object["metadata"]["ownerReferences"].is_null()).map(named).collect()
    }

    /// The name of a customer whose challenges lead into the zone, as the notes say.
    async fn delegate(&self, label: &str) -> String {
        let name = format!("{label}.{CUSTOMER}");
        self.site.world.bind.add(&format!("_acme-challenge.{name}. 60 CNAME {name}.{}.", self.zone)).await;
        name
    }

    /// Has a certificate issued in a namespace, and nothing left of its challenge.
    async fn issues(&self, label: &str, issuer: &Issuer, namespace: &str) {
        let name = self.delegate(&format!("{label}-{}", self.name)).await;
        let certificates = Certificates::of(&self.site.cluster, namespace).await;
        certificates.create(label, issuer, &[&name]).await;
        certificates.ready(&[label]).await;
        let (chain, key) = certificates.issued(label).await;
        assert_holds(&chain, &key, &self.site.world.ca, &[&name]).await;
        self.nothing_stands(&certificates, &name).await;
    }

    async fn nothing_stands(&self, certificates: &Certificates<'_>, name: &str) {
        certificates.without_challenges().await;
        assert_eq!(dns::txt(self.pod.dns(), &format!("{name}.{}", self.zone)).await, BTreeSet::new(), "{name}");
    }
}

/// Waits until the people of a namespace have been told this.
async fn told(cluster: &Cluster, namespace: &str, message: &str) {
    let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
    let is_there = |_: &str, event: &Value| event["note"].as_str().filter(|note| note.ends_with(message)).map(drop);
    let found = cluster.api().watch(&path, LIMIT, is_there).await;
    assert!(found.is_some(), "no Event in {namespace} says {message}");
}

fn chart() -> String {
    workspace().join("charts/acmegate").display().to_string()
}

/// Objects of `more` into those of `into`; all else takes the other's place.
fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}
