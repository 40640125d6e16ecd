//! The thread that owns the database: it runs what has gathered in one transaction, and answers after the commit.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};

use authdns::Name;
use prometheus_client::{
    metrics::{counter::Counter, histogram::Histogram},
    registry::{Registry, Unit},
};
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};

use super::{
    claims,
    tx::{Counters, Tx},
};
use crate::store::{Projection, StoreError};

/// Verbs that may wait for the writer.
const QUEUE: usize = 8192;
/// Verbs in one transaction at most: bounds how long the first of them waits.
const BATCH: usize = 1024;
/// How long a verb waits for a place in the queue before it is turned away.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the store counts.
#[derive(Debug, Clone)]
pub struct StoreMetrics {
    commits: Histogram,
    verbs: Counter,
    failures: Counter,
}

impl StoreMetrics {
    /// Registers the store's families.
    pub fn register(registry: &mut Registry) -> Self {
        // From a quiet disk (0.1 ms) to one that is in trouble (6.5 s).
        let commits = Histogram::new(prometheus_client::metrics::histogram::exponential_buckets(0.0001, 2.0, 17));
        let (verbs, failures) = (Counter::default(), Counter::default());
        let store = registry.sub_registry_with_prefix("store");
        store.register_with_unit("commit", "Time from the first statement of a group commit to its end", Unit::Seconds, commits.clone());
        store.register("writes", "Verbs committed or answered", verbs.clone());
        store.register("failures", "Verbs that failed", failures.clone());
        Self { commits, verbs, failures }
    }
}

/// A verb on its way. It may be run twice: with the others, and, if one of those failed, alone.
trait Job: Send {
    fn run(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()>;
    fn finish(self: Box<Self>, outcome: Result<(), StoreError>);
}

struct Typed<F, T> {
    verb: F,
    result: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T: Send> Job for Typed<F, T>
where
    F: FnMut(&mut Tx<'_>) -> rusqlite::Result<T> + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()> {
        self.result = Some((self.verb)(tx)?);
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Self { result, reply, .. } = *self;
        // Whoever asked may have gone; what was committed stays.
        let _ = reply.send(outcome.and_then(|()| result.ok_or(StoreError::Closed)));
    }
}

enum Message {
    Job(Box<dyn Job>),
    Close(oneshot::Sender<()>),
}

/// The way to the writer thread.
pub(super) struct Writer {
    queue: mpsc::Sender<Message>,
    broken: Arc<OnceLock<StoreError>>,
}

impl Writer {
    pub(super) fn start(
        connection: Connection,
        serials: HashMap<Name, u32>,
        counters: Counters,
        projection: Arc<dyn Projection>,
        metrics: StoreMetrics,
    ) -> Result<Self, StoreError> {
        let (queue, inbox) = mpsc::channel(QUEUE);
        let broken = Arc::new(OnceLock::new());
        let worker = Worker { connection, serials, counters, projection, metrics, broken: broken.clone() };
        thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                let _fallen = Fallen(worker.broken.clone());
                worker.work(inbox);
            })
            .map_err(|error| StoreError::Failed(format!("the writer thread cannot start: {error}")))?;
        Ok(Self { queue, broken })
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        verb: impl FnMut(&mut Tx<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job = Message::Job(Box::new(Typed { verb, result: None, reply }));
        self.queue.send_timeout(job, PATIENCE).await.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Timeout(_) => StoreError::Busy,
            mpsc::error::SendTimeoutError::Closed(_) => self.broken().unwrap_or(StoreError::Closed),
        })?;
        answer.await.unwrap_or_else(|_| Err(self.broken().unwrap_or(StoreError::Closed)))
    }

    pub(super) fn broken(&self) -> Option<StoreError> {
        self.broken.get().cloned()
    }

    pub(super) async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self.queue.send(Message::Close(reply)).await.is_ok() {
            let _ = done.await;
        }
    }
}

/// A writer that panics is a store that cannot be written: whoever watches the store ends the process, rather than let it limp.
struct Fallen(Arc<OnceLock<StoreError>>);

impl Drop for Fallen {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.0.set(StoreError::Failed("its writer panicked; this is a defect of acmegate, please report it".to_owned()));
        }
    }
}

struct Worker {
    connection: Connection,
    serials: HashMap<Name, u32>,
    counters: Counters,
    projection: Arc<dyn Projection>,
    metrics: StoreMetrics,
    broken: Arc<OnceLock<StoreError>>,
}

/// What stands at owners of one embedded zone after a commit.
struct Projected {
    zone: Name,
    serial: u32,
    owners: Vec<(Name, Vec<Box<str>>)>,
}

