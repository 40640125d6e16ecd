//! The DNS API: projects, managed zones, RRsets, changes.

use std::collections::{BTreeMap, BTreeSet};

use axum::{
    http::{HeaderMap, Method, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    Call, CloudDns, Inner, Refused, Shared, Wording,
    data::{quoted, strings},
};
use crate::Record;

type Answer = Result<Response, Refused>;

/// The time of everything: nothing here depends on one.
const WHEN: &str = "2026-01-01T00:00:00.000Z";

/// A zone to be made.
#[derive(Debug, Clone)]
pub struct NewZone {
    /// The identifier that the project gives it.
    pub name: String,
    /// The apex, with or without the last dot.
    pub dns_name: String,
    /// `public` or `private`.
    pub visibility: String,
    /// Its servers.
    pub nameservers: Vec<String>,
    /// A private zone that forwards or peers, and has no records: the key and value of what says so.
    pub extra: Option<(String, Value)>,
}

/// An RRset as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rrset {
    /// Seconds.
    pub ttl: u32,
    /// The data, as it was written.
    pub rrdatas: Vec<String>,
    /// A routing policy, instead of data.
    pub routing_policy: Option<Value>,
}

#[derive(Debug)]
pub(super) struct Zone {
    id: u64,
    made: NewZone,
    /// By owner (absolute, lower case) and type.
    rrsets: BTreeMap<(String, String), Rrset>,
    changes: Vec<(Value, u32)>,
}

impl CloudDns {
    /// Makes a public zone, named as Google's console would name it; gives that name.
    pub fn add_zone(&self, dns_name: &str) -> String {
        let name = dns_name.trim_end_matches('.').replace('.', "-");
        let nameservers = (1..=4).map(|n| format!("ns-cloud-a{n}.googledomains.com.")).collect();
        let visibility = "public".to_owned();
        self.make_zone(NewZone { name: name.clone(), dns_name: dns_name.to_owned(), visibility, nameservers, extra: None });
        name
    }

    /// Makes a zone; gives its number.
    pub fn make_zone(&self, made: NewZone) -> u64 {
        let mut state = self.shared.state.lock();
        self.shared.make(&mut state, made)
    }

    /// Removes a zone with all that is in it, by its name in the project.
    pub fn remove_zone(&self, name: &str) {
        if let Some(zone) = self.shared.state.lock().zones.remove(name) {
            self.shared.nameservers.withdraw(zone.made.dns_name.trim_end_matches('.'));
        }
    }

    /// The RRsets of a zone by owner (with the last dot) and type, those of the apex included.
    pub fn rrsets(&self, zone: &str) -> BTreeMap<(String, String), Rrset> {
        self.shared.state.lock().zones.get(zone).map(|zone| zone.rrsets.clone()).unwrap_or_default()
    }

    /// The TXT RRset at an owner.
    pub fn txt(&self, zone: &str, owner: &str) -> Option<Rrset> {
        self.rrsets(zone).remove(&(absolute(owner), "TXT".to_owned()))
    }

    /// A stranger sets an RRset, whatever stood there.
    pub fn stranger_sets(&self, zone: &str, owner: &str, kind: &str, rrset: Rrset) {
        self.stranger(zone, owner, kind, |slot| *slot = Some(rrset));
    }

    /// A stranger adds a record to an RRset; a new one gets this TTL.
    pub fn stranger_adds(&self, zone: &str, owner: &str, kind: &str, ttl: u32, rrdata: &str) {
        self.stranger(zone, owner, kind, |slot| {
            slot.get_or_insert_with(|| Rrset { ttl, rrdatas: Vec::new(), routing_policy: None }).rrdatas.push(rrdata.to_owned());
        });
    }

    /// A stranger takes a record away, and the RRset with its last one.
    pub fn stranger_removes(&self, zone: &str, owner: &str, kind: &str, rrdata: &str) {
        self.stranger(zone, owner, kind, |slot| {
            if let Some(rrset) = slot {
                rrset.rrdatas.retain(|known| known != rrdata);
            }
            if slot.as_ref().is_some_and(|rrset| rrset.rrdatas.is_empty()) {
                *slot = None;
            }
        });
    }

