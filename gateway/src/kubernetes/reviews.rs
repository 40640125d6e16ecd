//! Questions to the API server: whose token is this (TokenReview), and may they do that (SubjectAccessReview)? Answers hold for ten seconds, refusals too, so that
//! neither a busy caller nor a hostile one makes the API server work; that something could not be asked is not remembered.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec},
    authorization::v1::{NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Cluster, in_time, reasons};

/// How long an answer holds.
const KEPT: Duration = Duration::from_secs(10);
/// Answers remembered; beyond that, those that hold no more go, and then all.
const MOST_KEPT: usize = 4096;

/// A user, as Kubernetes knows users.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct User {
    /// The name.
    pub name: String,
    /// What tells them from an older user of the name; may be empty.
    pub uid: String,
    /// The groups.
    pub groups: Vec<String>,
    /// What else the authenticator knows.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What somebody wants to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attributes {
    /// Something with a cluster-scoped resource.
    Resource {
        /// `create`, `get`…
        verb: String,
        /// The API group.
        group: String,
        /// The API version.
        version: String,
        /// The resource.
        resource: String,
    },
    /// Something with a path that is no resource, such as `/apis`.
    Path {
        /// The method, lower case.
        verb: String,
        /// The path.
        path: String,
    },
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Review {
    /// Yes.
    Allowed,
    /// No.
    Denied,
}

/// Nobody could be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ReviewError(String);

/// Asks, and remembers.
pub struct Reviews {
    client: Client,
    users: Kept<Option<User>>,
    access: Kept<Review>,
}

impl Reviews {
    /// Nothing is known yet.
    pub fn new(cluster: &Cluster) -> Self {
        Self { client: cluster.client(), users: Kept::default(), access: Kept::default() }
    }

    /// Whose token it is; `None` if it is nobody's, or no longer.
    ///
    /// # Errors
    /// [`ReviewError`] if the API server does not say.
    pub async fn user(&self, token: &str) -> Result<Option<User>, ReviewError> {
        let key = *blake3::hash(token.as_bytes()).as_bytes();
        if let Some(user) = self.users.get(&key) {
            return Ok(user);
        }
        let review = TokenReview { spec: TokenReviewSpec { token: Some(token.to_owned()), ..Default::default() }, ..Default::default() };
        let status = self.ask(review).await?.status.unwrap_or_default();
        let authenticated = status.authenticated.unwrap_or(false) && status.error.as_deref().unwrap_or_default().is_empty();
        let user = status.user.filter(|_| authenticated).map(|user| User {
            name: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        });
        let user = user.filter(|user| !user.name.is_empty());
        self.users.put(key, user.clone());
        Ok(user)
    }

    /// Whether a user may do something.
    ///
    /// # Errors
    /// [`ReviewError`] if the API server does not say.
    pub async fn access(&self, user: &User, attributes: &Attributes) -> Result<Review, ReviewError> {
        // What Debug prints of strings is quoted and escaped: two questions that differ have two texts.
        let key = *blake3::hash(format!("{user:?}{attributes:?}").as_bytes()).as_bytes();
        if let Some(review) = self.access.get(&key) {
            return Ok(review);
        }
        let status =
            self.ask(SubjectAccessReview { spec: question(user, attributes), ..Default::default() }).await?.status.unwrap_or_default();
        let review = if status.allowed && !status.denied.unwrap_or(false) { Review::Allowed } else { Review::Denied };
        self.access.put(key, review.clone());
        Ok(review)
    }

    async fn ask<K>(&self, review: K) -> Result<K, ReviewError>
    where
        K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let answer = in_time(api.create(&PostParams::default(), &review)).await.map_err(ReviewError)?;
        answer.map_err(|error| ReviewError(reasons(&error)))
    }
}

fn question(user: &User, attributes: &Attributes) -> SubjectAccessReviewSpec {
    let mut spec = SubjectAccessReviewSpec {
        user: Some(user.name.clone()),
        uid: Some(user.uid.clone()).filter(|uid| !uid.is_empty()),
        groups: Some(user.groups.clone()),
        extra: Some(user.extra.clone()),
        ..Default::default()
    };
    match attributes.clone() {
        Attributes::Resource { verb, group, version, resource } => {
            spec.resource_attributes = Some(ResourceAttributes {
                verb: Some(verb),
                group: Some(group),
                version: Some(version),
                resource: Some(resource),
                ..Default::default()
            });
        }
        Attributes::Path { verb, path } => {
            spec.non_resource_attributes = Some(NonResourceAttributes { verb: Some(verb), path: Some(path) });
        }
    }
    spec
}

/// Answers by the hash of their question.
struct Kept<T>(Mutex<HashMap<[u8; 32], (Instant, T)>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Kept<T> {
    fn get(&self, key: &[u8; 32]) -> Option<T> {
        let kept = self.0.lock();
        kept.get(key).filter(|(at, _)| at.elapsed() < KEPT).map(|(_, answer)| answer.clone())
    }

    fn put(&self, key: [u8; 32], answer: T) {
        let mut kept = self.0.lock();
        if kept.len() >= MOST_KEPT {
            kept.retain(|_, (at, _)| at.elapsed() < KEPT);
        }
        if kept.len() >= MOST_KEPT {
            kept.clear();
        }
        kept.insert(key, (Instant::now(), answer));
    }
}
