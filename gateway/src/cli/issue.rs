//! `acmegate issue`: through the `serve` that holds the data folder, or with the same engine in this process.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use clap::Args;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    Failure,
    lifecycle::{Signals, block_on, open_engine},
    progress::{Progress, line},
    say,
    tasks::Tasks,
};
use crate::{
    config::{Config, Directory, is_mail_address},
    doors::admin::{Client, ClientError},
    engine::EngineError,
    issuer::{Event, IssueError, IssueRequest, Issued, Issuer, KeyType, Names, Outcome, Rehearsal, Reporter, write_files},
    store::StoreError,
};

/// Events that wait to be shown.
const EVENTS: usize = 256;
/// How long the DNS server and the ledger of a run of our own may take to stop.
const DRAIN: Duration = Duration::from_secs(3);
/// How long backends may take to remove the values at the end.
const REMOVAL: Duration = Duration::from_secs(60);

/// What `acmegate issue` is told.
#[derive(Debug, Args)]
pub(super) struct IssueArgs {
    /// The names of the certificate, such as example.com '*.example.com'
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// The ACME directory: a name of the configuration, or an https:// URL [default: the first of the configuration]
    #[arg(long, value_name = "NAME|URL")]
    directory: Option<String>,
    /// An e-mail address for the account at the CA
    #[arg(long, value_name = "MAIL")]
    contact: Option<String>,
    /// The roots that the directory's own HTTPS uses, for a private CA
    #[arg(long, value_name = "PEM")]
    ca_file: Option<PathBuf>,
    /// Where privkey.pem, cert.pem, chain.pem and fullchain.pem go [default: ./ and the first name, `_` for `*`]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The kind of key: p256, p384, rsa2048, rsa3072 or rsa4096
    #[arg(long, value_name = "TYPE", default_value_t)]
    key_type: KeyType,
    /// Rehearse: follow the delegations, show made-up values, see them at every server, but order nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: &IssueArgs, config: Config) -> Result<(), Failure> {
    let names = Names::parse(&args.names)?;
    let request =
        IssueRequest { names: names.to_strings(), directory: directory(args, &config)?, key_type: args.key_type, dry_run: args.dry_run };
    // Before the CA is asked for anything: an order that cannot be written down would be wasted.
    let out = if args.dry_run { None } else { Some(Folder::prepare(args.out.clone().unwrap_or_else(|| default_folder(&request.names)))?) };
    let done = |outcome| match (outcome, out) {
        (Ok(Outcome::Issued(issued)), Some(out)) => finish(&issued, &out.path),
        (Ok(Outcome::Issued(_)), None) => {
            Err(Failure::failed("a certificate was issued though none was asked for; this is a defect of acmegate"))
        }
        (Ok(Outcome::Rehearsed(rehearsal)), _) => {
            report(&rehearsal);
            Ok(())
        }
        (Err(failure), out) => {
            if let Some(out) = out {
                out.forget();
            }
            Err(failure)
        }
    };
    block_on(issue(config, request, done))
}

/// The directory that the command line means.
fn directory(args: &IssueArgs, config: &Config) -> Result<Directory, Failure> {
    let known = &config.issuer.directories;
    let mut directory = match &args.directory {
        None => {
            known.first().cloned().ok_or_else(|| Failure::usage("no ACME directory: give --directory, or one under issuer.directories"))?
        }
        Some(wanted) => match known.iter().find(|one| one.name == *wanted || one.url == *wanted) {
            Some(directory) => directory.clone(),
            None if reqwest::Url::parse(wanted).is_ok_and(|url| url.scheme() == "https" && url.has_host()) => Directory::at(wanted),
            None => {
                let names = known.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(", ");
                return Err(Failure::usage(format!(
                    "--directory {wanted}: neither an https:// URL nor a name under issuer.directories (known: {names})"
                )));
            }
        },
    };
    if let Some(contact) = &args.contact {
        if !is_mail_address(contact) {
            return Err(Failure::usage(format!("--contact {contact}: not an e-mail address such as ops@example.org")));
        }
        directory.contact = Some(contact.clone());
    }
    if let Some(file) = &args.ca_file {
        directory.ca_file = Some(file.clone());
    }
    // `serve` has a working directory of its own.
    if let Some(file) = &mut directory.ca_file {
        *file =
            fs::canonicalize(&*file).map_err(|error| Failure::usage(format!("the CA file {} cannot be read: {error}", file.display())))?;
    }
    Ok(directory)
}

fn default_folder(names: &[String]) -> PathBuf {
    let first = names.first().map_or("certificate", String::as_str);
    Path::new(".").join(first.replacen('*', "_", 1))
}

/// An output folder that was proven writable.
struct Folder {
    path: PathBuf,
    made: bool,
}

impl Folder {
    fn prepare(path: PathBuf) -> Result<Self, Failure> {
        let made = !path.exists();
        let writable = fs::create_dir_all(&path).and_then(|()| tempfile::tempfile_in(&path));
        match writable {
            Ok(_) => Ok(Self { path, made }),
            Err(error) => Err(Failure::failed(format!("the folder {} cannot be written: {error}; nothing was ordered", path.display()))),
        }
    }

