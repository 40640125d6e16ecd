//! Unmodified ACME clients from elsewhere: each registers at the acme-dns door and gets its certificate from the authority.
//!
//! Of the clients that the package registries hold, two are left out: certbot-acme-dns 0.3.1 does not load in certbot 5, and sewer 0.8 asks a public
//! resolver by its address, where no test may send anything.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
};

use acmegate_tests::{
    acmedns::Account,
    certificates::{certificates, dns_names, is_key_of},
    dns,
    lego::Lego,
    process::{Output, run},
    python, read, temporary_folder,
    testca::Options,
    wait::LIMIT,
    world::World,
    write,
};

/// Pebble refuses some nonces on purpose. Not here: certbot gives up when two in a row are refused, and what a client does then is not acmegate's.
async fn world() -> World {
    World::builder().ca(Options::every_nonce).start().await
}

#[tokio::test]
async fn lego_4_apex_and_wildcard() {
    let world = world().await;
    lego(&world, &Lego::debian(), &["lego4.example.test", "*.lego4.example.test"]).await;
}

#[tokio::test]
async fn lego_5_apex_and_wildcard() {
    let world = world().await;
    lego(&world, &Lego::v5(), &["lego5.example.test", "*.lego5.example.test"]).await;
}

/// The first run registers and asks for the CNAME; the second one finds it and issues.
async fn lego(world: &World, lego: &Lego, names: &[&str]) {
    let api = world.acmegate.url("acmedns", "");
    let first = lego.acmedns(&world.ca, world.resolver.dns(), &api, names).await;
    assert_ne!(first.code, Some(0), "the first run wants a CNAME:\n{first}");
    world.bind.add(&cname_asked_for(&first)).await;
    lego.acmedns(&world.ca, world.resolver.dns(), &api, names).await.succeeded();
    let name = names.first().expect("a name");
    let (certificate, key) = lego.files(name);
    assert_files(&certificate, &key, names);
}

/// The record in lego's message: `_acme-challenge.<name>. CNAME <account>.<zone>.`, as a line for the zone.
fn cname_asked_for(output: &Output) -> String {
    let pattern = regex::Regex::new(r"(_acme-challenge\.\S+\.) CNAME (\S+\.)").expect("a pattern");
    let text = format!("{}{}", output.stdout, output.stderr);
    let found = pattern.captures(&text).unwrap_or_else(|| panic!("lego should ask for a CNAME:\n{output}"));
    format!("{} 60 CNAME {}", &found[1], &found[2])
}

#[tokio::test]
async fn certbot_with_its_acmedns_plugin() {
    let world = world().await;
    let name = "certbot.example.test";
    let folder = temporary_folder("certbot");
    let accounts = folder.path().join("accounts.json");
    let account = pyacmedns_registers(&world, &accounts, name).await;
    world.bind.add(&format!("_acme-challenge.{name}. 60 CNAME {}.", account.fulldomain)).await;
    let credentials = folder.path().join("acmedns.ini");
    let api = world.acmegate.url("acmedns", "");
    private(&credentials, &format!("dns_acmedns_api_url = {api}\ndns_acmedns_registration_file = {}\n", accounts.display()));
    let mut certbot = certbot(&world, folder.path(), name);
    certbot.args(["--authenticator", "dns-acmedns", "--dns-acmedns-propagation-seconds", "0"]);
    certbot.arg("--dns-acmedns-credentials").arg(&credentials);
    run("certbot", certbot, LIMIT * 2).await.succeeded();
    assert_certbot_files(folder.path(), name);
}

/// certbot's second way: lego's providers inside a plugin of certbot.
#[tokio::test]
async fn certbot_with_the_multi_plugin() {
    let world = world().await;
    let name = "multi.example.test";
    let folder = temporary_folder("certbot");
    let credentials = folder.path().join("multi.ini");
    let (api, accounts) = (world.acmegate.url("acmedns", ""), folder.path().join("accounts.json"));
    let accounts = accounts.display();
    private(&credentials, &format!("dns_multi_provider = acme-dns\nACME_DNS_API_BASE = {api}\nACME_DNS_STORAGE_PATH = {accounts}\n"));
    let certbot = || {
        let mut certbot = certbot(&world, folder.path(), name);
        certbot.args(["--authenticator", "dns-multi", "--dns-multi-propagation-seconds", "0"]);
        certbot.arg("--dns-multi-nameservers").arg(world.resolver.dns().to_string());
        certbot.arg("--dns-multi-credentials").arg(&credentials);
        certbot
    };
    let first = run("certbot", certbot(), LIMIT * 2).await;
    assert_ne!(first.code, Some(0), "the first run wants a CNAME:\n{first}");
    world.bind.add(&cname_asked_for(&first)).await;
    run("certbot", certbot(), LIMIT * 2).await.succeeded();
    assert_certbot_files(folder.path(), name);
}

