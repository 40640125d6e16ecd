//! HTTPS to a provider's API: one client, one limiter, deadlines, and answers sorted into [`Error`]s.

use std::{net::IpAddr, path::Path, sync::Arc, time::Duration};

use reqwest::{
    Certificate, Client, ClientBuilder, RequestBuilder, StatusCode, Url,
    header::{HeaderMap, RETRY_AFTER},
};
use serde::de::DeserializeOwned;

use crate::{Error, limiter::Limiter};

/// How long one call may take in all.
const DEADLINE: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(10);
/// Largest answer: a page of a thousand records is under a megabyte.
const MOST_BYTES: usize = 32 * 1024 * 1024;
/// The pause after a "too often" that does not say for how long.
const PAUSE: Duration = Duration::from_secs(2);
/// The longest text of a provider that goes into an error.
const MOST_TEXT: usize = 300;

/// A base URL: HTTPS, or HTTP on loopback.
///
/// # Errors
/// A text that says what is wrong with it.
pub fn endpoint(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("endpoint: {text} is no URL: {error}"))?;
    let host = url.host_str().ok_or_else(|| format!("endpoint: {text} has no host"))?;
    let loopback = host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !url.username().is_empty() || url.password().is_some() {
        return Err("endpoint: a URL with a user name or password is not taken: the secret belongs under its own key".to_owned());
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if loopback => Ok(url),
        "http" => Err(format!("endpoint: {text} would send secrets in the clear: use https (http only on loopback)")),
        scheme => Err(format!("endpoint: {scheme} is not supported: use https")),
    }
}

/// A client for one credential.
#[derive(Debug, Clone)]
pub struct Http {
    client: Client,
    limiter: Arc<Limiter>,
}

/// An answer, whole.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
}

impl Http {
    /// A client; `ca_file` is PEM with the roots that the API's HTTPS uses, instead of the system's.
    ///
    /// # Errors
    /// A text that says what is wrong with the file.
    pub fn new(ca_file: Option<&Path>, limiter: Arc<Limiter>) -> Result<Self, String> {
        let mut builder = builder();
        if let Some(path) = ca_file {
            let pem = std::fs::read(path).map_err(|error| format!("ca_file: {} cannot be read: {error}", path.display()))?;
            let roots =
                Certificate::from_pem_bundle(&pem).map_err(|_| format!("ca_file: {} is not PEM with certificates", path.display()))?;
            if roots.is_empty() {
                return Err(format!("ca_file: {} holds no certificate", path.display()));
            }
            builder = builder.tls_certs_only(roots);
        }
        let client = builder.build().map_err(|error| format!("no HTTPS client can be made: {}", chain(&error)))?;
        Ok(Self { client, limiter })
    }

    /// A client for services of this machine and its host, such as a metadata service: no proxy of the environment comes between.
    ///
    /// # Errors
    /// A text that says what this machine lacks.
    pub fn direct(limiter: Arc<Limiter>) -> Result<Self, String> {
        let client = builder().no_proxy().build().map_err(|error| format!("no HTTP client can be made: {}", chain(&error)))?;
        Ok(Self { client, limiter })
    }

    /// The client, to begin requests with.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The limiter that its calls go through.
    pub fn limiter(&self) -> &Limiter {
        &self.limiter
    }

    /// Waits for a token, sends, and reads the whole answer, whatever its status. Throttling (429) and its Retry-After have been told to the limiter.
    ///
    /// # Errors
    /// [`Error::Unsent`] if there was no connection, [`Error::Transport`] if there was no whole answer, [`Error::RateLimited`] by the limiter.
    pub async fn send(&self, request: RequestBuilder) -> Result<Reply, Error> {
        self.limiter.acquire().await?;
        let reply = self.exchange(request).await;
        match &reply {
            Ok(reply) if reply.status == StatusCode::TOO_MANY_REQUESTS => {
                self.limiter.throttled(retry_after(&reply.headers).unwrap_or(PAUSE));
            }
            Ok(reply) if reply.status.is_server_error() => self.limiter.failed(),
            Ok(_) => {}
            Err(_) => self.limiter.failed(),
        }
        reply
    }

