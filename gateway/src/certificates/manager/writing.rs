//! How certificates stand, written down.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Inner;
use crate::{claim::Timestamp, store::StoreError};

/// What may wait goes into one commit with what comes in this time.
const GATHERING: Duration = Duration::from_millis(250);
/// In one commit at most.
const MOST: usize = 500;

impl Inner {
    /// Writes how a certificate stands now, and tells who waits. A store that does not take it is complained about: the next start then knows less, and does some of it again.
    pub(super) async fn settled(&self, name: &str) {
        self.written(&[name.to_owned()]).await;
        self.told(name);
    }

    /// Has it written soon, for what a process that ends before does again without harm: a deployment, a question.
    pub(super) fn settled_meanwhile(&self, name: &str) {
        self.behind.names.lock().insert(name.to_owned());
        self.behind.wake.notify_one();
        self.told(name);
    }

    /// Writes what may wait, until `stop`, and then what is left of it.
    pub(super) async fn write_behind(&self, stop: &CancellationToken) {
        while stop.run_until_cancelled(self.behind.wake.notified()).await.is_some() {
            // Nobody waits for this but the disk.
            let _ = stop.run_until_cancelled(sleep(GATHERING)).await;
            self.write_gathered().await;
        }
        self.write_gathered().await;
    }

    async fn write_gathered(&self) {
        let names: Vec<String> = std::mem::take(&mut *self.behind.names.lock()).into_iter().collect();
        for names in names.chunks(MOST) {
            self.written(names).await;
        }
    }

    async fn written(&self, names: &[String]) {
        if let Err(error) = self.write(names).await {
            tracing::error!(certificates = names.join(" "), %error, "how they stand could not be written down");
        }
    }

    /// Writes how these certificates stand now.
    ///
    /// # Errors
    /// As the store says.
    pub(super) async fn write(&self, names: &[String]) -> Result<(), StoreError> {
        // One after the other, each with what is known by then.
        let _one = self.writing.lock().await;
        let renewals: Vec<_> = {
            let (planner, now) = (self.planner.lock(), Timestamp::now());
            names.iter().filter_map(|name| planner.status(name, now).map(|status| status.renewal.clone())).collect()
        };
        if renewals.is_empty() { Ok(()) } else { self.engine.store.save_renewals(renewals).await }
    }
}
