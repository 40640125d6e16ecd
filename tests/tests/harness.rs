//! The harness itself: its peers start, know each other, and see changes at once. When these fail, look here before elsewhere.

use std::collections::BTreeSet;

use acmegate_tests::{
    addresses::Address,
    bind::{self, Bind},
    dns,
    knot::Knot,
    nsd::Nsd,
    testca::{Options, http_client},
    unbound::Unbound,
};
use hickory_proto::{
    op::ResponseCode,
    rr::{RData, RecordType, rdata::TXT},
};

/// The resolver walks from BIND's root over a CNAME into a zone that another server has by delegation.
#[tokio::test]
async fn the_resolver_follows_delegations_and_fresh_cnames() {
    let (bind, knot, unbound) = (Address::reserve(), Address::reserve(), Address::reserve());
    let served = bind::zone("auth.gateway.test", &knot) + "a.auth.gateway.test. TXT \"value\"\n";
    let knot = Knot::start(knot, &[("auth.gateway.test", served)]).await;
    let root = bind::zone("", &bind) + &format!("example.test. NS ns.example.test.\nns.example.test. A {}\n", bind.ip());
    let customer = bind::zone("example.test", &bind);
    let root = root + &format!("auth.gateway.test. NS ns.auth.gateway.test.\nns.auth.gateway.test. A {}\n", knot.dns().ip());
    let bind = Bind::start(bind, &[(".", root), ("example.test", customer)]).await;
    let unbound = Unbound::start(unbound, bind.dns().ip()).await;

    let challenge = "_acme-challenge.www.example.test.";
    assert_eq!(dns::txt(unbound.dns(), challenge).await, BTreeSet::new());
    bind.add(&format!("{challenge} 60 CNAME a.auth.gateway.test.")).await;
    assert_eq!(dns::txt(unbound.dns(), challenge).await, BTreeSet::from(["value".to_owned()]));
    bind.delete(&format!("{challenge} CNAME")).await;
    dns::txt_becomes(unbound.dns(), challenge, &[]).await;
}

#[tokio::test]
async fn knot_and_nsd_agree_over_udp_and_tcp() {
    let (knot, nsd) = (Address::reserve(), Address::reserve());
    let text = |address| bind::zone("example.test", address) + "txt.example.test. TXT \"one\" \"two\"\n";
    let (knot_text, nsd_text) = (text(&knot), text(&nsd));
    let knot = Knot::start(knot, &[("example.test", knot_text)]).await;
    let nsd = Nsd::start(nsd, &[("example.test", nsd_text)]).await;
    for server in [knot.dns(), nsd.dns()] {
        let answer = dns::ask(server, "txt.example.test", RecordType::TXT).await;
        assert!(answer.metadata.authoritative);
        assert_eq!(answer.answers.first().map(|r| r.data.clone()), Some(RData::TXT(TXT::new(vec!["one".into(), "two".into()]))));
        let missing = dns::ask(server, "none.example.test", RecordType::TXT).await;
        assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
        let query = dns::query("txt.example.test", RecordType::TXT).to_vec().expect("a query encodes");
        assert!(dns::tcp(server, &query).await.expect("TCP is served").is_some());
    }
}

#[tokio::test]
async fn the_authority_shows_its_directory_over_https() {
    let ca = Options::always_valid().block("blocked.example.test").start().await;
    let client = http_client(&ca.ca_file()).expect("a client");
    let directory =
        client.get(ca.directory()).header("user-agent", "harness").send().await.expect("it answers").text().await.expect("a body");
    assert!(directory.contains("newOrder"), "{directory}");
    assert!(ca.issuing_root().await.contains("BEGIN CERTIFICATE"));
}
