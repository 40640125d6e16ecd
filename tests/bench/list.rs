//! The list of certificates that keeps itself valid, against a bare client that makes only the needed requests and keeps nothing, lego 5 as it comes, and certbot.
//!
//! All of them get their certificates from the same authority, which asks the same resolver; what is measured proves every name anew.

use std::{
    collections::BTreeSet,
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use acmegate_tests::{
    acmedns::{self, Account},
    measure::{
        Latencies,
        bare::Bare,
        report::{Figure, Goal, Report, say},
        usage,
    },
    peers::peer,
    process::{Process, run},
    python, read, temporary_folder,
    testca::{Options, TestCa},
    wait::{LIMIT, until_within},
    world::{CUSTOMER, World},
    write,
};
use anyhow::{Context, anyhow, ensure};
use gateway::{
    certificates::{CertificateAction, CertificateRequest, State},
    doors::admin::Client,
};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::{task::JoinSet, time::sleep};

/// Certificates of each kind that are got one after the other.
const RUNS: usize = 20;
/// The names of one with many, and how often one is got.
const MANY_NAMES: usize = 25;
const MANY_NAMES_RUNS: usize = 10;
/// The lists that are got at once.
const FEW: usize = 40;
const FEW_ROUNDS: usize = 3;
const MANY: usize = 1000;
/// As many orders as the list has in flight.
const IN_FLIGHT: usize = 32;
/// Processes of lego.
const LEGOS: usize = 8;
const CERTBOTS: usize = 3;
/// Certificates that are got while system calls are counted.
const TRACED: usize = 5;
/// What certificates take together at most.
const PATIENCE: Duration = Duration::from_secs(300);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    say(&format!("load average {}", usage::load_average()));
    let mut site = Site::start().await?;
    let yardstick = site.bare().await?;
    let many = site.many().await?;
    let kinds = site.kinds().await?;
    let few = site.few().await?;
    let legos = site.legos().await?;
    let certbot = site.certbots().await?;

    let mut report = Report::new("The list (yardsticks: a bare client with real DNS-01; lego 5 over RFC 2136 to BIND, 8 processes)");
    let (one, bare) = (Figure::time(kinds.one.median()), Figure::time(yardstick.one.median()));
    report.row("one name, the list in serve, bare", one, bare, Goal::AtMost(3.0));
    report.row("one name, the whole command `acmegate issue`, bare", Figure::time(kinds.issue.median()), bare, Goal::Shown);
    // One is the request to renew, which whoever waits for its turn would not make.
    report.row(
        "fsyncs of the store's log a certificate, aim",
        Figure::new(kinds.commits - 1.0, ""),
        Figure::new(3.0, ""),
        Goal::AtMost(1.1),
    );
    report.row("apex and wildcard, one name", Figure::time(kinds.two.median()), one, Goal::AtMost(1.3));
    report.row("25 names, one name", Figure::time(kinds.many_names.median()), one, Goal::AtMost(3.0));
    report.row("40 certificates, lego", Figure::time(few.median()), Figure::time(legos.took), Goal::TimesLess(30.0));
    report.row("1,000 certificates, bare client with 32 at once", Figure::rate(many.rate), Figure::rate(yardstick.rate), Goal::Times(0.5));
    let cpu = Figure::new(many.cpu * 1e3, "ms");
    report.row("CPU a certificate, lego", cpu, Figure::new(legos.cpu * 1e3, "ms"), Goal::Shown);
    report.row("CPU a certificate, certbot", cpu, Figure::new(certbot * 1e3, "ms"), Goal::Shown);
    report.print();
    Ok(())
}

/// The world, a configuration that gets ever other lists, and a folder for what is deployed.
struct Site {
    world: World,
    config: String,
    out: TempDir,
}

/// What the bare client does with real DNS-01.
struct Yardstick {
    one: Latencies,
    /// Certificates a second with as many orders in flight as the list has.
    rate: f64,
}

/// Certificates through `serve`, one after the other.
struct Kinds {
    one: Latencies,
    two: Latencies,
    many_names: Latencies,
    issue: Latencies,
    /// Group commits of the store for one of one name.
    commits: f64,
}

