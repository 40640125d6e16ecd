//! Why there is no certificate, by what the caller does next.

use std::{fmt, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::{
    acme::{AcmeError, Problem},
    budget::Exhausted,
};
use crate::{config::BadName, ledger::ClaimError, propagation::PropagationError, store::StoreError};

/// Why there is no certificate. Texts are deterministic, say what happened and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "error", rename_all = "snake_case")]
pub enum IssueError {
    /// A name cannot be in a certificate, or there is none.
    #[error("{text}")]
    BadName {
        /// What is wrong and what to write instead.
        text: String,
    },
    /// The directory's settings cannot be used.
    #[error("the ACME directory {directory} cannot be used: {text}")]
    BadDirectory {
        /// The directory's URL.
        directory: String,
        /// What is wrong.
        text: String,
    },
    /// There is no account at the directory.
    #[error("there is no account at {directory}: `acmegate accounts register` makes one, and so does the first certificate")]
    NoAccount {
        /// The directory's URL.
        directory: String,
    },
    /// CAA records forbid the CA to issue; nothing was ordered.
    #[error("nothing was ordered, for the CA would have to refuse:\n{}", texts.join("\n"))]
    Caa {
        /// For each name: why, and the record to create or to change.
        texts: Vec<String>,
    },
    /// Challenge names do not lead to a name that the issuer may write.
    #[error("{}", texts.join("\n"))]
    Delegation {
        /// For each challenge name: what was found and the record to create.
        texts: Vec<String>,
    },
    /// The values could not be put into DNS.
    #[error("the values could not be set: {text}")]
    Claim {
        /// What the ledger said.
        text: String,
        /// True if the same may succeed later.
        later: bool,
    },
    /// The values are not visible at the servers that the CA will ask; nothing was submitted, so it costs no failure at the CA.
    #[error("{text}")]
    Propagation {
        /// Which servers answer what, and what to do.
        text: String,
    },
    /// The CA refused.
    #[error("the CA refused {action}: {problem}")]
    Refused {
        /// What was asked.
        action: String,
        /// What it said.
        problem: Box<Problem>,
    },
    /// The CA asks to come back later: a rate limit (429) or an overload (503).
    #[error("the CA asks to wait before {action}{}: {problem}", when(*.retry_at))]
    Later {
        /// What was asked.
        action: String,
        /// What it said.
        problem: Box<Problem>,
        /// Not before, if it said so.
        retry_at: Option<SystemTime>,
    },
    /// A limit of the CA is used up, as far as is known; nothing was sent.
    #[error("nothing was sent: {limit}")]
    Limited {
        /// Which limit, and until when.
        limit: Box<Exhausted>,
    },
    /// The CA looked and did not find what it wanted.
    #[error("the CA did not validate {}", Failures(failures))]
    Invalid {
        /// For each name: what the CA said.
        failures: Vec<Failure>,
    },
    /// No usable answer from the CA.
    #[error("no usable answer from the CA to {action}: {text}")]
    Unreachable {
        /// What was asked.
        action: String,
        /// What happened.
        text: String,
    },
    /// The CA was still at it when the time was up.
    #[error("the CA was still working on {action} after {seconds} s: run the same command again, the CA gives the same order back")]
    TooSlow {
        /// What was waited for.
        action: String,
        /// For how long.
        seconds: u64,
    },
    /// The certificate that the CA sent is not the one that was asked for; it was not used.
    #[error("the CA sent a certificate that was not used: {text}")]
    BadCertificate {
        /// What is wrong with it.
        text: String,
    },
    /// The data folder did not take or give something.
    #[error("{text}")]
    Store {
        /// What the store said.
        text: String,
        /// True if the same may succeed later.
        later: bool,
    },
    /// The run was stopped; its values were removed.
    #[error("stopped before the certificate was there; the values were removed from DNS")]
    Cancelled,
    /// Something that cannot be, such as a key that could not be made.
    #[error("{text}")]
    Internal {
        /// What happened.
        text: String,
    },
}

/// What the CA said of one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The name, `*.` included.
    pub name: String,
    /// Its problem document.
    pub problem: Problem,
}

