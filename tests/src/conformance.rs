//! cert-manager's own conformance suite for DNS-01 webhooks, in strict mode, before a webhook door that runs.

use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;

use crate::{
    peers::peer,
    process::{Output, run},
    temporary_folder, write,
};

/// What the suite is told of a door.
#[derive(Debug, Clone)]
pub struct Suite {
    /// `https://HOST:PORT`, without a path.
    pub url: String,
    /// The authority of the door's certificate: a file of PEM.
    pub authority: PathBuf,
    /// Who the suite is to the door: files of a certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// The API group.
    pub group: String,
    /// The solver in it.
    pub solver: String,
    /// The solver's config.
    pub config: Option<Value>,
    /// The zone, without a final dot; the suite's values stand at `_acme-challenge.conformance` in it.
    pub zone: String,
    /// A server that answers for the zone.
    pub dns: SocketAddr,
}

/// How long all of it may take: it starts an API server of its own for each of its parts, and waits until it sees each value come and go.
const LIMIT: Duration = Duration::from_secs(300);

impl Suite {
    /// Runs it to its end.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn run(&self) -> Output {
        let folder = temporary_folder("conformance");
        let mut command = Command::new(peer("conformance"));
        command.arg("-test.v").current_dir(folder.path()).env("DOOR_URL", &self.url).env("DOOR_CA", &self.authority);
        if let Some((certificate, key)) = &self.client {
            command.env("DOOR_CERT", certificate).env("DOOR_KEY", key);
        }
        if let Some(config) = &self.config {
            command.env("DOOR_CONFIG", config.to_string());
        }
        command.env("DOOR_GROUP", &self.group).env("DOOR_SOLVER", &self.solver).env("DOOR_DNS", self.dns.to_string());
        command.env("DOOR_ZONE", format!("{}.", self.zone)).env("DOOR_NAME", format!("_acme-challenge.conformance.{}.", self.zone));
        command.env("TMPDIR", folder.path());
        command.env("TEST_ASSET_ETCD", program(folder.path(), "etcd"));
        command.env("TEST_ASSET_KUBE_APISERVER", program(folder.path(), "kube-apiserver"));
        // It is only ever asked whether it is there.
        command.env("TEST_ASSET_KUBECTL", "/bin/true");
        command.env("KUBEBUILDER_CONTROLPLANE_START_TIMEOUT", "120s").env("KUBEBUILDER_CONTROLPLANE_STOP_TIMEOUT", "60s");
        run("conformance", command, LIMIT).await
    }
}

/// The suite wants to start programs by their names alone. It puts each into a process group of its own, so they have to be told to die with it.
fn program(folder: &Path, name: &str) -> PathBuf {
    let file = folder.join(name);
    write(&file, &format!("#!/bin/sh\nexec setpriv --pdeathsig KILL -- '{}' {name} \"$@\"\n", peer("kubelab").display()));
    let executable = std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o700));
    executable.unwrap_or_else(|e| panic!("cannot make {} executable: {e}", file.display()));
    file
}
