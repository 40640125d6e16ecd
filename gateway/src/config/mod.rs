//! The configuration that the program runs on: every value checked, every default filled in.
//!
//! The YAML text is read into a tree that knows its lines and columns, checked against the schema of the `Spec`, read into the `Spec`, and parsed
//! into a [`Config`]; nothing past this module asks again whether a value makes sense. Each stage reports everything that it finds.

mod account_key;
mod backends;
mod catalogue;
mod certificates;
pub mod deployment;
pub(crate) mod duration;
mod example;
mod key_type;
mod names;
mod parse;
mod policy;
mod problem;
mod shape;
mod spec;
mod tree;
mod webhook;

use std::{
    fs,
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use authdns::{Name, RecordType, StaticRecord, ZoneConfig};
use ipnet::IpNet;
use providers::{KINDS, Kind};
use secrecy::SecretString;

pub use account_key::{AccountKeyType, BadAccountKeyType};
pub use backends::{Backend, Settings};
pub use certificates::Certificate;
pub use key_type::{BadKeyType, KeyType};
pub use names::{BadName, CertName, MAX_NAMES, Names};
pub use parse::is_mail_address;
pub use problem::{ConfigError, Invalid};

use crate::policy::Policy;
use problem::Problems;
use spec::Spec;
use tree::{Node, Place};

/// Everything that one process of acmegate is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data folder: store, lock and admin socket.
    pub data: PathBuf,
    /// The embedded authoritative DNS; `None` closes it.
    pub dns: Option<Dns>,
    /// How delegations are walked and values are checked.
    pub propagation: Propagation,
    /// The acme-dns door; `None` closes it.
    pub acmedns: Option<AcmeDns>,
    /// The cert-manager webhook door; `None` closes it.
    pub webhook: Option<Webhook>,
    /// The Kubernetes cluster; `None` is the one that this process is a pod of, if it is.
    pub kubernetes: Option<Kubernetes>,
    /// `/metrics`, `/healthz`, `/readyz`; `None` closes it.
    pub metrics: Option<Metrics>,
    /// The DNS services whose zones are written, in the order of the file.
    pub backends: Vec<Backend>,
    /// The ACME directories that `issue` knows by name.
    pub issuer: Issuer,
    /// The certificates that are kept valid, in the order of the file; each name once.
    pub certificates: Vec<Certificate>,
}

/// The embedded authoritative DNS.
#[derive(Debug, Clone)]
pub struct Dns {
    /// UDP and TCP addresses.
    pub listen: Vec<SocketAddr>,
    /// The zones that it serves.
    pub zones: Vec<ZoneConfig>,
}

/// How delegations are walked and values are checked before the CA is asked to look.
#[derive(Debug, Clone)]
pub struct Propagation {
    /// Recursive resolvers; empty means the system's.
    pub resolvers: Vec<ResolverAddress>,
    /// PEM with the roots for resolvers over HTTPS; `None` is the system's.
    pub ca_file: Option<PathBuf>,
    /// Whom to ask for the values.
    pub check: Check,
    /// How long to wait for the values of one certificate.
    pub timeout: Duration,
}

/// Where a recursive resolver is asked, and over what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolverAddress {
    /// UDP, and TCP where an answer is too long for it.
    Udp(SocketAddr),
    /// TCP alone.
    Tcp(SocketAddr),
    /// HTTPS (RFC 8484), at this URL.
    Https(reqwest::Url),
}

/// Whom to ask for the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Every address of every authoritative server.
    Authoritative,
    /// The recursive resolvers.
    Recursive,
    /// Nobody: the CA is asked at once.
    None,
}

/// The acme-dns door.
#[derive(Debug, Clone)]
pub struct AcmeDns {
    /// HTTP or HTTPS addresses.
    pub listen: Vec<SocketAddr>,
    /// Certificate files, read again when they change; `None` is plain HTTP.
    pub tls: Option<TlsFiles>,
    /// The served zone in which accounts get their subdomains.
    pub zone: Name,
    /// Who may register.
    pub registration: Registration,
    /// Newest TXT values kept for one account.
    pub values: NonZeroU32,
    /// How long one value stands; `None` is for ever.
    pub lifetime: Option<Duration>,
    /// Base paths under which the API is served; `""` is none.
    pub prefixes: Vec<String>,
    /// Proxies whose client address header is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// That header.
    pub client_ip_header: String,
    /// Origins that browsers may call from; `*` is any.
    pub cors_origins: Vec<String>,
}

