//! `acmegate issue` from a real authority, through a real resolver and somebody else's DNS, into files that another library judges.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{fs, path::Path};

use acmegate_tests::{
    acmegate::Issued,
    certificates::assert_issued,
    dns,
    process::Process,
    silent::Silent,
    testca::Options,
    wait::LIMIT,
    world::{World, ZONE, target},
};
use futures_util::future::join_all;

#[tokio::test]
async fn one_name() {
    let world = World::start().await;
    world.delegate("www.example.test").await;
    let issued = world.acmegate.issue(&["www.example.test"]).run().await;
    assert_certificate(&world, &issued, &["www.example.test"]).await;
    assert_no_values_left(&world, &["www.example.test"]).await;
}

#[tokio::test]
async fn apex_and_wildcard_in_one_certificate() {
    let world = World::start().await;
    world.delegate("example.test").await;
    let names = ["example.test", "*.example.test"];
    let issued = world.acmegate.issue(&names).run().await;
    assert_certificate(&world, &issued, &names).await;
    assert_no_values_left(&world, &["example.test"]).await;
}

/// The authority's resolver remembers the values of the run before: each run has to outlast that. So do runs that share a name.
#[tokio::test]
async fn the_same_name_again_at_once_and_twice_at_a_time() {
    // Every order is proved anew.
    let world = World::builder().ca(|options| options.no_reuse()).start().await;
    world.delegate("again.example.test").await;
    for _ in 0..3 {
        let issued = world.acmegate.issue(&["again.example.test"]).run().await;
        assert_certificate(&world, &issued, &["again.example.test"]).await;
    }
    let (first, second) =
        tokio::join!(world.acmegate.issue(&["again.example.test"]).run(), world.acmegate.issue(&["again.example.test"]).run());
    assert_certificate(&world, &first, &["again.example.test"]).await;
    assert_certificate(&world, &second, &["again.example.test"]).await;
    assert_no_values_left(&world, &["again.example.test"]).await;
}

