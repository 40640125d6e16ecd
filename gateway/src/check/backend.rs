//! The zone of the owner name, the backend that is chosen for it, and what its credential may.

use std::time::Duration;

use authdns::Name;
use futures_util::future::join_all;
use providers::Error;
use tokio::time::timeout;

use super::{
    Ladder,
    report::{Rung, RungId},
    subject::Subject,
};
use crate::{
    claim::{Backend, Lane},
    dispatch::Route,
};

/// For one question to a provider, whatever deadlines it has itself.
const PATIENCE: Duration = Duration::from_secs(30);
/// Characters of a value that are shown: enough to find it.
const SHOWN: usize = 8;
/// Values that are listed.
const MOST_LISTED: usize = 10;

/// What was chosen.
pub(super) struct Chosen {
    pub(super) rung: Rung,
    /// Who writes the name, and in which zone.
    pub(super) lane: Option<Lane>,
    /// The backends that could not be asked.
    pub(super) unasked: Vec<Route>,
}

impl Ladder {
    /// The backend for a name, and why not another. `found` is the zone in which the world finds the name.
    pub(super) async fn backend(&self, subject: &Subject, owner: &Name, found: Option<&Name>) -> Chosen {
        const ID: RungId = RungId::Backend;
        let name = owner.to_relative_string();
        let own = self.zones.zone_of(owner);
        let chosen = match &own {
            Some(zone) => Ok(Some(Lane { backend: Backend::Embedded, zone: zone.clone() })),
            None => bounded(self.dispatch.route(owner)).await,
        };
        let mut evidence = Vec::new();
        if let Some(found) = found {
            evidence.push(format!("the world finds the name in the zone {}", found.to_relative_string()));
        }
        let zones: Vec<String> = self.zones.names().iter().map(Name::to_relative_string).collect();
        match &own {
            Some(zone) => evidence.push(format!("embedded: chosen, its zone {} goes before every backend's", zone.to_relative_string())),
            None if !zones.is_empty() => evidence.push(format!("embedded: none of its zones encloses the name ({})", zones.join(", "))),
            None => {}
        }
        let lane = chosen.as_ref().ok().and_then(Option::as_ref);
        let asked = join_all(self.routes.iter().map(|route| async move { (route, seen_by(route, owner).await) })).await;
        let mut unasked = Vec::new();
        for (route, seen) in &asked {
            let backend = &route.name;
            let mine = lane.is_some_and(|lane| lane.backend.as_str() == &**backend);
            evidence.push(match seen {
                Seen::Excluded => format!("{backend}: its zones, as configured, do not enclose the name"),
                Seen::Nothing => format!("{backend}: sees no zone that encloses the name"),
                Seen::Zone(zone) if mine => format!("{backend}: chosen, for its zone {zone}"),
                Seen::Zone(zone) if own.is_some() => format!("{backend}: has the zone {zone}, but acmegate's own zones go first"),
                Seen::Zone(zone) => format!("{backend}: has the zone {zone}, which is shorter, or the same and later in the configuration"),
                Seen::Failed(error) => {
                    unasked.push(*route);
                    format!("{backend}: could not be asked: {error}")
                }
            });
        }
        let rung = match &chosen {
            Ok(Some(lane)) => {
                let summary = format!("{} writes it, in the zone {}", lane.backend.as_str(), lane.zone.to_relative_string());
                match unasked.is_empty() || own.is_some() {
                    true => Rung::ok(ID, summary),
                    false => Rung::warning(
                        ID,
                        format!(
                            "{summary}; {} could not be asked, and may have a longer one",
                            unasked.iter().map(|route| &*route.name).collect::<Vec<_>>().join(", ")
                        ),
                        "mend what the backend says",
                    ),
                }
            }
            Ok(None) => Rung::failed(
                ID,
                format!("no zone that acmegate can write encloses {name}"),
                format!("let the credential of a backend see its zone and name it under zones; or {}", self.record(subject)),
            ),
            Err(error) => {
                Rung::failed(ID, format!("no backend is known to serve {name}, and not every one could be asked"), next_of(error))
            }
        };
        Chosen { rung: rung.because(evidence), lane: chosen.ok().flatten(), unasked: unasked.into_iter().cloned().collect() }
    }

    /// The backend that a lane goes through; `None` for the embedded zones.
    pub(super) fn route(&self, lane: &Lane) -> Option<&Route> {
        self.routes.iter().find(|route| *route.name == *lane.backend.as_str())
    }

