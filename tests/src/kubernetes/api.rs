//! The API of a cluster in plain JSON, as one user of it.

use std::time::Duration;

use reqwest::{Method, StatusCode, header};
use serde_json::Value;
use tokio::time::timeout;

use super::pki::Pair;
use crate::wait::{LIMIT, until};

/// A client of the API server, for the runtime that made it.
pub struct Api {
    base: String,
    client: reqwest::Client,
    token: Option<String>,
}

/// An answer of the API server.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The body: JSON, or a string where it is none.
    pub body: Value,
}

impl Api {
    /// A client of the server at `base` (`https://HOST:PORT`) that trusts `root` (PEM) and is who `identity` or `token` say; nobody if none is given.
    ///
    /// # Panics
    /// When one of these is not what it should be.
    pub fn new(base: String, root: &str, identity: Option<&Pair>, token: Option<String>) -> Self {
        let build = || {
            let root = reqwest::Certificate::from_pem(root.as_bytes())?;
            let mut builder = reqwest::Client::builder().tls_certs_only([root]).timeout(LIMIT).no_proxy();
            if let Some(Pair { certificate, key }) = identity {
                builder = builder.identity(reqwest::Identity::from_pem(format!("{certificate}{key}").as_bytes())?);
            }
            builder.build()
        };
        let client: reqwest::Result<_> = build();
        Self { base, client: client.unwrap_or_else(|e| panic!("cannot make a client: {e:?}")), token }
    }

    /// One request.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> reqwest::Result<Answer> {
        let merge_patch = (method == Method::PATCH).then_some("application/merge-patch+json");
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(content_type) = merge_patch {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let reply = request.send().await?;
        let status = reply.status();
        let text = reply.text().await?;
        Ok(Answer { status, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) })
    }

    /// What stands at a path.
    ///
    /// # Panics
    /// On any answer but 2xx.
    pub async fn get(&self, path: &str) -> Value {
        self.succeed(Method::GET, path, None).await
    }

    /// Creates an object.
    ///
    /// # Panics
    /// On any answer but 2xx.
    pub async fn create(&self, path: &str, object: &Value) -> Value {
        self.succeed(Method::POST, path, Some(object)).await
    }

    /// Changes an object by a merge patch (RFC 7396).
    ///
    /// # Panics
    /// On any answer but 2xx.
    pub async fn patch(&self, path: &str, patch: &Value) -> Value {
        self.succeed(Method::PATCH, path, Some(patch)).await
    }

    /// Asks for an object's deletion, which its finalizers may put off.
    ///
    /// # Panics
    /// On any answer but 2xx.
    pub async fn delete(&self, path: &str) -> Value {
        self.succeed(Method::DELETE, path, None).await
    }

    /// The items of a list.
    ///
    /// # Panics
    /// On any answer but 2xx.
    pub async fn list(&self, path: &str) -> Vec<Value> {
        self.get(path).await["items"].as_array().cloned().unwrap_or_default()
    }

    /// Follows the objects of a list, all of them as they are first, until `pick` has what it wants of one; `None` after `limit`. `pick` gets the type of
    /// each event (`ADDED`, `MODIFIED`, `DELETED`) and the object.
    ///
    /// # Panics
    /// When the API server refuses.
    pub async fn watch<T>(&self, path: &str, limit: Duration, mut pick: impl FnMut(&str, &Value) -> Option<T>) -> Option<T> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{separator}watch=true");
        let follow = async {
            loop {
                // It ends when the API server does, and now and then for no reason: then all objects are told again.
                let mut stream = until(&format!("GET {path}"), || self.open(&path, limit)).await;
                let mut rest = Vec::new();
                while let Ok(Some(bytes)) = stream.chunk().await {
                    rest.extend_from_slice(&bytes);
                    while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
                        let line: Vec<u8> = rest.drain(..=end).collect();
                        let event: Value = serde_json::from_slice(&line).unwrap_or_else(|e| panic!("GET {path}: {e}"));
                        if let Some(picked) = pick(event["type"].as_str().unwrap_or_default(), &event["object"]) {
                            return picked;
                        }
                    }
                }
            }
        };
        timeout(limit, follow).await.ok()
    }

    async fn open(&self, path: &str, limit: Duration) -> anyhow::Result<reqwest::Response> {
        let mut request = self.client.get(format!("{}{path}", self.base)).timeout(limit);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        Ok(request.send().await?.error_for_status()?)
    }

    async fn succeed(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let what = format!("{method} {path}");
        let answer = self.ask(method, path, body).await.unwrap_or_else(|e| panic!("{what}: {e:?}"));
        assert!(answer.status.is_success(), "{what}: {} {}", answer.status, answer.body);
        answer.body
    }
}
