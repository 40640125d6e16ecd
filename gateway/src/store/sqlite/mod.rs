//! The embedded store: one SQLite file, one thread that owns it, group commit.
//!
//! Verbs are closures sent to the writer thread; whatever has gathered there is run in one transaction and made durable by one fsync (WAL,
//! `synchronous=FULL`). Measured against a pool of connections, one thread does three times the updates.

mod accounts;
mod certificates;
mod claims;
mod schema;
mod tx;
mod writer;

use std::{collections::HashMap, path::Path, sync::Arc};

use async_trait::async_trait;
use authdns::Name;
use rusqlite::{Connection, TransactionBehavior};

use tx::{Counters, Tx};
pub use writer::StoreMetrics;
use writer::Writer;

use super::{
    AccountChange, AccountRow, BudgetRow, DirectoryAccount, NewClaim, OrderEnd, OrderEntry, Overdue, Projection, Renewal, Store,
    StoreError, StoredCertificate,
};
use crate::claim::{Claim, ClaimId, Event, Holder, Lane, Release, State, Timestamp, Value};

/// The file in the data folder.
const FILE: &str = "acmegate.sqlite";

/// The embedded store.
pub struct SqliteStore {
    writer: Writer,
    pepper: [u8; 32],
}

impl SqliteStore {
    /// Opens or makes the database in `folder`, brings its schema up to date, and projects what it holds for `zones` before it returns: each zone
    /// with a serial above any that it ever had. The caller holds the folder's lock; so the issuer's runs of earlier processes are over, and what
    /// they claimed is released, but for orders of the list of certificates, which go on with the values that stand.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if the file is broken, unwritable, or of a newer acmegate.
    pub fn open(folder: &Path, zones: &[Name], projection: Arc<dyn Projection>, metrics: StoreMetrics) -> Result<Self, StoreError> {
        let file = folder.join(FILE);
        let opened = (|| {
            let mut connection = schema::open(&file)?;
            let pepper = schema::pepper(&connection)?;
            let loaded = load(&mut connection, zones, &*projection).map_err(StoreError::from)?;
            Ok((connection, pepper, loaded))
        })();
        let (connection, pepper, (serials, counters)) = opened.map_err(|error| schema::explain(error, &file))?;
        let writer = Writer::start(connection, serials, counters, projection, metrics)?;
        Ok(Self { writer, pepper })
    }
}

/// Releases what runs of the issuer left behind, gives each zone its next serial, and projects its claims.
fn load(connection: &mut Connection, zones: &[Name], projection: &dyn Projection) -> rusqlite::Result<(HashMap<Name, u32>, Counters)> {
    let sql = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut counters = Counters::load(&sql)?;
    let abandoned = claims::release_runs(&mut Tx { sql: &sql, counters: &mut counters, touched: Vec::new() })?;
    let mut serials = HashMap::new();
    let mut loaded = Vec::new();
    for zone in zones {
        let serial = schema::next_serial(&sql, zone)?;
        serials.insert(zone.clone(), serial);
        loaded.push((zone, serial, claims::standing(&sql, zone)?));
    }
    sql.commit()?;
    if abandoned > 0 {
        tracing::warn!(claims = abandoned, "the values of an issue that was cut off are removed");
    }
    for (zone, serial, owners) in loaded {
        projection.project(zone, serial, owners);
    }
    Ok((serials, counters))
}

#[async_trait]
impl Store for SqliteStore {
    fn pepper(&self) -> [u8; 32] {
        self.pepper
    }

    fn broken(&self) -> Option<StoreError> {
        self.writer.broken()
    }