    /// The credential, tried by a call that changes nothing: that of the lane's backend, or those of the backends that could not be asked for a zone.
    pub(super) async fn credential(&self, lane: Option<&Lane>, unasked: &[Route]) -> Rung {
        const ID: RungId = RungId::Credential;
        let tried: Vec<&Route> = match lane {
            None => unasked.iter().collect(),
            Some(lane) => match self.route(lane) {
                Some(route) => vec![route],
                None => return Rung::skipped(ID, "the zone is acmegate's own: it needs no credential"),
            },
        };
        let tries = join_all(tried.iter().map(|route| async move { (route, bounded(route.provider.verify()).await) })).await;
        let said = |(route, tried): &(&&Route, Result<String, Error>)| match tried {
            Ok(text) => format!("{}: {text}", route.name),
            Err(error) => format!("{}: {error}", route.name),
        };
        let summary = tries.iter().map(said).collect::<Vec<_>>().join("; ");
        let failure = |error: &Error| if matches!(error, Error::RateLimited { .. }) { Rung::warning } else { Rung::failed };
        match tries.iter().find_map(|(_, tried)| tried.as_ref().err()) {
            _ if tries.is_empty() => Rung::skipped(ID, "no backend is chosen"),
            Some(error) => failure(error)(ID, summary, next_of(error)),
            None => Rung::ok(ID, summary),
        }
    }

    /// Whether the backend lets us read the name in its zone.
    pub(super) async fn allowed(&self, lane: Option<&Lane>, owner: Option<&Name>, credential: &Rung) -> Rung {
        const ID: RungId = RungId::Allowed;
        let (Some(lane), Some(owner)) = (lane, owner) else { return Rung::skipped(ID, "no backend is chosen") };
        let (name, zone) = (owner.to_relative_string(), lane.zone.to_relative_string());
        let Some(route) = self.route(lane) else { return Rung::skipped(ID, "the zone is acmegate's own: it may write every name there") };
        if !credential.holds() {
            return Rung::skipped(ID, "the credential does not work");
        }
        let limits = route.provider.limits();
        // Where values cannot be removed, newer ones push older ones out.
        let most = if limits.removes { limits.values } else { usize::MAX };
        match values(route, lane, owner).await {
            Ok(values) if values.len() >= most => Rung::warning(
                ID,
                format!("{} TXT values stand at {name}, and {} takes {most} of acmegate's", values.len(), route.name),
                "remove those that nobody needs any more: `acmegate sweep` finds what acmegate left; the others are somebody else's",
            )
            .because(listed(&values)),
            Ok(values) => {
                let summary = format!(
                    "{name} can be read in the zone {zone} (TXT values there: {}); --write shows whether it can be written",
                    values.len()
                );
                Rung::ok(ID, summary).because(listed(&values))
            }
            Err(error @ Error::RateLimited { .. }) => Rung::warning(ID, error.to_string(), next_of(&error)),
            Err(error) => Rung::failed(ID, format!("{name} cannot be read in the zone {zone}: {error}"), next_of(&error)),
        }
    }
}

/// The TXT values at a name, as the provider has them.
pub(super) async fn values(route: &Route, lane: &Lane, owner: &Name) -> Result<Vec<String>, Error> {
    bounded(async {
        let zone = route.finder.at(&lane.zone).await?;
        let read = route.provider.read(&zone, std::slice::from_ref(owner)).await.into_iter().next();
        let nothing = || Err(Error::Transport("the provider gave no result for this name".to_owned()));
        read.unwrap_or_else(nothing).map(|set| set.values.into_iter().collect())
    })
    .await
}

/// What a backend sees of a name.
enum Seen {
    Excluded,
    Nothing,
    Zone(String),
    Failed(Error),
}

async fn seen_by(route: &Route, owner: &Name) -> Seen {
    if route.finder.excludes(owner) {
        return Seen::Excluded;
    }
    match bounded(route.finder.find(owner)).await {
        Ok(Some(zone)) => Seen::Zone(zone.name.to_relative_string()),
        Ok(None) | Err(Error::NotFound(_)) => Seen::Nothing,
        Err(error) => Seen::Failed(error),
    }
}

async fn bounded<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(PATIENCE, call).await.unwrap_or_else(|_| Err(Error::Transport(format!("nothing within {} s", PATIENCE.as_secs()))))
}

/// What a person does about an error of a provider.
pub(super) fn next_of(error: &Error) -> &'static str {
    match error {
        Error::Auth(_) => {
            "put a working credential in its place, or allow it what the text says; secret files are read again by themselves"
        }
        Error::NotFound(_) => "look whether the zone still exists there, and whether the credential may see it",
        Error::RateLimited { .. } => "wait, and look who else uses up the limit of this credential",
        Error::Conflict(_) => "run the check again; if this stays, look who else writes this name",
        Error::Rejected(_) => "mend what the text says: the same request would be refused again",
        Error::Unsent(_) | Error::Transport(_) => {
            "look whether this machine reaches the provider's endpoint, and whether the provider is up"
        }
    }
}

fn listed(values: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = values
        .iter()
        .take(MOST_LISTED)
        .map(|value| match value.char_indices().nth(SHOWN) {
            Some((at, _)) => format!("stands: {}…", value.get(..at).unwrap_or_default()),
            None => format!("stands: {value}"),
        })
        .collect();
    if values.len() > MOST_LISTED {
        lines.push(format!("and {} more", values.len() - MOST_LISTED));
    }
    lines
}
