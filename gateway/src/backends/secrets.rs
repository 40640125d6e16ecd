//! Where the secrets of backends are read from: files and environment variables of this process, and Secrets of the cluster that it runs in.

mod cluster;

use async_trait::async_trait;
use providers::{
    Error,
    secret::{LocalSecrets, SecretRef, Secrets},
};
use secrecy::SecretString;

use cluster::Cluster;

/// Files, environment variables and Kubernetes Secrets.
#[derive(Debug, Default)]
pub struct BackendSecrets {
    local: LocalSecrets,
    cluster: Option<Cluster>,
}

impl BackendSecrets {
    /// With the Secrets of the cluster, if this process runs in one.
    pub fn of_this_process() -> Self {
        Self { local: LocalSecrets, cluster: Cluster::of_this_pod() }
    }
}

#[async_trait]
impl Secrets for BackendSecrets {
    async fn read(&self, secret: &SecretRef) -> Result<SecretString, Error> {
        match (secret, &self.cluster) {
            (SecretRef::Kubernetes(key), Some(cluster)) => cluster.read(secret, key).await,
            (SecretRef::Kubernetes(_), None) => Err(Error::Auth(format!(
                "{secret} cannot be read: this process does not run in a cluster (KUBERNETES_SERVICE_HOST is not set); use {{file: …}} or {{env: …}}"
            ))),
            (local, _) => self.local.read(local).await,
        }
    }
}
