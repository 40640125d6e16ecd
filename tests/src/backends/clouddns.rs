//! The Cloud DNS emulator.

use std::{collections::BTreeSet, net::IpAddr};

use async_trait::async_trait;
use tempfile::TempDir;

use super::{Backend, Foreign, Servers, Stored, Stranger, ZONE, decoded, section};
use crate::{acmegate::Config, temporary_folder, write};

/// A project with one managed zone on two name servers.
pub struct CloudDns {
    emulator: emulators::clouddns::CloudDns,
    servers: Servers,
    /// The zone's name in the project.
    zone: String,
    folder: TempDir,
}

const PROJECT: &str = "infra-1";

impl CloudDns {
    /// Starts it.
    pub async fn start() -> Self {
        let servers = Servers::start().await;
        let emulator = emulators::clouddns::CloudDns::start(PROJECT, servers.nameservers().clone()).await;
        let zone = emulator.add_zone(ZONE);
        let folder = temporary_folder("clouddns");
        write(&folder.path().join("key.json"), &emulator.service_account("acmegate"));
        Self { emulator, servers, zone, folder }
    }
}

#[async_trait]
impl Backend for CloudDns {
    fn id(&self) -> &'static str {
        "clouddns"
    }

    fn nameservers(&self) -> Vec<(String, IpAddr)> {
        self.servers.delegation()
    }

    fn configure(&self, config: Config) -> Config {
        let key = self.folder.path().join("key.json");
        section(config, "clouddns", &format!("{{ service_account: {{ file: {key:?} }}, endpoint: {:?} }}", self.emulator.url()))
    }

    async fn records(&self, owner: &str) -> BTreeSet<Stored> {
        let Some(rrset) = self.emulator.txt(&self.zone, owner) else { return BTreeSet::new() };
        rrset.rrdatas.iter().map(|text| Stored { ttl: rrset.ttl, form: text.clone(), value: decoded(text) }).collect()
    }

    async fn insert(&self, record: &Foreign) {
        self.emulator.stranger_adds(&self.zone, &record.owner, "TXT", record.ttl, &record.text());
    }

    async fn remove(&self, record: &Foreign) {
        self.emulator.stranger_removes(&self.zone, &record.owner, "TXT", &record.text());
    }

    async fn drop_zone(&self) {
        self.emulator.remove_zone(&self.zone);
    }

    async fn restore_zone(&self) {
        self.emulator.add_zone(ZONE);
    }

    async fn expire_credential(&self) {
        self.emulator.revoke_all();
    }

    async fn renew_credential(&self) {
        write(&self.folder.path().join("key.json"), &self.emulator.service_account("acmegate"));
    }

    fn stranger(&self) -> Option<Stranger> {
        let key = self.folder.path().join("stranger.json");
        write(&key, &self.emulator.service_account("stranger"));
        let arguments =
            vec![self.emulator.url(), key.to_string_lossy().into_owned(), PROJECT.to_owned(), self.zone.clone(), ZONE.to_owned()];
        Some(Stranger { script: include_str!("strangers/clouddns.py"), arguments })
    }
}
