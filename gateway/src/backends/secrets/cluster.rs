//! Secrets of a cluster, as acmegate's service account (or its kubeconfig) may read them.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use parking_lot::Mutex;
use providers::{
    Error,
    secret::{KubernetesSecret, MOST_BYTES, SecretRef},
};
use secrecy::SecretString;
use tokio::sync::OnceCell;

use crate::{
    config,
    kubernetes::{Cluster, in_time},
};

/// How long a secret is taken as it was read: whoever makes a hundred calls reads it once, and a rotated one is soon used.
const FRESH: Duration = Duration::from_secs(15);
/// How long a secret that cannot be read any more is remembered for those who ask for that.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// Secrets kept; more is a defect, and not worth more.
const MOST_KEPT: usize = 1000;

/// The Secrets of the cluster; it is connected to when the first one is wanted.
pub(super) struct ClusterSecrets {
    config: Option<config::Kubernetes>,
    cluster: OnceCell<Option<Cluster>>,
    kept: Mutex<HashMap<Place, (Instant, SecretString)>>,
}

/// A namespace, a Secret's name, and a key of it.
type Place = (String, String, String);

impl ClusterSecrets {
    pub(super) fn new(config: Option<config::Kubernetes>) -> Self {
        Self { config, cluster: OnceCell::new(), kept: Mutex::default() }
    }

    /// The key's text as it is now, or was a moment ago.
    ///
    /// # Errors
    /// As [`providers::secret::Secrets::read`].
    pub(super) async fn read(&self, key: &KubernetesSecret) -> Result<SecretString, Error> {
        let (cluster, place) = self.at(key).await?;
        match self.kept(&place, FRESH) {
            Some(text) => Ok(text),
            None => self.ask(cluster, key, place).await,
        }
    }

    /// The key's text as it is now; if it cannot be read, as it was when it could, for a while.
    ///
    /// # Errors
    /// As [`ClusterSecrets::read`], where nothing is remembered.
    pub(super) async fn read_or_remember(&self, key: &KubernetesSecret) -> Result<SecretString, Error> {
        let (cluster, place) = self.at(key).await?;
        if let Some(text) = self.kept(&place, FRESH) {
            return Ok(text);
        }
        let read = self.ask(cluster, key, place.clone()).await;
        read.or_else(|error| self.kept(&place, REMEMBERED).ok_or(error))
    }

    fn kept(&self, place: &Place, no_longer_than: Duration) -> Option<SecretString> {
        let kept = self.kept.lock();
        kept.get(place).filter(|(at, _)| at.elapsed() < no_longer_than).map(|(_, text)| text.clone())
    }

    /// The cluster, and the place with its namespace.
    async fn at(&self, key: &KubernetesSecret) -> Result<(&Cluster, Place), Error> {
        let secret = SecretRef::Kubernetes(key.clone());
        let connected = self.cluster.get_or_try_init(async || Cluster::connect(self.config.as_ref()).await).await;
        let cluster = connected.map_err(|error| Error::Auth(format!("{secret} cannot be read: {error}")))?.as_ref();
        let Some(cluster) = cluster else {
            return Err(Error::Auth(format!(
                "{secret} cannot be read: there is no cluster: this is no pod, and kubernetes.kubeconfig is not set; use {{file: …}} or {{env: …}}"
            )));
        };
        let namespace = key.namespace.clone().unwrap_or_else(|| cluster.namespace().to_owned());
        let is_name =
            |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b));
        if !is_name(&namespace) || !is_name(&key.name) {
            return Err(Error::Auth(format!("{secret} cannot be read: that is no name of a Secret, or no namespace")));
        }
        Ok((cluster, (namespace, key.name.clone(), key.key.clone())))
    }

    async fn ask(&self, cluster: &Cluster, key: &KubernetesSecret, place: Place) -> Result<SecretString, Error> {
        let secret = SecretRef::Kubernetes(key.clone());
        let (namespace, name, entry) = &place;
        let api: Api<Secret> = Api::namespaced(cluster.client(), namespace);
        let unsent = |reason: &str| Error::Unsent(format!("{secret} cannot be read: {reason}"));
        let found = match in_time(api.get(name)).await {
            Err(late) => return Err(unsent(&late)),
            Ok(Ok(found)) => found,
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
                return Err(Error::Auth(format!("{secret} does not exist in the namespace {namespace}: create it")));
            }
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 401 | 403) => {
                return Err(Error::Auth(format!(
                    "{secret} may not be read by acmegate's service account: give it a Role with the verb get for the Secret {name} in the namespace {namespace}"
                )));
            }
            Ok(Err(kube::Error::Api(status))) => return Err(unsent(&format!("the API of the cluster answers {}", status.code))),
            Ok(Err(_)) => return Err(unsent("the API of the cluster does not answer")),
        };
        let bytes = found.data.unwrap_or_default().remove(entry);
        let bytes = bytes.ok_or_else(|| Error::Auth(format!("{secret} is not there: the Secret has no such key")))?;
        let text = String::from_utf8(bytes.0).ok().filter(|text| text.len() as u64 <= MOST_BYTES);
        let text = text.map(SecretString::from).ok_or_else(|| Error::Auth(format!("{secret} is no text of at most {MOST_BYTES} bytes")))?;
        let mut kept = self.kept.lock();
        if kept.len() >= MOST_KEPT {
            kept.clear();
        }
        kept.insert(place, (Instant::now(), text.clone()));
        Ok(text)
    }
}

