//! Zones and record sets as the DNS service keeps them, with the rules that it enforces.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{Record, ServedZone};

/// Longest text of all TXT records of a record set.
const MOST_TEXT: usize = 4096;

/// A zone.
#[derive(Debug, Clone)]
pub(super) struct Zone {
    pub(super) group: String,
    pub(super) name: String,
    pub(super) etag: String,
    pub(super) tags: Value,
    pub(super) nameservers: Vec<String>,
    pub(super) most_records: usize,
    pub(super) public: bool,
    /// By type in upper case and name in lower case.
    pub(super) sets: BTreeMap<(String, String), RecordSet>,
    /// What was published last.
    pub(super) published: Option<ServedZone>,
}

/// A record set of any type.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordSet {
    /// Relative to the zone; `@` at the apex.
    pub name: String,
    /// `TXT`, `A` and so on.
    pub kind: String,
    /// New with each write.
    pub etag: String,
    /// Seconds.
    pub ttl: u64,
    /// What somebody noted down at it.
    pub metadata: Map<String, Value>,
    /// The key of the records in its properties, and the records.
    pub records: (String, Value),
}

/// What a write asks for.
#[derive(Debug, Clone, Default)]
pub(super) struct Precondition {
    pub(super) if_match: Option<String>,
    pub(super) if_none_match: Option<String>,
}

