//! The kinds of keys that accounts at CAs have.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The kind of an account's key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum AccountKeyType {
    /// ECDSA on P-256 (ES256): every CA takes it.
    #[default]
    EcdsaP256,
    /// ECDSA on P-384 (ES384).
    EcdsaP384,
    /// RSA with 2048 bits (RS256).
    Rsa2048,
    /// RSA with 3072 bits (RS256).
    Rsa3072,
    /// RSA with 4096 bits (RS256).
    Rsa4096,
    /// Ed25519 (EdDSA): some CAs take it.
    Ed25519,
}

/// An account key type that is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no account key type {0:?}: use p256, p384, rsa2048, rsa3072, rsa4096 or ed25519")]
pub struct BadAccountKeyType(String);

impl AccountKeyType {
    /// Every type, the default first.
    pub const ALL: [Self; 6] = [Self::EcdsaP256, Self::EcdsaP384, Self::Rsa2048, Self::Rsa3072, Self::Rsa4096, Self::Ed25519];

    /// As it is written on the command line and in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "p256",
            Self::EcdsaP384 => "p384",
            Self::Rsa2048 => "rsa2048",
            Self::Rsa3072 => "rsa3072",
            Self::Rsa4096 => "rsa4096",
            Self::Ed25519 => "ed25519",
        }
    }
}

impl FromStr for AccountKeyType {
    type Err = BadAccountKeyType;

    fn from_str(text: &str) -> Result<Self, BadAccountKeyType> {
        Self::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(text)).ok_or_else(|| BadAccountKeyType(text.to_owned()))
    }
}

impl fmt::Display for AccountKeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<String> for AccountKeyType {
    type Error = BadAccountKeyType;

    fn try_from(text: String) -> Result<Self, BadAccountKeyType> {
        text.parse()
    }
}

impl From<AccountKeyType> for String {
    fn from(kind: AccountKeyType) -> Self {
        kind.as_str().to_owned()
    }
}
