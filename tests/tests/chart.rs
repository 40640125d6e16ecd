//! The Helm chart, without a cluster: what helm makes of a matrix of values (`charts/acmegate/ci`), which values it refuses, and whether the parts fit
//! together: ports, names, rights, the configuration, the alerts.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use acmegate_tests::{
    acmegate::command,
    peers::peer,
    process::{Output, run},
    read, temporary_folder,
    wait::LIMIT,
    workspace, write,
};
use rcgen::CertifiedKey;
use regex::Regex;
use serde_json::{Value, json};

/// Kinds that stand in no namespace.
const CLUSTER_SCOPED: [&str; 3] = ["APIService", "ClusterRole", "ClusterRoleBinding"];

#[tokio::test]
async fn every_set_of_values_makes_whole_objects() {
    for (name, file) in matrix() {
        for version in ["1.29.0", "1.37.0"] {
            let objects = template("gate", "dns", &["--values", &file, "--kube-version", version]).await;
            let mut seen = BTreeSet::new();
            for object in &objects {
                let (kind, named) = (text(object, "/kind"), text(object, "/metadata/name"));
                assert!(!text(object, "/apiVersion").is_empty() && !named.is_empty(), "{name}: {object}");
                assert_eq!(text(object, "/metadata/labels/app.kubernetes.io~1instance"), "gate", "{name}: {kind} {named}");
                let namespace = text(object, "/metadata/namespace");
                assert_eq!(namespace.is_empty(), CLUSTER_SCOPED.contains(&kind), "{name}: the namespace of {kind} {named}");
                assert!(kind != "Service" || named.len() <= 63, "{name}: {named} is too long for a Service");
                assert!(seen.insert((kind, namespace, named)), "{name}: {kind} {named} stands there twice");
            }
            for kind in ["Deployment", "Service", "APIService", "ConfigMap", "ClusterRole", "NetworkPolicy", "PodDisruptionBudget"] {
                assert!(seen.iter().any(|(seen, ..)| *seen == kind), "{name}: no {kind}");
            }
        }
        helm(&["lint", "--strict", &chart(), "--values", &file]).await.succeeded();
    }
    helm(&["template", "gate", &chart(), "--kube-version", "1.28.0"]).await.exited(1).says("kubeVersion");
}

/// A long release and namespace meet the limits of Service names and of common names.
#[tokio::test]
async fn long_names_are_cut_to_what_kubernetes_takes() {
    let (release, namespace) = ("r".repeat(53), "n".repeat(63));
    let dns = ["--values", &format!("{}/ci/embedded-dns-values.yaml", chart())];
    let objects = template(&release, &namespace, &dns).await;
    for service in of_kind(&objects, "Service") {
        assert!(text(service, "/metadata/name").len() <= 63, "{service}");
    }
    for certificate in of_kind(&objects, "Certificate") {
        assert!(text(certificate, "/spec/commonName").len() <= 64, "{certificate}");
    }
}

