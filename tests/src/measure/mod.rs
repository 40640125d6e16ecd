//! What the benchmarks share: load generators, yardsticks, what a process has used, and the table at the end.
//!
//! A figure of one machine says little; each benchmark therefore runs a peer or a yardstick in the same minute and prints the ratio.

pub mod bare;
pub mod dns;
pub mod fill;
pub mod http;
pub mod issuance;
pub mod report;
pub mod usage;
pub mod yardstick;

use std::time::Duration;

/// Latencies, to be asked for percentiles.
#[derive(Debug, Clone, Default)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// Takes samples in any order.
    pub fn new(mut samples: Vec<Duration>) -> Self {
        samples.sort_unstable();
        Self(samples)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The latency that `percent` of the samples do not exceed; zero if there are none.
    pub fn percentile(&self, percent: f64) -> Duration {
        let last = self.0.len().saturating_sub(1);
        let at = (last as f64 * percent / 100.0).round() as usize;
        self.0.get(at.min(last)).copied().unwrap_or_default()
    }

    /// The median.
    pub fn median(&self) -> Duration {
        self.percentile(50.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_samples() {
        let latencies = Latencies::new((1..=101).rev().map(Duration::from_micros).collect());
        let micros = [0.0, 50.0, 99.0, 100.0].map(|percent| latencies.percentile(percent).as_micros());
        assert_eq!(micros, [1, 51, 100, 101]);
        assert_eq!(Latencies::default().median(), Duration::ZERO);
    }
}
