//! The webhook door in a real cluster: what Present takes through the Kubernetes API server, what acmegate needs of memory, and 40 certificates by cert-manager's own controllers.
//!
//! Beside acmegate runs an empty webhook: cert-manager's own webhook library with a map and a DNS server, in the same cluster, at the same authority. It writes nothing
//! down, so what it takes is the share of the API server, of cert-manager and of the authority.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use acmegate_tests::{
    acmedns,
    acmegate::{Acmegate, Config},
    addresses::Address,
    certmanager::{self, CertManager, Certificates, Issuer, Solver},
    dns,
    emptywebhook::{self, EmptyWebhook},
    kubernetes::{Api, Cluster},
    measure::{
        Latencies,
        issuance::{Stage, Timeline},
        report::{Figure, Goal, Report, say},
        usage, yardstick,
    },
    wait::until,
    webhook::{SERVICE, Webhook},
    world::World,
};
use anyhow::{Context, bail, ensure};
use futures_util::future::{join_all, try_join_all};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{interval_at, sleep};

// What is asked of acmegate's Present beside one fsync.
const GOAL_MEDIAN: Duration = Duration::from_millis(5);
const GOAL_LATE: Duration = Duration::from_millis(50);
/// And of its memory.
const GOAL_MEMORY: f64 = 40e6;

/// As many challenges as cert-manager has under way at once.
const CALLERS: usize = 60;
/// Rounds of each load; acmegate and the empty webhook take turns.
const ROUNDS: usize = 3;
/// Calls of each caller in a round, and before the first round.
const CALLS: usize = 25;
const WARM_UP: usize = 10;
/// In the paced load each caller makes a call so often: 120 a second altogether. cert-manager itself makes 20 a second at most, with 5 workers.
const PACE: Duration = Duration::from_millis(500);
/// Of the disk's yardstick, before and after.
const YARDSTICK: Duration = Duration::from_secs(1);
/// After which a process that does nothing is at rest.
const IDLE: Duration = Duration::from_secs(10);

/// Certificates at once, and how often.
const CERTIFICATES: usize = 40;
const RUNS: usize = 5;
/// How long one run may take.
const LIMIT: Duration = Duration::from_secs(180);
/// cert-manager makes 20 requests a second, after 50 at once: until it may make 50 at once again.
const REFILL: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    say(&format!("{} cores, load average {}", yardstick::cores(), usage::load_average()));
    let lab = Lab::start().await;
    let mut report = Report::new("The webhook in a cluster (yardsticks: the goals, and an empty webhook)");
    sleep(IDLE).await;
    lab.memory(&mut report, "at rest")?;
    lab.present(&mut report).await?;
    sleep(IDLE).await;
    lab.memory(&mut report, "after the calls")?;
    lab.certificates(&mut report).await?;
    report.print();
    Ok(())
}

/// A webhook under measurement.
struct Side {
    name: &'static str,
    group: &'static str,
    solver: &'static str,
    zone: &'static str,
    /// Where its DNS answers.
    dns: SocketAddr,
}

struct Lab {
    cluster: Cluster,
    world: World,
    acmegate: Acmegate,
    door: Webhook,
    empty: EmptyWebhook,
    sides: [Side; 2],
}

const OURS: &str = "acmegate";
const EMPTY: &str = "empty";
// Both zones are delegated by `gateway.test`, so that the authority finds each in the same number of steps.
const OUR_ZONE: &str = "ours.gateway.test";
const EMPTY_ZONE: &str = "empty.gateway.test";

impl Lab {
    /// acmegate as the chart would run it: for a cluster that says who may call, with a zone of its own, its policy, and its metrics.
    async fn start() -> Self {
        let cluster = Cluster::start_with_controllers().await;
        let (ours, empty) = (Address::reserve(), Address::reserve());
        // A refused nonce, which is rare elsewhere, costs seconds at random.
        let mut world = World::builder().without_serve().ca(|options| options.every_nonce());
        for (zone, address) in [(OUR_ZONE, &ours), (EMPTY_ZONE, &empty)] {
            world = world.parent_record(&format!("{zone}. 60 NS ns1.{zone}.")).parent_record(&format!("ns1.{zone}. 60 A {}", address.ip()));
        }
        let world = world.start().await;

        let (door, kubeconfig) = (Webhook::new(), cluster.delegated(SERVICE.0, SERVICE.1).await);
        let config = Config::new().dns(ours.dns()).zone(OUR_ZONE, &[("ns1", ours.ip())]).resolver(world.resolver.dns()).metrics();
        let config = config.section("kubernetes", &format!("kubeconfig: {kubeconfig:?}"));
        let config = door.configure_at(config, (Ipv4Addr::LOCALHOST, 0).into(), "callers: {cluster: true}");
        let mut acmegate = Acmegate::started(config).await;
        let sides = [
            Side { name: OURS, group: "acme.acmegate.io", solver: "acmegate", zone: OUR_ZONE, dns: ours.dns() },
            Side { name: EMPTY, group: emptywebhook::GROUP, solver: emptywebhook::SOLVER, zone: EMPTY_ZONE, dns: empty.dns() },
        ];
        acmegate.keep(ours);
        let groups = sides.each_ref().map(|side| side.group);
        cluster.route(groups[0], SERVICE, acmegate.door("webhook"), door.certificate()).await;
        let empty = EmptyWebhook::start(&cluster, empty, EMPTY_ZONE).await;
        cluster.service_account(certmanager::NAMESPACE, "cert-manager").await;
        cluster.apply(&domain_solver(&groups).to_string()).await;
        Self { cluster, world, acmegate, door, empty, sides }
    }

