//! Who is told of a new certificate, and how.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use reqwest::Url;
use rustix::process::Signal;

use super::{Place, SecretSource};

/// Who is told of a certificate once every store holds it.
#[derive(Debug, Clone)]
pub enum Notification {
    /// A program that is run.
    Command(Command),
    /// A URL that is called.
    Hook(Box<Hook>),
    /// A workload that reads its certificate anew.
    Reload(Reload),
}

/// A program to run.
#[derive(Debug, Clone)]
pub struct Command {
    /// The program and its arguments, as it gets them.
    pub argv: Vec<String>,
    /// How long it may take. Then its process group gets SIGTERM, and SIGKILL a little later.
    pub limit: Duration,
}

/// The text is no command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadCommand {
    /// It has no first word.
    #[error("it names no program")]
    NoProgram,
    /// The words cannot be told apart.
    #[error("a quote in it is not closed")]
    OpenQuote,
}

/// A URL that is called by POST.
#[derive(Debug, Clone)]
pub struct Hook {
    /// Where.
    pub url: HookUrl,
    /// The bearer token (RFC 6750) that is shown, if any.
    pub token: Option<SecretSource>,
    /// What is sent.
    pub send: HookContent,
    /// How long it may take, from the first byte to the last.
    pub limit: Duration,
    /// PEM of the roots that its HTTPS uses, instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// What a hook is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HookContent {
    /// That there is a certificate, its names and times, and where its files are.
    #[default]
    Event,
    /// The certificate and its chain, too.
    Certificate,
    /// The certificate, its chain and its key, too.
    Key,
}

/// The URL of a hook. It may itself be a secret: its path and query are never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct HookUrl(Url);

/// The text is no URL of a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHookUrl {
    /// No URL that can be called.
    #[error("not an http:// or https:// URL, such as https://hooks.example.org/certificates")]
    Form,
    /// It holds a user or a password.
    #[error("a URL with a user or password in it: give a bearer token by token_file or token_env instead")]
    Credentials,
}

/// Who is told, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reload {
    /// The process whose number stands in a file gets a signal.
    Signal {
        /// The file.
        pid_file: PathBuf,
        /// The signal.
        signal: SignalName,
    },
    /// `systemctl reload UNIT`.
    Systemd {
        /// The unit.
        unit: String,
    },
    /// The pods of a Deployment are replaced, as by `kubectl rollout restart`.
    Deployment(Place),
}

/// The text is no name of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no name of a unit, such as nginx or nginx.service")]
pub struct BadUnit;

/// Signals by which programs are told of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalName(&'static str);

/// The text is no such signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no signal that means a reload: HUP, USR1, USR2, INT, QUIT, TERM or WINCH")]
pub struct BadSignal;

const SIGNALS: [(&str, Signal); 7] = [
    ("HUP", Signal::HUP),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("TERM", Signal::TERM),
    ("WINCH", Signal::WINCH),
];

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(command) => command.fmt(f),
            Self::Hook(hook) => hook.fmt(f),
            Self::Reload(reload) => reload.fmt(f),
        }
    }
}

impl Command {
    /// How long a program may take if nothing is said of it.
    pub const LIMIT: Duration = Duration::from_secs(120);

    /// A command line as words, split as a shell does it.
    ///
    /// # Errors
    /// [`BadCommand`].
    pub fn words(line: &str) -> Result<Vec<String>, BadCommand> {
        let words = shlex::split(line).ok_or(BadCommand::OpenQuote)?;
        if words.first().is_some_and(|program| !program.is_empty()) { Ok(words) } else { Err(BadCommand::NoProgram) }
    }
}

impl fmt::Display for Command {
    /// The program alone: arguments may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command {}", self.argv.first().map_or("", String::as_str))
    }
}

impl Hook {
    /// How long a hook may take if nothing is said of it.
    pub const LIMIT: Duration = Duration::from_secs(10);

    /// The hook at a URL: it is told that there is a certificate, and shown no token.
    pub fn at(url: HookUrl) -> Self {
        Self { url, token: None, send: HookContent::Event, limit: Self::LIMIT, ca_file: None }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP hook at {}", self.url)
    }
}

impl HookUrl {
    /// The URL.
    pub fn as_url(&self) -> &Url {
        &self.0
    }

    /// Whether it names this machine itself.
    pub fn is_loopback(&self) -> bool {
        // The brackets of an IPv6 address stand in the URL.
        let host = self.0.host_str().unwrap_or_default().trim_matches(['[', ']']);
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Whether a secret may be sent there: nobody on the way can read it.
    pub fn is_private(&self) -> bool {
        self.0.scheme() == "https" || self.is_loopback()
    }
}

impl FromStr for HookUrl {
    type Err = BadHookUrl;

