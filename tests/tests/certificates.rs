//! The list of certificates that keeps itself valid: `serve` with a configuration, the commands, and what is on disk in between.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use acmegate_tests::{
    certificates::{assert_issued, serial_number},
    dns,
    misbehaving::{Fault, Kind, Misbehaving},
    read, temporary_folder,
    wait::until,
    world::{Builder, World, ZONE},
};
use serde_json::Value;
use tempfile::TempDir;

/// A world whose acmegate has this list; `{out}` in it is a folder for files.
struct Listed {
    world: World,
    out: TempDir,
}

impl Listed {
    async fn start(list: &str) -> Self {
        Self::with(World::builder(), list).await
    }

    async fn with(builder: Builder, list: &str) -> Self {
        let out = temporary_folder("listed");
        let list = list.replace("{out}", &out.path().display().to_string()).replace("{zone}", ZONE);
        let world = builder.config(move |config| config.section("certificates", &list)).start().await;
        Self { world, out }
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.out.path().join(name)
    }

    /// How a certificate stands, as a program sees it.
    async fn show(&self, name: &str) -> Value {
        let output = self.world.acmegate.run(&["certificates", "show", name, "--json"]).await;
        serde_json::from_str(output.succeeded().stdout.trim()).expect("JSON")
    }

    /// Waits until it stands like this.
    async fn becomes(&self, name: &str, state: &str) -> Value {
        until(&format!("{name} to be {state}"), async || {
            let shown = self.show(name).await;
            if shown["state"] == state { Ok(shown) } else { Err(shown) }
        })
        .await
    }

    fn orders(&self) -> usize {
        self.world.ca.log().matches("Added order ").count()
    }

    async fn assert_no_values(&self, names: &[&str]) {
        for name in names {
            let owner = format!("_acme-challenge.{name}.{ZONE}");
            dns::txt_becomes(self.world.acmegate.dns(), &owner, &[]).await;
        }
    }
}

fn serial(folder: &Path) -> String {
    serial_number(&read(&folder.join("cert.pem")))
}

const ONE: &str = "- { name: one, names: [one.{zone}], store: [{ files: \"{out}/one\" }] }";

#[tokio::test]
async fn a_listed_certificate_is_ordered_deployed_and_listed() {
    let both = format!(
        "{ONE}\n- {{ name: two, names: [two.{{zone}}, \"*.two.{{zone}}\"], key_type: p384, store: [{{ files: \"{{out}}/two\" }}] }}"
    );
    let mut listed = Listed::start(&both).await;
    for name in ["one", "two"] {
        listed.becomes(name, "valid").await;
    }
    let (one, two) = (format!("one.{ZONE}"), format!("two.{ZONE}"));
    assert_issued(&listed.folder("one"), &listed.world.ca, &[&one]).await;
    assert_issued(&listed.folder("two"), &listed.world.ca, &[&two, &format!("*.{two}")]).await;
    listed.assert_no_values(&["one", "two"]).await;
    let table = listed.world.acmegate.run(&["certificates", "list"]).await;
    let lines: Vec<_> = table.succeeded().stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[1].starts_with("one   valid") && lines[2].starts_with("two   valid"), "{lines:?}");

    // Nothing is done again at the next start, nor while nobody runs.
    let (orders, written) = (listed.orders(), serial(&listed.folder("one")));
    listed.world.acmegate.stop().await;
    assert_eq!(listed.show("one").await["state"], "valid");
    listed.world.acmegate.start().await;
    assert_eq!(listed.show("one").await["serial"].as_str(), Some(written.as_str()));
    assert_eq!(listed.orders(), orders);
}

#[tokio::test]
async fn it_is_renewed_when_asked_with_a_new_key_and_not_when_reuse_is_wanted() {
    let list = format!("{ONE}\n- {{ name: kept, names: [kept.{{zone}}], reuse_key: true, store: [{{ files: \"{{out}}/kept\" }}] }}");
    let listed = Listed::start(&list).await;
    for (name, kept) in [("one", false), ("kept", true)] {
        listed.becomes(name, "valid").await;
        let folder = listed.folder(name);
        let (serial_before, key) = (serial(&folder), read(&folder.join("privkey.pem")));
        let renewed = listed.world.acmegate.run(&["certificates", "renew", name]).await;
        renewed.succeeded().says("order https://");
        assert_ne!(serial(&folder), serial_before, "{name}");
        assert_eq!(read(&folder.join("privkey.pem")) == key, kept, "{name}");
        assert_issued(&folder, &listed.world.ca, &[&format!("{name}.{ZONE}")]).await;
    }
}

