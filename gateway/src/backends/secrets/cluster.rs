//! Secrets of the cluster that this process runs in, by the pod's service account.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use providers::{
    Error,
    secret::{KubernetesSecret, MOST_BYTES, SecretRef},
};
use reqwest::{Certificate, Client, StatusCode, header::AUTHORIZATION};
use secrecy::SecretString;
use serde::Deserialize;

/// Where a pod finds its service account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long a secret is kept: whoever makes a hundred calls reads it once, and a rotated one is soon used.
const KEPT: Duration = Duration::from_secs(15);
/// How long the API may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// A Secret has at most 1 MiB, a third more in base64.
const MOST_ANSWER: usize = 2 * 1024 * 1024;
/// Secrets kept; more is a defect, and not worth more.
const MOST_KEPT: usize = 1000;

/// The cluster's API.
#[derive(Debug)]
pub(super) struct Cluster {
    api: String,
    /// With `token`, `ca.crt` and `namespace`.
    account: PathBuf,
    client: Mutex<Option<(Vec<u8>, Client)>>,
    kept: Mutex<HashMap<Place, (Instant, SecretString)>>,
}

/// A namespace, a Secret's name, and a key of it.
type Place = (String, String, String);

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    data: HashMap<String, String>,
}

impl Cluster {
    /// The API that Kubernetes tells every pod of.
    pub(super) fn of_this_pod() -> Option<Self> {
        let host = std::env::var("KUBERNETES_SERVICE_HOST").ok()?;
        let port = std::env::var("KUBERNETES_SERVICE_PORT").unwrap_or_else(|_| "443".to_owned());
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        Some(Self::at(format!("https://{host}:{port}"), ACCOUNT.into()))
    }

    fn at(api: String, account: PathBuf) -> Self {
        Self { api, account, client: Mutex::default(), kept: Mutex::default() }
    }

    /// The key's text as it is now, or was a moment ago.
    pub(super) async fn read(&self, secret: &SecretRef, key: &KubernetesSecret) -> Result<SecretString, Error> {
        let namespace = match &key.namespace {
            Some(namespace) => namespace.clone(),
            None => self.account_file(secret, "namespace")?.trim().to_owned(),
        };
        let place = (namespace, key.name.clone(), key.key.clone());
        if let Some((at, text)) = self.kept.lock().get(&place)
            && at.elapsed() < KEPT
        {
            return Ok(text.clone());
        }
        let text = self.ask(secret, key, &place.0).await?;
        let mut kept = self.kept.lock();
        if kept.len() >= MOST_KEPT {
            kept.clear();
        }
        kept.insert(place, (Instant::now(), text.clone()));
        Ok(text)
    }

