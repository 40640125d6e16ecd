//! The doors: where clients ask for TXT values, each in the protocol that they already speak.
//!
//! A door says who asks (its [`Holder`](crate::ledger::Holder)) and turns requests into claims; it writes nothing itself.

pub mod acmedns;
pub mod admin;
mod throttle;
pub mod webhook;

#[cfg(test)]
mod testing;
