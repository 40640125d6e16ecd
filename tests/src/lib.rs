//! The harness of the black-box tests: it starts the real `acmegate` and real peers on loopback, and tells a test what they said.
//!
//! A test most often wants a [`world::World`]: a certificate authority that asks a resolver, a resolver that walks down from a root of
//! its own, BIND that serves the zones of somebody else, and acmegate that serves the zone they delegate to:
//!
//! ```no_run
//! # async fn example() {
//! use acmegate_tests::world::World;
//!
//! let world = World::start().await;
//! world.delegate("www.example.test").await;
//! let issued = world.acmegate.issue(&["www.example.test"]).run().await;
//! issued.succeeded();
//! # }
//! ```
//!
//! One file a peer; whoever needs only one of them starts only that one.
//!
//! How it behaves, everywhere:
//! - **A failure is a panic** that says what was awaited and what happened instead; the logs of every process that the test started follow.
//! - **Nothing sleeps to be sure**: a start waits for the line or the answer that proves it, and every wait has an end ([`wait::LIMIT`]).
//! - **Tests do not meet**: each server of port 53 has a loopback address of its own ([`addresses`]), all else takes port 0, all files lie in
//!   temporary folders.
//! - **Nothing is left behind**: a process ends with its whole process group when its handle is dropped, or when the test program dies.

pub mod acmedns;
pub mod acmegate;
pub mod addresses;
pub mod backends;
pub mod bind;
pub mod certificates;
pub mod certmanager;
pub mod conformance;
pub mod dns;
pub mod emptywebhook;
pub mod gate;
pub mod http;
pub mod killpoint;
pub mod knot;
pub mod kubernetes;
pub mod lego;
pub mod measure;
pub mod ministack;
pub mod misbehaving;
pub mod nsd;
pub mod pdns;
pub mod peers;
pub mod ports;
pub mod powercut;
pub mod process;
pub mod python;
pub mod relay;
pub mod silent;
pub mod stepca;
pub mod testca;
pub mod tmpfs;
pub mod unbound;
pub mod updates;
pub mod wait;
pub mod webhook;
pub mod world;

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use tempfile::TempDir;

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default())
}

/// A folder that goes with its handle; `name` is part of its name.
///
/// # Panics
/// When it cannot be made.
pub fn temporary_folder(name: &str) -> TempDir {
    let made = tempfile::Builder::new().prefix(&format!("acmegate-{name}-")).tempdir();
    made.unwrap_or_else(|e| panic!("cannot make a temporary folder: {e}"))
}

/// Writes a file.
///
/// # Panics
/// When that fails.
pub fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
}

/// Reads a file of text.
///
/// # Panics
/// When that fails.
pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()))
}

/// The path of an installed program, also of those that only an administrator has in the `PATH`.
///
/// # Panics
/// When it is not installed.
pub fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{name} is not installed: `tests/run` installs what the tests need"))
}

/// Says that a test cannot run here and why, for the summary of `tests/run`; the test then returns.
///
/// # Panics
/// With `CI=true`: nothing is skipped there.
pub fn skip(reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test} cannot run here: {reason}");
    eprintln!("skipped {test}: {reason}");
    if let Some(file) = std::env::var_os("ACMEGATE_TEST_SKIPS") {
        let appended = std::fs::OpenOptions::new().append(true).create(true).open(file);
        let written = appended.and_then(|mut file| std::io::Write::write_all(&mut file, format!("{test}: {reason}\n").as_bytes()));
        written.unwrap_or_else(|e| panic!("cannot note that {test} was skipped: {e}"));
    }
}
