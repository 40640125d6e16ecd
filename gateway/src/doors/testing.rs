//! Helpers of the doors' tests: a real engine on a data folder of its own.

use std::{path::Path, sync::Arc};

use prometheus_client::registry::Registry;
use tempfile::TempDir;

use crate::{config::Config, engine::Engine};

/// The zone that every test serves.
pub(super) const ZONE: &str = "auth.test";

/// An engine, and the folder that goes with it.
pub(super) struct Bench {
    pub(super) engine: Engine,
    pub(super) registry: Registry,
    pub(super) folder: TempDir,
}

impl Bench {
    /// Opens an engine with this much configuration more.
    pub(super) fn open(yaml: &str) -> Self {
        Self::reopen(TempDir::new().unwrap(), yaml)
    }

    /// Opens an engine on the folder of an earlier one.
    pub(super) fn reopen(folder: TempDir, yaml: &str) -> Self {
        let text = format!(
            "version: v1\ndata: {}\ndns:\n  listen: [\"127.0.0.1:0\"]\n  zones:\n    - name: {ZONE}\n      nameservers: [ns1.{ZONE}]\n      contact: hostmaster.{ZONE}\n      records: [\"ns1.{ZONE}. 3600 A 127.0.0.1\"]\n{yaml}",
            folder.path().display()
        );
        let config = Config::from_yaml(&text, Path::new("test.yaml")).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let mut registry = Registry::default();
        let engine = Engine::open(Arc::new(config), &mut registry).unwrap();
        Self { engine, registry, folder }
    }

    /// What DNS answers at an owner name.
    pub(super) fn txt(&self, owner: &str) -> Vec<String> {
        let mut values: Vec<_> = self.engine.zones.txt(&owner.parse().unwrap()).into_iter().map(String::from).collect();
        values.sort();
        values
    }

    /// The counters whose name begins so, as `/metrics` gives them.
    pub(super) fn metrics(&self, name: &str) -> Vec<String> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let mut lines: Vec<_> = text.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect();
        lines.sort();
        lines
    }
}
