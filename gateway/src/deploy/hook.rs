//! A URL that is called once the certificate is in place: POST, `application/json`.
//!
//! ```json
//! {
//!   "name": "www",
//!   "names": ["example.com", "*.example.com"],
//!   "serial": "04ab…",
//!   "not_before": "2026-11-12T00:00:00Z",
//!   "not_after": "2027-02-10T00:00:00Z",
//!   "files": {"folder": "/etc/certs/www", "key": "/etc/certs/www/privkey.pem", "certificate": "…", "chain": "…", "fullchain": "…"}
//! }
//! ```
//!
//! `send: certificate` adds `certificate`, `chain` and `fullchain`, each PEM, and `send: key` those and `private_key`. Where the certificate lies in several folders, the
//! files are those of the first one that has such a file; `pem` and `pkcs12` are there if there are such files.
//!
//! Any answer of 2xx means that it was heard. Nothing is sent twice here: whoever deploys again sends it again, so that a receiver may hear of one certificate more than once.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::body::Bytes;
use reqwest::{
    Certificate, Client, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
    redirect,
};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::{DeployError, Event, Hook, HookContent, Part, absolute, rfc3339};
use crate::issuer::serial_number;

/// Bytes of an answer that are read.
const MOST_READ: usize = 4096;
/// Characters of it that stand in an error.
const MOST_SAID: usize = 200;
/// How long a connection may take to stand, within the whole limit.
const CONNECT: Duration = Duration::from_secs(10);
/// Bytes for all that is not text of a certificate or a name.
const ROOM: usize = 16_384;
const USER_AGENT: &str = concat!("acmegate/", env!("CARGO_PKG_VERSION"));

impl Hook {
    pub(super) async fn call(&self, event: &Event<'_>, stop: &CancellationToken) -> Result<(), DeployError> {
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(DeployError::Unanswered("it was not waited for, because acmegate was told to stop".into())),
            answered = self.send(event) => answered,
        }
    }

    async fn send(&self, event: &Event<'_>) -> Result<(), DeployError> {
        let token = self.token()?;
        let body = Bytes::from_owner(Body::new(self.send, event).to_json()?);
        let mut request = self.client()?.post(self.url.as_url().clone()).header(CONTENT_TYPE, "application/json").body(body);
        if let Some(token) = &token {
            request = request.header(AUTHORIZATION, bearer(token)?);
        }
        let answer = request.send().await.map_err(|error| self.unanswered(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let said = self.said(answer, token.as_ref()).await;
        Err(match status {
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
                DeployError::Unanswered(format!("it answers {status}{said}"))
            }
            status if status.is_server_error() => DeployError::Unanswered(format!("it answers {status}{said}")),
            status if status.is_redirection() => {
                DeployError::Refused(format!("it answers {status}, and redirects are not followed: give the URL that it leads to"))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                DeployError::Refused(format!("it answers {status}{said}: see to the hook's token_file or token_env"))
            }
            status => DeployError::Refused(format!("it answers {status}{said}")),
        })
    }

    /// Made anew for each call: calls are rare, and roots may have changed since the last.
    fn client(&self) -> Result<Client, DeployError> {
        let mut builder = Client::builder()
            .redirect(redirect::Policy::none())
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT.min(self.limit))
            .timeout(self.limit);
        if self.url.is_loopback() {
            // What may go to this machine in clear may not go through a proxy.
            builder = builder.no_proxy();
        }
        if let Some(file) = &self.ca_file {
            builder =
                builder.tls_certs_only(roots(file).map_err(|why| DeployError::Input(format!("the CA file {} {why}", file.display())))?);
        }
        builder.build().map_err(|error| DeployError::Input(format!("HTTPS cannot be set up: {}", innermost(&error))))
    }

    fn token(&self) -> Result<Option<SecretString>, DeployError> {
        let Some(source) = &self.token else { return Ok(None) };
        let text = source.read().map_err(|error| DeployError::Input(format!("its token: {error}")))?;
        let token = text.expose_secret().trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(DeployError::Input(format!("its token: {source} holds no token: it has to be one word of ASCII characters")));
        }
        Ok(Some(token.into()))
    }

    /// The beginning of an answer, for people. A receiver may say what it was sent: where that was a key, nothing is passed on, nor is anything that holds the token.
    async fn said(&self, mut answer: Response, token: Option<&SecretString>) -> String {
        if self.send == HookContent::Key {
            return String::new();
        }
        let mut body = Vec::new();
        while body.len() < MOST_READ
            && let Ok(Some(chunk)) = answer.chunk().await
        {
            body.extend_from_slice(chunk.get(..MOST_READ - body.len()).unwrap_or(&chunk));
        }
        let text = String::from_utf8_lossy(&body);
        if token.is_some_and(|token| text.contains(token.expose_secret())) {
            return String::new();
        }
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let text: String = text.trim().chars().take(MOST_SAID).collect();
        if text.is_empty() { text } else { format!(", and says: {text}") }
    }

    fn unanswered(&self, error: &reqwest::Error) -> DeployError {
        DeployError::Unanswered(match error.is_timeout() {
            true => format!("it does not answer within {:?}", self.limit),
            false => format!("it cannot be reached: {}", innermost(error)),
        })
    }
}