#[tokio::test]
async fn bad_values_are_refused_by_their_key() {
    let zone = "dns.enabled=true,dns.zones[0].name=auth.example.org,dns.zones[0].nameservers[0]=ns1.example.net";
    let one_port = format!("{zone},dns.service.mixedProtocols=false,dns.service.nodePorts.udp=30053,dns.service.nodePorts.tcp=30053");
    let with_zone = format!("{zone},acmedns.enabled=true");
    for (set, complaint) in [
        ("replicas=2", "replicas: 2 pods would need PostgreSQL, which acmegate does not have yet"),
        ("replica=1", "additional properties 'replica' not allowed"),
        ("image.tagg=1", "at '/image': additional properties 'tagg' not allowed"),
        ("image.digest=sha256:12", "at '/image/digest'"),
        ("image.pullPolicy=Sometimes", "at '/image/pullPolicy'"),
        ("groupName=acme", "at '/groupName'"),
        ("groupName=Acme.example.com", "at '/groupName'"),
        ("solverName=a.b", "at '/solverName'"),
        ("certManagerNamespace=Cert_Manager", "at '/certManagerNamespace'"),
        ("certManager.enabled=perhaps", "at '/certManager/enabled'"),
        ("certManager.issuerRef.kind=Issuer", "at '/certManager/issuerRef'"),
        ("certManager.duration=1y", "at '/certManager/duration'"),
        ("policy[0].names[0]=example.com", "at '/policy/0': missing property 'namespaces'"),
        ("policy[0].namespaces[0]=team-a", "at '/policy/0': missing property 'names'"),
        ("policy[0].namespaces[0]=team-*,policy[0].names[0]=x", "at '/policy/0/namespaces/0'"),
        ("policy[0].namespaces[0]=a,policy[0].names[0]=a.*.b", "at '/policy/0/names/0'"),
        ("policy[0].namespaces[0]=a,policy[0].names[0]=x,policy[0].target=y", "at '/policy/0': additional properties 'target' not allowed"),
        ("backends[0].name=A,backends[0].provider=route53", "at '/backends/0/name'"),
        ("backends[0].name=a,backends[0].provider=bind", "at '/backends/0/provider'"),
        ("secrets.names[0]=*", "at '/secrets/names/0'"),
        ("secrets.namespaces.Team_A[0]=x", "at '/secrets/namespaces'"),
        ("propagation.check=hope", "at '/propagation/check'"),
        ("dns.enabled=true", "dns.zones: is empty"),
        ("dns.zones[0].name=auth.example.org", "at '/dns/zones/0': missing property 'nameservers'"),
        ("dns.service.type=ExternalName", "at '/dns/service/type'"),
        ("dns.service.nodePorts.udp=70000", "at '/dns/service/nodePorts/udp'"),
        (&one_port, "dns.service.nodePorts: Kubernetes gives port 30053 to one Service alone"),
        ("acmedns.enabled=true", "acmedns.enabled: the accounts need a zone"),
        (&with_zone, "acmedns.tokensSecret.name: "),
        ("config.webhook.listen=0.0.0.0:1", "config.webhook.listen: objects of the chart depend on it"),
        ("config.webhook.group=a.b", "config.webhook.group: objects of the chart depend on it: use the value groupName instead"),
        ("config.data=/elsewhere", "config.data: objects of the chart depend on it: use the value persistence instead"),
        ("config.acmedns.values=9", "config.acmedns: the section is off: set acmedns.enabled: true first"),
        ("log.format=xml", "at '/log/format'"),
        ("metrics.serviceMonitor.enabled=true,metrics.service.enabled=false", "metrics.service.enabled: the ServiceMonitor needs"),
        ("persistence.size=1GB", "at '/persistence/size'"),
        ("persistence.accessModes[0]=ReadOnlyMany", "at '/persistence/accessModes/0'"),
        ("serviceAccount.create=false", "serviceAccount.name: serviceAccount.create is false"),
        ("podSecurityContext.runAsUser=0", "at '/podSecurityContext/runAsUser'"),
        ("podSecurityContext.runAsNonRoot=false", "at '/podSecurityContext': additional properties 'runAsNonRoot' not allowed"),
        ("terminationGracePeriodSeconds=5", "at '/terminationGracePeriodSeconds'"),
        (r"commonLabels.helm\.sh/chart=x", "at '/commonLabels/helm.sh~1chart'"),
        ("fullnameOverride=1st", "fullnameOverride: "),
    ] {
        helm(&["template", "gate", &chart(), "--set", set]).await.exited(1).says(complaint);
    }
}

/// The schema knows no key that values.yaml does not show, and values.yaml no key without a comment.
#[tokio::test]
async fn every_value_is_shown_and_explained() {
    let folder = PathBuf::from(chart());
    let shown = yaml(&read(&folder.join("values.yaml"))).remove(0);
    let schema: Value = serde_json::from_str(&read(&folder.join("values.schema.json"))).expect("the schema is JSON");
    let mut hidden = Vec::new();
    compare("", &schema, &shown, &mut hidden);
    // Helm's own, and fields of Kubernetes' objects, which its documentation explains.
    let known = ["/global", "/podSecurityContext/seLinuxOptions", "/podSecurityContext/supplementalGroups", "/resources/claims"];
    hidden.sort();
    assert_eq!(hidden, known, "values.yaml has to show the others");

    let values = read(&folder.join("values.yaml"));
    let key = Regex::new("^ *([A-Za-z0-9]+): .").expect("a pattern");
    // Said of themselves, or by the key above them.
    let plain = ["enabled", "requests", "limits", "runAsUser", "runAsGroup", "fsGroup", "fsGroupChangePolicy"];
    let mut before = "";
    for line in values.lines() {
        if let Some(key) = key.captures(line).and_then(|found| found.get(1)) {
            assert!(
                before.trim_start().starts_with('#') || plain.contains(&key.as_str()),
                "values.yaml does not say what {} does",
                key.as_str()
            );
        }
        before = line;
    }
}

