//! The certificates that are kept valid, as they are written.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::OneOrMany;

/// A certificate that is kept valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct CertificateSpec {
    /// What it is called in commands, logs, metrics and the names of files: lower-case letters, digits, `-`, `_` and `.`. A certificate that is renamed is a new one.
    #[schemars(example = &"www")]
    pub name: String,
    /// The names in it. A wildcard is for one label: `*.example.com` is not for example.com itself.
    #[schemars(example = serde_json::json!(["example.com", "*.example.com"]))]
    pub names: Vec<String>,
    /// The CA: a name among `issuer.directories`. Default: the first of them.
    #[serde(default)]
    #[schemars(example = &"letsencrypt")]
    pub directory: Option<String>,
    /// Other CAs, tried in turn when the one before is down or refuses: names among `issuer.directories`.
    #[serde(default)]
    pub fallbacks: Vec<String>,
    /// The kind of key: p256, p384, rsa2048, rsa3072 or rsa4096.
    #[serde(default = "default_key_type")]
    pub key_type: String,
    /// Keep the key when the certificate is renewed. By default each one gets a new key.
    #[serde(default)]
    pub reuse_key: bool,
    /// How long before its end it is renewed. Default: when the CA says so (ARI, RFC 9773), else when a third of its lifetime is left, or half if that is less than 10 days.
    #[serde(default)]
    #[schemars(example = &"30d")]
    pub renew_before: Option<String>,
    /// The profile of it at `directory`, instead of the one that stands there.
    #[serde(default)]
    #[schemars(example = &"tlsserver")]
    pub profile: Option<String>,
    /// The preferred chain at `directory`, instead of the one that stands there.
    #[serde(default)]
    #[schemars(example = &"ISRG Root X1")]
    pub preferred_chain: Option<String>,
    /// Rehearse: everything is done at the staging directory of `directory` (and of those of `fallbacks` that have one), and the certificate, which nobody trusts, goes
    /// nowhere.
    #[serde(default)]
    pub dry_run: bool,
    /// Where it goes, into one place or several. Without any it stays in the data folder until there is a place for it.
    #[serde(default)]
    pub store: Vec<StoreSpec>,
    /// Who learns of it, in this order, once it is in all of these places.
    #[serde(default)]
    pub notify: Vec<NotifySpec>,
}

/// A place for a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum StoreSpec {
    /// A folder. `files: ./certs` for short: privkey.pem, cert.pem, chain.pem and fullchain.pem in a folder of their own.
    Files(FilesSpec),
    /// A Secret of type kubernetes.io/tls in the cluster. `secret: apps/www` for short.
    Secret(SecretSpec),
}

/// A folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(in crate::config) enum FilesSpec {
    Folder(PathBuf),
    Full(Box<FolderSpec>),
}

/// A folder, and how a certificate lies in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct FolderSpec {
    /// The folder. It is made if it is not there.
    #[schemars(example = &"./certs")]
    pub folder: PathBuf,
    /// What stands in it. `flat`: privkey.pem, cert.pem, chain.pem and fullchain.pem. `live`: as certbot has it, live/NAME/privkey.pem and so on, links into archive/NAME;
    /// one step leads from a version to the next. `pem`: NAME.pem with key and chain, for HAProxy. `pkcs12`: NAME.p12 with key, certificate and chain.
    #[serde(default)]
    #[schemars(example = &"live")]
    pub layout: LayoutSpec,
    /// The NAME in it. Default: that of the certificate here.
    #[serde(default)]
    #[schemars(example = &"www")]
    pub name: Option<String>,
    /// For `layout: live`: how many older versions stay in the archive. Default: 5.
    #[serde(default)]
    #[schemars(example = &5)]
    pub keep: Option<u32>,
    /// Whose the files are, as USER, USER:GROUP or :GROUP, by name or number; takes root. Default: who acmegate runs as.
    #[serde(default)]
    #[schemars(example = &"www-data:ssl")]
    pub owner: Option<String>,
    /// The mode of files with a key, in quotes; `640` where a group may read them.
    #[serde(default = "default_mode")]
    #[schemars(example = &"640")]
    pub mode: String,
    /// For `layout: pkcs12`: a file with the password, read at each write.
    #[serde(default)]
    #[schemars(example = &"./p12-password")]
    pub password_file: Option<PathBuf>,
    /// Instead of `password_file`: the environment variable that holds it.
    #[serde(default)]
    #[schemars(example = &"P12_PASSWORD")]
    pub password_env: Option<String>,
}

