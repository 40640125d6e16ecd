//! When a failed attempt is repeated.

use std::time::Duration;

use providers::Error;

/// How failed attempts are repeated. Every wait is shortened or lengthened by up to a quarter at random, so that what failed together does not
/// come back together.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// What comes within so long of what came before goes out with it in one change.
    pub gather: Duration,
    /// Wait after the first failure that time can mend; doubled after each.
    pub first: Duration,
    /// Wait after the first failure that a person has to mend (credential, refusal, no such zone); doubled after each.
    pub refused: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// The longest that one read or one change may take in all its calls.
    pub deadline: Duration,
    /// How long a lane without work is kept.
    pub idle: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            gather: Duration::from_millis(20),
            first: Duration::from_secs(1),
            refused: Duration::from_secs(30),
            longest: Duration::from_secs(300),
            deadline: Duration::from_secs(120),
            idle: Duration::from_secs(600),
        }
    }
}

/// Conflicts in a row after which the next attempt waits: a stranger who writes all the time is given way to.
const QUICK_CONFLICTS: u32 = 3;

impl Pace {
    /// The wait after an attempt that failed so, the `failed`th in a row before it not counted.
    pub(super) fn wait(&self, error: &Error, failed: u32) -> Duration {
        match error {
            // Somebody was quicker: read again at once.
            Error::Conflict(_) if failed < QUICK_CONFLICTS => Duration::ZERO,
            Error::Conflict(_) => self.doubled(self.first, failed - QUICK_CONFLICTS),
            Error::RateLimited { retry_after: Some(after), .. } => self.doubled(self.first, failed).max(*after),
            Error::RateLimited { .. } | Error::Unsent(_) | Error::Transport(_) => self.doubled(self.first, failed),
            Error::Auth(_) | Error::Rejected(_) | Error::NotFound(_) => self.doubled(self.refused, failed),
        }
    }

    fn doubled(&self, first: Duration, failed: u32) -> Duration {
        let wait = first.saturating_mul(1u32.checked_shl(failed.min(16)).unwrap_or(u32::MAX)).min(self.longest);
        let Ok(random) = getrandom::u32() else { return wait };
        // 0.75 to 1.25.
        wait.mul_f64(0.75 + f64::from(random) / f64::from(u32::MAX) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_by_what_can_mend_the_failure() {
        let pace = Pace::default();
        let within = |wait: Duration, seconds: f64| (wait.as_secs_f64() / seconds - 1.0).abs() <= 0.2501;
        let lost = Error::Transport(String::new());
        for (failed, seconds) in [(0, 1.0), (1, 2.0), (3, 8.0), (20, 300.0)] {
            assert!(within(pace.wait(&lost, failed), seconds), "{failed}");
        }
        assert!(within(pace.wait(&Error::Auth(String::new()), 0), 30.0));
        let slower = Error::RateLimited { reason: String::new(), retry_after: Some(Duration::from_secs(77)) };
        assert_eq!(pace.wait(&slower, 0), Duration::from_secs(77));
        let conflict = Error::Conflict(String::new());
        assert_eq!(pace.wait(&conflict, 2), Duration::ZERO);
        assert!(within(pace.wait(&conflict, 3), 1.0));
    }
}
