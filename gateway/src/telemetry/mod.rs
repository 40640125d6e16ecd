//! Logs and metrics.

/// What is counted.
#[derive(Debug, Default)]
pub struct Metrics {}
