//! A Secret of type `kubernetes.io/tls`, by server-side apply: the API server knows which fields are ours, and refuses to change those of somebody else.

use std::{collections::BTreeSet, fmt, str::FromStr};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api,
    api::{Patch, PatchParams},
    core::Status,
};
use serde_json::{Value, json};

use super::DeployError;
use crate::{
    issuer::{Issued, check_pair},
    kubernetes::{Cluster, in_time, reasons},
};

/// Who keeps the fields, for `kubectl get --show-managed-fields`.
pub(super) const MANAGER: &str = "acmegate";
/// The names in the certificate, separated by commas.
const NAMES: &str = "acmegate.io/names";
/// When it ends, as RFC 3339 has times.
const NOT_AFTER: &str = "acmegate.io/not-after";

/// An object of a namespace: `NAMESPACE/NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
}

/// The text is no `NAMESPACE/NAME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not of the form NAMESPACE/NAME, in lower-case letters, digits, '-' and (in the name) '.'")]
pub struct BadPlace;

/// A Secret with `tls.crt` and `tls.key`.
#[derive(Debug, Clone)]
pub struct TlsSecret {
    /// Which one.
    pub place: Place,
    /// What stands in `ca.crt`.
    pub ca: CaCertificate,
    /// Whether fields that somebody else keeps are taken over.
    pub force: bool,
}

/// What stands in `ca.crt`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CaCertificate {
    /// There is none. Right for public CAs: clients have their roots.
    #[default]
    None,
    /// The last certificate of the chain that the CA sent, for clients that want to be shown a CA.
    LastOfChain,
}

impl TlsSecret {
    /// The Secret at a place, without `ca.crt`, not taken over from anybody.
    pub fn at(place: Place) -> Self {
        Self { place, ca: CaCertificate::None, force: false }
    }

    pub(super) async fn apply(&self, cluster: &Cluster, issued: &Issued) -> Result<(), DeployError> {
        check_pair(issued.private_key_pem.expose(), &issued.fullchain_pem).map_err(DeployError::Mismatch)?;
        let Place { namespace, name } = &self.place;
        let api: Api<Secret> = Api::namespaced(cluster.client(), namespace);
        let mut params = PatchParams::apply(MANAGER);
        params.force = self.force;
        match in_time(api.patch(name, &params, &Patch::Apply(self.object(issued)))).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.refused(error)),
            Err(late) => Err(DeployError::Unavailable(late)),
        }
    }

    fn object(&self, issued: &Issued) -> Value {
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
        let mut data = json!({"tls.crt": bytes(&issued.fullchain_pem), "tls.key": bytes(issued.private_key_pem.expose())});
        if self.ca == CaCertificate::LastOfChain
            && let Some(last) = last_certificate(&issued.fullchain_pem)
        {
            data["ca.crt"] = json!(bytes(last));
        }
        let not_after = jiff::Timestamp::try_from(issued.not_after).map(|time| time.strftime("%FT%TZ").to_string()).unwrap_or_default();
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {
                "name": self.place.name,
                "namespace": self.place.namespace,
                "annotations": {NAMES: issued.names.join(","), NOT_AFTER: not_after},
            },
            "data": data,
        })
    }

    fn refused(&self, error: kube::Error) -> DeployError {
        let Place { namespace, name } = &self.place;
        let status = match error {
            kube::Error::Api(status) => status,
            error => return DeployError::Unavailable(reasons(&error)),
        };
        match status.code {
            409 => DeployError::Conflict { managers: managers(&status) },
            401 | 403 => DeployError::Refused(format!(
                "acmegate's account may not write it: give it a Role with the verbs create and patch for secrets in the namespace {namespace}"
            )),
            404 => DeployError::Refused(format!("there is no namespace {namespace}: create it")),
            422 if status.message.contains("immutable") => DeployError::Refused(format!(
                "it is of another type or immutable, and cannot be changed: delete it (kubectl delete secret {name} --namespace {namespace}), or choose another name"
            )),
            code if code == 429 || code >= 500 => DeployError::Unavailable(format!("it answers {code}")),
            _ => DeployError::Refused(format!("the API of the cluster refuses it: {}", status.message)),
        }
    }
}

/// Those with whom there is a conflict: `conflict with "kubectl-create" using v1`.
fn managers(status: &Status) -> Vec<String> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let quoted = |message: &str| message.split('"').nth(1).map(str::to_owned);
    let found: BTreeSet<String> = causes.filter_map(|cause| quoted(&cause.message)).collect();
    if found.is_empty() { vec![status.message.clone()] } else { found.into_iter().collect() }
}

fn last_certificate(chain: &str) -> Option<&str> {
    chain.rfind("-----BEGIN CERTIFICATE-----").and_then(|start| chain.get(start..))
}

