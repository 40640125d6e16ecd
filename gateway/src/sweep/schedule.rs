//! The sweep that `serve` makes by itself.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use tokio_util::sync::CancellationToken;

use super::{Outcome, Report, Scope, Sweeper};
use crate::{backends::jitter, claim::Timestamp};

/// From the start to the first sweep: what an earlier process left is being taken up meanwhile.
const FIRST: Duration = Duration::from_secs(300);
/// From one sweep to the next.
const EVERY: Duration = Duration::from_secs(3600);
/// Sweeps from one that looks for marks to the next: that lists every zone.
const MARKS_EVERY: u64 = 24;
/// What should be gone for less than this is left to the dispatcher, which is at it.
const GRACE: Duration = Duration::from_secs(900);

/// What the sweeps on schedule count.
#[derive(Debug, Clone)]
pub struct SweepMetrics {
    removed: Family<Labels, Counter>,
    left: Family<Labels, Gauge>,
    last: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    backend: String,
}

impl SweepMetrics {
    /// Registers the families.
    pub fn register(registry: &mut Registry) -> Self {
        let (removed, left, last) = (Family::default(), Family::default(), Gauge::default());
        let sweep = registry.sub_registry_with_prefix("sweep");
        sweep.register("removed", "Values that had outstayed their time and that a sweep removed", removed.clone());
        sweep.register("left", "Values that have outstayed their time and that the last sweep could not remove", left.clone());
        sweep.register_with_unit("last_timestamp", "When the last sweep ended, in Unix time", Unit::Seconds, last.clone());
        Self { removed, left, last }
    }

    fn count(&self, report: &Report, backends: impl Iterator<Item = String>) {
        for backend in backends.chain(report.rows.iter().map(|row| row.backend.clone())) {
            let of =
                |outcome: fn(&Outcome) -> bool| report.rows.iter().filter(|row| row.backend == backend && outcome(&row.outcome)).count();
            let left = of(|outcome| matches!(outcome, Outcome::Failed { .. }));
            self.left.get_or_create(&Labels { backend }).set(i64::try_from(left).unwrap_or(i64::MAX));
        }
        for row in report.rows.iter().filter(|row| row.outcome == Outcome::Removed) {
            self.removed.get_or_create(&Labels { backend: row.backend.clone() }).inc();
        }
        self.last.set(Timestamp::now().0.div_euclid(1000));
    }
}

/// Sweeps every hour.
#[derive(Clone)]
pub struct Schedule {
    sweeper: Sweeper,
    metrics: SweepMetrics,
}

impl Schedule {
    /// A schedule over a sweeper.
    pub fn new(sweeper: Sweeper, metrics: SweepMetrics) -> Self {
        Self { sweeper, metrics }
    }

    /// Sweeps in its time, until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut wait = FIRST;
        let mut number = 0u64;
        while stop.run_until_cancelled(tokio::time::sleep(jitter(wait))).await.is_some() {
            if stop.run_until_cancelled(self.once(number.is_multiple_of(MARKS_EVERY))).await.is_none() {
                return;
            }
            wait = EVERY;
            number = number.wrapping_add(1);
        }
    }

    async fn once(&self, marks: bool) {
        let until = Timestamp(Timestamp::now().0.saturating_sub(i64::try_from(GRACE.as_millis()).unwrap_or(i64::MAX)));
        let report = match self.sweeper.run(Scope { backend: None, until: Some(until), marks }, true).await {
            Ok(report) => report,
            Err(error) => return tracing::error!(%error, "the sweep could not read the ledger"),
        };
        self.metrics.count(&report, self.sweeper.routes.iter().map(|route| route.name.to_string()));
        for row in &report.rows {
            let (backend, owner, why) = (&row.backend, &row.owner, row.why.to_string());
            match &row.outcome {
                Outcome::Removed => tracing::info!(backend, owner, why, "a value that was left behind is removed"),
                Outcome::Failed { reason } => tracing::error!(backend, owner, why, "a value that was left behind still stands: {reason}"),
                Outcome::Claimed | Outcome::WouldRemove => {}
            }
        }
        for unasked in &report.unasked {
            let (backend, zone) = (&unasked.backend, unasked.zone.as_deref().unwrap_or_default());
            tracing::warn!(backend, zone, "could not be swept: {}", unasked.reason);
        }
    }
}
