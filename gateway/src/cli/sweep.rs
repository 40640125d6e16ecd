//! `acmegate sweep`: through the `serve` that holds the data folder, or with the same engine in this process.

use std::{sync::Arc, time::Duration};

use clap::Args;

use super::{
    Failure,
    lifecycle::{Signals, block_on, open_engine},
    progress::line,
    say,
};
use crate::{
    config::Config,
    doors::admin::Client,
    engine::EngineError,
    store::StoreError,
    sweep::{Report, SweepError, SweepRequest},
};

/// How long the engine of a run of our own may take to stop.
const DRAIN: Duration = Duration::from_secs(3);

/// What `acmegate sweep` is told.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 nothing that should be gone stands any more; 1 something does (without --apply: was found); 2 wrong usage or configuration; 75 a backend could not be asked, or the data folder is in use: try again later."
)]
pub(super) struct SweepArgs {
    /// Remove what is found; without, it is only listed
    #[arg(long)]
    apply: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Look at this backend alone
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
}

pub(super) fn run(args: &SweepArgs, config: Config) -> Result<(), Failure> {
    let request = SweepRequest { apply: args.apply, backend: args.backend.clone() };
    let report = block_on(sweep(config, request))?;
    if args.json {
        say(&serde_json::to_string(&report).map_err(Failure::failed)?);
    } else {
        say(&report.to_string());
    }
    judge(&report, args.apply)
}

/// The exit code that a report means.
fn judge(report: &Report, applied: bool) -> Result<(), Failure> {
    match (report.remaining(), report.unasked.len()) {
        (0, 0) => Ok(()),
        (0, unasked) => Err(Failure::later(format!("{unasked} zones or backends could not be asked; try again"))),
        (remaining, _) if applied => Err(Failure::failed(format!("{remaining} values that should be gone could not be removed"))),
        (remaining, _) => {
            Err(Failure::failed(format!("{remaining} values that should be gone still stand: `acmegate sweep --apply` removes them")))
        }
    }
}

async fn sweep(config: Config, request: SweepRequest) -> Result<Report, Failure> {
    let mut signals = Signals::new()?;
    let run = async {
        match Client::connect(&config.data).await? {
            Some(client) => Ok(client.sweep(&request).await?),
            None => sweep_here(config, &request).await,
        }
    };
    tokio::select! {
        report = run => report,
        // What was released is on disk, and removed by whoever runs next.
        _ = signals.next() => Err(Failure::failed("stopped before the end; what was not removed yet is removed by the next run")),
    }
}

/// Runs the engine in this process.
async fn sweep_here(config: Config, request: &SweepRequest) -> Result<Report, Failure> {
    let config = Arc::new(config);
    let (engine, _registry) = open_engine(config.clone()).await.map_err(|error| match error {
        EngineError::Store(StoreError::Locked(text)) => Failure::later(format!(
            "{text}\nIt does not answer on its admin socket: it is starting, stopping, or another command; try again when it is done"
        )),
        error => Failure::opening(&config.data, error),
    })?;
    let report = engine.sweeper().sweep(request).await;
    if tokio::time::timeout(DRAIN, engine.close()).await.is_err() {
        line("the store did not finish writing in time; what was acknowledged is on disk");
    }
    Ok(report?)
}

impl From<SweepError> for Failure {
    fn from(error: SweepError) -> Self {
        match error {
            error @ SweepError::NoBackend { .. } => Self::usage(error),
            error @ SweepError::Store { .. } => Self::failed(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::{Outcome, Row, Unasked, Why};

    #[test]
    fn the_exit_code_says_whether_anything_is_left() {
        let row = |outcome| Row {
            backend: "corp".to_owned(),
            zone: "example.com".to_owned(),
            owner: "a.example.com".to_owned(),
            value: "v".to_owned(),
            why: Why::Released,
            since: None,
            outcome,
        };
        let unasked = vec![Unasked { backend: "corp".to_owned(), zone: None, reason: "no".to_owned() }];
        let code = |rows: Vec<Row>, unasked: Vec<Unasked>| judge(&Report { rows, unasked }, true).map_err(|failure| failure.exit_code());
        assert_eq!(code(vec![row(Outcome::Removed), row(Outcome::Claimed)], Vec::new()), Ok(()));
        assert_eq!(code(vec![row(Outcome::WouldRemove)], Vec::new()), Err(1));
        assert_eq!(code(vec![row(Outcome::Failed { reason: "no".to_owned() })], unasked.clone()), Err(1));
        assert_eq!(code(vec![row(Outcome::Removed)], unasked), Err(75));
    }
}
