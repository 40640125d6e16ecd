//! Requests to one server and their answers: many at once over one TCP connection, or one datagram each.

use std::{
    collections::HashMap,
    future::Future,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use authdns::Name;
use futures_util::{StreamExt, stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket, lookup_host},
    time::timeout,
};

use super::{
    message::{Answer, Rcode, question},
    tsig::Key,
};
use crate::{Error, limiter::Limiter};

/// Largest message that goes by UDP; a larger one goes by TCP. What fits in every network's packets.
pub(crate) const MOST_UDP: usize = 1200;
/// Largest message of all, its signature left out (RFC 1035, 4.2.2).
pub(crate) const MOST_TCP: usize = 65_000;
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a server may take from one answer to the next.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a datagram may take before it is sent again: the network loses some. Queries and updates may come twice, they say how things shall be.
const DATAGRAM: Duration = Duration::from_secs(3);
const TRIES: usize = 3;
/// Datagrams under way at a time, and requests on a connection before the first answer: more, and servers drop some.
const AT_ONCE: usize = 16;
const ON_A_CONNECTION: usize = 64;

/// How requests travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum Transport {
    /// One connection for many requests, 64 kB a message.
    #[default]
    Tcp,
    /// Datagrams of 1,200 bytes; what is larger goes by TCP.
    Udp,
}

/// A server, by name or address.
#[derive(Debug)]
pub(crate) struct Server {
    host: String,
    port: u16,
    transport: Transport,
    limiter: Limiter,
}

/// A key, and the time to sign with it (seconds since 1970).
pub(crate) type Signer<'k> = Option<(&'k Key, u64)>;

impl Server {
    /// `server` is a name or an address, with a port if it is not 53.
    ///
    /// # Errors
    /// A text that says what is wrong with it.
    pub(crate) fn parse(key: &str, server: &str, transport: Transport) -> Result<Self, String> {
        let wrong =
            || format!("{key}: {server:?} is no server: write HOST, HOST:PORT, or an address such as 192.0.2.1:53 or [2001:db8::1]:53");
        let (host, port) = if let Ok(address) = server.parse::<SocketAddr>() {
            (address.ip().to_string(), address.port())
        } else if let Ok(ip) = server.trim_matches(['[', ']']).parse::<IpAddr>() {
            (ip.to_string(), 53)
        } else {
            let (host, port) = match server.split_once(':') {
                Some((host, port)) => (host, port.parse().map_err(|_| wrong())?),
                None => (server, 53),
            };
            // A name with a scheme or a path is an URL by mistake.
            host.parse::<Name>().ok().filter(|_| !host.contains('/')).ok_or_else(wrong)?;
            (host.to_owned(), port)
        };
        if port == 0 { Err(wrong()) } else { Ok(Self::new(host, port, transport)) }
    }

    pub(crate) fn new(host: String, port: u16, transport: Transport) -> Self {
        // No server of one's own counts questions; this is what keeps a mistake of ours from being a flood.
        Self { host, port, transport, limiter: Limiter::new(Duration::from_millis(1), 1000) }
    }

    pub(crate) fn limiter(&self) -> &Limiter {
        &self.limiter
    }

    /// True if nothing sent to it leaves this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// Sends queries; one answer for each, in their order.
    pub(crate) async fn ask(&self, queries: Vec<Vec<u8>>, signer: Signer<'_>) -> Vec<Result<Answer, Error>> {
        if self.transport == Transport::Tcp {
            return self.over_tcp(queries, signer).await;
        }
        let exchanges: Vec<_> = queries.iter().map(|query| self.over_udp(query, signer)).collect();
        let mut answers: Vec<_> = stream::iter(exchanges).buffered(AT_ONCE).collect().await;
        let cut: Vec<usize> = answers.iter().enumerate().filter(|(_, a)| a.as_ref().is_ok_and(|a| a.truncated)).map(|(n, _)| n).collect();
        let again = cut.iter().filter_map(|&place| queries.get(place).cloned()).collect();
        for (place, answer) in cut.into_iter().zip(self.over_tcp(again, signer).await) {
            if let Some(slot) = answers.get_mut(place) {
                *slot = answer;
            }
        }
        answers
    }

    /// Sends one message; for updates, which have small answers.
    ///
    /// # Errors
    /// [`Error::Unsent`] and [`Error::Transport`] as they say; [`Error::Auth`] if the server does not take the signature.
    pub(crate) async fn send(&self, message: Vec<u8>, signer: Signer<'_>) -> Result<Answer, Error> {
        if self.transport == Transport::Udp && message.len() <= MOST_UDP {
            return self.over_udp(&message, signer).await;
        }
        let answer = self.over_tcp(vec![message], signer).await.pop();
        answer.unwrap_or_else(|| Err(Error::Unsent("no message was given".to_owned())))
    }

