//! From the parent of a zone to the zone, past every cache.
//!
//! Where to begin is the one thing that the configured resolvers are asked: which zone is above, and where its servers are (networks with a root of
//! their own have resolvers that know it). Those servers then say themselves whom they delegate the zone to, with the addresses that they give out (glue), and
//! the zone's own servers say whom the zone names. What a person has changed a second ago counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use authdns::Name;
use futures_util::{StreamExt, future::join_all, stream};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{RData, Record, RecordType},
};

use super::{
    exchange::{Question, exchange, to_name},
    resolver::{ResolveError, Resolver},
};

/// How long one server may take.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How long the resolvers may take over an address that the parent gave already.
const GLUE_PATIENCE: Duration = Duration::from_secs(2);
/// Addresses of one zone asked for a referral, and how many side by side.
const MOST_ASKED: usize = 6;
const AT_ONCE: usize = 3;
/// Names of a parent's servers that are looked up: the root and the large domains have thirteen.
const MOST_NAMES: usize = 4;
/// Referrals followed: nobody nests delegations so deep.
const MOST_STEPS: usize = 10;

/// Names and the addresses that are known of them.
pub(super) type Servers = BTreeMap<Name, BTreeSet<IpAddr>>;

/// What the parent says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Referral {
    /// The apex of the parent.
    pub(super) parent: Name,
    /// Whom it delegates to, with glue.
    pub(super) servers: Servers,
    /// True if the servers of the parent serve the zone too: then this is what the zone says.
    pub(super) authority: bool,
}

/// Why there is no referral.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lost {
    /// The zone above says that there is no such delegation.
    NotDelegated {
        /// That zone.
        parent: Name,
        /// How it says so.
        found: String,
    },
    /// The parent could not be asked, and why.
    Unreachable(String),
}

/// A walk with these resolvers, to servers that listen on this port.
#[derive(Debug, Clone, Copy)]
pub(super) struct Walk<'a> {
    pub(super) resolver: &'a Resolver,
    pub(super) port: u16,
}

