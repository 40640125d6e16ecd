use std::{os::unix::fs::FileTypeExt, path::PathBuf, sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tokio::{io::AsyncReadExt, net::TcpListener, task::JoinHandle};

use super::*;
use crate::{
    config::{Config, Directory, ResolverAddress},
    engine::Engine,
};

/// A data folder with a running admin door.
struct House {
    folder: TempDir,
    engine: Engine,
    stop: CancellationToken,
    serving: JoinHandle<()>,
    _socket: AdminSocket,
}

impl House {
    async fn open() -> Self {
        // The client of the CA needs the process's TLS provider, as main installs it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir().expect("folder");
        let mut config = Config::embedded().expect("valid");
        config.data = folder.path().to_owned();
        // Nobody outside of this machine is asked for anything.
        config.propagation.resolvers = vec![ResolverAddress::Udp(([127, 0, 0, 1], 1).into())];
        config.issuer.directories.clear();
        let engine = Engine::open(Arc::new(config), &mut Registry::default()).expect("open");
        let (socket, listener) = AdminSocket::bind(&engine.folder).expect("bound");
        let stop = CancellationToken::new();
        let limits = Limits { drain: Duration::from_secs(2), ..Limits::default() };
        let serving = tokio::spawn(serve(listener, works(&engine).await, limits, stop.clone()));
        Self { folder, engine, stop, serving, _socket: socket }
    }

    async fn client(&self) -> Client {
        Client::connect(self.folder.path()).await.expect("usable").expect("somebody listens")
    }

    async fn close(self) {
        self.stop.cancel();
        self.serving.await.expect("no panic");
        self.engine.close().await;
    }
}

async fn works(engine: &Engine) -> Works {
    let issuer = Issuer::new(engine.clone());
    let manager = Manager::open(engine.clone(), issuer.clone(), None).await.unwrap();
    Works { issuer, sweeper: engine.sweeper(), ladder: Ladder::new(engine, true), manager }
}

fn request(name: &str, url: &str) -> IssueRequest {
    let directory = Directory { name: "ca".into(), ..Directory::at(url) };
    IssueRequest::of(vec![name.into()], directory)
}

#[tokio::test]
async fn the_end_of_a_run_comes_back_as_it_was() {
    let house = House::open().await;
    let error = house.client().await.issue(&request("not a name", "https://127.0.0.1:1/"), |_| {}).await.expect_err("no name");
    assert!(matches!(error, ClientError::Issue(IssueError::BadName { .. })), "{error}");
    house.close().await;
}

#[tokio::test]
async fn a_caller_that_goes_away_cancels_its_run() {
    let house = House::open().await;
    let ca = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let url = format!("https://{}/directory", ca.local_addr().expect("address"));
    let client = house.client().await;
    let caller = tokio::spawn(async move { client.issue(&request("www.example.org", &url), |_| {}).await.map(|_| ()) });
    let (mut connection, _) = ca.accept().await.expect("the run asks the CA");
    caller.abort();
    // The run drops its connection to the CA, which never said a word, and nothing else would make it do so soon.
    let mut received = Vec::new();
    let _ = connection.read_to_end(&mut received).await;
    house.close().await;
}

#[tokio::test]
async fn an_open_run_is_cancelled_at_the_end_and_says_so() {
    let house = House::open().await;
    let ca = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let url = format!("https://{}/directory", ca.local_addr().expect("address"));
    let client = house.client().await;
    let caller = tokio::spawn(async move { client.issue(&request("www.example.org", &url), |_| {}).await.map(|_| ()) });
    let _connection = ca.accept().await.expect("the run asks the CA");
    house.close().await;
    let error = caller.await.expect("no panic").expect_err("cancelled");
    assert!(matches!(error, ClientError::Issue(IssueError::Cancelled)), "{error}");
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let house = House::open().await;
    let Works { issuer, sweeper, ladder, manager } = works(&house.engine).await;
    let runs = Runs { issuer, sweeper, ladder, manager, tasks: TaskTracker::new(), cancel: CancellationToken::new() };
    for (body, status) in [("{}".to_owned(), StatusCode::BAD_REQUEST), (" ".repeat(MAX_REQUEST + 1), StatusCode::PAYLOAD_TOO_LARGE)] {
        let request = Request::post("/v1/issue").body(Body::from(body)).expect("request");
        assert_eq!(issue(State(runs.clone()), request).await.status(), status);
    }
    house.close().await;
}

#[tokio::test]
async fn nobody_listens_where_nothing_runs() {
    let folder = tempfile::tempdir().expect("folder");
    assert!(Client::connect(folder.path()).await.expect("usable").is_none());
    let long: PathBuf = folder.path().join("x".repeat(120));
    assert!(Client::connect(&long).await.expect("usable").is_none());
    // A socket whose process was killed.
    drop(std::os::unix::net::UnixListener::bind(folder.path().join("acmegate.sock")).expect("stale socket"));
    assert!(std::fs::metadata(folder.path().join("acmegate.sock")).expect("there").file_type().is_socket());
    assert!(Client::connect(folder.path()).await.expect("usable").is_none());
}

#[tokio::test]
async fn a_sweep_comes_back_with_its_report_or_says_why_not() {
    let house = House::open().await;
    let report = house.client().await.sweep(&SweepRequest::default()).await.expect("a report");
    assert_eq!(report, Report { rows: Vec::new(), unasked: Vec::new() });
    let unknown = SweepRequest { apply: true, backend: Some("corp".to_owned()) };
    let error = house.client().await.sweep(&unknown).await.expect_err("no such backend");
    assert_eq!(error.to_string(), "no backend is named \"corp\"; the configuration has: none");
    house.close().await;
}

#[tokio::test]
async fn a_check_comes_back_with_its_report_or_says_why_not() {
    let house = House::open().await;
    let bad = CheckRequest { name: "localhost".to_owned(), write: false };
    let error = house.client().await.check(&bad).await.expect_err("no name");
    assert!(matches!(error, ClientError::Check(CheckError::BadName { .. })), "{error}");
    let request = CheckRequest { name: "www.example.test".to_owned(), write: true };
    let report = house.client().await.check(&request).await.expect("a report");
    assert_eq!((report.challenge.as_str(), report.rungs.len()), ("_acme-challenge.www.example.test", 12));
    house.close().await;
}

#[tokio::test]
async fn an_open_check_ends_with_the_door() {
    let house = House::open().await;
    let Works { issuer, sweeper, ladder, manager } = works(&house.engine).await;
    let runs = Runs { issuer, sweeper, ladder, manager, tasks: TaskTracker::new(), cancel: CancellationToken::new() };
    runs.cancel.cancel();
    let body = serde_json::to_vec(&CheckRequest { name: "www.example.test".to_owned(), write: true }).expect("JSON");
    let request = Request::post("/v1/check").body(Body::from(body)).expect("request");
    let answer = climb(State(runs), request).await.into_body();
    let line = axum::body::to_bytes(answer, MAX_REQUEST).await.expect("a line");
    assert!(matches!(serde_json::from_slice(&line), Ok(CheckLine::Error(CheckError::Stopped))), "{line:?}");
    house.close().await;
}
