//! The sockets: all bound before the first query is answered, all closed by one token.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::oneshot;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    counters::Counters,
    tcp::{self, Service},
    udp,
    zone::Zones,
};

/// What clients may take up.
#[derive(Debug, Clone)]
pub struct Limits {
    /// TCP connections in all; beyond it the one that has been idle for longest is closed. 1024 by default.
    pub tcp_connections: usize,
    /// TCP connections of one client address; further ones are refused. 64 by default.
    pub tcp_connections_per_address: usize,
    /// How long a TCP client may take until its next query is there in full. 10 seconds by default.
    pub tcp_idle: Duration,
    /// How long a TCP client may take to receive what it asked for. 5 seconds by default.
    pub tcp_write: Duration,
    /// How long open TCP connections may go on after the shutdown has begun. 2 seconds by default.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tcp_connections: 1024,
            tcp_connections_per_address: 64,
            tcp_idle: Duration::from_secs(10),
            tcp_write: Duration::from_secs(5),
            drain: Duration::from_secs(2),
        }
    }
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process, or an earlier address of the same list, has the port.
    #[error("cannot listen on {address} ({transport}): the port is in use; stop the program that has it, or choose another port")]
    InUse {
        /// The address.
        address: SocketAddr,
        /// `UDP` or `TCP`.
        transport: &'static str,
    },
    /// Ports below 1024 are for the privileged.
    #[error(
        "cannot listen on {address} ({transport}): permission denied; ports below 1024 need root or the capability CAP_NET_BIND_SERVICE"
    )]
    Permission {
        /// The address.
        address: SocketAddr,
        /// `UDP` or `TCP`.
        transport: &'static str,
    },
    /// The address is not one of this machine.
    #[error("cannot listen on {address} ({transport}): this machine has no such address")]
    NotLocal {
        /// The address.
        address: SocketAddr,
        /// `UDP` or `TCP`.
        transport: &'static str,
    },
    /// Anything else.
    #[error("cannot listen on {address} ({transport}): {source}")]
    Other {
        /// The address.
        address: SocketAddr,
        /// `UDP` or `TCP`.
        transport: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

const UDP: &str = "UDP";
const TCP: &str = "TCP";
/// Queries that come in a burst wait here.
const UDP_RECEIVE_BUFFER: usize = 2 << 20;
/// The nice value of the threads that answer over UDP: about ten times the weight of an ordinary thread, so that a flood of queries on the only core
/// still leaves the others some of it.
#[cfg(target_os = "linux")]
const UDP_NICE: i32 = -10;
const TCP_BACKLOG: i32 = 1024;
/// How often a free TCP port is sought whose UDP twin is free too.
const PORT_ATTEMPTS: usize = 32;

/// A DNS server whose sockets are bound.
pub struct Server {
    zones: Zones,
    limits: Limits,
    counters: Arc<Counters>,
    udp: Vec<udp::Listener>,
    tcp: Vec<TcpListener>,
}

impl Server {
    /// Binds UDP and TCP on every address; queries wait until [`run`](Self::run). Port 0 stands for one free port, the same for both.
    /// `[::]` is every IPv6 address and no IPv4 one; for both, give `0.0.0.0` too.
    ///
    /// # Errors
    /// [`BindError`] for the first address that cannot be had.
    pub fn bind(zones: Zones, listen: &[SocketAddr], limits: Limits) -> Result<Self, BindError> {
        let mut server = Self { zones, limits, counters: Arc::default(), udp: Vec::new(), tcp: Vec::new() };
        for &address in listen {
            let (udp, tcp) = bind_pair(address)?;
            server.udp.push(udp);
            server.tcp.push(tcp);
        }
        Ok(server)
    }

    /// The UDP addresses, in the order of the list, with the ports that were found for 0.
    pub fn udp_addresses(&self) -> Vec<SocketAddr> {
        self.udp.iter().map(udp::Listener::address).collect()
    }

    /// The TCP addresses, likewise.
    pub fn tcp_addresses(&self) -> Vec<SocketAddr> {
        self.tcp.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// The counters, which live on after the server.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Answers queries until `shutdown` is cancelled, or until one of the listeners dies, which the log explains; then lets TCP connections finish what they are sending, within [`Limits::drain`].
    ///
    /// UDP runs on a thread of its own for each address, TCP on the runtime that this is called in.
    pub async fn run(self, shutdown: CancellationToken) {
        let drain = self.limits.drain;
        // The threads and tasks end too if this future is dropped.
        let shutdown = shutdown.child_token();
        let _guard = shutdown.clone().drop_guard();
        let service = Arc::new(Service {
            zones: self.zones.clone(),
            counters: Arc::clone(&self.counters),
            limits: self.limits,
            shutdown: shutdown.clone(),
            cut: CancellationToken::new(),
            connections: TaskTracker::new(),
            table: Mutex::default(),
        });
        let listeners = TaskTracker::new();
        // Cancelled by whichever listener ends first: a server that has lost a socket must be seen to be down.
        let lost = CancellationToken::new();
        for listener in self.tcp {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => {
                    let (serving, ended) = (tcp::serve(listener, Arc::clone(&service)), lost.clone().drop_guard());
                    listeners.spawn(async move {
                        let _ended = ended;
                        serving.await;
                    });
                }
                Err(error) => {
                    tracing::error!(%error, "a TCP listener could not be started");
                    lost.cancel();
                }
            }
        }
        for listener in self.udp {
            let (zones, counters, shutdown) = (self.zones.clone(), Arc::clone(&self.counters), shutdown.clone());
            let (ended, end) = oneshot::channel::<()>();
            let guard = lost.clone().drop_guard();
            let run = move || {
                let _ended = (guard, ended);
                run_udp(listener, zones, counters, shutdown);
            };
            match thread::Builder::new().name("dns-udp".to_owned()).spawn(run) {
                Ok(_) => _ = listeners.spawn(end),
                Err(error) => tracing::error!(%error, "a thread for a UDP socket could not be started"),
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = lost.cancelled() => shutdown.cancel(),
        }
        listeners.close();
        listeners.wait().await;
        service.connections.close();
        if tokio::time::timeout(drain, service.connections.wait()).await.is_err() {
            tracing::warn!(connections = service.connections.len(), "TCP connections are cut off: they did not finish in time");
            service.cut.cancel();
        }
    }
}

/// Runs one UDP socket on the thread that calls.
fn run_udp(listener: udp::Listener, zones: Zones, counters: Arc<Counters>, shutdown: CancellationToken) {
    let address = listener.address();
    go_first();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    if let Err(error) = runtime.and_then(|runtime| runtime.block_on(listener.run(zones, counters, shutdown))) {
        tracing::error!(%address, %error, "a UDP socket could not be served");
    }
}

/// Lets the thread that calls have the core as soon as a query is there, and not after whatever else keeps the machine busy. It takes the capability
/// `CAP_SYS_NICE` or a limit (`LimitNICE=` of systemd); without it answers are the same, only later when no core is idle.
#[cfg(target_os = "linux")]
fn go_first() {
    // Linux takes no process for the calling *thread* (setpriority(2), NOTES).
    if let Err(error) = rustix::process::setpriority_process(None, UDP_NICE) {
        tracing::debug!(%error, "UDP answers have the priority of everything else");
    }
}

/// Elsewhere this would raise the whole process.
#[cfg(not(target_os = "linux"))]
fn go_first() {}

fn bind_pair(address: SocketAddr) -> Result<(udp::Listener, TcpListener), BindError> {
    let mut attempt = 1;
    loop {
        let tcp = bind_tcp(address).map_err(|error| bind_error(address, TCP, error))?;
        let bound = tcp.local_addr().map_err(|error| bind_error(address, TCP, error))?;
        match bind_udp(bound) {
            Ok(udp) => return Ok((udp, tcp)),
            Err(error) if address.port() == 0 && attempt < PORT_ATTEMPTS && error.kind() == io::ErrorKind::AddrInUse => attempt += 1,
            Err(error) => return Err(bind_error(address, UDP, error)),
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the connections of the last run to be forgotten.
    socket.set_reuse_address(true)?;
    bind_socket(&socket, address)?;
    socket.listen(TCP_BACKLOG)?;
    Ok(socket.into())
}

fn bind_udp(address: SocketAddr) -> io::Result<udp::Listener> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    bind_socket(&socket, address)?;
    // The system may grant less; bursts are lost a little earlier then.
    if let Err(error) = socket.set_recv_buffer_size(UDP_RECEIVE_BUFFER) {
        tracing::debug!(%address, %error, "setting the UDP receive buffer");
    }
    udp::Listener::new(socket.into())
}

fn bind_socket(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())
}

fn bind_error(address: SocketAddr, transport: &'static str, source: io::Error) -> BindError {
    match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { address, transport },
        io::ErrorKind::PermissionDenied => BindError::Permission { address, transport },
        io::ErrorKind::AddrNotAvailable => BindError::NotLocal { address, transport },
        _ => BindError::Other { address, transport, source },
    }
}
