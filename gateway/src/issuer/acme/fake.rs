//! A scripted CA for tests: HTTPS with HTTP/1.1 on loopback, a certificate of its own.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::{
    account::Account,
    client::{Clients, Session},
    key::AccountKey,
};
use crate::config::{AccountKeyType, Directory};

/// A request as the CA got it.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) line: String,
    pub(super) headers: Vec<String>,
    pub(super) body: Vec<u8>,
}

/// What it answers: status, header lines, body.
pub(super) type Said = (u16, Vec<String>, Vec<u8>);

/// A CA that answers as its script says, until it is dropped.
pub(super) struct FakeCa {
    pub(super) directory: Directory,
    asked: Arc<Mutex<Vec<Asked>>>,
    connections: Arc<AtomicUsize>,
    _folder: tempfile::TempDir,
    task: JoinHandle<()>,
}

impl FakeCa {
    /// Starts a CA with a directory at `/dir` and nonces at `/nonce`; `script` answers everything else.
    pub(super) async fn start(script: impl Fn(&Asked) -> Said + Send + Sync + 'static) -> Self {
        let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let ca_file: PathBuf = folder.path().join("ca.pem");
        std::fs::write(&ca_file, certified.cert.pem()).unwrap();
        let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key.into())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("https://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let (script, log, here, accepted) = (Arc::new(script), asked.clone(), base.clone(), connections.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::Relaxed);
                let (acceptor, script, log, here) = (acceptor.clone(), script.clone(), log.clone(), here.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await.map(BufReader::new) else { return };
                    while let Some(request) = read(&mut stream).await {
                        let said = standard(&request, &here).unwrap_or_else(|| script(&request));
                        let head = request.line.starts_with("HEAD");
                        log.lock().unwrap().push(request);
                        write(&mut stream, said, head).await;
                    }
                });
            }
        });
        let directory = Directory { name: "fake".into(), ca_file: Some(ca_file), ..Directory::at(&format!("{base}/dir")) };
        Self { directory, asked, connections, _folder: folder, task }
    }

    /// A session that is signed in without having asked the CA.
    pub(super) async fn signed_in(&self) -> Session {
        let session = Clients::default().session(&self.directory).await.unwrap();
        let key = AccountKey::from_pkcs8(&AccountKey::generate(AccountKeyType::default()).unwrap()).unwrap();
        *session.account.lock() = Some(Arc::new(Account { key, url: self.url("/me") }));
        session
    }

    /// A URL of it.
    pub(super) fn url(&self, path: &str) -> String {
        self.directory.url.replace("/dir", path)
    }

    /// The connections to it so far.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// What it was asked so far.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// The request lines so far, such as `POST /order HTTP/1.1`, without the version.
    pub(super) fn lines(&self) -> Vec<String> {
        self.asked().iter().map(|asked| asked.line.trim_end_matches(" HTTP/1.1").to_owned()).collect()
    }
}

impl Asked {
    /// The protected header of the JWS in the body.
    pub(super) fn protected(&self) -> Value {
        self.part("protected")
    }

    /// The payload of the JWS in the body.
    pub(super) fn payload(&self) -> Value {
        self.part("payload")
    }

    fn part(&self, member: &str) -> Value {
        let jws: Value = serde_json::from_slice(&self.body).unwrap();
        let bytes = data_encoding::BASE64URL_NOPAD.decode(jws[member].as_str().unwrap().as_bytes()).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }
}

impl Drop for FakeCa {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn standard(request: &Asked, base: &str) -> Option<Said> {
    match request.line.as_str() {
        "GET /dir HTTP/1.1" => {
            let document = json!({"newNonce": format!("{base}/nonce"), "newAccount": format!("{base}/account"), "newOrder": format!("{base}/order"),
                "keyChange": format!("{base}/key-change"), "revokeCert": format!("{base}/revoke-cert"),
                "renewalInfo": format!("{base}/renewal-info"), "meta": {"profiles": {"short": "for a week"}}});
            Some((200, Vec::new(), document.to_string().into_bytes()))
        }
        "HEAD /nonce HTTP/1.1" => Some((200, vec!["Replay-Nonce: fresh".into()], Vec::new())),
        _ => None,
    }
}

async fn read(stream: &mut (impl AsyncRead + AsyncBufReadExt + Unpin)) -> Option<Asked> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let length = lines.iter().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Asked { line: lines.remove(0), headers: lines, body })
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), (status, headers, body): Said, head: bool) {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let mut text = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{headers}\r\n", body.len()).into_bytes();
    if !head {
        text.extend(body);
    }
    // A client that went away is the test's business.
    let _ = stream.write_all(&text).await;
    let _ = stream.flush().await;
}
