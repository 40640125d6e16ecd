//! Is it alive, is it ready: what `/healthz` and `/readyz` say.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

/// Where `serve` is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Opening, binding.
    Starting,
    /// Every door is open.
    Ready,
    /// Asked to stop: no new work, finishing the old.
    Draining,
}

/// The phase, shared between the lifecycle and the metrics door.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<AtomicU8>);

impl Health {
    /// The phase now.
    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }

    /// Enters a phase.
    pub fn enter(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Release);
    }
}
