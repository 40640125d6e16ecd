//! What authorities do differently, and what renewal needs of them: external account binding, step-ca, renewal information, orders that replace, revocation.
//!
//! Most of it is `acmegate issue` as people run it. What no command does yet is asked of the library, on the data folder of a command that has ended: the account is the same.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use acmegate_tests::{
    acmegate::{self, Acmegate, Issued},
    certificates::{assert_issued, assert_issued_under, certificates},
    dns, read,
    stepca::{BOUND, OPEN, StepCa},
    testca::Options,
    wait::until,
    world::{World, ZONE, target},
    write,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use gateway::{
    config::{Config, Directory},
    engine::Engine,
    issuer::{CertificateId, IssueError, IssueRequest, Issuer, Outcome, PrivateKeyPem, Replaces, Reporter, RevocationReason, Revoked},
};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

/// A MAC key as CAs hand them out, and another one.
const MAC: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
const OTHER_MAC: &str = "b10lLJs8l1GPIzsLP0s6pMt8O0XVGnfTaCeROxQM0BIt2XrJMDHJZBM5NuQmQJQH";

/// Puts an external account binding into the configuration, in the place of the one before.
fn bind(world: &World, directory: &str, kid: &str, mac: &str) {
    let file = world.acmegate.folder().join("eab-hmac");
    write(&file, mac);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("a mode");
    let bound = format!("name: {directory}, eab: {{ kid: {kid}, hmac_file: {file:?} }},");
    let config = read(world.acmegate.config());
    let at = config.find(&format!("name: {directory},")).expect("the directory");
    let end = at + config[at..].find(" url:").expect("its URL");
    write(world.acmegate.config(), &format!("{}{bound}{}", &config[..at], &config[end..]));
}

#[tokio::test]
async fn an_account_is_bound_to_another_one_outside_of_acme() {
    let world = World::builder().without_serve().ca(|options| options.external_account("kid-1", MAC)).start().await;
    let name = format!("bound.{ZONE}");
    let order = || world.acmegate.issue(&[&name]).run();
    order().await.output.exited(2).says("the CA wants external account binding: set eab (kid and hmac_file)");
    for (kid, mac, says) in [
        ("kid-1", OTHER_MAC, "external account binding JWS verification error"),
        ("kid-2", MAC, "references a key that is not known to the ACME server"),
    ] {
        bind(&world, "testca", kid, mac);
        let refused = order().await;
        refused.output.exited(1).says("the CA refused the account's registration").says(says);
        refused.output.never_says(mac).never_says(MAC);
    }
    bind(&world, "testca", "kid-1", "no base64!");
    order().await.output.exited(2).never_says("no base64!");
    // The key that was refused is the one that is registered in the end: it was on disk before the CA saw it.
    bind(&world, "testca", "kid-1", &format!("{MAC}\n"));
    let issued = order().await;
    issued.succeeded().output.never_says(MAC);
    assert_issued(issued.folder(), &world.ca, &[&name]).await;
    assert!(world.ca.log().contains("Successful newAccount Binding with CA using kid \"kid-1\""));
    // Whoever is registered needs it no more.
    write(world.acmegate.config(), &read(world.acmegate.config()).replace("kid: kid-1", "kid: kid-3"));
    order().await.succeeded();
}

/// What the authority remembers to be proved needs no DNS at all: the record may be gone.
#[tokio::test]
async fn a_remembered_authorization_needs_no_dns() {
    let world = World::builder().ca(|options| options.variable("PEBBLE_AUTHZREUSE", "100")).start().await;
    let name = "remembered.example.test";
    world.delegate(name).await;
    world.acmegate.issue(&[name]).run().await.succeeded();
    world.bind.delete(&format!("_acme-challenge.{name}. CNAME")).await;
    let again = world.acmegate.issue(&[name]).run().await;
    again.succeeded();
    assert_issued(again.folder(), &world.ca, &[name]).await;
    assert!(dns::txt(world.acmegate.dns(), &target(name)).await.is_empty());
}

/// Authorities remember for hours or days. What they have forgotten is proved anew.
#[tokio::test]
async fn an_authorization_that_is_over_is_proved_anew() {
    let world = World::builder().ca(|options| options.variable("PEBBLE_AUTHZREUSE", "100")).start().await;
    let name = format!("short.{ZONE}");
    let mut proved = Vec::new();
    for forgets in [false, false, true, false] {
        if forgets {
            world.ca.end_authorizations().await;
        }
        let issued = world.acmegate.issue(&[&name]).run().await;
        issued.succeeded();
        proved.push(issued.output.stderr.contains("asked the CA to validate"));
    }
    assert_eq!(proved, [true, false, true, false]);
}

