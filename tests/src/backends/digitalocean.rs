//! The DigitalOcean emulator.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use async_trait::async_trait;
use emulators::digitalocean::{Right, StoredRecord};
use tempfile::TempDir;

use super::{Backend, Foreign, Servers, Stored, Stranger, ZONE, section};
use crate::{acmegate::Config, temporary_folder, write};

/// The emulated DigitalOcean with one domain on two name servers.
pub struct DigitalOcean {
    emulator: emulators::digitalocean::DigitalOcean,
    servers: Servers,
    folder: TempDir,
}

const OLD_TOKEN: &str = "dop_v1_of_the_first_hour";
const NEW_TOKEN: &str = "dop_v1_of_the_second_hour";

impl DigitalOcean {
    /// Starts it.
    pub async fn start() -> Self {
        let servers = Servers::start().await;
        let emulator = emulators::digitalocean::DigitalOcean::start(OLD_TOKEN, servers.nameservers().clone()).await;
        emulator.add_domain(ZONE);
        let folder = temporary_folder("digitalocean");
        write(&folder.path().join("token"), OLD_TOKEN);
        Self { emulator, servers, folder }
    }

    fn at<'a>(&self, owner: &'a str) -> impl Iterator<Item = StoredRecord> + use<'a> {
        self.emulator.records(ZONE).into_iter().filter(move |record| record.kind == "TXT" && absolute(&record.name) == owner)
    }
}

/// The id is part of the form: a record made anew is not the one that was there.
fn stored(record: StoredRecord) -> Stored {
    Stored { ttl: record.ttl, form: format!("{} {}", record.id, record.data), value: record.data }
}

fn absolute(name: &str) -> String {
    if name == "@" { ZONE.to_owned() } else { format!("{name}.{ZONE}") }
}

#[async_trait]
impl Backend for DigitalOcean {
    fn id(&self) -> &'static str {
        "digitalocean"
    }

    fn nameservers(&self) -> Vec<(String, IpAddr)> {
        self.servers.delegation()
    }

    fn configure(&self, config: Config) -> Config {
        let token = self.folder.path().join("token");
        section(config, "digitalocean", &format!("{{ token: {{ file: {token:?} }}, endpoint: {:?} }}", self.emulator.url()))
    }

    async fn records(&self, owner: &str) -> BTreeSet<Stored> {
        self.at(owner).map(stored).collect()
    }

    /// One listing for all of them.
    async fn records_at(&self, owners: &[String]) -> Vec<BTreeSet<Stored>> {
        let mut by_owner: BTreeMap<String, BTreeSet<Stored>> = BTreeMap::new();
        for record in self.emulator.records(ZONE).into_iter().filter(|record| record.kind == "TXT") {
            by_owner.entry(absolute(&record.name)).or_default().insert(stored(record));
        }
        owners.iter().map(|owner| by_owner.get(owner).cloned().unwrap_or_default()).collect()
    }

    /// DigitalOcean keeps a value whole, without its strings.
    async fn insert(&self, record: &Foreign) {
        self.emulator.stranger_adds(ZONE, &record.owner, "TXT", &record.value(), record.ttl);
    }

    async fn remove(&self, record: &Foreign) {
        let found = self.at(&record.owner).find(|stored| stored.data == record.value());
        self.emulator.stranger_removes(found.unwrap_or_else(|| panic!("{record:?} is not there")).id);
    }

    async fn drop_zone(&self) {
        self.emulator.remove_domain(ZONE);
    }

    async fn restore_zone(&self) {
        self.emulator.add_domain(ZONE);
    }

    async fn expire_credential(&self) {
        self.emulator.revoke(OLD_TOKEN);
    }

    async fn renew_credential(&self) {
        self.emulator.grant(NEW_TOKEN, &[Right::Account, Right::Read, Right::Write]);
        write(&self.folder.path().join("token"), NEW_TOKEN);
    }

    fn stranger(&self) -> Option<Stranger> {
        let token = "dop_v1_of_the_stranger";
        self.emulator.grant(token, &[Right::Read, Right::Write]);
        let arguments = vec![self.emulator.url(), token.to_owned(), ZONE.to_owned()];
        Some(Stranger { script: include_str!("strangers/digitalocean.py"), arguments })
    }
}
