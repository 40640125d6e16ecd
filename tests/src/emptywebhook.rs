//! emptywebhook: what every DNS-01 webhook in the field is made of, and nothing else: cert-manager's own library, a map and a DNS server. Benchmarks run it beside acmegate.

use std::{net::SocketAddr, process::Command};

use tempfile::TempDir;

use crate::{
    addresses::Address,
    kubernetes::{Authority, Cluster},
    peers::peer,
    ports::Port,
    process::Process,
    temporary_folder,
};

/// Its API group.
pub const GROUP: &str = "acme.empty.test";
/// Its solver.
pub const SOLVER: &str = "empty";
/// Its Service and ServiceAccount, each in a namespace of the same name.
const NAME: &str = "emptywebhook";

/// A running one, behind its APIService.
pub struct EmptyWebhook {
    process: Process,
    address: Address,
    _port: Port,
    _folder: TempDir,
}

impl EmptyWebhook {
    /// Starts it with the authority for `zone`, and takes it into the cluster as acmegate is: with a kubeconfig of its own, and an APIService.
    ///
    /// # Panics
    /// When it does not become available.
    pub async fn start(cluster: &Cluster, address: Address, zone: &str) -> Self {
        let (folder, port, authority) = (temporary_folder(NAME), Port::reserve(), Authority::new(NAME));
        let kubeconfig = cluster.delegated(NAME, NAME).await;
        let (certificate, key) = authority.server(&["localhost", &format!("{NAME}.{NAME}.svc")]).write(folder.path(), NAME);
        let mut command = Command::new(peer(NAME));
        for flag in ["--kubeconfig", "--authentication-kubeconfig", "--authorization-kubeconfig"] {
            command.arg(flag).arg(&kubeconfig);
        }
        command.args(["--bind-address=127.0.0.1", "--secure-port", &port.address().port().to_string()]);
        command.arg("--tls-cert-file").arg(certificate).arg("--tls-private-key-file").arg(key);
        command.env("GROUP", GROUP).env("SOLVER", SOLVER).env("ZONE", format!("{zone}.")).env("DNS", address.dns().to_string());
        let process = Process::spawn(NAME, command);
        process.stdout_line("its line \"serving\"", |line| (line == "serving").then_some(())).await;
        cluster.route(GROUP, (NAME, NAME), port.address(), authority.certificate()).await;
        Self { process, address, _port: port, _folder: folder }
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Where it answers DNS.
    pub fn dns(&self) -> SocketAddr {
        self.address.dns()
    }
}