/// What is sent.
#[derive(Serialize)]
struct Body<'a> {
    name: &'a str,
    names: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<String>,
    not_before: String,
    not_after: String,
    files: BTreeMap<&'static str, PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chain: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fullchain: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    private_key: Option<&'a str>,
}

impl<'a> Body<'a> {
    fn new(send: HookContent, &Event { name, issued, written }: &Event<'a>) -> Self {
        let mut files = BTreeMap::new();
        if let Some(first) = written.first() {
            files.insert("folder", absolute(&first.folder));
        }
        for (part, path) in written.iter().flat_map(|written| &written.files) {
            let key = match part {
                Part::Key => "key",
                Part::Fullchain => "fullchain",
                Part::Certificate => "certificate",
                Part::Chain => "chain",
                Part::Pem => "pem",
                Part::Pkcs12 => "pkcs12",
            };
            files.entry(key).or_insert_with(|| absolute(path));
        }
        let with_certificate = matches!(send, HookContent::Certificate | HookContent::Key);
        let certificate = |pem: &'a str| with_certificate.then_some(pem);
        Self {
            name,
            names: &issued.names,
            serial: serial_number(&issued.certificate_pem),
            not_before: rfc3339(issued.not_before),
            not_after: rfc3339(issued.not_after),
            files,
            certificate: certificate(&issued.certificate_pem),
            chain: certificate(&issued.chain_pem),
            fullchain: certificate(&issued.fullchain_pem),
            private_key: matches!(send, HookContent::Key).then(|| issued.private_key_pem.expose()),
        }
    }

    /// Wiped when it is dropped, since it may hold the key.
    fn to_json(&self) -> Result<Zeroizing<Vec<u8>>, DeployError> {
        // A buffer that grows would leave its old self behind.
        let texts = [self.certificate, self.chain, self.fullchain, self.private_key].into_iter().flatten().map(str::len).sum::<usize>();
        let names = self.names.iter().map(String::len).sum::<usize>();
        let mut json = Zeroizing::new(Vec::with_capacity(2 * (texts + names) + ROOM));
        serde_json::to_writer(&mut *json, self).map_err(|error| DeployError::Input(format!("it cannot be told in JSON: {error}")))?;
        Ok(json)
    }
}

