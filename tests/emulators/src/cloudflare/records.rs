//! The records of one zone: what may stand, how they are looked for, and batches.

use serde_json::{Value, json};

use super::{DATE, answer::Refused};
use crate::{Record, ServedZone};

/// The longest comment on the free plan.
const MOST_COMMENT: usize = 100;
/// The longest TXT content.
const MOST_CONTENT: usize = 2048;

/// A record as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// Cloudflare's identifier.
    pub id: String,
    /// The owner, absolute, without the last dot.
    pub name: String,
    /// The type's mnemonic.
    pub kind: String,
    /// The content, as it was sent.
    pub content: String,
    /// Seconds; 1 is "automatic".
    pub ttl: u32,
    /// The comment.
    pub comment: Option<String>,
    /// The priority of an MX.
    pub priority: Option<u64>,
}

/// A record that somebody wants.
#[derive(Debug, Clone, Default)]
pub(super) struct Draft {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) content: String,
    pub(super) ttl: u32,
    pub(super) comment: Option<String>,
    pub(super) priority: Option<u64>,
}

/// The records of one zone, in the order they were made.
#[derive(Debug, Clone, Default)]
pub(super) struct Records {
    all: Vec<StoredRecord>,
    quota: Option<usize>,
}

impl Records {
    pub(super) fn all(&self) -> &[StoredRecord] {
        &self.all
    }

    pub(super) fn set_quota(&mut self, records: usize) {
        self.quota = Some(records);
    }

    pub(super) fn get(&self, id: &str) -> Option<&StoredRecord> {
        self.all.iter().find(|record| record.id == id)
    }

    /// Adds a record; gives it as the API shows it.
    pub(super) fn add(&mut self, id: String, draft: Draft, apex: &str) -> Result<Value, Refused> {
        if self.quota.is_some_and(|quota| self.all.len() >= quota) {
            return Err(Refused::new(400, 81045, "Record quota exceeded."));
        }
        let record = draft.checked(id, apex)?;
        self.fits(&record)?;
        let shown = record.shown();
        self.all.push(record);
        Ok(shown)
    }

    pub(super) fn replace(&mut self, id: &str, draft: Draft, apex: &str) -> Result<Value, Refused> {
        let record = draft.checked(id.to_owned(), apex)?;
        self.get(id).ok_or_else(Refused::no_record)?;
        self.fits(&record)?;
        let shown = record.shown();
        self.all.iter_mut().filter(|old| old.id == id).for_each(|old| *old = record.clone());
        Ok(shown)
    }

    pub(super) fn patch(&mut self, id: &str, body: &Value, apex: &str) -> Result<Value, Refused> {
        let mut whole = self.get(id).ok_or_else(Refused::no_record)?.shown();
        for (key, value) in body.as_object().into_iter().flatten() {
            whole[key] = value.clone();
        }
        self.replace(id, Draft::read(&whole)?, apex)
    }

    pub(super) fn remove(&mut self, id: &str) -> Result<StoredRecord, Refused> {
        let at = self.all.iter().position(|record| record.id == id).ok_or_else(Refused::no_record)?;
        Ok(self.all.remove(at))
    }

    /// Carries out deletes, patches, puts and posts, in this order: all, or none of them. Gives the answer and the number of changes. New ids follow `last`.
    pub(super) fn batch(
        &mut self,
        body: &Value,
        apex: &str,
        limit: usize,
        names_offenders: bool,
        last: u64,
    ) -> Result<(Value, usize), Refused> {
        let list = |key: &str| body[key].as_array().cloned().unwrap_or_default();
        let count: usize = ["deletes", "patches", "puts", "posts"].iter().map(|key| list(key).len()).sum();
        if count > limit {
            // The schema names no code for this.
            let text = format!("The number of operations in a batch is limited to {limit} by the plan of the zone.");
            return Err(Refused::new(400, 1004, &text));
        }
        let mut after = self.clone();
        let mut answer = json!({"deletes": null, "patches": null, "puts": null, "posts": null});
        for key in ["deletes", "patches", "puts", "posts"] {
            let mut done = Vec::new();
            for (place, element) in list(key).into_iter().enumerate() {
                let id = element["id"].as_str().unwrap_or_default().to_owned();
                let result = match key {
                    "deletes" => after.remove(&id).map(|record| record.shown()),
                    "patches" => after.patch(&id, &element, apex),
                    "puts" => Draft::read(&element).and_then(|draft| after.replace(&id, draft, apex)),
                    _ => {
                        let id = format!("{:016x}{:016x}", last, place + 1);
                        Draft::read(&element).and_then(|draft| after.add(id, draft, apex))
                    }
                };
                let pointer = names_offenders.then(|| format!("/{key}/{place}"));
                done.push(result.map_err(|refused| refused.at(pointer))?);
            }
            if !done.is_empty() {
                answer[key] = Value::Array(done);
            }
        }
        *self = after;
        Ok((answer, count))
    }

