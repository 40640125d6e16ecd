//! The servers of a zone, as the world finds them.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
};

use authdns::Name;
use futures_util::future::join_all;
use hickory_proto::rr::{RData, RecordType};

use super::{
    PropagationError,
    exchange::to_name,
    resolver::{ResolveError, Resolver},
};

/// Most addresses asked for one zone: more than any zone needs, few enough that nobody can make a cannon of this.
const MOST_ADDRESSES: usize = 32;
const DNS: u16 = 53;

/// A zone and its servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegation {
    /// The apex.
    pub zone: Name,
    /// Every address of every server.
    pub servers: Vec<Server>,
}

/// One address of one server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Server {
    /// Its name in the NS record; `None` for a resolver.
    pub name: Option<Name>,
    /// Where it is asked.
    pub address: SocketAddr,
}

/// Looks up the NS records of `zone` and all addresses of the servers in them.
///
/// # Errors
/// [`PropagationError`] if the world does not know the zone or its servers.
pub(super) async fn find(resolver: &Resolver, zone: &Name) -> Result<Delegation, PropagationError> {
    let lookup = |source: ResolveError| PropagationError::Lookup { zone: zone.clone(), source };
    let answer = resolver.lookup(zone, RecordType::NS).await.map_err(lookup)?;
    let names: BTreeSet<Name> = answer
        .records
        .iter()
        .filter(|record| to_name(&record.name).as_ref() == Some(zone))
        .filter_map(|record| match &record.data {
            RData::NS(server) => to_name(&server.0),
            _ => None,
        })
        .collect();
    if names.is_empty() {
        let found =
            if answer.no_such_name { "the resolvers say that there is no such name" } else { "the resolvers find no NS records for it" };
        return Err(PropagationError::NotDelegated { zone: zone.clone(), found: found.into() });
    }
    let questions = names.iter().flat_map(|name| [(name, RecordType::A), (name, RecordType::AAAA)]);
    let mut servers = BTreeSet::new();
    let mut failure = None;
    let answers = join_all(questions.map(|(name, kind)| async move { (name, resolver.lookup(name, kind).await) })).await;
    for (name, answer) in answers {
        match answer {
            Ok(answer) => servers.extend(answer.records.iter().filter_map(|record| {
                let ip: IpAddr = match &record.data {
                    RData::A(address) => address.0.into(),
                    RData::AAAA(address) => address.0.into(),
                    _ => return None,
                };
                Some(Server { name: Some(name.clone()), address: SocketAddr::new(ip, DNS) })
            })),
            // One name that cannot be resolved is for resolvers one server less.
            Err(error) => failure = Some(error),
        }
    }
    if servers.is_empty() {
        return Err(match failure {
            Some(source) => lookup(source),
            None => PropagationError::NoAddresses { zone: zone.clone(), servers: names.iter().map(Name::to_relative_string).collect() },
        });
    }
    let mut seen = BTreeSet::new();
    let servers = servers.into_iter().filter(|server| seen.insert(server.address)).take(MOST_ADDRESSES).collect();
    Ok(Delegation { zone: zone.clone(), servers })
}

impl fmt::Display for Server {
    /// `ns1.example.com (192.0.2.1)`; the port only where it is not 53.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = if self.address.port() == DNS { self.address.ip().to_string() } else { self.address.to_string() };
        match &self.name {
            Some(name) => write!(f, "{} ({address})", name.to_relative_string()),
            None => f.write_str(&address),
        }
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{Message, ResponseCode},
        rr::{Record, rdata},
    };

    use super::{
        super::fake::{Fake, reply},
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
        let found = find(&Resolver::new(vec![fake.address]), &zone.parse().unwrap()).await;
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