/// Notes the places of `schema` that `shown` lacks, below objects whose keys are all known.
fn compare(place: &str, schema: &Value, shown: &Value, hidden: &mut Vec<String>) {
    let Some(properties) = schema["properties"].as_object() else { return };
    for (key, schema) in properties {
        match shown.get(key) {
            None => hidden.push(format!("{place}/{key}")),
            Some(shown) if shown.as_object().is_some_and(|shown| !shown.is_empty()) => {
                compare(&format!("{place}/{key}"), schema, shown, hidden)
            }
            Some(_) => {}
        }
    }
}

#[tokio::test]
async fn the_configuration_is_one_that_acmegate_takes() {
    let folder = temporary_folder("chart");
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    write(&folder.path().join("tls.crt"), &cert.pem());
    write(&folder.path().join("tls.key"), &signing_key.serialize_pem());
    let mounted = Regex::new("/etc/acmegate/(acmedns-)?tls").expect("a pattern");
    // What the README tells people to begin with counts as well.
    let (readme, beginning) = (read(&workspace().join("README.md")), folder.path().join("values.yaml"));
    let (_, values) = readme.split_once("# values.yaml:").expect("the README's values");
    write(&beginning, &format!("# {}", values.split("```").next().expect("an end")));
    for (name, file) in matrix().into_iter().chain([("README".to_owned(), beginning.display().to_string())]) {
        let objects = template("gate", "dns", &["--values", &file]).await;
        let configuration = config(&objects);
        let path = folder.path().join(format!("{name}.yaml"));
        write(&path, &mounted.replace_all(configuration, folder.path().to_str().expect("text")));
        let mut check = command();
        check.args(["config", "check", "--config"]).arg(&path).env("ACMEDNS_REGISTRATION_TOKENS", "5d41402abc4b2a76b9719d911017c592");
        let output = run("acmegate", check, LIMIT).await;
        assert!(output.code == Some(0), "{name}: {output}\n{configuration}");
    }
}

#[tokio::test]
async fn a_changed_configuration_is_a_new_pod_and_nothing_else_is() {
    let checksum = async |arguments: &[&str]| {
        let objects = template("gate", "dns", arguments).await;
        let deployment = one(&objects, "Deployment");
        assert_eq!(text(deployment, "/spec/strategy/type"), "Recreate", "two pods cannot hold one ledger");
        text(deployment, "/spec/template/metadata/annotations/checksum~1config").to_owned()
    };
    let plain = checksum(&[]).await;
    assert!(!plain.is_empty());
    assert_eq!(plain, checksum(&["--set", "metrics.serviceMonitor.enabled=true,dns.service.port=5353"]).await);
    assert_ne!(plain, checksum(&["--set", "config.propagation.check=none"]).await);
}

#[tokio::test]
async fn what_is_false_or_empty_in_config_counts_too() {
    let values = r#"config={"webhook": {"callers": {"cluster": false}, "policy": []}, "propagation": {"timeout": "9s"}}"#;
    let objects = template("gate", "dns", &["--set-json", values, "--set", "propagation.check=none"]).await;
    let configuration = yaml(config(&objects)).remove(0);
    assert_eq!(configuration["webhook"]["callers"], json!({"cluster": false}));
    assert_eq!(configuration["webhook"]["policy"], json!([]));
    assert_eq!(configuration["propagation"], json!({"check": "none", "timeout": "9s"}));
}

#[tokio::test]
async fn by_default_cluster_issuers_may_write_and_nobody_else() {
    let policy = async |set: &str| yaml(config(&template("gate", "dns", &["--set", set]).await)).remove(0)["webhook"]["policy"].clone();
    assert_eq!(policy("replicas=1").await, json!([{"namespaces": ["cert-manager"], "names": ["*"]}]));
    assert_eq!(policy("certManagerNamespace=pki").await, json!([{"namespaces": ["pki"], "names": ["*"]}]));
    let own = policy("policy[0].namespaces[0]=team-a,policy[0].names[0]=a.example.com").await;
    assert_eq!(own, json!([{"namespaces": ["team-a"], "names": ["a.example.com"]}]), "a list takes the other's place");
}

