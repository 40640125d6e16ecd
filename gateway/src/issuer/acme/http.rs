//! HTTPS to a CA, with limits: on time, on the size of answers, on whom it trusts.

use std::time::{Duration, SystemTime};

use reqwest::{
    Certificate, Method, Request, Response, Url,
    header::{ACCEPT, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, LINK, LOCATION, RETRY_AFTER},
    redirect,
};

use super::{AcmeError, Problem, retry_after};

/// Longest answer that is read: a chain of certificates has some thousand bytes, an order with 100 names some ten thousand.
const MAX_BODY: usize = 1 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For one request from first to last byte. CAs that issue while a request waits take some seconds.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long an unused connection is kept: less than CAs do, so that they do not close it under a request.
const IDLE: Duration = Duration::from_secs(30);
const USER_AGENT: &str = concat!("acmegate/", env!("CARGO_PKG_VERSION"));
/// Most other chains of a certificate that are taken notice of; the largest CA has offered three.
const MOST_ALTERNATES: usize = 8;
const REPLAY_NONCE: &str = "replay-nonce";

/// What a CA answered, errors included.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) nonce: Option<String>,
    pub(super) location: Option<String>,
    pub(super) retry_at: Option<SystemTime>,
    /// How many seconds our clock is ahead of the CA's (behind, if negative), give or take those that the answer took.
    pub(super) ahead: Option<i64>,
    /// Where the same certificate is with other chains (RFC 8555, 7.4.2).
    pub(super) alternates: Vec<String>,
    /// Where a list goes on (RFC 8555, 7.1.2.1).
    pub(super) next: Option<String>,
    pub(super) body: Vec<u8>,
}

/// HTTPS with one set of trusted roots.
#[derive(Debug, Clone)]
pub(super) struct Http(reqwest::Client);

impl Http {
    /// HTTPS that trusts the roots in `roots` (PEM) alone, or those of the system.
    ///
    /// # Errors
    /// A text, if the roots cannot be read.
    pub(super) fn new(roots: Option<&[u8]>) -> Result<Self, String> {
        let mut builder = reqwest::Client::builder()
            .https_only(true)
            .redirect(redirect::Policy::none())
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE)
            .timeout(TIMEOUT);
        if let Some(pem) = roots {
            let roots = Certificate::from_pem_bundle(pem).map_err(|error| format!("ca_file is not PEM: {}", innermost(&error)))?;
            if roots.is_empty() {
                return Err("ca_file holds no certificate".into());
            }
            builder = builder.tls_certs_only(roots);
        }
        builder.build().map(Self).map_err(|error| format!("HTTPS cannot be set up: {}", innermost(&error)))
    }

    /// An unsigned request: the directory and renewal information (GET), and new nonces (HEAD).
    ///
    /// # Errors
    /// [`AcmeError::Transport`] and [`AcmeError::Malformed`].
    pub(super) async fn plain(&self, method: Method, url: &str) -> Result<Reply, AcmeError> {
        self.send(Request::new(method, parse(url)?)).await
    }

    /// A signed request.
    ///
    /// # Errors
    /// [`AcmeError::Transport`] and [`AcmeError::Malformed`].
    pub(super) async fn post(&self, url: &str, accept: &'static str, jws: Vec<u8>) -> Result<Reply, AcmeError> {
        let mut request = Request::new(Method::POST, parse(url)?);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/jose+json"));
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static(accept));
        *request.body_mut() = Some(jws.into());
        self.send(request).await
    }

    async fn send(&self, request: Request) -> Result<Reply, AcmeError> {
        let host = host_and_port(request.url());
        let response = self.0.execute(request).await.map_err(|error| transport(&host, &error))?;
        let header = |name: &str| text(response.headers(), name);
        let (status, nonce, location) = (response.status().as_u16(), header(REPLAY_NONCE), header(LOCATION.as_str()));
        let ahead = header(DATE.as_str()).and_then(|date| ahead(&date, SystemTime::now()));
        let retry_at = header(RETRY_AFTER.as_str()).and_then(|text| retry_after::parse(&text, SystemTime::now()));
        let alternates = links(&response, "alternate").take(MOST_ALTERNATES).collect();
        let next = links(&response, "next").next();
        let body = read(response, &host).await?;
        Ok(Reply { status, nonce, location, retry_at, ahead, alternates, next, body })
    }
}

impl Reply {
    /// The reply, or the CA's problem if its status is not 2xx.
    ///
    /// # Errors
    /// [`AcmeError::Problem`].
    pub(super) fn accepted(self) -> Result<Self, AcmeError> {
        match self.status {
            200..=299 => Ok(self),
            status => Err(AcmeError::Problem { problem: Box::new(Problem::read(status, &self.body)), retry_at: self.retry_at }),
        }
    }
}

/// Whom requests to a URL go to, with the port if it is not HTTPS's; empty if the URL cannot be asked.
pub(super) fn host(url: &str) -> String {
    parse(url).map(|url| host_and_port(&url)).unwrap_or_default()
}

