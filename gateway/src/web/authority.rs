//! Whose certificates are good: the roots of some authority, and what a client's certificate says of it.

use std::sync::Arc;

use rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::ClientChain;

/// Roots that sign clients' certificates.
#[derive(Debug, Clone)]
pub struct Authority(Arc<dyn ClientCertVerifier>);

/// Why PEM text is not an authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// No certificate in it, or a broken one.
    #[error("it holds no readable PEM certificate")]
    NoCertificate,
    /// What stands there cannot sign clients.
    #[error("its certificates cannot be used as roots: {0}")]
    Unusable(String),
}

/// Who a verified certificate says that its holder is, as Kubernetes reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The common name; empty if there is none.
    pub common_name: String,
    /// The organizations: Kubernetes' groups.
    pub organizations: Vec<String>,
}

impl Authority {
    /// Reads a PEM bundle of roots.
    ///
    /// # Errors
    /// [`AuthorityError`] if nothing in it can be used.
    pub fn from_pem(pem: &[u8]) -> Result<Self, AuthorityError> {
        let mut roots = RootCertStore::empty();
        let certificates: Vec<_> =
            CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| AuthorityError::NoCertificate)?;
        if certificates.is_empty() {
            return Err(AuthorityError::NoCertificate);
        }
        for certificate in certificates {
            roots.add(certificate).map_err(|error| AuthorityError::Unusable(error.to_string()))?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        verifier.map(Self).map_err(|error| AuthorityError::Unusable(error.to_string()))
    }

    /// Whose chain it is, if one of the roots signed it, it is valid now, and its leaf is for clients (RFC 5280, 6).
    ///
    /// # Errors
    /// What is wrong with the chain.
    pub fn verify(&self, chain: &ClientChain) -> Result<Subject, String> {
        let (leaf, intermediates) = chain.0.split_first().ok_or("the chain is empty")?;
        self.0.verify_client_cert(leaf, intermediates, UnixTime::now()).map_err(|error| error.to_string())?;
        let (_, certificate) = X509Certificate::from_der(leaf).map_err(|error| error.to_string())?;
        let subject = certificate.subject();
        let texts = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().unwrap_or_default().to_owned();
        Ok(Subject {
            common_name: subject.iter_common_name().last().map(texts).unwrap_or_default(),
            organizations: subject.iter_organization().map(texts).filter(|organization| !organization.is_empty()).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

    use super::*;

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn leaf(
        issuer: &CertifiedIssuer<'_, KeyPair>,
        purpose: ExtendedKeyUsagePurpose,
        change: impl FnOnce(&mut CertificateParams),
    ) -> ClientChain {
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![purpose];
        params.distinguished_name.push(DnType::CommonName, "front-proxy-client");
        params.distinguished_name.push(DnType::OrganizationName, "system:masters");
        change(&mut params);
        ClientChain(Arc::from([params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap().der().clone()]))
    }

    #[test]
    fn a_subject_is_read_from_what_a_root_signed_and_from_nothing_else() {
        let (ours, theirs) = (authority(), authority());
        let roots = Authority::from_pem(ours.pem().as_bytes()).unwrap();
        let good = roots.verify(&leaf(&ours, ExtendedKeyUsagePurpose::ClientAuth, |_| {})).unwrap();
        assert_eq!(good, Subject { common_name: "front-proxy-client".into(), organizations: vec!["system:masters".into()] });
        let expired = |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        for bad in [
            leaf(&theirs, ExtendedKeyUsagePurpose::ClientAuth, |_| {}),
            leaf(&ours, ExtendedKeyUsagePurpose::ServerAuth, |_| {}),
            leaf(&ours, ExtendedKeyUsagePurpose::ClientAuth, expired),
            ClientChain(Arc::from([CertificateDer::from(vec![1, 2, 3])])),
            ClientChain(Arc::from([])),
        ] {
            assert!(roots.verify(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_no_authority_is_told() {
        assert_eq!(Authority::from_pem(b"").unwrap_err(), AuthorityError::NoCertificate);
        assert_eq!(
            Authority::from_pem(b"-----BEGIN CERTIFICATE-----\n%\n-----END CERTIFICATE-----\n").unwrap_err(),
            AuthorityError::NoCertificate
        );
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(Authority::from_pem(broken.as_bytes()), Err(AuthorityError::Unusable(_))));
    }
}
