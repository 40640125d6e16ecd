//! The webhook door and the cluster that it serves, as they are written.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{OneOrMany, TlsSpec};

/// The webhook door.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct WebhookSpec {
    /// Where to listen, HTTPS: one address or a list. Loopback only, unless `callers` says who may call.
    pub listen: OneOrMany,
    /// HTTPS with these files, read again when they change. Without: a certificate of acmegate's own making.
    #[serde(default)]
    pub tls: Option<TlsSpec>,
    /// The API group: `groupName` of the cert-manager issuer.
    #[serde(default = "default_group")]
    pub group: String,
    /// The solver's name: `solverName` of the cert-manager issuer.
    #[serde(default = "default_solver")]
    pub solver: String,
    /// Without `tls`: the Kubernetes Service that leads here. acmegate makes an authority and a certificate for it, and writes the authority into the APIService (`caBundle`).
    #[serde(default)]
    pub service: Option<ServiceSpec>,
    /// Who may call. Without: anybody on this machine, and the door opens on loopback only.
    #[serde(default)]
    pub callers: Option<CallersSpec>,
    /// Which namespaces may have which names written, where, and through which backends. One rule that allows it is enough; what no rule allows is refused,
    /// so that without rules nothing is allowed. `acmegate policy test` tells what is, and why.
    ///
    /// The rule that holds without a file allows everything, for trying it on loopback. A real one gives a team its own names:
    /// `{namespaces: [team-a], names: [a.example.com]}`, and where the team's CNAMEs lead to, as its targets.
    #[serde(default)]
    pub policy: Vec<RuleSpec>,
}

/// Who may call the webhook door: one of `cluster` and `ca_file`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct CallersSpec {
    /// Whom the Kubernetes cluster knows (its API server's front-proxy certificate, its client certificates, its tokens), and lets create our resource.
    pub cluster: bool,
    /// Who has a client certificate of these roots, PEM; read at the start. For clusters that are not to be asked.
    pub ca_file: Option<PathBuf>,
    /// With `ca_file`: the common names that such a certificate may have.
    #[schemars(example = &["front-proxy-client"])]
    pub names: Vec<String>,
}

/// A Kubernetes Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ServiceSpec {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

/// The Kubernetes cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct KubernetesSpec {
    /// A kubeconfig file, outside of a pod: its current context is the cluster, and the user in it is acmegate.
    #[schemars(example = &"./kubeconfig")]
    pub kubeconfig: Option<PathBuf>,
}

/// What some namespaces may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RuleSpec {
    /// The namespaces of the issuers, by name; `*` is every one. A ClusterIssuer counts as one of cert-manager's own namespace.
    #[serde(default)]
    #[schemars(example = serde_json::json!(["team-a"]))]
    pub namespaces: Option<Vec<String>>,
    /// The namespaces by their labels, as a Kubernetes LabelSelector. Beside `namespaces`, a namespace is meant if it stands there or has these labels.
    #[serde(default)]
    #[schemars(example = serde_json::json!({ "matchLabels": { "team": "a" }, "matchExpressions": [{ "key": "stage", "operator": "In", "values": ["live"] }] }))]
    pub selector: Option<SelectorSpec>,
    /// The names that certificates may be for: `example.com` is that name and all below it, `*.example.com` what is below it alone, `*` every name.
    #[schemars(example = serde_json::json!(["a.example.com"]))]
    pub names: Vec<String>,
    /// Where values may stand once CNAMEs are followed, in the same form. A tenant could point the CNAME of its challenge name at somebody else's, so that
    /// without this only the challenge name itself and its place in an embedded zone are allowed.
    #[serde(default)]
    #[schemars(example = serde_json::json!(["a.auth.example.org"]))]
    pub targets: Option<Vec<String>>,
    /// The backends that may be used; `embedded` is the embedded zones. Default: every one.
    #[serde(default)]
    #[schemars(example = serde_json::json!(["embedded"]))]
    pub backends: Option<Vec<String>>,
    /// May the `config` of an issuer name a Secret of the issuer's own namespace.
    #[serde(default)]
    pub secrets: bool,
}

/// Namespaces by their labels. Every requirement has to be fulfilled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(in crate::config) struct SelectorSpec {
    /// Labels that have these values.
    pub match_labels: BTreeMap<String, String>,
    /// Labels that are looked at in other ways.
    pub match_expressions: Vec<RequirementSpec>,
}

/// How a label has to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RequirementSpec {
    /// The label's key.
    pub key: String,
    /// How it is looked at.
    pub operator: OperatorSpec,
    /// For `In` and `NotIn`: the values.
    #[serde(default)]
    pub values: Vec<String>,
}

/// How a label is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub(in crate::config) enum OperatorSpec {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl RuleSpec {
    /// For a door that nobody but the machine's own users reach.
    fn everything() -> Self {
        let any = || vec!["*".to_owned()];
        Self { namespaces: Some(any()), selector: None, names: any(), targets: Some(any()), backends: None, secrets: false }
    }
}

fn default_group() -> String {
    "acme.acmegate.io".to_owned()
}

fn default_solver() -> String {
    "acmegate".to_owned()
}

impl WebhookSpec {
    /// On loopback, for whoever is there: what runs without a file.
    pub(in crate::config) fn trial() -> Self {
        Self {
            listen: OneOrMany::of("127.0.0.1:8443"),
            tls: None,
            group: default_group(),
            solver: default_solver(),
            policy: vec![RuleSpec::everything()],
            service: None,
            callers: None,
        }
    }
}
