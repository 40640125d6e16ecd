//! One order's life on disk: each step is written down before the next is taken, so that after a crash the order goes on where it was, and is never placed twice.
//!
//! ```text
//!  begin ──▶ newOrder ──▶ place ──────────────────────▶ prove, finalize, download ──▶ end
//!  (intent)               (the order's URL, its key;                                  (the certificate; the
//!                          in one commit with the claims)                              claims are let go)
//! ```
//!
//! Three commits. Between the first two stands only the CA's answer: an order whose answer was lost is looked for in the account's list, and CAs that keep no list
//! give an order that is still open when the same is ordered again.
//!
//! What is known of an order is kept for as long as something can come of it: an attempt that failed of DNS goes on with the same order at its next try.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    error::IssueError,
    issued::{Issued, PrivateKeyPem},
    request::IssueRequest,
};
use crate::{
    claim::Timestamp,
    config::{Directory, Names},
    store::{BudgetRow, OrderEnd, OrderEntry, Store},
};

/// How long the order of a one-shot is good for: whoever asks for the same later wants a new certificate.
const ONE_SHOT: Duration = Duration::from_secs(3600);

/// What orders are for: one at a time for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Job {
    /// A certificate that somebody waits for, by what was asked for.
    OneShot(String),
    /// A certificate of the list, by its name.
    Listed(String),
}

impl Job {
    /// As it is stored.
    pub(super) fn key(&self) -> String {
        match self {
            Self::OneShot(wish) => format!("issue {wish}"),
            Self::Listed(name) => job_of(name),
        }
    }
}

/// The job of a certificate of the list, as it is stored.
pub(crate) fn job_of(name: &str) -> String {
    format!("certificate {name}")
}

/// A fingerprint of what is asked of one CA. The same wish has the same one, in whatever order its names stand.
pub(super) fn wish(request: &IssueRequest, directory: &Directory, names: &Names) -> String {
    let mut names = names.to_strings();
    names.sort();
    let text = [request.key_type.as_str(), directory.profile.as_deref().unwrap_or_default(), &names.join(" ")].join("\n");
    blake3::hash(text.as_bytes()).to_hex().get(..32).unwrap_or_default().to_owned()
}

/// The jobs of this process, so that none has two orders under way; clones share it.
#[derive(Clone, Default)]
pub(super) struct Jobs(Arc<Mutex<HashSet<String>>>);

/// The orders of one job.
pub(super) struct Journal {
    store: Arc<dyn Store>,
    jobs: Jobs,
    job: String,
    listed: bool,
    run: Uuid,
    /// What earlier runs left.
    left: Mutex<Vec<OrderEntry>>,
    entry: Mutex<Option<OrderEntry>>,
    placed: AtomicBool,
    resumed: AtomicBool,
    /// What is to be written with the end.
    learned: Mutex<Vec<BudgetRow>>,
}

impl Journal {
    /// Reads what earlier runs left of a job. Of two that ask for the same at once, the second gets an order of its own.
    ///
    /// # Errors
    /// [`IssueError::Store`].
    pub(super) async fn open(store: Arc<dyn Store>, jobs: Jobs, job: Job) -> Result<Self, IssueError> {
        let run = Uuid::new_v4();
        let mut key = job.key();
        if !jobs.0.lock().insert(key.clone()) {
            key = format!("{key} {run}");
            jobs.0.lock().insert(key.clone());
        }
        let mut journal = Self {
            store,
            jobs,
            listed: matches!(job, Job::Listed(_)),
            job: key,
            run,
            left: Mutex::default(),
            entry: Mutex::default(),
            placed: AtomicBool::default(),
            resumed: AtomicBool::default(),
            learned: Mutex::default(),
        };
        let mut left = journal.store.orders(&journal.job).await?;
        if matches!(job, Job::OneShot(_)) {
            let oldest = Timestamp(Timestamp::now().0.saturating_sub(i64::try_from(ONE_SHOT.as_millis()).unwrap_or(i64::MAX)));
            left.retain(|entry| entry.begun >= oldest);
        }
        // The values of that run may stand still.
        if let Some(first) = left.first() {
            journal.run = first.run;
        }
        journal.left = Mutex::new(left);
        Ok(journal)
    }

    /// Whose the claims are.
    pub(super) const fn run(&self) -> Uuid {
        self.run
    }

    /// The job as it is stored.
    pub(super) fn job(&self) -> &str {
        &self.job
    }

    /// Whether an earlier run left something.
    pub(super) fn goes_on(&self) -> bool {
        !self.left.lock().is_empty()
    }

    /// What an earlier run left of an order at this directory for the same; once.
    pub(super) fn take_left(&self, directory: &str, wish: &str) -> Option<OrderEntry> {
        let mut left = self.left.lock();
        let at = left.iter().position(|entry| entry.directory == directory && entry.wish == wish)?;
        Some(left.swap_remove(at))
    }

