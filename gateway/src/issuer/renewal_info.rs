//! When a CA would like to see a certificate again (ARI, RFC 9773).

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::{Issuer, certificate, error::IssueError};
use crate::config::Directory;

/// Longest half of an identifier, in octets. Key identifiers have 20 and serial numbers at most 21 (RFC 5280, 4.1.2.2).
const LONGEST_PART: usize = 64;

/// What a CA knows a certificate by (RFC 9773, 4.1): base64url of the key identifier of its issuer, a dot, base64url of its serial number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct CertificateId(Box<str>);

/// A text that is no [`CertificateId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no certificate identifier: it should be two texts in base64url with a dot between them (RFC 9773, 4.1)")]
pub struct BadCertificateId(String);

/// When a certificate shall be renewed, as its CA sees it (RFC 9773, 4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewalInfo {
    /// From. A window in the past means now.
    pub start: SystemTime,
    /// To; later than `start`.
    pub end: SystemTime,
    /// The URL of a page that says why.
    pub explanation: Option<String>,
    /// When the CA is to be asked again: its Retry-After, held between a minute and a day; six hours if it has none.
    pub poll_after: Duration,
}

/// A certificate that an order shall replace (RFC 9773, 5). CAs spare such orders their rate limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaces {
    /// The URL of the directory that issued it: no other CA is told of it, such as a fallback.
    pub directory: String,
    /// The certificate.
    pub certificate: CertificateId,
}

impl CertificateId {
    /// The identifier of the first certificate in a PEM text; `None` if that has no key identifier of its issuer, or cannot be read.
    pub fn of(certificate_pem: &str) -> Option<Self> {
        let (key_identifier, serial) = certificate::issuer_key_and_serial(certificate_pem)?;
        Self::new(&key_identifier, &serial)
    }

    fn new(key_identifier: &[u8], serial: &[u8]) -> Option<Self> {
        let good = |part: &[u8]| (1..=LONGEST_PART).contains(&part.len());
        let text = || format!("{}.{}", URL_SAFE_NO_PAD.encode(key_identifier), URL_SAFE_NO_PAD.encode(serial));
        (good(key_identifier) && good(serial)).then(|| Self(text().into()))
    }

    /// As it stands in URLs and orders.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CertificateId {
    type Err = BadCertificateId;

    fn from_str(text: &str) -> Result<Self, BadCertificateId> {
        let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let parts = text.split_once('.').and_then(|(key, serial)| Some((decoded(key)?, decoded(serial)?)));
        parts.and_then(|(key, serial)| Self::new(&key, &serial)).ok_or_else(|| BadCertificateId(text.to_owned()))
    }
}

impl TryFrom<String> for CertificateId {
    type Error = BadCertificateId;

    fn try_from(text: String) -> Result<Self, BadCertificateId> {
        text.parse()
    }
}

impl From<CertificateId> for String {
    fn from(id: CertificateId) -> Self {
        id.0.into()
    }
}

impl fmt::Display for CertificateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Issuer {
    /// Asks the CA of `directory` when it would like a certificate of its own to be renewed: one unsigned request over a connection that is kept, which takes no account.
    /// `None` if the CA does not tell such things, or does not know the certificate.
    ///
    /// # Errors
    /// [`IssueError`]; [`IssueError::Unreachable`] also for a window that ends before it begins.
    pub async fn renewal_info(&self, directory: &Directory, id: &CertificateId) -> Result<Option<RenewalInfo>, IssueError> {
        let session = self.clients.session(directory).await.map_err(|error| IssueError::from_acme("connect", error))?;
        session.renewal_info(id).await.map_err(|error| IssueError::from_acme("the renewal information", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issuer::Authority;

    /// A task may ask.
    #[test]
    fn asking_is_send() {
        fn send<T: Send>(_: impl FnOnce(&'static Issuer, &'static Directory, &'static CertificateId) -> T) {}
        send(|issuer, directory, id| issuer.renewal_info(directory, id));
    }

    #[test]
    fn the_example_of_the_rfc_comes_out() {
        // RFC 9773, 4.1; the serial number begins with a zero, which keeps it positive.
        let key = data_encoding::HEXUPPER.decode(b"69885B6B87464041E1B37B847BA0AE2CDE01C8D4").unwrap();
        let id = CertificateId::new(&key, &[0x00, 0x87, 0x65, 0x43, 0x21]).unwrap();
        assert_eq!(id.to_string(), "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE");
        assert_eq!("aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE".parse(), Ok(id));
    }

    #[test]
    fn what_is_no_identifier_is_refused() {
        for text in ["", ".", "aa", "aa.", ".aa", "aa.aa.aa", "aa=.aa", "a/.aa", "../..", "aa.aa?x"] {
            assert!(text.parse::<CertificateId>().is_err(), "{text:?}");
        }
        assert!(format!("{}.AA", "A".repeat(400)).parse::<CertificateId>().is_err());
        assert!(serde_json::from_str::<CertificateId>("\"no\"").is_err());
    }

    #[test]
    fn a_certificate_without_its_issuer_s_key_identifier_has_none() {
        let own = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
        assert_eq!(CertificateId::of(&own.cert.pem()), None);
        assert_eq!(CertificateId::of("no PEM"), None);
        // Nor have those that this test authority issues: it does not ask for the extension.
        assert_eq!(CertificateId::of(&Authority::new().issue(&["a.test"]).certificate_pem), None);
    }
}