    fn memory(&self, report: &mut Report, when: &str) -> anyhow::Result<()> {
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let mut figures = Vec::new();
        for process in [self.acmegate.process(), self.empty.process()] {
            let (resident, anonymous) = (usage::resident(process.id())?, usage::anonymous(process.id())?);
            let (all, own) = (megabytes(resident), megabytes(anonymous));
            say(&format!("{} {when}: {all:.1} MB resident, {own:.1} MB of them its own and the rest its program's file", process.name()));
            figures.push(Figure::new(all, "MB"));
        }
        let [ours, empty] = figures[..] else { bail!("two processes") };
        report.row(&format!("resident memory {when}"), ours, Figure::new(GOAL_MEMORY / 1e6, "MB"), Goal::AtMost(1.0));
        report.row(&format!("resident memory {when}, empty"), ours, empty, Goal::Shown);
        Ok(())
    }
}

// --- Present.

/// How callers call.
#[derive(Clone, Copy)]
enum Load {
    /// Each calls again as soon as it has its answer: the machine's cores are the limit.
    BackToBack,
    /// Each calls every [`PACE`], all of them evenly spread.
    Paced,
}

/// One way to a webhook, and what calls on it took.
struct Way<'a> {
    what: &'static str,
    side: &'a Side,
    process: u32,
    api: Arc<Api>,
    samples: Vec<Duration>,
    cpu: Duration,
}

/// What cert-manager is to the API server.
const CERT_MANAGER: &str = "system:serviceaccount:cert-manager:cert-manager";

impl Lab {
    /// The calls of `CALLERS` callers over one connection (HTTP/2), as Kubernetes' clients have it.
    async fn present(&self, report: &mut Report) -> anyhow::Result<()> {
        for (name, load) in [("back to back", Load::BackToBack), ("paced", Load::Paced)] {
            let mut ways = self.ways().await;
            for way in &ways {
                // RBAC goes by what its informers have seen.
                until("the right to call", || call(&way.api, way.side.path(), payload("CleanUp", number(), way.side.zone))).await;
                way.calls(WARM_UP, Load::BackToBack).await?;
            }
            let disk = yardstick::fsyncs(self.acmegate.data(), YARDSTICK)?.median();
            for _ in 0..ROUNDS {
                for way in &mut ways {
                    way.round(load).await?;
                }
            }
            let fsync = (disk + yardstick::fsyncs(self.acmegate.data(), YARDSTICK)?.median()) / 2;
            say(&format!("Present, {CALLERS} callers, {name}; one fsync {:.2} ms", fsync.as_secs_f64() * 1e3));
            let [ours, empty, alone] = ways.each_ref().map(Way::told);
            let time = |times: &Latencies, percent| Figure::time(times.percentile(percent));
            let what = |percent: u8| format!("Present p{percent}, {name}");
            // Back to back, sixty callers wait for the cores of this machine, at the empty webhook as well.
            let goal = if let Load::Paced = load { Goal::AtMost(1.0) } else { Goal::Shown };
            report.row(&format!("{}, 5 ms and an fsync", what(50)), time(&ours, 50.0), Figure::time(GOAL_MEDIAN + fsync), goal);
            report.row(&format!("{}, 50 ms", what(99)), time(&ours, 99.0), Figure::time(GOAL_LATE), goal);
            for percent in [50, 99] {
                let percentile = f64::from(percent);
                report.row(&format!("{}, empty", what(percent)), time(&ours, percentile), time(&empty, percentile), Goal::Shown);
            }
            report.row(&format!("{}, acmegate alone, fsync", what(50)), time(&alone, 50.0), Figure::time(fsync), Goal::Shown);
        }
        Ok(())
    }

