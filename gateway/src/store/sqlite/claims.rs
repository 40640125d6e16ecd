//! The SQL of claims. What a claim becomes is decided by its state machine; here it is only read and written.

use std::{error::Error, str::FromStr};

use authdns::Name;
use rusqlite::{Connection, OptionalExtension, Row, params, types::Type};

use super::tx::Tx;
use crate::{
    claim::{Backend, Claim, ClaimId, Event, Failure, Fate, Holder, Lane, Release, State, Timestamp, Value},
    store::{NewClaim, Overdue},
};

/// A query for whole claims, as [`decode`] reads them.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, backend, zone, owner, value, holder, state, placed, receipt, failure, attempts, retry_at, expires FROM claims ",
            $rest
        )
    };
}

pub(super) fn claim(tx: &mut Tx<'_>, new: &NewClaim) -> rusqlite::Result<Claim> {
    let embedded = new.lane.backend == Backend::Embedded;
    let mut claim = Claim {
        id: ClaimId(tx.next_id()),
        lane: new.lane.clone(),
        owner: new.owner.clone(),
        value: new.value.clone(),
        holder: new.holder.clone(),
        state: if embedded { State::Visible } else { State::Wanted },
        placed: embedded,
        receipt: None,
        failure: None,
        expires: new.expires,
    };
    let seq = tx.next_seq();
    let owner = claim.owner.to_string();
    let inserted = tx
        .sql
        .prepare_cached(
            "INSERT INTO claims (id, seq, claimed, backend, zone, owner, value, holder, state, placed, expires)
             VALUES (?1, ?2, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            claim.id.0,
            seq,
            claim.lane.backend.as_str(),
            claim.lane.zone.to_string(),
            owner,
            claim.value.as_str(),
            claim.holder.as_str(),
            claim.state as u8,
            claim.placed,
            claim.expires.map(|at| at.0)
        ])?;
    if inserted == 1 {
        tx.counters.census.moved(None, Some(claim.state));
        touch(tx, &claim);
    } else {
        claim = standing_claim(tx, new, &owner)?;
        claim.expires = new.expires;
        let before = claim.state;
        claim.step(&Event::Claim);
        write(tx, &claim, seq)?;
        tx.counters.census.moved(Some(before), Some(claim.state));
        tx.sql.prepare_cached("UPDATE claims SET claimed = ?2 WHERE id = ?1")?.execute(params![claim.id.0, seq])?;
        touch(tx, &claim);
    }
    if let Some(keep) = new.keep {
        release_older(tx, &claim, &owner, keep)?;
    }
    Ok(claim)
}

fn standing_claim(tx: &Tx<'_>, new: &NewClaim, owner: &str) -> rusqlite::Result<Claim> {
    tx.sql
        .prepare_cached(select!("WHERE owner = ?1 AND value = ?2 AND holder = ?3 AND backend = ?4 AND zone = ?5"))?
        .query_row(params![owner, new.value.as_str(), new.holder.as_str(), new.lane.backend.as_str(), new.lane.zone.to_string()], decode)
}

/// Releases the holder's claims at this owner but the newest `keep`.
fn release_older(tx: &mut Tx<'_>, claim: &Claim, owner: &str, keep: u32) -> rusqlite::Result<()> {
    let older: Vec<Claim> = tx
        .sql
        .prepare_cached(select!("WHERE owner = ?1 AND holder = ?2 AND state <> ?3 ORDER BY claimed DESC LIMIT -1 OFFSET ?4"))?
        .query_map(params![owner, claim.holder.as_str(), State::Releasing as u8, keep], decode)?
        .collect::<rusqlite::Result<_>>()?;
    for mut old in older {
        step(tx, &mut old, &Event::Release)?;
    }
    Ok(())
}

pub(super) fn release(tx: &mut Tx<'_>, releases: &[Release]) -> rusqlite::Result<Vec<Claim>> {
    let mut found = Vec::new();
    for release in releases {
        let (holder, value) = (release.holder.as_str(), release.value.as_str());
        let claims: Vec<Claim> = match &release.owner {
            Some(owner) => tx
                .sql
                .prepare_cached(select!("WHERE owner = ?1 AND value = ?2 AND holder = ?3"))?
                .query_map(params![owner.to_string(), value, holder], decode)?
                .collect::<rusqlite::Result<_>>()?,
            None => of_holder(tx, &release.holder)?.into_iter().filter(|claim| claim.value == release.value).collect(),
        };
        found.extend(claims);
    }
    step_all(tx, found, &Event::Release)
}

