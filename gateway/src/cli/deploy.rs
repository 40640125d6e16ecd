//! The options of `acmegate issue` that say where the certificate goes, and who learns of it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::{Args, ValueEnum};
use tokio_util::sync::CancellationToken;

use super::{Failure, say};
use crate::{
    config::{self, Config},
    deploy::{
        BadPassword, CaCertificate, Command, DeployError, Deployment, Files, Hook, HookUrl, KeyMode, Layout, Notification, Owner, Password,
        Place, Prepared, Reload, SecretSource, SignalName, TlsSecret,
    },
    issuer::Issued,
    kubernetes::Cluster,
};

/// Where the password of a PKCS#12 file may stand instead of a file.
const PASSWORD_VARIABLE: &str = "ACMEGATE_P12_PASSWORD";
/// Older versions that stay in the archive.
const KEEP: usize = 5;
/// Where a certificate goes whose place has become unwritable since it was ordered, in the data folder.
const UNDEPLOYED: &str = "undeployed";

/// Where the certificate goes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Where the certificate goes")]
pub(super) struct DeployArgs {
    /// The folder of its files [default: ./ and the first name, `_` for `*`, for the flat layout, and . for the others]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How they lie in it
    #[arg(long, value_name = "LAYOUT", value_enum, default_value = "flat")]
    layout: LayoutName,
    /// How many older versions stay in the archive of the live layout [default: 5]
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
    /// The file that holds the password of a PKCS#12 file [default: the environment variable ACMEGATE_P12_PASSWORD]
    #[arg(long, value_name = "FILE")]
    p12_password_file: Option<PathBuf>,
    /// Whose the files are, by name or number; takes root
    #[arg(long, value_name = "USER[:GROUP]")]
    owner: Option<Owner>,
    /// The mode of files with a key, such as 640 where a group may read it
    #[arg(long, value_name = "MODE", default_value = "600")]
    key_mode: KeyMode,
    /// A Secret of type kubernetes.io/tls, too; several may be given
    #[arg(long, value_name = "NAMESPACE/NAME")]
    secret: Vec<Place>,
    /// Put the last certificate of the chain into ca.crt of the Secrets
    #[arg(long, requires = "secret")]
    secret_ca: bool,
    /// Take Secrets over from who keeps them now
    #[arg(long, requires = "secret")]
    secret_force: bool,
    /// A command that is run when the certificate is in place, with its paths and names in variables ACMEGATE_…; words are split as a shell does it, but no shell is run; several may
    /// be given
    #[arg(long, value_name = "COMMAND", value_parser = words)]
    exec: Vec<Words>,
    /// How long each command may take
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = duration, requires = "exec")]
    exec_timeout: Duration,
    /// A URL that gets a POST with JSON when the certificate is in place: its names, when it ends, where its files are, no key; several may be given
    #[arg(long, value_name = "URL")]
    http_hook: Vec<HookUrl>,
    /// A signal to the process whose number stands in this file; HUP if none is named
    #[arg(long, value_name = "PIDFILE[:SIGNAL]", value_parser = signal)]
    signal: Vec<Reload>,
    /// Reload a unit of systemd
    #[arg(long, value_name = "UNIT", value_parser = unit)]
    systemd_reload: Vec<Reload>,
    /// Replace the pods of a Deployment, as `kubectl rollout restart` does
    #[arg(long, value_name = "NAMESPACE/NAME")]
    rollout_restart: Vec<Place>,
}

/// What stands in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LayoutName {
    /// privkey.pem, cert.pem, chain.pem and fullchain.pem
    Flat,
    /// As certbot has it: live/NAME/privkey.pem and so on, links into archive/NAME
    Live,
    /// NAME.pem with key and chain, for HAProxy
    Pem,
    /// NAME.p12 with key, certificate and chain
    Pkcs12,
}

/// A command line that was split into words.
#[derive(Debug, Clone)]
struct Words(Vec<String>);

