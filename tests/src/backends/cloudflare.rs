//! The Cloudflare emulator.

use std::{collections::BTreeSet, net::IpAddr};

use async_trait::async_trait;
use tempfile::TempDir;

use super::{Backend, Foreign, Servers, Stored, Stranger, ZONE, decoded, section};
use crate::{acmegate::Config, temporary_folder, write};

/// The emulated Cloudflare with one zone on two name servers.
pub struct Cloudflare {
    emulator: emulators::cloudflare::Cloudflare,
    servers: Servers,
    folder: TempDir,
}

impl Cloudflare {
    /// Starts it.
    pub async fn start() -> Self {
        let servers = Servers::start().await;
        let emulator = emulators::cloudflare::Cloudflare::start(OLD_TOKEN, servers.nameservers().clone()).await;
        emulator.add_zone(ZONE);
        let folder = temporary_folder("cloudflare");
        write(&folder.path().join("token"), OLD_TOKEN);
        Self { emulator, servers, folder }
    }

    /// The emulator itself: its calls, batches and faults.
    pub fn emulator(&self) -> &emulators::cloudflare::Cloudflare {
        &self.emulator
    }

    /// Its name servers.
    pub fn servers(&self) -> &Servers {
        &self.servers
    }
}

const OLD_TOKEN: &str = "token-of-the-first-hour";
const NEW_TOKEN: &str = "token-of-the-second-hour";

#[async_trait]
impl Backend for Cloudflare {
    fn id(&self) -> &'static str {
        "cloudflare"
    }

    fn nameservers(&self) -> Vec<(String, IpAddr)> {
        self.servers.delegation()
    }

    fn configure(&self, config: Config) -> Config {
        let token = self.folder.path().join("token");
        section(config, "cloudflare", &format!("{{ token: {{ file: {token:?} }}, endpoint: {:?} }}", self.emulator.url()))
    }

    /// The id is part of the form: a record made anew is not the one that was there.
    async fn records(&self, owner: &str) -> BTreeSet<Stored> {
        let all = self.emulator.records(ZONE).into_iter().filter(|record| record.kind == "TXT" && record.name == owner);
        let stored = |record: emulators::cloudflare::StoredRecord| Stored {
            ttl: record.ttl,
            form: format!("{} {} {}", record.id, record.content, record.comment.unwrap_or_default()),
            value: decoded(&record.content),
        };
        all.map(stored).collect()
    }

    async fn insert(&self, record: &Foreign) {
        self.emulator.stranger_adds(ZONE, &record.owner, "TXT", &record.text(), record.ttl);
    }

    async fn remove(&self, record: &Foreign) {
        let all = self.emulator.records(ZONE);
        let is_it = |stored: &&emulators::cloudflare::StoredRecord| {
            stored.kind == "TXT" && stored.name == record.owner && decoded(&stored.content) == record.value()
        };
        let found = all.iter().find(is_it).unwrap_or_else(|| panic!("{record:?} is not there"));
        self.emulator.stranger_removes(&found.id);
    }

    async fn drop_zone(&self) {
        self.emulator.remove_zone(ZONE);
    }

    async fn restore_zone(&self) {
        self.emulator.add_zone(ZONE);
    }

    async fn expire_credential(&self) {
        self.emulator.expire(OLD_TOKEN);
    }

    async fn renew_credential(&self) {
        let rights = [emulators::cloudflare::Right::ZoneRead, emulators::cloudflare::Right::DnsEdit];
        self.emulator.grant(NEW_TOKEN, &rights);
        write(&self.folder.path().join("token"), NEW_TOKEN);
    }

    fn stranger(&self) -> Option<Stranger> {
        let token = "token-of-the-stranger";
        self.emulator.grant(token, &[emulators::cloudflare::Right::ZoneRead, emulators::cloudflare::Right::DnsEdit]);
        let arguments = vec![self.emulator.url(), token.to_owned(), ZONE.to_owned()];
        Some(Stranger { script: include_str!("strangers/cloudflare.py"), arguments })
    }
}