pub(super) fn release_all(tx: &mut Tx<'_>, holder: &Holder) -> rusqlite::Result<Vec<Claim>> {
    let claims = of_holder(tx, holder)?;
    step_all(tx, claims, &Event::Release)
}

/// Releases what any run of the issuer claimed, but for orders that go on by themselves; gives how many claims that were.
pub(super) fn release_runs(tx: &mut Tx<'_>) -> rusqlite::Result<usize> {
    let claims: Vec<Claim> = tx
        .sql
        .prepare(select!(
            "WHERE holder GLOB 'issue:*' AND holder NOT GLOB 'acmedns:*' AND state <> 4
             AND holder NOT IN (SELECT 'issue:' || run FROM orders WHERE job GLOB 'certificate *')"
        ))?
        .query_map([], decode)?
        .collect::<rusqlite::Result<_>>()?;
    Ok(step_all(tx, claims, &Event::Release)?.len())
}

fn of_holder(tx: &Tx<'_>, holder: &Holder) -> rusqlite::Result<Vec<Claim>> {
    // The second condition lets the planner use the partial index; an acme-dns account's claims are found by a scan, for rare uses.
    let query = if holder.as_str().starts_with("acmedns:") {
        select!("WHERE holder = ?1")
    } else {
        select!("WHERE holder = ?1 AND holder NOT GLOB 'acmedns:*'")
    };
    tx.sql.prepare_cached(query)?.query_map(params![holder.as_str()], decode)?.collect()
}

pub(super) fn expire(tx: &mut Tx<'_>, now: Timestamp, limit: u32) -> rusqlite::Result<Vec<Claim>> {
    let due: Vec<Claim> = tx
        .sql
        .prepare_cached(select!("WHERE expires <= ?1 AND state <> ?2 ORDER BY expires LIMIT ?3"))?
        .query_map(params![now.0, State::Releasing as u8, limit], decode)?
        .collect::<rusqlite::Result<_>>()?;
    step_all(tx, due, &Event::Release)
}

pub(super) fn overdue(tx: &Tx<'_>, now: Timestamp, limit: u32) -> rusqlite::Result<Vec<Overdue>> {
    // Two queries, each with an index of its own; what is in the first is not in the second.
    let mut found: Vec<Overdue> = tx
        .sql
        .prepare_cached(select!("WHERE state = 4 AND state <> 3 AND backend <> 'embedded' ORDER BY backend, zone, owner LIMIT ?1"))?
        .query_map(params![limit], |row| Ok(Overdue { claim: decode(row)?, since: None }))?
        .collect::<rusqlite::Result<_>>()?;
    let mut released = tx.sql.prepare_cached("SELECT released FROM claims WHERE id = ?1")?;
    for overdue in &mut found {
        let at: Option<i64> = released.query_row(params![overdue.claim.id.0], |row| row.get(0))?;
        overdue.since = at.map(Timestamp);
    }
    let room = limit.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
    let expired: Vec<Claim> = tx
        .sql
        .prepare_cached(select!("WHERE expires <= ?1 AND state <> 4 AND backend <> 'embedded' ORDER BY expires LIMIT ?2"))?
        .query_map(params![now.0, room], decode)?
        .collect::<rusqlite::Result<_>>()?;
    found.extend(expired.into_iter().map(|claim| Overdue { since: claim.expires, claim }));
    found.sort_by(|a, b| (&a.claim.lane, &a.claim.owner, a.claim.id).cmp(&(&b.claim.lane, &b.claim.owner, b.claim.id)));
    Ok(found)
}

pub(super) fn adopt(tx: &mut Tx<'_>, strays: &[NewClaim]) -> rusqlite::Result<Vec<Claim>> {
    let mut adopted = Vec::new();
    for stray in strays {
        if stray.lane.backend == Backend::Embedded || names(tx, &stray.owner, &stray.value)? {
            continue;
        }
        let mut new = claim(tx, &NewClaim { expires: None, keep: None, ..stray.clone() })?;
        // It stands there, and it is ours: as if it had been placed and let go.
        new.placed = true;
        new.state = State::Submitted;
        tx.counters.census.moved(Some(State::Wanted), Some(State::Submitted));
        step(tx, &mut new, &Event::Release)?;
        adopted.push(new);
    }
    Ok(adopted)
}

