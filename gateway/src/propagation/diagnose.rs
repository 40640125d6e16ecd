//! What can be found out about the DNS of a name, each finding with its evidence: the rungs of `acmegate check`. Nothing here changes anything, and no resolver is
//! asked for an owner name whose value does not stand yet.

mod caa;
mod dnssec;
mod servers;

use authdns::Name;
use serde::{Deserialize, Serialize};

pub use caa::{Caa, CaaClimb, CaaRecord, OwnServers};
pub use dnssec::{Dnssec, Security, dnssec};
pub use servers::{Speed, Spoken, servers};

use super::{Checker, Delegation, PropagationError, Source, walk::Lost};

/// How a zone is delegated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// The apex.
    pub zone: Name,
    /// The zone above, if its servers could be asked.
    pub parent: Option<Name>,
    /// The servers that the parent names, or the resolvers if it could not be asked.
    pub delegated: Vec<Name>,
    /// The servers that the zone itself names; `None` if none of them answers with authority.
    pub own: Option<Vec<Name>>,
    /// Each address of each server, as `ns1.example.com (192.0.2.1)`.
    pub servers: Vec<String>,
    /// What is worth mending though it works.
    pub notes: Vec<String>,
}

impl Cut {
    /// True if parent and zone name the same servers.
    pub fn agrees(&self) -> bool {
        self.own.as_ref().is_some_and(|own| *own == self.delegated)
    }
}

impl From<&Delegation> for Cut {
    fn from(found: &Delegation) -> Self {
        let parent = match &found.source {
            Source::Parent(parent) => Some(parent.clone()),
            Source::Resolvers { .. } => None,
        };
        Self {
            zone: found.zone.clone(),
            parent,
            delegated: found.delegated.iter().cloned().collect(),
            own: found.own.as_ref().map(|own| own.iter().cloned().collect()),
            servers: found.servers.iter().map(ToString::to_string).collect(),
            notes: found.notes(),
        }
    }
}

/// The zone that an owner name lies in, as the servers of the world say themselves: the name itself if it is delegated, else the zone above. The resolvers are not
/// asked for the name.
///
/// # Errors
/// [`PropagationError::Unreachable`] if no server could be asked.
pub async fn zone_of(checker: &Checker, owner: &Name) -> Result<Name, PropagationError> {
    match checker.walk().referral(owner).await {
        Ok(_) => Ok(owner.clone()),
        Err(Lost::NotDelegated { parent, .. }) => Ok(parent),
        Err(Lost::Unreachable(why)) => Err(PropagationError::Unreachable { name: owner.clone(), why }),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use hickory_proto::{
        op::ResponseCode,
        rr::{RData, Record, RecordType, rdata},
    };

    use super::{
        super::fake::{Fake, reply},
        *,
    };

    #[tokio::test]
    async fn the_zone_of_a_name_is_found_without_asking_a_resolver_for_it() {
        let parent = Fake::at("127.0.0.75:0".parse().unwrap(), |query, _| {
            let asked = query.queries[0].name.clone();
            let mut answer = reply(query, false, &[]);
            if asked.to_ascii() == "_acme-challenge.cut.test." {
                answer.authorities.push(Record::from_rdata(asked, 60, RData::NS(rdata::NS("ns.cut.test.".parse().unwrap()))));
            } else {
                answer.metadata.authoritative = true;
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
            vec![answer]
        })
        .await;
        let resolver = Fake::start(|query, _| {
            let asked = &query.queries[0];
            assert!(!asked.name.to_ascii().starts_with("_acme-challenge"), "{asked}");
            let mut answer = reply(query, false, &[]);
            let data = match (asked.name.to_ascii().as_str(), asked.query_type) {
                ("test.", RecordType::NS) => Some(RData::NS(rdata::NS("ns.test.".parse().unwrap()))),
                ("ns.test.", RecordType::A) => Some(RData::A("127.0.0.75".parse().unwrap())),
                _ => None,
            };
            answer.answers.extend(data.map(|data| Record::from_rdata(asked.name.clone(), 60, data)));
            vec![answer]
        })
        .await;
        let checker = Checker::over(&[resolver.address], parent.address.port());
        let zone = |name: &str| {
            let (checker, name) = (checker.clone(), name.parse().unwrap());
            async move { zone_of(&checker, &name).await.unwrap() }
        };
        assert_eq!(zone("_acme-challenge.cut.test").await, "_acme-challenge.cut.test".parse().unwrap());
        assert_eq!(zone("_acme-challenge.www.test").await, "test".parse().unwrap());
        let nobody = Checker::over(&[SocketAddr::from(([127, 0, 0, 1], 1))], 1);
        let error =
            zone_of(&Checker { resolver: super::super::Resolver::new(Vec::new()), ..nobody }, &"_acme-challenge.www.test".parse().unwrap())
                .await;
        assert!(error.unwrap_err().to_string().contains("propagation.resolvers"));
    }
}
