//! What goes wrong at a cloud, on demand.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;

/// One thing that goes wrong, for one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// "Too often", in the vendor's words and headers, asking to wait so long.
    Throttle(Duration),
    /// An internal error, before anything was done.
    ErrorBefore,
    /// An internal error, after the call was carried out.
    ErrorAfter,
    /// The call is carried out, and the connection is cut without an answer.
    LostReply,
    /// The connection is cut, and nothing is done.
    LostRequest,
    /// Somebody else writes to the same RRset just before the call is carried out.
    Interfere,
    /// The credential is refused.
    Unauthorized,
}

/// The faults to come, shared between a test and an emulator. Reads and writes are counted and failed apart.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    reads: VecDeque<Fault>,
    writes: VecDeque<Fault>,
    /// While set, every call is answered so.
    outage: Option<Fault>,
    read_calls: u64,
    write_calls: u64,
}

impl Faults {
    /// The next reads go wrong so.
    pub fn on_reads(&self, faults: impl IntoIterator<Item = Fault>) {
        self.0.lock().reads.extend(faults);
    }

    /// The next writes go wrong so.
    pub fn on_writes(&self, faults: impl IntoIterator<Item = Fault>) {
        self.0.lock().writes.extend(faults);
    }

    /// From now on every call goes wrong so; `None` ends it.
    pub fn outage(&self, fault: Option<Fault>) {
        self.0.lock().outage = fault;
    }

    /// For an emulator: a call that reads begins; what goes wrong with it.
    pub fn read(&self) -> Option<Fault> {
        let mut inner = self.0.lock();
        inner.read_calls += 1;
        inner.outage.or_else(|| inner.reads.pop_front())
    }

    /// For an emulator: a call that changes something begins; what goes wrong with it.
    pub fn write(&self) -> Option<Fault> {
        let mut inner = self.0.lock();
        inner.write_calls += 1;
        inner.outage.or_else(|| inner.writes.pop_front())
    }

    /// Calls so far that read, and that changed something.
    pub fn calls(&self) -> (u64, u64) {
        let inner = self.0.lock();
        (inner.read_calls, inner.write_calls)
    }
}
