//! The latency of DNS answers: idle, and while 32 clients update and register as fast as they can.
//!
//! On a machine whose cores are all busy some of the latency is the machine's own: an echo in this program, asked in the same way at the same time,
//! shows how much.

use std::{
    net::{SocketAddr, UdpSocket},
    process::Command,
    thread,
    time::Duration,
};

use acmegate_tests::{
    acmedns,
    acmegate::{Acmegate, Config},
    addresses::Address,
    measure::{
        Latencies, dns,
        http::{Load, Request},
        report::{Figure, Goal, Report, say},
        usage,
    },
};
use anyhow::anyhow;
use rustix::process::setpriority_process;

const DURATION: Duration = Duration::from_secs(8);
const WARM_UP: Duration = Duration::from_secs(1);
const CLIENTS: usize = 32;
/// Between two queries: a resolver's questions come now and then, not back to back.
const PAUSE: Duration = Duration::from_millis(1);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = Address::reserve();
    let config =
        Config::new().dns(([127, 0, 0, 1], 0).into()).zone("auth.example.org", &[("ns1.auth.example.org", address.ip())]).acmedns();
    let mut acmegate = Acmegate::started(config).await;
    let (door, base, server) = (acmegate.door("acmedns"), acmegate.url("acmedns", ""), acmegate.dns());
    let client = reqwest::Client::new();
    let mut accounts = Vec::new();
    for seed in 0..CLIENTS as u64 {
        let account = acmedns::register(&client, &base).await?;
        acmedns::update(&client, &base, &account, &acmedns::value(seed)).await?;
        accounts.push(account);
    }
    let names: Vec<String> = accounts.iter().map(|account| account.fulldomain.clone()).collect();
    let queries = dns::queries(&names)?;

    say(&format!("load average {}", usage::load_average()));
    let echo = echo()?;
    let probes = || -> anyhow::Result<[Probed; 2]> {
        let [ours, echoed] = [server, echo].map(|server| probe(server, queries.clone()));
        Ok([outcome(ours)?, outcome(echoed)?])
    };
    let [idle, idle_echo] = probes()?;
    // Half of the clients update, half register.
    let updates = accounts.iter().step_by(2).map(|account| Request::update(door, account));
    let registers = (0..CLIENTS / 2).map(|_| Request::register(door));
    let load = Load::start(door, updates.chain(registers).collect(), WARM_UP, DURATION);
    let [busy, busy_echo] = probes()?;
    let load = load.outcome()?;
    acmegate.stop().await.succeeded();

    say(&format!("while busy: {:.0} updates and registrations a second", load.rate));
    for (when, (latencies, lost)) in [("idle", &idle), ("busy", &busy), ("idle, echo", &idle_echo), ("busy, echo", &busy_echo)] {
        let micros = |percent| latencies.percentile(percent).as_secs_f64() * 1e6;
        let (p50, p90, p99, p999) = (micros(50.0), micros(90.0), micros(99.0), micros(99.9));
        let count = latencies.len();
        say(&format!("{when}: {count} queries, {lost} lost, p50 {p50:.0} µs, p90 {p90:.0} µs, p99 {p99:.0} µs, p99.9 {p999:.0} µs"));
    }
    let mut report = Report::new("DNS latency while 32 clients update and register");
    let figure = |probed: &Probed, percent| Figure::micros(probed.0.percentile(percent));
    report.row("busy against idle, median", figure(&busy, 50.0), figure(&idle, 50.0), Goal::Shown);
    report.row("busy against idle, p99", figure(&busy, 99.0), figure(&idle, 99.0), Goal::AtMost(2.0));
    report.row("busy against a busy echo, median", figure(&busy, 50.0), figure(&busy_echo, 50.0), Goal::Shown);
    report.row("busy against a busy echo, p99", figure(&busy, 99.0), figure(&busy_echo, 99.0), Goal::Shown);
    report.print();
    Ok(())
}

type Probed = (Latencies, u64);
type Probe = thread::JoinHandle<anyhow::Result<Probed>>;

/// Asks from a thread that need not wait for the load generator's turn on the core, as a resolver on another machine would not.
fn probe(server: SocketAddr, queries: Vec<Vec<u8>>) -> Probe {
    thread::spawn(move || {
        go_at_once();
        dns::latencies(server, &queries, PAUSE, DURATION)
    })
}

fn outcome(probe: Probe) -> anyhow::Result<Probed> {
    probe.join().map_err(|_| anyhow!("the probe died"))?
}

/// Starts a server that gives back what it gets, with the priority that acmegate's has; it ends with the program.
fn echo() -> anyhow::Result<SocketAddr> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let address = socket.local_addr()?;
    thread::spawn(move || {
        go_first(-10);
        let mut datagram = [0; 4096];
        while let Ok((length, client)) = socket.recv_from(&mut datagram) {
            let _ = socket.send_to(datagram.get(..length).unwrap_or_default(), client);
        }
    });
    Ok(address)
}

/// Real-time priority for the calling thread (`chrt` of util-linux), or else the highest ordinary one.
fn go_at_once() {
    let thread = std::fs::read_link("/proc/thread-self").ok();
    let thread = thread.as_deref().and_then(std::path::Path::file_name);
    let done =
        thread.is_some_and(|id| Command::new("chrt").args(["--fifo", "--pid", "1"]).arg(id).status().is_ok_and(|status| status.success()));
    if !done {
        go_first(-20);
    }
}

fn go_first(nice: i32) {
    if let Err(error) = setpriority_process(None, nice) {
        say(&format!("a thread of this program runs at ordinary priority ({error}): its own waits for a core count as latency"));
    }
}