impl Worker {
    fn work(mut self, mut inbox: mpsc::Receiver<Message>) {
        let mut batch: Vec<Box<dyn Job>> = Vec::with_capacity(BATCH);
        let mut closing = None;
        while let Some(first) = inbox.blocking_recv() {
            let mut next = Some(first);
            while let Some(message) = next {
                match message {
                    Message::Job(job) => batch.push(job),
                    // No more is taken; what is in the queue already is still written.
                    Message::Close(reply) => {
                        inbox.close();
                        closing = Some(reply);
                    }
                }
                next = if batch.len() < BATCH { inbox.try_recv().ok() } else { None };
            }
            self.answer(&mut batch);
            if self.broken.get().is_some() {
                return;
            }
        }
        let Self { connection, .. } = self;
        if let Err((_, error)) = connection.close() {
            tracing::warn!(%error, "the database did not close cleanly; the next start recovers it");
        }
        if let Some(reply) = closing {
            let _ = reply.send(());
        }
    }

    /// Runs the batch together; if one verb fails, nothing of that is kept and each runs alone, so that the others do not suffer for it.
    fn answer(&mut self, batch: &mut Vec<Box<dyn Job>>) {
        if batch.is_empty() {
            return;
        }
        let together = self.commit(batch);
        if together.is_ok() || batch.len() == 1 {
            for job in batch.drain(..) {
                self.finish(job, together.clone());
            }
            return;
        }
        let mut last = together;
        for mut job in batch.drain(..) {
            // These would fail for each in turn, after a wait for the disk each time.
            let hopeless = matches!(last, Err(StoreError::Full)) || self.broken.get().is_some();
            if !hopeless {
                last = self.commit(std::slice::from_mut(&mut job));
            }
            self.finish(job, last.clone());
        }
    }

    fn finish(&self, job: Box<dyn Job>, outcome: Result<(), StoreError>) {
        match outcome {
            Ok(()) => self.metrics.verbs.inc(),
            Err(_) => self.metrics.failures.inc(),
        };
        job.finish(outcome);
    }

    fn commit(&mut self, batch: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
        let start = Instant::now();
        let (census, changes) = (self.counters.census, self.connection.total_changes());
        let committed = self.transact(batch);
        // A transaction that only read waits for no disk, and would hide those that do.
        if committed.is_err() || self.connection.total_changes() != changes {
            self.metrics.commits.observe(start.elapsed().as_secs_f64());
        }
        let projected = committed.map_err(|error| {
            self.counters.census = census;
            let broken = error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure);
            let error = StoreError::from(error);
            tracing::error!(%error, verbs = batch.len(), "a transaction failed and was rolled back");
            if broken {
                // After a failed fsync nobody knows what the kernel still holds: only opening the file again tells.
                let _ = self.broken.set(error.clone());
            }
            error
        })?;
        for Projected { zone, serial, owners } in projected {
            self.projection.project(&zone, serial, owners);
            self.serials.insert(zone, serial);
        }
        Ok(())
    }

    fn transact(&mut self, batch: &mut [Box<dyn Job>]) -> rusqlite::Result<Vec<Projected>> {
        let sql = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
        let mut tx = Tx { sql: &sql, counters: &mut self.counters, touched: Vec::new() };
        for job in batch {
            job.run(&mut tx)?;
        }
        let mut touched = tx.touched;
        touched.sort_unstable();
        touched.dedup();
        let mut projected: Vec<Projected> = Vec::new();
        for (zone, owner) in touched {
            // A zone that is no longer configured: its claims end in the ledger alone.
            let Some(last_serial) = self.serials.get(&zone) else { continue };
            let values = claims::values(&sql, &zone, &owner)?;
            match projected.last_mut() {
                Some(last) if last.zone == zone => last.owners.push((owner, values)),
                _ => {
                    let serial = last_serial.wrapping_add(1);
                    sql.prepare_cached("UPDATE zones SET serial = ?2 WHERE name = ?1")?.execute(params![zone.to_string(), serial])?;
                    projected.push(Projected { zone, serial, owners: vec![(owner, values)] });
                }
            }
        }
        sql.commit()?;
        Ok(projected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::schema;

    struct Nobody;

    impl Projection for Nobody {
        fn project(&self, _: &Name, _: u32, _: Vec<(Name, Vec<Box<str>>)>) {}
    }

    #[tokio::test]
    async fn a_writer_that_panics_says_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let connection = schema::open(&folder.path().join("test.sqlite")).expect("a database");
        let counters = Counters::load(&connection).expect("counted");
        let metrics = StoreMetrics::register(&mut Registry::default());
        let writer = Writer::start(connection, HashMap::new(), counters, Arc::new(Nobody), metrics).expect("a writer");
        assert_eq!(writer.run(|_: &mut Tx<'_>| Ok(7)).await, Ok(7));
        assert_eq!(writer.broken(), None);
        assert!(writer.run(|_: &mut Tx<'_>| -> rusqlite::Result<()> { panic!("a defect") }).await.is_err());
        // The queue is closed before the thread has unwound to its end.
        while writer.broken().is_none() {
            tokio::task::yield_now().await;
        }
        assert!(matches!(writer.run(|_: &mut Tx<'_>| Ok(7)).await, Err(StoreError::Failed(text)) if text.contains("panicked")));
    }
}
