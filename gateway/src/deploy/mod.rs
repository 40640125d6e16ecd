//! Where certificates go, and who learns of it.
//!
//! ```text
//!  certificate ──▶ files ──▶ Kubernetes Secrets ──▶ (all stored?) ──▶ commands, HTTP hooks, signals, systemd, Deployments
//! ```
//!
//! - **The files come first**: from then on the certificate cannot be lost, whatever fails after them.
//! - **Everything is stored that can be**: a store that fails does not keep the others from it.
//! - **Nobody is told of what is not there**: notifications go out only if every store holds the certificate, in the order in which they were asked for. All of them go, though one
//!   fails.
//! - **It may be done again**: every step leads to the same end however often it is taken, so a deployment that failed is repeated as a whole, and nothing is issued for
//!   it.
//!
//! What failed is told together, at the end ([`Report`]).
//!
//! What is asked for is data of the configuration ([`Deployment`] and what it is made of); here it is done.

mod command;
mod error;
mod files;
mod hook;
mod pkcs12;
mod reload;
mod secret;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use tokio_util::sync::CancellationToken;

pub use error::{DeployError, Ended};
pub use files::{Part, Prepared, Written};

pub use crate::config::deployment::{
    BadCommand, BadHookUrl, BadMode, BadOwner, BadPassword, BadPlace, BadSignal, BadUnit, CaCertificate, Command, Deployment, Files, Hook,
    HookContent, HookUrl, KeyMode, Layout, NoSecret, Notification, Owner, Password, Place, Reload, SecretSource, SignalName, TlsSecret,
};
use crate::{issuer::Issued, kubernetes::Cluster};

/// How a deployment went.
#[derive(Debug, Default)]
pub struct Report {
    /// The files that are in place.
    pub written: Vec<Written>,
    /// What else was done, one sentence each.
    pub done: Vec<String>,
    /// What failed: what it was, and why.
    pub failures: Vec<(String, DeployError)>,
    /// Who was not told, because not every store holds the certificate, or because of an order to stop.
    pub untold: Vec<String>,
}

impl Deployment {
    /// Takes all steps. `cluster` is the one of the Secrets and Deployments. Cancelling `stop` ends a command that runs, and starts no other; what is stored by then
    /// stays.
    pub async fn run(&self, issued: &Arc<Issued>, cluster: Option<&Cluster>, stop: &CancellationToken) -> Report {
        let mut report = Report::default();
        for files in &self.files {
            let written = write(files.clone(), issued.clone()).await;
            report.take(files, written, |report, written| report.written.push(written));
        }
        for secret in &self.secrets {
            let applied = match cluster {
                Some(cluster) => secret.apply(cluster, issued).await,
                None => Err(DeployError::NoCluster),
            };
            report.take(secret, applied, |report, ()| report.done.push(format!("wrote the {secret}")));
        }
        let stored = report.failures.is_empty();
        let event = Event { name: &self.name, issued, written: &report.written.clone() };
        for notification in &self.notifications {
            if stored && !stop.is_cancelled() {
                let told = event.tell(notification, cluster, stop).await;
                report.take(notification, told, |report, said| report.done.push(said));
            } else {
                report.untold.push(notification.to_string());
            }
        }
        report
    }
}

impl Report {
    /// Whether everything was done.
    pub fn succeeded(&self) -> bool {
        self.failures.is_empty() && self.untold.is_empty()
    }

    /// The folders that hold the certificate.
    pub fn folders(&self) -> impl Iterator<Item = &PathBuf> {
        self.written.iter().map(|written| &written.folder)
    }

    fn take<T>(&mut self, what: &impl fmt::Display, outcome: Result<T, DeployError>, went_well: impl FnOnce(&mut Self, T)) {
        match outcome {
            Ok(outcome) => {
                tracing::info!(%what, "deployed");
                went_well(self, outcome);
            }
            Err(error) => {
                tracing::warn!(%what, %error, "not deployed");
                self.failures.push((what.to_string(), error));
            }
        }
    }
}

