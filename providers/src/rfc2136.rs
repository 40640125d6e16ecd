//! Any server that takes dynamic updates (RFC 2136): BIND, Knot, PowerDNS, Microsoft's, and most appliances.
//!
//! Values are added and deleted one by one (2.5.1 and 2.5.4), so nothing else of an RRset is touched, whoever writes beside us, and doing it twice does nothing:
//! values are never compared with an older state. The one thing that an RRset shares is its TTL, so it is read first and used again; where there was no RRset, that
//! there is still none is required (2.4.3), or somebody else's new one would get our TTL. Up to 200 names go in one message, which is made or refused as a whole; a server whose policy denies one name refuses all (REFUSED), and halving finds that name.
//!
//! Two things that servers do in silence are looked for when reading: a CNAME at the name, beside which nothing can be added (3.4.2.2), and a delegation to other servers.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use authdns::Name;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use schemars::JsonSchema;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    Calls, Change, Context, Error, Limits, Listing, Provider, Receipt, TxtSet, Zone, batch,
    dns::{
        exchange::{MOST_TCP, MOST_UDP, Server, Transport},
        message::{Answer, CNAME, NS, Rcode, SOA, TXT, Update, query, requirement_size, value_size},
        tsig::{Algorithm, Key},
    },
    secret::{SecretRef, Secrets, token},
};

/// Owner names in one message.
const MOST_OWNERS: usize = 200;
/// Bytes of an update beside its changes: header, zone and signature, at most.
const FRAME: usize = 12 + 259 + 255 + 10 + 128;

/// Settings of `provider: rfc2136`. This is plain DNS: `server` takes the place of an endpoint, a TSIG key that of HTTPS, and so there is no `ca_file`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// The primary server, as `HOST`, `HOST:PORT` or `[ADDRESS]:PORT`; port 53 if none is given.
    server: String,
    /// `tcp` (one message for 200 names), or `udp` (1,200 bytes a message, larger ones by TCP all the same).
    #[serde(default)]
    transport: Transport,
    /// The key that requests are signed with, and answers have to be.
    #[serde(default)]
    tsig: Option<Tsig>,
    /// `true` sends updates without a key to a server that is not on this machine: for servers that go by the sender's address alone.
    #[serde(default)]
    unsigned: bool,
    /// A zone that the key may update: `check` and the credential watch send it an update that changes nothing. Without it, the zone that was updated last is
    /// taken, and before the first update only the key is tried, as far as the server looks at it.
    #[serde(default)]
    probe_zone: Option<String>,
}

/// A shared key (RFC 8945).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct Tsig {
    /// The key's name, as the server knows it.
    name: String,
    /// What messages are signed with: hmac-sha256, or what the server's configuration says.
    #[serde(default)]
    algorithm: Algorithm,
    /// The key itself, in base64, as `tsig-keygen` and `keymgr -t` print it.
    key: SecretRef,
}

impl crate::kind::Settings for Settings {
    const ID: &'static str = "rfc2136";
    const TITLE: &'static str = "Dynamic updates (RFC 2136)";

    fn build(self, context: &Context) -> Result<Arc<dyn Provider>, String> {
        self.updater(context).map(|updater| Arc::new(updater) as Arc<dyn Provider>)
    }
}

impl Settings {
    fn updater(self, context: &Context) -> Result<Updater, String> {
        let server = Server::parse("server", &self.server, self.transport)?;
        let name = |key: &str, text: &str| text.parse::<Name>().map_err(|error| format!("{key}: {text:?} is no name: {error}"));
        let tsig = match self.tsig {
            Some(tsig) => Some((name("tsig.name", &tsig.name)?, tsig.algorithm, tsig.key)),
            None if self.unsigned || server.is_loopback() => None,
            None => {
                return Err(format!(
                    "tsig: updates to {server} would not be signed: name a key, or write `unsigned: true` if it goes by addresses alone"
                ));
            }
        };
        if tsig.is_some() && self.unsigned {
            return Err("unsigned: with a tsig key everything is signed: leave one of them out".to_owned());
        }
        Ok(Updater {
            server,
            transport: self.transport,
            tsig,
            probe: self.probe_zone.map(|zone| name("probe_zone", &zone)).transpose()?,
            used: Mutex::default(),
            ttl: context.ttl,
            secrets: Arc::clone(&context.secrets),
            clock,
        })
    }
}

/// The provider.
struct Updater {
    server: Server,
    transport: Transport,
    tsig: Option<(Name, Algorithm, SecretRef)>,
    probe: Option<Name>,
    /// The zone that was updated last: it shows whether the key still may, where none is named for that.
    used: Mutex<Option<Name>>,
    ttl: u32,
    secrets: Arc<dyn Secrets>,
    /// Seconds since 1970.
    clock: fn() -> u64,
}

