//! Listeners whose connections can be cut in the middle of a request: HTTP, and HTTPS with an authority of their own (Microsoft's libraries refuse to sign
//! in without it).

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A listener on a free port of loopback.
pub(super) struct Door {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
}

/// Cuts a connection: what is written from then on goes nowhere, and the connection ends.
#[derive(Debug, Clone, Default)]
pub(super) struct Cut(Arc<AtomicBool>);

/// A connection.
pub(super) struct Wire {
    stream: Stream,
    cut: Cut,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Door {
    /// Without `tls`, plain HTTP.
    pub(super) async fn open(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap_or_else(|e| panic!("no port of loopback: {e}"));
        Self { listener, tls }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap_or_else(|e| panic!("a listener without an address: {e}"))
    }

    async fn connection(&self) -> io::Result<Stream> {
        let (stream, _) = self.listener.accept().await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => Ok(Stream::Plain(stream)),
            Some(tls) => Ok(Stream::Tls(Box::new(timeout(HANDSHAKE, tls.accept(stream)).await??))),
        }
    }
}

impl Listener for Door {
    type Io = Wire;
    type Addr = Cut;

    async fn accept(&mut self) -> (Wire, Cut) {
        loop {
            if let Ok(stream) = self.connection().await {
                let cut = Cut::default();
                return (Wire { stream, cut: cut.clone() }, cut);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Cut> {
        Ok(Cut::default())
    }
}

impl Connected<IncomingStream<'_, Door>> for Cut {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        stream.remote_addr().clone()
    }
}

impl Cut {
    pub(super) fn now(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Acquire) { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

impl Wire {
    fn inner(&mut self) -> Pin<&mut (dyn Both + Unpin)> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream),
            Stream::Tls(stream) => Pin::new(&mut **stream),
        }
    }
}

trait Both: AsyncRead + AsyncWrite {}
impl<T: AsyncRead + AsyncWrite> Both for T {}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.cut.check()?;
        self.inner().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.cut.check()?;
        self.inner().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.cut.check()?;
        self.inner().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_shutdown(cx)
    }
}

/// A server's TLS with a certificate for 127.0.0.1, and the PEM of the authority that signed it.
pub(super) fn tls() -> (TlsAcceptor, String) {
    let made = || -> Result<_, Box<dyn std::error::Error>> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the emulated cloud's authority");
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate()?;
        let root = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress(Ipv4Addr::LOCALHOST.into())];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?.with_no_client_auth();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = config.with_single_cert(vec![certificate.der().clone()], key)?;
        Ok((TlsAcceptor::from(Arc::new(config)), root))
    };
    made().unwrap_or_else(|e| panic!("no certificate could be made: {e}"))
}

/// A certificate for an application, made by itself as most are: DER, and PEM with its RSA key.
pub(super) fn application_certificate() -> (Vec<u8>, String) {
    let made = || -> Result<_, rcgen::Error> {
        let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "an application");
        let certificate = params.self_signed(&key)?;
        Ok((certificate.der().to_vec(), certificate.pem() + &key.serialize_pem()))
    };
    made().unwrap_or_else(|e| panic!("no certificate could be made: {e}"))
}
