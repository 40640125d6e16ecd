//! Finds what acmegate left behind at providers, and removes it.
//!
//! Two sources say what is ours. The ledger: claims whose time is over or that were let go, and whose values still stand. And, where the provider can
//! carry one, the mark on each record: a value with our mark that no claim names was left by a process whose ledger is gone or was set back.
//!
//! The sweep itself never writes DNS. What it finds it hands to the dispatcher, as claims that are being released: so a value is removed only where it
//! is ours, one change at a time in each zone, and never while somebody claims it.

mod find;
mod report;
mod schedule;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use authdns::Name;
use tokio::time::Instant;

pub use report::{Outcome, Report, Row, SweepError, SweepRequest, Unasked, Why};
pub use schedule::{Schedule, SweepMetrics};

use crate::{
    claim::{Claim, ClaimId, Holder, Lane, State, Timestamp, Value},
    dispatch::{Dispatcher, Route},
    ledger::Ledger,
    store::{NewClaim, Store, StoreError},
};

/// How long the removal of everything that was found may take, before what is left is reported as such. The dispatcher goes on with it.
const PATIENCE: Duration = Duration::from_secs(50);

/// What looks for leftovers; clones share its parts.
#[derive(Clone)]
pub struct Sweeper {
    store: Arc<dyn Store>,
    ledger: Ledger,
    dispatch: Dispatcher,
    routes: Vec<Route>,
    mark: Arc<str>,
    patience: Duration,
}

/// What a sweep looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Scope<'a> {
    /// One backend alone.
    backend: Option<&'a str>,
    /// Leaves out what should be gone only since this: the dispatcher is at it.
    until: Option<Timestamp>,
    /// Looks for marks, too; they cost a listing of each zone.
    marks: bool,
}

/// A value that should be gone and still stands.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Leftover {
    lane: Lane,
    owner: Name,
    value: Value,
    why: Why,
    since: Option<Timestamp>,
    /// The claim that names it, and how often its removal had failed when it was found; `None` for a stray.
    claim: Option<(ClaimId, u32)>,
    /// Why it cannot be removed at all.
    hopeless: Option<String>,
}

impl Sweeper {
    /// A sweeper over the parts of an engine.
    pub fn new(store: Arc<dyn Store>, ledger: Ledger, dispatch: Dispatcher, routes: Vec<Route>, mark: Arc<str>) -> Self {
        Self { store, ledger, dispatch, routes, mark, patience: PATIENCE }
    }

    /// The same, waiting so long for removals.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Finds what was left behind, and removes it if that is asked for.
    ///
    /// # Errors
    /// As [`SweepError`] says. A backend that cannot be asked is no error: the report names it.
    pub async fn sweep(&self, request: &SweepRequest) -> Result<Report, SweepError> {
        if let Some(backend) = &request.backend
            && !self.names().any(|name| name == *backend)
        {
            let known = self.names().collect();
            return Err(SweepError::NoBackend { backend: backend.clone(), known });
        }
        Ok(self.run(Scope { backend: request.backend.as_deref(), until: None, marks: true }, request.apply).await?)
    }

    /// The backends, with those that work with Secrets of issuers: what those left is in the ledger alone.
    fn names(&self) -> impl Iterator<Item = String> {
        self.routes.iter().map(|route| route.name.clone()).chain(self.dispatch.routes().lent()).map(|name| name.to_string())
    }

    async fn run(&self, scope: Scope<'_>, apply: bool) -> Result<Report, StoreError> {
        let (leftovers, unasked) = self.find(scope).await?;
        let outcomes = if apply { self.remove(&leftovers).await? } else { vec![Outcome::WouldRemove; leftovers.len()] };
        let rows = leftovers.iter().zip(outcomes).map(|(leftover, outcome)| {
            let outcome = leftover.hopeless.clone().map_or(outcome, |reason| Outcome::Failed { reason });
            Row::new(leftover, outcome)
        });
        Ok(Report { rows: rows.collect(), unasked })
    }

    /// Has the dispatcher remove what was found, and waits for it; one outcome for each.
    async fn remove(&self, leftovers: &[Leftover]) -> Result<Vec<Outcome>, StoreError> {
        let strays = leftovers.iter().filter(|leftover| leftover.claim.is_none());
        let strays = strays.map(|stray| NewClaim {
            lane: stray.lane.clone(),
            owner: stray.owner.clone(),
            value: stray.value.clone(),
            holder: Holder::sweep(&self.mark),
            expires: None,
            keep: None,
        });
        let adopted = self.store.adopt(strays.collect()).await?;
        // Releases, and wakes the lanes, for every claim whose time is over: not only those of this scope, for they are due.
        self.ledger.expire(Timestamp::now()).await.map_err(store_error)?;
        let adopted_for = |stray: &Leftover| {
            adopted.iter().find(|claim| claim.owner == stray.owner && claim.value == stray.value).map(|claim| (claim.id, 0))
        };
        let id_of = |leftover: &Leftover| leftover.claim.or_else(|| adopted_for(leftover));
        let claims: Vec<Option<(ClaimId, u32)>> =
            leftovers.iter().map(|leftover| id_of(leftover).filter(|_| leftover.hopeless.is_none())).collect();
        let ids: Vec<ClaimId> = claims.iter().flatten().map(|&(id, _)| id).collect();
        self.store.hurry(ids.clone()).await?;
        let mut rounds = self.dispatch.rounds();
        let lanes: BTreeSet<&Lane> =
            leftovers.iter().filter(|leftover| leftover.hopeless.is_none()).map(|leftover| &leftover.lane).collect();
        lanes.into_iter().for_each(|lane| self.dispatch.kick(lane));
        let deadline = Instant::now() + self.patience;
        loop {
            let standing: HashMap<ClaimId, Claim> =
                self.store.find(ids.clone()).await?.into_iter().map(|claim| (claim.id, claim)).collect();
            let outcomes: Vec<Option<Outcome>> = claims.iter().map(|claim| outcome(*claim, &standing)).collect();
            let over = Instant::now() >= deadline;
            if over || outcomes.iter().all(Option::is_some) {
                let late = || Outcome::Failed { reason: "not removed yet; acmegate goes on trying".to_owned() };
                return Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(late)).collect());
            }
            let _ = tokio::time::timeout_at(deadline, rounds.changed()).await;
        }
    }
}

/// What became of a leftover; `None` while it is being worked on.
fn outcome(claim: Option<(ClaimId, u32)>, standing: &HashMap<ClaimId, Claim>) -> Option<Outcome> {
    // A stray that was not adopted is claimed by now; so is a claim that is released no more.
    let Some((id, attempts)) = claim else { return Some(Outcome::Claimed) };
    let Some(claim) = standing.get(&id) else { return Some(Outcome::Removed) };
    if claim.state != State::Releasing {
        return Some(Outcome::Claimed);
    }
    let failure = claim.failure.as_ref().filter(|failure| failure.attempts > attempts)?;
    Some(Outcome::Failed { reason: failure.reason.clone() })
}

fn store_error(error: crate::ledger::ClaimError) -> StoreError {
    match error {
        crate::ledger::ClaimError::Store(error) => error,
        other => StoreError::Failed(other.to_string()),
    }
}
