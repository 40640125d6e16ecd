//! A year of a thousand certificates, in simulated time: the planner and the budget against a model of Let's Encrypt that knows nothing of them.
//!
//! The model is written from what is published (<https://letsencrypt.org/docs/rate-limits/>), with buckets that are filled drop by drop. It refuses what would
//! break a limit, and no test here may see a refusal.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, HashSet},
    time::Duration,
};

use gateway::{
    certificates::planner::{Deployed, Order, Ordered, Planner, Polled, Room, State, Task, Wanted},
    claim::Timestamp,
    issuer::{Budget, Came, OrderShape, Scope},
    store::{BudgetRow, Renewal, Standing, Window},
};

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";
const START: i64 = 1_790_000_000_000;

/// A bucket, filled drop by drop: a token is as many drops as milliseconds go by until there is one more.
struct Bucket {
    capacity: i64,
    token: i64,
    drops: i64,
    seen: i64,
}

impl Bucket {
    fn new(capacity: i64, period: i64) -> Self {
        let token = period / capacity;
        Self { capacity, token, drops: capacity * token, seen: 0 }
    }

    fn has(&mut self, now: i64) -> bool {
        self.drops = (self.drops + now - self.seen).min(self.capacity * self.token);
        self.seen = now;
        self.drops >= self.token
    }

    /// Takes a token if there is one.
    fn take(&mut self, now: i64) -> bool {
        let has = self.has(now);
        if has {
            self.drops -= self.token;
        }
        has
    }
}

/// Let's Encrypt.
struct Ca {
    ari: bool,
    orders: Bucket,
    domains: HashMap<String, Bucket>,
    sets: HashMap<Vec<String>, Bucket>,
    failures: HashMap<String, Bucket>,
    in_a_row: HashMap<String, Bucket>,
    certified: HashSet<Vec<String>>,
    /// Identifier → names, validity; those that were replaced are gone.
    current: HashMap<String, (Vec<String>, i64, i64)>,
    serial: u64,
    refusals: Vec<String>,
    placed: Vec<i64>,
}

struct Placed {
    names: Vec<String>,
    replaces: Option<String>,
    exempt: bool,
    renewal: bool,
    lifetime: i64,
}

impl Ca {
    fn new(ari: bool) -> Self {
        Self {
            ari,
            orders: Bucket::new(300, 3 * HOUR),
            domains: HashMap::new(),
            sets: HashMap::new(),
            failures: HashMap::new(),
            in_a_row: HashMap::new(),
            certified: HashSet::new(),
            current: HashMap::new(),
            serial: 0,
            refusals: Vec::new(),
            placed: Vec::new(),
        }
    }

    fn domain(&mut self, name: &str) -> &mut Bucket {
        let labels: Vec<_> = name.rsplit('.').take(2).collect();
        self.domains.entry(format!("{}.{}", labels[1], labels[0])).or_insert_with(|| Bucket::new(50, 7 * DAY))
    }

    fn set(&mut self, names: &[String]) -> &mut Bucket {
        self.sets.entry(sorted(names)).or_insert_with(|| Bucket::new(5, 7 * DAY))
    }

    fn failed(&mut self, name: &str) -> &mut Bucket {
        self.failures.entry(name.to_owned()).or_insert_with(|| Bucket::new(5, HOUR))
    }

    fn row(&mut self, name: &str) -> &mut Bucket {
        self.in_a_row.entry(name.to_owned()).or_insert_with(|| Bucket::new(1152, 1152 * DAY))
    }

    fn new_order(&mut self, names: &[String], replaces: Option<String>, lifetime: i64, now: i64) -> Placed {
        let exempt = replaces.as_ref().is_some_and(|id| {
            let Some((old, from, to)) = self.current.get(id) else { return false };
            let window = window(*from, *to);
            old.iter().any(|name| names.contains(name)) && (window.start.0..window.end.0).contains(&now)
        });
        let renewal = self.certified.contains(&sorted(names));
        if !exempt {
            for name in names {
                if !self.failed(name).has(now) {
                    self.refuse("failed authorizations", name);
                }
                if !self.row(name).has(now) {
                    self.refuse("paused", name);
                }
                if !renewal && !self.domain(name).has(now) {
                    self.refuse("certificates per registered domain", name);
                }
            }
            if !self.set(names).has(now) {
                self.refuse("exact set", &names.join(" "));
            }
            if !renewal && !self.orders.take(now) {
                self.refuse("new orders", "");
            }
        }
        self.placed.push(now);
        Placed { names: names.to_vec(), replaces, exempt, renewal, lifetime }
    }

    fn refuse(&mut self, limit: &str, whose: &str) {
        self.refusals.push(format!("{limit} {whose}"));
    }