fn bearer(token: &SecretString) -> Result<HeaderValue, DeployError> {
    let value = Zeroizing::new(format!("Bearer {}", token.expose_secret()));
    let mut value = HeaderValue::from_str(&value).map_err(|_| DeployError::Input("its token cannot stand in a header".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn roots(file: &Path) -> Result<Vec<Certificate>, String> {
    let pem = fs::read(file).map_err(|error| format!("cannot be read: {error}"))?;
    let roots = Certificate::from_pem_bundle(&pem).map_err(|error| format!("is not PEM: {}", innermost(&error)))?;
    if roots.is_empty() { Err("holds no certificate".into()) } else { Ok(roots) }
}

/// The innermost cause says it best; URLs, which may be secret, stay out.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Arc};

    use axum::{
        Router,
        http::{HeaderMap, header::LOCATION},
        routing::post,
    };
    use parking_lot::Mutex;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        config::TlsFiles,
        deploy::{SecretSource, Written},
        issuer::{Authority, Issued},
        web::{Clients, Limits, ReloadedTls, testing::Site},
    };

    /// A receiver that keeps what it heard, and answers as it is told.
    struct Receiver {
        site: Site,
        heard: Arc<Mutex<Option<(HeaderMap, Value)>>>,
        answer: Arc<Mutex<(u16, String)>>,
    }

    impl Receiver {
        fn start() -> Self {
            let heard = Arc::new(Mutex::new(None));
            let answer = Arc::new(Mutex::new((204, String::new())));
            let (keeps, says) = (heard.clone(), answer.clone());
            let hear = async move |headers: HeaderMap, body: String| {
                *keeps.lock() = Some((headers, serde_json::from_str(&body).unwrap()));
                let (status, text) = says.lock().clone();
                (StatusCode::from_u16(status).unwrap(), [(LOCATION, "http://127.0.0.1:1/elsewhere")], text)
            };
            let router = Router::new().route("/s3cret", post(hear)).route("/silent", post(pending::<()>));
            Self { site: Site::start(router, Limits::default(), None), heard, answer }
        }

        fn hook(&self, path: &str) -> Hook {
            Hook::at(format!("http://{}{path}", self.site.address).parse().unwrap())
        }
    }

    async fn call(hook: &Hook, issued: &Issued) -> Result<(), DeployError> {
        let written = [
            Written { folder: "/somewhere".into(), files: vec![(Part::Key, "/somewhere/privkey.pem".into())] },
            Written { folder: "/other".into(), files: vec![(Part::Key, "/other/privkey.pem".into()), (Part::Pem, "/other/a.pem".into())] },
        ];
        hook.call(&Event { name: "www", issued, written: &written }, &CancellationToken::new()).await
    }

    #[tokio::test]
    async fn it_hears_as_much_as_it_may_and_no_more() {
        let receiver = Receiver::start();
        let issued = Authority::new().issue(&["one.test", "*.one.test"]);
        let mut hook = receiver.hook("/s3cret");
        for (send, with_certificate, with_key) in
            [(HookContent::Event, false, false), (HookContent::Certificate, true, false), (HookContent::Key, true, true)]
        {
            hook.send = send;
            call(&hook, &issued).await.unwrap();
            let (headers, body) = receiver.heard.lock().take().unwrap();
            assert_eq!((&headers[CONTENT_TYPE], headers.get(AUTHORIZATION)), (&HeaderValue::from_static("application/json"), None));
            assert_eq!((&body["name"], &body["names"]), (&json!("www"), &json!(["one.test", "*.one.test"])));
            assert_eq!(body["files"], json!({"folder": "/somewhere", "key": "/somewhere/privkey.pem", "pem": "/other/a.pem"}));
            assert_eq!(body["not_after"], rfc3339(issued.not_after));
            assert!(body["serial"].as_str().is_some_and(|serial| serial.len() >= 16), "{body}");
            assert_eq!(body.get("fullchain"), with_certificate.then(|| json!(issued.fullchain_pem)).as_ref());
            assert_eq!(body.get("private_key"), with_key.then(|| json!(issued.private_key_pem.expose())).as_ref());
        }
    }

    #[tokio::test]
    async fn its_token_is_read_each_time_and_shown_to_it_alone() {
        let receiver = Receiver::start();
        let issued = Authority::new().issue(&["one.test"]);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let hook = Hook { token: Some(SecretSource::File(file.clone())), ..receiver.hook("/s3cret") };
        let missing = call(&hook, &issued).await.unwrap_err();
        assert!(missing.may_pass() && missing.to_string().contains("its token: the file "), "{missing}");
        assert!(receiver.heard.lock().is_none());
        for token in ["first-token", "second-token"] {
            fs::write(&file, format!("{token}\n")).unwrap();
            call(&hook, &issued).await.unwrap();
            let (headers, _) = receiver.heard.lock().take().unwrap();
            assert_eq!(headers[AUTHORIZATION], format!("Bearer {token}"));
        }
        *receiver.answer.lock() = (400, "what is second-token?".into());
        assert_eq!(call(&hook, &issued).await.unwrap_err().to_string(), "it answers 400 Bad Request");
        fs::write(&file, "two words").unwrap();
        let error = call(&hook, &issued).await.unwrap_err().to_string();
        assert!(error.contains("holds no token") && !error.contains("words."), "{error}");
    }

    #[tokio::test]
    async fn what_may_pass_is_told_from_what_does_not() {
        let receiver = Receiver::start();
        let issued = Authority::new().issue(&["one.test"]);
        let mut hook = receiver.hook("/s3cret");
        for (status, may_pass, said) in [
            (500, true, "it answers 500 Internal Server Error, and says: no\u{fffd}  luck"),
            (503, true, "it answers 503 Service Unavailable, and says: no\u{fffd}  luck"),
            (429, true, "it answers 429 Too Many Requests, and says: no\u{fffd}  luck"),
            (400, false, "it answers 400 Bad Request, and says: no\u{fffd}  luck"),
            (404, false, "it answers 404 Not Found, and says: no\u{fffd}  luck"),
            (401, false, "it answers 401 Unauthorized, and says: no\u{fffd}  luck: see to the hook's token_file or token_env"),
            (307, false, "it answers 307 Temporary Redirect, and redirects are not followed: give the URL that it leads to"),
        ] {
            *receiver.answer.lock() = (status, "no\u{fffd}\n\u{1b}luck\n".into());
            let error = call(&hook, &issued).await.unwrap_err();
            assert_eq!((error.to_string().as_str(), error.may_pass()), (said, may_pass));
        }
        *receiver.answer.lock() = (500, "x".repeat(100_000));
        assert!(call(&hook, &issued).await.unwrap_err().to_string().len() < 300);
        hook.send = HookContent::Key;
        assert_eq!(call(&hook, &issued).await.unwrap_err().to_string(), "it answers 500 Internal Server Error", "it may say the key");
    }

    #[tokio::test]
    async fn who_does_not_answer_is_not_waited_for() {
        let receiver = Receiver::start();
        let issued = Authority::new().issue(&["one.test"]);
        let hook = Hook { limit: Duration::from_millis(50), ..receiver.hook("/silent") };
        let late = call(&hook, &issued).await.unwrap_err();
        assert_eq!((late.to_string().as_str(), late.may_pass()), ("it does not answer within 50ms", true));
        // A port that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let gone = call(&Hook::at(format!("http://127.0.0.1:{port}/s3cret").parse().unwrap()), &issued).await.unwrap_err();
        assert!(gone.may_pass() && gone.to_string().to_lowercase().contains("refused"), "{gone}");
        assert!(!gone.to_string().contains("s3cret"), "{gone}");
        let stop = CancellationToken::new();
        stop.cancel();
        let stopped = receiver.hook("/silent").call(&Event { name: "www", issued: &issued, written: &[] }, &stop).await.unwrap_err();
        assert!(stopped.to_string().contains("told to stop"), "{stopped}");
    }

    #[tokio::test]
    async fn https_is_checked_against_the_roots_of_the_file() {
        let issued = Authority::new().issue(&["one.test"]);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let tls = TlsFiles { certificate: folder.path().join("served.pem"), key: folder.path().join("served.key") };
        fs::write(&tls.certificate, own.cert.pem()).unwrap();
        fs::write(&tls.key, own.signing_key.serialize_pem()).unwrap();
        let tls = ReloadedTls::open(&tls, Clients::Anonymous).unwrap();
        let site = Site::start(Router::new().route("/", post(async || StatusCode::NO_CONTENT)), Limits::default(), Some(tls));
        let url = || format!("https://{}/", site.address).parse().unwrap();
        fs::write(&file, own.cert.pem()).unwrap();
        call(&Hook { ca_file: Some(file.clone()), ..Hook::at(url()) }, &issued).await.unwrap();
        let unknown = call(&Hook::at(url()), &issued).await.unwrap_err();
        assert!(unknown.may_pass() && unknown.to_string().starts_with("it cannot be reached: invalid peer certificate"), "{unknown}");

        let hook = |ca_file: &Path| Hook { ca_file: Some(ca_file.to_owned()), ..Hook::at("https://127.0.0.1:1/".parse().unwrap()) };
        for (text, said) in [("", "holds no certificate"), ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "")] {
            fs::write(&file, text).unwrap();
            let error = call(&hook(&file), &issued).await.unwrap_err();
            assert!(matches!(error, DeployError::Input(_)) && error.to_string().contains(said), "{error}");
        }
        let error = call(&hook(Path::new("/no/such/file")), &issued).await.unwrap_err();
        assert!(error.may_pass() && error.to_string().starts_with("the CA file /no/such/file cannot be read: No such file"), "{error}");
    }
}
