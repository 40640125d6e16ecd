//! Fills the data folder of a stopped acmegate with accounts and values, far faster than its API would.
//!
//! It knows nothing of how names are written there: it copies the rows of one account that came through the API and changes what tells accounts apart.

use std::path::Path;

use anyhow::{Context, ensure};
use rusqlite::{Connection, params};
use uuid::Uuid;

use crate::acmedns::value;

/// Adds `count` accounts whose keys nobody knows. The store holds at least one that was registered.
///
/// # Errors
/// When the database is not as expected.
pub fn accounts(data: &Path, count: u64) -> anyhow::Result<()> {
    let mut sql = open(data)?;
    let tx = sql.transaction()?;
    let created: i64 = tx.query_row("SELECT max(created) FROM accounts", [], |row| row.get(0))?;
    {
        let mut insert = tx.prepare("INSERT INTO accounts (username, subdomain, key_hash, created) VALUES (?1, ?2, ?3, ?4)")?;
        for _ in 0..count {
            let (username, subdomain) = (Uuid::new_v4(), Uuid::new_v4());
            let hash = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
            insert.execute(params![username.as_bytes(), subdomain.as_bytes(), hash, created])?;
        }
    }
    tx.commit()?;
    checkpoint(&sql)
}

/// Adds `owners` names with `values` TXT values each, all in the zone of the one value that stands already; gives the names.
///
/// # Errors
/// When the database is not as expected.
pub fn values(data: &Path, owners: u64, values: u64) -> anyhow::Result<Vec<String>> {
    let mut sql = open(data)?;
    let tx = sql.transaction()?;
    let template = "SELECT zone, owner, holder, expires FROM claims LIMIT 1";
    type Template = (String, String, String, Option<i64>);
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
    let (zone, owner, holder, expires): Template = tx.query_row(template, [], read).context("no value stands yet")?;
    let (subdomain, rest) = owner.split_once('.').context("an owner without a dot")?;
    ensure!(holder.contains(subdomain), "{holder} does not name its account {subdomain}");
    let (mut id, mut seq): (i64, i64) = tx.query_row("SELECT max(id), max(seq) FROM claims", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut names = Vec::new();
    {
        let mut insert = tx.prepare(
            "INSERT INTO claims (id, seq, claimed, backend, zone, owner, value, holder, state, placed, expires)
             SELECT ?1, ?2, ?2, backend, ?3, ?4, ?5, ?6, state, placed, ?7 FROM claims LIMIT 1",
        )?;
        for _ in 0..owners {
            let label = Uuid::new_v4().to_string();
            let owner = format!("{label}.{rest}");
            for number in 0..values {
                (id, seq) = (id + 1, seq + 1);
                insert.execute(params![id, seq, zone, owner, value(number), holder.replace(subdomain, &label), expires])?;
            }
            names.push(owner);
        }
    }
    tx.commit()?;
    checkpoint(&sql)?;
    Ok(names)
}

fn open(data: &Path) -> anyhow::Result<Connection> {
    let file = data.join("acmegate.sqlite");
    let sql = Connection::open(&file).with_context(|| file.display().to_string())?;
    sql.execute_batch("PRAGMA synchronous = OFF")?;
    Ok(sql)
}

/// A start after this finds an empty log, as after a clean stop.
fn checkpoint(sql: &Connection) -> anyhow::Result<()> {
    Ok(sql.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
}
