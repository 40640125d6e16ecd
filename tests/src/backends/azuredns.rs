//! The Azure DNS emulator.

use std::{collections::BTreeSet, net::IpAddr};

use async_trait::async_trait;
use emulators::azuredns::{CLIENT, SECRET, SUBSCRIPTION, TENANT};
use tempfile::TempDir;

use super::{Backend, Foreign, Servers, Stored, Stranger, ZONE, section};
use crate::{acmegate::Config, temporary_folder, write};

/// A subscription with one zone on two name servers.
pub struct AzureDns {
    emulator: emulators::azuredns::AzureDns,
    servers: Servers,
    /// The zone's id.
    zone: String,
    folder: TempDir,
}

const GROUP: &str = "dns";
const NEW_SECRET: &str = "another~s3cr3t.of-the_application";

impl AzureDns {
    /// Starts it.
    pub async fn start() -> Self {
        let servers = Servers::start().await;
        let emulator = emulators::azuredns::AzureDns::start(servers.nameservers().clone()).await;
        let zone = emulator.create_zone(GROUP, ZONE);
        let folder = temporary_folder("azuredns");
        write(&folder.path().join("secret"), SECRET);
        write(&folder.path().join("ca.pem"), emulator.ca());
        Self { emulator, servers, zone, folder }
    }
}

fn chunks(record: &Foreign) -> Vec<&str> {
    record.strings.iter().map(String::as_str).collect()
}

fn relative(owner: &str) -> String {
    owner.strip_suffix(ZONE).map(|rest| rest.trim_end_matches('.')).filter(|rest| !rest.is_empty()).unwrap_or("@").to_owned()
}

#[async_trait]
impl Backend for AzureDns {
    fn id(&self) -> &'static str {
        "azuredns"
    }

    fn nameservers(&self) -> Vec<(String, IpAddr)> {
        self.servers.delegation()
    }

    fn configure(&self, config: Config) -> Config {
        let secret = self.folder.path().join("secret");
        let credential = format!("{{ client_secret: {{ tenant: {TENANT}, client_id: {CLIENT}, secret: {{ file: {secret:?} }} }} }}");
        let place = format!("authority: {url:?}, endpoint: {url:?}", url = self.emulator.url());
        section(config, "azuredns", &format!("{{ subscription: {SUBSCRIPTION}, {place}, credential: {credential} }}"))
    }

    /// The chunks are part of the form.
    async fn records(&self, owner: &str) -> BTreeSet<Stored> {
        let Some(set) = self.emulator.txt(&self.zone, &relative(owner)) else { return BTreeSet::new() };
        let ttl = u32::try_from(set.ttl).unwrap_or(u32::MAX);
        let values = self.emulator.values(&self.zone, &relative(owner));
        values.iter().map(|chunks| Stored { ttl, form: format!("{chunks:?}"), value: chunks.concat() }).collect()
    }

    async fn insert(&self, record: &Foreign) {
        self.emulator.stranger_adds(&self.zone, &relative(&record.owner), record.ttl.into(), &chunks(record));
    }

    async fn remove(&self, record: &Foreign) {
        self.emulator.stranger_removes(&self.zone, &relative(&record.owner), &chunks(record));
    }

    async fn drop_zone(&self) {
        self.emulator.delete_zone(&self.zone);
    }

    async fn restore_zone(&self) {
        self.emulator.create_zone(GROUP, ZONE);
    }

    async fn expire_credential(&self) {
        self.emulator.set_secret(Some(NEW_SECRET));
    }

    async fn renew_credential(&self) {
        write(&self.folder.path().join("secret"), NEW_SECRET);
    }

    fn stranger(&self) -> Option<Stranger> {
        let ca = self.folder.path().join("ca.pem").to_string_lossy().into_owned();
        let arguments = [self.emulator.https_url(), &ca, TENANT, CLIENT, SECRET, SUBSCRIPTION, GROUP, ZONE].map(str::to_owned).to_vec();
        Some(Stranger { script: include_str!("strangers/azuredns.py"), arguments })
    }
}
