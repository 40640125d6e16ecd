//! What is on disk. The verbs are whole transactions; nothing in them assumes that one process has the store to itself.

mod certificates;
mod folder;
mod sqlite;

use async_trait::async_trait;
use authdns::Name;
use ipnet::IpNet;
use uuid::Uuid;
use zeroize::Zeroizing;

pub use certificates::{BudgetRow, OrderEnd, OrderEntry, Renewal, Standing, StoredCertificate, Window};
pub use folder::DataFolder;
pub use sqlite::{SqliteStore, StoreMetrics};

use crate::claim::{Claim, ClaimId, Event, Holder, Lane, Release, State, Timestamp, Value};

/// Why the store did not do what it was asked. Nothing of the request was kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Too much is waiting to be written.
    #[error("too many writes are waiting: try again later")]
    Busy,
    /// The disk is full.
    #[error("the disk that holds the data folder is full: free space; nothing acknowledged is lost")]
    Full,
    /// The store is closing.
    #[error("acmegate is stopping: try again after it has started")]
    Closed,
    /// Another process holds the data folder.
    #[error("{0}")]
    Locked(String),
    /// The data folder or the database cannot be used as it is: unwritable, broken, newer. The text says what to do.
    #[error("{0}")]
    Unusable(String),
    /// Anything else that SQLite says.
    #[error("the store failed: {0}")]
    Failed(String),
}

/// An acme-dns account as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRow {
    /// `X-Api-User`.
    pub username: Uuid,
    /// The label below the zone; independent of the username.
    pub subdomain: Uuid,
    /// Keyed blake3 of the 40-character key.
    pub key_hash: [u8; 32],
    /// Networks that may update; empty is any.
    pub allowfrom: Vec<IpNet>,
}

/// An account at an ACME directory.
#[derive(Clone)]
pub struct DirectoryAccount {
    /// The directory's URL.
    pub directory: String,
    /// The account key, PKCS#8 DER.
    pub key: Zeroizing<Vec<u8>>,
    /// The account's URL; `None` until the CA has answered the registration.
    pub url: Option<String>,
    /// The e-mail address that the CA was told.
    pub contact: Option<String>,
    /// A key that the CA was asked to take instead, and whose answer is not known yet.
    pub next_key: Option<Zeroizing<Vec<u8>>>,
}

/// A change of an account at an ACME directory.
#[derive(Clone)]
pub enum AccountChange {
    /// The CA will be asked to take this key instead. One that is there already stays.
    NextKey(Zeroizing<Vec<u8>>),
    /// The CA took the next key (true), or it did not and keeps the old one (false).
    KeyAnswered(bool),
    /// The CA was told this e-mail address, or that there is none.
    Contact(Option<String>),
    /// The CA has closed the account.
    Closed,
}

/// A claim to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewClaim {
    /// Who will make it true.
    pub lane: Lane,
    /// Where the value shall stand.
    pub owner: Name,
    /// The value.
    pub value: Value,
    /// Who claims.
    pub holder: Holder,
    /// When it is released by itself.
    pub expires: Option<Timestamp>,
    /// Keep only the newest so many claims of this holder at this owner, this one included.
    pub keep: Option<u32>,
}

/// A claim at a provider that should be gone: its time is over, or its holder let go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overdue {
    /// The claim.
    pub claim: Claim,
    /// Since when it should be gone; `None` where an older acmegate wrote it and did not write that down.
    pub since: Option<Timestamp>,
}

/// Told, after a commit and in the order of commits, what now stands at owner names of embedded zones. Verbs return after it was told.
pub trait Projection: Send + Sync {
    /// `values` is all that is claimed at an owner; an empty list means nothing is.
    fn project(&self, zone: &Name, serial: u32, owners: Vec<(Name, Vec<Box<str>>)>);
}

/// The store.
#[async_trait]
pub trait Store: Send + Sync {
    /// The key of the keyed hash over acme-dns keys: random, made with the store.
    fn pepper(&self) -> [u8; 32];

    /// Why the store can no longer be written, once that is so; the process should then end and start again.
    fn broken(&self) -> Option<StoreError>;

    /// Calls `each` with every acme-dns account. For the start: it may take a second for a million of them.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn each_account(&self, each: Box<dyn FnMut(AccountRow) + Send>) -> Result<(), StoreError>;

    /// Writes a new acme-dns account; durable when it returns.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn register(&self, account: AccountRow) -> Result<(), StoreError>;

    /// The account for a directory URL, if one was begun.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn directory_account(&self, directory: &str) -> Result<Option<DirectoryAccount>, StoreError>;

    /// Writes a directory account, key first (`url: None`), then again with its URL; durable when it returns. The key that stands for a
    /// directory is never replaced: if another one is there already, that one is given back and nothing is written.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn save_directory_account(&self, account: DirectoryAccount) -> Result<DirectoryAccount, StoreError>;

    /// Changes the account at a directory, and gives it as it is now; `None` if there is none (any more). Durable when it returns.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn change_directory_account(&self, directory: &str, change: AccountChange) -> Result<Option<DirectoryAccount>, StoreError>;

