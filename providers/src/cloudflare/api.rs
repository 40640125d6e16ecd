//! The API's envelope, objects, credentials and errors.

use std::{collections::BTreeSet, fmt, path::Path, sync::Arc, time::Duration};

use authdns::Name;
use reqwest::{
    Method, RequestBuilder, StatusCode, Url,
    header::{AUTHORIZATION, HeaderMap, HeaderValue},
};
use secrecy::ExposeSecret;
use serde::{Deserialize, de::DeserializeOwned};

use super::plan::Batch;
use crate::{
    Calls, Error, Zone,
    http::{Http, Reply},
    limiter::Limiter,
    secret::{self, SecretRef, Secrets},
};

/// The documented limit is 1,200 calls in five minutes for a user, and whoever exceeds it is locked out for five minutes. A burst and then the rate that is
/// left of it stay below that in every window: 100 + 300 s / 275 ms = 1,190.
const INTERVAL: Duration = Duration::from_millis(275);
const BURST: u32 = 100;
const LOCKED_OUT: Duration = Duration::from_secs(300);
/// With fewer calls left than this in the window, others use the credential as well, and what is left is spread.
const FEW: u32 = 300;

/// Codes of errors, by what they mean. Cloudflare documents no list; these are what its users report.
const THROTTLED: &[u32] = &[971];
const NOT_ALLOWED: &[u32] = &[6003, 6103, 6111, 9103, 9106, 9107, 9109, 10000, 10001];
const NO_ZONE: &[u32] = &[1001, 7000, 7003];
/// A record that is to be made is there, or one that is to be deleted is not.
const CHANGED: &[u32] = &[81044, 81057, 81058];

/// The client.
pub(super) struct Api {
    http: Http,
    base: Url,
    auth: Auth,
    secrets: Arc<dyn Secrets>,
}

/// The credential.
pub(super) enum Auth {
    /// API tokens: for records, and for zones if that is another one.
    Tokens { records: SecretRef, zones: Option<SecretRef> },
    /// The global key of a user.
    Key { email: String, key: SecretRef },
}

/// Which token a call is made with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Token {
    Zones,
    Records,
}

/// A good answer.
#[derive(Debug)]
pub(super) struct Answer<T> {
    pub(super) result: T,
    /// Objects on all pages.
    pub(super) total: Option<usize>,
    /// Pages.
    pub(super) pages: Option<usize>,
}

/// Why a batch was refused.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    /// JSON pointers to what was wrong in the request.
    pub(super) pointers: Vec<String>,
}

/// A zone.
#[derive(Debug, Deserialize)]
pub(super) struct ZoneObject {
    id: String,
    name: String,
    #[serde(default)]
    status: Option<String>,
    #[serde(rename = "type", default = "full")]
    pub(super) kind: String,
    #[serde(default)]
    name_servers: Option<Vec<String>>,
    #[serde(default)]
    vanity_name_servers: Option<Vec<String>>,
}

fn full() -> String {
    "full".to_owned()
}

/// A record.
#[derive(Debug, Deserialize)]
pub(super) struct Record {
    pub(super) id: String,
    name: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) content: Option<String>,
    ttl: f64,
    #[serde(default)]
    pub(super) comment: Option<String>,
}

/// What Cloudflare says of a token.
#[derive(Debug, Deserialize)]
pub(super) struct TokenStatus {
    pub(super) status: String,
    #[serde(default)]
    expires_on: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Envelope<T> {
    #[serde(default)]
    success: bool,
    result: Option<T>,
    #[serde(default)]
    result_info: Option<ResultInfo>,
}

#[derive(Debug, Deserialize)]
struct ResultInfo {
    #[serde(default)]
    total_count: Option<usize>,
    #[serde(default)]
    total_pages: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<Told>,
}

#[derive(Debug, Deserialize)]
struct Told {
    #[serde(default)]
    code: u32,
    #[serde(default)]
    message: String,
    #[serde(default)]
    error_chain: Vec<Told>,
    #[serde(default)]
    source: Option<Source>,
}

#[derive(Debug, Deserialize)]
struct Source {
    #[serde(default)]
    pointer: Option<String>,
}

impl Api {
    pub(super) fn new(base: Url, ca_file: Option<&Path>, auth: Auth, secrets: Arc<dyn Secrets>) -> Result<Self, String> {
        let limiter = Arc::new(Limiter::new(INTERVAL, BURST));
        Ok(Self { http: Http::new(ca_file, limiter)?, base, auth, secrets })
    }

    pub(super) fn calls(&self) -> Calls {
        self.http.limiter().calls()
    }

