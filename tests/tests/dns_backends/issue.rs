//! End to end: an authority validates certificates through each backend, whose servers it finds from the root down.
//!
//! The embedded zone and acme-dns stand apart, since names of a customer lead there by CNAME: `tests/issue.rs` and `tests/upstream_acmedns.rs`.

use std::sync::Arc;

use acmegate_tests::{
    backends::{AzureDns, Backend, CloudDns, Cloudflare, DigitalOcean, PowerDns, Rfc2136, Route53, Site, ZONE},
    certificates::assert_issued,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cloudflare() {
    issues(Arc::new(Cloudflare::start().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn route53() {
    issues(Arc::new(Route53::start().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clouddns() {
    issues(Arc::new(CloudDns::start().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn azuredns() {
    issues(Arc::new(AzureDns::start().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn digitalocean() {
    issues(Arc::new(DigitalOcean::start().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rfc2136_bind() {
    issues(Arc::new(Rfc2136::bind().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rfc2136_knot() {
    issues(Arc::new(Rfc2136::knot().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rfc2136_pdns() {
    issues(Arc::new(Rfc2136::pdns().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn powerdns() {
    issues(Arc::new(PowerDns::start().await)).await;
}

/// A name and its wildcard need two values at one name; the zone itself and a name of a few labels come along, at two more.
async fn issues(backend: Arc<dyn Backend>) {
    let site = Site::start_issuing(backend).await;
    let (www, wildcard, deep) = (format!("www.{ZONE}"), format!("*.www.{ZONE}"), format!("a.b.c.{ZONE}"));
    let names = [&www, &wildcard, &deep, ZONE];
    let issued = site.acmegate.issue(&names).run().await;
    issued.output.succeeded();
    assert_issued(issued.folder(), site.ca.as_ref().expect("an authority"), &names).await;
    for name in [&www, &deep, ZONE] {
        site.becomes(&format!("_acme-challenge.{name}"), &[]).await;
    }
}
