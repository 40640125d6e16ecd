//! Processes that are killed at their N-th step, by a shim that counts their system calls (`peers/killpoint`).

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use tempfile::TempDir;

use crate::{temporary_folder, workspace};

/// What counts as a step. There is one point before each such call, and one after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    /// What makes the disk keep something: `fsync` and `fdatasync`.
    Sync,
    /// What says something to somebody: `send` and its kin.
    Send,
}

impl Calls {
    const fn name(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Send => "send",
        }
    }
}

/// Makes `command` end by SIGKILL at its `at`-th point; 0 lets it live. `count` names a file that gets the number of points that were passed, if it ends by itself.
///
/// # Panics
/// When the shim cannot be built: it takes a C compiler, `cc`, as Rust does.
pub fn arm(command: &mut Command, calls: Calls, at: usize, count: &Path) {
    command.env("LD_PRELOAD", shim());
    command.env("KILLPOINT_CALLS", calls.name()).env("KILLPOINT_AT", at.to_string()).env("KILLPOINT_COUNT", count);
}

/// How many points a process passed that ended by itself.
///
/// # Panics
/// When it left no number.
pub fn passed(count: &Path) -> usize {
    let text = std::fs::read_to_string(count).unwrap_or_else(|error| panic!("{}: {error}: was the shim loaded?", count.display()));
    text.trim().parse().unwrap_or_else(|error| panic!("{text:?} is no number: {error}"))
}

fn shim() -> &'static Path {
    static SHIM: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = SHIM.get_or_init(|| {
        let folder = temporary_folder("killpoint");
        let path = folder.path().join("killpoint.so");
        let source = workspace().join("tests/peers/killpoint/killpoint.c");
        let mut cc = Command::new("cc");
        cc.args(["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]).arg(&path).arg(source).arg("-ldl");
        let output = cc.output().unwrap_or_else(|error| panic!("cc cannot be started: {error}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (folder, path)
    });
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{process::run, wait::LIMIT};

    #[tokio::test]
    async fn a_process_ends_at_the_point_that_was_named_and_else_by_itself() {
        let folder = temporary_folder("killpoint");
        let (file, count) = (folder.path().join("file"), folder.path().join("count"));
        let two_syncs = |at| {
            let mut command = Command::new("sync");
            command.arg(folder.path()).arg(&file);
            arm(&mut command, Calls::Sync, at, &count);
            command
        };
        std::fs::write(&file, "").unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(run("sync", two_syncs(0), LIMIT).await.code, Some(0));
        assert_eq!(passed(&count), 4);
        for at in 1..=4 {
            assert_eq!(run("sync", two_syncs(at), LIMIT).await.code, None, "{at}");
        }
        assert_eq!(run("sync", two_syncs(5), LIMIT).await.code, Some(0));
    }
}