impl DeployArgs {
    /// What is asked for, for a certificate of these names.
    ///
    /// # Errors
    /// Wrong usage.
    pub(super) fn choose(&self, names: &[String]) -> Result<Deployment, Failure> {
        let name = names.first().map_or("certificate", String::as_str).replacen('*', "_", 1);
        let folder = match (&self.out, self.layout) {
            (Some(out), _) => out.clone(),
            (None, LayoutName::Flat) => Path::new(".").join(&name),
            (None, _) => PathBuf::from("."),
        };
        let files = Files { folder, layout: self.layout()?, owner: self.owner, key_mode: self.key_mode, name };
        let ca = if self.secret_ca { CaCertificate::LastOfChain } else { CaCertificate::None };
        let secret = |place: &Place| TlsSecret { place: place.clone(), ca, force: self.secret_force };
        let commands = self.exec.iter().map(|words| Notification::Command(Command { argv: words.0.clone(), limit: self.exec_timeout }));
        let hooks = self.http_hook.iter().map(|url| Notification::Hook(Box::new(Hook::at(url.clone()))));
        let deployments = self.rollout_restart.iter().map(|place| Reload::Deployment(place.clone()));
        let reloads = self.signal.iter().chain(&self.systemd_reload).cloned().chain(deployments).map(Notification::Reload);
        Ok(Deployment {
            name: names.first().map_or("", String::as_str).into(),
            files: vec![files],
            secrets: self.secret.iter().map(secret).collect(),
            notifications: commands.chain(hooks).chain(reloads).collect(),
        })
    }

    fn layout(&self) -> Result<Layout, Failure> {
        if self.keep.is_some() && self.layout != LayoutName::Live {
            return Err(Failure::usage("--keep: only the live layout keeps older versions; add --layout live"));
        }
        if self.p12_password_file.is_some() && self.layout != LayoutName::Pkcs12 {
            return Err(Failure::usage("--p12-password-file: only a PKCS#12 file has a password; add --layout pkcs12"));
        }
        match self.layout {
            LayoutName::Flat => Ok(Layout::Flat),
            LayoutName::Live => Ok(Layout::Live { keep: self.keep.unwrap_or(KEEP) }),
            LayoutName::Pem => Ok(Layout::Pem),
            LayoutName::Pkcs12 => Ok(Layout::Pkcs12 { password: self.password()? }),
        }
    }

    /// Read now, and once: it may come through a pipe.
    fn password(&self) -> Result<SecretSource, Failure> {
        let (text, from) = match &self.p12_password_file {
            Some(file) => {
                let text = fs::read_to_string(file)
                    .map_err(|error| Failure::usage(format!("the password file {} cannot be read: {error}", file.display())))?;
                (text, format!("the file {}", file.display()))
            }
            None => {
                let text = std::env::var(PASSWORD_VARIABLE).map_err(|_| {
                    Failure::usage(format!(
                        "a PKCS#12 file needs a password: give --p12-password-file, or the environment variable {PASSWORD_VARIABLE}"
                    ))
                })?;
                (text, format!("the environment variable {PASSWORD_VARIABLE}"))
            }
        };
        let text = zeroize::Zeroizing::new(text);
        let password: Password = text.parse().map_err(|error: BadPassword| Failure::usage(format!("{from} holds {error}")))?;
        Ok(SecretSource::Text(password.expose().into()))
    }
}

/// A deployment whose places were proven before anything was ordered.
pub(super) struct Prospect {
    deployment: Deployment,
    prepared: Vec<Prepared>,
    cluster: Option<Cluster>,
    /// Where the certificate goes if it can go nowhere else.
    refuge: Files,
}

