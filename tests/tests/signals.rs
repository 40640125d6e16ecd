//! Signals: what `/metrics` says of certificates, CAs and their limits, and whether the alerts and the dashboard that ask for it are right, by promtool.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use acmegate_tests::{
    acmegate::Acmegate,
    certificates::certificates,
    process::{Output, run},
    read, temporary_folder,
    wait::{LIMIT, until},
    webhook::Webhook,
    workspace,
    world::{World, ZONE},
    write,
};
use regex::Regex;
use serde_json::Value;
use tempfile::TempDir;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Series that `/metrics` shows once they have a first member, and which nothing here gives one: no backend takes a value, so that its servers are not asked
/// for one and no sweep leaves one.
const LATER: [&str; 3] = ["acmegate_dispatch_visible_seconds_bucket", "acmegate_nameserver_state", "acmegate_sweep_left"];
/// A CA whose limits are known. Nobody asks it anything here.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// In milliseconds, how often it lets an account order once more.
const ORDER_EVERY: i64 = 36_000;

/// Of three certificates one is had, one cannot be, and one does not get to its place; of Let's Encrypt's 300 orders ten are used up.
#[tokio::test]
async fn certificates_requests_and_limits_are_told() {
    let site = Site::start().await;
    let acmegate = &site.world.acmegate;
    let scrape = site.settled().await;
    let of = |name: &'static str| [("name", name)];

    let file = read(&site.out.path().join("good/cert.pem"));
    let chain = certificates(&file);
    let (_, leaf) = X509Certificate::from_der(chain.first().expect("a certificate")).expect("a certificate");
    let (begins, ends) = (leaf.validity().not_before.timestamp() as f64, leaf.validity().not_after.timestamp() as f64);
    assert_eq!(scrape.one("acmegate_certificate_expiry_timestamp_seconds", &of("good")), ends);
    let renewal = scrape.one("acmegate_certificate_renewal_timestamp_seconds", &of("good"));
    assert!(begins < renewal && renewal < ends, "{renewal}");
    let success = scrape.one("acmegate_certificate_last_success_timestamp_seconds", &of("good"));
    assert!((begins..renewal).contains(&success), "{success}");
    assert_eq!(scrape.one("acmegate_certificate_next_attempt_timestamp_seconds", &of("good")), renewal);
    for (name, ready, failing, undeployed) in [("good", 1.0, false, false), ("lost", 0.0, true, false), ("stuck", 1.0, false, true)] {
        assert_eq!(scrape.one("acmegate_certificate_ready", &of(name)), ready, "{name}");
        assert_eq!(scrape.one("acmegate_certificate_failures", &of(name)) > 0.0, failing, "{name}");
        assert_eq!(scrape.one("acmegate_certificate_deployment_failures", &of(name)) > 0.0, undeployed, "{name}");
    }
    for absent in ["expiry", "renewal", "last_success"] {
        assert_eq!(scrape.all(&format!("acmegate_certificate_{absent}_timestamp_seconds"), &of("lost")), [0.0; 0], "{absent}");
    }
    assert!(scrape.one("acmegate_certificate_next_attempt_timestamp_seconds", &of("lost")) > begins);
    for (state, count) in [("valid", 1.0), ("failing", 1.0), ("undeployed", 1.0), ("paused", 0.0), ("new", 0.0)] {
        assert_eq!(scrape.one("acmegate_certificates", &[("state", state)]), count, "{state}");
    }
    assert_eq!(scrape.one("acmegate_certificates_left_out", &[]), 0.0);

    // The same under the names and labels of cert-manager.
    let labels = [("name", "good"), ("namespace", ""), ("issuer_name", "testca"), ("issuer_kind", "Directory"), ("issuer_group", "")];
    assert_eq!(scrape.one("certmanager_certificate_expiration_timestamp_seconds", &labels), ends);
    assert_eq!(scrape.one("certmanager_certificate_renewal_timestamp_seconds", &labels), renewal);
    for (name, condition, holds) in
        [("good", "True", 1.0), ("good", "False", 0.0), ("good", "Unknown", 0.0), ("lost", "True", 0.0), ("lost", "False", 1.0)]
    {
        assert_eq!(
            scrape.one("certmanager_certificate_ready_status", &[("name", name), ("condition", condition)]),
            holds,
            "{name} {condition}"
        );
    }

    let host = site.world.ca.directory().split('/').nth(2).expect("a host");
    let requests = |action| scrape.all("acmegate_acme_requests_total", &[("host", host), ("action", action)]).iter().sum::<f64>();
    for action in ["directory", "nonce", "account", "order", "authorization", "challenge", "finalize", "certificate", "renewal_info"] {
        assert!(requests(action) >= 1.0, "{action}");
        assert!(
            scrape.one("acmegate_acme_request_duration_seconds_count", &[("host", host), ("action", action)]) == requests(action),
            "{action}"
        );
    }
    assert_eq!(requests("revocation") + requests("key_change"), 0.0);
    assert!(scrape.one("acmegate_acme_requests_total", &[("action", "finalize"), ("status", "200")]) >= 2.0);
    let total = |name: &str| scrape.all(name, &[("host", host)]).iter().sum::<f64>();
    assert_eq!(total("acmegate_acme_requests_total"), total("certmanager_http_acme_client_request_count"));
    assert_eq!(total("acmegate_acme_requests_total"), total("certmanager_http_acme_client_request_duration_seconds_count"));
    let placed = [("scheme", "https"), ("host", host), ("action", "authorize_order"), ("method", "POST"), ("status", "201")];
    assert_eq!(scrape.one("certmanager_http_acme_client_request_count", &placed), 2.0, "the lost one is not ordered");
    assert!(scrape.one("certmanager_http_acme_client_request_duration_seconds_sum", &placed) > 0.0);
    let whole = [placed.as_slice(), &[("le", "+Inf")]].concat();
    assert_eq!(scrape.one("certmanager_http_acme_client_request_duration_seconds_bucket", &whole), 2.0);
    assert!(scrape.one("acmegate_acme_clock_ahead_seconds", &[("host", host)]).abs() < 60.0, "the CA runs on the same clock");

    let attempts = |outcome| scrape.one("acmegate_acme_attempts_total", &[("directory", "testca"), ("outcome", outcome)]);
    assert_eq!(attempts("issued"), 2.0);
    assert!(attempts("delegation") >= 1.0);
    assert_eq!(scrape.one("acmegate_acme_issuance_duration_seconds_count", &[("directory", "testca")]), 2.0);

    let orders = [("directory", LETS_ENCRYPT), ("limit", "new_orders"), ("subject", "")];
    assert_eq!(scrape.one("acmegate_acme_budget_capacity", &orders), 300.0);
    let left = scrape.one("acmegate_acme_budget_left", &orders);
    assert!((1.0..300.0).contains(&left), "{left}");
    let domain = [("directory", LETS_ENCRYPT), ("limit", "exact_set"), ("subject", "scarce.example.com")];
    assert_eq!((scrape.one("acmegate_acme_budget_left", &domain), scrape.one("acmegate_acme_budget_capacity", &domain)), (1.0, 5.0));

    // What fails fails alone: who comes is served.
    let ready = reqwest::get(acmegate.url("metrics", "/readyz")).await.expect("an answer");
    assert_eq!(ready.status(), 200);
    site.world.acmegate.run(&["certificates", "revoke", "good", "--reason", "superseded", "--yes"]).await.succeeded();
    let scrape = Scrape::of(acmegate).await;
    assert!(scrape.one("acmegate_acme_requests_total", &[("action", "revocation"), ("status", "200")]) >= 1.0);
    assert_eq!(scrape.one("acmegate_certificate_ready", &of("good")), 1.0, "it was replaced");
}

