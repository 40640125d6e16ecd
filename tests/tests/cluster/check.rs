//! `acmegate check --kubernetes`, with the rights that the chart gives acmegate and no more.

use acmegate_tests::{
    acmegate::{Acmegate, Config},
    certmanager::{CertManager, Certificates, Issuer, NAMESPACE, Solver},
    kubernetes::{Authority, Cluster},
    ports::Port,
    process::Output,
    wait::until,
    webhook::{SERVICE, Webhook},
    workspace,
    world::{World, ZONE},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::lab::{GROUP, Lab, SOLVER};

/// A team with an issuer of its own, and the one name that it may have.
const TEAM: &str = "team-a";

/// A cluster of its own, to be broken.
struct House {
    _certmanager: CertManager,
    cluster: Cluster,
    world: World,
    door: Webhook,
    _port: Port,
}

impl House {
    async fn start() -> Self {
        let cluster = Cluster::start().await;
        let (namespace, account) = SERVICE;
        cluster.service_account(namespace, account).await;
        let token = cluster.token(namespace, account).await;
        let kubeconfig = cluster.kubeconfig_of_token("acmegate", &token);
        let (door, port) = (Webhook::new(), Port::reserve());
        let section = format!(
            "listen: \"{}\"\ntls: {{ certificate: {:?}, key: {:?} }}\ncallers: {{ cluster: true }}\n\
             policy: [{{ namespaces: [{TEAM}], names: [{}], secrets: true }}, {{ namespaces: [{NAMESPACE}], names: [\"*\"] }}]",
            port.address(),
            door.certificate_file(),
            door.certificate_file().with_file_name("key.pem"),
            name("good"),
        );
        let kubernetes = format!("kubeconfig: {kubeconfig:?}");
        let backends = "- { name: tenants, provider: cloudflare, zones: [tenants.test], settings: { token: { issuer: token } } }";
        let config =
            move |config: Config| config.section("kubernetes", &kubernetes).section("webhook", &section).section("backends", backends);
        cluster.apply(&rights(&cluster, namespace, "certManager.enabled=true").await).await;
        let world = World::builder().config(config).start().await;
        cluster.route(GROUP, SERVICE, world.acmegate.door("webhook"), door.certificate()).await;
        let certmanager = CertManager::start(&cluster, world.resolver.dns()).await;
        Self { _certmanager: certmanager, cluster, world, door, _port: port }
    }

    /// Beside `serve`, which has the data folder.
    async fn check(&self, arguments: &[&str]) -> Output {
        self.world.acmegate.run(&[&["check", "--kubernetes"], arguments].concat()).await
    }

    async fn report(&self) -> Value {
        let output = self.check(&["--json", "--stuck-after", "1s"]).await;
        serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("no JSON: {e}\n{output}"))
    }

    /// Waits until a rung has this outcome: the API server goes by what its informers have seen.
    async fn becomes(&self, id: &str, outcome: &str) -> Value {
        let attempt = || async {
            let report = self.report().await;
            let rung = found(&report, id);
            if rung["outcome"] == outcome { Ok(rung.clone()) } else { Err(rung.to_string()) }
        };
        until(&format!("the rung {id} to be {outcome}"), attempt).await
    }

    fn solver(&self) -> Solver {
        Solver::webhook(GROUP, SOLVER)
    }

    async fn issuer(&self, name: &str, solver: &Solver) -> Issuer {
        Issuer::create(&self.cluster, TEAM, name, &self.world.ca, solver).await
    }
}

fn name(label: &str) -> String {
    format!("{label}.{ZONE}")
}

/// What the chart gives acmegate, whose account is `acmegate` in this namespace, and cert-manager.
async fn rights(cluster: &Cluster, namespace: &str, set: &str) -> String {
    let chart = workspace().join("charts/acmegate").display().to_string();
    let set = format!("fullnameOverride=acmegate,{set}");
    let files = ["clusterroles", "clusterrolebindings", "rolebindings"].map(|file| format!("--show-only=templates/{file}.yaml"));
    let mut arguments = vec!["template", "gate", &chart, "--namespace", namespace, "--set", &set];
    arguments.extend(files.iter().map(String::as_str));
    cluster.helm(&arguments).await.succeeded().stdout.clone()
}

