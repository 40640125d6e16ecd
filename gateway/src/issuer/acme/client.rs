//! One client a directory, kept for the life of the process: the next certificate finds open connections, unused nonces and the account.

use std::{
    collections::HashSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU32, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use reqwest::Method;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::Mutex as AsyncMutex, time::sleep};

use super::{
    AcmeError, Problem,
    account::Account,
    directory::DirectoryDocument,
    http::{self, Http, Reply},
    jws::{Signer, sign},
    nonce::Nonces,
    pace::Paces,
    patience::{Again, Patience},
};
use crate::{
    config::Directory,
    issuer::metrics::{Action, Asked, IssuerMetrics},
};

/// Tries of one request whose nonce is refused. Pebble refuses one in twenty on purpose: ten in a row are one in ten million million.
const NONCE_TRIES: u32 = 10;
/// How long a directory document is believed.
const DOCUMENT_LIFETIME: Duration = Duration::from_secs(3600);
/// Most clients kept; the configuration names a handful of directories, and the command line can bring others.
const MOST_CLIENTS: usize = 16;
/// Largest `ca_file` that is read.
const MAX_ROOTS: u64 = 4 << 20;
const JSON: &str = "application/json";

/// The clients of this process; clones share them.
#[derive(Clone, Default)]
pub(in crate::issuer) struct Clients {
    known: Arc<Mutex<Vec<Arc<Client>>>>,
    metrics: IssuerMetrics,
}

/// A CA, as one process sees it.
pub(in crate::issuer) struct Client {
    url: String,
    /// The host of the URL, with the port if it is not HTTPS's.
    host: String,
    roots: Option<Vec<u8>>,
    kid: Option<String>,
    http: Http,
    document: AsyncMutex<Option<(Instant, Arc<DirectoryDocument>)>>,
    nonces: Nonces,
    pub(super) paces: Paces,
    /// Seconds, at the last answer.
    ahead: AtomicI64,
    metrics: IssuerMetrics,
    /// The orders of all runs, so that none takes another's for one that it lost.
    pub(super) orders: Mutex<HashSet<String>>,
    /// Locked while the account is looked up or registered, so that forty first certificates make one account.
    pub(super) account: AsyncMutex<Option<Arc<Account>>>,
}

/// One run's use of a client: it knows its account, and counts its requests.
pub(in crate::issuer) struct Session {
    pub(super) client: Arc<Client>,
    pub(super) account: Mutex<Option<Arc<Account>>>,
    /// The URLs of this run's orders.
    pub(super) orders: Mutex<Vec<String>>,
    requests: AtomicU32,
}

impl Clients {
    /// None yet, which count their requests in `metrics`.
    pub(in crate::issuer) fn new(metrics: IssuerMetrics) -> Self {
        Self { known: Arc::default(), metrics }
    }

    /// A session with the CA of `directory`. Reads `ca_file` each time, so that a changed root counts at once.
    ///
    /// # Errors
    /// [`AcmeError::Unusable`] if the directory's settings cannot be used.
    pub(in crate::issuer) async fn session(&self, directory: &Directory) -> Result<Session, AcmeError> {
        let unusable = |text: String| AcmeError::Unusable { directory: directory.url.clone(), text };
        if !directory.url.starts_with("https://") {
            return Err(unusable("its URL does not begin with https://".into()));
        }
        let roots = match &directory.ca_file {
            Some(path) => Some(read_roots(path).await.map_err(unusable)?),
            None => None,
        };
        let kid = directory.eab.as_ref().map(|eab| eab.kid.clone());
        let client = self.known(directory, &roots, &kid).map_or_else(|| self.make(directory, roots, kid).map_err(unusable), Ok)?;
        Ok(Session { client, account: Mutex::default(), orders: Mutex::default(), requests: AtomicU32::default() })
    }

    fn known(&self, directory: &Directory, roots: &Option<Vec<u8>>, kid: &Option<String>) -> Option<Arc<Client>> {
        let clients = self.known.lock();
        clients.iter().find(|client| client.url == directory.url && client.roots == *roots && client.kid == *kid).cloned()
    }

    fn make(&self, directory: &Directory, roots: Option<Vec<u8>>, kid: Option<String>) -> Result<Arc<Client>, String> {
        let client = Arc::new(Client {
            http: Http::new(roots.as_deref())?,
            url: directory.url.clone(),
            host: http::host(&directory.url),
            roots,
            kid,
            document: AsyncMutex::default(),
            nonces: Nonces::default(),
            paces: Paces::default(),
            ahead: AtomicI64::default(),
            metrics: self.metrics.clone(),
            orders: Mutex::default(),
            account: AsyncMutex::default(),
        });
        let mut clients = self.known.lock();
        if clients.len() >= MOST_CLIENTS {
            clients.remove(0);
        }
        clients.push(client.clone());
        Ok(client)
    }
}

