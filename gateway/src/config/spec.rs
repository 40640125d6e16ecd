//! The configuration as it is written in YAML.
//!
//! The doc comments here are what `acmegate config example` prints above each key and what `acmegate config schema` carries as descriptions; they
//! speak to who runs acmegate. [`Spec::default`] is what runs without a file.

mod certificates;
mod webhook;

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(super) use self::certificates::{
    CertificateSpec, ExecSpec, FilesSpec, FolderSpec, HookContentSpec, HookSpec, HttpSpec, LayoutSpec, NotifySpec, SecretSpec, SignalSpec,
    StoreSpec,
};
pub(super) use self::webhook::{CallersSpec, KubernetesSpec, OperatorSpec, RuleSpec, SelectorSpec, WebhookSpec};
use super::{Check, Settings};

/// Configuration of acmegate.
///
/// Leave a section out and its door stays closed. Relative paths count from the folder that acmegate is started in. A port may be 0: the
/// system then picks one, and `serve` prints it. An address is written `127.0.0.1:53` or `[::1]:53`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Configuration of acmegate")]
pub(super) struct Spec {
    /// The version of this format.
    pub version: Version,
    /// The data folder: database, lock and admin socket. It is made if it is not there.
    #[serde(default = "default_data")]
    pub data: PathBuf,
    /// The embedded authoritative DNS server.
    #[serde(default)]
    pub dns: Option<DnsSpec>,
    /// How `issue` follows delegations, and how it makes sure that the values are in DNS before it lets the CA look.
    #[serde(default)]
    pub propagation: PropagationSpec,
    /// The acme-dns door: the API that acme-dns clients speak (`/register`, `/update`, `/health`).
    #[serde(default)]
    pub acmedns: Option<AcmeDnsSpec>,
    /// The webhook door: a DNS-01 solver for cert-manager.
    #[serde(default)]
    pub webhook: Option<WebhookSpec>,
    /// The Kubernetes cluster whose cert-manager calls. In a pod it is found without this.
    #[serde(default)]
    pub kubernetes: Option<KubernetesSpec>,
    /// Plain HTTP with `/metrics` (OpenMetrics), `/healthz` and `/readyz`.
    #[serde(default)]
    pub metrics: Option<MetricsSpec>,
    /// DNS services whose zones acmegate writes beside its own. Each claim goes to the backend with the longest zone that encloses its name.
    ///
    /// A secret is never written here. Its key says where it is read from, each time it is needed: `{file: ./token}`, `{env: TOKEN}`, or
    /// `{kubernetes: {name: dns, key: token}}` (a key of a Secret; `namespace:` where it is not acmegate's own), or `{issuer: token}` (a key of the Secret that an issuer of
    /// cert-manager names in its `config`, for the namespaces that the policy lets do so).
    #[serde(default)]
    pub backends: Vec<BackendSpec>,
    /// The standalone issuer: `acmegate issue`, and what `certificates` have in common.
    #[serde(default)]
    pub issuer: IssuerSpec,
    /// The certificates that `acmegate serve` keeps valid.
    #[serde(default)]
    pub certificates: Vec<CertificateSpec>,
}

/// The version of this format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum Version {
    V1,
}

/// The embedded authoritative DNS server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DnsSpec {
    /// Where to listen, UDP and TCP both: one address or a list. The internet asks on port 53.
    pub listen: OneOrMany,
    /// The zones that it serves.
    pub zones: Vec<ZoneSpec>,
}

/// A zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ZoneSpec {
    /// The zone's name, as it is delegated to this server.
    pub name: String,
    /// The zone's name servers, the primary first. One whose name lies in the zone needs its addresses among the records.
    pub nameservers: Vec<String>,
    /// The mail address for the SOA record, as `hostmaster@example.org` or `hostmaster.example.org`. Default: hostmaster at the zone.
    #[serde(default)]
    #[schemars(example = &"hostmaster@example.org")]
    pub contact: Option<String>,
    /// Records that always stand in the zone, each `<owner> [<ttl>] <type> <data>`.
    #[serde(default)]
    pub records: Vec<String>,
}

/// Propagation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PropagationSpec {
    /// Recursive resolvers that delegations and CNAMEs are followed with: an address with a port (UDP, and TCP where it has to be), `tcp://` before one for
    /// TCP alone, or the `https://` URL of a resolver over HTTPS. Empty: the system's.
    pub resolvers: Vec<String>,
    /// PEM file with the roots that resolvers over HTTPS are checked against. Default: the system's.
    #[schemars(example = &"./resolver-ca.pem")]
    pub ca_file: Option<PathBuf>,
    /// Whom to ask for the values before the CA looks: every `authoritative` server, the `recursive` resolvers, or `none`.
    pub check: CheckSpec,
    /// How long to wait for the values. When it is over, nothing is sent to the CA, so that it counts no failure.
    pub timeout: String,
}

/// Whom to ask for the values before the CA looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum CheckSpec {
    Authoritative,
    Recursive,
    None,
}

