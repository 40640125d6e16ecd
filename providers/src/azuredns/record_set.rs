//! A TXT record set as Azure has it, and what a change makes of it. Records that are not ours are kept as the JSON they came in.

use std::collections::BTreeSet;

use authdns::Name;
use reqwest::header::HeaderValue;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{Change, Error, TxtSet, Zone};

/// The longest character-string (RFC 1035, 3.3).
const MOST_CHUNK: usize = 255;

/// What stands at an owner; it travels in [`TxtSet::version`]. Without an ETag there is no such record set.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Standing {
    etag: Option<String>,
    ttl: Option<u64>,
    /// Names and values that somebody noted down at the record set.
    metadata: Option<Map<String, Value>>,
    txt_records: Vec<Value>,
}

/// An entry of a list, or the answer to a read.
#[derive(Deserialize)]
pub(super) struct Answer {
    /// Relative to the zone.
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    etag: Option<String>,
    #[serde(default)]
    properties: Properties,
}

/// The service documents both spellings, one in its model and one in its examples.
#[derive(Default, Deserialize)]
struct Properties {
    #[serde(default, rename = "TTL", alias = "ttl")]
    ttl: Option<u64>,
    #[serde(default)]
    metadata: Option<Map<String, Value>>,
    #[serde(default, rename = "TXTRecords", alias = "txtRecords")]
    txt_records: Option<Vec<Value>>,
}

/// How to write a change.
#[derive(Debug, PartialEq)]
pub(super) enum Write {
    /// Everything is as it should be.
    Nothing,
    /// Put this in place of what stands there.
    Put { precondition: Precondition, body: Value, records: usize },
    /// Nothing is left.
    Delete { etag: HeaderValue },
}

/// What has to hold for a write.
#[derive(Debug, PartialEq)]
pub(super) enum Precondition {
    /// It still has this ETag.
    Same(HeaderValue),
    /// There is none.
    Absent,
}

impl Answer {
    pub(super) fn into_set(self) -> Result<TxtSet, Error> {
        // Without one, a write could not be told from the creation of a new record set.
        let etag = self.etag.filter(|etag| !etag.is_empty());
        let etag = etag.ok_or_else(|| Error::Transport("the record set came without an ETag".to_owned()))?;
        set(Standing {
            etag: Some(etag),
            ttl: self.properties.ttl,
            metadata: self.properties.metadata.filter(|metadata| !metadata.is_empty()),
            txt_records: self.properties.txt_records.unwrap_or_default(),
        })
    }
}

/// The set of an owner that has no TXT.
pub(super) fn absent() -> Result<TxtSet, Error> {
    set(Standing::default())
}

fn set(standing: Standing) -> Result<TxtSet, Error> {
    let version = serde_json::to_string(&standing).map_err(|error| Error::Rejected(format!("the record set cannot be kept: {error}")))?;
    Ok(TxtSet { values: standing.txt_records.iter().map(joined).collect(), version })
}

