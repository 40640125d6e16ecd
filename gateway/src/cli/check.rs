//! `acmegate check`: through the `serve` that holds the data folder, or with the same engine in this process. With `--kubernetes`, always in this process.

mod kubernetes;

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
    check::{CheckError, CheckRequest, Ladder, Outcome, Report, kubernetes::ServiceAccount},
    config::{Config, duration},
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
With --kubernetes instead: cluster, apiservice, ca_bundle, rights, caller (cert-manager's right to call), issuers, challenges.
Each is ok, warning, failed or skipped. --json prints {name, challenge, owner, zone, backend, outcome, rungs: [{id, outcome, summary, evidence: [line], next}]},
with --kubernetes {api_service, solver, cert_manager, user, outcome, rungs}. What may not be looked at is skipped, and says which right is missing.

Exit codes: 0 no rung failed; 1 some rung failed; 2 wrong usage or configuration; 75 stopped, or the data folder is in use: try again later.")]
pub(super) struct CheckArgs {
    /// A domain such as example.com or '*.example.com', or its challenge name
    #[arg(value_name = "NAME", required_unless_present = "kubernetes", conflicts_with = "kubernetes")]
    name: Option<String>,
    /// Put a test value into DNS, see it at every server, and take it back
    #[arg(long, conflicts_with = "kubernetes")]
    write: bool,
    /// Instead of a name, check all that lies between cert-manager and acmegate in the Kubernetes cluster; it changes nothing, and runs beside `serve` or on an
    /// administrator's machine. Where it is all right and one certificate still fails, check its name
    #[arg(long)]
    kubernetes: bool,
    /// With --kubernetes: cert-manager's ServiceAccount
    #[arg(long, value_name = "NAMESPACE/SERVICEACCOUNT", default_value = "cert-manager/cert-manager", conflicts_with = "name")]
    cert_manager: ServiceAccount,
    /// With --kubernetes: a challenge that is under way for longer is stuck
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = read_duration, conflicts_with = "name")]
    stuck_after: Duration,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

fn read_duration(text: &str) -> Result<Duration, String> {
    duration::parse(text).ok_or_else(|| format!("write {}", duration::FORM))
}

pub(super) fn run(args: &CheckArgs, config: Config) -> Result<(), Failure> {
    let Some(name) = &args.name else { return kubernetes::run(args, &config) };
    let request = CheckRequest { name: name.clone(), write: args.write };
    let report = block_on(check(config, request))?;
    if args.json {
        say(&serde_json::to_string(&report).map_err(Failure::failed)?);
    } else {
        say(&report.text(colours()));
    }
    judge(&report.name, report.count(Outcome::Failed))
}

/// Whether standard output takes colours.
fn colours() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The exit code that a report means.
fn judge(name: &str, failed: usize) -> Result<(), Failure> {
    match failed {
        0 => Ok(()),
        1 => Err(Failure::failed(format!("{name}: a rung failed"))),
        failed => Err(Failure::failed(format!("{name}: {failed} rungs failed"))),
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
