//! The other end: how a command asks a running `serve`.

use std::{
    io::{self, ErrorKind},
    path::Path,
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::net::UnixStream;

use super::{AccountLine, CertificateLine, CheckLine, SweepLine, socket::SOCKET};
use crate::{
    certificates::{CertificateError, CertificateReport, CertificateRequest},
    check::{self, CheckError, CheckRequest},
    issuer::{AccountReport, AccountRequest, Event, IssueError, IssueRequest, Outcome},
    sweep::{Report, SweepError, SweepRequest},
};

/// Longest line that is taken: a certificate for 100 names with its chain and key has about 60 KiB, a sweep that found 10,000 values 4 MiB.
const MAX_LINE: usize = 16 << 20;
/// Longest text of a refusal that is shown.
const MAX_REFUSAL: usize = 4096;

/// A connection to a running `serve`.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
}

/// Why a running `serve` gave no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket is there and cannot be used.
    #[error("the admin socket {path} cannot be used: {source}; run this command as the user that runs `acmegate serve`")]
    Unusable {
        /// The socket.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// The connection broke before the end.
    #[error("`acmegate serve` ended before the run did ({0}): try again; values that it had set are removed within an hour")]
    Lost(String),
    /// It did not take the request.
    #[error("`acmegate serve` did not take the request: {0}; is it of the same version as this command?")]
    Refused(String),
    /// The run ended without a certificate.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// A certificate was not done with what was asked.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The check ended without a report.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The sweep ended without a report.
    #[error(transparent)]
    Sweep(#[from] SweepError),
}

impl Client {
    /// Connects to the `serve` that holds a data folder; `None` if nobody listens there.
    ///
    /// # Errors
    /// [`ClientError::Unusable`] if somebody may listen, but not to us.
    pub async fn connect(data: &Path) -> Result<Option<Self>, ClientError> {
        let path = data.join(SOCKET);
        match UnixStream::connect(&path).await {
            Ok(stream) => Ok(Some(Self { stream })),
            // InvalidInput: longer than a socket's path can be, so that there is none.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::InvalidInput) => Ok(None),
            Err(source) => Err(ClientError::Unusable { path: path.display().to_string(), source }),
        }
    }

    /// Runs a request to its end. Dropping the future cancels the run.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub async fn issue(self, request: &IssueRequest, mut on_event: impl FnMut(Event)) -> Result<Outcome, ClientError> {
        let on_line = |line: &[u8]| {
            Ok(match read(line)? {
                Some(Read::Event(event)) => {
                    on_event(event);
                    None
                }
                Some(Read::End(outcome)) => Some(*outcome),
                None => None,
            })
        };
        self.post("/v1/issue", request, on_line).await
    }

    /// Has it check a name. Dropping the future stops the check.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub async fn check(self, request: &CheckRequest) -> Result<check::Report, ClientError> {
        self.post("/v1/check", request, |line: &[u8]| match serde_json::from_slice(line) {
            Ok(CheckLine::Report { report }) => Ok(Some(report)),
            Ok(CheckLine::Error(error)) => Err(error.into()),
            Err(error) => Err(ClientError::Refused(format!("its answer cannot be read: {error}"))),
        })
        .await
    }

    /// Has it do something with an account; `None` if that is closed.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub async fn account(self, request: &AccountRequest) -> Result<Option<AccountReport>, ClientError> {
        self.post("/v1/account", request, account_end).await
    }

    /// Has it do something with a certificate of the list; `None` if that is deleted.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub async fn certificate(
        self,
        request: &CertificateRequest,
        mut on_event: impl FnMut(Event),
    ) -> Result<Option<CertificateReport>, ClientError> {
        self.post("/v1/certificate", request, |line: &[u8]| match serde_json::from_slice(line) {
            Ok(CertificateLine::Event(event)) => {
                on_event(event);
                Ok(None)
            }
            Ok(CertificateLine::Error(error)) => Err(error.into()),
            Ok(CertificateLine::Done { done }) => Ok(Some(done)),
            Err(error) => Err(ClientError::Refused(format!("its answer cannot be read: {error}"))),
        })
        .await
    }

    /// Has it list the certificates.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub async fn certificates(self) -> Result<Vec<CertificateReport>, ClientError> {
        let mut all = Vec::new();
        self.post("/v1/certificates", &serde_json::json!({}), |line: &[u8]| match serde_json::from_slice(line) {
            Ok(CertificateLine::Done { done }) if Vec::is_empty(&done) => Ok(Some(std::mem::take(&mut all))),
            Ok(CertificateLine::Done { mut done }) => {
                all.append(&mut done);
                Ok(None)
            }
            Ok(CertificateLine::Error(error)) => Err(error.into()),
            Ok(CertificateLine::Event(_)) => Ok(None),
            Err(error) => Err(ClientError::Refused(format!("its answer cannot be read: {error}"))),
        })
        .await
    }

    /// Has it list the accounts.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub async fn accounts(self) -> Result<Vec<AccountReport>, ClientError> {
        self.post("/v1/accounts", &serde_json::json!({}), account_end).await
    }

    /// Has it look for what was left behind, and remove it if that is asked for.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub async fn sweep(self, request: &SweepRequest) -> Result<Report, ClientError> {
        self.post("/v1/sweep", request, |line: &[u8]| match serde_json::from_slice(line) {
            Ok(SweepLine::Report { report }) => Ok(Some(report)),
            Ok(SweepLine::Error(error)) => Err(error.into()),
            Err(error) => Err(ClientError::Refused(format!("its answer cannot be read: {error}"))),
        })
        .await
    }

    /// Sends a request and reads the lines of its answer, up to the one that gives the end.
    async fn post<T>(
        self,
        path: &str,
        request: &impl Serialize,
        mut on_line: impl FnMut(&[u8]) -> Result<Option<T>, ClientError>,
    ) -> Result<T, ClientError> {
        let lost = |error: hyper::Error| ClientError::Lost(error.to_string());
        let body = serde_json::to_vec(request).map_err(|error| ClientError::Refused(error.to_string()))?;
        let request = Request::post(path)
            .header("host", "acmegate")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| ClientError::Refused(error.to_string()))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(self.stream)).await.map_err(lost)?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(lost)?;
            let status = response.status();
            let mut body = response.into_body();
            if status != StatusCode::OK {
                let text = Limited::new(body, MAX_REFUSAL).collect().await.map(|text| text.to_bytes()).unwrap_or_default();
                return Err(ClientError::Refused(format!("{status} {}", String::from_utf8_lossy(&text).trim_end())));
            }
            let mut pending = Vec::new();
            while let Some(frame) = body.frame().await {
                let Ok(data) = frame.map_err(lost)?.into_data() else { continue };
                // What was there before holds no end of a line.
                let mut searched = pending.len();
                pending.extend_from_slice(&data);
                while let Some(end) = pending.iter().skip(searched).position(|&byte| byte == b'\n') {
                    let line: Vec<u8> = pending.drain(..=searched + end).collect();
                    searched = 0;
                    if let Some(end) = on_line(&line)? {
                        return Ok(end);
                    }
                }
                if pending.len() > MAX_LINE {
                    return Err(ClientError::Refused("a line of its answer is too long".to_owned()));
                }
            }
            Err(ClientError::Lost("no result came".to_owned()))
        };
        tokio::pin!(answer, connection);
        tokio::select! {
            answer = &mut answer => answer,
            // The connection may be through while the last lines still wait to be read.
            _ = &mut connection => answer.await,
        }
    }
}

fn account_end<T: DeserializeOwned>(line: &[u8]) -> Result<Option<T>, ClientError> {
    match serde_json::from_slice(line) {
        Ok(AccountLine::Done { done }) => Ok(Some(done)),
        Ok(AccountLine::Error(error)) => Err(error.into()),
        Err(error) => Err(ClientError::Refused(format!("its answer cannot be read: {error}"))),
    }
}

enum Read {
    Event(Event),
    End(Box<Outcome>),
}

/// Reads a line; `None` for one of a kind that a newer `serve` may send and that this command does not know.
fn read(line: &[u8]) -> Result<Option<Read>, ClientError> {
    let broken = |error: serde_json::Error| ClientError::Refused(format!("its answer cannot be read: {error}"));
    let value: Value = serde_json::from_slice(line).map_err(broken)?;
    if value.get("event").is_some() {
        return Ok(Event::deserialize(&value).ok().map(Read::Event));
    }
    if value.get("outcome").is_some() {
        return Outcome::deserialize(value).map(|outcome| Some(Read::End(Box::new(outcome)))).map_err(broken);
    }
    if value.get("error").is_some() {
        return Err(IssueError::deserialize(value).map_or_else(broken, ClientError::Issue));
    }
    Ok(None)
}