#[tokio::test]
async fn two_installs_share_no_name_outside_of_their_namespaces() {
    let values = format!("{}/ci/backends-values.yaml", chart());
    let second = ["--values", &values, "--set", "groupName=acme.second.example.com"];
    // The same release in another namespace, another release in the same one, and a dot that could be taken for ours.
    for (release, namespace) in [("gate", "other"), ("other", "dns"), ("gate-dns", "dns"), ("gate.dns", "dns")] {
        let one = shared(&template("gate", "dns", &["--values", &values]).await, "dns");
        let two = shared(&template(release, namespace, &second).await, namespace);
        let both: Vec<_> = one.intersection(&two).collect();
        assert!(both.is_empty(), "gate in dns and {release} in {namespace} both have {both:?}");
        assert!(one.iter().any(|(kind, ..)| kind == "APIService") && one.iter().any(|(_, namespace, _)| namespace == "kube-system"));
    }
    let (one, two) = (template("gate", "dns", &[]).await, template("other", "dns", &second).await);
    let own = |objects: &[Value]| objects.iter().map(identity).collect::<BTreeSet<_>>();
    assert!(own(&one).is_disjoint(&own(&two)), "two releases in one namespace");
}

/// What other installs could have too: everything outside of the install's own namespace.
fn shared(objects: &[Value], own: &str) -> BTreeSet<(String, String, String)> {
    objects.iter().map(identity).filter(|(_, namespace, _)| namespace != own).collect()
}

fn identity(object: &Value) -> (String, String, String) {
    let part = |pointer| text(object, pointer).to_owned();
    (part("/kind"), part("/metadata/namespace"), part("/metadata/name"))
}

#[tokio::test]
async fn every_container_is_locked_down() {
    for (name, file) in matrix() {
        let objects = template("gate", "dns", &["--values", &file]).await;
        let pod = &one(&objects, "Deployment")["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        assert!(["hostNetwork", "hostPID", "hostIPC"].iter().all(|key| pod.get(key).is_none()), "{name}");
        let containers = list(pod, "containers").chain(list(pod, "initContainers"));
        for container in containers {
            let context = &container["securityContext"];
            for (key, value) in [
                ("runAsNonRoot", json!(true)),
                ("privileged", json!(false)),
                ("allowPrivilegeEscalation", json!(false)),
                ("readOnlyRootFilesystem", json!(true)),
                ("capabilities", json!({"drop": ["ALL"]})),
                ("seccompProfile", json!({"type": "RuntimeDefault"})),
            ] {
                assert_eq!(context[key], value, "{name}: {key} of {}", container["name"]);
            }
            assert!(container["resources"]["limits"]["memory"].is_string() && container["resources"]["requests"].is_object(), "{name}");
            for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
                assert!(container[probe]["httpGet"]["path"].is_string(), "{name}: {probe}");
            }
        }
        let accounts = of_kind(&objects, "ServiceAccount");
        assert!(accounts.iter().all(|account| account["automountServiceAccountToken"] == false), "{name}");
    }
}

