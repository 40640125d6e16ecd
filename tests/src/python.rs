//! Programs of the pinned Python environment: certbot with its plugins, and scripts with dnspython and pyacmedns.

use std::{path::PathBuf, process::Command};

use crate::peers::peer;

/// `python` of the environment with a script to run; arguments may follow.
///
/// # Panics
/// When the environment cannot be made.
pub fn script(text: &str) -> Command {
    let mut command = Command::new(peer("python"));
    command.arg("-c").arg(text);
    command
}

/// `certbot` of the environment, without arguments yet.
///
/// # Panics
/// When the environment cannot be made.
pub fn certbot() -> Command {
    let python = peer("python");
    Command::new(python.parent().map(|folder| folder.join("certbot")).unwrap_or_else(|| PathBuf::from("certbot")))
}
