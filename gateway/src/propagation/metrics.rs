//! What each server did when it was last asked, as metrics.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
    registry::Unit,
};

use super::{Propagation, Standing};

/// Exports the standing of every server that was asked, at each scrape.
#[derive(Debug)]
pub struct ServerMetrics(pub Arc<Propagation>);

impl Collector for ServerMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "1 for what an authoritative server did when it was last asked for values: answers, aside (it does not serve the zone), unroutable, late.";
        let mut family = encoder.encode_descriptor("nameserver_state", help, None::<&Unit>, MetricType::Gauge)?;
        for server in self.0.servers() {
            let state = match server.standing {
                Standing::Answers => "answers",
                Standing::Aside { .. } => "aside",
                Standing::Unroutable => "unroutable",
                Standing::Late { .. } => "late",
            };
            let zone = server.lane.zone.to_relative_string();
            let labels = [("backend", server.lane.backend.as_str()), ("zone", &zone), ("server", &server.server), ("state", state)];
            ConstGauge::new(1i64).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
