//! `acmegate check`, the ladder of 3 a.m., against a real BIND with keys, a real resolver and a real authority.
//!
//! ```text
//!   BIND: .  example.test ──delegates corp, half, stale, wrong──▶ BIND with TSIG keys (backends `corp` and `broken`)
//!         gateway.test    ──delegates auth───────────────▶ acmegate
//! ```

use acmegate_tests::{
    acmegate::{Acmegate, Config},
    addresses::Address,
    bind::{self, Bind},
    dns,
    ports::Port,
    process::Output,
    silent::Silent,
    temporary_folder,
    updates::{TsigKey, Updates},
    wait::{LIMIT, until},
    world::{World, target},
    write,
};
use serde_json::Value;
use tempfile::TempDir;

const CORP: &str = "www.corp.example.test";

/// The world, and the DNS of the backends.
struct House {
    world: World,
    corp: Bind,
    _stale: Bind,
    _silent: Silent,
    _keys: TempDir,
    secrets: Vec<String>,
}

impl House {
    async fn start(serve: bool) -> Self {
        let (address, silent, keys) = (Address::reserve(), Silent::start(), temporary_folder("keys"));
        let ip = address.ip();
        let right = TsigKey::new("acmegate", "hmac-sha256");
        let wrong = TsigKey { secret: TsigKey::new("somebody-else", "hmac-sha256").secret, ..right.clone() };
        let half = format!("half.example.test. NS ns2.half.example.test.\nns2.half.example.test. A {}\n", silent.address().ip());
        let stale_address = Address::reserve();
        let two = format!("stale.example.test. NS ns2.stale.example.test.\nns2.stale.example.test. A {}\n", stale_address.ip());
        let stale = bind::zone("stale.example.test", &address) + &two;
        let zones = [
            ("stale.example.test", stale.clone()),
            ("corp.example.test", bind::zone("corp.example.test", &address)),
            ("half.example.test", bind::zone("half.example.test", &address) + &half),
            ("wrong.example.test", bind::zone("wrong.example.test", &address)),
        ];
        let server = address.dns();
        let corp = Bind::start_signed(address, &zones, &Updates { keys: vec![right.clone()], ..Updates::default() }).await;

        let second = Bind::start(stale_address, &[("stale.example.test", stale)]).await;

        let backend = |name: &str, key: &TsigKey, zones: &str| {
            let file = keys.path().join(name);
            write(&file, &key.secret);
            format!(
                "- name: {name}\n  provider: rfc2136\n  zones: [{zones}]\n  settings: {{ server: \"{server}\", tsig: {{ name: {}, key: {{ file: {file:?} }} }} }}\n",
                key.name
            )
        };
        let backends = backend("corp", &right, "corp.example.test, half.example.test, stale.example.test")
            + &backend("broken", &wrong, "wrong.example.test");
        let mut builder = World::builder()
            .config(move |config: Config| config.section("backends", &backends))
            .record(&half)
            .record(&two)
            .record("stale.example.test. NS ns.stale.example.test.")
            .record(&format!("ns.stale.example.test. A {ip}"))
            .record("half.example.test. NS ns.half.example.test.")
            .record(&format!("ns.half.example.test. A {ip}"))
            .record("www.forbidden 60 CAA 0 issue \"another-ca.test\"")
            .record("www.banned 60 CAA 0 issuewild \";\"")
            .record("*.wild 60 CNAME www.example.test.");
        for zone in ["corp", "wrong"] {
            builder = builder.record(&format!("{zone} NS ns.{zone}")).record(&format!("ns.{zone} A {ip}"));
        }
        for name in ["www", "www.forbidden", "www.banned", "xn--bcher-kva"] {
            builder = builder.record(&format!("_acme-challenge.{name} 60 CNAME {}", target(&format!("{name}.example.test"))));
        }
        let builder = if serve { builder } else { builder.without_serve() };
        let secrets = vec![right.secret, wrong.secret];
        Self { world: builder.start().await, corp, _stale: second, _silent: silent, _keys: keys, secrets }
    }

    /// Runs a check; no secret is ever in what it says.
    async fn check(&self, arguments: &[&str]) -> Output {
        let output = self.world.acmegate.run(&[&["check"], arguments].concat()).await;
        for secret in &self.secrets {
            output.never_says(secret);
        }
        output
    }

    /// The same with `--json`.
    async fn report(&self, code: i32, arguments: &[&str]) -> Value {
        let output = self.check(&[arguments, &["--json"]].concat()).await;
        output.exited(code);
        serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("no JSON: {e}\n{output}"))
    }
}

