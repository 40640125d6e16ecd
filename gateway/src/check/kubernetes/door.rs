//! The certificate that the webhook door shows. The API server would verify it; here it is only taken down, and judged against the bundle that the API server has.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::config::Service;

/// For the connection and the handshake together.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the door shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Served {
    /// This chain, leaf first.
    Chain {
        /// Where.
        address: SocketAddr,
        /// As it came.
        chain: Vec<CertificateDer<'static>>,
    },
    /// Nobody answers by TLS; a line for each address.
    Nothing(Vec<String>),
}

/// The name by which the API server calls a Service.
pub(super) fn name_of(service: &Service) -> String {
    format!("{}.{}.svc", service.name, service.namespace)
}

/// Connects as the API server would to the Service, but to where the configuration listens: the first address that answers counts.
pub(super) async fn served(listen: &[SocketAddr], service: &Service) -> Served {
    let mut failures = Vec::new();
    for address in listen.iter().flat_map(|address| reachable(*address)) {
        if address.port() == 0 {
            failures.push(format!("webhook.listen {address}: port 0 is another one after each start"));
            continue;
        }
        match timeout(PATIENCE, chain(address, service)).await {
            Ok(Ok(chain)) if !chain.is_empty() => return Served::Chain { address, chain },
            Ok(Ok(_)) => failures.push(format!("{address}: it shows no certificate")),
            Ok(Err(error)) => failures.push(format!("{address}: {error}")),
            Err(_elapsed) => failures.push(format!("{address}: nothing within {} s", PATIENCE.as_secs())),
        }
    }
    Served::Nothing(failures)
}

/// Who listens on every address listens on loopback, too; on every one of IPv6, on IPv4 as well.
fn reachable(address: SocketAddr) -> Vec<SocketAddr> {
    let (v4, v6): (IpAddr, IpAddr) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    let ips = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => vec![v4],
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => vec![v6, v4],
        ip => vec![ip],
    };
    ips.into_iter().map(|ip| SocketAddr::new(ip, address.port())).collect()
}

async fn chain(address: SocketAddr, service: &Service) -> Result<Vec<CertificateDer<'static>>, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let failed = |error: &dyn fmt::Display| error.to_string();
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let verifier = Arc::new(Whoever(provider));
    let config = builder.map_err(|error| failed(&error))?.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    let name = ServerName::try_from(name_of(service)).map_err(|error| failed(&error))?;
    let stream = TcpStream::connect(address).await.map_err(|error| failed(&error))?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| failed(&error))?;
    let (_, connection) = stream.get_ref();
    Ok(connection.peer_certificates().unwrap_or_default().iter().map(|certificate| certificate.clone().into_owned()).collect())
}

/// Takes every certificate, once its holder has shown the key to it: nothing is ever sent over such a connection.
#[derive(Debug)]
struct Whoever(Arc<CryptoProvider>);

impl ServerCertVerifier for Whoever {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::{Clients, Limits, ReloadedTls, SelfMade, testing::Site};

    fn service() -> Service {
        Service { name: "gate".into(), namespace: "dns".into() }
    }

    #[tokio::test]
    async fn the_chain_is_taken_down_whoever_signed_it() {
        let folder = tempfile::tempdir().unwrap();
        let certificate = SelfMade::open(folder.path()).unwrap().certificate(&[name_of(&service())]).unwrap();
        let expected = certificate.cert.clone();
        let tls = ReloadedTls::of(certificate, Clients::MayShowCertificate).unwrap();
        let site = Site::start(axum::Router::new(), Limits::default(), Some(tls));
        let wildcard = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), site.address.port());
        let served = served(&["127.0.0.1:0".parse().unwrap(), wildcard], &service()).await;
        assert_eq!(served, Served::Chain { address: site.address, chain: expected });
        let all: Vec<String> = reachable("[::]:8443".parse().unwrap()).iter().map(ToString::to_string).collect();
        assert_eq!(all, ["[::1]:8443", "127.0.0.1:8443"]);
    }

    #[tokio::test]
    async fn who_does_not_speak_tls_is_told() {
        let plain = Site::start(axum::Router::new(), Limits::default(), None);
        // A port that was free a moment ago.
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let Served::Nothing(lines) = served(&[any, gone, plain.address], &service()).await else { panic!("nobody shows a chain") };
        assert_eq!(lines.len(), 3);
        assert!(lines[0].contains("port 0") && lines[1].contains("refused"), "{lines:?}");
    }
}
