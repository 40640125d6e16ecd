//! A TXT RRset as the server has it, and what a PATCH says to change it. Pure.

use std::collections::HashMap;

use authdns::Name;
use serde::{Deserialize, Serialize};

use crate::{
    Change, Error, TxtSet,
    txt::{Escapes, decode_text, quote},
};

/// An RRset in an answer.
#[derive(Deserialize)]
pub(super) struct RrSet {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) ttl: u32,
    #[serde(default)]
    pub(super) records: Vec<Record>,
    #[serde(default)]
    pub(super) comments: Vec<serde_json::Value>,
}

/// A record as the server has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    content: String,
    #[serde(default)]
    disabled: bool,
}

/// A TXT RRset as the server has it: the version of a [`TxtSet`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) ttl: Option<u32>,
    pub(super) records: Vec<Record>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) comments: Vec<serde_json::Value>,
}

/// An RRset in a PATCH.
#[derive(Serialize)]
pub(super) struct Patch {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) ttl: u32,
    changetype: &'static str,
    pub(super) records: Vec<Record>,
    /// Without the key they stay as they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) comments: Vec<serde_json::Value>,
}

impl Record {
    fn value(&self) -> String {
        decode_text(&self.content, Escapes::Decimal)
    }
}

impl State {
    /// The RRset as it was when a change's owner was read.
    pub(super) fn when_read(change: &Change) -> Self {
        serde_json::from_str(&change.version).unwrap_or_default()
    }

    pub(super) fn set(&self) -> TxtSet {
        let values = self.records.iter().filter(|record| !record.disabled).map(Record::value).collect();
        let nothing = self.records.is_empty() && self.comments.is_empty();
        let version = if nothing { String::new() } else { serde_json::to_string(self).unwrap_or_default() };
        TxtSet { values, version }
    }

    /// True if EXTEND and PRUNE lose more than what they are to remove: disabled records, or the comments of an RRset without records.
    pub(super) fn loses_by(&self, change: &Change) -> bool {
        let empties = || change.add.is_empty() && self.records.iter().all(|record| change.remove.contains(&record.value()));
        self.records.iter().any(|record| record.disabled) || !self.comments.is_empty() && empties()
    }

    /// A change, record by record: additions first, so that the RRset is never empty in between, which would cost its comments.
    pub(super) fn by_record(&self, change: &Change, ttl: u32) -> Vec<Patch> {
        let added = change.add.iter().map(|value| ("EXTEND", value));
        let removed = change.remove.difference(&change.add).map(|value| ("PRUNE", value));
        let patch = |(changetype, value): (&'static str, &String)| {
            // In the server's own writing, where it has the value: contents are compared as text.
            let written = self.records.iter().find(|record| record.value() == *value).map(|record| record.content.clone());
            let content = written.unwrap_or_else(|| quote(value.as_bytes(), Escapes::Decimal));
            self.patch(change, ttl, changetype, vec![Record { content, disabled: false }])
        };
        added.chain(removed).map(patch).collect()
    }

    /// A change as its whole RRset; `None` if nothing changes.
    pub(super) fn by_rrset(&self, change: &Change, ttl: u32) -> Option<Patch> {
        let mut records = self.records.clone();
        records.retain(|record| change.add.contains(&record.value()) || !change.remove.contains(&record.value()));
        for value in &change.add {
            match records.iter_mut().find(|record| record.value() == *value) {
                // Beside a disabled record, the server takes none of the same content.
                Some(standing) => standing.disabled = false,
                None => records.push(Record { content: quote(value.as_bytes(), Escapes::Decimal), disabled: false }),
            }
        }
        (records != self.records).then(|| self.patch(change, ttl, "REPLACE", records))
    }

    fn patch(&self, change: &Change, ttl: u32, changetype: &'static str, records: Vec<Record>) -> Patch {
        // The comments go with the last record, unless they are named.
        let comments = if records.is_empty() { self.comments.clone() } else { Vec::new() };
        Patch { name: change.owner.to_string(), kind: "TXT", ttl: self.ttl.unwrap_or(ttl), changetype, records, comments }
    }
}

/// The TXT RRset of `owner`; an error if a CNAME stands there, beside which EXTEND would write without a word.
pub(super) fn state(rrsets: &HashMap<Name, Vec<RrSet>>, owner: &Name) -> Result<State, Error> {
    let here = rrsets.get(owner).map(Vec::as_slice).unwrap_or_default();
    if here.iter().any(|rrset| rrset.kind == "CNAME" && rrset.records.iter().any(|record| !record.disabled)) {
        let name = owner.to_relative_string();
        return Err(Error::Rejected(format!("a CNAME stands at {name}, and nothing can stand beside it: the value belongs at its target")));
    }
    let Some(txt) = here.iter().find(|rrset| rrset.kind == "TXT") else { return Ok(State::default()) };
    // Comments without records have a TTL of 0, which says nothing.
    let ttl = (!txt.records.is_empty()).then_some(txt.ttl);
    Ok(State { ttl, records: txt.records.clone(), comments: txt.comments.clone() })
}
