//! `acmegate issue`, the whole command, against lego 5 as it comes and against a bare client that makes only the needed requests.
//!
//! All three get their certificates from the same authority, which asks the same resolver; each certificate is for names of its own.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use acmegate_tests::{
    acmedns,
    acmegate::Acmegate,
    measure::{
        Latencies,
        bare::Bare,
        report::{Figure, Goal, Report, say},
        usage,
    },
    peers::peer,
    process::run,
    temporary_folder,
    wait::LIMIT,
    world::{CUSTOMER, World},
};
use anyhow::{Context, ensure};
use reqwest::Client;

/// Certificates of each kind that acmegate and the bare client get.
const RUNS: usize = 20;
/// And lego, which takes seconds for one name and more than a minute for two.
const LEGO_RUNS: usize = 3;
const LEGO_RUNS_OF_TWO: usize = 1;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    say(&format!("load average {}", usage::load_average()));
    let mut world = World::start().await;
    let kinds = ["one", "two"];
    let ours: Vec<String> = ["serve", "alone"].iter().flat_map(|mode| kinds.map(|kind| format!("{mode}-{kind}"))).collect();
    let domains: Vec<String> = ours.iter().flat_map(|set| (0..=RUNS).map(move |n| domain(set, n))).collect();
    world.delegate_all(&domains.iter().map(String::as_str).collect::<Vec<_>>()).await;

    let bare_one = bare(&world, "bare-one", false).await?;
    let bare_two = bare(&world, "bare-two", true).await?;
    let served_one = issue(&world.acmegate, "serve-one", false).await?;
    let served_two = issue(&world.acmegate, "serve-two", true).await?;
    world.acmegate.stop().await.succeeded();
    let alone_one = issue(&world.acmegate, "alone-one", false).await?;
    let alone_two = issue(&world.acmegate, "alone-two", true).await?;
    let lego_one = lego(&world, "lego-one", false, LEGO_RUNS).await?;
    let lego_two = lego(&world, "lego-two", true, LEGO_RUNS_OF_TWO).await?;

    let mut report = Report::new("The whole command, medians (yardsticks: lego 5 over RFC 2136 to BIND; a bare client)");
    let figure = |times: &Latencies| Figure::time(times.median());
    for (mode, one, two) in [("through serve", &served_one, &served_two), ("standalone", &alone_one, &alone_two)] {
        report.row(&format!("{mode}, one name, lego"), figure(one), figure(&lego_one), Goal::TimesLess(20.0));
        report.row(&format!("{mode}, apex and wildcard, lego"), figure(two), figure(&lego_two), Goal::TimesLess(200.0));
        report.row(&format!("{mode}, one name, bare"), figure(one), figure(&bare_one), Goal::AtMost(10.0));
        report.row(&format!("{mode}, apex and wildcard, bare"), figure(two), figure(&bare_two), Goal::AtMost(10.0));
    }
    report.print();
    Ok(())
}

fn domain(set: &str, number: usize) -> String {
    format!("{set}-{number}.{CUSTOMER}")
}

fn names(domain: &str, wildcard: bool) -> Vec<String> {
    let mut names = vec![domain.to_owned()];
    if wildcard {
        names.push(format!("*.{domain}"));
    }
    names
}

fn tell(what: &str, times: &Latencies) {
    let millis = |percent| times.percentile(percent).as_secs_f64() * 1e3;
    say(&format!("{what}: {} runs, min {:.1} ms, p50 {:.1} ms, max {:.1} ms", times.len(), millis(0.0), millis(50.0), millis(100.0)));
}

/// The command from its start to its end. The first run makes the account and does not count.
async fn issue(acmegate: &Acmegate, set: &str, wildcard: bool) -> anyhow::Result<Latencies> {
    let mut runs: Vec<(Duration, String)> = Vec::new();
    for number in 0..=RUNS {
        let names = names(&domain(set, number), wildcard);
        let order = acmegate.issue(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let begun = Instant::now();
        let issued = order.run().await;
        let took = begun.elapsed();
        let said = issued.succeeded().output.stdout.clone() + &issued.output.stderr;
        let timings = said.lines().rfind(|line| line.contains("took ")).unwrap_or_default().trim().to_owned();
        if number > 0 {
            runs.push((took, timings));
        }
    }
    runs.sort();
    let (_, timings) = runs.get(runs.len() / 2).context("a run")?;
    let times = Latencies::new(runs.iter().map(|(took, _)| *took).collect());
    tell(&format!("acmegate issue, {set}"), &times);
    say(&format!("  its run of median length: {timings}"));
    Ok(times)
}

/// lego with its own waits, writing to BIND: the settings are those without which it cannot work on loopback.
async fn lego(world: &World, set: &str, wildcard: bool, runs: usize) -> anyhow::Result<Latencies> {
    let folder = temporary_folder("lego");
    let mut times = Vec::new();
    for number in 0..runs {
        let mut command = Command::new(peer("lego5"));
        command.args(["run", "--server", world.ca.directory(), "--accept-tos", "--email", "lego@example.test", "--dns", "rfc2136"]);
        command.args(["--dns.resolvers", &world.resolver.dns().to_string(), "--dns.propagation.disable-ans"]);
        command.arg("--path").arg(folder.path());
        for name in names(&domain(set, number), wildcard) {
            command.args(["--domains", &name]);
        }
        command.env("LEGO_CA_CERTIFICATES", world.ca.ca_file()).env("RFC2136_NAMESERVER", world.bind.dns().to_string());
        let begun = Instant::now();
        run("lego", command, LIMIT * 4).await.succeeded();
        times.push(begun.elapsed());
    }
    let times = Latencies::new(times);
    tell(set, &times);
    Ok(times)
}

/// The bare client: TXT by our own `/update`, no disk, no checks, one connection that is open already.
async fn bare(world: &World, set: &str, wildcard: bool) -> anyhow::Result<Latencies> {
    let (http, base) = (Client::new(), world.acmegate.url("acmedns", ""));
    let mut delegations = Vec::new();
    let mut accounts = Vec::new();
    for number in 0..=RUNS {
        let account = acmedns::register(&http, &base).await?;
        delegations.push(format!("add _acme-challenge.{}. 60 CNAME {}.", domain(set, number), account.fulldomain));
        accounts.push(account);
    }
    world.bind.update(&delegations).await;
    let mut client = Bare::new(&world.ca).await?;
    let mut times = Vec::new();
    for (number, account) in accounts.iter().enumerate() {
        let (http, base) = (&http, &base);
        let place = |value: String| async move { acmedns::update(http, base, account, &value).await };
        let begun = Instant::now();
        let chain = client.issue(&names(&domain(set, number), wildcard), place).await?;
        let took = begun.elapsed();
        ensure!(chain.contains("BEGIN CERTIFICATE"), "no certificate: {chain}");
        if number > 0 {
            times.push(took);
        }
    }
    let times = Latencies::new(times);
    tell(set, &times);
    Ok(times)
}
