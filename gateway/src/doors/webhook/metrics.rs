//! What the door counts.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// The door's counters.
#[derive(Clone, Default)]
pub(super) struct Metrics {
    requests: Family<Labels, Counter>,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("acmegate_webhook_requests", "Challenges at the webhook door, by action and outcome", metrics.requests.clone());
        metrics
    }

    pub(super) fn count(&self, action: ActionLabel, outcome: OutcomeLabel) {
        self.requests.get_or_create(&Labels { action, outcome }).inc();
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
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
