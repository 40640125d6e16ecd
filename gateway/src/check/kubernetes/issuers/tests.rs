use std::path::Path;

use serde_json::json;

use super::{
    super::super::report::Outcome::{Failed, Ok as Fine, Skipped, Warning},
    *,
};

const CONFIG: &str = r#"
version: v1
data: /tmp/x
dns: {listen: "127.0.0.1:5353", zones: [{name: auth.example.org, nameservers: [ns1.example.net]}]}
webhook:
  listen: "127.0.0.1:8443"
  group: acme.corp.test
  solver: gate
  policy:
  - {namespaces: [cert-manager], names: ["*"]}
  - {namespaces: [team-a], names: [a.example.com], backends: [corp, tenants], secrets: true}
  - {namespaces: [team-b], names: [b.example.com], backends: [embedded, tenants]}
  - {selector: {matchLabels: {team: c}}, names: [c.example.com]}
backends:
- {name: corp, provider: rfc2136, zones: [example.com], settings: {server: "127.0.0.1:53"}}
- {name: tenants, provider: cloudflare, settings: {token: {issuer: token}}}
"#;

fn config() -> Config {
    Config::from_yaml(CONFIG, Path::new("config.yaml")).unwrap()
}

fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).unwrap()
}

fn issuer_with(namespace: Option<&str>, webhook: Value, ready: Value) -> Issuer {
    let kind = if namespace.is_some() { "Issuer" } else { "ClusterIssuer" };
    let solvers = json!([{"http01": {}}, {"dns01": {"webhook": webhook}}]);
    let object = object(json!({
        "apiVersion": "cert-manager.io/v1", "kind": kind, "metadata": {"name": "acme", "namespace": namespace},
        "spec": {"acme": {"solvers": solvers}}, "status": {"conditions": [ready]},
    }));
    Issuer::read(kind, &object)
}

fn issuer(namespace: Option<&str>, group: &str, solver: &str, config: Value) -> Issuer {
    let webhook = json!({"groupName": group, "solverName": solver, "config": config});
    issuer_with(namespace, webhook, json!({"type": "Ready", "status": "True"}))
}

fn ours<'a>(config: &'a Config, groups: Option<&[&str]>, labels: bool) -> Ours<'a> {
    let webhook = config.webhook.as_ref().unwrap();
    Ours {
        group: &webhook.group,
        solver: &webhook.solver,
        backends: backends(config),
        policy: &webhook.policy,
        groups: groups.map(|groups| groups.iter().map(ToString::to_string).collect()),
        labels: labels.then(|| BTreeMap::from([("team-c".to_owned(), BTreeMap::from([("team".to_owned(), "c".to_owned())]))])),
        cluster_namespace: "cert-manager",
        secrets: BTreeMap::new(),
    }
}

fn listed(found: Vec<Issuer>) -> Asked<Listed<Issuer>> {
    Ok(Listed { found, whole: true })
}

fn none() -> Asked<Listed<Issuer>> {
    listed(Vec::new())
}