    /// Takes back a folder that was made for nothing.
    fn forget(self) {
        if self.made {
            // Refused by the system if there is anything in it.
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// `done` takes the outcome as soon as it is there.
async fn issue(
    config: Config,
    request: IssueRequest,
    done: impl FnOnce(Result<Outcome, Failure>) -> Result<(), Failure>,
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
    done(outcome)
}

/// Runs the engine in this process, with the embedded DNS server, which the CA has to reach.
async fn issue_here(
    config: Config,
    request: IssueRequest,
    done: impl FnOnce(Result<Outcome, Failure>) -> Result<(), Failure>,
    progress: Progress,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let config = Arc::new(config);
    let (engine, _registry) = open_engine(config.clone()).await.map_err(|error| match error {
        EngineError::Store(StoreError::Locked(text)) => Failure::later(format!(
            "{text}\nIt does not answer on its admin socket: it is starting, stopping, or another `acmegate issue`; try again when it is done"
        )),
        error => Failure::opening(&config.data, error),
    })?;
    let mut base = Tasks::default();
    if let Some(dns) = &engine.config.dns {
        let server = authdns::Server::bind(engine.zones.clone(), &dns.listen, authdns::Limits::default())
            .map_err(|error| Failure::failed(format!("{error} (the CA asks this DNS server while a certificate is issued)")))?;
        base.spawn("the DNS server", server.run(base.stop()));
    }
    base.spawn("the ledger", {
        let (engine, stop) = (engine.clone(), base.stop());
        async move { engine.run(stop).await }
    });
    let (reporter, mut events) = mpsc::channel::<Event>(EVENTS);
    let cancel = CancellationToken::new();
    let issuer = Issuer::new(engine.clone());
    let mut run = Box::pin(issuer.issue(request, Reporter::new(reporter), cancel.clone()));
    let outcome = loop {
        tokio::select! {
            biased;
            Some(event) = events.recv() => progress.show(&event),
            outcome = &mut run => break outcome.map_err(Failure::from),
            failure = base.failure() => break Err(Failure::failed(failure)),
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
    let done = done(outcome);
    let left = tokio::select! {
        left = engine.removed(REMOVAL) => left.map_err(|error| error.to_string()),
        _ = signals.next() => Err("stopped before that was known".to_owned()),
    };
    let later = "the next acmegate on this data folder goes on with it, and `acmegate sweep` shows them";
    match left {
        Ok(0) => {}
        Ok(left) => line(&format!("{left} values are still to be removed from DNS: {later}")),
        Err(why) => line(&format!("values may still have to be removed from DNS ({why}): {later}")),
    }
    base.drain(DRAIN).await;
    if tokio::time::timeout(DRAIN, engine.close()).await.is_err() {
        line("the store did not finish writing in time; what was acknowledged is on disk");
    }
    done
}

fn finish(issued: &Issued, out: &Path) -> Result<(), Failure> {
    let written = write_files(issued, out).map_err(|error| Failure::failed(format!("the certificate was issued, but {error}")))?;
    for file in written {
        say(&file.display().to_string());
    }
    say(&format!("{}: valid until {}", issued.names.join(", "), until(issued.not_after)));
    line(&format!("took {}", issued.timings));
    Ok(())
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

    fn config() -> Config {
        let text = "version: v1\nissuer:\n  directories:\n    - {name: one, url: \"https://one.test/dir\", contact: a@one.test}\n    - {name: two, url: \"https://two.test/dir\"}\n";
        Config::from_yaml(text, Path::new("test.yaml")).expect("valid")
    }

    #[test]
    fn a_directory_is_the_first_or_a_name_or_a_url() {
        let chosen = |line: &str| directory(&args(line), &config()).map(|directory| (directory.url, directory.contact));
        let contact = |mail: &str| Some(mail.to_owned());
        assert_eq!(chosen("a.test"), Ok(("https://one.test/dir".into(), contact("a@one.test"))));
        assert_eq!(chosen("a.test --directory two --contact b@two.test"), Ok(("https://two.test/dir".into(), contact("b@two.test"))));
        assert_eq!(chosen("a.test --directory https://one.test/dir"), Ok(("https://one.test/dir".into(), contact("a@one.test"))));
        assert_eq!(chosen("a.test --directory https://three.test/dir"), Ok(("https://three.test/dir".into(), None)));
    }

    #[test]
    fn what_cannot_be_is_wrong_usage() {
        for line in
            ["a.test --directory three", "a.test --directory http://a.test/", "a.test --contact nobody", "a.test --ca-file ./no-such-file"]
        {
            let failure = directory(&args(line), &config()).expect_err(line);
            assert_eq!(failure.exit_code(), 2, "{failure}");
        }
        let failure = run(&args("not_a_host.test"), config()).expect_err("no host name");
        assert_eq!(failure.exit_code(), 2, "{failure}");
    }

    #[test]
    fn a_wildcard_has_a_folder_of_its_own() {
        assert_eq!(default_folder(&["example.com".into(), "*.example.com".into()]), Path::new("./example.com"));
        assert_eq!(default_folder(&["*.example.com".into()]), Path::new("./_.example.com"));
    }

    #[test]
    fn a_folder_made_for_nothing_goes_again() {
        let parent = tempfile::tempdir().expect("folder");
        let path = parent.path().join("new");
        Folder::prepare(path.clone()).expect("writable").forget();
        assert!(!path.exists());
        fs::write(&path, "").expect("written");
        let failure = Folder::prepare(path).err().expect("a file");
        assert_eq!(failure.exit_code(), 1);
        assert!(failure.to_string().ends_with("nothing was ordered"), "{failure}");
    }
}
