//! CPU time a DNS query: acmegate, Knot and hickory-server on the same zone of 100,000 names with two TXT values each.
//!
//! Each server runs on core 0 alone, the load on core 1. This program is also the server built from hickory-server: it starts itself again.

use std::{fmt::Write as _, fs, net::SocketAddr, path::Path, process::Command, sync::Arc, thread, time::Duration};

use acmegate_tests::{
    acmedns::{self, value},
    acmegate::{Acmegate, Config},
    addresses::Address,
    bind,
    knot::Knot,
    measure::{
        dns, fill,
        report::{Figure, Goal, Report, say},
        usage,
    },
    process::{Process, run},
    program, temporary_folder,
    wait::LIMIT,
};
use anyhow::{Context, anyhow};
use hickory_proto::rr::{
    Name, RData, Record,
    rdata::{NS, SOA, TXT},
};
use hickory_server::{
    Server,
    store::in_memory::InMemoryZoneHandler,
    zone_handler::{AxfrPolicy, Catalog, ZoneType},
};

const ZONE: &str = "auth.example.org";
const NAMES: u64 = 100_000;
const VALUES: u64 = 2;
const DURATION: Duration = Duration::from_secs(5);
/// Outstanding queries of our own load generator; of dnsperf it is 100 unless told otherwise.
const WINDOW: usize = 64;
/// The argument that makes this program a server.
const AS_SERVER: &str = "hickory-server";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    match arguments.get(1..) {
        Some([mode, names]) if mode == AS_SERVER => runtime.block_on(serve_with_hickory(Path::new(names))),
        _ => runtime.block_on(compare()),
    }
}

async fn compare() -> anyhow::Result<()> {
    say(&format!("load average {}", usage::load_average()));
    let address = Address::reserve();
    let mut acmegate = Acmegate::new(
        Config::new().dns(([127, 0, 0, 1], 0).into()).zone(ZONE, &[("ns1.auth.example.org", address.ip())]).acmedns_with("lifetime: never"),
    );
    let names = fill_acmegate(&mut acmegate).await?;
    acmegate.start().await;
    let folder = temporary_folder("dns-cpu");
    let list = folder.path().join("names");
    fs::write(&list, names.join("\n"))?;
    let load = Load::new(folder.path(), &names)?;

    let ours = load.measure("acmegate", acmegate.process().id(), acmegate.dns()).await?;
    acmegate.stop().await.succeeded();

    let knot = Knot::start(Address::reserve(), &[(ZONE, zone_file(&names)?)]).await;
    let knots = load.measure("Knot", knot.process().id(), knot.dns()).await?;
    drop(knot);

    let mut command = Command::new(std::env::current_exe()?);
    command.arg(AS_SERVER).arg(&list);
    let hickory = Process::spawn(AS_SERVER, command);
    let listening = hickory.stdout_line("its address", |line| line.strip_prefix("listening ")?.parse().ok()).await;
    let hickorys = load.measure(AS_SERVER, hickory.id(), listening).await?;
    drop(hickory);

    let mut report = Report::new("CPU time of the server for an answered query (100,000 names × 2 TXT, one core)");
    let figure = |time: Duration| Figure::micros(time);
    for (at, load) in ["dnsperf", "own load"].iter().enumerate() {
        let of = |costs: &[Duration; 2]| figure(costs.get(at).copied().unwrap_or_default());
        report.row(&format!("hickory-server, {load}"), of(&ours), of(&hickorys), Goal::TimesLess(2.0));
        report.row(&format!("Knot, {load}"), of(&ours), of(&knots), Goal::Shown);
    }
    report.print();
    Ok(())
}

/// Writes the names into its store before its last start.
async fn fill_acmegate(acmegate: &mut Acmegate) -> anyhow::Result<Vec<String>> {
    acmegate.start().await;
    let (client, base) = (reqwest::Client::new(), acmegate.url("acmedns", ""));
    let account = acmedns::register(&client, &base).await?;
    acmedns::update(&client, &base, &account, &value(0)).await?;
    acmegate.stop().await.succeeded();
    fill::values(acmegate.data(), NAMES, VALUES)
}

fn zone_file(names: &[String]) -> anyhow::Result<String> {
    let address = Address::reserve();
    let mut text = bind::zone(ZONE, &address);
    for name in names {
        for number in 0..VALUES {
            writeln!(text, "{}. 1 TXT \"{}\"", name.trim_end_matches('.'), value(number))?;
        }
    }
    Ok(text)
}

struct Load {
    file: std::path::PathBuf,
    queries: Arc<Vec<Vec<u8>>>,
}

