//! What a caller asks the issuer for.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    charge::Paid,
    issued::PrivateKeyPem,
    renewal_info::{CertificateId, Replaces},
};
use crate::config::{AccountKeyType, Directory, Eab, KeyType};

/// One certificate, wanted now. Travels over the admin socket as JSON, the EAB key included: that socket is for the data folder's owner alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IssueRequest {
    /// The DNS names as a person wrote them; [`crate::config::Names::parse`] judges them.
    pub names: Vec<String>,
    /// The CA. `ca_file` is read by the process that issues: make it absolute before it crosses the socket.
    #[serde(with = "DirectoryForm")]
    pub directory: Directory,
    /// Other CAs, tried in turn when the one before is down or refuses.
    #[serde(default)]
    pub fallbacks: Vec<Fallback>,
    /// The kind of key that the certificate gets; each run makes a new one, unless `key` is given.
    #[serde(default)]
    pub key_type: KeyType,
    /// The key that the certificate gets again (`reuse_key`).
    #[serde(default)]
    pub key: Option<PrivateKeyPem>,
    /// Rehearse: follow the delegations, show made-up values, see them at every server, but order nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// The certificate that this one shall replace, so that the CA that issued it spares it its rate limits; other CAs are not told.
    #[serde(default)]
    pub replaces: Option<Replaces>,
    /// What was taken of the limits for it already.
    #[serde(skip)]
    pub paid: Option<Paid>,
}

/// A CA that is tried after another.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fallback(#[serde(with = "DirectoryForm")] pub Directory);

impl IssueRequest {
    /// A certificate for `names` from one CA, and all else as usual.
    pub fn of(names: Vec<String>, directory: Directory) -> Self {
        Self {
            names,
            directory,
            fallbacks: Vec::new(),
            key_type: KeyType::default(),
            key: None,
            dry_run: false,
            replaces: None,
            paid: None,
        }
    }

    /// The CAs, in the order in which they are tried.
    pub(super) fn directories(&self) -> Vec<&Directory> {
        let mut directories = vec![&self.directory];
        directories.extend(self.fallbacks.iter().map(|Fallback(directory)| directory));
        directories
    }

    /// The certificate that the one of `directory` shall replace.
    pub(super) fn replaced_at(&self, directory: &Directory) -> Option<&CertificateId> {
        self.replaces.as_ref().filter(|replaces| replaces.directory == directory.url).map(|replaces| &replaces.certificate)
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
    #[serde(default)]
    staging: Option<String>,
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
            key: None,
            dry_run: false,
            replaces: Some(Replaces { directory: "https://other.test/directory".into(), certificate: "AAA.AAE".parse().unwrap() }),
            paid: None,
        };
        assert!(!format!("{request:?}").contains("c2VjcmV0"));
        let text = serde_json::to_string(&request).unwrap();
        let back: IssueRequest = serde_json::from_str(&text).unwrap();
        assert_eq!(back.key_type, KeyType::Rsa3072);
        assert_eq!(back.fallbacks[0].0.url, "https://other.test/directory");
        assert_eq!(back.directory.ca_file, request.directory.ca_file);
        let replaced: Vec<_> =
            back.directories().into_iter().map(|directory| back.replaced_at(directory).map(CertificateId::as_str)).collect();
        assert_eq!(replaced, [None, Some("AAA.AAE")], "the CA that issued it alone is told");
        assert_eq!((back.directory.account_key, back.directory.profile.as_deref()), (AccountKeyType::Ed25519, Some("shortlived")));
        assert_eq!(back.directory.eab.unwrap().hmac.expose_secret(), "c2VjcmV0");
    }
}
