//! The watch over credentials: each is tried at the start and then again and again, so that one that no longer works shows in metrics, in
//! `/readyz?verbose` and in the log before a certificate needs it.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::join_all;
use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};
use providers::Error;
use tokio_util::sync::CancellationToken;

use super::jitter;
use crate::{
    claim::Timestamp,
    dispatch::{Dispatcher, Route},
};

/// How long one try may take, over whatever deadlines the provider has for its calls.
const PATIENCE: Duration = Duration::from_secs(60);
/// The wait after a try that failed; doubled after each, up to the usual one.
const SOON: Duration = Duration::from_secs(60);

/// The watch over the credentials of all backends; clones share what it found.
#[derive(Clone)]
pub struct Watch(Arc<Vec<Watched>>);

struct Watched {
    route: Route,
    provider: &'static str,
    every: Duration,
    dispatch: Dispatcher,
    standing: Mutex<Standing>,
}

/// What the last tries of a credential gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It was not tried yet.
    Untried,
    /// It works.
    Valid {
        /// What the provider says of it.
        text: String,
        /// The last try.
        at: Timestamp,
    },
    /// It does not, or the provider cannot be asked.
    Failing {
        /// Deterministic text.
        reason: String,
        /// The first try that failed since it last worked.
        since: Timestamp,
        /// The last try that worked, if any did.
        last_valid: Option<Timestamp>,
    },
}

impl Standing {
    /// What it is after a try.
    #[must_use]
    fn after(&self, tried: &Result<String, Error>, now: Timestamp) -> Self {
        match (tried, self) {
            (Ok(text), _) => Self::Valid { text: text.clone(), at: now },
            // Says nothing about the credential.
            (Err(Error::RateLimited { .. }), standing) => standing.clone(),
            (Err(error), Self::Failing { since, last_valid, .. }) => {
                Self::Failing { reason: error.to_string(), since: *since, last_valid: *last_valid }
            }
            (Err(error), Self::Valid { at, .. }) => Self::Failing { reason: error.to_string(), since: now, last_valid: Some(*at) },
            (Err(error), Self::Untried) => Self::Failing { reason: error.to_string(), since: now, last_valid: None },
        }
    }

    fn is_valid(&self) -> bool {
        matches!(self, Self::Valid { .. })
    }

    fn last_valid(&self) -> Option<Timestamp> {
        match self {
            Self::Untried => None,
            Self::Valid { at, .. } => Some(*at),
            Self::Failing { last_valid, .. } => *last_valid,
        }
    }
}

impl Watch {
    /// A watch over backends, each with its provider's identifier and how often its credential is tried. What waits for a credential is dispatched
    /// as soon as that works again.
    pub fn new(backends: impl IntoIterator<Item = (Route, &'static str, Duration)>, dispatch: Dispatcher) -> Self {
        let untried = || Mutex::new(Standing::Untried);
        let watched = |(route, provider, every)| Watched { route, provider, every, dispatch: dispatch.clone(), standing: untried() };
        Self(Arc::new(backends.into_iter().map(watched).collect()))
    }

    /// Tries every credential at once and then in its time, until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let all = join_all(self.0.iter().map(Watched::run));
        stop.run_until_cancelled(all).await;
        // Without a backend there is nothing to do, and yet the task has to last.
        stop.cancelled().await;
    }

    /// Tries every credential once, all at the same time.
    pub async fn try_all(&self) {
        join_all(self.0.iter().map(Watched::once)).await;
    }

    /// What is known of each backend, in the order of the configuration.
    pub fn standings(&self) -> Vec<(Arc<str>, Standing)> {
        self.0.iter().map(|watched| (watched.route.name.clone(), watched.standing.lock().clone())).collect()
    }

    /// One line for each backend, for people.
    pub fn lines(&self) -> Vec<String> {
        let line = |watched: &Watched| {
            let backend = format!("backend {} ({})", watched.route.name, watched.provider);
            match &*watched.standing.lock() {
                Standing::Untried => format!("[ ] {backend}: its credential is being tried"),
                Standing::Valid { text, at } => format!("[+] {backend}: {text} (tried {at})"),
                Standing::Failing { reason, since, .. } => format!("[-] {backend}: {reason} (since {since})"),
            }
        };
        self.0.iter().map(line).collect()
    }
}

