//! One lane: the rounds of reading, writing down, sending and settling.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use authdns::Name;
use providers::{Error, Progress, Receipt, TxtSet, Zone};
use tokio::sync::{Notify, watch};

use super::{Pace, Route, Sight, merge};
use crate::{
    claim::{Claim, Event, Lane, State, Timestamp},
    store::{Store, StoreError},
};

/// Owners read and changed in one round: bounds what a crash may have to look at again, and how long the others wait.
const ROUND: usize = 200;

pub(super) struct Runner {
    lane: Lane,
    route: Route,
    store: Arc<dyn Store>,
    #[allow(dead_code, reason = "taken up with the next change")]
    sight: Arc<dyn Sight>,
    pace: Pace,
}

/// What a round left.
enum Rest {
    /// Nothing; wait for a kick.
    Nothing,
    /// Work that is due after so long, or at a kick.
    Later(Duration),
}

impl Runner {
    pub(super) fn new(lane: Lane, route: Route, store: Arc<dyn Store>, sight: Arc<dyn Sight>, pace: Pace) -> Self {
        Self { lane, route, store, sight, pace }
    }

    /// Runs rounds for ever; `rounds` grows after each.
    pub(super) async fn run(&self, work: &Notify, rounds: &watch::Sender<u64>) {
        work.notified().await;
        loop {
            let rest = match self.round().await {
                Ok(rest) => rest,
                Err(error) => {
                    tracing::error!(%error, backend = self.lane.backend.as_str(), zone = %self.lane.zone, "the store failed a round");
                    Rest::Later(self.pace.longest.min(Duration::from_secs(5)))
                }
            };
            rounds.send_modify(|n| *n = n.wrapping_add(1));
            match rest {
                Rest::Nothing => work.notified().await,
                Rest::Later(wait) => {
                    let _ = tokio::time::timeout(wait, work.notified()).await;
                }
            }
        }
    }

    async fn round(&self) -> Result<Rest, StoreError> {
        let now = Timestamp::now();
        let owners = by_owner(self.store.work(&self.lane).await?);
        let due: Vec<(Name, Vec<Claim>)> =
            owners.into_iter().filter(|(_, claims)| claims.iter().any(|claim| is_due(claim, now))).take(ROUND).collect();
        if !due.is_empty() {
            self.change(due).await?;
        }
        self.watch_receipts().await?;
        self.rest().await
    }

    /// Reads, writes down what will be done, does it, writes down what came of it.
    async fn change(&self, due: Vec<(Name, Vec<Claim>)>) -> Result<(), StoreError> {
        let zone = match self.zone().await {
            Ok(zone) => zone,
            Err(error) => return self.fail(due.iter().flat_map(|(_, claims)| claims), &error).await,
        };
        let names: Vec<Name> = due.iter().map(|(owner, _)| owner.clone()).collect();
        let reads = self.route.provider.read(&zone, &names).await;
        let mut seen: BTreeMap<Name, TxtSet> = BTreeMap::new();
        let mut submissions = Vec::new();
        for ((owner, claims), read) in due.into_iter().zip(reads) {
            match read {
                Ok(set) => {
                    submissions.extend(merge::submissions(&claims, &set));
                    seen.insert(owner, set);
                }
                Err(error) => self.fail(&claims, &error).await?,
            }
        }
        self.store.advance(submissions).await?;

        let mut plans = Vec::new();
        let mut events = Vec::new();
        for (owner, claims) in by_owner(self.store.work(&self.lane).await?) {
            if let Some(set) = seen.get(&owner) {
                let mut plan = merge::plan(&owner, &claims, set);
                events.append(&mut plan.settled);
                if !plan.change.add.is_empty() || !plan.change.remove.is_empty() {
                    plans.push(plan);
                }
            }
        }
        let changes: Vec<_> = plans.iter().map(|plan| plan.change.clone()).collect();
        let results = if changes.is_empty() { Vec::new() } else { self.route.provider.apply(&zone, &changes).await };
        let missing = || Err(Error::Transport("the provider gave no result for this change".to_owned()));
        for (plan, result) in plans.iter().zip(results.into_iter().chain(std::iter::repeat_with(missing))) {
            match result {
                Ok(Receipt(receipt)) => {
                    events.extend(plan.adding.iter().map(|claim| (claim.id, Event::Applied { receipt: receipt.clone() })));
                    events.extend(plan.removing.iter().map(|claim| (claim.id, Event::Removed)));
                }
                Err(error) => {
                    let untouched = !matches!(error, Error::Transport(_));
                    events.extend(plan.adding.iter().map(|claim| (claim.id, self.failed(claim, &error, untouched))));
                    events.extend(plan.removing.iter().map(|claim| (claim.id, self.failed(claim, &error, false))));
                }
            }
        }
        self.store.advance(events).await?;
        Ok(())
    }

