//! The configuration that the program runs on: every value checked, every default filled in.
//!
//! The YAML text is read into a `Spec` and parsed into a [`Config`]; nothing past this module asks again whether a value makes sense.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use authdns::{Name, ZoneConfig};
use ipnet::IpNet;
use secrecy::SecretString;

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
    /// `/metrics`, `/healthz`, `/readyz`; `None` closes it.
    pub metrics: Option<Metrics>,
    /// The ACME directories that `issue` knows by name.
    pub issuer: Issuer,
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
    pub resolvers: Vec<SocketAddr>,
    /// Whom to ask for the values.
    pub check: Check,
    /// How long to wait for the values of one certificate.
    pub timeout: Duration,
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
    /// HTTPS addresses; loopback only until callers are authenticated.
    pub listen: Vec<SocketAddr>,
    /// Certificate files; `None` makes a self-signed certificate at each start.
    pub tls: Option<TlsFiles>,
    /// The API group.
    pub group: String,
    /// The solver's name: the resource in that group.
    pub solver: String,
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
}

/// External account binding (RFC 8555, 7.3.4).
#[derive(Debug, Clone)]
pub struct Eab {
    /// The key identifier that the CA gave.
    pub kid: String,
    /// The MAC key that the CA gave, base64url.
    pub hmac: SecretString,
}
