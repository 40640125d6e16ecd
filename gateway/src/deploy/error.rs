//! Why a step of a deployment failed.

use std::{fmt, io, path::PathBuf, time::Duration};

use crate::kubernetes::ClusterError;

/// Why a step failed. Every one of them may be taken again, once what it names was mended; [`DeployError::may_pass`] says which may mend by themselves.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// Key and certificate are not a pair; nothing was touched.
    #[error("nothing was written: {0}")]
    Mismatch(String),
    /// A file or folder could not be written.
    #[error("{path} could not be written: {source}", path = .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something stands there that is not acmegate's to replace.
    #[error("{path} is not replaced: {reason}", path = .path.display())]
    Foreign {
        /// What stands there.
        path: PathBuf,
        /// What it is, and what to do.
        reason: String,
    },
    /// The certificate cannot be put into this form.
    #[error("the PKCS#12 file could not be made: {0}")]
    Pkcs12(String),
    /// There is no cluster.
    #[error("there is no cluster: this is no pod, and kubernetes.kubeconfig is not set")]
    NoCluster,
    /// The cluster cannot be used at all.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Somebody else keeps fields of the object.
    #[error("somebody else keeps it ({}): choose another name, or take it over (--secret-force, or force: true in the configuration)", .managers.join(", "))]
    Conflict {
        /// The field managers.
        managers: Vec<String>,
    },
    /// The cluster's API refuses, or whoever was to be told does.
    #[error("{0}")]
    Refused(String),
    /// The cluster's API does not answer, or not now.
    #[error("the API of the cluster cannot do it now: {0}")]
    Unavailable(String),
    /// A secret or a root certificate that a step takes cannot be had.
    #[error("{0}")]
    Input(String),
    /// Whoever was to be told does not answer, or not now.
    #[error("{0}")]
    Unanswered(String),
    /// A program could not be started.
    #[error("it cannot be started: {0}")]
    NotStarted(String),
    /// A program did not do its work.
    #[error("it {ended}{}", last_words(.said))]
    Program {
        /// Its end.
        ended: Ended,
        /// The last lines of its output.
        said: Vec<String>,
    },
    /// A process could not be told.
    #[error("{0}")]
    Signal(String),
}

/// How a program ended that did not do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this exit code.
    Code(i32),
    /// By this signal, which was not ours.
    Signal(i32),
    /// By ours, because it took longer than this.
    Late(Duration),
    /// By ours, because acmegate was told to stop.
    Stopped,
}

impl DeployError {
    /// Whether it may go well later, though nobody mends anything.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Input(_) | Self::Unanswered(_) | Self::Unavailable(_) | Self::Program { .. } | Self::Signal(_) => true,
            Self::Mismatch(_)
            | Self::Foreign { .. }
            | Self::Pkcs12(_)
            | Self::NoCluster
            | Self::Cluster(_)
            | Self::Conflict { .. }
            | Self::Refused(_)
            | Self::NotStarted(_) => false,
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "ended with exit code {code}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Self::Late(limit) => write!(f, "was ended because it took longer than {limit:?}"),
            Self::Stopped => f.write_str("was ended because acmegate was told to stop"),
        }
    }
}

fn last_words(said: &[String]) -> String {
    if said.is_empty() { String::new() } else { format!("; it said: {}", said.join(" | ")) }
}