pub(super) fn hurry(tx: &Tx<'_>, ids: &[ClaimId]) -> rusqlite::Result<()> {
    let mut statement = tx.sql.prepare_cached("UPDATE claims SET retry_at = 0 WHERE id = ?1 AND retry_at IS NOT NULL")?;
    for id in ids {
        statement.execute(params![id.0])?;
    }
    Ok(())
}

pub(super) fn claimed(tx: &Tx<'_>, values: &[(Name, Value)]) -> rusqlite::Result<Vec<(Name, Value)>> {
    let mut found = Vec::new();
    for (owner, value) in values {
        if names(tx, owner, value)? {
            found.push((owner.clone(), value.clone()));
        }
    }
    Ok(found)
}

pub(super) fn shared(tx: &Tx<'_>, owners: &[Name], holder: &Holder) -> rusqlite::Result<Vec<Name>> {
    let mut statement = tx.sql.prepare_cached("SELECT 1 FROM claims WHERE owner = ?1 AND holder <> ?2")?;
    let mut shared = Vec::new();
    for owner in owners {
        if statement.exists(params![owner.to_string(), holder.as_str()])? {
            shared.push(owner.clone());
        }
    }
    Ok(shared)
}

/// True if a claim at a provider names this value at this owner.
fn names(tx: &Tx<'_>, owner: &Name, value: &Value) -> rusqlite::Result<bool> {
    tx.sql
        .prepare_cached("SELECT 1 FROM claims WHERE owner = ?1 AND value = ?2 AND backend <> 'embedded'")?
        .exists(params![owner.to_string(), value.as_str()])
}

pub(super) fn advance(tx: &mut Tx<'_>, events: &[(ClaimId, Event)]) -> rusqlite::Result<Vec<Claim>> {
    let mut changed = Vec::with_capacity(events.len());
    for (id, event) in events {
        if let Some(mut claim) = by_id(tx.sql, *id)?
            && step(tx, &mut claim, event)? == Fate::Changed
        {
            changed.push(claim);
        }
    }
    Ok(changed)
}

pub(super) fn lanes(tx: &Tx<'_>) -> rusqlite::Result<Vec<Lane>> {
    tx.sql
        .prepare_cached("SELECT DISTINCT backend, zone FROM claims WHERE state <> 3")?
        .query_map([], |row| Ok(Lane { backend: Backend::from(row.get_ref(0)?.as_str()?), zone: parse(row, 1)? }))?
        .collect()
}

pub(super) fn work(tx: &Tx<'_>, lane: &Lane) -> rusqlite::Result<Vec<Claim>> {
    tx.sql
        .prepare_cached(select!(
            "WHERE owner IN (SELECT owner FROM claims WHERE backend = ?1 AND zone = ?2 AND state <> 3)
             AND backend = ?1 AND zone = ?2 ORDER BY claimed"
        ))?
        .query_map(params![lane.backend.as_str(), lane.zone.to_string()], decode)?
        .collect()
}

pub(super) fn find(tx: &Tx<'_>, ids: &[ClaimId]) -> rusqlite::Result<Vec<Claim>> {
    ids.iter().filter_map(|id| by_id(tx.sql, *id).transpose()).collect()
}

/// The values claimed at an owner of an embedded zone, oldest first, each once.
pub(super) fn values(sql: &Connection, zone: &Name, owner: &Name) -> rusqlite::Result<Vec<Box<str>>> {
    let mut statement =
        sql.prepare_cached("SELECT value FROM claims WHERE owner = ?1 AND backend = 'embedded' AND zone = ?2 ORDER BY claimed")?;
    let mut rows = statement.query(params![owner.to_string(), zone.to_string()])?;
    let mut values: Vec<Box<str>> = Vec::new();
    while let Some(row) = rows.next()? {
        let value = row.get_ref(0)?.as_str()?;
        if !values.iter().any(|v| **v == *value) {
            values.push(value.into());
        }
    }
    Ok(values)
}

