//! Every DNS that acmegate writes, in one form for tests: started with its zone, changed by a stranger, read as it says itself, and broken.
//!
//! A [`Site`] puts one of them into a small internet: BIND delegates the zone to the backend's own servers, and acmegate has it as its only backend.
//!
//! ```text
//!   test ──Present, CleanUp──▶ acmegate ──API──▶ backend ──serves──▶ its name servers ◀──walks── unbound ◀── BIND: . delegates the zone
//!     └────────────── reads and writes as a stranger ──▶ ┘
//! ```

mod acmedns;
mod azuredns;
mod clouddns;
mod cloudflare;
mod digitalocean;
mod embedded;
mod powerdns;
mod rfc2136;
mod route53;
mod servers;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    process::Command,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use hickory_proto::rr::{RData, Record, RecordType};
use parking_lot::Mutex;

pub use acmedns::AcmeDns;
pub use azuredns::AzureDns;
pub use clouddns::CloudDns;
pub use cloudflare::Cloudflare;
pub use digitalocean::DigitalOcean;
pub use embedded::Embedded;
pub use powerdns::PowerDns;
pub use rfc2136::Rfc2136;
pub use route53::Route53;
pub use servers::Servers;

use crate::{
    acmegate::{Acmegate, Config},
    addresses::Address,
    bind::{self, Bind},
    dns, python,
    testca::{Options, TestCa},
    unbound::Unbound,
    wait::LIMIT,
    webhook::{Refusal, Webhook},
};

/// The zone of every backend.
pub const ZONE: &str = "example.test";

/// What the backend is called in the configuration.
pub const NAME: &str = "corp";

/// A TXT record of somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// Its owner, absolute, without the last dot.
    pub owner: String,
    /// Its TTL in seconds.
    pub ttl: u32,
    /// Its character-strings, 255 bytes each at most.
    pub strings: Vec<String>,
}

/// A TXT record as a backend keeps it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stored {
    /// Its TTL in seconds.
    pub ttl: u32,
    /// Its data, byte for byte as the backend keeps it: escapes, quotes and chunks as they are.
    pub form: String,
    /// Its data decoded: strings joined.
    pub value: String,
}

/// What a test can want of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ability {
    /// A value goes when it is released.
    Remove,
    /// A stranger can write beside acmegate.
    Strangers,
    /// Names of the test's own choice.
    AnyName,
    /// A name at the zone's apex.
    Apex,
    /// A wildcard owner.
    Wildcard,
    /// The zone can vanish.
    Vanish,
    /// There is a credential, and it can expire.
    Expire,
}

/// A DNS with the zone [`ZONE`], as a test handles it.
#[async_trait]
pub trait Backend: Send + Sync {
    /// What it is called in tables.
    fn id(&self) -> &'static str;

    /// Why it cannot do something; `None` if it can.
    fn cannot(&self, ability: Ability) -> Option<&'static str> {
        let _ = ability;
        None
    }

    /// The owner for a challenge that a test calls so.
    fn name(&self, label: &str) -> String {
        format!("_acme-challenge.{label}.{ZONE}")
    }

    /// The names and addresses of its servers, for the delegation.
    fn nameservers(&self) -> Vec<(String, IpAddr)>;

    /// Adds it to acmegate's configuration, under the name [`NAME`].
    fn configure(&self, config: Config) -> Config;

    /// The TXT records at a name as the DNS itself says, past acmegate.
    async fn records(&self, owner: &str) -> BTreeSet<Stored>;

    /// The same for many names.
    async fn records_at(&self, owners: &[String]) -> Vec<BTreeSet<Stored>> {
        let mut all = Vec::with_capacity(owners.len());
        for owner in owners {
            all.push(self.records(owner).await);
        }
        all
    }

    /// The TTL of values of ours.
    fn ttl(&self) -> u32 {
        60
    }

    /// Writes a record as a stranger.
    async fn insert(&self, record: &Foreign);

    /// Removes a record as a stranger; the record is there.
    async fn remove(&self, record: &Foreign);

    /// The zone is gone, and is no longer served.
    async fn drop_zone(&self);

    /// The zone is back, with or without its TXT records.
    async fn restore_zone(&self);

    /// The credential that acmegate has is no longer good.
    async fn expire_credential(&self);

    /// Another credential is good, and stands where acmegate reads it.
    async fn renew_credential(&self);

    /// Another writer with the vendor's own client; `None` where nobody else can write.
    fn stranger(&self) -> Option<Stranger> {
        None
    }
}

/// A program that adds and removes values of its own, as `strangers/driver.py` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    script: &'static str,
    arguments: Vec<String>,
}

impl Stranger {
    /// The program, to be run in the environment of the clouds' own clients: so many rounds over these names, spread over some time.
    pub fn command(&self, rounds: u64, time: Duration, seed: &str, names: &[String]) -> Command {
        let mut command = python::clouds(&[include_str!("backends/strangers/driver.py"), self.script].concat());
        command.args([&rounds.to_string(), &time.as_secs_f64().to_string(), seed, &names.join(",")]).args(&self.arguments);
        command
    }
}

