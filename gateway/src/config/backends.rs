//! The section `backends:`: from what is written to what is valid. A provider is built once to hear what it says of its settings.

use std::{collections::HashSet, fmt, sync::Arc, time::Duration};

use authdns::Name;
use providers::{
    Context, Kind, Provider,
    secret::{LocalSecrets, SecretRef},
    zones::Allowed,
};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{
    Check,
    parse::Parser,
    spec::{BackendSpec, BackendZoneSpec},
};

/// Longest name: it becomes a metric label and a part of keys.
const LONGEST_NAME: usize = 63;
/// The longest TTL that makes sense for values that stand for minutes.
const LONGEST_TTL: Duration = Duration::from_secs(86_400);
/// More often would only use up the provider's limit.
const SHORTEST_VERIFY: Duration = Duration::from_secs(10);

/// A DNS service whose zones acmegate writes.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Its name, unique.
    pub name: Arc<str>,
    /// What it is.
    pub kind: Kind,
    /// The zones that it may write; empty is every zone that the credential can see.
    pub zones: Vec<Allowed>,
    /// The TTL of new RRsets, in seconds.
    pub ttl: u32,
    /// Whom to ask for its values, instead of [`super::Propagation::check`].
    pub check: Option<Check>,
    /// How often its credential is tried.
    pub verify: Duration,
    /// The provider's own settings.
    pub settings: Settings,
}

impl Backend {
    /// True if it works with Secrets that issuers name, and has no credential of its own.
    pub fn is_lent(&self) -> bool {
        self.settings.secrets().iter().any(|(_, secret)| matches!(secret, SecretRef::Issuer(_)))
    }

    /// Makes the provider. It asks nobody.
    ///
    /// # Errors
    /// A text that says which setting is wrong and what to write instead.
    pub fn build(&self, context: &Context) -> Result<Arc<dyn Provider>, String> {
        (self.kind.build)(self.settings.0.clone(), context)
    }
}

/// The provider's own settings. They say where secrets are and not what they are; all the same only the keys are printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Settings(Json);

impl Settings {
    /// Where each secret is read from: its key, and the place.
    pub fn secrets(&self) -> Vec<(String, SecretRef)> {
        let mut found = Vec::new();
        collect_secrets(&self.0, "", &mut found);
        found
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self(Json::Object(serde_json::Map::new()))
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.as_object().into_iter().flat_map(|entries| entries.keys())).finish()
    }
}

/// A reference to a secret is known by its form.
fn collect_secrets(value: &Json, path: &str, found: &mut Vec<(String, SecretRef)>) {
    if let Ok(secret) = serde_json::from_value(value.clone()) {
        found.push((path.to_owned(), secret));
        return;
    }
    match value {
        Json::Object(entries) => entries.iter().for_each(|(key, below)| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            collect_secrets(below, &path, found);
        }),
        Json::Array(items) => items.iter().enumerate().for_each(|(index, item)| collect_secrets(item, &format!("{path}[{index}]"), found)),
        _ => {}
    }
}

