//! A serving certificate of our own making: an authority that stays in the data folder, so that who trusts it goes on doing so over restarts, and short-lived
//! certificates of it.

use std::{fs, io, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::{crypto::aws_lc_rs, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use tokio::time::Duration;

use super::TlsError;
use crate::disk::{self, Access};

/// The authority's certificate and key, PEM, in the data folder; mode 0600.
const FILE: &str = "webhook-ca.pem";
/// How long the authority lasts…
const AUTHORITY_DAYS: i64 = 3650;
/// …and a certificate of it.
const CERTIFICATE_DAYS: i64 = 90;
/// When a certificate is made anew: long before it ends.
pub const RENEWED_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);

/// An authority of one's own.
pub struct SelfMade {
    /// Its certificate, PEM.
    authority: String,
    key: KeyPair,
}

impl SelfMade {
    /// The authority in a folder, made if there is none, or none that lasts a year more.
    ///
    /// # Errors
    /// [`TlsError`] names the file that cannot be read or written. One that is there and cannot be read is not replaced: somebody trusts it.
    pub fn open(folder: &Path) -> Result<Self, TlsError> {
        let path = folder.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::make(folder),
            Err(error) => return Err(TlsError::Unreadable { path, reason: error.to_string() }),
        };
        let made = Self::read(&text).ok_or(TlsError::NoKey(path))?;
        if made.lasts() { Ok(made) } else { Self::make(folder) }
    }

    /// The roots to trust, PEM.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// A new certificate for these names and addresses.
    ///
    /// # Errors
    /// [`TlsError::SelfSigned`] if a name cannot stand in a certificate.
    pub fn certificate(&self, names: &[String]) -> Result<CertifiedKey, TlsError> {
        let failed = |error: &dyn std::error::Error| TlsError::SelfSigned(error.to_string());
        let mut params = CertificateParams::new(names).map_err(|error| failed(&error))?;
        params.distinguished_name = DistinguishedName::new();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        lasting(&mut params, CERTIFICATE_DAYS);
        let key = KeyPair::generate().map_err(|error| failed(&error))?;
        let authority = authority_params();
        let certificate = params.signed_by(&key, &Issuer::from_params(&authority, &self.key)).map_err(|error| failed(&error))?;
        let root = CertificateDer::from_pem_slice(self.authority.as_bytes()).map_err(|error| failed(&error))?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        CertifiedKey::from_der(vec![certificate.der().clone(), root], key, &aws_lc_rs::default_provider()).map_err(|error| failed(&error))
    }

    fn read(text: &str) -> Option<Self> {
        let key = KeyPair::from_pem(text).ok()?;
        let certificate = text.find("-----BEGIN CERTIFICATE-----").and_then(|start| text.get(start..))?;
        CertificateDer::from_pem_slice(certificate.as_bytes()).ok()?;
        Some(Self { authority: certificate.to_owned(), key })
    }

    /// Whether it outlasts every certificate that is made of it within a year.
    fn lasts(&self) -> bool {
        let Ok(der) = CertificateDer::from_pem_slice(self.authority.as_bytes()) else { return false };
        let Ok((_, certificate)) = x509_parser::parse_x509_certificate(&der) else { return false };
        certificate.validity().time_to_expiration().is_some_and(|left| left.whole_days() > 365)
    }

    fn make(folder: &Path) -> Result<Self, TlsError> {
        let failed = |error: rcgen::Error| TlsError::SelfSigned(error.to_string());
        let key = KeyPair::generate().map_err(failed)?;
        let authority = authority_params().self_signed(&key).map_err(failed)?.pem();
        let path = folder.join(FILE);
        disk::replace(&path, format!("{}{authority}", key.serialize_pem()).as_bytes(), Access::mode(0o600))
            .map_err(|error| TlsError::Unwritable { path: path.clone(), reason: error.to_string() })?;
        tracing::info!(file = %path.display(), "made an authority for the webhook's certificate");
        Ok(Self { authority, key })
    }
}

impl std::fmt::Debug for SelfMade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SelfMade").finish_non_exhaustive()
    }
}

/// The same each time, but for its dates: a certificate is linked to it by its name and key.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "acmegate webhook");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    lasting(&mut params, AUTHORITY_DAYS);
    params
}

/// From yesterday (clocks differ) for so many days.
fn lasting(params: &mut CertificateParams, days: i64) {
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let day = |days: i64| {
        let date = today.saturating_add(jiff::Span::new().days(days));
        rcgen::date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    (params.not_before, params.not_after) = (day(-1), day(days));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_authority_stays_and_its_certificates_are_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = SelfMade::open(folder.path()).unwrap();
        let again = SelfMade::open(folder.path()).unwrap();
        assert_eq!(first.authority(), again.authority());
        assert!(first.authority().starts_with("-----BEGIN CERTIFICATE-----") && !first.authority().contains("PRIVATE"));
        let mode = fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let chain = again.certificate(&["acmegate.dns.svc".to_owned()]).unwrap().cert;
        let root = CertificateDer::from_pem_slice(first.authority().as_bytes()).unwrap();
        let roots = [webpki::anchor_from_trusted_cert(&root).unwrap()];
        let leaf = webpki::EndEntityCert::try_from(&chain[0]).unwrap();
        let now = rustls_pki_types::UnixTime::now();
        leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &roots, &[], now, webpki::KeyUsage::server_auth(), None, None).unwrap();
        leaf.verify_is_valid_for_subject_name(&"acmegate.dns.svc".try_into().unwrap()).unwrap();
    }

    #[test]
    fn an_authority_that_cannot_be_read_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "nothing").unwrap();
        assert!(matches!(SelfMade::open(folder.path()), Err(TlsError::NoKey(_))));
        assert_eq!(fs::read_to_string(folder.path().join(FILE)).unwrap(), "nothing");
    }
}