/// The URL, if it can be asked over HTTPS.
fn parse(url: &str) -> Result<Url, AcmeError> {
    match Url::parse(url) {
        Ok(parsed) if parsed.scheme() == "https" && parsed.host_str().is_some() => Ok(parsed),
        _ => Err(AcmeError::Malformed(format!("{url:?} is no https:// URL"))),
    }
}

/// Whom a request went to. Not the URL's authority: that may hold a password.
fn host_and_port(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

async fn read(mut response: Response, host: &str) -> Result<Vec<u8>, AcmeError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| transport(host, &error))? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(AcmeError::Malformed(format!("{host} sent an answer of more than {MAX_BODY} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(ToOwned::to_owned)
}

fn ahead(date: &str, now: SystemTime) -> Option<i64> {
    let date = httpdate::parse_http_date(date).ok()?;
    let seconds = |distance: Duration| i64::try_from(distance.as_secs()).unwrap_or(i64::MAX);
    Some(now.duration_since(date).map_or_else(|behind| -seconds(behind.duration()), seconds))
}

fn links<'r>(response: &'r Response, relation: &'static str) -> impl Iterator<Item = String> + use<'r> {
    let lines = response.headers().get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(move |line| linked(line, relation, response.url()))
}

/// The URLs of a Link header (RFC 8288) with this relation. `base` is what relative ones count from.
fn linked(line: &str, relation: &str, base: &Url) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some((_, after)) = rest.split_once('<') {
        let Some((target, parameters)) = after.split_once('>') else { break };
        // Up to the next link; what stands in quotes may hold a comma, and no relation does.
        let begins = |at: &usize| parameters.get(at + 1..).is_some_and(|rest| rest.trim_start().starts_with('<'));
        let end = parameters.match_indices(',').map(|(at, _)| at).find(begins);
        let (own, next) = parameters.split_at(end.unwrap_or(parameters.len()));
        let is_it = own.split(';').filter_map(|parameter| parameter.trim().split_once('=')).any(|(name, value)| {
            name.trim().eq_ignore_ascii_case("rel")
                && value.trim().trim_matches('"').split_ascii_whitespace().any(|one| one.eq_ignore_ascii_case(relation))
        });
        if is_it && let Ok(url) = base.join(target.trim()) {
            found.push(url.into());
        }
        rest = next;
    }
    found
}

/// The innermost cause says it best: "connection refused", "invalid peer certificate: UnknownIssuer". URLs stay out: texts are to repeat exactly.
fn transport(host: &str, error: &reqwest::Error) -> AcmeError {
    let what = if error.is_timeout() { "took too long".to_owned() } else { innermost(error) };
    AcmeError::Transport(format!("{host}: {what}"))
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_urls_are_asked() {
        for bad in ["http://127.0.0.1/dir", "ftp://ca.test", "/dir", "", "https://", "data:text/plain,x"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse("https://127.0.0.1:14000/dir").is_ok());
    }

    #[test]
    fn links_of_one_relation_are_found_among_others() {
        let base = Url::parse("https://ca.test/acme/cert/1").unwrap();
        let found = |line: &str| linked(line, "alternate", &base);
        assert_eq!(found(r#"<https://ca.test/cert/1/1>;rel="alternate""#), ["https://ca.test/cert/1/1"]);
        assert_eq!(
            found(r#"<https://ca.test/dir>; rel="index", </cert/1/1>; title="a, b"; rel=alternate,<2>;rel="up alternate""#),
            ["https://ca.test/cert/1/1", "https://ca.test/acme/cert/2"]
        );
        for none in ["", "<", "<https://ca.test/x", r#"<https://ca.test/x>;rel="index""#, "rel=alternate", "<:>;rel=alternate"] {
            assert!(found(none).len() <= usize::from(none.starts_with("<:")), "{none}");
        }
    }

    #[test]
    fn the_clock_is_compared_with_the_ca_s() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(ahead("Sun, 06 Nov 1994 08:39:37 GMT", now), Some(600));
        assert_eq!(ahead("Sun, 06 Nov 1994 08:59:37 GMT", now), Some(-600));
        assert_eq!(ahead("yesterday", now), None);
    }

    #[test]
    fn errors_name_host_and_port_and_no_password() {
        let named = |url| host_and_port(&parse(url).unwrap());
        assert_eq!(named("https://user:secret@ca.test:14000/dir"), "ca.test:14000");
        assert_eq!(named("https://ca.test/dir"), "ca.test");
    }

    #[test]
    fn roots_are_read_from_the_file_or_refused() {
        assert!(Http::new(Some(b"")).unwrap_err().contains("ca_file"));
        assert!(Http::new(Some(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")).is_err());
        let root = rcgen::generate_simple_self_signed(vec!["ca.test".to_owned()]).unwrap();
        assert!(Http::new(Some(root.cert.pem().as_bytes())).is_ok());
    }

    #[tokio::test]
    async fn an_unreachable_ca_is_named_with_its_cause() {
        // A port that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let root = rcgen::generate_simple_self_signed(vec!["ca.test".to_owned()]).unwrap();
        let http = Http::new(Some(root.cert.pem().as_bytes())).unwrap();
        let error = http.plain(Method::GET, &format!("https://127.0.0.1:{port}/dir")).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("127.0.0.1:{port}: ")) && error.to_lowercase().contains("refused"), "{error}");
    }
}
