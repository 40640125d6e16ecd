//! What a person puts into a cluster: namespaces, accounts with their tokens, and whatever manifests say.

use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::Cluster;
use crate::write;

impl Cluster {
    /// Makes sure that a namespace is there.
    ///
    /// # Panics
    /// When that fails.
    pub async fn namespace(&self, name: &str) {
        self.ensure("/api/v1/namespaces", &json!({"metadata": {"name": name}})).await;
    }

    /// Makes sure that a ServiceAccount and its namespace are there.
    ///
    /// # Panics
    /// When that fails.
    pub async fn service_account(&self, namespace: &str, name: &str) {
        self.namespace(namespace).await;
        self.ensure(&format!("/api/v1/namespaces/{namespace}/serviceaccounts"), &json!({"metadata": {"name": name}})).await;
    }

    /// A token of a ServiceAccount that is there, for an hour and for the API server.
    ///
    /// # Panics
    /// When it is not there.
    pub async fn token(&self, namespace: &str, account: &str) -> String {
        self.token_for(namespace, account, &json!({})).await
    }

    /// A token with a `spec` of its own, such as `{"expirationSeconds": 600, "audiences": ["other"]}`.
    ///
    /// # Panics
    /// When the account is not there, or the API server refuses.
    pub async fn token_for(&self, namespace: &str, account: &str, spec: &Value) -> String {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        let made = self.api().create(&path, &request).await;
        made["status"]["token"].as_str().unwrap_or_else(|| panic!("no token in {made}")).to_owned()
    }

    /// The token with other claims, signed by the cluster's own key.
    ///
    /// # Panics
    /// When it is no token.
    pub fn token_with(&self, token: &str, change: impl FnOnce(&mut Value)) -> String {
        let [header, claims, _]: [&str; 3] = token.split('.').collect::<Vec<_>>().try_into().unwrap_or_else(|_| panic!("no token"));
        let decoded = URL_SAFE_NO_PAD.decode(claims).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let mut claims: Value = decoded.unwrap_or_else(|| panic!("no claims"));
        change(&mut claims);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.pki().sign_token(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// A ServiceAccount with the rights that an aggregated API server needs to know who calls it and what they may: it reads the front proxy's authority, and
    /// has tokens and rights reviewed. Gives its kubeconfig.
    ///
    /// # Panics
    /// When that fails.
    pub async fn delegated(&self, namespace: &str, account: &str) -> PathBuf {
        self.service_account(namespace, account).await;
        let binding = |kind: &str, within: Value, role: (&str, &str)| {
            let mut metadata = within;
            metadata["name"] = json!(format!("{namespace}:{account}:{}", role.1));
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role.0, "name": role.1},
                "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
            })
        };
        let reader = binding("RoleBinding", json!({"namespace": "kube-system"}), ("Role", "extension-apiserver-authentication-reader"));
        let delegator = binding("ClusterRoleBinding", json!({}), ("ClusterRole", "system:auth-delegator"));
        self.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [reader, delegator]}).to_string()).await;
        let token = self.token(namespace, account).await;
        self.kubeconfig_of_token(&format!("{namespace}-{account}"), &token)
    }

    /// Applies manifests, on the server's side: YAML documents, or JSON.
    ///
    /// # Panics
    /// When the API server refuses one.
    pub async fn apply(&self, manifests: &str) {
        let file = self.file(manifests);
        self.apply_files(&[file.path()]).await;
    }

    /// Applies the manifests of files or folders.
    ///
    /// # Panics
    /// When the API server refuses one.
    pub async fn apply_files(&self, files: &[&Path]) {
        let mut arguments = vec!["apply".to_owned(), "--server-side".into(), "--force-conflicts".into()];
        arguments.extend(files.iter().map(|file| format!("--filename={}", file.display())));
        self.kubectl(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await.succeeded();
    }

    async fn ensure(&self, path: &str, object: &Value) {
        let answer = self.api().ask(Method::POST, path, Some(object)).await.unwrap_or_else(|e| panic!("POST {path}: {e:?}"));
        let done = answer.status.is_success() || answer.status == StatusCode::CONFLICT;
        assert!(done, "POST {path}: {} {}", answer.status, answer.body);
    }

    fn file(&self, text: &str) -> tempfile::NamedTempFile {
        let made = tempfile::Builder::new().prefix("manifest-").suffix(".yaml").tempfile_in(self.folder.path());
        let file = made.unwrap_or_else(|e| panic!("cannot make a file: {e}"));
        write(file.path(), text);
        file
    }
}