#[tokio::test]
async fn twenty_five_names_in_one_certificate() {
    let world = World::start().await;
    let names: Vec<_> = (0..25).map(|n| format!("n{n}.example.test")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    world.delegate_all(&names).await;
    let issued = world.acmegate.issue(&names).run().await;
    assert_certificate(&world, &issued, &names).await;
    assert_no_values_left(&world, &names).await;
}

#[tokio::test]
async fn forty_certificates_at_once() {
    let world = World::start().await;
    let names: Vec<_> = (0..40).map(|n| format!("c{n}.example.test")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    world.delegate_all(&names).await;
    let all = join_all(names.iter().map(|name| world.acmegate.issue(&[name]).run())).await;
    for (issued, name) in all.iter().zip(&names) {
        assert_certificate(&world, issued, &[name]).await;
    }
    assert_no_values_left(&world, &names).await;
}

#[tokio::test]
async fn delegation_by_ns_instead_of_cname() {
    let delegated = "_acme-challenge.ns.example.test";
    let nameserver = format!("ns1.{ZONE}");
    let world = World::builder()
        .record(&format!("{delegated}. 60 NS {nameserver}."))
        .config(move |config| config.zone_with(delegated, &nameserver, &[]))
        .start()
        .await;
    let issued = world.acmegate.issue(&["ns.example.test"]).run().await;
    assert_certificate(&world, &issued, &["ns.example.test"]).await;
    assert!(dns::txt(world.acmegate.dns(), delegated).await.is_empty());
}

#[tokio::test]
async fn a_missing_cname_is_answered_with_the_record_to_create() {
    let world = World::start().await;
    world.delegate("there.example.test").await;
    let issued = world.acmegate.issue(&["there.example.test", "missing.example.test"]).run().await;
    issued.output.exited(1).says(&record_to_create("missing.example.test")).never_says(&record_to_create("there.example.test"));
    assert_authority_was_not_asked_to_validate(&world);
    assert_folder_is_empty(issued.folder());
    assert_no_values_left(&world, &["there.example.test", "missing.example.test"]).await;
}

#[tokio::test]
async fn a_wrong_cname_is_answered_with_what_it_is_and_what_it_should_be() {
    let world = World::builder().record("_acme-challenge.wrong 60 CNAME elsewhere.example.test.").start().await;
    let issued = world.acmegate.issue(&["wrong.example.test"]).run().await;
    issued.output.exited(1).says("elsewhere.example.test").says(&record_to_create("wrong.example.test"));
    assert_authority_was_not_asked_to_validate(&world);
    assert_folder_is_empty(issued.folder());
}

/// The first order fails for want of a CNAME; the second one, once it is there, needs nothing else.
/// What a CA would refuse after the order is refused before it, with the record to create; and what allows it does.
#[tokio::test]
async fn caa_records_are_read_before_anything_is_ordered() {
    let world = World::start().await;
    let names = ["www.guarded.example.test", "*.www.guarded.example.test"];
    world.delegate(names[0]).await;
    world.bind.add("guarded.example.test. 60 CAA 0 issue \"other-ca.test\"").await;
    let refused = world.acmegate.issue(&names[..1]).run().await;
    let record = "add guarded.example.test CAA 0 issue \"pebble.letsencrypt.org\"";
    refused.output.exited(1).says("nothing was ordered").says("let other-ca.test issue").says(record);
    assert_folder_is_empty(refused.folder());
    world.bind.add("guarded.example.test. 60 CAA 0 issue \"pebble.letsencrypt.org; validationmethods=dns-01\"").await;
    world.bind.add("guarded.example.test. 60 CAA 0 issuewild \";\"").await;
    let wildcard = world.acmegate.issue(&names).run().await;
    wildcard.output.exited(1).says("*.www.guarded.example.test: ").says("issuewild");
    assert_eq!(requests(&world, "/order-plz"), 0, "no order was made");
    let allowed = world.acmegate.issue(&names[..1]).run().await;
    assert_certificate(&world, &allowed, &names[..1]).await;
    assert_no_values_left(&world, &names[..1]).await;
}

#[tokio::test]
async fn creating_the_record_is_all_that_was_missing() {
    let world = World::start().await;
    world.acmegate.issue(&["late.example.test"]).run().await.output.exited(1);
    world.delegate("late.example.test").await;
    let issued = world.acmegate.issue(&["late.example.test"]).run().await;
    assert_certificate(&world, &issued, &["late.example.test"]).await;
}

/// Half of a zone's servers being dead is an ordinary day: the certificate comes, and the operator is told.
#[tokio::test]
async fn one_of_two_authoritative_servers_is_dead() {
    let world = World::builder().silent_nameserver().start().await;
    world.delegate("www.example.test").await;
    let issued = world.acmegate.issue(&["www.example.test"]).run().await;
    assert_certificate(&world, &issued, &["www.example.test"]).await;
    let silent = world.silent.iter().map(|server| server.address().ip().to_string());
    silent.for_each(|ip| {
        issued.output.says(&ip);
    });
    assert_no_values_left(&world, &["www.example.test"]).await;
}

/// With no authoritative server left, it says which zone is dark, and costs no failed validation at the authority.
#[tokio::test]
async fn all_authoritative_servers_are_dead() {
    let dark = Silent::start();
    let nameserver = dark.address().ip();
    let world = World::builder()
        .parent_record("dark.gateway.test. 60 NS ns1.dark.gateway.test.")
        .parent_record(&format!("ns1.dark.gateway.test. 60 A {nameserver}"))
        .record("_acme-challenge.www 60 CNAME www.example.test.dark.gateway.test.")
        .config(move |config| config.zone("dark.gateway.test", &[("ns1", nameserver)]).propagation("check: authoritative"))
        .start()
        .await;
    let issued = world.acmegate.issue(&["www.example.test"]).run().await;
    issued.output.exited(1).says("dark.gateway.test");
    assert_authority_was_not_asked_to_validate(&world);
    assert_folder_is_empty(issued.folder());
    assert!(dns::txt(world.acmegate.dns(), "www.example.test.dark.gateway.test").await.is_empty());
}

#[tokio::test]
async fn an_authority_that_refuses_is_quoted() {
    let world = World::builder().ca(|options| options.block("refused.example.test")).start().await;
    world.delegate("refused.example.test").await;
    let issued = world.acmegate.issue(&["refused.example.test"]).run().await;
    issued.output.exited(1).says("Order included an identifier for which issuance is forbidden by policy").says("refused.example.test");
    assert_folder_is_empty(issued.folder());
    assert_no_values_left(&world, &["refused.example.test"]).await;
}

#[tokio::test]
async fn an_authority_that_is_gone_is_named() {
    let world = World::start().await;
    world.delegate("www.example.test").await;
    let gone = acmegate_tests::ports::Port::reserve();
    let url = format!("https://{}/dir", gone.address());
    let issued = world.acmegate.issue(&["www.example.test"]).directory(&url).run().await;
    issued.output.exited(1).says(&gone.address().to_string());
}

#[tokio::test]
async fn a_dry_run_checks_and_orders_nothing() {
    let world = World::start().await;
    let without = world.acmegate.issue(&["www.example.test"]).argument("--dry-run").run().await;
    without.output.exited(1).says(&record_to_create("www.example.test"));
    world.delegate("www.example.test").await;
    let with = world.acmegate.issue(&["www.example.test"]).argument("--dry-run").run().await;
    with.succeeded();
    assert_folder_is_empty(with.folder());
    assert_eq!(requests(&world, "/order-plz"), 0, "no order was made");
    assert_no_values_left(&world, &["www.example.test"]).await;
}

/// Without a running `serve` the command is the engine itself, DNS included; the account and the ledger stay for the next one.
#[tokio::test]
async fn standalone_and_then_through_serve_with_the_same_account() {
    let mut world = World::builder().without_serve().start().await;
    world.delegate("www.example.test").await;
    for _ in 0..2 {
        let alone = world.acmegate.issue(&["www.example.test", "*.www.example.test"]).run().await;
        assert_certificate(&world, &alone, &["www.example.test", "*.www.example.test"]).await;
    }
    world.acmegate.start().await;
    assert_no_values_left(&world, &["www.example.test"]).await;
    let through = world.acmegate.issue(&["www.example.test"]).run().await;
    assert_certificate(&world, &through, &["www.example.test"]).await;
    // A refused nonce repeats the request, so the log may show more than one; the accounts are what counts.
    assert_eq!(world.ca.log().matches("There are now 1 accounts in memory").count(), 1);
    assert!(!world.ca.log().contains("There are now 2 accounts in memory"), "the account was kept");
}

/// The options that stand in for a configuration: a URL, its root, a contact, a type of key.
#[tokio::test]
async fn a_directory_by_its_url_and_another_type_of_key() {
    let world = World::start().await;
    world.delegate("www.example.test").await;
    let ca_file = world.ca.ca_file().display().to_string();
    let order = world.acmegate.issue(&["www.example.test"]).directory(world.ca.directory());
    let order = order.argument("--ca-file").argument(&ca_file).argument("--contact").argument("ops@example.test");
    let issued = order.argument("--key-type").argument("p384").run().await;
    assert_certificate(&world, &issued, &["www.example.test"]).await;
    let key = acmegate_tests::read(&issued.folder().join("privkey.pem"));
    let pair = rcgen::KeyPair::from_pem(&key).expect("a key that rcgen reads");
    assert_eq!(pair.algorithm(), &rcgen::PKCS_ECDSA_P384_SHA384);
}

#[tokio::test]
async fn renewing_into_the_same_folder_replaces_all_files() {
    let world = World::start().await;
    world.delegate("www.example.test").await;
    let first = world.acmegate.issue(&["www.example.test"]).run().await;
    assert_certificate(&world, &first, &["www.example.test"]).await;
    let before = acmegate_tests::read(&first.folder().join("cert.pem"));
    let folder = first.folder().display().to_string();
    let config = world.acmegate.config().display().to_string();
    let mut again = acmegate_tests::acmegate::command();
    again.args(["issue", "www.example.test", "--directory", "testca", "--out", &folder, "--config", &config]);
    acmegate_tests::process::run("acmegate issue", again, LIMIT).await.succeeded();
    assert_issued(first.folder(), &world.ca, &["www.example.test"]).await;
    assert_ne!(acmegate_tests::read(&first.folder().join("cert.pem")), before);
    let mut names: Vec<_> = fs::read_dir(first.folder()).expect("a folder").map(|e| e.expect("an entry").file_name()).collect();
    names.sort();
    let expected = ["..acmegate.2", "..data", "cert.pem", "chain.pem", "fullchain.pem", "privkey.pem"];
    assert_eq!(names, expected, "no older version and no temporary file stays");
}

/// Stopped by SIGTERM while the authority is still looking: the values are taken back before the command ends.
#[tokio::test]
async fn a_stopped_order_takes_its_values_back() {
    let (mut world, _mute) = world_with_a_slow_authority().await;
    let order = order_under_validation(&world).await;
    order.terminate();
    assert_ne!(order.output(LIMIT).await.code, Some(0));
    world.acmegate.start().await;
    assert_no_values_left(&world, &["www.example.test"]).await;
}

/// Killed at the same moment, it can take nothing back: the next process removes its value, and the next order finds the place clean.
#[tokio::test]
async fn a_killed_order_does_not_hinder_the_next() {
    let (mut world, _mute) = world_with_a_slow_authority().await;
    let order = order_under_validation(&world).await;
    order.kill();
    order.ended().await;
    world.acmegate.start().await;
    assert!(dns::txt(world.acmegate.dns(), &target("www.example.test")).await.is_empty(), "the killed order's value is gone");
    dns::txt_becomes(world.resolver.dns(), "_acme-challenge.www.example.test", &[]).await;
    let other = Options::resolver(world.resolver.dns()).start().await;
    let ca_file = other.ca_file().display().to_string();
    let again = world.acmegate.issue(&["www.example.test"]).directory(other.directory()).argument("--ca-file").argument(&ca_file);
    let issued = again.run().await;
    issued.succeeded();
    assert_issued(issued.folder(), &other, &["www.example.test"]).await;
    assert_no_values_left(&world, &["www.example.test"]).await;
}

/// The command dies, `serve` lives: the values of an order that nobody waits for do not stay.
#[tokio::test]
async fn an_order_whose_command_was_killed_leaves_nothing_in_serve() {
    let (mut world, _mute) = world_with_a_slow_authority().await;
    world.acmegate.start().await;
    let order = order_under_validation(&world).await;
    order.kill();
    dns::txt_becomes(world.acmegate.dns(), &target("www.example.test"), &[]).await;
}

/// An authority whose resolver never answers: a validation takes it seconds. `serve` is not started.
async fn world_with_a_slow_authority() -> (World, Silent) {
    let mute = Silent::start();
    let resolver = mute.address().dns().to_string();
    let world = World::builder().ca(move |options| options.argument("-dnsserver").argument(&resolver)).without_serve().start().await;
    world.delegate("www.example.test").await;
    (world, mute)
}

/// A running `acmegate issue www.example.test` whose value is in DNS and whose challenge is with the authority.
async fn order_under_validation(world: &World) -> Process {
    let order = world.acmegate.issue(&["www.example.test"]).spawn();
    order.stderr_line("that the CA validates", |line| line.contains("asked the CA to validate").then_some(())).await;
    assert_eq!(dns::txt(world.resolver.dns(), "_acme-challenge.www.example.test").await.len(), 1, "the value is in DNS");
    order
}

async fn assert_certificate(world: &World, issued: &Issued, names: &[&str]) {
    issued.succeeded();
    assert_issued(issued.folder(), &world.ca, names).await;
}

async fn assert_no_values_left(world: &World, names: &[&str]) {
    for name in names {
        assert!(dns::txt(world.acmegate.dns(), &target(name)).await.is_empty(), "values are left at {}", target(name));
    }
}

fn assert_folder_is_empty(folder: &Path) {
    assert_eq!(fs::read_dir(folder).expect("a folder").count(), 0, "{} should be empty", folder.display());
}

fn assert_authority_was_not_asked_to_validate(world: &World) {
    assert_eq!(requests(world, "/chalZ/"), 0, "a challenge was submitted that could only fail");
}

/// How many requests for a path the authority has handled.
fn requests(world: &World, path: &str) -> usize {
    world.ca.log().matches(&format!("POST {path} -> calling handler()")).count()
}

/// The line that an operator copies into the zone.
fn record_to_create(name: &str) -> String {
    format!("_acme-challenge.{name}. CNAME {}", target(name))
}
