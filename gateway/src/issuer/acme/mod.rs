//! A client of ACME (RFC 8555), small because it does one thing: it proves names by DNS-01.
//!
//! Our own, because the ready-made client's gaps cannot be closed from outside of it: a `badNonce` has to be signed again (and again: some CAs
//! refuse one nonce in twenty on purpose), a pool of nonces saves a request for each request, and Retry-After has to reach whoever decides when
//! to come back. One concern a file:
//!
//! - [`http`]: HTTPS with limits: time, size of bodies, trusted roots.
//! - [`retry_after`], [`problem`]: what a CA says when it does not do what it was asked.
//! - [`nonce`], [`jws`], [`key`]: what a signed request needs.
//! - [`directory`], [`client`]: a CA's URLs, and the requests to it; one client a directory for the life of the process, so that connections,
//!   nonces and the account are there when the next certificate needs them.
//! - [`patience`]: which requests are made again, and when; [`pace`]: when an order is looked at.
//! - [`account`], [`order`], [`renewal_info`], [`revocation`]: the nouns; [`resume`] takes up an order of an earlier run.

mod account;
mod client;
mod directory;
#[cfg(test)]
mod fake;
mod http;
mod jws;
mod key;
mod nonce;
mod order;
mod pace;
mod patience;
mod problem;
mod renewal_info;
mod resume;
mod retry_after;
mod revocation;

use std::time::SystemTime;

pub(super) use client::{Clients, Session};
pub(super) use order::{Authorization, Download, Order, Polled, Status, Wishes};
pub(super) use pace::Work;
pub use problem::{Problem, Subproblem};

use crate::store::StoreError;

/// Why a request to a CA did not do what it should.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum AcmeError {
    /// The CA answered with an error.
    #[error("{problem}")]
    Problem { problem: Box<Problem>, retry_at: Option<SystemTime> },
    /// No answer: unreachable, cut, too slow, TLS refused.
    #[error("{0}")]
    Transport(String),
    /// An answer that RFC 8555 does not allow.
    #[error("{0}")]
    Malformed(String),
    /// The directory cannot be used as it is configured.
    #[error("{text}")]
    Unusable { directory: String, text: String },
    /// The account could not be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A key that cannot be made or used.
    #[error("{0}")]
    Crypto(String),
}

/// What an account's key is (PKCS#8 DER): its kind, and its thumbprint (RFC 7638).
///
/// # Errors
/// [`AcmeError::Crypto`] if it cannot be used.
pub(super) fn describe_key(der: &[u8]) -> Result<(String, String), AcmeError> {
    let key = key::AccountKey::from_pkcs8(der)?;
    Ok((key.describe(), key.thumbprint()))
}

impl AcmeError {
    /// True if the request may or may not have been done: no answer, a broken one, or one of a server that failed.
    pub(super) fn is_lost(&self) -> bool {
        match self {
            Self::Transport(_) | Self::Malformed(_) => true,
            // A 501 is an answer: step-ca names a URL for new keys of accounts in its directory, and has nothing behind it.
            Self::Problem { problem, .. } => problem.status >= 500 && problem.status != 501 && !problem.is_later(),
            Self::Unusable { .. } | Self::Store(_) | Self::Crypto(_) => false,
        }
    }

    /// True if the CA's problem document has this type, such as `badNonce`.
    pub(super) fn is(&self, kind: &str) -> bool {
        matches!(self, Self::Problem { problem, .. } if problem.is(kind))
    }
}