/// Why something is not done: status, code, message.
pub(super) type Refusal = (u16, &'static str, String);

/// Types, and the property that holds the records of each.
const KINDS: &[(&str, &str)] = &[
    ("A", "ARecords"),
    ("AAAA", "AAAARecords"),
    ("CAA", "caaRecords"),
    ("CNAME", "CNAMERecord"),
    ("MX", "MXRecords"),
    ("NS", "NSRecords"),
    ("PTR", "PTRRecords"),
    ("SOA", "SOARecord"),
    ("SRV", "SRVRecords"),
    ("TXT", "TXTRecords"),
];

/// The type as Azure writes it, and its property.
pub(super) fn kind(text: &str) -> Option<(&'static str, &'static str)> {
    KINDS.iter().find(|(kind, _)| kind.eq_ignore_ascii_case(text)).copied()
}

impl Zone {
    pub(super) fn new(group: &str, name: &str, nameservers: Vec<String>) -> Self {
        let mut zone = Self {
            group: group.to_owned(),
            name: name.trim_end_matches('.').to_ascii_lowercase(),
            etag: etag(),
            tags: json!({}),
            nameservers,
            most_records: 20,
            public: true,
            sets: BTreeMap::new(),
            published: None,
        };
        let servers: Vec<Value> = zone.nameservers.iter().map(|name| json!({ "nsdname": name })).collect();
        let soa = json!({
            "host": zone.nameservers.first(), "email": "azuredns-hostmaster.microsoft.com", "serialNumber": 1,
            "refreshTime": 3600, "retryTime": 300, "expireTime": 2_419_200, "minimumTTL": 300,
        });
        zone.set("NS", "@", 172_800, Map::new(), json!(servers));
        zone.set("SOA", "@", 3600, Map::new(), soa);
        zone
    }

    pub(super) fn set(&mut self, text: &str, name: &str, ttl: u64, metadata: Map<String, Value>, records: Value) {
        let Some((kind, property)) = kind(text) else { panic!("{text} is no type of Azure DNS") };
        let set = RecordSet {
            name: name.to_owned(),
            kind: kind.to_owned(),
            etag: etag(),
            ttl,
            metadata,
            records: (property.to_owned(), records),
        };
        self.sets.insert((kind.to_owned(), name.to_ascii_lowercase()), set);
    }

    /// Adds a record to a TXT record set, which is made with this TTL if there is none.
    pub(super) fn add(&mut self, name: &str, ttl: u64, record: Value) {
        match self.sets.get(&("TXT".to_owned(), name.to_ascii_lowercase())).cloned() {
            Some(set) => {
                let mut records = set.records.1.as_array().cloned().unwrap_or_default();
                records.push(record);
                self.set("TXT", &set.name, set.ttl, set.metadata, json!(records));
            }
            None => self.set("TXT", name, ttl, Map::new(), json!([record])),
        }
    }

    /// Removes a record from a TXT record set, which goes with its last record.
    pub(super) fn remove(&mut self, name: &str, record: &Value) {
        let Some(set) = self.sets.remove(&("TXT".to_owned(), name.to_ascii_lowercase())) else { return };
        let mut records = set.records.1.as_array().cloned().unwrap_or_default();
        records.retain(|standing| standing != record);
        if !records.is_empty() {
            self.set("TXT", &set.name, set.ttl, set.metadata, json!(records));
        }
    }

    pub(super) fn id(&self, subscription: &str) -> String {
        format!("/subscriptions/{subscription}/resourceGroups/{}/providers/Microsoft.Network/dnszones/{}", self.group, self.name)
    }

    pub(super) fn json(&self, subscription: &str) -> Value {
        json!({
            "id": self.id(subscription), "name": self.name, "type": "Microsoft.Network/dnszones", "etag": self.etag, "location": "global",
            "tags": self.tags,
            "properties": {
                "maxNumberOfRecordSets": 10000, "maxNumberOfRecordsPerRecordSet": self.most_records, "nameServers": self.nameservers,
                "numberOfRecordSets": self.sets.len(), "zoneType": if self.public { "Public" } else { "Private" },
            },
        })
    }

    pub(super) fn set_json(&self, subscription: &str, set: &RecordSet) -> Value {
        let fqdn = if set.name == "@" { format!("{}.", self.name) } else { format!("{}.{}.", set.name, self.name) };
        let mut properties = json!({ "fqdn": fqdn, "TTL": set.ttl, "targetResource": {}, "provisioningState": "Succeeded" });
        properties[&set.records.0] = set.records.1.clone();
        if !set.metadata.is_empty() {
            properties["metadata"] = Value::Object(set.metadata.clone());
        }
        json!({
            "id": format!("{}/{}/{}", self.id(subscription), set.kind, set.name), "name": set.name,
            "type": format!("Microsoft.Network/dnszones/{}", set.kind), "etag": set.etag, "properties": properties,
        })
    }

    /// Creates a record set or puts it in place of another; true if it is new.
    pub(super) fn put(&mut self, kind: &'static str, name: &str, precondition: &Precondition, body: &Value) -> Result<bool, Refusal> {
        let key = (kind.to_owned(), name.to_ascii_lowercase());
        let standing = self.sets.get(&key);
        precondition.check(standing.map(|set| set.etag.as_str()))?;
        let new = standing.is_none();
        let property = KINDS.iter().find(|(known, _)| *known == kind).map(|(_, property)| *property).unwrap_or_default();
        let properties =
            body.get("properties").and_then(Value::as_object).ok_or((400, "BadRequest", "The request has no properties.".to_owned()))?;
        // Names of properties are read whatever their letter case.
        let get = |name: &str| properties.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        let records = get(property).cloned().unwrap_or_else(|| json!([]));
        let metadata = get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
        let ttl = get("TTL").and_then(Value::as_u64).unwrap_or(3600);
        if !(1..=2_147_483_647).contains(&ttl) {
            return Err((400, "BadRequest", format!("The TTL value '{ttl}' is outside the permitted range [1..2147483647].")));
        }
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.*@".contains(&byte)) {
            return Err((400, "BadRequest", format!("The relative record set name '{name}' is invalid.")));
        }
        self.checked(kind, name, &records)?;
        self.set(kind, name, ttl, metadata, records);
        Ok(new)
    }

    fn checked(&self, kind: &str, name: &str, records: &Value) -> Result<(), Refusal> {
        let refused = |text: String| Err((400, "BadRequest", text));
        let clash = self
            .sets
            .values()
            .any(|set| set.name.eq_ignore_ascii_case(name) && set.kind != kind && (set.kind == "CNAME" || kind == "CNAME"));
        if clash {
            return refused(format!(
                "The record could not be created because a CNAME record with the same name '{name}' already exists in this zone."
            ));
        }
        let list = records.as_array().map(Vec::as_slice).unwrap_or_default();
        if list.len() > self.most_records {
            return refused(format!("The number of records in the record set exceeds the maximum allowed '{}'.", self.most_records));
        }
        if list.iter().enumerate().any(|(at, record)| list[..at].contains(record)) {
            return refused("The record set contains duplicate records.".to_owned());
        }
        if kind != "TXT" {
            return Ok(());
        }
        let mut length = 0;
        for record in list {
            let Some(chunks) = record.get("value").and_then(Value::as_array).filter(|chunks| !chunks.is_empty()) else {
                return refused("A TXT record has no value.".to_owned());
            };
            for chunk in chunks {
                let Some(text) = chunk.as_str() else { return refused("A TXT value is no text.".to_owned()) };
                if text.len() > 255 {
                    return refused(format!("The value '{text}' for the TXT record has length above the maximum of 255."));
                }
                length += text.len();
            }
        }
        if length > MOST_TEXT {
            return refused(format!("The combined length of all TXT records in a record set may not exceed {MOST_TEXT} characters."));
        }
        Ok(())
    }

    /// Deletes a record set; false if there is none.
    pub(super) fn delete(&mut self, kind: &'static str, name: &str, precondition: &Precondition) -> Result<bool, Refusal> {
        let key = (kind.to_owned(), name.to_ascii_lowercase());
        let Some(set) = self.sets.get(&key) else { return Ok(false) };
        precondition.check(Some(&set.etag))?;
        if name == "@" && matches!(kind, "NS" | "SOA") {
            return Err((400, "BadRequest", format!("Record sets of type '{kind}' with name '@' cannot be deleted.")));
        }
        Ok(self.sets.remove(&key).is_some())
    }

    /// What the name servers answer: SOA and NS are theirs.
    pub(super) fn served(&self) -> ServedZone {
        let of = |set: &RecordSet| {
            let owner = if set.name == "@" { self.name.clone() } else { format!("{}.{}", set.name, self.name) };
            let record = |data: Vec<Vec<u8>>| Record {
                owner: owner.clone(),
                ttl: u32::try_from(set.ttl).unwrap_or(u32::MAX),
                kind: set.kind.clone(),
                data,
            };
            let text = |value: &Value, key: &str| vec![value[key].as_str().unwrap_or_default().as_bytes().to_vec()];
            let list = set.records.1.as_array().cloned().unwrap_or_default();
            match set.kind.as_str() {
                "TXT" => {
                    let chunks = |value: &Value| {
                        let chunks = value["value"].as_array().cloned().unwrap_or_default();
                        chunks.iter().filter_map(Value::as_str).map(|chunk| chunk.as_bytes().to_vec()).collect()
                    };
                    list.iter().map(|value| record(chunks(value))).collect()
                }
                "A" => list.iter().map(|value| record(text(value, "ipv4Address"))).collect(),
                "CNAME" => vec![record(text(&set.records.1, "cname"))],
                "NS" if set.name != "@" => list.iter().map(|value| record(text(value, "nsdname"))).collect(),
                _ => Vec::new(),
            }
        };
        self.sets.values().flat_map(of).collect()
    }
}

impl Precondition {
    fn check(&self, standing: Option<&str>) -> Result<(), Refusal> {
        let failed = |text: String| Err((412, "PreconditionFailed", text));
        if self.if_none_match.as_deref() == Some("*")
            && let Some(etag) = standing
        {
            return failed(format!("The condition '*' in the If-None-Match header was not satisfied. The current was '{etag}'."));
        }
        match (self.if_match.as_deref(), standing) {
            (None, _) | (Some("*"), Some(_)) => Ok(()),
            (Some(given), Some(etag)) if given == etag => Ok(()),
            (Some(given), etag) => failed(format!(
                "The condition '{given}' in the If-Match header was not satisfied. The current was '{}'.",
                etag.unwrap_or_default()
            )),
        }
    }
}

fn etag() -> String {
    Uuid::new_v4().to_string()
}