/// An alert on a series that nobody writes never fires, and a panel without one is empty.
#[tokio::test]
async fn rules_and_dashboard_ask_for_series_that_exist() {
    let site = Site::start().await;
    // A challenge that no backend takes gives the door's counter its first member.
    assert!(site.webhook.present(&site.world.acmegate, "www.example.net", "value").await.is_err());
    let scrape = site.settled().await;
    let written: BTreeSet<&str> = scrape.samples.iter().map(|sample| sample.name.as_str()).collect();
    let series = Regex::new(r"\b(acmegate|certmanager|process)_[a-z_]+").expect("a pattern");
    let mut asked = BTreeSet::new();
    for (place, expression) in expressions() {
        for found in series.find_iter(&expression).map(|found| found.as_str()) {
            assert!(written.contains(found) || LATER.contains(&found), "{place}: no series {found}");
            assert!(expression.contains(&format!("{found}{{job=")), "{place}: {found} of every job");
            asked.insert(found.to_owned());
        }
    }
    assert!(asked.len() > 25, "{asked:?}");
    let unused: Vec<_> = LATER.iter().filter(|later| !asked.contains(**later)).collect();
    assert!(unused.is_empty(), "nobody asks for {unused:?} any more");
}

#[tokio::test]
async fn promtool_takes_the_rules_and_the_dashboard_s_expressions() {
    promtool(&["check", "rules", &rules().display().to_string()]).await.succeeded();
    // The dashboard's expressions as rules, with its variables as Grafana fills them.
    let folder = temporary_folder("promtool");
    let mut file = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    for (at, (_, expression)) in dashboard().iter().enumerate() {
        let filled = expression.replace("$job", ".+").replace("$__rate_interval", "1m");
        let _ = writeln!(file, "      - {{ record: \"panel:{at}\", expr: {} }}", Value::from(filled));
    }
    let path = folder.path().join("dashboard.yaml");
    write(&path, &file);
    promtool(&["check", "rules", &path.display().to_string()]).await.succeeded();
}

