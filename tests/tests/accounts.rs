//! `acmegate accounts` and what a directory can be asked for, at a real authority: accounts with every kind of key, new keys, contacts, the end of an account; profiles and chains.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{net::TcpListener, sync::Arc};

use acmegate_tests::{
    acmegate::Issued,
    certificates::assert_issued,
    testca::Options,
    world::{World, ZONE},
};
use serde_json::Value;
use x509_parser::{pem::Pem, x509::X509Name};

/// The kinds of keys that Pebble takes. RSA with more bits is the same but slower.
const KINDS: [&str; 3] = ["p384", "rsa2048", "p256"];

/// Runs `acmegate accounts … --json`.
async fn accounts(world: &World, arguments: &[&str]) -> Value {
    let output = world.acmegate.run(&[&["accounts"], arguments, &["--json"]].concat()).await;
    output.succeeded();
    serde_json::from_str(&output.stdout).expect("JSON")
}

/// A certificate for a name of the zone that acmegate serves, which needs no delegation of its own.
async fn issue(world: &World, label: &str, arguments: &[&str]) -> Issued {
    let name = format!("{label}.{ZONE}");
    let mut order = world.acmegate.issue(&[&name]);
    for argument in arguments {
        order = order.argument(argument);
    }
    let issued = order.run().await;
    issued.succeeded();
    assert_issued(issued.folder(), &world.ca, &[&name]).await;
    issued
}

#[tokio::test]
async fn an_account_changes_its_key_to_every_kind_and_goes_on() {
    let world = World::start().await;
    world.acmegate.run(&["accounts", "show"]).await.exited(1).says("there is no account at");
    assert_eq!(accounts(&world, &["list"]).await, serde_json::json!([]));
    let first = accounts(&world, &["register"]).await;
    assert_eq!((&first["status"], &first["key"]), (&Value::from("valid"), &Value::from("ECDSA P-256")));
    let mut thumbprints = vec![first["thumbprint"].clone()];
    for (number, kind) in KINDS.into_iter().enumerate() {
        let changed = accounts(&world, &["rollover", "--key-type", kind]).await;
        assert_eq!((&changed["url"], &changed["status"]), (&first["url"], &Value::from("valid")), "{kind}: {changed}");
        assert!(!thumbprints.contains(&changed["thumbprint"]), "{kind}: a key of its own");
        thumbprints.push(changed["thumbprint"].clone());
        // Each value is made of the account's key, so the authority judges it.
        issue(&world, &format!("key{number}"), &[]).await;
    }
    let listed = accounts(&world, &["list"]).await;
    assert_eq!(
        (listed.as_array().map(Vec::len), &listed[0]["url"], &listed[0]["key"]),
        (Some(1), &first["url"], &Value::from("ECDSA P-256"))
    );
    assert!(!world.ca.log().contains("There are now 2 accounts in memory"), "it is the same account all the time");
    // A kind that this authority does not take costs nothing.
    world.acmegate.run(&["accounts", "rollover", "--key-type", "ed25519"]).await.exited(1).says("badSignatureAlgorithm");
    let shown = accounts(&world, &["show"]).await;
    assert_eq!((&shown["thumbprint"], &shown["key_change_pending"]), (&listed[0]["thumbprint"], &Value::from(false)));
    issue(&world, "still", &[]).await;
}

/// Without a running `serve` the commands are the engine themselves; each of them is a process of its own, which knows what stands in the store.
#[tokio::test]
async fn accounts_are_looked_after_without_serve_too() {
    let world = World::builder().without_serve().start().await;
    accounts(&world, &["register"]).await;
    let changed = accounts(&world, &["rollover", "--key-type", "rsa2048"]).await;
    let shown = accounts(&world, &["show"]).await;
    assert_eq!((&shown["thumbprint"], &shown["key"]), (&changed["thumbprint"], &Value::from("RSA 2048")));
    let told = accounts(&world, &["contact", "--contact", "ops@example.test"]).await;
    assert_eq!(
        (&told["contact"], &told["contacts_at_ca"]),
        (&Value::from("ops@example.test"), &serde_json::json!(["mailto:ops@example.test"]))
    );
    issue(&world, "alone", &[]).await;
}

