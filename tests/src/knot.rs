//! Knot DNS: a second opinion on what an authoritative server answers.

use std::{net::SocketAddr, process::Command};

use crate::{addresses::Address, dns, process::Process, temporary_folder, updates::Updates, write};

/// A running `knotd` on port 53 of an address of its own.
pub struct Knot {
    address: Address,
    process: Process,
    _folder: tempfile::TempDir,
}

impl Knot {
    /// Starts it with `zones`: names and master file text.
    ///
    /// # Panics
    /// When it does not start to serve all of them.
    pub async fn start(address: Address, zones: &[(&str, String)]) -> Self {
        Self::start_signed(address, zones, &Updates::default()).await
    }

    /// Starts it with `zones` that the keys of `updates` may change.
    ///
    /// # Panics
    /// When it does not start to serve all of them.
    pub async fn start_signed(address: Address, zones: &[(&str, String)], updates: &Updates) -> Self {
        let folder = temporary_folder("knot");
        let path = folder.path();
        let (keys, acl) = rules(updates);
        let mut config = format!(
            "server:
    rundir: \"{path}\"
    identity: \"\"
    version: \"\"
    nsid: \"\"
    listen: {ip}@53
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: info
{keys}database:
    storage: \"{path}\"
template:
  - id: default
    storage: \"{path}\"
    zonefile-sync: -1
    journal-content: none
{acl}zone:
",
            path = path.display(),
            ip = address.ip(),
        );
        for (number, (name, text)) in zones.iter().enumerate() {
            write(&path.join(format!("{number}.zone")), text);
            config += &format!("  - domain: {name}.\n    file: \"{number}.zone\"\n");
        }
        let config_file = path.join("knot.conf");
        write(&config_file, &config);
        let mut command = Command::new(crate::program("knotd"));
        command.arg("-c").arg(&config_file);
        let knot = Self { address, process: Process::spawn("knot", command), _folder: folder };
        for (zone, _) in zones {
            dns::serves(knot.dns(), zone).await;
        }
        knot
    }

    /// Where it answers.
    pub fn dns(&self) -> SocketAddr {
        self.address.dns()
    }

    /// Its process, for measurements.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// The section of keys, and the end of the zones' template that lets them update.
fn rules(updates: &Updates) -> (String, String) {
    if updates.keys.is_empty() {
        return Default::default();
    }
    let key =
        |key: &crate::updates::TsigKey| format!("  - id: {}\n    algorithm: {}\n    secret: {}\n", key.name, key.algorithm, key.secret);
    let names: Vec<_> = updates.keys.iter().map(|key| key.name.as_str()).collect();
    let keys = updates.known().map(key).collect::<String>();
    let acl = format!("acl:\n  - id: updates\n    key: [{}]\n    action: update\n", names.join(", "));
    (format!("key:\n{keys}{acl}"), "    acl: updates\n".to_owned())
}
