//! The one table of providers: identifier, settings, constructor.

use std::{fmt, sync::Arc};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::{Provider, acmedns, azuredns, clouddns, cloudflare, digitalocean, powerdns, rfc2136, route53, secret::Secrets};

/// What every provider is built with, beside its own settings.
#[derive(Clone)]
pub struct Context {
    /// The backend's name in the configuration, for messages.
    pub backend: Arc<str>,
    /// The TTL of new RRsets, in seconds. An RRset that stands keeps its own.
    pub ttl: u32,
    /// What marks the records of this installation, where a provider can carry a mark: printable ASCII, under 80 bytes.
    pub mark: String,
    /// Where secrets are read from, each time one is needed.
    pub secrets: Arc<dyn Secrets>,
}

/// The settings of one provider, as they stand in the configuration under `settings:`; unknown keys have to be errors (`deny_unknown_fields`). Their doc
/// comments are what `acmegate config example` prints.
pub trait Settings: DeserializeOwned + JsonSchema {
    /// What `provider:` says in the configuration.
    const ID: &'static str;
    /// What people call it.
    const TITLE: &'static str;

    /// Makes the provider. Does no I/O and asks nobody: a provider that cannot be reached now may be there later.
    ///
    /// # Errors
    /// A text that says which setting is wrong and what to write instead.
    fn build(self, context: &Context) -> Result<Arc<dyn Provider>, String>;
}

/// A line of the table.
#[derive(Clone, Copy)]
pub struct Kind {
    /// What `provider:` says in the configuration.
    pub id: &'static str,
    /// What people call it.
    pub title: &'static str,
    /// The JSON Schema of its settings.
    pub schema: fn() -> serde_json::Value,
    /// Makes the provider from its settings.
    pub build: Build,
}

/// Makes a provider from its settings, as JSON; no I/O. The error says what is wrong with them.
pub type Build = fn(serde_json::Value, &Context) -> Result<Arc<dyn Provider>, String>;

/// Every provider, by identifier.
pub const KINDS: &[Kind] = &[
    Kind::of::<acmedns::Settings>(),
    Kind::of::<azuredns::Settings>(),
    Kind::of::<clouddns::Settings>(),
    Kind::of::<cloudflare::Settings>(),
    Kind::of::<digitalocean::Settings>(),
    Kind::of::<powerdns::Settings>(),
    Kind::of::<rfc2136::Settings>(),
    Kind::of::<route53::Settings>(),
];

/// The provider that `provider: ID` means.
pub fn kind(id: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.id == id)
}

impl Kind {
    /// The line of a provider.
    const fn of<S: Settings>() -> Self {
        Self {
            id: S::ID,
            title: S::TITLE,
            schema: || schemars::schema_for!(S).to_value(),
            build: |settings, context| {
                serde_json::from_value::<S>(settings).map_err(|error| error.to_string()).and_then(|settings| settings.build(context))
            },
        }
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id)
    }
}