fn found<'a>(report: &'a Value, id: &str) -> &'a Value {
    let rungs = report["rungs"].as_array().unwrap_or_else(|| panic!("no rungs: {report:#}"));
    rungs.iter().find(|rung| rung["id"] == id).unwrap_or_else(|| panic!("no rung {id}: {report:#}"))
}

/// Asserts that a field of a rung holds a text.
fn says(rung: &Value, field: &str, text: &str) {
    assert!(rung[field].to_string().contains(text), "{field} should hold {text:?}: {rung:#}");
}

/// Nothing is wrong; then more and more is, and each thing has its rung.
#[tokio::test]
async fn what_is_broken_in_a_cluster_is_found() {
    let house = House::start().await;
    let issuer = house.issuer("acme", &house.solver()).await;

    // All is well, in the eyes of people and of programs.
    let healthy = house.check(&["--json"]).await;
    let report: Value = serde_json::from_str(&healthy.succeeded().stdout).expect("JSON");
    let ids: Vec<_> = report["rungs"].as_array().expect("rungs").iter().map(|rung| (rung["id"].clone(), rung["outcome"].clone())).collect();
    let all = ["cluster", "apiservice", "ca_bundle", "rights", "caller", "issuers", "challenges"];
    assert_eq!(ids, all.map(|id| (json!(id), json!("ok"))), "{report:#}");
    assert_eq!(
        (&report["api_service"], &report["user"], &report["outcome"]),
        (&json!(format!("v1alpha1.{GROUP}")), &json!("system:serviceaccount:acmegate:acmegate"), &json!("ok"))
    );
    says(found(&report, "ca_bundle"), "summary", "verifies the certificate that the door shows for acmegate.acmegate.svc");
    says(found(&report, "issuers"), "summary", "issuers that have challenges met here: 1 of 1");
    house.check(&[]).await.succeeded().says("ok       apiservice  the API server reaches").says("7 ok, 0 warnings, 0 failed, 0 skipped");

    // The policy refuses a challenge.
    let certificates = Certificates::of(&house.cluster, TEAM).await;
    certificates.create("refused", &issuer, &[&name("refused")]).await;
    let refused = |challenge: &Value| {
        let told = challenge["status"]["reason"].as_str().is_some_and(|reason| reason.contains("may not write for"));
        told.then(|| challenge["metadata"]["name"].as_str().unwrap_or_default().to_owned())
    };
    let challenge = certificates.challenge("a challenge to be refused", refused).await;
    let stuck = house.becomes("challenges", "failed").await;
    says(&stuck, "summary", "challenges that do not get on: 1 of 1");
    says(&stuck, "evidence", &format!("{TEAM}/{challenge}"));
    says(&stuck, "evidence", "not presented: acmegate's policy refuses it");
    says(&stuck, "evidence", &format!("its value belongs at _acme-challenge.{}", name("refused")));
    says(&stuck, "evidence", "status.reason: the namespace team-a may not write for");
    let advice = format!("acmegate policy test --namespace {TEAM} --name {}", name("refused"));
    says(&stuck, "next", &advice);
    let advised: Vec<_> = advice.split(' ').skip(1).collect();
    house.world.acmegate.run(&advised).await.exited(1).says("refused: the namespace team-a may not write for");

    // Issuers that do not get here, or are sent back.
    house.issuer("wrong-solver", &Solver::webhook(GROUP, "acmegat")).await;
    house.issuer("wrong-group", &Solver::webhook("acme.acmegat.io", SOLVER)).await;
    house.issuer("wrong-backend", &house.solver().config(json!({"backend": "corp"}))).await;
    house.issuer("wrong-secret", &house.solver().config(json!({"backend": "tenants", "secret": {"name": "dns"}}))).await;
    house.issuer("wrong-config", &house.solver().config(json!({"url": "https://example.com/"}))).await;
    Issuer::create(&house.cluster, "team-b", "nobody", &house.world.ca, &house.solver()).await;
    Issuer::create(&house.cluster, TEAM, "others", &house.world.ca, &Solver::webhook("acme.example.com", "other")).await;
    let issuers = house.becomes("issuers", "failed").await;
    says(&issuers, "summary", "issuers that have challenges met here: 5 of 8; 6 things to mend");
    for line in [
        "Issuer team-a/wrong-solver, solver 1: solverName is \\\"acmegat\\\": write acmegate",
        "Issuer team-a/wrong-group, solver 1: no API server has the group of its solver",
        "Issuer team-a/wrong-backend, solver 1: config: the backend corp is not configured here; known: embedded, tenants",
        "Issuer team-a/wrong-secret, solver 1: config: we may not read the Secret dns in the namespace team-a",
        "Issuer team-a/wrong-config, solver 1: config: the key \\\"url\\\" is not known",
        "Issuer team-b/nobody, solver 1: no rule of webhook.policy is for the namespace team-b",
    ] {
        says(&issuers, "evidence", line);
    }

    // cert-manager loses its right to call.
    let binding = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/acmegate.acmegate:domain-solver";
    house.cluster.api().delete(binding).await;
    let caller = house.becomes("caller", "failed").await;
    says(&caller, "summary", "cert-manager/cert-manager may not create acmegate.acme.acmegate.io");
    says(&caller, "next", "--serviceaccount=cert-manager:cert-manager");

    // Somebody writes the roots of another authority, and then trusts everybody.
    let api_service = format!("/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.{GROUP}");
    let bundle = |authority: &str| json!({"spec": {"caBundle": STANDARD.encode(authority)}});
    house.cluster.api().patch(&api_service, &bundle(Authority::new("another").certificate())).await;
    let reached = house.becomes("apiservice", "failed").await;
    says(&reached, "evidence", "Available is False: FailedDiscoveryCheck");
    says(&reached, "next", "see the rung `ca_bundle`");
    let verified = house.becomes("ca_bundle", "failed").await;
    says(&verified, "summary", "no certificate of the bundle has signed it");
    says(&verified, "evidence", "in the bundle: CN=another");

    // Whoever deletes a challenge now waits for its CleanUp in vain.
    house.cluster.api().delete(&format!("/apis/acme.cert-manager.io/v1/namespaces/{TEAM}/challenges/{challenge}")).await;
    let held = || async {
        let report = house.report().await;
        let rung = found(&report, "challenges").clone();
        if rung["evidence"].to_string().contains("deleted, and held by its finalizer") { Ok(()) } else { Err(rung.to_string()) }
    };
    until("the challenge to be held", held).await;

    // All at once, for people.
    let text = house.check(&["--stuck-after", "1s"]).await;
    text.exited(1).says("2 ok, 0 warnings, 5 failed, 0 skipped").says(&format!("v1alpha1.{GROUP}: 5 rungs failed"));
    for id in ["apiservice", "ca_bundle", "caller", "issuers", "challenges"] {
        text.says(&format!("failed   {id}"));
    }
    assert!(!text.stdout.contains('\u{1b}'), "colours are for terminals:\n{text}");

    let open = json!({"spec": {"caBundle": null, "insecureSkipTLSVerify": true}});
    house.cluster.api().patch(&api_service, &open).await;
    says(found(&house.report().await, "ca_bundle"), "summary", "insecureSkipTLSVerify");
    let mended = json!({"spec": {"caBundle": STANDARD.encode(house.door.certificate()), "insecureSkipTLSVerify": false}});
    house.cluster.api().patch(&api_service, &mended).await;
    house.becomes("apiservice", "ok").await;
    house.becomes("ca_bundle", "ok").await;
}

