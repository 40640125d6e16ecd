//! What people ask for.

use std::ops::Bound;

use serde::{Deserialize, Serialize};
use tokio::{
    sync::{broadcast, mpsc},
    time::{Duration, timeout},
};

use super::{
    super::{planner::State, report::CertificateReport},
    Manager,
};
use crate::{
    claim::Timestamp,
    issuer::{Event, IssueError, PrivateKeyPem, RevocationReason, job_of},
    store::StoreError,
};

/// Who waits for a certificate looks at it at least so often, whatever it was told.
const LOOK: Duration = Duration::from_secs(1);

/// What can be asked for of one certificate. Travels over the admin socket as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRequest {
    /// Its name in the list.
    pub name: String,
    /// What to do.
    pub action: CertificateAction,
}

/// What can be done with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum CertificateAction {
    /// Tell how it stands.
    Show,
    /// Get another one now, and put it where it goes.
    Renew,
    /// Put the one that is there where it goes, again.
    Deploy,
    /// Have the CA revoke it. One of the configuration is replaced at once.
    Revoke {
        /// Why (RFC 5280, 5.3.1).
        reason: RevocationReason,
    },
    /// Delete it and its key from the store.
    Delete,
}

/// Why a certificate was not done with what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "error", rename_all = "snake_case")]
pub enum CertificateError {
    /// There is no such certificate.
    #[error("there is no certificate {name:?}: `acmegate certificates list` shows them all")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// It is not in the configuration.
    #[error("{name:?} is in the store, but no longer in the configuration: add it to `certificates:` there first")]
    Unlisted {
        /// The certificate.
        name: String,
    },
    /// It is in the configuration.
    #[error("{name:?} is in the configuration, and would be ordered anew at once: take it out of `certificates:` there first")]
    Listed {
        /// The certificate.
        name: String,
    },
    /// Nothing is issued yet.
    #[error("there is no certificate in the store for {name:?} yet")]
    NotIssued {
        /// The certificate.
        name: String,
    },
    /// The CA of the certificate is not configured.
    #[error(
        "{name:?} was issued by {directory}, which is not among issuer.directories: add it there, for its roots and settings are needed"
    )]
    NoDirectory {
        /// The certificate.
        name: String,
        /// The directory's URL.
        directory: String,
    },
    /// The store or the CA.
    #[error("{0}")]
    Issue(Box<IssueError>),
}

impl CertificateError {
    /// The exit code of a command that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unknown { .. } | Self::Listed { .. } | Self::Unlisted { .. } | Self::NoDirectory { .. } => 2,
            Self::NotIssued { .. } => 1,
            Self::Issue(error) => error.exit_code(),
        }
    }
}

impl From<StoreError> for CertificateError {
    fn from(error: StoreError) -> Self {
        Self::Issue(Box::new(error.into()))
    }
}

impl From<IssueError> for CertificateError {
    fn from(error: IssueError) -> Self {
        Self::Issue(Box::new(error))
    }
}

impl Manager {
    /// Does what is asked for, and gives how the certificate stands then; `None` if it is deleted. What an order does on its way goes to `events`. Somebody has to run
    /// [`Manager::run`] meanwhile.
    ///
    /// # Errors
    /// [`CertificateError`]. That an order or a deployment failed is told by the report.
    pub async fn handle(
        &self,
        request: &CertificateRequest,
        events: mpsc::Sender<Event>,
    ) -> Result<Option<CertificateReport>, CertificateError> {
        let name = request.name.as_str();
        let known = self.show(name).ok_or_else(|| CertificateError::Unknown { name: name.to_owned() })?;
        let listed = self.0.list.contains_key(name);
        match request.action {
            CertificateAction::Show => Ok(Some(known)),
            CertificateAction::Renew if !listed => Err(CertificateError::Unlisted { name: name.to_owned() }),
            CertificateAction::Deploy if !listed => Err(CertificateError::Unlisted { name: name.to_owned() }),
            CertificateAction::Delete if listed => Err(CertificateError::Listed { name: name.to_owned() }),
            CertificateAction::Renew => {
                self.0.watchers.lock().insert(name.to_owned(), events);
                let changed = self.0.changed.subscribe();
                self.0.planner.lock().force(name);
                self.begin(name).await?;
                Ok(self.settled(name, changed).await)
            }
            CertificateAction::Deploy => {
                if known.not_after.is_none() {
                    return Err(CertificateError::NotIssued { name: name.to_owned() });
                }
                let changed = self.0.changed.subscribe();
                self.0.planner.lock().redeploy(name);
                self.begin(name).await?;
                Ok(self.settled(name, changed).await)
            }
            CertificateAction::Revoke { reason } => {
                let changed = self.0.changed.subscribe();
                self.0.watchers.lock().insert(name.to_owned(), events);
                self.revoke(name, reason).await?;
                Ok(self.settled(name, changed).await)
            }
            CertificateAction::Delete => {
                self.0.engine.store.delete_certificate(name, &job_of(name)).await?;
                self.0.planner.lock().deleted(name, Timestamp::now());
                Ok(None)
            }
        }
    }

    async fn revoke(&self, name: &str, reason: RevocationReason) -> Result<(), CertificateError> {
        let stored = self.0.engine.store.certificate(name).await?;
        let stored = stored.ok_or_else(|| CertificateError::NotIssued { name: name.to_owned() })?;
        let directory = self.0.directory(name, &stored.directory);
        let directory =
            directory.ok_or_else(|| CertificateError::NoDirectory { name: name.to_owned(), directory: stored.directory.clone() })?;
        let key = PrivateKeyPem::new(stored.key_pem.to_string());
        self.0.issuer.revoke(&directory, &stored.certificate_pem, Some(&key), reason).await?;
        self.0.planner.lock().revoked(name);
        self.begin(name).await
    }

    /// Writes down what was asked for, and has it done.
    async fn begin(&self, name: &str) -> Result<(), CertificateError> {
        let written = self.0.write(&[name.to_owned()]).await;
        self.0.told(name);
        Ok(written?)
    }

    /// Waits until nothing is due any more.
    pub async fn all_settled(&self) {
        let mut changed = self.0.changed.subscribe();
        // The list is worked off about in the order of names: each look begins where the last one ended, or a long list would be looked through for each of its certificates.
        let mut from = String::new();
        loop {
            match self.unsettled(&from) {
                Some(name) => {
                    from = name;
                    let _ = timeout(LOOK, changed.recv()).await;
                }
                None if from.is_empty() => return,
                None => from.clear(),
            }
        }
    }

    /// The first certificate, from a name on, of which something is due.
    fn unsettled(&self, from: &str) -> Option<String> {
        let now = Timestamp::now();
        let planner = self.0.planner.lock();
        let mut reports = planner.iter_from(Bound::Included(from), now).map(|status| CertificateReport::of(&status));
        reports.find(|report| report.state != State::Unlisted && !report.is_settled(now)).map(|report| report.name)
    }

    /// Waits until nothing more comes of a certificate by itself.
    async fn settled(&self, name: &str, mut changed: broadcast::Receiver<String>) -> Option<CertificateReport> {
        loop {
            let report = self.show(name)?;
            if report.is_settled(Timestamp::now()) {
                self.0.watchers.lock().remove(name);
                return Some(report);
            }
            // Whatever it says, there is reason to look; and after a while without a word, too.
            let _ = timeout(LOOK, changed.recv()).await;
        }
    }
}
