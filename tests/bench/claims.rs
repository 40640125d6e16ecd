//! A thousand claims at once, on 500 names of one zone: what that costs at Route 53, at Cloudflare, and by dynamic updates to BIND.
//!
//! The claims come through the webhook door, each on a connection of its own that is open already. The emulated clouds keep their vendors' limits; Route 53's changes
//! are pending for a while, as the real ones are.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use acmegate_tests::{
    acmedns,
    backends::{Backend, Cloudflare, Rfc2136, Route53, Site, ZONE},
    dns,
    measure::{
        report::{Figure, Goal, Report, say},
        usage,
    },
};
use anyhow::Context;
use futures_util::future::join_all;
use hickory_proto::rr::{RData, RecordType};

const NAMES: usize = 500;
const VALUES: usize = 2;
/// How long a change at Route 53 is pending; the real ones take up to a minute.
const PENDING: Duration = Duration::from_secs(10);
/// When the later of the two emulated servers shows a change.
const SERVERS: Duration = Duration::from_millis(150);
/// Changes that a batch at Cloudflare (free plan), and a dynamic update, shall carry.
const BATCH: usize = 200;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    say(&format!("load average {}", usage::load_average()));
    let mut report = Report::new("1,000 claims at once on 500 names of one zone (yardstick: what the limits and delays allow)");
    let calls = |count: usize| Figure::new(count as f64, "calls");

    let route53 = Arc::new(Route53::start().await);
    route53.gate().pend(PENDING);
    let took = burst(route53.clone()).await;
    say(&format!("Route 53: {:.2} s; calls {:?}; {} throttled", took.as_secs_f64(), route53.gate().calls(), route53.gate().throttled()));
    let changes = route53.gate().count("ChangeResourceRecordSets");
    report.row("Route 53, ChangeBatch calls", calls(usize::try_from(changes)?), calls(10), Goal::AtMost(1.0));
    report.row("Route 53, until all are visible", Figure::time(took), Figure::time(PENDING + SERVERS), Goal::AtMost(1.3));
    drop(route53);

    let cloudflare = Arc::new(Cloudflare::start().await);
    let took = burst(cloudflare.clone()).await;
    let batches = cloudflare.emulator().batches();
    say(&format!("Cloudflare: {:.2} s; batches of {batches:?} changes", took.as_secs_f64()));
    report.row("Cloudflare, batches", calls(batches.len()), calls(NAMES * VALUES / BATCH), Goal::AtMost(1.0));
    report.row("Cloudflare, until all are visible", Figure::time(took), Figure::time(SERVERS), Goal::Shown);
    drop(cloudflare);

    let bind = Arc::new(Rfc2136::bind().await);
    let before = serial(&*bind).await?;
    let took = burst(bind.clone()).await;
    // BIND counts up by one for each update.
    let messages = serial(&*bind).await?.wrapping_sub(before) as usize;
    say(&format!("RFC 2136: {:.2} s; {messages} updates", took.as_secs_f64()));
    report.row("RFC 2136, update messages", calls(messages), calls(NAMES * VALUES / BATCH), Goal::AtMost(1.0));
    report.print();
    Ok(())
}

/// From the first call to the last answer, which is given when every server shows the value.
async fn burst(backend: Arc<dyn Backend>) -> Duration {
    let site = Site::start(backend).await;
    let owner = |number: usize| format!("_acme-challenge.n{number}.{ZONE}");
    let claims: Vec<(String, String)> = (0..NAMES * VALUES).map(|number| (owner(number / VALUES), acmedns::value(number as u64))).collect();
    // Nothing is there to be removed: this opens the connections.
    join_all(claims.iter().map(|(owner, value)| site.clean_up(owner, value))).await;
    let begun = Instant::now();
    join_all(claims.iter().map(|(owner, value)| site.present(owner, value))).await;
    begun.elapsed()
}

/// The serial of the zone at the backend's first server.
async fn serial(backend: &dyn Backend) -> anyhow::Result<u32> {
    let server = backend.nameservers().first().map(|(_, address)| SocketAddr::new(*address, 53)).context("a server")?;
    let answer = dns::ask(server, ZONE, RecordType::SOA).await;
    let soa = answer.answers.iter().find_map(|record| if let RData::SOA(soa) = &record.data { Some(soa.serial) } else { None });
    soa.context("a SOA record")
}