impl Load {
    fn new(folder: &Path, names: &[String]) -> anyhow::Result<Self> {
        // In an order that has nothing to do with that of the zone.
        let mut names = names.to_vec();
        names.sort_by_key(|name| name.chars().rev().collect::<String>());
        let file = folder.join("queries");
        fs::write(&file, names.iter().map(|name| format!("{name} TXT\n")).collect::<String>())?;
        Ok(Self { file, queries: Arc::new(dns::queries(&names)?) })
    }

    /// CPU time a query under dnsperf, and under our own load.
    async fn measure(&self, name: &str, pid: u32, server: SocketAddr) -> anyhow::Result<[Duration; 2]> {
        usage::pin(pid, 0)?;
        self.dnsperf(server, Duration::from_secs(1)).await?;
        let mut costs = [Duration::ZERO; 2];
        for (at, cost) in costs.iter_mut().enumerate() {
            let before = usage::cpu(pid)?;
            let answered = if at == 0 { self.dnsperf(server, DURATION).await? } else { self.own(server, DURATION)? };
            let used = usage::cpu(pid)?.saturating_sub(before);
            *cost = used.div_f64(answered.max(1) as f64);
            let load = if at == 0 { "dnsperf" } else { "own load" };
            let rate = answered as f64 / DURATION.as_secs_f64();
            say(&format!(
                "{name}, {load}: {rate:.0} answers/s, {:.2} µs of CPU each, {:.0} % of the core",
                cost.as_secs_f64() * 1e6,
                100.0 * used.as_secs_f64() / DURATION.as_secs_f64()
            ));
        }
        Ok(costs)
    }

    async fn dnsperf(&self, server: SocketAddr, duration: Duration) -> anyhow::Result<u64> {
        let mut command = Command::new(program("taskset"));
        command.args(["-c", "1"]).arg(program("dnsperf")).args(["-s", &server.ip().to_string(), "-p", &server.port().to_string()]);
        command.arg("-d").arg(&self.file).args(["-e", "-c", "1", "-T", "1", "-l", &duration.as_secs().to_string()]);
        let output = run("dnsperf", command, LIMIT).await;
        output.succeeded();
        let after = |label: &str| output.stdout.lines().find_map(|line| line.trim().strip_prefix(label)).map(str::trim);
        let codes = after("Response codes:").context("dnsperf names no response codes")?;
        anyhow::ensure!(codes.contains("NOERROR") && !codes.contains(", "), "answers other than NOERROR: {codes}");
        let completed = after("Queries completed:").and_then(|text| text.split_whitespace().next()).context("no queries completed")?;
        Ok(completed.parse()?)
    }

    fn own(&self, server: SocketAddr, duration: Duration) -> anyhow::Result<u64> {
        let queries = Arc::clone(&self.queries);
        let asking = thread::spawn(move || {
            usage::pin_this_thread(1)?;
            dns::blast(server, &queries, WINDOW, duration)
        });
        asking.join().map_err(|_| anyhow!("the load died"))?
    }
}

/// The smallest authoritative server that hickory-server makes: one zone in memory, UDP.
async fn serve_with_hickory(names: &Path) -> anyhow::Result<()> {
    let origin = Name::from_ascii(format!("{ZONE}."))?;
    let server = Name::from_ascii(format!("ns1.{ZONE}."))?;
    let mut handler: InMemoryZoneHandler = InMemoryZoneHandler::empty(origin.clone(), ZoneType::Primary, AxfrPolicy::Deny);
    let soa = SOA::new(server.clone(), Name::from_ascii("hostmaster.example.org.")?, 1, 3600, 600, 86_400, 1);
    handler.upsert_mut(Record::from_rdata(origin.clone(), 60, RData::SOA(soa)), 1);
    handler.upsert_mut(Record::from_rdata(origin.clone(), 60, RData::NS(NS(server))), 1);
    for name in fs::read_to_string(names)?.lines() {
        let name = Name::from_ascii(format!("{}.", name.trim_end_matches('.')))?;
        for number in 0..VALUES {
            handler.upsert_mut(Record::from_rdata(name.clone(), 1, RData::TXT(TXT::new(vec![value(number)]))), 1);
        }
    }
    let mut catalog = Catalog::new();
    catalog.upsert(origin.into(), vec![Arc::new(handler)]);
    let mut server = Server::new(catalog);
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await?;
    say(&format!("listening {}", socket.local_addr()?));
    server.register_socket(socket);
    Ok(server.block_until_done().await?)
}