    async fn zone(&self) -> Result<Zone, Error> {
        self.route.finder.at(&self.lane.zone).await
    }

    /// Asks about receipts, each once for all claims that share it.
    async fn watch_receipts(&self) -> Result<(), StoreError> {
        let mut receipts: BTreeMap<String, Vec<Claim>> = BTreeMap::new();
        for claim in self.store.work(&self.lane).await? {
            if claim.state == State::Applied {
                receipts.entry(claim.receipt.clone().unwrap_or_default()).or_default().push(claim);
            }
        }
        let mut events = Vec::new();
        for (receipt, claims) in receipts {
            // Without a receipt the value was seen to stand, and nothing was sent.
            let progress = if receipt.is_empty() { Ok(Progress::Done) } else { self.route.provider.progress(&Receipt(receipt)).await };
            match progress {
                Ok(Progress::Done) => events.extend(claims.iter().map(|claim| (claim.id, Event::Seen))),
                Ok(Progress::Pending) => {}
                Err(error) => events.extend(claims.iter().map(|claim| (claim.id, self.failed(claim, &error, false)))),
            }
        }
        if !events.is_empty() {
            self.store.advance(events).await?;
        }
        Ok(())
    }

    async fn rest(&self) -> Result<Rest, StoreError> {
        let now = Timestamp::now();
        let next = self
            .store
            .work(&self.lane)
            .await?
            .iter()
            .filter(|claim| claim.state != State::Visible)
            .map(|claim| match &claim.failure {
                Some(failure) => failure.retry_at,
                None if claim.state == State::Applied => now.after(self.pace.poll),
                None => now,
            })
            .min();
        Ok(next.map_or(Rest::Nothing, |at| Rest::Later(Duration::from_millis(at.0.saturating_sub(now.0).max(0).unsigned_abs()))))
    }

    /// Notes that nothing could be sent for these claims.
    async fn fail<'c>(&self, claims: impl IntoIterator<Item = &'c Claim>, error: &Error) -> Result<(), StoreError> {
        let now = Timestamp::now();
        let events =
            claims.into_iter().filter(|claim| is_due(claim, now)).map(|claim| (claim.id, self.failed(claim, error, false))).collect();
        self.store.advance(events).await?;
        Ok(())
    }

    fn failed(&self, claim: &Claim, error: &Error, untouched: bool) -> Event {
        let attempts = claim.failure.as_ref().map_or(0, |failure| failure.attempts);
        let doubled = self.pace.first.saturating_mul(1u32.checked_shl(attempts.min(16)).unwrap_or(u32::MAX)).min(self.pace.longest);
        let wait = match error {
            // Somebody was quicker: read again at once.
            Error::Conflict(_) => Duration::ZERO,
            Error::RateLimited { retry_after: Some(after), .. } => doubled.max(*after),
            _ => doubled,
        };
        Event::Failed { reason: error.to_string(), retry_at: Timestamp::now().after(wait), untouched }
    }
}

fn by_owner(claims: Vec<Claim>) -> BTreeMap<Name, Vec<Claim>> {
    let mut owners: BTreeMap<Name, Vec<Claim>> = BTreeMap::new();
    for claim in claims {
        owners.entry(claim.owner.clone()).or_default().push(claim);
    }
    owners
}

/// True if the claim waits for a change, and its time has come.
fn is_due(claim: &Claim, now: Timestamp) -> bool {
    matches!(claim.state, State::Wanted | State::Submitted | State::Releasing)
        && claim.failure.as_ref().is_none_or(|failure| failure.retry_at <= now)
}
