//! Another writer at the same names: the vendor's own client adds and removes values of its own while acmegate does the same, and in the end each has
//! exactly its own.
//!
//! Where that can be promised, it is because records are written one by one (Cloudflare, DigitalOcean, RFC 2136, PowerDNS from 4.9.12 on), or because a set is
//! exchanged only if it is still as it was read (Route 53, Cloud DNS, Azure DNS), and the stranger does so, too. It cannot be promised where neither is to be had:
//!
//! - PowerDNS' API before 4.9.12 overwrites a set whatever stands there: the later of two writers takes away what the other wrote since it read. (Dynamic updates to
//!   the same server are written one by one.)
//! - acme-dns keeps the newest values of an account, whoever wrote them: an account has to be one's own.
//! - The embedded zone has one writer.
#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use acmegate_tests::{
    acmedns::value,
    backends::{AzureDns, Backend, CloudDns, Cloudflare, DigitalOcean, PowerDns, Rfc2136, Route53, Site, ZONE},
    process::Process,
    wait::{LIMIT, until_within},
    webhook::Refusal,
};
use futures_util::future::join_all;

/// How many names both write to.
const NAMES: u64 = 5;

/// Values of ours that come and go at each name.
const VALUES: u64 = 4;

/// A round of the stranger takes so long at least, so that ours come in between. (Nobody's limits allow more, but most emulators would.)
const ROUND: Duration = Duration::from_millis(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cloudflare() {
    beside(Arc::new(Cloudflare::start().await)).await;
}

/// Without the account's rate, which both would share: 500 rounds would take it many minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn route53() {
    let backend = Route53::start().await;
    backend.gate().limit_rate(false);
    beside(Arc::new(backend)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clouddns() {
    beside(Arc::new(CloudDns::start().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn azuredns() {
    beside(Arc::new(AzureDns::start().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn digitalocean() {
    beside(Arc::new(DigitalOcean::start().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rfc2136_bind() {
    beside(Arc::new(Rfc2136::bind().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rfc2136_knot() {
    beside(Arc::new(Rfc2136::knot().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rfc2136_pdns() {
    beside(Arc::new(Rfc2136::pdns().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn powerdns() {
    beside(Arc::new(PowerDns::start_newer().await)).await;
}

async fn beside(backend: Arc<dyn Backend>) {
    let rounds: u64 = std::env::var("ACMEGATE_STRANGER_ROUNDS").map_or(500, |rounds| rounds.parse().expect("a number"));
    let site = Site::start_unseen(backend).await;
    let names: Vec<String> = (0..NAMES).map(|number| format!("_acme-challenge.shared{number}.{ZONE}")).collect();
    let seed = uuid::Uuid::new_v4().to_string();
    eprintln!("{}: seed {seed}", site.backend.id());
    let stranger = site.backend.stranger().unwrap_or_else(|| panic!("{} has no stranger", site.backend.id()));
    let time = ROUND * u32::try_from(rounds).expect("a number of rounds");
    let (start, stranger) = (Instant::now(), Process::spawn("the stranger", stranger.command(rounds, time, &seed, &names)));

    let (over, ours_stood, refused) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let ours = |number: u64| (0..VALUES).map(move |n| value(number * VALUES + n));
    let writers = (0..).zip(&names).flat_map(|(number, name)| ours(number).map(move |one| (name, one)));
    let writers = writers.map(|(name, one)| {
        let (site, over, ours_stood, refused) = (&site, &over, &ours_stood, &refused);
        async move {
            // The last thing each does is to present: so its value stands at the end.
            loop {
                asked(site, "Present", name, &one, refused).await;
                ours_stood.fetch_add(1, Ordering::Relaxed);
                if over.load(Ordering::Relaxed) {
                    return;
                }
                asked(site, "CleanUp", name, &one, refused).await;
            }
        }
    });
    let watch = async {
        let output = stranger.output(LIMIT * 4 + time).await;
        over.store(true, Ordering::Relaxed);
        output
    };
    let (output, _) = futures_util::join!(watch, join_all(writers));
    output.succeeded();
    let theirs: BTreeMap<String, BTreeSet<String>> = serde_json::from_str(&output.stdout).expect("what the stranger holds");
    let (ours_stood, refused, seconds) = (ours_stood.into_inner(), refused.into_inner(), start.elapsed().as_secs());
    eprintln!("{}: {rounds} rounds of the stranger, {ours_stood} of ours, {refused} asked again, {seconds} s", site.backend.id());
    assert!(ours_stood > NAMES * VALUES, "ours came and went beside the stranger");
    assert!(theirs.values().any(|values| !values.is_empty()), "the stranger ends with something");

    let held = |name: &String| theirs.get(name).cloned().unwrap_or_default();
    for (number, name) in (0..).zip(&names) {
        let both: BTreeSet<String> = held(name).into_iter().chain(ours(number)).collect();
        site.becomes(name, &both.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    join_all((0..).zip(&names).flat_map(|(number, name)| ours(number).map(move |one| (name, one))).map(|(name, one)| {
        let site = &site;
        async move { site.clean_up(name, &one).await }
    }))
    .await;
    for name in &names {
        site.becomes(name, &held(name).iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
}

/// Asks until it is done, as cert-manager does, whatever the reason was; a stranger who was faster is one.
async fn asked(site: &Site, action: &str, name: &str, one: &str, refused: &AtomicU64) {
    let url = site.door.url(&site.acmegate);
    let attempt = || async {
        let done = site.door.call(&url, action, name, one).await;
        if matches!(done, Err(Refusal::Said(_))) {
            refused.fetch_add(1, Ordering::Relaxed);
        }
        done
    };
    until_within(LIMIT * 2, &format!("{action} of {one} at {name}"), attempt).await;
}
