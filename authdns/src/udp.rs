//! DNS over UDP: one socket, one loop, no task and no allocation a query.
//!
//! Datagrams are taken in batches (`recvmmsg`) and answered in the loop itself, which runs on a thread of its own: whatever else the
//! process does, queries do not wait for it.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;
use tokio_util::sync::CancellationToken;

use crate::{
    answer::{Outcome, Transport, respond},
    counters::Counters,
    zone::Zones,
};

/// Room for one receive: a datagram, or several of one sender that the kernel has put together.
const RECEIVE: usize = 65_535;
/// How long a full send buffer may hold up the queries that wait.
const SEND_PATIENCE: Duration = Duration::from_millis(20);
/// Between two attempts to receive, after one has failed: no error may become a loop that eats a processor.
const RECEIVE_PAUSE: Duration = Duration::from_millis(1);

/// A bound socket that is not answered yet.
pub(crate) struct Listener {
    socket: UdpSocket,
    address: SocketAddr,
}

impl Listener {
    pub(crate) fn new(socket: UdpSocket) -> io::Result<Self> {
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers queries until `shutdown`. To be called in a runtime with I/O and time.
    pub(crate) async fn run(self, zones: Zones, counters: Arc<Counters>, shutdown: CancellationToken) -> io::Result<()> {
        let state = UdpSocketState::new((&self.socket).into())?;
        let socket = tokio::net::UdpSocket::from_std(self.socket)?;
        let responder = Responder { zones, counters, socket, state, is_wildcard: self.address.ip().is_unspecified() };
        shutdown.run_until_cancelled(responder.run()).await;
        Ok(())
    }
}

struct Responder {
    zones: Zones,
    counters: Arc<Counters>,
    socket: tokio::net::UdpSocket,
    state: UdpSocketState,
    /// Bound to every address: responses have to say which one they leave from.
    is_wildcard: bool,
}

impl Responder {
    async fn run(self) {
        let mut room = vec![0; RECEIVE * BATCH_SIZE];
        let mut slots: Vec<IoSliceMut<'_>> = room.chunks_exact_mut(RECEIVE).map(IoSliceMut::new).collect();
        let mut meta = [RecvMeta::default(); BATCH_SIZE];
        let mut response = Vec::with_capacity(4096);
        loop {
            let receive = || self.state.recv((&self.socket).into(), &mut slots, &mut meta);
            let received = match self.socket.async_io(Interest::READABLE, receive).await {
                Ok(received) => received,
                // What an earlier response met on its way: ICMP errors, which concern nobody any more.
                Err(error) => {
                    tracing::debug!(%error, "receiving from a UDP socket");
                    tokio::time::sleep(RECEIVE_PAUSE).await;
                    continue;
                }
            };
            // One wait for room in the send buffer is enough for a whole batch.
            let mut patient = true;
            for (slot, meta) in slots.iter().zip(&meta).take(received) {
                let bytes = slot.get(..meta.len).unwrap_or_default();
                for query in bytes.chunks(meta.stride.max(1)) {
                    self.answer(query, meta, &mut response, &mut patient).await;
                }
            }
        }
    }

    async fn answer(&self, query: &[u8], meta: &RecvMeta, response: &mut Vec<u8>, patient: &mut bool) {
        response.clear();
        // Nobody listens on port 0: such a sender is forged.
        let outcome = if meta.addr.port() == 0 { Outcome::Dropped } else { respond(&self.zones, query, Transport::Udp, response) };
        self.counters.record(Transport::Udp, outcome);
        if response.is_empty() {
            return;
        }
        let src_ip = self.source(meta);
        let transmit = Transmit { destination: meta.addr, ecn: None, contents: response, segment_size: None, src_ip };
        let mut sent = self.send(&transmit);
        if *patient && sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            *patient = tokio::time::timeout(SEND_PATIENCE, self.socket.writable()).await.is_ok();
            sent = self.send(&transmit);
        }
        if let Err(error) = sent {
            self.counters.unsent_response();
            tracing::debug!(%error, client = %meta.addr, "sending a UDP response");
        }
    }

    fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_io(Interest::WRITABLE, || self.state.try_send((&self.socket).into(), transmit))
    }

    /// The address that was asked, to answer from it. Where the system chooses right by itself it is left out, for it costs time.
    fn source(&self, meta: &RecvMeta) -> Option<IpAddr> {
        meta.dst_ip.filter(|ip| self.is_wildcard && !ip.is_multicast())
    }
}