impl Parser<'_> {
    pub(super) fn backends(&mut self, specs: &[BackendSpec]) -> Option<Vec<Backend>> {
        let backends: Vec<_> = specs.iter().enumerate().map(|(index, spec)| self.backend(spec, &format!("backends[{index}]"))).collect();
        let mut seen = HashSet::new();
        for (index, spec) in specs.iter().enumerate() {
            if !seen.insert(&spec.name) {
                self.wrong(&format!("backends[{index}].name"), format!("{:?} stands here twice", spec.name));
            }
        }
        backends.into_iter().collect()
    }

    fn backend(&mut self, spec: &BackendSpec, path: &str) -> Option<Backend> {
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !(1..=LONGEST_NAME).contains(&spec.name.len()) || !spec.name.bytes().all(letter) {
            let message = format!("{:?} is not a name such as corp-dns (1 to {LONGEST_NAME} lower-case letters, digits and -)", spec.name);
            self.wrong(&format!("{path}.name"), message);
        } else if spec.name == "embedded" {
            self.wrong(&format!("{path}.name"), "\"embedded\" is the name of the zones under dns.zones: choose another");
        }
        let zones = self.backend_zones(&spec.zones, &format!("{path}.zones"));
        let ttl = self.duration(&spec.ttl, &format!("{path}.ttl"));
        let whole = |ttl: &Duration| ttl.subsec_nanos() == 0 && (1..=LONGEST_TTL.as_secs()).contains(&ttl.as_secs());
        if ttl.is_some_and(|ttl| !whole(&ttl)) {
            self.wrong(&format!("{path}.ttl"), format!("{:?} is not a TTL from 1s to 24h, in whole seconds", spec.ttl));
        }
        let verify = self.duration(&spec.verify, &format!("{path}.verify"));
        if verify.is_some_and(|every| every < SHORTEST_VERIFY) {
            self.wrong(&format!("{path}.verify"), format!("{:?} is shorter than 10s, and would use up the provider's limit", spec.verify));
        }
        let Some(kind) = self.kinds.iter().find(|kind| kind.id == spec.provider).copied() else {
            let known = self.kinds.iter().map(|kind| kind.id).collect::<Vec<_>>().join(", ");
            self.wrong(&format!("{path}.provider"), format!("{:?} is not known; known: {known}", spec.provider));
            return None;
        };
        let backend = Backend {
            name: spec.name.as_str().into(),
            kind,
            zones: zones?,
            ttl: u32::try_from(ttl?.as_secs()).ok()?,
            check: spec.check.map(Into::into),
            verify: verify?,
            settings: spec.settings.clone(),
        };
        self.issuer_keys(&backend, &format!("{path}.settings"));
        self.try_to_build(&backend, &format!("{path}.settings"));
        Some(backend)
    }

    /// The keys of issuers' Secrets, as Kubernetes has keys of Secrets.
    fn issuer_keys(&mut self, backend: &Backend, path: &str) {
        let good = |key: &str| (1..=253).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        for (setting, secret) in backend.settings.secrets() {
            if let SecretRef::Issuer(key) = secret
                && !good(&key)
            {
                let message = format!("{key:?} is not a key of a Secret, such as token: 1 to 253 letters, digits, -, _ and .");
                self.wrong(&format!("{path}.{setting}.issuer"), message);
            }
        }
    }

    fn backend_zones(&mut self, specs: &[BackendZoneSpec], path: &str) -> Option<Vec<Allowed>> {
        let mut zones: Vec<Option<Allowed>> = Vec::new();
        for (index, spec) in specs.iter().enumerate() {
            let (text, id, at) = match spec {
                BackendZoneSpec::Named(name) => (name, None, format!("{path}[{index}]")),
                BackendZoneSpec::Pinned(zone) => (&zone.name, Some(zone.id.clone()), format!("{path}[{index}].name")),
            };
            if id.as_ref().is_some_and(String::is_empty) {
                self.wrong(&format!("{path}[{index}].id"), "is empty: leave it out to have the zone looked up by its name");
            }
            let name = self.name(text, &at);
            if let Some(name) = &name {
                if *name == Name::root() {
                    self.wrong(&at, "the root cannot be written");
                }
                if zones.iter().flatten().any(|zone| zone.name == *name) {
                    self.wrong(&at, format!("the zone {name} stands here twice"));
                }
            }
            zones.push(name.map(|name| Allowed { name, id }));
        }
        zones.into_iter().collect()
    }

    /// What no schema says: an endpoint that is no URL, keys that exclude each other, a file that is not there.
    fn try_to_build(&mut self, backend: &Backend, path: &str) {
        let context =
            Context { backend: backend.name.clone(), ttl: backend.ttl, mark: "acmegate".to_owned(), secrets: Arc::new(LocalSecrets) };
        // Some vendors' libraries start a task when they are made, which needs a runtime to be there.
        let built = match tokio::runtime::Handle::try_current() {
            Ok(_) => backend.build(&context),
            Err(_) => match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => {
                    let _inside = runtime.enter();
                    backend.build(&context)
                }
                Err(error) => Err(format!("the runtime cannot start: {error}")),
            },
        };
        if let Err(message) = built {
            // Most begin with the key that they are about.
            let key = message.split_once(": ").map(|(key, _)| key).filter(|key| backend.settings.0.get(key).is_some());
            match key.and_then(|key| message.strip_prefix(key)?.strip_prefix(": ").map(|rest| (key, rest))) {
                Some((key, rest)) => self.wrong(&format!("{path}.{key}"), rest),
                None => self.wrong(path, message),
            }
        }
    }
}

#[cfg(test)]
mod tests;
