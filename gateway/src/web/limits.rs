//! How much of us a client may hold.

use std::time::Duration;

/// Bounds on connections, times and sizes, for one listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once. More wait in the kernel's backlog; unused ones are closed to make room.
    pub connections: usize,
    /// Requests that one HTTP/2 connection may have open.
    pub streams: u32,
    /// For the TLS handshake, from the accepted connection on.
    pub handshake: Duration,
    /// From the moment a connection waits for a request until its header is whole; so also how long an unused connection is kept.
    pub header: Duration,
    /// Largest header, request line included, in bytes. (A header of more than 100 fields is refused, too.)
    pub header_bytes: usize,
    /// From the first wait for a body until it is whole.
    pub body: Duration,
    /// Largest body that any door gets to see, in bytes; doors set smaller ones.
    pub body_bytes: u64,
    /// From the whole header to the reply's header. A door answers earlier by itself; this is for what hangs.
    pub request: Duration,
    /// How long a peer may leave our bytes unacknowledged.
    pub unacknowledged: Duration,
    /// How long open requests may go on after the stop was asked for.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            streams: 128,
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(30),
            header_bytes: 16 * 1024,
            body: Duration::from_secs(10),
            body_bytes: 3 * 1024 * 1024,
            request: Duration::from_secs(60),
            unacknowledged: Duration::from_secs(30),
            drain: Duration::from_secs(10),
        }
    }
}
