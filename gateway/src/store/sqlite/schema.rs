//! The schema, its migrations, and what is said when a file cannot be used.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use authdns::Name;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, config::DbConfig, params};

use crate::store::StoreError;

/// `PRAGMA application_id`: "acmg".
const APPLICATION: i64 = 0x6163_6d67;

/// Each entry brings the schema from its index to the next number; entries are never edited once released.
const MIGRATIONS: &[&str] = &[
    // Usernames and subdomains are 122 random bits: no unique index, which would cost a random page write for each registration.
    //
    // `seq` is the ledger's sequence number of a claim's last change, `claimed` that of its last claiming: the newest values are those claimed last,
    // whatever the dispatch did to others since.
    //
    // The claims' partial indexes leave out what the many short-lived values of acme-dns accounts do not need: those are released through
    // their owner name, and are visible from the start.
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
     CREATE TABLE zones (name TEXT PRIMARY KEY, serial INTEGER NOT NULL) STRICT, WITHOUT ROWID;
     CREATE TABLE accounts (
       id INTEGER PRIMARY KEY,
       username BLOB NOT NULL,
       subdomain BLOB NOT NULL,
       key_hash BLOB NOT NULL,
       allowfrom TEXT,
       created INTEGER NOT NULL
     ) STRICT;
     CREATE TABLE directory_accounts (
       directory TEXT PRIMARY KEY,
       key BLOB NOT NULL,
       url TEXT,
       created INTEGER NOT NULL
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE claims (
       id INTEGER PRIMARY KEY,
       seq INTEGER NOT NULL,
       claimed INTEGER NOT NULL,
       backend TEXT NOT NULL,
       zone TEXT NOT NULL,
       owner TEXT NOT NULL,
       value TEXT NOT NULL,
       holder TEXT NOT NULL,
       state INTEGER NOT NULL,
       placed INTEGER NOT NULL,
       receipt TEXT,
       failure TEXT,
       attempts INTEGER NOT NULL DEFAULT 0,
       retry_at INTEGER,
       expires INTEGER,
       UNIQUE (owner, value, holder, backend, zone)
     ) STRICT;
     CREATE INDEX claims_by_holder ON claims (holder) WHERE holder NOT GLOB 'acmedns:*';
     CREATE INDEX claims_by_expiry ON claims (expires) WHERE expires IS NOT NULL;
     CREATE INDEX claims_with_work ON claims (backend, zone, owner) WHERE state <> 3;",
    // When a claim at a provider was let go, in milliseconds: how long its value outstays its time.
    "ALTER TABLE claims ADD COLUMN released INTEGER;",
    // What the CA was told of us, and the key that it was asked to take.
    "ALTER TABLE directory_accounts ADD COLUMN contact TEXT;
     ALTER TABLE directory_accounts ADD COLUMN next_key BLOB;",
    // The list of certificates. How each stands changes often and is small; the material is large and changes rarely. All that one CA issues has the same few chains.
    "CREATE TABLE chains (id INTEGER PRIMARY KEY, pem TEXT NOT NULL UNIQUE) STRICT;
     CREATE TABLE certificates (
       name TEXT PRIMARY KEY,
       names TEXT NOT NULL,
       directory TEXT NOT NULL,
       key TEXT NOT NULL,
       leaf TEXT NOT NULL,
       chain INTEGER NOT NULL REFERENCES chains (id),
       url TEXT NOT NULL,
       not_before INTEGER NOT NULL,
       not_after INTEGER NOT NULL
     ) STRICT;
     CREATE INDEX certificates_by_chain ON certificates (chain);
     CREATE TABLE renewals (name TEXT PRIMARY KEY, state TEXT NOT NULL) STRICT;
     CREATE TABLE orders (
       job TEXT NOT NULL,
       directory TEXT NOT NULL,
       wish TEXT NOT NULL,
       run TEXT NOT NULL,
       url TEXT,
       key TEXT,
       begun INTEGER NOT NULL,
       PRIMARY KEY (job, directory)
     ) STRICT;
     CREATE TABLE budget (
       directory TEXT NOT NULL,
       limit_name TEXT NOT NULL,
       subject TEXT NOT NULL,
       full_at INTEGER NOT NULL,
       PRIMARY KEY (directory, limit_name, subject)
     ) STRICT, WITHOUT ROWID;
     CREATE INDEX budget_by_time ON budget (full_at);",
];

/// Opens the file, sets how it is written, and migrates it.
pub(super) fn open(file: &Path) -> Result<Connection, StoreError> {
    let mut connection = Connection::open(file)?;
    // Secrets are in there; the write-ahead log takes its mode from the file.
    if let Err(error) = fs::set_permissions(file, Permissions::from_mode(0o600)) {
        return Err(StoreError::Unusable(format!("the mode of {} cannot be set to 0600: {error}", file.display())));
    }
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(StoreError::Unusable(format!(
            "{} cannot use a write-ahead log (journal mode {mode}): put the data folder on a local disk",
            file.display()
        )));
    }
    connection.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA wal_autocheckpoint = 1000; PRAGMA journal_size_limit = 67108864; PRAGMA temp_store = MEMORY;",
    )?;
    // Plans that do not look at bound values: else SQLite plans `state <> ?` anew for each value, as a partial index might or might not serve
    // it, which costs more than running the statement.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(64);
    migrate(&mut connection, file)?;
    Ok(connection)
}

