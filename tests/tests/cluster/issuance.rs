//! cert-manager issues through acmegate: each certificate becomes ready, and nothing is left of its challenges.

use std::collections::BTreeSet;

use acmegate_tests::{
    certificates::assert_holds,
    certmanager::{Certificates, Issuer},
    dns,
    world::{CUSTOMER, ZONE, target},
};
use serde_json::Value;

use super::lab::{Lab, Share};

/// One name, in the zone that acmegate serves itself.
#[tokio::test]
async fn one_name() {
    let lab = Lab::share().await;
    let certificates = Certificates::of(&lab.cluster, "one").await;
    let issuer = Issuer::create(&lab.cluster, "one", "acme", &lab.world.ca, &lab.solver()).await;
    let name = format!("one.{ZONE}");
    certificates.create("one", &issuer, &[&name]).await;
    certificates.ready(&["one"]).await;
    issued(&lab, &certificates, "one", &[&name]).await;
    nothing_is_left(&lab, &certificates, &[&challenge(&name)]).await;
}

/// Both have their values at one name; cert-manager has one after the other met.
#[tokio::test]
async fn a_wildcard_with_its_apex() {
    let lab = Lab::share().await;
    let certificates = Certificates::of(&lab.cluster, "wildcard").await;
    let issuer = Issuer::create(&lab.cluster, "wildcard", "acme", &lab.world.ca, &lab.solver()).await;
    let (apex, wildcard) = (format!("wild.{ZONE}"), format!("*.wild.{ZONE}"));
    certificates.create("wildcard", &issuer, &[&apex, &wildcard]).await;
    certificates.ready(&["wildcard"]).await;
    issued(&lab, &certificates, "wildcard", &[&apex, &wildcard]).await;
    nothing_is_left(&lab, &certificates, &[&challenge(&apex)]).await;
}

/// The customer's zone is somebody else's; its challenge name leads to acmegate.
#[tokio::test]
async fn a_delegated_name_with_follow() {
    let lab = Lab::share().await;
    let name = format!("followed.{CUSTOMER}");
    lab.world.delegate(&name).await;
    let certificates = Certificates::of(&lab.cluster, "follow").await;
    let issuer = Issuer::create(&lab.cluster, "follow", "acme", &lab.world.ca, &lab.solver().follow()).await;
    certificates.create("followed", &issuer, &[&name]).await;
    certificates.ready(&["followed"]).await;
    issued(&lab, &certificates, "followed", &[&name]).await;
    nothing_is_left(&lab, &certificates, &[&target(&name)]).await;
}

#[tokio::test]
async fn a_cluster_issuer_for_two_namespaces() {
    let lab = Lab::share().await;
    let issuer = Issuer::create_cluster_wide(&lab.cluster, "for-all", &lab.world.ca, &lab.solver()).await;
    for namespace in ["tenant-a", "tenant-b"] {
        let certificates = Certificates::of(&lab.cluster, namespace).await;
        let name = format!("{namespace}.{ZONE}");
        certificates.create("tenant", &issuer, &[&name]).await;
        certificates.ready(&["tenant"]).await;
        issued(&lab, &certificates, "tenant", &[&name]).await;
        nothing_is_left(&lab, &certificates, &[&challenge(&name)]).await;
    }
}

