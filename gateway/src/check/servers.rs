//! How the world finds the zone, and what each of its servers says.

use std::collections::BTreeSet;

use authdns::Name;

use super::{
    Ladder,
    report::{Rung, RungId},
};
use crate::{
    claim::{Backend, Lane},
    config::Check,
    propagation::{
        Delegation, PropagationError,
        diagnose::{self, Cut, Speed, Spoken},
    },
};

/// What was found.
pub(super) struct Found {
    pub(super) delegation: Rung,
    pub(super) servers: Rung,
    /// The servers, where they are known and may be asked.
    pub(super) zone: Option<Delegation>,
}

impl Ladder {
    /// The delegation of the zone, and its servers. `world` is the zone in which the world finds the name.
    pub(super) async fn servers(&self, owner: Option<&Name>, lane: Option<&Lane>, world: &Result<Name, PropagationError>) -> Found {
        let skip = |why: &str| Found {
            delegation: Rung::skipped(RungId::Delegation, why),
            servers: Rung::skipped(RungId::Servers, why),
            zone: None,
        };
        let Some(owner) = owner else { return skip("where the value would stand is not known") };
        if self.check(lane) != Check::Authoritative {
            return skip("the configuration says not to ask the zone's own servers (check, under propagation or the backend)");
        }
        let Some(zone) = lane.map(|lane| &lane.zone).or(world.as_ref().ok()) else {
            let why = world.as_ref().err().map_or_else(String::new, ToString::to_string);
            return skip(&format!("neither a backend nor the world knows a zone for the name: {why}"));
        };
        match self.checker.delegation(zone).await {
            Err(error) => Found {
                delegation: undelegated(&error),
                servers: Rung::skipped(RungId::Servers, "the zone's servers are not known"),
                zone: None,
            },
            Ok(found) => {
                let said = diagnose::servers(&found, owner).await;
                Found {
                    delegation: delegated(&found, lane, owner, world),
                    servers: self.judge_servers(&found, lane, &said),
                    zone: Some(found),
                }
            }
        }
    }

    /// Whom the configuration wants asked about a lane's zone.
    pub(super) fn check(&self, lane: Option<&Lane>) -> Check {
        let own = lane.and_then(|lane| self.checks.iter().find(|(backend, _)| **backend == *lane.backend.as_str()));
        own.map_or(self.propagation.check, |(_, check)| *check)
    }

    fn judge_servers(&self, delegation: &Delegation, lane: Option<&Lane>, said: &[Spoken]) -> Rung {
        const ID: RungId = RungId::Servers;
        let zone = delegation.zone.to_relative_string();
        let reached: Vec<&Spoken> = said.iter().filter(|one| !one.unroutable).collect();
        let lame: Vec<&&Spoken> = reached.iter().filter(|one| !one.serves()).collect();
        let mute: Vec<&&Spoken> = reached.iter().filter(|one| one.serves() && !one.tcp).collect();
        let serials: BTreeSet<u32> = reached.iter().filter_map(|one| one.serial).collect();
        let names = |some: &[&&Spoken]| some.iter().map(|one| one.server.as_str()).collect::<Vec<_>>().join(", ");
        let rung = if reached.is_empty() {
            Rung::warning(
                ID,
                format!("this machine has no route to any server of {zone}"),
                "run the check where there is a route to them: what CAs see cannot be told from here",
            )
        } else if lame.len() == reached.len() {
            let own = lane.is_some_and(|lane| lane.backend == Backend::Embedded);
            let next = match (own, self.serving) {
                (true, false) => "start `acmegate serve`: it is the server of this zone, and does not run on this data folder".to_owned(),
                (true, true) => {
                    "look that the addresses under dns.listen are those of the NS records, and that UDP and TCP port 53 come in".to_owned()
                }
                (false, _) => format!("start or mend the servers of {zone}, or delegate it to those that serve it"),
            };
            Rung::failed(ID, format!("no server of {zone} answers for it"), next)
        } else if !lame.is_empty() {
            Rung::warning(
                ID,
                format!("{} of {} addresses do not serve {zone}: {}", lame.len(), reached.len(), names(&lame)),
                "mend them, or remove them from the NS records in the zone and above it: CAs may ask any of them",
            )
        } else if !mute.is_empty() {
            Rung::warning(
                ID,
                format!("no answer over TCP: {}", names(&mute)),
                "let TCP port 53 in: CAs need it for long answers, and some ask by TCP alone",
            )
        } else if serials.len() > 1 {
            Rung::warning(
                ID,
                format!("the servers of {zone} have different SOA serials"),
                "if nothing was changed a moment ago, look why changes do not reach every server (NOTIFY, transfers)",
            )
        } else {
            Rung::ok(ID, format!("every address serves {zone}"))
        };
        rung.because(said.iter().map(line).collect())
    }
}