    /// The records that a list's filters leave over. They ignore letter case.
    pub(super) fn filtered(&self, query: &[(String, String)]) -> Result<Vec<Value>, Refused> {
        let any = query.iter().any(|(key, value)| key == "match" && value == "any");
        let mut filters = Vec::new();
        for (key, value) in query {
            let (field, how) = key.split_once('.').unwrap_or((key, "exact"));
            match field {
                "name" | "content" | "comment" | "type" => filters.push((field, how, value.to_lowercase())),
                // What orders, pages, or looks for what is not emulated.
                "page" | "per_page" | "match" | "order" | "direction" | "proxied" | "search" | "tag" | "tag_match" => {}
                _ => return Err(Refused::new(400, 1004, "DNS Validation Error").because(9000, "unknown filter")),
            }
        }
        let holds = |record: &StoredRecord, (field, how, wanted): &(&str, &str, String)| {
            let value = match *field {
                "name" => Some(&record.name),
                "content" => Some(&record.content),
                "type" => Some(&record.kind),
                _ => record.comment.as_ref(),
            };
            let text = value.map(|value| value.to_lowercase());
            match (*how, text) {
                ("absent", text) => text.is_none(),
                ("present", text) => text.is_some(),
                (_, None) => false,
                ("exact", Some(text)) => text == *wanted,
                ("contains", Some(text)) => text.contains(wanted),
                ("startswith", Some(text)) => text.starts_with(wanted),
                ("endswith", Some(text)) => text.ends_with(wanted),
                _ => false,
            }
        };
        let kept = self.all.iter().filter(|record| {
            if any && !filters.is_empty() {
                filters.iter().any(|filter| holds(record, filter))
            } else {
                filters.iter().all(|filter| holds(record, filter))
            }
        });
        Ok(kept.map(StoredRecord::shown).collect())
    }

    /// What the zone's servers answer.
    pub(super) fn served(&self) -> ServedZone {
        let data = |record: &StoredRecord| match (record.kind.as_str(), record.priority) {
            ("TXT", _) => character_strings(&record.content),
            ("MX", priority) => vec![format!("{} {}", priority.unwrap_or(0), record.content).into_bytes()],
            _ => vec![record.content.clone().into_bytes()],
        };
        let served = |record: &StoredRecord| Record {
            owner: record.name.clone(),
            ttl: if record.ttl == 1 { 300 } else { record.ttl },
            kind: record.kind.clone(),
            data: data(record),
        };
        self.all.iter().map(served).collect()
    }

    /// Refuses a record that cannot stand beside the others.
    fn fits(&self, new: &StoredRecord) -> Result<(), Refused> {
        let at_name = || self.all.iter().filter(|record| record.id != new.id && record.name == new.name);
        let same = |record: &StoredRecord| match (record.kind.as_str(), new.kind.as_str()) {
            ("TXT", "TXT") => character_strings(&record.content) == character_strings(&new.content),
            (old, kind) => old == kind && record.content.eq_ignore_ascii_case(&new.content),
        };
        if at_name().any(same) {
            return Err(Refused::new(400, 81058, "An identical record already exists."));
        }
        let address = |kind: &str| ["A", "AAAA", "CNAME"].contains(&kind);
        if new.kind == "CNAME" && at_name().any(|record| address(&record.kind)) {
            return Err(Refused::new(400, 81053, "An A, AAAA, or CNAME record with that host already exists."));
        }
        if at_name().any(|record| record.kind == "CNAME") {
            return Err(Refused::new(400, 81054, "A CNAME record with that host already exists."));
        }
        Ok(())
    }
}

