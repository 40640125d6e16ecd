//! What the server counts.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    answer::{Outcome, Transport},
    types::Rcode,
};

/// Counters since the start, for whoever exports them. Reading them costs the server nothing.
#[derive(Debug, Default)]
pub struct Counters {
    queries: [AtomicU64; Transport::ALL.len()],
    responses: [AtomicU64; Rcode::ALL.len()],
    truncated: AtomicU64,
    dropped: AtomicU64,
    unsent: AtomicU64,
    tcp_connections: AtomicU64,
    tcp_refused: AtomicU64,
}

impl Counters {
    /// Messages that came in over a transport.
    pub fn queries(&self, transport: Transport) -> u64 {
        self.queries[transport as usize].load(Ordering::Relaxed)
    }

    /// Responses with a response code.
    pub fn responses(&self, rcode: Rcode) -> u64 {
        Rcode::ALL.iter().position(|&known| known == rcode).map_or(0, |at| self.responses[at].load(Ordering::Relaxed))
    }

    /// Responses with the TC bit.
    pub fn truncated(&self) -> u64 {
        self.truncated.load(Ordering::Relaxed)
    }

    /// Messages that got no response: runts, responses, and whatever claims to come from port 0.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// UDP responses that the system did not take.
    pub fn unsent(&self) -> u64 {
        self.unsent.load(Ordering::Relaxed)
    }

    /// TCP connections that were accepted.
    pub fn tcp_connections(&self) -> u64 {
        self.tcp_connections.load(Ordering::Relaxed)
    }

    /// TCP connections that were closed at once, because a limit was reached.
    pub fn tcp_refused(&self) -> u64 {
        self.tcp_refused.load(Ordering::Relaxed)
    }

    pub(crate) fn record(&self, transport: Transport, outcome: Outcome) {
        add(&self.queries[transport as usize]);
        match outcome {
            Outcome::Dropped => add(&self.dropped),
            Outcome::Answered { rcode, truncated } => {
                if let Some(at) = Rcode::ALL.iter().position(|&known| known == rcode) {
                    add(&self.responses[at]);
                }
                if truncated {
                    add(&self.truncated);
                }
            }
        }
    }

    pub(crate) fn unsent_response(&self) {
        add(&self.unsent);
    }

    pub(crate) fn tcp_connection(&self, refused: bool) {
        add(if refused { &self.tcp_refused } else { &self.tcp_connections });
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
