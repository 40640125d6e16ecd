//! TLS whose certificate follows its files.
//!
//! Certificates are renewed by others: certbot renames files, Kubernetes swaps a symbolic link above them. Both are seen by looking at the files that
//! the paths lead to, once a second; no watch can be lost, and no signal need be sent.

use std::{
    fmt, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem, pem::PemObject};
use tokio::{net::TcpStream, time::interval};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{error, info};

use super::clients::{AnyChain, Clients};
use crate::config::TlsFiles;

/// ALPN names (RFC 7301), the preferred one first.
pub(super) const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Why a certificate cannot be served. Names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {reason}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// No PEM certificate in the certificate file, or a broken one.
    #[error("{} holds no readable PEM certificate; it must hold the chain, leaf first", .0.display())]
    NoCertificate(PathBuf),
    /// No PEM private key in the key file, or a broken one.
    #[error("{} holds no readable PEM private key", .0.display())]
    NoKey(PathBuf),
    /// The two do not belong together, or are of a kind that cannot be used.
    #[error("the certificate in {} and the key in {} cannot be used together: {reason}", certificate.display(), key.display())]
    Unusable {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
        /// What is wrong with them.
        reason: String,
    },
    /// A certificate of our own could not be made.
    #[error("cannot make a self-signed certificate: {0}")]
    SelfSigned(String),
    /// The TLS library refused its settings.
    #[error("cannot set up TLS: {0}")]
    Setup(String),
}

/// A TLS server whose certificate is replaced when its files change; open connections keep theirs.
pub struct ReloadedTls {
    acceptor: TlsAcceptor,
    current: Arc<Current>,
    files: Option<TlsFiles>,
    /// What the files looked like when they were last read, successfully or not.
    seen: Mutex<Option<[Fingerprint; 2]>>,
}

impl ReloadedTls {
    /// Reads the files and follows them for as long as the value lives. Call it inside the runtime.
    ///
    /// # Errors
    /// [`TlsError`] if the files cannot be served as they are now. Later a broken pair is logged, and the last good one stays.
    pub fn open(files: &TlsFiles, clients: Clients) -> Result<Arc<Self>, TlsError> {
        let seen = fingerprints(files).ok();
        let tls = Arc::new(Self::new(read(files)?, Some(files.clone()), seen, clients)?);
        tokio::spawn(follow(Arc::downgrade(&tls)));
        Ok(tls)
    }

    /// Makes a certificate for these names and addresses, signed by itself, that lasts as long as the value: for callers that do not check it.
    ///
    /// # Errors
    /// [`TlsError::SelfSigned`] if a name cannot stand in a certificate.
    pub fn self_signed(names: &[String], clients: Clients) -> Result<Arc<Self>, TlsError> {
        let made = rcgen::generate_simple_self_signed(names).map_err(|error| TlsError::SelfSigned(error.to_string()))?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let certified = CertifiedKey::from_der(vec![made.cert.der().clone()], key, &aws_lc_rs::default_provider())
            .map_err(|error| TlsError::SelfSigned(error.to_string()))?;
        Ok(Arc::new(Self::new(certified, None, None, clients)?))
    }

    /// Serves a certificate that [`replace`](Self::replace) exchanges for the next.
    ///
    /// # Errors
    /// [`TlsError::Setup`] if TLS refuses its settings.
    pub fn of(certified: CertifiedKey, clients: Clients) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self::new(certified, None, None, clients)?))
    }

    /// New connections get this one.
    pub fn replace(&self, certified: CertifiedKey) {
        self.current.0.store(Arc::new(certified));
    }

    /// The chain that new connections get, leaf first, DER.
    pub fn certificates(&self) -> Vec<CertificateDer<'static>> {
        self.current.0.load().cert.clone()
    }

    /// Reads the files again if they are not those that were read last. True if there is a new certificate now.
    pub fn reload_if_changed(&self) -> bool {
        let Some(files) = &self.files else { return false };
        // Looked at before they are read: a change in between is seen the next time.
        // One at a time: whoever comes second finds the first one's work done.
        let mut seen = self.seen.lock();
        let now = fingerprints(files).ok();
        if std::mem::replace(&mut *seen, now) == now {
            return false;
        }
        match read(files) {
            Ok(certified) => {
                self.current.0.store(Arc::new(certified));
                info!(certificate = %files.certificate.display(), "the TLS certificate was read again");
                true
            }
            Err(error) => {
                error!(%error, "the changed TLS files cannot be used; serving the previous certificate");
                false
            }
        }
    }

    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.acceptor.accept(stream).await
    }

    fn new(certified: CertifiedKey, files: Option<TlsFiles>, seen: Option<[Fingerprint; 2]>, clients: Clients) -> Result<Self, TlsError> {
        let current = Arc::new(Current(ArcSwap::from_pointee(certified)));
        let provider: Arc<CryptoProvider> = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Setup(error.to_string()))?;
        let builder = match clients {
            Clients::Anonymous => builder.with_no_client_auth(),
            Clients::MayShowCertificate => builder.with_client_cert_verifier(Arc::new(AnyChain(provider))),
        };
        let mut config = builder.with_cert_resolver(current.clone());
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), current, files, seen: Mutex::new(seen) })
    }
}

impl fmt::Debug for ReloadedTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReloadedTls").field("files", &self.files).finish_non_exhaustive()
    }
}

async fn follow(tls: Weak<ReloadedTls>) {
    let mut look = interval(LOOK);
    loop {
        look.tick().await;
        let Some(tls) = tls.upgrade() else { return };
        // Files may lie on a network file system that hangs.
        if tokio::task::spawn_blocking(move || tls.reload_if_changed()).await.is_err() {
            return;
        }
    }
}

/// What new connections get.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// What tells one version of a file from the next without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

fn fingerprints(files: &TlsFiles) -> io::Result<[Fingerprint; 2]> {
    let of = |path: &Path| {
        // Follows symbolic links, so a swap above the file shows as another inode.
        std::fs::metadata(path).map(|m| Fingerprint {
            device: m.dev(),
            inode: m.ino(),
            size: m.size(),
            modified: (m.mtime(), m.mtime_nsec()),
            changed: (m.ctime(), m.ctime_nsec()),
        })
    };
    Ok([of(&files.certificate)?, of(&files.key)?])
}

fn read(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let certificates = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(|chain| chain.collect::<Result<Vec<_>, _>>())
        .map_err(|error| unreadable(&files.certificate, error).unwrap_or_else(|| TlsError::NoCertificate(files.certificate.clone())))?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate(files.certificate.clone()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| unreadable(&files.key, error).unwrap_or_else(|| TlsError::NoKey(files.key.clone())))?;
    CertifiedKey::from_der(certificates, key, &aws_lc_rs::default_provider()).map_err(|error| TlsError::Unusable {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        reason: error.to_string(),
    })
}

fn unreadable(path: &Path, error: pem::Error) -> Option<TlsError> {
    match error {
        pem::Error::Io(error) => Some(TlsError::Unreadable { path: path.to_owned(), reason: error.to_string() }),
        _ => None,
    }
}