impl std::fmt::Debug for Updater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rfc2136 {}", self.server)
    }
}

#[async_trait]
impl Provider for Updater {
    fn limits(&self) -> Limits {
        Limits { owners: MOST_OWNERS, ..Limits::default() }
    }

    async fn zones(&self, apex: Option<&Name>) -> Result<Listing, Error> {
        let Some(apex) = apex else { return Ok(Listing::default()) };
        let answer = self.ask_one(apex, SOA).await?;
        match answer.rcode {
            Rcode::SERVFAIL => Err(failed(answer.rcode)),
            _ if is_apex(&answer, apex) => {
                let zone = Zone { id: apex.to_string(), name: apex.clone(), nameservers: Default::default() };
                Ok(Listing { zones: vec![zone], complete: true })
            }
            _ => Ok(Listing { zones: Vec::new(), complete: true }),
        }
    }

    async fn read(&self, zone: &Zone, owners: &[Name]) -> Vec<Result<TxtSet, Error>> {
        let key = match self.key().await {
            Ok(key) => key,
            Err(error) => return owners.iter().map(|_| Err(error.clone())).collect(),
        };
        let queries = owners.iter().map(|owner| query(owner, TXT, self.transport == Transport::Udp)).collect();
        let answers = self.server.ask(queries, self.signer(&key)).await;
        answers.into_iter().zip(owners).map(|(answer, owner)| txt_set(zone, owner, &self.believed(answer?)?)).collect()
    }

    async fn apply(&self, zone: &Zone, changes: &[Change]) -> Vec<Result<Receipt, Error>> {
        let key = match self.key().await {
            Ok(key) => key,
            Err(error) => return changes.iter().map(|_| Err(error.clone())).collect(),
        };
        // Whether the server takes updates of this zone at all, once that was asked.
        let allowed = Mutex::new(None);
        batch::send(changes, |run| self.fit(run), |run| self.update(zone, run, key.as_ref(), &allowed)).await
    }

    async fn verify(&self) -> Result<String, Error> {
        let key = self.key().await?;
        let signed = match &self.tsig {
            Some((name, algorithm, _)) => format!("the TSIG key {} ({algorithm})", name.to_relative_string()),
            None => "no key".to_owned(),
        };
        let zone = self.probe.clone().or_else(|| self.used.lock().clone());
        let Some(zone) = zone else {
            // Whatever it says of the root, most servers have looked at the signature before (Knot has not).
            let answer = self.ask_one(&Name::root(), SOA).await?;
            let tried = if answer.tsig.is_some() || key.is_none() { "answers, with" } else { "answers, and has not looked at" };
            return Ok(format!("{} {tried} {signed}; set `probe_zone` to see whether it takes updates", self.server));
        };
        let answer = self.server.send(Update::new(&zone).finish(), self.signer(&key)).await?;
        match answer.rcode {
            Rcode::NOERROR => Ok(format!("{} takes updates of {}, with {signed}", self.server, zone.to_relative_string())),
            Rcode::REFUSED => Err(self.denied(&answer, &zone)),
            _ => Err(self.judged(&answer, &zone).await),
        }
    }

    fn calls(&self) -> Calls {
        self.server.limiter().calls()
    }
}

impl Updater {
    /// The key as it is now.
    async fn key(&self) -> Result<Option<Key>, Error> {
        let Some((name, algorithm, secret)) = &self.tsig else { return Ok(None) };
        let text = token(self.secrets.as_ref(), secret).await?;
        let bytes = Zeroizing::new(STANDARD.decode(text.expose_secret()).map_err(|_| {
            Error::Auth(format!("{secret} is not base64: put the key's secret there alone, as tsig-keygen prints it between the quotes"))
        })?);
        let key = Key::new(name.clone(), *algorithm, bytes);
        key.map(Some).ok_or_else(|| Error::Auth(format!("{secret} is no TSIG key: it is empty, or too long")))
    }

