//! How much may wait in a lane, and whose turn it is.

use std::collections::{BTreeMap, HashMap, VecDeque};

use authdns::Name;
use parking_lot::Mutex;

use crate::claim::{Claim, Holder, State};

/// Claims that may wait in one lane.
const MOST: usize = 20_000;
/// Claims of one tenant that may wait in one lane, so that one alone cannot fill it.
const MOST_OF_TENANT: usize = 5_000;

/// What waits in a lane, as the last round saw it and as was let in since.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<Count>);

#[derive(Debug, Default)]
struct Count {
    all: usize,
    tenants: HashMap<String, usize>,
}

/// Why a claim is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// Too much waits in the lane.
    #[error("{MOST} values are waiting for this zone already: try again later, and look at the backend's credential and limits")]
    Lane,
    /// Too much of this tenant waits in the lane.
    #[error("{MOST_OF_TENANT} values of this client are waiting for this zone already: try again later")]
    Tenant,
}

impl Waiting {
    /// Lets a claim of `holder` in, and counts it.
    pub(super) fn admit(&self, holder: &Holder) -> Result<(), Full> {
        let mut count = self.0.lock();
        if count.all >= MOST {
            return Err(Full::Lane);
        }
        let of_tenant = count.tenants.entry(holder.tenant().to_owned()).or_default();
        if *of_tenant >= MOST_OF_TENANT {
            return Err(Full::Tenant);
        }
        *of_tenant += 1;
        count.all += 1;
        Ok(())
    }

    /// Counts anew.
    pub(super) fn recount<'c>(&self, claims: impl IntoIterator<Item = &'c Claim>) {
        let mut count = Count::default();
        for claim in claims.into_iter().filter(|claim| claim.state != State::Visible) {
            count.all += 1;
            *count.tenants.entry(claim.holder.tenant().to_owned()).or_default() += 1;
        }
        *self.0.lock() = count;
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().all
    }
}

/// Up to `most` owners, one from each tenant in turn; within a tenant in the order given.
pub(super) fn turns(owners: BTreeMap<Name, Vec<Claim>>, most: usize) -> Vec<(Name, Vec<Claim>)> {
    if owners.len() <= most {
        return owners.into_iter().collect();
    }
    let mut tenants: BTreeMap<String, VecDeque<(Name, Vec<Claim>)>> = BTreeMap::new();
    let mut owners: Vec<(Name, Vec<Claim>)> = owners.into_iter().collect();
    // The oldest first.
    owners.sort_by_key(|(_, claims)| claims.iter().map(|claim| claim.id).min());
    for (owner, claims) in owners {
        let tenant = claims.first().map(|claim| claim.holder.tenant().to_owned()).unwrap_or_default();
        tenants.entry(tenant).or_default().push_back((owner, claims));
    }
    let mut chosen = Vec::with_capacity(most);
    while chosen.len() < most && !tenants.is_empty() {
        tenants.retain(|_, queue| {
            if chosen.len() < most {
                chosen.extend(queue.pop_front());
            }
            !queue.is_empty()
        });
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::{Backend, ClaimId, Lane};

    fn claim(id: i64, holder: &str) -> Claim {
        Claim {
            id: ClaimId(id),
            lane: Lane { backend: Backend::from("corp"), zone: "example.com".parse().expect("a name") },
            owner: format!("n{id}.example.com").parse().expect("a name"),
            value: "v".parse().expect("a value"),
            holder: Holder::from(holder),
            state: State::Wanted,
            placed: false,
            receipt: None,
            failure: None,
            expires: None,
        }
    }

    #[test]
    fn a_small_tenant_is_served_beside_a_large_one() {
        let mut owners = BTreeMap::new();
        for id in 0..1000 {
            let claim = claim(id, "webhook:large/a.example.com");
            owners.insert(claim.owner.clone(), vec![claim]);
        }
        for id in 1000..1003 {
            let claim = claim(id, "webhook:small/b.example.com");
            owners.insert(claim.owner.clone(), vec![claim]);
        }
        let chosen = turns(owners, 10);
        let ids: Vec<i64> = chosen.iter().map(|(_, claims)| claims[0].id.0).collect();
        assert_eq!(ids, [0, 1000, 1, 1001, 2, 1002, 3, 4, 5, 6]);
    }

    #[test]
    fn a_full_lane_says_so_and_one_tenant_cannot_fill_it() {
        let waiting = Waiting::default();
        let holder = Holder::from("webhook:large/a.example.com");
        for _ in 0..MOST_OF_TENANT {
            assert_eq!(waiting.admit(&holder), Ok(()));
        }
        assert_eq!(waiting.admit(&holder), Err(Full::Tenant));
        assert_eq!(waiting.admit(&Holder::from("webhook:small/b.example.com")), Ok(()));
        for tenant in 0..MOST {
            let _ = waiting.admit(&Holder::from(format!("acmedns:{tenant}").as_str()));
        }
        assert_eq!(waiting.admit(&Holder::from("issue:1")), Err(Full::Lane));
        waiting.recount(&[claim(1, "issue:1")]);
        assert_eq!((waiting.len(), waiting.admit(&holder)), (1, Ok(())));
    }
}
