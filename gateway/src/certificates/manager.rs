//! What keeps the list of certificates valid: it does what the [`planner`](super::planner) says, and tells it what came of it.
//!
//! ```text
//!            tasks                    issuer ──▶ store (certificate and state in one commit)
//!  planner ─────────▶ manager ──▶     renewal information of the CAs
//!     ▲                  │            deployments
//!     └── outcomes ──────┘
//! ```
//!
//! Nothing is remembered here that is not on disk, or about to be: after a crash the planner is made anew from the store, and orders that were cut off are gone on with. What
//! was deployed, or asked of a CA, in the last moment is done again.

mod commands;
mod deploying;
mod ordering;
mod polling;
mod wishes;
mod writing;

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Mutex as AsyncMutex, Notify, OnceCell, broadcast, mpsc},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use commands::{CertificateAction, CertificateError, CertificateRequest};

use super::{
    planner::{Deployed, Order, Ordered, Planner, Polled, Room, Status, Task, Wanted},
    report::CertificateReport,
};
use crate::{
    claim::Timestamp,
    config::{Certificate, Directory},
    engine::Engine,
    issuer::{Event, Issuer},
    kubernetes::Cluster,
    store::StoreError,
};

/// So many of each are in flight at once. Orders wait for CAs and DNS much more than they work.
const ORDERS: usize = 32;
const POLLS: usize = 8;
const DEPLOYMENTS: usize = 8;
/// The planner is asked at least so often: the clock may have been set.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// A store that does not answer is asked again after this.
const STORE_PAUSE: Duration = Duration::from_secs(5);
/// What a task that panicked failed of.
const DEFECT: &str = "it panicked (the log says where); this is a defect of acmegate, please report it";
/// Certificates of which it is told at once how they stand.
const PAGE: usize = 500;
/// Names of certificates that changed, for who waits for one; who is too slow looks again.
const CHANGES: usize = 1024;

/// Keeps the list valid; clones share it.
#[derive(Clone)]
pub struct Manager(Arc<Inner>);

struct Inner {
    engine: Engine,
    issuer: Issuer,
    /// Where each certificate stands in the configuration: there may be a hundred thousand, which are not kept twice.
    list: HashMap<Arc<str>, usize>,
    planner: Mutex<Planner>,
    /// Something may be due that was not.
    wake: Notify,
    /// Names of certificates of which something has come to an end.
    changed: broadcast::Sender<String>,
    /// Who watches an order.
    watchers: Mutex<HashMap<String, mpsc::Sender<Event>>>,
    cluster: OnceCell<Option<Cluster>>,
    /// Held while the state of a certificate is written.
    writing: AsyncMutex<()>,
    behind: Behind,
    tasks: TaskTracker,
    /// Ends what is in flight.
    cancel: CancellationToken,
    room: Mutex<Room>,
}

/// Certificates whose state may wait a moment before it is written.
#[derive(Default)]
struct Behind {
    names: Mutex<BTreeSet<String>>,
    wake: Notify,
}

impl Manager {
    /// Reads how the certificates stand. With `only`, no other certificate than that is looked after.
    ///
    /// # Errors
    /// As the store says.
    pub async fn open(engine: Engine, issuer: Issuer, only: Option<&str>) -> Result<Self, StoreError> {
        let (store, now) = (engine.store.clone(), Timestamp::now());
        let looked_after = |certificate: &&Certificate| only.is_none_or(|only| *certificate.name == *only);
        let wanted = engine.config.certificates.iter().filter(looked_after).map(Self::wanted).collect();
        let (mut planner, changed) = Planner::new(wanted, store.renewals().await?, now, &mut spread);
        for name in store.listed_orders().await? {
            planner.resume(&name);
        }
        if !changed.is_empty() {
            store.save_renewals(changed).await?;
        }
        let list = engine.config.certificates.iter().enumerate().map(|(index, certificate)| (certificate.name.clone(), index)).collect();
        Ok(Self(Arc::new(Inner {
            engine,
            issuer,
            list,
            planner: Mutex::new(planner),
            wake: Notify::new(),
            changed: broadcast::Sender::new(CHANGES),
            watchers: Mutex::default(),
            cluster: OnceCell::new(),
            writing: AsyncMutex::default(),
            behind: Behind::default(),
            tasks: TaskTracker::new(),
            cancel: CancellationToken::new(),
            room: Mutex::new(Room { orders: ORDERS, polls: POLLS, deployments: DEPLOYMENTS }),
        })))
    }

    /// What the planner is told of a certificate of the configuration.
    pub fn wanted(certificate: &Certificate) -> Wanted {
        wishes::wanted(certificate)
    }

    /// Looks after the certificates until `stop`. Then what is in flight is ended in an orderly way: values are removed, and orders are gone on with by the next process.
    pub async fn run(&self, stop: CancellationToken) {
        let over = CancellationToken::new();
        let looking_after = async {
            self.look_after(&stop).await;
            over.cancel();
        };
        tokio::join!(looking_after, self.0.write_behind(&over));
    }

