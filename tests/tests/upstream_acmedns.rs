//! Another acme-dns as the backend: an acmegate, and what answers as the original does. A real authority validates what stands there.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{path::PathBuf, time::Duration};

use acmegate_tests::{
    acmedns::{self, Account},
    acmegate::{Acmegate, Config},
    addresses::Address,
    certificates::assert_issued,
    process::run,
    python, temporary_folder,
    wait::LIMIT,
    world::{Builder, World, ZONE},
};
use emulators::{Nameservers, acmedns::AcmeDns};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// Where the original's accounts stand.
const ORIGINAL: &str = "original.gateway.test";

/// A small internet whose acmegate is the upstream one, and another acmegate, which serves nothing itself.
struct Pair {
    world: World,
    gateway: Acmegate,
    folder: TempDir,
}

impl Pair {
    /// `settings` gets the place of the account file.
    async fn start(builder: Builder, settings: impl FnOnce(&World, PathBuf) -> Value) -> Self {
        // Every order is proved anew.
        let world = builder.ca(|options| options.no_reuse()).start().await;
        let folder = temporary_folder("upstream");
        // JSON is YAML.
        let settings = settings(&world, folder.path().join("accounts.json"));
        // What acme-dns gives its values; the issuer waits for so long before it uses a name again.
        let backend = format!("- name: upstream\n  provider: acmedns\n  ttl: 1s\n  settings: {settings}");
        let config = Config::new().resolver(world.resolver.dns()).propagation("timeout: 5s").directory("testca", &world.ca);
        Self { gateway: Acmegate::new(config.section("backends", &backend)), world, folder }
    }

    /// The upstream acmegate as the backend, and what else is set.
    async fn with_acmegate(more: Value) -> Self {
        Self::start(World::builder(), |world, file| {
            let mut settings = json!({
                "endpoint": world.acmegate.url("acmedns", ""), "nameserver": world.acmegate.dns().to_string(), "values": 8, "accounts": {"file": file},
            });
            let (Value::Object(all), Value::Object(more)) = (&mut settings, more) else { panic!("no maps") };
            all.extend(more);
            settings
        })
        .await
    }

    /// Puts an account into the file.
    fn store(&self, domain: &str, account: Value) {
        let file = self.folder.path().join("accounts.json");
        let mut all: Map<String, Value> = match file.exists() {
            true => serde_json::from_str(&acmegate_tests::read(&file)).expect("a map"),
            false => Map::new(),
        };
        all.insert(domain.to_owned(), account);
        acmegate_tests::write(&file, &Value::from(all).to_string());
    }

    /// Creates the CNAME of a domain.
    async fn delegate(&self, domain: &str, fulldomain: &str) {
        self.world.bind.update(&[format!("add _acme-challenge.{domain}. 60 CNAME {fulldomain}.")]).await;
    }

    async fn issue(&self, names: &[&str]) {
        let issued = self.gateway.issue(names).run().await;
        issued.succeeded();
        assert_issued(issued.folder(), &self.world.ca, names).await;
    }
}

#[tokio::test]
async fn an_acmegate_behind_an_acmegate() {
    let pair = Pair::with_acmegate(json!({})).await;
    let url = pair.world.acmegate.url("acmedns", "");
    let account: Account = acmedns::register(&reqwest::Client::new(), &url).await.expect("registered");
    let Account { username, password, fulldomain, subdomain, .. } = &account;
    pair.store("www.example.test", json!({"username": username, "password": password, "fulldomain": fulldomain, "subdomain": subdomain}));
    assert!(fulldomain.ends_with(ZONE), "{fulldomain}");
    pair.delegate("www.example.test", fulldomain).await;
    let names = ["www.example.test", "*.www.example.test"];
    pair.issue(&names).await;
    // The values of the time before are pushed out, or stand beside.
    pair.issue(&names).await;
}

#[tokio::test]
async fn accounts_on_demand() {
    let pair = Pair::with_acmegate(json!({"register": ["example.test"]})).await;
    let refused = pair.gateway.issue(&["new.example.test"]).run().await;
    refused.output.exited(1);
    let stored: Value = serde_json::from_str(&acmegate_tests::read(&pair.folder.path().join("accounts.json"))).expect("a map");
    let fulldomain = stored["new.example.test"]["fulldomain"].as_str().expect("an account");
    refused.output.says(&format!("create the record `_acme-challenge.new.example.test. CNAME {fulldomain}.`"));
    refused.output.never_says(stored["new.example.test"]["password"].as_str().expect("a password"));
    pair.delegate("new.example.test", fulldomain).await;
    pair.issue(&["new.example.test"]).await;
}

#[tokio::test]
async fn the_original() {
    let address = Address::reserve();
    let nameservers = Nameservers::start(&[(address.dns(), Duration::ZERO)]).await;
    let server = AcmeDns::start(ORIGINAL, nameservers).await;
    let builder = World::builder()
        .parent_record(&format!("{ORIGINAL}. 60 NS ns1.{ORIGINAL}."))
        .parent_record(&format!("ns1.{ORIGINAL}. 60 A {}", address.ip()));
    let url = server.url();
    let pair =
        Pair::start(builder, |_, file| json!({"endpoint": url, "nameserver": address.dns().to_string(), "accounts": {"file": file}})).await;
    // Its client registers and keeps the account; the original's answers and the file are judged by it.
    let mut command = python::script(
        "import json, sys, pyacmedns
client, storage = pyacmedns.Client(sys.argv[1]), pyacmedns.Storage(sys.argv[2])
account = client.register_account(['127.0.0.0/8'])
storage.put('www.example.test', account)
storage.save()
client.update_txt_record(account, 'left-over-left-over-left-over-left-over-123')
try:
    client.update_txt_record(account, 'short')
except pyacmedns.exceptions.AcmeDnsClientException as refusal:
    print('bad_txt' in str(refusal))
",
    );
    command.arg(&url).arg(pair.folder.path().join("accounts.json"));
    let output = run("pyacmedns", command, LIMIT).await;
    assert_eq!(output.succeeded().stdout, "True\n");
    let accounts = server.accounts();
    let [emulators::acmedns::Account { fulldomain, subdomain, .. }] = accounts.as_slice() else { panic!("{accounts:?}") };
    pair.delegate("www.example.test", fulldomain).await;
    // The two values of a certificate take both rows, those of the next one take them over.
    let names = ["www.example.test", "*.www.example.test"];
    pair.issue(&names).await;
    let before = server.rows(subdomain);
    // A CA may take an authorization of the first certificate for the second, and Pebble does so now and then: its value then stays.
    let mut after = before.clone();
    for _ in 0..5 {
        pair.issue(&names).await;
        after = server.rows(subdomain);
        if after.iter().all(|row| !before.contains(row)) {
            break;
        }
    }
    assert!(after.iter().all(|row| !before.contains(row)) && after.len() == 2, "{before:?} {after:?}");
}