#[test]
fn an_issuer_that_means_us_has_to_find_us_and_to_be_allowed() {
    let config = config();
    let ours = ours(&config, Some(&["acme.corp.test", "acme.other.test"]), true);
    for (issuer, outcome, said) in [
        (issuer(Some("team-a"), "acme.corp.test", "gate", Value::Null), Fine, ""),
        (issuer(Some("team-a"), "acme.corp.test", "gate", json!({"backend": "tenants", "secret": {"name": "x"}})), Fine, ""),
        (issuer(None, "acme.corp.test", "gate", json!({"backend": "embedded"})), Fine, ""),
        (issuer(Some("team-c"), "acme.corp.test", "gate", Value::Null), Fine, ""),
        // Somebody else's webhook.
        (issuer(Some("team-a"), "acme.other.test", "gate", json!(5)), Warning, ""),
        (issuer(Some("team-a"), "acme.webhook.test", "godaddy", json!(5)), Warning, ""),
        (
            issuer(Some("team-a"), "acme.corp.test", "gaet", Value::Null),
            Failed,
            "Issuer team-a/acme, solver 2: solverName is \"gaet\": write gate",
        ),
        (
            issuer(Some("team-a"), "acme.crop.test", "gate", Value::Null),
            Failed,
            "no API server has the group of its solver: groupName is \"acme.crop.test\"",
        ),
        (issuer(Some("team-a"), "somewhere.test", "gate", Value::Null), Failed, "write acme.corp.test"),
        (issuer(Some("team-a"), "ACME.corp.test", "gaet", Value::Null), Failed, "and solverName \"gaet\": write gate"),
        (issuer(Some("team-a"), "v1alpha1.acme.corp.test", "x", Value::Null), Failed, "write acme.corp.test"),
        (issuer(Some("team-a"), "acme.corp.test", "gate", json!({"url": "x"})), Failed, "config: the key \"url\" is not known"),
        (
            issuer(Some("team-a"), "acme.corp.test", "gate", json!({"backend": "none"})),
            Failed,
            "the backend none is not configured here; known: embedded, corp, tenants",
        ),
        (
            issuer(Some("team-a"), "acme.corp.test", "gate", json!({"backend": "embedded"})),
            Failed,
            "lets the namespace team-a use the backend embedded",
        ),
        (
            issuer(Some("team-b"), "acme.corp.test", "gate", json!({"backend": "tenants", "secret": {"name": "x"}})),
            Failed,
            "lets the namespace team-b use a Secret",
        ),
        (issuer(Some("team-d"), "acme.corp.test", "gate", Value::Null), Warning, "as its labels are not"),
    ] {
        let rung = judge([&listed(vec![issuer.clone()]), &none()], &ours, "robot");
        assert_eq!(rung.outcome, outcome, "{rung:?}");
        assert!(rung.evidence.join("\n").contains(said), "{rung:?}");
        assert!(outcome != Failed || rung.next.as_deref().unwrap().contains("kubectl --namespace team-"), "{rung:?}");
    }
}

#[test]
fn a_namespace_without_a_rule_is_told() {
    let mut config = config();
    config.webhook.as_mut().unwrap().policy.rules.truncate(1);
    let mut ours = ours(&config, None, false);
    let judge = |issuer, ours: &Ours<'_>| judge([&listed(vec![issuer]), &none()], ours, "robot");
    let rung = judge(issuer(Some("team-a"), "acme.corp.test", "gate", Value::Null), &ours);
    assert!(
        rung.outcome == Failed && rung.evidence[0].ends_with("is for the namespace team-a: add it to the namespaces of one"),
        "{rung:?}"
    );
    ours.cluster_namespace = "elsewhere";
    let rung = judge(issuer(None, "acme.corp.test", "gate", Value::Null), &ours);
    assert!(rung.outcome == Warning && rung.evidence[0].contains("--cluster-resource-namespace"), "{rung:?}");
    // Without the groups, another webhook may be meant.
    assert_eq!(judge(issuer(Some("team-a"), "somewhere.test", "gate", Value::Null), &ours).outcome, Warning);
    assert_eq!(judge(issuer(Some("team-a"), "acme.corp.tset", "gate", Value::Null), &ours).outcome, Failed);
}

#[test]
fn what_steers_terminals_or_is_endless_is_neither_shown_nor_endless() {
    let config = config();
    let ours = ours(&config, Some(&[]), true);
    let long = format!("\u{1b}[2J{}", "x".repeat(100_000));
    let many = (0..100).map(|_| issuer(Some("team-a"), "acme.corp.test", &long, Value::Null)).collect();
    let rung = judge([&listed(many), &none()], &ours, "robot");
    let shown = rung.evidence.join("\n");
    assert!(shown.len() < 10_000 && !shown.contains('\u{1b}') && shown.ends_with("and 88 more"), "{shown}");
    assert!(rung.summary.ends_with("100 things to mend"), "{rung:?}");
}

#[test]
fn what_cannot_be_listed_is_told() {
    let config = config();
    let ours = ours(&config, Some(&[]), true);
    let failing = |unasked: &Unasked| Err::<Listed<Issuer>, _>(unasked.clone());
    let missing = judge([&failing(&Unasked::Missing), &failing(&Unasked::Missing)], &ours, "robot");
    assert!(missing.outcome == Warning && missing.summary.contains("cert-manager is not installed"), "{missing:?}");
    let neither = judge([&failing(&Unasked::Forbidden), &failing(&Unasked::Forbidden)], &ours, "robot");
    assert!(neither.outcome == Skipped && neither.next.as_deref().unwrap().contains(RIGHT), "{neither:?}");
    // What can be seen is judged all the same.
    let good = || listed(vec![issuer(Some("team-a"), "acme.corp.test", "gate", Value::Null)]);
    let half = judge([&good(), &failing(&Unasked::Forbidden)], &ours, "robot");
    assert!(half.outcome == Skipped && half.evidence == ["ClusterIssuers were not looked at: we may not"], "{half:?}");
    let bad = listed(vec![issuer(Some("team-a"), "acme.corp.test", "other", Value::Null)]);
    assert_eq!(judge([&bad, &failing(&Unasked::Forbidden)], &ours, "robot").outcome, Failed);
    let nobody = judge([&none(), &none()], &ours, "robot");
    assert!(nobody.outcome == Warning && nobody.next.unwrap().contains("groupName: acme.corp.test, solverName: gate"));
}

