//! Which claims of a lane are being watched.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;
use providers::Receipt;

use crate::claim::{Claim, ClaimId, State, Timestamp};

/// Which claims of a lane are being watched, each by which watch.
#[derive(Debug, Default)]
pub(super) struct Watches {
    by_claim: Mutex<HashMap<ClaimId, u64>>,
    next: Mutex<u64>,
}

impl Watches {
    /// The applied claims that are due to be watched and are not, by receipt. A claim that has left the state meanwhile is no longer watched, so that what
    /// its watch saw before is not taken for what comes after.
    pub(super) fn begin(&self, claims: &[Claim], now: Timestamp) -> Vec<(u64, Receipt, Vec<Claim>)> {
        let mut by_claim = self.by_claim.lock();
        let applied: HashMap<ClaimId, &Claim> =
            claims.iter().filter(|claim| claim.state == State::Applied).map(|claim| (claim.id, claim)).collect();
        by_claim.retain(|id, _| applied.contains_key(id));
        let mut batches: BTreeMap<String, Vec<Claim>> = BTreeMap::new();
        for claim in applied.values() {
            let due = claim.failure.as_ref().is_none_or(|failure| failure.retry_at <= now);
            if due && !by_claim.contains_key(&claim.id) {
                batches.entry(claim.receipt.clone().unwrap_or_default()).or_default().push((*claim).clone());
            }
        }
        let mut next = self.next.lock();
        let number = |(receipt, claims): (String, Vec<Claim>)| {
            *next += 1;
            by_claim.extend(claims.iter().map(|claim| (claim.id, *next)));
            (*next, Receipt(receipt), claims)
        };
        batches.into_iter().map(number).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_claim.lock().is_empty()
    }

    pub(super) fn is_watched(&self, id: ClaimId) -> bool {
        self.by_claim.lock().contains_key(&id)
    }

    /// Those of `ids` that watch `number` still watches.
    pub(super) fn held<'c>(&self, number: u64, claims: impl Iterator<Item = &'c Claim>) -> Vec<ClaimId> {
        let by_claim = self.by_claim.lock();
        claims.map(|claim| claim.id).filter(|id| by_claim.get(id) == Some(&number)).collect()
    }

    pub(super) fn end(&self, number: u64) {
        self.by_claim.lock().retain(|_, watch| *watch != number);
    }
}