impl fmt::Display for Report {
    /// What failed and who was not told, a line each; nothing if all went well.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failures = self.failures.iter().map(|(what, error)| format!("{what}: {error}"));
        let why = if self.failures.is_empty() { "stopped before that" } else { "not everything before it was done" };
        let untold = self.untold.iter().map(|what| format!("{what}: not done, {why}"));
        let lines: Vec<_> = failures.chain(untold).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// What there is to tell.
struct Event<'a> {
    name: &'a str,
    issued: &'a Issued,
    written: &'a [Written],
}

impl Event<'_> {
    /// Says what was done.
    async fn tell(&self, whom: &Notification, cluster: Option<&Cluster>, stop: &CancellationToken) -> Result<String, DeployError> {
        match whom {
            Notification::Command(command) => command.run(&command::variables(self), stop).await.map(|()| format!("ran {command}")),
            Notification::Hook(hook) => hook.call(self, stop).await.map(|()| format!("told the {hook}")),
            Notification::Reload(reload) => reload.run(cluster, stop).await,
        }
    }
}

fn rfc3339(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map(|time| time.strftime("%FT%TZ").to_string()).unwrap_or_default()
}

/// As a program elsewhere needs it.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// It waits for the disk.
async fn write(files: Files, issued: Arc<Issued>) -> Result<Written, DeployError> {
    match tokio::task::spawn_blocking(move || files.write(&issued)).await {
        Ok(written) => written,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::issuer::Authority;

    fn sh(script: &str) -> Notification {
        Notification::Command(Command { argv: ["sh", "-c", script].map(str::to_owned).to_vec(), limit: Duration::from_secs(60) })
    }

    #[tokio::test]
    async fn all_failures_are_told_together_and_nobody_is_told_of_what_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let issued = Arc::new(Authority::new().issue(&["one.test"]));
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let mut deployment = Deployment {
            files: vec![Files::flat(file.join("out"), "one.test"), Files::flat(folder.path().join("good"), "one.test")],
            secrets: vec![TlsSecret::at("apps/one".parse().unwrap())],
            notifications: vec![sh("exit 3"), Notification::Reload(Reload::Systemd { unit: "nginx".into() }), sh("exit 4")],
            ..Deployment::default()
        };
        let stop = CancellationToken::new();
        let report = deployment.run(&issued, None, &stop).await;
        assert_eq!(report.folders().collect::<Vec<_>>(), [&folder.path().join("good")]);
        assert_eq!((report.failures.len(), report.untold.len(), report.succeeded()), (2, 3, false), "{report}");
        assert!(report.to_string().contains("not done, not everything before it was done"), "{report}");

        // Once everything is stored, all are told, though one of them fails.
        deployment.files.remove(0);
        deployment.secrets.clear();
        deployment.notifications.remove(1);
        let report = deployment.run(&issued, None, &stop).await;
        assert_eq!((report.failures.len(), report.untold.len()), (2, 0), "{report}");
        assert!(report.to_string().contains("code 3") && report.to_string().contains("code 4"), "{report}");
        stop.cancel();
        let report = deployment.run(&issued, None, &stop).await;
        assert_eq!((report.failures.len(), report.untold.len(), report.written.len()), (0, 2, 1), "{report}");
        assert!(report.to_string().contains("stopped before that"), "{report}");
    }

    #[tokio::test]
    async fn they_are_told_in_the_order_in_which_they_stand() {
        let folder = tempfile::tempdir().unwrap();
        let issued = Arc::new(Authority::new().issue(&["one.test"]));
        let heard = folder.path().join("heard");
        let note = |word: &str| sh(&format!("echo {word} $ACMEGATE_NAME >> {}", heard.display()));
        let missing = Reload::Signal { pid_file: "/no/such/file".into(), signal: SignalName::HUP };
        let deployment = Deployment {
            name: "www".into(),
            notifications: vec![note("first"), Notification::Reload(missing), note("second")],
            ..Deployment::default()
        };
        let report = deployment.run(&issued, None, &CancellationToken::new()).await;
        assert_eq!(std::fs::read_to_string(&heard).unwrap(), "first www\nsecond www\n");
        assert_eq!((report.done, report.failures.len()), (vec!["ran command sh".to_owned(), "ran command sh".to_owned()], 1));
    }
}