struct Legos {
    took: Duration,
    /// Seconds a certificate.
    cpu: f64,
}

struct Many {
    rate: f64,
    /// Seconds a certificate.
    cpu: f64,
}

/// What the bare client gets a certificate for, and where the value goes; nowhere if nobody will look for it.
struct Order {
    names: Vec<String>,
    account: Option<Account>,
}

/// An entry of the list.
struct Entry {
    name: String,
    names: Vec<String>,
}

impl Entry {
    fn one(set: &str, number: usize) -> Self {
        let name = format!("{set}-{number}");
        Self { names: vec![format!("{name}.{CUSTOMER}")], name }
    }

    fn two(set: &str, number: usize) -> Self {
        let mut entry = Self::one(set, number);
        entry.names.extend(entry.names.first().map(|name| format!("*.{name}")));
        entry
    }

    fn many_names(set: &str, number: usize) -> Self {
        let name = format!("{set}-{number}");
        Self { names: (0..MANY_NAMES).map(|one| format!("n{one}.{name}.{CUSTOMER}")).collect(), name }
    }
}

impl Site {
    async fn start() -> anyhow::Result<Self> {
        // What was proved is proved again: the renewals below are full orders. No nonce is refused on purpose: certbot fails of two in a row.
        let mut world = World::builder().ca(|options| options.no_reuse().every_nonce()).without_serve().start().await;
        let config = read(world.acmegate.config());
        world.acmegate.start().await;
        Ok(Self { world, config, out: temporary_folder("list") })
    }

    fn pid(&self) -> u32 {
        self.world.acmegate.process().id()
    }

    /// The whole list is exchanged while nobody runs.
    async fn list(&mut self, entries: &[Entry]) {
        let names: Vec<&str> =
            entries.iter().flat_map(|entry| &entry.names).filter(|name| !name.starts_with('*')).map(String::as_str).collect();
        for names in names.chunks(200) {
            self.world.delegate_all(names).await;
        }
        self.world.acmegate.stop().await.succeeded();
        let line = |entry: &Entry| {
            let folder = self.out.path().join(&entry.name);
            let names: Vec<_> = entry.names.iter().map(|name| format!("{name:?}")).collect();
            format!("  - {{ name: {}, names: [{}], store: [{{ files: {folder:?} }}] }}\n", entry.name, names.join(", "))
        };
        let text = entries.iter().map(line).fold(format!("{}certificates:\n", self.config), |text, line| text + &line);
        write(self.world.acmegate.config(), &text);
    }

    /// Waits until everything of the list is valid and deployed.
    async fn valid(&self, entries: &[Entry], pause: Duration) -> anyhow::Result<()> {
        // Looking for files costs less than asking.
        for entry in entries {
            let file = self.out.path().join(&entry.name).join("privkey.pem");
            let begun = Instant::now();
            while !file.exists() {
                ensure!(begun.elapsed() < PATIENCE, "{} is not deployed:\n{}", entry.name, self.world.acmegate.process().stderr());
                sleep(pause).await;
            }
        }
        let wanted: BTreeSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        until_within(PATIENCE, "the list to be valid", async || {
            let reports = self.client().await?.certificates().await?;
            let left = reports.iter().filter(|report| wanted.contains(report.name.as_str()) && report.state != State::Valid).count();
            ensure!(left == 0, "{left} are not");
            Ok(())
        })
        .await;
        Ok(())
    }

    async fn client(&self) -> anyhow::Result<Client> {
        Client::connect(self.world.acmegate.data()).await?.context("serve does not run")
    }

