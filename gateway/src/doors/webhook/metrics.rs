//! What the door counts.

use std::{collections::HashSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// The door's counters.
#[derive(Clone)]
pub(super) struct Metrics {
    requests: Family<Labels, Counter>,
    durations: Histogram,
    /// Those that have a series of their own.
    namespaces: Arc<Mutex<HashSet<String>>>,
}

/// Namespaces that are counted each by itself; all more are counted together, so that a cluster of thousands of tenants does not make as many series.
const MOST_NAMESPACES: usize = 500;

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            // From what the disk takes (1 ms) to what the API server waits for (33 s).
            durations: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
            namespaces: Arc::default(),
        };
        registry.register(
            "acmegate_webhook_requests",
            "Challenges at the webhook door, by namespace, action and outcome",
            metrics.requests.clone(),
        );
        let help = "Time from a challenge's whole header, once it is known who asks, to its answer";
        registry.register_with_unit("acmegate_webhook_request", help, Unit::Seconds, metrics.durations.clone());
        metrics
    }

    /// Counts a call; without a namespace, if what it named was none.
    pub(super) fn count(&self, namespace: Option<&str>, action: ActionLabel, outcome: OutcomeLabel) {
        let namespace = self.label(namespace.unwrap_or_default());
        self.requests.get_or_create(&Labels { namespace, action, outcome }).inc();
    }

    /// The time that a call took, whatever came of it.
    pub(super) fn took(&self, time: Duration) {
        self.durations.observe(time.as_secs_f64());
    }

    fn label(&self, namespace: &str) -> String {
        let mut known = self.namespaces.lock();
        if known.contains(namespace) || known.len() < MOST_NAMESPACES {
            known.insert(namespace.to_owned());
            return namespace.to_owned();
        }
        "(more)".to_owned()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    namespace: String,
    action: ActionLabel,
    outcome: OutcomeLabel,
}

/// What was asked, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the label's text is the variant's name")]
pub(super) enum ActionLabel {
    present,
    cleanup,
    /// Neither, or not readable.
    unknown,
}

/// How it ended, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the label's text is the variant's name")]
pub(super) enum OutcomeLabel {
    ok,
    /// It cannot be done as asked.
    refused,
    /// Not done in time; the work goes on.
    in_progress,
    /// The store or the backend failed.
    failed,
}