    /// Through the API server as cert-manager's ServiceAccount with its token; and past it, with a certificate of the same name.
    async fn ways(&self) -> [Way<'_>; 3] {
        let [ours, empty] = &self.sides;
        let token = self.cluster.token(certmanager::NAMESPACE, "cert-manager").await;
        let through = Arc::new(self.cluster.api_with(Some(token)));
        let base = format!("https://localhost:{}", self.acmegate.door("webhook").port());
        let identity = self.cluster.pki().clients().client(CERT_MANAGER, None);
        let direct = Arc::new(Api::new(base, self.door.certificate(), Some(&identity), None));
        let way =
            |what, side, process, api: &Arc<Api>| Way { what, side, process, api: api.clone(), samples: Vec::new(), cpu: Duration::ZERO };
        let (acmegate, other) = (self.acmegate.process().id(), self.empty.process().id());
        [
            way("acmegate through the API server", ours, acmegate, &through),
            way("the empty webhook through the API server", empty, other, &through),
            way("acmegate alone", ours, acmegate, &direct),
        ]
    }
}

impl Way<'_> {
    async fn round(&mut self, load: Load) -> anyhow::Result<()> {
        let before = usage::cpu(self.process)?;
        let samples = self.calls(CALLS, load).await?;
        self.cpu += usage::cpu(self.process)?.saturating_sub(before);
        self.samples.extend(samples);
        Ok(())
    }

    /// So many calls of each caller, each for a name of its own. Afterwards the values go again.
    async fn calls(&self, calls: usize, load: Load) -> anyhow::Result<Vec<Duration>> {
        let numbers: Vec<Vec<u64>> = (0..CALLERS).map(|_| (0..calls).map(|_| number()).collect()).collect();
        let begun = tokio::time::Instant::now();
        let mut tasks = Vec::new();
        for (caller, numbers) in (0u32..).zip(&numbers) {
            let (api, path, zone, numbers) = (self.api.clone(), self.side.path(), self.side.zone, numbers.clone());
            tasks.push(tokio::spawn(async move {
                let mut ticks = interval_at(begun + PACE / CALLERS as u32 * caller, PACE);
                let mut samples = Vec::new();
                for number in numbers {
                    if let Load::Paced = load {
                        ticks.tick().await;
                    }
                    samples.push(call(&api, path.clone(), payload("Present", number, zone)).await?);
                }
                anyhow::Ok(samples)
            }));
        }
        let mut samples = Vec::new();
        for task in tasks {
            samples.append(&mut task.await??);
        }
        // A benchmark of a webhook that does not serve its values would be worth nothing.
        if let Some(last) = numbers.last().and_then(|numbers| numbers.last()) {
            let found = dns::txt(self.side.dns, &owner(*last, self.side.zone)).await;
            ensure!(found.contains(&acmedns::value(*last)), "{}: DNS does not answer what was presented", self.what);
        }
        try_join_all(numbers.iter().map(async |numbers| {
            for number in numbers {
                call(&self.api, self.side.path(), payload("CleanUp", *number, self.side.zone)).await?;
            }
            anyhow::Ok(())
        }))
        .await?;
        Ok(samples)
    }

    fn told(&self) -> Latencies {
        let times = Latencies::new(self.samples.clone());
        let millis = |percent| times.percentile(percent).as_secs_f64() * 1e3;
        // Each Present had its CleanUp.
        let cpu = self.cpu.as_secs_f64() * 1e6 / (2 * times.len()) as f64;
        say(&format!(
            "  {}: {} calls, p10 {:.1} ms, p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, max {:.1} ms; its CPU {cpu:.0} µs a call",
            self.what,
            times.len(),
            millis(10.0),
            millis(50.0),
            millis(90.0),
            millis(99.0),
            millis(100.0),
        ));
        times
    }
}

impl Side {
    fn path(&self) -> String {
        format!("/apis/{}/v1alpha1/{}", self.group, self.solver)
    }
}

/// One call, from its being sent to its answer in full.
async fn call(api: &Api, path: String, payload: Value) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let answer = api.ask(Method::POST, &path, Some(&payload)).await?;
    let took = begun.elapsed();
    ensure!(answer.status.as_u16() == 201 && answer.body["response"]["success"] == true, "{} {}", answer.status, answer.body);
    Ok(took)
}

/// Another one each time.
fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn owner(number: u64, zone: &str) -> String {
    format!("_acme-challenge.n{number}.{zone}")
}

/// As cert-manager sends it.
fn payload(action: &str, number: u64, zone: &str) -> Value {
    json!({"request": {
        "uid": "", "action": action, "type": "dns-01", "dnsName": format!("n{number}.{zone}"), "key": acmedns::value(number),
        "resourceNamespace": "cert-manager", "resolvedFQDN": format!("{}.", owner(number, zone)), "resolvedZone": format!("{zone}."),
        "allowAmbientCredentials": true, "config": null,
    }})
}

// --- Certificates.

/// What runs of one webhook took.
#[derive(Default)]
struct Runs {
    totals: Vec<Duration>,
    /// Medians over the certificates of a run, by stage.
    stages: [Vec<Duration>; Stage::ALL.len()],
}

