//! Sockets: addresses, connections, limits, the end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use authdns::{BindError, Counters, Limits, Rcode, RecordType, Server, Transport, Zones};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::common::*;

struct Running {
    udp: SocketAddr,
    tcp: SocketAddr,
    counters: Arc<Counters>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

fn start_on(address: &str, zones: Zones, limits: Limits) -> Running {
    let server = Server::bind(zones, &[address.parse().expect("an address")], limits).expect("free addresses");
    let (udp, tcp, counters) = (server.udp_addresses()[0], server.tcp_addresses()[0], server.counters());
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(server.run(shutdown.clone()));
    Running { udp, tcp, counters, shutdown, task }
}

fn start(limits: Limits) -> Running {
    start_on("127.0.0.1:0", zones(), limits)
}

/// The response over UDP; a datagram that is lost on the way is asked for again.
async fn ask_udp(server: SocketAddr, query: &[u8]) -> Response {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    socket.connect(server).await.expect("an address");
    let mut buffer = [0; 2048];
    loop {
        socket.send(query).await.expect("sent");
        if let Ok(received) = tokio::time::timeout(Duration::from_secs(1), socket.recv(&mut buffer)).await {
            return Response::new(buffer[..received.expect("received")].to_vec());
        }
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

async fn read_framed(stream: &mut TcpStream) -> Response {
    let length = stream.read_u16().await.expect("a length");
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await.expect("a message");
    Response::new(message)
}

/// Waits until the server has closed the connection, reading what it still sends.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.is_err() || rest.is_empty()
}

#[tokio::test]
async fn both_transports_answer_on_one_port() {
    let server = start(Limits::default());
    assert_eq!(server.udp, server.tcp);
    assert_ne!(server.udp.port(), 0);
    let query = query("mixed.auth.example.org", RecordType::TXT);
    assert_eq!(ask_udp(server.udp, &query).await.answers().len(), 1);
    let mut stream = TcpStream::connect(server.tcp).await.expect("connected");
    stream.write_all(&framed(&query)).await.expect("sent");
    assert_eq!(read_framed(&mut stream).await.answers().len(), 1);
    let counters = &server.counters;
    assert_eq!((counters.queries(Transport::Tcp), counters.tcp_connections(), counters.responses(Rcode::FormErr)), (1, 1, 0));
    assert!(counters.queries(Transport::Udp) >= 1 && counters.responses(Rcode::NoError) >= 2);
}

#[tokio::test]
async fn responses_leave_from_the_address_that_was_asked() {
    let server = start_on("0.0.0.0:0", zones(), Limits::default());
    for asked in ["127.0.0.1", "127.0.0.2", "127.1.2.3"] {
        // A connected socket takes responses from this address only.
        let address = SocketAddr::new(asked.parse().expect("an address"), server.udp.port());
        assert_eq!(ask_udp(address, &query(APEX, RecordType::SOA)).await.answers(), [SOA]);
    }
}

#[tokio::test]
async fn a_connection_takes_many_queries_however_they_are_cut() {
    let server = start(Limits::default());
    let mut stream = TcpStream::connect(server.tcp).await.expect("connected");
    let mut sent = Vec::new();
    for id in 0..300u16 {
        let mut query = query("mixed.auth.example.org", RecordType::TXT);
        query[..2].copy_from_slice(&id.to_be_bytes());
        sent.extend(framed(&query));
    }
    let (mut reading, mut writing) = stream.split();
    let write = async {
        for piece in sent.chunks(37) {
            writing.write_all(piece).await.expect("sent");
            writing.flush().await.expect("sent");
        }
    };
    let read = async {
        for id in 0..300u16 {
            let length = reading.read_u16().await.expect("a length");
            let mut message = vec![0; length.into()];
            reading.read_exact(&mut message).await.expect("a message");
            assert_eq!(message[..2], id.to_be_bytes());
        }
    };
    tokio::join!(write, read);
}

#[tokio::test]
async fn who_waits_or_trickles_is_cut_off() {
    let server = start(Limits { tcp_idle: Duration::from_millis(100), ..Limits::default() });
    let mut silent = TcpStream::connect(server.tcp).await.expect("connected");
    assert!(is_closed(&mut silent).await);
    let trickling = TcpStream::connect(server.tcp).await.expect("connected");
    let (mut reading, mut writing) = trickling.into_split();
    let trickle = tokio::spawn(async move {
        // Bytes of a query that never ends, until nobody takes them any more.
        while writing.write_all(&[1]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let mut rest = Vec::new();
    assert!(reading.read_to_end(&mut rest).await.is_err() || rest.is_empty());
    trickle.await.expect("the server closed the connection");
}

#[tokio::test]
async fn who_does_not_read_is_cut_off() {
    let zones = zones();
    let value = "x".repeat(250);
    let values: Vec<String> = (0..200).map(|number| format!("{value}{number}")).collect();
    set(&zones, 1, "big.auth.example.org", &values.iter().map(String::as_str).collect::<Vec<_>>());
    let server = start_on("127.0.0.1:0", zones, Limits { tcp_write: Duration::from_millis(100), ..Limits::default() });
    let mut stream = TcpStream::connect(server.tcp).await.expect("connected");
    let query = framed(&query("big.auth.example.org", RecordType::TXT)).repeat(100);
    // Without the cut the client could write until both buffers are full, and would then wait for ever.
    while stream.write_all(&query).await.is_ok() {}
}

#[tokio::test]
async fn what_is_no_query_ends_the_connection() {
    let server = start(Limits::default());
    for garbage in [&b"\0\x04junk"[..], b"\0\0", &framed(&[0x80; 20])] {
        let mut stream = TcpStream::connect(server.tcp).await.expect("connected");
        stream.write_all(garbage).await.expect("sent");
        assert!(is_closed(&mut stream).await);
    }
    let mut malformed = TcpStream::connect(server.tcp).await.expect("connected");
    malformed.write_all(&framed(&[0; 12])).await.expect("sent");
    assert_eq!(read_framed(&mut malformed).await.rcode(), 1, "a query that cannot be read is answered");
}

#[tokio::test]
async fn connections_are_limited() {
    let query = framed(&query(APEX, RecordType::SOA));
    let server = start(Limits { tcp_connections: 2, ..Limits::default() });
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(server.tcp).await.expect("connected");
        stream.write_all(&query).await.expect("sent");
        assert_eq!(read_framed(&mut stream).await.answers(), [SOA]);
        open.push(stream);
    }
    assert!(is_closed(&mut open[0]).await, "the one that was idle for longest made room");
    open[1].write_all(&query).await.expect("sent");
    assert_eq!(read_framed(&mut open[1]).await.answers(), [SOA]);

    let server = start(Limits { tcp_connections_per_address: 1, ..Limits::default() });
    let mut first = TcpStream::connect(server.tcp).await.expect("connected");
    first.write_all(&query).await.expect("sent");
    assert_eq!(read_framed(&mut first).await.answers(), [SOA]);
    let mut second = TcpStream::connect(server.tcp).await.expect("connected");
    assert!(is_closed(&mut second).await);
    assert_eq!((server.counters.tcp_connections(), server.counters.tcp_refused()), (1, 1));
}

#[tokio::test]
async fn the_end_closes_everything() {
    let server = start(Limits::default());
    let mut stream = TcpStream::connect(server.tcp).await.expect("connected");
    stream.write_all(&framed(&query(APEX, RecordType::SOA))).await.expect("sent");
    read_framed(&mut stream).await;
    server.shutdown.cancel();
    server.task.await.expect("a quiet end");
    assert!(is_closed(&mut stream).await);
    // The addresses are free again.
    Server::bind(zones(), &[server.udp], Limits::default()).expect("free addresses");
}

#[tokio::test]
async fn addresses_that_cannot_be_had_are_named() {
    let server = start(Limits::default());
    let bind = |address: SocketAddr| Server::bind(zones(), &[address], Limits::default()).map(|_| ()).expect_err("not to be had");
    let taken = bind(server.tcp);
    assert!(matches!(taken, BindError::InUse { transport: "TCP", .. }));
    let advice = "the port is in use; stop the program that has it, or choose another port";
    assert_eq!(taken.to_string(), format!("cannot listen on {} (TCP): {advice}", server.tcp));
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = udp.local_addr().expect("an address");
    assert!(matches!(bind(address), BindError::InUse { transport: "UDP", .. }));
    assert!(matches!(bind("192.0.2.1:0".parse().expect("an address")), BindError::NotLocal { .. }));
}
