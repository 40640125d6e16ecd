//! Durable updates and registrations a second at the acme-dns door, against bcrypt and against the disk.

use std::{net::SocketAddr, time::Duration};

use acmegate_tests::{
    acmedns::{self, Account},
    acmegate::{Acmegate, Config},
    addresses::Address,
    measure::{
        http::{self, Request},
        report::{Figure, Goal, Report, say},
        usage, yardstick,
    },
};
use anyhow::Context;

/// How long each load runs, and how long before it is measured.
const DURATION: Duration = Duration::from_secs(5);
const WARM_UP: Duration = Duration::from_secs(1);
/// Of each yardstick, before and after.
const YARDSTICK: Duration = Duration::from_secs(1);
const CONNECTIONS: [usize; 3] = [1, 32, 256];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = Address::reserve();
    let config = Config::new()
        .dns(([127, 0, 0, 1], 0).into())
        .zone("auth.example.org", &[("ns1.auth.example.org", address.ip())])
        .acmedns()
        .metrics();
    let mut acmegate = Acmegate::started(config).await;
    let (door, base) = (acmegate.door("acmedns"), acmegate.url("acmedns", ""));
    let client = reqwest::Client::new();
    let mut accounts = Vec::new();
    for _ in 0..CONNECTIONS.into_iter().max().unwrap_or(1) {
        accounts.push(acmedns::register(&client, &base).await?);
    }

    say(&format!("{} cores, load average {}", yardstick::cores(), usage::load_average()));
    let mut report = Report::new("Durable updates at the acme-dns door");
    let bcrypt_before = yardstick::bcrypt_rate(YARDSTICK * 2)?;
    let mut measured = Vec::new();
    for connections in CONNECTIONS {
        let requests = accounts.iter().take(connections).map(|account| Request::update(door, account)).collect();
        measured.push(measure(&acmegate, &format!("update, {connections} connections"), requests).await?);
    }
    measured.push(measure(&acmegate, "register, 32 connections", vec![Request::register(door); 32]).await?);
    let bcrypt = f64::midpoint(bcrypt_before, yardstick::bcrypt_rate(YARDSTICK * 2)?);
    let fsyncs = |m: &Measured| Figure::new(m.fsyncs, "fsync/s");
    for m in &measured {
        let goal = match m.what.as_str() {
            "update, 256 connections" => Goal::Times(500.0),
            "register, 32 connections" => Goal::Times(200.0),
            _ => Goal::Shown,
        };
        report.row(&m.what, Figure::rate(m.outcome.rate), Figure::new(bcrypt, "bcrypt/s"), goal);
        let goal = if m.what == "update, 1 connections" { Goal::Times(0.5) } else { Goal::Shown };
        report.row(&m.what, Figure::rate(m.outcome.rate), fsyncs(m), goal);
    }
    check_last_value(&acmegate, &accounts, door).await?;
    acmegate.stop().await.succeeded();
    report.print();
    Ok(())
}

struct Measured {
    what: String,
    outcome: http::Outcome,
    /// What the disk did right before and after.
    fsyncs: f64,
}

async fn measure(acmegate: &Acmegate, what: &str, requests: Vec<Request>) -> anyhow::Result<Measured> {
    let (door, pid) = (acmegate.door("acmedns"), acmegate.process().id());
    let folder = acmegate.data().to_owned();
    let fsyncs_before = yardstick::fsyncs(&folder, YARDSTICK)?;
    let (counters, cpu) = (Counters::read(acmegate).await?, usage::cpu(pid)?);
    let outcome = http::run(door, requests, WARM_UP, DURATION)?;
    let (after, cpu) = (Counters::read(acmegate).await?, usage::cpu(pid)?.saturating_sub(cpu));
    let fsyncs_after = yardstick::fsyncs(&folder, YARDSTICK)?;
    let (verbs, commits) = (after.verbs - counters.verbs, after.commits - counters.commits);
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / verbs;
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    say(&format!(
        "{what}: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms; CPU a request: server {:.1} µs, load {:.1} µs; {:.1} verbs a commit, {:.2} ms a commit, \
         {:.0} % of the time in commits; fsync p50 {:.2} ms before, {:.2} ms after",
        outcome.rate,
        millis(outcome.latencies.median()),
        millis(outcome.latencies.percentile(99.0)),
        micros(cpu),
        micros(outcome.load_cpu),
        verbs / commits,
        (after.seconds - counters.seconds) * 1e3 / commits,
        (after.seconds - counters.seconds) * 100.0 / (WARM_UP + DURATION).as_secs_f64(),
        millis(fsyncs_before.median()),
        millis(fsyncs_after.median()),
    ));
    let fsyncs = (fsyncs_before.len() + fsyncs_after.len()) as f64 / (2.0 * YARDSTICK.as_secs_f64());
    Ok(Measured { what: what.into(), outcome, fsyncs })
}

/// What the store has counted so far.
struct Counters {
    verbs: f64,
    commits: f64,
    seconds: f64,
}

impl Counters {
    async fn read(acmegate: &Acmegate) -> anyhow::Result<Self> {
        let text = reqwest::get(acmegate.url("metrics", "/metrics")).await?.text().await?;
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.split_once(' ').filter(|(key, _)| key.ends_with(name)));
            line.and_then(|(_, value)| value.parse::<f64>().ok()).with_context(|| format!("no metric {name}"))
        };
        Ok(Self {
            verbs: value("store_writes_total")?,
            commits: value("store_commit_seconds_count")?,
            seconds: value("store_commit_seconds_sum")?,
        })
    }
}

/// A benchmark of a server that loses its updates would be worth nothing.
async fn check_last_value(acmegate: &Acmegate, accounts: &[Account], door: SocketAddr) -> anyhow::Result<()> {
    let account = accounts.first().context("an account")?;
    let value = acmedns::value(u64::MAX);
    acmedns::update(&reqwest::Client::new(), &format!("http://{door}"), account, &value).await?;
    let found = acmegate_tests::dns::txt(acmegate.dns(), &account.fulldomain).await;
    anyhow::ensure!(found.contains(&value), "DNS does not answer what was acknowledged");
    Ok(())
}