impl Lab {
    async fn certificates(&self, report: &mut Report) -> anyhow::Result<()> {
        let controllers = CertManager::start(&self.cluster, self.world.resolver.dns()).await;
        let mut runs = [Runs::default(), Runs::default()];
        // The first run of each finds nothing ready yet, neither here nor there, and does not count.
        for run in 0..=RUNS {
            let mut order = [0, 1];
            order.rotate_left(run % 2);
            for at in order {
                let (Some(side), Some(runs)) = (self.sides.get(at), runs.get_mut(at)) else { continue };
                let timeline = self.run(side, run).await?;
                if run > 0 {
                    runs.add(&timeline)?;
                }
            }
        }
        drop(controllers);
        let [ours, empty] = &runs;
        let what = format!("{CERTIFICATES} certificates by cert-manager, empty");
        report.row(&what, Figure::time(median(&ours.totals)), Figure::time(median(&empty.totals)), Goal::AtMost(1.1));
        let mut before = "asked for".to_owned();
        for (stage, (ours, empty)) in Stage::ALL.iter().zip(ours.stages.iter().zip(&empty.stages)) {
            let stage = format!("{stage:?}").to_lowercase();
            report.row(
                &format!("  each from {before} to {stage}, empty"),
                Figure::time(median(ours)),
                Figure::time(median(empty)),
                Goal::Shown,
            );
            before = stage;
        }
        Ok(())
    }

    async fn run(&self, side: &Side, run: usize) -> anyhow::Result<Timeline> {
        let namespace = format!("{}-{run}", side.name);
        let solver = Solver::webhook(side.group, side.solver);
        let issuer = Issuer::create(&self.cluster, &namespace, "acme", &self.world.ca, &solver).await;
        let (certificates, api) = (Certificates::of(&self.cluster, &namespace).await, self.cluster.api());
        let names: Vec<_> = (0..CERTIFICATES).map(|number| (format!("c{number}"), format!("c{number}-{run}.{}", side.zone))).collect();
        sleep(REFILL).await;

        let (timeline, before) = (Timeline::start(), Spent::read(&self.acmegate).await?);
        let creation = join_all(names.iter().map(async |(name, dns_name)| certificates.create(name, &issuer, &[dns_name]).await));
        let (_, done) = tokio::join!(creation, timeline.follow(&api, &namespace, CERTIFICATES, LIMIT));
        done?;
        certificates.without_challenges().await;
        let after = Spent::read(&self.acmegate).await?;
        let mut told = Vec::new();
        for stage in Stage::ALL {
            told.push(format!("{stage:?} {:.2} s", timeline.last(stage)?.as_secs_f64()).to_lowercase());
        }
        say(&format!("{CERTIFICATES} certificates, {}, run {run}: all {}", side.name, told.join(", ")));
        let (calls, seconds) = (after.calls - before.calls, after.seconds - before.seconds);
        if calls > 0.0 {
            say(&format!(
                "  acmegate answered {calls:.0} calls (CleanUp too) in {:.0} ms altogether, {:.2} ms each",
                seconds * 1e3,
                seconds * 1e3 / calls
            ));
        }
        Ok(timeline)
    }
}

impl Runs {
    fn add(&mut self, timeline: &Timeline) -> anyhow::Result<()> {
        self.totals.push(timeline.last(Stage::Ready)?);
        for (stage, times) in Stage::ALL.into_iter().zip(&mut self.stages) {
            times.push(timeline.took(stage)?.median());
        }
        Ok(())
    }
}

fn median(times: &[Duration]) -> Duration {
    Latencies::new(times.to_vec()).median()
}

/// What acmegate has counted of its webhook's calls.
struct Spent {
    calls: f64,
    seconds: f64,
}

impl Spent {
    async fn read(acmegate: &Acmegate) -> anyhow::Result<Self> {
        let text = reqwest::get(acmegate.url("metrics", "/metrics")).await?.text().await?;
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.split_once(' ').filter(|(key, _)| *key == name));
            line.and_then(|(_, value)| value.parse::<f64>().ok()).with_context(|| format!("no metric {name}"))
        };
        Ok(Self { calls: value("acmegate_webhook_request_seconds_count")?, seconds: value("acmegate_webhook_request_seconds_sum")? })
    }
}

/// What lets cert-manager's ServiceAccount call the webhooks, as their charts would have it.
fn domain_solver(groups: &[&str]) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "domain-solver"}, "rules": [
            {"apiGroups": groups, "resources": ["*"], "verbs": ["create"]},
        ]},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "domain-solver"},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "domain-solver"},
         "subjects": [{"kind": "ServiceAccount", "name": "cert-manager", "namespace": certmanager::NAMESPACE}]},
    ]})
}
