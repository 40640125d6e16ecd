//! Deployments.

use std::sync::Arc;

use super::{super::planner::Deployed, Inner, spread};
use crate::{claim::Timestamp, issuer::Issued};

impl Inner {
    /// Puts what is stored where it goes, and tells the planner what came of it.
    pub(super) async fn deploy(&self, name: &str) {
        let outcome = self.deployed(name).await;
        if let Deployed::Failed { text } = &outcome {
            tracing::error!(certificate = name, error = text, "not deployed everywhere; it is tried again, and nothing is issued for it");
        }
        let now = Timestamp::now();
        self.planner.lock().deployed(name, outcome, now, spread());
        self.settled_meanwhile(name);
    }

    async fn deployed(&self, name: &str) -> Deployed {
        let Some(certificate) = self.certificate(name) else { return Deployed::Stopped };
        let stored = match self.engine.store.certificate(name).await {
            Ok(Some(stored)) => stored,
            Ok(None) => return Deployed::Failed { text: "the certificate is not in the store".to_owned() },
            Err(error) => return Deployed::Failed { text: error.to_string() },
        };
        let issued = Arc::new(Issued::from(stored));
        let cluster = if certificate.deployment.needs_cluster() { self.cluster().await } else { None };
        let report = certificate.deployment.run(&issued, cluster, &self.cancel).await;
        match (report.succeeded(), self.cancel.is_cancelled()) {
            (true, _) => Deployed::Done,
            (false, true) => Deployed::Stopped,
            (false, false) => Deployed::Failed { text: report.to_string() },
        }
    }
}
