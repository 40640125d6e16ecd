//! What the tests of the ledger share.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, reason = "each test file uses a part of it; tests may panic")]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::Path,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use authdns::Name;
use gateway::dispatch::Route;
use gateway::store::{Projection, SqliteStore, StoreMetrics};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use providers::{
    Calls, Change, Error, Limits, Listing, Marked, Progress, Provider, Receipt, TxtSet, Zone,
    zones::{Delegations, Finder},
};

pub(crate) fn name(text: &str) -> Name {
    text.parse().expect(text)
}

/// What a projection was told: zone serials, and the values at each owner.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    pub(crate) serials: Mutex<BTreeMap<Name, Vec<u32>>>,
    pub(crate) values: Mutex<BTreeMap<Name, Vec<String>>>,
}

impl Answers {
    pub(crate) fn at(&self, owner: &str) -> Vec<String> {
        self.values.lock().get(&name(owner)).cloned().unwrap_or_default()
    }
}

impl Projection for Answers {
    fn project(&self, zone: &Name, serial: u32, owners: Vec<(Name, Vec<Box<str>>)>) {
        self.serials.lock().entry(zone.clone()).or_default().push(serial);
        for (owner, values) in owners {
            if values.is_empty() {
                self.values.lock().remove(&owner);
            } else {
                self.values.lock().insert(owner, values.into_iter().map(String::from).collect());
            }
        }
    }
}

pub(crate) fn open(folder: &Path, zones: &[&str]) -> (Arc<SqliteStore>, Arc<Answers>) {
    let answers = Arc::new(Answers::default());
    let zones: Vec<Name> = zones.iter().map(|zone| name(zone)).collect();
    let metrics = StoreMetrics::register(&mut Registry::default());
    let store = SqliteStore::open(folder, &zones, answers.clone(), metrics).expect("a store");
    (Arc::new(store), answers)
}

/// What a [`FakeDns`] does to one call instead of, or beside, what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Fails and does nothing.
    Refuse,
    /// Asks to wait, and does nothing.
    Throttle,
    /// Does it, and loses the answer.
    LoseAnswer,
    /// Loses the request.
    LoseRequest,
    /// Somebody else changes the RRset just before.
    Interfere,
    /// Never answers, having done it: the process has to die to get on.
    Hang,
}

/// A DNS in memory that keeps count of strangers' values, compares versions, and fails as it is told. It outlives the process that writes to it.
#[derive(Debug, Default)]
pub(crate) struct FakeDns {
    pub(crate) zone: Option<Name>,
    pub(crate) records: Mutex<BTreeMap<Name, BTreeSet<String>>>,
    pub(crate) faults: Mutex<VecDeque<Fault>>,
    pub(crate) pending: Mutex<u32>,
    /// The number of changes in each call.
    pub(crate) applied: Mutex<Vec<usize>>,
    pub(crate) interferences: Mutex<Vec<(Name, String)>>,
    /// What was written through the provider, if its records can carry a mark.
    pub(crate) marks: Option<Mutex<BTreeSet<(Name, String)>>>,
    /// Nobody answers.
    pub(crate) down: Mutex<bool>,
    /// What a try of the credential says; `None` is that it works.
    pub(crate) refused: Mutex<Option<Error>>,
}

impl FakeDns {
    pub(crate) fn serving(zone: &str) -> Arc<Self> {
        Arc::new(Self { zone: Some(name(zone)), ..Self::default() })
    }

    /// One whose records carry marks.
    pub(crate) fn marking(zone: &str) -> Arc<Self> {
        Arc::new(Self { zone: Some(name(zone)), marks: Some(Mutex::default()), ..Self::default() })
    }

    pub(crate) fn values(&self, owner: &str) -> Vec<String> {
        self.records.lock().get(&name(owner)).map(|values| values.iter().cloned().collect()).unwrap_or_default()
    }

    pub(crate) fn insert(&self, owner: &Name, value: &str) {
        self.records.lock().entry(owner.clone()).or_default().insert(value.to_owned());
    }

    fn version(&self, owner: &Name) -> String {
        self.records.lock().get(owner).map(|values| values.iter().cloned().collect::<Vec<_>>().join("\n")).unwrap_or_default()
    }

