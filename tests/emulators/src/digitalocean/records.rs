//! One domain's records.

use axum::{
    Json,
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{Call, Refused};
use crate::{Record, ServedZone};

/// The shortest TTL.
const LEAST_TTL: u64 = 30;
/// The longest TXT data.
const MOST_DATA: usize = 512;

/// A record as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// DigitalOcean's identifier.
    pub id: u64,
    /// The owner relative to the domain; `@` is the apex.
    pub name: String,
    /// The type's mnemonic.
    pub kind: String,
    /// The data; of a TXT the value itself.
    pub data: String,
    /// Seconds.
    pub ttl: u32,
    /// The priority of an MX.
    pub priority: Option<u64>,
}

/// A domain.
#[derive(Debug, Clone, Default)]
pub(super) struct Domain {
    pub(super) records: Vec<StoredRecord>,
}

impl Domain {
    pub(super) fn shown(&self, name: &str) -> Value {
        json!({"name": name, "ttl": 1800, "zone_file": format!("$ORIGIN {name}.\n$TTL 1800\n")})
    }

    /// A call under `/v2/domains/{domain}/records`; `id` is what a new record gets.
    pub(super) fn answer(&mut self, domain: &str, rest: &[&str], call: &Call, id: u64) -> Result<Response, Refused> {
        let asked = |key: &str| call.query.get(key).map(String::as_str);
        match (&call.method, rest) {
            (&Method::GET, []) => {
                let kept = self.records.iter().filter(|record| {
                    asked("type").is_none_or(|kind| record.kind.eq_ignore_ascii_case(kind))
                        && asked("name").is_none_or(|name| record.absolute(domain).eq_ignore_ascii_case(name.trim_end_matches('.')))
                });
                Ok(call.page("domain_records", kept.map(StoredRecord::shown).collect()))
            }
            (&Method::POST, []) => {
                let record = StoredRecord::read(id, &call.body, domain)?;
                let cname = |record: &StoredRecord| record.kind == "CNAME";
                if self.records.iter().any(|old| old.name == record.name && (cname(old) || cname(&record))) {
                    return Err(invalid("CNAME records cannot share a name with other records"));
                }
                let shown = record.shown();
                self.records.push(record);
                Ok((StatusCode::CREATED, Json(json!({"domain_record": shown}))).into_response())
            }
            (method, [record]) => {
                let at = self.records.iter().position(|old| old.id.to_string() == *record).ok_or_else(Refused::not_found)?;
                match *method {
                    Method::GET => {}
                    Method::DELETE => {
                        self.records.remove(at);
                        return Ok(StatusCode::NO_CONTENT.into_response());
                    }
                    _ => {
                        let mut whole = self.records[at].shown();
                        for (key, value) in call.body.as_object().into_iter().flatten() {
                            whole[key] = value.clone();
                        }
                        self.records[at] = StoredRecord::read(self.records[at].id, &whole, domain)?;
                    }
                }
                Ok(Json(json!({"domain_record": self.records[at].shown()})).into_response())
            }
            _ => Err(Refused::not_found()),
        }
    }

    /// What the servers answer; the emulated ones have names of their own, so the domain's NS and SOA are left out.
    pub(super) fn served(&self, domain: &str) -> ServedZone {
        let own = |record: &&StoredRecord| !(record.name == "@" && ["NS", "SOA"].contains(&record.kind.as_str()));
        let served = |record: &StoredRecord| Record {
            owner: record.absolute(domain),
            ttl: record.ttl,
            kind: record.kind.clone(),
            data: match (record.kind.as_str(), record.priority) {
                ("TXT", _) => record.data.as_bytes().chunks(255).map(<[u8]>::to_vec).collect(),
                ("MX", priority) => vec![format!("{} {}", priority.unwrap_or(0), record.data).into_bytes()],
                _ => vec![record.data.clone().into_bytes()],
            },
        };
        self.records.iter().filter(own).map(served).collect()
    }
}

impl StoredRecord {
    pub(super) fn new(id: u64, name: &str, kind: &str, data: &str, ttl: u32) -> Self {
        Self { id, name: name.to_owned(), kind: kind.to_owned(), data: data.to_owned(), ttl, priority: None }
    }

    fn read(id: u64, body: &Value, domain: &str) -> Result<Self, Refused> {
        let text = |key: &str| body[key].as_str().unwrap_or_default();
        let (kind, data) = (text("type").to_uppercase(), text("data"));
        if !["A", "AAAA", "CAA", "CNAME", "MX", "NS", "SRV", "TXT"].contains(&kind.as_str()) {
            return Err(invalid("Record type is not valid"));
        }
        if data.is_empty() || (kind == "TXT" && data.chars().count() > MOST_DATA) {
            return Err(invalid("Data is missing, or too long for a record of this type"));
        }
        let ttl = body["ttl"].as_u64().unwrap_or(1800);
        if ttl < LEAST_TTL {
            return Err(invalid("record ttl must be greater than 30"));
        }
        let name = text("name").to_lowercase();
        // With a dot at the end it is a whole name, otherwise a relative one.
        let name = match name.strip_suffix('.') {
            Some(whole) if whole == domain || whole.ends_with(&format!(".{domain}")) => relative(whole, domain),
            Some(_) => return Err(invalid("Name is not in the domain")),
            None => name,
        };
        if name.is_empty() || name.split('.').any(|label| label.is_empty() || label.len() > 63) {
            return Err(invalid("Name is not valid"));
        }
        Ok(Self { priority: body["priority"].as_u64(), ..Self::new(id, &name, &kind, data, u32::try_from(ttl).unwrap_or(u32::MAX)) })
    }

    /// The owner, absolute, without the last dot.
    pub(super) fn absolute(&self, domain: &str) -> String {
        if self.name == "@" { domain.to_owned() } else { format!("{}.{domain}", self.name) }
    }

    fn shown(&self) -> Value {
        json!({
            "id": self.id, "type": self.kind, "name": self.name, "data": self.data, "priority": self.priority, "port": null, "ttl": self.ttl,
            "weight": null, "flags": null, "tag": null,
        })
    }
}

/// An absolute name relative to the domain that it is in.
pub(super) fn relative(name: &str, domain: &str) -> String {
    if name == domain { "@".to_owned() } else { name.strip_suffix(&format!(".{domain}")).unwrap_or(name).to_owned() }
}

fn invalid(message: &str) -> Refused {
    Refused::new(422, "unprocessable_entity", message)
}