    async fn bare(&self) -> anyhow::Result<Yardstick> {
        let always_valid = Options::always_valid().start().await;
        let door = Door { http: reqwest::Client::new(), base: self.world.acmegate.url("acmedns", "") };
        let free = |set: &str, count: usize| -> Vec<Order> {
            (0..count).map(|number| Order { names: Entry::one(set, number).names, account: None }).collect()
        };
        let one = bare_one(&always_valid, free("free", RUNS + 1), &door).await?;
        tell("bare client, always valid", &one);
        for (at_once, count) in [(8, 800), (IN_FLIGHT, MANY)] {
            let (rate, _) = bare_rate(&always_valid, at_once, free(&format!("free{at_once}"), count), &door).await?;
            say(&format!("bare client, always valid, {at_once} at once: {rate:.0}/s"));
        }
        drop(always_valid);

        let orders = self.orders("bare", RUNS + 1).await?;
        let one = bare_one(&self.world.ca, orders, &door).await?;
        tell("bare client, DNS-01", &one);
        let mut last = 0.0;
        for (at_once, count) in [(8, 400), (IN_FLIGHT, MANY)] {
            let orders = self.orders(&format!("bare{at_once}"), count).await?;
            let before = self.used()?;
            let (rate, took) = bare_rate(&self.world.ca, at_once, orders, &door).await?;
            say(&format!("bare client, DNS-01, {at_once} at once: {rate:.0}/s"));
            self.say_used("acmegate's /update", &before, count, took)?;
            last = rate;
        }
        Ok(Yardstick { one, rate: last })
    }

    /// Orders of the bare client, delegated to acme-dns accounts.
    async fn orders(&self, set: &str, count: usize) -> anyhow::Result<Vec<Order>> {
        let (http, base) = (reqwest::Client::new(), self.world.acmegate.url("acmedns", ""));
        let (mut orders, mut records) = (Vec::new(), Vec::new());
        for number in 0..count {
            let account = acmedns::register(&http, &base).await?;
            let names = Entry::one(set, number).names;
            records.extend(names.iter().map(|name| format!("add _acme-challenge.{name}. 60 CNAME {}.", account.fulldomain)));
            orders.push(Order { names, account: Some(account) });
        }
        for records in records.chunks(200) {
            self.world.bind.update(records).await;
        }
        Ok(orders)
    }

    async fn kinds(&mut self) -> anyhow::Result<Kinds> {
        let ones: Vec<Entry> = (0..=RUNS).map(|number| Entry::one("one", number)).collect();
        let twos: Vec<Entry> = (0..=RUNS).map(|number| Entry::two("two", number)).collect();
        let sans: Vec<Entry> = (0..=MANY_NAMES_RUNS).map(|number| Entry::many_names("san", number)).collect();
        let traced: Vec<Entry> = (0..TRACED).map(|number| Entry::one("traced", number)).collect();
        let all: Vec<Entry> = ones.into_iter().chain(twos).chain(sans).chain(traced).collect();
        self.list(&all).await;
        self.world.acmegate.start().await;
        self.valid(&all, Duration::from_millis(20)).await?;

        let before = self.commits().await?;
        let one = self.renew("one", RUNS).await?;
        let commits = (self.commits().await? - before) / (RUNS + 1) as f64;
        say(&format!("  {commits:.1} commits of the store a certificate"));
        let two = self.renew("two", RUNS).await?;
        let many_names = self.renew("san", MANY_NAMES_RUNS).await?;
        self.trace().await?;
        let issue = self.issue().await?;
        self.world.acmegate.process().stderr().lines().filter(|line| line.contains("answer was lost")).for_each(say);
        Ok(Kinds { one, two, many_names, issue, commits })
    }

    /// Certificates of a set, one after the other, from the request to have it renewed until it is deployed. The first one does not count.
    async fn renew(&self, set: &str, runs: usize) -> anyhow::Result<Latencies> {
        let mut taken = Vec::new();
        for number in 0..=runs {
            let name = format!("{set}-{number}");
            let client = self.client().await?;
            let begun = Instant::now();
            let renewed = client.certificate(&CertificateRequest { name: name.clone(), action: CertificateAction::Renew }, |_| {}).await?;
            let took = begun.elapsed();
            ensure!(renewed.is_some_and(|report| report.state == State::Valid), "{name} was not renewed");
            if number > 0 {
                taken.push((took, self.timings(&name).await));
            }
        }
        taken.sort();
        let (_, timings) = taken.get(taken.len() / 2).context("a run")?;
        let (_, slowest) = taken.last().context("a run")?;
        let times = Latencies::new(taken.iter().map(|(took, _)| *took).collect());
        tell(&format!("the list in serve, {set}"), &times);
        say(&format!("  its order of median length: {timings}"));
        say(&format!("  its slowest: {slowest}"));
        Ok(times)
    }