#[tokio::test]
async fn rights_are_few_and_named() {
    for (name, file) in matrix() {
        let objects = template("gate", "dns", &["--values", &file]).await;
        for (role, rule) in rules(&objects) {
            let all = ["apiGroups", "resources", "verbs", "resourceNames"];
            let words: Vec<&str> = all.iter().flat_map(|key| strings(&rule, key)).collect();
            assert!(!words.iter().any(|word| word.contains('*')), "{name}: {role} has a wildcard: {rule}");
            if strings(&rule, "resources").contains(&"secrets") {
                assert!(!strings(&rule, "resourceNames").is_empty(), "{name}: {role} reads or writes Secrets without a name: {rule}");
                // What certificates are written to is not read.
                let verbs: &[&str] = if role.ends_with(":certificates") { &["create", "patch"] } else { &["get"] };
                assert_eq!(strings(&rule, "verbs"), verbs, "{name}: {role}");
            }
            if strings(&rule, "resources").contains(&"apiservices") {
                assert_eq!(strings(&rule, "resourceNames"), [text(one(&objects, "APIService"), "/metadata/name")], "{name}: {role}");
            }
            assert!(
                !["escalate", "bind", "impersonate", "delete", "update"].iter().any(|verb| words.contains(verb)),
                "{name}: {role}: {rule}"
            );
        }
        // Every binding is acmegate's own, cert-manager's apart, which may have challenges solved and nothing else.
        let account = text(one(&objects, "Deployment"), "/spec/template/spec/serviceAccountName");
        for binding in of_kind(&objects, "ClusterRoleBinding").into_iter().chain(of_kind(&objects, "RoleBinding")) {
            let subjects: Vec<_> = list(binding, "subjects").collect();
            let solver = text(binding, "/roleRef/name").ends_with(":domain-solver");
            let ours = json!([{"kind": "ServiceAccount", "name": account, "namespace": "dns"}]);
            assert_eq!(json!(subjects) == ours, !solver, "{name}: {binding}");
        }
    }
    let granted = async |set: &str| {
        let rules = rules(&template("gate", "dns", &["--set", set]).await);
        rules.iter().flat_map(|(_, rule)| strings(rule, "resources").into_iter().map(|r| (r.to_owned(), rule["verbs"].clone()))).collect()
    };
    let plain: BTreeMap<String, Value> = granted("rbac.diagnostics=false").await;
    assert_eq!(plain, BTreeMap::from([("events".to_owned(), json!(["create", "patch"])), ("acmegate".to_owned(), json!(["create"]))]));
    let self_made = granted("rbac.diagnostics=false,certManager.enabled=false").await;
    assert_eq!(self_made["apiservices"], json!(["get", "list", "watch", "patch"]));
    let labels = granted("rbac.diagnostics=false,policy[0].selector.matchLabels.team=a,policy[0].names[0]=a.example.com").await;
    assert_eq!(labels["namespaces"], json!(["get", "list", "watch"]));
    // `acmegate check --kubernetes`.
    let looks = granted("rbac.diagnostics=true").await;
    assert_eq!(looks["apiservices"], json!(["get"]));
    for resource in ["issuers", "clusterissuers", "challenges"] {
        assert_eq!(looks[resource], json!(["get", "list"]), "{resource}");
    }
    let none = template("gate", "dns", &["--set", "rbac.create=false"]).await;
    assert!(!none.iter().any(|object| text(object, "/apiVersion").starts_with("rbac.")));
}

#[tokio::test]
async fn secrets_that_are_named_may_be_read_and_no_others() {
    let objects = template("gate", "dns", &["--values", &format!("{}/ci/backends-values.yaml", chart())]).await;
    let granted: BTreeMap<&str, Vec<&str>> = of_kind(&objects, "Role")
        .into_iter()
        .map(|role| (text(role, "/metadata/namespace"), strings(&role["rules"][0], "resourceNames")))
        .collect();
    assert_eq!(granted, BTreeMap::from([("dns", vec!["cloudflare", "more"]), ("pdns", vec!["powerdns"]), ("team-a", vec!["dns-token"])]));
    let bound = |namespace: &str| of_kind(&objects, "RoleBinding").iter().any(|binding| text(binding, "/metadata/namespace") == namespace);
    assert!(granted.keys().all(|namespace| bound(namespace)));
    assert!(of_kind(&template("gate", "dns", &[]).await, "Role").is_empty());
}

#[tokio::test]
async fn what_certificates_are_written_to_may_be_written_and_nothing_else() {
    let objects = template("gate", "dns", &["--values", &format!("{}/ci/certificates-values.yaml", chart())]).await;
    let mut granted: Vec<(&str, &str, Vec<&str>, Vec<&str>)> = Vec::new();
    for role in of_kind(&objects, "Role") {
        for rule in list(role, "rules") {
            let kind = strings(rule, "resources");
            granted.push((text(role, "/metadata/namespace"), kind[0], strings(rule, "resourceNames"), strings(rule, "verbs")));
        }
    }
    let expected = [
        ("apps", "secrets", vec!["api-tls", "www-tls"], vec!["create", "patch"]),
        ("apps", "deployments", vec!["www"], vec!["patch"]),
        ("mail", "secrets", vec!["www-tls"], vec!["create", "patch"]),
    ];
    assert_eq!(granted, expected);
    let bindings = of_kind(&objects, "RoleBinding");
    let bound = |namespace: &str| bindings.iter().any(|binding| text(binding, "/metadata/namespace") == namespace);
    assert!(bound("apps") && bound("mail"));
}

