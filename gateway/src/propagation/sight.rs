//! Waits for the values that providers took, and learns from each wait when to ask the next time.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use authdns::Name;
use parking_lot::Mutex;
use providers::zones::Delegations;
use tokio::time::Instant;

use super::{
    Checker, Delegation, PropagationError, Server, Values,
    check::{Failure, Report, Verdict, Watch, Watched},
    questions::{Network, Questions},
    schedule::{History, Schedule},
    upstream::Upstream,
};
use crate::{
    claim::{Backend, Lane},
    config::{self, Check},
    dispatch::Sight,
};

/// How long the servers of a zone are believed to be what they were.
const FRESH: Duration = Duration::from_secs(60);
/// How long they serve where they cannot be looked up anew.
const STALE: Duration = Duration::from_secs(3600);
/// How long a server that was left aside does not count until it answers.
const DISTRUST: Duration = Duration::from_secs(600);
/// Delays of its own from which on a server is judged by them, rather than by those of its backend's other servers.
const ENOUGH: usize = 4;
/// Most zones, servers and histories remembered.
const MOST: usize = 10_000;

/// Sees values at the servers of their zones. One for the process: it holds what was learned of each backend and each server.
#[derive(Debug)]
pub struct Propagation {
    checker: Checker,
    questions: Questions,
    memory: Mutex<Memory>,
}

/// What one server did in the last wait that asked it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerState {
    /// For which backend and zone.
    pub lane: Lane,
    /// Its name and address.
    pub server: Arc<str>,
    /// What it did.
    pub standing: Standing,
}

/// How a server stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It answered every value.
    Answers,
    /// It does not serve the zone; values count as visible without it.
    Aside {
        /// What it did instead.
        why: String,
    },
    /// This machine has no route to it.
    Unroutable,
    /// It serves the zone and lacked values when the time was up.
    Late {
        /// What it lacked.
        lacks: String,
    },
}

#[derive(Debug, Default)]
struct Memory {
    zones: HashMap<Name, (Instant, Delegation)>,
    histories: HashMap<(Backend, Option<Arc<str>>), History>,
    standings: HashMap<Lane, BTreeMap<Arc<str>, (Instant, Standing)>>,
}

impl Propagation {
    /// As configured; nothing is known yet.
    pub fn new(config: &config::Propagation) -> Self {
        Self { checker: Checker::new(config), questions: Questions::default(), memory: Mutex::default() }
    }

    /// Every server that was asked, by lane and name, with what it did last: for metrics and for people.
    pub fn servers(&self) -> Vec<ServerState> {
        let memory = self.memory.lock();
        let states = memory.standings.iter().flat_map(|(lane, servers)| {
            let state = |(server, (_, standing)): (&Arc<str>, &(Instant, Standing))| ServerState {
                lane: lane.clone(),
                server: server.clone(),
                standing: standing.clone(),
            };
            servers.iter().map(state)
        });
        let mut states: Vec<_> = states.collect();
        states.sort_by(|a, b| a.lane.cmp(&b.lane).then_with(|| a.server.cmp(&b.server)));
        states
    }

