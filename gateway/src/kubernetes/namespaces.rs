//! The labels of the cluster's namespaces, by which rules of the policy may go.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use parking_lot::RwLock;

use super::{Cluster, reasons};
use crate::policy::Namespaces;

/// By namespace.
type Labels = HashMap<String, BTreeMap<String, String>>;

/// Knows the labels of namespaces once it is run; until then a rule with a selector means none.
#[derive(Debug, Clone, Default)]
pub struct ClusterNamespaces(Arc<RwLock<Labels>>);

impl ClusterNamespaces {
    /// Follows the namespaces for as long as it is polled. What is known holds while the API server is away.
    pub async fn run(&self, cluster: Cluster) {
        let api: Api<PartialObjectMeta<Namespace>> = Api::all(cluster.client());
        let mut events = Box::pin(watcher(api, watcher::Config::default()).default_backoff());
        let mut listed = Labels::new();
        let mut complained = false;
        while let Some(event) = events.next().await {
            let failed = event.is_err();
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(namespace)) => listed.extend(entry(namespace)),
                // Those that were deleted meanwhile are not in the list.
                Ok(Event::InitDone) => *self.0.write() = std::mem::take(&mut listed),
                Ok(Event::Apply(namespace)) => self.0.write().extend(entry(namespace)),
                Ok(Event::Delete(namespace)) => {
                    if let Some((name, _)) = entry(namespace) {
                        self.0.write().remove(&name);
                    }
                }
                Err(error) if !complained => tracing::error!(
                    reason = reasons(&error),
                    "the namespaces cannot be listed; rules of webhook.policy with a selector go by what was known before. \
                     acmegate's service account needs list and watch on namespaces"
                ),
                Err(_) => {}
            }
            complained = failed;
        }
    }
}

impl Namespaces for ClusterNamespaces {
    fn labels(&self, namespace: &str) -> Option<BTreeMap<String, String>> {
        self.0.read().get(namespace).cloned()
    }
}

fn entry(namespace: PartialObjectMeta<Namespace>) -> Option<(String, BTreeMap<String, String>)> {
    Some((namespace.metadata.name?, namespace.metadata.labels.unwrap_or_default()))
}
