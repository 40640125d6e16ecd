//! The authoritative servers of an emulated cloud: they serve what its API was told, each after a delay of its own.
//!
//! A zone is published whole, each time it changes; a server answers from the newest publication that is older than its delay. What was asked is
//! kept, so that a test can judge how often a server was asked, and the moment from which all of them answer a value is known exactly.

mod zone;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, ResponseCode},
    rr::{Name, RecordType},
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::AbortHandle,
    time::timeout,
};

use zone::Snapshot;

/// The largest UDP answer, whatever a client says that it takes (DNS Flag Day 2020).
const MOST_UDP: u16 = 1232;

/// The largest UDP answer to a client that does not speak EDNS (RFC 1035, 4.2.1).
const CLASSIC_UDP: u16 = 512;

/// How long a TCP connection may be idle.
const IDLE: Duration = Duration::from_secs(10);

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

/// A query that a server got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The server, as [`Nameservers::addresses`] gives it.
    pub server: SocketAddr,
    /// The name that was asked for, in lower case with its last dot.
    pub owner: String,
    /// The mnemonic of the type.
    pub kind: String,
    /// True over TCP: the same question once more, if it follows a truncated answer.
    pub tcp: bool,
    /// When it came.
    pub at: Instant,
}

/// The servers; clones share them. They end with the last clone.
#[derive(Debug, Clone)]
pub struct Nameservers(Arc<Running>);

#[derive(Debug, Default)]
struct Running {
    state: Arc<Mutex<State>>,
    tasks: Vec<AbortHandle>,
}

#[derive(Debug, Default)]
struct State {
    servers: Vec<Server>,
    /// By apex; oldest first.
    zones: HashMap<Name, Vec<Publication>>,
    /// When each TXT value that stands now was first published, by apex.
    values: HashMap<Name, HashMap<(Name, Vec<u8>), Instant>>,
    serial: u32,
    asked: Vec<Asked>,
}

#[derive(Debug, Clone, Copy)]
struct Server {
    address: SocketAddr,
    delay: Duration,
    silent: bool,
}

#[derive(Debug)]
struct Publication {
    at: Instant,
    /// None: withdrawn.
    zone: Option<Arc<Snapshot>>,
}

