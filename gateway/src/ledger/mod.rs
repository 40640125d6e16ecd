//! The claim ledger: what shall stand in DNS, on disk before it is in DNS, and until it is gone from DNS.
//!
//! Every door is a client of the [`Ledger`], and so is the issuer. A claim in an embedded zone is true as soon as it is committed: the zone in
//! memory is a projection of the ledger, made again at each start. A claim in a provider's zone is handed to [`crate::dispatch`], and waited for.

mod embedded;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use authdns::{Name, Zones};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

pub use embedded::EmbeddedZones;

pub use crate::claim::{Backend, BadValue, Holder, MAX_VALUE, Release, Request, Value};
use crate::{
    claim::{Claim, Lane, State, Timestamp},
    dispatch::{Dispatcher, Full, Settled},
    store::{NewClaim, OrderEnd, OrderEntry, Store, StoreError},
};

/// How long a door waits for a provider before it is told to come back; cert-manager's callers are cut at 34 s.
const PATIENCE: Duration = Duration::from_secs(25);
/// How often expired claims are looked for.
const EXPIRY_TICK: Duration = Duration::from_secs(1);
/// Ticks after which every lane with work is kicked again: a caller that went away between its commit and its kick left one unkicked.
const RESUME_TICKS: u32 = 30;
/// Claims released in one transaction of the expiry.
const EXPIRY_BATCH: u32 = 500;

/// The ledger; clones share it.
#[derive(Clone)]
pub struct Ledger {
    store: Arc<dyn Store>,
    zones: Zones,
    dispatch: Dispatcher,
}