impl Watched {
    async fn run(&self) {
        let mut soon = SOON;
        loop {
            let wait = if self.once().await {
                soon = SOON;
                self.every
            } else {
                let wait = soon.min(self.every);
                soon = soon.saturating_mul(2);
                wait
            };
            tokio::time::sleep(jitter(wait)).await;
        }
    }

    /// Tries the credential; true if it works.
    async fn once(&self) -> bool {
        let late = || Err(Error::Transport(format!("no answer within {} s", PATIENCE.as_secs())));
        let tried = tokio::time::timeout(PATIENCE, self.route.provider.verify()).await.unwrap_or_else(|_| late());
        let (before, now) = {
            let mut standing = self.standing.lock();
            let now = standing.after(&tried, Timestamp::now());
            (std::mem::replace(&mut *standing, now.clone()), now)
        };
        let backend = &*self.route.name;
        // Once for each change: what goes on as it was says nothing new.
        match (&before, &now) {
            (Standing::Failing { .. }, Standing::Valid { text, .. }) => {
                tracing::info!(backend, "the credential works again: {text}");
                if let Err(error) = self.dispatch.hurry(backend).await {
                    tracing::error!(%error, backend, "what waited for the credential is tried in its own time");
                }
            }
            (Standing::Untried, Standing::Valid { text, .. }) => tracing::info!(backend, "the credential works: {text}"),
            (Standing::Failing { reason: old, .. }, Standing::Failing { reason, .. }) if old == reason => {}
            (_, Standing::Failing { reason, .. }) => {
                tracing::error!(backend, "the credential could not be used: {reason}");
            }
            _ => {}
        }
        now.is_valid()
    }
}

/// What the watch exports.
#[derive(Debug)]
pub struct WatchMetrics(pub Watch);

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|watched| &watched.route.name)).finish()
    }
}

impl Collector for WatchMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let backends = &*self.0.0;
        if backends.is_empty() {
            return Ok(());
        }
        let help = "1 if the last try of the backend's credential succeeded, 0 if not; absent until it was tried.";
        let mut family = encoder.encode_descriptor("backend_credential_valid", help, None::<&Unit>, MetricType::Gauge)?;
        for watched in backends {
            let standing = watched.standing.lock();
            if *standing != Standing::Untried {
                let labels = [("backend", &*watched.route.name)];
                ConstGauge::new(i64::from(standing.is_valid())).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "When the backend's credential was last tried with success, in Unix time.";
        let mut family = encoder.encode_descriptor("backend_last_verified_timestamp", help, Some(&Unit::Seconds), MetricType::Gauge)?;
        for watched in backends {
            if let Some(at) = watched.standing.lock().last_valid() {
                let labels = [("backend", &*watched.route.name)];
                ConstGauge::new(at.0.div_euclid(1000)).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "Calls of the backend's API, by what came of them.";
        let mut family = encoder.encode_descriptor("backend_calls", help, None::<&Unit>, MetricType::Counter)?;
        for watched in backends {
            let calls = watched.route.provider.calls();
            let answered = calls.sent.saturating_sub(calls.throttled).saturating_sub(calls.failed);
            for (outcome, count) in [("answered", answered), ("throttled", calls.throttled), ("failed", calls.failed)] {
                let labels = [("backend", &*watched.route.name), ("outcome", outcome)];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_fails_from_its_first_failure_on_and_is_not_blamed_for_throttling() {
        let (ok, bad) = (Ok("user x".to_owned()), Err(Error::Auth("expired".to_owned())));
        let throttled = Err(Error::RateLimited { reason: "slower".to_owned(), retry_after: None });
        let valid = Standing::Untried.after(&ok, Timestamp(1));
        assert_eq!(valid.after(&throttled, Timestamp(2)), valid);
        let failing = valid.after(&bad, Timestamp(3)).after(&bad, Timestamp(4));
        let reason = "the credential was refused: expired".to_owned();
        assert_eq!(failing, Standing::Failing { reason, since: Timestamp(3), last_valid: Some(Timestamp(1)) });
        assert!(failing.after(&ok, Timestamp(5)).is_valid());
        assert_eq!(Standing::Untried.after(&throttled, Timestamp(1)), Standing::Untried);
    }
}
