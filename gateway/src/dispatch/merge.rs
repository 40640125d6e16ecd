//! What has to change at one owner name: claims on one side, what stands in the zone on the other. Pure.

use std::collections::BTreeSet;

use authdns::Name;
use providers::{Change, TxtSet};

use crate::claim::{Claim, ClaimId, Event, State};

/// Who is to be written as `Submitted` before anything is sent. A value that stands already is ours if any claim of ours may have put it there.
pub(super) fn submissions(claims: &[Claim], seen: &TxtSet) -> Vec<(ClaimId, Event)> {
    claims
        .iter()
        .filter(|claim| matches!(claim.state, State::Wanted | State::Submitted))
        .map(|claim| {
            let ours = claims.iter().any(|other| other.value == claim.value && other.placed);
            let stands = seen.values.contains(claim.value.as_str());
            (claim.id, Event::Submit { placed: ours || !stands })
        })
        .collect()
}

/// What to send for an owner, and which claims hang on the answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) change: Change,
    /// `Submitted` claims whose value is being added, as they were read.
    pub(super) adding: Vec<Claim>,
    /// `Releasing` claims whose value is being removed, as they were read.
    pub(super) removing: Vec<Claim>,
    /// Claims that need nothing sent: their value stands, or is gone, or is not ours to remove.
    pub(super) settled: Vec<(ClaimId, Event)>,
}

/// Plans from claims read *after* the submissions were written, so that a claim released or made meanwhile is seen.
pub(super) fn plan(owner: &Name, claims: &[Claim], seen: &TxtSet) -> Plan {
    let mut plan = Plan {
        change: Change { owner: owner.clone(), add: BTreeSet::new(), remove: BTreeSet::new(), version: seen.version.clone() },
        adding: Vec::new(),
        removing: Vec::new(),
        settled: Vec::new(),
    };
    for claim in claims {
        let value = claim.value.as_str();
        let stands = seen.values.contains(value);
        match claim.state {
            State::Submitted if stands => plan.settled.push((claim.id, Event::Applied { receipt: String::new() })),
            State::Submitted => {
                plan.change.add.insert(value.to_owned());
                plan.adding.push(claim.clone());
            }
            State::Releasing => {
                let still_wanted = claims.iter().any(|other| other.stands() && other.value == claim.value);
                if claim.placed && stands && !still_wanted {
                    plan.change.remove.insert(value.to_owned());
                    plan.removing.push(claim.clone());
                } else {
                    plan.settled.push((claim.id, Event::Removed));
                }
            }
            State::Wanted | State::Applied | State::Visible => {}
        }
    }
    plan
}