#[tokio::test]
async fn a_deployment_that_failed_is_done_again_and_nothing_is_issued_for_it() {
    let listed = Listed::with(
        World::builder().without_serve(),
        "- { name: one, names: [one.{zone}], store: [{ files: \"{out}/one\" }], notify: [{ exec: \"test -e {out}/go\" }] }",
    )
    .await;
    let mut world = listed.world;
    world.acmegate.start().await;
    let listed = Listed { world, out: listed.out };
    let shown = listed.becomes("one", "undeployed").await;
    let failed = until("the deployment to fail", async || {
        let shown = listed.show("one").await;
        if shown["deploy_failure"].is_string() { Ok(shown) } else { Err(shown) }
    })
    .await;
    assert!(failed["deploy_failure"].as_str().expect("text").contains("exit code 1"), "{failed}");
    assert_issued(&listed.folder("one"), &listed.world.ca, &[&format!("one.{ZONE}")]).await;
    let again = listed.world.acmegate.run(&["certificates", "deploy", "one"]).await;
    again.exited(1).says("not deployed");
    std::fs::write(listed.folder("go"), "").expect("written");
    listed.world.acmegate.run(&["certificates", "deploy", "one"]).await.succeeded().says("one: valid");
    assert_eq!((listed.orders(), &listed.show("one").await["serial"]), (1, &shown["serial"]));
}

#[tokio::test]
async fn what_is_revoked_is_replaced_and_what_is_taken_out_can_be_deleted() {
    let mut listed = Listed::start(ONE).await;
    listed.becomes("one", "valid").await;
    let before = serial(&listed.folder("one"));
    let acmegate = &listed.world.acmegate;
    acmegate.run(&["certificates", "revoke", "one"]).await.exited(2).says("--yes");
    acmegate.run(&["certificates", "revoke", "one", "--reason", "superseded", "--yes"]).await.succeeded().says("one: valid");
    assert_ne!(serial(&listed.folder("one")), before);
    assert_eq!(listed.world.ca.status_of(&before).await, "Revoked");
    acmegate.run(&["certificates", "delete", "one", "--yes"]).await.exited(2).says("is in the configuration");
    acmegate.run(&["certificates", "show", "three"]).await.exited(2).says("there is no certificate");

    listed.world.acmegate.stop().await;
    let config = listed.world.acmegate.config().to_owned();
    let text = read(&config);
    std::fs::write(&config, text.split("certificates:").next().expect("text")).expect("written");
    listed.world.acmegate.start().await;
    let acmegate = &listed.world.acmegate;
    assert_eq!(listed.show("one").await["state"], "unlisted");
    acmegate.run(&["certificates", "renew", "one"]).await.exited(2).says("no longer in the configuration");
    acmegate.run(&["certificates", "delete", "one", "--yes"]).await.succeeded().says("deleted");
    acmegate.run(&["certificates", "show", "one"]).await.exited(2);
    assert!(listed.folder("one").join("privkey.pem").exists(), "files stay");
}

#[tokio::test]
async fn a_changed_configuration_is_issued_or_deployed_at_once() {
    let mut listed = Listed::start(ONE).await;
    listed.becomes("one", "valid").await;
    let first = serial(&listed.folder("one"));
    let config = listed.world.acmegate.config().to_owned();
    let text = read(&config);
    let change = |from: &str, to: &str| {
        let changed = read(&config).replace(from, to);
        std::fs::write(&config, changed).expect("written");
    };
    assert!(text.contains("names: [one."), "{text}");

    // Another place: deployed, not issued.
    listed.world.acmegate.stop().await;
    change("/one\" }", "/other\" }");
    listed.world.acmegate.start().await;
    listed.becomes("one", "valid").await;
    assert_eq!((serial(&listed.folder("other")), listed.orders()), (first.clone(), 1));

    // Another name: issued.
    listed.world.acmegate.stop().await;
    change("names: [one.", &format!("names: [more.one.{ZONE}, one."));
    listed.world.acmegate.start().await;
    until("the new certificate", async || if serial(&listed.folder("other")) == first { Err("the first is there") } else { Ok(()) }).await;
    assert_issued(&listed.folder("other"), &listed.world.ca, &[&format!("one.{ZONE}"), &format!("more.one.{ZONE}")]).await;
    assert_eq!(listed.orders(), 2);
}

/// Without `serve`, from cron.
#[tokio::test]
async fn what_is_due_is_done_by_a_command() {
    let listed = Listed::with(World::builder().without_serve(), ONE).await;
    let due = listed.world.acmegate.run(&["certificates", "renew", "--due"]).await;
    due.succeeded().says("one   valid");
    assert_issued(&listed.folder("one"), &listed.world.ca, &[&format!("one.{ZONE}")]).await;
    listed.world.acmegate.run(&["certificates", "renew", "--due"]).await.succeeded();
    assert_eq!(listed.orders(), 1);
    listed.world.acmegate.run(&["certificates", "renew", "one"]).await.succeeded();
    assert_eq!(listed.orders(), 2);
}