/// `acmegate issue` from step-ca.
async fn issue_from(ca: &StepCa, world: &World, names: &[&str]) -> Issued {
    let ca_file = ca.ca_file().display().to_string();
    world.acmegate.issue(names).directory(&ca.directory(OPEN)).argument("--ca-file").argument(&ca_file).run().await
}

#[tokio::test]
async fn step_ca_issues_and_issues_again() {
    let world = World::start().await;
    let ca = StepCa::start(world.resolver.dns()).await;
    world.delegate_all(&["www.example.test", "example.test"]).await;
    for names in
        [&["www.example.test"][..], &["example.test", "*.example.test"], &["www.example.test"], &["example.test", "*.example.test"]]
    {
        let issued = issue_from(&ca, &world, names).await;
        issued.succeeded();
        assert_issued_under(issued.folder(), &ca.issuing_root(), names);
        for name in ["www.example.test", "example.test"] {
            assert!(dns::txt(world.acmegate.dns(), &target(name)).await.is_empty(), "nothing is left at {}", target(name));
        }
    }
}

/// Each of them makes its first order with an account that is registered in this very moment.
#[tokio::test]
async fn step_ca_issues_many_at_once() {
    let world = World::start().await;
    let ca = StepCa::start(world.resolver.dns()).await;
    let names: Vec<_> = (0..12).map(|number| format!("n{number}.{ZONE}")).collect();
    let all = join_all(names.iter().map(async |name| issue_from(&ca, &world, &[name]).await)).await;
    for (issued, name) in all.iter().zip(&names) {
        issued.succeeded();
        assert_issued_under(issued.folder(), &ca.issuing_root(), &[name]);
    }
}

#[tokio::test]
async fn step_ca_takes_every_kind_of_key() {
    let world = World::start().await;
    let ca = StepCa::start(world.resolver.dns()).await;
    let ca_file = ca.ca_file().display().to_string();
    for kind in ["p384", "rsa2048"] {
        let name = format!("{kind}.{ZONE}");
        let order = world.acmegate.issue(&[&name]).directory(&ca.directory(OPEN)).argument("--ca-file").argument(&ca_file);
        let issued = order.argument("--key-type").argument(kind).run().await;
        issued.succeeded();
        assert_issued_under(issued.folder(), &ca.issuing_root(), &[&name]);
    }
    // Its directory says that it changes keys of accounts. It does not, and the account goes on with the one it has.
    let directory = ca.directory(OPEN);
    let at = ["--directory", &directory, "--ca-file", &ca_file];
    world.acmegate.run(&[&["accounts", "rollover", "--key-type", "p384"], &at[..]].concat()).await.exited(1).says("the CA refused");
    world.acmegate.run(&[&["accounts", "show"], &at[..]].concat()).await.succeeded().says("ECDSA P-256").never_says("cut off");
    issue_from(&ca, &world, &[&format!("still.{ZONE}")]).await.succeeded();
}

#[tokio::test]
async fn step_ca_wants_an_account_that_its_administrator_knows() {
    let world = World::builder().without_serve().start().await;
    let ca = StepCa::start(world.resolver.dns()).await;
    let name = format!("bound.{ZONE}");
    let ca_file = ca.ca_file().display().to_string();
    let order = || world.acmegate.issue(&[&name]).directory(&ca.directory(BOUND)).argument("--ca-file").argument(&ca_file).run();
    order().await.output.exited(2).says("the CA wants external account binding: set eab (kid and hmac_file)");
    let config = read(world.acmegate.config());
    write(world.acmegate.config(), &config.replace(world.ca.directory(), &ca.directory(BOUND)));
    bind(&world, "testca", "unknown", MAC);
    order().await.output.exited(1).says("the CA refused the account's registration").never_says(MAC);
}

/// Its resolver knows nothing of the name: it looks, finds nothing, and waits to be asked again. That is told soon, and not after the time that a validation may take.
#[tokio::test]
async fn step_ca_that_does_not_find_the_value_is_quoted() {
    let world = World::start().await;
    // The servers of the root alone, which refer elsewhere.
    let ca = StepCa::start(world.bind.dns()).await;
    let name = format!("unseen.{ZONE}");
    let refused = issue_from(&ca, &world, &[&name]).await;
    refused.output.exited(1).says(&format!("the CA refused the challenge for {name}")).says("(dns)");
    assert!(dns::txt(world.acmegate.dns(), &format!("_acme-challenge.{name}")).await.is_empty());
}

/// The library on the data folder of an installation, none of whose processes runs.
struct Here {
    issuer: Issuer,
    directory: Directory,
}

impl Here {
    fn open(acmegate: &Acmegate) -> Self {
        let config = Arc::new(Config::load(Some(acmegate.config())).expect("a configuration"));
        let directory = config.issuer.directories.first().cloned().expect("a directory");
        let engine = Engine::open(config, &mut Registry::default()).expect("the data folder is free");
        Self { issuer: Issuer::new(engine), directory }
    }

