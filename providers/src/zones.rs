//! Which zone of a credential holds a name: the longest suffix on label boundaries, among public zones, within what the configuration allows.
//!
//! **How it is found.** With an allow-list, only the zones in it are looked up (one that is pinned by its id is not even looked up: credentials that may
//! not list need that). Without one, the credential's zones are listed once; where they are too many or cannot be listed, each suffix of the
//! name is asked for, the longest first.
//!
//! **Several zones of one name** are legal almost everywhere. The one that the parent delegates to is taken; where that does not tell them apart,
//! nothing is guessed: the id has to be pinned.
//!
//! **Memory.** What was found is kept for a while, and forgotten at once when the provider says that there is no such zone.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use authdns::Name;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{Error, Provider, Zone};

/// Most zones that a listing takes; whoever has more is asked zone by zone.
pub const MOST_LISTED: usize = 1000;
/// How long a zone that was found is believed in.
const KEPT: Duration = Duration::from_secs(600);
/// How long it is believed that there is no such zone.
const ABSENT: Duration = Duration::from_secs(30);
/// Most suffixes remembered.
const MOST_REMEMBERED: usize = 10_000;

/// A zone that a backend may write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// The apex.
    pub name: Name,
    /// The provider's identifier; `None` has it looked up.
    pub id: Option<String>,
}

/// Asks the world which servers a zone is delegated to.
#[async_trait]
pub trait Delegations: Send + Sync {
    /// The names in the NS records of `zone`, as its parent (or the zone itself) gives them; empty if there are none or they cannot be found.
    async fn nameservers(&self, zone: &Name) -> Vec<Name>;
}

/// The zones of one backend; clones share what they remember.
#[derive(Clone)]
pub struct Finder(Arc<Inner>);

struct Inner {
    provider: Arc<dyn Provider>,
    allowed: Vec<Allowed>,
    delegations: Arc<dyn Delegations>,
    memory: Mutex<Memory>,
    /// One look-up at a time: a thousand claims that arrive together ask once.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Memory {
    /// All zones, where they could be listed.
    listing: Option<(Vec<Zone>, Instant)>,
    /// Set once a listing was incomplete: zones are then asked for one by one.
    unlistable: bool,
    /// Zones by apex, for those asked for one by one.
    asked: HashMap<Name, (Vec<Zone>, Instant)>,
}

impl Finder {
    /// A finder; an empty `allowed` is every zone that the credential can see.
    pub fn new(provider: Arc<dyn Provider>, allowed: Vec<Allowed>, delegations: Arc<dyn Delegations>) -> Self {
        Self(Arc::new(Inner { provider, allowed, delegations, memory: Mutex::default(), turn: tokio::sync::Mutex::new(()) }))
    }

    /// The longest zone that encloses `name` and that may be written; `None` if there is none.
    ///
    /// # Errors
    /// What the provider says, and [`Error::Rejected`] where several zones have the name and none is chosen.
    pub async fn find(&self, name: &Name) -> Result<Option<Zone>, Error> {
        let _turn = self.0.turn.lock().await;
        for suffix in self.candidates(name) {
            if let Some(id) = self.0.allowed.iter().find(|allowed| allowed.name == suffix).and_then(|allowed| allowed.id.clone()) {
                return Ok(Some(Zone { id, name: suffix, nameservers: Default::default() }));
            }
            let zones = self.named(&suffix).await?;
            if !zones.is_empty() {
                return self.choose(zones).await.map(Some);
            }
        }
        Ok(None)
    }

    /// The zone with this apex, as [`Finder::find`] would give it.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none, and as [`Finder::find`].
    pub async fn at(&self, apex: &Name) -> Result<Zone, Error> {
        match self.find(apex).await? {
            Some(zone) if zone.name == *apex => Ok(zone),
            _ => Err(Error::NotFound(format!(
                "the zone {} (was it deleted, or may the credential no longer see it?)",
                apex.to_relative_string()
            ))),
        }
    }

    /// The zones that it may write, as far as they can be known without a name: the allow-list, or the listing.
    ///
    /// # Errors
    /// As [`Finder::find`]; zones of one name that cannot be told apart are left out.
    pub async fn known(&self) -> Result<Vec<Zone>, Error> {
        let _turn = self.0.turn.lock().await;
        let mut zones = Vec::new();
        if self.0.allowed.is_empty() {
            let mut names: Vec<Name> = self.listing(KEPT).await?.unwrap_or_default().into_iter().map(|zone| zone.name).collect();
            names.sort();
            names.dedup();
            for name in names {
                zones.extend(self.choose(self.named(&name).await?).await);
            }
            return Ok(zones);
        }
        for allowed in &self.0.allowed {
            match &allowed.id {
                Some(id) => zones.push(Zone { id: id.clone(), name: allowed.name.clone(), nameservers: Default::default() }),
                None => {
                    let named = self.named(&allowed.name).await?;
                    if !named.is_empty() {
                        zones.extend(self.choose(named).await);
                    }
                }
            }
        }
        Ok(zones)
    }