#[tokio::test]
async fn each_alert_fires_when_it_should_and_not_before() {
    promtool(&["test", "rules", &rules_test().display().to_string()]).await.succeeded();
    let tests: Value = serde_saphyr::from_str(&read(&rules_test())).expect("YAML");
    let expectations = |alert: &str, fires: bool| {
        let all =
            tests["tests"].as_array().into_iter().flatten().flat_map(|test| test["promql_expr_test"].as_array().into_iter().flatten());
        let named = format!("alertname=\"{alert}\"");
        all.filter(|test| test["expr"].as_str().is_some_and(|expression| expression.contains(&named)))
            .filter(|test| test["exp_samples"].as_array().is_some_and(|samples| samples.is_empty() != fires))
            .count()
    };
    for rule in alerts() {
        let alert = rule["alert"].as_str().expect("a name");
        assert!(expectations(alert, true) > 0, "nothing shows that {alert} fires");
        assert!(expectations(alert, false) > 0, "nothing shows that {alert} stays silent");
        for part in ["summary", "description", "runbook"] {
            let text = rule["annotations"][part].as_str().unwrap_or_default();
            assert!(
                !text.is_empty() && !text.contains("http://") && !text.replace("https://{{", "").contains("https://"),
                "{alert}: {part}: {text}"
            );
        }
    }
}

