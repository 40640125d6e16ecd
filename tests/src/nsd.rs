//! NSD: a third opinion on what an authoritative server answers.

use std::{net::SocketAddr, process::Command};

use crate::{addresses::Address, dns, process::Process, temporary_folder, write};

/// A running `nsd` on port 53 of an address of its own.
pub struct Nsd {
    address: Address,
    process: Process,
    _folder: tempfile::TempDir,
}

impl Nsd {
    /// Starts it with `zones`: names and master file text.
    ///
    /// # Panics
    /// When it does not start to serve all of them.
    pub async fn start(address: Address, zones: &[(&str, String)]) -> Self {
        let folder = temporary_folder("nsd");
        let path = folder.path();
        let mut config = format!(
            "server:
    ip-address: {ip}
    port: 53
    server-count: 1
    do-ip6: no
    username: \"\"
    chroot: \"\"
    zonesdir: \"{path}\"
    database: \"\"
    pidfile: \"{path}/nsd.pid\"
    xfrdfile: \"{path}/xfrd.state\"
    xfrdir: \"{path}\"
    zonelistfile: \"{path}/zone.list\"
    cookie-secret-file: \"{path}/cookies\"
    rrl-ratelimit: 0
    rrl-whitelist-ratelimit: 0
    minimal-responses: yes
    hide-version: yes
    hide-identity: yes
    verbosity: 1
remote-control:
    control-enable: no
",
            path = path.display(),
            ip = address.ip(),
        );
        for (number, (name, text)) in zones.iter().enumerate() {
            write(&path.join(format!("{number}.zone")), text);
            config += &format!("zone:\n    name: \"{name}\"\n    zonefile: \"{number}.zone\"\n");
        }
        let config_file = path.join("nsd.conf");
        write(&config_file, &config);
        let mut command = Command::new(crate::program("nsd"));
        command.args(["-d", "-c"]).arg(&config_file);
        let nsd = Self { address, process: Process::spawn("nsd", command), _folder: folder };
        for (zone, _) in zones {
            dns::serves(nsd.dns(), zone).await;
        }
        nsd
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