impl Session {
    /// HTTPS requests so far.
    pub(in crate::issuer) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// The domains by which CAA records mean this CA; empty if it does not say.
    ///
    /// # Errors
    /// [`AcmeError`].
    pub(in crate::issuer) async fn caa_identities(&self) -> Result<Vec<String>, AcmeError> {
        Ok(self.document().await?.meta.caa_identities.clone())
    }

    /// The directory's URL.
    pub(super) fn directory_url(&self) -> &str {
        &self.client.url
    }

    /// The CA's directory: asked for once an hour.
    ///
    /// # Errors
    /// [`AcmeError`].
    pub(super) async fn document(&self) -> Result<Arc<DirectoryDocument>, AcmeError> {
        let mut kept = self.client.document.lock().await;
        if let Some((since, document)) = &*kept
            && since.elapsed() < DOCUMENT_LIFETIME
        {
            return Ok(document.clone());
        }
        let unusable = |error| match error {
            AcmeError::Malformed(text) => {
                AcmeError::Unusable { directory: self.client.url.clone(), text: format!("what stands there is no ACME directory: {text}") }
            }
            other => other,
        };
        let document = Arc::new(self.persist(Again::Harmless, || self.read_document()).await.map_err(unusable)?);
        *kept = Some((Instant::now(), document.clone()));
        Ok(document)
    }

    async fn read_document(&self) -> Result<DirectoryDocument, AcmeError> {
        let reply = self.plain(Action::Directory, &self.client.url).await?.accepted()?;
        serde_json::from_slice(&reply.body).map_err(|error| AcmeError::Malformed(error.to_string()))
    }

    /// An unsigned request for what anybody may read, made once.
    ///
    /// # Errors
    /// [`AcmeError`].
    pub(super) async fn plain(&self, action: Action, url: &str) -> Result<Reply, AcmeError> {
        let begun = Instant::now();
        let replied = self.client.http.plain(Method::GET, url).await;
        self.counted(action, "GET", begun, replied)
    }

    /// Makes a request, and makes it again where that mends what went wrong.
    ///
    /// # Errors
    /// The last [`AcmeError`].
    pub(super) async fn persist<T, F: Future<Output = Result<T, AcmeError>>>(
        &self,
        again: Again,
        request: impl Fn() -> F,
    ) -> Result<T, AcmeError> {
        let mut patience = Patience::default();
        loop {
            let error = match request().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let Some(pause) = patience.after(&error, again, SystemTime::now()) else { return Err(error) };
            tracing::debug!(directory = self.client.url, %error, ?pause, "asking the CA again");
            sleep(pause).await;
        }
    }

    /// Makes sure that the CA's directory can be read; for rehearsals.
    ///
    /// # Errors
    /// [`AcmeError`].
    pub(in crate::issuer) async fn probe(&self) -> Result<(), AcmeError> {
        self.document().await.map(drop)
    }

    /// A signed request by the account, made once.
    ///
    /// # Errors
    /// [`AcmeError`].
    pub(super) async fn post<P: Serialize>(&self, action: Action, url: &str, payload: &P) -> Result<Reply, AcmeError> {
        let account = self.signed_in()?;
        self.signed(action, Signer::Account(&account.key, &account.url), url, JSON, Some(payload)).await
    }

    /// What stands at a URL, as JSON: a POST-as-GET by the account, repeated if it is lost.
    ///
    /// # Errors
    /// [`AcmeError`].
    pub(super) async fn read<T: DeserializeOwned>(&self, action: Action, url: &str) -> Result<T, AcmeError> {
        self.persist(Again::Harmless, || async { self.get(action, url, JSON).await?.json() }).await
    }

    /// A POST-as-GET by the account, made once.
    ///
    /// # Errors
    /// [`AcmeError`].
    pub(super) async fn get(&self, action: Action, url: &str, accept: &'static str) -> Result<Reply, AcmeError> {
        let account = self.signed_in()?;
        let signer = Signer::Account(&account.key, &account.url);
        match self.signed::<()>(action, signer, url, accept, None).await {
            // A kept connection that the CA closed just now. Asking again changes nothing at the CA.
            Err(AcmeError::Transport(_)) => self.signed::<()>(action, signer, url, accept, None).await,
            answered => answered,
        }
    }