    /// The tokens of the credential; none if it is a key.
    pub(super) fn tokens(&self) -> Vec<Token> {
        match &self.auth {
            Auth::Tokens { zones: Some(_), .. } => vec![Token::Records, Token::Zones],
            Auth::Tokens { zones: None, .. } => vec![Token::Records],
            Auth::Key { .. } => Vec::new(),
        }
    }

    /// A call that changes nothing.
    pub(super) async fn get<T: DeserializeOwned>(&self, token: Token, path: &[&str], query: &[(&str, &str)]) -> Result<Answer<T>, Error> {
        let request = self.request(Method::GET, token, path).await?.query(query);
        let reply = self.send(request).await.map_err(|failure| failure.error)?;
        let envelope: Envelope<T> = reply.json()?;
        let result = envelope.result.ok_or_else(|| Error::Transport("the answer holds no result".to_owned()))?;
        let info = envelope.result_info;
        Ok(Answer { result, total: info.as_ref().and_then(|info| info.total_count), pages: info.and_then(|info| info.total_pages) })
    }

    /// A batch of changes, made as a whole or not at all.
    pub(super) async fn post_batch(&self, zone: &str, batch: &Batch) -> Result<(), Failure> {
        let request = self.request(Method::POST, Token::Records, &["zones", zone, "dns_records", "batch"]).await;
        let request = request.map_err(|error| Failure { error, pointers: Vec::new() })?.json(batch);
        self.send(request).await.map(|_| ())
    }

    async fn request(&self, method: Method, token: Token, path: &[&str]) -> Result<RequestBuilder, Error> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        Ok(self.http.client().request(method, url).headers(self.credential(token).await?))
    }

    async fn credential(&self, token: Token) -> Result<HeaderMap, Error> {
        let secret = match (&self.auth, token) {
            (Auth::Tokens { zones: Some(zones), .. }, Token::Zones) => zones,
            (Auth::Tokens { records, .. }, _) => records,
            (Auth::Key { key, .. }, _) => key,
        };
        let text = secret::token(&*self.secrets, secret).await?;
        let value = |text: &str| {
            let mut value = HeaderValue::from_str(text).map_err(|_| Error::Auth(format!("{secret} holds what cannot be sent")))?;
            value.set_sensitive(true);
            Ok::<_, Error>(value)
        };
        let mut headers = HeaderMap::new();
        match &self.auth {
            Auth::Tokens { .. } => {
                headers.insert(AUTHORIZATION, value(&format!("Bearer {}", text.expose_secret()))?);
            }
            Auth::Key { email, .. } => {
                headers.insert("x-auth-email", value(email)?);
                headers.insert("x-auth-key", value(text.expose_secret())?);
            }
        }
        Ok(headers)
    }

    /// Sends a request, tells the limiter what the answer says of the rate, and sorts errors.
    async fn send(&self, request: RequestBuilder) -> Result<Reply, Failure> {
        let reply = self.http.send(request).await.map_err(|error| Failure { error, pointers: Vec::new() })?;
        if let Some((remaining, reset)) = rate(&reply.headers).filter(|(remaining, _)| *remaining < FEW) {
            self.http.limiter().observe(remaining, reset);
        }
        let success = reply.status.is_success() && reply.json::<Envelope<serde::de::IgnoredAny>>().is_ok_and(|envelope| envelope.success);
        if success {
            return Ok(reply);
        }
        let told = reply.json::<Errors>().unwrap_or_default().errors;
        let error = error(&reply, &told);
        if let Error::RateLimited { retry_after: Some(pause), .. } = &error {
            self.http.limiter().observe(0, *pause);
        }
        Err(Failure { error, pointers: told.into_iter().filter_map(|told| told.source?.pointer).collect() })
    }
}

impl<T> Answer<T> {
    /// Whether nothing follows this page.
    pub(super) fn is_last(&self, page: usize) -> bool {
        self.pages.is_none_or(|pages| page >= pages)
    }
}

impl ZoneObject {
    pub(super) fn is_active(&self) -> bool {
        self.status.as_deref() == Some("active")
    }

    pub(super) fn zone(&self) -> Option<Zone> {
        let servers = self.name_servers.iter().chain(&self.vanity_name_servers).flatten();
        let nameservers: BTreeSet<Name> = servers.filter_map(|server| server.parse().ok()).collect();
        Some(Zone { id: self.id.clone(), name: name(&self.name)?, nameservers })
    }
}

impl Record {
    pub(super) fn owner(&self) -> Option<Name> {
        name(&self.name)
    }

    /// The TTL; 1 is "automatic".
    pub(super) fn seconds(&self) -> u32 {
        self.ttl as u32
    }
}

impl fmt::Display for TokenStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the API token is {}", self.status)?;
        self.expires_on.iter().try_for_each(|date| write!(f, " until {date}"))
    }
}