    fn stranger(&self, zone: &str, owner: &str, kind: &str, change: impl FnOnce(&mut Option<Rrset>)) {
        let mut state = self.shared.state.lock();
        if let Some(zone) = state.zones.get_mut(zone) {
            let key = (absolute(owner), kind.to_owned());
            let mut slot = zone.rrsets.remove(&key);
            change(&mut slot);
            zone.rrsets.extend(slot.map(|rrset| (key, rrset)));
            self.shared.publish(zone);
        }
    }
}

impl Shared {
    pub(super) fn answer(&self, state: &mut Inner, headers: &HeaderMap, call: &Call) -> Answer {
        state.tokens.authorize(headers)?;
        let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
        let Some((project, rest)) = path.split_first() else { return Err(Refused::new(404, "notFound", "Not Found")) };
        if *project != self.project {
            return Err(Refused::new(403, "forbidden", format!("Forbidden: no such project, or no permission on it: {project}")));
        }
        let permission = match (&call.method, rest) {
            (&Method::GET, []) => "dns.projects.get",
            (&Method::GET, ["managedZones"]) => "dns.managedZones.list",
            (&Method::POST, ["managedZones"]) => "dns.managedZones.create",
            (&Method::GET, ["managedZones", _]) => "dns.managedZones.get",
            (&Method::DELETE, ["managedZones", _]) => "dns.managedZones.delete",
            (&Method::GET, ["managedZones", _, "rrsets"]) => "dns.resourceRecordSets.list",
            (&Method::POST, ["managedZones", _, "changes"]) => "dns.changes.create",
            (&Method::GET, ["managedZones", _, "changes"]) => "dns.changes.list",
            (&Method::GET, ["managedZones", _, "changes", _]) => "dns.changes.get",
            _ => return Err(Refused::new(404, "notFound", "Not Found")),
        };
        if state.denied.contains(permission) {
            let text =
                format!("Permission '{permission}' denied on resource '//dns.googleapis.com/projects/{project}' (or it may not exist).");
            return Err(Refused::new(403, "forbidden", text));
        }
        match (&call.method, rest) {
            (&Method::GET, []) => Ok(self.project(state)),
            (&Method::GET, ["managedZones"]) => list_zones(state, call),
            (&Method::POST, ["managedZones"]) => self.create_zone(state, call),
            (method, ["managedZones", zone, rest @ ..]) => {
                let Some(key) = state.zone(zone) else {
                    let text = format!("The 'parameters.managedZone' resource named '{zone}' does not exist.");
                    return Err(Refused::new(404, "notFound", text));
                };
                match (method, rest) {
                    (&Method::GET, []) => Ok(axum::Json(state.zones.get(&key).map(Zone::json)).into_response()),
                    (&Method::DELETE, []) => self.delete_zone(state, &key),
                    (&Method::GET, ["rrsets"]) => list_rrsets(state, &key, call),
                    (&Method::POST, _) => self.create_change(state, &key, call),
                    (_, ["changes"]) => list_changes(state, &key, call),
                    (_, [_, id]) => get_change(state, &key, id),
                    _ => Err(Refused::new(404, "notFound", "Not Found")),
                }
            }
            _ => Err(Refused::new(404, "notFound", "Not Found")),
        }
    }

    fn project(&self, state: &Inner) -> Response {
        let quota = json!({
            "kind": "dns#quota", "managedZones": 10000, "rrsetsPerManagedZone": 10000,
            "rrsetAdditionsPerChange": state.quota.additions, "rrsetDeletionsPerChange": state.quota.deletions,
            "totalRrdataSizePerChange": state.quota.size, "resourceRecordsPerRrset": state.quota.records,
        });
        axum::Json(json!({"kind": "dns#project", "id": self.project, "number": "123456789012", "quota": quota})).into_response()
    }