    fn invalid(&mut self, name: &str, now: i64) {
        self.failed(name).take(now);
        self.row(name).take(now);
    }

    fn issue(&mut self, order: &Placed, now: i64) -> Standing {
        if !order.exempt && !order.renewal {
            let mut seen = HashSet::new();
            for name in &order.names {
                if seen.insert(name.rsplit('.').take(2).collect::<Vec<_>>()) && !self.domain(name).take(now) {
                    self.refuse("certificates per registered domain, at issuance", name);
                }
            }
        }
        // A replacement takes a token if there is one.
        if !self.set(&order.names).take(now) && !order.exempt {
            self.refuse("exact set, at issuance", &order.names.join(" "));
        }
        for name in &order.names {
            self.in_a_row.remove(name);
        }
        self.certified.insert(sorted(&order.names));
        if let Some(old) = &order.replaces {
            self.current.remove(old);
        }
        self.serial += 1;
        let (from, to) = (now - HOUR, now - HOUR + order.lifetime);
        let id = format!("aki.{}", self.serial);
        self.current.insert(id.clone(), (order.names.clone(), from, to));
        Standing {
            id: self.ari.then_some(id),
            serial: format!("{:x}", self.serial),
            directory: DIRECTORY.into(),
            names: order.names.clone(),
            wish: "wish".into(),
            not_before: Timestamp(from),
            not_after: Timestamp(to),
            issued: Timestamp(now),
        }
    }
}

/// Around two thirds of the lifetime, half of a short one.
fn window(from: i64, to: i64) -> Window {
    let lifetime = to - from;
    let middle = if lifetime < 10 * DAY { from + lifetime / 2 } else { from + lifetime * 2 / 3 };
    Window { start: Timestamp(middle - lifetime / 50), end: Timestamp(middle + lifetime / 50), explanation: None }
}

fn sorted(names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    names.sort();
    names
}

/// What is in flight.
enum Done {
    Order(Order, Option<Placed>, i64),
    Poll(String, String),
    Deploy(String),
}

/// A process with its disk, its CA, and the time.
struct World {
    now: i64,
    ca: Ca,
    planner: Planner,
    budget: Budget,
    wanted: BTreeMap<String, (Wanted, i64)>,
    /// The disk.
    renewals: BTreeMap<String, Renewal>,
    rows: HashMap<(String, String), BudgetRow>,
    /// By time, then in the order in which they began.
    in_flight: BinaryHeap<Reverse<(i64, u64)>>,
    works: HashMap<u64, Done>,
    begun: u64,
    orders: usize,
    seed: u64,
    /// Every request fails; on the first day with a 503 that asks for an hour.
    outage: std::ops::Range<i64>,
    told: i64,
    /// Names whose validation fails, and when.
    broken: HashMap<String, std::ops::Range<i64>>,
    most_rows: usize,
    expired: Vec<String>,
}

impl World {
    fn new(ari: bool, wanted: Vec<(Wanted, i64)>) -> Self {
        let mut world = Self {
            now: START,
            ca: Ca::new(ari),
            planner: Planner::default(),
            budget: Budget::new(Vec::new()),
            wanted: wanted.into_iter().map(|(wanted, lifetime)| (wanted.name.clone(), (wanted, lifetime))).collect(),
            renewals: BTreeMap::new(),
            rows: HashMap::new(),
            in_flight: BinaryHeap::new(),
            works: HashMap::new(),
            begun: 0,
            orders: 0,
            seed: 0x9e37_79b9_7f4a_7c15,
            outage: 0..0,
            told: 0,
            broken: HashMap::new(),
            most_rows: 0,
            expired: Vec::new(),
        };
        world.restart();
        world
    }

