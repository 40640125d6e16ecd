//! From applied to visible: the provider's receipt is done, and then the servers of the zone answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use authdns::Name;
use providers::{Progress, Receipt};
use tokio::{
    sync::mpsc,
    time::{Duration, Instant, sleep},
};

use super::room::Room;
use crate::{
    claim::{Claim, ClaimId, Event, State, Timestamp},
    store::StoreError,
};

/// The longest pause between two looks at a receipt.
const LONGEST_POLL: Duration = Duration::from_secs(10);

/// Waits for the claims of one receipt.
pub(super) struct Watch {
    room: Arc<Room>,
    number: u64,
    receipt: Receipt,
    claims: Vec<Claim>,
    begun: Instant,
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
                seen.iter().for_each(|_| self.room.metrics.seen(self.room.lane.backend.configured(), seconds));
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
