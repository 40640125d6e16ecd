//! A token bucket for all calls of one credential, whatever zone they are for. Callers wait in the order they came, so no zone starves another.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::{Calls, Error};

/// Whoever would wait longer is told so instead, and can do something else meanwhile.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The bucket. One for each credential; every call takes a token before it is sent.
#[derive(Debug)]
pub struct Limiter {
    state: Mutex<State>,
    turn: tokio::sync::Mutex<()>,
    sent: AtomicU64,
    throttled: AtomicU64,
    failed: AtomicU64,
}

#[derive(Debug)]
struct State {
    /// Time between two tokens.
    interval: Duration,
    /// Tokens that may gather.
    burst: u32,
    /// When the bucket would be full (the generic cell rate algorithm keeps no more than that).
    full_at: Instant,
    /// No call before this: the provider said so.
    closed_until: Option<Instant>,
    /// The interval that the provider's headers ask for, and until when.
    paced: Option<(Duration, Instant)>,
    /// When the last token was taken at that interval.
    paced_at: Option<Instant>,
}

impl Limiter {
    /// A bucket that gives `burst` tokens at once, and then one every `interval`.
    pub fn new(interval: Duration, burst: u32) -> Self {
        let state = State { interval, burst: burst.max(1), full_at: Instant::now(), closed_until: None, paced: None, paced_at: None };
        Self {
            state: Mutex::new(state),
            turn: tokio::sync::Mutex::new(()),
            sent: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// Waits for a token.
    ///
    /// # Errors
    /// [`Error::RateLimited`] at once, if the provider has closed the door for longer than [`PATIENCE`].
    pub async fn acquire(&self) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        loop {
            let now = Instant::now();
            let at = self.state.lock().next(now);
            if at <= now {
                break;
            }
            if at - now > PATIENCE {
                let text = "the provider has asked for a pause, which is not over yet".to_owned();
                return Err(Error::RateLimited { reason: text, retry_after: Some(at - now) });
            }
            sleep_until(at).await;
        }
        self.state.lock().take(Instant::now());
        self.sent.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The provider said "too often": no call for so long.
    pub fn throttled(&self, pause: Duration) {
        self.throttled.fetch_add(1, Ordering::Relaxed);
        let until = Instant::now() + pause;
        let mut state = self.state.lock();
        state.closed_until = Some(state.closed_until.map_or(until, |closed| closed.max(until)));
    }

    /// A call got no usable answer.
    pub fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// What the provider's headers say: so many calls are left in the next so long. Where few are left, they are spread over that time.
    pub fn observe(&self, remaining: u32, reset: Duration) {
        let mut state = self.state.lock();
        let reset = reset.min(Duration::from_secs(3600));
        if remaining == 0 {
            let until = Instant::now() + reset;
            state.closed_until = Some(state.closed_until.map_or(until, |closed| closed.max(until)));
            return;
        }
        let pace = reset / remaining;
        let now = Instant::now();
        if state.pace(now).is_none() {
            state.paced_at = None;
        }
        state.paced = (pace > state.interval).then(|| (pace, now + reset));
    }

    /// What went through.
    pub fn calls(&self) -> Calls {
        Calls {
            sent: self.sent.load(Ordering::Relaxed),
            throttled: self.throttled.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }
}

impl State {
    /// The interval that the provider's headers ask for now.
    fn pace(&self, now: Instant) -> Option<Duration> {
        self.paced.filter(|(_, until)| now < *until).map(|(pace, _)| pace)
    }

    /// When the next token can be taken.
    fn next(&self, now: Instant) -> Instant {
        let refilled = self.full_at.max(now);
        let at = refilled.checked_sub(self.interval.saturating_mul(self.burst - 1)).unwrap_or(now);
        // What was drawn before does not count against the pace: the provider said what is left after it.
        let paced = match (self.pace(now), self.paced_at) {
            (Some(pace), Some(taken)) => at.max(taken + pace),
            _ => at,
        };
        self.closed_until.map_or(paced, |closed| paced.max(closed))
    }

    fn take(&mut self, now: Instant) {
        if self.pace(now).is_some() {
            self.paced_at = Some(now);
        }
        self.full_at = self.full_at.max(now) + self.interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn elapsed(limiter: &Limiter, tokens: u32) -> Duration {
        let start = Instant::now();
        for _ in 0..tokens {
            limiter.acquire().await.expect("a token");
        }
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_and_then_the_rate() {
        let limiter = Limiter::new(Duration::from_millis(200), 5);
        assert_eq!(elapsed(&limiter, 5).await, Duration::ZERO);
        let more = elapsed(&limiter, 10).await.as_millis();
        assert!((2000..2020).contains(&more), "{more}");
        assert_eq!(limiter.calls().sent, 15);
    }

    #[tokio::test(start_paused = true)]
    async fn the_providers_word_goes_first() {
        let limiter = Limiter::new(Duration::from_millis(1), 100);
        limiter.throttled(Duration::from_secs(3));
        let waited = elapsed(&limiter, 1).await.as_millis();
        assert!((3000..3010).contains(&waited), "{waited}");
        limiter.observe(10, Duration::from_secs(10));
        let paced = elapsed(&limiter, 5).await.as_millis();
        assert!((4000..=5010).contains(&paced), "{paced}");
        limiter.observe(0, Duration::from_secs(300));
        let refused = limiter.acquire().await.expect_err("five minutes are too long to wait for");
        assert!(matches!(refused, Error::RateLimited { retry_after: Some(_), .. }), "{refused:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_drawn_before_does_not_count_against_a_pace() {
        let limiter = Limiter::new(Duration::from_millis(100), 200);
        assert_eq!(elapsed(&limiter, 190).await, Duration::ZERO);
        limiter.observe(20, Duration::from_secs(4));
        let paced = elapsed(&limiter, 5).await.as_millis();
        assert!((800..820).contains(&paced), "{paced}");
    }
}
