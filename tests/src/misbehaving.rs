//! A proxy before an ACME authority that does one thing wrong, once, at one kind of request. The authority's URLs lead to the proxy, because it makes them of the Host header.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use reqwest::{Client, Method};
use rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    temporary_folder,
    testca::{TestCa, http_client},
    write,
};

/// The kinds of requests, in the order of an order's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The directory.
    Directory,
    /// A nonce.
    Nonce,
    /// An account is registered or looked up.
    Account,
    /// An order is made.
    NewOrder,
    /// An authorization is read.
    Authorization,
    /// A challenge is submitted.
    Challenge,
    /// An order is looked at.
    Order,
    /// A signing request is sent.
    Finalize,
    /// A certificate is downloaded.
    Certificate,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Directory,
        Self::Nonce,
        Self::Account,
        Self::NewOrder,
        Self::Authorization,
        Self::Challenge,
        Self::Order,
        Self::Finalize,
        Self::Certificate,
    ];

    /// The kind of a request to Pebble.
    fn of(path: &str) -> Option<Self> {
        let known = [
            ("/dir", Self::Directory),
            ("/nonce-plz", Self::Nonce),
            ("/sign-me-up", Self::Account),
            ("/order-plz", Self::NewOrder),
            ("/authZ/", Self::Authorization),
            ("/chalZ/", Self::Challenge),
            ("/my-order/", Self::Order),
            ("/finalize-order/", Self::Finalize),
            ("/certZ/", Self::Certificate),
        ];
        known.into_iter().find(|(begins, _)| path.starts_with(begins)).map(|(_, kind)| kind)
    }
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The nonce is refused, as if it were old.
    BadNonce,
    /// "Too many requests", with seconds to wait.
    TooManySeconds,
    /// "Too many requests", with a date to wait for.
    TooManyDate,
    /// "Too many requests", with an hour to wait: longer than any command does. Not among [`Fault::ALL`], for nothing is issued in the end.
    TooManyForAnHour,
    /// A server error, with a page instead of a problem document.
    ServerError,
    /// An overload, as a load balancer tells it.
    Overload,
    /// The connection is cut before the authority hears of the request.
    CutBefore,
    /// The connection is cut after the authority has done what it was asked.
    CutAfter,
    /// The answer comes byte by byte.
    Slow,
    /// The authority does what it is asked, and its answer is cut in half.
    Malformed,
    /// The answer says that it is something else.
    WrongType,
    /// The answer comes without Location, Replay-Nonce, Link and Retry-After.
    NoHeaders,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 11] = [
        Self::BadNonce,
        Self::TooManySeconds,
        Self::TooManyDate,
        Self::ServerError,
        Self::Overload,
        Self::CutBefore,
        Self::CutAfter,
        Self::Slow,
        Self::Malformed,
        Self::WrongType,
        Self::NoHeaders,
    ];
}

/// A running proxy.
pub struct Misbehaving {
    directory: String,
    folder: TempDir,
    plan: Arc<Plan>,
    task: JoinHandle<()>,
}

/// What goes wrong next, and how often anything did.
struct Plan {
    next: Mutex<Option<(Kind, Fault)>>,
    done: AtomicU32,
    to: SocketAddr,
    client: Client,
}

struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Misbehaving {
    /// Starts it before `ca`; nothing goes wrong yet.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start(ca: &TestCa) -> Self {
        let folder = temporary_folder("misbehaving");
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]);
        let made = made.unwrap_or_else(|e| panic!("cannot make a certificate: {e}"));
        write(&folder.path().join("ca.pem"), &made.cert.pem());
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map(|builder| builder.with_no_client_auth())
            .and_then(|builder| builder.with_single_cert(vec![made.cert.der().clone()], key.into()))
            .unwrap_or_else(|e| panic!("cannot serve TLS: {e}"));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap_or_else(|e| panic!("a proxy cannot listen: {e}"));
        let address = listener.local_addr().unwrap_or_else(|e| panic!("where does the proxy listen? {e}"));
        let url = reqwest::Url::parse(ca.directory()).unwrap_or_else(|e| panic!("{}: {e}", ca.directory()));
        let to = url.socket_addrs(|| None).ok().and_then(|found| found.first().copied());
        let to = to.unwrap_or_else(|| panic!("{} has no address", ca.directory()));
        let client = http_client(&ca.ca_file()).unwrap_or_else(|e| panic!("no client: {e}"));
        let plan = Arc::new(Plan { next: Mutex::default(), done: AtomicU32::new(0), to, client });
        let served = Arc::clone(&plan);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, plan) = (acceptor.clone(), Arc::clone(&served));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let mut stream = BufReader::new(stream);
                    while let Some(request) = read(&mut stream).await {
                        // A connection that is cut ends without a word.
                        if plan.answer(request, &mut stream).await.is_none() {
                            return;
                        }
                    }
                });
            }
        });
        Self { directory: format!("https://{address}{}", url.path()), folder, plan, task }
    }

    /// The URL of the directory behind it.
    pub fn directory(&self) -> &str {
        &self.directory
    }

    /// The file of the root of its certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Lets this go wrong at the next request of this kind.
    pub fn plan(&self, kind: Kind, fault: Fault) {
        *self.plan.next.lock() = Some((kind, fault));
    }

    /// How often something has gone wrong.
    pub fn done(&self) -> u32 {
        self.plan.done.load(Ordering::Relaxed)
    }
}

