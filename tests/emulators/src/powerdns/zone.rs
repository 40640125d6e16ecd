//! A zone of PowerDNS: its RRsets, and the four ways to change one.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{Record, ServedZone};

/// An RRset as it is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredRrset {
    /// Seconds.
    pub ttl: u32,
    /// The records.
    pub records: Vec<StoredRecord>,
    /// The texts of its comments.
    pub comments: Vec<String>,
}

/// A record as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// In the server's own writing: TXT in quotes.
    pub content: String,
    /// True if it is not served.
    pub disabled: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Zone {
    pub(super) name: String,
    pub(super) kind: String,
    serial: u32,
    rrsets: BTreeMap<(String, String), StoredRrset>,
}

impl Zone {
    pub(super) fn new(name: &str, kind: &str) -> Self {
        Self { name: name.to_owned(), kind: kind.to_owned(), serial: 1, rrsets: BTreeMap::new() }
    }

    pub(super) fn rrset(&self, owner: &str, kind: &str) -> Option<StoredRrset> {
        self.rrsets.get(&(owner.to_lowercase(), kind.to_owned())).cloned()
    }

    /// Writes an RRset as the database would: without records, it goes with its comments.
    pub(super) fn write(&mut self, owner: &str, kind: &str, rrset: StoredRrset) {
        self.serial += 1;
        let key = (owner.to_lowercase(), kind.to_owned());
        if rrset.records.is_empty() && rrset.comments.is_empty() {
            self.rrsets.remove(&key);
        } else {
            self.rrsets.insert(key, rrset);
        }
    }

    /// The zone without its RRsets.
    pub(super) fn shown(&self) -> Value {
        json!({
            "account": "", "api_rectify": false, "dnssec": false, "edited_serial": self.serial, "id": self.name, "kind": self.kind, "last_check": 0,
            "masters": [], "name": self.name, "notified_serial": 0, "serial": self.serial, "soa_edit": "", "soa_edit_api": "DEFAULT",
            "url": format!("/api/v1/servers/localhost/zones/{}", self.name),
        })
    }

    /// The RRsets, or those of one name.
    pub(super) fn shown_rrsets(&self, owner: Option<&str>, with_disabled: bool) -> Value {
        let shown = |((name, kind), rrset): (&(String, String), &StoredRrset)| {
            let records: Vec<_> = rrset.records.iter().filter(|record| with_disabled || !record.disabled).collect();
            if records.is_empty() && rrset.comments.is_empty() {
                return None;
            }
            let ttl = if records.is_empty() { 0 } else { rrset.ttl };
            let records: Vec<Value> = records.iter().map(|r| json!({"content": r.content, "disabled": r.disabled})).collect();
            let comments: Vec<Value> =
                rrset.comments.iter().map(|text| json!({"account": "", "content": text, "modified_at": 1_700_000_000})).collect();
            Some(json!({"name": name, "type": kind, "ttl": ttl, "records": records, "comments": comments}))
        };
        let wanted = |((name, _), _): &(&(String, String), &StoredRrset)| owner.is_none_or(|owner| name.eq_ignore_ascii_case(owner));
        self.rrsets.iter().filter(wanted).filter_map(shown).collect()
    }

    /// The zone after a PATCH.
    pub(super) fn patched(mut self, patches: &[Value]) -> Result<Self, String> {
        for patch in patches {
            let text = |key: &str| patch[key].as_str().map(str::to_owned).ok_or_else(|| format!("Key '{key}' not present or not a String"));
            let (owner, kind, changetype) = (text("name")?, text("type")?, text("changetype")?.to_uppercase());
            if !owner.ends_with('.') {
                return Err(format!("DNS Name '{owner}' is not canonical"));
            }
            if !owner.to_lowercase().ends_with(&format!(".{}", self.name)) && !owner.eq_ignore_ascii_case(&self.name) {
                return Err(format!("RRset {owner} IN {kind}: Name is out of zone"));
            }
            match changetype.as_str() {
                "REPLACE" => self.replace(&owner, &kind, patch)?,
                "DELETE" => self.write(&owner, &kind, StoredRrset::default()),
                "EXTEND" | "PRUNE" => self.extend_or_prune(&owner, &kind, patch, changetype == "EXTEND")?,
                other => return Err(format!("Changetype '{other}' is not a valid value")),
            }
        }
        Ok(self)
    }

