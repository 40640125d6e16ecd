//! One question to one server: UDP, and TCP where the answer does not fit.
//!
//! The query is written by hand (a header, a name, an OPT record) and the answer read by hickory. Every question goes out from a new socket, so
//! that its port is the system's random choice, and bears a random id; only an answer that repeats id and question is taken.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use authdns::Name;
use hickory_proto::{
    op::{Message, MessageType},
    rr::{DNSClass, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

/// The port of DNS.
pub(super) const DNS: u16 = 53;

/// Largest answer over UDP: fits every path without fragments (DNS flag day 2020).
const PAYLOAD: u16 = 1232;

/// "Checking disabled", in the second byte of the header's flags.
const CD: u8 = 0x10;
/// "DNSSEC OK", in the third byte of the OPT record's TTL.
const DO: u8 = 0x80;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) name: Name,
    pub(super) kind: RecordType,
    /// True for a resolver, false for an authoritative server.
    pub(super) recursion: bool,
    /// Asks a resolver to validate (the DO bit, RFC 3225) or not to (the CD bit, RFC 4035); `None` leaves it to the resolver.
    pub(super) validation: Option<bool>,
}

impl Question {
    /// For an authoritative server.
    pub(super) fn direct(name: &Name, kind: RecordType) -> Self {
        Self { name: name.clone(), kind, recursion: false, validation: None }
    }

    /// For a resolver.
    pub(super) fn recursive(name: &Name, kind: RecordType) -> Self {
        Self { recursion: true, ..Self::direct(name, kind) }
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ExchangeError {
    #[error("does not answer")]
    Timeout,
    #[error("refuses packets: nothing listens there")]
    Refused,
    #[error("this machine has no route to it")]
    Unroutable,
    #[error("{0}")]
    Other(String),
}

/// Asks `server`, and waits for `patience` at most for each of UDP and TCP.
///
/// # Errors
/// [`ExchangeError`].
pub(super) async fn exchange(server: SocketAddr, question: &Question, patience: Duration) -> Result<Message, ExchangeError> {
    let id = random_id()?;
    let query = encode(id, question);
    let answer = timeout(patience, over_udp(server, &query, id, question)).await.map_err(|_| ExchangeError::Timeout)??;
    if !answer.metadata.truncation {
        return Ok(answer);
    }
    timeout(patience, over_tcp(server, &query, id, question)).await.map_err(|_| ExchangeError::Timeout)?
}

/// The same over TCP from the start.
///
/// # Errors
/// [`ExchangeError`].
pub(super) async fn exchange_tcp(server: SocketAddr, question: &Question, patience: Duration) -> Result<Message, ExchangeError> {
    let id = random_id()?;
    timeout(patience, over_tcp(server, &encode(id, question), id, question)).await.map_err(|_| ExchangeError::Timeout)?
}

/// The name as the gateway writes names; `None` if it is none (which hickory's own checks make impossible).
pub(super) fn to_name(name: &hickory_proto::rr::Name) -> Option<Name> {
    let mut wire = Vec::with_capacity(name.len() + 1);
    for label in name.iter() {
        wire.push(u8::try_from(label.len()).ok()?);
        wire.extend_from_slice(label);
    }
    wire.push(0);
    Name::from_wire(&wire).ok()
}

async fn over_udp(server: SocketAddr, query: &[u8], id: u16, question: &Question) -> Result<Message, ExchangeError> {
    let any: SocketAddr = if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await.map_err(classify)?;
    // Connected: other senders are dropped by the kernel, and a closed port is heard of.
    socket.connect(server).await.map_err(classify)?;
    socket.send(query).await.map_err(classify)?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await.map_err(classify)?;
        // Anything else is a late or forged answer: go on listening.
        if let Some(answer) = decode(buffer.get(..length).unwrap_or_default(), id, question) {
            return Ok(answer);
        }
    }
}

async fn over_tcp(server: SocketAddr, query: &[u8], id: u16, question: &Question) -> Result<Message, ExchangeError> {
    let mut stream = TcpStream::connect(server).await.map_err(classify)?;
    let length = u16::try_from(query.len()).unwrap_or(u16::MAX);
    stream.write_all(&[&length.to_be_bytes(), query].concat()).await.map_err(classify)?;
    let length = stream.read_u16().await.map_err(classify)?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await.map_err(classify)?;
    decode(&answer, id, question).ok_or_else(|| ExchangeError::Other("its answer over TCP is to another question".into()))
}

/// The query as it goes over the wire.
pub(super) fn encode(id: u16, question: &Question) -> Vec<u8> {
    let mut query = Vec::with_capacity(12 + question.name.as_wire().len() + 4 + 11);
    query.extend(id.to_be_bytes());
    query.extend([u8::from(question.recursion), if question.validation == Some(false) { CD } else { 0 }]);
    // One question, no answers, no authorities, one additional record.
    query.extend([0, 1, 0, 0, 0, 0, 0, 1]);
    query.extend_from_slice(question.name.as_wire());
    query.extend(u16::from(question.kind).to_be_bytes());
    query.extend(u16::from(DNSClass::IN).to_be_bytes());
    // OPT at the root: payload as class, flags in the TTL, no options (RFC 6891, 6.1.2).
    query.push(0);
    query.extend(u16::from(RecordType::OPT).to_be_bytes());
    query.extend(PAYLOAD.to_be_bytes());
    query.extend([0, 0, if question.validation.is_some() { DO } else { 0 }, 0, 0, 0]);
    query
}

fn decode(bytes: &[u8], id: u16, question: &Question) -> Option<Message> {
    Message::from_vec(bytes).ok().filter(|message| answers(message, id, question))
}

/// True if a message is the answer to this question.
pub(super) fn answers(message: &Message, id: u16, question: &Question) -> bool {
    let [asked] = message.queries.as_slice() else { return false };
    message.metadata.message_type == MessageType::Response
        && message.metadata.id == id
        && asked.query_type == question.kind
        && asked.query_class == DNSClass::IN
        && to_name(&asked.name).as_ref() == Some(&question.name)
}

fn random_id() -> Result<u16, ExchangeError> {
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(|error| ExchangeError::Other(format!("the system gives no random numbers: {error}")))?;
    Ok(u16::from_be_bytes(id))
}

fn classify(error: io::Error) -> ExchangeError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ExchangeError::Refused,
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable => ExchangeError::Unroutable,
        // No IPv6 in this kernel at all.
        io::ErrorKind::Unsupported => ExchangeError::Unroutable,
        io::ErrorKind::TimedOut => ExchangeError::Timeout,
        kind => ExchangeError::Other(kind.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::fake::{Fake, reply},
        *,
    };

