//! The loop that accepts connections, and one task for each.

use std::{
    io,
    net::SocketAddr,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{Request, Response, StatusCode, header},
};
use futures_util::FutureExt;
use hyper::{body::Incoming, server::conn, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::CertificateDer;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;
use tracing::{debug, error, warn};

use super::{ClientChain, Limits, Listener, ReloadedTls, bind::canonical, body::Guarded, tls::HTTP2};

/// Request extension: the address at the other end of the connection, IPv4 as IPv4; `None` on a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub Option<SocketAddr>);

/// How long a full listener waits for a connection to end by itself, before it asks one to, and before it asks the next.
const CROWDED: Duration = Duration::from_millis(20);

/// Pause after `accept` failed for want of file descriptors or memory, lest the loop burns the CPU that would free them.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` on `listener` until `shutdown`: HTTP/1.1, and HTTP/2 where the client chooses it in the TLS handshake (ALPN). Then no connection
/// is accepted any more, idle ones are closed, open requests are finished within [`Limits::drain`], and what is left is cut.
pub async fn serve(listener: Listener, tls: Option<Arc<ReloadedTls>>, router: Router, limits: Limits, shutdown: CancellationToken) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let tasks = TaskTracker::new();
    // Dropping this future cuts its connections, too.
    let cut = CancellationToken::new();
    let _guard = cut.clone().drop_guard();
    let server = Server { tls, router, limits, shutdown: shutdown.clone(), crowded: Arc::default() };
    loop {
        let Some(Some(slot)) = shutdown.run_until_cancelled(server.slot(&slots)).await else { break };
        let Some(accepted) = shutdown.run_until_cancelled(accept(&listener)).await else { break };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                warn!(%error, "cannot accept connections; trying again");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (server, cut) = (server.clone(), cut.clone());
        tasks.spawn(async move {
            let _slot = slot;
            cut.run_until_cancelled(Box::pin(server.connection(stream, peer))).await;
        });
    }
    drop(listener);
    tasks.close();
    if timeout(limits.drain, tasks.wait()).await.is_err() {
        warn!(connections = tasks.len(), "cutting connections whose requests did not end in time");
        cut.cancel();
        tasks.wait().await;
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(tokio::net::UnixStream),
}

async fn accept(listener: &Listener) -> io::Result<(Stream, Peer)> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, peer) = listener.accept().await?;
            Ok((Stream::Tcp(stream), Peer(Some(canonical(peer)))))
        }
        Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| (Stream::Unix(stream), Peer(None))),
    }
}

/// True if the next connection may be fine: this one was gone before we took it.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused)
}

/// Who is at the other end of a connection.
#[derive(Clone)]
struct Caller {
    peer: Peer,
    chain: Option<ClientChain>,
}

/// What a connection needs of its listener.
#[derive(Clone)]
struct Server {
    tls: Option<Arc<ReloadedTls>>,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
    /// Asks the connection that has waited longest to make room.
    crowded: Arc<Notify>,
}

impl Server {
    /// A place for one more connection. When there is none, connections that nobody uses are closed for it, the oldest first; a request is never cut.
    async fn slot(&self, slots: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        let mut free = std::pin::pin!(slots.clone().acquire_owned());
        loop {
            match timeout(CROWDED, &mut free).await {
                Ok(slot) => return slot.ok(),
                Err(_elapsed) => self.crowded.notify_one(),
            }
        }
    }

