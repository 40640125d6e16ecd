//! DNS over TCP (RFC 7766): several queries a connection, answered in their order, with limits on connections and on patience.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    answer::{Outcome, Transport, respond},
    counters::Counters,
    server::Limits,
    zone::Zones,
};

/// Responses are sent when this many bytes of them wait, even if more queries have come.
const BATCH: usize = 65_536;
/// Buffers that grew beyond this are given back when a connection is idle.
const KEPT: usize = 8_192;
/// How long to wait when the system has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all connections share.
pub(crate) struct Service {
    pub(crate) zones: Zones,
    pub(crate) counters: Arc<Counters>,
    pub(crate) limits: Limits,
    /// No new connections and no new queries.
    pub(crate) shutdown: CancellationToken,
    /// Not even what is being sent.
    pub(crate) cut: CancellationToken,
    pub(crate) connections: TaskTracker,
    pub(crate) table: Mutex<Table>,
}

/// The connections that are open.
#[derive(Default)]
pub(crate) struct Table {
    next: u64,
    open: HashMap<u64, Entry>,
    by_address: HashMap<IpAddr, usize>,
}

struct Entry {
    address: IpAddr,
    /// When it last became idle; `None`: it is busy.
    idle_since: Option<Instant>,
    /// Closes the connection.
    close: CancellationToken,
}

/// A place in the table, freed when it is dropped.
struct Place {
    service: Arc<Service>,
    number: u64,
    close: CancellationToken,
}

/// Accepts connections until the shutdown.
pub(crate) async fn serve(listener: TcpListener, service: Arc<Service>) {
    loop {
        let accepted = tokio::select! {
            () = service.shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let place = Place::take(&service, peer);
                service.counters.tcp_connection(place.is_none());
                if let Some(place) = place {
                    service.connections.spawn(connection(stream, place));
                }
            }
            // The client changed its mind.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "accepting a TCP connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Place {
    /// Takes a place for a client. With all places taken, the connection that has been idle for longest makes room; `None`: there is none.
    fn take(service: &Arc<Service>, peer: SocketAddr) -> Option<Self> {
        let address = peer.ip().to_canonical();
        let mut guard = service.table.lock();
        let table = &mut *guard;
        if table.by_address.get(&address).is_some_and(|&count| count >= service.limits.tcp_connections_per_address) {
            return None;
        }
        if table.open.len() >= service.limits.tcp_connections {
            let idle = table.open.iter().filter_map(|(&number, entry)| Some((entry.idle_since?, number)));
            let (_, oldest) = idle.min()?;
            if let Some(entry) = table.remove(oldest) {
                entry.close.cancel();
            }
        }
        let number = table.next;
        table.next += 1;
        let close = service.shutdown.child_token();
        table.open.insert(number, Entry { address, idle_since: Some(Instant::now()), close: close.clone() });
        *table.by_address.entry(address).or_default() += 1;
        Some(Self { service: Arc::clone(service), number, close })
    }

    fn set_idle(&self, idle: bool) {
        if let Some(entry) = self.service.table.lock().open.get_mut(&self.number) {
            entry.idle_since = idle.then(Instant::now);
        }
    }
}

impl Table {
    fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.open.remove(&number)?;
        if let Some(count) = self.by_address.get_mut(&entry.address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&entry.address);
            }
        }
        Some(entry)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.service.table.lock().remove(self.number);
    }
}

async fn connection(mut stream: TcpStream, place: Place) {
    let served = place.service.cut.run_until_cancelled(serve_connection(&mut stream, &place)).await;
    if let Some(Err(error)) = served {
        tracing::debug!(%error, "a TCP connection ended");
    }
}

async fn serve_connection(stream: &mut TcpStream, place: &Place) -> io::Result<()> {
    let limits = &place.service.limits;
    stream.set_nodelay(true)?;
    let mut input = Vec::new();
    let mut output = Vec::new();
    loop {
        // A whole query has to come within the time, or bytes that trickle in would hold the connection for ever.
        let deadline = Instant::now() + limits.tcp_idle;
        while frame(&input).is_none() {
            let read = tokio::select! {
                () = place.close.cancelled() => return Ok(()),
                read = timeout_at(deadline, stream.read_buf(&mut input)) => read,
            };
            match read {
                Ok(Ok(0)) | Err(_) => return Ok(()),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error),
            }
        }
        place.set_idle(false);
        let done = answer_all(&place.service, &mut input, &mut output);
        timeout(limits.tcp_write, stream.write_all(&output)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        output.clear();
        if done == Frames::Foreign {
            return Ok(());
        }
        place.set_idle(true);
        input.shrink_to(KEPT);
        output.shrink_to(KEPT);
    }
}

/// What the input held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frames {
    /// Queries only, as far as it was read.
    Queries,
    /// Something that deserves no response: the client does not speak this protocol.
    Foreign,
}

/// Answers the whole frames at the start of `input` and takes them away; stops when enough of a response has gathered.
fn answer_all(service: &Service, input: &mut Vec<u8>, output: &mut Vec<u8>) -> Frames {
    let mut used = 0;
    let mut frames = Frames::Queries;
    while let Some(query) = input.get(used..).and_then(frame) {
        if output.len() >= BATCH {
            break;
        }
        used += 2 + query.len();
        let at = output.len();
        output.extend_from_slice(&[0, 0]);
        let outcome = respond(&service.zones, query, Transport::Tcp, output);
        service.counters.record(Transport::Tcp, outcome);
        if outcome == Outcome::Dropped {
            output.truncate(at);
            frames = Frames::Foreign;
            break;
        }
        let length = u16::try_from(output.len() - at - 2).unwrap_or(u16::MAX);
        if let Some(prefix) = output.get_mut(at..at + 2) {
            prefix.copy_from_slice(&length.to_be_bytes());
        }
    }
    input.drain(..used);
    frames
}

/// The first message in the input, if it is whole.
fn frame(input: &[u8]) -> Option<&[u8]> {
    let (length, rest) = input.split_first_chunk()?;
    rest.get(..u16::from_be_bytes(*length).into())
}