    fn from_str(text: &str) -> Result<Self, BadHookUrl> {
        let url = Url::parse(text).map_err(|_| BadHookUrl::Form)?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(BadHookUrl::Form);
        }
        if url.username().is_empty() && url.password().is_none() { Ok(Self(url)) } else { Err(BadHookUrl::Credentials) }
    }
}

impl fmt::Display for HookUrl {
    /// Scheme, host and port.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.origin().ascii_serialization())
    }
}

impl fmt::Debug for HookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HookUrl({self}/…)")
    }
}

impl Reload {
    /// `systemctl reload UNIT`.
    ///
    /// # Errors
    /// [`BadUnit`].
    pub fn systemd(unit: &str) -> Result<Self, BadUnit> {
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
        let fits = !unit.is_empty() && !unit.starts_with('-') && unit.bytes().all(letters);
        if fits { Ok(Self::Systemd { unit: unit.to_owned() }) } else { Err(BadUnit) }
    }
}

impl fmt::Display for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal { pid_file, signal } => write!(f, "SIG{signal} to the process of {}", pid_file.display()),
            Self::Systemd { unit } => write!(f, "systemctl reload {unit}"),
            Self::Deployment(place) => write!(f, "restart of the Deployment {place}"),
        }
    }
}

impl SignalName {
    /// What most programs read their certificates anew for.
    pub const HUP: Self = Self("HUP");

    /// As the system knows it.
    pub fn signal(self) -> Signal {
        SIGNALS.iter().find(|(name, _)| *name == self.0).map_or(Signal::HUP, |&(_, signal)| signal)
    }
}

impl fmt::Display for SignalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl FromStr for SignalName {
    type Err = BadSignal;

    fn from_str(text: &str) -> Result<Self, BadSignal> {
        let name = text.strip_prefix("SIG").unwrap_or(text);
        SIGNALS.iter().find(|(known, _)| *known == name).map(|&(known, _)| Self(known)).ok_or(BadSignal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_that_mean_a_reload_are_known_by_name() {
        assert_eq!("HUP".parse(), Ok(SignalName::HUP));
        assert_eq!("SIGUSR2".parse::<SignalName>().map(|signal| signal.to_string()), Ok("USR2".into()));
        for wrong in ["", "KILL", "STOP", "hup", "1"] {
            assert_eq!(wrong.parse::<SignalName>(), Err(BadSignal), "{wrong}");
        }
    }

    #[test]
    fn the_url_of_a_hook_is_never_shown_whole() {
        let url: HookUrl = "https://hooks.test:8443/s3cret?token=s3cret".parse().unwrap();
        assert_eq!(
            (url.to_string().as_str(), format!("{url:?}").as_str()),
            ("https://hooks.test:8443", "HookUrl(https://hooks.test:8443/…)")
        );
        assert!(!format!("{:?}", Hook::at(url)).contains("s3cret"));
        for wrong in ["", "hooks.test", "ftp://hooks.test/", "file:///etc/passwd", "https://", "/x"] {
            assert_eq!(wrong.parse::<HookUrl>(), Err(BadHookUrl::Form), "{wrong}");
        }
        assert_eq!("https://me@hooks.test/".parse::<HookUrl>(), Err(BadHookUrl::Credentials));
        assert_eq!("https://:s3cret@hooks.test/".parse::<HookUrl>(), Err(BadHookUrl::Credentials));
    }

    #[test]
    fn secrets_go_over_https_or_to_this_machine() {
        let private = |text: &str| text.parse::<HookUrl>().unwrap().is_private();
        for url in ["https://hooks.test/", "http://127.0.0.1:8080/x", "http://127.7.7.7/", "http://[::1]:1/", "http://localhost/"] {
            assert!(private(url), "{url}");
        }
        for url in ["http://hooks.test/", "http://10.0.0.1/", "http://localhost.test/", "http://[2001:db8::1]/", "http://127.0.0.1.test/"] {
            assert!(!private(url), "{url}");
        }
    }

    #[test]
    fn a_command_line_is_split_as_by_a_shell() {
        assert_eq!(Command::words("'/opt/my hook' --now $HOME"), Ok(["/opt/my hook", "--now", "$HOME"].map(str::to_owned).to_vec()));
        assert_eq!(Command::words("'open"), Err(BadCommand::OpenQuote));
        for wrong in ["", "  ", "''", "# nothing"] {
            assert_eq!(Command::words(wrong), Err(BadCommand::NoProgram), "{wrong}");
        }
    }

    #[test]
    fn a_unit_is_no_option() {
        assert_eq!(Reload::systemd("nginx@a.service"), Ok(Reload::Systemd { unit: "nginx@a.service".into() }));
        for wrong in ["", "-H", "--all", "a b", "a/b"] {
            assert_eq!(Reload::systemd(wrong), Err(BadUnit), "{wrong}");
        }
    }
}