    async fn exchange(&self, request: RequestBuilder) -> Result<Reply, Error> {
        let mut response = request.send().await.map_err(|error| {
            let text = chain(&error);
            if error.is_connect() { Error::Unsent(text) } else { Error::Transport(text) }
        })?;
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| Error::Transport(chain(&error)))? {
            if body.len() + chunk.len() > MOST_BYTES {
                return Err(Error::Transport(format!("the answer is larger than {MOST_BYTES} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Reply { status, headers, body })
    }
}

fn builder() -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("acmegate/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .timeout(DEADLINE)
        // A redirect would carry the credential elsewhere.
        .redirect(reqwest::redirect::Policy::none())
}

impl Reply {
    /// The body as JSON, of a good answer.
    ///
    /// # Errors
    /// [`Error::Transport`]: an answer that cannot be read says nothing of what was done.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Error::Transport(format!("the answer is not the JSON that was expected: {error}")))
    }

    /// The error that the status alone stands for, with the provider's own words (which must hold no secret). Providers look at their own error codes first.
    pub fn error(&self, words: &str) -> Error {
        let words: String = words.chars().filter(|c| !c.is_control()).take(MOST_TEXT).collect();
        let text = if words.is_empty() { format!("HTTP {}", self.status) } else { format!("HTTP {}: {words}", self.status.as_u16()) };
        match self.status.as_u16() {
            401 | 403 => Error::Auth(text),
            404 | 410 => Error::NotFound(text),
            409 | 412 => Error::Conflict(text),
            429 => Error::RateLimited { reason: text, retry_after: retry_after(&self.headers) },
            // Asked to come back before the request was looked at.
            503 if self.headers.contains_key(RETRY_AFTER) => Error::RateLimited { reason: text, retry_after: retry_after(&self.headers) },
            408 | 425 | 500..=599 => Error::Transport(text),
            _ => Error::Rejected(text),
        }
    }
}

/// Retry-After in both forms (RFC 9110, 10.2.3), an hour at most.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(std::time::SystemTime::now()).unwrap_or_default(),
    };
    Some(wait.min(Duration::from_secs(3600)))
}

/// An error with its causes, without the URL: a query may hold what is nobody's business.
pub fn chain(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() {
        "the call took too long".to_owned()
    } else if error.is_connect() {
        "no connection".to_owned()
    } else {
        "the connection broke".to_owned()
    };
    let mut cause = std::error::Error::source(error);
    let mut last = None;
    while let Some(error) = cause {
        last = Some(error.to_string());
        cause = error.source();
    }
    if let Some(last) = last {
        text.push_str(": ");
        text.push_str(&last);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_over_https_or_nowhere() {
        for good in ["https://api.example.com/v4", "http://127.0.0.1:8080", "http://[::1]:1/", "http://localhost:1"] {
            assert!(endpoint(good).is_ok(), "{good}");
        }
        for (bad, said) in [
            ("http://api.example.com", "in the clear"),
            ("ftp://x", "not supported"),
            ("api.example.com", "no URL"),
            ("https://user:pass@x/", "its own key"),
            ("http://127.0.0.1.example.com/", "in the clear"),
        ] {
            let error = endpoint(bad).expect_err(bad);
            assert!(error.contains(said) && !error.contains("pass@"), "{error}");
        }
    }

    #[test]
    fn statuses_say_what_to_do_next() {
        let reply =
            |status: u16| Reply { status: StatusCode::from_u16(status).expect("a status"), headers: HeaderMap::new(), body: Vec::new() };
        assert!(matches!(reply(401).error(""), Error::Auth(_)));
        assert!(matches!(reply(404).error(""), Error::NotFound(_)));
        assert!(matches!(reply(412).error(""), Error::Conflict(_)));
        assert!(matches!(reply(429).error(""), Error::RateLimited { .. }));
        assert!(matches!(reply(422).error(""), Error::Rejected(_)));
        assert_eq!(reply(500).error("line\nbreak"), Error::Transport("HTTP 500: linebreak".to_owned()));
    }
}
