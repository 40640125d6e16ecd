//! `acmegate certificates`: through the `serve` that holds the data folder, or with the same engine in this process.

use std::slice::from_ref;

use clap::{Args, Subcommand};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    Failure,
    here::{Here, close, open_alone},
    lifecycle::{Signals, block_on},
    progress::Progress,
    say,
};
use crate::{
    certificates::{CertificateAction, CertificateError, CertificateReport, CertificateRequest, Manager, State},
    claim::Timestamp,
    config::Config,
    doors::admin::Client,
    issuer::{Event, Issuer, RevocationReason},
};

/// Events that wait to be shown.
const EVENTS: usize = 256;

/// What `acmegate certificates` is told.
#[derive(Debug, Subcommand)]
pub(super) enum CertificatesCommand {
    /// List the certificates: those of the configuration, and those that were
    List {
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show how one stands: what happened, what is done next and when, and what you can do
    Show(One),
    /// Get another one now, and put it where it goes; limits of the CA are waited for by `acmegate serve`
    Renew(Renew),
    /// Put the one that is there where it goes, again; nothing is issued
    Deploy(One),
    /// Have the CA revoke it; one that is in the configuration is replaced at once
    Revoke {
        #[command(flatten)]
        one: One,
        /// Why: unspecified, keyCompromise, affiliationChanged, superseded or cessationOfOperation
        #[arg(long, value_name = "REASON", default_value = "unspecified")]
        reason: RevocationReason,
        /// Yes: it cannot be undone
        #[arg(long, required = true)]
        yes: bool,
    },
    /// Delete it and its key from the data folder; it has to be out of the configuration before. Files and Secrets stay
    Delete {
        #[command(flatten)]
        one: One,
        /// Yes: the key is gone then
        #[arg(long, required = true)]
        yes: bool,
    },
}

/// Which one, and how it is printed.
#[derive(Debug, Args)]
pub(super) struct One {
    /// Its name in the list `certificates:`
    name: String,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// What is to be renewed.
#[derive(Debug, Args)]
pub(super) struct Renew {
    /// Their names in the list `certificates:`
    #[arg(value_name = "NAME", required_unless_present = "due")]
    names: Vec<String>,
    /// All that is due, and nothing else: for cron, where no `acmegate serve` runs
    #[arg(long, conflicts_with = "names")]
    due: bool,
    /// Print how they stand as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &CertificatesCommand, config: Config) -> Result<(), Failure> {
    match command {
        CertificatesCommand::List { json } => list(*json, config),
        CertificatesCommand::Show(one) => act(from_ref(&one.name), CertificateAction::Show, one.json, config),
        CertificatesCommand::Renew(Renew { due: true, json, .. }) => block_on(due(*json, config)),
        CertificatesCommand::Renew(renew) => act(&renew.names, CertificateAction::Renew, renew.json, config),
        CertificatesCommand::Deploy(one) => act(from_ref(&one.name), CertificateAction::Deploy, one.json, config),
        CertificatesCommand::Revoke { one, reason, yes: _ } => {
            act(from_ref(&one.name), CertificateAction::Revoke { reason: *reason }, one.json, config)
        }
        CertificatesCommand::Delete { one, yes: _ } => act(from_ref(&one.name), CertificateAction::Delete, one.json, config),
    }
}

fn list(json: bool, config: Config) -> Result<(), Failure> {
    let reports = block_on(async {
        if let Some(client) = Client::connect(&config.data).await? {
            return Ok(client.certificates().await?);
        }
        let engine = open_alone(config).await?;
        let manager = Manager::open(engine.clone(), Issuer::new(engine.clone()), None).await;
        let reports = manager.map(|manager| manager.list()).map_err(Failure::failed);
        close(&engine).await;
        reports
    })?;
    if json {
        say(&serde_json::to_string(&reports).map_err(Failure::failed)?);
    } else if reports.is_empty() {
        say("no certificate: the list `certificates:` of the configuration is empty (`acmegate config example` shows one)");
    } else {
        table(&reports);
    }
    Ok(())
}

/// The same for one after the other; the first that fails ends it.
fn act(names: &[String], action: CertificateAction, json: bool, config: Config) -> Result<(), Failure> {
    let looks = matches!(action, CertificateAction::Show);
    let reports = block_on(async {
        let mut signals = Signals::new()?;
        let progress = Progress::start();
        let mut reports = Vec::new();
        let mut outcome = Ok(());
        for name in names {
            let request = CertificateRequest { name: name.clone(), action };
            let done = match Client::connect(&config.data).await? {
                Some(client) => tokio::select! {
                    done = client.certificate(&request, |event| progress.show(&event)) => done.map_err(Failure::from),
                    _ = signals.next() => Err(Failure::failed("stopped before the end; `acmegate serve` goes on with it")),
                },
                None => here(config.clone(), &request, &progress, &mut signals).await,
            };
            match done {
                Ok(report) => reports.push((name, report)),
                Err(failure) => {
                    outcome = Err(failure);
                    break;
                }
            }
        }
        progress.end();
        for (name, report) in &reports {
            match report {
                Some(report) if json => say(&serde_json::to_string(report).map_err(Failure::failed)?),
                Some(report) => say(&report.to_string()),
                None if json => say("null"),
                None => say(&format!("{name}: deleted, with its key")),
            }
        }
        outcome?;
        Ok(reports.into_iter().filter_map(|(_, report)| report).collect::<Vec<_>>())
    })?;
    if looks { Ok(()) } else { verdict(&reports) }
}

/// Does what is asked for with the engine in this process, which looks after nothing else meanwhile.
async fn here(
    config: Config,
    request: &CertificateRequest,
    progress: &Progress,
    signals: &mut Signals,
) -> Result<Option<CertificateReport>, Failure> {
    let mut here = Here::open(config).await?;
    let manager =
        Manager::open(here.engine.clone(), Issuer::new(here.engine.clone()), Some(&request.name)).await.map_err(Failure::failed)?;
    let done = {
        let stop = CancellationToken::new();
        let running = manager.run(stop.clone());
        let (reporter, mut events) = mpsc::channel::<Event>(EVENTS);
        let asked = async {
            let mut handled = std::pin::pin!(manager.handle(request, reporter));
            let done = loop {
                tokio::select! {
                    biased;
                    Some(event) = events.recv() => progress.show(&event),
                    done = &mut handled => break done.map_err(Failure::from),
                    failure = here.failure() => break Err(Failure::failed(failure)),
                    _ = signals.next() => break Err(Failure::failed("stopped before the end; the same command goes on with it")),
                }
            };
            stop.cancel();
            done
        };
        tokio::join!(running, asked).1
    };
    here.close(signals).await;
    done
}

/// Everything that is due.
async fn due(json: bool, config: Config) -> Result<(), Failure> {
    if Client::connect(&config.data).await?.is_some() {
        return Err(Failure::failed(
            "`acmegate serve` runs on this data folder, and does what is due by itself; nothing is left to be done",
        ));
    }
    let mut signals = Signals::new()?;
    let mut here = Here::open(config).await?;
    let manager = Manager::open(here.engine.clone(), Issuer::new(here.engine.clone()), None).await.map_err(Failure::failed)?;
    let stop = CancellationToken::new();
    let asked = async {
        let done = tokio::select! {
            () = manager.all_settled() => Ok(()),
            failure = here.failure() => Err(Failure::failed(failure)),
            _ = signals.next() => Err(Failure::failed("stopped before the end; the same command goes on with it")),
        };
        stop.cancel();
        done
    };
    let done = tokio::join!(manager.run(stop.clone()), asked).1;
    let reports = manager.list();
    here.close(&mut signals).await;
    if json {
        say(&serde_json::to_string(&reports).map_err(Failure::failed)?);
    } else {
        table(&reports);
    }
    done?;
    verdict(&reports)
}

/// What a script wants to know: 0 if all is well, 75 if nothing but time is needed, 1 if something failed.
fn verdict(reports: &[CertificateReport]) -> Result<(), Failure> {
    let bad = |state: State| match state {
        State::Valid | State::Rehearsed | State::Renewing | State::Unlisted => None,
        State::Waiting | State::New | State::Revoked => Some(false),
        State::Paused | State::Expired | State::Failing | State::Undeployed => Some(true),
    };
    let worst = reports.iter().filter_map(|report| Some((bad(report.state)?, report))).max_by_key(|(failed, _)| *failed);
    match worst {
        None => Ok(()),
        Some((failed, report)) => {
            let text = format!("{}: {}; `acmegate certificates show {}` tells more", report.name, report.state, report.name);
            Err(if failed { Failure::failed(text) } else { Failure::later(text) })
        }
    }
}

fn table(reports: &[CertificateReport]) {
    let now = Timestamp::now();
    let head = ["NAME", "STATE", "VALID UNTIL", "NEXT", "DNS NAMES"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(reports.iter().map(|report| report.columns(now))).collect();
    let mut widths = [0; 5];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        say(cells.join("  ").trim_end());
    }
}

impl From<CertificateError> for Failure {
    fn from(error: CertificateError) -> Self {
        Self::with_code(error.exit_code(), error)
    }
}
