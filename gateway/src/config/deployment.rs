//! Where a certificate goes and who learns of it, as it is told by the list `certificates:` and by the options of `acmegate issue`.
//!
//! These are settings alone, each valid by itself; what is done with them is [`crate::deploy`]'s.

mod files;
mod fingerprint;
mod notification;
mod owner;
mod place;
mod secret;

use std::sync::Arc;

pub use files::{BadMode, Files, KeyMode, Layout};
pub use notification::{BadCommand, BadHookUrl, BadSignal, BadUnit, Command, Hook, HookContent, HookUrl, Notification, Reload, SignalName};
pub use owner::{BadOwner, Owner};
pub use place::{BadPlace, CaCertificate, Place, TlsSecret};
pub use secret::{BadPassword, NoSecret, Password, SecretSource};

/// What is done with a certificate once it is there.
#[derive(Debug, Clone, Default)]
pub struct Deployment {
    /// What the certificate is called, for those who are told of it.
    pub name: Arc<str>,
    /// Folders.
    pub files: Vec<Files>,
    /// Secrets of the cluster.
    pub secrets: Vec<TlsSecret>,
    /// Who is told, in this order, once all of these hold the certificate.
    pub notifications: Vec<Notification>,
}

impl Deployment {
    /// Whether a cluster is needed for it.
    pub fn needs_cluster(&self) -> bool {
        let restarts = |told: &Notification| matches!(told, Notification::Reload(Reload::Deployment(_)));
        !self.secrets.is_empty() || self.notifications.iter().any(restarts)
    }
}
