//! Errors by what the caller does next.

use std::time::Duration;

/// Why a provider did not do what it was asked. The text is deterministic and for people; the variant decides about a retry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The credential is missing, wrong or not allowed: a person has to act. Nothing was done.
    #[error("the credential was refused: {0}")]
    Auth(String),
    /// No such zone or object: look the zone up again. Nothing was done.
    #[error("not found: {0}")]
    NotFound(String),
    /// Asked too often: wait at least so long, if the provider said how long. Nothing was done.
    #[error("asked too often: {reason}")]
    RateLimited {
        /// What the provider said.
        reason: String,
        /// How long it asked to wait.
        retry_after: Option<Duration>,
    },
    /// Somebody else changed the RRset since it was read: read again, merge, try again. Nothing was done.
    #[error("changed by somebody else meanwhile: {0}")]
    Conflict(String),
    /// The provider understood and will not: the same request would fail again. Nothing was done.
    #[error("refused: {0}")]
    Rejected(String),
    /// Nothing was sent (no connection, a call before this one failed): try again later.
    #[error("not sent: {0}")]
    Unsent(String),
    /// No usable answer; the change may or may not have been made: read again before anything else.
    #[error("no answer: {0}")]
    Transport(String),
}

impl Error {
    /// True if the same intent can succeed later without a person.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::RateLimited { .. } | Self::Conflict(_) | Self::Unsent(_) | Self::Transport(_))
    }

    /// The variant in one word, for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Auth(_) => "auth",
            Self::NotFound(_) => "not_found",
            Self::RateLimited { .. } => "rate_limited",
            Self::Conflict(_) => "conflict",
            Self::Rejected(_) => "rejected",
            Self::Unsent(_) => "unsent",
            Self::Transport(_) => "transport",
        }
    }

    /// True if the provider certainly did nothing.
    pub fn is_untouched(&self) -> bool {
        !matches!(self, Self::Transport(_))
    }
}