/// A failure is told with what happened, what is done next and when; a person who has mended it goes on at once.
#[tokio::test]
async fn a_failure_says_what_to_do_and_costs_the_authority_nothing() {
    let list = "- { name: lost, names: [lost.example.test], store: [{ files: \"{out}/lost\" }] }";
    let listed = Listed::start(list).await;
    let shown = listed.becomes("lost", "failing").await;
    assert!(shown["failure"].as_str().expect("text").contains("_acme-challenge.lost.example.test"), "{shown}");
    assert!(shown["next_at"].is_string() && shown["next"] == "order", "{shown}");
    assert_eq!(listed.orders(), 0, "nothing was ordered");
    let text = listed.world.acmegate.run(&["certificates", "renew", "lost"]).await;
    text.exited(1).says("to do:");
    listed.world.delegate("lost.example.test").await;
    listed.world.acmegate.run(&["certificates", "renew", "lost"]).await.succeeded();
    assert_issued(&listed.folder("lost"), &listed.world.ca, &["lost.example.test"]).await;
    assert_eq!(dns::txt(listed.world.acmegate.dns(), &acmegate_tests::world::target("lost.example.test")).await, BTreeSet::new());
}

/// Changes the configuration file before anything runs.
fn edit(world: &World, from: &str, to: &str) {
    let text = read(world.acmegate.config());
    assert!(text.contains(from), "{text}");
    std::fs::write(world.acmegate.config(), text.replace(from, to)).expect("written");
}

/// The authority says that it will revoke: renewed at once, as the successor of the one that is there.
#[tokio::test]
async fn what_the_authority_wants_renewed_is_renewed() {
    let mut listed = Listed::start(ONE).await;
    listed.becomes("one", "valid").await;
    let shown = until("the authority's window", async || {
        let shown = listed.show("one").await;
        if shown["window"]["start"].is_string() { Ok(shown) } else { Err(shown) }
    })
    .await;
    assert_ne!(shown["renew_at"], Value::Null, "{shown}");
    let certificate = read(&listed.folder("one").join("cert.pem"));
    let before = serial(&listed.folder("one"));
    listed.world.acmegate.stop().await;
    let past =
        r#"{"suggestedWindow":{"start":"2020-01-01T00:00:00Z","end":"2020-01-02T00:00:00Z"},"explanationURL":"https://ca.test/why"}"#;
    listed.world.ca.set_renewal_info(&certificate, past).await;
    // Nobody waits six hours here for the next poll, nor until the certificate is so old that a window in the past is believed.
    let database = rusqlite::Connection::open(listed.world.acmegate.data().join("acmegate.sqlite")).expect("opened");
    let older = "UPDATE renewals SET state = json_set(state, '$.poll_at', 1, '$.standing.not_before', json_extract(state, '$.standing.not_before') - 86400000)";
    database.execute(older, []).expect("written");
    drop(database);
    listed.world.acmegate.start().await;
    until("another certificate", async || if serial(&listed.folder("one")) == before { Err("the same") } else { Ok(()) }).await;
    assert_issued(&listed.folder("one"), &listed.world.ca, &[&format!("one.{ZONE}")]).await;
    assert_eq!(listed.orders(), 2);
}

#[tokio::test]
async fn another_authority_issues_while_the_first_is_down() {
    let list = "- { name: one, names: [one.{zone}], directory: down, fallbacks: [testca], store: [{ files: \"{out}/one\" }] }";
    let mut listed = Listed::with(World::builder().without_serve(), list).await;
    edit(&listed.world, "name: testca,", "name: down, url: \"https://127.0.0.1:1/directory\" }\n    - { name: testca,");
    listed.world.acmegate.start().await;
    let shown = listed.becomes("one", "valid").await;
    assert_eq!(shown["directory"].as_str(), Some(listed.world.ca.directory()));
    assert_issued(&listed.folder("one"), &listed.world.ca, &[&format!("one.{ZONE}")]).await;
    let renewed = listed.world.acmegate.run(&["certificates", "renew", "one"]).await;
    renewed.succeeded().says("down did not issue, and testca is tried");
}

