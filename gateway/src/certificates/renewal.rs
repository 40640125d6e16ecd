//! When a certificate is renewed, and when what failed is tried again.
//!
//! ```text
//!  not_before                                                  rule                      not_after
//!  ├──────────────┬─────────────────────────────────┬───────────┤─────────────────────────┤
//!  │ no renewal   │                                 │ spread    │ a third of the lifetime │
//!  └──────────────┴─────────────────────────────────┴───────────┴─────────────────────────┘
//! ```
//!
//! Chance comes in from outside, as a number from 0 to 1 (`spread`) that is thrown once for a certificate and a rule: the time that comes out is kept, and
//! stays as long as it is one that the rule could have given ([`Interval::has`]).

use std::time::Duration;

use crate::{claim::Timestamp, store::Window};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A lifetime below this is a short one, of which half is left at renewal and not a third.
const SHORT: i64 = 10 * DAY;
/// Waits after the first failures in a row; then it is [`DAY`].
const WAITS: [i64; 3] = [MINUTE, 10 * MINUTE, 100 * MINUTE];
/// So many tries are left before the end, whatever failed: no wait is longer than this part of what is left.
const TRIES: i64 = 12;
/// Near the end and after it no more often than this: 1,152 failures in a row would have Let's Encrypt pause the names.
const OFTEN: i64 = HOUR;
const EXPIRED_OFTEN: i64 = 2 * HOUR;
/// So long after its end a certificate is no emergency any more, but forgotten.
const FORGOTTEN: i64 = 7 * DAY;
/// A paused certificate is tried again after so long, in case that the person who unpaused it said nothing here.
pub const PAUSE: Duration = Duration::from_secs(7 * 86_400);
/// Where a CA without renewal information is asked for it again, and the longest that one with it is not.
const POLL_MOST: i64 = DAY;
/// The least between two polls.
const POLL_LEAST: i64 = HOUR;
/// After a poll that failed.
const POLL_FAILED: i64 = 3 * HOUR;

/// From when to when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// From.
    pub not_before: Timestamp,
    /// To.
    pub not_after: Timestamp,
}

/// The times of which one is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// The earliest.
    pub from: Timestamp,
    /// The latest.
    pub to: Timestamp,
}

impl Validity {
    /// How long, in milliseconds; at least one, so that what divides by it is safe from certificates that were never valid.
    const fn lifetime(self) -> i64 {
        let lifetime = self.not_after.0.saturating_sub(self.not_before.0);
        if lifetime < 1 { 1 } else { lifetime }
    }

    /// So much of the lifetime after its begin.
    const fn at(self, numerator: i64, denominator: i64) -> i64 {
        self.not_before.0.saturating_add(self.lifetime() / denominator * numerator)
    }
}

impl Interval {
    /// True if the rule could have given this time.
    pub fn has(&self, time: Timestamp) -> bool {
        (self.from..=self.to).contains(&time)
    }

    /// The time that `spread` (0 to 1) chooses.
    pub fn choose(&self, spread: f64) -> Timestamp {
        Timestamp(self.from.0.saturating_add(part(self.to.0.saturating_sub(self.from.0), spread)))
    }
}

/// When to renew. A time that is past means now.
///
/// - The CA's window (RFC 9773): a time in it, at random.
/// - `renew_before` of the configuration: so long before the end, and up to a quarter of that earlier (a tenth of the lifetime at most).
/// - Both: the earlier. Whoever writes `renew_before` wants to be safe earlier, or knows better than the CA's suggestion; but a CA that calls a certificate
///   back says so with an early window, and then no setting may keep it.
/// - Neither: a third of the lifetime left, half of one below ten days, and up to a tenth of the lifetime earlier, so that a list that was issued in one go
///   is not renewed in one go for ever.
pub fn renew_at(validity: Validity, renew_before: Option<Duration>, window: Option<&Window>, spread: f64) -> Timestamp {
    interval(validity, renew_before, window).choose(spread)
}