    /// A signed request. A refused nonce is replaced by the one that came with the refusal, at once: it is not the CA being busy.
    ///
    /// # Errors
    /// [`AcmeError`].
    pub(super) async fn signed<P: Serialize>(
        &self,
        action: Action,
        signer: Signer<'_>,
        url: &str,
        accept: &'static str,
        payload: Option<&P>,
    ) -> Result<Reply, AcmeError> {
        let mut next = self.client.nonces.take();
        for _ in 1..NONCE_TRIES {
            let nonce = match next.take() {
                Some(nonce) => nonce,
                None => self.new_nonce().await?,
            };
            let mut reply = self.send(action, signer, &nonce, url, accept, payload).await?;
            let bad_nonce = reply.status >= 400 && Problem::read(reply.status, &reply.body).is("badNonce");
            if !bad_nonce {
                if let Some(nonce) = reply.nonce.take() {
                    self.client.nonces.put(&nonce);
                }
                return reply.accepted();
            }
            next = reply.nonce.take();
        }
        let nonce = match next {
            Some(nonce) => nonce,
            None => self.new_nonce().await?,
        };
        self.send(action, signer, &nonce, url, accept, payload).await?.accepted()
    }

    async fn send<P: Serialize>(
        &self,
        action: Action,
        signer: Signer<'_>,
        nonce: &str,
        url: &str,
        accept: &'static str,
        payload: Option<&P>,
    ) -> Result<Reply, AcmeError> {
        let jws = sign(signer, nonce, url, payload)?;
        let begun = Instant::now();
        let replied = self.client.http.post(url, accept, jws).await;
        let reply = self.counted(action, "POST", begun, replied)?;
        if let Some(ahead) = reply.ahead {
            self.client.ahead.store(ahead, Ordering::Relaxed);
            self.client.metrics.is_ahead(&self.client.host, ahead);
        }
        Ok(reply)
    }

    /// How many seconds our clock was ahead of the CA's at its last answer (behind, if negative).
    pub(in crate::issuer) fn clock_ahead(&self) -> i64 {
        self.client.ahead.load(Ordering::Relaxed)
    }

    async fn new_nonce(&self) -> Result<String, AcmeError> {
        let document = self.document().await?;
        let begun = Instant::now();
        let replied = self.client.http.plain(Method::HEAD, &document.new_nonce).await;
        let reply = self.counted(Action::Nonce, "HEAD", begun, replied)?.accepted()?;
        reply.nonce.ok_or_else(|| AcmeError::Malformed("the CA gave no Replay-Nonce".into()))
    }

    /// A request that was made counts for the run and for the metrics.
    fn counted(&self, action: Action, method: &'static str, begun: Instant, replied: Result<Reply, AcmeError>) -> Result<Reply, AcmeError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let status = replied.as_ref().ok().map(|reply| reply.status);
        self.client.metrics.asked(&Asked { host: &self.client.host, action, method, status, took: begun.elapsed() });
        replied
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut orders = self.client.orders.lock();
        for url in self.orders.get_mut() {
            orders.remove(url);
        }
    }
}

impl Reply {
    /// The body as JSON.
    ///
    /// # Errors
    /// [`AcmeError::Malformed`].
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, AcmeError> {
        serde_json::from_slice(&self.body)
            .map_err(|error| AcmeError::Malformed(format!("the CA's answer is not what RFC 8555 says: {error}")))
    }
}

