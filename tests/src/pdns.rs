//! PowerDNS Authoritative Server on SQLite: dynamic updates, and its HTTP API.

use std::{net::SocketAddr, process::Command};

use tempfile::TempDir;

use crate::{
    addresses::Address,
    dns,
    process::{Process, run},
    temporary_folder,
    updates::Updates,
    wait::LIMIT,
    write,
};

/// The key of the API.
pub const API_KEY: &str = "pdns-api-key-of-the-tests";
/// The port of the API.
const API: u16 = 8081;

/// A running `pdns_server` on port 53 of an address of its own, its API on port 8081.
pub struct Pdns {
    address: Address,
    process: Process,
    _folder: TempDir,
}

impl Pdns {
    /// Starts it with `zones` (names and master file text), which the keys of `updates` may change by dynamic update.
    ///
    /// # Panics
    /// When it does not start to serve all of them.
    pub async fn start(address: Address, zones: &[(&str, String)], updates: &Updates) -> Self {
        let folder = temporary_folder("pdns");
        let path = folder.path();
        let config = format!(
            "launch=gsqlite3\ngsqlite3-database={path}/pdns.sqlite3\nsocket-dir={path}\nsetuid=\nsetgid=\n\
             local-address={ip}\nlocal-port=53\ndaemon=no\nguardian=no\nreceiver-threads=1\ndistributor-threads=1\nquery-logging=no\n\
             dnsupdate=yes\nallow-dnsupdate-from=127.0.0.0/8\nzone-cache-refresh-interval=0\nversion-string=anonymous\n\
             api=yes\napi-key={API_KEY}\nwebserver=yes\nwebserver-address={ip}\nwebserver-port={API}\nwebserver-allow-from=127.0.0.0/8\n\
             loglevel=6\nlog-dns-details=yes\n",
            path = path.display(),
            ip = address.ip(),
        );
        write(&path.join("pdns.conf"), &config);
        let mut command = Command::new(crate::program("sqlite3"));
        command.arg(path.join("pdns.sqlite3")).arg(".read /usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql");
        run("sqlite3", command, LIMIT).await.succeeded();
        let util = async |arguments: &[&str]| {
            let mut command = Command::new(crate::program("pdnsutil"));
            command.arg(format!("--config-dir={}", path.display())).args(arguments);
            run("pdnsutil", command, LIMIT).await.succeeded();
        };
        for key in updates.known() {
            util(&["import-tsig-key", &key.name, &key.algorithm, &key.secret]).await;
        }
        for (number, (name, text)) in zones.iter().enumerate() {
            let file = path.join(format!("{number}.zone"));
            write(&file, text);
            util(&["load-zone", name, &file.to_string_lossy()]).await;
            if !updates.keys.is_empty() {
                let names = updates.keys.iter().map(|key| key.name.as_str());
                util(&["set-meta", name, "TSIG-ALLOW-DNSUPDATE"].into_iter().chain(names).collect::<Vec<_>>()).await;
            }
        }
        let mut command = Command::new(crate::program("pdns_server"));
        command.arg(format!("--config-dir={}", path.display()));
        let pdns = Self { address, process: Process::spawn("pdns", command), _folder: folder };
        for (zone, _) in zones {
            dns::serves(pdns.dns(), zone).await;
        }
        if zones.is_empty() {
            pdns.process.stderr_line("its listening", |line| line.contains("Done launching threads").then_some(())).await;
        }
        pdns
    }

    /// Where it answers.
    pub fn dns(&self) -> SocketAddr {
        self.address.dns()
    }

    /// The base of its API, such as `http://127.53.0.1:8081`.
    pub fn api(&self) -> String {
        format!("http://{}", self.address.port(API))
    }

    /// Its process, for its log.
    pub fn process(&self) -> &Process {
        &self.process
    }
}