/// The times of which [`renew_at`] chooses one.
pub fn interval(validity: Validity, renew_before: Option<Duration>, window: Option<&Window>) -> Interval {
    match (renew_before, window) {
        (Some(before), Some(window)) => {
            let (own, cas) = (by_setting(validity, before), by_window(validity, window));
            Interval { from: own.from.min(cas.from), to: own.to.min(cas.to) }
        }
        (Some(before), None) => by_setting(validity, before),
        (None, Some(window)) => by_window(validity, window),
        (None, None) => by_rule(validity),
    }
}

fn by_rule(validity: Validity) -> Interval {
    let lifetime = validity.lifetime();
    let left = if lifetime < SHORT { lifetime / 2 } else { lifetime / 3 };
    ending(validity.not_after.0.saturating_sub(left), lifetime / 10)
}

/// A `renew_before` that is longer than the lifetime would renew for ever (CAs shorten lifetimes, and settings stay): a certificate is used for three tenths of
/// its lifetime at least. One of nothing would renew when it is too late: a hundredth is left.
fn by_setting(validity: Validity, before: Duration) -> Interval {
    let lifetime = validity.lifetime();
    let before = i64::try_from(before.as_millis()).unwrap_or(i64::MAX).max(lifetime / 100);
    let to = validity.not_after.0.saturating_sub(before).max(validity.at(4, 10));
    ending(to, (lifetime / 10).min(before / 4))
}

/// A window may be as early as a CA likes, but for the first twentieth of the lifetime (six hours at most), so that a CA whose windows are always past does not
/// make a loop; and as late as leaves a tenth of the lifetime.
fn by_window(validity: Validity, window: &Window) -> Interval {
    let lifetime = validity.lifetime();
    let least = validity.not_before.0.saturating_add((lifetime / 20).min(6 * HOUR));
    let most = validity.not_after.0.saturating_sub(lifetime / 10);
    let from = window.start.0.clamp(least, most.max(least));
    Interval { from: Timestamp(from), to: Timestamp(window.end.0.clamp(from, most.max(from))) }
}

const fn ending(to: i64, length: i64) -> Interval {
    Interval { from: Timestamp(to.saturating_sub(length)), to: Timestamp(to) }
}

/// When to try again after so many failures in a row: 1, 10, 100 minutes, then daily, each up to a tenth more at random. `not_after`, the end of the certificate
/// that is there, shortens the wait, so that tries are left before it: a twelfth of what is left, an hour at least. `retry_at`, what the CA asked for, wins if
/// it is later.
pub fn after_failure(failures: u32, now: Timestamp, not_after: Option<Timestamp>, retry_at: Option<Timestamp>, spread: f64) -> Timestamp {
    let wait = wait_after(failures);
    let most = not_after.map_or(DAY, |end| match end.0.saturating_sub(now.0) {
        left if left > 0 => (left / TRIES).clamp(OFTEN, DAY),
        over if over > -FORGOTTEN => EXPIRED_OFTEN,
        _ => DAY,
    });
    let at = later(now, wait.min(most), spread);
    retry_at.map_or(at, |retry_at| retry_at.max(at))
}

/// When to deploy again after so many failures in a row: 1, 10, 100 minutes, then daily.
pub fn after_failed_deployment(failures: u32, now: Timestamp, spread: f64) -> Timestamp {
    later(now, wait_after(failures), spread)
}

/// When to rehearse again what went well: once a day tells whether it still does.
pub fn next_rehearsal(now: Timestamp, spread: f64) -> Timestamp {
    later(now, DAY, spread)
}

/// When to ask the CA for its window again: when it said, within reason, and up to a quarter later at random. Without a word of it, in a day.
pub fn poll_at(now: Timestamp, retry_at: Option<Timestamp>, spread: f64) -> Timestamp {
    let asked = retry_at.map_or(POLL_MOST, |at| at.0.saturating_sub(now.0)).clamp(POLL_LEAST, POLL_MOST);
    Timestamp(now.0.saturating_add(asked).saturating_add(part(asked / 4, spread)))
}