impl Nameservers {
    /// Starts a server, UDP and TCP, on each address (port 0 takes a free one); a zone as it is published at some moment is answered by a server only
    /// after its delay.
    ///
    /// # Panics
    /// When an address cannot be bound.
    pub async fn start(servers: &[(SocketAddr, Duration)]) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let mut tasks = Vec::new();
        for &(wanted, delay) in servers {
            let (udp, tcp, address) = bind(wanted).await;
            state.lock().servers.push(Server { address, delay, silent: false });
            tasks.push(tokio::spawn(datagrams(udp, address, Arc::clone(&state))).abort_handle());
            tasks.push(tokio::spawn(streams(tcp, address, Arc::clone(&state))).abort_handle());
        }
        Self(Arc::new(Running { state, tasks }))
    }

    /// No server: the API alone.
    pub fn none() -> Self {
        Self(Arc::default())
    }

    /// Publishes a zone as it is now. SOA and NS that `records` lacks are made up (`ns1.<zone>` and so on, at the servers' addresses).
    ///
    /// # Panics
    /// When a record is not in presentation form: the emulator lets in what it should refuse.
    pub fn publish(&self, zone: &str, records: ServedZone) {
        let apex = absolute(zone);
        let mut state = self.0.state.lock();
        state.serial += 1;
        let values: HashSet<_> = records.iter().filter(|r| r.kind == "TXT").map(|r| (absolute(&r.owner), r.data.concat())).collect();
        let servers: Vec<_> = state.servers.iter().map(|server| server.address.ip()).collect();
        let snapshot = (!servers.is_empty()).then(|| Arc::new(Snapshot::new(&apex, &records, &servers, state.serial)));
        // The moment is taken under the lock: publications stand in the order of their moments.
        let now = Instant::now();
        let standing = state.values.entry(apex.clone()).or_default();
        standing.retain(|value, _| values.contains(value));
        for value in values {
            standing.entry(value).or_insert(now);
        }
        if snapshot.is_some() {
            state.push(apex, Publication { at: now, zone: snapshot });
        }
    }

    /// The zone is no longer served, by each server after its delay.
    pub fn withdraw(&self, zone: &str) {
        let apex = absolute(zone);
        let mut state = self.0.state.lock();
        state.values.remove(&apex);
        state.push(apex, Publication { at: Instant::now(), zone: None });
    }

    /// Where the servers listen, in the order of [`start`](Self::start).
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.state.lock().servers.iter().map(|server| server.address).collect()
    }

    /// From now on a server takes queries and answers none (`true`), or answers again.
    ///
    /// # Panics
    /// When there is no such server.
    pub fn silence(&self, address: SocketAddr, silent: bool) {
        self.change(address, |server| server.silent = silent);
    }

    /// From now on a server is so late. A shorter delay shows at once what was held back; a longer one may take back what was shown.
    ///
    /// # Panics
    /// When there is no such server.
    pub fn delay(&self, address: SocketAddr, delay: Duration) {
        self.change(address, |server| server.delay = delay);
    }

    /// The moment from which every server answers this TXT value at this owner; it may lie ahead. `None` if the value does not stand now.
    pub fn answers_since(&self, owner: &str, value: &str) -> Option<Instant> {
        let key = (absolute(owner), value.as_bytes().to_vec());
        let state = self.0.state.lock();
        let published = state.values.values().filter_map(|values| values.get(&key)).max()?;
        Some(*published + state.servers.iter().map(|server| server.delay).max().unwrap_or_default())
    }

    /// All queries so far, silent servers' included, oldest first.
    pub fn asked(&self) -> Vec<Asked> {
        self.0.state.lock().asked.clone()
    }

    /// The shortest time between two queries of one server for the TXT of one name: what "no server is asked more than once a second" is about. A
    /// query over TCP does not count, as it repeats one over UDP. `None` if no server got two.
    pub fn shortest_interval(&self) -> Option<Duration> {
        let state = self.0.state.lock();
        let mut last: HashMap<(SocketAddr, &str), Instant> = HashMap::new();
        let queries = state.asked.iter().filter(|asked| asked.kind == "TXT" && !asked.tcp);
        let between = |asked: &Asked, before: Instant| asked.at.saturating_duration_since(before);
        queries.filter_map(|asked| last.insert((asked.server, &asked.owner), asked.at).map(|before| between(asked, before))).min()
    }

    fn change(&self, address: SocketAddr, change: impl FnOnce(&mut Server)) {
        let mut state = self.0.state.lock();
        let server = state.servers.iter_mut().find(|server| server.address == address);
        change(server.unwrap_or_else(|| panic!("no name server at {address}")));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl State {
    /// Adds a publication, and forgets those that no server shows any more.
    fn push(&mut self, apex: Name, publication: Publication) {
        let longest = self.servers.iter().map(|server| server.delay).max().unwrap_or_default();
        let history = self.zones.entry(apex).or_default();
        let shown = history.iter().rposition(|old| old.at.elapsed() >= longest).unwrap_or(0);
        history.drain(..shown);
        history.push(publication);
    }

    /// What a server at `address` says now to a question; `None` if it says nothing.
    fn respond(&mut self, address: SocketAddr, request: &Message, tcp: bool) -> Option<Message> {
        let server = *self.servers.iter().find(|server| server.address == address)?;
        let mut response = Message::response(request.metadata.id, request.metadata.op_code);
        response.metadata.recursion_desired = request.metadata.recursion_desired;
        response.add_queries(request.queries.iter().cloned());
        if request.edns.is_some() {
            response.set_edns(Edns::new().set_max_payload(MOST_UDP).clone());
        }
        let [query] = request.queries.as_slice() else {
            response.metadata.response_code = ResponseCode::FormErr;
            return Some(response);
        };
        if request.metadata.op_code != OpCode::Query {
            response.metadata.response_code = ResponseCode::NotImp;
            return Some(response);
        }
        let mut name = query.name().to_lowercase();
        name.set_fqdn(true);
        let kind = query.query_type();
        self.asked.push(Asked { server: address, owner: name.to_string(), kind: kind.to_string(), tcp, at: Instant::now() });
        if server.silent {
            return None;
        }
        match self.zone(&name, kind, server.delay) {
            Some(zone) => zone.answer(&name, kind, &mut response),
            None => response.metadata.response_code = ResponseCode::Refused,
        }
        Some(response)
    }

    /// The closest zone around a name that a server so late shows now. The DS of a zone stands above it.
    fn zone(&self, name: &Name, kind: RecordType, delay: Duration) -> Option<&Snapshot> {
        let mut apex = if kind == RecordType::DS && !name.is_root() { name.base_name() } else { name.clone() };
        loop {
            let shown = self.zones.get(&apex).and_then(|history| history.iter().rfind(|publication| publication.at.elapsed() >= delay));
            if let Some(zone) = shown.and_then(|publication| publication.zone.as_deref()) {
                return Some(zone);
            }
            if apex.is_root() {
                return None;
            }
            apex = apex.base_name();
        }
    }
}

/// A name in lower case with its last dot.
fn absolute(name: &str) -> Name {
    let mut name = Name::from_ascii(name).unwrap_or_else(|e| panic!("{name:?} is no domain name: {e}")).to_lowercase();
    name.set_fqdn(true);
    name
}

async fn bind(wanted: SocketAddr) -> (UdpSocket, TcpListener, SocketAddr) {
    // A free UDP port may be taken for TCP: then the next one is tried.
    for _ in 0..100 {
        let udp = UdpSocket::bind(wanted).await.unwrap_or_else(|e| panic!("cannot bind {wanted} for UDP: {e}"));
        let address = udp.local_addr().unwrap_or_else(|e| panic!("{wanted} has no address: {e}"));
        match TcpListener::bind(address).await {
            Ok(tcp) => return (udp, tcp, address),
            Err(_) if wanted.port() == 0 => {}
            Err(e) => panic!("cannot bind {wanted} for TCP: {e}"),
        }
    }
    panic!("no port of {} is free for UDP and TCP", wanted.ip())
}

async fn datagrams(socket: UdpSocket, address: SocketAddr, state: Arc<Mutex<State>>) {
    let mut buffer = vec![0; 4096];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let Some(request) = buffer.get(..length).and_then(parse) else { continue };
        let Some(response) = state.lock().respond(address, &request, false) else { continue };
        let most = if request.edns.is_some() { request.max_payload().clamp(CLASSIC_UDP, MOST_UDP) } else { CLASSIC_UDP };
        let whole = response.to_vec().ok().filter(|bytes| bytes.len() <= usize::from(most));
        if let Some(bytes) = whole.or_else(|| response.truncate().to_vec().ok()) {
            let _ = socket.send_to(&bytes, client).await;
        }
    }
}

async fn streams(listener: TcpListener, address: SocketAddr, state: Arc<Mutex<State>>) {
    // They end with their server: dropping the set aborts them.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        connections.spawn(connection(stream, address, Arc::clone(&state)));
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(mut stream: TcpStream, address: SocketAddr, state: Arc<Mutex<State>>) -> std::io::Result<()> {
    loop {
        let length = timeout(IDLE, stream.read_u16()).await??;
        let mut request = vec![0; length.into()];
        timeout(IDLE, stream.read_exact(&mut request)).await??;
        let Some(request) = parse(&request) else { return Ok(()) };
        let Some(response) = state.lock().respond(address, &request, true) else { continue };
        let bytes = response.to_vec().map_err(std::io::Error::other)?;
        let length = u16::try_from(bytes.len()).map_err(std::io::Error::other)?;
        timeout(IDLE, stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat())).await??;
    }
}

fn parse(bytes: &[u8]) -> Option<Message> {
    Message::from_vec(bytes).ok().filter(|message| message.metadata.message_type == MessageType::Query)
}

#[cfg(test)]
mod tests;
