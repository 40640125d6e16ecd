//! What a verb sees of the database.

use authdns::Name;
use rusqlite::Connection;

/// A transaction that verbs share.
pub(super) struct Tx<'c> {
    /// The connection.
    pub(super) sql: &'c Connection,
    pub(super) counters: &'c mut Counters,
    /// Owners in embedded zones whose values changed; a verb that changes a claim of one puts it here.
    pub(super) touched: Vec<(Name, Name)>,
}

impl Tx<'_> {
    /// A new claim's name.
    pub(super) fn next_id(&mut self) -> i64 {
        self.counters.id += 1;
        self.counters.id
    }

    /// The ledger's next sequence number: what came later has the greater one, whatever the clock says.
    pub(super) fn next_seq(&mut self) -> i64 {
        self.counters.seq += 1;
        self.counters.seq
    }
}

/// Numbers given out; a rolled back transaction leaves a gap, which harms nobody.
pub(super) struct Counters {
    pub(super) id: i64,
    pub(super) seq: i64,
}

impl Counters {
    /// As an earlier process left them.
    pub(super) fn load(sql: &Connection) -> rusqlite::Result<Self> {
        sql.query_row("SELECT coalesce(max(id), 0), coalesce(max(seq), 0) FROM claims", [], |row| {
            Ok(Self { id: row.get(0)?, seq: row.get(1)? })
        })
    }
}