impl Draft {
    pub(super) fn read(body: &Value) -> Result<Self, Refused> {
        let text = |key: &str| body[key].as_str().map(str::to_owned);
        let invalid = |code: u32, message: &'static str| Refused::new(400, 1004, "DNS Validation Error").because(code, message);
        Ok(Self {
            name: text("name").ok_or_else(|| invalid(9000, "DNS name is invalid."))?,
            kind: text("type").ok_or_else(|| invalid(9004, "DNS record type is required."))?,
            content: text("content").ok_or_else(|| invalid(9005, "Content for the record is invalid."))?,
            ttl: body["ttl"].as_f64().map_or(1, |ttl| ttl as u32),
            comment: text("comment").filter(|comment| !comment.is_empty()),
            priority: body["priority"].as_f64().map(|priority| priority as u64),
        })
    }

    /// The record, if it is one that may be.
    fn checked(self, id: String, apex: &str) -> Result<StoredRecord, Refused> {
        let invalid = |code: u32, message: &'static str| Refused::new(400, 1004, "DNS Validation Error").because(code, message);
        if self.ttl != 1 && !(60..=86_400).contains(&self.ttl) {
            return Err(invalid(9021, "Invalid TTL. Must be between 60 and 86400 seconds, or 1 for Automatic."));
        }
        if self.comment.as_ref().is_some_and(|comment| comment.chars().count() > MOST_COMMENT) {
            return Err(invalid(9313, "DNS record comment is too long."));
        }
        if self.kind == "TXT" && (self.content.is_empty() || self.content.len() > MOST_CONTENT) {
            return Err(invalid(9207, "Content for TXT record is invalid."));
        }
        let name = self.name.trim_end_matches('.').to_lowercase();
        let labels_fit = name.split('.').all(|label| (1..=63).contains(&label.len()) && label.is_ascii());
        if !labels_fit || name.len() > 253 {
            return Err(invalid(9000, "DNS name is invalid."));
        }
        // What is not in the zone is taken as relative to it.
        let within = name == apex || name.strip_suffix(apex).is_some_and(|rest| rest.ends_with('.'));
        let name = match name.as_str() {
            "@" => apex.to_owned(),
            _ if within => name,
            _ => format!("{name}.{apex}"),
        };
        let Self { kind, content, ttl, comment, priority, .. } = self;
        Ok(StoredRecord { id, name, kind, content, ttl, comment, priority })
    }
}

impl StoredRecord {
    pub(super) fn shown(&self) -> Value {
        let mut shown = json!({
            "id": self.id, "name": self.name, "type": self.kind, "content": self.content, "proxiable": false, "proxied": false, "ttl": self.ttl,
            "settings": {}, "meta": {}, "comment": self.comment, "tags": [], "created_on": DATE, "modified_on": DATE,
        });
        if let Some(priority) = self.priority {
            shown["priority"] = json!(priority);
        }
        shown
    }
}

/// The character-strings of TXT content: quoted ones with escapes as in master files, or text without quotes as one value cut at 255 bytes.
fn character_strings(content: &str) -> Vec<Vec<u8>> {
    if !content.starts_with('"') {
        return content.as_bytes().chunks(255).map(<[u8]>::to_vec).collect();
    }
    let mut strings = Vec::new();
    let mut open: Option<Vec<u8>> = None;
    let mut rest = content.bytes();
    while let Some(byte) = rest.next() {
        match (byte, &mut open) {
            (b'"', Some(_)) => strings.extend(open.take()),
            (b'"', None) => open = Some(Vec::new()),
            (b'\\', Some(string)) => {
                let digits: String = rest.clone().take(3).map(char::from).collect();
                match digits.parse::<u8>() {
                    Ok(number) if digits.len() == 3 => {
                        string.push(number);
                        rest.nth(2);
                    }
                    _ => string.extend(rest.next()),
                }
            }
            (byte, Some(string)) => string.push(byte),
            (_, None) => {}
        }
    }
    strings.extend(open);
    strings
        .into_iter()
        .flat_map(|string| if string.is_empty() { vec![string] } else { string.chunks(255).map(<[u8]>::to_vec).collect() })
        .collect()
}
