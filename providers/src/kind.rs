//! What makes a provider of its settings.

use std::{fmt, sync::Arc};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::{Provider, secret::Secrets};

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

/// One kind of provider: a line of [`KINDS`](crate::KINDS).
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

impl Kind {
    /// The kind with these settings.
    pub(crate) const fn of<S: Settings>() -> Self {
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
