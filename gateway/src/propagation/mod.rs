//! Is a value where the CA will look for it? Asked of the servers that the world asks, before the CA is.
//!
//! **Why ask first.** A CA that looks too early counts a failure against the name (five an hour at Let's Encrypt) and remembers "no such name" in
//! its resolvers. So nothing is submitted before every server answers every value; when the time is up, nothing was lost at the CA.
//!
//! **Whom to ask** ([`Check`]). `authoritative`, the usual one: the delegation of the zone is walked from its parent, past every cache ([`walk`]); whom the parent names and
//! whom the zone names besides, all IPv4 and IPv6 addresses of every server, are asked directly, all side by side, for all names. What parent and zone tell
//! differently is reported. Where the parent cannot be asked, the resolvers' answer has to do, and that is reported too. `recursive`: the configured resolvers are asked
//! instead (over UDP, TCP or HTTPS), for networks that let nothing else through. `none`: nobody is asked.
//!
//! **The rule.** CAs look from several places at once, and their resolvers pick any server of the zone that answers. Therefore, for each owner name:
//! 1. A server that answers with authority but without a value is *waited for*, until the time is up: the CA may ask just that one.
//! 2. A server that does not serve the zone is *left aside* after three tries in a row, and reported once: it does not answer, its address refuses
//!    packets, or it says REFUSED, SERVFAIL or answers without authority. Resolvers leave such a server aside too and ask the next one.
//! 3. A server that was left aside is not waited for by the waits of the next ten minutes, but each of them tries it; from its first usable answer on it counts
//!    again. If all were left aside, all are waited for again.
//! 4. An address that this machine has no route to (IPv6, often) says nothing about the server: it is left aside without a word.
//! 5. An owner name is visible once every server that counts answers all its values, and at least one does. If none serves the zone at all, that is an error which
//!    names them; when the time is up, so is what each server lacked.
//!
//! **When to ask** ([`schedule`]). What providers take is asked for when it is likely to be there, as learned of each server, and at most once a second of one
//! server for one name ([`Propagation`]). The issuer's own zones are there at once, and are asked at once ([`Checker`]).
//!
//! **What is not asked.** A resolver that hears "no such name" keeps it, and the CA may share that resolver. Before the values stand, resolvers
//! are asked only for names on the way (CNAMEs outside of our zones, a name beside them that cannot exist, NS and addresses), never for the owner of the values. With
//! `recursive` that cannot be helped: they are asked late and seldom.
//!
//! Files: [`exchange`] one question to one server, [`upstream`] over which transport, [`https`] the one that is not plain DNS; [`resolver`] the configured resolvers; [`chain`]
//! CNAMEs; [`walk`] from the parent to the zone; [`delegation`] its servers; [`check`] the rule; [`schedule`] when to ask; [`questions`] how many at a time; [`sight`] what
//! was learned, [`metrics`] what of that is exported; [`diagnose`] what a person is told.

mod chain;
mod check;
mod delegation;
pub mod diagnose;
mod exchange;
mod https;
mod metrics;
mod questions;
mod resolver;
mod schedule;
mod sight;
mod upstream;
mod walk;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod simulation;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use authdns::Name;
use futures_util::future::join_all;
use tokio::time::Instant;

pub use chain::{By, Chain, Guide, Link, Whom, follow, trace};
pub use delegation::{Delegation, Server, Source};
pub use metrics::ServerMetrics;
pub use resolver::{ResolveError, Resolver};
pub use sight::{Propagation, ServerState, Standing};

use check::{Failure, Watch, Watched};
use exchange::DNS;
use questions::{Network, Questions};
use schedule::Schedule;
use upstream::Upstream;
use walk::Walk;

use crate::config::{self, Check};

/// What the resolvers are called together.
const RESOLVERS: &str = "the recursive resolvers";

/// The values that shall be seen, by owner name.
pub type Values = BTreeMap<Name, BTreeSet<String>>;

/// What to tell whoever waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// So many of a zone's servers answer every value.
    Ready {
        /// The zone, or `the recursive resolvers`.
        zone: String,
        /// Servers that do.
        ready: usize,
        /// Servers asked.
        servers: usize,
    },
    /// A server was left aside.
    LeftAside {
        /// Which, why, and what to do.
        text: String,
    },
}

/// Takes [`Progress`] as it is made.
pub type Watcher<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// Why values are not known to be visible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PropagationError {
    /// The world does not know the zone.
    #[error(
        "{zone} is not delegated: {found}. Create NS records for {zone} in the zone above it that name its servers, with their addresses where the names lie in {zone}",
        zone = .zone.to_relative_string()
    )]
    NotDelegated {
        /// The zone.
        zone: Name,
        /// What the resolvers said.
        found: String,
    },
    /// The delegation could not be looked up.
    #[error(
        "the servers of {zone} could not be found: {source}. Check that every server in its NS records answers, and the resolvers under propagation.resolvers",
        zone = .zone.to_relative_string()
    )]
    Lookup {
        /// The zone.
        zone: Name,
        /// Which question failed.
        source: ResolveError,
    },
    /// No server above a name could be asked.
    #[error("the zone of {} could not be found: {why}. Check the resolvers under propagation.resolvers, and that UDP and TCP port 53 go out", name.to_relative_string())]
    Unreachable {
        /// The name.
        name: Name,
        /// Who did not answer.
        why: String,
    },
    /// The names in the NS records have no addresses.
    #[error("the servers of {} have no addresses: {}. Create A or AAAA records for them", zone.to_relative_string(), servers.join(", "))]
    NoAddresses {
        /// The zone.
        zone: Name,
        /// The names.
        servers: Vec<String>,
    },
    /// No server serves the zone.
    #[error(
        "no server of {zone} answers for it:{}\nCheck that acmegate listens on these addresses and that nothing between drops UDP and TCP port 53",
        lines(servers)
    )]
    Nobody {
        /// The zone.
        zone: String,
        /// Each server and what it did.
        servers: Vec<String>,
    },
    /// Some server answered, but not with every value, until the time was up.
    #[error("the values were not visible within {} s:{}\nNothing was submitted to the CA. If these servers are slow to take up changes, set a longer propagation.timeout", timeout.as_secs_f64(), lines(servers))]
    Timeout {
        /// How long was waited.
        timeout: Duration,
        /// Each server that lacks values, and which.
        servers: Vec<String>,
    },
}