impl Walk<'_> {
    /// Asks the servers of the parent for the delegation of `zone`.
    ///
    /// # Errors
    /// [`Lost`].
    pub(super) async fn referral(self, zone: &Name) -> Result<Referral, Lost> {
        let (mut parent, names) = self.parent(zone).await?;
        let mut servers = self.addresses(names.into_iter().take(MOST_NAMES).map(|name| (name, BTreeSet::new())).collect()).await.0;
        for _ in 0..MOST_STEPS {
            let read = |message: &Message| Step::read(message, zone, &parent);
            let Some(step) = self.first(&servers, zone, read).await else {
                return Err(Lost::Unreachable(format!("no server of {} answers", shown(&parent))));
            };
            match step {
                Step::There(mut there, authority) => {
                    // Where the same servers have both zones, their addresses are known from the way there.
                    for (name, ips) in &mut there {
                        ips.extend(servers.get(name).into_iter().flatten());
                    }
                    return Ok(Referral { parent, servers: there, authority });
                }
                Step::Nowhere(found) => return Err(Lost::NotDelegated { parent, found }),
                Step::Down(cut, next) => {
                    parent = cut;
                    servers = self.addresses(next).await.0;
                }
            }
        }
        Err(Lost::Unreachable(format!("more than {MOST_STEPS} referrals lead there")))
    }

    /// The names in the zone's own NS records, as the first of these servers has them; `None` if none answers with authority.
    pub(super) async fn own(self, zone: &Name, servers: &Servers) -> Option<BTreeSet<Name>> {
        let read = |message: &Message| {
            let names = named(&message.answers, zone);
            (message.metadata.authoritative && !names.is_empty()).then_some(names)
        };
        self.first(servers, zone, read).await
    }

    /// All addresses of these servers: those that are known and those that the resolvers find. The second is what the resolvers failed with, if they did.
    pub(super) async fn addresses(self, servers: Servers) -> (Servers, Option<ResolveError>) {
        let questions =
            servers.into_iter().flat_map(|(name, known)| [RecordType::A, RecordType::AAAA].map(|kind| (name.clone(), known.clone(), kind)));
        let lookup = |(name, known, kind): (Name, BTreeSet<IpAddr>, RecordType)| async move {
            let lookup = self.resolver.lookup(&name, kind);
            let answer = match known.is_empty() {
                true => lookup.await,
                // One name that the resolvers cannot find is for the world no loss, where the parent gives its address.
                false => tokio::time::timeout(GLUE_PATIENCE, lookup).await.unwrap_or_else(|_| Ok(super::resolver::Answer::default())),
            };
            (name, known, answer)
        };
        let (mut found, mut failure) = (Servers::new(), None);
        for (name, known, answer) in join_all(questions.map(lookup)).await {
            let addresses = found.entry(name).or_default();
            addresses.extend(known);
            match answer {
                Ok(answer) => addresses.extend(answer.records.iter().filter_map(ip)),
                Err(error) => failure = Some(error),
            }
        }
        (found, failure)
    }

    /// The zone above, and the names of its servers, as the resolvers know them.
    async fn parent(self, zone: &Name) -> Result<(Name, BTreeSet<Name>), Lost> {
        let mut at = zone.parent();
        while let Some(name) = at {
            let answer = self.resolver.lookup(&name, RecordType::NS).await.map_err(|error| Lost::Unreachable(error.to_string()))?;
            let names = named(&answer.records, &name);
            if !names.is_empty() {
                return Ok((name, names));
            }
            // The SOA record of a negative answer names the zone that the name lies in.
            let apex =
                answer.authorities.iter().filter(|record| matches!(record.data, RData::SOA(_))).find_map(|record| to_name(&record.name));
            at = apex.filter(|apex| *apex != name && name.is_within(apex)).or_else(|| name.parent());
        }
        Err(Lost::Unreachable("the resolvers know no zone above it".into()))
    }

    /// What the first of these servers with something to say says of the NS records of `zone`.
    async fn first<T>(self, servers: &Servers, zone: &Name, read: impl Fn(&Message) -> Option<T>) -> Option<T> {
        let question = Question::direct(zone, RecordType::NS);
        let question = &question;
        let ips: BTreeSet<IpAddr> = servers.values().flatten().copied().collect();
        let ask = |ip| async move { exchange(SocketAddr::new(ip, self.port), question, PATIENCE).await };
        let asked: Vec<_> = ips.into_iter().take(MOST_ASKED).map(ask).collect();
        let mut answers = stream::iter(asked).buffer_unordered(AT_ONCE);
        while let Some(answer) = answers.next().await {
            if let Some(said) = answer.ok().as_ref().and_then(&read) {
                return Some(said);
            }
        }
        None
    }
}

/// What one answer says of the way to a zone.
enum Step {
    /// Its servers, and whether with authority.
    There(Servers, bool),
    /// The servers of a zone on the way.
    Down(Name, Servers),
    /// There is no delegation.
    Nowhere(String),
}

impl Step {
    /// `None` if the server is of no use.
    fn read(message: &Message, zone: &Name, parent: &Name) -> Option<Self> {
        let authoritative = message.metadata.authoritative;
        match message.metadata.response_code {
            ResponseCode::NXDomain if authoritative => {
                return Some(Self::Nowhere(format!("the servers of {} say that there is no such name", shown(parent))));
            }
            ResponseCode::NoError => {}
            _ => return None,
        }
        let own = named(&message.answers, zone);
        if authoritative && !own.is_empty() {
            return Some(Self::There(with_glue(own, message), true));
        }
        let cut = message.authorities.iter().filter(|record| matches!(record.data, RData::NS(_))).find_map(|record| to_name(&record.name));
        match cut {
            Some(cut) if cut == *zone => Some(Self::There(with_glue(named(&message.authorities, &cut), message), false)),
            Some(cut) if zone.is_within(&cut) && cut.depth() > parent.depth() => {
                Some(Self::Down(cut.clone(), with_glue(named(&message.authorities, &cut), message)))
            }
            _ if authoritative => Some(Self::Nowhere(format!("the servers of {} have no NS records for it", shown(parent)))),
            _ => None,
        }
    }
}

