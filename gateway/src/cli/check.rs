//! `acmegate check`: through the `serve` that holds the data folder, or with the same engine in this process.

use std::{
    io::{self, IsTerminal},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{
    Failure,
    lifecycle::{Signals, block_on, open_engine},
    progress::line,
    say,
};
use crate::{
    check::{CheckError, CheckRequest, Ladder, Outcome, Report},
    config::Config,
    doors::admin::Client,
    engine::EngineError,
    store::StoreError,
};

/// How long the engine of a run of our own may take to stop.
const DRAIN: Duration = Duration::from_secs(3);

/// What `acmegate check` is told.
#[derive(Debug, Args)]
#[command(after_help = "\
The rungs: clock, chain (CNAMEs and DNAMEs), backend, delegation, servers, credential, allowed, write, seen, removed (these three with --write), caa, dnssec.
Each is ok, warning, failed or skipped. --json prints {name, challenge, owner, zone, backend, outcome, rungs: [{id, outcome, summary, evidence: [line], next}]}.

Exit codes: 0 no rung failed; 1 some rung failed; 2 wrong usage or configuration; 75 stopped, or the data folder is in use: try again later.")]
pub(super) struct CheckArgs {
    /// A domain such as example.com or '*.example.com', or its challenge name
    #[arg(value_name = "NAME")]
    name: String,
    /// Put a test value into DNS, see it at every server, and take it back
    #[arg(long)]
    write: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &CheckArgs, config: Config) -> Result<(), Failure> {
    let request = CheckRequest { name: args.name.clone(), write: args.write };
    let report = block_on(check(config, request))?;
    if args.json {
        say(&serde_json::to_string(&report).map_err(Failure::failed)?);
    } else {
        let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        say(&report.text(colours));
    }
    judge(&report)
}

/// The exit code that a report means.
fn judge(report: &Report) -> Result<(), Failure> {
    match report.count(Outcome::Failed) {
        0 => Ok(()),
        1 => Err(Failure::failed(format!("{}: a rung failed", report.name))),
        failed => Err(Failure::failed(format!("{}: {failed} rungs failed", report.name))),
    }
}

async fn check(config: Config, request: CheckRequest) -> Result<Report, Failure> {
    let mut signals = Signals::new()?;
    match Client::connect(&config.data).await? {
        Some(client) => tokio::select! {
            report = client.check(&request) => Ok(report?),
            // Closing the connection stops the check.
            _ = signals.next() => Err(CheckError::Stopped.into()),
        },
        None => check_here(config, &request, &mut signals).await,
    }
}

/// Runs the engine in this process, and no DNS server: whether the one of `serve` answers is part of the question.
async fn check_here(config: Config, request: &CheckRequest, signals: &mut Signals) -> Result<Report, Failure> {
    let config = Arc::new(config);
    let (engine, _registry) = open_engine(config.clone()).await.map_err(|error| match error {
        EngineError::Store(StoreError::Locked(text)) => Failure::later(format!(
            "{text}\nIt does not answer on its admin socket: it is starting, stopping, or another command; try again when it is done"
        )),
        error => Failure::opening(&config.data, error),
    })?;
    let (ladder, cancel) = (Ladder::new(&engine, false), CancellationToken::new());
    let mut climb = Box::pin(ladder.climb(request, &cancel));
    let report = loop {
        tokio::select! {
            report = &mut climb => break report,
            _ = signals.next() => {
                if cancel.is_cancelled() {
                    std::process::exit(1);
                }
                cancel.cancel();
            }
        }
    };
    drop(climb);
    if tokio::time::timeout(DRAIN, engine.close()).await.is_err() {
        line("the store did not finish writing in time; what was acknowledged is on disk");
    }
    Ok(report?)
}

impl From<CheckError> for Failure {
    fn from(error: CheckError) -> Self {
        match error {
            error @ CheckError::BadName { .. } => Self::usage(error),
            error @ CheckError::Stopped => Self::later(error),
        }
    }
}
