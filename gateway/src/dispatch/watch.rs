//! From applied to visible: the provider's receipt is done, and then the servers of the zone answer.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use authdns::Name;
use parking_lot::Mutex;
use providers::{Progress, Receipt};
use tokio::{
    sync::mpsc,
    time::{Duration, Instant, sleep},
};

use super::lane::Room;
use crate::{
    claim::{Claim, ClaimId, Event, State, Timestamp},
    store::StoreError,
};

/// The longest pause between two looks at a receipt.
const LONGEST_POLL: Duration = Duration::from_secs(10);

/// Which claims of a lane are being watched, each by which watch.
#[derive(Debug, Default)]
pub(super) struct Watches {
    by_claim: Mutex<HashMap<ClaimId, u64>>,
    next: Mutex<u64>,
}

/// Waits for the claims of one receipt.
pub(super) struct Watch {
    room: Arc<Room>,
    number: u64,
    receipt: Receipt,
    claims: Vec<Claim>,
    begun: Instant,
}

impl Watches {
    /// The applied claims that are due to be watched and are not, by receipt. A claim that has left the state meanwhile is no longer watched, so that what
    /// its watch saw before is not taken for what comes after.
    pub(super) fn begin(&self, claims: &[Claim], now: Timestamp) -> Vec<(u64, Receipt, Vec<Claim>)> {
        let mut by_claim = self.by_claim.lock();
        let applied: HashMap<ClaimId, &Claim> =
            claims.iter().filter(|claim| claim.state == State::Applied).map(|claim| (claim.id, claim)).collect();
        by_claim.retain(|id, _| applied.contains_key(id));
        let mut batches: BTreeMap<String, Vec<Claim>> = BTreeMap::new();
        for claim in applied.values() {
            let due = claim.failure.as_ref().is_none_or(|failure| failure.retry_at <= now);
            if due && !by_claim.contains_key(&claim.id) {
                batches.entry(claim.receipt.clone().unwrap_or_default()).or_default().push((*claim).clone());
            }
        }
        let mut next = self.next.lock();
        let number = |(receipt, claims): (String, Vec<Claim>)| {
            *next += 1;
            by_claim.extend(claims.iter().map(|claim| (claim.id, *next)));
            (*next, Receipt(receipt), claims)
        };
        batches.into_iter().map(number).collect()
    }

    pub(super) fn is_watched(&self, id: ClaimId) -> bool {
        self.by_claim.lock().contains_key(&id)
    }

    /// Those of `ids` that watch `number` still watches.
    fn held<'c>(&self, number: u64, claims: impl Iterator<Item = &'c Claim>) -> Vec<ClaimId> {
        let by_claim = self.by_claim.lock();
        claims.map(|claim| claim.id).filter(|id| by_claim.get(id) == Some(&number)).collect()
    }

    fn end(&self, number: u64) {
        self.by_claim.lock().retain(|_, watch| *watch != number);
    }
}

impl Watch {
    pub(super) fn new(room: Arc<Room>, (number, receipt, claims): (u64, Receipt, Vec<Claim>)) -> Self {
        Self { room, number, receipt, claims, begun: Instant::now() }
    }

    /// Runs to its end; then the lane looks again at what is left.
    pub(super) async fn run(self) {
        let done = match self.receipt_done().await {
            Ok(()) => self.seen().await,
            Err(error) => {
                let reason = error.to_string();
                let wait = |claim: &Claim| self.room.pace.wait(&error, failures(claim));
                self.fail(&reason, wait).await
            }
        };
        if let Err(error) = done {
            tracing::error!(%error, backend = self.room.lane.backend.as_str(), zone = %self.room.lane.zone, "the store failed a watch");
            // The lane would begin it again at once.
            sleep(self.room.pace.first).await;
        }
        self.room.watches.end(self.number);
        self.room.rounds.send_modify(|n| *n = n.wrapping_add(1));
        self.room.work.notify_one();
    }

    /// Asks the provider, at first as often as it likes, then less and less.
    async fn receipt_done(&self) -> Result<(), providers::Error> {
        if self.receipt.0.is_empty() {
            return Ok(());
        }
        let mut pause = self.room.route.provider.limits().poll;
        while self.room.route.provider.progress(&self.receipt).await? == Progress::Pending {
            if self.room.watches.held(self.number, self.claims.iter()).is_empty() {
                return Ok(());
            }
            sleep(pause).await;
            pause = pause.mul_f64(1.25).min(LONGEST_POLL.max(pause));
        }
        Ok(())
    }

    async fn seen(&self) -> Result<(), StoreError> {
        let mut values: BTreeMap<Name, BTreeSet<String>> = BTreeMap::new();
        for claim in &self.claims {
            values.entry(claim.owner.clone()).or_default().insert(claim.value.as_str().to_owned());
        }
        // As many owners as there are values at most: it cannot grow.
        let (sender, mut owners) = mpsc::unbounded_channel::<Name>();
        let tell = move |owner: &Name| {
            let _ = sender.send(owner.clone());
        };
        let note = async {
            let mut batch = Vec::new();
            while owners.recv_many(&mut batch, 1024).await > 0 {
                let seen: BTreeSet<Name> = batch.drain(..).collect();
                let seconds = self.begun.elapsed().as_secs_f64();
                seen.iter().for_each(|_| self.room.metrics.seen(&self.room.route.name, seconds));
                let ids = self.room.watches.held(self.number, self.claims.iter().filter(|claim| seen.contains(&claim.owner)));
                self.room.store.advance(ids.into_iter().map(|id| (id, Event::Seen)).collect()).await?;
                self.room.rounds.send_modify(|n| *n = n.wrapping_add(1));
            }
            Ok::<(), StoreError>(())
        };
        let wait = async {
            let tell = tell;
            self.room.sight.wait(&self.room.lane, &values, &tell).await
        };
        let (waited, noted) = tokio::join!(wait, note);
        noted?;
        match waited {
            Ok(()) => Ok(()),
            Err(reason) => self.fail(&reason, |_| self.room.pace.first).await,
        }
    }

    /// Notes a failure for what was not seen.
    async fn fail(&self, reason: &str, wait: impl Fn(&Claim) -> Duration) -> Result<(), StoreError> {
        let now = Timestamp::now();
        let held: BTreeSet<ClaimId> = self.room.watches.held(self.number, self.claims.iter()).into_iter().collect();
        let failed =
            |claim: &Claim| (claim.id, Event::Failed { reason: reason.to_owned(), retry_at: now.after(wait(claim)), untouched: false });
        let events = self.room.store.find(held.into_iter().collect()).await?;
        let events = events.iter().filter(|claim| claim.state == State::Applied).map(failed).collect();
        self.room.store.advance(events).await.map(drop)
    }
}

fn failures(claim: &Claim) -> u32 {
    claim.failure.as_ref().map_or(0, |failure| failure.attempts)
}
