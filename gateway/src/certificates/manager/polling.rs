//! Renewal information of the CAs (RFC 9773).

use super::{super::planner::Polled, Inner, spread};
use crate::{
    claim::Timestamp,
    issuer::{CertificateId, RenewalInfo},
    store::Window,
};

impl Inner {
    /// Asks a CA when it would like a certificate to be renewed.
    pub(super) async fn poll(&self, name: &str, directory: &str, id: &str) {
        let polled = self.polled(name, directory, id).await;
        let now = Timestamp::now();
        self.planner.lock().polled(name, polled, now, spread());
        self.settled_meanwhile(name);
    }

    async fn polled(&self, name: &str, url: &str, id: &str) -> Polled {
        // A CA that is no longer configured is not asked: its roots and settings are not known.
        let (Some(directory), Ok(id)) = (self.directory(name, url), id.parse::<CertificateId>()) else { return Polled::Nothing };
        let answered = tokio::select! {
            () = self.cancel.cancelled() => return Polled::Failed { retry_at: None },
            answered = self.issuer.renewal_info(&directory, &id) => answered,
        };
        match answered {
            Ok(None) => Polled::Nothing,
            Ok(Some(RenewalInfo { start, end, explanation, poll_after })) => Polled::Window {
                window: Window { start: start.into(), end: end.into(), explanation },
                retry_at: Some(Timestamp::now().after(poll_after)),
            },
            Err(error) => {
                tracing::debug!(certificate = name, %error, "no renewal information");
                Polled::Failed { retry_at: error.retry_at().map(Into::into) }
            }
        }
    }
}
