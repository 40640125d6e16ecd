//! A claim: this TXT value shall stand at this owner name until it is released or expires.

mod machine;

use std::{
    fmt,
    num::NonZeroU32,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use authdns::Name;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use machine::{Event, Fate, State};

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

    /// The sweep, for values that carry the mark of this installation and that nobody claims.
    pub fn sweep(mark: &str) -> Self {
        Self(format!("sweep:{mark}").into())
    }

    /// Whoever shares one fair part of a queue: an acme-dns account, a namespace, the issuer.
    pub fn tenant(&self) -> &str {
        if self.0.starts_with("acmedns:") {
            return &self.0;
        }
        match self.0.split_once('/') {
            Some((tenant, _)) => tenant,
            None => self.0.split_once(':').map_or(&*self.0, |(door, _)| door),
        }
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
    /// Who shall make it true; `None` is whoever has the longest zone around the owner.
    pub backend: Option<Backend>,
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

/// Milliseconds since 1970 (Unix time).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The wall clock, which may be set back; nothing is ordered by it.
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// So much later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Self(0).after(since),
            Err(_) => Self(0),
        }
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        UNIX_EPOCH + Duration::from_millis(time.0.try_into().unwrap_or_default())
    }
}

impl fmt::Display for Timestamp {
    /// To the second, in UTC, as RFC 3339 writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_second(self.0.div_euclid(1000)) {
            Ok(time) => write!(f, "{time}"),
            Err(_) => f.write_str("a time that no calendar has"),
        }
    }
}

/// Which DNS makes a claim true, and in which of its zones: one change at a time is in flight in a lane.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    /// Who writes it.
    pub backend: Backend,
    /// The zone's apex.
    pub zone: Name,
}

/// A backend by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Backend {
    /// The zones of this process. They are a projection of the ledger: a commit is all it takes to change them.
    Embedded,
    /// A provider by its name in the configuration; with the Secret of an issuer, where it works with one: `corp-dns@team-a/dns-token`.
    Provider(Arc<str>),
}

/// Stands between the name of a backend and the Secret of an issuer. No name has it.
const WITH: char = '@';

impl Backend {
    /// The backend `name`, working with a Secret of a namespace. Such a backend is as good as one of its own: each Secret sees other zones, and has
    /// limits of its own.
    pub fn with_secret(name: &str, namespace: &str, secret: &str) -> Self {
        Self::Provider(format!("{name}{WITH}{namespace}/{secret}").into())
    }

    /// The backend's name in the configuration, whatever Secret it works with: what policies and metrics go by.
    pub fn configured(&self) -> &str {
        let name = self.as_str();
        name.split_once(WITH).map_or(name, |(name, _)| name)
    }

    /// The backend of the configuration.
    #[must_use]
    pub fn without_secret(&self) -> Self {
        Self::from(self.configured())
    }

    /// The namespace and the name of the Secret that it works with.
    pub fn secret(&self) -> Option<(&str, &str)> {
        self.as_str().split_once(WITH)?.1.split_once('/')
    }

    /// As it is stored and configured.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Embedded => "embedded",
            Self::Provider(name) => name,
        }
    }
}

impl From<&str> for Backend {
    fn from(stored: &str) -> Self {
        if stored == "embedded" { Self::Embedded } else { Self::Provider(stored.into()) }
    }
}

/// Names one claim for as long as a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClaimId(pub i64);

/// A claim as the ledger holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Its name.
    pub id: ClaimId,
    /// Who makes it true.
    pub lane: Lane,
    /// Where the value stands.
    pub owner: Name,
    /// The value.
    pub value: Value,
    /// Who claims.
    pub holder: Holder,
    /// How far it has come.
    pub state: State,
    /// True once acmegate may have put the value there itself; a value that was there before is never removed.
    pub placed: bool,
    /// What the provider gave for the change, until it is visible.
    pub receipt: Option<String>,
    /// Why the last attempt failed, and when the next is due.
    pub failure: Option<Failure>,
    /// When it is released by itself.
    pub expires: Option<Timestamp>,
}

/// A failed attempt; the claim keeps its state, and the next attempt takes it from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Deterministic text.
    pub reason: String,
    /// Attempts in a row that failed.
    pub attempts: u32,
    /// Not before this.
    pub retry_at: Timestamp,
}
