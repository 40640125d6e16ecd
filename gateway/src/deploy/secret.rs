//! A Secret of type `kubernetes.io/tls`, by server-side apply: the API server knows which fields are ours, and refuses to change those of somebody else.

use std::collections::BTreeSet;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api,
    api::{Patch, PatchParams},
    core::Status,
};
use serde_json::{Value, json};

use super::{CaCertificate, DeployError, Place, TlsSecret, rfc3339};
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

impl TlsSecret {
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
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {
                "name": self.place.name,
                "namespace": self.place.namespace,
                "annotations": {NAMES: issued.names.join(","), NOT_AFTER: rfc3339(issued.not_after)},
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