    fn signer<'k>(&self, key: &'k Option<Key>) -> Option<(&'k Key, u64)> {
        key.as_ref().map(|key| (key, (self.clock)()))
    }

    async fn ask_one(&self, name: &Name, kind: u16) -> Result<Answer, Error> {
        let key = self.key().await?;
        let answer = self.server.ask(vec![query(name, kind, false)], self.signer(&key)).await.pop();
        self.believed(answer.unwrap_or_else(|| Err(Error::Unsent("nothing was asked".to_owned())))?)
    }

    /// The answer to a query, where it is not about the signature: NOTAUTH is nothing else there (RFC 8945, 5.2), also without a signature (PowerDNS).
    fn believed(&self, answer: Answer) -> Result<Answer, Error> {
        if answer.rcode == Rcode::NOTAUTH { Err(self.not_taken()) } else { Ok(answer) }
    }

    /// The error behind the answer to an update.
    async fn judged(&self, answer: &Answer, zone: &Name) -> Error {
        // Without a signature it may say that there is no such zone (Knot), or that it does not take the key (PowerDNS): the zone tells which.
        if answer.rcode == Rcode::NOTAUTH && answer.tsig.is_none() && self.tsig.is_some() {
            let soa = self.server.ask(vec![query(zone, SOA, false)], None).await.pop();
            if soa.is_some_and(|soa| soa.is_ok_and(|soa| is_apex(&soa, zone))) {
                return self.not_taken();
            }
        }
        judged(answer.rcode, zone)
    }

    fn not_taken(&self) -> Error {
        let key = match &self.tsig {
            Some((name, algorithm, _)) => format!("the TSIG key {} ({algorithm})", name.to_relative_string()),
            None => "messages without a key".to_owned(),
        };
        Error::Auth(format!(
            "the server does not take {key}: compare name, algorithm and secret with its configuration, and the clocks (NOTAUTH)"
        ))
    }

    /// How many of the changes one message takes.
    fn fit(&self, run: &[&Change]) -> usize {
        let most = match self.transport {
            Transport::Tcp => MOST_TCP,
            Transport::Udp => MOST_UDP,
        };
        let mut size = FRAME;
        let fits = run.iter().take(MOST_OWNERS).take_while(|change| {
            size += size_of(change);
            size <= most
        });
        fits.count()
    }

    async fn update(
        &self,
        zone: &Zone,
        run: Vec<Change>,
        key: Option<&Key>,
        allowed: &Mutex<Option<bool>>,
    ) -> Result<Receipt, batch::Refusal> {
        let mut update = Update::new(&zone.name);
        let mut changes = 0;
        for change in &run {
            // What is read is what the RRset's TTL stays, foreign values included.
            let ttl = change.version.parse().unwrap_or(self.ttl);
            for value in change.remove.difference(&change.add) {
                update.delete(&change.owner, value);
                changes += 1;
            }
            if is_first(change) {
                update.require_absent(&change.owner);
            }
            for value in &change.add {
                update.add(&change.owner, ttl, value);
                changes += 1;
            }
        }
        if changes == 0 {
            return Ok(Receipt::default());
        }
        let message = update.finish();
        if message.len() > MOST_TCP {
            return Err(Error::Rejected("the values of one name do not fit in one DNS message (64 kB)".to_owned()).into());
        }
        let signer = || key.map(|key| (key, (self.clock)()));
        *self.used.lock() = Some(zone.name.clone());
        let answer = self.server.send(message, signer()).await?;
        match answer.rcode {
            Rcode::NOERROR => Ok(Receipt::default()),
            // The RRset may be what the first copy of this message made.
            Rcode::YXRRSET if answer.repeated => {
                Err(Error::Transport("no answer to the first copy of a message, and it may have been carried out".to_owned()).into())
            }
            Rcode::YXRRSET => {
                Err(Error::Conflict(format!("somebody else has made the TXT RRset of {} since it was read", names(&run))).into())
            }
            // About these names, or about the key? Where it refuses even an update that changes nothing, no name need be looked for.
            Rcode::REFUSED => {
                let known = *allowed.lock();
                let may = match known {
                    Some(may) => may,
                    None => self.server.send(Update::new(&zone.name).finish(), signer()).await?.rcode != Rcode::REFUSED,
                };
                *allowed.lock() = Some(may);
                let error = Error::Rejected(format!(
                    "{} may not be updated: look at the server's update policy for this key (REFUSED)",
                    names(&run)
                ));
                Err(if may { error } else { self.denied(&answer, &zone.name) }.into())
            }
            _ => Err(self.judged(&answer, &zone.name).await.into()),
        }
    }

    /// The error of a refusal that is about the zone and not about one name.
    fn denied(&self, answer: &Answer, zone: &Name) -> Error {
        let zone = zone.to_relative_string();
        let Some((name, ..)) = &self.tsig else {
            return Error::Auth(format!(
                "the server takes no unsigned updates of {zone} from this machine (REFUSED): set `tsig`, or allow its address there"
            ));
        };
        let name = name.to_relative_string();
        // PowerDNS says no more when the signature is wrong.
        let doubt = if answer.tsig.is_none() { ", and compare the key's secret with the one there" } else { "" };
        Error::Auth(format!(
            "the server lets the TSIG key {name} update nothing in {zone} (REFUSED): allow it there (allow-update, update-policy, acl){doubt}"
        ))
    }
}

