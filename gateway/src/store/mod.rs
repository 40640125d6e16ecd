//! What is on disk. The verbs are whole transactions; nothing in them assumes that one process has the store to itself.

use async_trait::async_trait;
use ipnet::IpNet;
use uuid::Uuid;
use zeroize::Zeroizing;

/// Why the store did not do what it was asked. Nothing of the request was kept.
#[derive(Debug, Clone, thiserror::Error)]
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
    /// The database cannot be used as it is: broken, newer, unreadable. The text says what to do.
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
}

/// The store.
#[async_trait]
pub trait Store: Send + Sync {
    /// The key of the keyed hash over acme-dns keys: random, made with the store.
    fn pepper(&self) -> [u8; 32];

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
}