impl IssueError {
    /// The exit code of a command that ends with this error: 1 failed, 2 wrong usage or configuration, 75 try again later.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::BadName { .. } | Self::BadDirectory { .. } => 2,
            Self::Later { .. } | Self::Limited { .. } | Self::Claim { later: true, .. } | Self::Store { later: true, .. } => 75,
            _ => 1,
        }
    }

    /// True if another CA may issue all the same.
    pub const fn is_the_cas(&self) -> bool {
        match self {
            Self::BadDirectory { .. }
            | Self::Caa { .. }
            | Self::Refused { .. }
            | Self::Later { .. }
            | Self::Limited { .. }
            | Self::Unreachable { .. }
            | Self::TooSlow { .. }
            | Self::BadCertificate { .. } => true,
            Self::BadName { .. }
            | Self::NoAccount { .. }
            | Self::Delegation { .. }
            | Self::Claim { .. }
            | Self::Propagation { .. }
            | Self::Invalid { .. }
            | Self::Store { .. }
            | Self::Cancelled
            | Self::Internal { .. } => false,
        }
    }

    /// True if nothing can come of the order any more, so that the next attempt needs a new one.
    pub(super) const fn ends_the_order(&self) -> bool {
        matches!(
            self,
            Self::Refused { .. } | Self::Invalid { .. } | Self::BadCertificate { .. } | Self::BadDirectory { .. } | Self::Caa { .. }
        )
    }

    /// Before this time the CA does not want to be asked again, if it named one.
    pub fn retry_at(&self) -> Option<SystemTime> {
        match self {
            Self::Later { retry_at, .. } => *retry_at,
            Self::Limited { limit } => Some(limit.until.into()),
            _ => None,
        }
    }

    /// The page at which a person has to let the account go on, if the CA has paused it ([`Problem::unpause_url`]): until then nothing is to be tried again.
    pub fn unpause_url(&self) -> Option<&str> {
        match self {
            Self::Refused { problem, .. } | Self::Later { problem, .. } => problem.unpause_url(),
            Self::Invalid { failures } => failures.iter().find_map(|failure| failure.problem.unpause_url()),
            _ => None,
        }
    }

    /// An answer, or the lack of one, to `action`.
    pub(super) fn from_acme(action: &str, error: AcmeError) -> Self {
        let action = action.to_owned();
        match error {
            AcmeError::Problem { problem, retry_at } if problem.is_later() => Self::Later { action, problem, retry_at },
            AcmeError::Problem { problem, .. } => Self::Refused { action, problem },
            AcmeError::Transport(text) | AcmeError::Malformed(text) => Self::Unreachable { action, text },
            AcmeError::Unusable { directory, text } => Self::BadDirectory { directory, text },
            AcmeError::Store(error) => error.into(),
            AcmeError::Crypto(text) => Self::Internal { text },
        }
    }
}

impl From<BadName> for IssueError {
    fn from(error: BadName) -> Self {
        Self::BadName { text: error.to_string() }
    }
}

impl From<StoreError> for IssueError {
    fn from(error: StoreError) -> Self {
        let later = matches!(error, StoreError::Busy | StoreError::Closed | StoreError::Locked(_));
        Self::Store { text: error.to_string(), later }
    }
}

impl From<ClaimError> for IssueError {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::Store(error) => error.into(),
            error => Self::Claim { later: matches!(error, ClaimError::InProgress), text: error.to_string() },
        }
    }
}

impl From<PropagationError> for IssueError {
    fn from(error: PropagationError) -> Self {
        Self::Propagation { text: error.to_string() }
    }
}

fn when(retry_at: Option<SystemTime>) -> String {
    retry_at.map(|at| format!(" until {}", httpdate::fmt_http_date(at))).unwrap_or_default()
}

/// Lists failures as text: one on the same line, several on lines of their own.
struct Failures<'a>(&'a [Failure]);

impl fmt::Display for Failures<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("the order and did not say why"),
            [one] => write!(f, "{}: {}", one.name, one.problem),
            several => {
                write!(f, "{} names:", several.len())?;
                several.iter().try_for_each(|one| write!(f, "\n  {}: {}", one.name, one.problem))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn exit_codes_say_whether_waiting_or_a_person_helps() {
        let problem = |status| Box::new(Problem { status, ..Problem::default() });
        let later = AcmeError::Problem { problem: problem(503), retry_at: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(60)) };
        let error = IssueError::from_acme("the order", later);
        assert_eq!(error.exit_code(), 75);
        assert!(error.to_string().contains("until Thu, 01 Jan 1970 00:01:00 GMT"), "{error}");
        assert_eq!(IssueError::from_acme("x", AcmeError::Problem { problem: problem(403), retry_at: None }).exit_code(), 1);
        assert_eq!(IssueError::BadName { text: String::new() }.exit_code(), 2);
        assert_eq!(IssueError::from(StoreError::Locked(String::new())).exit_code(), 75);
        assert_eq!(IssueError::from(StoreError::Full).exit_code(), 1);
    }

    #[test]
    fn a_limit_has_its_end_and_a_pause_its_page() {
        let limit = |detail: &str| {
            let kind = "urn:ietf:params:acme:error:rateLimited".to_owned();
            Box::new(Problem { kind, detail: detail.into(), status: 429, ..Problem::default() })
        };
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
        let limited = IssueError::from_acme("the order", AcmeError::Problem { problem: limit("too many"), retry_at: Some(at) });
        assert_eq!((limited.retry_at(), limited.unpause_url()), (Some(at), None));
        let page = "https://ca.test/sfe/v1/unpause?jwt=x";
        let paused = AcmeError::Problem { problem: limit(&format!("Please visit: {page}")), retry_at: None };
        let paused = IssueError::from_acme("the order", paused);
        assert_eq!((paused.retry_at(), paused.unpause_url(), paused.exit_code()), (None, Some(page), 1));
        assert!(paused.to_string().contains(page));
    }

    #[test]
    fn every_name_that_failed_is_shown() {
        let failure = |name: &str| Failure { name: name.into(), problem: Problem { detail: format!("no {name}"), ..Problem::default() } };
        let one = IssueError::Invalid { failures: vec![failure("a.test")] };
        assert_eq!(one.to_string(), "the CA did not validate a.test: no a.test");
        let two = IssueError::Invalid { failures: vec![failure("a.test"), failure("*.b.test")] };
        assert_eq!(two.to_string(), "the CA did not validate 2 names:\n  a.test: no a.test\n  *.b.test: no *.b.test");
        let json = serde_json::to_string(&two).unwrap();
        assert_eq!(serde_json::from_str::<IssueError>(&json).unwrap(), two);
    }
}