#[tokio::test]
async fn forty_at_once() {
    let lab = Lab::share().await;
    let certificates = Certificates::of(&lab.cluster, "forty").await;
    let issuer = Issuer::create(&lab.cluster, "forty", "acme", &lab.world.ca, &lab.solver()).await;
    let labels: Vec<_> = (0..40).map(|number| format!("forty-{number}")).collect();
    let name = |label: &String| format!("{label}.{ZONE}");
    for label in &labels {
        certificates.create(label, &issuer, &[&name(label)]).await;
    }
    certificates.ready(&labels.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for label in &labels {
        issued(&lab, &certificates, label, &[&name(label)]).await;
    }
    let owners: Vec<_> = labels.iter().map(|label| challenge(&name(label))).collect();
    nothing_is_left(&lab, &certificates, &owners.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn a_renewal() {
    let lab = Lab::share().await;
    let certificates = Certificates::of(&lab.cluster, "renewal").await;
    let issuer = Issuer::create(&lab.cluster, "renewal", "acme", &lab.world.ca, &lab.solver()).await;
    let name = format!("renewed.{ZONE}");
    certificates.create("renewed", &issuer, &[&name]).await;
    certificates.ready(&["renewed"]).await;
    let (first, _) = certificates.issued("renewed").await;
    certificates.renew("renewed").await;
    issued(&lab, &certificates, "renewed", &[&name]).await;
    let (second, _) = certificates.issued("renewed").await;
    assert_ne!(first, second, "it is another certificate");
    nothing_is_left(&lab, &certificates, &[&challenge(&name)]).await;
}

/// cert-manager asks DNS itself, until it sees the value, before it calls on the authority; and then it sleeps for a minute.
#[tokio::test]
async fn with_cert_managers_own_self_check() {
    let lab = Lab::share().await;
    let certificates = Certificates::of(&lab.cluster, "self-check").await;
    let issuer = Issuer::create(&lab.cluster, "self-check", "acme", &lab.world.ca, &lab.solver().self_check()).await;
    let name = format!("checked.{ZONE}");
    certificates.create("checked", &issuer, &[&name]).await;
    certificates.ready(&["checked"]).await;
    issued(&lab, &certificates, "checked", &[&name]).await;
    nothing_is_left(&lab, &certificates, &[&challenge(&name)]).await;
}

/// Somebody deletes the Certificate while its value stands.
#[tokio::test]
async fn a_certificate_deleted_in_the_middle() {
    let lab = Lab::share().await;
    let certificates = Certificates::of(&lab.cluster, "deleted").await;
    let issuer = Issuer::create(&lab.cluster, "deleted", "acme", &lab.world.ca, &lab.solver().stuck()).await;
    let name = format!("deleted.{ZONE}");
    certificates.create("deleted", &issuer, &[&name]).await;
    stands(&lab, &certificates, &challenge(&name)).await;
    certificates.delete("deleted").await;
    nothing_is_left(&lab, &certificates, &[&challenge(&name)]).await;
}

/// Somebody deletes the whole namespace while a value stands. With an Issuer in it, cert-manager would have lost what it needs for the CleanUp.
#[tokio::test]
async fn a_namespace_deleted_in_the_middle() {
    let lab = Lab::share().await;
    let issuer = Issuer::create_cluster_wide(&lab.cluster, "stuck", &lab.world.ca, &lab.solver().stuck()).await;
    let certificates = Certificates::of(&lab.cluster, "doomed").await;
    let name = format!("doomed.{ZONE}");
    certificates.create("doomed", &issuer, &[&name]).await;
    stands(&lab, &certificates, &challenge(&name)).await;
    certificates.delete_namespace().await;
    assert_eq!(dns::txt(lab.world.acmegate.dns(), &challenge(&name)).await, BTreeSet::new());
}

/// Where the value for a name stands, if nothing leads elsewhere.
fn challenge(name: &str) -> String {
    format!("_acme-challenge.{name}")
}

/// Waits until cert-manager has been told that a value stands, and asserts that it does.
async fn stands(lab: &Share, certificates: &Certificates<'_>, owner: &str) {
    let presented = |challenge: &Value| {
        let is_presented = challenge["status"]["presented"] == true;
        is_presented.then(|| challenge["spec"]["key"].as_str().unwrap_or_default().to_owned())
    };
    let key = certificates.challenge("a challenge to be presented", presented).await;
    assert_eq!(dns::txt(lab.world.acmegate.dns(), owner).await, BTreeSet::from([key]));
}

/// Asserts that the Secret holds a certificate for exactly these names.
async fn issued(lab: &Share, certificates: &Certificates<'_>, name: &str, dns_names: &[&str]) {
    let (chain, key) = certificates.issued(name).await;
    assert_holds(&chain, &key, &lab.world.ca, dns_names).await;
}

/// Waits until no Challenge is left, so that each had its CleanUp; then no value may be left either.
async fn nothing_is_left(lab: &Share, certificates: &Certificates<'_>, owners: &[&str]) {
    certificates.without_challenges().await;
    for owner in owners {
        assert_eq!(dns::txt(lab.world.acmegate.dns(), owner).await, BTreeSet::new(), "{owner}");
    }
}
