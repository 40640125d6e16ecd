//! The limits, each seen from the client's side of a real socket.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::{StatusCode, Version},
    response::IntoResponse,
    routing::get,
};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, KeyPair};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::{
    net::{TcpStream, UnixListener, UnixStream},
    sync::Notify,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{
    BodyError, Clients, Limits, Listener, Peer, ReloadedTls, TlsError, read_body, serve,
    testing::{Client, Site},
};
use crate::config::TlsFiles;

const BRIEF: Duration = Duration::from_millis(50);

/// `GET /` says who asks, `POST /` how long the body was or why it was not read.
fn router() -> Router {
    async fn length(request: Request) -> (StatusCode, String) {
        match read_body(request.into_body(), 100_000).await {
            Ok(body) => (StatusCode::OK, body.len().to_string()),
            Err(BodyError::TooLarge) => (StatusCode::PAYLOAD_TOO_LARGE, String::new()),
            Err(BodyError::TooSlow) => (StatusCode::REQUEST_TIMEOUT, String::new()),
            Err(BodyError::Broken) => (StatusCode::BAD_REQUEST, String::new()),
        }
    }
    async fn who(request: Request) -> String {
        match request.extensions().get::<Peer>() {
            Some(Peer(Some(peer))) => peer.to_string(),
            Some(Peer(None)) => "local".to_owned(),
            None => "nobody".to_owned(),
        }
    }
    Router::new().route("/", get(who).post(length))
}

/// `GET /` says that it was entered, and answers when it is told to.
fn gate() -> (Router, Arc<Notify>, Arc<Notify>) {
    let (entered, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handler = {
        let (entered, leave) = (entered.clone(), leave.clone());
        move || async move {
            entered.notify_one();
            leave.notified().await;
            "done"
        }
    };
    (Router::new().route("/", get(handler)), entered, leave)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn the_door_learns_who_asks() {
    let site = Site::start(router(), Limits::default(), None);
    let mut client = site.connect().await;
    let here = client.stream.local_addr().unwrap().to_string();
    assert_eq!(client.ask(GET).await.body, here);
    // The connection goes on.
    assert_eq!(client.ask(GET).await.body, here);
}

#[tokio::test]
async fn a_unix_socket_serves_the_same() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("admin.sock");
    let listener = Listener::Unix(UnixListener::bind(&path).unwrap());
    let stop = CancellationToken::new();
    let served = tokio::spawn(serve(listener, None, router(), Limits::default(), stop.clone()));
    let mut client = Client::new(UnixStream::connect(&path).await.unwrap());
    assert_eq!(client.ask(GET).await.body, "local");
    stop.cancel();
    client.closed().await;
    served.await.unwrap();
}

#[tokio::test]
async fn a_body_that_does_not_end_is_cut() {
    let site = Site::start(router(), Limits { body: BRIEF, ..Limits::default() }, None);
    let mut client = site.connect().await;
    let reply = client.ask("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345").await;
    assert_eq!(reply.status, "408 Request Timeout");
    client.closed().await;
}

#[tokio::test]
async fn a_header_that_does_not_end_is_cut() {
    let site = Site::start(router(), Limits { header: BRIEF, ..Limits::default() }, None);
    let mut client = site.connect().await;
    client.write("GET / HTTP/1.1\r\nHost: ").await;
    client.closed().await;
    // One that sends nothing is no better.
    site.connect().await.closed().await;
}

#[tokio::test]
async fn an_unused_connection_is_closed() {
    let site = Site::start(router(), Limits { header: BRIEF, ..Limits::default() }, None);
    let mut client = site.connect().await;
    assert_eq!(client.ask(GET).await.status, "200 OK");
    client.closed().await;
}

#[tokio::test]
async fn bodies_are_bounded_however_they_are_framed() {
    let site = Site::start(router(), Limits { body_bytes: 50_000, ..Limits::default() }, None);
    let post = |length: usize| format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{}", "x".repeat(length));
    assert_eq!(site.ask(&post(50_000)).await.body, "50000");
    assert_eq!(site.ask(&post(50_001)).await.status, "413 Payload Too Large");
    let announced = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100001\r\n\r\n";
    assert_eq!(site.ask(announced).await.status, "413 Payload Too Large");
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    let chunked =
        |chunks: usize| format!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", chunk.repeat(chunks));
    assert_eq!(site.ask(&chunked(12)).await.body, "49152");
    assert_eq!(site.ask(&chunked(13)).await.status, "413 Payload Too Large");
}

#[tokio::test]
async fn headers_are_bounded_in_size_and_number() {
    let site = Site::start(router(), Limits::default(), None);
    let with = |headers: &str| format!("GET / HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    assert_eq!(site.ask(&with(&format!("A: {}\r\n", "x".repeat(8_000)))).await.status, "200 OK");
    assert_eq!(site.ask(&with(&format!("A: {}\r\n", "x".repeat(17_000)))).await.status, "431 Request Header Fields Too Large");
    assert_eq!(site.ask(&with(&"A: x\r\n".repeat(99))).await.status, "200 OK");
    assert_eq!(site.ask(&with(&"A: x\r\n".repeat(101))).await.status, "431 Request Header Fields Too Large");
}

#[tokio::test]
async fn one_connection_too_many_takes_the_place_of_an_unused_one() {
    let site = Site::start(router(), Limits { connections: 2, ..Limits::default() }, None);
    let (mut first, mut second) = (site.connect().await, site.connect().await);
    assert_eq!(first.ask(GET).await.status, "200 OK");
    assert_eq!(second.ask(GET).await.status, "200 OK");
    assert_eq!(site.ask(GET).await.status, "200 OK");
    first.closed().await;
}

#[tokio::test]
async fn one_connection_too_many_waits_for_an_open_request() {
    let (router, entered, leave) = gate();
    let site = Site::start(router, Limits { connections: 1, ..Limits::default() }, None);
    let mut first = site.connect().await;
    first.write(GET).await;
    entered.notified().await;
    let mut second = site.connect().await;
    second.write(GET).await;
    leave.notify_one();
    let reply = first.reply().await;
    assert_eq!(reply.body, "done");
    drop(first);
    // Only now is it let in.
    entered.notified().await;
    leave.notify_one();
    assert_eq!(second.reply().await.body, "done");
}

#[tokio::test]
async fn a_handler_that_hangs_is_given_up() {
    let router = Router::new().route("/", get(std::future::pending::<()>));
    let site = Site::start(router, Limits { request: BRIEF, ..Limits::default() }, None);
    assert_eq!(site.ask(GET).await.status, "503 Service Unavailable");
}

#[tokio::test]
async fn a_handler_that_panics_takes_nobody_along() {
    async fn panics() -> impl IntoResponse {
        panic!("as a test");
        #[expect(unreachable_code, reason = "gives the handler its type")]
        StatusCode::OK
    }
    let site = Site::start(router().route("/panic", get(panics)), Limits::default(), None);
    let mut client = site.connect().await;
    assert_eq!(client.ask("GET /panic HTTP/1.1\r\nHost: x\r\n\r\n").await.status, "500 Internal Server Error");
    assert_eq!(client.ask(GET).await.status, "200 OK");
}

#[tokio::test]
async fn open_requests_end_before_the_stop() {
    let (router, entered, leave) = gate();
    let site = Site::start(router, Limits::default(), None);
    let mut idle = site.connect().await;
    let mut open = site.connect().await;
    open.write(GET).await;
    entered.notified().await;
    site.stop.cancel();
    idle.closed().await;
    // Nobody is let in any more.
    assert!(TcpStream::connect(site.address).await.is_err());
    leave.notify_one();
    let reply = open.reply().await;
    assert_eq!((&*reply.body, reply.header("connection")), ("done", "close"));
    open.closed().await;
    site.served.await.unwrap();
}

#[tokio::test]
async fn what_does_not_end_is_cut_at_the_stop() {
    let router = Router::new().route("/", get(std::future::pending::<()>));
    let site = Site::start(router, Limits { drain: BRIEF, ..Limits::default() }, None);
    let mut client = site.connect().await;
    client.write(GET).await;
    site.stop.cancel();
    site.served.await.unwrap();
    client.closed().await;
}

/// A folder that holds a certificate and its key.
struct Files {
    folder: TempDir,
    files: TlsFiles,
}

impl Files {
    fn new() -> (Self, CertificateDer<'static>) {
        let folder = TempDir::new().unwrap();
        let files = TlsFiles { certificate: folder.path().join("tls.crt"), key: folder.path().join("tls.key") };
        let this = Self { folder, files };
        let made = this.write();
        (this, made)
    }

    /// Puts a new pair in the place of the old one.
    fn write(&self) -> CertificateDer<'static> {
        let CertifiedKey { cert, signing_key } = make();
        std::fs::write(&self.files.certificate, cert.pem()).unwrap();
        std::fs::write(&self.files.key, signing_key.serialize_pem()).unwrap();
        cert.der().clone()
    }
}

fn make() -> CertifiedKey<KeyPair> {
    rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

async fn connect(address: SocketAddr, trusted: &[&CertificateDer<'static>], alpn: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add((*certificate).clone()).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// The certificate that a new connection is shown.
async fn shown(address: SocketAddr, trusted: &[&CertificateDer<'static>]) -> CertificateDer<'static> {
    let stream = connect(address, trusted, &[]).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

#[tokio::test]
async fn both_versions_of_http_go_over_tls() {
    let (files, certificate) = Files::new();
    let site = Site::start(router(), Limits::default(), Some(ReloadedTls::open(&files.files, Clients::Anonymous).unwrap()));
    for alpn in [&["http/1.1"][..], &[]] {
        let stream = connect(site.address, &[&certificate], alpn).await.unwrap();
        let here = stream.get_ref().0.local_addr().unwrap().to_string();
        assert_eq!(Client::new(stream).ask(GET).await.body, here);
    }
    let stream = connect(site.address, &[&certificate], &["h2", "http/1.1"]).await.unwrap();
    let here = stream.get_ref().0.local_addr().unwrap().to_string();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = hyper::Request::get("https://localhost/").body(Empty::<&[u8]>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), here);
    site.stop.cancel();
    connection.await.unwrap().unwrap();
    site.served.await.unwrap();
}

#[tokio::test]
async fn an_unused_http2_connection_is_closed() {
    let (files, certificate) = Files::new();
    let limits = Limits { header: BRIEF, ..Limits::default() };
    let site = Site::start(router(), limits, Some(ReloadedTls::open(&files.files, Clients::Anonymous).unwrap()));
    let stream = connect(site.address, &[&certificate], &["h2"]).await.unwrap();
    let (_sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Empty<&[u8]>>(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    connection.await.unwrap();
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_cut() {
    let tls = ReloadedTls::self_signed(&["localhost".to_owned()], Clients::Anonymous).unwrap();
    let site = Site::start(router(), Limits { handshake: BRIEF, ..Limits::default() }, Some(tls));
    site.connect().await.closed().await;
}

#[tokio::test]
async fn a_changed_certificate_is_served_without_a_restart() {
    let (files, old) = Files::new();
    let tls = ReloadedTls::open(&files.files, Clients::Anonymous).unwrap();
    let site = Site::start(router(), Limits::default(), Some(tls.clone()));
    let mut open = Client::new(connect(site.address, &[&old], &[]).await.unwrap());
    assert!(!tls.reload_if_changed(), "nothing has changed");
    let new = files.write();
    // Either this call or the task that follows the files reads it.
    tls.reload_if_changed();
    assert_eq!(shown(site.address, &[&old, &new]).await, new);
    // What was open before stays open.
    assert_eq!(open.ask(GET).await.status, "200 OK");
}

#[tokio::test]
async fn a_broken_new_certificate_keeps_the_old_one() {
    let (files, old) = Files::new();
    let tls = ReloadedTls::open(&files.files, Clients::Anonymous).unwrap();
    let site = Site::start(router(), Limits::default(), Some(tls.clone()));
    std::fs::write(&files.files.key, make().signing_key.serialize_pem()).unwrap();
    assert!(!tls.reload_if_changed());
    assert_eq!(shown(site.address, &[&old]).await, old);
    std::fs::remove_file(&files.files.certificate).unwrap();
    assert!(!tls.reload_if_changed());
    assert_eq!(shown(site.address, &[&old]).await, old);
    let new = files.write();
    tls.reload_if_changed();
    assert_eq!(shown(site.address, &[&old, &new]).await, new);
}

#[tokio::test]
async fn a_swapped_link_above_the_files_is_seen() {
    let folder = TempDir::new().unwrap();
    let version = |name: &str| {
        let (files, certificate) = Files::new();
        std::fs::create_dir(folder.path().join(name)).unwrap();
        for file in ["tls.crt", "tls.key"] {
            std::fs::rename(files.folder.path().join(file), folder.path().join(name).join(file)).unwrap();
        }
        certificate
    };
    let link = |target: &str| {
        std::os::unix::fs::symlink(target, folder.path().join("next")).unwrap();
        std::fs::rename(folder.path().join("next"), folder.path().join("..data")).unwrap();
    };
    let (_, new) = (version("1"), version("2"));
    link("1");
    let path = folder.path().join("..data");
    let tls = ReloadedTls::open(&TlsFiles { certificate: path.join("tls.crt"), key: path.join("tls.key") }, Clients::Anonymous).unwrap();
    link("2");
    tls.reload_if_changed();
    assert_eq!(tls.certificates(), [new]);
}

#[tokio::test]
async fn what_cannot_be_served_is_told_at_the_start() {
    let (files, _) = Files::new();
    let message = |files: &TlsFiles| ReloadedTls::open(files, Clients::Anonymous).unwrap_err().to_string().replace(&*folder_of(files), "");
    fn folder_of(files: &TlsFiles) -> std::borrow::Cow<'_, str> {
        files.key.parent().unwrap().to_string_lossy()
    }
    let other = TlsFiles { certificate: files.files.certificate.clone(), key: files.folder.path().join("other.key") };
    assert_eq!(message(&other), "cannot read /other.key: No such file or directory (os error 2)");
    std::fs::write(&other.key, make().signing_key.serialize_pem()).unwrap();
    assert!(matches!(ReloadedTls::open(&other, Clients::Anonymous), Err(TlsError::Unusable { .. })));
    std::fs::write(&other.key, "nothing").unwrap();
    assert_eq!(message(&other), "/other.key holds no readable PEM private key");
    std::fs::write(&files.files.certificate, "").unwrap();
    assert_eq!(message(&files.files), "/tls.crt holds no readable PEM certificate; it must hold the chain, leaf first");
}