    fn make(&self, state: &mut Inner, made: NewZone) -> u64 {
        state.last_id += 1;
        let apex = absolute(&made.dns_name);
        let mut zone = Zone {
            id: 5_000_000_000 + state.last_id,
            made: NewZone { dns_name: apex.clone(), ..made },
            rrsets: BTreeMap::new(),
            changes: vec![(json!({"kind": "dns#change", "id": "0", "startTime": WHEN, "status": "done"}), 0)],
        };
        if zone.made.extra.is_none() {
            let first = zone.made.nameservers.first().cloned().unwrap_or_default();
            let soa = format!("{first} cloud-dns-hostmaster.google.com. 1 21600 3600 259200 300");
            let ns = Rrset { ttl: 21600, rrdatas: zone.made.nameservers.clone(), routing_policy: None };
            zone.rrsets.insert((apex.clone(), "NS".to_owned()), ns);
            zone.rrsets.insert((apex, "SOA".to_owned()), Rrset { ttl: 21600, rrdatas: vec![soa], routing_policy: None });
        }
        self.publish(&zone);
        let id = zone.id;
        state.zones.insert(zone.made.name.clone(), zone);
        id
    }

    fn create_zone(&self, state: &mut Inner, call: &Call) -> Answer {
        let field = |name: &str| call.body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        for name in ["name", "dnsName", "description"] {
            if field(name).is_empty() {
                let text = format!("The 'entity.managedZone.{name}' parameter is required but was missing.");
                return Err(Refused::new(400, "required", text));
            }
        }
        let (name, dns_name) = (field("name"), field("dnsName"));
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) || name.ends_with('-') || name.len() > 63 || !name.bytes().all(good) {
            return Err(Refused::new(400, "invalidFieldValue", format!("Invalid value for 'entity.managedZone.name': '{name}'")));
        }
        if !dns_name.ends_with('.') {
            return Err(Refused::new(400, "invalid", format!("Invalid value for 'entity.managedZone.dnsName': '{dns_name}'")));
        }
        if state.zones.contains_key(&name) {
            let text = format!("The resource 'entity.managedZone' named '{name}' already exists");
            return Err(Refused::new(409, "alreadyExists", text));
        }
        let visibility = match field("visibility") {
            text if text.is_empty() => "public".to_owned(),
            text => text,
        };
        let nameservers = (1..=4).map(|n| format!("ns-cloud-a{n}.googledomains.com.")).collect();
        self.make(state, NewZone { name: name.clone(), dns_name, visibility, nameservers, extra: None });
        Ok(axum::Json(state.zones.get(&name).map(Zone::json)).into_response())
    }

    fn delete_zone(&self, state: &mut Inner, key: &str) -> Answer {
        if let Some(zone) = state.zones.get(key)
            && zone.rrsets.keys().any(|(owner, kind)| *owner != zone.made.dns_name || !matches!(kind.as_str(), "NS" | "SOA"))
        {
            return Err(Refused::new(400, "containerNotEmpty", "The resource cannot be deleted because it is not empty"));
        }
        if let Some(zone) = state.zones.remove(key) {
            self.nameservers.withdraw(zone.made.dns_name.trim_end_matches('.'));
        }
        Ok(StatusCode::NO_CONTENT.into_response())
    }

    fn create_change(&self, state: &mut Inner, key: &str, call: &Call) -> Answer {
        let entries = |list: &str| -> Result<Vec<Entry>, Refused> {
            let entries = call.body.get(list).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            entries.iter().enumerate().map(|(at, json)| Entry::parse(json, &format!("entity.change.{list}[{at}]"))).collect()
        };
        let (additions, deletions) = (entries("additions")?, entries("deletions")?);
        if additions.is_empty() && deletions.is_empty() {
            return Err(Refused::new(400, "required", "The 'entity.change' parameter is required but was missing."));
        }
        let (quota, wording, polls) = (state.quota, state.wording, state.polls);
        let size: usize = additions.iter().chain(&deletions).flat_map(|entry| &entry.rrset.rrdatas).map(String::len).sum();
        for (over, what) in [
            (additions.len() > quota.additions, "additions per change"),
            (deletions.len() > quota.deletions, "deletions per change"),
            (size > quota.size, "total rrdata size per change"),
            (additions.iter().any(|entry| entry.rrset.rrdatas.len() > quota.records), "resource records per rrset"),
        ] {
            if over {
                return Err(Refused::new(403, "quotaExceeded", format!("The change would exceed quota for {what}.")));
            }
        }
        let Some(zone) = state.zones.get_mut(key) else { return Err(Refused::new(404, "notFound", "Not Found")) };
        let rrsets = zone.changed(&additions, &deletions, wording)?;
        zone.rrsets = rrsets;
        let list = |entries: &[Entry]| entries.iter().map(|entry| entry.rrset.json(&entry.name, &entry.kind)).collect::<Vec<_>>();
        let mut change = json!({"kind": "dns#change", "id": zone.changes.len().to_string(), "startTime": WHEN, "status": "pending"});
        for (key, entries) in [("additions", &additions), ("deletions", &deletions)] {
            if !entries.is_empty() {
                change[key] = Value::Array(list(entries));
            }
        }
        zone.changes.push((change.clone(), polls));
        self.publish(zone);
        state.changes.push((additions.len(), deletions.len()));
        Ok(axum::Json(change).into_response())
    }

    /// Somebody else is faster at the first RRset of this change.
    pub(super) fn interfere(&self, state: &mut Inner, call: &Call) {
        state.interferences += 1;
        let value = format!("\"interference {}\"", state.interferences);
        let first = ["deletions", "additions"].iter().find_map(|list| call.body.get(list)?.get(0)?.get("name")?.as_str());
        let key = call.path.get(2).and_then(|zone| state.zone(zone));
        if let (Some(name), Some(zone)) = (first, key.and_then(|key| state.zones.get_mut(&key))) {
            let fresh = || Rrset { ttl: 77, rrdatas: Vec::new(), routing_policy: None };
            zone.rrsets.entry((absolute(name), "TXT".to_owned())).or_insert_with(fresh).rrdatas.push(value);
            self.publish(zone);
        }
    }

    fn publish(&self, zone: &Zone) {
        if zone.made.visibility != "public" {
            return;
        }
        let records = zone.rrsets.iter().flat_map(|((owner, kind), rrset)| {
            rrset.rrdatas.iter().map(move |text| Record {
                owner: owner.clone(),
                ttl: rrset.ttl,
                kind: kind.clone(),
                data: if kind == "TXT" { strings(text).unwrap_or_default() } else { vec![text.clone().into_bytes()] },
            })
        });
        // The servers say for themselves who they are.
        let records = records.filter(|record| record.owner != zone.made.dns_name || !matches!(record.kind.as_str(), "NS" | "SOA"));
        self.nameservers.publish(zone.made.dns_name.trim_end_matches('.'), records.collect());
    }
}

