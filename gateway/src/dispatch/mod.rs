//! Makes claims true at providers: one lane a zone, one change in flight in a lane, and whatever gathers meanwhile goes out together in the next.
//!
//! A lane holds no state of its own. Each round reads from the store what is to be done, so a crash loses nothing: the next process finds the same
//! work, reads the zone again, and does what is missing.

mod lane;
mod merge;
mod sight;

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use authdns::Name;
use parking_lot::Mutex;
use providers::{Provider, zones::Finder};
pub use sight::{Blind, Sight};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    claim::{Backend, ClaimId, Lane, State, Timestamp},
    store::{Store, StoreError},
};

/// How failed attempts are repeated.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Wait after the first failure; doubled after each.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// Between two looks at a receipt.
    pub poll: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(300), poll: Duration::from_secs(1) }
    }
}

/// The dispatcher; clones share it.
#[derive(Clone)]
pub struct Dispatcher(Arc<Inner>);

/// A provider under its name in the configuration.
#[derive(Clone)]
pub struct Route {
    /// The backend's name.
    pub name: Arc<str>,
    /// What it talks to.
    pub provider: Arc<dyn Provider>,
    /// The zones that it may write.
    pub finder: Finder,
}

struct Inner {
    store: Arc<dyn Store>,
    routes: Vec<Route>,
    sight: Arc<dyn Sight>,
    lanes: Mutex<HashMap<Lane, Arc<Notify>>>,
    rounds: watch::Sender<u64>,
    pace: Pace,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// How far claims have come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// All are visible, or released meanwhile.
    Visible,
    /// The last attempt for one of them failed; it will be repeated.
    Failing(String),
    /// Not yet.
    Pending,
}

impl Dispatcher {
    /// A dispatcher over backends, in the order of the configuration; its lanes end with `stop`.
    pub fn new(store: Arc<dyn Store>, routes: Vec<Route>, sight: Arc<dyn Sight>, pace: Pace, stop: CancellationToken) -> Self {
        let (rounds, _) = watch::channel(0);
        Self(Arc::new(Inner { store, routes, sight, lanes: Mutex::default(), rounds, pace, stop, tasks: TaskTracker::new() }))
    }

    /// The lane for a name: the provider with the longest enclosing zone. `None` if no provider has one.
    ///
    /// # Errors
    /// What a provider said, if none has a zone and at least one could not be asked.
    pub async fn route(&self, owner: &Name) -> Result<Option<Lane>, providers::Error> {
        let mut best: Option<Lane> = None;
        let mut failed = None;
        for route in self.0.routes.iter().filter(|route| !route.finder.excludes(owner)) {
            match route.finder.find(owner).await {
                Ok(Some(zone)) if best.as_ref().is_none_or(|best| zone.name.depth() > best.zone.depth()) => {
                    best = Some(Lane { backend: Backend::Provider(route.name.clone()), zone: zone.name });
                }
                Ok(_) | Err(providers::Error::NotFound(_)) => {}
                Err(error) => failed = Some(error),
            }
        }
        match (best, failed) {
            (None, Some(error)) => Err(error),
            (best, _) => Ok(best),
        }
    }

    /// Takes up every lane that an earlier process left with work.
    ///
    /// # Errors
    /// As the store says.
    pub async fn resume(&self) -> Result<(), StoreError> {
        for lane in self.0.store.lanes().await? {
            self.kick(&lane);
        }
        Ok(())
    }

    /// Says that there is work in a lane.
    pub fn kick(&self, lane: &Lane) {
        let Backend::Provider(name) = &lane.backend else { return };
        let Some(route) = self.0.routes.iter().find(|route| route.name == *name) else {
            tracing::warn!(backend = %name, zone = %lane.zone, "claims wait for a backend that is no longer configured");
            return;
        };
        match self.0.lanes.lock().entry(lane.clone()) {
            Entry::Occupied(running) => running.get().notify_one(),
            Entry::Vacant(place) => {
                let work = place.insert(Arc::new(Notify::new())).clone();
                work.notify_one();
                let runner = lane::Runner::new(lane.clone(), route.clone(), self.0.store.clone(), self.0.sight.clone(), self.0.pace);
                let (rounds, stop) = (self.0.rounds.clone(), self.0.stop.clone());
                self.0.tasks.spawn(async move { stop.run_until_cancelled(runner.run(&work, &rounds)).await });
            }
        }
    }

    /// Changes after each round of any lane, so that whoever waits for claims knows when to look at them again.
    pub fn rounds(&self) -> watch::Receiver<u64> {
        self.0.rounds.subscribe()
    }

    /// Waits until claims are visible, one of them fails, or the deadline is over.
    ///
    /// # Errors
    /// As the store says.
    pub async fn settled(&self, ids: Vec<ClaimId>, deadline: Instant) -> Result<Settled, StoreError> {
        let mut rounds = self.0.rounds.subscribe();
        loop {
            let claims = self.0.store.find(ids.clone()).await?;
            // A failure that is due again at once (somebody else changed the RRset) is being repeated already.
            let now = Timestamp::now();
            if let Some(failure) = claims.iter().filter_map(|claim| claim.failure.as_ref()).find(|failure| failure.retry_at > now) {
                return Ok(Settled::Failing(failure.reason.clone()));
            }
            if claims.iter().all(|claim| matches!(claim.state, State::Visible | State::Releasing)) {
                return Ok(Settled::Visible);
            }
            if tokio::time::timeout_at(deadline, rounds.changed()).await.is_err() {
                return Ok(Settled::Pending);
            }
        }
    }

    /// Ends the lanes and waits for them; what they had not finished is taken up by the next process.
    pub async fn close(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}