/// promtool reads the older text format alone: names of counters end with `_total` there, and an info is a gauge. That is how Prometheus stores them.
#[tokio::test]
async fn promtool_takes_a_scrape() {
    let site = Site::start().await;
    site.settled().await;
    let kind = Regex::new("^# (TYPE|HELP|UNIT) ([^ ]+) (.*)$").expect("a pattern");
    let (mut kinds, mut text) = (BTreeMap::new(), String::new());
    let scraped = Scrape::text(&site.world.acmegate).await;
    for found in scraped.lines().filter_map(|line| kind.captures(line)) {
        if &found[1] == "TYPE" {
            kinds.insert(found[2].to_owned(), found[3].to_owned());
        }
    }
    for line in scraped.lines().filter(|line| *line != "# EOF") {
        let Some(found) = kind.captures(line) else {
            let _ = writeln!(text, "{line}");
            continue;
        };
        let (name, suffix, kind) = match kinds[&found[2]].as_str() {
            "counter" => (&found[2], "_total", "counter"),
            "info" => (&found[2], "_info", "gauge"),
            "unknown" => (&found[2], "", "untyped"),
            other => (&found[2], "", other),
        };
        match &found[1] {
            "TYPE" => drop(writeln!(text, "# TYPE {name}{suffix} {kind}")),
            "HELP" => drop(writeln!(text, "# HELP {name}{suffix} {}", &found[3])),
            _ => {}
        }
    }
    let folder = temporary_folder("scrape");
    let file = folder.path().join("metrics.txt");
    write(&file, &text);
    let mut check = Command::new("sh");
    check.args(["-c", "promtool check metrics < \"$1\"", "sh"]).arg(&file);
    let output = run("promtool check metrics", check, LIMIT).await;
    output.succeeded();
    assert_eq!(format!("{}{}", output.stdout, output.stderr), "", "promtool has something to say");
}

/// A world with a certificate that is had, one that cannot be, and one that does not get to its place.
struct Site {
    world: World,
    out: TempDir,
    webhook: Arc<Webhook>,
}

impl Site {
    async fn start() -> Self {
        let (out, webhook) = (temporary_folder("signals"), Arc::new(Webhook::new()));
        let list = format!(
            "- {{ name: good, names: [good.{ZONE}], store: [{{ files: \"{out}/good\" }}] }}\n\
             - {{ name: lost, names: [lost.example.test] }}\n\
             - {{ name: stuck, names: [stuck.{ZONE}], store: [{{ files: \"{out}/stuck\" }}], notify: [{{ exec: \"false\" }}] }}",
            out = out.path().display()
        );
        let backend = "- { name: nowhere, provider: rfc2136, zones: [example.com], settings: { server: \"127.0.0.1:9\" } }";
        let door = webhook.clone();
        let configure = move |config| door.configure(config).section("backends", backend).section("certificates", &list);
        let mut world = World::builder().without_serve().config(configure).start().await;
        // Makes the store.
        world.acmegate.run(&["certificates", "list"]).await.succeeded();
        use_up_limits(world.acmegate.data());
        world.acmegate.start().await;
        Self { world, out, webhook }
    }

    /// What is told once all three have come to where they stay.
    async fn settled(&self) -> Scrape {
        until("the certificates to settle", async || {
            let scrape = Scrape::of(&self.world.acmegate).await;
            let count = |name: &str, labels: &[(&str, &str)]| scrape.all(name, labels).iter().sum::<f64>();
            let settled = count("acmegate_certificates", &[("state", "valid")]) == 1.0
                && count("acmegate_certificates", &[("state", "undeployed")]) == 1.0
                && count("acmegate_certificates", &[("state", "failing")]) == 1.0
                && count("acmegate_certificate_deployment_failures", &[("name", "stuck")]) > 0.0
                && count("acmegate_acme_requests_total", &[("action", "renewal_info")]) >= 2.0
                && count("acmegate_backend_credential_valid", &[]) == 0.0
                && !scrape.all("acmegate_backend_credential_valid", &[]).is_empty();
            if settled { Ok(scrape) } else { Err("not yet") }
        })
        .await
    }
}

/// Writes down what orders at Let's Encrypt would have left: ten of an account, and four for one name.
fn use_up_limits(data: &Path) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    let now = i64::try_from(now).expect("milliseconds");
    let connection = rusqlite::Connection::open(database(data)).expect("a database");
    let week = 7 * 24 * 3_600_000;
    for (limit, subject, full_at) in [("new_orders", "", now + 10 * ORDER_EVERY), ("exact_set", "scarce.example.com", now + week / 5 * 4)] {
        let row = (LETS_ENCRYPT, limit, subject, full_at);
        connection.execute("INSERT INTO budget (directory, limit_name, subject, full_at) VALUES (?1, ?2, ?3, ?4)", row).expect("written");
    }
}