impl Inner {
    /// The key of a zone, by name or number.
    fn zone(&self, name: &str) -> Option<String> {
        let by_number = || self.zones.values().find(|zone| zone.id.to_string() == name).map(|zone| zone.made.name.clone());
        self.zones.contains_key(name).then(|| name.to_owned()).or_else(by_number)
    }
}

/// An entry of a change.
struct Entry {
    place: String,
    name: String,
    kind: String,
    rrset: Rrset,
}

impl Entry {
    fn parse(json: &Value, place: &str) -> Result<Self, Refused> {
        let invalid = |field: &str, value: &dyn std::fmt::Display| {
            Refused::new(400, "invalid", format!("Invalid value for '{place}.{field}': '{value}'"))
        };
        let field = |name: &str| json.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (name, kind) = (field("name"), field("type"));
        if !name.ends_with('.') || name.contains("..") || name.split('.').any(|label| label.len() > 63) || name.len() > 254 {
            return Err(invalid("name", &name));
        }
        if !["A", "AAAA", "CAA", "CNAME", "DS", "MX", "NAPTR", "NS", "PTR", "SOA", "SPF", "SRV", "TXT", "ALIAS"].contains(&kind.as_str()) {
            return Err(invalid("type", &kind));
        }
        // A number, or a number as text: JSON clients write both.
        let ttl = json.get("ttl").cloned().unwrap_or_default();
        let seconds = ttl.as_u64().or_else(|| ttl.as_str()?.parse().ok()).and_then(|ttl| u32::try_from(ttl).ok());
        let Some(seconds) = seconds.filter(|ttl| *ttl <= i32::MAX as u32) else { return Err(invalid("ttl", &ttl)) };
        let routing_policy = json.get("routingPolicy").cloned();
        let given = json.get("rrdatas").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if given.is_empty() && routing_policy.is_none() {
            return Err(invalid("rrdata", &""));
        }
        let mut rrdatas = Vec::new();
        for (at, data) in given.iter().enumerate() {
            let text = data.as_str().unwrap_or_default();
            let good = match kind.as_str() {
                "TXT" | "SPF" => strings(text).map(|strings| if text.starts_with('"') { text.to_owned() } else { quoted(&strings) }),
                _ => Some(text.to_owned()).filter(|text| !text.is_empty()),
            };
            let Some(good) = good else { return Err(invalid(&format!("rrdata[{at}]"), &text)) };
            if rrdatas.contains(&good) {
                return Err(invalid(&format!("rrdata[{at}]"), &text));
            }
            rrdatas.push(good);
        }
        if matches!(kind.as_str(), "CNAME" | "SOA") && rrdatas.len() > 1 {
            let text = format!("The resource record set '{place}' is only permitted to have one record because it is of type '{kind}'.");
            return Err(Refused::new(400, "invalidRecordCount", text));
        }
        Ok(Self { place: place.to_owned(), name: name.to_ascii_lowercase(), kind, rrset: Rrset { ttl: seconds, rrdatas, routing_policy } })
    }