impl Prospect {
    /// Proves what can be proven: an order that cannot be written down would be wasted.
    ///
    /// # Errors
    /// What is in the way; nothing was ordered, and nothing is left.
    pub(super) async fn prepare(deployment: Deployment, config: &Config) -> Result<Self, Failure> {
        let failed = |what: &dyn std::fmt::Display, error: DeployError| Failure::failed(format!("{what}: {error}; nothing was ordered"));
        let cluster = match deployment.needs_cluster() {
            true => {
                let connected = Cluster::connect(config.kubernetes.as_ref())
                    .await
                    .map_err(DeployError::from)
                    .and_then(|cluster| cluster.ok_or(DeployError::NoCluster));
                Some(connected.map_err(|error| failed(&"Kubernetes", error))?)
            }
            false => None,
        };
        let name = deployment.files.first().map_or("certificate", |files| &files.name);
        let refuge = Files::flat(config.data.join(UNDEPLOYED).join(name), name);
        let mut prospect = Self { prepared: Vec::new(), cluster, refuge, deployment };
        for files in prospect.deployment.files.clone() {
            match files.prepare() {
                Ok(prepared) => prospect.prepared.push(prepared),
                Err(error) => {
                    prospect.forget();
                    return Err(failed(&files, error));
                }
            }
        }
        Ok(prospect)
    }

    /// Takes back what was made for nothing.
    pub(super) fn forget(self) {
        for prepared in self.prepared {
            prepared.forget();
        }
    }

    /// Deploys the certificate, and prints where it is.
    ///
    /// # Errors
    /// All that failed, and where the certificate is nevertheless.
    pub(super) async fn deploy(self, issued: Issued, stop: &CancellationToken) -> Result<(), Failure> {
        let issued = Arc::new(issued);
        let report = self.deployment.run(&issued, self.cluster.as_ref(), stop).await;
        for (_, path) in report.written.iter().flat_map(|written| &written.files) {
            say(&path.display().to_string());
        }
        for done in &report.done {
            say(done);
        }
        if report.succeeded() {
            return Ok(());
        }
        let place = match report.folders().next() {
            Some(folder) => format!("it is in {}", folder.display()),
            None => match self.refuge.write(&issued) {
                Ok(written) => format!("it was put into {} instead", written.folder.display()),
                Err(error) => format!("it is lost, since {error}"),
            },
        };
        Err(Failure::failed(format!("the certificate was issued, and {place}, but not everything was done with it:\n{report}")))
    }
}

fn words(text: &str) -> Result<Words, String> {
    Command::words(text).map(Words).map_err(|error| error.to_string())
}

fn duration(text: &str) -> Result<Duration, String> {
    config::duration::parse(text).ok_or_else(|| format!("not {}", config::duration::FORM))
}

fn signal(text: &str) -> Result<Reload, String> {
    let (file, signal) = match text.rsplit_once(':') {
        Some((file, signal)) => (file, signal.parse::<SignalName>().map_err(|error| error.to_string())?),
        None => (text, SignalName::HUP),
    };
    if file.is_empty() { Err("it names no file".into()) } else { Ok(Reload::Signal { pid_file: file.into(), signal }) }
}