    /// The servers of a zone: remembered for a short while, and for longer where nothing newer can be had.
    async fn servers_of(&self, zone: &Name) -> Result<Vec<Server>, PropagationError> {
        let known = self.memory.lock().zones.get(zone).cloned();
        if let Some((at, delegation)) = &known
            && at.elapsed() < FRESH
        {
            return Ok(delegation.servers.clone());
        }
        let known = known.map(|(at, delegation)| (delegation.notes(), at, delegation));
        match (self.checker.delegation(zone).await, known) {
            (Ok(found), known) => {
                let before = known.map(|(notes, _, _)| notes).unwrap_or_default();
                found.notes().iter().filter(|note| !before.contains(note)).for_each(|note| tracing::warn!("{note}"));
                let servers = found.servers.clone();
                let mut memory = self.memory.lock();
                if memory.zones.len() >= MOST {
                    memory.zones.clear();
                }
                memory.zones.insert(zone.clone(), (Instant::now(), found));
                Ok(servers)
            }
            (Err(error), Some((_, at, known))) if at.elapsed() < STALE && !matches!(error, PropagationError::NotDelegated { .. }) => {
                tracing::warn!(%error, %zone, "the servers of a zone cannot be looked up anew; those that are known are asked");
                Ok(known.servers)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// How each server shall be asked, by what is known of it.
    fn watched(&self, lane: &Lane, servers: &[Arc<str>], owners: usize) -> Vec<Watched> {
        let memory = self.memory.lock();
        let of_all = memory.histories.get(&(lane.backend.clone(), None)).cloned().unwrap_or_default().schedule(owners);
        let standings = memory.standings.get(lane);
        let watched = |server: &Arc<str>| {
            let own = memory.histories.get(&(lane.backend.clone(), Some(server.clone()))).filter(|history| history.len() >= ENOUGH);
            let distrusted = standings
                .and_then(|servers| servers.get(server))
                .is_some_and(|(at, standing)| matches!(standing, Standing::Aside { .. }) && at.elapsed() < DISTRUST);
            Watched {
                name: server.clone(),
                schedule: own.map_or_else(|| of_all.clone(), |history| history.schedule(owners)),
                trusted: !distrusted,
            }
        };
        let mut watched: Vec<_> = servers.iter().map(watched).collect();
        if watched.iter().all(|server| !server.trusted) {
            watched.iter_mut().for_each(|server| server.trusted = true);
        }
        watched
    }

    /// Takes up what a wait taught.
    fn learn(&self, lane: &Lane, watched: &[Watched], report: &Report) {
        let now = Instant::now();
        let mut memory = self.memory.lock();
        let Memory { histories, standings, .. } = &mut *memory;
        if histories.len() >= MOST {
            histories.clear();
        }
        for (server, delay) in watched.iter().zip(&report.delays) {
            if let Some(delay) = delay {
                histories.entry((lane.backend.clone(), Some(server.name.clone()))).or_default().note(*delay);
                histories.entry((lane.backend.clone(), None)).or_default().note(*delay);
            }
        }
        if standings.len() >= MOST {
            standings.clear();
        }
        let known = standings.entry(lane.clone()).or_default();
        // A server that is no longer in the delegation is no longer of interest.
        let mut before = std::mem::take(known);
        for (server, verdict) in watched.iter().map(|watched| &watched.name).zip(&report.verdicts) {
            let standing = Standing::from(verdict);
            let was_aside = matches!(before.remove(server), Some((_, Standing::Aside { .. })));
            match &standing {
                Standing::Aside { why } if !was_aside => {
                    tracing::warn!(
                        backend = lane.backend.as_str(), zone = %lane.zone, %server, why,
                        "a server of the zone was left aside: CAs will ask the others; mend it, or remove it from the NS records"
                    );
                }
                Standing::Answers if was_aside => {
                    tracing::info!(backend = lane.backend.as_str(), zone = %lane.zone, %server, "a server of the zone answers again");
                }
                _ => {}
            }
            known.insert(server.clone(), (now, standing));
        }
    }

    async fn watch(&self, lane: &Lane, values: &Values, seen: &(dyn for<'a> Fn(&'a Name) + Send + Sync)) -> Result<(), PropagationError> {
        let start = Instant::now();
        let authority = self.checker.check == Check::Authoritative;
        let servers: Vec<(Arc<str>, Upstream)> = if authority {
            let servers = self.servers_of(&lane.zone).await?;
            servers.into_iter().map(|server| (server.to_string().into(), Upstream::Udp(server.address))).collect()
        } else {
            self.checker.resolver.upstreams().iter().map(|resolver| (resolver.to_string().into(), resolver.clone())).collect()
        };
        let names: Vec<Arc<str>> = servers.iter().map(|(name, _)| name.clone()).collect();
        let mut watched = self.watched(lane, &names, values.len());
        if !authority {
            watched.iter_mut().for_each(|watched| watched.schedule = Schedule::patient());
        }
        let label = if authority { lane.zone.to_relative_string() } else { super::RESOLVERS.to_owned() };
        let network = Network { questions: &self.questions, servers, authority, turns: true };
        let deadline = start + self.checker.timeout;
        let watch = Watch { label: &label, servers: &watched, values, ask: &network, start, deadline, seen, watcher: &|_| {} };
        let report = watch.run().await;
        if authority {
            self.learn(lane, &watched, &report);
        }
        match report.outcome(&label, &watched) {
            Ok(_) => Ok(()),
            Err(Failure::Nobody(error)) => Err(error),
            Err(Failure::Late(servers)) => Err(PropagationError::Timeout { timeout: self.checker.timeout, servers }),
        }
    }
}

#[async_trait]
impl Sight for Propagation {
    async fn wait(
        &self,
        lane: &Lane,
        values: &BTreeMap<Name, BTreeSet<String>>,
        seen: &(dyn for<'a> Fn(&'a Name) + Send + Sync),
    ) -> Result<(), String> {
        if self.checker.check == Check::None || values.is_empty() {
            values.keys().for_each(seen);
            return Ok(());
        }
        let outcome = self.watch(lane, values, seen).await;
        if outcome.is_err() {
            // The servers may have changed: they are looked up anew the next time.
            if let Some((at, _)) = self.memory.lock().zones.get_mut(&lane.zone) {
                *at = at.checked_sub(FRESH).unwrap_or(*at);
            }
        }
        outcome.map_err(|error| error.to_string())
    }
}

#[async_trait]
impl Delegations for Propagation {
    async fn nameservers(&self, zone: &Name) -> Vec<Name> {
        match self.checker.delegation(zone).await {
            Ok(delegation) => delegation.delegated.into_iter().collect(),
            Err(error) => {
                tracing::warn!(%error, "the delegation does not tell zones of one name apart");
                Vec::new()
            }
        }
    }
}

impl From<&Verdict> for Standing {
    fn from(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Ready => Self::Answers,
            Verdict::Aside(why) => Self::Aside { why: why.clone() },
            Verdict::Unroutable => Self::Unroutable,
            Verdict::Late(lacks) => Self::Late { lacks: lacks.clone() },
        }
    }
}