impl Drop for Misbehaving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Plan {
    /// Takes a request to its end; `None` cuts the connection.
    async fn answer(&self, request: Request, stream: &mut (impl AsyncWrite + Unpin)) -> Option<()> {
        let head = request.method == "HEAD";
        let Some(fault) = self.due(&request) else { return send(stream, self.forward(request).await?, head, false).await };
        self.done.fetch_add(1, Ordering::Relaxed);
        let said = |status: u16, headers: &[(&str, &str)], body: &str| Answer {
            status,
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            body: body.as_bytes().to_vec(),
        };
        let problem = |kind: &str| format!(r#"{{"type":"urn:ietf:params:acme:error:{kind}","detail":"a fault of the test"}}"#);
        let answer = match fault {
            Fault::CutBefore => return None,
            Fault::CutAfter => {
                self.forward(request).await;
                return None;
            }
            Fault::BadNonce => said(400, &[("Content-Type", "application/problem+json")], &problem("badNonce")),
            Fault::TooManySeconds => said(429, &[("Retry-After", "1")], &problem("rateLimited")),
            Fault::TooManyForAnHour => said(429, &[("Retry-After", "3600")], &problem("rateLimited")),
            Fault::TooManyDate => {
                // Two seconds, for a date has whole ones.
                let date = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(2));
                said(429, &[("Retry-After", &date)], &problem("rateLimited"))
            }
            Fault::ServerError => said(500, &[("Content-Type", "text/html")], "<html>oops</html>"),
            Fault::Overload => said(503, &[("Retry-After", "1"), ("Content-Type", "text/html")], "<html>busy</html>"),
            Fault::Slow => return send(stream, self.forward(request).await?, head, true).await,
            Fault::Malformed => {
                let mut answer = self.forward(request).await?;
                answer.body.truncate(answer.body.len() / 2);
                answer
            }
            Fault::WrongType => {
                let mut answer = self.forward(request).await?;
                answer.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("content-type"));
                answer.headers.push(("Content-Type".to_owned(), "image/png".to_owned()));
                answer
            }
            Fault::NoHeaders => {
                let mut answer = self.forward(request).await?;
                answer.headers.clear();
                answer
            }
        };
        send(stream, answer, head, false).await
    }

    /// What goes wrong with this request.
    fn due(&self, request: &Request) -> Option<Fault> {
        let mut next = self.next.lock();
        let (kind, fault) = (*next)?;
        if Kind::of(&request.path) != Some(kind) {
            return None;
        }
        *next = None;
        Some(fault)
    }

    /// Has the authority answer; `None` if it does not.
    async fn forward(&self, request: Request) -> Option<Answer> {
        let method = Method::from_bytes(request.method.as_bytes()).ok()?;
        let mut forwarded = self.client.request(method, format!("https://{}{}", self.to, request.path)).body(request.body);
        for (name, value) in request.headers {
            // The authority makes its URLs of `Host`, and so they lead here.
            if !["content-length", "connection"].contains(&name.to_ascii_lowercase().as_str()) {
                forwarded = forwarded.header(name, value);
            }
        }
        let answer = forwarded.send().await.ok()?;
        let status = answer.status().as_u16();
        let known = ["content-type", "location", "replay-nonce", "link", "retry-after"];
        let headers = answer.headers().iter().filter(|(name, _)| known.contains(&name.as_str()));
        let headers = headers.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned()))).collect();
        Some(Answer { status, headers, body: answer.bytes().await.ok()?.to_vec() })
    }
}

async fn read(stream: &mut (impl AsyncRead + AsyncBufReadExt + Unpin)) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut words = lines.first()?.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let headers: Vec<_> =
        lines.iter().skip(1).filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.into(), value.into())).collect();
    let length = headers.iter().find(|(name, _): &&(String, String)| name.eq_ignore_ascii_case("content-length"));
    let mut body = vec![0; length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request { method, path, headers, body })
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), answer: Answer, head: bool, slowly: bool) -> Option<()> {
    let headers: String = answer.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut text = format!("HTTP/1.1 {} X\r\nContent-Length: {}\r\n{headers}\r\n", answer.status, answer.body.len()).into_bytes();
    if !head {
        text.extend(answer.body);
    }
    if slowly {
        for byte in text {
            stream.write_all(&[byte]).await.ok()?;
            stream.flush().await.ok()?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        return Some(());
    }
    stream.write_all(&text).await.ok()?;
    stream.flush().await.ok()
}
