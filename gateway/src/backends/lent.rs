//! Backends that work with Secrets of issuers. The configuration says everything of them but the secrets: those come from a Secret in the issuer's own namespace,
//! so that a tenant brings its credential and nothing else, neither a URL nor a zone that is not allowed.

use std::sync::Arc;

use async_trait::async_trait;
use providers::{
    Context, Error,
    secret::SecretRef,
    zones::{Delegations, Finder},
};

use super::secrets::{BackendSecrets, IssuerSecrets};
use crate::{
    claim::Backend,
    config,
    dispatch::{Lent, Route},
};

/// The backends of the configuration that have no credential of their own.
pub(super) struct LentBackends {
    pub(super) backends: Vec<config::Backend>,
    pub(super) mark: String,
    pub(super) secrets: Arc<BackendSecrets>,
    pub(super) delegations: Arc<dyn Delegations>,
}

impl LentBackends {
    fn backend(&self, backend: &Backend) -> Result<(&config::Backend, IssuerSecrets), String> {
        let found = self.backends.iter().find(|one| *one.name == *backend.configured()).zip(backend.secret());
        let (found, (namespace, name)) =
            found.ok_or_else(|| format!("no backend {} works with Secrets of issuers", backend.configured()))?;
        Ok((found, IssuerSecrets::new(namespace, name, self.secrets.clone())))
    }
}

#[async_trait]
impl Lent for LentBackends {
    fn names(&self) -> Vec<Arc<str>> {
        self.backends.iter().map(|backend| backend.name.clone()).collect()
    }

    fn route(&self, backend: &Backend) -> Result<Route, String> {
        let (config, secrets) = self.backend(backend)?;
        let name: Arc<str> = backend.as_str().into();
        let context = Context { backend: name.clone(), ttl: config.ttl, mark: self.mark.clone(), secrets: Arc::new(secrets) };
        let provider = config.build(&context)?;
        let finder = Finder::new(provider.clone(), config.zones.clone(), self.delegations.clone());
        Ok(Route { name, provider, finder })
    }

    async fn check(&self, backend: &Backend) -> Result<(), Error> {
        let (config, secrets) = self.backend(backend).map_err(Error::Auth)?;
        for (_, secret) in config.settings.secrets() {
            if let SecretRef::Issuer(key) = secret {
                secrets.check(&key).await?;
            }
        }
        Ok(())
    }
}
