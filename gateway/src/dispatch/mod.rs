//! Makes claims true at providers: one lane a zone, one change in flight in a lane, and whatever gathers meanwhile goes out together in the next.
//!
//! A lane holds no state of its own. Each round reads from the store what is to be done, so a crash loses nothing: the next process finds the same
//! work, reads the zone again, and does what is missing.
//!
//! Files: [`room`] what belongs to a lane; [`lane`] its rounds; [`merge`] what has to change at one owner name (pure); [`watch`] from applied to visible, [`watches`] for which claims; [`queue`] how much may wait and whose
//! turn it is; [`pace`] when a failed attempt is repeated; [`sight`] what tells that the world sees a value; [`metrics`] what is counted; [`routes`] which provider a backend means.

mod lane;
mod merge;
mod metrics;
mod pace;
mod queue;
mod room;
mod routes;
mod sight;
mod watch;
mod watches;

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use authdns::Name;
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::{sync::watch as channel, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use metrics::{DispatchMetrics, QueueMetrics};
pub use pace::Pace;
pub use queue::Full;
pub use routes::{Lent, Route, Routes};
pub use sight::{Blind, Sight};

use crate::{
    claim::{Backend, Claim, ClaimId, Holder, Lane, State, Timestamp},
    store::{Store, StoreError},
};
use room::Room;

/// The dispatcher; clones share it.
#[derive(Clone)]
pub struct Dispatcher(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    routes: Routes,
    sight: Arc<dyn Sight>,
    lanes: Mutex<HashMap<Lane, Arc<Room>>>,
    rounds: channel::Sender<u64>,
    pace: Pace,
    metrics: DispatchMetrics,
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

impl Inner {
    /// Forgets a room that has had nothing to do for a while, unless somebody has just told it of work; true if it is over.
    fn retire(&self, room: &Room) -> bool {
        let mut lanes = self.lanes.lock();
        if room.work.notified().now_or_never().is_some() {
            room.work.notify_one();
            return false;
        }
        lanes.remove(&room.lane);
        true
    }
}

impl Dispatcher {
    /// A dispatcher over backends, in the order of the configuration; its lanes end with `stop`.
    pub fn new(store: Arc<dyn Store>, routes: impl Into<Routes>, sight: Arc<dyn Sight>, pace: Pace, stop: CancellationToken) -> Self {
        Self::measured(store, routes, sight, pace, DispatchMetrics::default(), stop)
    }

    /// The same, counting into `metrics`.
    pub fn measured(
        store: Arc<dyn Store>,
        routes: impl Into<Routes>,
        sight: Arc<dyn Sight>,
        pace: Pace,
        metrics: DispatchMetrics,
        stop: CancellationToken,
    ) -> Self {
        let (rounds, _) = channel::channel(0);
        Self(Arc::new(Inner {
            store,
            routes: routes.into(),
            sight,
            lanes: Mutex::default(),
            rounds,
            pace,
            metrics,
            stop,
            tasks: TaskTracker::new(),
        }))
    }

    /// The lane for a name: the provider with the longest enclosing zone. `None` if no provider has one. Backends that work with Secrets of issuers are not
    /// asked: they know no zone without one.
    ///
    /// # Errors
    /// What a provider said, if none has a zone and at least one could not be asked.
    pub async fn route(&self, owner: &Name) -> Result<Option<Lane>, providers::Error> {
        Self::longest(self.0.routes.configured().iter().cloned(), owner).await
    }

    /// The lane for a name in one backend, with its longest enclosing zone. `None` if it has none, or there is no such backend. The Secret of an issuer is looked
    /// at first, whatever was read of it before: a tenant that takes it away means it.
    ///
    /// # Errors
    /// What the provider said, or what is wrong with the Secret.
    pub async fn route_through(&self, backend: &Backend, owner: &Name) -> Result<Option<Lane>, providers::Error> {
        if backend.secret().is_some() {
            self.0.routes.check(backend).await?;
        }
        Self::longest(self.0.routes.of(backend).into_iter(), owner).await
    }

    async fn longest(routes: impl Iterator<Item = Route> + Send, owner: &Name) -> Result<Option<Lane>, providers::Error> {
        let mut best: Option<Lane> = None;
        let mut failed = None;
        for route in routes.filter(|route| !route.finder.excludes(owner)) {
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

    /// The backends.
    pub fn routes(&self) -> &Routes {
        &self.0.routes
    }

    /// Says that there is work in a lane.
    pub fn kick(&self, lane: &Lane) {
        // Under the lock, so that no room ends that has just been told of work.
        match self.with_room(lane, |room| room.work.notify_one()) {
            Some(()) => {}
            None if lane.backend == Backend::Embedded => {}
            None => {
                let (backend, zone) = (lane.backend.as_str(), &lane.zone);
                tracing::warn!(backend, %zone, "claims wait for a backend that is no longer configured");
            }
        }
    }

    /// Changes after each round of any lane, so that whoever waits for claims knows when to look at them again.
    pub fn rounds(&self) -> channel::Receiver<u64> {
        self.0.rounds.subscribe()
    }

    /// Tries again at once what waits in the lanes of a backend for its time after a failure: its credential works again, or somebody asks.
    ///
    /// # Errors
    /// As the store says.
    pub async fn hurry(&self, backend: &str) -> Result<(), StoreError> {
        for lane in self.0.store.lanes().await?.iter().filter(|lane| lane.backend.as_str() == backend) {
            let waiting = self.0.store.work(lane).await?.into_iter().filter(|claim| claim.failure.is_some());
            self.0.store.hurry(waiting.map(|claim| claim.id).collect()).await?;
            self.kick(lane);
        }
        Ok(())
    }

    /// Lets a claim into its lane's queue.
    ///
    /// # Errors
    /// [`Full`].
    pub fn admit(&self, lane: &Lane, holder: &Holder) -> Result<(), Full> {
        self.with_room(lane, |room| room.waiting.admit(holder)).unwrap_or(Ok(()))
    }

    /// Claims that wait in the lanes of each backend, whatever Secrets it works with.
    pub fn waiting(&self) -> Vec<(Arc<str>, usize)> {
        let lanes = self.0.lanes.lock();
        let waiting = |name: Arc<str>| {
            let rooms = lanes.values().filter(|room| room.lane.backend.configured() == &*name);
            let sum = rooms.map(|room| room.waiting.len()).sum();
            (name, sum)
        };
        let routes = &self.0.routes;
        routes.configured().iter().map(|route| route.name.clone()).chain(routes.lent()).map(waiting).collect()
    }

    /// Lanes that are being worked in, or were a moment ago.
    pub fn busy_lanes(&self) -> usize {
        self.0.lanes.lock().len()
    }

    /// Does something with the lane's room, which is made and set running where it is first asked for; `None` if its backend is not configured.
    fn with_room<T>(&self, lane: &Lane, act: impl FnOnce(&Room) -> T) -> Option<T> {
        let route = self.0.routes.of(&lane.backend)?;
        Some(match self.0.lanes.lock().entry(lane.clone()) {
            Entry::Occupied(running) => act(running.get()),
            Entry::Vacant(place) => {
                let room = Arc::new(Room {
                    lane: lane.clone(),
                    route,
                    store: self.0.store.clone(),
                    sight: self.0.sight.clone(),
                    pace: self.0.pace,
                    metrics: self.0.metrics.clone(),
                    work: Default::default(),
                    rounds: self.0.rounds.clone(),
                    watches: Default::default(),
                    waiting: Default::default(),
                    refused: Default::default(),
                    tasks: self.0.tasks.clone(),
                    stop: self.0.stop.clone(),
                });
                let (running, lanes, stop) = (room.clone(), Arc::downgrade(&self.0), self.0.stop.clone());
                let run = async move {
                    while let Some(()) = stop.run_until_cancelled(running.run()).await {
                        if lanes.upgrade().is_none_or(|lanes| lanes.retire(&running)) {
                            break;
                        }
                    }
                };
                self.0.tasks.spawn(run);
                act(place.insert(room))
            }
        })
    }

    /// True if the last attempt for a claim failed, in this process, in a way that a person has to mend.
    fn is_refused(&self, claim: &Claim) -> bool {
        self.0.lanes.lock().get(&claim.lane).is_some_and(|room| room.refused.lock().contains(&claim.id))
    }

    /// Waits until claims are visible, one of them fails, or the deadline is over.
    ///
    /// # Errors
    /// As the store says.
    pub async fn settled(&self, ids: Vec<ClaimId>, deadline: Instant) -> Result<Settled, StoreError> {
        let mut rounds = self.0.rounds.subscribe();
        loop {
            let claims = self.0.store.find(ids.clone()).await?;
            // A failure that is repeated before the deadline is waited for, unless a person has to mend it.
            let now = Timestamp::now();
            let end = now.after(deadline.saturating_duration_since(Instant::now()));
            let hopeless = |claim: &&Claim| {
                claim.failure.as_ref().is_some_and(|failure| failure.retry_at > if self.is_refused(claim) { now } else { end })
            };
            let failures = claims.iter().filter(hopeless).filter_map(|claim| claim.failure.as_ref());
            if let Some(failure) = failures.max_by_key(|failure| failure.retry_at) {
                return Ok(Settled::Failing(failure.reason.clone()));
            }
            if claims.iter().all(|claim| matches!(claim.state, State::Visible | State::Releasing)) {
                return Ok(Settled::Visible);
            }
            if tokio::time::timeout_at(deadline, rounds.changed()).await.is_err() {
                let failed = claims.into_iter().find_map(|claim| claim.failure);
                return Ok(failed.map_or(Settled::Pending, |failure| Settled::Failing(failure.reason)));
            }
        }
    }

    /// Waits until what was released is gone from the providers, for as long as that may be expected before `deadline`; gives the number of values that are left.
    ///
    /// # Errors
    /// As the store says.
    pub async fn removed(&self, deadline: Instant) -> Result<usize, StoreError> {
        let mut rounds = self.0.rounds.subscribe();
        loop {
            let mut left = Vec::new();
            for lane in self.0.store.lanes().await?.iter().filter(|lane| self.with_room(lane, |_| ()).is_some()) {
                left.extend(self.0.store.work(lane).await?.into_iter().filter(|claim| claim.state == State::Releasing));
            }
            let end = Timestamp::now().after(deadline.saturating_duration_since(Instant::now()));
            let hopeful = |claim: &Claim| claim.failure.as_ref().is_none_or(|failure| failure.retry_at < end);
            if !left.iter().any(hopeful) || tokio::time::timeout_at(deadline, rounds.changed()).await.is_err() {
                return Ok(left.len());
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