#[tokio::test]
async fn a_rehearsal_orders_at_the_staging_directory_and_deploys_nothing() {
    let list = "- { name: one, names: [one.{zone}], directory: real, dry_run: true, store: [{ files: \"{out}/one\" }] }";
    let mut listed = Listed::with(World::builder().without_serve(), list).await;
    let directory = listed.world.ca.directory().to_owned();
    edit(
        &listed.world,
        "name: testca,",
        &format!(
            "name: real, url: \"https://127.0.0.1:1/directory\", staging: \"{directory}\", ca_file: {:?} }}\n    - {{ name: testca,",
            listed.world.ca.ca_file()
        ),
    );
    listed.world.acmegate.start().await;
    listed.becomes("one", "rehearsed").await;
    assert_eq!(listed.orders(), 1);
    assert!(!listed.folder("one").exists());
    listed.assert_no_values(&["one"]).await;
    let staged = listed.world.acmegate.issue(&[&format!("two.{ZONE}")]).directory("real").argument("--staging").run().await;
    staged.succeeded();
    assert_issued(staged.folder(), &listed.world.ca, &[&format!("two.{ZONE}")]).await;
    let none = listed.world.acmegate.issue(&["three.example.test"]).argument("--staging").run().await;
    none.output.exited(2).says("staging");
}

/// What the authority asked to wait for is waited for, over restarts and whatever a person says, and others go on.
#[tokio::test]
async fn nobody_runs_into_a_limit_again() {
    let list = "- { name: one, names: [one.{zone}] }";
    let mut listed = Listed::with(World::builder().without_serve(), list).await;
    let proxy = Misbehaving::start(&listed.world.ca).await;
    edit(&listed.world, listed.world.ca.directory(), proxy.directory());
    edit(&listed.world, &format!("{:?}", listed.world.ca.ca_file()), &format!("{:?}", proxy.ca_file()));
    proxy.plan(Kind::NewOrder, Fault::TooManyForAnHour);
    listed.world.acmegate.start().await;
    let shown = listed.becomes("one", "failing").await;
    assert_eq!((proxy.done(), listed.orders()), (1, 0));
    let (tried, next) = (shown["tried"].as_str().expect("a time"), shown["next_at"].as_str().expect("a time"));
    assert!(seconds(next) >= seconds(tried) + 3590, "an hour lies between {tried} and {next}");

    // A person may ask; the limit is not asked twice.
    let renewed = listed.world.acmegate.run(&["certificates", "renew", "one"]).await;
    renewed.exited(75).says("waits:");
    listed.world.acmegate.stop().await;
    edit(&listed.world, "- { name: one,", &format!("- {{ name: two, names: [two.{ZONE}] }}\n  - {{ name: one,"));
    listed.world.acmegate.start().await;
    listed.becomes("two", "valid").await;
    assert_eq!(listed.show("one").await["state"], "waiting");
    assert_eq!((proxy.done(), listed.orders()), (1, 1));
    let one_shot = listed.world.acmegate.issue(&[&format!("one.{ZONE}")]).run().await;
    one_shot.output.exited(75).says("nothing was sent");
}

/// Seconds since 1970 of a time as RFC 3339 writes it, to the second.
fn seconds(text: &str) -> i64 {
    let digits: Vec<i64> =
        text.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty()).map(|part| part.parse().expect("digits")).collect();
    let [year, month, day, hour, minute, second] = digits[..] else { panic!("{text}") };
    // Days since 1970 of a date (proleptic Gregorian calendar).
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1 - 719_468;
    ((days * 24 + hour) * 60 + minute) * 60 + second
}

/// Who is told by HTTP hears of the certificate, with its bearer token, and again until it has taken it.
#[tokio::test]
async fn a_hook_hears_of_each_certificate() {
    let (sender, mut heard) = tokio::sync::mpsc::channel::<(Option<String>, Value)>(4);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let router = axum::Router::new().route(
        "/hook",
        axum::routing::post(move |headers: axum::http::HeaderMap, axum::Json(body): axum::Json<Value>| async move {
            let token = headers.get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned);
            sender.send((token, body)).await.expect("listened to");
        }),
    );
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let token = temporary_folder("token");
    acmegate_tests::write(&token.path().join("token"), "very-secret-token\n");
    let list = format!(
        "- {{ name: one, names: [one.{{zone}}], notify: [{{ http: {{ url: \"http://{address}/hook\", token_file: {:?}, send: key }} }}] }}",
        token.path().join("token")
    );
    let listed = Listed::start(&list).await;
    let (authorization, body) = acmegate_tests::wait::bounded("the hook", heard.recv()).await.expect("told");
    assert_eq!(authorization.as_deref(), Some("Bearer very-secret-token"));
    assert_eq!((&body["name"], &body["names"][0]), (&Value::from("one"), &Value::from(format!("one.{ZONE}"))));
    let (chain, key) = (body["fullchain"].as_str().expect("PEM"), body["private_key"].as_str().expect("PEM"));
    acmegate_tests::certificates::assert_holds(chain, key, &listed.world.ca, &[&format!("one.{ZONE}")]).await;
    listed.becomes("one", "valid").await;
    assert!(!listed.world.acmegate.process().stderr().contains("very-secret"), "no secret in the log");
    server.abort();
}
