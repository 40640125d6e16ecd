//! How a certificate stands, for reports.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Wanted;
use crate::{claim::Timestamp, issuer::Exhausted, store::Renewal};

/// How one certificate stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Status<'a> {
    /// In a word.
    pub state: State,
    /// What is done next, and when; `None` if nothing is.
    pub next: Option<Next>,
    /// What it waits for, if it is a limit.
    pub waits: Option<Exhausted>,
    /// All that is kept of it.
    pub renewal: &'a Renewal,
    /// What the configuration wants; `None` if it is not in it.
    pub wanted: Option<&'a Wanted>,
}

/// How a certificate stands, in a word. Where several fit, the first of this list is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not in the configuration: kept, but not renewed.
    Unlisted,
    /// The CA has paused it until a person says that it goes on.
    Paused,
    /// Its time is over, and there is no other.
    Expired,
    /// An order is in flight.
    Renewing,
    /// The last attempt failed; there will be another.
    Failing,
    /// An order has to wait for a limit.
    Waiting,
    /// It was revoked, and there is no other yet.
    Revoked,
    /// There is none yet.
    New,
    /// It is rehearsed only (`dry_run`), and the last rehearsal went well.
    Rehearsed,
    /// The certificate is valid, but not all is where it goes.
    Undeployed,
    /// All is well.
    Valid,
}

/// What is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// What.
    pub action: Action,
    /// When; in the past it is as soon as there is room.
    pub at: Timestamp,
}

/// What can be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A certificate is ordered.
    Order,
    /// It is being ordered.
    Ordering,
    /// It is put where it goes.
    Deploy,
    /// It is being put there.
    Deploying,
}

impl State {
    /// As reports and metrics write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unlisted => "not in the configuration",
            Self::Paused => "paused",
            Self::Expired => "expired",
            Self::Renewing => "renewing",
            Self::Failing => "failing",
            Self::Waiting => "waiting",
            Self::Revoked => "revoked",
            Self::New => "new",
            Self::Rehearsed => "rehearsed",
            Self::Undeployed => "not deployed",
            Self::Valid => "valid",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
