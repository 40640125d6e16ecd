//! Where the secrets of backends are read from: files and environment variables of this process, and Secrets of a cluster.

mod cluster;

use std::sync::Arc;

use async_trait::async_trait;
use providers::{
    Error,
    secret::{KubernetesSecret, LocalSecrets, SecretRef, Secrets},
};
use secrecy::SecretString;

use crate::config;
use cluster::ClusterSecrets;

/// Files, environment variables and Kubernetes Secrets.
#[derive(Debug)]
pub struct BackendSecrets {
    local: LocalSecrets,
    cluster: ClusterSecrets,
}

impl BackendSecrets {
    /// With the Secrets of the cluster that the configuration names, or that this process runs in, if there is one. Asks nobody.
    pub fn new(config: Option<&config::Kubernetes>) -> Self {
        Self { local: LocalSecrets, cluster: ClusterSecrets::new(config.cloned()) }
    }
}

#[async_trait]
impl Secrets for BackendSecrets {
    async fn read(&self, secret: &SecretRef) -> Result<SecretString, Error> {
        match secret {
            SecretRef::Kubernetes(key) => self.cluster.read(key).await,
            local => self.local.read(local).await,
        }
    }
}

/// The secrets of a backend that works with the Secret of an issuer.
pub(super) struct IssuerSecrets {
    namespace: String,
    name: String,
    others: Arc<BackendSecrets>,
}

impl IssuerSecrets {
    /// With the Secret `name` of `namespace`.
    pub(super) fn new(namespace: &str, name: &str, others: Arc<BackendSecrets>) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned(), others }
    }

    /// Reads a key as it is now: one that is gone is an error, whatever was read of it before.
    pub(super) async fn check(&self, key: &str) -> Result<(), Error> {
        self.others.cluster.read(&self.place(key)).await.map(drop)
    }

    fn place(&self, key: &str) -> KubernetesSecret {
        KubernetesSecret { name: self.name.clone(), key: key.to_owned(), namespace: Some(self.namespace.clone()) }
    }
}

#[async_trait]
impl Secrets for IssuerSecrets {
    /// A key of the Secret, as it was a while ago if it is gone. A namespace that is being deleted loses its Secrets first, and what stands in DNS for it has to go all the same.
    async fn read(&self, secret: &SecretRef) -> Result<SecretString, Error> {
        match secret {
            SecretRef::Issuer(key) => self.others.cluster.read_or_remember(&self.place(key)).await,
            other => self.others.read(other).await,
        }
    }
}