    fn change(&self, change: &Change) -> Result<(), Error> {
        if self.version(&change.owner) != change.version {
            return Err(Error::Conflict("the RRset is not what it was".to_owned()));
        }
        if let Some(marks) = &self.marks {
            let mut marks = marks.lock();
            marks.extend(change.add.iter().map(|value| (change.owner.clone(), value.clone())));
            marks.retain(|(owner, value)| *owner != change.owner || !change.remove.contains(value));
        }
        let mut records = self.records.lock();
        let values = records.entry(change.owner.clone()).or_default();
        values.extend(change.add.iter().cloned());
        values.retain(|value| !change.remove.contains(value));
        if values.is_empty() {
            records.remove(&change.owner);
        }
        Ok(())
    }
}

#[async_trait]
impl Provider for FakeDns {
    fn limits(&self) -> Limits {
        Limits { poll: Duration::from_millis(1), owners: 1000, ..Limits::default() }
    }

    async fn zones(&self, _apex: Option<&Name>) -> Result<Listing, Error> {
        if *self.down.lock() {
            return Err(Error::Unsent("nobody answers".to_owned()));
        }
        let zones = self.zone.iter().map(|zone| Zone { id: "1".to_owned(), name: zone.clone(), nameservers: BTreeSet::new() }).collect();
        Ok(Listing { zones, complete: true })
    }

    async fn read(&self, _zone: &Zone, owners: &[Name]) -> Vec<Result<TxtSet, Error>> {
        let read = |owner: &Name| {
            let values = self.records.lock().get(owner).cloned().unwrap_or_default();
            Ok(TxtSet { values, version: self.version(owner) })
        };
        owners.iter().map(read).collect()
    }

    async fn verify(&self) -> Result<String, Error> {
        self.refused.lock().clone().map_or_else(|| Ok("a DNS in memory".to_owned()), Err)
    }

    async fn marked(&self, _zone: &Zone) -> Result<Option<Vec<Marked>>, Error> {
        let marked = |(owner, value): &(Name, String)| Marked { owner: owner.clone(), value: value.clone() };
        Ok(self.marks.as_ref().map(|marks| marks.lock().iter().map(marked).collect()))
    }

    fn calls(&self) -> Calls {
        Calls::default()
    }

    async fn apply(&self, _zone: &Zone, changes: &[Change]) -> Vec<Result<Receipt, Error>> {
        self.applied.lock().push(changes.len());
        let mut results = Vec::new();
        for change in changes {
            let fault = self.faults.lock().pop_front();
            let result = match fault {
                None => self.change(change).map(|()| Receipt("taken".to_owned())),
                Some(Fault::Refuse) => Err(Error::Rejected("not today".to_owned())),
                Some(Fault::Throttle) => Err(Error::RateLimited { reason: "slower".to_owned(), retry_after: None }),
                Some(Fault::LoseRequest) => Err(Error::Transport("no answer".to_owned())),
                Some(Fault::LoseAnswer) => {
                    let _ = self.change(change);
                    Err(Error::Transport("no answer".to_owned()))
                }
                Some(Fault::Interfere) => {
                    let stranger = format!("stranger-{}", self.interferences.lock().len());
                    self.insert(&change.owner, &stranger);
                    self.interferences.lock().push((change.owner.clone(), stranger));
                    self.change(change).map(|()| Receipt("taken".to_owned()))
                }
                Some(Fault::Hang) => {
                    let _ = self.change(change);
                    std::future::pending().await
                }
            };
            results.push(result);
        }
        results
    }

    async fn progress(&self, _receipt: &Receipt) -> Result<Progress, Error> {
        let mut pending = self.pending.lock();
        if *pending > 0 {
            *pending -= 1;
            return Ok(Progress::Pending);
        }
        Ok(Progress::Done)
    }
}

/// Nobody is delegated to.
#[derive(Debug)]
pub(crate) struct Undelegated;

#[async_trait]
impl Delegations for Undelegated {
    async fn nameservers(&self, _zone: &Name) -> Vec<Name> {
        Vec::new()
    }
}

/// The route to a provider under a name.
pub(crate) fn route(backend: &str, provider: Arc<dyn Provider>) -> Route {
    Route { name: backend.into(), finder: Finder::new(provider.clone(), Vec::new(), Arc::new(Undelegated)), provider }
}
