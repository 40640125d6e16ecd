//! What can be found out about the DNS of a name, each finding with its evidence: the rungs of `acmegate check`. Nothing here changes anything, and no resolver is
//! asked for an owner name whose value does not stand yet.

mod caa;
mod dnssec;
mod servers;

use authdns::Name;
use serde::{Deserialize, Serialize};

pub use caa::{Caa, CaaRecord, caa};
pub use dnssec::{Dnssec, Security, dnssec};
pub use servers::{Speed, Spoken, servers};

use super::{
    Checker, Delegation, PropagationError, Source,
    delegation::DNS,
    walk::{Lost, Walk},
};

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
    match (Walk { resolver: &checker.resolver, port: DNS }).referral(owner).await {
        Ok(_) => Ok(owner.clone()),
        Err(Lost::NotDelegated { parent, .. }) => Ok(parent),
        Err(Lost::Unreachable(why)) => Err(PropagationError::Unreachable { name: owner.clone(), why }),
    }
}
