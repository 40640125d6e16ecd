//! The servers of a zone, as the world finds them: those that its parent delegates to, and those that the zone itself names besides.

use std::{collections::BTreeSet, fmt, net::SocketAddr};

use authdns::Name;
use hickory_proto::rr::RecordType;

use super::{
    PropagationError,
    exchange::DNS,
    resolver::ResolveError,
    walk::{Lost, Referral, Servers, Walk, named, shown},
};

/// Most addresses asked for one zone: more than any zone needs, few enough that nobody can make a cannon of this.
const MOST_ADDRESSES: usize = 32;

/// A zone and its servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegation {
    /// The apex.
    pub zone: Name,
    /// Every address of every server.
    pub servers: Vec<Server>,
    /// Who says so.
    pub source: Source,
    /// The names that the source gives.
    pub delegated: BTreeSet<Name>,
    /// The names in the zone's own NS records; `None` if none of its servers gave them.
    pub own: Option<BTreeSet<Name>>,
}

/// Who said where a zone is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The servers of the zone above, asked directly.
    Parent(Name),
    /// The resolvers, which may remember what was.
    Resolvers {
        /// Why the servers of the parent did not.
        why: String,
    },
}

/// One address of one server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Server {
    /// Its name in the NS record.
    pub name: Name,
    /// Where it is asked.
    pub address: SocketAddr,
}

impl Delegation {
    /// What a person should know: parent and zone that name different servers, or a parent that could not be asked.
    pub fn notes(&self) -> Vec<String> {
        let zone = shown(&self.zone);
        let list = |names: &BTreeSet<Name>| names.iter().map(Name::to_relative_string).collect::<Vec<_>>().join(", ");
        let mut notes = Vec::new();
        match &self.source {
            Source::Resolvers { why } => notes.push(format!("the delegation of {zone} is what the resolvers remember: {why}")),
            Source::Parent(parent) => {
                if let Some(own) = self.own.as_ref().filter(|own| **own != self.delegated) {
                    notes.push(format!(
                        "{} delegates {zone} to {}, and the zone itself names {}: CAs may ask any of them; make the NS records the same",
                        shown(parent),
                        list(&self.delegated),
                        list(own),
                    ));
                }
            }
        }
        notes
    }
}

/// Finds the servers of `zone`.
///
/// # Errors
/// [`PropagationError`] if the world does not know the zone or its servers.
pub(super) async fn find(walk: Walk<'_>, zone: &Name) -> Result<Delegation, PropagationError> {
    match walk.referral(zone).await {
        Ok(referral) => from_parent(walk, zone, referral).await,
        Err(lost) => from_resolvers(walk, zone, lost).await,
    }
}

async fn from_parent(walk: Walk<'_>, zone: &Name, referral: Referral) -> Result<Delegation, PropagationError> {
    let Referral { parent, servers, authority } = referral;
    let delegated: BTreeSet<Name> = servers.keys().cloned().collect();
    let (mut servers, failure) = walk.addresses(servers).await;
    let own = if authority { Some(delegated.clone()) } else { walk.own(zone, &servers).await };
    let more: Servers =
        own.iter().flatten().filter(|name| !delegated.contains(*name)).map(|name| (name.clone(), BTreeSet::new())).collect();
    servers.extend(walk.addresses(more).await.0);
    let servers = listed(walk, zone, servers, failure)?;
    Ok(Delegation { zone: zone.clone(), servers, source: Source::Parent(parent), delegated, own })
}

/// What the resolvers know, where the parent did not help: in networks of their own there are zones that only the resolvers know.
async fn from_resolvers(walk: Walk<'_>, zone: &Name, lost: Lost) -> Result<Delegation, PropagationError> {
    let answer = walk.resolver.lookup(zone, RecordType::NS).await;
    let answer = answer.map_err(|source| PropagationError::Lookup { zone: zone.clone(), source })?;
    let delegated = named(&answer.records, zone);
    if delegated.is_empty() {
        let found = match lost {
            Lost::NotDelegated { found, .. } => found,
            Lost::Unreachable(_) if answer.no_such_name => "the resolvers say that there is no such name".into(),
            Lost::Unreachable(_) => "the resolvers find no NS records for it".into(),
        };
        return Err(PropagationError::NotDelegated { zone: zone.clone(), found });
    }
    let (servers, failure) = walk.addresses(delegated.iter().map(|name| (name.clone(), BTreeSet::new())).collect()).await;
    let servers = listed(walk, zone, servers, failure)?;
    let why = match lost {
        Lost::NotDelegated { found, .. } => format!("{found}, so that public CAs will not find the zone"),
        Lost::Unreachable(why) => why,
    };
    Ok(Delegation { zone: zone.clone(), servers, source: Source::Resolvers { why }, delegated, own: None })
}