    async fn ask(&self, secret: &SecretRef, key: &KubernetesSecret, namespace: &str) -> Result<SecretString, Error> {
        let is_name =
            |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b));
        if !is_name(namespace) || !is_name(&key.name) {
            return Err(Error::Auth(format!("{secret} cannot be read: that is no name of a Secret, or no namespace")));
        }
        let url = format!("{}/api/v1/namespaces/{namespace}/secrets/{}", self.api, key.name);
        let token = self.account_file(secret, "token")?;
        let unreachable = |_: reqwest::Error| Error::Unsent(format!("{secret} cannot be read: the API of the cluster does not answer"));
        let mut header = reqwest::header::HeaderValue::from_str(&format!("Bearer {}", token.trim()))
            .map_err(|_| Error::Auth(format!("{secret} cannot be read: the service account's token is no token")))?;
        header.set_sensitive(true);
        let mut answer = self.client(secret)?.get(url).header(AUTHORIZATION, header).send().await.map_err(unreachable)?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(Error::Auth(format!("{secret} does not exist in the namespace {namespace}: create it"))),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(Error::Auth(format!(
                    "{secret} may not be read by acmegate's service account: give it a Role with the verb get for the Secret {} in the namespace {namespace}",
                    key.name
                )));
            }
            status => return Err(Error::Unsent(format!("{secret} cannot be read: the API of the cluster answers {status}"))),
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
            body.extend_from_slice(&chunk);
            if body.len() > MOST_ANSWER {
                return Err(Error::Auth(format!("{secret} is too large to be a secret")));
            }
        }
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|_| Error::Unsent(format!("{secret} cannot be read: the answer of the cluster's API is no Secret")))?;
        let encoded = answer.data.get(&key.key).ok_or_else(|| Error::Auth(format!("{secret} is not there: the Secret has no such key")))?;
        let text = data_encoding::BASE64.decode(encoded.as_bytes()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let text = text.filter(|text| text.len() as u64 <= MOST_BYTES);
        text.map(SecretString::from).ok_or_else(|| Error::Auth(format!("{secret} is no text of at most {MOST_BYTES} bytes")))
    }

    /// A client that trusts the cluster's authority, made anew when that changes.
    fn client(&self, secret: &SecretRef) -> Result<Client, Error> {
        let authority = self.account_file(secret, "ca.crt")?.into_bytes();
        let mut current = self.client.lock();
        if let Some((of, client)) = &*current
            && *of == authority
        {
            return Ok(client.clone());
        }
        let unusable = |_: reqwest::Error| Error::Auth(format!("{secret} cannot be read: the service account's ca.crt cannot be used"));
        let roots = Certificate::from_pem_bundle(&authority).map_err(unusable)?;
        let builder = Client::builder().timeout(DEADLINE).redirect(reqwest::redirect::Policy::none()).no_proxy();
        let client = builder.tls_certs_only(roots).build().map_err(unusable)?;
        *current = Some((authority, client.clone()));
        Ok(client)
    }

    fn account_file(&self, secret: &SecretRef, file: &str) -> Result<String, Error> {
        let path = self.account.join(file);
        fs::read_to_string(&path).map_err(|error| {
            Error::Auth(format!("{secret} cannot be read: the service account's {} cannot be read: {error}", path.display()))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use axum::{Json, Router, http::HeaderMap, routing::get};
    use rcgen::CertifiedKey;
    use secrecy::ExposeSecret;
    use serde_json::json;

    use super::*;
    use crate::{
        config::TlsFiles,
        web::{Clients, Limits, ReloadedTls, testing::Site},
    };

    /// The API server, with the certificate in these files.
    fn api(files: &TlsFiles) -> Site {
        let secret = |headers: HeaderMap| async move {
            let known = headers.get(AUTHORIZATION).is_some_and(|token| token == "Bearer pod-token");
            let data = json!({ "data": { "token": "czNjcmV0", "broken": "%" } });
            if known { Ok(Json(data)) } else { Err(StatusCode::UNAUTHORIZED) }
        };
        let forbidden = || async { StatusCode::FORBIDDEN };
        let router = Router::new()
            .route("/api/v1/namespaces/here/secrets/dns", get(secret))
            .route("/api/v1/namespaces/there/secrets/dns", get(forbidden));
        Site::start(router, Limits::default(), Some(ReloadedTls::open(files, Clients::Anonymous).expect("a certificate")))
    }

    /// A certificate for `127.0.0.1`, and its files in a folder.
    fn certificate(folder: &Path) -> (String, TlsFiles) {
        let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        let files = TlsFiles { certificate: folder.join("tls.crt"), key: folder.join("tls.key") };
        fs::write(&files.certificate, cert.pem()).expect("written");
        fs::write(&files.key, signing_key.serialize_pem()).expect("written");
        (cert.pem(), files)
    }

    fn key(name: &str, key: &str, namespace: Option<&str>) -> KubernetesSecret {
        KubernetesSecret { name: name.to_owned(), key: key.to_owned(), namespace: namespace.map(str::to_owned) }
    }

    #[tokio::test]
    async fn a_key_of_a_secret_is_read_by_the_service_account_and_failures_say_what_to_do() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let account = tempfile::tempdir().expect("a folder");
        let (authority, files) = certificate(account.path());
        for (file, text) in [("token", "pod-token\n"), ("namespace", "here"), ("ca.crt", authority.as_str())] {
            fs::write(account.path().join(file), text).expect("written");
        }
        let api = api(&files);
        let cluster = Cluster::at(format!("https://{}", api.address), account.path().to_owned());
        let read = async |key: KubernetesSecret| {
            let secret = SecretRef::Kubernetes(key.clone());
            cluster.read(&secret, &key).await.map(|text| text.expose_secret().to_owned()).map_err(|error| error.to_string())
        };
        assert_eq!(read(key("dns", "token", None)).await.as_deref(), Ok("s3cret"));
        for (asked, said) in [
            (key("dns", "other", None), "the Secret has no such key"),
            (key("dns", "broken", None), "is no text"),
            (key("dns2", "token", None), "does not exist in the namespace here: create it"),
            (key("dns", "token", Some("there")), "a Role with the verb get for the Secret dns in the namespace there"),
            (key("../dns", "token", None), "no name of a Secret"),
        ] {
            let error = read(asked).await.expect_err(said);
            assert!(error.contains(said), "{error}");
        }
        let kept: Vec<_> = cluster.kept.lock().keys().cloned().collect();
        assert_eq!(kept, [("here".to_owned(), "dns".to_owned(), "token".to_owned())], "failures are not kept");
        assert!(!format!("{cluster:?}").contains("s3cret"));

        // An API server that shows the certificate of another authority is told nothing.
        let elsewhere = tempfile::tempdir().expect("a folder");
        fs::write(account.path().join("ca.crt"), certificate(elsewhere.path()).0).expect("written");
        let error = read(key("dns2", "token", None)).await.expect_err("nobody to trust");
        assert!(!error.contains("does not exist"), "{error}");
    }
}
