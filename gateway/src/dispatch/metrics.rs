//! What the dispatch counts.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{
        MetricType,
        counter::Counter,
        family::Family,
        gauge::ConstGauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use super::Dispatcher;

/// Counters of all lanes, by backend; clones share them.
#[derive(Debug, Clone)]
pub struct DispatchMetrics {
    changes: Family<Change, Counter>,
    owners: Family<Of, Histogram>,
    visible: Family<Of, Histogram>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Change {
    backend: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    backend: String,
}

impl Default for DispatchMetrics {
    fn default() -> Self {
        Self {
            changes: Family::default(),
            // 1 to 4,096 owner names.
            owners: Family::new_with_constructor(|| Histogram::new(exponential_buckets(1.0, 2.0, 13))),
            // From a server beside us (10 ms) to the longest that anybody waits (11 min).
            visible: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.01, 2.0, 17))),
        }
    }
}

impl DispatchMetrics {
    /// Registers the dispatch's families.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let dispatch = registry.sub_registry_with_prefix("dispatch");
        dispatch.register("changes", "Changes of one owner name at a provider, by what came of them", metrics.changes.clone());
        dispatch.register("batch_owners", "Owner names handed to a provider in one go", metrics.owners.clone());
        let help = "Time from the provider's answer until every server that counts gave the value";
        dispatch.register_with_unit("visible", help, Unit::Seconds, metrics.visible.clone());
        metrics
    }

    /// One change of one owner name.
    pub(super) fn changed<T>(&self, backend: &str, result: &Result<T, providers::Error>) {
        let outcome = result.as_ref().err().map_or("applied", providers::Error::label);
        self.changes.get_or_create(&Change { backend: backend.to_owned(), outcome }).inc();
    }

    /// One hand-over to a provider.
    pub(super) fn handed_over(&self, backend: &str, owners: usize) {
        self.owners.get_or_create(&Of { backend: backend.to_owned() }).observe(f64::from(u32::try_from(owners).unwrap_or(u32::MAX)));
    }

    /// An owner name whose values every server gave, so many seconds after the provider took them.
    pub(super) fn seen(&self, backend: &str, seconds: f64) {
        self.visible.get_or_create(&Of { backend: backend.to_owned() }).observe(seconds);
    }
}

/// Exports what waits in the queues, at each scrape.
#[derive(Debug)]
pub struct QueueMetrics(pub Dispatcher);

impl Collector for QueueMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Values that wait for a backend, or to be seen at its servers.";
        let mut family = encoder.encode_descriptor("dispatch_waiting", help, None::<&Unit>, MetricType::Gauge)?;
        for (backend, waiting) in self.0.waiting() {
            let labels = [("backend", &*backend)];
            ConstGauge::new(i64::try_from(waiting).unwrap_or(i64::MAX)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}