    async fn look_after(&self, stop: &CancellationToken) {
        loop {
            let pause = match self.step().await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::error!(%error, "the certificates cannot be looked after; trying again");
                    STORE_PAUSE
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.0.wake.notified() => {}
                () = sleep(pause) => {}
            }
        }
        self.0.cancel.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// Starts what is due; gives the time until something else is.
    async fn step(&self) -> Result<Duration, StoreError> {
        let inner = &self.0;
        let now = Timestamp::now();
        let tasks = {
            let mut budget = inner.issuer.budget().await?;
            let mut room = inner.room.lock();
            let tasks = inner.planner.lock().next(now, &mut budget, *room);
            for task in &tasks {
                *place(&mut room, task) -= 1;
            }
            tasks
        };
        for task in tasks {
            let inner = inner.clone();
            inner.tasks.clone().spawn(async move {
                let _taken = Taken::of(&inner, &task);
                match task {
                    Task::Order(order) => Box::pin(inner.order(order)).await,
                    Task::Poll { name, directory, id } => inner.poll(&name, &directory, &id).await,
                    Task::Deploy { name } => inner.deploy(&name).await,
                }
            });
        }
        let due = inner.planner.lock().wake_at();
        let pause = due.map_or(LONGEST_SLEEP, |due| Duration::from_millis(due.0.saturating_sub(now.0).max(1).unsigned_abs()));
        Ok(pause.min(LONGEST_SLEEP))
    }

    /// How all certificates stand, by name.
    pub fn list(&self) -> Vec<CertificateReport> {
        let now = Timestamp::now();
        self.0.planner.lock().iter(now).map(|status| CertificateReport::of(&status)).collect()
    }

    /// How the next certificates stand, by name: those after the one called `after`; none are left if none come.
    pub fn page(&self, after: Option<&str>) -> Vec<CertificateReport> {
        let mut page = Vec::new();
        self.look(after, PAGE, Timestamp::now(), &mut |status| page.push(CertificateReport::of(status)));
        page
    }

    /// How one stands; `None` if it is neither in the configuration nor in the store.
    pub fn show(&self, name: &str) -> Option<CertificateReport> {
        self.0.planner.lock().status(name, Timestamp::now()).map(|status| CertificateReport::of(&status))
    }

    /// Shows how the next certificates stand, by name: those after the one called `after`, `most` of them at most. The planner is not kept from its work for longer than
    /// they take.
    pub(super) fn look(&self, after: Option<&str>, most: usize, now: Timestamp, show: &mut dyn FnMut(&Status<'_>)) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.0.planner.lock().iter_from(from, now).take(most).for_each(|status| show(&status));
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager").field("certificates", &self.0.list.len()).finish_non_exhaustive()
    }
}

impl Inner {
    /// A certificate of the configuration.
    fn certificate(&self, name: &str) -> Option<&Certificate> {
        self.list.get(name).and_then(|index| self.engine.config.certificates.get(*index))
    }

    /// The directory with this URL, as the certificate or the configuration knows it.
    fn directory(&self, name: &str, url: &str) -> Option<Directory> {
        let own = self.certificate(name).into_iter().flat_map(|certificate| certificate.directories.iter().map(|directory| &**directory));
        own.chain(&self.engine.config.issuer.directories).find(|directory| directory.url == url).cloned()
    }

    fn told(&self, name: &str) {
        // Nobody may be waiting.
        let _ = self.changed.send(name.to_owned());
        self.wake.notify_one();
    }

    async fn cluster(&self) -> Option<&Cluster> {
        let connected = self.cluster.get_or_try_init(|| Cluster::connect(self.engine.config.kubernetes.as_ref())).await;
        match connected {
            Ok(cluster) => cluster.as_ref(),
            Err(error) => {
                tracing::warn!(%error, "the cluster cannot be used");
                None
            }
        }
    }
}

/// A place that a task has until it is over, however it ends. The planner hears of one that panicked, too.
struct Taken<'a> {
    inner: &'a Inner,
    kind: Kind,
    name: String,
}

#[derive(Clone, Copy)]
enum Kind {
    Order,
    Poll,
    Deployment,
}

impl<'a> Taken<'a> {
    fn of(inner: &'a Inner, task: &Task) -> Self {
        let (Task::Order(Order { name, .. }) | Task::Poll { name, .. } | Task::Deploy { name }) = task;
        Self { inner, kind: kind(task), name: name.clone() }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (now, name) = (Timestamp::now(), self.name.as_str());
            let mut planner = self.inner.planner.lock();
            match self.kind {
                Kind::Order => drop(planner.ordered(name, Ordered::Failed { text: DEFECT.to_owned(), retry_at: None }, now, spread())),
                Kind::Poll => drop(planner.polled(name, Polled::Failed { retry_at: None }, now, spread())),
                Kind::Deployment => drop(planner.deployed(name, Deployed::Failed { text: DEFECT.to_owned() }, now, spread())),
            }
        }
        *of_kind(&mut self.inner.room.lock(), self.kind) += 1;
        self.inner.wake.notify_one();
    }
}

fn kind(task: &Task) -> Kind {
    match task {
        Task::Order(_) => Kind::Order,
        Task::Poll { .. } => Kind::Poll,
        Task::Deploy { .. } => Kind::Deployment,
    }
}

fn place<'r>(room: &'r mut Room, task: &Task) -> &'r mut usize {
    of_kind(room, kind(task))
}

fn of_kind(room: &mut Room, kind: Kind) -> &mut usize {
    match kind {
        Kind::Order => &mut room.orders,
        Kind::Poll => &mut room.polls,
        Kind::Deployment => &mut room.deployments,
    }
}

/// A number from 0 to 1. A system without random numbers gives the middle: nothing secret hangs on it.
fn spread() -> f64 {
    getrandom::u32().map_or(0.5, |number| f64::from(number) / f64::from(u32::MAX))
}