    fn replace(&mut self, owner: &str, kind: &str, patch: &Value) -> Result<(), String> {
        let exclusive = |kind: &str| kind == "CNAME";
        let at_owner = |((name, other), rrset): (&(String, String), &StoredRrset)| {
            name.eq_ignore_ascii_case(owner)
                && other != kind
                && (exclusive(kind) || exclusive(other))
                && rrset.records.iter().any(|r| !r.disabled)
        };
        let records = read_records(owner, kind, patch)?;
        if self.rrsets.iter().any(at_owner) {
            return Err(format!("RRset {owner} IN {kind}: Conflicts with pre-existing RRset"));
        }
        for (place, record) in records.iter().enumerate() {
            if records.iter().take(place).any(|other| other.content == record.content) {
                return Err(format!("Duplicate record in RRset {owner} IN {kind} with content \"{}\"", record.content));
            }
        }
        let ttl = patch["ttl"].as_u64().and_then(|ttl| u32::try_from(ttl).ok()).ok_or("Key 'ttl' not an Integer or out of range")?;
        let before = self.rrset(owner, kind).unwrap_or_default();
        let comments = match patch["comments"].as_array() {
            Some(named) => named.iter().filter_map(|comment| comment["content"].as_str().map(str::to_owned)).collect(),
            None if records.is_empty() => Vec::new(),
            None => before.comments,
        };
        self.write(owner, kind, StoredRrset { ttl, records, comments });
        Ok(())
    }

    fn extend_or_prune(&mut self, owner: &str, kind: &str, patch: &Value, extends: bool) -> Result<(), String> {
        let mut named = read_records(owner, kind, patch)?;
        let (Some(record), true) = (named.pop(), named.is_empty()) else {
            return Err("Exactly one record should be provided for PRUNE or EXTEND operation".to_owned());
        };
        let ttl = patch["ttl"].as_u64().and_then(|ttl| u32::try_from(ttl).ok()).ok_or("Key 'ttl' not an Integer or out of range")?;
        let mut rrset = self.rrset(owner, kind).unwrap_or_default();
        // The server looks its own answers up, and disabled records are not in them.
        rrset.records.retain(|standing| !standing.disabled);
        let stands = rrset.records.iter().any(|standing| standing.content == record.content);
        if stands == extends {
            return Ok(());
        }
        if extends {
            if !rrset.records.is_empty() && rrset.ttl != ttl {
                return Err(format!("RRset {owner} IN {kind}: uses a different TTL value than the remainder of the RRset"));
            }
            rrset.ttl = ttl;
            rrset.records.push(record);
        } else {
            rrset.records.retain(|standing| standing.content != record.content);
        }
        if rrset.records.is_empty() {
            rrset.comments.clear();
        }
        self.write(owner, kind, rrset);
        Ok(())
    }

    /// What is served of it.
    pub(super) fn served(&self) -> ServedZone {
        let records = |((name, kind), rrset): (&(String, String), &StoredRrset)| {
            let served = rrset.records.iter().filter(|record| !record.disabled);
            let record = |record: &StoredRecord| Record {
                owner: name.clone(),
                ttl: rrset.ttl,
                kind: kind.clone(),
                data: if kind == "TXT" { strings(&record.content) } else { vec![record.content.clone().into_bytes()] },
            };
            served.map(record).collect::<Vec<_>>()
        };
        self.rrsets.iter().flat_map(records).collect()
    }
}

/// The records of a patch, in the writing that the server takes.
fn read_records(owner: &str, kind: &str, patch: &Value) -> Result<Vec<StoredRecord>, String> {
    let read = |record: &Value| {
        let content = record["content"].as_str().ok_or("Key 'content' not present or not a String")?;
        let quoted = content.starts_with('"') && content.ends_with('"') && content.len() > 1;
        if kind == "TXT" && !quoted {
            return Err(format!("Record {owner}/{kind} '{content}': Not in expected format (parsed as '\"{content}\"')"));
        }
        if kind == "TXT" && strings(content).iter().any(|string| string.len() > 255) {
            return Err(format!("Record {owner}/{kind} '{content}': Data field in DNS should start with quote (\") at position 0"));
        }
        Ok(StoredRecord { content: content.to_owned(), disabled: record["disabled"].as_bool().unwrap_or_default() })
    };
    patch["records"].as_array().ok_or_else(|| format!("No change for RRset {owner} IN {kind}"))?.iter().map(read).collect()
}

/// The character-strings in quotes, with `\"`, `\\` and `\DDD`.
fn strings(content: &str) -> Vec<Vec<u8>> {
    let mut strings = Vec::new();
    let mut open: Option<Vec<u8>> = None;
    let mut rest = content.bytes();
    while let Some(byte) = rest.next() {
        match (byte, open.as_mut()) {
            (b'"', None) => open = Some(Vec::new()),
            (b'"', Some(_)) => strings.extend(open.take()),
            (b'\\', Some(string)) => match rest.next() {
                Some(digit @ b'0'..=b'9') => {
                    let digits = [Some(digit), rest.next(), rest.next()].into_iter().flatten();
                    let value = digits.fold(0u32, |sum, digit| sum * 10 + u32::from(digit.saturating_sub(b'0')));
                    string.push(u8::try_from(value).unwrap_or(b'?'));
                }
                Some(byte) => string.push(byte),
                None => {}
            },
            (byte, Some(string)) => string.push(byte),
            (_, None) => {}
        }
    }
    strings
}
