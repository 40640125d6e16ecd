//! One lane: the rounds of reading, writing down, sending and settling.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use authdns::Name;
use providers::{Error, Receipt, TxtSet, Zone};
use tokio::time::timeout;

use super::{merge, queue::turns, room::Room, watch::Watch};
use crate::{
    claim::{Claim, ClaimId, Event, State, Timestamp},
    store::StoreError,
};

/// [`Pace::gather`]s that a round waits at most while claims keep coming.
const MOST_GATHERS: u32 = 10;

/// What a round left.
enum Rest {
    /// Nothing; wait for a kick.
    Nothing,
    /// Work that is due after so long, or at a kick.
    Later(Duration),
}

impl Room {
    /// Runs rounds until there has been nothing to do for [`Pace::idle`](super::Pace::idle); `rounds` grows after each.
    pub(super) async fn run(self: &Arc<Self>) {
        self.work.notified().await;
        loop {
            self.gather().await;
            let rest = match self.round().await {
                Ok(rest) => rest,
                Err(error) => {
                    tracing::error!(%error, backend = self.lane.backend.as_str(), zone = %self.lane.zone, "the store failed a round");
                    Rest::Later(self.pace.longest.min(Duration::from_secs(5)))
                }
            };
            self.rounds.send_modify(|n| *n = n.wrapping_add(1));
            match rest {
                // What is watched comes back here when it was seen.
                Rest::Nothing => {
                    if timeout(self.pace.idle, self.work.notified()).await.is_err() && self.watches.is_empty() {
                        return;
                    }
                }
                Rest::Later(wait) => {
                    let _ = timeout(wait, self.work.notified()).await;
                }
            }
        }
    }

    /// A thousand claims do not arrive in one instant; a few milliseconds make one change of them. As long as more come, it waits on, but not for long.
    async fn gather(&self) {
        let quiet = async { while timeout(self.pace.gather, self.work.notified()).await.is_ok() {} };
        let _ = timeout(self.pace.gather * MOST_GATHERS, quiet).await;
    }

    async fn round(self: &Arc<Self>) -> Result<Rest, StoreError> {
        let now = Timestamp::now();
        let claims = self.store.work(&self.lane).await?;
        // What is no longer applied is no longer watched, before it is changed.
        self.watch(&claims, now);
        let due = by_owner(claims).into_iter().filter(|(_, claims)| claims.iter().any(|claim| is_due(claim, now))).collect();
        let due = turns(due, self.route.provider.limits().owners.max(1));
        if !due.is_empty() {
            self.change(due, now).await?;
        }
        let claims = self.store.work(&self.lane).await?;
        self.waiting.recount(&claims);
        let failing: HashSet<ClaimId> = claims.iter().filter(|claim| claim.failure.is_some()).map(|claim| claim.id).collect();
        self.refused.lock().retain(|id| failing.contains(id));
        self.watch(&claims, Timestamp::now());
        Ok(self.rest(&claims))
    }

    /// Begins a watch for each receipt whose claims are applied and are not watched.
    fn watch(self: &Arc<Self>, claims: &[Claim], now: Timestamp) {
        for batch in self.watches.begin(claims, now) {
            let (watch, stop) = (Watch::new(self.clone(), batch), self.stop.clone());
            self.tasks.spawn(async move { stop.run_until_cancelled(watch.run()).await });
        }
    }

    /// Reads, writes down what will be done, does it, writes down what came of it.
    async fn change(&self, due: Vec<(Name, Vec<Claim>)>, now: Timestamp) -> Result<(), StoreError> {
        let zone = match self.zone().await {
            Ok(zone) => zone,
            Err(error) => return self.fail(due.iter().flat_map(|(_, claims)| claims), &error, now).await,
        };
        let names: Vec<Name> = due.iter().map(|(owner, _)| owner.clone()).collect();
        let reads = self.read(&zone, &names).await;
        let mut seen: BTreeMap<Name, TxtSet> = BTreeMap::new();
        let mut submissions = Vec::new();
        // What was sent before and has no answer may still arrive, whatever the answer of this round.
        let sent: HashSet<ClaimId> =
            due.iter().flat_map(|(_, claims)| claims).filter(|claim| claim.state == State::Submitted).map(|claim| claim.id).collect();
        for ((owner, claims), read) in due.into_iter().zip(reads) {
            match read {
                Ok(set) => {
                    submissions.extend(merge::submissions(&claims, &set));
                    seen.insert(owner, set);
                }
                Err(error) => self.fail(&claims, &error, now).await?,
            }
        }
        self.store.advance(submissions).await?;

        let limits = self.route.provider.limits();
        let mut plans = Vec::new();
        let mut events = Vec::new();
        for (owner, claims) in by_owner(self.store.work(&self.lane).await?) {
            if let Some(set) = seen.get(&owner) {
                let mut plan = merge::plan(&owner, &claims, set, limits);
                events.append(&mut plan.settled);
                let refused = Error::Rejected(format!("this backend holds {} values at one name, and no more", limits.values));
                events.extend(plan.refused.iter().map(|claim| (claim.id, self.failed(claim, &refused, !sent.contains(&claim.id)))));
                if !plan.change.add.is_empty() || !plan.change.remove.is_empty() {
                    plans.push(plan);
                }
            }
        }
        let changes: Vec<_> = plans.iter().map(|plan| plan.change.clone()).collect();
        let results = self.apply(&zone, &changes).await;
        for (plan, result) in plans.iter().zip(results) {
            self.metrics.changed(self.lane.backend.configured(), &result);
            match result {
                Ok(Receipt(receipt)) => {
                    events.extend(plan.adding.iter().map(|claim| (claim.id, Event::Applied { receipt: receipt.clone() })));
                    events.extend(plan.removing.iter().map(|claim| (claim.id, Event::Removed)));
                }
                Err(error) => {
                    self.look_again(&error);
                    let claims = plan.adding.iter().chain(&plan.removing);
                    events.extend(claims.map(|claim| {
                        let untouched = error.is_untouched() && !sent.contains(&claim.id);
                        (claim.id, self.failed(claim, &error, untouched))
                    }));
                }
            }
        }
        self.store.advance(events).await?;
        Ok(())
    }

