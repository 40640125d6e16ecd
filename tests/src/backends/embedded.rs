//! The zone that acmegate serves itself.

use std::{collections::BTreeSet, net::IpAddr};

use async_trait::async_trait;

use super::{Ability, Backend, Foreign, Stored, ZONE, dns_records};
use crate::{acmegate::Config, addresses::Address};

/// The embedded zone; DNS is the judge, and the stranger's records are those of the configuration.
pub struct Embedded {
    address: Address,
}

impl Embedded {
    /// Reserves its address.
    pub fn new() -> Self {
        Self { address: Address::reserve() }
    }
}

impl Default for Embedded {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Backend for Embedded {
    fn id(&self) -> &'static str {
        "embedded"
    }

    fn cannot(&self, ability: Ability) -> Option<&'static str> {
        match ability {
            Ability::Strangers => Some("nobody but acmegate writes the zone that it serves"),
            Ability::Vanish => Some("the zone is in acmegate's own configuration"),
            Ability::Expire => Some("there is no credential"),
            _ => None,
        }
    }

    fn nameservers(&self) -> Vec<(String, IpAddr)> {
        vec![(format!("ns1.{ZONE}"), self.address.ip())]
    }

    fn configure(&self, config: Config) -> Config {
        config.dns(self.address.dns()).zone(ZONE, &[("ns1", self.address.ip())])
    }

    async fn records(&self, owner: &str) -> BTreeSet<Stored> {
        dns_records(self.address.dns(), owner).await
    }

    /// Its values are never to be kept by resolvers.
    fn ttl(&self) -> u32 {
        1
    }

    async fn insert(&self, record: &Foreign) {
        panic!("nobody can insert {record:?}");
    }

    async fn remove(&self, record: &Foreign) {
        panic!("nobody can remove {record:?}");
    }

    async fn drop_zone(&self) {}

    async fn restore_zone(&self) {}

    async fn expire_credential(&self) {}

    async fn renew_credential(&self) {}
}