    fn key(&self) -> (String, String) {
        (self.name.clone(), self.kind.clone())
    }

    /// Where it is, in an error.
    fn place(&self, wording: Wording) -> String {
        match (wording, self.place.split_once('[')) {
            (Wording::Name, Some((list, _))) => format!("{list}[{}][{}]", self.name, self.kind),
            _ => self.place.clone(),
        }
    }
}

impl Zone {
    fn json(&self) -> Value {
        let mut json = json!({
            "kind": "dns#managedZone", "name": self.made.name, "dnsName": self.made.dns_name, "description": "", "id": self.id.to_string(),
            "nameServers": self.made.nameservers, "creationTime": WHEN, "visibility": self.made.visibility,
        });
        if let Some((key, value)) = &self.made.extra {
            json[key.as_str()] = value.clone();
        }
        json
    }

    /// What the zone holds after a change, or the first thing that is wrong with it; the zone itself stays as it is.
    fn changed(&self, additions: &[Entry], deletions: &[Entry], wording: Wording) -> Result<BTreeMap<(String, String), Rrset>, Refused> {
        let mut rrsets = self.rrsets.clone();
        let apex = &self.made.dns_name;
        for list in [additions, deletions] {
            let mut seen = BTreeSet::new();
            for entry in list {
                let inside = entry.name == *apex || entry.name.strip_suffix(apex.as_str()).is_some_and(|front| front.ends_with('.'));
                if !inside || !seen.insert(entry.key()) {
                    let text = format!("Invalid value for '{}.name': '{}'", entry.place(wording), entry.name);
                    return Err(Refused::new(400, "invalid", text));
                }
            }
        }
        for entry in deletions {
            let place = entry.place(wording);
            let Some(standing) = rrsets.remove(&entry.key()) else {
                let text = format!("The '{place}' resource named '{} ({})' does not exist.", entry.name, entry.kind);
                return Err(Refused::new(404, "notFound", text));
            };
            let sorted = |rrset: &Rrset| rrset.rrdatas.iter().cloned().collect::<BTreeSet<_>>();
            let same = standing.ttl == entry.rrset.ttl && sorted(&standing) == sorted(&entry.rrset);
            if !same || standing.routing_policy != entry.rrset.routing_policy {
                return Err(Refused::new(412, "conditionNotMet", format!("Precondition not met for '{place}'")));
            }
        }
        for entry in additions {
            let place = entry.place(wording);
            if rrsets.insert(entry.key(), entry.rrset.clone()).is_some() {
                let text = format!("The resource '{place}' named '{} ({})' already exists", entry.name, entry.kind);
                return Err(Refused::new(409, "alreadyExists", text));
            }
        }
        for entry in additions {
            let cname = rrsets.contains_key(&(entry.name.clone(), "CNAME".to_owned()));
            if cname && rrsets.keys().filter(|(owner, _)| *owner == entry.name).count() > 1 {
                let text = format!(
                    "The resource record set '{}' is invalid because the DNS name '{}' may have either one CNAME resource record set or resource record sets of other types, but not both.",
                    entry.place(wording),
                    entry.name
                );
                return Err(Refused::new(400, "cnameResourceRecordSetConflict", text));
            }
        }
        for kind in ["NS", "SOA"] {
            if !rrsets.contains_key(&(apex.clone(), kind.to_owned())) {
                let text = format!(
                    "The resource record set is invalid because a zone must contain exactly one resource record set of type '{kind}' at the apex."
                );
                return Err(Refused::new(400, "invalidZoneApex", text));
            }
        }
        Ok(rrsets)
    }
}

