//! `acmegate issue`: through the `serve` that holds the data folder, or with the same engine in this process.

use std::{pin::pin, time::SystemTime};

use clap::{Args, builder::NonEmptyStringValueParser};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    Failure,
    deploy::{DeployArgs, Prospect},
    directory::{DirectoryArgs, Stage},
    here::Here,
    lifecycle::{Signals, block_on},
    progress::{Progress, line},
    say,
};
use crate::{
    config::{BadName, Config, Names},
    doors::admin::{Client, ClientError},
    issuer::{Event, Fallback, IssueError, IssueRequest, Issuer, KeyType, Outcome, Rehearsal, Reporter},
};

/// Events that wait to be shown.
const EVENTS: usize = 256;
/// What `acmegate issue` is told.
#[derive(Debug, Args)]
pub(super) struct IssueArgs {
    /// The names of the certificate, such as example.com '*.example.com'
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    directory: DirectoryArgs,
    /// Another ACME directory, for when the one before it is down or refuses; may be given several times
    #[arg(long, value_name = "NAME|URL")]
    fallback: Vec<String>,
    /// The kind of key: p256, p384, rsa2048, rsa3072 or rsa4096
    #[arg(long, value_name = "TYPE", default_value_t)]
    key_type: KeyType,
    /// The CA's profile that the certificate is of, such as tlsserver or shortlived [default: the directory's, or the CA's]
    #[arg(long, value_name = "PROFILE", value_parser = NonEmptyStringValueParser::new())]
    profile: Option<String>,
    /// Of several chains that the CA offers, the one that ends with a certificate of the issuer with this common name
    #[arg(long, value_name = "ISSUER", value_parser = NonEmptyStringValueParser::new())]
    preferred_chain: Option<String>,
    /// Rehearse: follow the delegations, show made-up values, see them at every server, but order nothing
    #[arg(long)]
    dry_run: bool,
    /// Ask the CA's staging directory: everything as it will be, but the certificate is one that nobody trusts, and nothing counts against the CA's limits
    #[arg(long)]
    staging: bool,
    #[command(flatten)]
    deploy: DeployArgs,
}

pub(super) fn run(args: &IssueArgs, config: Config) -> Result<(), Failure> {
    let names = Names::parse(&args.names)?;
    let stage = if args.staging { Stage::Staging } else { Stage::Production };
    let mut directory = args.directory.choose_at(stage, &config)?;
    if let Some(profile) = &args.profile {
        directory.profile = Some(profile.clone());
    }
    if let Some(chain) = &args.preferred_chain {
        directory.preferred_chain = Some(chain.clone());
    }
    let fallbacks = args.fallback.iter().map(|wanted| args.directory.another(wanted, "--fallback", stage, &config).map(Fallback));
    let fallbacks = fallbacks.collect::<Result<_, _>>()?;
    let request =
        IssueRequest { fallbacks, key_type: args.key_type, dry_run: args.dry_run, ..IssueRequest::of(names.to_strings(), directory) };
    let deployment = args.deploy.choose(&request.names)?;
    block_on(async move {
        // Before the CA is asked for anything: an order that cannot be written down would be wasted.
        let prospect = if args.dry_run { None } else { Some(Prospect::prepare(deployment, &config).await?) };
        issue(config, request, async |outcome, stop| finish(outcome, prospect, &stop).await).await
    })
}

async fn finish(outcome: Result<Outcome, Failure>, prospect: Option<Prospect>, stop: &CancellationToken) -> Result<(), Failure> {
    match (outcome, prospect) {
        (Ok(Outcome::Issued(issued)), Some(prospect)) => {
            let summary = format!("{}: valid until {}", issued.names.join(", "), until(issued.not_after));
            let timings = issued.timings.to_string();
            let deployed = prospect.deploy(*issued, stop).await;
            say(&summary);
            line(&format!("took {timings}"));
            deployed
        }
        (Ok(Outcome::Issued(_)), None) => {
            Err(Failure::failed("a certificate was issued though none was asked for; this is a defect of acmegate"))
        }
        (Ok(Outcome::Rehearsed(rehearsal)), _) => {
            report(&rehearsal);
            Ok(())
        }
        (Err(failure), prospect) => {
            if let Some(prospect) = prospect {
                prospect.forget();
            }
            Err(failure)
        }
    }
}

/// `done` takes the outcome as soon as it is there, and ends early when it is told to stop.
async fn issue(
    config: Config,
    request: IssueRequest,
    done: impl AsyncFnOnce(Result<Outcome, Failure>, CancellationToken) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let progress = Progress::start();
    let Some(client) = Client::connect(&config.data).await? else {
        return issue_here(config, request, done, progress, &mut signals).await;
    };
    let run = client.issue(&request, |event| progress.show(&event));
    let outcome = tokio::select! {
        outcome = run => outcome.map_err(Failure::from),
        // Closing the connection cancels the run.
        _ = signals.next() => Err(Failure::failed("stopped before the certificate was there; `acmegate serve` removes the values from DNS")),
    };
    progress.end();
    stoppable(&mut signals, |stop| done(outcome, stop)).await
}

