//! A DNS client that takes what it gets: raw bytes or messages, over UDP or TCP, to one named server, with no retries of its own mind.

use std::{collections::BTreeSet, io, net::SocketAddr, time::Duration};

use anyhow::{Context, bail};
use hickory_proto::{
    op::{Edns, Message, Query},
    rr::{Name, RData, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use crate::wait::{LIMIT, bounded, until};

/// How long [`ask`] waits for one answer before it asks again (the kernel may drop datagrams when a buffer is full).
const TRY: Duration = Duration::from_secs(2);

/// Sends one datagram and gives the reply, or `None` when there is none within `limit`.
///
/// # Errors
/// When nothing listens there.
pub async fn udp(server: SocketAddr, query: &[u8], limit: Duration) -> io::Result<Option<Vec<u8>>> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut reply = vec![0; 65_535];
    match timeout(limit, socket.recv(&mut reply)).await {
        Ok(received) => {
            reply.truncate(received?);
            Ok(Some(reply))
        }
        Err(_) => Ok(None),
    }
}

/// Sends one query over a TCP connection of its own and gives the reply, or `None` when the server closes without one.
///
/// # Errors
/// When the connection cannot be made or breaks.
pub async fn tcp(server: SocketAddr, query: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let exchange = async {
        let mut stream = TcpStream::connect(server).await?;
        write_framed(&mut stream, query).await?;
        read_framed(&mut stream).await
    };
    bounded(&format!("a TCP reply of {server}"), exchange).await
}

/// Writes a message with its length before it (RFC 1035 section 4.2.2), in one write.
///
/// # Errors
/// When the connection breaks, or the message is longer than 65,535 octets.
pub async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}

/// Reads one message with its length before it; `None` when the peer closes first.
///
/// # Errors
/// When the connection breaks within a message.
pub async fn read_framed(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 2];
    match stream.read_exact(&mut length).await {
        Ok(_) => {}
        Err(e) if matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => return Ok(None),
        Err(e) => return Err(e),
    }
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// A query as a resolver sends it to an authoritative server: RD clear, EDNS with 1232 octets, a random id.
///
/// # Panics
/// When `name` is no domain name.
pub fn query(name: &str, record_type: RecordType) -> Message {
    let name = Name::from_ascii(name).unwrap_or_else(|e| panic!("{name} is no domain name: {e}"));
    let mut message = Message::query();
    message.add_query(Query::query(absolute(name), record_type));
    message.set_edns(Edns::new().set_max_payload(1232).clone());
    message
}

/// Asks over UDP, and again over TCP when the answer is truncated; a lost datagram is sent again.
///
/// # Panics
/// When no answer comes within [`LIMIT`].
pub async fn ask(server: SocketAddr, name: &str, record_type: RecordType) -> Message {
    let message = query(name, record_type);
    until(&format!("an answer of {server} to {name} {record_type}"), || exchange(server, &message)).await
}

/// Sends one query once over UDP, over TCP after a truncated answer.
///
/// # Errors
/// When there is no answer within two seconds, or it is not one to this query.
pub async fn exchange(server: SocketAddr, query: &Message) -> anyhow::Result<Message> {
    let bytes = query.to_vec()?;
    let reply = udp(server, &bytes, TRY).await?.context("no reply")?;
    let mut message = Message::from_vec(&reply)?;
    if message.metadata.truncation {
        let reply = tcp(server, &bytes).await?.context("closed without a reply")?;
        message = Message::from_vec(&reply)?;
    }
    if message.metadata.id != query.metadata.id {
        bail!("the reply has another id");
    }
    Ok(message)
}

/// The TXT values that `server` gives at `name` (or at the end of its CNAMEs, if it is a resolver); none for NODATA and NXDOMAIN.
///
/// # Panics
/// When no answer comes within [`LIMIT`].
pub async fn txt(server: SocketAddr, name: &str) -> BTreeSet<String> {
    let mut message = query(name, RecordType::TXT);
    message.metadata.recursion_desired = true;
    let what = format!("an answer of {server} to {name} TXT");
    txt_values(&until(&what, || exchange(server, &message)).await)
}

/// Waits until `server` gives exactly these TXT values at `name`: for resolvers, which remember for up to a second.
///
/// # Panics
/// When it does not within [`LIMIT`].
pub async fn txt_becomes(server: SocketAddr, name: &str, values: &[&str]) {
    let expected: BTreeSet<String> = values.iter().map(|value| (*value).to_owned()).collect();
    let attempt = || async {
        let found = txt(server, name).await;
        if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
    };
    until(&format!("{server} to give {expected:?} at {name} TXT"), attempt).await;
}

/// The TXT values of an answer, the strings of each joined.
pub fn txt_values(answer: &Message) -> BTreeSet<String> {
    let value = |data: &RData| match data {
        RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
        _ => None,
    };
    answer.answers.iter().filter_map(|record| value(&record.data)).collect()
}

/// Waits until `server` answers for the apex of `zone` with authority: how a server of DNS shows that it is ready.
///
/// # Panics
/// After [`LIMIT`].
pub async fn serves(server: SocketAddr, zone: &str) {
    let message = query(zone, RecordType::SOA);
    let attempt = || async {
        let answer = exchange(server, &message).await?;
        if answer.metadata.authoritative && !answer.answers.is_empty() { Ok(()) } else { bail!("{:?}", answer.metadata.response_code) }
    };
    until(&format!("{server} to serve {zone} ({} s at most)", LIMIT.as_secs()), attempt).await;
}

fn absolute(mut name: Name) -> Name {
    name.set_fqdn(true);
    name
}
