use std::path::Path;

use crate::{
    config::{Config, ConfigError},
    policy::Policy,
};

fn parse(rules: &str) -> Result<Config, ConfigError> {
    let text = format!(
        "version: v1\nbackends:\n  - name: corp\n    provider: rfc2136\n    zones: [example.com]\n    settings: {{server: \"127.0.0.1:53\"}}\nwebhook:\n  listen: \"127.0.0.1:0\"\n{rules}"
    );
    Config::from_yaml(&text, Path::new("acmegate.yaml"))
}

fn policy(rules: &str) -> Policy {
    parse(rules).unwrap_or_else(|error| panic!("{error}")).webhook.expect("webhook").policy
}

fn errors(rules: &str) -> String {
    parse(rules).expect_err("errors").to_string()
}

#[test]
fn rules_are_read_as_they_are_shown() {
    let rules = r#"  policy:
    - namespaces: [team-a, "*"]
      selector: {matchLabels: {team: a}, matchExpressions: [{key: env, operator: NotIn, values: [test]}, {key: old, operator: DoesNotExist}]}
      names: ["A.example.com.", "*.b.example.com"]
      targets: ["a.auth.example.org", "*"]
      backends: [corp, embedded]
      secrets: true
    - {selector: {matchExpressions: [{key: team, operator: Exists}]}, names: ["*"]}
"#;
    let shown: Vec<String> = policy(rules).rules.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            r#"{namespaces: ["team-a", "*"], selector: {matchLabels: {"team": "a"}, matchExpressions: [{key: "env", operator: NotIn, values: ["test"]}, {key: "old", operator: DoesNotExist}]}, names: ["a.example.com", "*.b.example.com"], targets: ["a.auth.example.org", "*"], backends: ["corp", "embedded"], secrets: true}"#,
            r#"{selector: {matchExpressions: [{key: "team", operator: Exists}]}, names: ["*"]}"#,
        ]
    );
    // What a refusal tells to add can be added.
    let again = policy(&format!("  policy:\n    - {}\n    - {}\n", shown[0], shown[1]));
    assert_eq!(again, policy(rules));
}

#[test]
fn without_rules_nothing_is_allowed_which_is_worth_a_warning() {
    for rules in ["", "  policy: []\n"] {
        let config = parse(rules).expect("valid");
        assert_eq!(config.warnings(), ["webhook.policy has no rule: the webhook door refuses every challenge; add one"]);
        assert_eq!(config.webhook.expect("webhook").policy, Policy::default());
    }
    assert_eq!(parse("  policy:\n    - {namespaces: [a], names: [\"*\"]}\n").expect("valid").warnings(), Vec::<String>::new());
}

#[test]
fn without_a_file_everything_is_allowed_to_who_reaches_loopback() {
    let policy = Config::embedded().expect("valid").webhook.expect("webhook").policy;
    let shown: Vec<String> = policy.rules.iter().map(ToString::to_string).collect();
    assert_eq!(shown, [r#"{namespaces: ["*"], names: ["*"], targets: ["*"]}"#]);
}

#[test]
fn shape_errors_name_their_place() {
    insta::assert_snapshot!(
        "policy_shape_errors",
        errors(
            "  policy:
    - {namespace: [a], names: [a.example.com]}
    - {namespaces: a, names: a.example.com}
    - {namespaces: [a]}
    - {namespaces: [a], selector: {matchLabel: {team: a}}, names: [\"*\"]}
    - {selector: {matchLabels: {team: 5}}, names: [\"*\"]}
    - {selector: {matchExpressions: [{key: team, operator: in}]}, names: [\"*\"]}
    - {namespaces: [a], names: [\"*\"], secrets: sometimes}
    - {namespaces: null, names: [\"*\"]}
"
        )
    );
}

#[test]
fn value_errors_name_their_place() {
    insta::assert_snapshot!(
        "policy_value_errors",
        errors(
            "  policy:
    - {names: [a.example.com]}
    - {namespaces: [], names: [], targets: [], backends: []}
    - {namespaces: [team-a, team-a, Team_B, \"\"], names: [\"*\"]}
    - {namespaces: [a], names: [\"*example.com\", \"a..b\", \"bücher.example\", \".\"]}
    - {namespaces: [a], names: [example.com, _acme-challenge.example.com]}
    - {namespaces: [a], names: [example.com, Example.COM.], targets: [\"a.*.b\", \"*\"]}
    - {namespaces: [a], names: [\"*\"], backends: [crop, embedded, corp, corp]}
    - {selector: {}, names: [\"*\"]}
    - {selector: {matchLabels: {\"a b\": c}}, names: [\"*\"]}
    - {selector: {matchExpressions: [{key: team, operator: In}]}, names: [\"*\"]}
    - {selector: {matchExpressions: [{key: team, operator: Exists, values: [a]}]}, names: [\"*\"]}
"
        )
    );
}
