//! The SQL of certificates, of orders that are under way, and of what the CAs' limits leave.

use rusqlite::{OptionalExtension, Row, params, types::Type};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::tx::Tx;
use crate::{
    claim::Timestamp,
    store::{
        BudgetRow, OrderEnd, OrderEntry, Renewal, StoredCertificate,
        certificates::{join, split},
    },
};

/// For so long, in milliseconds, the order of a one-shot is kept that came to no end, and any order: CAs keep them no longer.
const ONE_SHOT: i64 = 3_600_000;
const ANY: i64 = 90 * 86_400_000;

pub(super) fn begin(tx: &Tx<'_>, order: &OrderEntry) -> rusqlite::Result<()> {
    tx.sql
        .prepare_cached("DELETE FROM orders WHERE (job GLOB 'issue *' AND begun < ?1) OR begun < ?2")?
        .execute(params![order.begun.0 - ONE_SHOT, order.begun.0 - ANY])?;
    tx.sql
        .prepare_cached("INSERT OR REPLACE INTO orders (job, directory, wish, run, url, key, begun) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
        .execute(params![
            order.job,
            order.directory,
            order.wish,
            order.run.to_string(),
            order.url,
            order.key_pem.as_ref().map(|key| key.as_str()),
            order.begun.0
        ])?;
    Ok(())
}

pub(super) fn placed(tx: &Tx<'_>, order: &OrderEntry) -> rusqlite::Result<()> {
    tx.sql.prepare_cached("UPDATE orders SET url = ?3, key = ?4, run = ?5 WHERE job = ?1 AND directory = ?2")?.execute(params![
        order.job,
        order.directory,
        order.url,
        order.key_pem.as_ref().map(|key| key.as_str()),
        order.run.to_string()
    ])?;
    Ok(())
}

pub(super) fn orders(tx: &Tx<'_>, job: &str) -> rusqlite::Result<Vec<OrderEntry>> {
    let row = |row: &Row<'_>| {
        Ok(OrderEntry {
            job: row.get(0)?,
            directory: row.get(1)?,
            wish: row.get(2)?,
            run: uuid(row, 3)?,
            url: row.get(4)?,
            key_pem: row.get::<_, Option<String>>(5)?.map(Zeroizing::new),
            begun: Timestamp(row.get(6)?),
        })
    };
    tx.sql
        .prepare_cached("SELECT job, directory, wish, run, url, key, begun FROM orders WHERE job = ?1 ORDER BY directory")?
        .query_map(params![job], row)?
        .collect()
}

fn uuid(row: &Row<'_>, column: usize) -> rusqlite::Result<Uuid> {
    Uuid::try_parse(row.get_ref(column)?.as_str()?)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

pub(super) fn listed(tx: &Tx<'_>) -> rusqlite::Result<Vec<String>> {
    tx.sql
        .prepare_cached("SELECT DISTINCT substr(job, length('certificate ') + 1) FROM orders WHERE job GLOB 'certificate *' AND url IS NOT NULL ORDER BY job")?
        .query_map([], |row| row.get(0))?
        .collect()
}

pub(super) fn forget(tx: &Tx<'_>, job: &str, directory: &str) -> rusqlite::Result<()> {
    tx.sql.prepare_cached("DELETE FROM orders WHERE job = ?1 AND directory = ?2")?.execute(params![job, directory])?;
    Ok(())
}

pub(super) fn end(tx: &Tx<'_>, end: &OrderEnd) -> rusqlite::Result<()> {
    tx.sql.prepare_cached("DELETE FROM orders WHERE job = ?1")?.execute(params![end.job])?;
    if let Some(certificate) = &end.certificate {
        save(tx, certificate)?;
    }
    save_budget(tx, &end.learned)?;
    end.renewal.as_ref().map_or(Ok(()), |renewal| save_renewal(tx, renewal))
}

fn save(tx: &Tx<'_>, certificate: &StoredCertificate) -> rusqlite::Result<()> {
    let old: Option<i64> = tx
        .sql
        .prepare_cached("SELECT chain FROM certificates WHERE name = ?1")?
        .query_row(params![certificate.name], |row| row.get(0))
        .optional()?;
    tx.sql.prepare_cached("INSERT OR IGNORE INTO chains (pem) VALUES (?1)")?.execute(params![certificate.chain_pem])?;
    tx.sql
        .prepare_cached(
            "INSERT OR REPLACE INTO certificates (name, names, directory, key, leaf, chain, url, not_before, not_after)
             VALUES (?1, ?2, ?3, ?4, ?5, (SELECT id FROM chains WHERE pem = ?6), ?7, ?8, ?9)",
        )?
        .execute(params![
            certificate.name,
            join(&certificate.names),
            certificate.directory,
            certificate.key_pem.as_str(),
            certificate.certificate_pem,
            certificate.chain_pem,
            certificate.url,
            certificate.not_before.0,
            certificate.not_after.0
        ])?;
    old.map_or(Ok(()), |chain| forget_chain(tx, chain))
}

/// Forgets a chain that no certificate has any more.
fn forget_chain(tx: &Tx<'_>, chain: i64) -> rusqlite::Result<()> {
    tx.sql
        .prepare_cached("DELETE FROM chains WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM certificates WHERE chain = ?1)")?
        .execute(params![chain])?;
    Ok(())
}

pub(super) fn read(tx: &Tx<'_>, name: &str) -> rusqlite::Result<Option<StoredCertificate>> {
    let row = |row: &Row<'_>| {
        Ok(StoredCertificate {
            name: row.get(0)?,
            names: split(row.get_ref(1)?.as_str()?),
            directory: row.get(2)?,
            key_pem: Zeroizing::new(row.get(3)?),
            certificate_pem: row.get(4)?,
            chain_pem: row.get(5)?,
            url: row.get(6)?,
            not_before: Timestamp(row.get(7)?),
            not_after: Timestamp(row.get(8)?),
        })
    };
    tx.sql
        .prepare_cached(
            "SELECT name, names, directory, key, leaf, pem, url, not_before, not_after
             FROM certificates JOIN chains ON chains.id = certificates.chain WHERE name = ?1",
        )?
        .query_row(params![name], row)
        .optional()
}