    async fn each_account(&self, mut each: Box<dyn FnMut(AccountRow) + Send>) -> Result<(), StoreError> {
        self.writer.run(move |tx: &mut Tx<'_>| accounts::each(tx, &mut *each)).await
    }

    async fn register(&self, account: AccountRow) -> Result<(), StoreError> {
        self.writer.run(move |tx: &mut Tx<'_>| accounts::insert(tx, &account)).await
    }

    async fn directory_account(&self, directory: &str) -> Result<Option<DirectoryAccount>, StoreError> {
        let directory = directory.to_owned();
        self.writer.run(move |tx: &mut Tx<'_>| accounts::directory(tx, &directory)).await
    }

    async fn save_directory_account(&self, account: DirectoryAccount) -> Result<DirectoryAccount, StoreError> {
        self.writer.run(move |tx: &mut Tx<'_>| accounts::save_directory(tx, &account)).await
    }

    async fn change_directory_account(&self, directory: &str, change: AccountChange) -> Result<Option<DirectoryAccount>, StoreError> {
        let directory = directory.to_owned();
        self.writer.run(move |tx: &mut Tx<'_>| accounts::change_directory(tx, &directory, &change)).await
    }

    async fn directory_accounts(&self) -> Result<Vec<DirectoryAccount>, StoreError> {
        self.writer.run(|tx: &mut Tx<'_>| accounts::directories(tx)).await
    }

    async fn claim(&self, new: Vec<NewClaim>) -> Result<Vec<Claim>, StoreError> {
        self.writer.run(move |tx: &mut Tx<'_>| new.iter().map(|new| claims::claim(tx, new)).collect()).await
    }

    async fn release(&self, releases: Vec<Release>) -> Result<Vec<Claim>, StoreError> {
        self.writer.run(move |tx: &mut Tx<'_>| claims::release(tx, &releases)).await
    }

    async fn release_all(&self, holder: &Holder) -> Result<Vec<Claim>, StoreError> {
        let holder = holder.clone();
        self.writer.run(move |tx: &mut Tx<'_>| claims::release_all(tx, &holder)).await
    }

    async fn expire(&self, now: Timestamp, limit: u32) -> Result<Vec<Claim>, StoreError> {
        self.writer.run(move |tx: &mut Tx<'_>| claims::expire(tx, now, limit)).await
    }

    async fn advance(&self, events: Vec<(ClaimId, Event)>) -> Result<Vec<Claim>, StoreError> {
        self.writer.run(move |tx: &mut Tx<'_>| claims::advance(tx, &events)).await
    }

    async fn lanes(&self) -> Result<Vec<Lane>, StoreError> {
        self.writer.run(|tx: &mut Tx<'_>| claims::lanes(tx)).await
    }

    async fn work(&self, lane: &Lane) -> Result<Vec<Claim>, StoreError> {
        let lane = lane.clone();
        self.writer.run(move |tx: &mut Tx<'_>| claims::work(tx, &lane)).await
    }

    async fn overdue(&self, now: Timestamp, limit: u32) -> Result<Vec<Overdue>, StoreError> {
        self.writer.run(move |tx: &mut Tx<'_>| claims::overdue(tx, now, limit)).await
    }

    async fn adopt(&self, strays: Vec<NewClaim>) -> Result<Vec<Claim>, StoreError> {
        self.writer.run(move |tx: &mut Tx<'_>| claims::adopt(tx, &strays)).await
    }

    async fn hurry(&self, ids: Vec<ClaimId>) -> Result<(), StoreError> {
        self.writer.run(move |tx: &mut Tx<'_>| claims::hurry(tx, &ids)).await
    }

    async fn claimed(&self, values: Vec<(Name, Value)>) -> Result<Vec<(Name, Value)>, StoreError> {
        self.writer.run(move |tx: &mut Tx<'_>| claims::claimed(tx, &values)).await
    }

    async fn shared(&self, owners: Vec<Name>, holder: &Holder) -> Result<Vec<Name>, StoreError> {
        let holder = holder.clone();
        self.writer.run(move |tx: &mut Tx<'_>| claims::shared(tx, &owners, &holder)).await
    }

    async fn find(&self, ids: Vec<ClaimId>) -> Result<Vec<Claim>, StoreError> {
        self.writer.run(move |tx: &mut Tx<'_>| claims::find(tx, &ids)).await
    }

    async fn census(&self) -> Result<Vec<(State, u64)>, StoreError> {
        self.writer.run(|tx: &mut Tx<'_>| Ok(tx.counters.census.to_vec())).await
    }

    async fn begin_order(&self, order: OrderEntry, taken: Vec<BudgetRow>) -> Result<(), StoreError> {
        self.writer
            .run(move |tx: &mut Tx<'_>| {
                certificates::save_budget(tx, &taken)?;
                certificates::begin(tx, &order)
            })
            .await
    }

    async fn order_placed(&self, order: OrderEntry, claims: Vec<NewClaim>) -> Result<Vec<Claim>, StoreError> {
        self.writer
            .run(move |tx: &mut Tx<'_>| {
                certificates::placed(tx, &order)?;
                claims.iter().map(|new| claims::claim(tx, new)).collect()
            })
            .await
    }

    async fn orders(&self, job: &str) -> Result<Vec<OrderEntry>, StoreError> {
        let job = job.to_owned();
        self.writer.run(move |tx: &mut Tx<'_>| certificates::orders(tx, &job)).await
    }

    async fn listed_orders(&self) -> Result<Vec<String>, StoreError> {
        self.writer.run(|tx: &mut Tx<'_>| certificates::listed(tx)).await
    }

    async fn forget_order(&self, job: &str, directory: &str) -> Result<(), StoreError> {
        let (job, directory) = (job.to_owned(), directory.to_owned());
        self.writer.run(move |tx: &mut Tx<'_>| certificates::forget(tx, &job, &directory)).await
    }

    async fn end_order(&self, end: OrderEnd) -> Result<Vec<Claim>, StoreError> {
        self.writer
            .run(move |tx: &mut Tx<'_>| {
                certificates::end(tx, &end)?;
                end.holder.as_ref().map_or_else(|| Ok(Vec::new()), |holder| claims::release_all(tx, holder))
            })
            .await
    }

    async fn certificate(&self, name: &str) -> Result<Option<StoredCertificate>, StoreError> {
        let name = name.to_owned();
        self.writer.run(move |tx: &mut Tx<'_>| certificates::read(tx, &name)).await
    }

    async fn renewals(&self) -> Result<Vec<Renewal>, StoreError> {
        self.writer.run(|tx: &mut Tx<'_>| certificates::renewals(tx)).await
    }

    async fn save_renewals(&self, renewals: Vec<Renewal>) -> Result<(), StoreError> {
        self.writer.run(move |tx: &mut Tx<'_>| renewals.iter().try_for_each(|renewal| certificates::save_renewal(tx, renewal))).await
    }

    async fn delete_certificate(&self, name: &str, job: &str) -> Result<bool, StoreError> {
        let (name, job) = (name.to_owned(), job.to_owned());
        self.writer.run(move |tx: &mut Tx<'_>| certificates::delete(tx, &name, &job)).await
    }

    async fn budget(&self) -> Result<Vec<BudgetRow>, StoreError> {
        self.writer.run(|tx: &mut Tx<'_>| certificates::budget(tx)).await
    }

    async fn save_budget(&self, rows: Vec<BudgetRow>) -> Result<(), StoreError> {
        self.writer.run(move |tx: &mut Tx<'_>| certificates::save_budget(tx, &rows)).await
    }

    async fn close(&self) {
        self.writer.close().await;
    }
}