/// Runs what is told to stop by the first signal; the second one is no request any more.
async fn stoppable<T>(signals: &mut Signals, task: impl AsyncFnOnce(CancellationToken) -> T) -> T {
    let stop = CancellationToken::new();
    let mut task = pin!(task(stop.clone()));
    loop {
        tokio::select! {
            done = &mut task => return done,
            _ = signals.next() => {
                if stop.is_cancelled() {
                    std::process::exit(1);
                }
                stop.cancel();
            }
        }
    }
}

/// Runs the engine in this process, with the embedded DNS server, which the CA has to reach.
async fn issue_here(
    config: Config,
    request: IssueRequest,
    done: impl AsyncFnOnce(Result<Outcome, Failure>, CancellationToken) -> Result<(), Failure>,
    progress: Progress,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let mut here = Here::open(config).await?;
    let (reporter, mut events) = mpsc::channel::<Event>(EVENTS);
    let cancel = CancellationToken::new();
    let issuer = Issuer::new(here.engine.clone());
    let mut run = Box::pin(issuer.issue(request, Reporter::new(reporter), cancel.clone()));
    let outcome = loop {
        tokio::select! {
            biased;
            Some(event) = events.recv() => progress.show(&event),
            outcome = &mut run => break outcome.map_err(Failure::from),
            failure = here.failure() => break Err(Failure::failed(failure)),
            _ = signals.next() => {
                if cancel.is_cancelled() {
                    std::process::exit(1);
                }
                cancel.cancel();
            }
        }
    };
    while let Ok(event) = events.try_recv() {
        progress.show(&event);
    }
    drop(run);
    progress.end();
    // The certificate is on disk before anything else is waited for.
    let issued = match &outcome {
        Ok(Outcome::Issued(issued)) => Some(issued.clone()),
        _ => None,
    };
    let done = stoppable(signals, |stop| done(outcome, stop)).await;
    // Else the same command comes to the same certificate.
    if let (Some(issued), true) = (issued, done.is_ok()) {
        issuer.delivered(&issued).await;
    }
    here.close(signals).await;
    done
}

fn report(rehearsal: &Rehearsal) {
    for target in &rehearsal.targets {
        if target.challenge == target.owner {
            say(&format!("{}: in a zone of ours", target.challenge));
        } else {
            say(&format!("{} leads to {}", target.challenge, target.owner));
        }
    }
    say("dry run: nothing is in the way, and nothing was ordered");
    line(&format!("took {}", rehearsal.timings));
}

fn until(time: SystemTime) -> String {
    let date = jiff::Timestamp::try_from(time).map(|time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()).unwrap_or_default();
    let days = time.duration_since(SystemTime::now()).map_or(0, |left| left.as_secs() / 86_400);
    format!("{date} ({days} days)")
}

impl From<BadName> for Failure {
    fn from(error: BadName) -> Self {
        Self::usage(error)
    }
}

impl From<IssueError> for Failure {
    fn from(error: IssueError) -> Self {
        Self::with_code(error.exit_code(), error)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            // Nobody here asked for that.
            ClientError::Issue(error @ IssueError::Cancelled) => Self::later(format!("`acmegate serve` was stopped: {error}; try again")),
            ClientError::Issue(error) => error.into(),
            ClientError::Certificate(error) => error.into(),
            ClientError::Check(error) => error.into(),
            ClientError::Sweep(error) => error.into(),
            error @ ClientError::Lost(_) => Self::later(error),
            error => Self::failed(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: IssueArgs,
    }

    fn args(line: &str) -> IssueArgs {
        Line::try_parse_from(std::iter::once("issue").chain(line.split(' '))).expect(line).args
    }

    #[test]
    fn a_name_that_no_certificate_can_have_is_wrong_usage() {
        let failure = run(&args("not_a_host.test"), Config::embedded().expect("the defaults")).expect_err("no host name");
        assert_eq!(failure.exit_code(), 2, "{failure}");
    }

    #[test]
    fn a_ca_without_a_known_staging_directory_is_wrong_usage() {
        let line = args("--staging --directory https://ca.test/directory example.com");
        let failure = run(&line, Config::embedded().expect("the defaults")).expect_err("no staging directory");
        assert_eq!(failure.exit_code(), 2, "{failure}");
        assert!(failure.to_string().starts_with("--staging: "), "{failure}");
    }
}