    /// The zone. That there is none is not taken from memory: an attempt is half a minute after the one before at least, and the zone may be back.
    async fn zone(&self) -> Result<Zone, Error> {
        match self.route.finder.at(&self.lane.zone).await {
            Err(error @ Error::NotFound(_)) => {
                self.look_again(&error);
                self.route.finder.at(&self.lane.zone).await
            }
            found => found,
        }
    }

    /// One result for each owner.
    async fn read(&self, zone: &Zone, owners: &[Name]) -> Vec<Result<TxtSet, Error>> {
        let read = timeout(self.pace.deadline, self.route.provider.read(zone, owners)).await;
        let late = || Err(Error::Unsent(format!("reading took longer than {} s", self.pace.deadline.as_secs_f64())));
        let results = read.unwrap_or_default();
        if let Some(error) = results.iter().find_map(|result| result.as_ref().err()) {
            self.look_again(error);
        }
        results.into_iter().chain(std::iter::repeat_with(late)).take(owners.len()).collect()
    }

    /// One result for each change.
    async fn apply(&self, zone: &Zone, changes: &[providers::Change]) -> Vec<Result<Receipt, Error>> {
        if changes.is_empty() {
            return Vec::new();
        }
        self.metrics.handed_over(self.lane.backend.configured(), changes.len());
        let applied = timeout(self.pace.deadline, self.route.provider.apply(zone, changes)).await;
        let late = || Err(Error::Transport(format!("the change took longer than {} s", self.pace.deadline.as_secs_f64())));
        applied.unwrap_or_default().into_iter().chain(std::iter::repeat_with(late)).take(changes.len()).collect()
    }

    /// A zone that is not there is looked up anew the next time.
    fn look_again(&self, error: &Error) {
        if matches!(error, Error::NotFound(_)) {
            self.route.finder.forget(&self.lane.zone);
        }
    }

    /// When the next round is due.
    fn rest(&self, claims: &[Claim]) -> Rest {
        let now = Timestamp::now();
        // A watch kicks the lane when it ends.
        let next = claims
            .iter()
            .filter(|claim| claim.state != State::Visible && !self.watches.is_watched(claim.id))
            .map(|claim| claim.failure.as_ref().map_or(now, |failure| failure.retry_at))
            .min();
        next.map_or(Rest::Nothing, |at| Rest::Later(Duration::from_millis(at.0.saturating_sub(now.0).max(0).unsigned_abs())))
    }

    /// Notes for the claims that are due that nothing could be sent for them.
    async fn fail<'c>(&self, claims: impl IntoIterator<Item = &'c Claim>, error: &Error, now: Timestamp) -> Result<(), StoreError> {
        // What was sent before this round may be there all the same: only an answer to the change itself could say that nothing was done.
        let due = claims.into_iter().filter(|claim| is_due(claim, now));
        self.store.advance(due.map(|claim| (claim.id, self.failed(claim, error, false))).collect()).await?;
        Ok(())
    }

    fn failed(&self, claim: &Claim, error: &Error, untouched: bool) -> Event {
        let attempts = claim.failure.as_ref().map_or(0, |failure| failure.attempts);
        let retry_at = Timestamp::now().after(self.pace.wait(error, attempts));
        if error.is_retryable() {
            self.refused.lock().remove(&claim.id);
        } else {
            self.refused.lock().insert(claim.id);
        }
        Event::Failed { reason: error.to_string(), retry_at, untouched }
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