/// Who may register an acme-dns account.
#[derive(Debug, Clone)]
pub enum Registration {
    /// Anybody who reaches the door.
    Open,
    /// Who shows one of these tokens: as bearer token, as Basic password, or as the first segment of the path.
    Token(Vec<SecretString>),
    /// Nobody: the route does not exist.
    Closed,
}

/// A certificate chain and its key, both PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// The cert-manager webhook door.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// HTTPS addresses; loopback only if nobody is asked who they are.
    pub listen: Vec<SocketAddr>,
    /// Certificate files; `None` is a certificate of our own making.
    pub tls: Option<TlsFiles>,
    /// The API group.
    pub group: String,
    /// The solver's name: the resource in that group.
    pub solver: String,
    /// The Service that leads here, for a certificate of our own making; `None` if the certificate comes from files, or is for this machine alone.
    pub service: Option<Service>,
    /// Who may call; `None` is anybody on this machine.
    pub callers: Option<Callers>,
    /// Which namespaces may have what written.
    pub policy: Policy,
}

/// A Service of the Kubernetes cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

/// Who may call the webhook door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Callers {
    /// Whom the Kubernetes cluster knows and lets.
    Cluster,
    /// Who has a client certificate.
    Certificates {
        /// PEM of the roots that signed it.
        ca_file: PathBuf,
        /// The common names that it may have.
        names: Vec<String>,
    },
}

/// The Kubernetes cluster whose cert-manager calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubernetes {
    /// Its kubeconfig file; `None` is the pod's service account.
    pub kubeconfig: Option<PathBuf>,
}

/// `/metrics`, `/healthz`, `/readyz`.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Plain HTTP addresses.
    pub listen: Vec<SocketAddr>,
}

/// The standalone issuer.
#[derive(Debug, Clone, Default)]
pub struct Issuer {
    /// The ACME directories, the default one first.
    pub directories: Vec<Directory>,
}

/// One ACME directory (RFC 8555, 7.1.1).
#[derive(Debug, Clone)]
pub struct Directory {
    /// Its name here.
    pub name: String,
    /// Its URL, HTTPS.
    pub url: String,
    /// An e-mail address for the account.
    pub contact: Option<String>,
    /// PEM of the roots that its HTTPS uses, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// External account binding (RFC 8555, 7.3.4).
    pub eab: Option<Eab>,
    /// The kind of key that a new account gets.
    pub account_key: AccountKeyType,
    /// The CA's profile that certificates are of, where it has several.
    pub profile: Option<String>,
    /// The common name of the issuer that a chain shall end with, where the CA offers several chains.
    pub preferred_chain: Option<String>,
    /// The URL of the CA's staging directory, where everybody may rehearse.
    pub staging: Option<String>,
}

/// CAs whose staging directory is documented: the directory, and that one.
const KNOWN_STAGING: [(&str, &str); 2] = [
    ("https://acme-v02.api.letsencrypt.org/directory", "https://acme-staging-v02.api.letsencrypt.org/directory"),
    ("https://dv.acme-v02.api.pki.goog/directory", "https://dv.acme-v02.test-api.pki.goog/directory"),
];

impl Issuer {
    /// The directory at which to rehearse what shall be asked of `directory`: where one with the URL of its staging directory is listed, that one, with its own account
    /// settings.
    pub fn staging(&self, directory: &Directory) -> Option<Directory> {
        let staging = directory.staging()?;
        let listed = self.directories.iter().find(|listed| listed.url == staging.url);
        Some(listed.map_or(staging, |listed| Directory { profile: directory.profile.clone(), ..listed.clone() }))
    }
}

