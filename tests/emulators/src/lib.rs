//! Clouds that tests cannot reach, as small servers on loopback: each speaks its vendor's published API closely enough that the vendor's own client works
//! against it, serves its zones by DNS as the vendor would, and fails when it is told to.

pub mod acmedns;
pub mod azuredns;
pub mod clouddns;
pub mod cloudflare;
pub mod digitalocean;
mod door;
pub mod faults;
pub mod nameservers;
pub mod powerdns;
pub mod route53;

pub use faults::{Fault, Faults};
pub use nameservers::{Asked, Nameservers, Record, ServedZone};
