//! Which provider a backend means.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;
use providers::{Error, Provider, zones::Finder};
use tokio::time::Instant;

use crate::claim::Backend;

/// Routes with Secrets of issuers that are kept; each has connections, tokens and a share of its provider's limit. Lanes with work keep theirs beyond that.
const MOST_MADE: usize = 512;

/// A provider under the name of its backend.
#[derive(Clone)]
pub struct Route {
    /// The backend's name, with the Secret that it works with, if it is an issuer's ([`Backend::as_str`]).
    pub name: Arc<str>,
    /// What it talks to.
    pub provider: Arc<dyn Provider>,
    /// The zones that it may write.
    pub finder: Finder,
}

/// The backends that work with Secrets of issuers: one in the configuration is as many as there are Secrets.
#[async_trait]
pub trait Lent: Send + Sync {
    /// Their names in the configuration.
    fn names(&self) -> Vec<Arc<str>>;

    /// The provider for a backend with its Secret, which is not read yet.
    ///
    /// # Errors
    /// What is wrong with the backend's settings.
    fn route(&self, backend: &Backend) -> Result<Route, String>;

    /// Whether the Secret can be read now, with each key that the backend takes from it.
    ///
    /// # Errors
    /// [`Error::Auth`] says what is missing, [`Error::Unsent`] that nobody could be asked.
    async fn check(&self, backend: &Backend) -> Result<(), Error>;
}

/// The routes of the configuration, in its order, and those that issuers' Secrets make.
pub struct Routes {
    configured: Vec<Route>,
    lent: Arc<dyn Lent>,
    made: Mutex<HashMap<Backend, (Instant, Route)>>,
}

impl Routes {
    /// Routes of the configuration beside backends that work with Secrets of issuers.
    pub fn new(configured: Vec<Route>, lent: Arc<dyn Lent>) -> Self {
        Self { configured, lent, made: Mutex::default() }
    }

    /// Those of the configuration.
    pub fn configured(&self) -> &[Route] {
        &self.configured
    }

    /// The names of those that work with Secrets of issuers.
    pub fn lent(&self) -> Vec<Arc<str>> {
        self.lent.names()
    }

    /// As [`Lent::check`].
    pub(super) async fn check(&self, backend: &Backend) -> Result<(), Error> {
        self.lent.check(backend).await
    }

    /// The route of a backend; `None` if the configuration has none of its name and kind, or its settings cannot be used (any more).
    pub fn of(&self, backend: &Backend) -> Option<Route> {
        if backend.secret().is_none() {
            return self.configured.iter().find(|route| *route.name == *backend.as_str()).cloned();
        }
        if !self.lent.names().iter().any(|name| **name == *backend.configured()) {
            return None;
        }
        let mut made = self.made.lock();
        let now = Instant::now();
        if let Some((used, route)) = made.get_mut(backend) {
            *used = now;
            return Some(route.clone());
        }
        let route = match self.lent.route(backend) {
            Ok(route) => route,
            Err(reason) => {
                tracing::error!(backend = backend.as_str(), reason, "the settings of a backend cannot be used");
                return None;
            }
        };
        if made.len() >= MOST_MADE
            && let Some(oldest) = made.iter().min_by_key(|(_, (used, _))| *used).map(|(backend, _)| backend.clone())
        {
            made.remove(&oldest);
        }
        made.insert(backend.clone(), (now, route.clone()));
        Some(route)
    }
}

/// Without any that works with Secrets of issuers.
impl From<Vec<Route>> for Routes {
    fn from(configured: Vec<Route>) -> Self {
        Self::new(configured, Arc::new(Nobody))
    }
}

struct Nobody;

#[async_trait]
impl Lent for Nobody {
    fn names(&self) -> Vec<Arc<str>> {
        Vec::new()
    }

    fn route(&self, backend: &Backend) -> Result<Route, String> {
        Err(format!("no backend {} works with Secrets of issuers", backend.configured()))
    }

    async fn check(&self, _: &Backend) -> Result<(), Error> {
        Ok(())
    }
}
