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
