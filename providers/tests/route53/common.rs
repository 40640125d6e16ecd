//! A world with a Route 53, and short forms.

use std::{collections::BTreeSet, sync::Arc};

use acmegate_tests::ministack::Ministack;
use authdns::Name;
use emulators::{Nameservers, route53::Route53};
use providers::{Change, Context, Provider, Zone, secret::LocalSecrets};
use serde_json::{Value, json};

/// ministack behind a gate.
pub(crate) struct World {
    pub(crate) gate: Route53,
    folder: tempfile::TempDir,
    _ministack: Ministack,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(Nameservers::none()).await
    }

    pub(crate) async fn with(nameservers: Nameservers) -> Self {
        let ministack = Ministack::start().await;
        let gate = Route53::start(ministack.address(), nameservers).await;
        let folder = acmegate_tests::temporary_folder("route53");
        acmegate_tests::write(&folder.path().join("id"), "test\n");
        acmegate_tests::write(&folder.path().join("key"), "test\n");
        Self { gate, folder, _ministack: ministack }
    }

    /// The provider with a fixed key, through the gate.
    pub(crate) fn provider(&self) -> Arc<dyn Provider> {
        build(&self.settings(&self.gate.url()))
    }

    /// Settings with a fixed key and another endpoint.
    pub(crate) fn settings(&self, endpoint: &str) -> Value {
        let file = |name: &str| json!({"file": self.folder.path().join(name)});
        json!({"access_key_id": file("id"), "secret_access_key": file("key"), "endpoint": endpoint, "sts_endpoint": endpoint})
    }

    /// A public zone, and what the provider would say of it.
    pub(crate) async fn zone(&self, name: &str) -> Zone {
        let id = self.gate.create_zone(name, false).await;
        Zone { id, name: name.parse().expect("a name"), nameservers: BTreeSet::new() }
    }
}

/// The provider that settings make.
pub(crate) fn build(settings: &Value) -> Arc<dyn Provider> {
    let context = Context { backend: "aws".into(), ttl: 60, mark: "acmegate".to_owned(), secrets: Arc::new(LocalSecrets) };
    let kind = providers::kind("route53").expect("it is in the table");
    (kind.build)(settings.clone(), &context).expect("good settings")
}

/// The owner name of a challenge in `example.com`.
pub(crate) fn owner(label: &str) -> String {
    format!("_acme-challenge.{label}.example.com")
}

/// Texts as names.
pub(crate) fn names(texts: impl IntoIterator<Item = String>) -> Vec<Name> {
    texts.into_iter().map(|text| text.parse().expect("a name")).collect()
}

/// A change of what stands when it is applied.
pub(crate) fn change(owner: &str, add: &[&str], remove: &[&str]) -> Change {
    let values = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Change { owner: owner.parse().expect("a name"), add: values(add), remove: values(remove), version: String::new() }
}

/// The values at an owner, as the provider reads them.
pub(crate) async fn txt(provider: &dyn Provider, zone: &Zone, owner: &str) -> BTreeSet<String> {
    provider.read(zone, &names([owner.to_owned()])).await.remove(0).expect("read").values
}