fn lines(servers: &[String]) -> String {
    servers.iter().map(|server| format!("\n  {server}")).collect()
}

/// Asks for values as the configuration says. Cheap to make and to clone: it holds no sockets.
#[derive(Debug, Clone)]
pub struct Checker {
    resolver: Resolver,
    check: Check,
    timeout: Duration,
    /// Where authoritative servers listen.
    port: u16,
}

/// Whom to ask about each zone.
#[derive(Debug, Clone, Default)]
pub struct Plan(BTreeMap<Name, Vec<Server>>);

impl Checker {
    /// A checker as configured.
    pub fn new(config: &config::Propagation) -> Self {
        Self { resolver: Resolver::configured(config), check: config.check, timeout: config.timeout, port: DNS }
    }

    /// The configured resolvers.
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Waits until every server that has to answers every value, as the module says.
    ///
    /// # Errors
    /// [`PropagationError::Nobody`] at once where no server serves a zone, [`PropagationError::Timeout`] when the time is up.
    pub async fn wait(&self, plan: &Plan, values: &Values, watcher: Watcher<'_>) -> Result<(), PropagationError> {
        let start = Instant::now();
        let groups = match self.check {
            Check::None => return Ok(()),
            Check::Recursive => {
                let servers = self.resolver.upstreams().iter().map(|resolver| (resolver.to_string().into(), resolver.clone())).collect();
                vec![Group { label: RESOLVERS.into(), servers, values: values.clone() }]
            }
            Check::Authoritative => plan.groups(values),
        };
        let questions = Questions::default();
        let (questions, mut failure) = (&questions, None);
        for outcome in join_all(groups.into_iter().map(|group| self.watch(group, start, questions, watcher))).await {
            match (outcome, &mut failure) {
                (Ok(()), _) => {}
                (Err(Failure::Nobody(error)), _) => return Err(error),
                (Err(Failure::Late(more)), None) => failure = Some(more),
                (Err(Failure::Late(more)), Some(servers)) => servers.extend(more),
            }
        }
        failure.map_or(Ok(()), |servers| Err(PropagationError::Timeout { timeout: self.timeout, servers }))
    }

    /// Waits for one group. Its servers are asked at once and soon again: nothing is known of them, and mostly they are this process's own.
    async fn watch(&self, group: Group, start: Instant, questions: &Questions, watcher: Watcher<'_>) -> Result<(), Failure> {
        let Group { label, servers, values } = group;
        let watched = |(name, _): &(Arc<str>, Upstream)| Watched { name: name.clone(), schedule: Schedule::eager(), trusted: true };
        let watched: Vec<_> = servers.iter().map(watched).collect();
        let network = Network { questions, servers, authority: self.check == Check::Authoritative, turns: false };
        let deadline = start + self.timeout;
        let watch = Watch { label: &label, servers: &watched, values: &values, ask: &network, start, deadline, seen: &|_| {}, watcher };
        for text in watch.run().await.outcome(&label, &watched)? {
            let text =
                format!("a server of {label} was left aside: {text}. CAs will ask the others; mend it, or remove it from the NS records");
            watcher(Progress::LeftAside { text });
        }
        Ok(())
    }

    fn walk(&self) -> Walk<'_> {
        Walk { resolver: &self.resolver, port: self.port }
    }

    /// The delegation of a zone, from its parent on.
    ///
    /// # Errors
    /// [`PropagationError`] if the world does not find it.
    pub async fn delegation(&self, zone: &Name) -> Result<Delegation, PropagationError> {
        delegation::find(self.walk(), zone).await
    }
}

/// Servers that shall all answer the same values.
struct Group {
    label: String,
    servers: Vec<(Arc<str>, Upstream)>,
    values: Values,
}

impl Plan {
    fn groups(&self, values: &Values) -> Vec<Group> {
        let group = |(zone, servers): (&Name, &Vec<Server>)| {
            // The innermost zone holds a name: zones of ours may lie in each other.
            let innermost = |owner: &Name| self.0.keys().filter(|zone| owner.is_within(zone)).max_by_key(|zone| zone.depth());
            let values = values
                .iter()
                .filter(|(owner, _)| innermost(owner) == Some(zone))
                .map(|(owner, set)| (owner.clone(), set.clone()))
                .collect();
            let servers = servers.iter().map(|server| (server.to_string().into(), Upstream::Udp(server.address))).collect();
            Group { label: zone.to_relative_string(), servers, values }
        };
        self.0.iter().map(group).filter(|group| !group.values.is_empty()).collect()
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready { zone, ready, servers } => write!(f, "{zone}: {ready} of {servers} servers answer every value"),
            Self::LeftAside { text } => f.write_str(text),
        }
    }
}
