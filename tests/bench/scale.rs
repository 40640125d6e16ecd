//! A hundred thousand certificates against ten thousand: the start, memory, a tick of the planner, a listing, and a write. Nothing is due, as nearly always.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use acmegate_tests::{
    acmegate::{Acmegate, Config},
    measure::{
        Latencies,
        report::{Figure, Goal, Report, say},
        usage,
    },
    temporary_folder, write,
};
use anyhow::{Context, ensure};
use authdns::Name;
use gateway::{
    certificates::{
        Manager, State,
        planner::{Planner, Room, Task, Wanted},
        renewal::{self, Validity},
    },
    claim::Timestamp,
    config,
    doors::admin::Client,
    issuer::Budget,
    store::{OrderEnd, Projection, Renewal, SqliteStore, Standing, Store, StoreMetrics, StoredCertificate, Window},
};
use prometheus_client::registry::Registry;

const FEW: usize = 10_000;
const MANY: usize = 100_000;
const STARTS: usize = 3;
const TICKS: u32 = 10_000;
/// Of those that are due in the tick that has something to do.
const DUE: usize = 100;
const WRITES: usize = 200;
/// Certificates that are written in one transaction when the store is filled.
const BATCH: usize = 1_000;
/// Ten times the certificates may cost so many times the time: the trees get deeper, and caches smaller.
const GROWTH: f64 = 12.0;
/// 4 KiB a certificate: the names, the configuration of where it goes, and how it stands.
const MEMORY_GOAL: f64 = 400.0;
/// Slower than this, and a rolling update of a machine shows.
const START_GOAL: Duration = Duration::from_secs(10);
/// The CA that nobody asks.
const DIRECTORY: &str = "https://127.0.0.1:9/directory";
const DAY: i64 = 86_400_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    say(&format!("load average {}", usage::load_average()));
    let few = measure(FEW).await?;
    let many = measure(MANY).await?;
    let mut report = Report::new("100,000 certificates (yardstick: 10,000, or the goal itself)");
    let times = |measured: &Measured| {
        [
            ("start until ready", measured.start, GROWTH),
            ("of that, reading the configuration", measured.parse, GROWTH),
            ("a tick with nothing due", measured.idle, 2.0),
            ("a tick with 100 orders due", measured.due, 2.0),
            ("acmegate certificates list --json", measured.list, GROWTH),
            ("of that, the answer of serve", measured.answer, GROWTH),
            ("one state written", measured.state, 2.0),
            ("one certificate written, under another chain", measured.certificate, 2.0),
        ]
    };
    for ((what, many, growth), (_, few, _)) in times(&many).into_iter().zip(times(&few)) {
        let figure = if many < Duration::from_millis(10) { Figure::micros } else { Figure::time };
        report.row(what, figure(many), figure(few), Goal::AtMost(growth));
    }
    let mebibytes = |bytes: u64| Figure::new(bytes as f64 / f64::from(1 << 20), "MiB");
    report.row("resident memory", mebibytes(many.resident), mebibytes(few.resident), Goal::AtMost(GROWTH));
    report.row("its peak at the start", mebibytes(many.peak), mebibytes(few.peak), Goal::AtMost(GROWTH));
    report.row("resident memory, goal", mebibytes(many.resident), Figure::new(MEMORY_GOAL, "MiB"), Goal::AtMost(1.0));
    report.row("start, goal", Figure::time(many.start), Figure::time(START_GOAL), Goal::AtMost(1.0));
    report.print();
    Ok(())
}

/// What so many certificates cost.
struct Measured {
    start: Duration,
    parse: Duration,
    idle: Duration,
    due: Duration,
    list: Duration,
    answer: Duration,
    state: Duration,
    certificate: Duration,
    resident: u64,
    peak: u64,
}

