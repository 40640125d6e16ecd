//! What should be gone and still stands.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use authdns::Name;
use futures_util::future::join_all;
use providers::{Error, Zone};

use super::{Leftover, Scope, Sweeper, Unasked, Why};
use crate::{
    claim::{Backend, Lane, State, Timestamp, Value},
    dispatch::Route,
    store::{Overdue, StoreError},
};

/// Claims looked at in one sweep; what is beyond comes in the next.
const MOST: u32 = 10_000;
/// Owners read at once.
const OWNERS: usize = 500;

/// What stands at a lane's owner names, or why that cannot be known.
type Standing = Result<BTreeMap<Name, Result<BTreeSet<String>, Error>>, Error>;

impl Sweeper {
    /// Leftovers by lane and owner, and the backends and zones that could not be asked.
    pub(super) async fn find(&self, scope: Scope<'_>) -> Result<(Vec<Leftover>, Vec<Unasked>), StoreError> {
        // Marks first and claims after: a value that is claimed while its mark is being listed is seen to be claimed.
        let (marked, mut unasked) = if scope.marks { self.marked(scope).await } else { Default::default() };
        let overdue = self.store.overdue(Timestamp::now(), MOST).await?;
        let in_scope = |overdue: &Overdue| {
            let backend = overdue.claim.lane.backend.configured();
            // What was never placed is not ours, and nothing of it has to go.
            overdue.claim.placed
                && scope.backend.is_none_or(|wanted| wanted == backend)
                && scope.until.is_none_or(|until| overdue.since.is_none_or(|since| since <= until))
        };
        let mut candidates: Vec<Leftover> = overdue.into_iter().filter(in_scope).map(leftover).collect();
        let claimed: HashSet<(Name, Value)> = self
            .store
            .claimed(marked.iter().map(|stray| (stray.owner.clone(), stray.value.clone())).collect())
            .await?
            .into_iter()
            .collect();
        candidates.extend(marked.into_iter().filter(|stray| !claimed.contains(&(stray.owner.clone(), stray.value.clone()))));

        let mut lanes: BTreeMap<Lane, Vec<Leftover>> = BTreeMap::new();
        for leftover in candidates {
            lanes.entry(leftover.lane.clone()).or_default().push(leftover);
        }
        let read = lanes.into_iter().map(|(lane, leftovers)| async move {
            let standing = self.standing(&lane, &leftovers).await;
            (lane, leftovers, standing)
        });
        let mut found = Vec::new();
        for (lane, leftovers, standing) in join_all(read).await {
            match standing {
                Some(Ok(owners)) => found.extend(leftovers.into_iter().filter_map(|leftover| judge(leftover, &owners))),
                Some(Err(error)) => {
                    unasked.push(Unasked {
                        backend: lane.backend.as_str().to_owned(),
                        zone: Some(text(&lane.zone)),
                        reason: error.to_string(),
                    });
                }
                None => found.extend(leftovers.into_iter().map(|leftover| Leftover {
                    hopeless: Some(
                        "no backend of this name is configured: put it back under backends, or remove the value by hand".to_owned(),
                    ),
                    ..leftover
                })),
            }
        }
        unasked.sort();
        unasked.dedup();
        Ok((found, unasked))
    }

    /// What stands at the owners of these leftovers; `None` without such a backend.
    async fn standing(&self, lane: &Lane, leftovers: &[Leftover]) -> Option<Standing> {
        let route = self.dispatch.routes().of(&lane.backend)?;
        Some(
            async {
                let zone = route.finder.at(&lane.zone).await?;
                let owners: Vec<Name> =
                    leftovers.iter().map(|leftover| leftover.owner.clone()).collect::<BTreeSet<_>>().into_iter().collect();
                let mut standing = BTreeMap::new();
                for owners in owners.chunks(OWNERS) {
                    let read = route.provider.read(&zone, owners).await;
                    let missing = std::iter::repeat_with(|| Err(Error::Transport("the provider gave no result for this name".to_owned())));
                    for (owner, set) in owners.iter().zip(read.into_iter().chain(missing)) {
                        standing.insert(owner.clone(), set.map(|set| set.values));
                    }
                }
                Ok(standing)
            }
            .await,
        )
    }

    /// The values that carry our mark, in every zone that is known.
    async fn marked(&self, scope: Scope<'_>) -> (Vec<Leftover>, Vec<Unasked>) {
        let routes = self.routes.iter().filter(|route| scope.backend.is_none_or(|wanted| wanted == &*route.name));
        let mut all = (Vec::new(), Vec::new());
        for (mut marked, mut unasked) in join_all(routes.map(marked_by)).await {
            all.0.append(&mut marked);
            all.1.append(&mut unasked);
        }
        // Two backends may see one zone; whoever comes first in the configuration removes.
        let mut seen = HashSet::new();
        all.0.retain(|stray| seen.insert((stray.owner.clone(), stray.value.clone())));
        all
    }
}

async fn marked_by(route: &Route) -> (Vec<Leftover>, Vec<Unasked>) {
    let (mut marked, mut unasked) = (Vec::new(), Vec::new());
    let backend = route.name.to_string();
    let zones: Vec<Zone> = match route.finder.known().await {
        Ok(zones) => zones,
        Err(error) => return (marked, vec![Unasked { backend, zone: None, reason: error.to_string() }]),
    };
    // One after the other: the limit of the credential is shared with whoever waits for a certificate.
    for zone in zones {
        match route.provider.marked(&zone).await {
            Ok(Some(values)) => marked.extend(values.into_iter().filter_map(|stray| {
                let lane = Lane { backend: Backend::Provider(route.name.clone()), zone: zone.name.clone() };
                // What cannot be claimed was never written by us.
                let value = stray.value.parse().ok()?;
                Some(Leftover { lane, owner: stray.owner, value, why: Why::Unclaimed, since: None, claim: None, hopeless: None })
            })),
            // No marks at this provider, in whatever zone.
            Ok(None) => break,
            Err(error) => unasked.push(Unasked { backend: backend.clone(), zone: Some(text(&zone.name)), reason: error.to_string() }),
        }
    }
    (marked, unasked)
}

fn leftover(Overdue { claim, since }: Overdue) -> Leftover {
    let attempts = claim.failure.as_ref().map_or(0, |failure| failure.attempts);
    let expired = claim.state != State::Releasing || claim.expires.is_some_and(|at| at <= Timestamp::now());
    Leftover {
        why: if expired { Why::Expired } else { Why::Released },
        claim: Some((claim.id, attempts)),
        lane: claim.lane,
        owner: claim.owner,
        value: claim.value,
        since,
        hopeless: None,
    }
}

/// The leftover, if its value stands.
fn judge(leftover: Leftover, owners: &BTreeMap<Name, Result<BTreeSet<String>, Error>>) -> Option<Leftover> {
    match owners.get(&leftover.owner)? {
        Ok(values) => values.contains(leftover.value.as_str()).then_some(leftover),
        // It may stand: a person has to know.
        Err(_) => Some(leftover),
    }
}

fn text(zone: &Name) -> String {
    zone.to_relative_string()
}