    /// Every account at a directory, by the directories' URLs.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn directory_accounts(&self) -> Result<Vec<DirectoryAccount>, StoreError>;

    /// Writes claims, all or none; a claim that stands already is renewed. Gives them as they are now, in the order asked.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn claim(&self, claims: Vec<NewClaim>) -> Result<Vec<Claim>, StoreError>;

    /// Releases claims; gives those that were there, as they are now (those of embedded zones are gone already).
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn release(&self, releases: Vec<Release>) -> Result<Vec<Claim>, StoreError>;

    /// Releases everything of a holder.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn release_all(&self, holder: &Holder) -> Result<Vec<Claim>, StoreError>;

    /// Releases up to `limit` claims whose time is over.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn expire(&self, now: Timestamp, limit: u32) -> Result<Vec<Claim>, StoreError>;

    /// Moves claims on; gives those that an event changed and that are still there. Claims that are gone meanwhile are passed over.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn advance(&self, events: Vec<(ClaimId, Event)>) -> Result<Vec<Claim>, StoreError>;

    /// The lanes of providers in which a claim is neither visible nor gone.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn lanes(&self) -> Result<Vec<Lane>, StoreError>;

    /// Every claim of a lane at every owner where at least one is neither visible nor gone.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn work(&self, lane: &Lane) -> Result<Vec<Claim>, StoreError>;

    /// Up to `limit` claims at providers whose time is over at `now`, or that are being released; by lane and owner.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn overdue(&self, now: Timestamp, limit: u32) -> Result<Vec<Overdue>, StoreError>;

    /// Takes over values that are ours and that no claim names, for to remove them: each becomes a claim that is being released, with its value in DNS.
    /// One that any claim names by now, whoever's and at whatever backend, is left to that. Gives the claims that were written.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn adopt(&self, strays: Vec<NewClaim>) -> Result<Vec<Claim>, StoreError>;

    /// Makes the next attempt for claims due at once, whatever they wait for after their last failure.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn hurry(&self, ids: Vec<ClaimId>) -> Result<(), StoreError>;

    /// Of these values at their owner names, those that a claim names, at any provider.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn claimed(&self, values: Vec<(Name, Value)>) -> Result<Vec<(Name, Value)>, StoreError>;

    /// Of these owner names, those at which anybody but `holder` has a claim, whatever its state.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn shared(&self, owners: Vec<Name>, holder: &Holder) -> Result<Vec<Name>, StoreError>;

    /// The claims with these names that are still there.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn find(&self, ids: Vec<ClaimId>) -> Result<Vec<Claim>, StoreError>;

    /// How many claims are in each state.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn census(&self) -> Result<Vec<(State, u64)>, StoreError>;

    /// Begins an order, or begins it again: what stands for the same job at the same directory is replaced. What it takes of the CA's limits is written with it, and rows of
    /// the budget that are worth nothing any more go.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn begin_order(&self, order: OrderEntry, taken: Vec<BudgetRow>) -> Result<(), StoreError>;

    /// Writes down the order's URL and the key that its certificate gets, together with the claims that are to prove its names, as [`Store::claim`] does.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn order_placed(&self, order: OrderEntry, claims: Vec<NewClaim>) -> Result<Vec<Claim>, StoreError>;

    /// The orders of a job that were begun and have not ended: one at a directory.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn orders(&self, job: &str) -> Result<Vec<OrderEntry>, StoreError>;

    /// The names of the certificates of the list whose orders were placed, as far as is known, and have not ended.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn listed_orders(&self) -> Result<Vec<String>, StoreError>;

    /// Forgets the order of a job at a directory: nothing can come of it any more.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn forget_order(&self, job: &str, directory: &str) -> Result<(), StoreError>;

    /// Ends a job's orders, with what came of them. Gives the claims that went with them, as [`Store::release_all`] does.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn end_order(&self, end: OrderEnd) -> Result<Vec<Claim>, StoreError>;

    /// The certificate with this name in the list.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn certificate(&self, name: &str) -> Result<Option<StoredCertificate>, StoreError>;

    /// How every certificate stands that ever was in the list and was not deleted, by name.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn renewals(&self) -> Result<Vec<Renewal>, StoreError>;

    /// Writes how certificates stand now. What is about an older certificate than the one that is known is left out: somebody has issued another one meanwhile.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn save_renewals(&self, renewals: Vec<Renewal>) -> Result<(), StoreError>;

    /// Deletes a certificate with its key, how it stands, and its orders; false if there was none.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn delete_certificate(&self, name: &str, job: &str) -> Result<bool, StoreError>;

    /// What is known of the CAs' limits.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn budget(&self) -> Result<Vec<BudgetRow>, StoreError>;

    /// Writes what was learned of the CAs' limits.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    async fn save_budget(&self, rows: Vec<BudgetRow>) -> Result<(), StoreError>;

    /// Writes what is waiting and closes. Later calls get [`StoreError::Closed`].
    async fn close(&self);
}
