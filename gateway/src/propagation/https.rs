//! A resolver over HTTPS (RFC 8484): one connection, kept for as long as it works.

use std::{fmt, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use futures_util::StreamExt;
use hickory_proto::op::{DnsRequest, DnsRequestOptions, Message};
use hickory_resolver::net::{DnsHandle, h2::HttpsClientStream, runtime::TokioRuntimeProvider, xfer::DnsExchange};
use reqwest::Url;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::{net::lookup_host, sync::Mutex, time::timeout};

use super::exchange::{ExchangeError, Question, answers, encode};

/// The port of HTTPS.
const HTTPS: u16 = 443;

type Connection = DnsExchange<TokioRuntimeProvider>;

/// A resolver over HTTPS.
pub(super) struct Https {
    url: Url,
    /// What its certificate is checked with, or why there is nothing.
    tls: Result<Arc<ClientConfig>, String>,
    /// Runs the connection for as long as this lives.
    provider: TokioRuntimeProvider,
    connection: Mutex<Option<Connection>>,
}

impl Https {
    /// The resolver at `url`, its certificate checked against the roots in `ca_file` (PEM) instead of the system's. Nothing is sent yet; what is wrong with the file is
    /// the answer to each question.
    pub(super) fn new(url: Url, ca_file: Option<&Path>) -> Self {
        Self { url, tls: tls(ca_file).map(Arc::new), provider: TokioRuntimeProvider::new(), connection: Mutex::default() }
    }

    /// Asks it, and waits for `patience` at most, the connection included.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub(super) async fn exchange(&self, question: &Question, patience: Duration) -> Result<Message, ExchangeError> {
        timeout(patience, self.ask(question)).await.map_err(|_| ExchangeError::Timeout)?
    }

    async fn ask(&self, question: &Question) -> Result<Message, ExchangeError> {
        let query = Message::from_vec(&encode(0, question)).map_err(|error| ExchangeError::Other(error.to_string()))?;
        let (connection, fresh) = self.connect(false).await?;
        let answer = match send(&connection, &query).await {
            // The server may have closed the connection since it was last used.
            Err(_) if !fresh => send(&self.connect(true).await?.0, &query).await,
            answer => answer,
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(text) => {
                *self.connection.lock().await = None;
                return Err(ExchangeError::Other(text));
            }
        };
        if answers(&answer, 0, question) { Ok(answer) } else { Err(ExchangeError::Other("its answer is to another question".into())) }
    }

    /// The connection, and whether it is new. Questions that come together make one.
    async fn connect(&self, anew: bool) -> Result<(Connection, bool), ExchangeError> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = kept.as_ref().filter(|_| !anew) {
            return Ok((connection.clone(), false));
        }
        let made = self.open().await.map_err(ExchangeError::Other)?;
        *kept = Some(made.clone());
        Ok((made, true))
    }

    async fn open(&self) -> Result<Connection, String> {
        let tls = self.tls.clone()?;
        let host = self.url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let port = self.url.port().unwrap_or(HTTPS);
        let addresses: Vec<SocketAddr> = match lookup_host((host, port)).await {
            Ok(addresses) => addresses.collect(),
            Err(_) => return Err(format!("the system finds no address of {host}")),
        };
        let mut failure = format!("{host} has no address");
        for address in addresses {
            let builder = HttpsClientStream::builder(tls.clone(), self.provider.clone());
            match builder.exchange(address, host.into(), self.url.path().into()).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failure = format!("no connection to {address}: {error}"),
            }
        }
        Err(failure)
    }
}

async fn send(connection: &Connection, query: &Message) -> Result<Message, String> {
    let answer = connection.send(DnsRequest::new(query.clone(), DnsRequestOptions::default())).next().await;
    match answer {
        Some(Ok(answer)) => Ok(answer.into_message()),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("the connection was closed".into()),
    }
}

