//! Why a command failed, as its exit code says it.

use std::{fmt, path::Path};

use crate::{engine::EngineError, store::StoreError};

/// A command's failure: what happened and what to do, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    /// It failed: a person has to look.
    pub(super) fn failed(text: impl fmt::Display) -> Self {
        Self::with_code(1, text)
    }

    /// The command line or the configuration is wrong.
    pub(super) fn usage(text: impl fmt::Display) -> Self {
        Self::with_code(2, text)
    }

    /// The same command may succeed later (EX_TEMPFAIL of sysexits).
    pub(super) fn later(text: impl fmt::Display) -> Self {
        Self::with_code(75, text)
    }

    pub(super) fn with_code(code: u8, text: impl fmt::Display) -> Self {
        Self { code, text: text.to_string() }
    }

    /// 1 failed, 2 wrong usage or configuration, 75 try again later.
    pub fn exit_code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Failure {
    /// The engine did not open the data folder.
    pub(super) fn opening(data: &Path, error: EngineError) -> Self {
        match error {
            EngineError::Store(StoreError::Locked(text)) => Self::later(text),
            // Its text names the folder.
            EngineError::Store(StoreError::Unusable(text)) => Self::failed(text),
            EngineError::Store(error) => Self::failed(format!("the data folder {} cannot be opened: {error}", data.display())),
            error @ (EngineError::Zone(_) | EngineError::Backend(_)) => Self::usage(error),
        }
    }
}