    /// How long the stages of the second order took, as the log says: the first was made at the start.
    async fn timings(&self, name: &str) -> String {
        let (issued, mut orders) = (format!("{name}.{CUSTOMER}"), 0);
        let second = |line: &str| {
            orders += usize::from(line.contains("certificate issued") && line.contains(&issued));
            let said: Option<serde_json::Value> = (orders == 2).then(|| serde_json::from_str(line).ok()).flatten();
            said.and_then(|said| Some(said.get("timings")?.as_str()?.to_owned()))
        };
        self.world.acmegate.process().stderr_line("the timings of an order", second).await
    }

    /// Transactions of the store that wrote.
    async fn commits(&self) -> anyhow::Result<f64> {
        let text = reqwest::get(self.world.acmegate.url("metrics", "/metrics")).await?.text().await?;
        let line = text.lines().find_map(|line| line.strip_prefix("acmegate_store_commit_seconds_count "));
        Ok(line.context("no commits are counted")?.parse()?)
    }

    /// How often the disk was waited for, all in all: by strace, where that is installed.
    async fn trace(&self) -> anyhow::Result<()> {
        let folder = temporary_folder("strace");
        let file = folder.path().join("trace");
        let mut command = Command::new("strace");
        command.args(["-f", "-y", "-e", "trace=fsync,fdatasync", "-p", &self.pid().to_string(), "-o"]).arg(&file);
        if Command::new("strace").arg("-V").output().is_err() {
            say("  strace is not installed: the fsyncs of a deployment are not counted");
            return Ok(());
        }
        let strace = Process::spawn("strace", command);
        strace.stderr_line("its being attached", |line| line.contains("attached").then_some(())).await;
        for number in 0..TRACED {
            let request = CertificateRequest { name: format!("traced-{number}"), action: CertificateAction::Renew };
            self.client().await?.certificate(&request, |_| {}).await?;
        }
        strace.terminate();
        strace.ended().await;
        let trace = read(&file);
        let calls: Vec<&str> = trace.lines().filter(|line| line.contains("sync(")).collect();
        let store = calls.iter().filter(|line| line.contains(".sqlite")).count();
        let each = |calls: usize| calls as f64 / TRACED as f64;
        say(&format!("  fsyncs a certificate: {:.1} of the store, {:.1} of the deployment", each(store), each(calls.len() - store)));
        Ok(())
    }

