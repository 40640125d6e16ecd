//! How the dispatcher learns that the world sees a value.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use authdns::Name;

use crate::claim::Lane;

/// Asks the servers of a zone.
#[async_trait]
pub trait Sight: Send + Sync {
    /// Waits until the servers of the lane's zone answer every value, and calls `seen` for each owner name as soon as that is so for all its values.
    /// It begins when the provider has taken the values (where it has a receipt: when that is done).
    ///
    /// # Errors
    /// Deterministic text: who was asked, and what they lacked when the time was up. Owners that were seen stay seen.
    async fn wait(
        &self,
        lane: &Lane,
        values: &BTreeMap<Name, BTreeSet<String>>,
        seen: &(dyn for<'a> Fn(&'a Name) + Send + Sync),
    ) -> Result<(), String>;
}

/// Asks nobody: what the provider took counts as seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Blind;

#[async_trait]
impl Sight for Blind {
    async fn wait(
        &self,
        _lane: &Lane,
        values: &BTreeMap<Name, BTreeSet<String>>,
        seen: &(dyn for<'a> Fn(&'a Name) + Send + Sync),
    ) -> Result<(), String> {
        values.keys().for_each(seen);
        Ok(())
    }
}