/// The acme-dns door.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AcmeDnsSpec {
    /// Where to listen: one address or a list.
    pub listen: OneOrMany,
    /// HTTPS with these files, read again when they change. Without: plain HTTP.
    #[serde(default)]
    pub tls: Option<TlsSpec>,
    /// The zone in which accounts get their subdomains. Default: the first of `dns.zones`.
    #[serde(default)]
    #[schemars(example = &"auth.example.org")]
    pub zone: Option<String>,
    /// Who may register: `open` (anybody who reaches the door), `token` (who shows a token), or `closed` (nobody).
    #[serde(default = "default_registration")]
    pub registration: RegistrationSpec,
    /// For `registration: token`: a file with the tokens, one a line. A client shows one as bearer token, as Basic password, or as the first
    /// segment of the path.
    #[serde(default)]
    #[schemars(example = &"./registration-tokens")]
    pub tokens_file: Option<PathBuf>,
    /// Instead of `tokens_file`: the environment variable that holds the tokens, separated by blanks or commas.
    #[serde(default)]
    #[schemars(example = &"REGISTRATION_TOKENS")]
    pub tokens_env: Option<String>,
    /// How many TXT values are kept for one account; a new one beyond that replaces the oldest.
    #[serde(default = "default_values")]
    #[schemars(range(min = 1))]
    pub values: u32,
    /// How long one value stands, such as `24h`; `never` keeps it until newer ones replace it.
    #[serde(default = "default_lifetime")]
    pub lifetime: String,
    /// Base paths under which the API answers: `/` for `/update`, `/acme-dns` for `/acme-dns/update`.
    #[serde(default = "default_prefixes")]
    pub prefixes: Vec<String>,
    /// Networks of reverse proxies, whose `client_ip_header` is believed when an account is limited by `allowfrom`.
    #[serde(default)]
    pub trusted_proxies: Vec<String>,
    /// The header in which those proxies write the client's address.
    #[serde(default = "default_client_ip_header")]
    pub client_ip_header: String,
    /// Origins whose web pages may call the API; `*` is any.
    #[serde(default = "default_cors_origins")]
    pub cors_origins: Vec<String>,
}

/// Who may register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum RegistrationSpec {
    Open,
    Token,
    Closed,
}

/// A certificate chain and its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TlsSpec {
    /// PEM file with the chain, leaf first.
    #[schemars(example = &"./fullchain.pem")]
    pub certificate: PathBuf,
    /// PEM file with the private key.
    #[schemars(example = &"./privkey.pem")]
    pub key: PathBuf,
}

/// Metrics and health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MetricsSpec {
    /// Where to listen: one address or a list.
    pub listen: OneOrMany,
}

/// A DNS service. What `settings` takes depends on `provider`: `catalogue.rs` puts that into the schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Backend")]
pub(super) struct BackendSpec {
    /// Its name here, in logs and in metrics: lower-case letters, digits and `-`. The ledger remembers it, so that a backend that is renamed leaves
    /// what was claimed under its old name.
    #[schemars(example = &"corp-dns")]
    pub name: String,
    /// Which DNS service it is.
    pub provider: String,
    /// The zones that it may write, each as its name, or as `{name: example.org, id: Z0123}` where the credential may not list zones or several
    /// have one name. Empty: every zone that the credential can see.
    #[serde(default)]
    #[schemars(example = serde_json::json!(["example.com", { "name": "example.org", "id": "Z0123" }]))]
    pub zones: Vec<BackendZoneSpec>,
    /// The TTL of new records. A record set that stands keeps its own.
    #[serde(default = "default_ttl")]
    pub ttl: String,
    /// Instead of `propagation.check`, for the zones of this backend.
    #[serde(default)]
    #[schemars(example = &"recursive")]
    pub check: Option<CheckSpec>,
    /// How often the credential is tried, with a call that changes nothing, so that one that no longer works is known before a certificate needs it.
    #[serde(default = "default_verify")]
    pub verify: String,
    /// The provider's own settings.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub settings: Settings,
}

/// A zone by its name, or by name and identifier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(super) enum BackendZoneSpec {
    Named(String),
    Pinned(PinnedZoneSpec),
}

/// A zone whose identifier is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(super) struct PinnedZoneSpec {
    /// The zone's name.
    pub name: String,
    /// What the provider calls it.
    pub id: String,
}

/// The issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct IssuerSpec {
    /// The ACME directories that `--directory` and `certificates` know by name; the first is the default.
    pub directories: Vec<DirectorySpec>,
}