    /// `acmegate issue` through `serve`, the whole command. The first run makes the account and does not count.
    async fn issue(&self) -> anyhow::Result<Latencies> {
        let names: Vec<String> = (0..=RUNS).map(|number| format!("issue-{number}.{CUSTOMER}")).collect();
        self.world.delegate_all(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let mut times = Vec::new();
        for (number, name) in names.iter().enumerate() {
            let order = self.world.acmegate.issue(&[name]);
            let begun = Instant::now();
            let issued = order.run().await;
            let took = begun.elapsed();
            issued.succeeded();
            if number > 0 {
                times.push(took);
            }
        }
        let times = Latencies::new(times);
        tell("acmegate issue through serve", &times);
        Ok(times)
    }

    /// Forty at once, from the start of `serve` until all are deployed.
    async fn few(&mut self) -> anyhow::Result<Latencies> {
        let mut times = Vec::new();
        for round in 0..FEW_ROUNDS {
            let entries: Vec<Entry> = (0..FEW).map(|number| Entry::one(&format!("few{round}"), number)).collect();
            self.list(&entries).await;
            let begun = Instant::now();
            self.world.acmegate.start().await;
            let ready = begun.elapsed();
            self.valid(&entries, Duration::from_millis(5)).await?;
            times.push(begun.elapsed());
            say(&format!("{FEW} certificates: {:.0} ms, of that {:.0} ms until serve is ready", millis(begun.elapsed()), millis(ready)));
        }
        Ok(Latencies::new(times))
    }

    /// The same by lego.
    async fn legos(&self) -> anyhow::Result<Legos> {
        let folders: Vec<TempDir> = (0..LEGOS).map(|_| temporary_folder("lego")).collect();
        let before = usage::children()?;
        let begun = Instant::now();
        let each = folders.iter().enumerate().map(|(process, folder)| async move {
            for number in (process..FEW).step_by(LEGOS) {
                let mut command = Command::new(peer("lego5"));
                command.args(["run", "--server", self.world.ca.directory(), "--accept-tos", "--email", "lego@example.test"]);
                command.args(["--dns", "rfc2136", "--dns.resolvers", &self.world.resolver.dns().to_string()]);
                command.args(["--dns.propagation.disable-ans", "--domains", &format!("lego-{number}.{CUSTOMER}")]);
                command.arg("--path").arg(folder.path()).env("LEGO_CA_CERTIFICATES", self.world.ca.ca_file());
                command.env("RFC2136_NAMESERVER", self.world.bind.dns().to_string());
                run("lego", command, LIMIT * 4).await.succeeded();
            }
        });
        futures_util::future::join_all(each).await;
        let took = begun.elapsed();
        let cpu = (usage::children()? - before).as_secs_f64() / FEW as f64;
        say(&format!("lego 5, {FEW} certificates in {LEGOS} processes: {:.1} s, {:.0} ms of CPU each", took.as_secs_f64(), cpu * 1e3));
        Ok(Legos { took, cpu })
    }

    /// A thousand at once.
    async fn many(&mut self) -> anyhow::Result<Many> {
        let entries: Vec<Entry> = (0..MANY).map(|number| Entry::one("many", number)).collect();
        self.list(&entries).await;
        let begun = Instant::now();
        self.world.acmegate.start().await;
        let ready = begun.elapsed();
        let after_start = self.used()?;
        self.valid(&entries, Duration::from_millis(20)).await?;
        let took = begun.elapsed();
        let cpu = usage::cpu(self.pid())?.as_secs_f64() / MANY as f64;
        let rate = MANY as f64 / took.as_secs_f64();
        say(&format!("{MANY} certificates: {:.1} s, {rate:.0}/s; serve was ready after {:.0} ms", took.as_secs_f64(), millis(ready)));
        self.say_used("acmegate", &after_start, MANY, took - ready)?;
        say(&format!("  {:.2} commits of the store a certificate", self.commits().await? / MANY as f64));
        say(&format!("  {} MiB resident", usage::resident(self.pid())? >> 20));
        Ok(Many { rate, cpu })
    }

    /// CPU time so far of all who take part.
    fn used(&self) -> anyhow::Result<Vec<(&'static str, Duration)>> {
        let world = &self.world;
        let who = [
            ("acmegate", self.pid()),
            ("Pebble", world.ca.process().id()),
            ("unbound", world.resolver.process().id()),
            ("BIND", world.bind.process().id()),
            ("this program", std::process::id()),
        ];
        who.into_iter().map(|(name, pid)| Ok((name, usage::cpu(pid)?))).collect()
    }

    fn say_used(&self, ours: &str, before: &[(&'static str, Duration)], count: usize, took: Duration) -> anyhow::Result<()> {
        let mut text = Vec::new();
        let mut total = 0.0;
        for ((name, after), (_, before)) in self.used()?.into_iter().zip(before) {
            let used = (after - *before).as_secs_f64();
            total += used;
            text.push(format!("{} {:.1} ms", if name == "acmegate" { ours } else { name }, used * 1e3 / count as f64));
        }
        let busy = total / took.as_secs_f64();
        say(&format!("  CPU a certificate: {}; {busy:.1} cores busy", text.join(", ")));
        Ok(())
    }

    /// CPU seconds that a certificate costs by certbot and its acme-dns plugin. The first run makes the account and does not count.
    async fn certbots(&self) -> anyhow::Result<f64> {
        let folder = temporary_folder("certbot");
        let (accounts, credentials) = (folder.path().join("accounts.json"), folder.path().join("acmedns.ini"));
        let (http, base) = (reqwest::Client::new(), self.world.acmegate.url("acmedns", ""));
        write(&credentials, &format!("dns_acmedns_api_url = {base}\ndns_acmedns_registration_file = {}\n", accounts.display()));
        std::fs::set_permissions(&credentials, Permissions::from_mode(0o600))?;
        let mut registered = serde_json::Map::new();
        for number in 0..=CERTBOTS {
            let name = format!("certbot-{number}.{CUSTOMER}");
            let account = acmedns::register(&http, &base).await?;
            self.world.bind.add(&format!("_acme-challenge.{name}. 60 CNAME {}.", account.fulldomain)).await;
            let Account { username, password, fulldomain, subdomain, allowfrom } = account;
            let account = serde_json::json!({
                "username": username, "password": password, "fulldomain": fulldomain, "subdomain": subdomain, "allowfrom": allowfrom,
            });
            registered.insert(name, account);
        }
        write(&accounts, &serde_json::Value::Object(registered).to_string());
        let mut begun = None;
        for number in 0..=CERTBOTS {
            let mut certbot = python::certbot();
            certbot.args(["certonly", "--non-interactive", "--agree-tos", "--register-unsafely-without-email"]);
            certbot.args(["--server", self.world.ca.directory(), "-d", &format!("certbot-{number}.{CUSTOMER}")]);
            for (option, sub) in [("--config-dir", "config"), ("--work-dir", "work"), ("--logs-dir", "logs")] {
                certbot.arg(option).arg(folder.path().join(sub));
            }
            certbot.args(["--authenticator", "dns-acmedns", "--dns-acmedns-propagation-seconds", "0"]);
            certbot.arg("--dns-acmedns-credentials").arg(&credentials).env("REQUESTS_CA_BUNDLE", self.world.ca.ca_file());
            run("certbot", certbot, LIMIT * 2).await.succeeded();
            if begun.is_none() {
                begun = Some((usage::children()?, Instant::now()));
            }
        }
        let (before, begun) = begun.context("a run")?;
        let cpu = (usage::children()? - before).as_secs_f64() / CERTBOTS as f64;
        let took = begun.elapsed().as_secs_f64() / CERTBOTS as f64;
        say(&format!("certbot: {took:.1} s and {cpu:.2} s of CPU a certificate"));
        Ok(cpu)
    }
}

/// One after the other; the first does not count.
async fn bare_one(ca: &TestCa, orders: Vec<Order>, door: &Door) -> anyhow::Result<Latencies> {
    let mut client = Bare::new(ca).await?;
    let mut times = Vec::new();
    for (number, order) in orders.iter().enumerate() {
        let begun = Instant::now();
        door.issue(&mut client, order).await?;
        if number > 0 {
            times.push(begun.elapsed());
        }
    }
    Ok(Latencies::new(times))
}

/// As many at once; gives certificates a second, and how long it took.
async fn bare_rate(ca: &TestCa, at_once: usize, orders: Vec<Order>, door: &Door) -> anyhow::Result<(f64, Duration)> {
    let count = orders.len();
    let orders = Arc::new(Mutex::new(orders));
    let mut clients = Vec::new();
    for _ in 0..at_once {
        clients.push(Bare::new(ca).await?);
    }
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for mut client in clients {
        let (orders, door) = (orders.clone(), door.clone());
        tasks.spawn(async move {
            loop {
                let Some(order) = orders.lock().pop() else { return anyhow::Ok(()) };
                door.issue(&mut client, &order).await?;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| anyhow!(error))??;
    }
    let took = begun.elapsed();
    Ok((count as f64 / took.as_secs_f64(), took))
}

/// The acme-dns door of acmegate, where the bare client puts values.
#[derive(Clone)]
struct Door {
    http: reqwest::Client,
    base: String,
}

impl Door {
    async fn issue(&self, client: &mut Bare, order: &Order) -> anyhow::Result<()> {
        let place = |value: String| async move {
            match &order.account {
                Some(account) => acmedns::update(&self.http, &self.base, account, &value).await,
                None => Ok(()),
            }
        };
        let chain = client.issue(&order.names, place).await?;
        ensure!(chain.contains("BEGIN CERTIFICATE"), "no certificate: {chain}");
        Ok(())
    }
}

fn tell(what: &str, times: &Latencies) {
    let [least, median, most] = [0.0, 50.0, 100.0].map(|percent| millis(times.percentile(percent)));
    say(&format!("{what}: {} runs, min {least:.1} ms, p50 {median:.1} ms, max {most:.1} ms", times.len()));
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