impl Directory {
    /// The URL of a CA's staging directory, where it is known for the URL of its directory.
    pub fn known_staging(url: &str) -> Option<&'static str> {
        KNOWN_STAGING.iter().find(|(production, _)| *production == url).map(|&(_, staging)| staging)
    }

    /// The CA's staging directory, with the settings of this one. It has chains of its own, so that none is preferred.
    pub fn staging(&self) -> Option<Self> {
        let url = self.staging.clone()?;
        Some(Self { name: format!("{} (staging)", self.name), url, staging: None, preferred_chain: None, ..self.clone() })
    }

    /// A directory of which nothing but its URL is known.
    pub fn at(url: &str) -> Self {
        Self {
            name: url.to_owned(),
            url: url.to_owned(),
            contact: None,
            ca_file: None,
            eab: None,
            account_key: AccountKeyType::default(),
            profile: None,
            preferred_chain: None,
            staging: Self::known_staging(url).map(str::to_owned),
        }
    }
}

/// External account binding (RFC 8555, 7.3.4).
#[derive(Debug, Clone)]
pub struct Eab {
    /// The key identifier that the CA gave.
    pub kid: String,
    /// The MAC key that the CA gave, base64url.
    pub hmac: SecretString,
}

impl Config {
    /// Reads a file, or gives the embedded defaults where there is none.
    ///
    /// # Errors
    /// [`ConfigError`], with everything that is wrong.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = file else { return Self::embedded() };
        let bytes = fs::read(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let text = String::from_utf8(bytes).map_err(|error| ConfigError::Unreadable {
            path: path.to_owned(),
            source: std::io::Error::new(std::io::ErrorKind::InvalidData, format!("it is not UTF-8: {error}")),
        })?;
        Self::from_yaml(&text, path)
    }

    /// What runs without a file: every door, on loopback.
    ///
    /// # Errors
    /// None in practice: a test holds the defaults valid.
    pub fn embedded() -> Result<Self, ConfigError> {
        let mut problems = Problems::default();
        parse::parse(Spec::default(), KINDS, &mut problems).ok_or_else(|| problems.into_error(Path::new("embedded defaults")))
    }

    /// Parses YAML text; `file` is its name in messages.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`], with everything that is wrong.
    pub fn from_yaml(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let mut problems = Problems::default();
        parse_yaml(text, KINDS, &mut problems).ok_or_else(|| problems.into_error(file))
    }
}

impl Config {
    /// What is allowed and yet most likely a mistake.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.zone_warnings();
        if self.webhook.as_ref().is_some_and(|webhook| webhook.policy.rules.is_empty()) {
            warnings.push("webhook.policy has no rule: the webhook door refuses every challenge; add one".to_owned());
        }
        warnings.extend(self.backend_warnings());
        warnings
    }

    fn backend_warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut written: Vec<(&Backend, &Name)> = Vec::new();
        for backend in self.backends.iter().filter(|backend| backend.is_lent()) {
            let rules = self.webhook.iter().flat_map(|webhook| &webhook.policy.rules);
            let mut allowing = rules
                .filter(|rule| rule.secrets && rule.backends.as_ref().is_none_or(|names| names.iter().any(|name| **name == *backend.name)));
            if allowing.next().is_none() {
                warnings.push(format!(
                    "the backend {} works with Secrets of issuers, and no rule of webhook.policy lets a namespace use one with it: set secrets: true in a rule",
                    backend.name
                ));
            }
        }
        let own = self.backends.iter().filter(|backend| !backend.is_lent());
        for (backend, zone) in own.flat_map(|backend| backend.zones.iter().map(move |zone| (backend, &zone.name))) {
            if self.dns.iter().flat_map(|dns| &dns.zones).any(|embedded| embedded.name == *zone) {
                let backend = &backend.name;
                warnings.push(format!(
                    "the zone {zone} stands under dns.zones and is one of the backend {backend}'s: acmegate writes it in its own DNS server only; leave it out of one of the two"
                ));
            }
            match written.iter().find(|(_, known)| *known == zone) {
                Some((first, _)) => warnings.push(format!(
                    "the zone {zone} is one of the backend {}'s and of the backend {}'s: the first is taken; leave it out of one of the two",
                    first.name, backend.name
                )),
                None => written.push((backend, zone)),
            }
        }
        warnings
    }

    fn zone_warnings(&self) -> Vec<String> {
        let is_address = |record: &StaticRecord| matches!(record.record_type(), RecordType::A | RecordType::AAAA);
        let mut warnings = Vec::new();
        for zone in self.dns.iter().flat_map(|dns| &dns.zones) {
            for server in zone.nameservers.iter().filter(|server| server.is_within(&zone.name)) {
                if !zone.records.iter().any(|record| record.owner() == server && is_address(record)) {
                    let zone = &zone.name;
                    warnings.push(format!(
                        "the name server {server} lies in the zone {zone} and has no address there: add \"{server} 3600 A <address>\" to its records"
                    ));
                }
            }
        }
        warnings
    }
}

