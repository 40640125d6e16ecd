//! Knot DNS: a second opinion on what an authoritative server answers.

use std::{net::SocketAddr, process::Command};

use crate::{addresses::Address, dns, process::Process, temporary_folder, write};

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
        let folder = temporary_folder("knot");
        let path = folder.path();
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
database:
    storage: \"{path}\"
template:
  - id: default
    storage: \"{path}\"
    zonefile-sync: -1
    journal-content: none
zone:
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