fn migrate(connection: &mut Connection, file: &Path) -> Result<(), StoreError> {
    let application: i64 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let at: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application != APPLICATION && tables > 0 {
        return Err(StoreError::Unusable(format!(
            "{} is a database of another program: give acmegate a data folder of its own",
            file.display()
        )));
    }
    let known = MIGRATIONS.len();
    let Some(pending) = usize::try_from(at).ok().and_then(|at| MIGRATIONS.get(at..)) else {
        return Err(StoreError::Unusable(format!(
            "{} was written by a newer acmegate (schema {at}; this one knows {known}): run that version, or a copy of the data folder from before its upgrade",
            file.display()
        )));
    };
    if pending.is_empty() {
        return Ok(());
    }
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in pending {
        tx.execute_batch(step)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION)?;
    tx.pragma_update(None, "user_version", i64::try_from(known).unwrap_or(i64::MAX))?;
    tx.commit()?;
    Ok(())
}

/// The key of the keyed hash over acme-dns keys; made at the first start.
pub(super) fn pepper(connection: &Connection) -> Result<[u8; 32], StoreError> {
    let stored: Option<[u8; 32]> = connection.query_row("SELECT value FROM meta WHERE key = 'pepper'", [], |row| row.get(0)).optional()?;
    if let Some(pepper) = stored {
        return Ok(pepper);
    }
    let mut pepper = [0; 32];
    getrandom::fill(&mut pepper).map_err(|error| StoreError::Failed(format!("no random bytes from the system: {error}")))?;
    connection.execute("INSERT INTO meta (key, value) VALUES ('pepper', ?1)", params![pepper])?;
    Ok(pepper)
}

/// The next serial of a zone, written: above the last one, and at first the time in seconds, so that a zone whose data folder was lost does
/// not go back either (RFC 1982 arithmetic: it may wrap).
pub(super) fn next_serial(tx: &Transaction<'_>, zone: &Name) -> rusqlite::Result<u32> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as u32;
    let zone = zone.to_string();
    let last: Option<u32> = tx.query_row("SELECT serial FROM zones WHERE name = ?1", params![zone], |row| row.get(0)).optional()?;
    let next = last.map_or(now, |last| last.wrapping_add(1));
    tx.execute(
        "INSERT INTO zones (name, serial) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET serial = excluded.serial",
        params![zone, next],
    )?;
    Ok(next)
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                Self::Unusable(format!("the database is broken ({error}): restore the data folder from a copy"))
            }
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                Self::Unusable(format!("the database cannot be written ({error}): give acmegate a data folder that it may write"))
            }
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// Puts the file's name in front of an error that was found while opening it.
pub(super) fn explain(error: StoreError, file: &Path) -> StoreError {
    match error {
        StoreError::Unusable(text) if !text.contains(&*file.to_string_lossy()) => {
            StoreError::Unusable(format!("{}: {text}", file.display()))
        }
        other => other,
    }
}
