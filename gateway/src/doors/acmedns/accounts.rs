//! The accounts, in memory: a look-up never waits for the store.
//!
//! A million accounts take about 80 MB: the records stand in one vector, a table of 4-byte indices finds them by user name, and the few lists of
//! allowed networks stand apart.

use std::sync::Arc;

use hashbrown::{HashTable, hash_table::Entry};
use ipnet::IpNet;
use parking_lot::{Mutex, RwLock};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::address::canonical_net;
use crate::store::{AccountRow, Store, StoreError};

/// Length of an account's key, in characters of `[A-Za-z0-9_-]`: 240 bits.
pub(super) const KEY: usize = 40;

/// All accounts.
pub(super) struct Accounts {
    pepper: [u8; 32],
    index: RwLock<Index>,
}

/// An account whose key was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    /// The label below the zone.
    pub(super) subdomain: Uuid,
    /// Networks that may update; `None` is any.
    pub(super) allowfrom: Option<Arc<[IpNet]>>,
}

impl Accounts {
    /// Reads all accounts from the store.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let index = Arc::new(Mutex::new(Index::default()));
        let filled = index.clone();
        store.each_account(Box::new(move |row| filled.lock().push(row))).await?;
        let mut index = std::mem::take(&mut *index.lock());
        index.link_all();
        Ok(Self { pepper: store.pepper(), index: RwLock::new(index) })
    }

    /// What is stored in place of a key.
    pub(super) fn hash(&self, key: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.pepper, key).as_bytes()
    }

    /// Makes an account usable. Call it when the account is durable.
    pub(super) fn insert(&self, row: AccountRow) {
        self.index.write().insert(row);
    }

    /// The account of this user name, if this is its key. An unknown name costs what a wrong key costs.
    pub(super) fn verify(&self, username: Uuid, key: &[u8]) -> Option<Account> {
        let found = self.index.read().find(username);
        let known = found.is_some();
        let (record, allowfrom) = found.unwrap_or_default();
        let equal: bool = self.hash(key).ct_eq(&record.key_hash).into();
        (equal && known).then_some(Account { subdomain: record.subdomain, allowfrom })
    }

    /// Number of accounts.
    pub(super) fn len(&self) -> usize {
        self.index.read().by_username.len()
    }
}

#[derive(Default)]
struct Index {
    records: Vec<Record>,
    by_username: HashTable<u32>,
    networks: Vec<Arc<[IpNet]>>,
}

/// 68 bytes.
#[derive(Clone, Copy, Default)]
struct Record {
    username: Uuid,
    subdomain: Uuid,
    key_hash: [u8; 32],
    /// One more than the place in `networks`; 0 is any network.
    networks: u32,
}

impl Index {
    fn find(&self, username: Uuid) -> Option<(Record, Option<Arc<[IpNet]>>)> {
        let is_it = |&at: &u32| self.records.get(at as usize).is_some_and(|record| record.username == username);
        let at = *self.by_username.find(place(username), is_it)?;
        let record = *self.records.get(at as usize)?;
        let networks = (record.networks as usize).checked_sub(1).and_then(|at| self.networks.get(at).cloned());
        Some((record, networks))
    }

    fn insert(&mut self, row: AccountRow) {
        let at = self.records.len();
        self.push(row);
        self.link(at);
    }

    fn push(&mut self, row: AccountRow) {
        let mut record = Record { username: row.username, subdomain: row.subdomain, key_hash: row.key_hash, networks: 0 };
        if !row.allowfrom.is_empty() {
            self.networks.push(row.allowfrom.into_iter().map(canonical_net).collect());
            record.networks = u32::try_from(self.networks.len()).unwrap_or(u32::MAX);
        }
        self.records.push(record);
    }

    /// Makes all records findable; the table gets its size at once, for growing it means to visit every record again.
    fn link_all(&mut self) {
        self.by_username = HashTable::with_capacity(self.records.len());
        (0..self.records.len()).for_each(|at| self.link(at));
    }

    /// Makes one record findable, in the place of an earlier one of the same name.
    fn link(&mut self, at: usize) {
        let records = &self.records;
        let username = |at: u32| records.get(at as usize).map(|record| record.username);
        // Four thousand million accounts do not fit in memory before they do not fit in the index.
        let (Ok(number), Some(record)) = (u32::try_from(at), records.get(at)) else { return };
        let same = |&other: &u32| username(other) == Some(record.username);
        match self.by_username.entry(place(record.username), same, |&other| username(other).map_or(0, place)) {
            Entry::Occupied(mut entry) => *entry.get_mut() = number,
            Entry::Vacant(entry) => {
                entry.insert(number);
            }
        }
    }
}

/// Names are random and ours, so they are their own hash; the halves are joined because some of their bits are fixed.
fn place(username: Uuid) -> u64 {
    let (high, low) = username.as_u64_pair();
    high ^ low.rotate_left(32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Accounts {
        Accounts { pepper: [7; 32], index: RwLock::default() }
    }

    fn key(number: u64) -> String {
        format!("{number:040}")
    }

    fn row(accounts: &Accounts, number: u64) -> AccountRow {
        AccountRow {
            username: Uuid::new_v4(),
            subdomain: Uuid::new_v4(),
            key_hash: accounts.hash(key(number).as_bytes()),
            allowfrom: if number.is_multiple_of(100) { vec!["192.0.2.0/24".parse().unwrap()] } else { Vec::new() },
        }
    }

    #[test]
    fn each_account_is_found_by_its_name_and_key_alone() {
        let accounts = empty();
        let rows: Vec<_> = (0..2_000).map(|number| row(&accounts, number)).collect();
        rows.iter().cloned().for_each(|row| accounts.insert(row));
        assert_eq!(accounts.len(), rows.len());
        for (number, row) in rows.iter().enumerate() {
            let account = accounts.verify(row.username, key(number as u64).as_bytes()).unwrap();
            assert_eq!(account.subdomain, row.subdomain);
            assert_eq!(account.allowfrom.is_some(), !row.allowfrom.is_empty());
            assert_eq!(accounts.verify(row.username, key(number as u64 + 1).as_bytes()), None);
            assert_eq!(accounts.verify(row.subdomain, key(number as u64).as_bytes()), None);
        }
        assert_eq!(accounts.verify(Uuid::nil(), key(0).as_bytes()), None);
    }

    #[test]
    fn a_row_read_again_replaces_itself() {
        let accounts = empty();
        let mut row = row(&accounts, 1);
        accounts.insert(row.clone());
        row.key_hash = accounts.hash(key(2).as_bytes());
        accounts.insert(row.clone());
        assert_eq!(accounts.len(), 1);
        assert!(accounts.verify(row.username, key(1).as_bytes()).is_none());
        assert!(accounts.verify(row.username, key(2).as_bytes()).is_some());
    }

    #[test]
    fn a_record_is_small() {
        assert_eq!(size_of::<Record>(), 68);
    }
}