#[tokio::test]
async fn names_and_ports_meet() {
    for (name, file) in matrix() {
        let objects = template("gate", "dns", &["--values", &file]).await;
        let deployment = one(&objects, "Deployment");
        let pod = &deployment["spec"]["template"];
        let container = &pod["spec"]["containers"][0];
        let ports: BTreeMap<&str, u64> =
            list(container, "ports").filter_map(|p| Some((p["name"].as_str()?, p["containerPort"].as_u64()?))).collect();

        // What the configuration listens on is what the pod shows, and the reverse.
        let configuration = yaml(config(&objects)).remove(0);
        let listens: BTreeSet<u64> = ["webhook", "metrics", "dns", "acmedns"]
            .iter()
            .flat_map(|door| match &configuration[door]["listen"] {
                Value::Array(many) => many.clone(),
                one => vec![one.clone()],
            })
            .filter_map(|address| address.as_str()?.rsplit_once(':')?.1.parse().ok())
            .collect();
        assert_eq!(listens, ports.values().copied().collect(), "{name}");

        // Services lead to ports of the pod, by labels that it has.
        for service in of_kind(&objects, "Service") {
            for port in list(service, "/spec/ports") {
                assert!(ports.contains_key(text(port, "/targetPort")), "{name}: {service}");
            }
            for (label, value) in service["spec"]["selector"].as_object().expect("a selector") {
                assert_eq!(&pod["metadata"]["labels"][label], value, "{name}: {service}");
            }
        }
        for (label, value) in deployment["spec"]["selector"]["matchLabels"].as_object().expect("a selector") {
            assert_eq!(&pod["metadata"]["labels"][label], value, "{name}");
        }
        let open: BTreeSet<u64> = list(one(&objects, "NetworkPolicy"), "/spec/ingress")
            .flat_map(|rule| list(rule, "ports"))
            .filter_map(|p| p["port"].as_u64())
            .collect();
        let closed: Vec<_> = ports.iter().filter(|(_, port)| !open.contains(port)).map(|(name, _)| *name).collect();
        assert!(
            closed.is_empty() || (closed == ["metrics"] && name.starts_with("self-made")),
            "{name}: the NetworkPolicy closes {closed:?}"
        );

        // The APIService names our group and a Service that is there; the configuration names both the same.
        let api = one(&objects, "APIService");
        let webhook = &configuration["webhook"];
        assert_eq!(api["spec"]["group"], webhook["group"], "{name}");
        let service =
            of_kind(&objects, "Service").into_iter().find(|service| service["metadata"]["name"] == api["spec"]["service"]["name"]);
        assert_eq!(service.expect("its Service")["spec"]["ports"][0]["targetPort"], "https", "{name}");
        assert!(api["spec"].get("caBundle").is_none() && api["spec"].get("insecureSkipTLSVerify").is_none(), "{name}");

        // The serving certificate comes from where the configuration says.
        let volumes: Vec<&str> = list(&pod["spec"], "volumes").filter_map(|volume| volume["secret"]["secretName"].as_str()).collect();
        let inject = text(api, "/metadata/annotations/cert-manager.io~1inject-ca-from");
        let serving = of_kind(&objects, "Certificate").into_iter().find(|one| format!("dns/{}", text(one, "/metadata/name")) == inject);
        match serving {
            Some(serving) => {
                assert!(volumes.contains(&text(serving, "/spec/secretName")), "{name}: {volumes:?}");
                let host = format!("{}.dns.svc", text(api, "/spec/service/name"));
                assert!(strings(&serving["spec"], "dnsNames").contains(&host.as_str()), "{name}: {serving}");
                assert!(webhook["tls"].is_object() && webhook.get("service").is_none(), "{name}");
            }
            None => {
                assert_eq!(webhook["service"], json!({"name": api["spec"]["service"]["name"], "namespace": "dns"}), "{name}");
                assert!(webhook.get("tls").is_none() && inject.is_empty(), "{name}");
            }
        }

        // Each mount has its volume.
        let volumes: BTreeSet<&str> = list(&pod["spec"], "volumes").map(|volume| text(volume, "/name")).collect();
        let mounts: BTreeSet<&str> = list(container, "volumeMounts").map(|mount| text(mount, "/name")).collect();
        assert_eq!(mounts, volumes, "{name}");
    }
}

