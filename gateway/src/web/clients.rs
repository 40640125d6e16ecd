//! Certificates that clients show in the TLS handshake.

use std::sync::Arc;

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, UnixTime};

/// Whether a TLS door wants to know who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clients {
    /// It does not ask.
    Anonymous,
    /// It asks for a certificate, and takes who has none, too. Whose certificate it is, is for the door to judge: all that is made sure of here is that the client
    /// has its key.
    MayShowCertificate,
}

/// Request extension: the chain that the client showed in the handshake, leaf first, DER. **Not verified**, but for the possession of its key. Absent if it showed none.
#[derive(Debug, Clone)]
pub struct ClientChain(pub Arc<[CertificateDer<'static>]>);

/// Takes any chain whose leaf's key signed the handshake. Which authorities are good changes while connections stand, and with the request: the door checks that.
#[derive(Debug)]
pub(super) struct AnyChain(pub(super) Arc<CryptoProvider>);

impl ClientCertVerifier for AnyChain {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: a client with several certificates then shows its first, whoever signed it.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(&self, _: &CertificateDer<'_>, _: &[CertificateDer<'_>], _: UnixTime) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
