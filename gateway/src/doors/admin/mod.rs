//! The admin door: HTTP/1.1 on a Unix socket in the data folder, for commands of the folder's owner while `serve` holds it.
//!
//! `POST /v1/issue` takes an [`IssueRequest`] as JSON and answers with lines of JSON, each a [`Line`]: events while the run goes on
//! (`{"event":…}`), then its end (`{"outcome":…}` or `{"error":…}`). A caller that goes away cancels its run.
//!
//! `POST /v1/check` takes a [`CheckRequest`] and answers with one such line (`{"report":…}` or `{"error":…}`) at the top of the ladder. A caller that goes away
//! has its test value let go.
//!
//! `POST /v1/account` takes an [`AccountRequest`], `POST /v1/accounts` takes `{}`, and both answer with one such line (`{"done":…}` or `{"error":…}`).
//!
//! `POST /v1/certificate` takes a [`CertificateRequest`] and answers with lines: events while an order goes on, then its end (`{"done":…}` or `{"error":…}`).
//! `POST /v1/certificates` takes `{}` and answers with lines of some certificates each (`{"done":[…]}`), by name; one without any is the end.
//!
//! `POST /v1/sweep` takes a [`SweepRequest`] and answers with one such line (`{"report":…}` or `{"error":…}`) when the sweep is over.

mod client;
mod socket;

use std::convert::Infallible;

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use futures_util::{Stream, stream};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinError,
    time::timeout,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

pub use client::{Client, ClientError};
pub use socket::{AdminError, AdminSocket};

use crate::{
    certificates::{CertificateError, CertificateRequest, Manager},
    check::{self, CheckError, CheckRequest, Ladder},
    issuer::{AccountRequest, Event, IssueError, IssueRequest, Issuer, Outcome, Reporter},
    sweep::{Report, SweepError, SweepRequest, Sweeper},
    web::{self, BodyError, Limits, Listener, read_body},
};

/// A request has 100 names of 253 bytes at most, and a few settings.
const MAX_REQUEST: usize = 64 * 1024;
/// Events that wait for a caller who reads slowly; more are left out.
const MAX_EVENTS: usize = 256;

/// One line of the answer. The variants tell themselves apart by their tags: `event`, `outcome`, `error`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Line {
    /// A step of the run.
    Event(Event),
    /// The run's end.
    Outcome(Outcome),
    /// The run's end, without a certificate.
    Error(IssueError),
}

/// The answer to a sweep.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum SweepLine {
    /// What was found and done.
    Report {
        /// It.
        report: Report,
    },
    /// Why there is no report.
    Error(SweepError),
}

/// The answer to a request about accounts.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum AccountLine<T> {
    /// Why it was not done. It stands first: a reader of `done` that may be absent would find that in every line.
    Error(IssueError),
    /// What it was about, as it is now.
    Done {
        /// It.
        done: T,
    },
}

/// The answer to a request about certificates.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum CertificateLine<T> {
    /// A step of an order.
    Event(Event),
    /// Why it was not done. It stands before `done`, as in [`AccountLine`].
    Error(CertificateError),
    /// How it stands now.
    Done {
        /// It.
        done: T,
    },
}

/// The answer to a check.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum CheckLine {
    /// What was found.
    Report {
        /// It.
        report: check::Report,
    },
    /// Why there is no report.
    Error(CheckError),
}

/// What the door works with.
pub struct Works {
    /// Issues certificates.
    pub issuer: Issuer,
    /// Finds leftovers.
    pub sweeper: Sweeper,
    /// Checks names.
    pub ladder: Ladder,
    /// Keeps the list of certificates.
    pub manager: Manager,
}

/// Serves the door until `stop`. Then open runs have half of [`Limits::drain`] to end by themselves, and are cancelled; it returns when all have removed
/// their values.
pub async fn serve(listener: Listener, works: Works, limits: Limits, stop: CancellationToken) {
    let Works { issuer, sweeper, ladder, manager } = works;
    let runs = Runs { issuer, sweeper, ladder, manager, tasks: TaskTracker::new(), cancel: CancellationToken::new() };
    let end_runs = async {
        stop.cancelled().await;
        runs.tasks.close();
        if timeout(limits.drain / 2, runs.tasks.wait()).await.is_err() {
            tracing::warn!(runs = runs.tasks.len(), "cancelling certificates that are still being issued");
            runs.cancel.cancel();
        }
    };
    tokio::join!(web::serve(listener, None, router(runs.clone()), limits, stop.clone()), end_runs);
    runs.cancel.cancel();
    runs.tasks.wait().await;
}

