//! The states of a claim and the moves between them.
//!
//! ```text
//!            claim                submit(placed)         applied(receipt)         seen
//!   (none) ────────▶ Wanted ──────────────▶ Submitted ──────────────▶ Applied ──────────▶ Visible
//!                     │ ▲                       │                        │                   │
//!             release │ │ claim                 │ release                │ release           │ release
//!                     ▼ │                       ▼                        ▼                   ▼
//!                   (none)  ◀────────────── Releasing ◀──────────────────┴───────────────────┘
//!                             removed
//! ```
//!
//! A claim is written as `Wanted` before anybody hears of it, as `Submitted` before the provider is called, and it is forgotten only after the
//! provider has said that the value is gone. So whatever instant a process dies at, the next one finds at most one step undone, and every step
//! may be taken twice.
//!
//! `failed` is not a place of its own: an attempt that fails leaves the claim in its state with a [`Failure`], and the retry goes on from there.
//! The embedded zones have no provider to call: their claims are `Visible` by being committed, and gone by being released.

use super::{Backend, Claim, Failure, Timestamp};

/// How far a claim has come. The numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// On disk; nobody was told.
    Wanted = 0,
    /// The provider is being told, or was when the process died: it may or may not have the value.
    Submitted = 1,
    /// The provider has taken it.
    Applied = 2,
    /// The provider says that its servers have it (for the embedded zones: they answer it).
    Visible = 3,
    /// To be removed; the provider may or may not have done so.
    Releasing = 4,
}

impl State {
    /// Every state, in the order of the stored numbers.
    pub const ALL: [Self; 5] = [Self::Wanted, Self::Submitted, Self::Applied, Self::Visible, Self::Releasing];

    /// As metrics and listings call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wanted => "wanted",
            Self::Submitted => "submitted",
            Self::Applied => "applied",
            Self::Visible => "visible",
            Self::Releasing => "releasing",
        }
    }

    /// The state behind a stored number.
    pub fn from_stored(number: i64) -> Option<Self> {
        usize::try_from(number).ok().and_then(|n| Self::ALL.get(n)).copied()
    }
}

/// What happens to a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Somebody (still) wants it.
    Claim,
    /// The provider is about to be told; `placed` says whether the value will be ours when it is there.
    Submit {
        /// False if somebody else's value stands there already.
        placed: bool,
    },
    /// The provider took it.
    Applied {
        /// Its receipt.
        receipt: String,
    },
    /// The provider's servers have it.
    Seen,
    /// The holder lets go, or its time is over.
    Release,
    /// The value is gone, or was never ours to remove.
    Removed,
    /// The attempt failed.
    Failed {
        /// Deterministic text.
        reason: String,
        /// Not before this.
        retry_at: Timestamp,
        /// True if the provider certainly did nothing, so that a value seen there later is not ours.
        untouched: bool,
    },
}

/// What is left of the claim after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It changed and has to be written.
    Changed,
    /// The event says nothing new to a claim in this state.
    Unchanged,
    /// It is over and has to be forgotten.
    Gone,
}

impl Claim {
    /// Takes an event. Late answers are normal (a claim may be released while the provider works on it), so no event is an error in any state.
    pub fn step(&mut self, event: &Event) -> Fate {
        use State::{Applied, Releasing, Submitted, Visible, Wanted};
        match (event, self.state) {
            // A removal may be under way: the value counts as absent until it is submitted again. `placed` stays, it may still be there.
            (Event::Claim, Releasing) => self.enter(Wanted),
            (Event::Claim, _) => Fate::Changed,

            (Event::Submit { placed }, Wanted | Submitted) => {
                // The last failure stays until the provider has taken the value: it paces the attempts.
                self.placed = *placed;
                self.state = Submitted;
                Fate::Changed
            }
            (Event::Applied { receipt }, Submitted) => {
                self.receipt = Some(receipt.clone());
                self.enter(Applied)
            }
            (Event::Seen, Applied) => {
                self.receipt = None;
                self.enter(Visible)
            }

            (Event::Release, _) if self.lane.backend == Backend::Embedded => Fate::Gone,
            // Never sent, or never ours: there is nothing to remove.
            (Event::Release, Wanted) if !self.placed => Fate::Gone,
            (Event::Release, Wanted | Submitted | Applied | Visible) => {
                self.receipt = None;
                self.enter(Releasing)
            }
            (Event::Removed, Releasing) => Fate::Gone,

            (Event::Failed { reason, retry_at, untouched }, Wanted | Submitted | Applied | Releasing) => {
                let attempts = self.failure.as_ref().map_or(0, |failure| failure.attempts).saturating_add(1);
                self.failure = Some(Failure { reason: reason.clone(), attempts, retry_at: *retry_at });
                if *untouched && self.state == Submitted {
                    self.placed = false;
                    self.state = Wanted;
                }
                Fate::Changed
            }

            (Event::Submit { .. } | Event::Applied { .. } | Event::Seen | Event::Release | Event::Removed | Event::Failed { .. }, _) => {
                Fate::Unchanged
            }
        }
    }