fn tls(ca_file: Option<&Path>) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into());
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let builder = match ca_file {
        None => builder.with_platform_verifier().map_err(|error| format!("the system's roots cannot be read: {error}"))?,
        Some(path) => {
            let unreadable = |error: &dyn fmt::Display| format!("propagation.ca_file: {} cannot be read: {error}", path.display());
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))? {
                roots.add(certificate.map_err(|error| unreadable(&error))?).map_err(|error| unreadable(&error))?;
            }
            builder.with_root_certificates(roots)
        }
    };
    Ok(builder.with_no_client_auth())
}

impl fmt::Debug for Https {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Https {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::{Router, body::Bytes, extract::State, http::header, response::IntoResponse, routing::post};
    use hickory_proto::rr::RecordType;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::ServerConfig;
    use rustls_pki_types::PrivateKeyDer;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::{super::fake::reply, *};

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A resolver over HTTPS on loopback, with a root of its own.
    struct Server {
        url: Url,
        root: tempfile::NamedTempFile,
        connections: Arc<AtomicUsize>,
        task: tokio::task::JoinHandle<()>,
    }

    impl Drop for Server {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    async fn serve(names: &[&str]) -> Server {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &root).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), root.pem()).unwrap();
        let mut config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://127.0.0.1:{}/dns-query", listener.local_addr().unwrap().port()).parse().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let app = Router::new().route("/dns-query", post(answer)).with_state(());
        let task = tokio::spawn({
            let connections = connections.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (acceptor, app, connections) = (acceptor.clone(), app.clone(), connections.clone());
                    tokio::spawn(async move {
                        let Ok(stream) = acceptor.accept(stream).await else { return };
                        connections.fetch_add(1, Ordering::SeqCst);
                        let service = hyper_util::service::TowerToHyperService::new(app);
                        let io = hyper_util::rt::TokioIo::new(stream);
                        let builder = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
                        let _ = builder.serve_connection(io, service).await;
                    });
                }
            }
        });
        Server { url, root: file, connections, task }
    }

    async fn answer(State(()): State<()>, body: Bytes) -> impl IntoResponse {
        let query = Message::from_vec(&body).unwrap();
        assert_eq!(query.metadata.id, 0, "RFC 8484, 4.1");
        ([(header::CONTENT_TYPE, "application/dns-message")], reply(&query, false, &["over HTTPS"]).to_vec().unwrap())
    }

    fn question() -> Question {
        Question::recursive(&"a.test".parse().unwrap(), RecordType::TXT)
    }

    #[tokio::test]
    async fn questions_share_one_connection() {
        let server = serve(&["127.0.0.1"]).await;
        let https = Https::new(server.url.clone(), Some(server.root.path()));
        for _ in 0..3 {
            let answer = https.exchange(&question(), PATIENCE).await.unwrap();
            assert_eq!(answer.answers[0].data.to_string(), "over HTTPS");
        }
        assert_eq!(server.connections.load(Ordering::SeqCst), 1);
        // The connection goes; the next question makes another.
        *https.connection.lock().await = None;
        assert!(https.exchange(&question(), PATIENCE).await.is_ok());
        assert_eq!(server.connections.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_certificate_of_somebody_else_is_refused() {
        let (server, other) = (serve(&["127.0.0.1"]).await, serve(&["127.0.0.1"]).await);
        let strange = Https::new(server.url.clone(), Some(other.root.path()));
        let error = strange.exchange(&question(), PATIENCE).await.unwrap_err().to_string();
        assert!(error.contains("certificate") && error.contains("127.0.0.1"), "{error}");
        let named = serve(&["dns.test"]).await;
        let error = Https::new(named.url.clone(), Some(named.root.path())).exchange(&question(), PATIENCE).await.unwrap_err();
        assert!(error.to_string().contains("certificate"), "{error}");
    }

    #[tokio::test]
    async fn what_is_wrong_with_the_file_or_the_host_is_the_answer() {
        let url: Url = "https://dns.invalid/dns-query".parse().unwrap();
        let error = Https::new(url.clone(), Some(Path::new("/nowhere.pem"))).exchange(&question(), PATIENCE).await.unwrap_err();
        assert!(error.to_string().contains("propagation.ca_file: /nowhere.pem cannot be read"), "{error}");
        assert_eq!(Https::new(url.clone(), None).to_string(), url.as_str());
    }
}
