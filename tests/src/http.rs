//! An HTTP/1.1 client that sends the bytes it is given, whole or broken, and takes what comes back: for tests of what goes over the wire.

use std::{
    fmt::Write as _,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Waker},
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::TlsConnector;

use crate::wait::bounded;

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Status line and header, as they came.
    pub head: String,
    /// The body, chunks put together.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a header; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.into_iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection that is kept as long as both sides like it.
pub struct Connection {
    stream: Pin<Box<dyn Stream>>,
    /// What was received beyond the last response.
    rest: Vec<u8>,
    /// The certificate of the server's TLS, if it is TLS.
    certificate: Option<CertificateDer<'static>>,
}

trait Stream: AsyncRead + AsyncWrite + Send {}
impl<S: AsyncRead + AsyncWrite + Send> Stream for S {}

impl Connection {
    /// Connects in plain text.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        Ok(Self::over(TcpStream::connect(address).await?, None))
    }

    /// Connects in plain text from another address of this machine, as another client would.
    ///
    /// # Errors
    /// When the address cannot be used or nobody listens there.
    pub async fn open_from(client: IpAddr, address: SocketAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((client, 0).into())?;
        Ok(Self::over(socket.connect(address).await?, None))
    }

    /// Connects over TLS with HTTP/1.1, trusting this certificate alone for the name `localhost`.
    ///
    /// # Errors
    /// When nobody listens there, or another certificate is shown.
    pub async fn open_tls(address: SocketAddr, trusted: &CertificateDer<'static>) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.clone()).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(io::Error::other)?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(address).await?).await?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.clone().into_owned());
        Ok(Self::over(stream, certificate))
    }

    fn over(stream: impl Stream + 'static, certificate: Option<CertificateDer<'static>>) -> Self {
        Self { stream: Box::pin(stream), rest: Vec::new(), certificate }
    }

    /// The certificate that the server showed; none without TLS.
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.certificate.as_ref()
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// When the server has closed the connection.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Ends the sending half.
    ///
    /// # Errors
    /// When the server has closed the connection.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// The next response; `None` when the server closes without one.
    ///
    /// # Errors
    /// When what comes is not HTTP, or is cut short.
    pub async fn response(&mut self) -> io::Result<Option<Response>> {
        bounded("a response", self.read_response()).await
    }

    /// Whether the server has said something or closed the connection, without waiting for it.
    pub fn is_over(&mut self) -> bool {
        if !self.rest.is_empty() {
            return true;
        }
        let mut waker = Context::from_waker(Waker::noop());
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        let ready = self.stream.as_mut().poll_read(&mut waker, &mut buffer).is_ready();
        self.rest.extend_from_slice(buffer.filled());
        ready
    }

    /// Sends a request and gives its response; `None` when the server closes without one.
    ///
    /// # Errors
    /// As [`response`](Self::response). A server that answers before it has read everything may close early: what it said counts.
    pub async fn exchange(&mut self, request: &[u8]) -> io::Result<Option<Response>> {
        let _ = self.send(request).await;
        self.response().await
    }

    async fn read_response(&mut self) -> io::Result<Option<Response>> {
        let head = loop {
            if let Some(end) = self.rest.windows(4).position(|window| window == b"\r\n\r\n") {
                let body = self.rest.split_off(end + 4);
                break std::mem::replace(&mut self.rest, body);
            }
            if !self.more().await? {
                return if self.rest.is_empty() { Ok(None) } else { Err(cut_short()) };
            }
        };
        let head = String::from_utf8(head).map_err(io::Error::other)?;
        let status = head.strip_prefix("HTTP/1.1 ").or(head.strip_prefix("HTTP/1.0 ")).and_then(|rest| rest.get(..3));
        let status = status.and_then(|code| code.parse().ok()).ok_or_else(|| io::Error::other(format!("no status line: {head:?}")))?;
        let mut response = Response { status, head, body: Vec::new() };
        response.body = if matches!(status, 100..200 | 204 | 304) {
            Vec::new()
        } else if response.header("transfer-encoding").eq_ignore_ascii_case("chunked") {
            self.chunks().await?
        } else if let Ok(length) = response.header("content-length").parse() {
            self.take(length).await?
        } else {
            while self.more().await? {}
            std::mem::take(&mut self.rest)
        };
        Ok(Some(response))
    }

    async fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                match self.rest.windows(2).position(|window| window == b"\r\n") {
                    Some(end) => break end,
                    None if self.more().await? => {}
                    None => return Err(cut_short()),
                }
            };
            let line = self.take(end + 2).await?;
            let length = std::str::from_utf8(&line).ok().and_then(|line| usize::from_str_radix(line.trim(), 16).ok());
            let length = length.ok_or_else(|| io::Error::other("no chunk length"))?;
            let chunk = self.take(length + 2).await?;
            if length == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&chunk[..length]);
        }
    }

    async fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.rest.len() < length {
            if !self.more().await? {
                return Err(cut_short());
            }
        }
        let rest = self.rest.split_off(length);
        Ok(std::mem::replace(&mut self.rest, rest))
    }

    /// Receives what is there; false at the end. A reset is an end too.
    async fn more(&mut self) -> io::Result<bool> {
        match self.stream.read_buf(&mut self.rest).await {
            Ok(length) => Ok(length > 0),
            Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe) => {
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }
}

fn cut_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the response is cut short")
}

/// A request over a connection of its own; `None` when the server closes without a response.
///
/// # Errors
/// As [`Connection::response`].
pub async fn exchange(address: SocketAddr, request: &[u8]) -> io::Result<Option<Response>> {
    Connection::open(address).await?.exchange(request).await
}

/// A well-formed request with `Host` and, for a body, `Content-Length`; more headers are lines without their end.
pub fn request(method: &str, path: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
    for header in headers {
        let _ = write!(head, "{header}\r\n");
    }
    if method == "POST" || !body.is_empty() {
        let _ = write!(head, "Content-Length: {}\r\n", body.len());
    }
    [head.as_bytes(), b"\r\n", body].concat()
}
