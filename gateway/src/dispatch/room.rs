//! What belongs to one lane.

use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{DispatchMetrics, Pace, Route, Sight, queue::Waiting, watches::Watches};
use crate::{
    claim::{ClaimId, Lane},
    store::Store,
};

/// What belongs to one lane: shared by its rounds, by the watches of what it sent, and by whoever kicks it.
pub(super) struct Room {
    pub(super) lane: Lane,
    pub(super) route: Route,
    pub(super) store: Arc<dyn Store>,
    pub(super) sight: Arc<dyn Sight>,
    pub(super) pace: Pace,
    pub(super) metrics: DispatchMetrics,
    pub(super) work: Notify,
    pub(super) rounds: watch::Sender<u64>,
    pub(super) watches: Watches,
    pub(super) waiting: Waiting,
    /// Claims whose last attempt failed in a way that a person has to mend.
    pub(super) refused: Mutex<HashSet<ClaimId>>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}
