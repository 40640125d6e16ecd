//! The SQL of accounts: acme-dns's and those at ACME directories.

use rusqlite::{OptionalExtension, Row, ToSql, params, types::Type};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::tx::Tx;
use crate::{
    claim::Timestamp,
    store::{AccountChange, AccountRow, DirectoryAccount},
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

const COLUMNS: &str = "SELECT directory, key, url, contact, next_key FROM directory_accounts";

fn row(row: &Row<'_>) -> rusqlite::Result<DirectoryAccount> {
    Ok(DirectoryAccount {
        directory: row.get(0)?,
        key: Zeroizing::new(row.get(1)?),
        url: row.get(2)?,
        contact: row.get(3)?,
        next_key: row.get::<_, Option<Vec<u8>>>(4)?.map(Zeroizing::new),
    })
}

pub(super) fn directory(tx: &Tx<'_>, directory: &str) -> rusqlite::Result<Option<DirectoryAccount>> {
    tx.sql.prepare_cached(&format!("{COLUMNS} WHERE directory = ?1"))?.query_row(params![directory], row).optional()
}

pub(super) fn directories(tx: &Tx<'_>) -> rusqlite::Result<Vec<DirectoryAccount>> {
    tx.sql.prepare_cached(&format!("{COLUMNS} ORDER BY directory"))?.query_map([], row)?.collect()
}

pub(super) fn save_directory(tx: &mut Tx<'_>, account: &DirectoryAccount) -> rusqlite::Result<DirectoryAccount> {
    if let Some(stored) = directory(tx, &account.directory)?
        && stored.key != account.key
    {
        return Ok(stored);
    }
    tx.sql
        .prepare_cached(
            "INSERT INTO directory_accounts (directory, key, url, contact, created) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (directory) DO UPDATE SET url = coalesce(excluded.url, url), contact = excluded.contact",
        )?
        .execute(params![account.directory, account.key.as_slice(), account.url, account.contact, Timestamp::now().0])?;
    Ok(directory(tx, &account.directory)?.unwrap_or_else(|| account.clone()))
}

pub(super) fn change_directory(tx: &mut Tx<'_>, name: &str, change: &AccountChange) -> rusqlite::Result<Option<DirectoryAccount>> {
    let run = |sql: &str, parameters: &[&dyn ToSql]| tx.sql.prepare_cached(sql)?.execute(parameters);
    match change {
        AccountChange::NextKey(key) => {
            run("UPDATE directory_accounts SET next_key = coalesce(next_key, ?2) WHERE directory = ?1", params![name, key.as_slice()])?
        }
        AccountChange::KeyAnswered(true) => run(
            "UPDATE directory_accounts SET key = next_key, next_key = NULL WHERE directory = ?1 AND next_key IS NOT NULL",
            params![name],
        )?,
        AccountChange::KeyAnswered(false) => run("UPDATE directory_accounts SET next_key = NULL WHERE directory = ?1", params![name])?,
        AccountChange::Contact(contact) => run("UPDATE directory_accounts SET contact = ?2 WHERE directory = ?1", params![name, contact])?,
        AccountChange::Closed => run("DELETE FROM directory_accounts WHERE directory = ?1", params![name])?,
    };
    directory(tx, name)
}