#[tokio::test]
async fn a_closed_account_is_over_and_the_next_certificate_makes_another() {
    let world = World::start().await;
    let first = accounts(&world, &["register"]).await;
    world.acmegate.run(&["accounts", "deactivate"]).await.exited(2).says("--yes");
    assert_eq!(accounts(&world, &["deactivate", "--yes"]).await, Value::Null);
    world.acmegate.run(&["accounts", "show"]).await.exited(1).says("there is no account at");
    issue(&world, "after", &[]).await;
    let second = accounts(&world, &["show"]).await;
    assert_ne!(second["url"], first["url"]);
    assert_ne!(second["thumbprint"], first["thumbprint"]);
}

#[tokio::test]
async fn a_profile_is_asked_for_and_one_that_is_not_there_is_refused_before_an_order() {
    let profiles = |options: Options| options.argument("-profiles").argument("default=7776000,shortlived=576000");
    let world = World::builder().ca(profiles).start().await;
    let days = |issued: &Issued| {
        let pem = acmegate_tests::read(&issued.folder().join("cert.pem"));
        let pem = Pem::iter_from_buffer(pem.as_bytes()).next().expect("a certificate").expect("PEM");
        let validity = pem.parse_x509().expect("a certificate").validity().clone();
        (validity.not_after.timestamp() - validity.not_before.timestamp()) / 86_400
    };
    assert_eq!(days(&issue(&world, "short", &["--profile", "shortlived"]).await), 6);
    assert!(days(&issue(&world, "usual", &["--profile", "default"]).await) > 80);
    let wrong = world.acmegate.issue(&[&format!("wrong.{ZONE}")]).argument("--profile").argument("tlsserver").run().await;
    wrong.output.exited(2).says("no profile \"tlsserver\"; it has: default, shortlived");
}

#[tokio::test]
async fn of_several_chains_the_preferred_one_is_taken() {
    let world = World::builder().ca(|options| options.argument("-alternates").argument("2")).start().await;
    let last_issuer = |issued: &Issued| {
        let pems = acmegate_tests::read(&issued.folder().join("fullchain.pem"));
        let last = Pem::iter_from_buffer(pems.as_bytes()).last().expect("a certificate").expect("PEM");
        let certificate = last.parse_x509().expect("a certificate");
        common_name(certificate.issuer())
    };
    let root = |number: usize| {
        let world = &world;
        async move {
            let pem = world.ca.get(&format!("/roots/{number}")).await;
            let pem = Pem::iter_from_buffer(pem.as_bytes()).next().expect("a certificate").expect("PEM");
            let certificate = pem.parse_x509().expect("a certificate");
            common_name(certificate.subject())
        }
    };
    for number in 0..3 {
        let wanted = root(number).await;
        let name = format!("chain{number}.{ZONE}");
        let issued = world.acmegate.issue(&[&name]).argument("--preferred-chain").argument(&wanted).run().await;
        issued.succeeded();
        assert_eq!(last_issuer(&issued), wanted);
    }
    let name = format!("nochain.{ZONE}");
    let issued = world.acmegate.issue(&[&name]).argument("--preferred-chain").argument("Nobody's Root").run().await;
    issued.succeeded();
    issued.output.says("offers no chain that ends with \"Nobody's Root\"");
    assert_eq!(last_issuer(&issued), root(0).await, "the CA's own");
}

/// The first one is gone, the second refuses the name, the third issues. What no authority can mend is no reason to try another.
#[tokio::test]
async fn authorities_are_tried_in_turn() {
    let gone = TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a free port");
    let name = format!("turn.{ZONE}");
    let refusing = Arc::new(Options::always_valid().block(&name).start().await);
    let known = Arc::clone(&refusing);
    let world = World::builder().config(move |config| config.directory("refusing", &known)).start().await;
    let order = || world.acmegate.issue(&[&name]).directory(&format!("https://{gone}/dir")).argument("--fallback").argument("refusing");
    let refused = order().run().await;
    refused.output.exited(1).says(&format!("https://{gone}/dir did not issue, and refusing is tried")).says("the CA refused");
    let issued = order().argument("--fallback").argument("testca").run().await;
    issued.succeeded();
    issued.output.says("refusing did not issue, and testca is tried");
    assert_issued(issued.folder(), &world.ca, &[&name]).await;
    let elsewhere = world.acmegate.issue(&["nowhere.example.test"]).argument("--fallback").argument("refusing").run().await;
    elsewhere.output.exited(1).says("has no CNAME");
    assert!(!elsewhere.output.stderr.contains("is tried"), "{}", elsewhere.output.stderr);
    drop(refusing);
}

fn common_name(name: &X509Name<'_>) -> String {
    name.iter_common_name().next().and_then(|name| name.as_str().ok()).expect("a common name").to_owned()
}