impl fmt::Display for TlsSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret {}", self.place)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for Place {
    type Err = BadPlace;

    fn from_str(text: &str) -> Result<Self, BadPlace> {
        let label = |text: &str| {
            !text.is_empty()
                && !text.starts_with('-')
                && !text.ends_with('-')
                && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        let (namespace, name) = text.split_once('/').ok_or(BadPlace)?;
        let fits = label(namespace) && namespace.len() <= 63 && name.split('.').all(label) && name.len() <= 253;
        if fits { Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() }) } else { Err(BadPlace) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::{Json, Router, extract::Query, http::StatusCode, routing::patch};
    use parking_lot::Mutex;

    use super::*;
    use crate::{
        issuer::Authority,
        web::{Limits, testing::Site},
    };

    #[test]
    fn a_place_is_a_namespace_and_a_name() {
        let place: Place = "apps/www.example.com".parse().unwrap();
        assert_eq!((place.namespace.as_str(), place.name.as_str()), ("apps", "www.example.com"));
        for wrong in ["", "apps", "/a", "apps/", "a/b/c", "Apps/a", "apps/..", "apps/-a", "a.b/c", "apps/a_b"] {
            assert_eq!(wrong.parse::<Place>(), Err(BadPlace), "{wrong}");
        }
    }

    #[test]
    fn the_secret_says_what_is_in_it() {
        let issued = Authority::new().issue(&["one.test", "*.one.test"]);
        let mut secret = TlsSecret::at("apps/one".parse().unwrap());
        let object = secret.object(&issued);
        assert_eq!(
            (&object["type"], &object["metadata"]["annotations"][NAMES]),
            (&json!("kubernetes.io/tls"), &json!("one.test,*.one.test"))
        );
        assert!(object["metadata"]["annotations"][NOT_AFTER].as_str().unwrap().ends_with('Z'));
        assert!(object["data"]["ca.crt"].is_null());
        secret.ca = CaCertificate::LastOfChain;
        let ca: ByteString = serde_json::from_value(secret.object(&issued)["data"]["ca.crt"].clone()).unwrap();
        assert_eq!(String::from_utf8(ca.0).unwrap(), issued.chain_pem);
    }

    #[tokio::test]
    async fn refusals_say_what_to_do() {
        let next: Arc<Mutex<(u16, &str)>> = Arc::new(Mutex::new((200, "")));
        let (says, asked) = (next.clone(), Arc::new(Mutex::new(String::new())));
        let query = asked.clone();
        let answer = async move |Query(parameters): Query<std::collections::BTreeMap<String, String>>, Json(object): Json<Value>| {
            *query.lock() = format!("{parameters:?}");
            let (code, message) = *says.lock();
            if code == 200 {
                return (StatusCode::OK, Json(object));
            }
            let details = json!({"causes": [{"reason": "FieldManagerConflict", "message": message, "field": ".data.tls.crt"}]});
            let status =
                json!({"kind": "Status", "status": "Failure", "code": code, "message": message, "reason": "No", "details": details});
            (StatusCode::from_u16(code).unwrap(), Json(status))
        };
        // The content type of an apply is YAML by its name.
        let answer = async move |query: Query<_>, body: String| answer(query, Json(serde_json::from_str(&body).unwrap())).await;
        let api = Site::start(Router::new().route("/api/v1/namespaces/apps/secrets/one", patch(answer)), Limits::default(), None);
        let cluster = Cluster::at(&format!("http://{}", api.address));
        let issued = Authority::new().issue(&["one.test"]);
        let mut secret = TlsSecret::at("apps/one".parse().unwrap());
        secret.apply(&cluster, &issued).await.unwrap();
        assert!(asked.lock().contains(r#""fieldManager": "acmegate""#) && !asked.lock().contains(r#""force": "true""#), "{}", asked.lock());
        for (answer, said, may_pass) in [
            ((409, "conflict with \"helm\" using v1"), "somebody else keeps it (helm)", false),
            ((403, "no"), "the verbs create and patch for secrets in the namespace apps", false),
            ((404, "no"), "there is no namespace apps", false),
            ((422, "type: field is immutable"), "kubectl delete secret one --namespace apps", false),
            ((422, "something else"), "something else", false),
            ((503, "no"), "it answers 503", true),
        ] {
            *next.lock() = answer;
            let error = secret.apply(&cluster, &issued).await.unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
            assert_eq!(error.may_pass(), may_pass, "{error}");
        }
        *next.lock() = (200, "");
        secret.force = true;
        secret.apply(&cluster, &issued).await.unwrap();
        assert!(asked.lock().contains(r#""force": "true""#), "{}", asked.lock());
    }
}
