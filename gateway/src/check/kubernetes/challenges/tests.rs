use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::{
    super::super::report::Outcome::{Failed, Ok as Fine, Skipped, Warning},
    *,
};
use crate::policy::Policy;

const STUCK_AFTER: Duration = Duration::from_secs(120);

fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).unwrap()
}

/// Under way since 12:00; it is 12:10.
fn raw(change: impl FnOnce(&mut Value)) -> DynamicObject {
    let mut challenge = json!({
        "apiVersion": "acme.cert-manager.io/v1", "kind": "Challenge",
        "metadata": {
            "name": "www-1", "namespace": "team-a", "creationTimestamp": "2026-01-01T12:00:00Z",
            "finalizers": ["acme.cert-manager.io/finalizer"],
        },
        "spec": {
            "dnsName": "www.example.com", "issuerRef": {"name": "acme", "kind": "Issuer"},
            "solver": {"dns01": {"webhook": {"groupName": "acme.corp.test", "solverName": "gate"}}},
        },
        "status": {"state": "pending", "presented": false, "processing": true, "reason": "something new"},
    });
    change(&mut challenge);
    object(challenge)
}

fn judged(found: Vec<DynamicObject>) -> Rung {
    judged_at(found, "2026-01-01T12:10:00Z")
}

fn judged_at(found: Vec<DynamicObject>, now: &str) -> Rung {
    let policy = Policy::default();
    let ours = Ours {
        group: "acme.corp.test",
        solver: "gate",
        backends: Vec::new(),
        policy: &policy,
        groups: Some(BTreeSet::new()),
        labels: None,
        cluster_namespace: "cert-manager",
        secrets: BTreeMap::new(),
    };
    let issuer =
        |kind: &str, metadata: Value| Ok(Listed { found: vec![Issuer::read(kind, &object(json!({"metadata": metadata})))], whole: true });
    let issuers = issuer("Issuer", json!({"name": "acme", "namespace": "team-a"}));
    let cluster_issuers = issuer("ClusterIssuer", json!({"name": "acme"}));
    let found = found.iter().filter_map(|object| Challenge::read(object, ours.group)).collect();
    judge(&Ok(Listed { found, whole: true }), [&issuers, &cluster_issuers], &ours, STUCK_AFTER, now.parse().unwrap(), "robot")
}

fn reason(text: &str) -> DynamicObject {
    raw(|challenge| challenge["status"]["reason"] = json!(text))
}

#[test]
fn what_is_under_way_for_long_is_explained() {
    let refused = "no rule of webhook.policy is for the namespace team-a: add it";
    for (challenge, outcome, line, next) in [
        (reason(refused), Failed, "acmegate's policy refuses it", "acmegate policy test --namespace team-a --name www.example.com"),
        (
            raw(|challenge| {
                challenge["spec"]["issuerRef"]["kind"] = json!("ClusterIssuer");
                challenge["status"]["reason"] = json!(refused);
            }),
            Failed,
            "acmegate's policy refuses it",
            "--namespace cert-manager --name",
        ),
        (
            reason("config: backend must be the name"),
            Failed,
            "the issuer's config",
            "mend the config of the Issuer acme, then kubectl --namespace team-a delete challenge www-1",
        ),
        (reason("the DNS backend has not taken the value yet: no"), Failed, "does not take the value", "acmegate check www.example.com"),
        (
            reason("acmegate.acme.corp.test is forbidden: User \"x\" cannot create"),
            Failed,
            "cert-manager may not call acmegate",
            "see the rung `caller`",
        ),
        (reason("something new"), Failed, "not presented: cert-manager does not get on with it", "describe challenge www-1"),
        (reason(""), Failed, "cert-manager says nothing of it", "describe challenge www-1"),
        (raw(|challenge| challenge["status"] = json!({})), Warning, "cert-manager has not begun with it", "describe challenge www-1"),
        (raw(|challenge| challenge["status"]["presented"] = json!(true)), Warning, "presented: cert-manager does not get on", "describe"),
        (
            raw(|challenge| challenge["status"] = json!({"state": "pending", "presented": true, "reason": "not yet propagated"})),
            Warning,
            "presented: cert-manager does not see the value in DNS",
            "acmegate check www.example.com",
        ),
        (
            raw(|challenge| challenge["spec"]["solver"]["dns01"]["webhook"]["solverName"] = json!("gaet")),
            Failed,
            "its solverName is not ours",
            "see the rung `issuers`",
        ),
        (
            raw(|challenge| challenge["spec"]["issuerRef"]["name"] = json!("gone")),
            Failed,
            "its issuer is gone",
            "create the Issuer gone again, or kubectl",
        ),
        (
            raw(|challenge| {
                challenge["metadata"]["deletionTimestamp"] = json!("2026-01-01T12:01:00Z");
                challenge["spec"]["issuerRef"]["name"] = json!("gone");
            }),
            Failed,
            "its issuer is gone",
            "--patch '{\"metadata\": {\"finalizers\": null}}'",
        ),
        (raw(|challenge| challenge["status"]["state"] = json!("invalid")), Warning, "ended without success", "describe challenge"),
        (
            raw(|challenge| challenge["metadata"]["deletionTimestamp"] = json!("2026-01-01T12:01:00Z")),
            Failed,
            "team-a/www-1, for 9 min, deleted, and held by its finalizer (its namespace cannot go either)",
            "describe challenge",
        ),
    ] {
        let rung = judged(vec![challenge]);
        assert_eq!(rung.outcome, outcome, "{rung:?}");
        assert!(rung.evidence[0].starts_with("team-a/www-1, for ") && rung.evidence[0].contains(line), "{rung:?}");
        assert_eq!(rung.evidence[1], "  its value belongs at _acme-challenge.www.example.com");
        assert!(rung.next.as_deref().unwrap().contains(next), "{rung:?}");
    }
}