    fn random(&mut self) -> f64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 11) as f64 / (1u64 << 53) as f64
    }

    /// All that is known comes from the disk.
    fn restart(&mut self) {
        assert!(self.works.is_empty());
        self.rows.retain(|_, row| row.full_at.0 > self.now);
        self.budget = Budget::new(self.rows.values().cloned().collect());
        let wanted = self.wanted.values().map(|(wanted, _)| wanted.clone()).collect();
        let renewals = self.renewals.values().cloned().collect();
        let now = Timestamp(self.now);
        let (planner, changed) = Planner::new(wanted, renewals, now, &mut || self.random());
        self.planner = planner;
        for renewal in changed {
            self.renewals.insert(renewal.name.clone(), renewal);
        }
    }

    fn save(&mut self, rows: Vec<BudgetRow>) {
        for row in rows {
            self.rows.insert((row.limit.clone(), row.subject.clone()), row);
        }
        self.most_rows = self.most_rows.max(self.budget.len());
    }

    fn down(&self) -> bool {
        self.outage.contains(&self.now)
    }

    fn run_until(&mut self, end: i64) {
        loop {
            let room = Room { orders: 16 - self.orders, polls: 64, deployments: 64 };
            let tasks = self.planner.next(Timestamp(self.now), &mut self.budget, room);
            for task in tasks {
                self.begin(task);
            }
            let done = self.in_flight.peek().map(|Reverse((at, _))| *at);
            let wake = self.planner.wake_at().map(|at| at.0.max(self.now));
            let Some(next) = done.into_iter().chain(wake).min() else { return };
            if next >= end {
                self.now = end;
                return;
            }
            self.now = next;
            while self.in_flight.peek().is_some_and(|Reverse((at, _))| *at <= self.now) {
                let Some(Reverse((_, begun))) = self.in_flight.pop() else { break };
                let done = self.works.remove(&begun).unwrap();
                self.finish(done);
            }
        }
    }

    fn begin(&mut self, task: Task) {
        let (takes, done) = match task {
            Task::Order(order) => {
                assert!(self.now >= self.told, "{} was ordered although the CA asked to wait", order.name);
                self.save(order.taken.clone());
                self.orders += 1;
                let (wanted, lifetime) = &self.wanted[&order.name];
                let (names, lifetime) = (wanted.names.clone(), *lifetime);
                let placed = (!self.down()).then(|| self.ca.new_order(&names, order.replaces.clone(), lifetime, self.now));
                (if placed.is_some() { 40 * SECOND } else { 10 * SECOND }, Done::Order(order, placed, self.now))
            }
            Task::Poll { name, id, .. } => (SECOND, Done::Poll(name, id)),
            Task::Deploy { name } => (SECOND, Done::Deploy(name)),
        };
        self.begun += 1;
        self.in_flight.push(Reverse((self.now + takes, self.begun)));
        self.works.insert(self.begun, done);
    }

    fn finish(&mut self, done: Done) {
        let (now, spread, down) = (Timestamp(self.now), self.random(), self.down());
        let renewal = match done {
            Done::Order(order, placed, begun) => {
                self.orders -= 1;
                let names = self.wanted[&order.name].0.names.clone();
                let shape = OrderShape { directory: &order.directory, names: &names, kind: order.kind };
                let outcome = match placed {
                    None => {
                        let mut rows = self.budget.give_back(&shape, Came::NotPlaced, now);
                        let retry_at = (self.now < self.outage.start + DAY).then(|| now.after(Duration::from_secs(3600)));
                        if let Some(until) = retry_at {
                            rows.extend(self.budget.told(&order.directory, &Scope::Directory, until, now));
                            self.told = until.0;
                        }
                        self.save(rows);
                        Ordered::Failed { text: "no answer".into(), retry_at }
                    }
                    Some(_) if down => {
                        let rows = self.budget.give_back(&shape, Came::NotFinalized, now);
                        self.save(rows);
                        Ordered::Failed { text: "no answer".into(), retry_at: None }
                    }
                    Some(_) if names.iter().any(|name| self.broken.get(name).is_some_and(|when| when.contains(&self.now))) => {
                        let bad: Vec<_> = names.iter().filter(|name| self.broken.contains_key(*name)).cloned().collect();
                        for name in &bad {
                            self.ca.invalid(name, self.now);
                        }
                        let mut rows = self.budget.failed(&order.directory, &bad, now);
                        rows.extend(self.budget.give_back(&shape, Came::NotFinalized, now));
                        self.save(rows);
                        Ordered::Failed { text: "not validated".into(), retry_at: None }
                    }
                    Some(placed) => {
                        let standing = self.ca.issue(&placed, self.now);
                        let rows = self.budget.issued(&shape, Timestamp(begun), now);
                        self.save(rows);
                        let old = self.renewals.get(&order.name).and_then(|renewal| renewal.standing.as_ref());
                        if old.is_some_and(|old| old.not_after <= now) {
                            self.expired.push(order.name.clone());
                        }
                        Ordered::Issued(standing)
                    }
                };
                self.planner.ordered(&order.name, outcome, now, spread)
            }
            Done::Poll(name, id) => {
                let outcome = match self.ca.current.get(&id) {
                    Some((_, from, to)) if !down => {
                        Polled::Window { window: window(*from, *to), retry_at: Some(now.after(Duration::from_secs(86_400))) }
                    }
                    _ => Polled::Failed { retry_at: None },
                };
                self.planner.polled(&name, outcome, now, spread)
            }
            Done::Deploy(name) => self.planner.deployed(&name, Deployed::Done, now, spread),
        };
        let renewal = renewal.unwrap();
        self.renewals.insert(renewal.name.clone(), renewal);
    }

    /// Goes on until nothing is in flight.
    fn settle(&mut self) {
        while !self.works.is_empty() {
            self.run_until(self.now + 1);
        }
    }

    fn have(&self) -> usize {
        self.renewals.values().filter(|renewal| renewal.standing.is_some()).count()
    }

    /// Orders that were placed, by day.
    fn days(&self) -> Vec<usize> {
        let mut days = vec![0; usize::try_from((self.now - START) / DAY + 1).unwrap()];
        for at in &self.ca.placed {
            days[usize::try_from((at - START) / DAY).unwrap()] += 1;
        }
        days
    }
}