async fn measure(count: usize) -> anyhow::Result<Measured> {
    let mut acmegate = Acmegate::new(configuration(count)?);
    let text = std::fs::read_to_string(acmegate.config())?;
    let begun = Instant::now();
    let config = config::Config::from_yaml(&text, acmegate.config())?;
    let parse = begun.elapsed();
    say(&format!("{count} certificates: the configuration has {:.1} MB and is read in {:.0} ms", text.len() as f64 / 1e6, millis(parse)));
    let begun = Instant::now();
    read_yaml(&text)?;
    say(&format!("  of that, the YAML reader alone takes {:.0} ms, twice", millis(begun.elapsed())));

    let wanted: Vec<Wanted> = config.certificates.iter().map(Manager::wanted).collect();
    drop(config);
    let made = Made::new(wanted)?;
    let begun = Instant::now();
    made.store_all(acmegate.data()).await?;
    let size = std::fs::metadata(acmegate.data().join("acmegate.sqlite"))?.len();
    say(&format!("  written in {:.1} s: {:.0} MB", begun.elapsed().as_secs_f64(), size as f64 / 1e6));

    let (mut starts, mut resident, mut peak) = (Vec::new(), 0, 0);
    for start in 0..STARTS {
        let begun = Instant::now();
        acmegate.start().await;
        starts.push(begun.elapsed());
        resident = resident.max(usage::resident(acmegate.process().id())?);
        peak = peak.max(usage::peak(acmegate.process().id())?);
        let cpu = usage::cpu(acmegate.process().id())?;
        say(&format!("  start {start}: {:.0} ms, {:.0} ms of CPU, {} MiB", millis(begun.elapsed()), millis(cpu), resident >> 20));
        if start + 1 < STARTS {
            acmegate.stop().await.succeeded();
        }
    }
    let begun = Instant::now();
    let printed = acmegate.run(&["certificates", "list", "--json"]).await;
    let list = begun.elapsed();
    say(&format!("  the list has {:.1} MB", printed.succeeded().stdout.len() as f64 / 1e6));
    let begun = Instant::now();
    let reports = Client::connect(acmegate.data()).await?.context("serve does not run")?.certificates().await?;
    let answer = begun.elapsed();
    ensure!(reports.len() == count && reports.iter().all(|report| report.state == State::Valid), "not all are valid");
    drop(reports);
    let after = usage::resident(acmegate.process().id())?;
    let begun = Instant::now();
    let metrics = reqwest::get(acmegate.url("metrics", "/metrics")).await?.text().await?;
    say(&format!("  metrics: {:.1} ms, {} kB; {} MiB after the list", millis(begun.elapsed()), metrics.len() / 1000, after >> 20));
    acmegate.stop().await.succeeded();

    let (state, certificate) = made.writes(acmegate.data()).await?;
    let (idle, due) = made.ticks()?;
    let start = Latencies::new(starts).median();
    Ok(Measured { start, parse, idle, due, list, answer, state, certificate, resident, peak })
}

/// What every way to read it costs at least. The reader refuses texts of this size unless it is told.
fn read_yaml(text: &str) -> anyhow::Result<()> {
    let budget = serde_saphyr::budget! {
        max_events: text.len(), max_nodes: text.len(), max_total_scalar_bytes: text.len(), max_total_comment_bytes: text.len(),
    };
    let _: serde::de::IgnoredAny = serde_saphyr::from_str_with_options(text, serde_saphyr::options! { budget: budget })?;
    Ok(())
}

/// As many certificates, each for a name, into a folder of its own.
fn configuration(count: usize) -> anyhow::Result<Config> {
    let root = temporary_folder("scale").keep().join("root.pem");
    write(&root, &rcgen::generate_simple_self_signed(["ca.example.test".to_owned()])?.cert.pem());
    let entry = |number: usize| {
        let name = name(number);
        format!("- {{ name: {name}, names: [{name}.example.test], store: [{{ files: /var/lib/acmegate-bench/{name} }}] }}\n")
    };
    let list: String = (0..count).map(entry).collect();
    Ok(Config::new().metrics().directory_with("ca", DIRECTORY, &root, "profile: tlsserver").section("certificates", &list))
}

fn name(number: usize) -> String {
    format!("c{number:06}")
}

/// Certificates made from one template.
struct Made {
    wanted: Vec<Wanted>,
    now: Timestamp,
    key_pem: String,
    certificate_pem: String,
    chain_pem: String,
}

impl Made {
    fn new(wanted: Vec<Wanted>) -> anyhow::Result<Self> {
        let leaf = rcgen::generate_simple_self_signed(["c000000.example.test".to_owned()])?;
        let chain = rcgen::generate_simple_self_signed(["ca.example.test".to_owned()])?;
        Ok(Self {
            wanted,
            now: Timestamp::now(),
            key_pem: leaf.signing_key.serialize_pem(),
            certificate_pem: leaf.cert.pem(),
            chain_pem: chain.cert.pem(),
        })
    }

    /// A list that has been there for long: times are spread, and none has come.
    fn renewal(&self, number: usize, wanted: &Wanted) -> Renewal {
        let age = i64::try_from(number % 50).unwrap_or_default() * DAY;
        let (not_before, not_after) = (Timestamp(self.now.0 - age), Timestamp(self.now.0 - age + 90 * DAY));
        let serial = format!("{number:032x}");
        let window = Window { start: Timestamp(not_after.0 - 31 * DAY), end: Timestamp(not_after.0 - 29 * DAY), explanation: None };
        let times = renewal::interval(Validity { not_before, not_after }, None, Some(&window));
        Renewal {
            name: wanted.name.clone(),
            renew_at: Some(times.choose(0.5)),
            window: Some(window),
            poll_at: Some(Timestamp(self.now.0 + DAY / 4)),
            tried: Some(not_before),
            tried_wish: Some(wanted.wish.clone()),
            deployed: Some(format!("{serial} {}", wanted.deployment)),
            deploy_tried: Some(format!("{serial} {}", wanted.deployment)),
            standing: Some(Standing {
                id: Some(format!("aYhba4dGQEHhs3uEe6CuLN4ByNQ.{serial}")),
                serial,
                directory: DIRECTORY.to_owned(),
                names: wanted.names.clone(),
                wish: wanted.wish.clone(),
                not_before,
                not_after,
                issued: not_before,
            }),
            ..Renewal::default()
        }
    }

