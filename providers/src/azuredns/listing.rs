//! Azure's zones: where they are listed, which of them count, and what lies below one.

use std::collections::BTreeSet;

use authdns::Name;
use reqwest::Url;

use super::{Answered, AzureDns, Known, MOST_RECORDS, arm::good, segment, words};
use crate::{Error, Listing, Zone};

impl AzureDns {
    /// The URL of the list of zones, `top` on each page.
    pub(super) fn listing(&self, top: usize) -> Result<Url, Error> {
        let mut segments = vec!["subscriptions", &self.subscription];
        if let Some(group) = &self.resource_group {
            segments.extend(["resourceGroups", group]);
        }
        segments.extend(["providers", "Microsoft.Network", "dnsZones"]);
        let mut url = self.arm.url(segments)?;
        url.query_pairs_mut().append_pair("$top", &top.to_string());
        Ok(url)
    }

    /// The zone with this apex in a resource group, where there can be no more than one.
    pub(super) async fn zone_of_group(&self, group: &str, apex: &Name) -> Result<Listing, Error> {
        let name = apex.to_relative_string();
        let nothing = Listing { zones: Vec::new(), complete: true };
        if segment("zone", &name).is_err() {
            return Ok(nothing);
        }
        let path = ["subscriptions", &self.subscription, "resourceGroups", group, "providers", "Microsoft.Network", "dnsZones", &name];
        let reply = self.arm.get(self.arm.url(path)?).await?;
        match good(reply.clone()) {
            Ok(reply) => Ok(Listing { zones: self.seen(reply.json()?).into_iter().collect(), complete: true }),
            Err(Error::NotFound(_)) => Ok(nothing),
            // Rights come before existence: whoever may see one zone is refused every name that is none.
            Err(_) if words::is_forbidden(&reply) => Ok(nothing),
            // A name that no zone can have, such as one of a single label.
            Err(Error::Rejected(_)) if reply.status.as_u16() == 400 => Ok(nothing),
            Err(error) => Err(error),
        }
    }

    /// Takes a zone up, unless it is private.
    pub(super) fn seen(&self, zone: Answered) -> Option<Zone> {
        if zone.properties.zone_type.is_some_and(|kind| kind.eq_ignore_ascii_case("private")) {
            return None;
        }
        let name = zone.name.parse().ok()?;
        *self.known(&zone.id).records.lock() = zone.properties.max_number_of_records_per_record_set;
        let nameservers: BTreeSet<Name> = zone.properties.name_servers.into_iter().flatten().filter_map(|name| name.parse().ok()).collect();
        Some(Zone { id: zone.id, name, nameservers })
    }

    /// The URL below a zone.
    pub(super) fn below(&self, zone: &Zone, segments: &[&str]) -> Result<Url, Error> {
        let path: Vec<&str> = zone.id.trim_matches('/').split('/').collect();
        let [subscriptions, _, groups, _, providers, namespace, kind, name] = path.as_slice() else { return Err(no_id(zone)) };
        let is = |part: &str, word: &str| part.eq_ignore_ascii_case(word);
        let fixed = is(subscriptions, "subscriptions") && is(groups, "resourceGroups") && is(providers, "providers");
        let zones = is(namespace, "Microsoft.Network") && is(kind, "dnsZones") && name.parse().is_ok_and(|name: Name| name == zone.name);
        if !(fixed && zones && path.iter().all(|part| segment("", part).is_ok())) {
            return Err(no_id(zone));
        }
        self.arm.url(path.into_iter().chain(segments.iter().copied()))
    }

    /// Most records of a record set in this zone; looked up for a zone that was pinned by its id and so never seen.
    pub(super) async fn most_records(&self, zone: &Zone, known: &Known) -> usize {
        let remembered = *known.records.lock();
        if let Some(most) = remembered {
            return most;
        }
        let looked_up = async {
            let answered: Answered = good(self.arm.get(self.below(zone, &[])?).await?)?.json()?;
            Ok::<_, Error>(answered.properties.max_number_of_records_per_record_set)
        };
        let most = looked_up.await.ok().flatten();
        if most.is_some() {
            *known.records.lock() = most;
        }
        most.unwrap_or(MOST_RECORDS)
    }
}

fn no_id(zone: &Zone) -> Error {
    Error::Rejected(format!(
        "{:?} is not the id of the zone {}: it has the form /subscriptions/…/resourceGroups/…/providers/Microsoft.Network/dnsZones/{}",
        zone.id,
        zone.name.to_relative_string(),
        zone.name.to_relative_string(),
    ))
}

/// A refusal to list, with what else can be done.
pub(super) fn unlisted(error: Error) -> Error {
    match error {
        Error::Auth(text) => {
            Error::Auth(format!("{text} (to do without listing zones, set `resource_group`, or pin the zones by their ids)"))
        }
        other => other,
    }
}