#[test]
fn an_issuer_that_is_not_ready_is_told() {
    let config = config();
    let webhook = json!({"groupName": "acme.corp.test", "solverName": "gate"});
    let unready = issuer_with(Some("team-a"), webhook, json!({"type": "Ready", "status": "False", "message": "no account"}));
    let rung = judge([&listed(vec![unready]), &none()], &ours(&config, Some(&[]), true), "robot");
    assert!(rung.outcome == Warning && rung.evidence == ["Issuer team-a/acme, solver 2: the issuer is not Ready: no account"], "{rung:?}");
}

#[test]
fn slips_are_near_and_other_names_are_not() {
    assert_eq!([distance(b"", b"abc"), distance(b"kitten", b"sitting"), distance(b"abc", b"abc")], [3, 3, 0]);
    for given in
        ["acme.corp.tes", "acme.crop.test", " acme.corp.test", "Acme.Corp.Test", "acme.corp.test/v1alpha1", "v1alpha1.acme.corp.test"]
    {
        assert!(near(given, "acme.corp.test"), "{given}");
    }
    for given in ["", "acme.example.com", "corp.test", "acme.corp.test.example"] {
        assert!(!near(given, "acme.corp.test"), "{given}");
    }
}

/// Of what tenants may write nothing is believed.
#[test]
fn anything_can_be_read() {
    for spec in
        [json!(null), json!({"acme": []}), json!({"acme": {"solvers": 5}}), json!({"acme": {"solvers": [5, {"dns01": {"webhook": 5}}]}})]
    {
        let issuer = Issuer::read("Issuer", &object(json!({"metadata": {}, "spec": spec, "status": {"conditions": [5]}})));
        assert!(issuer.solvers.iter().all(|solver| solver.group.is_empty()));
    }
}

/// A backend that works with Secrets of issuers, and their Secrets.
#[test]
fn an_issuer_brings_a_secret_where_one_is_wanted_and_we_may_read_it() {
    let config = config();
    let mut ours = ours(&config, Some(&[]), true);
    let tenant = |config: Value| listed(vec![issuer(Some("team-a"), "acme.corp.test", "gate", config)]);
    let with_secret = || tenant(json!({"backend": "tenants", "secret": {"name": "dns"}}));
    let judge = |issuers: Asked<Listed<Issuer>>, ours: &Ours<'_>| judge([&issuers, &none()], ours, "robot");
    for (config, said) in [
        (json!({"backend": "tenants"}), "the backend tenants has no credential of its own: name a Secret"),
        (json!({"backend": "corp", "secret": {"name": "dns"}}), "the backend corp works without a Secret"),
        (json!({"secret": {"name": "dns"}}), "a secret is for one backend"),
    ] {
        assert_eq!(secrets([&tenant(config.clone()), &none()], &ours), BTreeSet::new());
        let rung = judge(tenant(config), &ours);
        assert!(rung.outcome == Failed && rung.evidence[0].contains(said), "{rung:?}");
    }
    let place = ("team-a".to_owned(), "dns".to_owned());
    assert_eq!(secrets([&with_secret(), &none()], &ours), BTreeSet::from([place.clone()]));
    for (known, outcome, said) in [
        (Ok(()), Fine, ""),
        (Err(Unasked::Failed("gone".into())), Fine, ""),
        (Err(Unasked::Missing), Failed, "there is no Secret dns in the namespace team-a: create it"),
        (Err(Unasked::Forbidden), Failed, "resourceNames: [dns], verbs: [get]"),
    ] {
        ours.secrets = BTreeMap::from([(place.clone(), known)]);
        let rung = judge(with_secret(), &ours);
        assert!(rung.outcome == outcome && rung.evidence.join("").contains(said), "{rung:?}");
    }
}