/// Each address once, in the order of the servers' names.
fn listed(walk: Walk<'_>, zone: &Name, servers: Servers, failure: Option<ResolveError>) -> Result<Vec<Server>, PropagationError> {
    let mut seen = BTreeSet::new();
    let each = servers.iter().flat_map(|(name, ips)| ips.iter().map(move |ip| (name, *ip)));
    let listed: Vec<_> = each
        .filter(|(_, ip)| seen.insert(*ip))
        .map(|(name, ip)| Server { name: name.clone(), address: SocketAddr::new(ip, walk.port) })
        .take(MOST_ADDRESSES)
        .collect();
    if !listed.is_empty() {
        return Ok(listed);
    }
    let names = servers.keys().map(Name::to_relative_string).collect();
    Err(match failure {
        Some(source) => PropagationError::Lookup { zone: zone.clone(), source },
        None => PropagationError::NoAddresses { zone: zone.clone(), servers: names },
    })
}

impl fmt::Display for Server {
    /// `ns1.example.com (192.0.2.1)`; the port only where it is not 53.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = if self.address.port() == DNS { self.address.ip().to_string() } else { self.address.to_string() };
        write!(f, "{} ({address})", self.name.to_relative_string())
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{Message, ResponseCode},
        rr::{RData, Record, rdata},
    };

    use super::{
        super::{
            fake::{Fake, reply},
            resolver::Resolver,
        },
        *,
    };

    fn zone_file(query: &Message) -> Message {
        let asked = &query.queries[0];
        let mut answer = reply(query, false, &[]);
        let data = match (asked.name.to_ascii().to_lowercase().as_str(), asked.query_type) {
            ("auth.test.", RecordType::NS) => vec![
                RData::NS(rdata::NS("ns1.auth.test.".parse().unwrap())),
                RData::NS(rdata::NS("ns2.auth.test.".parse().unwrap())),
                RData::NS(rdata::NS("gone.auth.test.".parse().unwrap())),
            ],
            ("ns1.auth.test.", RecordType::A) => vec![RData::A("192.0.2.1".parse().unwrap()), RData::A("192.0.2.2".parse().unwrap())],
            ("ns1.auth.test.", RecordType::AAAA) => vec![RData::AAAA("2001:db8::1".parse().unwrap())],
            // The same machine under a second name.
            ("ns2.auth.test.", RecordType::A) => vec![RData::A("192.0.2.1".parse().unwrap())],
            ("bare.test.", RecordType::NS) => vec![RData::NS(rdata::NS("gone.auth.test.".parse().unwrap()))],
            ("plain.test." | "gone.auth.test." | "ns2.auth.test.", _) => Vec::new(),
            ("broken.test.", _) => {
                answer.metadata.response_code = ResponseCode::ServFail;
                Vec::new()
            }
            _ => {
                answer.metadata.response_code = ResponseCode::NXDomain;
                Vec::new()
            }
        };
        answer.answers.extend(data.into_iter().map(|data| Record::from_rdata(asked.name.clone(), 60, data)));
        answer
    }

    async fn found(zone: &str) -> Result<Vec<String>, String> {
        let fake = Fake::start(|query, _| vec![zone_file(query)]).await;
        let resolver = Resolver::new(vec![fake.address]);
        let found = find(Walk { resolver: &resolver, port: DNS }, &zone.parse().unwrap()).await;
        found.map(|found| found.servers.iter().map(ToString::to_string).collect()).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn every_address_of_every_server_is_found_once() {
        assert_eq!(
            found("auth.test").await.unwrap(),
            ["ns1.auth.test (192.0.2.1)", "ns1.auth.test (192.0.2.2)", "ns1.auth.test (2001:db8::1)"]
        );
    }

    #[tokio::test]
    async fn each_kind_of_missing_delegation_says_what_to_do() {
        for (zone, said) in [
            ("plain.test", "find no NS records"),
            ("nowhere.test", "no such name"),
            ("bare.test", "Create A or AAAA records"),
            ("broken.test", "SERVFAIL"),
        ] {
            let error = found(zone).await.unwrap_err();
            assert!(error.contains(said) && error.contains(zone), "{error}");
        }
    }
}
