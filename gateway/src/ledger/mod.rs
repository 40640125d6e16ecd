//! The claim ledger: what shall stand in DNS, on disk before it is in DNS, and until it is gone from DNS.

mod claim;

use std::sync::Arc;

use authdns::{Name, Zones};

pub use claim::{BadValue, Holder, MAX_VALUE, Release, Request, Value};

use crate::store::{Store, StoreError};

/// The ledger; clones share it.
#[derive(Clone)]
pub struct Ledger {
    #[expect(dead_code, reason = "skeleton")]
    store: Arc<dyn Store>,
    zones: Zones,
}

/// Why a claim was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// No zone and no backend serves the name.
    #[error("no zone that acmegate can write encloses {0}: add the zone to dns.zones, or correct the name")]
    NoZone(Name),
    /// The backend refused or could not be reached; deterministic text.
    #[error("the DNS backend has not taken the value yet: {0}")]
    Backend(String),
    /// The backend is still at it; ask again.
    #[error("the value is not in DNS yet; it is being worked on, try again")]
    InProgress,
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Ledger {
    /// The zone that would hold `owner`.
    pub fn zone_of(&self, owner: &Name) -> Option<Name> {
        self.zones.zone_of(owner)
    }

    /// Takes claims, all of them or none, in one transaction. When it returns, they are durable and answered by DNS. Repeating a claim renews it.
    ///
    /// # Errors
    /// As [`ClaimError`] says; none was taken, or (for [`ClaimError::Backend`] and [`ClaimError::InProgress`]) all stand in the ledger and are worked on.
    pub async fn claim(&self, requests: Vec<Request>) -> Result<(), ClaimError> {
        let _ = requests;
        Err(ClaimError::InProgress)
    }

    /// Lets values go. When it returns, they are out of the ledger and out of DNS, or on their way out. Releasing what is not claimed succeeds.
    /// Gives the number of claims that were there.
    ///
    /// # Errors
    /// [`ClaimError::Store`] alone.
    pub async fn release(&self, releases: Vec<Release>) -> Result<usize, ClaimError> {
        let _ = releases;
        Err(ClaimError::InProgress)
    }

    /// Lets everything go that a holder claimed, as recorded.
    ///
    /// # Errors
    /// [`ClaimError::Store`] alone.
    pub async fn release_all(&self, holder: &Holder) -> Result<usize, ClaimError> {
        let _ = holder;
        Err(ClaimError::InProgress)
    }
}
