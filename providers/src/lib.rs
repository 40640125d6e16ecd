//! DNS providers behind one trait: read an RRset, apply a batch of value changes with compare-and-swap, ask for a receipt's status.
//!
//! A provider knows nothing of claims or doors. It is told which values to add and to remove at which owner names, sees what stands there, and
//! leaves everything else as it is.

mod error;

use std::{collections::BTreeSet, fmt};

use async_trait::async_trait;
use authdns::Name;

pub use error::Error;

/// A zone as a provider knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Zone {
    /// The provider's own identifier; opaque.
    pub id: String,
    /// The apex.
    pub name: Name,
}

/// The TXT values that stand at one owner name, whoever put them there, decoded (no quotes, strings of one record joined).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TxtSet {
    /// The values.
    pub values: BTreeSet<String>,
    /// What [`Provider::apply`] compares with: an ETag, a rendering of the old RRset, or empty where the provider needs none.
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
    /// The version that [`Provider::read`] gave for this owner; the change fails with [`Error::Conflict`] if it is stale.
    pub version: String,
}

/// A provider's word for a change that it took but may not serve yet; opaque.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt(pub String);

/// What became of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The provider is still at it.
    Pending,
    /// Its servers have the change, as far as the provider says.
    Done,
}

/// One DNS, reached with one credential.
#[async_trait]
pub trait Provider: Send + Sync + fmt::Debug {
    /// The longest zone that encloses `name` and that the credential may change.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    async fn find_zone(&self, name: &Name) -> Result<Zone, Error>;

    /// The TXT values at `owner` now, from the provider's own data and not from DNS.
    ///
    /// # Errors
    /// As [`Error`] says; an owner without TXT is an empty set.
    async fn read(&self, zone: &Zone, owner: &Name) -> Result<TxtSet, Error>;

    /// Applies the changes, one result for each in the same order. Each change is all or nothing; different changes may fare differently.
    async fn apply(&self, zone: &Zone, changes: &[Change]) -> Vec<Result<Receipt, Error>>;

    /// Whether the change behind a receipt is served.
    ///
    /// # Errors
    /// As [`Error`] says.
    async fn progress(&self, receipt: &Receipt) -> Result<Progress, Error>;
}
