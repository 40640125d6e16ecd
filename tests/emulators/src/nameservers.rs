//! The authoritative servers of an emulated cloud: they serve what its API was told, each after a delay of its own.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;

/// A record in presentation form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The owner, absolute, with or without the last dot.
    pub owner: String,
    /// Seconds.
    pub ttl: u32,
    /// The type's mnemonic: `TXT`, `CNAME`, `NS`, `A`, `SOA`.
    pub kind: String,
    /// TXT: the character-strings as bytes; other types: one entry with the text of the data.
    pub data: Vec<Vec<u8>>,
}

/// What a zone holds at one moment.
pub type ServedZone = Vec<Record>;

/// The servers; clones share them. They end with the last clone.
#[derive(Debug, Clone)]
pub struct Nameservers(#[allow(dead_code, reason = "filled in by its author")] Arc<Mutex<Vec<SocketAddr>>>);

impl Nameservers {
    /// Starts a server, UDP and TCP, on each address; a zone as it is published at some moment is answered by a server only after its delay.
    ///
    /// # Panics
    /// When an address cannot be bound.
    pub async fn start(servers: &[(SocketAddr, Duration)]) -> Self {
        Self(Arc::new(Mutex::new(servers.iter().map(|(address, _)| *address).collect())))
    }

    /// No server: the API alone.
    pub fn none() -> Self {
        Self(Arc::default())
    }

    /// Publishes a zone as it is now. SOA and NS that `records` lacks are made up (`ns1.<zone>` and so on, at the servers' addresses).
    pub fn publish(&self, zone: &str, records: ServedZone) {
        let _ = (zone, records);
    }

    /// The zone is no longer served.
    pub fn withdraw(&self, zone: &str) {
        let _ = zone;
    }
}
