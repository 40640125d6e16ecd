//! A claim: this TXT value shall stand at this owner name until it is released or expires.

use std::{fmt, num::NonZeroU32, str::FromStr, sync::Arc, time::Duration};

use authdns::Name;
use uuid::Uuid;

/// Longest TXT value that can be claimed, in bytes; a DNS-01 value has 43.
pub const MAX_VALUE: usize = 1024;

/// Who claims: a door and whom that door speaks for. A value that two holders claim stands until both have let go.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Holder(Arc<str>);

impl Holder {
    /// The acme-dns account that owns `subdomain`.
    pub fn acmedns(subdomain: Uuid) -> Self {
        Self(format!("acmedns:{subdomain}").into())
    }

    /// cert-manager, for one DNS name of one namespace.
    pub fn webhook(namespace: &str, dns_name: &str) -> Self {
        Self(format!("webhook:{namespace}/{dns_name}").into())
    }

    /// One run of the issuer.
    pub fn issue(run: Uuid) -> Self {
        Self(format!("issue:{run}").into())
    }

    /// As it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Holder {
    fn from(stored: &str) -> Self {
        Self(stored.into())
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A TXT value that can be claimed: 1 to [`MAX_VALUE`] bytes of printable ASCII.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(Arc<str>);

/// Why a text cannot be claimed as a TXT value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a TXT value is 1 to {MAX_VALUE} characters of printable ASCII")]
pub struct BadValue;

impl Value {
    /// The value, decoded: no quotes, no splitting into character-strings.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Value {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let fits = (1..=MAX_VALUE).contains(&text.len()) && text.bytes().all(|b| matches!(b, b' '..=b'~'));
        fits.then(|| Self(text.into())).ok_or(BadValue)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// What a door asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who asks.
    pub holder: Holder,
    /// Where the value shall stand, CNAMEs already followed.
    pub owner: Name,
    /// The value.
    pub value: Value,
    /// For how long, counted from now; `None` is until it is released.
    pub lifetime: Option<Duration>,
    /// Keep only the newest so many values of this holder at this owner name; older ones are released in the same transaction.
    pub keep: Option<NonZeroU32>,
}

/// What a door lets go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Who claimed.
    pub holder: Holder,
    /// Where; `None` is everywhere that this holder claimed this value (as recorded, whatever CNAMEs say now).
    pub owner: Option<Name>,
    /// The value.
    pub value: Value,
}
