//! What a verb sees of the database.

use authdns::Name;
use rusqlite::Connection;

use crate::claim::State;

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

/// Numbers given out (a rolled back transaction leaves a gap, which harms nobody), and how many claims are in each state.
pub(super) struct Counters {
    id: i64,
    seq: i64,
    pub(super) census: Census,
}

/// Claims by the number of their state: counted as they move, for to count them in the database would hold up every write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Census([u64; State::ALL.len()]);

impl Census {
    /// A claim went from one state to another; `None` is where it comes from and where it goes.
    pub(super) fn moved(&mut self, from: Option<State>, to: Option<State>) {
        if let Some(count) = from.and_then(|state| self.0.get_mut(state as usize)) {
            *count = count.saturating_sub(1);
        }
        if let Some(count) = to.and_then(|state| self.0.get_mut(state as usize)) {
            *count += 1;
        }
    }

    /// Each state with its number.
    pub(super) fn to_vec(self) -> Vec<(State, u64)> {
        State::ALL.into_iter().zip(self.0).collect()
    }
}

impl Counters {
    /// As an earlier process left them.
    pub(super) fn load(sql: &Connection) -> rusqlite::Result<Self> {
        let numbers = "SELECT coalesce(max(id), 0), coalesce(max(seq), 0) FROM claims";
        let (id, seq) = sql.query_row(numbers, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut census = Census::default();
        let mut statement = sql.prepare("SELECT state, count(*) FROM claims GROUP BY state")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (state, count): (u8, i64) = (row.get(0)?, row.get(1)?);
            if let Some(counted) = census.0.get_mut(usize::from(state)) {
                *counted = count.unsigned_abs();
            }
        }
        Ok(Self { id, seq, census })
    }
}