impl Foreign {
    /// A record of one string.
    pub fn new(owner: &str, ttl: u32, value: &str) -> Self {
        Self { owner: owner.into(), ttl, strings: vec![value.into()] }
    }

    /// The data in presentation form: `"a \"b\"" "c"`.
    pub fn text(&self) -> String {
        presentation(self.strings.iter().map(String::as_bytes))
    }

    /// The strings joined.
    pub fn value(&self) -> String {
        self.strings.concat()
    }
}

/// Character-strings in presentation form, quoted, with the fewest escapes.
pub fn presentation<'a>(strings: impl Iterator<Item = &'a [u8]>) -> String {
    let quoted = strings.map(|string| {
        let escaped = string.iter().map(|&byte| match byte {
            b'"' | b'\\' => format!("\\{}", char::from(byte)),
            b' '..=b'~' => char::from(byte).to_string(),
            other => format!("\\{other:03}"),
        });
        format!("\"{}\"", escaped.collect::<String>())
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// The bytes behind presentation form, as text; what is not quoted stands for itself.
fn decoded(text: &str) -> String {
    if !text.starts_with('"') {
        return text.to_owned();
    }
    let (mut bytes, mut quoted, mut rest) = (Vec::new(), false, text.as_bytes());
    while let [byte, after @ ..] = rest {
        rest = after;
        match (byte, rest) {
            (b'"', _) => quoted = !quoted,
            (b'\\', [a @ b'0'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', after @ ..]) => {
                let number = [a, b, c].iter().fold(0_u16, |number, &&digit| number * 10 + u16::from(digit - b'0'));
                bytes.push(u8::try_from(number).unwrap_or_else(|_| panic!("{text} has an escape above 255")));
                rest = after;
            }
            (b'\\', [escaped, after @ ..]) => {
                bytes.push(*escaped);
                rest = after;
            }
            (byte, _) if quoted => bytes.push(*byte),
            _ => {}
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The values alone.
pub fn values(records: &BTreeSet<Stored>) -> BTreeSet<String> {
    records.iter().map(|record| record.value.clone()).collect()
}

/// A backend in its small internet, and acmegate before it.
pub struct Site {
    /// The backend.
    pub backend: Arc<dyn Backend>,
    /// acmegate, with the webhook and metrics doors open.
    pub acmegate: Acmegate,
    /// A client of its webhook door.
    pub door: Webhook,
    /// The resolver.
    pub resolver: Unbound,
    /// The certificate authority, if it was asked for.
    pub ca: Option<TestCa>,
    _bind: Bind,
}

impl Site {
    /// Starts it all.
    ///
    /// # Panics
    /// When a part of it does not start.
    pub async fn start(backend: Arc<dyn Backend>) -> Self {
        Self::begin(backend, "authoritative", false).await
    }

    /// Starts it all; acmegate does not wait until the servers show a value.
    ///
    /// # Panics
    /// When a part of it does not start.
    pub async fn start_unseen(backend: Arc<dyn Backend>) -> Self {
        Self::begin(backend, "none", false).await
    }

    /// Starts it all with a certificate authority that validates through the resolver.
    ///
    /// # Panics
    /// When a part of it does not start.
    pub async fn start_issuing(backend: Arc<dyn Backend>) -> Self {
        Self::begin(backend, "authoritative", true).await
    }

    async fn begin(backend: Arc<dyn Backend>, check: &str, issuing: bool) -> Self {
        let (address, resolver) = (Address::reserve(), Address::reserve());
        let servers = backend.nameservers();
        let root = servers.iter().fold(bind::zone("", &address), |zone, (name, ip)| {
            let kind = if ip.is_ipv4() { "A" } else { "AAAA" };
            zone + &format!("{ZONE}. 60 NS {name}.\n{name}. 60 {kind} {ip}\n")
        });
        let bind = Bind::start(address, &[(".", root)]).await;
        let resolver = Unbound::start(resolver, bind.dns().ip()).await;
        let door = Webhook::new();
        let mut config =
            Config::new().resolver(resolver.dns()).propagation(&format!("check: {check}")).propagation("timeout: 20s").metrics();
        let mut ca = None;
        if issuing {
            let ca = ca.insert(Options::resolver(resolver.dns()).start().await);
            config = config.directory("testca", ca);
        }
        let acmegate = Acmegate::started(backend.configure(door.configure(config))).await;
        Self { backend, acmegate, door, resolver, ca, _bind: bind }
    }

    /// Presents a value until the door says that it stands, as cert-manager would.
    ///
    /// # Panics
    /// When it says anything but "not yet", or says that for too long.
    pub async fn present(&self, owner: &str, value: &str) {
        self.succeed("Present", owner, value).await;
    }

    /// Cleans a value up until the door says that this is taken.
    ///
    /// # Panics
    /// As [`present`](Self::present).
    pub async fn clean_up(&self, owner: &str, value: &str) {
        self.succeed("CleanUp", owner, value).await;
    }

    /// Presents a value that may be refused for some time, until the door says that it stands; cert-manager asks again, too, whatever the reason was.
    ///
    /// # Panics
    /// When it never stands.
    pub async fn present_at_last(&self, owner: &str, value: &str) {
        let attempt = || self.door.present(&self.acmegate, owner, value);
        // After a failure that a person has to mend, acmegate tries again after 30 s, then 60.
        crate::wait::until_within(LIMIT * 3, &format!("{value} to stand at {owner}"), attempt).await;
    }

    /// Presents a value that cannot stand, until the door says twice why, in the same words: with others each time, cert-manager would ask again at once.
    ///
    /// # Panics
    /// When it succeeds, or never says the same twice.
    pub async fn refused_steadily(&self, owner: &str, value: &str) -> String {
        let said = Mutex::new(None);
        let attempt = || async {
            let message = match self.door.present(&self.acmegate, owner, value).await {
                Ok(()) => panic!("presenting {value} at {owner} succeeded"),
                Err(refusal) => refusal.to_string(),
            };
            if said.lock().replace(message.clone()).as_ref() == Some(&message) && !is_in_progress(&message) {
                Ok(message)
            } else {
                Err(message)
            }
        };
        crate::wait::until(&format!("{value} at {owner} to be refused for a reason"), attempt).await
    }

    /// Waits until the backend itself has exactly this one value, or none, at each of many names.
    ///
    /// # Panics
    /// When it never does.
    pub async fn all_become(&self, owners: &[String], expected: &[Option<&str>]) {
        let attempt = || async {
            let found = self.backend.records_at(owners).await;
            let wrong = found
                .iter()
                .zip(expected)
                .zip(owners)
                .find(|((found, expected), _)| values(found) != expected.iter().map(|value| (*value).to_owned()).collect());
            wrong.map_or(Ok(()), |((found, expected), owner)| Err(format!("{owner} has {found:?}, not {expected:?}")))
        };
        // As long as hundreds of calls take at the pace that the slowest cloud allows.
        let what = format!("{} to have what it should at {} names", self.backend.id(), owners.len());
        crate::wait::until_within(LIMIT * 3, &what, attempt).await;
    }

    /// Waits until the backend itself has exactly these values at a name.
    ///
    /// # Panics
    /// When it never does.
    pub async fn becomes(&self, owner: &str, expected: &[&str]) {
        let expected: BTreeSet<String> = expected.iter().map(|value| (*value).to_owned()).collect();
        let attempt = || async {
            let found = values(&self.backend.records(owner).await);
            if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
        };
        crate::wait::until(&format!("{} to have {expected:?} at {owner}", self.backend.id()), attempt).await;
    }

    async fn succeed(&self, action: &str, owner: &str, value: &str) {
        let url = self.door.url(&self.acmegate);
        for _ in 0..ATTEMPTS {
            match self.door.call(&url, action, owner, value).await {
                Ok(()) => return,
                Err(Refusal::Said(message)) if is_in_progress(&message) => {}
                Err(refusal) => panic!("{action} of {value} at {owner}: {refusal:?}"),
            }
        }
        panic!("{action} of {value} at {owner} is never done")
    }
}

/// How often the door may say "not yet"; each time it has waited 22 s.
const ATTEMPTS: usize = 6;

/// What the door says when the time for one call is over.
fn is_in_progress(message: &str) -> bool {
    message.contains("it is being worked on")
}

/// The section `backends` with one entry of these settings (a YAML map in one line).
fn section(config: Config, provider: &str, settings: &str) -> Config {
    config.section("backends", &format!("- name: {NAME}\n  provider: {provider}\n  zones: [{ZONE}]\n  ttl: 60s\n  settings: {settings}"))
}

/// The TXT records at a name as a server answers them: for a DNS whose data is nothing but what it answers.
async fn dns_records(server: SocketAddr, owner: &str) -> BTreeSet<Stored> {
    let answer = dns::ask(server, owner, RecordType::TXT).await;
    let stored = |record: &Record| match &record.data {
        RData::TXT(txt) => Some(Stored {
            ttl: record.ttl,
            form: presentation(txt.txt_data.iter().map(|string| &**string)),
            value: String::from_utf8_lossy(&txt.txt_data.concat()).into_owned(),
        }),
        _ => None,
    };
    answer.answers.iter().filter_map(stored).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presentation_form_and_back() {
        let record = Foreign { owner: String::new(), ttl: 0, strings: vec!["a \"b\" \\c".into(), String::new(), "ü".into()] };
        assert_eq!(record.text(), r#""a \"b\" \\c" "" "\195\188""#);
        assert_eq!(decoded(&record.text()), record.value());
        assert_eq!(decoded("bare \"value\""), "bare \"value\"", "some clouds keep the value itself");
    }

    #[test]
    fn a_record_and_its_form_tell_records_apart() {
        let stored = |ttl, form: &str| Stored { ttl, form: form.into(), value: decoded(form) };
        let records = BTreeSet::from([stored(60, "\"a\" \"b\""), stored(60, "\"ab\""), stored(300, "\"ab\"")]);
        assert_eq!(records.len(), 3);
        assert_eq!(values(&records), BTreeSet::from(["ab".to_owned()]));
    }
}