    async fn issue(&self, name: &str, replaces: Option<Replaces>) -> Result<String, IssueError> {
        let request = IssueRequest { replaces, ..IssueRequest::of(vec![name.to_owned()], self.directory.clone()) };
        match self.issuer.issue(request, Reporter::silent(), CancellationToken::new()).await? {
            Outcome::Issued(issued) => {
                self.issuer.delivered(&issued).await;
                Ok(issued.certificate_pem)
            }
            Outcome::Rehearsed(_) => panic!("nobody wanted a rehearsal"),
        }
    }
}

/// A world whose authority remembers what was proved, a certificate in files, and the library, which needs no DNS from there on.
async fn renewing(name: &str) -> (World, Issued, Here) {
    let world = World::builder().without_serve().ca(|options: Options| options.variable("PEBBLE_AUTHZREUSE", "100")).start().await;
    let issued = world.acmegate.issue(&[name]).run().await;
    issued.succeeded();
    let here = Here::open(&world.acmegate);
    (world, issued, here)
}

fn file(issued: &Issued, name: &str) -> String {
    read(&issued.folder().join(name))
}

#[tokio::test]
async fn the_authority_says_when_it_would_like_a_certificate_to_be_renewed() {
    let (world, issued, here) = renewing(&format!("ari.{ZONE}")).await;
    let certificate = file(&issued, "cert.pem");
    let id = CertificateId::of(&certificate).expect("an identifier");
    let asked = || here.issuer.renewal_info(&here.directory, &id);
    let info = asked().await.expect("an answer").expect("renewal information");
    let now = SystemTime::now();
    let days = |from: SystemTime, to: SystemTime| to.duration_since(from).expect("later").as_secs() / 86_400;
    assert_eq!((days(info.start, info.end), info.explanation), (2, None));
    assert!((55..=60).contains(&days(now, info.start)), "two thirds of 90 days, less a day");
    assert!(info.poll_after > Duration::from_secs(6 * 3600 - 60) && info.poll_after <= Duration::from_secs(6 * 3600));
    // The authority changes its mind: the window is over, and there is a page that says why.
    let window =
        r#"{"suggestedWindow":{"start":"2020-01-01T00:00:00Z","end":"2020-01-02T00:00:00Z"},"explanationURL":"https://ca.test/incident"}"#;
    world.ca.set_renewal_info(&certificate, window).await;
    let info = asked().await.expect("an answer").expect("renewal information");
    assert!(info.end < now && info.start < info.end);
    assert_eq!(info.explanation.as_deref(), Some("https://ca.test/incident"));
    world.ca.set_renewal_info(&certificate, r#"{"suggestedWindow":{"start":"2030-01-02T00:00:00Z","end":"2030-01-01T00:00:00Z"}}"#).await;
    let wrong = asked().await.expect_err("a window that ends before it begins");
    assert!(matches!(&wrong, IssueError::Unreachable { text, .. } if text.contains("its window ends at 2030-01-01T00:00:00Z")), "{wrong}");
    // One that it has not issued, under the same issuer.
    let (key, _) = id.as_str().split_once('.').expect("two parts");
    let unknown: CertificateId = format!("{key}.AQID").parse().expect("an identifier");
    assert_eq!(here.issuer.renewal_info(&here.directory, &unknown).await, Ok(None));
}

#[tokio::test]
async fn a_renewal_says_what_it_replaces_and_is_made_where_that_is_refused() {
    let name = format!("replaced.{ZONE}");
    let (world, issued, here) = renewing(&name).await;
    let replacements = || world.ca.log().matches(" is a replacement of ").count();
    let orders = || world.ca.log().matches("Added order ").count();
    // Pebble does not find a certificate again whose serial number begins with a zero.
    let mut certificate = file(&issued, "cert.pem");
    let id = loop {
        let id = CertificateId::of(&certificate).expect("an identifier");
        let serial = id.as_str().split_once('.').and_then(|(_, serial)| URL_SAFE_NO_PAD.decode(serial).ok()).expect("a serial number");
        if serial.first() != Some(&0) {
            break id;
        }
        certificate = here.issue(&name, None).await.expect("another one");
    };
    let replaces = |directory: &str| Some(Replaces { directory: directory.to_owned(), certificate: id.clone() });
    let ours = here.directory.url.clone();
    let before = orders();
    here.issue(&name, replaces("https://other-ca.test/directory")).await.expect("a certificate");
    assert_eq!((replacements(), orders()), (0, before + 1), "this CA is not told of another's certificate");
    here.issue(&name, replaces(&ours)).await.expect("a certificate");
    assert_eq!((replacements(), orders()), (1, before + 2));
    let noted = || async { if world.ca.log().contains("marked as replaced in the DB") { Ok(()) } else { Err("not yet") } };
    until("the authority to note what was replaced", noted).await;
    // It refuses the second one (alreadyReplaced), which is issued as one that replaces nothing.
    here.issue(&name, replaces(&ours)).await.expect("a certificate");
    assert_eq!((replacements(), orders()), (1, before + 3));
}

#[tokio::test]
async fn a_certificate_is_revoked_by_the_account_or_by_its_own_key() {
    let world = World::builder().without_serve().start().await;
    let (one, other) = (format!("one.{ZONE}"), format!("other.{ZONE}"));
    let (one, other) = (world.acmegate.issue(&[&one]).run().await, world.acmegate.issue(&[&other]).run().await);
    let here = Here::open(&world.acmegate);
    let certificate = file(&one, "cert.pem");
    let by_account = |reason| here.issuer.revoke(&here.directory, &certificate, None, reason);
    assert_eq!(by_account(RevocationReason::Superseded).await, Ok(Revoked::Now));
    assert_eq!(by_account(RevocationReason::KeyCompromise).await, Ok(Revoked::Before));
    let serial = certificate_status(&world, &certificate).await;
    assert!(serial.contains("Revoked") && serial.contains("\"Reason\": 4"), "{serial}");
    // To another account of the same authority it is not the account's to revoke; but whoever has its key may.
    let elsewhere = Acmegate::new(acmegate::Config::new().directory("testca", &world.ca));
    elsewhere.run(&["accounts", "register"]).await.succeeded();
    let stranger = Here::open(&elsewhere);
    let certificate = file(&other, "cert.pem");
    let by_stranger = async |key: Option<&Issued>| {
        let key = key.map(|issued| PrivateKeyPem::new(file(issued, "privkey.pem")));
        stranger.issuer.revoke(&stranger.directory, &certificate, key.as_ref(), RevocationReason::KeyCompromise).await
    };
    let refused = by_stranger(None).await.expect_err("another account's certificate");
    assert!(matches!(&refused, IssueError::Refused { problem, .. } if problem.is("unauthorized")), "{refused}");
    let wrong = by_stranger(Some(&one)).await.expect_err("the key of another certificate");
    assert!(wrong.to_string().contains("does not belong"), "{wrong}");
    assert_eq!(by_stranger(Some(&other)).await, Ok(Revoked::Now));
}

/// What Pebble's management says of a certificate.
async fn certificate_status(world: &World, pem: &str) -> String {
    let leaf = certificates(pem).remove(0);
    let (_, leaf) = X509Certificate::from_der(&leaf).expect("a certificate");
    let serial: String = leaf.tbs_certificate.serial.to_bytes_be().iter().map(|byte| format!("{byte:02x}")).collect();
    world.ca.get(&format!("/cert-status-by-serial/{serial}")).await
}

#[tokio::test]
async fn step_ca_revokes_and_has_no_renewal_information() {
    let world = World::builder().without_serve().start().await;
    let ca = StepCa::start(world.resolver.dns()).await;
    let [first, second] = [format!("first.{ZONE}"), format!("second.{ZONE}")];
    let issued = issue_from(&ca, &world, &[&first]).await;
    issued.succeeded();
    let other = issue_from(&ca, &world, &[&second]).await;
    other.succeeded();
    let here = Here::open(&world.acmegate);
    let open = Directory { ca_file: Some(ca.ca_file()), ..Directory::at(&ca.directory(OPEN)) };
    let certificate = file(&issued, "cert.pem");
    let id = CertificateId::of(&certificate).expect("an identifier");
    assert_eq!(here.issuer.renewal_info(&open, &id).await, Ok(None));
    let revoke = |key: Option<PrivateKeyPem>, certificate: String, reason| {
        let (issuer, open) = (here.issuer.clone(), open.clone());
        async move { issuer.revoke(&open, &certificate, key.as_ref(), reason).await }
    };
    assert_eq!(revoke(None, certificate.clone(), RevocationReason::CessationOfOperation).await, Ok(Revoked::Now));
    assert_eq!(revoke(None, certificate, RevocationReason::Unspecified).await, Ok(Revoked::Before));
    // By its key alone: from a data folder that has no account there.
    let elsewhere = Acmegate::new(acmegate::Config::new().directory("testca", &world.ca));
    let stranger = Here::open(&elsewhere);
    let (certificate, key) = (file(&other, "cert.pem"), PrivateKeyPem::new(file(&other, "privkey.pem")));
    let by_stranger = |key| stranger.issuer.revoke(&open, &certificate, key, RevocationReason::KeyCompromise);
    assert_eq!(by_stranger(None).await, Err(IssueError::NoAccount { directory: open.url.clone() }));
    assert_eq!(by_stranger(Some(&key)).await, Ok(Revoked::Now));
}