/// What stands in a folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(in crate::config) enum LayoutSpec {
    #[default]
    Flat,
    Live,
    Pem,
    Pkcs12,
}

/// A Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(in crate::config) enum SecretSpec {
    Place(String),
    Full(TlsSecretSpec),
}

/// A Secret, and how it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct TlsSecretSpec {
    /// Which one, as NAMESPACE/NAME.
    #[schemars(example = &"apps/www")]
    pub name: String,
    /// Put the last certificate of the chain into `ca.crt`.
    #[serde(default)]
    pub ca: bool,
    /// Take the Secret over from who keeps it now.
    #[serde(default)]
    pub force: bool,
}

/// Who learns of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum NotifySpec {
    /// A command, with paths and names in its environment (`ACMEGATE_…`). `exec: /opt/hook --now` for short: words are split as a shell does it, but no shell is run.
    Exec(ExecSpec),
    /// A URL that gets a POST with JSON. `http: https://hooks.example.org/x` for short.
    Http(HttpSpec),
    /// A signal to the process whose number stands in a file. `signal: /run/haproxy.pid` for short, which is HUP.
    Signal(SignalSpec),
    /// `systemctl reload` of a unit.
    SystemdReload(#[schemars(example = &"nginx")] String),
    /// The pods of a Deployment, NAMESPACE/NAME, are replaced, as `kubectl rollout restart` does.
    RolloutRestart(#[schemars(example = &"apps/web")] String),
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(in crate::config) enum ExecSpec {
    Line(String),
    Words(Vec<String>),
    Full(CommandSpec),
}

/// A command, and how long it may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct CommandSpec {
    /// The command: one line, or a list of its words.
    #[schemars(example = &"/opt/hook --now")]
    pub command: OneOrMany,
    /// How long it may take.
    #[serde(default = "default_command_timeout")]
    pub timeout: String,
}

/// A URL that is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(in crate::config) enum HttpSpec {
    Url(String),
    Full(Box<HookSpec>),
}

/// A URL that is called, and what it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct HookSpec {
    /// The URL. It is never logged beyond its host.
    #[schemars(example = &"https://hooks.example.org/x")]
    pub url: String,
    /// A file with the bearer token that is shown, read each time. Only over https:// or to this machine.
    #[serde(default)]
    #[schemars(example = &"./hook-token")]
    pub token_file: Option<PathBuf>,
    /// Instead of `token_file`: the environment variable that holds it.
    #[serde(default)]
    #[schemars(example = &"HOOK_TOKEN")]
    pub token_env: Option<String>,
    /// What it is sent: `event` (name, names, times, and where the files are), `certificate` (and certificate and chain, PEM), or `key` (and the key, PEM; only over
    /// https:// or to this machine).
    #[serde(default)]
    pub send: HookContentSpec,
    /// How long it may take.
    #[serde(default = "default_hook_timeout")]
    pub timeout: String,
    /// PEM file with the roots that its HTTPS uses. Default: the system's.
    #[serde(default)]
    #[schemars(example = &"./hook-ca.pem")]
    pub ca_file: Option<PathBuf>,
}

/// What a hook is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(in crate::config) enum HookContentSpec {
    #[default]
    Event,
    Certificate,
    Key,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(in crate::config) enum SignalSpec {
    PidFile(PathBuf),
    Full(ProcessSpec),
}

/// A process, and the signal that it gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ProcessSpec {
    /// The file with its number.
    #[schemars(example = &"/run/haproxy.pid")]
    pub pid_file: PathBuf,
    /// The signal: HUP, USR1, USR2, INT, QUIT, TERM or WINCH.
    #[serde(default = "default_signal")]
    pub signal: String,
}

impl FilesSpec {
    /// The folder with what holds for it.
    pub(in crate::config) fn full(&self) -> FolderSpec {
        match self {
            Self::Full(full) => (**full).clone(),
            Self::Folder(folder) => FolderSpec {
                folder: folder.clone(),
                layout: LayoutSpec::default(),
                name: None,
                keep: None,
                owner: None,
                mode: default_mode(),
                password_file: None,
                password_env: None,
            },
        }
    }
}

fn default_key_type() -> String {
    "p256".to_owned()
}

fn default_mode() -> String {
    "600".to_owned()
}

fn default_command_timeout() -> String {
    "2m".to_owned()
}

fn default_hook_timeout() -> String {
    "10s".to_owned()
}

fn default_signal() -> String {
    "HUP".to_owned()
}