/// The commented example file; it parses into the embedded defaults.
pub fn example() -> String {
    example_with(KINDS)
}

/// The JSON Schema (draft 2020-12) of the configuration file.
pub fn schema() -> serde_json::Value {
    schema_with(KINDS)
}

fn example_with(kinds: &[Kind]) -> String {
    let defaults = serde_json::to_value(Spec::default()).unwrap_or_default();
    example::render(&schema_with(kinds), &defaults)
}

fn schema_with(kinds: &[Kind]) -> serde_json::Value {
    let mut derived = schemars::schema_for!(Spec).to_value();
    // What a reader and an editor look for first.
    let mut schema = serde_json::Map::new();
    for key in ["$schema", "title", "description"] {
        schema.extend(derived.as_object_mut().and_then(|derived| derived.remove(key)).map(|value| (key.to_owned(), value)));
    }
    schema.extend(derived.as_object().cloned().unwrap_or_default());
    let mut schema = schema.into();
    catalogue::insert(&mut schema, kinds);
    schema
}

fn parse_yaml(text: &str, kinds: &[Kind], problems: &mut Problems) -> Option<Config> {
    let mut tree: Node = read_yaml(text, problems)?;
    if matches!(tree.value, tree::Value::Null) {
        // An empty file misses the same keys as an empty section.
        tree.value = tree::Value::Map(Box::default());
    }
    shape::check(&schema_with(kinds), &tree, problems);
    if !problems.is_empty() {
        return None;
    }
    // Most files are right: places are looked up only where something is wrong, and the tree does not stand beside all that is made of it.
    drop(tree);
    let spec: Spec = read_yaml(text, problems)?;
    let config = parse::parse(spec, kinds, problems);
    if config.is_none() {
        let tree: Node = read_yaml(text, problems)?;
        problems.locate(&tree);
    }
    config
}

fn read_yaml<T: serde::de::DeserializeOwned>(text: &str, problems: &mut Problems) -> Option<T> {
    serde_saphyr::from_str_with_options(text, limits(text))
        .map_err(|error| {
            let error = error.without_snippet();
            let place = error.location().map_or(Place::START, Place::from);
            problems.add(place, "", explain(error));
        })
        .ok()
}

/// A text may have as many nodes as it has bytes, since nothing but aliases makes more of it than that; those have limits of their own.
fn limits(text: &str) -> serde_saphyr::Options {
    let usual = serde_saphyr::Budget::default();
    let most = |usual: usize| usual.max(text.len());
    let budget = serde_saphyr::budget! {
        max_events: most(usual.max_events),
        max_nodes: most(usual.max_nodes),
        max_total_scalar_bytes: most(usual.max_total_scalar_bytes),
        max_total_comment_bytes: most(usual.max_total_comment_bytes),
    };
    serde_saphyr::options! { budget: budget }
}

/// What the YAML reader says, without the advice that it gives to programmers and without the place, which every message has in front.
fn explain(error: &serde_saphyr::Error) -> String {
    match error {
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => format!("the key {key} stands here twice"),
        serde_saphyr::Error::DuplicateMappingKey { key: None, .. } => "a key stands here twice".to_owned(),
        serde_saphyr::Error::MultipleDocuments { .. } => "a second document begins here (---); a configuration is one document".to_owned(),
        other => {
            let text = other.render_with_formatter(&serde_saphyr::UserMessageFormatter);
            text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message).to_owned()
        }
    }
}

#[cfg(test)]
mod tests;