    /// Sends requests over one connection; what a server leaves unanswered that ends connections after so many goes over another.
    async fn over_tcp(&self, requests: Vec<Vec<u8>>, signer: Signer<'_>) -> Vec<Result<Answer, Error>> {
        let mut answers: Vec<Option<Result<Answer, Error>>> = requests.iter().map(|_| None).collect();
        let mut open: Vec<(usize, Vec<u8>)> = requests.into_iter().enumerate().collect();
        while !open.is_empty() {
            let before = open.len();
            let ended = self.connection(&open, signer, &mut answers).await;
            open.retain(|(place, _)| answers.get(*place).is_some_and(Option::is_none));
            if ended.is_err() {
                self.limiter.failed();
            }
            if open.len() == before {
                let error = ended.err().unwrap_or_else(|| Error::Transport("the server answered nothing".to_owned()));
                answers.iter_mut().filter(|answer| answer.is_none()).for_each(|answer| *answer = Some(Err(error.clone())));
                break;
            }
        }
        answers.into_iter().flatten().collect()
    }

    /// Sends requests over one connection until all are answered or it ends.
    async fn connection(
        &self,
        open: &[(usize, Vec<u8>)],
        signer: Signer<'_>,
        answers: &mut [Option<Result<Answer, Error>>],
    ) -> Result<(), Error> {
        let mut stream = self.connect().await?;
        let mut next = open.iter();
        let mut waiting: HashMap<u16, (usize, Sent)> = HashMap::new();
        let mut id = random();
        loop {
            let mut bytes = Vec::new();
            if waiting.len() <= ON_A_CONNECTION / 2 {
                for (place, request) in next.by_ref().take(ON_A_CONNECTION - waiting.len()) {
                    self.limiter.acquire().await?;
                    id = id.wrapping_add(1);
                    let sent = Sent::new(request.clone(), id, signer);
                    bytes.extend_from_slice(&u16::try_from(sent.message.len()).map_err(|_| too_long())?.to_be_bytes());
                    bytes.extend_from_slice(&sent.message);
                    waiting.insert(id, (*place, sent));
                }
            }
            if waiting.is_empty() {
                return Ok(());
            }
            in_time(stream.write_all(&bytes)).await?;
            let length = in_time(stream.read_u16()).await?;
            let mut message = vec![0; length.into()];
            in_time(stream.read_exact(&mut message)).await?;
            let answer = Answer::parse(&message).ok_or_else(|| Error::Transport("the answer is no DNS message".to_owned()))?;
            let asked = waiting.remove(&answer.id);
            let (place, sent) = asked.ok_or_else(|| Error::Transport("an answer to something that was not asked".to_owned()))?;
            if let Some(slot) = answers.get_mut(place) {
                *slot = Some(sent.judge(&message, answer, signer));
            }
        }
    }

    async fn connect(&self) -> Result<TcpStream, Error> {
        match timeout(CONNECT, TcpStream::connect((self.host.as_str(), self.port))).await {
            Ok(Ok(stream)) => {
                // Requests are written whole; waiting to fill packets only delays them. Where this fails, nothing else does.
                let _ = stream.set_nodelay(true);
                Ok(stream)
            }
            Ok(Err(error)) => Err(Error::Unsent(format!("no connection to {self} by TCP: {error}"))),
            Err(_) => Err(Error::Unsent(format!("no connection to {self} by TCP within {} s", CONNECT.as_secs()))),
        }
    }

    /// Sends one datagram, again if nothing comes back, to the server's addresses in turn.
    async fn over_udp(&self, request: &[u8], signer: Signer<'_>) -> Result<Answer, Error> {
        let result = self.datagrams(request, signer).await;
        if matches!(result, Err(Error::Unsent(_) | Error::Transport(_))) {
            self.limiter.failed();
        }
        result
    }

