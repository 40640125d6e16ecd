//! PowerDNS by its API: Debian's server, which replaces whole RRsets, and a newer one, emulated, which adds and removes records one by one.

use std::{collections::BTreeSet, net::IpAddr};

use async_trait::async_trait;
use emulators::powerdns::{StoredRecord, StoredRrset};
use tempfile::TempDir;

use super::{Backend, Foreign, Servers, Stored, Stranger, ZONE, decoded, section};
use crate::{
    acmegate::Config,
    addresses::Address,
    bind,
    pdns::{API_KEY, Pdns, PdnsRecord},
    temporary_folder,
    updates::Updates,
    write,
};

/// A server with one zone and its API.
pub struct PowerDns {
    server: Server,
    folder: TempDir,
}

enum Server {
    Real(Pdns),
    Emulated(emulators::powerdns::PowerDns, Servers),
}

const NEW_KEY: &str = "pdns-api-key-of-the-second-hour";

impl PowerDns {
    /// Starts Debian's.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start() -> Self {
        let address = Address::reserve();
        let zone = bind::zone(ZONE, &address);
        Self::new(Server::Real(Pdns::start(address, &[(ZONE, zone)], &Updates::default()).await))
    }

    /// Starts the emulated one.
    pub async fn start_newer() -> Self {
        let servers = Servers::start().await;
        let emulator = emulators::powerdns::PowerDns::start(API_KEY, servers.nameservers().clone()).await;
        emulator.add_zone(ZONE, "Native");
        Self::new(Server::Emulated(emulator, servers))
    }

    fn new(server: Server) -> Self {
        let folder = temporary_folder("powerdns");
        write(&folder.path().join("key"), API_KEY);
        Self { server, folder }
    }

    fn api(&self) -> String {
        match &self.server {
            Server::Real(pdns) => pdns.api(),
            Server::Emulated(emulator, _) => emulator.url(),
        }
    }
}

#[async_trait]
impl Backend for PowerDns {
    fn id(&self) -> &'static str {
        match &self.server {
            Server::Real(_) => "powerdns (4.7)",
            Server::Emulated(..) => "powerdns (5.0)",
        }
    }

    fn nameservers(&self) -> Vec<(String, IpAddr)> {
        match &self.server {
            Server::Real(pdns) => vec![(format!("ns.{ZONE}"), pdns.dns().ip())],
            Server::Emulated(_, servers) => servers.delegation(),
        }
    }

    fn configure(&self, config: Config) -> Config {
        let key = self.folder.path().join("key");
        section(config, "powerdns", &format!("{{ api_key: {{ file: {key:?} }}, endpoint: {:?} }}", self.api()))
    }

    async fn records(&self, owner: &str) -> BTreeSet<Stored> {
        let stored = |ttl, form: String| Stored { ttl, value: decoded(&form), form };
        match &self.server {
            Server::Real(pdns) => pdns.records(owner).await.into_iter().map(|record| stored(record.ttl, record.content)).collect(),
            Server::Emulated(emulator, _) => {
                let rrset = emulator.txt(owner);
                rrset.records.into_iter().map(|record| stored(rrset.ttl, record.content)).collect()
            }
        }
    }

    async fn insert(&self, record: &Foreign) {
        match &self.server {
            Server::Real(pdns) => {
                let stored = PdnsRecord { content: record.text(), ttl: record.ttl, disabled: false };
                pdns.insert(ZONE, &record.owner, "TXT", &stored).await;
            }
            Server::Emulated(emulator, _) => {
                let mut rrset = emulator.txt(&record.owner);
                if rrset.records.is_empty() {
                    rrset.ttl = record.ttl;
                }
                rrset.records.push(StoredRecord { content: record.text(), disabled: false });
                emulator.stranger_writes(ZONE, &record.owner, "TXT", rrset);
            }
        }
    }

    async fn remove(&self, record: &Foreign) {
        match &self.server {
            Server::Real(pdns) => pdns.remove(&record.owner, &record.text()).await,
            Server::Emulated(emulator, _) => {
                let mut rrset: StoredRrset = emulator.txt(&record.owner);
                rrset.records.retain(|stored| decoded(&stored.content) != record.value());
                emulator.stranger_writes(ZONE, &record.owner, "TXT", rrset);
            }
        }
    }

    async fn drop_zone(&self) {
        match &self.server {
            Server::Real(pdns) => pdns.drop_zone(ZONE).await,
            Server::Emulated(emulator, _) => emulator.remove_zone(ZONE),
        }
    }

    async fn restore_zone(&self) {
        match &self.server {
            Server::Real(pdns) => pdns.restore_zone(ZONE).await,
            Server::Emulated(emulator, _) => emulator.add_zone(ZONE, "Native"),
        }
    }

    async fn expire_credential(&self) {
        match &self.server {
            Server::Real(pdns) => pdns.set_api_key(NEW_KEY).await,
            Server::Emulated(emulator, _) => emulator.set_key(NEW_KEY),
        }
    }

    async fn renew_credential(&self) {
        write(&self.folder.path().join("key"), NEW_KEY);
    }

    /// A server before 4.9.12 knows REPLACE alone: of two writers at one name, the later takes away what the other wrote since it read. Nobody can promise
    /// anything there, but who uses dynamic updates.
    fn stranger(&self) -> Option<Stranger> {
        match &self.server {
            Server::Real(_) => None,
            Server::Emulated(emulator, _) => {
                let arguments = vec![emulator.url(), API_KEY.to_owned(), ZONE.to_owned()];
                Some(Stranger { script: include_str!("strangers/powerdns.py"), arguments })
            }
        }
    }
}
