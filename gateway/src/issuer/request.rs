//! What a caller asks the issuer for.

use std::{fmt, path::PathBuf, str::FromStr};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::{AccountKeyType, Directory, Eab};

/// One certificate, wanted now. Travels over the admin socket as JSON, the EAB key included: that socket is for the data folder's owner alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IssueRequest {
    /// The DNS names as a person wrote them; [`super::Names::parse`] judges them.
    pub names: Vec<String>,
    /// The CA. `ca_file` is read by the process that issues: make it absolute before it crosses the socket.
    #[serde(with = "DirectoryForm")]
    pub directory: Directory,
    /// Other CAs, tried in turn when the one before is down or refuses.
    #[serde(default)]
    pub fallbacks: Vec<Fallback>,
    /// The kind of key that the certificate gets; each run makes a new one.
    #[serde(default)]
    pub key_type: KeyType,
    /// Rehearse: follow the delegations, show made-up values, see them at every server, but order nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// A CA that is tried after another.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fallback(#[serde(with = "DirectoryForm")] pub Directory);

impl IssueRequest {
    /// The CAs, in the order in which they are tried.
    pub(super) fn directories(&self) -> Vec<&Directory> {
        let mut directories = vec![&self.directory];
        directories.extend(self.fallbacks.iter().map(|Fallback(directory)| directory));
        directories
    }
}

/// The kind of a certificate's key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum KeyType {
    /// ECDSA on P-256.
    #[default]
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// RSA with 2048 bits.
    Rsa2048,
    /// RSA with 3072 bits.
    Rsa3072,
    /// RSA with 4096 bits.
    Rsa4096,
}

/// A key type that is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no key type {0:?}: use p256, p384, rsa2048, rsa3072 or rsa4096")]
pub struct BadKeyType(String);

impl KeyType {
    /// Every key type, the default first.
    pub const ALL: [Self; 5] = [Self::EcdsaP256, Self::EcdsaP384, Self::Rsa2048, Self::Rsa3072, Self::Rsa4096];

    /// As it is written on the command line and in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "p256",
            Self::EcdsaP384 => "p384",
            Self::Rsa2048 => "rsa2048",
            Self::Rsa3072 => "rsa3072",
            Self::Rsa4096 => "rsa4096",
        }
    }
}

impl FromStr for KeyType {
    type Err = BadKeyType;

    fn from_str(text: &str) -> Result<Self, BadKeyType> {
        Self::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(text)).ok_or_else(|| BadKeyType(text.to_owned()))
    }
}

impl TryFrom<String> for KeyType {
    type Error = BadKeyType;

    fn try_from(text: String) -> Result<Self, BadKeyType> {
        text.parse()
    }
}

impl From<KeyType> for String {
    fn from(kind: KeyType) -> Self {
        kind.as_str().to_owned()
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a [`Directory`] crosses the admin socket. The configuration type itself is not serialisable, so that its secrets cannot leave by accident.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Directory")]
pub(super) struct DirectoryForm {
    name: String,
    url: String,
    contact: Option<String>,
    ca_file: Option<PathBuf>,
    #[serde(serialize_with = "write_eab", deserialize_with = "read_eab", default)]
    eab: Option<Eab>,
    #[serde(default)]
    account_key: AccountKeyType,
    #[serde(default)]
    profile: Option<String>,
    #[serde(default)]
    preferred_chain: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct EabForm {
    kid: String,
    hmac: String,
}

fn write_eab<S: Serializer>(eab: &Option<Eab>, serializer: S) -> Result<S::Ok, S::Error> {
    eab.as_ref().map(|eab| EabForm { kid: eab.kid.clone(), hmac: eab.hmac.expose_secret().to_owned() }).serialize(serializer)
}

fn read_eab<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Eab>, D::Error> {
    Ok(Option::<EabForm>::deserialize(deserializer)?.map(|form| Eab { kid: form.kid, hmac: SecretString::from(form.hmac) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_the_socket_with_its_secret_and_never_prints_it() {
        let request = IssueRequest {
            names: vec!["example.com".into()],
            directory: Directory {
                ca_file: Some("/etc/ca.pem".into()),
                eab: Some(Eab { kid: "kid-1".into(), hmac: SecretString::from("c2VjcmV0".to_owned()) }),
                account_key: AccountKeyType::Ed25519,
                profile: Some("shortlived".into()),
                ..Directory::at("https://ca.test/directory")
            },
            fallbacks: vec![Fallback(Directory::at("https://other.test/directory"))],
            key_type: KeyType::Rsa3072,
            dry_run: false,
        };
        assert!(!format!("{request:?}").contains("c2VjcmV0"));
        let text = serde_json::to_string(&request).unwrap();
        let back: IssueRequest = serde_json::from_str(&text).unwrap();
        assert_eq!(back.key_type, KeyType::Rsa3072);
        assert_eq!(back.fallbacks[0].0.url, "https://other.test/directory");
        assert_eq!(back.directory.ca_file, request.directory.ca_file);
        assert_eq!((back.directory.account_key, back.directory.profile.as_deref()), (AccountKeyType::Ed25519, Some("shortlived")));
        assert_eq!(back.directory.eab.unwrap().hmac.expose_secret(), "c2VjcmV0");
    }

    #[test]
    fn key_types_are_read_as_they_are_written() {
        for kind in KeyType::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert!("rsa1024".parse::<KeyType>().unwrap_err().to_string().contains("rsa2048"));
    }
}
