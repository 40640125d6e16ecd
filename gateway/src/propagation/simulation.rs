//! Waits against simulated servers, in simulated time: how long after the last server has a value is it known? And is no server asked more often than it may be?

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use authdns::Name;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::{
    Values,
    check::{Ask, Report, Seen, Verdict, Watch, Watched},
    schedule::{APART, History},
};

/// To a server and back.
const ROUND_TRIP: Duration = Duration::from_millis(10);
/// Waits before the figures count.
const LEARNING: usize = 12;
const WAITS: usize = 100;

/// Servers that have every value so long after the start; `None` never answers.
struct Servers {
    start: Instant,
    delays: Vec<Option<f64>>,
    asked: Mutex<HashMap<(usize, Name), Vec<Instant>>>,
}

impl Ask for Servers {
    async fn ask(&self, server: usize, owner: &Name, _: &BTreeSet<String>) -> Seen {
        self.asked.lock().entry((server, owner.clone())).or_default().push(Instant::now());
        let Some(delay) = self.delays[server] else {
            sleep(Duration::from_secs(1)).await;
            return Seen::Mute("does not answer".into());
        };
        sleep(ROUND_TRIP / 2).await;
        let there = self.start.elapsed().as_secs_f64() >= delay;
        sleep(ROUND_TRIP / 2).await;
        if there { Seen::All } else { Seen::Lacks("does not answer the value".into()) }
    }
}

/// A backend: what was learned of each server.
struct Backend {
    histories: Vec<History>,
    trusted: Vec<bool>,
}

impl Backend {
    fn new(servers: usize) -> Self {
        Self { histories: vec![History::default(); servers], trusted: vec![true; servers] }
    }

    /// One wait; how long after the last server each owner was seen.
    async fn wait(&mut self, owners: usize, delays: Vec<Option<f64>>) -> (Vec<f64>, Report) {
        let values: Values = (0..owners).map(|n| (format!("n{n}.test").parse().unwrap(), BTreeSet::from(["v".to_owned()]))).collect();
        let last = delays.iter().flatten().copied().fold(0.0, f64::max);
        let start = Instant::now();
        let servers = Servers { start, delays, asked: Mutex::default() };
        let watched: Vec<Watched> = (self.histories.iter().zip(&self.trusted).enumerate())
            .map(|(n, (history, &trusted))| Watched { name: format!("ns{n}").into(), schedule: history.schedule(owners), trusted })
            .collect();
        let seen = Mutex::new(BTreeMap::new());
        let watch = Watch {
            label: "test",
            servers: &watched,
            values: &values,
            ask: &servers,
            start,
            deadline: start + Duration::from_secs(300),
            seen: &|owner| assert!(seen.lock().insert(owner.clone(), start.elapsed().as_secs_f64()).is_none(), "told twice"),
            watcher: &|_| {},
        };
        let report = watch.run().await;
        for ((history, delay), (trusted, verdict)) in
            self.histories.iter_mut().zip(&report.delays).zip(self.trusted.iter_mut().zip(&report.verdicts))
        {
            delay.iter().for_each(|delay| history.note(*delay));
            *trusted = *verdict == Verdict::Ready;
        }
        for (question, times) in servers.asked.into_inner() {
            let too_soon = times.windows(2).find(|pair| pair[1] - pair[0] < APART);
            assert!(too_soon.is_none(), "{question:?} was asked twice within a second: {times:?}");
        }
        assert_eq!(seen.lock().len(), owners);
        (seen.into_inner().into_values().map(|at| at - last).collect(), report)
    }
}

/// Median lag in seconds over waits with these delays, after some to learn from.
async fn median(owners: usize, servers: usize, delays: impl FnMut(&mut Random) -> Vec<Option<f64>>) -> f64 {
    let lags = lags(owners, servers, delays).await;
    lags[lags.len() / 2]
}

/// The lags themselves, the shortest first.
async fn lags(owners: usize, servers: usize, mut delays: impl FnMut(&mut Random) -> Vec<Option<f64>>) -> Vec<f64> {
    let (mut random, mut backend, mut lags) = (Random(0x9E37_79B9_7F4A_7C15), Backend::new(servers), Vec::new());
    for wait in 0..LEARNING + WAITS {
        let (seen, _) = backend.wait(owners, delays(&mut random)).await;
        if wait >= LEARNING {
            lags.extend(seen);
        }
        sleep(2 * APART).await;
    }
    lags.sort_by(f64::total_cmp);
    lags
}

/// Xorshift: the same numbers each time.
struct Random(u64);

