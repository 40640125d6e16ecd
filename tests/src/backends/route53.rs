//! Route 53: ministack behind the gate that adds what it lacks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use async_trait::async_trait;
use emulators::route53::RecordSet;
use parking_lot::Mutex;
use tempfile::TempDir;

use super::{Backend, Foreign, Servers, Stored, Stranger, ZONE, decoded, section};
use crate::{acmegate::Config, ministack::Ministack, temporary_folder, write};

/// An account with one hosted zone on two name servers.
pub struct Route53 {
    gate: emulators::route53::Route53,
    servers: Servers,
    zone: Mutex<String>,
    folder: TempDir,
    _ministack: Ministack,
}

const OLD_KEY: &str = "AKIAOFTHEFIRSTHOUR00";
const NEW_KEY: &str = "AKIAOFTHESECONDHOUR0";
const SECRET: &str = "the-secret-of-a-key";

impl Route53 {
    /// Starts it, with the account's five requests a second.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start() -> Self {
        let (ministack, servers) = (Ministack::start().await, Servers::start().await);
        let gate = emulators::route53::Route53::start(ministack.address(), servers.nameservers().clone()).await;
        gate.limit_rate(true);
        let zone = Mutex::new(gate.create_zone(ZONE, false).await);
        let folder = temporary_folder("route53");
        write(&folder.path().join("key"), OLD_KEY);
        write(&folder.path().join("secret"), SECRET);
        Self { gate, servers, zone, folder, _ministack: ministack }
    }

    /// The id and the secret of the key that acmegate has.
    pub fn key(&self) -> (&'static str, &'static str) {
        (OLD_KEY, SECRET)
    }

    /// The gate itself: its calls and faults.
    pub fn gate(&self) -> &emulators::route53::Route53 {
        &self.gate
    }

    /// The name servers.
    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    fn zone(&self) -> String {
        self.zone.lock().clone()
    }

    /// The RRset at an owner with its values changed; it shares one TTL.
    async fn change(&self, record: &Foreign, change: impl FnOnce(&mut Vec<String>)) {
        let zone = self.zone();
        let (ttl, mut values) = self.gate.txt(&zone, &record.owner).await.unwrap_or((record.ttl, Vec::new()));
        change(&mut values);
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        self.gate.stranger(&zone, RecordSet::txt(&record.owner, ttl, &values)).await;
    }
}

#[async_trait]
impl Backend for Route53 {
    fn id(&self) -> &'static str {
        "route53"
    }

    fn nameservers(&self) -> Vec<(String, IpAddr)> {
        self.servers.delegation()
    }

    fn configure(&self, config: Config) -> Config {
        let file = |name: &str| self.folder.path().join(name);
        let keys = format!("access_key_id: {{ file: {:?} }}, secret_access_key: {{ file: {:?} }}", file("key"), file("secret"));
        section(config, "route53", &format!("{{ {keys}, endpoint: {:?} }}", self.gate.url()))
    }

    async fn records(&self, owner: &str) -> BTreeSet<Stored> {
        self.gate.txt(&self.zone(), owner).await.map(|(ttl, values)| stored(ttl, &values)).unwrap_or_default()
    }

    /// One listing for all of them: a listing each would take ministack minutes.
    async fn records_at(&self, owners: &[String]) -> Vec<BTreeSet<Stored>> {
        let sets = self.gate.records(&self.zone()).await.into_iter().filter(|set| set.kind == "TXT");
        let sets: BTreeMap<String, RecordSet> = sets.map(|set| (set.name.clone(), set)).collect();
        let at = |owner: &String| {
            let set = sets.get(&RecordSet::txt(owner, 0, &[]).name);
            set.map(|set| stored(set.ttl.unwrap_or_default(), &set.values)).unwrap_or_default()
        };
        owners.iter().map(at).collect()
    }

    async fn insert(&self, record: &Foreign) {
        self.change(record, |values| values.push(record.text())).await;
    }

    async fn remove(&self, record: &Foreign) {
        self.change(record, |values| values.retain(|text| decoded(text) != record.value())).await;
    }

    async fn drop_zone(&self) {
        self.gate.delete_zone(&self.zone()).await;
    }

    /// Under another id, as any zone that is made anew.
    async fn restore_zone(&self) {
        let made = self.gate.create_zone(ZONE, false).await;
        *self.zone.lock() = made;
    }

    async fn expire_credential(&self) {
        self.gate.allow_only(NEW_KEY);
    }

    async fn renew_credential(&self) {
        write(&self.folder.path().join("key"), NEW_KEY);
    }

    fn stranger(&self) -> Option<Stranger> {
        let arguments = vec![self.gate.url(), self.zone()];
        Some(Stranger { script: include_str!("strangers/route53.py"), arguments })
    }
}

fn stored(ttl: u32, values: &[String]) -> BTreeSet<Stored> {
    values.iter().map(|text| Stored { ttl, form: text.clone(), value: decoded(text) }).collect()
}