/// A rung of a report, whose outcome is this one.
fn rung<'a>(report: &'a Value, id: &str, outcome: &str) -> &'a Value {
    let rungs = report["rungs"].as_array().unwrap_or_else(|| panic!("no rungs: {report:#}"));
    let rung = rungs.iter().find(|rung| rung["id"] == id).unwrap_or_else(|| panic!("no rung {id}: {report:#}"));
    assert!(rung["outcome"] == outcome, "{id} should be {outcome}: {report:#}");
    rung
}

/// Asserts that a field of a rung holds a text.
fn says(rung: &Value, field: &str, text: &str) {
    assert!(rung[field].to_string().contains(text), "{field} should hold {text:?}: {rung:#}");
}

#[tokio::test]
async fn a_healthy_name_is_written_seen_and_left_as_it_was() {
    let house = House::start(true).await;
    for (name, owner, backend) in [
        (CORP, "_acme-challenge.www.corp.example.test", "corp"),
        ("*.corp.example.test", "_acme-challenge.corp.example.test", "corp"),
        ("www.example.test", "www.example.test.auth.gateway.test", "embedded"),
        ("_acme-challenge.bücher.example.test", "xn--bcher-kva.example.test.auth.gateway.test", "embedded"),
    ] {
        let report = house.report(0, &[name, "--write"]).await;
        assert_eq!(
            (report["owner"].as_str(), report["backend"].as_str(), report["outcome"].as_str()),
            (Some(owner), Some(backend), Some("ok")),
            "{report:#}"
        );
        for id in ["clock", "chain", "backend", "delegation", "servers", "write", "seen", "removed", "caa", "dnssec"] {
            rung(&report, id, "ok");
        }
        for id in ["credential", "allowed"] {
            rung(&report, id, if backend == "corp" { "ok" } else { "skipped" });
        }
        let server = if backend == "corp" { house.corp.dns() } else { house.world.acmegate.dns() };
        assert!(dns::txt(server, owner).await.is_empty(), "{name}: a value was left");
    }
    // Without --write nothing is written, and people get text.
    let text = house.check(&[CORP]).await;
    text.succeeded().says("skipped  write       --write was not given").says("ok       servers     every address serves corp.example.test");
    assert!(!text.stdout.contains('\u{1b}'), "colours are for terminals:\n{text}");
}

#[tokio::test]
async fn what_is_wrong_is_found_with_the_next_step() {
    let house = House::start(true).await;

    let missing = house.report(1, &["missing.example.test", "--write"]).await;
    let record = format!("_acme-challenge.missing.example.test. CNAME {}", target("missing.example.test"));
    says(rung(&missing, "backend", "failed"), "next", &record);
    says(rung(&missing, "backend", "failed"), "evidence", "the world finds the name in the zone example.test");
    says(rung(&missing, "write", "skipped"), "summary", "no backend is chosen");

    let nowhere = house.report(1, &["www.elsewhere.test"]).await;
    says(rung(&nowhere, "backend", "failed"), "evidence", "corp: its zones, as configured, do not enclose the name");
    says(rung(&nowhere, "backend", "failed"), "evidence", "broken: its zones, as configured, do not enclose the name");

    let caught = house.report(1, &["shop.wild.example.test"]).await;
    says(rung(&caught, "chain", "failed"), "summary", "a wildcard CNAME above it leads it to www.example.test");

    // It works without the lame one, and yet a person should know.
    let half = house.report(0, &["www.half.example.test", "--write"]).await;
    says(rung(&half, "servers", "warning"), "summary", "1 of 2 addresses do not serve half.example.test: ns2.half.example.test");
    says(rung(&half, "seen", "ok"), "evidence", "left aside: does not answer");

    let wrong = house.report(1, &["www.wrong.example.test", "--write"]).await;
    says(rung(&wrong, "backend", "failed"), "evidence", "broken: could not be asked");
    says(
        rung(&wrong, "credential", "failed"),
        "summary",
        "broken: the credential was refused: the server's TSIG key acmegate has another secret",
    );
    rung(&wrong, "allowed", "skipped");
    rung(&wrong, "write", "skipped");

    let forbidden = house.report(1, &["www.forbidden.example.test"]).await;
    says(rung(&forbidden, "caa", "failed"), "next", "add www.forbidden.example.test CAA 0 issue");
    rung(&forbidden, "chain", "ok");
    house.report(0, &["www.banned.example.test"]).await;
    says(rung(&house.report(1, &["*.www.banned.example.test"]).await, "caa", "failed"), "next", "CAA 0 issuewild");
    house.check(&["www.forbidden.example.test"]).await.exited(1).says("failed   caa").says("www.forbidden.example.test: a rung failed");
}