impl Random {
    fn uniform(&mut self, from: f64, to: f64) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        from + (to - from) * (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    fn lognormal(&mut self, median: f64, sigma: f64) -> f64 {
        let radius = (-2.0 * self.uniform(f64::EPSILON, 1.0).ln()).sqrt();
        median * (sigma * radius * self.uniform(0.0, std::f64::consts::TAU).cos()).exp()
    }
}

#[tokio::test(start_paused = true)]
async fn a_constant_delay_is_found() {
    for delay in [0.0, 0.04, 0.63, 2.3, 31.7] {
        let median = median(1, 1, |_| vec![Some(delay)]).await;
        assert!(median <= 0.3, "{delay} s: {median} s at the median");
    }
}

#[tokio::test(start_paused = true)]
async fn servers_with_delays_of_their_own_are_learned_one_by_one() {
    let median = median(1, 3, |random| [0.4, 1.7, 2.9].map(|delay| Some(delay + random.uniform(0.0, 0.2))).to_vec()).await;
    assert!(median <= 0.3, "{median} s at the median");
}

#[tokio::test(start_paused = true)]
async fn names_that_come_together_scout_for_each_other() {
    let uniform = median(20, 1, |random| vec![Some(random.uniform(1.0, 5.0))]).await;
    assert!(uniform <= 0.3, "uniform: {uniform} s at the median");
    let lognormal = median(20, 1, |random| vec![Some(random.lognormal(2.0, 0.5))]).await;
    assert!(lognormal <= 0.3, "lognormal: {lognormal} s at the median");
}

#[tokio::test(start_paused = true)]
async fn one_name_is_seen_as_soon_as_one_question_a_second_allows() {
    let narrow = median(1, 1, |random| vec![Some(random.lognormal(1.5, 0.08))]).await;
    assert!(narrow <= 0.3, "lognormal: {narrow} s at the median");
    // Questions a second apart see 0.3 s of each second soon enough: with delays spread evenly over four seconds, no schedule has a median below 0.5 s.
    let wide = median(1, 1, |random| vec![Some(random.uniform(1.0, 5.0))]).await;
    assert!((0.4..0.6).contains(&wide), "uniform: {wide} s at the median");
}

#[tokio::test(start_paused = true)]
async fn servers_that_are_about_as_late_as_ever_are_asked_when_they_are_done() {
    for servers in [1, 2, 4] {
        let lags = lags(1, servers, |random| (0..servers).map(|_| Some(random.uniform(1.8, 2.2))).collect()).await;
        let (median, long) = (lags[lags.len() / 2], lags.iter().filter(|lag| **lag > 0.5).count());
        assert!(median <= 0.27, "{servers} servers: {median} s at the median");
        // What little is known of how early they may be there is not forgotten: to learn it anew costs a second each time.
        assert!(long * 8 <= lags.len(), "{servers} servers: {long} of {} waits asked too early: {lags:.2?}", lags.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_delay_is_noticed() {
    for (before, after) in [(6.0, 1.2), (1.2, 6.0), (2.2, 0.3), (0.3, 2.2)] {
        let (mut random, mut backend) = (Random(7), Backend::new(1));
        for _ in 0..100 {
            backend.wait(1, vec![Some(before + random.uniform(0.0, 0.1))]).await;
        }
        let mut lags = Vec::new();
        for _ in 0..40 {
            lags.extend(backend.wait(1, vec![Some(after + random.uniform(0.0, 0.1))]).await.0);
        }
        let soon = lags[10..].iter().filter(|lag| **lag <= 0.3).count();
        assert!(soon > 20, "from {before} s to {after} s: {lags:.2?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_server_costs_time_once() {
    let mut backend = Backend::new(2);
    let (first, report) = backend.wait(3, vec![Some(0.0), None]).await;
    assert!(first.iter().all(|lag| *lag > 2.0), "three tries: {first:?}");
    assert_eq!(report.verdicts, [Verdict::Ready, Verdict::Aside("does not answer".into())]);
    let (second, _) = backend.wait(3, vec![Some(0.0), None]).await;
    assert!(second.iter().all(|lag| *lag < 0.3), "{second:?}");
    // It is back, and has the value later than the other: it is waited for again.
    let (third, report) = backend.wait(3, vec![Some(0.0), Some(0.0)]).await;
    assert_eq!((third.len(), report.verdicts), (3, vec![Verdict::Ready, Verdict::Ready]));
    let (fourth, _) = backend.wait(3, vec![Some(0.0), Some(3.0)]).await;
    assert!(fourth.iter().all(|lag| *lag >= 0.0), "{fourth:?}");
}