fn wanted(name: String, names: Vec<String>) -> Wanted {
    Wanted {
        name,
        names,
        directories: vec![DIRECTORY.into()],
        wish: "wish".into(),
        renew_before: None,
        deployment: "files".into(),
        dry_run: false,
    }
}

/// A thousand certificates of 160 hours, 45 days and 90 days, in forty registered domains.
fn thousand() -> Vec<(Wanted, i64)> {
    let lifetimes = [160 * HOUR, 45 * DAY, 90 * DAY];
    (0..1000usize)
        .map(|n| {
            let domain = format!("d{:02}.example", n % 40);
            let names =
                if n % 5 == 0 { vec![format!("n{n}.{domain}"), format!("*.n{n}.{domain}")] } else { vec![format!("n{n}.{domain}")] };
            (wanted(format!("c{n:04}"), names), lifetimes[n % 3])
        })
        .collect()
}

/// `busiest`: so many times the mean are ordered on the busiest day, once the first cycle is over.
fn year(ari: bool, busiest: usize) {
    let mut world = World::new(ari, thousand());
    // As fast as the limits allow: 300 at once, then one in 36 seconds.
    let least = 700 * 36 * SECOND;
    world.run_until(START + least + least / 20);
    assert_eq!(world.have(), 1000, "first issuance");
    // Validation of a few fails for a while: of a short-lived one for a day, of longer ones for two weeks.
    for (name, days) in [("c0003", 1), ("c0001", 14), ("c0004", 14), ("c0002", 14), ("c0005", 14)] {
        let names = world.wanted[name].0.names.clone();
        let until = world.renewals[name].renew_at.unwrap().0 + days * DAY;
        world.broken.extend(names.into_iter().map(|name| (name, START..until)));
    }
    world.run_until(START + 120 * DAY);
    world.settle();
    world.restart();
    let outage = START + 180 * DAY..START + 183 * DAY;
    world.outage = outage.clone();
    world.run_until(outage.end);
    let failing = world.planner.iter(Timestamp(world.now)).filter(|status| status.state == State::Failing).count();
    assert!(failing > 250, "the outage was felt: {failing}");
    world.run_until(START + 365 * DAY);

    assert_eq!(world.ca.refusals, [""; 0], "limits broken");
    assert_eq!(world.expired, [""; 0], "expired");
    for status in world.planner.iter(Timestamp(world.now)) {
        assert!(matches!(status.state, State::Valid | State::Renewing | State::Undeployed), "{:?}", status);
    }
    let days = world.days();
    let even: Vec<_> = (100..365).filter(|day| !(180..=190).contains(day)).map(|day| days[day]).collect();
    let (most, mean) = (*even.iter().max().unwrap(), even.iter().sum::<usize>() / even.len());
    assert!(most <= busiest * mean, "{most} on the busiest day, {mean} a day: {days:?}");
    assert!(world.most_rows < 4000, "{}", world.most_rows);
}

#[test]
fn a_year_with_renewal_information() {
    // The CA's windows for short-lived ones are six hours wide, so that those issued in one go come apart slowly; earlier would not be free of limits.
    year(true, 4);
}

#[test]
fn a_year_without_renewal_information() {
    year(false, 3);
}

#[test]
fn a_hundred_certificates_of_one_registered_domain_take_the_week_that_the_ca_wants() {
    let list = (0..100).map(|n| (wanted(format!("c{n:02}"), vec![format!("n{n}.shared.example")]), 90 * DAY)).collect();
    let mut world = World::new(false, list);
    world.run_until(START + HOUR);
    assert_eq!(world.have(), 50);
    let waiting: Vec<_> = world.planner.iter(Timestamp(world.now)).filter(|status| status.state == State::Waiting).collect();
    assert_eq!(waiting.len(), 50);
    assert!(waiting[0].waits.as_ref().unwrap().text().contains("shared.example"), "{:?}", waiting[0].waits);
    world.run_until(START + 50 * (7 * DAY / 50) + HOUR);
    assert_eq!(world.have(), 100);
    assert_eq!(world.ca.refusals, [""; 0]);
}