impl Rrset {
    fn json(&self, name: &str, kind: &str) -> Value {
        let mut json = json!({"kind": "dns#resourceRecordSet", "name": name, "type": kind, "ttl": self.ttl});
        if !self.rrdatas.is_empty() {
            json["rrdatas"] = json!(self.rrdatas);
        }
        if let Some(policy) = &self.routing_policy {
            json["routingPolicy"] = policy.clone();
        }
        json
    }
}

fn list_zones(state: &Inner, call: &Call) -> Answer {
    let wanted = call.query.get("dnsName");
    if let Some(name) = wanted
        && !name.ends_with('.')
    {
        return Err(Refused::new(400, "invalid", format!("Invalid value for 'parameters.dnsName': '{name}'")));
    }
    let zones = state.zones.values().filter(|zone| wanted.is_none_or(|name| zone.made.dns_name.eq_ignore_ascii_case(name)));
    page(state, call, "managedZones", "dns#managedZonesListResponse", zones.map(Zone::json).collect())
}

fn list_rrsets(state: &Inner, key: &str, call: &Call) -> Answer {
    let (name, kind) = (call.query.get("name"), call.query.get("type"));
    if kind.is_some() && name.is_none() {
        return Err(Refused::new(400, "required", "The 'parameters.name' parameter is required but was missing."));
    }
    if let Some(name) = name
        && !name.ends_with('.')
    {
        return Err(Refused::new(400, "invalid", format!("Invalid value for 'parameters.name': '{name}'")));
    }
    let rrsets = state.zones.get(key).into_iter().flat_map(|zone| &zone.rrsets);
    let wanted =
        rrsets.filter(|((owner, of), _)| name.is_none_or(|name| owner.eq_ignore_ascii_case(name)) && kind.is_none_or(|kind| kind == of));
    let entries = wanted.map(|((owner, kind), rrset)| rrset.json(owner, kind)).collect();
    page(state, call, "rrsets", "dns#resourceRecordSetsListResponse", entries)
}

fn list_changes(state: &Inner, key: &str, call: &Call) -> Answer {
    let changes = state.zones.get(key).into_iter().flat_map(|zone| &zone.changes);
    // The newest first, as the API's own order is.
    let entries = changes.rev().map(|(change, _)| change.clone()).collect();
    page(state, call, "changes", "dns#changesListResponse", entries)
}

fn get_change(state: &mut Inner, key: &str, id: &str) -> Answer {
    let changes = state.zones.get_mut(key).map(|zone| &mut zone.changes);
    let found = changes.and_then(|changes| changes.iter_mut().find(|(change, _)| change["id"] == id));
    let Some((change, polls)) = found else {
        return Err(Refused::new(404, "notFound", format!("The 'parameters.changeId' resource named '{id}' does not exist.")));
    };
    if *polls == 0 {
        change["status"] = json!("done");
    }
    *polls = polls.saturating_sub(1);
    Ok(axum::Json(change.clone()).into_response())
}

/// A page of a listing.
fn page(state: &Inner, call: &Call, key: &str, kind: &str, entries: Vec<Value>) -> Answer {
    let invalid = |name: &str| Refused::new(400, "invalid", format!("Invalid value for 'parameters.{name}'"));
    let asked = match call.query.get("maxResults") {
        Some(text) => text.parse::<usize>().ok().filter(|most| *most > 0).ok_or_else(|| invalid("maxResults"))?,
        None => state.page,
    };
    let from = match call.query.get("pageToken") {
        Some(token) => token.strip_prefix("page-").and_then(|from| from.parse().ok()).ok_or_else(|| invalid("pageToken"))?,
        None => 0,
    };
    let most = asked.min(state.page);
    let mut json = json!({"kind": kind});
    if entries.len() > from + most {
        json["nextPageToken"] = json!(format!("page-{}", from + most));
    }
    json[key] = entries.into_iter().skip(from).take(most).collect();
    Ok(axum::Json(json).into_response())
}

/// A name with its last dot, in lower case.
fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.').to_ascii_lowercase())
}
