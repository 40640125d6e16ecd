//! Loopback addresses of one's own, so that many servers can have port 53 at once and delegations work as on the internet.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// An address in 127.53.0.0/16 that no other test has, in this program or in another, for as long as this value lives.
///
/// The reservation is a listening socket on a port that nothing else uses, so it ends with the program, however that ends.
#[derive(Debug)]
pub struct Address {
    ip: Ipv4Addr,
    _reservation: TcpListener,
}

/// The port whose listener reserves an address: below the range from which the system hands out ports.
const RESERVATION: u16 = 15353;

/// How many addresses there are: the last two octets, without .0 and .255.
const ADDRESSES: u32 = 256 * 254;

impl Address {
    /// Reserves an address on which port 53 is free for UDP and for TCP.
    ///
    /// # Panics
    /// When port 53 may not be bound (it needs root or `CAP_NET_BIND_SERVICE`), or when no address is left.
    pub fn reserve() -> Self {
        // Programs start far from each other and go on by one: an address is not used again while late packets may still come for it.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let start = process::id().wrapping_mul(7919);
        for _ in 0..ADDRESSES {
            let n = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % ADDRESSES;
            let [_, _, high, low] = (n / 254 * 256 + n % 254 + 1).to_be_bytes();
            let ip = Ipv4Addr::new(127, 53, high, low);
            let Ok(reservation) = TcpListener::bind((ip, RESERVATION)) else { continue };
            match (UdpSocket::bind((ip, 53)), TcpListener::bind((ip, 53))) {
                (Ok(_), Ok(_)) => return Self { ip, _reservation: reservation },
                (Err(e), _) | (_, Err(e)) if e.kind() == ErrorKind::PermissionDenied => {
                    panic!("port 53 of {ip} may not be bound: run the black-box tests as root or with CAP_NET_BIND_SERVICE")
                }
                _ => {}
            }
        }
        panic!("no address of 127.53.0.0/16 is free on port 53");
    }

    /// The address itself.
    pub fn ip(&self) -> IpAddr {
        self.ip.into()
    }

    /// Port 53 of the address.
    pub fn dns(&self) -> SocketAddr {
        self.port(53)
    }

    /// Any other port of the address; all of them belong to whoever holds it.
    pub fn port(&self, port: u16) -> SocketAddr {
        (self.ip, port).into()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Without the right to port 53 there is nothing to test here.
    fn permitted() -> bool {
        let refused = UdpSocket::bind(("127.53.0.1", 53)).is_err_and(|e| e.kind() == ErrorKind::PermissionDenied);
        if refused {
            crate::skip("port 53 may not be bound");
        }
        !refused
    }

    #[test]
    fn no_two_live_reservations_share_an_address() {
        if !permitted() {
            return;
        }
        let held: Vec<_> = (0..20).map(|_| Address::reserve()).collect();
        let distinct: HashSet<_> = held.iter().map(Address::ip).collect();
        assert_eq!(distinct.len(), held.len());
        assert!(held.iter().all(|a| a.ip().is_loopback()));
    }

    #[test]
    fn the_port_is_free_for_the_server() {
        if !permitted() {
            return;
        }
        let address = Address::reserve();
        assert!(UdpSocket::bind(address.dns()).is_ok());
        assert!(TcpListener::bind(address.dns()).is_ok());
    }
}
