//! A million registered accounts: memory after the start, and the time from the start to the first answers.

use std::time::{Duration, Instant};

use acmegate_tests::{
    acmedns::{self, value},
    acmegate::{Acmegate, Config},
    addresses::Address,
    dns,
    measure::{
        fill,
        report::{Figure, Goal, Report, say},
        usage,
    },
};
use anyhow::ensure;
use hickory_proto::rr::RecordType;

const ACCOUNTS: u64 = 1_000_000;
const STARTS: u64 = 5;
const MEMORY_GOAL: f64 = 150.0;
const TIME_GOAL: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    say(&format!("load average {}", usage::load_average()));
    let address = Address::reserve();
    let config = Config::new().dns(address.dns()).zone("auth.example.org", &[("ns1.auth.example.org", address.ip())]);
    let door = address.port(8080);
    let config = config.section("acmedns", &format!("listen: \"{door}\""));
    let mut acmegate = Acmegate::new(config);
    acmegate.start().await;
    let (client, base) = (reqwest::Client::new(), format!("http://{door}"));
    let account = acmedns::register(&client, &base).await?;
    acmedns::update(&client, &base, &account, &value(0)).await?;
    acmegate.stop().await.succeeded();
    let begun = Instant::now();
    fill::accounts(acmegate.data(), ACCOUNTS)?;
    say(&format!("{ACCOUNTS} accounts written in {:.1} s", begun.elapsed().as_secs_f64()));

    let (mut answers, mut updates, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    let query = dns::query(&account.fulldomain, RecordType::TXT).to_vec()?;
    for start in 1..=STARTS {
        let begun = Instant::now();
        let process = acmegate.serve();
        // The kernel refuses what nobody listens for at once, so asking again and again costs little.
        while !matches!(dns::udp(address.dns(), &query, Duration::from_millis(100)).await, Ok(Some(_))) {
            ensure!(begun.elapsed() < Duration::from_secs(60), "no DNS answer within a minute");
            tokio::task::yield_now().await;
        }
        answers.push(begun.elapsed());
        while let Err(error) = acmedns::update(&client, &base, &account, &value(start)).await {
            ensure!(begun.elapsed() < Duration::from_secs(60), "no update within a minute: {error}");
            tokio::task::yield_now().await;
        }
        updates.push(begun.elapsed());
        ensure!(dns::txt(address.dns(), &account.fulldomain).await.contains(&value(start)), "DNS does not answer the update");
        memory.push(usage::resident(process.id())?);
        process.terminate();
        process.ended().await;
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    };
    let resident = memory.iter().max().copied().unwrap_or_default() as f64 / f64::from(1 << 20);
    let mut report = Report::new("A million accounts (yardstick: the goal itself; medians of five starts, the greatest memory)");
    let goal = Goal::AtMost(1.0);
    report.row("resident memory", Figure::new(resident, "MiB"), Figure::new(MEMORY_GOAL, "MiB"), goal);
    report.row("start to first DNS answer", Figure::time(median(&mut answers)), Figure::time(TIME_GOAL), goal);
    report.row("start to first update", Figure::time(median(&mut updates)), Figure::time(TIME_GOAL), goal);
    report.print();
    Ok(())
}
