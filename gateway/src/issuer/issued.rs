//! What a run gives back.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::store::StoredCertificate;

/// The end of a run that went well.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// A certificate.
    Issued(Box<Issued>),
    /// A rehearsal (`dry_run`) that found nothing in the way.
    Rehearsed(Rehearsal),
}

/// A certificate whose chain, names and key were checked against each other and against what was asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Issued {
    /// The certificate's own key, PKCS#8.
    pub private_key_pem: PrivateKeyPem,
    /// The leaf.
    pub certificate_pem: String,
    /// The intermediates, the leaf's issuer first; empty if the CA sent none.
    pub chain_pem: String,
    /// The leaf, then the intermediates.
    pub fullchain_pem: String,
    /// The names in it, in the order they were asked for.
    pub names: Vec<String>,
    /// Valid from.
    pub not_before: SystemTime,
    /// Valid until.
    pub not_after: SystemTime,
    /// The certificate's URL at the CA.
    pub url: String,
    /// The URL of the directory of the CA that issued it.
    #[serde(default)]
    pub directory: String,
    /// The job of its order in the journal.
    #[serde(skip)]
    pub(super) job: String,
    /// Where the time went.
    pub timings: Timings,
}

impl From<StoredCertificate> for Issued {
    /// As it was, without the time that it took.
    fn from(stored: StoredCertificate) -> Self {
        let StoredCertificate { names, directory, key_pem, certificate_pem, chain_pem, url, not_before, not_after, .. } = stored;
        Self {
            private_key_pem: PrivateKeyPem(key_pem),
            fullchain_pem: format!("{certificate_pem}{chain_pem}"),
            certificate_pem,
            chain_pem,
            names,
            not_before: not_before.into(),
            not_after: not_after.into(),
            url,
            directory,
            job: String::new(),
            timings: Timings::default(),
        }
    }
}

/// What a rehearsal saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehearsal {
    /// For each name, where its values go.
    pub targets: Vec<Target>,
    /// Where the time went.
    pub timings: Timings,
}

/// Where the values of a name go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// `_acme-challenge.<domain>`, where the CA looks first.
    pub challenge: String,
    /// The owner name at the end of the chain.
    pub owner: String,
}

/// Where the time of a run went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timings {
    /// The stages, in order of their end. Some run side by side, so that their sum may exceed the total.
    pub stages: Vec<Stage>,
    /// From request to result.
    pub total: Duration,
    /// HTTPS requests sent to the CA, repeated ones included.
    pub requests: u32,
}

/// One stage of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// What was done.
    pub name: String,
    /// How long it took.
    pub took: Duration,
}

impl fmt::Display for Timings {
    /// One line: `12.3 ms in 9 requests: account 0.1, order 1.2, …`, milliseconds throughout.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |took: Duration| took.as_secs_f64() * 1e3;
        write!(f, "{:.1} ms in {} requests:", millis(self.total), self.requests)?;
        for (at, stage) in self.stages.iter().enumerate() {
            write!(f, "{} {} {:.1}", if at == 0 { "" } else { "," }, stage.name, millis(stage.took))?;
        }
        Ok(())
    }
}

/// A private key in PEM: wiped when dropped, never printed. It can be serialised, because it crosses the admin socket.
#[derive(Clone)]
pub struct PrivateKeyPem(Zeroizing<String>);

impl PrivateKeyPem {
    /// Takes over a PEM text.
    pub fn new(pem: String) -> Self {
        Self(Zeroizing::new(pem))
    }

    /// The PEM text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PrivateKeyPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKeyPem(…)")
    }
}

impl Serialize for PrivateKeyPem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PrivateKeyPem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}
