//! Where the pinned peers of `tests/peers` are: built once, kept in a cache folder.

use std::{
    collections::HashMap,
    path::PathBuf,
    process::Command,
    sync::{Mutex, PoisonError},
};

use crate::workspace;

/// The path of a pinned peer, built now if it is not in the cache: `testca`, `goacmedns`, `lego5`, `stepca`, `kubelab` (etcd and Kubernetes), `certmanager`,
/// `conformance`, `emptywebhook`, `kubectl` (with `helm` beside it), `monitoring` (the folder of Prometheus Operator's definitions), `python` or `clouds` (the
/// interpreter of the environment that holds the pinned packages).
///
/// # Panics
/// When it cannot be built; the builder's output says why.
pub fn peer(name: &str) -> PathBuf {
    static KNOWN: Mutex<Option<HashMap<String, PathBuf>>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    known.entry(name.to_owned()).or_insert_with(|| build(name)).clone()
}

fn build(name: &str) -> PathBuf {
    let script = workspace().join("tests/peers/build");
    let output = Command::new(&script).arg(name).output().unwrap_or_else(|e| panic!("cannot run {}: {e}", script.display()));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {name} failed:\n{log}", script.display());
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}
