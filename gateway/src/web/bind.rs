//! Listeners, bound before anything is served, so that a port in use is told before the program says that it is ready.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

/// Connections that the kernel keeps while we are busy.
const BACKLOG: i32 = 1024;

/// Where clients come in.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix stream socket; who may open its path may call.
    Unix(UnixListener),
}

/// A bound TCP listener and the address that it got.
#[derive(Debug)]
pub struct Bound {
    /// The real address: the port that the kernel chose stands in the place of port 0.
    pub address: SocketAddr,
    /// For [`serve`](super::serve()).
    pub listener: Listener,
}

/// Why an address could not be listened on. Names the address and what to do.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The port is taken.
    #[error("cannot listen on {0}: another program has that port; stop it, or choose another address")]
    InUse(SocketAddr),
    /// The address is not one of this machine's.
    #[error("cannot listen on {0}: this machine has no such address; choose one that `ip address` shows, or a wildcard")]
    NoSuchAddress(SocketAddr),
    /// A port below 1024 without the right to it.
    #[error("cannot listen on {0}: ports below 1024 need the capability CAP_NET_BIND_SERVICE; grant it, or choose a higher port")]
    Denied(SocketAddr),
    /// A door that is open to its own machine alone was to be opened to others.
    #[error(
        "cannot listen on {0}: nobody is asked who they are, so this door opens on loopback addresses only; settle who may call (webhook.callers), or choose 127.0.0.1 or ::1"
    )]
    NotLoopback(SocketAddr),
    /// Anything else that the system says.
    #[error("cannot listen on {0}: {1}")]
    Failed(SocketAddr, String),
}

/// Binds a TCP listener. Call it inside the runtime.
///
/// # Errors
/// [`BindError`] names the address and says what to do.
pub fn bind(address: SocketAddr) -> Result<Bound, BindError> {
    let listen = || -> io::Result<Bound> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        // A restart must not wait for the old connections' TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from_std(socket.into())?;
        Ok(Bound { address: listener.local_addr()?, listener: Listener::Tcp(listener) })
    };
    listen().map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse(address),
        io::ErrorKind::AddrNotAvailable => BindError::NoSuchAddress(address),
        io::ErrorKind::PermissionDenied => BindError::Denied(address),
        _ => BindError::Failed(address, error.to_string()),
    })
}

/// An address as policy sees it: IPv4 that came in through an IPv6 socket is IPv4.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V6(_) => address,
        v4 => SocketAddr::new(v4, address.port()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_names_the_address() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = bind(first.address).unwrap_err();
        assert!(matches!(error, BindError::InUse(address) if address == first.address), "{error}");
        assert!(error.to_string().contains(&first.address.to_string()));
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_told_apart() {
        let error = bind("192.0.2.1:0".parse().unwrap()).unwrap_err();
        assert!(matches!(error, BindError::NoSuchAddress(_)), "{error}");
    }

    #[test]
    fn mapped_addresses_become_ipv4() {
        assert_eq!(canonical("[::ffff:192.0.2.1]:5".parse().unwrap()), "192.0.2.1:5".parse().unwrap());
        assert_eq!(canonical("[2001:db8::1]:5".parse().unwrap()), "[2001:db8::1]:5".parse().unwrap());
    }
}