/// A name as the API writes it; some answers have internationalised names in Unicode.
fn name(text: &str) -> Option<Name> {
    if text.is_ascii() {
        return text.parse().ok();
    }
    Url::parse(&format!("http://{text}/")).ok()?.host_str()?.parse().ok()
}

/// What to do about an answer that is not good.
fn error(reply: &Reply, told: &[Told]) -> Error {
    let words = told.iter().map(Told::to_string).collect::<Vec<_>>().join("; ");
    let has = |codes: &[u32]| told.iter().any(|told| told.has(codes));
    let error = reply.error(&words);
    match error {
        Error::RateLimited { reason, retry_after } => Error::RateLimited { reason, retry_after: retry_after.or(Some(LOCKED_OUT)) },
        Error::Transport(_) => error,
        _ if has(THROTTLED) => Error::RateLimited { reason: words, retry_after: Some(LOCKED_OUT) },
        Error::Auth(said) => Error::Auth(format!("{said} ({ADVICE})")),
        _ if has(NOT_ALLOWED) => Error::Auth(format!("{words} ({ADVICE})")),
        _ if has(CHANGED) => Error::Conflict(words),
        _ if has(NO_ZONE) => Error::NotFound(words),
        // A good status, and yet no success.
        _ if reply.status < StatusCode::BAD_REQUEST && told.is_empty() => {
            Error::Transport("the answer is not what was expected".to_owned())
        }
        _ => error,
    }
}

const ADVICE: &str = "does the token still exist, and has it Zone / DNS / Edit and Zone / Zone / Read for the zone?";

impl Told {
    fn has(&self, codes: &[u32]) -> bool {
        codes.contains(&self.code) || self.error_chain.iter().any(|told| told.has(codes))
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message.trim_end_matches('.'), self.code)?;
        self.error_chain.iter().try_for_each(|told| write!(f, ": {told}"))
    }
}

/// What `Ratelimit: "default";r=50;t=30` says: calls left, and when the window ends; of several limits the tightest.
fn rate(headers: &HeaderMap) -> Option<(u32, Duration)> {
    let text = headers.get("ratelimit")?.to_str().ok()?;
    let limits = text.split(',').filter_map(|item| {
        let parameter = |name: &str| item.split(';').find_map(|part| part.trim().strip_prefix(name)?.parse::<u32>().ok());
        Some((parameter("r=")?, Duration::from_secs(parameter("t=")?.into())))
    });
    limits.min_by_key(|(remaining, _)| *remaining)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Reply {
        Reply { status: StatusCode::from_u16(status).expect("a status"), headers: HeaderMap::new(), body: body.as_bytes().to_vec() }
    }

    fn sorted(status: u16, body: &str) -> Error {
        let reply = reply(status, body);
        error(&reply, &reply.json::<Errors>().unwrap_or_default().errors)
    }

    #[test]
    fn errors_are_sorted_by_their_codes() {
        let coded = |status: u16, code: u32| sorted(status, &format!(r#"{{"errors":[{{"code":{code},"message":"It is so."}}]}}"#));
        assert!(matches!(coded(400, 6003), Error::Auth(_)));
        assert!(matches!(coded(403, 10000), Error::Auth(_)));
        assert!(matches!(coded(404, 7003), Error::NotFound(_)));
        assert!(matches!(coded(400, 7003), Error::NotFound(_)));
        assert!(matches!(coded(404, 81044), Error::Conflict(_)));
        assert!(matches!(coded(400, 81058), Error::Conflict(_)));
        assert!(matches!(coded(400, 81045), Error::Rejected(_)));
        assert!(matches!(coded(429, 971), Error::RateLimited { retry_after: Some(LOCKED_OUT), .. }));
        assert!(matches!(coded(502, 81058), Error::Transport(_)), "a proxy may have said so after the effect");
        assert_eq!(coded(400, 81057), Error::Conflict("It is so [81057]".to_owned()));
        assert!(matches!(sorted(200, "<html>"), Error::Transport(_)));
        assert!(matches!(sorted(403, "<html>"), Error::Auth(_)));
    }

    #[test]
    fn the_tightest_rate_counts() {
        let mut headers = HeaderMap::new();
        assert_eq!(rate(&headers), None);
        headers.insert("ratelimit", HeaderValue::from_static(r#""default";r=50;t=30, "burst";r=3;t=1"#));
        assert_eq!(rate(&headers), Some((3, Duration::from_secs(1))));
        headers.insert("ratelimit", HeaderValue::from_static("nonsense"));
        assert_eq!(rate(&headers), None);
    }

    #[test]
    fn names_may_come_in_unicode() {
        assert_eq!(name("_acme-challenge.bücher.example"), "_acme-challenge.xn--bcher-kva.example".parse().ok());
        assert_eq!(name("*.Example.com"), "*.example.com".parse().ok());
    }
}
