//! A server that never answers: the commonest way for an authoritative server to be dead.

use std::net::{TcpListener, UdpSocket};

use crate::addresses::Address;

/// Port 53 of an address, held and never read: datagrams vanish, connections open and stay mute.
#[derive(Debug)]
pub struct Silent {
    address: Address,
    _udp: UdpSocket,
    _tcp: TcpListener,
}

impl Silent {
    /// Takes the port.
    ///
    /// # Panics
    /// When it cannot.
    pub fn start() -> Self {
        let address = Address::reserve();
        let taken = UdpSocket::bind(address.dns()).and_then(|udp| Ok((udp, TcpListener::bind(address.dns())?)));
        let (udp, tcp) = taken.unwrap_or_else(|e| panic!("cannot take {}: {e}", address.dns()));
        Self { address, _udp: udp, _tcp: tcp }
    }

    /// Its address.
    pub fn address(&self) -> &Address {
        &self.address
    }
}
