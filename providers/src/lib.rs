//! DNS providers behind one trait: find zones, read TXT RRsets, change values with compare-and-swap, ask for a receipt's status.
//!
//! A provider knows nothing of claims or doors. It is told which values to add and to remove at which owner names, sees what stands there, and
//! leaves everything else as it is: other values of the same RRset byte for byte, their TTL, and every other type.
//!
//! ```text
//!   registry ──builds──▶ Provider ──▶ http ──▶ limiter ──▶ the provider's API
//!   zones ───asks────────▶ │           ▲
//!   (which zone holds      └── batch ──┘   (what fits in a call, and which change of a refused call was the bad one)
//!    a name)
//! ```
//!
//! One file a provider; what they share: [`zones`], [`batch`], [`http`], [`limiter`], [`secret`], [`txt`].

mod acmedns;
mod azuredns;
pub mod batch;
mod clouddns;
mod cloudflare;
mod digitalocean;
mod dns;
mod error;
pub mod http;
mod kind;
pub mod limiter;
mod powerdns;
mod registry;
mod rfc2136;
mod route53;
pub mod secret;
pub mod txt;
pub mod zones;

use std::{collections::BTreeSet, fmt, time::Duration};

use async_trait::async_trait;
use authdns::Name;

pub use error::Error;
pub use kind::{Build, Context, Kind, Settings};
pub use registry::{KINDS, kind};

/// A zone as a provider knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Zone {
    /// The provider's own identifier; opaque.
    pub id: String,
    /// The apex.
    pub name: Name,
    /// The names of the servers that the provider says serve it, where it says so: they tell zones of one name apart.
    pub nameservers: BTreeSet<Name>,
}

/// The public zones that a credential can see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The zones.
    pub zones: Vec<Zone>,
    /// True if these are all; false if there are more than a listing may take, or if the provider cannot list.
    pub complete: bool,
}

/// The TXT values that stand at one owner name, whoever put them there, decoded: no quotes, strings of one record joined. What is not UTF-8 is
/// decoded with replacement characters, which no value of ours contains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TxtSet {
    /// The values.
    pub values: BTreeSet<String>,
    /// Whatever the provider needs to change this RRset and nothing newer: an ETag, record ids, a rendering of the old RRset. Opaque, never written to disk.
    pub version: String,
}

/// Values to add and to remove at one owner name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The owner name.
    pub owner: Name,
    /// Values that shall stand there. Adding what is there already changes nothing.
    pub add: BTreeSet<String>,
    /// Values that shall not. Removing what is gone already changes nothing.
    pub remove: BTreeSet<String>,
    /// The version that [`Provider::read`] gave for this owner; where the provider can compare, the change fails with [`Error::Conflict`] if it is stale.
    pub version: String,
}

/// A provider's word for a change that it took but may not serve yet; opaque. The empty one says that the provider gives no such word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receipt(pub String);

/// What became of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The provider is still at it.
    Pending,
    /// Its servers have the change, as far as the provider says.
    Done,
}

/// What a provider can take, for whoever plans the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Owner names worth handing over in one [`Provider::apply`]. The provider itself cuts them into calls.
    pub owners: usize,
    /// Most values of ours that can stand at one owner name; more are refused before anything is sent.
    pub values: usize,
    /// The usual time between two looks at a receipt.
    pub poll: Duration,
    /// False where values cannot be removed (acme-dns): they go when newer ones push them out. A change then adds every value that shall stand,
    /// those that stand already too, and [`Provider::apply`] writes all of them.
    pub removes: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { owners: 200, values: 100, poll: Duration::from_secs(2), removes: true }
    }
}

/// A value that carries the mark of this installation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Marked {
    /// Where it stands.
    pub owner: Name,
    /// The value, decoded.
    pub value: String,
}

/// What has been asked of a provider since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// Requests sent.
    pub sent: u64,
    /// Of those, answered with "too often".
    pub throttled: u64,
    /// Of those, that got no usable answer: broken connections, time-outs, 5xx.
    pub failed: u64,
}

/// One DNS, reached with one credential. All calls of one credential go through one [`limiter::Limiter`].
#[async_trait]
pub trait Provider: Send + Sync + fmt::Debug {
    /// What it can take.
    fn limits(&self) -> Limits {
        Limits::default()
    }

    /// The public zones that the credential can see: those with exactly this apex, or all of them (up to [`zones::MOST_LISTED`]; a provider that
    /// cannot list gives an empty, incomplete listing). Private zones are left out: no CA can see them.
    ///
    /// # Errors
    /// As [`Error`] says; no such zone is an empty listing.
    async fn zones(&self, apex: Option<&Name>) -> Result<Listing, Error>;

    /// The TXT values at each of `owners` now, from the provider's own data and not from DNS; one result for each, in the same order. Owners are
    /// distinct. An owner without TXT is an empty set.
    async fn read(&self, zone: &Zone, owners: &[Name]) -> Vec<Result<TxtSet, Error>>;

    /// Applies the changes, one result for each in the same order; owners are distinct. Each change is all or nothing; different changes may fare
    /// differently, and a bad one neither holds back nor fails the others.
    async fn apply(&self, zone: &Zone, changes: &[Change]) -> Vec<Result<Receipt, Error>>;

    /// Whether the change behind a receipt (not the empty one) is served.
    ///
    /// # Errors
    /// As [`Error`] says.
    async fn progress(&self, receipt: &Receipt) -> Result<Progress, Error> {
        let _ = receipt;
        Ok(Progress::Done)
    }

    /// Tries the credential with a call that changes nothing. Gives what a person should know of it (whose it is, what it may do), without secrets.
    ///
    /// # Errors
    /// [`Error::Auth`] if the credential is refused, and the others as they say.
    async fn verify(&self) -> Result<String, Error>;

    /// The values in a zone that carry the mark of this installation ([`Context::mark`]); `None` where the provider cannot carry one.
    ///
    /// # Errors
    /// As [`Error`] says.
    async fn marked(&self, zone: &Zone) -> Result<Option<Vec<Marked>>, Error> {
        let _ = zone;
        Ok(None)
    }

    /// What has been asked of it.
    fn calls(&self) -> Calls;
}
