//! Programs of the pinned Python environment: certbot with its plugins, schemathesis, and scripts with dnspython and pyacmedns.

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

/// `python` of the environment with the clouds' own clients, with a script to run; arguments may follow.
///
/// # Panics
/// When the environment cannot be made.
pub fn clouds(text: &str) -> Command {
    let mut command = Command::new(peer("clouds"));
    command.arg("-c").arg(text);
    command
}

/// A program that a package of the environment with the clouds' clients installed, such as `ministack` or `octodns-sync`.
///
/// # Panics
/// When the environment cannot be made.
pub fn clouds_program(name: &str) -> Command {
    let python = peer("clouds");
    Command::new(python.parent().map(|folder| folder.join(name)).unwrap_or_else(|| PathBuf::from(name)))
}

/// `certbot` of the environment, without arguments yet.
///
/// # Panics
/// When the environment cannot be made.
pub fn certbot() -> Command {
    program("certbot")
}

/// `schemathesis` of the environment, without arguments yet.
///
/// # Panics
/// When the environment cannot be made.
pub fn schemathesis() -> Command {
    program("schemathesis")
}

fn program(name: &str) -> Command {
    let python = peer("python");
    Command::new(python.parent().map(|folder| folder.join(name)).unwrap_or_else(|| PathBuf::from(name)))
}
