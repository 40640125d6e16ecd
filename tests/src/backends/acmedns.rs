//! Another acme-dns: the original, emulated.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use async_trait::async_trait;
use emulators::acmedns::Account;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::{Ability, Backend, Foreign, Servers, Stored, ZONE, section};
use crate::{acmegate::Config, temporary_folder, write};

/// The emulated original; each name of a test is an account of its own.
pub struct AcmeDns {
    emulator: emulators::acmedns::AcmeDns,
    servers: Servers,
    folder: TempDir,
}

impl AcmeDns {
    /// Starts it, with one account that nobody uses.
    pub async fn start() -> Self {
        let servers = Servers::start().await;
        let emulator = emulators::acmedns::AcmeDns::start(ZONE, servers.nameservers().clone()).await;
        emulator.register();
        let backend = Self { emulator, servers, folder: temporary_folder("accounts") };
        backend.write_accounts();
        backend
    }

    /// The file of all accounts, as acme-dns clients keep it.
    fn write_accounts(&self) {
        let entry = |(number, account): (usize, Account)| {
            let Account { username, password, fulldomain, subdomain, allowfrom } = account;
            let kept = json!({"username": username, "password": password, "fulldomain": fulldomain, "subdomain": subdomain, "allowfrom": allowfrom});
            (format!("domain{number}.test"), kept)
        };
        let all: Map<String, Value> = self.emulator.accounts().into_iter().enumerate().map(entry).collect();
        write(&self.folder.path().join("accounts.json"), &Value::from(all).to_string());
    }
}

#[async_trait]
impl Backend for AcmeDns {
    fn id(&self) -> &'static str {
        "acmedns"
    }

    fn cannot(&self, ability: Ability) -> Option<&'static str> {
        match ability {
            Ability::Remove => Some("its API has no way to remove a value: a newer one pushes it out"),
            Ability::Strangers => Some("an account is one's own: two writers would push out each other's values"),
            Ability::AnyName | Ability::Apex | Ability::Wildcard => {
                Some("values stand at the names of accounts alone, which the server makes up")
            }
            Ability::Vanish => Some("its zone is its own; an account that vanishes is one that is refused"),
            Ability::Expire => None,
        }
    }

    /// The name of a new account.
    fn name(&self, _: &str) -> String {
        let account = self.emulator.register();
        self.write_accounts();
        account.fulldomain
    }

    fn nameservers(&self) -> Vec<(String, IpAddr)> {
        self.servers.delegation()
    }

    fn configure(&self, config: Config) -> Config {
        let accounts = self.folder.path().join("accounts.json");
        let nameserver: Option<SocketAddr> = self.servers.nameservers().addresses().first().copied();
        let nameserver = nameserver.unwrap_or_else(|| panic!("it has a name server")).to_string();
        let settings = format!("{{ endpoint: {:?}, accounts: {{ file: {accounts:?} }}, nameserver: {nameserver:?} }}", self.emulator.url());
        section(config, "acmedns", &settings)
    }

    fn ttl(&self) -> u32 {
        1
    }

    async fn records(&self, owner: &str) -> BTreeSet<Stored> {
        let subdomain = owner.split('.').next().unwrap_or_default();
        let rows = self.emulator.rows(subdomain).into_iter().map(|(value, _)| value).filter(|value| !value.is_empty());
        rows.map(|value| Stored { ttl: self.ttl(), form: value.clone(), value }).collect()
    }

    async fn insert(&self, record: &Foreign) {
        panic!("nobody can insert {record:?}");
    }

    async fn remove(&self, record: &Foreign) {
        panic!("nobody can remove {record:?}");
    }

    async fn drop_zone(&self) {}

    async fn restore_zone(&self) {}

    async fn expire_credential(&self) {
        for account in self.emulator.accounts() {
            self.emulator.set_password(&account.subdomain, "a-password-of-the-second-hour-and-forty-characters");
        }
    }

    async fn renew_credential(&self) {
        self.write_accounts();
    }
}
