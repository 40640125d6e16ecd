//! Workloads that are told of a new certificate.

use std::{fs, io::Read, path::Path, time::Duration};

use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use rustix::{
    io::Errno,
    process::{Pid, kill_process},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{DeployError, Place, Reload, command::run_program, secret::MANAGER};
use crate::kubernetes::{Cluster, in_time, reasons};

/// How long systemd may take for a reload: as long as it gives a unit by default.
const SYSTEMD: Duration = Duration::from_secs(90);
/// What kubectl writes for `kubectl rollout restart`.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";
/// Bytes of a pid file; more is none.
const PID_FILE: u64 = 64;

impl Reload {
    /// Says what was done.
    pub(super) async fn run(&self, cluster: Option<&Cluster>, stop: &CancellationToken) -> Result<String, DeployError> {
        match self {
            Self::Signal { pid_file, signal } => {
                let pid = read_pid(pid_file)?;
                kill_process(pid, signal.signal()).map_err(|error| DeployError::Signal(explain(error, pid, pid_file)))?;
                Ok(format!("sent SIG{signal} to process {pid}"))
            }
            Self::Systemd { unit } => {
                let reloaded = run_program("systemctl", &["--no-ask-password", "reload", "--", unit], SYSTEMD, stop).await;
                reloaded.map_err(|error| match error {
                    DeployError::NotStarted(_) => DeployError::NotStarted(
                        "there is no systemctl on this machine, or not in the PATH: send a signal or run a command instead".into(),
                    ),
                    error => error,
                })?;
                Ok(format!("reloaded {unit}"))
            }
            Self::Deployment(place) => {
                restart(place, cluster.ok_or(DeployError::NoCluster)?).await?;
                Ok(format!("restarted the Deployment {place}"))
            }
        }
    }
}

/// The process that a file names: no group, not init, not acmegate itself.
fn read_pid(path: &Path) -> Result<Pid, DeployError> {
    let shown = path.display();
    let mut text = String::new();
    let read = fs::File::open(path).and_then(|file| file.take(PID_FILE).read_to_string(&mut text));
    read.map_err(|error| DeployError::Signal(format!("{shown} cannot be read: {error}; is the program running?")))?;
    let number = text.split_whitespace().next().and_then(|word| word.parse::<i32>().ok());
    match number {
        Some(number) if number > 1 && u32::try_from(number) != Ok(std::process::id()) => {
            Pid::from_raw(number).ok_or_else(|| DeployError::Signal(format!("{shown} names no process")))
        }
        Some(number) => Err(DeployError::Signal(format!("{shown} says {number}, which is no process to be told: it is the wrong file"))),
        None => Err(DeployError::Signal(format!("{shown} does not begin with the number of a process: it is the wrong file"))),
    }
}

fn explain(error: Errno, pid: Pid, pid_file: &Path) -> String {
    let (pid, file) = (pid.as_raw_nonzero(), pid_file.display());
    match error {
        Errno::SRCH => format!("there is no process {pid}, which {file} names: is the program running?"),
        Errno::PERM => format!("process {pid}, which {file} names, takes no signals from acmegate's user"),
        error => format!("process {pid}, which {file} names, could not be told: {error}"),
    }
}

/// Pods are made anew when their template changes: by a time in it.
async fn restart(place: &Place, cluster: &Cluster) -> Result<(), DeployError> {
    let Place { namespace, name } = place;
    let api: Api<Deployment> = Api::namespaced(cluster.client(), namespace);
    let now = jiff::Timestamp::now().strftime("%FT%TZ").to_string();
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: now}}}}});
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    match in_time(api.patch(name, &params, &Patch::Strategic(patch))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) => Err(match status.code {
            404 => DeployError::Refused(format!("there is no Deployment {place}")),
            401 | 403 => DeployError::Refused(format!(
                "acmegate's account may not restart it: give it a Role with the verb patch for the Deployment {name} in the namespace {namespace}"
            )),
            code if code == 409 || code == 429 || code >= 500 => DeployError::Unavailable(format!("it answers {code}")),
            _ => DeployError::Refused(format!("the API of the cluster refuses it: {}", status.message)),
        }),
        Ok(Err(error)) => Err(DeployError::Unavailable(reasons(&error))),
        Err(late) => Err(DeployError::Unavailable(late)),
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, process::Stdio};

    use rustix::process::Signal;

    use super::*;
    use crate::deploy::SignalName;

    async fn told(text: &str) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let pid_file = folder.path().join("pid");
        fs::write(&pid_file, text).unwrap();
        let reload = Reload::Signal { pid_file: pid_file.clone(), signal: "SIGUSR1".parse().unwrap() };
        let told = reload.run(None, &CancellationToken::new()).await;
        told.map_err(|error| error.to_string().replace(&pid_file.display().to_string(), "FILE"))
    }

    #[tokio::test]
    async fn the_process_of_a_pid_file_is_told_and_no_other() {
        let mut child = std::process::Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        assert_eq!(told(&format!("{}\n", child.id())).await, Ok(format!("sent SIGUSR1 to process {}", child.id())));
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::USR1.as_raw()));
        // Reaped: the number is nobody's.
        let gone = told(&child.id().to_string()).await.unwrap_err();
        assert_eq!(gone, format!("there is no process {}, which FILE names: is the program running?", child.id()));
        for wrong in ["0", "1", "-1", "-42", &std::process::id().to_string()] {
            assert_eq!(told(wrong).await, Err(format!("FILE says {wrong}, which is no process to be told: it is the wrong file")));
        }
        for wrong in ["", "nginx", "99999999999"] {
            assert_eq!(told(wrong).await, Err("FILE does not begin with the number of a process: it is the wrong file".into()));
        }
        let reload = Reload::Signal { pid_file: "/no/such/file".into(), signal: SignalName::HUP };
        let error = reload.run(None, &CancellationToken::new()).await.unwrap_err().to_string();
        assert!(error.starts_with("/no/such/file cannot be read: No such file"), "{error}");
    }
}