    fn enter(&mut self, state: State) -> Fate {
        self.state = state;
        self.failure = None;
        Fate::Changed
    }

    /// True if the value shall stand in DNS.
    pub fn stands(&self) -> bool {
        self.state != State::Releasing
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::claim::{ClaimId, Holder, Lane};

    fn claim(backend: &str, state: State, placed: bool) -> Claim {
        Claim {
            id: ClaimId(1),
            lane: Lane { backend: Backend::from(backend), zone: "example.com".parse().expect("a name") },
            owner: "a.example.com".parse().expect("a name"),
            value: "v".parse().expect("a value"),
            holder: Holder::from("issue:1"),
            state,
            placed,
            receipt: None,
            failure: None,
            expires: None,
        }
    }

    fn failed(untouched: bool) -> Event {
        Event::Failed { reason: "no".to_owned(), retry_at: Timestamp(7), untouched }
    }

    #[test]
    fn the_straight_way_there_and_back() {
        let mut claim = claim("corp", State::Wanted, false);
        for (event, state) in [
            (Event::Submit { placed: true }, State::Submitted),
            (Event::Applied { receipt: "r".to_owned() }, State::Applied),
            (Event::Seen, State::Visible),
            (Event::Release, State::Releasing),
        ] {
            assert_eq!((claim.step(&event), claim.state), (Fate::Changed, state), "{event:?}");
        }
        assert_eq!(claim.step(&Event::Removed), Fate::Gone);
    }

    #[test]
    fn a_claim_that_was_never_sent_is_gone_at_once() {
        assert_eq!(claim("corp", State::Wanted, false).step(&Event::Release), Fate::Gone);
        assert_eq!(claim("embedded", State::Visible, true).step(&Event::Release), Fate::Gone);
        // Claimed again while it was being removed: it may be there, and it may be ours.
        let mut again = claim("corp", State::Releasing, true);
        again.step(&Event::Claim);
        assert_eq!((again.step(&Event::Release), again.state), (Fate::Changed, State::Releasing));
    }

    #[test]
    fn late_answers_to_a_released_claim_change_nothing() {
        let mut claim = claim("corp", State::Releasing, true);
        assert_eq!(claim.step(&Event::Applied { receipt: "r".to_owned() }), Fate::Unchanged);
        assert_eq!(claim.step(&Event::Seen), Fate::Unchanged);
        claim.step(&Event::Claim);
        assert_eq!((claim.step(&Event::Removed), claim.state), (Fate::Unchanged, State::Wanted), "it was claimed again meanwhile");
    }

    #[test]
    fn failures_are_counted_until_the_provider_takes_the_value() {
        let mut claim = claim("corp", State::Wanted, false);
        for attempt in 1..=3 {
            claim.step(&Event::Submit { placed: true });
            claim.step(&failed(true));
            assert_eq!(claim.failure.as_ref().map(|failure| failure.attempts), Some(attempt));
            assert_eq!((claim.state, claim.placed), (State::Wanted, false), "a refusal leaves nothing of ours");
        }
        claim.step(&Event::Submit { placed: true });
        claim.step(&failed(false));
        assert_eq!((claim.state, claim.placed), (State::Submitted, true), "without an answer it may be there");
        claim.step(&Event::Applied { receipt: String::new() });
        assert_eq!(claim.failure, None);
    }

    proptest! {
        /// Whatever comes in whatever order: once a value may be in DNS and ours, the claim is not forgotten before it was removed.
        #[test]
        fn what_may_stand_is_not_forgotten(picks in prop::collection::vec(0..8usize, 0..40)) {
            let events = [
                Event::Claim,
                Event::Submit { placed: true },
                Event::Applied { receipt: "r".to_owned() },
                Event::Seen,
                Event::Release,
                Event::Removed,
                failed(true),
                failed(false),
            ];
            let mut claim = claim("corp", State::Wanted, false);
            for pick in picks {
                let event = &events[pick];
                let (state, placed) = (claim.state, claim.placed);
                if claim.step(event) == Fate::Gone {
                    let removed = *event == Event::Removed && state == State::Releasing;
                    prop_assert!(removed || !placed, "{event:?} in {state:?}");
                    break;
                }
            }
        }
    }
}