/// A Service for each protocol where a load balancer takes no two, and no fields that a type does not have.
#[tokio::test]
async fn the_dns_service_takes_the_shape_that_is_asked_for() {
    let zone = "dns.enabled=true,dns.zones[0].name=auth.example.org,dns.zones[0].nameservers[0]=ns1.example.net";
    let services = async |set: &str| -> Vec<Value> {
        let objects = template("gate", "dns", &["--set", &format!("{zone},{set}")]).await;
        objects.into_iter().filter(|object| text(object, "/metadata/labels/app.kubernetes.io~1component") == "dns").collect()
    };
    let ports = |service: &Value| {
        list(service, "/spec/ports").map(|port| format!("{} {}", text(port, "/protocol"), port["port"])).collect::<Vec<_>>()
    };
    let whole = services("dns.service.type=LoadBalancer").await;
    assert_eq!(whole.iter().map(ports).collect::<Vec<_>>(), [["UDP 53", "TCP 53"]]);
    assert_eq!(whole[0]["spec"]["externalTrafficPolicy"], "Local");
    let halves = services("dns.service.mixedProtocols=false").await;
    assert_eq!(halves.iter().map(ports).collect::<Vec<_>>(), [["TCP 53"], ["UDP 53"]]);
    let inside = services("dns.service.type=ClusterIP,dns.service.nodePorts.udp=30053,dns.service.loadBalancerClass=x/y").await;
    for key in ["externalTrafficPolicy", "loadBalancerClass"] {
        assert!(inside[0]["spec"].get(key).is_none(), "{key} of a ClusterIP Service");
    }
    assert!(list(&inside[0], "/spec/ports").all(|port| port.get("nodePort").is_none()));
}

