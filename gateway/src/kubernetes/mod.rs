//! The Kubernetes cluster that acmegate runs in, or serves from outside: what it says of callers, and what is told to it.
//!
//! Nothing here decides: the doors do. Each part is one duty towards the API server, and goes on by itself when that comes back after it was away.

mod api_service;
mod authentication;
mod events;
mod namespaces;
mod reviews;

use std::{path::PathBuf, time::Duration};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::time::timeout;

pub use api_service::keep_bundle;
pub use authentication::{AuthenticationConfig, FrontProxy, FrontProxyHeaders, follow};
pub use events::{Events, Notice, Teller};
pub use namespaces::ClusterNamespaces;
pub use reviews::{Attributes, Review, ReviewError, Reviews, User};

use crate::config;

/// How long a connection to the API server may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the API server may take for a call.
const PATIENCE: Duration = Duration::from_secs(8);
/// Tells every pod where the API server is.
const SERVICE_HOST: &str = "KUBERNETES_SERVICE_HOST";

/// A cluster's API; clones share its connections.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    namespace: String,
}

/// Why the cluster's API cannot be used at all. That it does not answer is no such reason.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The kubeconfig file.
    #[error("kubernetes.kubeconfig: {} cannot be used: {reason}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The pod's service account.
    #[error("the pod's service account cannot be used: {0}; set automountServiceAccountToken")]
    ServiceAccount(String),
    /// The HTTP client could not be made.
    #[error("the client of the cluster's API cannot be made: {0}")]
    Client(String),
}

impl Cluster {
    /// The cluster of the configuration, or the one that this process is a pod of; `None` if there is neither. Nobody is called yet.
    ///
    /// # Errors
    /// [`ClusterError`] names what cannot be used.
    pub async fn connect(config: Option<&config::Kubernetes>) -> Result<Option<Self>, ClusterError> {
        let mut settings = match config.and_then(|config| config.kubeconfig.clone()) {
            Some(path) => {
                let wrong = |reason: String| ClusterError::Kubeconfig { path: path.clone(), reason };
                let file = Kubeconfig::read_from(&path).map_err(|error| wrong(reasons(&error)))?;
                Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(|error| wrong(reasons(&error)))?
            }
            None if std::env::var_os(SERVICE_HOST).is_some() => {
                Config::incluster().map_err(|error| ClusterError::ServiceAccount(reasons(&error)))?
            }
            None => return Ok(None),
        };
        settings.connect_timeout = Some(CONNECT);
        // The API server is on the way of nobody's proxy.
        settings.proxy_url = None;
        let namespace = settings.default_namespace.clone();
        let client = Client::try_from(settings).map_err(|error| ClusterError::Client(reasons(&error)))?;
        Ok(Some(Self { client, namespace }))
    }

    /// An API at this URL that asks for nothing.
    #[cfg(test)]
    pub(crate) fn at(url: &str) -> Self {
        let mut settings = Config::new(url.parse().expect("a URL"));
        settings.default_retry = false;
        let namespace = settings.default_namespace.clone();
        Self { client: Client::try_from(settings).expect("a client"), namespace }
    }

    /// The namespace of the pod, or of the kubeconfig's context.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// For a duty of its own.
    pub fn client(&self) -> Client {
        self.client.clone()
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

/// One call, with its deadline; what went wrong in words.
pub(crate) async fn in_time<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<Result<T, kube::Error>, String> {
    timeout(PATIENCE, call).await.map_err(|_elapsed| format!("the API server did not answer within {} s", PATIENCE.as_secs()))
}

/// An error with what caused it, in one line.
pub(crate) fn reasons(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    // Some errors print their cause, too.
    causes.fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        said if said.ends_with(&cause) => text,
        _ => format!("{text}: {cause}"),
    })
}