/// The chunks of a record, joined.
fn joined(record: &Value) -> String {
    let chunks = record.get("value").and_then(Value::as_array);
    chunks.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// What a change asks for; `ttl` is for a record set that is new.
pub(super) fn plan(change: &Change, ttl: u32) -> Result<Write, Error> {
    let standing: Standing = serde_json::from_str(&change.version)
        .map_err(|_| Error::Conflict("the version is none that this provider gave: read the record set again".to_owned()))?;
    let mut records = standing.txt_records.clone();
    records.retain(|record| !change.remove.contains(&joined(record)) || change.add.contains(&joined(record)));
    let there: BTreeSet<String> = records.iter().map(joined).collect();
    records.extend(change.add.iter().filter(|value| !there.contains(*value)).map(|value| record(value)));
    if records == standing.txt_records {
        return Ok(Write::Nothing);
    }
    let header =
        |etag: &str| HeaderValue::from_str(etag).map_err(|_| Error::Rejected("the record set's ETag is no value for a header".to_owned()));
    let etag = standing.etag.as_deref().map(header).transpose()?;
    match (etag, records.is_empty(), &standing.metadata) {
        (Some(etag), true, None) => Ok(Write::Delete { etag }),
        // Whoever noted something down at an empty record set wants it to stay.
        (etag, ..) => {
            let mut properties = json!({ "TTL": standing.ttl.unwrap_or(ttl.into()), "TXTRecords": records });
            if let Some(metadata) = &standing.metadata {
                properties["metadata"] = Value::Object(metadata.clone());
            }
            let precondition = etag.map_or(Precondition::Absent, Precondition::Same);
            Ok(Write::Put { precondition, body: json!({ "properties": properties }), records: records.len() })
        }
    }
}

/// A value of ours: ASCII, so that any place is a good one to cut at.
fn record(value: &str) -> Value {
    let chunks: Vec<String> = value.as_bytes().chunks(MOST_CHUNK).map(|chunk| String::from_utf8_lossy(chunk).into_owned()).collect();
    if chunks.is_empty() { json!({ "value": [""] }) } else { json!({ "value": chunks }) }
}

/// The owner as Azure writes it: relative to the zone, `@` at the apex.
pub(super) fn relative(zone: &Zone, owner: &Name) -> Result<String, Error> {
    let refused = |why: &str| Error::Rejected(format!("{} {why}", owner.to_relative_string()));
    if !owner.is_within(&zone.name) {
        return Err(refused("is not within the zone"));
    }
    let own = owner.depth() - zone.name.depth();
    if own == 0 {
        return Ok("@".to_owned());
    }
    let labels: Vec<&[u8]> = owner.labels().take(own).collect();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'*');
    if labels.iter().any(|label| !label.iter().all(plain)) {
        return Err(refused("has characters that no record set of Azure can be named with"));
    }
    Ok(labels.iter().map(|label| String::from_utf8_lossy(label)).collect::<Vec<_>>().join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(text: &str) -> TxtSet {
        serde_json::from_str::<Answer>(text).expect("an answer").into_set().expect("a set")
    }

    fn change(version: &str, add: &[&str], remove: &[&str]) -> Change {
        let of = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        Change { owner: "a.example.com".parse().expect("a name"), add: of(add), remove: of(remove), version: version.to_owned() }
    }

    #[test]
    fn foreign_records_stay_as_they_came() {
        let set = standing(
            r#"{"name":"a","etag":"e1","properties":{"TTL":77,"metadata":{"who":"them"},"TXTRecords":[
                {"value":["two ","chunks \\ \"q\""],"more":1},{"value":["ours"]}]}}"#,
        );
        assert_eq!(set.values, BTreeSet::from(["two chunks \\ \"q\"".to_owned(), "ours".to_owned()]));
        let Write::Put { precondition, body, records } = plan(&change(&set.version, &["new"], &["ours", "gone"]), 60).expect("a plan")
        else {
            panic!("a put");
        };
        assert_eq!(precondition, Precondition::Same(HeaderValue::from_static("e1")));
        assert_eq!(records, 2);
        let kept = json!({"TTL": 77, "metadata": {"who": "them"}, "TXTRecords": [
            {"value": ["two ", "chunks \\ \"q\""], "more": 1}, {"value": ["new"]}]});
        assert_eq!(body, json!({ "properties": kept }));
    }

    #[test]
    fn the_last_record_takes_the_record_set_along_unless_it_carries_notes() {
        let bare = standing(r#"{"etag":"e","properties":{"ttl":5,"txtRecords":[{"value":["ours"]}],"metadata":{}}}"#);
        let emptied = plan(&change(&bare.version, &[], &["ours"]), 60).expect("a plan");
        assert_eq!(emptied, Write::Delete { etag: HeaderValue::from_static("e") });
        let noted = standing(r#"{"etag":"e","properties":{"TTL":5,"TXTRecords":[{"value":["ours"]}],"metadata":{"a":"b"}}}"#);
        assert!(matches!(plan(&change(&noted.version, &[], &["ours"]), 60), Ok(Write::Put { records: 0, .. })));
    }

    #[test]
    fn what_is_so_already_needs_no_call() {
        let nothing = absent().expect("a set").version;
        assert_eq!(plan(&change(&nothing, &[], &["gone"]), 60), Ok(Write::Nothing));
        let set = standing(r#"{"etag":"e","properties":{"TXTRecords":[{"value":["a"]}]}}"#);
        assert_eq!(plan(&change(&set.version, &["a"], &["b"]), 60), Ok(Write::Nothing));
        assert!(matches!(plan(&change(&nothing, &["x"], &[]), 60), Ok(Write::Put { precondition: Precondition::Absent, .. })));
        assert!(matches!(plan(&change("", &["x"], &[]), 60), Err(Error::Conflict(_))));
    }

    #[test]
    fn long_values_are_cut_and_owners_are_relative() {
        let Value::Array(chunks) = record(&"x".repeat(600))["value"].clone() else { panic!("chunks") };
        assert_eq!(chunks.iter().map(|chunk| chunk.as_str().map_or(0, str::len)).collect::<Vec<_>>(), [255, 255, 90]);
        let zone = Zone { id: String::new(), name: "example.com".parse().expect("a name"), nameservers: BTreeSet::new() };
        let of = |owner: &str| relative(&zone, &owner.parse().expect("a name"));
        assert_eq!(of("example.com").as_deref(), Ok("@"));
        assert_eq!(of("*.A.example.com").as_deref(), Ok("*.a"));
        assert!(matches!(of("other.net"), Err(Error::Rejected(_))));
        assert!(matches!(of(r"a\/b.example.com"), Err(Error::Rejected(_))));
    }
}