/// The runs that callers wait for.
#[derive(Clone)]
struct Runs {
    issuer: Issuer,
    sweeper: Sweeper,
    ladder: Ladder,
    manager: Manager,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

fn router(runs: Runs) -> Router {
    Router::new()
        .route("/v1/issue", post(issue))
        .route("/v1/check", post(climb))
        .route("/v1/sweep", post(sweep))
        .route("/v1/account", post(account))
        .route("/v1/accounts", post(accounts))
        .route("/v1/certificate", post(certificate))
        .route("/v1/certificates", post(certificates))
        .with_state(runs)
}

async fn issue(State(runs): State<Runs>, request: Request) -> Response {
    let request: IssueRequest = match read_request(request, "a request for a certificate").await {
        Ok(request) => request,
        Err(refusal) => return *refusal,
    };
    let answer = stream::unfold(Telling::Answer(start(&runs, request)), |telling| async {
        match telling {
            Telling::Answer(answer) => {
                let (line, telling) = answer.next().await;
                Some((Ok::<_, Infallible>(line), telling))
            }
            Telling::Told(issuer, outcome) => {
                if let Some(Outcome::Issued(issued)) = outcome {
                    issuer.delivered(&issued).await;
                }
                None
            }
        }
    });
    lines(answer)
}

async fn climb(State(runs): State<Runs>, request: Request) -> Response {
    let request: CheckRequest = match read_request(request, "a request for a check").await {
        Ok(request) => request,
        Err(refusal) => return *refusal,
    };
    let (sender, end) = oneshot::channel();
    let cancel = runs.cancel.child_token();
    // Held by the answer: a caller that goes away stops the check, which lets its test value go before it ends.
    let guard = cancel.clone().drop_guard();
    runs.tasks.spawn(async move {
        // Nobody listens any more if the caller has gone.
        let _ = sender.send(Box::pin(runs.ladder.climb(&request, &cancel)).await);
    });
    lines(stream::once(async move {
        let line = match end.await {
            Ok(Ok(report)) => CheckLine::Report { report },
            Ok(Err(error)) => CheckLine::Error(error),
            Err(_) => CheckLine::Error(CheckError::Stopped),
        };
        drop(guard);
        Ok(bytes(&line))
    }))
}

async fn sweep(State(runs): State<Runs>, request: Request) -> Response {
    let request: SweepRequest = match read_request(request, "a request for a sweep").await {
        Ok(request) => request,
        Err(refusal) => return *refusal,
    };
    // The header goes out at once: a sweep takes longer than a caller is kept waiting for one.
    lines(stream::once(async move {
        Ok(bytes(&match runs.sweeper.sweep(&request).await {
            Ok(report) => SweepLine::Report { report },
            Err(error) => SweepLine::Error(error),
        }))
    }))
}

async fn account(State(runs): State<Runs>, request: Request) -> Response {
    let request: AccountRequest = match read_request(request, "a request about an account").await {
        Ok(request) => request,
        Err(refusal) => return *refusal,
    };
    let issuer = runs.issuer.clone();
    // Not ended by a caller that goes away: a new key is best settled at once.
    let done = runs.tasks.spawn(async move { issuer.account(&request).await });
    lines(stream::once(async move { Ok(bytes(&account_line(done.await))) }))
}

async fn accounts(State(runs): State<Runs>) -> Response {
    lines(stream::once(async move { Ok(bytes(&account_line(Ok::<_, JoinError>(runs.issuer.accounts().await)))) }))
}

fn account_line<T>(done: Result<Result<T, IssueError>, JoinError>) -> AccountLine<T> {
    match done {
        Ok(Ok(done)) => AccountLine::Done { done },
        Ok(Err(error)) => AccountLine::Error(error),
        Err(_panic) => AccountLine::Error(IssueError::Internal { text: "the run ended without a word; the log says why".to_owned() }),
    }
}

async fn certificate(State(runs): State<Runs>, request: Request) -> Response {
    let request: CertificateRequest = match read_request(request, "a request about a certificate").await {
        Ok(request) => request,
        Err(refusal) => return *refusal,
    };
    let (reporter, events) = mpsc::channel(MAX_EVENTS);
    // A caller that goes away ends nothing: what it asked for is written down, and done.
    let manager = runs.manager.clone();
    let end = runs.tasks.spawn(async move { manager.handle(&request, reporter).await });
    let answer = stream::unfold(Some((events, end)), |telling| async {
        let (mut events, mut end) = telling?;
        tokio::select! {
            biased;
            Some(event) = events.recv() => Some((Ok::<_, Infallible>(bytes(&CertificateLine::<()>::Event(event))), Some((events, end)))),
            end = &mut end => {
                let line = match end {
                    Ok(Ok(done)) => CertificateLine::Done { done },
                    Ok(Err(error)) => CertificateLine::Error(error),
                    Err(_panic) => {
                        let text = "the request ended without a word; the log says why".to_owned();
                        CertificateLine::Error(IssueError::Internal { text }.into())
                    }
                };
                Some((Ok(bytes(&line)), None))
            }
        }
    });
    lines(answer)
}

async fn certificates(State(runs): State<Runs>) -> Response {
    // A long list is neither made at once, nor held in memory for a caller who reads slowly.
    lines(stream::unfold(Some(None::<String>), move |after| {
        let manager = runs.manager.clone();
        async move {
            let page = manager.page(after?.as_deref());
            let next = page.last().map(|last| Some(last.name.clone()));
            Some((Ok(bytes(&CertificateLine::Done { done: page })), next))
        }
    }))
}

/// Reads the JSON of a request; else the answer that refuses it.
async fn read_request<T: DeserializeOwned>(request: Request, what: &str) -> Result<T, Box<Response>> {
    let refuse = |status: StatusCode, text: String| Err(Box::new((status, text).into_response()));
    let body = match read_body(request.into_body(), MAX_REQUEST).await {
        Ok(body) => body,
        Err(error) => {
            let status = match error {
                BodyError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                BodyError::TooSlow => StatusCode::REQUEST_TIMEOUT,
                BodyError::Broken => StatusCode::BAD_REQUEST,
            };
            return refuse(status, format!("{error}\n"));
        }
    };
    serde_json::from_slice(&body).or_else(|error| refuse(StatusCode::BAD_REQUEST, format!("this is not {what}: {error}\n")))
}

fn lines(lines: impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static) -> Response {
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

/// Starts a run; it ends when the answer is dropped.
fn start(runs: &Runs, request: IssueRequest) -> Answer {
    let (reporter, events) = mpsc::channel(MAX_EVENTS);
    let (sender, end) = oneshot::channel();
    let cancel = runs.cancel.child_token();
    let issuer = runs.issuer.clone();
    let answer = Answer { events, end, issuer: issuer.clone(), _cancel: cancel.clone().drop_guard() };
    runs.tasks.spawn(async move {
        // Nobody listens any more if the caller has gone.
        let _ = sender.send(Box::pin(issuer.issue(request, Reporter::new(reporter), cancel)).await);
    });
    answer
}

/// How far a caller has been told.
enum Telling {
    /// There is more.
    Answer(Answer),
    /// All of it was taken; the certificate is the caller's.
    Told(Issuer, Option<Outcome>),
}

/// What a caller still has to be told.
struct Answer {
    events: mpsc::Receiver<Event>,
    end: oneshot::Receiver<Result<Outcome, IssueError>>,
    issuer: Issuer,
    _cancel: DropGuard,
}

impl Answer {
    /// The next line, and what comes after it.
    async fn next(mut self) -> (Bytes, Telling) {
        tokio::select! {
            biased;
            Some(event) = self.events.recv() => (bytes(&Line::Event(event)), Telling::Answer(self)),
            end = &mut self.end => {
                let line = match end {
                    Ok(Ok(outcome)) => {
                        let line = bytes(&Line::Outcome(outcome.clone()));
                        return (line, Telling::Told(self.issuer, Some(outcome)));
                    }
                    Ok(Err(error)) => Line::Error(error),
                    Err(_) => Line::Error(IssueError::Internal { text: "the run ended without a word; the log says why".to_owned() }),
                };
                (bytes(&line), Telling::Told(self.issuer, None))
            }
        }
    }
}

fn bytes(line: &impl Serialize) -> Bytes {
    let mut bytes = serde_json::to_vec(line).unwrap_or_default();
    bytes.push(b'\n');
    bytes.into()
}

#[cfg(test)]
mod tests;
