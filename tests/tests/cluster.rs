//! acmegate in a cluster: behind a real API server, called by cert-manager's own client and controllers.
//!
//! - [`attackers`]: who wants more than is theirs, and gets nothing.
//! - [`callers`]: who may call, and who gets nowhere.
//! - [`chart`]: what helm makes of the chart, in a cluster.
//! - [`check`]: what `acmegate check --kubernetes` finds, in a healthy cluster and in a broken one.
//! - [`conformance`]: cert-manager's suite for webhooks, before the door itself.
//! - [`deploy`]: certificates of `acmegate issue` in Secrets, and a Deployment that is told.
//! - [`discovery`]: what the API server and kubectl ask.
//! - [`faults`]: what breaks around acmegate, and mends.
//! - [`issuance`]: certificates by cert-manager, to `Ready`, and nothing left of them.
//! - [`secrets`]: issuers with credentials of their own.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "cluster/attackers.rs"]
mod attackers;
#[path = "cluster/callers.rs"]
mod callers;
#[path = "cluster/chart.rs"]
mod chart;
#[path = "cluster/check.rs"]
mod check;
#[path = "cluster/conformance.rs"]
mod conformance;
#[path = "cluster/deploy.rs"]
mod deploy;
#[path = "cluster/discovery.rs"]
mod discovery;
#[path = "cluster/faults.rs"]
mod faults;
#[path = "cluster/issuance.rs"]
mod issuance;
#[path = "cluster/lab.rs"]
mod lab;
#[path = "cluster/secrets.rs"]
mod secrets;
