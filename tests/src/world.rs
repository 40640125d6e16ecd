//! The whole small internet of a test: root and customer zones in BIND, a resolver, a certificate authority, and acmegate.
//!
//! ```text
//!   testca ──asks──▶ unbound ──▶ BIND: .  example.test  gateway.test ──delegates auth.gateway.test──▶ acmegate
//!     ▲                                    │ _acme-challenge.<name>.example.test CNAME <name>.example.test.auth.gateway.test
//!     └── acmegate issue, lego, certbot …  ▼
//! ```

use crate::{
    acmegate::{Acmegate, Config},
    addresses::Address,
    bind::{self, Bind},
    silent::Silent,
    testca::{Options, TestCa},
    unbound::Unbound,
};

/// The zone of the customer whose names get certificates: BIND serves it.
pub const CUSTOMER: &str = "example.test";

/// The zone that acmegate serves, delegated to it by BIND.
pub const ZONE: &str = "auth.gateway.test";

/// Everything, running. Dropping it ends everything.
pub struct World {
    /// acmegate, with the acme-dns and metrics doors open; its `issue` knows the authority as `testca`.
    pub acmegate: Acmegate,
    /// The certificate authority, which validates through [`World::resolver`].
    pub ca: TestCa,
    /// The resolver.
    pub resolver: Unbound,
    /// The DNS of the root, the customer and acmegate's parent.
    pub bind: Bind,
    /// The authoritative servers that never answer.
    pub silent: Vec<Silent>,
}

/// A world to be built.
pub struct Builder {
    ca: Box<dyn FnOnce(Options) -> Options + Send>,
    config: Box<dyn FnOnce(Config) -> Config + Send>,
    customer: Vec<String>,
    parent: Vec<String>,
    silent: Vec<Silent>,
    serve: bool,
}

impl World {
    /// Starts the usual one.
    ///
    /// # Panics
    /// When a part of it does not start.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// Something unusual.
    pub fn builder() -> Builder {
        Builder {
            ca: Box::new(|options| options),
            config: Box::new(|config| config),
            customer: Vec::new(),
            parent: Vec::new(),
            silent: Vec::new(),
            serve: true,
        }
    }

    /// Creates the record that `acmegate issue NAME` needs: `_acme-challenge.NAME CNAME NAME.auth.gateway.test`.
    ///
    /// # Panics
    /// When BIND refuses it.
    pub async fn delegate(&self, name: &str) {
        self.delegate_all(&[name]).await;
    }

    /// The same for many names in one update.
    ///
    /// # Panics
    /// When BIND refuses it.
    pub async fn delegate_all(&self, names: &[&str]) {
        let record = |name: &&str| format!("add _acme-challenge.{name}. 60 CNAME {}", target(name));
        self.bind.update(&names.iter().map(record).collect::<Vec<_>>()).await;
    }
}

/// Where the issuer's values for `name` stand: `NAME.auth.gateway.test.`.
pub fn target(name: &str) -> String {
    format!("{name}.{ZONE}.")
}

impl Builder {
    /// Changes how the authority runs.
    #[must_use]
    pub fn ca(mut self, change: impl FnOnce(Options) -> Options + Send + 'static) -> Self {
        self.ca = Box::new(change);
        self
    }

    /// Changes acmegate's configuration.
    #[must_use]
    pub fn config(mut self, change: impl FnOnce(Config) -> Config + Send + 'static) -> Self {
        self.config = Box::new(change);
        self
    }

    /// Adds a record to `example.test`, in master file form; relative names are relative to it.
    #[must_use]
    pub fn record(mut self, record: &str) -> Self {
        self.customer.push(record.into());
        self
    }

    /// Adds a record to `gateway.test`, the parent of acmegate's zone.
    #[must_use]
    pub fn parent_record(mut self, record: &str) -> Self {
        self.parent.push(record.into());
        self
    }

    /// Gives acmegate's zone a second authoritative server, `ns2`, that never answers.
    #[must_use]
    pub fn silent_nameserver(mut self) -> Self {
        self.silent.push(Silent::start());
        self
    }

    /// Does not start `serve`: acmegate's commands run on their own.
    #[must_use]
    pub fn without_serve(mut self) -> Self {
        self.serve = false;
        self
    }

    /// Starts it all.
    ///
    /// # Panics
    /// When a part of it does not start.
    pub async fn start(self) -> World {
        let (bind, resolver, gateway) = (Address::reserve(), Address::reserve(), Address::reserve());
        let root = bind::zone("", &bind) + &format!("{}{}", delegation(CUSTOMER, "ns", &bind), delegation("gateway.test", "ns", &bind));
        let customer = self.customer.iter().fold(bind::zone(CUSTOMER, &bind), |zone, record| zone + record + "\n");
        let mut parent = bind::zone("gateway.test", &bind) + &delegation(ZONE, "ns1", &gateway);
        let mut nameservers = vec![("ns1", gateway.ip())];
        for silent in &self.silent {
            parent += &delegation(ZONE, "ns2", silent.address());
            nameservers.push(("ns2", silent.address().ip()));
        }
        let parent = self.parent.iter().fold(parent, |zone, record| zone + record + "\n");
        let bind = Bind::start(bind, &[(".", root), (CUSTOMER, customer), ("gateway.test", parent)]).await;
        let resolver = Unbound::start(resolver, bind.dns().ip()).await;
        let ca = (self.ca)(Options::resolver(resolver.dns())).start().await;
        let config = Config::new().dns(gateway.dns()).zone(ZONE, &nameservers).resolver(resolver.dns()).propagation("timeout: 20s");
        let config = config.acmedns().metrics().directory("testca", &ca);
        let mut acmegate = Acmegate::new((self.config)(config));
        acmegate.keep(gateway);
        if self.serve {
            acmegate.start().await;
        }
        World { acmegate, ca, resolver, bind, silent: self.silent }
    }
}

/// The NS record of `zone` and the address of its server.
fn delegation(zone: &str, server: &str, address: &Address) -> String {
    format!("{zone}. 60 NS {server}.{zone}.\n{server}.{zone}. 60 A {}\n", address.ip())
}
