//! When to look at an order after an act: when the CA is likely to be done, as the orders before have shown.
//!
//! CAs put a Retry-After of seconds on work that is done in milliseconds, or in one second. So an order is looked at early: first when about half of those before
//! it were done, then after ever longer pauses, for a second at most. From then on Retry-After decides. A CA that takes its usual time is asked once or twice, one
//! that nobody knows yet, or that has become slow, ten times at most.

use std::time::Duration;

use parking_lot::Mutex;

/// What is expected of a CA that nobody knows yet.
const UNKNOWN: Duration = Duration::from_millis(5);
const LEAST: Duration = Duration::from_millis(1);
/// The first look is not later.
const LATEST_FIRST: Duration = Duration::from_millis(500);
/// No look that the CA did not ask for is later than this after the act.
const MOST: Duration = Duration::from_secs(1);
/// The second pause is this part of the first; each one after that, so many times the one before.
const SECOND: f64 = 0.5;
const GROWTH: f64 = 2.0;
/// Found done at the first look, the next first look is this much earlier: what was learned when many orders kept the CA busy is soon forgotten.
const EARLIER: f64 = 0.5;

/// What an order is waited for.
#[derive(Debug, Clone, Copy)]
pub(in crate::issuer) enum Work {
    /// The CA looks at the values.
    Validation,
    /// The CA makes the certificate.
    Issuance,
}

/// The paces of one CA.
#[derive(Debug, Default)]
pub(super) struct Paces {
    validation: Pace,
    issuance: Pace,
}

impl Paces {
    pub(super) const fn of(&self, work: Work) -> &Pace {
        match work {
            Work::Validation => &self.validation,
            Work::Issuance => &self.issuance,
        }
    }
}

/// How long one kind of work has taken at a CA.
#[derive(Debug)]
pub(super) struct Pace(Mutex<Duration>);

/// The pauses before the looks at one order; none are left when Retry-After has its say.
#[derive(Debug)]
pub(super) struct Looks {
    next: Duration,
    growth: f64,
    since: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self(Mutex::new(UNKNOWN))
    }
}

impl Pace {
    pub(super) fn looks(&self) -> Looks {
        Looks { next: *self.0.lock(), growth: SECOND, since: Duration::ZERO }
    }

    /// Learns from work that was found done `took` after the act, at the first look or at a later one.
    pub(super) fn done(&self, took: Duration, first: bool) {
        let mut expected = self.0.lock();
        // Between what was too early and what was late, by their ratio: a new CA is known after a few orders, and one slow order does not count for much.
        let learned =
            if first { expected.mul_f64(EARLIER) } else { Duration::from_secs_f64((expected.as_secs_f64() * took.as_secs_f64()).sqrt()) };
        *expected = learned.clamp(LEAST, LATEST_FIRST);
    }
}

impl Iterator for Looks {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.next;
        self.since += pause;
        self.next = pause.mul_f64(self.growth).max(LEAST);
        self.growth = GROWTH;
        (self.since <= MOST).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Orders at a CA that takes this long for each; gives the looks at the last one.
    fn after(orders: usize, work: Duration) -> Vec<Duration> {
        let pace = Pace::default();
        let mut looks = Vec::new();
        for _ in 0..orders {
            looks.clear();
            let mut at = Duration::ZERO;
            // Retry-After's looks: each two seconds.
            for pause in pace.looks().chain(std::iter::repeat(Duration::from_secs(2))) {
                at += pause;
                looks.push(at);
                if at >= work {
                    break;
                }
            }
            pace.done(at, looks.len() == 1);
        }
        looks
    }

    #[test]
    fn a_ca_is_asked_once_or_twice_when_it_is_known() {
        for work in [2, 20, 150, 700].map(Duration::from_millis) {
            for orders in 8..30 {
                let looks = after(orders, work);
                assert!(looks.len() <= 3, "{looks:?} for {work:?}");
                assert!(*looks.last().unwrap() <= work * 2, "{looks:?} for {work:?}");
            }
        }
    }

    #[test]
    fn a_ca_that_nobody_knows_is_asked_ten_times_at_most() {
        for expected in [1, 2, 5, 30, 499, 500].map(Duration::from_millis) {
            let looks: Vec<_> = Pace(Mutex::new(expected)).looks().collect();
            assert!((1..=10).contains(&looks.len()), "{looks:?}");
            assert!(looks.iter().sum::<Duration>() <= MOST, "{looks:?}");
        }
        assert_eq!(Pace::default().looks().next(), Some(UNKNOWN));
    }

    #[test]
    fn one_slow_order_does_not_make_the_next_wait_for_long() {
        let pace = Pace::default();
        pace.done(Duration::from_secs(290), false);
        assert_eq!(pace.looks().next(), Some(LATEST_FIRST));
        (0..7).for_each(|_| pace.done(Duration::from_millis(300), true));
        assert!(pace.looks().next() < Some(UNKNOWN));
    }
}