/// All owners of an embedded zone with their values, for the start.
pub(super) fn standing(sql: &Connection, zone: &Name) -> rusqlite::Result<Vec<(Name, Vec<Box<str>>)>> {
    let mut statement = sql.prepare("SELECT owner, value FROM claims WHERE backend = 'embedded' AND zone = ?1 ORDER BY owner, claimed")?;
    let mut rows = statement.query(params![zone.to_string()])?;
    let mut owners: Vec<(Name, Vec<Box<str>>)> = Vec::new();
    while let Some(row) = rows.next()? {
        let (owner, value): (Name, Box<str>) = (parse(row, 0)?, row.get_ref(1)?.as_str()?.into());
        match owners.last_mut() {
            Some((last, values)) if *last == owner => {
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            _ => owners.push((owner, vec![value])),
        }
    }
    Ok(owners)
}

fn step_all(tx: &mut Tx<'_>, mut claims: Vec<Claim>, event: &Event) -> rusqlite::Result<Vec<Claim>> {
    for claim in &mut claims {
        step(tx, claim, event)?;
    }
    Ok(claims)
}

fn step(tx: &mut Tx<'_>, claim: &mut Claim, event: &Event) -> rusqlite::Result<Fate> {
    let before = claim.state;
    let fate = claim.step(event);
    match fate {
        Fate::Unchanged => {}
        Fate::Changed => {
            let seq = tx.next_seq();
            write(tx, claim, seq)?;
            if claim.state == State::Releasing && before != State::Releasing {
                let now = Timestamp::now().0;
                tx.sql.prepare_cached("UPDATE claims SET released = ?2 WHERE id = ?1")?.execute(params![claim.id.0, now])?;
            }
            tx.counters.census.moved(Some(before), Some(claim.state));
        }
        Fate::Gone => {
            tx.sql.prepare_cached("DELETE FROM claims WHERE id = ?1")?.execute(params![claim.id.0])?;
            tx.counters.census.moved(Some(before), None);
            touch(tx, claim);
        }
    }
    Ok(fate)
}

fn write(tx: &Tx<'_>, claim: &Claim, seq: i64) -> rusqlite::Result<()> {
    let (reason, attempts, retry_at) = match &claim.failure {
        Some(failure) => (Some(&failure.reason), failure.attempts, Some(failure.retry_at.0)),
        None => (None, 0, None),
    };
    tx.sql
        .prepare_cached(
            "UPDATE claims SET seq = ?2, state = ?3, placed = ?4, receipt = ?5, failure = ?6, attempts = ?7, retry_at = ?8, expires = ?9
             WHERE id = ?1",
        )?
        .execute(params![
            claim.id.0,
            seq,
            claim.state as u8,
            claim.placed,
            claim.receipt,
            reason,
            attempts,
            retry_at,
            claim.expires.map(|at| at.0)
        ])?;
    Ok(())
}

fn touch(tx: &mut Tx<'_>, claim: &Claim) {
    if claim.lane.backend == Backend::Embedded {
        tx.touched.push((claim.lane.zone.clone(), claim.owner.clone()));
    }
}

fn by_id(sql: &Connection, id: ClaimId) -> rusqlite::Result<Option<Claim>> {
    sql.prepare_cached(select!("WHERE id = ?1"))?.query_row(params![id.0], decode).optional()
}

fn decode(row: &Row<'_>) -> rusqlite::Result<Claim> {
    let failure: Option<String> = row.get(9)?;
    let (attempts, retry_at): (u32, Option<i64>) = (row.get(10)?, row.get(11)?);
    let state: i64 = row.get(6)?;
    Ok(Claim {
        id: ClaimId(row.get(0)?),
        lane: Lane { backend: Backend::from(row.get_ref(1)?.as_str()?), zone: parse(row, 2)? },
        owner: parse(row, 3)?,
        value: parse::<Value>(row, 4)?,
        holder: Holder::from(row.get_ref(5)?.as_str()?),
        state: State::from_stored(state).ok_or(rusqlite::Error::IntegralValueOutOfRange(6, state))?,
        placed: row.get(7)?,
        receipt: row.get(8)?,
        failure: failure.map(|reason| Failure { reason, attempts, retry_at: Timestamp(retry_at.unwrap_or(0)) }),
        expires: row.get::<_, Option<i64>>(12)?.map(Timestamp),
    })
}

fn parse<T: FromStr<Err: Error + Send + Sync + 'static>>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    text.parse().map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}
