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
