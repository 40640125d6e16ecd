//! `acmegate policy test`: what an administrator asks before a tenant does.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::net::SocketAddr;

use acmegate_tests::acmegate::{Acmegate, Config};
use serde_json::{Value, json};

const RULES: &str = r#"listen: "127.0.0.1:0"
policy:
  - {namespaces: [team-a], names: [a.example.com]}
  - {selector: {matchLabels: {team: b}}, names: ["*.b.example.com"], targets: [b.example.net], backends: [embedded]}"#;

fn acmegate() -> Acmegate {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let config =
        Config::new().dns(any).zone_with("auth.example.org", "ns1.auth.example.org", &["ns1.auth.example.org. 3600 A 198.51.100.1"]);
    Acmegate::new(config.section("webhook", RULES))
}

#[tokio::test]
async fn what_is_allowed_is_told_with_its_rule() {
    let acmegate = acmegate();
    let test = async |arguments: &[&str]| acmegate.run(&[&["policy", "test"], arguments].concat()).await;
    let own = test(&["--namespace", "team-a", "--name", "*.a.example.com"]).await;
    own.exited(0).says("allowed: team-a may have values for a.example.com at _acme-challenge.a.example.com\n");
    own.says("by rule 1: {namespaces: [\"team-a\"], names: [\"a.example.com\"]}");
    test(&["--namespace", "team-a", "--name", "a.example.com", "--target", "a.example.com.auth.example.org"])
        .await
        .exited(0)
        .says("through embedded");
    let labelled = ["--namespace", "ns", "--name", "x.b.example.com", "--target", "b.example.net", "--label", "team=b"];
    test(&labelled).await.exited(0).says("by rule 2").says("if the backend that serves the name is embedded");
    let json = test(&[&labelled[..], &["--json"]].concat()).await;
    let result: Value = serde_json::from_str(&json.exited(0).stdout).expect("JSON");
    assert_eq!((&result["allowed"], &result["rule"], &result["refusal"]), (&json!(true), &json!(2), &Value::Null));
}

#[tokio::test]
async fn what_is_refused_is_told_with_every_rule() {
    let acmegate = acmegate();
    let test = async |arguments: &[&str]| acmegate.run(&[&["policy", "test"], arguments].concat()).await;
    let stolen = ["--namespace", "team-a", "--name", "a.example.com", "--target", "b.example.com.auth.example.org"];
    let refused = test(&stolen).await;
    refused.exited(1).says("refused: the namespace team-a may write for a.example.com, but not at b.example.com.auth.example.org");
    refused.says("rule 1: {namespaces: [\"team-a\"]").says("    the place of the value is not among its targets");
    refused.says("rule 2: {selector: ").says("    it goes by labels").says("--label KEY=VALUE");
    let json = test(&[&stolen[..], &["--json"]].concat()).await;
    let result: Value = serde_json::from_str(&json.exited(1).stdout).expect("JSON");
    assert_eq!((&result["allowed"], &result["rule"]), (&json!(false), &Value::Null));
    assert_eq!(result["rules"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn wrong_usage_is_told_apart_from_a_refusal() {
    let acmegate = acmegate();
    let base = ["policy", "test", "--namespace", "team-a"];
    for (arguments, said) in [
        (&["--name", "a..example.com"][..], "--name"),
        (&["--name", "a.example.com", "--target", "not a name"], "--target"),
        (&["--name", "a.example.com", "--backend", "corp"], "known: embedded"),
        (&["--name", "a.example.com", "--label", "team"], "--label"),
        (&[], "--name"),
    ] {
        acmegate.run(&[&base, arguments].concat()).await.exited(2).says(said);
    }
    let closed = Acmegate::new(Config::new());
    closed.run(&[&base[..], &["--name", "a.example.com"]].concat()).await.exited(2).says("no section webhook");
}