    async fn datagrams(&self, request: &[u8], signer: Signer<'_>) -> Result<Answer, Error> {
        let unsent = |error: std::io::Error| Error::Unsent(format!("nothing can be sent to {self} by UDP: {error}"));
        let addresses: Vec<SocketAddr> = lookup_host((self.host.as_str(), self.port)).await.map_err(unsent)?.collect();
        let mut last = Error::Unsent(format!("{self} has no address"));
        // Set once a datagram may have arrived.
        let mut lost = false;
        for attempt in 0..TRIES.max(addresses.len()) {
            let Some(&address) = addresses.get(attempt % addresses.len().max(1)) else { break };
            self.limiter.acquire().await?;
            let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            // A new socket, and so a new port, each time: an answer is hard to guess.
            let socket = UdpSocket::bind((any, 0)).await.map_err(unsent)?;
            let sent = Sent::new(request.to_vec(), random(), signer);
            let exchange = async {
                socket.connect(address).await?;
                socket.send(&sent.message).await?;
                let mut message = vec![0; MOST_TCP];
                loop {
                    let length = socket.recv(&mut message).await?;
                    let message = message.get(..length).unwrap_or_default();
                    if let Some(answer) = Answer::parse(message).filter(|answer| answer.id == sent.id) {
                        return Ok::<_, std::io::Error>(sent.judge(message, answer, signer));
                    }
                }
            };
            match timeout(DATAGRAM, exchange).await {
                Ok(Ok(answer)) => return answer.map(|answer| Answer { repeated: lost, ..answer }),
                Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
                    last = Error::Unsent(format!("{self} does not listen on UDP: {error}"));
                }
                Ok(Err(error)) => last = unsent(error),
                Err(_) => lost = true,
            }
        }
        Err(if lost { Error::Transport(format!("no answer of {self} by UDP")) } else { last })
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') { write!(f, "[{}]:{}", self.host, self.port) } else { write!(f, "{}:{}", self.host, self.port) }
    }
}

/// A request as it was sent.
struct Sent {
    id: u16,
    message: Vec<u8>,
    /// Its signature, if it has one.
    mac: Vec<u8>,
    question: Option<(Name, u16)>,
}

impl Sent {
    fn new(mut message: Vec<u8>, id: u16, signer: Signer<'_>) -> Self {
        if let Some(first) = message.get_mut(..2) {
            first.copy_from_slice(&id.to_be_bytes());
        }
        let question = question(&message);
        let mac = signer.map(|(key, now)| key.sign(&mut message, now)).unwrap_or_default();
        Self { id, message, mac, question }
    }

    /// The answer, if it is the server's and to this request.
    fn judge(&self, message: &[u8], answer: Answer, signer: Signer<'_>) -> Result<Answer, Error> {
        if answer.question.is_some() && answer.question != self.question {
            return Err(Error::Transport("the answer is to another question".to_owned()));
        }
        match (signer, &answer.tsig) {
            (None, _) => Ok(answer),
            (Some((key, now)), Some((record, at))) => match key.verify(&self.mac, message, record, *at, now) {
                Ok(()) => Ok(answer),
                Err(failure) => Err(failure.explained(key)),
            },
            // Servers sign no answer about zones that they do not have (Knot), or when they did not come as far as the key.
            (Some(_), None) if !matches!(answer.rcode, Rcode::NOERROR | Rcode::NXDOMAIN) => Ok(answer),
            (Some(_), None) => Err(Error::Transport("the answer is not signed: it may not be the server's".to_owned())),
        }
    }
}

async fn in_time<T>(io: impl Future<Output = std::io::Result<T>>) -> Result<T, Error> {
    match timeout(PATIENCE, io).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) if error.kind() == ErrorKind::UnexpectedEof => {
            Err(Error::Transport("the server closed the connection without an answer".to_owned()))
        }
        Ok(Err(error)) => Err(Error::Transport(format!("the connection broke: {error}"))),
        Err(_) => Err(Error::Transport(format!("no answer within {} s", PATIENCE.as_secs()))),
    }
}

fn too_long() -> Error {
    Error::Rejected("the change does not fit in one DNS message (64 kB)".to_owned())
}

/// An id that nobody can guess; without a source of them, ports are all that there is to guess.
fn random() -> u16 {
    getrandom::u32().unwrap_or_default() as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_names_or_addresses() {
        for (text, shown, loopback) in [
            ("ns1.example.com", "ns1.example.com:53", false),
            ("ns1.example.com:5353", "ns1.example.com:5353", false),
            ("127.0.0.1", "127.0.0.1:53", true),
            ("192.0.2.1:54", "192.0.2.1:54", false),
            ("::1", "[::1]:53", true),
            ("[::1]", "[::1]:53", true),
            ("[2001:db8::1]:54", "[2001:db8::1]:54", false),
            ("localhost:54", "localhost:54", true),
        ] {
            let server = Server::parse("server", text, Transport::Tcp).expect(text);
            assert_eq!((server.to_string().as_str(), server.is_loopback()), (shown, loopback));
        }
        for text in ["", "https://ns1.example.com", "ns1:port", "ns1:0", "a b", "ns1.example.com/zone"] {
            let error = Server::parse("server", text, Transport::Tcp).expect_err(text);
            assert!(error.starts_with("server: ") && error.contains("HOST:PORT"), "{error}");
        }
    }
}
