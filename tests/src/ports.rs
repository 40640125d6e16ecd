//! Ports of 127.0.0.1 for programs that cannot be told to take port 0.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// A port of 127.0.0.1, free for UDP and TCP, that no other test has for as long as this value lives.
///
/// It lies below the range from which the system hands out ports. The reservation is a listening socket on the same port of another address.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _reservation: TcpListener,
}

/// Where the reservations are: an address that [`crate::addresses`] never hands out.
const RESERVATIONS: Ipv4Addr = Ipv4Addr::new(127, 53, 0, 0);

/// The first port.
const FIRST: u32 = 20_000;

/// How many there are.
const PORTS: u32 = 10_000;

impl Port {
    /// Reserves one.
    ///
    /// # Panics
    /// When none is free.
    pub fn reserve() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let start = process::id().wrapping_mul(7919);
        for _ in 0..PORTS {
            let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS;
            let Ok(number) = u16::try_from(FIRST + offset) else { continue };
            let Ok(reservation) = TcpListener::bind((RESERVATIONS, number)) else { continue };
            let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, number)).is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok();
            if free {
                return Self { number, _reservation: reservation };
            }
        }
        panic!("no port from {FIRST} on is free on 127.0.0.1");
    }

    /// The port on 127.0.0.1.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_live_reservations_share_a_port() {
        let (one, other) = (Port::reserve(), Port::reserve());
        assert_ne!(one.address(), other.address());
        assert!(TcpListener::bind(one.address()).is_ok(), "the port is free for the program");
    }
}