fn database(data: &Path) -> PathBuf {
    let files = fs::read_dir(data).expect("the data folder").map(|entry| entry.expect("an entry").path());
    let is_database = |file: &PathBuf| file.is_file() && fs::read(file).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3\0"));
    files.into_iter().find(is_database).expect("a database in the data folder")
}

// --- A scrape.

/// What `/metrics` said.
struct Scrape {
    samples: Vec<Sample>,
}

#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Scrape {
    async fn of(acmegate: &Acmegate) -> Self {
        let line = Regex::new(r"^([a-z0-9_]+)(?:\{(.*)\})? (\S+)$").expect("a pattern");
        let label = Regex::new(r#"([a-z_]+)="((?:[^"\\]|\\.)*)""#).expect("a pattern");
        let sample = |text: &str| {
            let found = line.captures(text).unwrap_or_else(|| panic!("no sample: {text}"));
            let labels = found.get(2).map_or("", |labels| labels.as_str());
            let labels = label.captures_iter(labels).map(|found| (found[1].to_owned(), found[2].to_owned())).collect();
            Sample { name: found[1].to_owned(), labels, value: found[3].parse().expect("a number") }
        };
        let text = Self::text(acmegate).await;
        Self { samples: text.lines().filter(|line| !line.starts_with('#')).map(sample).collect() }
    }

    async fn text(acmegate: &Acmegate) -> String {
        reqwest::get(acmegate.url("metrics", "/metrics")).await.expect("an answer").text().await.expect("text")
    }

    /// The values of a series with these labels, whatever others it has.
    fn all(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let has = |sample: &&Sample| labels.iter().all(|(key, value)| sample.labels.get(*key).map(String::as_str) == Some(value));
        self.samples.iter().filter(|sample| sample.name == name).filter(has).map(|sample| sample.value).collect()
    }

    /// The value of the one series with these labels.
    fn one(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        match self.all(name, labels).as_slice() {
            [only] => *only,
            several => panic!("{name}{labels:?} has the values {several:?}"),
        }
    }
}

// --- What is shipped.

fn monitoring(file: &str) -> PathBuf {
    workspace().join("charts/acmegate/monitoring").join(file)
}

fn rules() -> PathBuf {
    monitoring("rules.yaml")
}

fn rules_test() -> PathBuf {
    workspace().join("tests/tests/signals/rules_test.yaml")
}

fn alerts() -> Vec<Value> {
    let file: Value = serde_saphyr::from_str(&read(&rules())).expect("YAML");
    let rules = file["groups"].as_array().into_iter().flatten().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default());
    let rules: Vec<Value> = rules.collect();
    assert!(rules.len() > 20);
    rules
}

/// The expressions of the dashboard, with where they stand.
fn dashboard() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read(&monitoring("dashboard.json"))).expect("JSON");
    let targets = dashboard["panels"].as_array().into_iter().flatten().flat_map(|panel| {
        let title = panel["title"].as_str().unwrap_or_default().to_owned();
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        targets.into_iter().filter_map(move |target| Some((title.clone(), target["expr"].as_str()?.to_owned())))
    });
    let targets: Vec<_> = targets.collect();
    assert!(targets.len() > 20);
    targets
}

/// All expressions, with where they stand.
fn expressions() -> Vec<(String, String)> {
    let alert = |rule: Value| Some((rule["alert"].as_str()?.to_owned(), rule["expr"].as_str()?.to_owned()));
    let dashboard = dashboard().into_iter().map(|(place, expression)| (place, expression.replace("{job=~", "{job=")));
    alerts().into_iter().filter_map(alert).chain(dashboard).collect()
}

async fn promtool(arguments: &[&str]) -> Output {
    let mut command = Command::new("promtool");
    command.args(arguments);
    run("promtool", command, LIMIT).await
}
