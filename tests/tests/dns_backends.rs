//! Every DNS behind one ledger: the real binary before each of its backends.
//!
//! - [`battery`]: the same cases on all of them; what one cannot do stands in its table, with the reason.
//! - [`issue`]: certificates, validated through each.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "dns_backends/battery.rs"]
mod battery;
#[path = "dns_backends/issue.rs"]
mod issue;
