//! acmegate: DNS-01 without handing out the keys of the DNS.
//!
//! Doors take TXT requests and turn them into *claims*; the [`ledger`] writes a claim to disk before anything is sent to a DNS server and forgets
//! it only after its value is gone from DNS; [`dispatch`] makes claims true at whichever DNS serves the name. Arrows run from doors to ledger to
//! dispatch to providers, never back; the [`issuer`] is a client of the ledger like any door.

pub mod backends;
pub mod certificates;
pub mod check;
pub mod claim;
pub mod cli;
pub mod config;
pub mod deploy;
mod disk;
pub mod dispatch;
pub mod doors;
pub mod engine;
pub mod issuer;
pub mod kubernetes;
pub mod ledger;
pub mod policy;
pub mod propagation;
pub mod store;
pub mod sweep;
pub mod telemetry;
pub mod web;