    /// Returns when a connection shall take no more requests.
    async fn closing(&self) {
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = self.crowded.notified() => {}
        }
    }

    async fn connection(self, stream: Stream, peer: Peer) {
        match stream {
            Stream::Unix(stream) => self.http1(stream, Caller { peer, chain: None }).await,
            Stream::Tcp(stream) => {
                // Both are improvements only: a connection without them still works.
                let _ = stream.set_nodelay(true);
                let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(self.limits.unacknowledged));
                match &self.tls {
                    None => self.http1(stream, Caller { peer, chain: None }).await,
                    Some(tls) => {
                        let handshake = self.shutdown.run_until_cancelled(timeout(self.limits.handshake, tls.accept(stream)));
                        match handshake.await {
                            None => {}
                            Some(Err(_)) => debug!(peer = ?peer.0, "TLS handshake took too long"),
                            Some(Ok(Err(error))) => debug!(peer = ?peer.0, %error, "TLS handshake failed"),
                            Some(Ok(Ok(stream))) => {
                                let session = stream.get_ref().1;
                                let chain = session
                                    .peer_certificates()
                                    .map(|chain| ClientChain(chain.iter().cloned().map(CertificateDer::into_owned).collect()));
                                let (caller, http2) = (Caller { peer, chain }, session.alpn_protocol() == Some(HTTP2));
                                if http2 { self.http2(stream, caller).await } else { self.http1(stream, caller).await }
                            }
                        }
                    }
                }
            }
        }
    }

    async fn http1(&self, io: impl AsyncRead + AsyncWrite + Unpin, caller: Caller) {
        let peer = caller.peer;
        let service = service_fn(|request| self.answer(request, caller.clone()));
        let connection = conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header)
            .max_header_size(self.limits.header_bytes)
            .serve_connection(TokioIo::new(io), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = self.closing() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            debug!(peer = ?peer.0, %error, "HTTP/1 connection ended");
        }
    }

    async fn http2(&self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, caller: Caller) {
        let peer = caller.peer;
        let activity = Arc::new(Activity::default());
        let service = {
            let (server, activity) = (self.clone(), activity.clone());
            service_fn(move |request| {
                let (server, busy, caller) = (server.clone(), activity.enter(), caller.clone());
                async move {
                    let _busy = busy;
                    server.answer(request, caller).await
                }
            })
        };
        let connection = conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(self.limits.header_bytes).unwrap_or(u32::MAX))
            .max_concurrent_streams(self.limits.streams)
            .keep_alive_interval(self.limits.header)
            .keep_alive_timeout(self.limits.header)
            .serve_connection(TokioIo::new(io), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = async { tokio::select! { () = self.closing() => {}, () = activity.ceases(self.limits.header) => {} } } => {
                connection.as_mut().graceful_shutdown();
                // A peer that neither finishes its requests nor takes the GOAWAY is cut.
                timeout(self.limits.request + self.limits.header, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            debug!(peer = ?peer.0, %error, "HTTP/2 connection ended");
        }
    }

    /// One request through the door, within its time, and not taking the connection along if the door panics.
    async fn answer(&self, request: Request<Incoming>, caller: Caller) -> Result<Response<Body>, std::convert::Infallible> {
        let mut request = request.map(|body| Body::new(Guarded::new(body, self.limits.body_bytes, self.limits.body)));
        request.extensions_mut().insert(caller.peer);
        if let Some(chain) = caller.chain {
            request.extensions_mut().insert(chain);
        }
        let answer = AssertUnwindSafe(self.router.clone().call(request)).catch_unwind();
        Ok(match timeout(self.limits.request, answer).await {
            Ok(Ok(Ok(response))) => response,
            Ok(Err(_panic)) => {
                error!("a request handler panicked; this is a defect of acmegate, please report it");
                plain(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error\n")
            }
            Err(_elapsed) => plain(StatusCode::SERVICE_UNAVAILABLE, "the request took too long\n"),
        })
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Whether an HTTP/2 connection is in use: hyper itself keeps an idle one for ever.
#[derive(Default)]
struct Activity {
    open: AtomicUsize,
    seen: AtomicUsize,
}

struct Busy(Arc<Activity>);

impl Activity {
    fn enter(self: &Arc<Self>) -> Busy {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.seen.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }

    /// Returns when no request was open or came in for a whole `period`.
    async fn ceases(&self, period: Duration) {
        loop {
            let seen = self.seen.load(Ordering::Relaxed);
            sleep(period).await;
            if self.open.load(Ordering::Relaxed) == 0 && self.seen.load(Ordering::Relaxed) == seen {
                return;
            }
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