    /// Goes on with the order of an earlier run.
    pub(super) fn take_up(&self, entry: OrderEntry, url: &str) {
        // A new key is written down before it is used.
        self.placed.store(entry.url.as_deref() == Some(url) && entry.key_pem.is_some(), Ordering::SeqCst);
        self.resumed.store(true, Ordering::SeqCst);
        *self.entry.lock() = Some(OrderEntry { url: Some(url.to_owned()), ..entry });
    }

    /// The key that was written down for the order at hand.
    pub(super) fn key(&self) -> Option<PrivateKeyPem> {
        self.entry.lock().as_ref()?.key_pem.as_ref().map(|pem| PrivateKeyPem::new(pem.as_str().to_owned()))
    }

    /// Writes down that an order is about to be placed, with what it takes of the CA's limits.
    ///
    /// # Errors
    /// [`IssueError::Store`].
    pub(super) async fn begin(&self, directory: &str, wish: &str, taken: Vec<BudgetRow>) -> Result<(), IssueError> {
        let entry = OrderEntry {
            job: self.job.clone(),
            directory: directory.to_owned(),
            wish: wish.to_owned(),
            run: self.run,
            url: None,
            key_pem: None,
            begun: Timestamp::now(),
        };
        self.placed.store(false, Ordering::SeqCst);
        self.resumed.store(false, Ordering::SeqCst);
        *self.entry.lock() = Some(entry.clone());
        Ok(self.store.begin_order(entry, taken).await?)
    }

    /// Whether there is an order at the CA.
    pub(super) fn is_placed(&self) -> bool {
        self.entry.lock().as_ref().is_some_and(|entry| entry.url.is_some())
    }

    /// Remembers the order's URL. It is on disk once the order is placed, or given up for now.
    pub(super) fn ordered(&self, url: &str) {
        if let Some(entry) = &mut *self.entry.lock() {
            entry.url = Some(url.to_owned());
        }
    }

    /// Writes down the order's URL and its certificate's key, once.
    ///
    /// # Errors
    /// [`IssueError::Store`].
    pub(super) async fn place(&self, key: &PrivateKeyPem) -> Result<(), IssueError> {
        if let Some(entry) = self.placing(key) {
            self.store.order_placed(entry, Vec::new()).await?;
            self.placed();
        }
        Ok(())
    }

    /// The order's URL and its certificate's key, as they have to be written down before the order is proved; `None` if they are.
    pub(super) fn placing(&self, key: &PrivateKeyPem) -> Option<OrderEntry> {
        if self.placed.load(Ordering::SeqCst) {
            return None;
        }
        let mut entry = self.entry.lock();
        let entry = entry.as_mut()?;
        entry.key_pem = Some(Zeroizing::new(key.expose().to_owned()));
        Some(entry.clone())
    }

    /// It is written down.
    pub(super) fn placed(&self) {
        self.placed.store(true, Ordering::SeqCst);
    }

    /// What is left of this directory's order after a run that failed: nothing if nothing can come of it, else its URL for the next run. True if it was an earlier run's.
    pub(super) async fn give_up(&self, error: &IssueError) -> bool {
        let Some(entry) = self.entry.lock().take() else { return false };
        let kept = if error.ends_the_order() {
            self.store.forget_order(&entry.job, &entry.directory).await
        } else if self.placed.load(Ordering::SeqCst) || entry.url.is_none() {
            Ok(())
        } else {
            self.store.order_placed(entry, Vec::new()).await.map(drop)
        };
        if let Err(error) = kept {
            tracing::warn!(%error, "how the order stands could not be written down; the next attempt asks the CA");
        }
        self.resumed.load(Ordering::SeqCst)
    }

    /// Keeps what an order that came to a certificate taught of the CA's limits until it ends; gives it back if this run does not write that down.
    pub(super) fn learned(&self, rows: Vec<BudgetRow>) -> Vec<BudgetRow> {
        if !self.listed {
            return rows;
        }
        *self.learned.lock() = rows;
        Vec::new()
    }

    /// The end of the job's orders, with what came of them. If it cannot be written down, the order is as it was, and the next run comes to the same certificate.
    pub(super) fn end(&self, keep: Keep, issued: &Issued) -> OrderEnd {
        let learned = std::mem::take(&mut *self.learned.lock());
        OrderEnd { job: self.job.clone(), learned, ..keep(issued) }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.jobs.0.lock().remove(&self.job);
    }
}

/// What is written down when a certificate of the list is there; the job is filled in.
pub type Keep = Box<dyn FnOnce(&Issued) -> OrderEnd + Send>;
