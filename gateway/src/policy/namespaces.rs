//! What the policy has to know of namespaces.

use std::collections::BTreeMap;

/// Knows the labels of namespaces. It is asked on every attempt, so it answers from memory.
pub trait Namespaces: Send + Sync {
    /// The labels of a namespace; `None` if they are not known, or there is no such namespace.
    fn labels(&self, namespace: &str) -> Option<BTreeMap<String, String>>;
}

/// Outside of a cluster no labels are known: rules with a selector alone match nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoCluster;

impl Namespaces for NoCluster {
    fn labels(&self, _namespace: &str) -> Option<BTreeMap<String, String>> {
        None
    }
}
