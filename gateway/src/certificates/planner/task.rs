//! What the planner is told, what it hands out, and what comes back.

use std::time::Duration;

use crate::{
    claim::Timestamp,
    issuer::{Exhausted, OrderKind},
    store::{BudgetRow, Standing, Window},
};

/// A certificate as the configuration wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name in the list.
    pub name: String,
    /// The DNS names.
    pub names: Vec<String>,
    /// The URLs of the CAs' directories, in the order in which they are tried.
    pub directories: Vec<String>,
    /// A fingerprint of all that makes it another certificate when it changes: names, key type, directories, profile.
    pub wish: String,
    /// Renew so long before the end.
    pub renew_before: Option<Duration>,
    /// A fingerprint of where it goes; empty if nowhere.
    pub deployment: String,
    /// Rehearse only.
    pub dry_run: bool,
}

/// How many tasks of each kind may be handed out now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    /// Orders.
    pub orders: usize,
    /// Polls of renewal information.
    pub polls: usize,
    /// Deployments.
    pub deployments: usize,
}

/// Something to do. It is in flight until its outcome is told; there is one of each kind at most for each certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Get a certificate; then [`super::Planner::ordered`].
    Order(Order),
    /// Ask for renewal information (RFC 9773, 4.1); then [`super::Planner::polled`].
    Poll {
        /// The certificate's name in the list.
        name: String,
        /// The URL of the directory of the CA that issued it.
        directory: String,
        /// Its identifier there.
        id: String,
    },
    /// Put what is stored where it goes; then [`super::Planner::deployed`].
    Deploy {
        /// The certificate's name in the list.
        name: String,
    },
}

/// A certificate to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its name in the list.
    pub name: String,
    /// The URL of the directory to begin with: the first of [`Wanted::directories`] whose limits allow it. What comes before it is used up; what comes after it
    /// is to be tried if it is down or refuses, and asked of the budget then.
    pub directory: String,
    /// What it is to that CA.
    pub kind: OrderKind,
    /// What it replaces there (RFC 9773, 5).
    pub replaces: Option<String>,
    /// Why.
    pub why: Why,
    /// What was taken of the budget for it, to be written with the intent. Empty where nothing is counted, and where it is the rest of an order that is under
    /// way ([`super::Planner::resume`]) or a rehearsal.
    pub taken: Vec<BudgetRow>,
}

/// Why a certificate is got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    /// Somebody asked for it.
    Asked,
    /// The one that is there was revoked.
    Revoked,
    /// An order is under way that was begun before a restart.
    UnderWay,
    /// There is none.
    New,
    /// The configuration changed.
    Changed,
    /// It is time.
    Due,
    /// `dry_run`.
    Rehearsal,
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq)]
pub enum Ordered {
    /// There is a certificate.
    Issued(Standing),
    /// A rehearsal went well.
    Rehearsed,
    /// There is none.
    Failed {
        /// Why: a deterministic text.
        text: String,
        /// Not before, if the CA said so.
        retry_at: Option<Timestamp>,
    },
    /// The CA has paused a name until a person tells it to go on.
    Paused {
        /// What it said.
        text: String,
        /// Where to tell it.
        url: String,
    },
    /// Nothing was sent, for a limit that is used up.
    Waits(Exhausted),
    /// It was stopped before it was done, as when the process ends.
    Stopped,
}

/// What came of a poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Polled {
    /// The CA's window.
    Window {
        /// The window.
        window: Window,
        /// When to ask again (Retry-After).
        retry_at: Option<Timestamp>,
    },
    /// The CA has no renewal information, or none of this certificate.
    Nothing,
    /// No answer.
    Failed {
        /// When to ask again, if it said so.
        retry_at: Option<Timestamp>,
    },
}

/// What came of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deployed {
    /// All is where it goes.
    Done,
    /// Not all.
    Failed {
        /// Why: a deterministic text.
        text: String,
    },
    /// It was stopped before it was done.
    Stopped,
}