/// The TXT values in an answer about `owner`.
fn txt_set(zone: &Zone, owner: &Name, answer: &Answer) -> Result<TxtSet, Error> {
    let at_owner = |kind: u16| answer.answers.iter().filter(move |record| record.kind == kind && record.owner == *owner);
    let (name, apex) = (owner.to_relative_string(), zone.name.to_relative_string());
    match answer.rcode {
        Rcode::NOERROR | Rcode::NXDOMAIN => {}
        Rcode::REFUSED => {
            return Err(Error::NotFound(format!("the server does not serve {name} to this machine (REFUSED): has {apex} moved?")));
        }
        rcode => return Err(judged(rcode, &zone.name)),
    }
    if at_owner(CNAME).next().is_some() {
        return Err(Error::Rejected(format!("a CNAME stands at {name}, and nothing can stand beside it: the value belongs at its target")));
    }
    if !answer.authoritative {
        let delegated =
            answer.authority.iter().any(|record| record.kind == NS && record.owner != zone.name && owner.is_within(&record.owner));
        return Err(if delegated {
            Error::Rejected(format!(
                "{name} is delegated away from {apex}: a value there would not be seen, update the zone it is delegated to"
            ))
        } else {
            Error::NotFound(format!("the server is not authoritative for {name}: has {apex} moved?"))
        });
    }
    let version = at_owner(TXT).next().map(|record| record.ttl.to_string()).unwrap_or_default();
    Ok(TxtSet { values: at_owner(TXT).map(|record| record.text()).collect(), version })
}

/// True if the answer says with authority that `zone` is a zone.
fn is_apex(answer: &Answer, zone: &Name) -> bool {
    answer.rcode == Rcode::NOERROR
        && answer.authoritative
        && answer.answers.iter().any(|record| record.kind == SOA && record.owner == *zone)
}

/// The error of a response code other than NOERROR.
fn judged(rcode: Rcode, zone: &Name) -> Error {
    let zone = zone.to_relative_string();
    match rcode {
        Rcode::NOTAUTH => Error::NotFound(format!("the server is not authoritative for {zone} (NOTAUTH): is it the primary?")),
        Rcode::NOTZONE => Error::Rejected(format!("a name is outside of {zone} (NOTZONE)")),
        Rcode::NOTIMP => Error::Rejected(format!("the server takes no updates (NOTIMP): switch them on for {zone}")),
        Rcode::REFUSED => Error::Auth(format!("the server refuses this machine or key for {zone} (REFUSED)")),
        Rcode::SERVFAIL => failed(rcode),
        Rcode::FORMERR => Error::Rejected("the server cannot read the message (FORMERR)".to_owned()),
        rcode => Error::Rejected(format!("the server says {rcode}")),
    }
}

/// What it did before it failed is not known.
fn failed(rcode: Rcode) -> Error {
    Error::Transport(format!("the server failed ({rcode}): its log says why"))
}

/// True if the change makes an RRset where there was none.
fn is_first(change: &Change) -> bool {
    change.version.is_empty() && !change.add.is_empty()
}

fn names(run: &[Change]) -> String {
    match run {
        [one] => one.owner.to_relative_string(),
        several => format!("one of {} names", several.len()),
    }
}

fn size_of(change: &Change) -> usize {
    let required = if is_first(change) { requirement_size(&change.owner) } else { 0 };
    required + change.add.iter().chain(&change.remove).map(|value| value_size(&change.owner, value)).sum::<usize>()
}

fn clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default()
}

#[cfg(test)]
mod with_servers {
    use acmegate_tests::{
        addresses::Address,
        bind::{self, Bind},
        temporary_folder,
        updates::{TsigKey, Updates},
    };

    use super::*;
    use crate::secret::LocalSecrets;

    #[tokio::test]
    async fn a_clock_that_is_wrong_is_named() {
        let address = Address::reserve();
        let key = TsigKey::new("acmegate", "hmac-sha256");
        let zones = [("example.test", bind::zone("example.test", &address))];
        let server = Bind::start_signed(address, &zones, &Updates { keys: vec![key.clone()], ..Updates::default() }).await;
        let folder = temporary_folder("key");
        let file = folder.path().join("key");
        acmegate_tests::write(&file, &key.secret);
        let settings = Settings {
            server: server.dns().to_string(),
            transport: Transport::Tcp,
            tsig: Some(Tsig { name: key.name, algorithm: Algorithm::Sha256, key: SecretRef::File(file) }),
            unsigned: false,
            probe_zone: None,
        };
        let context = Context { backend: "dns".into(), ttl: 60, mark: String::new(), secrets: Arc::new(LocalSecrets) };
        let mut updater = settings.updater(&context).expect("good settings");
        assert!(updater.verify().await.is_ok());
        for (wrong, said) in [((|| clock() - 400) as fn() -> u64, "ahead of"), (|| clock() + 400, "behind")] {
            updater.clock = wrong;
            let error = updater.verify().await.expect_err("BADTIME");
            assert!(matches!(&error, Error::Auth(text) if text.contains(said) && text.contains("BADTIME")), "{error:?}");
        }
    }
}