fn unit(text: &str) -> Result<Reload, String> {
    Reload::systemd(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: DeployArgs,
    }

    fn parse(line: &[&str]) -> Result<DeployArgs, clap::Error> {
        Line::try_parse_from(std::iter::once("issue").chain(line.iter().copied())).map(|line| line.args)
    }

    fn chosen(line: &[&str]) -> Result<Deployment, Failure> {
        parse(line).expect("arguments").choose(&["*.example.com".into(), "example.com".into()])
    }

    #[test]
    fn without_options_a_folder_has_the_first_name() {
        let deployment = chosen(&[]).unwrap();
        let [files] = deployment.files.as_slice() else { panic!("{deployment:?}") };
        assert_eq!((files.folder.as_path(), files.name.as_str()), (Path::new("./_.example.com"), "_.example.com"));
        assert!(matches!(files.layout, Layout::Flat) && files.owner.is_none() && !deployment.needs_cluster());
        assert!(deployment.secrets.is_empty() && deployment.notifications.is_empty());
        assert_eq!(&*deployment.name, "*.example.com");
    }

    #[test]
    fn options_are_places_and_people() {
        let line = [
            "--layout",
            "live",
            "--secret",
            "apps/one",
            "--secret",
            "apps/two",
            "--secret-ca",
            "--exec",
            "'/opt/my hook' --now $HOME",
            "--exec-timeout",
            "5s",
            "--signal",
            "/run/a.pid",
            "--signal",
            "/run/b:c.pid:USR1",
            "--systemd-reload",
            "nginx",
            "--rollout-restart",
            "apps/web",
            "--http-hook",
            "https://hooks.test/x?y",
        ];
        let deployment = chosen(&line).unwrap();
        assert!(matches!(deployment.files[0].layout, Layout::Live { keep: 5 }));
        assert_eq!((deployment.files[0].folder.as_path(), deployment.secrets.len()), (Path::new("."), 2));
        assert!(deployment.secrets.iter().all(|secret| secret.ca == CaCertificate::LastOfChain && !secret.force));
        let Some(Notification::Command(command)) = deployment.notifications.first() else { panic!("{deployment:?}") };
        assert_eq!(command.argv, ["/opt/my hook", "--now", "$HOME"], "no shell");
        assert_eq!(command.limit, Duration::from_secs(5));
        let told: Vec<_> = deployment.notifications.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "command /opt/my hook",
                "HTTP hook at https://hooks.test",
                "SIGHUP to the process of /run/a.pid",
                "SIGUSR1 to the process of /run/b:c.pid",
                "systemctl reload nginx",
                "restart of the Deployment apps/web"
            ]
        );
        assert!(deployment.needs_cluster());
    }

    #[test]
    fn what_does_not_fit_together_is_wrong_usage() {
        for line in [
            ["--secret-force"].as_slice(),
            &["--secret-ca"],
            &["--exec-timeout", "5s"],
            &["--exec-timeout", "5", "--exec", "true"],
            &["--exec", "'open"],
            &["--exec", ""],
            &["--signal", "/run/a.pid:KILL"],
            &["--signal", ":HUP"],
            &["--secret", "apps"],
            &["--owner", "a:b:c"],
            &["--key-mode", "644"],
            &["--systemd-reload", "--all"],
            &["--systemd-reload=-H"],
            &["--layout", "heap"],
            &["--http-hook", "hooks.test"],
            &["--http-hook", "https://me@hooks.test/"],
        ] {
            assert!(parse(line).is_err(), "{line:?}");
        }
        for line in [
            ["--keep", "3"].as_slice(),
            &["--p12-password-file", "/dev/null"],
            &["--layout", "pkcs12", "--p12-password-file", "/dev/null"],
            &["--layout", "pkcs12", "--p12-password-file", "/no/such/file"],
        ] {
            let failure = chosen(line).expect_err("wrong usage");
            assert_eq!(failure.exit_code(), 2, "{failure}");
        }
    }

    #[tokio::test]
    async fn a_folder_made_for_nothing_goes_again() {
        let parent = tempfile::tempdir().expect("folder");
        let path = parent.path().join("new");
        let deployment = || chosen(&["--out", path.to_str().expect("text")]).expect("fits");
        let config = Config::embedded().expect("the defaults");
        Prospect::prepare(deployment(), &config).await.unwrap_or_else(|failure| panic!("{failure}")).forget();
        assert!(!path.exists());
        fs::write(&path, "").expect("written");
        let failure = Prospect::prepare(deployment(), &config).await.err().expect("a file");
        assert_eq!(failure.exit_code(), 1);
        assert!(failure.to_string().ends_with("nothing was ordered"), "{failure}");
        let nowhere = chosen(&["--secret", "apps/one"]).expect("fits");
        let failure = Prospect::prepare(nowhere, &config).await.err().expect("no cluster");
        assert!(failure.to_string().contains("there is no cluster"), "{failure}");
    }
}
