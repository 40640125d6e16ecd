//! The list of certificates that keeps itself valid.
//!
//! [`renewal`] says when a certificate is renewed and when a failed attempt is made again; [`planner`] says what is to be done next, of all of them. Both
//! are pure: no clock, no disk, no chance of their own. The [`Manager`] does what the planner says; [`CertificateReport`] tells people how it goes, [`CertificateMetrics`] Prometheus.

mod manager;
mod metrics;
pub mod planner;
pub mod renewal;
mod report;

pub use manager::{CertificateAction, CertificateError, CertificateRequest, Manager};
pub use metrics::CertificateMetrics;
pub use planner::State;
pub use report::{CertificateReport, SuggestedWindow};
