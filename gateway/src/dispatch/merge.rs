//! What has to change at one owner name: claims on one side, what stands in the zone on the other. Pure.

use std::collections::BTreeSet;

use authdns::Name;
use providers::{Change, Limits, TxtSet};

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
    /// Claims whose value has no place at this owner.
    pub(super) refused: Vec<Claim>,
    /// Claims that need nothing sent: their value stands, or is gone, or is not ours to remove.
    pub(super) settled: Vec<(ClaimId, Event)>,
}

/// Plans from claims read *after* the submissions were written, so that a claim released or made meanwhile is seen.
pub(super) fn plan(owner: &Name, claims: &[Claim], seen: &TxtSet, limits: Limits) -> Plan {
    let mut plan = Plan {
        change: Change { owner: owner.clone(), add: BTreeSet::new(), remove: BTreeSet::new(), version: seen.version.clone() },
        adding: Vec::new(),
        removing: Vec::new(),
        refused: Vec::new(),
        settled: Vec::new(),
    };
    let mut ours: BTreeSet<&str> =
        claims.iter().filter(|claim| matches!(claim.state, State::Applied | State::Visible)).map(|claim| claim.value.as_str()).collect();
    for claim in claims {
        let value = claim.value.as_str();
        let stands = seen.values.contains(value);
        match claim.state {
            State::Submitted if stands => {
                ours.insert(value);
                plan.settled.push((claim.id, Event::Applied { receipt: String::new() }));
            }
            State::Submitted if !ours.contains(value) && ours.len() >= limits.values => plan.refused.push(claim.clone()),
            State::Submitted => {
                ours.insert(value);
                plan.change.add.insert(value.to_owned());
                plan.adding.push(claim.clone());
            }
            // It stays until newer values push it out; nothing more can be done.
            State::Releasing if !limits.removes => plan.settled.push((claim.id, Event::Removed)),
            State::Releasing => {
                let mut heirs = claims.iter().filter(|other| other.stands() && other.value == claim.value).peekable();
                if !claim.placed || !stands {
                    plan.settled.push((claim.id, Event::Removed));
                } else if heirs.peek().is_none() {
                    plan.change.remove.insert(value.to_owned());
                    plan.removing.push(claim.clone());
                } else if heirs.any(|heir| heir.placed) {
                    plan.settled.push((claim.id, Event::Removed));
                }
                // Else an heir has not been submitted yet, and does not know that the value is ours: if it were released now, nobody would
                // remove the value. It learns it in the next round; until then this claim stays.
            }
            State::Wanted | State::Applied | State::Visible => {}
        }
    }
    if !limits.removes && !plan.change.add.is_empty() {
        // A new value pushes the oldest out, and that may be one that is still claimed: they are all written anew.
        plan.change.add.extend(ours.into_iter().map(str::to_owned));
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::{Backend, ClaimId, Holder, Lane};

    fn name(text: &str) -> Name {
        text.parse().expect(text)
    }

    fn claim(id: i64, value: &str, state: State, placed: bool) -> Claim {
        Claim {
            id: ClaimId(id),
            lane: Lane { backend: Backend::from("corp"), zone: name("example.com") },
            owner: name("a.example.com"),
            value: value.parse().expect("a value"),
            holder: Holder::from(format!("issue:{id}").as_str()),
            state,
            placed,
            receipt: None,
            failure: None,
            expires: None,
        }
    }

    fn seen(values: &[&str]) -> TxtSet {
        TxtSet { values: values.iter().map(ToString::to_string).collect(), version: "7".to_owned() }
    }

    #[test]
    fn a_stranger_s_value_is_never_ours() {
        let claims = [claim(1, "theirs", State::Wanted, false), claim(2, "new", State::Wanted, false)];
        let events = submissions(&claims, &seen(&["theirs"]));
        assert_eq!(events, [(ClaimId(1), Event::Submit { placed: false }), (ClaimId(2), Event::Submit { placed: true })]);
        let plan = plan(&name("a.example.com"), &[claim(1, "theirs", State::Releasing, false)], &seen(&["theirs"]), Limits::default());
        assert_eq!((plan.change.remove.len(), plan.settled), (0, vec![(ClaimId(1), Event::Removed)]));
    }

    #[test]
    fn a_value_is_handed_to_an_heir_only_when_the_heir_knows() {
        let owner = name("a.example.com");
        let unaware =
            plan(&owner, &[claim(1, "v", State::Releasing, true), claim(2, "v", State::Wanted, false)], &seen(&["v"]), Limits::default());
        assert!(unaware.change.remove.is_empty() && unaware.settled.is_empty(), "{unaware:?}");
        let aware =
            plan(&owner, &[claim(1, "v", State::Releasing, true), claim(2, "v", State::Visible, true)], &seen(&["v"]), Limits::default());
        assert!(aware.change.remove.is_empty());
        assert_eq!(aware.settled, [(ClaimId(1), Event::Removed)]);
        let alone = plan(&owner, &[claim(1, "v", State::Releasing, true)], &seen(&["v", "w"]), Limits::default());
        assert_eq!(alone.change.remove, BTreeSet::from(["v".to_owned()]));
        assert_eq!(alone.change.version, "7");
    }

    #[test]
    fn more_values_than_the_backend_holds_are_refused() {
        let claims = [claim(1, "a", State::Visible, true), claim(2, "b", State::Submitted, true), claim(3, "c", State::Submitted, true)];
        let plan = plan(&name("a.example.com"), &claims, &seen(&["a"]), Limits { values: 2, ..Limits::default() });
        assert_eq!(plan.change.add, BTreeSet::from(["b".to_owned()]));
        assert_eq!(plan.refused, [claims[2].clone()]);
    }

    #[test]
    fn where_nothing_can_be_removed_what_is_claimed_is_written_anew_beside_what_is_new() {
        let rotating = Limits { values: 2, removes: false, ..Limits::default() };
        let claims = [claim(1, "a", State::Visible, true), claim(2, "b", State::Releasing, true), claim(3, "c", State::Submitted, true)];
        let plan = plan(&name("a.example.com"), &claims, &seen(&["a", "b"]), rotating);
        assert_eq!(plan.change.add, BTreeSet::from(["a".to_owned(), "c".to_owned()]));
        assert!(plan.change.remove.is_empty());
        assert_eq!(plan.settled, [(ClaimId(2), Event::Removed)]);
        let adding: Vec<ClaimId> = plan.adding.iter().map(|claim| claim.id).collect();
        assert_eq!(adding, [ClaimId(3)]);
    }

    #[test]
    fn what_stands_already_is_not_sent_again() {
        let plan = plan(&name("a.example.com"), &[claim(1, "v", State::Submitted, true)], &seen(&["v"]), Limits::default());
        assert!(plan.change.add.is_empty());
        assert_eq!(plan.settled, [(ClaimId(1), Event::Applied { receipt: String::new() })]);
    }
}