/// The names in the NS records that `zone` owns.
pub(super) fn named(records: &[Record], zone: &Name) -> BTreeSet<Name> {
    let own = records.iter().filter(|record| to_name(&record.name).as_ref() == Some(zone));
    own.filter_map(|record| match &record.data {
        RData::NS(server) => to_name(&server.0),
        _ => None,
    })
    .collect()
}

fn with_glue(names: BTreeSet<Name>, message: &Message) -> Servers {
    let mut servers: Servers = names.into_iter().map(|name| (name, BTreeSet::new())).collect();
    for record in &message.additionals {
        if let (Some(addresses), Some(ip)) = (to_name(&record.name).and_then(|name| servers.get_mut(&name)), ip(record)) {
            addresses.insert(ip);
        }
    }
    servers
}

fn ip(record: &Record) -> Option<IpAddr> {
    match &record.data {
        RData::A(address) => Some(address.0.into()),
        RData::AAAA(address) => Some(address.0.into()),
        _ => None,
    }
}

/// The name as people read it.
pub(super) fn shown(name: &Name) -> String {
    if name.depth() == 0 { "the root".into() } else { name.to_relative_string() }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::rr::rdata;

    use super::{
        super::{
            PropagationError,
            delegation::{self, Source},
            fake::{Fake, reply},
        },
        *,
    };

    const PARENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 71);
    const CHILD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 72);
    const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 73);

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn record(owner: &str, data: RData) -> Record {
        Record::from_rdata(owner.parse().unwrap(), 60, data)
    }

    fn ns(owner: &str, server: &str) -> Record {
        record(owner, RData::NS(rdata::NS(server.parse().unwrap())))
    }

    fn a(owner: &str, ip: Ipv4Addr) -> Record {
        record(owner, RData::A(ip.into()))
    }

    fn asks(query: &Message) -> (String, RecordType) {
        (query.queries[0].name.to_ascii(), query.queries[0].query_type)
    }

    fn no_such_name(query: &Message, authoritative: bool) -> Message {
        let mut answer = reply(query, authoritative, &[]);
        answer.metadata.response_code = ResponseCode::NXDomain;
        answer
    }

    /// A resolver that knows the zone `test.` and its server, and what `more` answers.
    async fn resolver(more: impl Fn(&(String, RecordType)) -> Option<Record> + Send + Sync + 'static) -> Fake {
        Fake::start(move |query, _| {
            let asked = asks(query);
            let known = match (asked.0.as_str(), asked.1) {
                ("test.", RecordType::NS) => Some(ns("test.", "ns.test.")),
                ("ns.test.", RecordType::A) => Some(a("ns.test.", PARENT)),
                _ => more(&asked),
            };
            let mut answer = if known.is_some() { reply(query, false, &[]) } else { no_such_name(query, false) };
            answer.answers.extend(known);
            vec![answer]
        })
        .await
    }

    /// The server of `test.`: it delegates `auth.test` to `ns1.auth.test`, `b.test` to `ns.b.test`, both at [`CHILD`], and knows nothing else.
    async fn parent() -> Fake {
        Fake::at(SocketAddr::new(PARENT.into(), 0), |query, _| {
            let mut answer = reply(query, false, &[]);
            let cut = match asks(query).0.as_str() {
                "auth.test." => ("auth.test.", "ns1.auth.test."),
                "a.b.test." => ("b.test.", "ns.b.test."),
                "plain.test." => return vec![reply(query, true, &[])],
                _ => return vec![no_such_name(query, true)],
            };
            answer.authorities.push(ns(cut.0, cut.1));
            answer.additionals.push(a(cut.1, CHILD));
            vec![answer]
        })
        .await
    }

    async fn found(resolver: &Fake, port: u16, zone: &str) -> Result<delegation::Delegation, PropagationError> {
        let resolver = Resolver::new(vec![resolver.address]);
        delegation::find(Walk { resolver: &resolver, port }, &name(zone)).await
    }

    #[tokio::test]
    async fn the_parent_is_asked_and_then_the_zone_itself() {
        let parent = parent().await;
        let port = parent.address.port();
        let _child = Fake::at(SocketAddr::new(CHILD.into(), port), |query, _| {
            let mut answer = reply(query, true, &[]);
            answer.answers.extend([ns("auth.test.", "ns1.auth.test."), ns("auth.test.", "ns2.auth.test.")]);
            vec![answer]
        })
        .await;
        // What the resolver remembers of the zone is from before.
        let resolver = resolver(|asked| match (asked.0.as_str(), asked.1) {
            ("auth.test.", RecordType::NS) => Some(ns("auth.test.", "old.auth.test.")),
            ("ns2.auth.test.", RecordType::A) => Some(a("ns2.auth.test.", OTHER)),
            _ => None,
        })
        .await;
        let delegation = found(&resolver, port, "auth.test").await.unwrap();
        assert_eq!(delegation.source, Source::Parent(name("test")));
        let servers: Vec<_> = delegation.servers.iter().map(|server| (server.name.clone(), server.address.ip())).collect();
        assert_eq!(servers, [(name("ns1.auth.test"), CHILD.into()), (name("ns2.auth.test"), OTHER.into())]);
        let notes = delegation.notes();
        assert!(
            notes[0].contains("test delegates auth.test to ns1.auth.test, and the zone itself names ns1.auth.test, ns2.auth.test"),
            "{notes:?}"
        );
    }

    #[tokio::test]
    async fn zones_on_the_way_are_gone_through() {
        let parent = parent().await;
        let port = parent.address.port();
        // It serves b.test and a.b.test, and so answers for the latter with authority.
        let _both = Fake::at(SocketAddr::new(CHILD.into(), port), |query, _| {
            let mut answer = reply(query, true, &[]);
            answer.answers.push(ns("a.b.test.", "ns.b.test."));
            vec![answer]
        })
        .await;
        let resolver = resolver(|_| None).await;
        let delegation = found(&resolver, port, "a.b.test").await.unwrap();
        assert_eq!(delegation.source, Source::Parent(name("b.test")));
        assert_eq!(delegation.servers.len(), 1);
        assert!(delegation.notes().is_empty());
    }

    #[tokio::test]
    async fn what_the_parent_does_not_delegate_is_not_delegated_unless_the_resolvers_know_better() {
        let parent = parent().await;
        let port = parent.address.port();
        let resolver = resolver(|asked| match (asked.0.as_str(), asked.1) {
            ("inner.test.", RecordType::NS) => Some(ns("inner.test.", "ns.inner.test.")),
            ("ns.inner.test.", RecordType::A) => Some(a("ns.inner.test.", OTHER)),
            _ => None,
        })
        .await;
        for (zone, says) in [("gone.test", "that there is no such name"), ("plain.test", "have no NS records for it")] {
            let error = found(&resolver, port, zone).await.unwrap_err().to_string();
            assert!(error.contains("the servers of test") && error.contains(says), "{error}");
        }
        let inner = found(&resolver, port, "inner.test").await.unwrap();
        assert_eq!(inner.servers[0].address.ip(), OTHER);
        assert!(inner.notes()[0].contains("public CAs will not find the zone"), "{:?}", inner.notes());
    }

    #[tokio::test]
    async fn a_parent_that_cannot_be_reached_is_said() {
        let resolver = resolver(|asked| match (asked.0.as_str(), asked.1) {
            ("auth.test.", RecordType::NS) => Some(ns("auth.test.", "ns1.auth.test.")),
            ("ns1.auth.test.", RecordType::A) => Some(a("ns1.auth.test.", CHILD)),
            _ => None,
        })
        .await;
        // Nothing listens there.
        let gone = tokio::net::UdpSocket::bind((PARENT, 0)).await.unwrap().local_addr().unwrap().port();
        let delegation = found(&resolver, gone, "auth.test").await.unwrap();
        assert_eq!(delegation.source, Source::Resolvers { why: "no server of test answers".into() });
        assert!(delegation.notes()[0].contains("what the resolvers remember: no server of test answers"));
    }
}
