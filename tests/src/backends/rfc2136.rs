//! Servers that take dynamic updates: BIND, Knot and PowerDNS, each itself.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    process::Command,
};

use async_trait::async_trait;
use tempfile::TempDir;

use super::{Ability, Backend, Foreign, Stored, Stranger, ZONE, dns_records, section};
use crate::{
    acmegate::Config,
    addresses::Address,
    bind::{self, Bind},
    knot::Knot,
    pdns::Pdns,
    process::run,
    temporary_folder,
    updates::{TsigKey, Updates},
    wait::LIMIT,
    write,
};

/// A server with one zone, which acmegate and a stranger update with a key each.
pub struct Rfc2136 {
    server: Server,
    folder: TempDir,
}

enum Server {
    Bind(Bind),
    Knot(Knot),
    Pdns(Pdns),
}

/// acmegate's key, and the stranger's.
const KEY: &str = "acmegate-key";
const STRANGER: &str = "stranger-key";

/// Why Knot is left out where a server has to change.
const UNCHANGED: &str = "the same code as with BIND and PowerDNS; nothing here configures Knot anew";

/// How BIND's configuration begins the zone, and how it does while the zone is gone.
const ELSEWHERE: &str = "zone \"elsewhere.test\"";

fn ours() -> String {
    format!("zone \"{ZONE}\"")
}

impl Rfc2136 {
    /// Starts BIND.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn bind() -> Self {
        let address = Address::reserve();
        let zone = bind::zone(ZONE, &address);
        Self::new(Server::Bind(Bind::start_signed(address, &[(ZONE, zone)], &updates()).await))
    }

    /// Starts Knot.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn knot() -> Self {
        let address = Address::reserve();
        let zone = bind::zone(ZONE, &address);
        Self::new(Server::Knot(Knot::start_signed(address, &[(ZONE, zone)], &updates()).await))
    }

    /// Starts PowerDNS.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn pdns() -> Self {
        let address = Address::reserve();
        let zone = bind::zone(ZONE, &address);
        Self::new(Server::Pdns(Pdns::start(address, &[(ZONE, zone)], &updates()).await))
    }

    fn new(server: Server) -> Self {
        let folder = temporary_folder("rfc2136");
        write(&folder.path().join("key"), &old_key().secret);
        Self { server, folder }
    }

    fn dns(&self) -> SocketAddr {
        match &self.server {
            Server::Bind(bind) => bind.dns(),
            Server::Knot(knot) => knot.dns(),
            Server::Pdns(pdns) => pdns.dns(),
        }
    }

    /// One update in nsupdate's words, as the stranger.
    async fn update(&self, change: &str) {
        let script = self.folder.path().join("script");
        write(&script, &format!("server {} 53\nzone {ZONE}\nupdate {change}\nsend\n", self.dns().ip()));
        let mut command = Command::new(crate::program("nsupdate"));
        command.args(["-y", &format!("hmac-sha256:{STRANGER}:{}", stranger_key().secret)]).arg(script);
        run("nsupdate", command, LIMIT).await.succeeded();
    }
}

fn old_key() -> TsigKey {
    TsigKey::new(KEY, "hmac-sha256")
}

fn new_key() -> TsigKey {
    TsigKey { name: KEY.into(), ..TsigKey::new("another secret under the same name", "hmac-sha256") }
}

fn stranger_key() -> TsigKey {
    TsigKey::new(STRANGER, "hmac-sha256")
}

fn updates() -> Updates {
    Updates { keys: vec![old_key(), stranger_key()], ..Updates::default() }
}

#[async_trait]
impl Backend for Rfc2136 {
    fn id(&self) -> &'static str {
        match &self.server {
            Server::Bind(_) => "rfc2136 (BIND)",
            Server::Knot(_) => "rfc2136 (Knot)",
            Server::Pdns(_) => "rfc2136 (PowerDNS)",
        }
    }

    fn cannot(&self, ability: Ability) -> Option<&'static str> {
        let is_knot = matches!(self.server, Server::Knot(_));
        (matches!(ability, Ability::Vanish | Ability::Expire) && is_knot).then_some(UNCHANGED)
    }

    fn nameservers(&self) -> Vec<(String, IpAddr)> {
        vec![(format!("ns.{ZONE}"), self.dns().ip())]
    }

    fn configure(&self, config: Config) -> Config {
        let key = self.folder.path().join("key");
        let tsig = format!("{{ name: {KEY}, algorithm: hmac-sha256, key: {{ file: {key:?} }} }}");
        section(config, "rfc2136", &format!("{{ server: \"{}\", tsig: {tsig} }}", self.dns()))
    }

    async fn records(&self, owner: &str) -> BTreeSet<Stored> {
        dns_records(self.dns(), owner).await
    }

    async fn insert(&self, record: &Foreign) {
        self.update(&format!("add {}. {} TXT {}", record.owner, record.ttl, record.text())).await;
    }

    async fn remove(&self, record: &Foreign) {
        self.update(&format!("delete {}. TXT {}", record.owner, record.text())).await;
    }

    async fn drop_zone(&self) {
        match &self.server {
            Server::Bind(bind) => bind.reconfigure(|config| config.replace(&ours(), ELSEWHERE)).await,
            Server::Knot(_) => panic!("{UNCHANGED}"),
            Server::Pdns(pdns) => pdns.drop_zone(ZONE).await,
        }
    }

    async fn restore_zone(&self) {
        match &self.server {
            Server::Bind(bind) => bind.reconfigure(|config| config.replace(ELSEWHERE, &ours())).await,
            Server::Knot(_) => panic!("{UNCHANGED}"),
            Server::Pdns(pdns) => pdns.restore_zone(ZONE).await,
        }
    }

    async fn expire_credential(&self) {
        let key = new_key();
        match &self.server {
            Server::Bind(bind) => bind.reconfigure(|config| config.replace(&old_key().secret, &key.secret)).await,
            Server::Knot(_) => panic!("{UNCHANGED}"),
            Server::Pdns(pdns) => pdns.set_tsig_key(&key.name, &key.algorithm, &key.secret).await,
        }
    }

    async fn renew_credential(&self) {
        write(&self.folder.path().join("key"), &new_key().secret);
    }

    fn stranger(&self) -> Option<Stranger> {
        let key = stranger_key();
        let arguments = vec![self.dns().ip().to_string(), ZONE.to_owned(), key.name, key.secret];
        Some(Stranger { script: include_str!("strangers/rfc2136.py"), arguments })
    }
}