/// What is asked of `/metrics`, and whether it is there, is known to `signals`: here it is asked of this install alone.
#[tokio::test]
async fn alerts_are_of_this_install_and_the_dashboard_comes_with_it() {
    let on =
        "metrics.serviceMonitor.enabled=true,metrics.prometheusRule.enabled=true,metrics.dashboard.enabled=true,groupName=acme.second.test";
    let objects = template("gate", "dns", &["--set", on]).await;
    let rules: Vec<&Value> = list(one(&objects, "PrometheusRule"), "/spec/groups/0/rules").collect();
    let file = yaml(&read(&PathBuf::from(chart()).join("monitoring/rules.yaml"))).remove(0);
    let names = |rules: &[&Value]| rules.iter().map(|rule| text(rule, "/alert").to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&rules), names(&list(&file, "/groups/0/rules").collect::<Vec<_>>()));
    assert_eq!(file["groups"].as_array().map(Vec::len), Some(1), "all groups are in the PrometheusRule");
    let series = Regex::new(r"acmegate_[a-z_]+").expect("a pattern");
    for rule in rules {
        let expression = text(rule, "/expr");
        for found in series.find_iter(expression).map(|found| found.as_str()) {
            let selected = format!(r#"{found}{{namespace="dns",service="gate-acmegate-metrics""#);
            assert!(expression.contains(&selected), "{}: {found} of every install", rule["alert"]);
        }
        let whole = rule.to_string();
        assert!(!whole.contains(r#"job=\"acmegate\""#) && !whole.contains("acme.acmegate.io"), "{rule}");
        assert!(["critical", "warning"].contains(&text(rule, "/labels/severity")) && !text(rule, "/for").is_empty(), "{rule}");
    }
    let chosen = ["--set", "metrics.prometheusRule.enabled=true,metrics.prometheusRule.disabled={AcmegateDown,AcmegateCAFailing}"];
    let fewer = template("gate", "dns", &chosen).await;
    assert_eq!(list(one(&fewer, "PrometheusRule"), "/spec/groups/0/rules").count(), list(&file, "/groups/0/rules").count() - 2);

    let dashboard = of_kind(&objects, "ConfigMap").into_iter().find(|map| map["metadata"]["labels"]["grafana_dashboard"] == "1");
    let shipped = text(dashboard.expect("the dashboard"), "/data/acmegate.json");
    let parsed: Value = serde_json::from_str(shipped).expect("the dashboard is JSON");
    assert_eq!(parsed["title"], "acmegate");
    assert_eq!(of_kind(&template("gate", "dns", &[]).await, "ConfigMap").len(), 1, "no dashboard unless it is asked for");

    let monitor = one(&objects, "ServiceMonitor");
    let found = of_kind(&objects, "Service").into_iter().filter(|service| {
        let labels = monitor["spec"]["selector"]["matchLabels"].as_object().expect("a selector");
        labels.iter().all(|(label, value)| &service["metadata"]["labels"][label] == value)
    });
    assert_eq!(found.map(|service| text(service, "/metadata/name")).collect::<Vec<_>>(), ["gate-acmegate-metrics"]);
}

#[tokio::test]
async fn the_notes_show_the_next_command() {
    let values = format!("{}/ci/embedded-dns-values.yaml", chart());
    let notes = helm(&["install", "gate", &chart(), "--namespace", "dns", "--dry-run=client", "--values", &values]).await;
    notes.succeeded();
    for line in [
        "kubectl get apiservice v1alpha1.acme.acmegate.io",
        "kubectl --namespace dns exec deploy/gate-acmegate -- acmegate check --kubernetes",
        "groupName: acme.acmegate.io",
        "solverName: acmegate",
        "auth.example.org.  3600  IN  NS  ns1.auth.example.org.",
        "_acme-challenge.www.example.com.  3600  IN  CNAME  www.example.com.auth.example.org.",
        "kubectl --namespace dns exec deploy/gate-acmegate -- acmegate check www.example.com",
    ] {
        notes.says(line);
    }
    helm(&["install", "gate", &chart(), "--dry-run=client"]).await.succeeded().says("WARNING: acmegate can write no DNS yet.");
}

// --- Helm.

fn chart() -> String {
    workspace().join("charts/acmegate").display().to_string()
}

/// The values of `ci/`: name and path.
fn matrix() -> Vec<(String, String)> {
    let files = fs::read_dir(Path::new(&chart()).join("ci")).expect("the folder");
    let mut files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    files.sort();
    assert!(files.len() > 3, "{files:?}");
    files.iter().map(|file| (file.file_stem().expect("a name").to_string_lossy().into_owned(), file.display().to_string())).collect()
}

/// Runs helm, which knows no cluster and keeps nothing.
async fn helm(arguments: &[&str]) -> Output {
    let home = temporary_folder("helm");
    let mut command = Command::new(peer("kubectl").with_file_name("helm"));
    command.args(arguments).env("KUBECONFIG", "/dev/null");
    for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(variable, home.path());
    }
    run("helm", command, LIMIT).await
}

/// The objects that `helm template` prints.
async fn template(release: &str, namespace: &str, arguments: &[&str]) -> Vec<Value> {
    let chart = chart();
    let output = helm(&[&["template", release, &chart, "--namespace", namespace], arguments].concat()).await;
    yaml(&output.succeeded().stdout)
}

/// The documents of a YAML file; a key that stands there twice is an error.
fn yaml(text: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_else(|e| panic!("not YAML: {e}\n{text}"));
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

// --- Objects.

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn one<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let found = of_kind(objects, kind);
    assert_eq!(found.len(), 1, "objects of the kind {kind}");
    found[0]
}

/// acmegate's configuration.
fn config(objects: &[Value]) -> &str {
    let found: Vec<_> = of_kind(objects, "ConfigMap").into_iter().filter_map(|map| map["data"]["config.yaml"].as_str()).collect();
    assert_eq!(found.len(), 1, "configurations");
    found[0]
}

/// All rules of all roles, each with its role's name.
fn rules(objects: &[Value]) -> Vec<(String, Value)> {
    let roles = of_kind(objects, "ClusterRole").into_iter().chain(of_kind(objects, "Role"));
    roles.flat_map(|role| list(role, "rules").map(|rule| (text(role, "/metadata/name").to_owned(), rule.clone()))).collect()
}

/// The text at a JSON pointer; empty if there is none.
fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The elements of the list at a key or JSON pointer; none if there is none.
fn list<'a>(value: &'a Value, place: &str) -> impl Iterator<Item = &'a Value> {
    let found = if place.starts_with('/') { value.pointer(place) } else { value.get(place) };
    found.and_then(Value::as_array).into_iter().flatten()
}

/// The texts of the list at a key.
fn strings<'a>(value: &'a Value, key: &str) -> Vec<&'a str> {
    list(value, key).filter_map(Value::as_str).collect()
}
