//! Orders.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{
    super::planner::{Order, Ordered, Wanted},
    Inner, spread, wishes,
};
use crate::{
    claim::Timestamp,
    config::Certificate,
    issuer::{CertificateId, IssueError, Issued, Keep, PrivateKeyPem, Reporter, job_of, serial_number},
    store::{OrderEnd, Standing, StoredCertificate},
};

/// What came of an order.
enum Came {
    /// A certificate, written together with the state that the planner gets to by this.
    Issued(Kept),
    /// Anything else.
    Else(Ordered),
}

/// What was chosen when a certificate was written down.
#[derive(Clone)]
struct Kept {
    standing: Standing,
    now: Timestamp,
    spread: f64,
}

impl Inner {
    /// Gets a certificate, and tells the planner what came of it.
    pub(super) async fn order(self: &Arc<Self>, order: Order) {
        let name = &order.name;
        tracing::info!(certificate = name, directory = order.directory, why = ?order.why, "ordering");
        let watcher = self.watchers.lock().remove(name);
        let outcome = match self.came(&order, watcher.map_or_else(Reporter::silent, Reporter::new)).await {
            Came::Issued(Kept { standing, now, spread }) => {
                self.planner.lock().ordered(name, Ordered::Issued(standing), now, spread);
                return self.told(name);
            }
            Came::Else(outcome) => outcome,
        };
        if let Ordered::Failed { text, .. } | Ordered::Paused { text, .. } = &outcome {
            tracing::error!(certificate = name, error = text, "no certificate; it is tried again");
        }
        self.planner.lock().ordered(name, outcome, Timestamp::now(), spread());
        // An order that is still good is gone on with.
        if self.engine.store.orders(&job_of(name)).await.is_ok_and(|left| left.iter().any(|order| order.url.is_some())) {
            self.planner.lock().resume(name);
        }
        self.settled(name).await;
    }

    async fn came(self: &Arc<Self>, order: &Order, reporter: Reporter) -> Came {
        let Some(certificate) = self.certificate(&order.name) else { return Came::Else(Ordered::Stopped) };
        let key = match self.key(certificate).await {
            Ok(key) => key,
            Err(error) => return Came::Else(failed(&error)),
        };
        let Some(request) = wishes::request(certificate, order, key) else { return Came::Else(Ordered::Stopped) };
        let wanted = wishes::wanted(certificate);
        let kept: Arc<Mutex<Option<Kept>>> = Arc::default();
        let keep: Keep = {
            let (inner, kept, dry_run) = (self.clone(), kept.clone(), certificate.dry_run);
            Box::new(move |issued| if dry_run { OrderEnd::default() } else { inner.kept(issued, &wanted, &kept) })
        };
        let outcome = self.issuer.renew(order.name.clone(), keep, request, reporter, self.cancel.child_token()).await;
        match (outcome, kept.lock().take()) {
            (Ok(_), Some(kept)) => Came::Issued(kept),
            (Ok(_), None) => Came::Else(Ordered::Rehearsed),
            (Err(error), _) => Came::Else(failed(&error)),
        }
    }

    /// What is written when a certificate is there, in one commit.
    fn kept(&self, issued: &Issued, wanted: &Wanted, kept: &Mutex<Option<Kept>>) -> OrderEnd {
        let (now, spread) = (Timestamp::now(), spread());
        let standing = standing(issued, wanted, now);
        let renewal = self.planner.lock().once_issued(&wanted.name, standing.clone(), now, spread);
        *kept.lock() = Some(Kept { standing, now, spread });
        OrderEnd { certificate: Some(stored(&wanted.name, issued)), renewal, ..OrderEnd::default() }
    }

    /// The key that the new certificate gets again, if the old one's kind is still wanted.
    async fn key(&self, certificate: &Certificate) -> Result<Option<PrivateKeyPem>, IssueError> {
        if !certificate.reuse_key {
            return Ok(None);
        }
        let stored = self.engine.store.certificate(&certificate.name).await?;
        let key = stored.map(|stored| PrivateKeyPem::new(stored.key_pem.to_string()));
        Ok(key.filter(|key| key.kind() == Some(certificate.key_type)))
    }
}

fn failed(error: &IssueError) -> Ordered {
    let text = error.to_string();
    match error {
        IssueError::Cancelled => Ordered::Stopped,
        IssueError::Limited { limit } => Ordered::Waits((**limit).clone()),
        error if error.unpause_url().is_some() => Ordered::Paused { text, url: error.unpause_url().unwrap_or_default().to_owned() },
        error => Ordered::Failed { text, retry_at: error.retry_at().map(Into::into) },
    }
}

/// What the planner has to know of a certificate.
fn standing(issued: &Issued, wanted: &Wanted, now: Timestamp) -> Standing {
    Standing {
        id: CertificateId::of(&issued.certificate_pem).map(|id| id.to_string()),
        serial: serial_number(&issued.certificate_pem).unwrap_or_default(),
        directory: issued.directory.clone(),
        names: issued.names.clone(),
        wish: wanted.wish.clone(),
        not_before: issued.not_before.into(),
        not_after: issued.not_after.into(),
        issued: now,
    }
}

fn stored(name: &str, issued: &Issued) -> StoredCertificate {
    StoredCertificate {
        name: name.to_owned(),
        names: issued.names.clone(),
        directory: issued.directory.clone(),
        key_pem: issued.private_key_pem.expose().to_owned().into(),
        certificate_pem: issued.certificate_pem.clone(),
        chain_pem: issued.chain_pem.clone(),
        url: issued.url.clone(),
        not_before: issued.not_before.into(),
        not_after: issued.not_after.into(),
    }
}
