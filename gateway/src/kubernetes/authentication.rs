//! How the cluster's callers prove who they are: the ConfigMap `kube-system/extension-apiserver-authentication`, in which the API server tells extension servers whose
//! certificates it and its clients have.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    runtime::{WatchStreamExt, watcher::watch_object},
};

use super::{Cluster, reasons};
use crate::web::{Authority, AuthorityError};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";

/// What the API server says.
#[derive(Debug, Clone, Default)]
pub struct AuthenticationConfig {
    /// The API server itself, which speaks for its callers; `None` if it has no front-proxy certificate.
    pub front_proxy: Option<FrontProxy>,
    /// Roots of the cluster's client certificates; `None` if there are none.
    pub client_authority: Option<Authority>,
}

/// Who may speak for others, and in which headers.
#[derive(Debug, Clone)]
pub struct FrontProxy {
    /// Roots of its certificate.
    pub authority: Authority,
    /// Common names that it may have; none means any.
    pub allowed_names: Vec<String>,
    /// Where it says for whom.
    pub headers: FrontProxyHeaders,
}

/// Headers in which the API server says who called it; lower case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FrontProxyHeaders {
    /// The name; the first that is there counts.
    pub user: Vec<String>,
    /// The user's UID; the first that is there counts.
    pub uid: Vec<String>,
    /// Groups; all count.
    pub groups: Vec<String>,
    /// Prefixes of all else.
    pub extra_prefixes: Vec<String>,
}

/// Why the ConfigMap cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Unreadable {
    #[error("its {0} is no JSON list of strings")]
    List(&'static str),
    #[error("its {0} cannot be used: {1}")]
    Authority(&'static str, AuthorityError),
}

impl AuthenticationConfig {
    fn read(data: &BTreeMap<String, String>) -> Result<Self, Unreadable> {
        let list = |key: &'static str| match data.get(key).map(String::as_str) {
            None | Some("") => Ok(Vec::new()),
            Some(text) => serde_json::from_str::<Vec<String>>(text).map_err(|_| Unreadable::List(key)),
        };
        let header_names = |key| list(key).map(|names| names.into_iter().map(|name| name.to_ascii_lowercase()).collect::<Vec<_>>());
        let authority = |key: &'static str| match data.get(key).map(String::as_str) {
            None | Some("") => Ok(None),
            Some(pem) => Authority::from_pem(pem.as_bytes()).map(Some).map_err(|error| Unreadable::Authority(key, error)),
        };
        let headers = FrontProxyHeaders {
            user: header_names("requestheader-username-headers")?,
            uid: header_names("requestheader-uid-headers")?,
            groups: header_names("requestheader-group-headers")?,
            extra_prefixes: header_names("requestheader-extra-headers-prefix")?,
        };
        let allowed_names = list("requestheader-allowed-names")?;
        let front_proxy = authority("requestheader-client-ca-file")?.map(|authority| FrontProxy { authority, allowed_names, headers });
        Ok(Self { front_proxy, client_authority: authority("client-ca-file")? })
    }
}

/// Follows the ConfigMap for as long as it is polled, and tells each version of it. A version that cannot be read, or its absence, is logged, and changes nothing:
/// the last good one holds, as it does when the API server is away.
pub async fn follow(cluster: Cluster, tell: impl Fn(AuthenticationConfig)) {
    let api: Api<ConfigMap> = Api::namespaced(cluster.client(), NAMESPACE);
    let mut versions = Box::pin(watch_object(api, NAME).default_backoff());
    let mut complained = String::new();
    while let Some(version) = versions.next().await {
        let complaint = match version {
            Ok(Some(map)) => match AuthenticationConfig::read(&map.data.unwrap_or_default()) {
                Ok(config) => {
                    tracing::info!(
                        front_proxy = config.front_proxy.is_some(),
                        client_certificates = config.client_authority.is_some(),
                        "read how the cluster's callers prove who they are"
                    );
                    tell(config);
                    String::new()
                }
                Err(error) => error.to_string(),
            },
            Ok(None) => "it does not exist".to_owned(),
            Err(error) => reasons(&error),
        };
        // The watch repeats itself; the log need not.
        if complaint != complained && !complaint.is_empty() {
            tracing::error!(
                reason = complaint,
                "the ConfigMap {NAMESPACE}/{NAME} cannot be read; callers are judged by the last version that could, and refused if there was none. \
                 acmegate's service account needs the Role extension-apiserver-authentication-reader in kube-system"
            );
        }
        complained = complaint;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_map_is_read_as_kubernetes_writes_it() {
        let root = rcgen::generate_simple_self_signed(["ca".to_owned()]).unwrap().cert.pem();
        let config = AuthenticationConfig::read(&data(&[
            ("client-ca-file", &root),
            ("requestheader-allowed-names", r#"["front-proxy-client"]"#),
            ("requestheader-client-ca-file", &root),
            ("requestheader-extra-headers-prefix", r#"["X-Remote-Extra-"]"#),
            ("requestheader-group-headers", r#"["X-Remote-Group"]"#),
            ("requestheader-uid-headers", r#"["X-Remote-Uid"]"#),
            ("requestheader-username-headers", r#"["X-Remote-User","X-Other"]"#),
        ]))
        .unwrap();
        let front_proxy = config.front_proxy.unwrap();
        assert!(config.client_authority.is_some());
        assert_eq!(front_proxy.allowed_names, ["front-proxy-client"]);
        let headers = FrontProxyHeaders {
            user: vec!["x-remote-user".into(), "x-other".into()],
            uid: vec!["x-remote-uid".into()],
            groups: vec!["x-remote-group".into()],
            extra_prefixes: vec!["x-remote-extra-".into()],
        };
        assert_eq!(front_proxy.headers, headers);
        let nothing = AuthenticationConfig::read(&data(&[])).unwrap();
        assert!(nothing.front_proxy.is_none() && nothing.client_authority.is_none());
    }

    #[test]
    fn what_cannot_be_read_is_not_half_believed() {
        let error = |entries: &[(&str, &str)]| AuthenticationConfig::read(&data(entries)).unwrap_err().to_string();
        assert_eq!(error(&[("client-ca-file", "x")]), "its client-ca-file cannot be used: it holds no readable PEM certificate");
        assert_eq!(error(&[("requestheader-allowed-names", "a,b")]), "its requestheader-allowed-names is no JSON list of strings");
    }
}