    /// True if no zone for `name` can be found here, whatever the provider says: the allow-list leaves it out.
    pub fn excludes(&self, name: &Name) -> bool {
        !self.0.allowed.is_empty() && !self.0.allowed.iter().any(|allowed| name.is_within(&allowed.name))
    }

    /// Forgets a zone that the provider no longer knows.
    pub fn forget(&self, apex: &Name) {
        let mut memory = self.0.memory.lock();
        memory.listing = None;
        memory.asked.remove(apex);
    }

    /// The apexes to look for, the longest first.
    fn candidates(&self, name: &Name) -> Vec<Name> {
        let mut found: Vec<Name> = if self.0.allowed.is_empty() {
            suffixes(name)
        } else {
            self.0.allowed.iter().filter(|allowed| name.is_within(&allowed.name)).map(|allowed| allowed.name.clone()).collect()
        };
        found.sort_by_key(|suffix| std::cmp::Reverse(suffix.depth()));
        found.dedup();
        found
    }

    /// The zones with exactly this apex.
    async fn named(&self, apex: &Name) -> Result<Vec<Zone>, Error> {
        if self.0.allowed.is_empty()
            && let Some(zones) = self.listing(KEPT).await?
        {
            let find = |zones: Vec<Zone>| zones.into_iter().filter(|zone| zone.name == *apex).collect::<Vec<_>>();
            let found = find(zones);
            if !found.is_empty() {
                return Ok(found);
            }
            // It may have been created since.
            return Ok(self.listing(ABSENT).await?.map(find).unwrap_or_default());
        }
        if let Some((zones, at)) = self.0.memory.lock().asked.get(apex)
            && at.elapsed() < if zones.is_empty() { ABSENT } else { KEPT }
        {
            return Ok(zones.clone());
        }
        let mut zones = self.0.provider.zones(Some(apex)).await?.zones;
        zones.retain(|zone| zone.name == *apex);
        let mut memory = self.0.memory.lock();
        if memory.asked.len() >= MOST_REMEMBERED {
            memory.asked.clear();
        }
        memory.asked.insert(apex.clone(), (zones.clone(), Instant::now()));
        Ok(zones)
    }

    /// All zones, listed not longer ago than `age`; `None` if they cannot be listed.
    async fn listing(&self, age: Duration) -> Result<Option<Vec<Zone>>, Error> {
        {
            let memory = self.0.memory.lock();
            if memory.unlistable {
                return Ok(None);
            }
            if let Some((zones, at)) = &memory.listing
                && at.elapsed() < age
            {
                return Ok(Some(zones.clone()));
            }
        }
        let listing = self.0.provider.zones(None).await?;
        let mut memory = self.0.memory.lock();
        if !listing.complete {
            memory.unlistable = true;
            return Ok(None);
        }
        memory.listing = Some((listing.zones.clone(), Instant::now()));
        Ok(Some(listing.zones))
    }

    /// One of several zones of the same name.
    async fn choose(&self, mut zones: Vec<Zone>) -> Result<Zone, Error> {
        zones.sort_by(|a, b| a.id.cmp(&b.id));
        zones.dedup_by(|a, b| a.id == b.id);
        let Some(first) = zones.first() else { return Err(Error::NotFound("no zone".to_owned())) };
        if zones.len() == 1 {
            return Ok(first.clone());
        }
        let delegated = self.0.delegations.nameservers(&first.name).await;
        let mut matching = zones.iter().filter(|zone| delegated.iter().any(|server| zone.nameservers.contains(server)));
        match (matching.next(), matching.next()) {
            (Some(one), None) => Ok(one.clone()),
            _ => {
                let (name, ids) =
                    (first.name.to_relative_string(), zones.iter().map(|zone| zone.id.as_str()).collect::<Vec<_>>().join(", "));
                Err(Error::Rejected(format!(
                    "{} zones are named {name}, and the delegation does not tell which of them is served: pin one by its id, as `zones: [{{name: {name}, id: {}}}]` (the ids: {ids})",
                    zones.len(),
                    first.id,
                )))
            }
        }
    }
}

