//! When a request that went wrong is made again, by the same run. What takes longer is for whoever asked to decide.

use std::time::{Duration, SystemTime};

use super::AcmeError;

/// The longest that the CA may ask to wait, once and altogether; then the caller is told its "later".
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const LONGEST_WAITS: Duration = Duration::from_secs(120);
/// "Later" without a time: so long at first, then twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// After an answer that was lost: so long at first, then four times as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Answers lost in a row.
const MOST_LOST: u32 = 3;

/// Whether a request may be made again after its answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// Twice is as good as once.
    Harmless,
    /// It may have been done: the CA has to be asked first.
    Effect,
}

/// What a request has been through.
#[derive(Debug, Default)]
pub(super) struct Patience {
    lost: u32,
    later: u32,
    waited: Duration,
}

impl Patience {
    /// How long to wait before the request is made again; `None` if it is not.
    pub(super) fn after(&mut self, error: &AcmeError, again: Again, now: SystemTime) -> Option<Duration> {
        match error {
            // It says that it has not done it.
            AcmeError::Problem { problem, retry_at } if problem.is_later() => {
                let asked = retry_at.map(|at| at.duration_since(now).unwrap_or_default().max(FIRST_WAIT));
                let wait = asked.unwrap_or_else(|| FIRST_WAIT.saturating_mul(1 << self.later.min(6)));
                self.later += 1;
                self.waited += wait;
                (wait <= LONGEST_WAIT && self.waited <= LONGEST_WAITS).then_some(wait)
            }
            error if error.is_lost() && again == Again::Harmless && self.lost < MOST_LOST => {
                self.lost += 1;
                Some(FIRST_PAUSE.saturating_mul(4u32.pow(self.lost - 1)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Problem, *};

    fn problem(status: u16, kind: &str, retry_after: Option<u64>) -> AcmeError {
        let problem = Box::new(Problem { status, kind: format!("urn:ietf:params:acme:error:{kind}"), ..Problem::default() });
        AcmeError::Problem { problem, retry_at: retry_after.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)) }
    }

    fn waits(error: &AcmeError, again: Again) -> Vec<u64> {
        let mut patience = Patience::default();
        let next = || patience.after(error, again, SystemTime::UNIX_EPOCH).map(|wait| u64::try_from(wait.as_millis()).unwrap());
        std::iter::from_fn(next).take(20).collect()
    }

    #[test]
    fn the_ca_s_later_is_obeyed_as_long_as_somebody_would_wait() {
        assert_eq!(waits(&problem(429, "rateLimited", Some(50)), Again::Effect), [50_000, 50_000]);
        assert_eq!(waits(&problem(503, "", Some(0)), Again::Effect).len(), 20, "at least a second each");
        assert_eq!(waits(&problem(503, "", None), Again::Effect), [1000, 2000, 4000, 8000, 16_000, 32_000]);
        assert_eq!(waits(&problem(429, "rateLimited", Some(3600)), Again::Harmless), [0; 0]);
        // Nothing but a person mends this.
        let AcmeError::Problem { mut problem, .. } = problem(429, "rateLimited", None) else { unreachable!() };
        problem.detail = "Please visit: https://ca.test/sfe/v1/unpause?jwt=x".into();
        assert_eq!(waits(&AcmeError::Problem { problem, retry_at: None }, Again::Harmless), [0; 0]);
    }

    #[test]
    fn what_may_have_been_done_is_not_done_again_blindly() {
        let lost = AcmeError::Transport("cut".into());
        assert_eq!(waits(&lost, Again::Harmless), [250, 1000, 4000]);
        assert_eq!(waits(&lost, Again::Effect), [0; 0]);
        assert_eq!(waits(&problem(500, "serverInternal", None), Again::Harmless).len(), 3);
        for (status, kind) in [(403, "unauthorized"), (501, "notImplemented")] {
            assert_eq!(waits(&problem(status, kind, None), Again::Harmless), [0; 0], "{kind}");
        }
    }
}
