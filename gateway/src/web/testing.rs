//! Helpers of the tests that talk HTTP: a served router, and a client that writes bytes and reads one reply.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{Limits, ReloadedTls, bind, serve};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A router on a loopback port.
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) served: JoinHandle<()>,
}

impl Site {
    pub(crate) fn start(router: Router, limits: Limits, tls: Option<Arc<ReloadedTls>>) -> Self {
        let bound = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let stop = CancellationToken::new();
        let served = tokio::spawn(serve(bound.listener, tls, router, limits, stop.clone()));
        Self { address: bound.address, stop, served }
    }

    pub(crate) async fn connect(&self) -> Client<TcpStream> {
        Client::new(TcpStream::connect(self.address).await.unwrap())
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(&self, request: &str) -> Reply {
        self.connect().await.ask(request).await
    }
}

/// A client's end of a connection.
pub(crate) struct Client<S> {
    pub(crate) stream: S,
    buffer: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) async fn write(&mut self, bytes: &str) {
        self.stream.write_all(bytes.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    pub(crate) async fn ask(&mut self, request: &str) -> Reply {
        self.write(request).await;
        self.reply().await
    }

    /// The next reply.
    pub(crate) async fn reply(&mut self) -> Reply {
        self.try_reply().await.expect("a reply before the connection ends")
    }

    /// The next reply, or `None` if the connection ends before it.
    pub(crate) async fn try_reply(&mut self) -> Option<Reply> {
        let head = loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break self.buffer.drain(..end + 4).collect::<Vec<_>>();
            }
            self.fill().await?;
        };
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().strip_prefix("HTTP/1.1 ").expect("a status line").to_owned();
        let headers: BTreeMap<_, _> =
            lines.map(|line| line.split_once(": ").expect("a header")).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        while self.buffer.len() < length {
            self.fill().await?;
        }
        let body = String::from_utf8(self.buffer.drain(..length).collect()).unwrap();
        Some(Reply { status, headers, body })
    }

    /// Waits until the server has closed the connection.
    pub(crate) async fn closed(&mut self) {
        while self.fill().await.is_some() {}
        assert!(self.buffer.is_empty(), "unread: {:?}", String::from_utf8_lossy(&self.buffer));
    }

    async fn fill(&mut self) -> Option<()> {
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await.expect("the server answers or closes");
        (read.unwrap_or(0) > 0).then_some(())
    }
}

/// A reply over HTTP/1.1.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Code and phrase.
    pub(crate) status: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// All of it but the date, as it went over the wire.
    pub(crate) fn text(&self) -> String {
        let headers: String =
            self.headers.iter().filter(|(name, _)| *name != "date").map(|(name, value)| format!("{name}: {value}\n")).collect();
        format!("{}\n{headers}\n{}", self.status, self.body)
    }
}