/// When to ask again after a poll that failed.
pub fn after_failed_poll(now: Timestamp, retry_at: Option<Timestamp>, spread: f64) -> Timestamp {
    let at = later(now, POLL_FAILED, spread);
    retry_at.map_or(at, |retry_at| retry_at.max(at))
}

fn wait_after(failures: u32) -> i64 {
    let at = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
    WAITS.get(at).copied().unwrap_or(DAY)
}

fn later(now: Timestamp, wait: i64, spread: f64) -> Timestamp {
    Timestamp(now.0.saturating_add(wait).saturating_add(part(wait / 10, spread)))
}

/// So much of it; whatever `spread` is, not less than nothing and not more than all.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "clamped to 0 to 1, of a time whose last milliseconds do not matter"
)]
fn part(whole: i64, spread: f64) -> i64 {
    let spread = if spread.is_nan() { 0.0 } else { spread.clamp(0.0, 1.0) };
    ((whole as f64 * spread) as i64).min(whole.max(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BIRTH: i64 = 1_790_000_000_000;

    fn validity(lifetime: i64) -> Validity {
        Validity { not_before: Timestamp(BIRTH), not_after: Timestamp(BIRTH + lifetime) }
    }

    fn window(from: i64, to: i64) -> Window {
        Window { start: Timestamp(BIRTH + from), end: Timestamp(BIRTH + to), explanation: None }
    }

    /// Days after the begin, at the earliest and at the latest.
    fn days(lifetime: i64, before: Option<i64>, window: Option<&Window>) -> (f64, f64) {
        let before = before.map(|millis| Duration::from_millis(u64::try_from(millis).unwrap()));
        let of = |spread| {
            let at = renew_at(validity(lifetime), before, window, spread);
            ((at.0 - BIRTH) as f64 / DAY as f64 * 10.0).round() / 10.0
        };
        (of(0.0), of(1.0))
    }

    #[test]
    fn a_third_is_left_or_half_of_a_short_life_and_a_list_is_spread() {
        assert_eq!(days(90 * DAY, None, None), (51.0, 60.0));
        assert_eq!(days(45 * DAY, None, None), (25.5, 30.0));
        assert_eq!(days(6 * DAY, None, None), (2.4, 3.0));
    }

    #[test]
    fn a_setting_counts_from_the_end_and_is_bounded_by_the_lifetime() {
        assert_eq!(days(90 * DAY, Some(30 * DAY), None), (52.5, 60.0));
        assert_eq!(days(90 * DAY, Some(2 * DAY), None), (87.5, 88.0));
        // As long as the lifetime, or longer: three tenths are used at least.
        for before in [60 * DAY, 90 * DAY, 1000 * DAY] {
            assert_eq!(days(90 * DAY, Some(before), None), (27.0, 36.0), "{before}");
        }
        // Nothing: a hundredth is left.
        assert_eq!(days(100 * DAY, Some(0), None), (98.8, 99.0));
    }

    #[test]
    fn the_ca_s_window_wins_unless_the_setting_is_earlier() {
        let cas = window(59 * DAY, 61 * DAY);
        assert_eq!(days(90 * DAY, None, Some(&cas)), (59.0, 61.0));
        assert_eq!(days(90 * DAY, Some(20 * DAY), Some(&cas)), (59.0, 61.0), "the window is earlier");
        assert_eq!(days(90 * DAY, Some(40 * DAY), Some(&cas)), (41.0, 50.0), "the setting is earlier");
        // A call for it back: at once, whatever the setting; but never in a loop.
        let back = window(-2 * DAY, -DAY);
        assert_eq!(days(90 * DAY, Some(20 * DAY), Some(&back)), (0.3, 0.3));
        // Nonsense: after the end, or turned round.
        assert_eq!(days(90 * DAY, None, Some(&window(100 * DAY, 101 * DAY))), (81.0, 81.0));
        assert_eq!(days(90 * DAY, None, Some(&window(61 * DAY, 59 * DAY))), (61.0, 61.0));
    }

    #[test]
    fn failures_wait_1_10_100_minutes_and_then_a_day() {
        let now = Timestamp(BIRTH);
        let waits = |not_after: Option<i64>, spread| -> Vec<i64> {
            let end = not_after.map(|left| Timestamp(BIRTH + left));
            (1..=5).map(|failures| (after_failure(failures, now, end, None, spread).0 - BIRTH) / MINUTE).collect()
        };
        assert_eq!(waits(None, 0.0), [1, 10, 100, 1440, 1440]);
        assert_eq!(waits(None, 1.0), [1, 11, 110, 1584, 1584]);
        assert_eq!(waits(Some(30 * DAY), 0.0), [1, 10, 100, 1440, 1440]);
        // Near the end: twelve tries more, an hour apart at least; after it, every two hours, and daily when nobody can care any more.
        assert_eq!(waits(Some(3 * DAY), 0.0), [1, 10, 100, 360, 360]);
        assert_eq!(waits(Some(2 * HOUR), 0.0), [1, 10, 60, 60, 60]);
        assert_eq!(waits(Some(-HOUR), 0.0), [1, 10, 100, 120, 120]);
        assert_eq!(waits(Some(-30 * DAY), 0.0), [1, 10, 100, 1440, 1440]);
        let retry = |at| after_failure(4, now, Some(Timestamp(BIRTH + DAY)), Some(Timestamp(BIRTH + at)), 0.0).0 - BIRTH;
        assert_eq!((retry(5 * DAY), retry(0)), (5 * DAY, 2 * HOUR), "what the CA asked for wins if it is later");
        assert_eq!(wait_after(0), MINUTE);
    }

    #[test]
    fn polls_obey_the_ca_within_reason_and_are_spread() {
        let now = Timestamp(BIRTH);
        let at = |retry: Option<i64>, spread| (poll_at(now, retry.map(|at| Timestamp(BIRTH + at)), spread).0 - BIRTH) / MINUTE;
        assert_eq!((at(Some(6 * HOUR), 0.0), at(Some(6 * HOUR), 1.0)), (360, 450));
        assert_eq!((at(Some(0), 0.0), at(Some(-DAY), 0.0)), (60, 60));
        assert_eq!((at(Some(40 * DAY), 0.0), at(None, 0.0)), (1440, 1440));
        assert_eq!((after_failed_poll(now, None, 0.0).0 - BIRTH) / MINUTE, 180);
    }

    proptest! {
        #[test]
        fn whatever_the_input_a_certificate_is_used_for_a_while_and_renewed_before_its_end(
            lifetime in 20 * MINUTE..400 * DAY,
            before in proptest::option::of(0..500 * DAY),
            window in proptest::option::of((-1000 * DAY..1000 * DAY, -1000 * DAY..1000 * DAY)),
            spread in 0.0..=1.0f64,
        ) {
            let window = window.map(|(from, to)| super::tests::window(from, to));
            let before = before.map(|millis| Duration::from_millis(u64::try_from(millis).unwrap()));
            let at = renew_at(validity(lifetime), before, window.as_ref(), spread);
            prop_assert!(at.0 < BIRTH + lifetime - lifetime / 200);
            prop_assert!(at.0 >= BIRTH + (lifetime / 20).min(6 * HOUR));
            let interval = interval(validity(lifetime), before, window.as_ref());
            prop_assert!(interval.has(at), "what was chosen is kept");
        }

        #[test]
        fn no_number_makes_it_panic(from in any::<i64>(), to in any::<i64>(), now in any::<i64>(), spread in any::<f64>(), millis in any::<u64>()) {
            let validity = Validity { not_before: Timestamp(from), not_after: Timestamp(to) };
            let window = Window { start: Timestamp(to), end: Timestamp(now), explanation: None };
            renew_at(validity, Some(Duration::from_millis(millis)), Some(&window), spread);
            after_failure(u32::MAX, Timestamp(now), Some(Timestamp(to)), Some(Timestamp(from)), spread);
            poll_at(Timestamp(now), Some(Timestamp(to)), spread);
        }
    }
}
