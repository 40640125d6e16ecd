//! The webhook door against its own OpenAPI document: schemathesis makes requests that fit it and requests that do not, and holds each answer against it.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::time::Duration;

use acmegate_tests::{
    acmegate::{Acmegate, Config},
    process::run,
    python::schemathesis,
    temporary_folder,
    webhook::Webhook,
    write,
};
use reqwest::{Client, tls::Certificate};
use serde_json::Value;

const ZONE: &str = "auth.example.org";

/// Requests of the random kind that fit the document, and as many that do not; those that its constraints suggest come first. They take half a minute.
const EXAMPLES: &str = "1500";
/// Whatever the seed finds, it finds each time.
const SEED: &str = "5";
const LIMIT: Duration = Duration::from_secs(300);

/// All checks are on that schemathesis has, but one:
/// - `negative_data_rejection` wants a code of 4xx for whatever breaks the schema. cert-manager's protocol has 201 for it, and a `response` that says why not;
///   what is no ChallengePayload at all gets its 400. And a CleanUp of what cannot have been presented has to succeed, or it would hold its namespace for ever.
///   `webhook_protocol` (in protocol.py) looks at these answers instead.
const LEFT_OUT: &str = "negative_data_rejection";

#[tokio::test]
async fn the_door_keeps_to_its_document() {
    let door = Webhook::new();
    let config = Config::new().dns(([127, 0, 0, 1], 0).into()).metrics();
    let config = config.zone_with(ZONE, &format!("ns1.{ZONE}"), &[&format!("ns1.{ZONE}. 3600 A 198.51.100.1")]);
    let mut acmegate = Acmegate::started(door.configure(config)).await;
    let base = format!("https://localhost:{}", acmegate.door("webhook").port());
    let document = document(&base, &door).await;

    let folder = temporary_folder("schemathesis");
    let hooks = folder.path().join("protocol.py");
    write(&hooks, include_str!("openapi/protocol.py"));
    let mut command = schemathesis();
    command.args(["run", &document, "--checks=all", "--exclude-checks", LEFT_OUT, "--seed", SEED, "--max-examples", EXAMPLES]);
    command.args([
        "--generation-database=none",
        "--continue-on-failure",
        "--no-color",
        "--phases=examples,coverage,fuzzing",
        "--tls-verify",
    ]);
    command.arg(door.certificate_file()).env("SCHEMATHESIS_HOOKS", &hooks).env("ZONE", ZONE).current_dir(folder.path());
    run("schemathesis", command, LIMIT).await.succeeded().says("No issues found");

    // It would find nothing, either, if nothing ever got past the first check.
    let metrics = reqwest::get(acmegate.url("metrics", "/metrics")).await.expect("metrics").text().await.expect("text");
    for (action, outcome) in [("present", "ok"), ("present", "refused"), ("cleanup", "ok"), ("cleanup", "refused"), ("unknown", "refused")]
    {
        let labels = format!("action=\"{action}\",outcome=\"{outcome}\"");
        assert!(metrics.lines().any(|line| line.starts_with("acmegate_webhook_requests_total{") && line.contains(&labels)), "no {labels}");
    }
    assert!(!metrics.contains("outcome=\"failed\""), "{metrics}");
    acmegate.stop().await.succeeded().never_says("panicked");
}

/// Where the API server finds the group's document.
async fn document(base: &str, door: &Webhook) -> String {
    let root = Certificate::from_pem(door.certificate().as_bytes()).expect("a certificate");
    let client = Client::builder().tls_certs_only([root]).build().expect("a client");
    let index = client.get(format!("{base}/openapi/v3")).send().await.expect("an answer").json::<Value>().await.expect("JSON");
    let path = index["paths"]["apis/acme.acmegate.io/v1alpha1"]["serverRelativeURL"].as_str().expect("the group's document");
    format!("{base}{path}")
}
