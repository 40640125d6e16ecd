//! The name servers of an emulated cloud, on addresses of their own.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use emulators::Nameservers;

use super::ZONE;
use crate::addresses::Address;

/// Two servers; the second shows a change a little later than the first, as clouds' servers do.
pub struct Servers {
    addresses: Vec<Address>,
    nameservers: Nameservers,
}

/// How late each of the two is.
const DELAYS: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(150)];

impl Servers {
    /// Starts them on port 53.
    ///
    /// # Panics
    /// When they cannot be bound.
    pub async fn start() -> Self {
        Self::with_delays(&DELAYS).await
    }

    /// Starts one server for each delay.
    ///
    /// # Panics
    /// When they cannot be bound.
    pub async fn with_delays(delays: &[Duration]) -> Self {
        let addresses: Vec<_> = delays.iter().map(|_| Address::reserve()).collect();
        let servers: Vec<(SocketAddr, Duration)> = addresses.iter().map(Address::dns).zip(delays.iter().copied()).collect();
        Self { nameservers: Nameservers::start(&servers).await, addresses }
    }

    /// What an emulator publishes to, and what a test judges by.
    pub fn nameservers(&self) -> &Nameservers {
        &self.nameservers
    }

    /// Their names, as the zone itself says them, and addresses.
    pub(super) fn delegation(&self) -> Vec<(String, IpAddr)> {
        (1..).zip(&self.addresses).map(|(number, address)| (format!("ns{number}.{ZONE}"), address.ip())).collect()
    }
}