/// An ACME directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DirectorySpec {
    /// Its name here.
    pub name: String,
    /// Its URL.
    pub url: String,
    /// An e-mail address for the account.
    #[serde(default)]
    #[schemars(example = &"ops@example.org")]
    pub contact: Option<String>,
    /// PEM file with the roots that the directory's own HTTPS uses, for a private CA.
    #[serde(default)]
    #[schemars(example = &"./private-root.pem")]
    pub ca_file: Option<PathBuf>,
    /// External account binding, where the CA asks for it.
    #[serde(default)]
    pub eab: Option<EabSpec>,
    /// The kind of key that a new account gets: p256, p384, rsa2048, rsa3072, rsa4096, or ed25519 where the CA takes it. The key of an account that is there is changed by
    /// `acmegate accounts rollover`.
    #[serde(default = "default_account_key")]
    pub account_key: String,
    /// The CA's profile that certificates are of, such as `tlsserver` or `shortlived` at Let's Encrypt; the CA's own default without.
    #[serde(default)]
    #[schemars(example = &"tlsserver")]
    pub profile: Option<String>,
    /// Of several chains that the CA offers, the one that ends with a certificate of the issuer with this common name; the CA's own choice without.
    #[serde(default)]
    #[schemars(example = &"ISRG Root X1")]
    pub preferred_chain: Option<String>,
    /// The URL of the CA's staging directory, for `acmegate issue --staging` and for certificates with `dry_run: true`. Known without this for Let's Encrypt and Google Trust
    /// Services. Where a directory with this URL stands in this list, too, its own account settings are taken.
    #[serde(default)]
    #[schemars(example = &"https://acme-staging-v02.api.letsencrypt.org/directory")]
    pub staging: Option<String>,
}

fn default_account_key() -> String {
    "p256".to_owned()
}

/// External account binding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EabSpec {
    /// The key identifier that the CA gave.
    #[schemars(example = &"kid-1")]
    pub kid: String,
    /// A file with the MAC key that the CA gave, base64url.
    #[serde(default)]
    #[schemars(example = &"./eab-hmac")]
    pub hmac_file: Option<PathBuf>,
    /// Instead of `hmac_file`: the environment variable that holds it.
    #[serde(default)]
    #[schemars(example = &"EAB_HMAC")]
    pub hmac_env: Option<String>,
}

/// One text, or a list of texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn of(address: &str) -> Self {
        Self::Many(vec![address.to_owned()])
    }

    /// The texts, each with what follows the key in its path (`""`, or `[0]`, `[1]`, …).
    pub(super) fn entries(&self) -> Vec<(String, &str)> {
        match self {
            Self::One(one) => vec![(String::new(), one)],
            Self::Many(many) => many.iter().enumerate().map(|(index, one)| (format!("[{index}]"), one.as_str())).collect(),
        }
    }
}

/// What runs without a configuration file: every door, on loopback.
impl Default for Spec {
    fn default() -> Self {
        Self {
            version: Version::V1,
            data: default_data(),
            dns: Some(DnsSpec {
                listen: OneOrMany::of("127.0.0.1:5353"),
                zones: vec![ZoneSpec {
                    name: "auth.example.org".to_owned(),
                    nameservers: vec!["ns1.auth.example.org".to_owned()],
                    contact: Some("hostmaster@example.org".to_owned()),
                    records: vec!["ns1.auth.example.org. 3600 A 127.0.0.1".to_owned()],
                }],
            }),
            propagation: PropagationSpec::default(),
            acmedns: Some(AcmeDnsSpec {
                listen: OneOrMany::of("127.0.0.1:8080"),
                tls: None,
                zone: None,
                registration: default_registration(),
                tokens_file: None,
                tokens_env: None,
                values: default_values(),
                lifetime: default_lifetime(),
                prefixes: default_prefixes(),
                trusted_proxies: Vec::new(),
                client_ip_header: default_client_ip_header(),
                cors_origins: default_cors_origins(),
            }),
            webhook: Some(WebhookSpec::trial()),
            kubernetes: None,
            metrics: Some(MetricsSpec { listen: OneOrMany::of("127.0.0.1:9090") }),
            backends: Vec::new(),
            issuer: IssuerSpec::default(),
            certificates: Vec::new(),
        }
    }
}

impl From<CheckSpec> for Check {
    fn from(spec: CheckSpec) -> Self {
        match spec {
            CheckSpec::Authoritative => Self::Authoritative,
            CheckSpec::Recursive => Self::Recursive,
            CheckSpec::None => Self::None,
        }
    }
}

impl Default for PropagationSpec {
    fn default() -> Self {
        Self { resolvers: Vec::new(), ca_file: None, check: CheckSpec::Authoritative, timeout: "120s".to_owned() }
    }
}

impl Default for IssuerSpec {
    fn default() -> Self {
        Self {
            directories: vec![DirectorySpec {
                name: "letsencrypt".to_owned(),
                url: "https://acme-v02.api.letsencrypt.org/directory".to_owned(),
                contact: None,
                ca_file: None,
                eab: None,
                account_key: default_account_key(),
                profile: None,
                preferred_chain: None,
                staging: None,
            }],
        }
    }
}

fn default_data() -> PathBuf {
    "./acmegate-data".into()
}

fn default_ttl() -> String {
    "60s".to_owned()
}

fn default_verify() -> String {
    "15m".to_owned()
}

fn default_registration() -> RegistrationSpec {
    RegistrationSpec::Open
}

fn default_values() -> u32 {
    8
}

fn default_lifetime() -> String {
    "24h".to_owned()
}

fn default_prefixes() -> Vec<String> {
    vec!["/".to_owned()]
}

fn default_client_ip_header() -> String {
    "X-Forwarded-For".to_owned()
}

fn default_cors_origins() -> Vec<String> {
    vec!["*".to_owned()]
}
