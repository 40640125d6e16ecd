//! lego, unmodified: 4 as Debian packages it, and 5.

use std::{net::SocketAddr, path::PathBuf, process::Command};

use tempfile::TempDir;

use crate::{
    peers::peer,
    process::{Output, run},
    program, temporary_folder,
    testca::TestCa,
    wait::LIMIT,
};

/// A lego with a folder of its own for its accounts and certificates.
pub struct Lego {
    program: PathBuf,
    version: u8,
    folder: TempDir,
}

impl Lego {
    /// Debian's lego 4. Debian builds it without the library that its acme-dns provider needs, so it calls that library through its `exec` provider.
    ///
    /// # Panics
    /// When it is not installed.
    pub fn debian() -> Self {
        Self { program: program("lego"), version: 4, folder: temporary_folder("lego4") }
    }

    /// The pinned lego 5.
    ///
    /// # Panics
    /// When it cannot be built.
    pub fn v5() -> Self {
        Self { program: peer("lego5"), version: 5, folder: temporary_folder("lego5") }
    }

    /// Runs it for `names` over the acme-dns API at `api`. The first run registers an account and asks for a CNAME; the next one issues.
    ///
    /// It does not ask the authoritative servers itself: it would look up their names with the system's resolver, which knows nothing of ours.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn acmedns(&self, ca: &TestCa, resolver: SocketAddr, api: &str, names: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        if self.version >= 5 {
            command.arg("run");
        }
        command.args(["--server", ca.directory(), "--accept-tos", "--email", "lego@example.test"]);
        command.args(["--dns.resolvers", &resolver.to_string()]).arg("--path").arg(self.folder.path());
        for name in names {
            command.args(["--domains", name]);
        }
        match self.version {
            4 => command.env("EXEC_PATH", peer("goacmedns")).env("EXEC_MODE", "RAW").env("EXEC_SEQUENCE_INTERVAL", "1").args([
                "--dns",
                "exec",
                "--dns.disable-cp",
                "run",
            ]),
            _ => command.args(["--dns", "acme-dns", "--dns.propagation.disable-ans"]),
        };
        command.env("LEGO_CA_CERTIFICATES", ca.ca_file()).env("ACME_DNS_API_BASE", api);
        command.env("ACME_DNS_STORAGE_PATH", self.folder.path().join("acme-dns-accounts.json"));
        run("lego", command, LIMIT * 3).await
    }

    /// The certificate and key files that it stored for a first name.
    pub fn files(&self, name: &str) -> (PathBuf, PathBuf) {
        let folder = self.folder.path().join("certificates");
        (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")))
    }
}
