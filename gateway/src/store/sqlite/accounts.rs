//! The SQL of accounts: acme-dns's and those at ACME directories.

use rusqlite::{OptionalExtension, params, types::Type};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::tx::Tx;
use crate::{
    claim::Timestamp,
    store::{AccountRow, DirectoryAccount},
};

pub(super) fn insert(tx: &mut Tx<'_>, account: &AccountRow) -> rusqlite::Result<()> {
    let allowfrom =
        (!account.allowfrom.is_empty()).then(|| account.allowfrom.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
    tx.sql
        .prepare_cached("INSERT INTO accounts (username, subdomain, key_hash, allowfrom, created) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![account.username.as_bytes(), account.subdomain.as_bytes(), account.key_hash, allowfrom, Timestamp::now().0])?;
    Ok(())
}

pub(super) fn each(tx: &Tx<'_>, each: &mut dyn FnMut(AccountRow)) -> rusqlite::Result<()> {
    let mut statement = tx.sql.prepare("SELECT username, subdomain, key_hash, allowfrom FROM accounts")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let allowfrom = match row.get_ref(3)?.as_str_or_null()? {
            None => Vec::new(),
            Some(list) => list
                .split(',')
                .map(str::parse)
                .collect::<Result<_, _>>()
                .map_err(|error: ipnet::AddrParseError| rusqlite::Error::FromSqlConversionFailure(3, Type::Text, Box::new(error)))?,
        };
        each(AccountRow {
            username: Uuid::from_bytes(row.get(0)?),
            subdomain: Uuid::from_bytes(row.get(1)?),
            key_hash: row.get(2)?,
            allowfrom,
        });
    }
    Ok(())
}

pub(super) fn directory(tx: &Tx<'_>, directory: &str) -> rusqlite::Result<Option<DirectoryAccount>> {
    tx.sql
        .prepare_cached("SELECT key, url FROM directory_accounts WHERE directory = ?1")?
        .query_row(params![directory], |row| {
            Ok(DirectoryAccount { directory: directory.to_owned(), key: Zeroizing::new(row.get(0)?), url: row.get(1)? })
        })
        .optional()
}

pub(super) fn save_directory(tx: &mut Tx<'_>, account: &DirectoryAccount) -> rusqlite::Result<DirectoryAccount> {
    if let Some(stored) = directory(tx, &account.directory)?
        && stored.key != account.key
    {
        return Ok(stored);
    }
    tx.sql
        .prepare_cached(
            "INSERT INTO directory_accounts (directory, key, url, created) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (directory) DO UPDATE SET url = coalesce(excluded.url, url)",
        )?
        .execute(params![account.directory, account.key.as_slice(), account.url, Timestamp::now().0])?;
    Ok(directory(tx, &account.directory)?.unwrap_or_else(|| account.clone()))
}