async fn read_roots(path: &Path) -> Result<Vec<u8>, String> {
    let fail = |error: std::io::Error| format!("ca_file {} cannot be read: {error}", path.display());
    if tokio::fs::metadata(path).await.map_err(fail)?.len() > MAX_ROOTS {
        return Err(format!("ca_file {} is larger than {MAX_ROOTS} bytes", path.display()));
    }
    tokio::fs::read(path).await.map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::{super::fake::FakeCa, *};

    fn directory(url: &str, ca_file: Option<&Path>) -> Directory {
        Directory { name: "ca".into(), ca_file: ca_file.map(Path::to_owned), ..Directory::at(url) }
    }

    #[tokio::test]
    async fn a_client_is_kept_until_its_roots_change() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let root = || rcgen::generate_simple_self_signed(vec!["ca.test".to_owned()]).unwrap().cert.pem();
        std::fs::write(&file, root()).unwrap();
        let clients = Clients::default();
        let wanted = directory("https://ca.test/dir", Some(&file));
        let first = clients.session(&wanted).await.unwrap().client.clone();
        assert!(Arc::ptr_eq(&first, &clients.session(&wanted).await.unwrap().client));
        std::fs::write(&file, root()).unwrap();
        assert!(!Arc::ptr_eq(&first, &clients.session(&wanted).await.unwrap().client));
    }

    #[tokio::test]
    async fn settings_that_cannot_be_used_are_named() {
        let clients = Clients::default();
        let text = |error: Result<Session, AcmeError>| error.err().unwrap().to_string();
        assert!(text(clients.session(&directory("http://127.0.0.1/dir", None)).await).contains("https://"));
        let missing = directory("https://ca.test/dir", Some(Path::new("/nonexistent/ca.pem")));
        assert!(text(clients.session(&missing).await).contains("/nonexistent/ca.pem cannot be read"));
    }

    const BAD_NONCE: &[u8] = br#"{"type":"urn:ietf:params:acme:error:badNonce","detail":"no"}"#;

    fn nonce(text: impl std::fmt::Display) -> Vec<String> {
        vec![format!("Replay-Nonce: {text}")]
    }

    #[tokio::test]
    async fn every_answer_brings_the_nonce_of_the_next_request() {
        let ca = FakeCa::start(|_| (200, nonce("next"), b"{}".to_vec())).await;
        let session = ca.signed_in().await;
        for _ in 0..3 {
            session.get(Action::Order, &ca.url("/a"), JSON).await.unwrap();
        }
        assert_eq!(ca.lines(), ["GET /dir", "HEAD /nonce", "POST /a", "POST /a", "POST /a"]);
        assert_eq!(session.requests(), 5);
        let asked = ca.asked();
        let nonces: Vec<_> = asked[2..].iter().map(|asked| asked.protected()["nonce"].as_str().unwrap().to_owned()).collect();
        assert_eq!(nonces, ["fresh", "next", "next"]);
        let has = |line: &str| asked[2].headers.iter().any(|header| header.eq_ignore_ascii_case(line));
        assert!(has("content-type: application/jose+json") && has(concat!("user-agent: acmegate/", env!("CARGO_PKG_VERSION"))));
    }

    #[tokio::test]
    async fn a_refused_nonce_is_replaced_by_the_one_in_the_refusal() {
        let count = AtomicU32::new(0);
        let ca = FakeCa::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
            at @ ..9 => (400, nonce(format!("n{at}")), BAD_NONCE.to_vec()),
            _ => (200, nonce("last"), b"{}".to_vec()),
        })
        .await;
        let session = ca.signed_in().await;
        session.get(Action::Order, &ca.url("/a"), JSON).await.unwrap();
        let used: Vec<_> = ca.asked()[2..].iter().map(|asked| asked.protected()["nonce"].as_str().unwrap().to_owned()).collect();
        assert_eq!(used, ["fresh", "n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8"]);
    }

    #[tokio::test]
    async fn a_ca_that_refuses_every_nonce_is_given_up() {
        let ca = FakeCa::start(|_| (400, nonce("n"), BAD_NONCE.to_vec())).await;
        let session = ca.signed_in().await;
        assert!(session.get(Action::Order, &ca.url("/a"), JSON).await.unwrap_err().is("badNonce"));
        assert_eq!(ca.lines().iter().filter(|line| *line == "POST /a").count() as u32, NONCE_TRIES);
    }

    #[tokio::test]
    async fn a_rate_limit_carries_its_time_whatever_its_body() {
        let limit = br#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many"}"#;
        for (status, retry_after, body) in [(429, "3600", &limit[..]), (503, "Fri, 31 Dec 2100 23:59:59 GMT", &b"<html>busy</html>"[..])] {
            let ca = FakeCa::start(move |_| (status, vec![format!("Retry-After: {retry_after}")], body.to_vec())).await;
            let session = ca.signed_in().await;
            let Err(AcmeError::Problem { problem, retry_at }) = session.get(Action::Order, &ca.url("/a"), JSON).await else {
                panic!("{status}")
            };
            assert!(problem.is_later());
            assert!(retry_at.is_some_and(|at| at > std::time::SystemTime::now()));
        }
    }

    #[tokio::test]
    async fn answers_that_are_not_acme_are_refused() {
        let ca = FakeCa::start(|asked| {
            let body = if asked.line.contains("/long") { vec![b' '; 2 << 20] } else { b"<html>".to_vec() };
            (200, nonce("n"), body)
        })
        .await;
        let session = ca.signed_in().await;
        assert!(matches!(session.get(Action::Order, &ca.url("/long"), JSON).await, Err(AcmeError::Malformed(_))));
        let reply = session.get(Action::Order, &ca.url("/html"), JSON).await.unwrap();
        assert!(matches!(reply.json::<serde_json::Value>(), Err(AcmeError::Malformed(_))));
        // What stands at the directory's URL is a page.
        let page = Directory { url: ca.url("/html"), ..ca.directory.clone() };
        let session = Clients::default().session(&page).await.unwrap();
        assert!(matches!(session.probe().await, Err(AcmeError::Unusable { .. })));
    }
}