    fn question(name: &str) -> Question {
        Question::direct(&name.parse().unwrap(), RecordType::TXT)
    }

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn answers_to_other_questions_are_passed_over() {
        let fake = Fake::start(|query, _| {
            let mut wrong_id = reply(query, true, &["no"]);
            wrong_id.metadata.id ^= 1;
            let mut wrong_name = reply(query, true, &["no"]);
            wrong_name.queries[0].name = hickory_proto::rr::Name::root();
            let mut not_an_answer = reply(query, true, &["no"]);
            not_an_answer.metadata.message_type = MessageType::Query;
            vec![wrong_id, wrong_name, not_an_answer, reply(query, true, &["yes"])]
        })
        .await;
        let answer = exchange(fake.address, &question("A.test"), PATIENCE).await.unwrap();
        assert_eq!(answer.answers[0].data.to_string(), "yes");
    }

    #[tokio::test]
    async fn a_cut_answer_is_asked_for_over_tcp() {
        let fake = Fake::start(|query, tcp| {
            let mut answer = reply(query, true, &["whole"]);
            if !tcp {
                answer.answers.clear();
                answer.metadata.truncation = true;
            }
            vec![answer]
        })
        .await;
        let answer = exchange(fake.address, &question("a.test"), PATIENCE).await.unwrap();
        assert_eq!(answer.answers[0].data.to_string(), "whole");
    }

    #[tokio::test]
    async fn a_closed_port_is_heard_of() {
        let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert_eq!(exchange(gone, &question("a.test"), PATIENCE).await.unwrap_err(), ExchangeError::Refused);
    }

    #[test]
    fn queries_are_what_a_dns_library_reads() {
        let query = Message::from_vec(&encode(0xABCD, &Question { recursion: true, ..question("a.test") })).unwrap();
        assert_eq!((query.metadata.id, query.metadata.recursion_desired, query.max_payload()), (0xABCD, true, PAYLOAD));
        assert_eq!(to_name(&query.queries[0].name), Some("a.test".parse().unwrap()));
        assert!(!Message::from_vec(&encode(1, &question("a.test"))).unwrap().metadata.recursion_desired);
        for (validation, dnssec, unchecked) in [(None, false, false), (Some(true), true, false), (Some(false), true, true)] {
            let query = Message::from_vec(&encode(1, &Question { validation, ..question("a.test") })).unwrap();
            assert_eq!((query.edns.unwrap().flags().dnssec_ok, query.metadata.checking_disabled), (dnssec, unchecked));
        }
    }
}