#[tokio::test]
async fn without_serve_it_runs_alone_and_says_that_its_own_zones_are_not_answered() {
    let house = House::start(false).await;
    let corp = house.report(0, &[CORP, "--write"]).await;
    rung(&corp, "removed", "ok");
    assert!(dns::txt(house.corp.dns(), "_acme-challenge.www.corp.example.test").await.is_empty());
    let own = house.report(1, &["www.example.test", "--write"]).await;
    says(rung(&own, "servers", "failed"), "next", "start `acmegate serve`");
    rung(&own, "seen", "failed");
}

/// The second server of the zone never hears of a change.
#[tokio::test]
async fn a_server_that_lags_behind_is_named_and_the_value_taken_back() {
    let house = House::start(true).await;
    let report = house.report(1, &["www.stale.example.test", "--write"]).await;
    rung(&report, "write", "ok");
    let seen = rung(&report, "seen", "failed");
    says(seen, "evidence", "ns.stale.example.test");
    let lacks =
        |line: &Value| line.as_str().is_some_and(|line| line.starts_with("ns2.stale.") && line.ends_with("does not answer the value"));
    assert!(seen["evidence"].as_array().is_some_and(|lines| lines.iter().any(lacks)), "{seen:#}");
    rung(&report, "removed", "ok");
    assert!(dns::txt(house.corp.dns(), "_acme-challenge.www.stale.example.test").await.is_empty());
}

/// The value is waited for until the signal comes.
#[tokio::test]
async fn a_check_that_is_stopped_takes_its_value_back() {
    let house = House::start(false).await;
    let owner = "_acme-challenge.www.stale.example.test";
    let check = house.world.acmegate.spawn(&["check", "www.stale.example.test", "--write"]);
    let stands = || async { if dns::txt(house.corp.dns(), owner).await.is_empty() { Err("no value") } else { Ok(()) } };
    until("the test value at the first server", stands).await;
    check.terminate();
    check.output(LIMIT).await.exited(75).says("the check was stopped before its end");
    assert!(dns::txt(house.corp.dns(), owner).await.is_empty());
}

#[tokio::test]
async fn what_is_no_name_is_wrong_usage() {
    let acmegate = Acmegate::new(Config::new());
    for (name, advice) in
        [("localhost", "at least two"), ("https://example.com/", "without scheme"), ("a..example.com", "each label"), ("", "empty")]
    {
        acmegate.run(&["check", name]).await.exited(2).says(advice);
    }
    acmegate.run(&["check", "--help"]).await.succeeded().says("Exit codes: 0 no rung failed; 1 some rung failed");
}

#[tokio::test]
async fn without_a_cluster_or_a_webhook_there_is_nothing_to_check() {
    let webhook = Acmegate::new(Config::new().webhook());
    webhook.run(&["check", "--kubernetes"]).await.exited(2).says("there is no cluster").says("kubernetes.kubeconfig");
    let kubeconfig = webhook.folder().join("kubeconfig");
    let cluster = |server: &str| {
        serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test", "users": [{"name": "test", "user": {"token": "s3cret"}}],
            "clusters": [{"name": "test", "cluster": {"server": server, "insecure-skip-tls-verify": true}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        })
        .to_string()
    };
    let port = Port::reserve();
    write(&kubeconfig, &cluster(&format!("https://{}", port.address())));
    let section = format!("kubeconfig: {kubeconfig:?}");
    Acmegate::new(Config::new().section("kubernetes", &section)).run(&["check", "--kubernetes"]).await.exited(2).says("no section webhook");

    // Nobody listens there: each time the same, and no secret.
    let away = Acmegate::new(Config::new().webhook().section("kubernetes", &section));
    let first = away.run(&["check", "--kubernetes"]).await;
    first
        .exited(1)
        .says("failed   cluster     the API server does not answer")
        .says("0 ok, 0 warnings, 1 failed, 6 skipped")
        .never_says("s3cret");
    assert_eq!(away.run(&["check", "--kubernetes"]).await.stdout, first.stdout);

    write(&kubeconfig, "nothing");
    away.run(&["check", "--kubernetes"]).await.exited(2).says("kubernetes.kubeconfig").says("cannot be used");
    for (arguments, complaint) in [
        (&["www.example.com", "--kubernetes"][..], "cannot be used with"),
        (&["--kubernetes", "--write"], "cannot be used with"),
        (&["--kubernetes", "--cert-manager", "cert-manager"], "write NAMESPACE/SERVICEACCOUNT"),
        (&["--kubernetes", "--stuck-after", "soon"], "write a duration such as"),
        (&["www.example.com", "--stuck-after", "5m"], "cannot be used with '--stuck-after"),
        (&[], "NAME"),
    ] {
        webhook.run(&[&["check"], arguments].concat()).await.exited(2).says(complaint);
    }
}