/// An account that has acmegate's duties, and none of the chart's rights to look around.
#[tokio::test]
async fn without_a_right_to_look_it_says_which() {
    let lab = Lab::share().await;
    let output = lab.world.acmegate.run(&["check", "--kubernetes", "--json", "--cert-manager", "other/manager"]).await;
    let report: Value = serde_json::from_str(&output.exited(1).stdout).expect("JSON");
    for (id, what, rule) in [
        (
            "apiservice",
            "the APIService v1alpha1.acme.acmegate.io",
            "{apiGroups: [apiregistration.k8s.io], resources: [apiservices], resourceNames: [",
        ),
        ("issuers", "Issuers and ClusterIssuers", "{apiGroups: [cert-manager.io], resources: [issuers, clusterissuers], verbs: [list]}"),
        ("challenges", "Challenges", "{apiGroups: [acme.cert-manager.io], resources: [challenges], verbs: [list]}"),
    ] {
        let rung = found(&report, id);
        assert_eq!(rung["outcome"], "skipped", "{rung:#}");
        says(rung, "summary", &format!("system:serviceaccount:acmegate:acmegate may not look at {what}"));
        says(rung, "next", rule);
    }
    for (id, outcome) in [("cluster", "ok"), ("ca_bundle", "skipped"), ("rights", "ok"), ("caller", "failed")] {
        assert_eq!(found(&report, id)["outcome"], outcome, "{report:#}");
    }
    says(found(&report, "caller"), "summary", "other/manager may not create");
}

