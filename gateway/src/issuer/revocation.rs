//! The end of a certificate before its time (RFC 8555, 7.6).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{Issuer, acme::AcmeError, certificate, error::IssueError, issued::PrivateKeyPem};
use crate::config::Directory;

/// Why a certificate is revoked: those reasons of RFC 5280, 5.3.1, that subscribers may give.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum RevocationReason {
    /// No reason is given.
    #[default]
    Unspecified,
    /// Somebody else may have the private key.
    KeyCompromise,
    /// The subject's name or other information has changed.
    AffiliationChanged,
    /// Another certificate has taken its place.
    Superseded,
    /// It is not needed any more, or the domain has another owner.
    CessationOfOperation,
}

/// A reason that is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no reason {0:?}: use unspecified, keyCompromise, affiliationChanged, superseded or cessationOfOperation")]
pub struct BadRevocationReason(String);

/// How a revocation went well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Revoked {
    /// The certificate is revoked now.
    Now,
    /// It was revoked before, or by an earlier try of the same request whose answer was lost.
    Before,
}

impl RevocationReason {
    /// Every reason.
    pub const ALL: [Self; 5] =
        [Self::Unspecified, Self::KeyCompromise, Self::AffiliationChanged, Self::Superseded, Self::CessationOfOperation];

    /// As RFC 5280 spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "keyCompromise",
            Self::AffiliationChanged => "affiliationChanged",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessationOfOperation",
        }
    }

    /// Its number (RFC 5280, 5.3.1).
    pub const fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::KeyCompromise => 1,
            Self::AffiliationChanged => 3,
            Self::Superseded => 4,
            Self::CessationOfOperation => 5,
        }
    }
}

impl FromStr for RevocationReason {
    type Err = BadRevocationReason;

    fn from_str(text: &str) -> Result<Self, BadRevocationReason> {
        let found = Self::ALL.into_iter().find(|reason| reason.as_str().eq_ignore_ascii_case(text));
        found.ok_or_else(|| BadRevocationReason(text.to_owned()))
    }
}

impl TryFrom<String> for RevocationReason {
    type Error = BadRevocationReason;

    fn try_from(text: String) -> Result<Self, BadRevocationReason> {
        text.parse()
    }
}

impl From<RevocationReason> for String {
    fn from(reason: RevocationReason) -> Self {
        reason.as_str().to_owned()
    }
}

impl fmt::Display for RevocationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Issuer {
    /// Revokes the first certificate of a PEM text, by our account at the CA of `directory`; and by the certificate's own key, if that is given and the CA says that it is not
    /// for this account to do, or there is no account. A CA may take a request by the certificate's key for proof that the key is in wrong hands, whatever the reason, and
    /// never certify that key again: Let's Encrypt does.
    ///
    /// # Errors
    /// [`IssueError`]; [`IssueError::NoAccount`] if there is neither account nor key.
    pub async fn revoke(
        &self,
        directory: &Directory,
        certificate_pem: &str,
        key_pem: Option<&PrivateKeyPem>,
        reason: RevocationReason,
    ) -> Result<Revoked, IssueError> {
        const ACTION: &str = "the revocation";
        let failed = |error| IssueError::from_acme(ACTION, error);
        let internal = |text: String| IssueError::Internal { text };
        let der = certificate::leaf_der(certificate_pem).map_err(|text| internal(format!("the certificate to be revoked: {text}")))?;
        if let Some(key) = key_pem {
            certificate::check_pair(key.expose(), certificate_pem).map_err(internal)?;
        }
        let session = self.clients.session(directory).await.map_err(failed)?;
        let store = &*self.engine.store;
        let registered = store.directory_account(&directory.url).await?.is_some_and(|account| account.url.is_some());
        let revoked = match (registered, key_pem) {
            (false, None) => return Err(IssueError::NoAccount { directory: directory.url.clone() }),
            (false, Some(key)) => session.revoke_by_key(&der, key, reason).await,
            (true, key) => {
                session.sign_in(store, directory).await.map_err(failed)?;
                match (session.revoke_by_account(&der, reason).await, key) {
                    (Err(error), Some(key)) if is_not_the_accounts(&error) => session.revoke_by_key(&der, key, reason).await,
                    (answered, _) => answered,
                }
            }
        };
        let revoked = revoked.map_err(failed)?;
        tracing::warn!(directory = directory.url, %reason, ?revoked, "certificate revoked");
        Ok(revoked)
    }
}

/// The CA knows the certificate, and another account's it is; or it does not know the account.
fn is_not_the_accounts(error: &AcmeError) -> bool {
    error.is("unauthorized") || error.is("accountDoesNotExist")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A task may do it.
    #[test]
    fn it_is_send() {
        fn send<T: Send>(_: impl FnOnce(&'static Issuer, &'static Directory) -> T) {}
        send(|issuer, directory| issuer.revoke(directory, "", None, RevocationReason::default()));
    }

    #[test]
    fn reasons_are_read_as_they_are_written_and_have_the_numbers_of_the_rfc() {
        for reason in RevocationReason::ALL {
            assert_eq!(reason.to_string().parse(), Ok(reason));
        }
        assert_eq!(RevocationReason::ALL.map(RevocationReason::code), [0, 1, 3, 4, 5]);
        assert_eq!("keycompromise".parse(), Ok(RevocationReason::KeyCompromise));
        assert!("cACompromise".parse::<RevocationReason>().unwrap_err().to_string().contains("cessationOfOperation"));
    }
}
