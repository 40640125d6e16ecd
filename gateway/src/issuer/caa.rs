//! Whether the CAA records of the names let the CA issue (RFC 8659; RFC 8657 for account and challenge): asked before the order, which a refusal would have cost.

use authdns::Name;
use futures_util::{StreamExt, stream};

use super::error::IssueError;
use crate::{
    config::Names,
    engine::Engine,
    policy::CHALLENGE_LABEL,
    propagation::{
        Resolver,
        diagnose::{Caa, CaaClimb, OwnServers},
    },
};

/// Names looked up side by side.
const IN_FLIGHT: usize = 16;

/// Looks the records of every name up. Gives what a person should know: records that could not be looked up are for the CA to judge, which asks from elsewhere.
///
/// # Errors
/// [`IssueError::Caa`], if records forbid a CA with these `identities` to issue by DNS-01 with this account.
pub(super) async fn check(engine: &Engine, names: &Names, identities: &[String], account: &str) -> Result<Vec<String>, IssueError> {
    // Without a name there is nothing to compare.
    if identities.is_empty() {
        return Ok(Vec::new());
    }
    let resolver = Resolver::configured(&engine.config.propagation);
    let climb = CaaClimb::new(&resolver);
    let look = |domain: Name| {
        let climb = &climb;
        async move {
            let found = look(engine, climb, &domain).await;
            (domain, found)
        }
    };
    let looks: Vec<_> = names.domains().into_iter().map(look).collect();
    let found: Vec<_> = stream::iter(looks).buffered(IN_FLIGHT).collect().await;
    let (mut forbidden, mut warnings) = (Vec::new(), Vec::new());
    for (domain, found) in &found {
        let caa = match found {
            Ok(caa) => caa,
            Err(why) => {
                warnings.push(format!(
                    "the CAA records for {} could not be looked up, for which CAs refuse: {why}",
                    domain.to_relative_string()
                ));
                continue;
            }
        };
        for name in names.iter().filter(|name| name.domain == *domain) {
            if let Err(why) = caa.allows(identities, Some(account), name.wildcard) {
                forbidden.push(format!("{name}: {why}"));
            }
        }
    }
    if forbidden.is_empty() { Ok(warnings) } else { Err(IssueError::Caa { texts: forbidden }) }
}

/// The servers of a zone that a backend or we ourselves serve are asked first: a resolver, and a CA behind it, would remember that a name is not there, and take it
/// that nothing below it is.
async fn look(engine: &Engine, climb: &CaaClimb<'_>, domain: &Name) -> Result<Caa, String> {
    let challenge = domain.prepend(CHALLENGE_LABEL).map_err(|error| error.to_string())?;
    let lane = engine.ledger.lane_of(&challenge).await.ok().filter(|lane| domain.is_within(&lane.zone));
    let own = match &lane {
        Some(lane) => engine.propagation.own_servers(lane).await.map_err(|error| error.to_string())?,
        None => None,
    };
    let own = own.as_ref().zip(lane.as_ref()).map(|(servers, lane)| OwnServers { servers, zone: &lane.zone });
    climb.find(own, domain).await.map_err(|error| error.to_string())
}