/// The name itself and what is left when labels are taken away, down to one label.
fn suffixes(name: &Name) -> Vec<Name> {
    let mut suffixes = Vec::new();
    let mut rest = Some(name.clone());
    while let Some(name) = rest.filter(|name| name.depth() > 0) {
        rest = name.parent();
        suffixes.push(name);
    }
    suffixes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{Calls, Change, Listing, Receipt, TxtSet};

    #[derive(Debug, Default)]
    struct Cloud {
        zones: Mutex<Vec<Zone>>,
        lists: bool,
        asked: Mutex<Vec<String>>,
    }

    #[async_trait]
    impl Provider for Cloud {
        async fn zones(&self, apex: Option<&Name>) -> Result<Listing, Error> {
            self.asked.lock().push(apex.map_or_else(|| "*".to_owned(), Name::to_relative_string));
            let zones = self.zones.lock().clone();
            Ok(match apex {
                Some(apex) => Listing { zones: zones.into_iter().filter(|zone| zone.name == *apex).collect(), complete: true },
                None if self.lists => Listing { zones, complete: true },
                None => Listing::default(),
            })
        }

        async fn read(&self, _: &Zone, _: &[Name]) -> Vec<Result<TxtSet, Error>> {
            Vec::new()
        }

        async fn apply(&self, _: &Zone, _: &[Change]) -> Vec<Result<Receipt, Error>> {
            Vec::new()
        }

        async fn verify(&self) -> Result<String, Error> {
            Ok(String::new())
        }

        fn calls(&self) -> Calls {
            Calls::default()
        }
    }

    struct Delegated(Vec<Name>);

    #[async_trait]
    impl Delegations for Delegated {
        async fn nameservers(&self, _: &Name) -> Vec<Name> {
            self.0.clone()
        }
    }

    fn name(text: &str) -> Name {
        text.parse().expect(text)
    }

    fn zone(id: &str, apex: &str, server: &str) -> Zone {
        Zone { id: id.to_owned(), name: name(apex), nameservers: BTreeSet::from([name(server)]) }
    }

    fn cloud(lists: bool, zones: &[Zone]) -> Arc<Cloud> {
        Arc::new(Cloud { zones: Mutex::new(zones.to_vec()), lists, asked: Mutex::default() })
    }

    fn finder(cloud: &Arc<Cloud>, allowed: &[(&str, Option<&str>)], delegated: &[&str]) -> Finder {
        let allowed = allowed.iter().map(|(apex, id)| Allowed { name: name(apex), id: id.map(str::to_owned) }).collect();
        Finder::new(cloud.clone(), allowed, Arc::new(Delegated(delegated.iter().map(|server| name(server)).collect())))
    }

    async fn found(finder: &Finder, owner: &str) -> Result<Option<String>, Error> {
        finder.find(&name(owner)).await.map(|zone| zone.map(|zone| zone.id))
    }

    #[tokio::test]
    async fn the_longest_suffix_on_label_boundaries() {
        for lists in [true, false] {
            let zones = [zone("1", "example.com", "a"), zone("2", "sub.example.com", "a"), zone("3", "ample.com", "a")];
            let cloud = cloud(lists, &zones);
            let finder = finder(&cloud, &[], &[]);
            assert_eq!(found(&finder, "_acme-challenge.www.sub.example.com").await, Ok(Some("2".to_owned())));
            assert_eq!(found(&finder, "_acme-challenge.notsub.example.com").await, Ok(Some("1".to_owned())));
            assert_eq!(found(&finder, "example.com").await, Ok(Some("1".to_owned())));
            assert_eq!(found(&finder, "example.org").await, Ok(None));
            if lists {
                assert_eq!(*cloud.asked.lock(), ["*"], "what is listed is not asked for again");
            }
        }
    }

    #[tokio::test]
    async fn only_what_is_allowed_is_asked_for() {
        let cloud = cloud(true, &[zone("1", "example.com", "a"), zone("2", "sub.example.com", "a")]);
        let allowing = finder(&cloud, &[("example.com", None)], &[]);
        assert_eq!(found(&allowing, "_acme-challenge.www.sub.example.com").await, Ok(Some("1".to_owned())));
        assert_eq!(found(&allowing, "other.net").await, Ok(None));
        assert!(allowing.excludes(&name("other.net")) && !allowing.excludes(&name("x.example.com")));
        let pinned = finder(&cloud, &[("example.com", Some("Z9"))], &[]);
        assert_eq!(found(&pinned, "_acme-challenge.example.com").await, Ok(Some("Z9".to_owned())));
        assert_eq!(*cloud.asked.lock(), ["example.com"], "a pinned zone is not looked up");
    }

    #[tokio::test]
    async fn twins_are_told_apart_by_the_delegation_or_not_at_all() {
        let cloud = cloud(true, &[zone("1", "example.com", "ns1.a.net"), zone("2", "example.com", "ns1.b.net")]);
        assert_eq!(found(&finder(&cloud, &[], &["ns1.b.net", "ns2.b.net"]), "example.com").await, Ok(Some("2".to_owned())));
        let error = found(&finder(&cloud, &[], &[]), "example.com").await.expect_err("nobody knows");
        assert!(error.to_string().contains("pin one by its id") && error.to_string().contains("(the ids: 1, 2)"), "{error}");
    }

    #[tokio::test]
    async fn a_zone_that_is_gone_is_forgotten() {
        let cloud = cloud(true, &[zone("1", "example.com", "a")]);
        let finder = finder(&cloud, &[], &[]);
        assert!(finder.at(&name("example.com")).await.is_ok());
        cloud.zones.lock().clear();
        assert!(finder.at(&name("example.com")).await.is_ok(), "remembered");
        finder.forget(&name("example.com"));
        assert!(matches!(finder.at(&name("example.com")).await, Err(Error::NotFound(_))));
    }
}