#[test]
fn what_gets_on_is_left_alone() {
    let all = || {
        vec![
            raw(|challenge| challenge["metadata"]["creationTimestamp"] = json!("2026-01-01T12:08:30Z")),
            raw(|challenge| challenge["status"]["state"] = json!("valid")),
            raw(|challenge| challenge["metadata"]["deletionTimestamp"] = json!("2026-01-01T12:09:00Z")),
            raw(|challenge| {
                challenge["metadata"]["deletionTimestamp"] = json!("2026-01-01T12:01:00Z");
                challenge["metadata"]["finalizers"] = json!([]);
            }),
            // Another webhook's.
            raw(|challenge| challenge["spec"]["solver"]["dns01"]["webhook"]["groupName"] = json!("acme.other.test")),
        ]
    };
    let rung = judged(all());
    assert_eq!((rung.outcome, rung.summary.as_str()), (Fine, "4 challenges under way, none stuck"));
    assert_eq!(judged(Vec::new()).summary, "no challenge is under way");
}

/// DNS may be slow, but not for ever.
#[test]
fn a_value_that_stands_for_an_hour_is_stuck() {
    let presented = || raw(|challenge| challenge["status"] = json!({"presented": true, "processing": true}));
    assert_eq!(judged_at(vec![presented()], "2026-01-01T12:59:00Z").outcome, Warning);
    assert_eq!(judged_at(vec![presented()], "2026-01-01T13:01:00Z").outcome, Failed);
    // Clocks differ.
    assert_eq!(judged_at(vec![presented()], "2026-01-01T11:00:00Z").outcome, Fine);
}

#[test]
fn the_worst_come_first_and_the_list_has_an_end() {
    let waiting = || raw(|challenge| challenge["status"] = json!({}));
    let follows = raw(|challenge| {
        challenge["spec"]["solver"]["dns01"]["cnameStrategy"] = json!("Follow");
        challenge["status"]["reason"] = json!(format!("\u{1b}[2J{}", "x".repeat(100_000)));
    });
    let rung = judged((0..30).map(|_| waiting()).chain([follows]).collect());
    assert_eq!((rung.outcome, rung.summary.as_str()), (Failed, "challenges that do not get on: 31 of 31"));
    assert!(rung.evidence[0].contains("not presented") && rung.evidence[1].ends_with(", or where its CNAME leads"), "{rung:?}");
    let shown = rung.evidence.join("\n");
    assert!(shown.len() < 10_000 && !shown.contains('\u{1b}') && shown.ends_with("and 19 more"), "{shown}");
}

#[test]
fn what_cannot_be_listed_is_told() {
    let policy = Policy::default();
    let ours = Ours {
        group: "g",
        solver: "s",
        backends: Vec::new(),
        policy: &policy,
        groups: None,
        labels: None,
        cluster_namespace: "cert-manager",
        secrets: BTreeMap::new(),
    };
    let none = Err(Unasked::Missing);
    let judge = |listed| judge(&listed, [&none, &none], &ours, STUCK_AFTER, Timestamp::UNIX_EPOCH, "robot");
    let forbidden = judge(Err(Unasked::Forbidden));
    assert!(forbidden.outcome == Skipped && forbidden.next.unwrap().contains(RIGHT));
    assert_eq!(judge(Err(Unasked::Missing)).outcome, Skipped);
    let part = judge(Ok(Listed { found: Vec::new(), whole: false }));
    assert!(part.outcome == Warning && part.summary.starts_with("there are more challenges than were looked at"), "{part:?}");
}

/// A person copies commands out of the report.
#[test]
fn no_command_is_made_of_what_is_no_name() {
    let rung = judged(vec![raw(|challenge| {
        challenge["spec"]["dnsName"] = json!("x; rm -rf $HOME");
        challenge["status"]["reason"] = json!("not yet propagated");
    })]);
    assert_eq!(rung.next.as_deref(), Some("acmegate check NO-DOMAIN-NAME"));
    assert!(!format!("{rung:?}").contains("rm -rf"), "{rung:?}");
}