impl std::fmt::Debug for ClusterSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterSecrets").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    };

    use axum::{
        Json, Router,
        extract::Path,
        http::StatusCode,
        response::{IntoResponse, Response},
        routing::get,
    };
    use secrecy::ExposeSecret;
    use serde_json::json;

    use super::*;
    use crate::web::{Limits, testing::Site};

    /// An API server with the Secret `here/dns`, which says this status of it from now on.
    struct Lab {
        secrets: ClusterSecrets,
        status: Arc<AtomicU16>,
        _api: Site,
    }

    impl Lab {
        fn start() -> Self {
            let status = Arc::new(AtomicU16::new(200));
            let says = status.clone();
            let secret = async move |Path((namespace, name)): Path<(String, String)>| -> Response {
                let failure = |code: u16| {
                    (
                        StatusCode::from_u16(code).unwrap(),
                        Json(json!({"kind": "Status", "status": "Failure", "code": code, "message": "no", "reason": "No"})),
                    )
                };
                match (&*namespace, &*name, says.load(Ordering::Relaxed)) {
                    ("here", "dns", 200) => Json(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "dns"}, "data": {"token": "czNjcmV0", "broken": "/w=="}})).into_response(),
                    ("here", "dns", code) => failure(code).into_response(),
                    ("there", ..) => failure(403).into_response(),
                    _ => failure(404).into_response(),
                }
            };
            let api =
                Site::start(Router::new().route("/api/v1/namespaces/{namespace}/secrets/{name}", get(secret)), Limits::default(), None);
            let cluster = OnceCell::new_with(Some(Some(Cluster::at(&format!("http://{}", api.address)))));
            Self { secrets: ClusterSecrets { config: None, cluster, kept: Mutex::default() }, status, _api: api }
        }

        async fn read(&self, key: &KubernetesSecret) -> Result<String, String> {
            self.secrets.read(key).await.map(|text| text.expose_secret().to_owned()).map_err(|error| error.to_string())
        }

        /// As if so much time had passed.
        fn age(&self, by: Duration) {
            self.secrets.kept.lock().values_mut().for_each(|(at, _)| *at = at.checked_sub(by).expect("a machine that runs for longer"));
        }
    }

    fn key(namespace: &str, name: &str, key: &str) -> KubernetesSecret {
        KubernetesSecret { name: name.to_owned(), key: key.to_owned(), namespace: Some(namespace.to_owned()) }
    }

    #[tokio::test]
    async fn a_key_is_read_and_failures_say_what_to_do() {
        let lab = Lab::start();
        assert_eq!(lab.read(&key("here", "dns", "token")).await.as_deref(), Ok("s3cret"));
        for (asked, said) in [
            (key("here", "dns", "other"), "the Secret has no such key"),
            (key("here", "dns", "broken"), "is no text"),
            (key("here", "dns2", "token"), "does not exist in the namespace here: create it"),
            (key("there", "dns", "token"), "a Role with the verb get for the Secret dns in the namespace there"),
            (key("here", "../dns", "token"), "no name of a Secret"),
            (key("here/../there", "dns", "token"), "no namespace"),
        ] {
            let error = lab.read(&asked).await.expect_err(said);
            assert!(error.contains(said), "{error}");
        }
        let default = KubernetesSecret { namespace: None, ..key("", "dns", "token") };
        let error = lab.read(&default).await.expect_err("the default namespace has none");
        assert!(error.contains("in the namespace default"), "{error}");
        assert_eq!(lab.secrets.kept.lock().len(), 1, "failures are not kept");
        assert!(!format!("{:?}", lab.secrets).contains("s3cret"));
        let nowhere = ClusterSecrets::new(None).read(&key("here", "dns", "token")).await.expect_err("no cluster").to_string();
        assert!(nowhere.contains("kubernetes.kubeconfig is not set"), "{nowhere}");
    }

    #[tokio::test]
    async fn a_secret_that_is_gone_is_remembered_for_those_who_ask_for_that() {
        let lab = Lab::start();
        let token = key("here", "dns", "token");
        assert!(lab.read(&token).await.is_ok());
        for status in [404, 403, 500] {
            lab.status.store(status, Ordering::Relaxed);
            lab.age(FRESH);
            assert!(lab.read(&token).await.is_err(), "{status}");
            let remembered = lab.secrets.read_or_remember(&token).await.expect("remembered");
            assert_eq!(remembered.expose_secret(), "s3cret");
        }
        lab.age(REMEMBERED);
        assert!(lab.secrets.read_or_remember(&token).await.is_err(), "not for ever");
    }
}