/// The library under certbot's plugin, alone: it registers with networks, and tells success from refusal.
#[tokio::test]
async fn pyacmedns_alone() {
    let world = world().await;
    let folder = temporary_folder("pyacmedns");
    let account = pyacmedns_registers(&world, &folder.path().join("accounts.json"), "py.example.test").await;
    assert!(account.allowfrom.contains(&"127.0.0.0/8".to_owned()), "{account:?}");
    let txt = "pyacmedns-pyacmedns-pyacmedns-pyacmedns-123";
    let update = format!(
        "import json, sys, pyacmedns
account = json.loads(sys.argv[2])
client = pyacmedns.Client(sys.argv[1])
client.update_txt_record(account, {txt:?})
account['password'] = 'x' * 40
try:
    client.update_txt_record(account, {txt:?})
except pyacmedns.exceptions.AcmeDnsClientException as refusal:
    print('refused', refusal)
"
    );
    let mut script = python::script(&update);
    script.arg(world.acmegate.url("acmedns", "")).arg(
        serde_json::json!({
            "username": account.username, "password": account.password, "fulldomain": account.fulldomain,
            "subdomain": account.subdomain, "allowfrom": account.allowfrom,
        })
        .to_string(),
    );
    run("pyacmedns", script, LIMIT).await.succeeded().says("refused").says("forbidden").says("401");
    assert!(dns::txt(world.acmegate.dns(), &account.fulldomain).await.contains(txt));
}

/// Registers through pyacmedns and stores the account as its plugin wants it.
async fn pyacmedns_registers(world: &World, accounts: &Path, name: &str) -> Account {
    let mut script = python::script(
        "import sys, pyacmedns
client = pyacmedns.Client(sys.argv[1])
storage = pyacmedns.Storage(sys.argv[2])
storage.put(sys.argv[3], client.register_account(['127.0.0.0/8']))
storage.save()
",
    );
    script.arg(world.acmegate.url("acmedns", "")).arg(accounts).arg(name);
    run("pyacmedns", script, LIMIT).await.succeeded();
    let stored: serde_json::Value = serde_json::from_str(&read(accounts)).expect("JSON");
    serde_json::from_value(stored.get(name).cloned().expect("the account")).expect("an account")
}

fn certbot(world: &World, folder: &Path, name: &str) -> Command {
    let mut certbot = python::certbot();
    certbot.args(["certonly", "--non-interactive", "--agree-tos", "--register-unsafely-without-email", "--server", world.ca.directory()]);
    for (option, sub) in [("--config-dir", "config"), ("--work-dir", "work"), ("--logs-dir", "logs")] {
        certbot.arg(option).arg(folder.join(sub));
    }
    certbot.args(["-d", name, "-d", &format!("*.{name}")]).env("REQUESTS_CA_BUNDLE", world.ca.ca_file());
    certbot
}

fn assert_certbot_files(folder: &Path, name: &str) {
    let live = folder.join("config/live").join(name);
    assert_files(&live.join("cert.pem"), &live.join("privkey.pem"), &[name, &format!("*.{name}")]);
}

fn assert_files(certificate: &Path, key: &Path, names: &[&str]) {
    let leaf = certificates(&read(certificate)).into_iter().next().expect("a certificate");
    assert_eq!(dns_names(&leaf), names.iter().map(|name| (*name).to_owned()).collect());
    assert!(is_key_of(&read(key), &leaf));
}

/// A file of secrets, as these clients insist on.
fn private(file: &Path, text: &str) {
    write(file, text);
    fs::set_permissions(file, Permissions::from_mode(0o600)).expect("its mode");
}
