//! Logs, metrics and health.

mod health;
mod logs;
mod metrics;
mod process;

pub use health::{Health, Phase};
pub use logs::{BadLevel, Level, LogFormat, start_logs};
pub use metrics::{register_dns, registry, router};