/// Why a claim was not taken, or is not true yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// No zone and no backend serves the name.
    #[error("no zone that acmegate can write encloses {0}: add the zone to dns.zones, or correct the name")]
    NoZone(Name),
    /// The backend that was asked for is not in the configuration.
    #[error(
        "acmegate has no backend {0:?}: correct the name, or leave it out to have the backend with the longest zone around the name taken"
    )]
    NoBackend(String),
    /// The backend works with Secrets of issuers alone, and none was named.
    #[error("the backend {0} has no credential of its own: name a Secret of the issuer's namespace, by secret: {{name: …}} in its config")]
    NeedsSecret(String),
    /// The backend has a credential of its own, or needs none.
    #[error("the backend {0} works without a Secret of an issuer: remove the key secret from the issuer's config")]
    OwnCredential(String),
    /// The backend that was asked for does not serve the name.
    #[error(
        "the backend {backend} has no zone around {owner}: name another, or leave it out to have the one with the longest zone around the name taken"
    )]
    NotServed {
        /// The backend.
        backend: String,
        /// The name.
        owner: Name,
    },
    /// The backend refused or could not be reached; deterministic text.
    #[error("the DNS backend has not taken the value yet: {0}")]
    Backend(String),
    /// The backend is still at it; ask again.
    #[error("the value is not in DNS yet; it is being worked on, try again")]
    InProgress,
    /// Too much waits for the backend already.
    #[error(transparent)]
    Full(#[from] Full),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Ledger {
    /// A ledger over a store. Whoever calls it runs [`Ledger::run`] beside it.
    pub fn new(store: Arc<dyn Store>, zones: Zones, dispatch: Dispatcher) -> Self {
        Self { store, zones, dispatch }
    }

    /// The embedded zone that would hold `owner`.
    pub fn zone_of(&self, owner: &Name) -> Option<Name> {
        self.zones.zone_of(owner)
    }

    /// Takes claims, all of them or none, in one transaction. When it returns, they are durable and answered by DNS. Repeating a claim renews it.
    ///
    /// # Errors
    /// As [`ClaimError`] says; none was taken, or (for [`ClaimError::Backend`] and [`ClaimError::InProgress`]) all stand in the ledger and are worked on.
    pub async fn claim(&self, requests: Vec<Request>) -> Result<(), ClaimError> {
        self.claim_within(requests, PATIENCE).await
    }

    /// [`Ledger::claim`] for a caller with a patience of its own.
    ///
    /// # Errors
    /// As [`Ledger::claim`].
    pub async fn claim_within(&self, requests: Vec<Request>, patience: Duration) -> Result<(), ClaimError> {
        self.take(requests, None, patience).await
    }

    /// [`Ledger::claim_within`] for an order, which is written down in the same transaction.
    ///
    /// # Errors
    /// As [`Ledger::claim`].
    pub async fn claim_for(&self, order: OrderEntry, requests: Vec<Request>, patience: Duration) -> Result<(), ClaimError> {
        self.take(requests, Some(order), patience).await
    }

    async fn take(&self, requests: Vec<Request>, order: Option<OrderEntry>, patience: Duration) -> Result<(), ClaimError> {
        let now = Timestamp::now();
        let mut new = Vec::with_capacity(requests.len());
        for request in requests {
            let lane = match &request.backend {
                Some(backend) => self.lane_in(backend, &request.owner).await?,
                None => self.lane_of(&request.owner).await?,
            };
            new.push(NewClaim {
                lane,
                owner: request.owner,
                value: request.value,
                holder: request.holder,
                expires: request.lifetime.map(|lifetime| now.after(lifetime)),
                keep: request.keep.map(Into::into),
            });
        }
        let lanes: BTreeSet<Lane> = new.iter().map(|claim| &claim.lane).filter(|lane| lane.backend != Backend::Embedded).cloned().collect();
        let admitted = new.iter().try_for_each(|claim| self.dispatch.admit(&claim.lane, &claim.holder));
        let claims = match admitted {
            Ok(()) => match order {
                Some(order) => self.store.order_placed(order, new).await.map_err(ClaimError::from),
                None => self.store.claim(new).await.map_err(ClaimError::from),
            },
            Err(full) => Err(full.into()),
        };
        // Whatever came of it: the lane counts anew what waits, so that what was refused, or stands already, keeps no place.
        lanes.iter().for_each(|lane| self.dispatch.kick(lane));
        let claims = claims?;
        let waiting: Vec<_> = claims.iter().filter(|claim| claim.state != State::Visible).map(|claim| claim.id).collect();
        if waiting.is_empty() {
            return Ok(());
        }
        match self.dispatch.settled(waiting, Instant::now() + patience).await? {
            Settled::Visible => Ok(()),
            Settled::Failing(reason) => Err(ClaimError::Backend(reason)),
            Settled::Pending => Err(ClaimError::InProgress),
        }
    }

    /// Where a claim of this name would go: the embedded zone that holds it, else the backend with the longest zone around it.
    ///
    /// # Errors
    /// [`ClaimError::NoZone`], or [`ClaimError::Backend`] if a backend that might have it cannot be asked.
    pub async fn lane_of(&self, owner: &Name) -> Result<Lane, ClaimError> {
        if let Some(zone) = self.zones.zone_of(owner) {
            return Ok(Lane { backend: Backend::Embedded, zone });
        }
        match self.dispatch.route(owner).await {
            Ok(Some(lane)) => Ok(lane),
            Ok(None) => Err(ClaimError::NoZone(owner.clone())),
            Err(error) => Err(ClaimError::Backend(error.to_string())),
        }
    }

    /// Where a claim of this name would go in one backend: its longest zone around the name.
    ///
    /// # Errors
    /// [`ClaimError::NoBackend`], [`ClaimError::NotServed`], or [`ClaimError::Backend`] if it cannot be asked.
    pub async fn lane_in(&self, backend: &Backend, owner: &Name) -> Result<Lane, ClaimError> {
        let lane = match backend {
            Backend::Embedded => self.zones.zone_of(owner).map(|zone| Lane { backend: Backend::Embedded, zone }),
            Backend::Provider(_) => {
                self.check_backend(backend)?;
                self.dispatch.route_through(backend, owner).await.map_err(|error| ClaimError::Backend(error.to_string()))?
            }
        };
        lane.ok_or_else(|| ClaimError::NotServed { backend: backend.as_str().to_owned(), owner: owner.clone() })
    }

    /// Is there such a backend, and does it work with a Secret of an issuer if and only if one is named?
    fn check_backend(&self, backend: &Backend) -> Result<(), ClaimError> {
        let (routes, name) = (self.dispatch.routes(), backend.configured());
        let own = name == Backend::Embedded.as_str() || routes.configured().iter().any(|route| *route.name == *name);
        let lent = routes.lent().iter().any(|lent| **lent == *name);
        match (own, lent, backend.secret().is_some()) {
            (true, _, false) | (_, true, true) => Ok(()),
            (true, _, true) => Err(ClaimError::OwnCredential(name.to_owned())),
            (_, true, false) => Err(ClaimError::NeedsSecret(name.to_owned())),
            (false, false, _) => Err(ClaimError::NoBackend(name.to_owned())),
        }
    }

    /// Lets values go. When it returns, they are out of the ledger and out of the embedded zones; a provider's are on their way out.
    /// Releasing what is not claimed succeeds. Gives the number of claims that were there.
    ///
    /// # Errors
    /// [`ClaimError::Store`] alone.
    pub async fn release(&self, releases: Vec<Release>) -> Result<usize, ClaimError> {
        Ok(self.released(&self.store.release(releases).await?))
    }

    /// Lets everything go that a holder claimed, as recorded.
    ///
    /// # Errors
    /// [`ClaimError::Store`] alone.
    pub async fn release_all(&self, holder: &Holder) -> Result<usize, ClaimError> {
        Ok(self.released(&self.store.release_all(holder).await?))
    }

    /// Ends a job's orders, and lets everything go that was claimed for them (`end.holder`), in one transaction. Gives the number of claims that were there.
    ///
    /// # Errors
    /// [`ClaimError::Store`] alone; then all is as it was.
    pub async fn end_order(&self, end: OrderEnd) -> Result<usize, ClaimError> {
        Ok(self.released(&self.store.end_order(end).await?))
    }

    /// Takes up what an earlier process left, and releases claims when their time is over, until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut ticks = 0u32;
        let mut tick = tokio::time::interval(EXPIRY_TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            if ticks.is_multiple_of(RESUME_TICKS)
                && let Err(error) = self.dispatch.resume().await
            {
                tracing::error!(%error, "the work of the lanes could not be read; trying again");
            }
            ticks = ticks.wrapping_add(1);
            if let Err(error) = self.expire(Timestamp::now()).await {
                tracing::error!(%error, "expired claims could not be released; trying again");
            }
        }
    }

    /// Releases every claim whose time is over at `now`; gives their number.
    ///
    /// # Errors
    /// [`ClaimError::Store`] alone.
    pub async fn expire(&self, now: Timestamp) -> Result<usize, ClaimError> {
        let mut released = 0;
        loop {
            let batch = self.released(&self.store.expire(now, EXPIRY_BATCH).await?);
            released += batch;
            if batch < EXPIRY_BATCH as usize {
                return Ok(released);
            }
        }
    }

    fn released(&self, claims: &[Claim]) -> usize {
        self.kick(claims);
        claims.len()
    }

    fn kick(&self, claims: &[Claim]) {
        for claim in claims {
            if claim.lane.backend != Backend::Embedded && claim.state != State::Visible {
                self.dispatch.kick(&claim.lane);
            }
        }
    }
}