/// With a certificate of its own making and a policy by labels, acmegate needs more: it says what, and the chart grants it.
#[tokio::test]
async fn the_chart_grants_what_the_configuration_needs() {
    const HOME: &str = "self-made";
    let lab = Lab::share().await;
    lab.cluster.service_account(HOME, "acmegate").await;
    let token = lab.cluster.token(HOME, "acmegate").await;
    let kubeconfig = lab.cluster.kubeconfig_of_token(HOME, &token);
    let (namespace, name) = SERVICE;
    let webhook = format!(
        "listen: \"127.0.0.1:0\"\ncallers: {{ cluster: true }}\nservice: {{ name: {name}, namespace: {namespace} }}\n\
         policy: [{{ selector: {{ matchLabels: {{ team: a }} }}, names: [\"*\"] }}]"
    );
    let config = Config::new().section("kubernetes", &format!("kubeconfig: {kubeconfig:?}")).section("webhook", &webhook);
    let acmegate = Acmegate::new(config);
    let report = async || {
        let output = acmegate.run(&["check", "--kubernetes", "--json"]).await;
        serde_json::from_str::<Value>(&output.stdout).unwrap_or_else(|e| panic!("no JSON: {e}\n{output}"))
    };

    let before = report().await;
    let rights_before = found(&before, "rights");
    assert_eq!(rights_before["outcome"], "failed", "{before:#}");
    for lack in [
        "missing: get, list, watch of configmaps/extension-apiserver-authentication in kube-system",
        "missing: create of subjectaccessreviews.authorization.k8s.io",
        "missing: create of tokenreviews.authentication.k8s.io",
        "missing: list, watch, patch of apiservices.apiregistration.k8s.io/v1alpha1.acme.acmegate.io",
        "missing: list, watch of namespaces",
        "missing: create, patch of events.events.k8s.io",
    ] {
        says(rights_before, "evidence", lack);
    }
    let caller = found(&before, "caller");
    assert_eq!(caller["outcome"], "skipped", "{before:#}");
    says(caller, "next", "kubectl auth can-i create acmegate.acme.acmegate.io --as=system:serviceaccount:cert-manager:cert-manager");

    let set = "certManager.enabled=false,policy[0].selector.matchLabels.team=a,policy[0].names[0]=*";
    lab.cluster.apply(&rights(&lab.cluster, HOME, set).await).await;
    let granted = || async {
        let report = report().await;
        let seen = |id: &str| found(&report, id)["outcome"] != "skipped";
        let right = found(&report, "rights")["outcome"] == "ok" && ["apiservice", "caller", "issuers", "challenges"].into_iter().all(seen);
        if right { Ok(report) } else { Err(report.to_string()) }
    };
    let after = until("the chart's rights to be known", granted).await;
    says(found(&after, "apiservice"), "summary", "the API server reaches the Service acmegate/acmegate");
    // The door is that of another process; what the API server thinks of it is enough.
    says(found(&after, "ca_bundle"), "summary", "is content");
    says(found(&after, "ca_bundle"), "evidence", "port 0");
}