pub(super) fn renewals(tx: &Tx<'_>) -> rusqlite::Result<Vec<Renewal>> {
    let row = |row: &Row<'_>| {
        let name: String = row.get(0)?;
        let renewal: Renewal = serde_json::from_str(row.get_ref(1)?.as_str()?)
            .map_err(|error| rusqlite::Error::FromSqlConversionFailure(1, Type::Text, Box::new(error)))?;
        Ok(Renewal { name, ..renewal })
    };
    tx.sql.prepare_cached("SELECT name, state FROM renewals ORDER BY name")?.query_map([], row)?.collect()
}

pub(super) fn save_renewal(tx: &Tx<'_>, renewal: &Renewal) -> rusqlite::Result<()> {
    let state = serde_json::to_string(renewal).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    // What runs beside an order may come after it with what it knew before.
    tx.sql
        .prepare_cached(
            "INSERT INTO renewals (name, state) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET state = excluded.state
             WHERE coalesce(json_extract(state, '$.standing.issued'), 0) <= coalesce(json_extract(excluded.state, '$.standing.issued'), 0)",
        )?
        .execute(params![renewal.name, state])?;
    Ok(())
}

pub(super) fn delete(tx: &Tx<'_>, name: &str, job: &str) -> rusqlite::Result<bool> {
    let chain: Option<i64> = tx
        .sql
        .prepare_cached("DELETE FROM certificates WHERE name = ?1 RETURNING chain")?
        .query_row(params![name], |row| row.get(0))
        .optional()?;
    if let Some(chain) = chain {
        forget_chain(tx, chain)?;
    }
    tx.sql.prepare_cached("DELETE FROM orders WHERE job = ?1")?.execute(params![job])?;
    let known = tx.sql.prepare_cached("DELETE FROM renewals WHERE name = ?1")?.execute(params![name])?;
    Ok(chain.is_some() || known > 0)
}

pub(super) fn budget(tx: &Tx<'_>) -> rusqlite::Result<Vec<BudgetRow>> {
    let row =
        |row: &Row<'_>| Ok(BudgetRow { directory: row.get(0)?, limit: row.get(1)?, subject: row.get(2)?, full_at: Timestamp(row.get(3)?) });
    tx.sql
        .prepare_cached("SELECT directory, limit_name, subject, full_at FROM budget ORDER BY directory, limit_name, subject")?
        .query_map([], row)?
        .collect()
}

pub(super) fn save_budget(tx: &Tx<'_>, rows: &[BudgetRow]) -> rusqlite::Result<()> {
    for row in rows {
        tx.sql
            .prepare_cached("INSERT OR REPLACE INTO budget (directory, limit_name, subject, full_at) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![row.directory, row.limit, row.subject, row.full_at.0])?;
    }
    if !rows.is_empty() {
        // What is full again says nothing.
        tx.sql.prepare_cached("DELETE FROM budget WHERE full_at <= ?1")?.execute(params![Timestamp::now().0])?;
    }
    Ok(())
}
