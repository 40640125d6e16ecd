//! Waits for the values that providers took, and learns from each wait when to ask the next time.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use authdns::Name;
use futures_util::future::join_all;
use parking_lot::Mutex;
use providers::zones::Delegations;
use tokio::time::Instant;

use super::{
    Checker, Delegation, Plan, PropagationError, Server, Values,
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
    /// Whom to ask about the zones of a backend, by its name in the configuration, where that says so.
    checks: HashMap<String, Check>,
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
        Self { checker: Checker::new(config), checks: HashMap::new(), questions: Questions::default(), memory: Mutex::default() }
    }

    /// Asks otherwise about the zones of these backends.
    #[must_use]
    pub fn with_checks(mut self, checks: impl IntoIterator<Item = (String, Check)>) -> Self {
        self.checks = checks.into_iter().collect();
        self
    }

    /// Whom to ask about a lane's zone.
    fn check(&self, lane: &Lane) -> Check {
        self.checks.get(lane.backend.configured()).copied().unwrap_or(self.checker.check)
    }

    /// The servers of a lane's zone, to be asked for what no resolver shall remember; `None` where the configuration has them not asked.
    ///
    /// # Errors
    /// [`PropagationError`] if the world does not find them.
    pub async fn own_servers(&self, lane: &Lane) -> Result<Option<super::Resolver>, PropagationError> {
        if self.check(lane) != Check::Authoritative {
            return Ok(None);
        }
        let servers = self.servers_of(&lane.zone).await?;
        Ok(Some(super::Resolver::new(servers.into_iter().map(|server| server.address).collect())))
    }

    /// Finds the servers of embedded zones. Can run before the values stand: it asks for no owner name.
    ///
    /// # Errors
    /// [`PropagationError`] for the first zone that the world cannot find.
    pub async fn plan(&self, zones: &BTreeSet<Name>) -> Result<Plan, PropagationError> {
        if self.checker.check != Check::Authoritative {
            return Ok(Plan::default());
        }
        let found = join_all(zones.iter().map(|zone| self.servers_of(zone))).await;
        zones.iter().zip(found).map(|(zone, found)| Ok((zone.clone(), found?))).collect::<Result<_, _>>().map(Plan)
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
        let backend = lane.backend.without_secret();
        let of_all = memory.histories.get(&(backend.clone(), None)).cloned().unwrap_or_default().schedule(owners);
        let standings = memory.standings.get(lane);
        let watched = |server: &Arc<str>| {
            let own = memory.histories.get(&(backend.clone(), Some(server.clone()))).filter(|history| history.len() >= ENOUGH);
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
        // A provider is as quick for every Secret.
        let backend = lane.backend.without_secret();
        for (server, delay) in watched.iter().zip(&report.delays) {
            if let Some(delay) = delay {
                histories.entry((backend.clone(), Some(server.name.clone()))).or_default().note(*delay);
                histories.entry((backend.clone(), None)).or_default().note(*delay);
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
        let authority = self.check(lane) == Check::Authoritative;
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
        if self.check(lane) == Check::None || values.is_empty() {
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

#[cfg(test)]
mod tests {
    use std::{
        net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
        sync::atomic::{AtomicBool, Ordering},
    };

    use hickory_proto::{
        op::Message,
        rr::{RData, Record, RecordType, rdata},
    };

    use prometheus_client::{encoding::text::encode, registry::Registry};

    use super::{
        super::{
            ServerMetrics,
            fake::{Fake, reply},
        },
        *,
    };

    const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 76));
    const DEAD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 77));
    const SIX: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    /// A resolver that knows `zone.test`, with a server at each of these addresses.
    async fn resolver(servers: &'static [IpAddr]) -> Fake {
        Fake::start(move |query, _| {
            let asked = &query.queries[0];
            let owner = asked.name.to_ascii();
            let mut answer = reply(query, false, &[]);
            let number = owner.strip_prefix("ns").and_then(|rest| rest.strip_suffix(".zone.test.")?.parse::<usize>().ok());
            let data: Vec<RData> = match (owner.as_str(), asked.query_type, number) {
                ("zone.test.", RecordType::NS, _) => {
                    let name = |number: usize| RData::NS(rdata::NS(format!("ns{number}.zone.test.").parse().unwrap()));
                    (0..servers.len()).map(name).collect()
                }
                (_, kind @ (RecordType::A | RecordType::AAAA), Some(number)) => match servers[number] {
                    IpAddr::V4(address) if kind == RecordType::A => vec![RData::A(address.into())],
                    IpAddr::V6(address) if kind == RecordType::AAAA => vec![RData::AAAA(address.into())],
                    _ => Vec::new(),
                },
                _ => Vec::new(),
            };
            answer.answers.extend(data.into_iter().map(|data| Record::from_rdata(asked.name.clone(), 60, data)));
            vec![answer]
        })
        .await
    }

    fn propagation(resolver: &Fake, port: u16) -> Propagation {
        Propagation {
            checker: Checker::over(&[resolver.address], port),
            checks: HashMap::new(),
            questions: Questions::default(),
            memory: Mutex::default(),
        }
    }

    fn lane() -> Lane {
        Lane { backend: Backend::Provider("corp".into()), zone: "zone.test".parse().unwrap() }
    }

    async fn wait(propagation: &Propagation, owners: &[&str]) -> (Result<(), String>, Vec<String>) {
        let values: Values = owners.iter().map(|owner| (owner.parse().unwrap(), BTreeSet::from(["v".to_owned()]))).collect();
        let seen = Mutex::new(Vec::new());
        let outcome = propagation.wait(&lane(), &values, &|owner| seen.lock().push(owner.to_relative_string())).await;
        (outcome, seen.into_inner())
    }

    #[tokio::test]
    async fn each_owner_is_told_of_as_it_is_seen_and_the_zone_is_remembered() {
        let server = Fake::at(SocketAddr::new(SERVER, 0), |query, _| {
            vec![reply(query, true, if query.queries[0].name.to_ascii() == "late.zone.test." { &[] } else { &["v"] })]
        })
        .await;
        let resolver = resolver(&[SERVER]).await;
        let propagation = propagation(&resolver, server.address.port());
        let (outcome, seen) = wait(&propagation, &["a.zone.test", "b.zone.test"]).await;
        assert_eq!((outcome, seen), (Ok(()), vec!["a.zone.test".to_owned(), "b.zone.test".to_owned()]));
        let asked = resolver.asked();
        let (outcome, seen) = wait(&propagation, &["c.zone.test", "late.zone.test"]).await;
        let error = outcome.unwrap_err();
        assert_eq!(seen, ["c.zone.test"]);
        assert!(error.contains(&format!("ns0.zone.test ({}) does not answer the value at late.zone.test", server.address)), "{error}");
        assert_eq!(resolver.asked(), asked, "the servers were known");
        let state = propagation.servers().remove(0);
        assert_eq!((state.lane, state.standing), (lane(), Standing::Late { lacks: "does not answer the value at late.zone.test".into() }));
        // After a failure they are looked up anew.
        let (again, _) = wait(&propagation, &["late.zone.test"]).await;
        assert_eq!(again.unwrap_err(), error, "the same text");
        assert!(resolver.asked() > asked);
    }

    #[tokio::test]
    async fn servers_are_asked_over_ipv6_too() {
        let four = Fake::at(SocketAddr::new(SERVER, 0), |query, _| vec![reply(query, true, &["v"])]).await;
        let port = four.address.port();
        let values = |query: &Message| if query.queries[0].name.to_ascii() == "late.zone.test." { &[][..] } else { &["v"] };
        let six = Fake::at(SocketAddr::new(SIX, port), move |query, _| vec![reply(query, true, values(query))]).await;
        let resolver = resolver(&[SERVER, SIX]).await;
        let propagation = propagation(&resolver, port);
        assert_eq!(wait(&propagation, &["a.zone.test"]).await.0, Ok(()));
        assert_eq!(six.asked(), 1);
        let error = wait(&propagation, &["late.zone.test"]).await.0.unwrap_err();
        assert!(error.contains(&format!("ns1.zone.test ([::1]:{port}) does not answer the value at late.zone.test")), "{error}");
    }

    #[tokio::test]
    async fn a_dead_server_is_reported_until_it_answers() {
        let server = Fake::at(SocketAddr::new(SERVER, 0), |query, _| vec![reply(query, true, &["v"])]).await;
        let port = server.address.port();
        let resolver = resolver(&[SERVER, DEAD]).await;
        let mut propagation = propagation(&resolver, port);
        propagation.checker.timeout = Duration::from_secs(30);
        assert_eq!(wait(&propagation, &["a.zone.test"]).await.0, Ok(()));
        let standings = |propagation: &Propagation| propagation.servers().into_iter().map(|state| state.standing).collect::<Vec<_>>();
        let Standing::Aside { why } = &standings(&propagation)[1] else { panic!("{:?}", standings(&propagation)) };
        assert!(why.contains("nothing listens there"), "{why}");
        let propagation = Arc::new(propagation);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(ServerMetrics(propagation.clone())));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for (server, address, state) in [("ns0", SERVER, "answers"), ("ns1", DEAD, "aside")] {
            let server = format!("{server}.zone.test ({address}:{port})");
            let line = format!("nameserver_state{{backend=\"corp\",zone=\"zone.test\",server=\"{server}\",state=\"{state}\"}} 1");
            assert!(text.lines().any(|given| given == line), "no {line} in\n{text}");
        }
        let back = Arc::new(AtomicBool::new(false));
        let _dead = Fake::at(SocketAddr::new(DEAD, port), {
            let back = back.clone();
            move |query, _| {
                back.store(true, Ordering::SeqCst);
                vec![reply(query, true, &["v"])]
            }
        })
        .await;
        assert_eq!(wait(&propagation, &["b.zone.test"]).await.0, Ok(()));
        assert!(back.load(Ordering::SeqCst), "it is tried again");
        assert_eq!(standings(&propagation), [Standing::Answers, Standing::Answers]);
    }

    #[tokio::test]
    async fn nobody_is_asked_where_nobody_shall_be() {
        let resolver = resolver(&[]).await;
        let mut propagation = propagation(&resolver, 1);
        propagation.checker.check = Check::None;
        assert_eq!(wait(&propagation, &["a.zone.test"]).await, (Ok(()), vec!["a.zone.test".to_owned()]));
        assert_eq!(resolver.asked(), 0);
    }

    #[tokio::test]
    async fn zones_of_one_name_are_told_apart_by_the_delegation() {
        let resolver = resolver(&[SERVER, DEAD]).await;
        let propagation = propagation(&resolver, 1);
        let names: Vec<_> = propagation.nameservers(&"zone.test".parse().unwrap()).await.iter().map(Name::to_relative_string).collect();
        assert_eq!(names, ["ns0.zone.test", "ns1.zone.test"]);
        assert!(propagation.nameservers(&"other.test".parse().unwrap()).await.is_empty());
    }
}