fn line(one: &Spoken) -> String {
    if one.unroutable {
        return format!("{}: this machine has no route to it", one.server);
    }
    let mut line = format!("{}: {}", one.server, one.answer);
    if one.speed != Speed::Silent && !one.serves() {
        line += if one.authority { "" } else { ", without authority" };
    }
    if let Some(serial) = one.serial {
        line += &format!(", serial {serial}");
    }
    if one.serves() && !one.tcp {
        line += ", nothing over TCP";
    }
    if one.speed == Speed::Slow {
        line += ", slow";
    }
    line
}

fn delegated(found: &Delegation, lane: Option<&Lane>, owner: &Name, world: &Result<Name, PropagationError>) -> Rung {
    const ID: RungId = RungId::Delegation;
    let cut = Cut::from(found);
    let zone = cut.zone.to_relative_string();
    let list = |names: &[Name]| names.iter().map(Name::to_relative_string).collect::<Vec<_>>().join(", ");
    let mut evidence = vec![match &cut.parent {
        Some(parent) => format!("{} delegates {zone} to {}", parent.to_relative_string(), list(&cut.delegated)),
        None => format!("the resolvers know as servers of {zone}: {}", list(&cut.delegated)),
    }];
    match &cut.own {
        Some(own) => evidence.push(format!("{zone} itself names {}", list(own))),
        None => evidence.push(format!("{zone} itself was not asked, or does not answer")),
    }
    let deeper = lane.zip(world.as_ref().ok()).filter(|(lane, world)| **world != lane.zone && world.is_within(&lane.zone));
    let rung = match deeper {
        Some((lane, world)) => {
            let (owner, world, backend) = (owner.to_relative_string(), world.to_relative_string(), lane.backend.as_str());
            Rung::failed(
                ID,
                format!("{owner} lies in {world}, which is delegated away from {zone}: what {backend} writes in {zone} is seen by nobody"),
                format!("let a backend see the zone {world}, or remove its NS records from {zone}"),
            )
        }
        None if cut.notes.is_empty() => Rung::ok(ID, format!("{zone} is delegated, and parent and zone agree")),
        None => Rung::warning(
            ID,
            cut.notes.join("; "),
            "make the NS records of the zone and of the zone above it the same, and see that the latter's servers answer",
        ),
    };
    rung.because(evidence)
}

/// What is wrong goes apart from what to do.
fn undelegated(error: &PropagationError) -> Rung {
    const ID: RungId = RungId::Delegation;
    match error {
        PropagationError::NotDelegated { zone, found } => {
            let zone = zone.to_relative_string();
            Rung::failed(
                ID,
                format!("{zone} is not delegated: {found}"),
                format!(
                    "create NS records for {zone} in the zone above it that name its servers, with their addresses where the names lie in {zone}"
                ),
            )
        }
        PropagationError::Lookup { zone, source } => Rung::failed(
            ID,
            format!("the servers of {} could not be found: {source}", zone.to_relative_string()),
            "see that every server in its NS records answers, and the resolvers under propagation.resolvers",
        ),
        PropagationError::NoAddresses { zone, servers } => Rung::failed(
            ID,
            format!("the servers of {} have no addresses: {}", zone.to_relative_string(), servers.join(", ")),
            "create A or AAAA records for them",
        ),
        PropagationError::Unreachable { name, why } => Rung::failed(
            ID,
            format!("the zone of {} could not be found: {why}", name.to_relative_string()),
            "see to the resolvers under propagation.resolvers, and that UDP and TCP port 53 go out",
        ),
        other => Rung::failed(ID, other.to_string(), "mend what the text says"),
    }
}