    fn end(&self, number: usize, wanted: &Wanted, chain_pem: &str) -> OrderEnd {
        let renewal = self.renewal(number, wanted);
        let certificate = StoredCertificate {
            name: wanted.name.clone(),
            names: wanted.names.clone(),
            directory: DIRECTORY.to_owned(),
            key_pem: self.key_pem.clone().into(),
            certificate_pem: self.certificate_pem.clone(),
            chain_pem: chain_pem.to_owned(),
            url: format!("https://127.0.0.1:9/certificate/{number:032x}"),
            not_before: self.now,
            not_after: Timestamp(self.now.0 + 90 * DAY),
        };
        OrderEnd { certificate: Some(certificate), renewal: Some(renewal), ..OrderEnd::default() }
    }

    async fn store_all(&self, data: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(data)?;
        let store = open(data)?;
        let all: Vec<_> = self.wanted.iter().enumerate().collect();
        for batch in all.chunks(BATCH) {
            let ends = batch.iter().map(|(number, wanted)| store.end_order(self.end(*number, wanted, &self.chain_pem)));
            futures_util::future::try_join_all(ends).await?;
        }
        store.close().await;
        Ok(())
    }

    /// Medians of writing how one stands, and of writing a certificate whose chain is another one than before.
    async fn writes(&self, data: &Path) -> anyhow::Result<(Duration, Duration)> {
        let store = open(data)?;
        let (mut states, mut certificates) = (Vec::new(), Vec::new());
        let step = self.wanted.len() / WRITES;
        for (number, wanted) in self.wanted.iter().enumerate().step_by(step) {
            // Another state than the one that is there, which would not be written.
            let renewal = Renewal { failures: 1, ..self.renewal(number, wanted) };
            let begun = Instant::now();
            store.save_renewals(vec![renewal]).await?;
            states.push(begun.elapsed());
            // Each chain is the last one's end: nobody else has it.
            let end = self.end(0, self.wanted.first().context("a certificate")?, &format!("{}{number}\n", self.chain_pem));
            let begun = Instant::now();
            store.end_order(end).await?;
            certificates.push(begun.elapsed());
        }
        store.close().await;
        Ok((Latencies::new(states).median(), Latencies::new(certificates).median()))
    }

    /// What the planner takes for a look when nothing is due, and for one with orders to hand out.
    fn ticks(&self) -> anyhow::Result<(Duration, Duration)> {
        let room = Room { orders: DUE, polls: DUE, deployments: DUE };
        let renewals: Vec<Renewal> = self.wanted.iter().enumerate().map(|(number, wanted)| self.renewal(number, wanted)).collect();
        let mut times = Vec::new();
        let mut idle = Duration::ZERO;
        for _ in 0..5 {
            let mut budget = Budget::new(Vec::new());
            let (mut planner, changed) = Planner::new(self.wanted.clone(), renewals.clone(), self.now, &mut || 0.5);
            ensure!(changed.is_empty(), "{} have changed", changed.len());
            let begun = Instant::now();
            for _ in 0..TICKS {
                ensure!(planner.next(self.now, &mut budget, room).is_empty(), "something is due");
            }
            idle = begun.elapsed() / TICKS;
            for wanted in self.wanted.iter().step_by(self.wanted.len() / DUE) {
                planner.force(&wanted.name).context("it is known")?;
            }
            let begun = Instant::now();
            let tasks = planner.next(self.now, &mut budget, room);
            times.push(begun.elapsed());
            ensure!(tasks.iter().filter(|task| matches!(task, Task::Order(_))).count() == DUE, "{} tasks", tasks.len());
        }
        Ok((idle, Latencies::new(times).median()))
    }
}

fn open(data: &Path) -> anyhow::Result<SqliteStore> {
    Ok(SqliteStore::open(data, &[], Arc::new(Nowhere), StoreMetrics::register(&mut Registry::default()))?)
}

/// There are no zones.
struct Nowhere;

impl Projection for Nowhere {
    fn project(&self, _: &Name, _: u32, _: Vec<(Name, Vec<Box<str>>)>) {}
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
