//! What the door counts.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// The door's counters.
#[derive(Clone, Default)]
pub(super) struct Metrics {
    requests: Family<Labels, Counter>,
    /// Accounts in memory.
    pub(super) accounts: Gauge,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("acmegate_acmedns_requests", "Requests at the acme-dns door, by route and outcome", metrics.requests.clone());
        registry.register("acmegate_acmedns_accounts", "acme-dns accounts", metrics.accounts.clone());
        metrics
    }

    pub(super) fn count(&self, route: RouteLabel, outcome: Outcome) {
        self.requests.get_or_create(&Labels { route, outcome }).inc();
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    route: RouteLabel,
    outcome: Outcome,
}

/// A route, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the label's text is the variant's name")]
pub(super) enum RouteLabel {
    register,
    update,
}

/// How a request ended, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the label's text is the variant's name")]
pub(super) enum Outcome {
    ok,
    /// 401.
    forbidden,
    /// 400, 408, 413.
    refused,
    /// 500.
    failed,
}
