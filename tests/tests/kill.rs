//! SIGKILL at random moments while values are presented and cleaned up: after the next start DNS holds what was acknowledged, nothing that was let go, nothing
//! that nobody asked for, and the strangers' records as they were.
#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use acmegate_tests::{
    acmedns::value,
    backends::{Backend, Cloudflare, Foreign, Route53, Site, Stored, ZONE},
    webhook::{Refusal, Webhook},
};
use futures_util::future::join_all;
use tokio::time::sleep;

/// Writers in flight, each with values of its own.
const WRITERS: u64 = 12;

/// Names; several writers share one.
const NAMES: u64 = 8;

/// The longest that a process lives in a round, from the first request on.
const LONGEST: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cloudflare() {
    let backend = Cloudflare::start().await;
    // Its calls of five minutes would be spent in half of one, and the rounds would be waits for more.
    backend.emulator().limit_rate(Some((1_000_000, Duration::from_secs(300))));
    dns_equals_the_ledger(Arc::new(backend)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn route53() {
    let backend = Route53::start().await;
    // A process that starts anew does not know what the one before has spent of the account's rate; with it the rounds would be waits for it.
    backend.gate().limit_rate(false);
    dns_equals_the_ledger(Arc::new(backend)).await;
}

/// One writer, and what it knows of its value.
struct Writer {
    number: u64,
    chance: Chance,
    slot: Slot,
    /// Calls that were answered.
    acknowledged: u64,
}

/// A value at a name, as far as its writer knows.
#[derive(Debug, Clone)]
enum Slot {
    Empty,
    Stands(String, String),
    /// The process died while it was presented or cleaned up: it may stand or not.
    Unknown(String, String),
}

async fn dns_equals_the_ledger(backend: Arc<dyn Backend>) {
    let rounds: u64 = std::env::var("ACMEGATE_KILL_ROUNDS").map_or(100, |rounds| rounds.parse().expect("ACMEGATE_KILL_ROUNDS is a number"));
    let seed =
        std::env::var("ACMEGATE_KILL_SEED").map_or_else(|_| uuid::Uuid::new_v4().as_u64_pair().0, |seed| seed.parse().expect("a number"));
    eprintln!("{}: ACMEGATE_KILL_SEED={seed}", backend.id());
    // What the provider took is the ledger's; whether its servers show it yet is not what is judged.
    let mut site = Site::start_unseen(backend).await;
    let mut chance = Chance(seed);
    let foreign: Vec<_> = (0..NAMES / 2).map(|number| Foreign::new(&name(number), 300, "somebody else's")).collect();
    for record in &foreign {
        site.backend.insert(record).await;
    }
    let before = strangers(&site).await;
    let mut writers: Vec<_> =
        (0..WRITERS).map(|number| Writer { number, chance: Chance(chance.next()), slot: Slot::Empty, acknowledged: 0 }).collect();
    let (start, mut slowest) = (Instant::now(), Duration::ZERO);
    for round in 0..rounds {
        let longest = u64::try_from(LONGEST.as_micros()).unwrap_or(u64::MAX);
        let begun = Instant::now();
        work_until_killed(&mut site, &mut writers, Duration::from_micros(chance.next() % longest)).await;
        site.acmegate.start().await;
        join_all(writers.iter_mut().map(|writer| writer.settle(&site))).await;
        judge(&site, &writers, round).await;
        slowest = slowest.max(begun.elapsed());
        assert_eq!(strangers(&site).await, before, "round {round}: the strangers' records are as they were");
    }
    let acknowledged: u64 = writers.iter().map(|writer| writer.acknowledged).sum();
    let (id, seconds, slowest) = (site.backend.id(), start.elapsed().as_secs(), slowest.as_secs_f64());
    eprintln!("{id}: {rounds} rounds, {acknowledged} acknowledged calls, {seconds} s, the slowest round {slowest:.1} s");
    assert!(acknowledged >= rounds, "the rounds did something");
}

/// Lets every writer present and clean up until the process dies.
async fn work_until_killed(site: &mut Site, writers: &mut [Writer], lifetime: Duration) {
    let url = site.door.url(&site.acmegate);
    let Site { acmegate, door, .. } = site;
    let (door, url) = (&*door, url.as_str());
    let kill = async {
        // A random moment is what this test is about: there is no event to wait for.
        sleep(lifetime).await;
        acmegate.kill();
    };
    futures_util::join!(join_all(writers.iter_mut().map(|writer| writer.work(door, url))), kill);
}

/// What the servers of DNS hold is what the writers know.
async fn judge(site: &Site, writers: &[Writer], round: u64) {
    let mut expected: BTreeMap<String, BTreeSet<String>> = (0..NAMES).map(|number| (name(number), BTreeSet::new())).collect();
    for number in 0..NAMES / 2 {
        expected.entry(name(number)).or_default().insert("somebody else's".to_owned());
    }
    for writer in writers {
        match &writer.slot {
            Slot::Stands(owner, one) => drop(expected.entry(owner.clone()).or_default().insert(one.clone())),
            Slot::Empty => {}
            Slot::Unknown(owner, one) => panic!("round {round}: {one} at {owner} is still unknown"),
        }
    }
    for (owner, expected) in expected {
        site.becomes(&owner, &expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
}

/// The strangers' records, byte for byte.
async fn strangers(site: &Site) -> Vec<BTreeSet<Stored>> {
    let all = join_all((0..NAMES).map(|number| async move { site.backend.records(&name(number)).await })).await;
    all.into_iter().map(|records| records.into_iter().filter(|record| record.value == "somebody else's").collect()).collect()
}

impl Writer {
    /// Presents a new value at a name, or cleans up the one that stands, again and again until nobody answers.
    async fn work(&mut self, door: &Webhook, url: &str) {
        loop {
            let (action, owner, one) = match &self.slot {
                Slot::Stands(owner, one) => ("CleanUp", owner.clone(), one.clone()),
                // Refused until now, for a reason that passes.
                Slot::Unknown(owner, one) => ("Present", owner.clone(), one.clone()),
                // No value is ever used twice: one that is left over is seen.
                Slot::Empty => ("Present", name(self.chance.next() % NAMES), value((self.chance.next() >> 8) * WRITERS + self.number)),
            };
            self.slot = match door.call(url, action, &owner, &one).await {
                Ok(()) => {
                    self.acknowledged += 1;
                    if action == "Present" { Slot::Stands(owner, one) } else { Slot::Empty }
                }
                Err(Refusal::Unanswered(_)) => return self.slot = Slot::Unknown(owner, one),
                Err(Refusal::Said(_)) if action == "Present" => Slot::Unknown(owner, one),
                Err(Refusal::Said(message)) => panic!("{action} of {one} at {owner}: {message}"),
            };
        }
    }

    /// Asks again for what is unknown, or for the contrary, until it is known.
    async fn settle(&mut self, site: &Site) {
        let Slot::Unknown(owner, one) = self.slot.clone() else { return };
        self.slot = if self.chance.next().is_multiple_of(2) {
            site.present_at_last(&owner, &one).await;
            Slot::Stands(owner, one)
        } else {
            site.clean_up(&owner, &one).await;
            Slot::Empty
        };
    }
}

fn name(number: u64) -> String {
    format!("_acme-challenge.kill{number}.{ZONE}")
}

/// Random numbers that a seed repeats (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
