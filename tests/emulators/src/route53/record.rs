//! Record sets: as the API writes them, as a judge sees them, as the name servers take them.

use std::collections::BTreeMap;

use super::{
    names,
    xml::{self, Element},
};
use crate::Record;

/// A record set as it stands, or as a change has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordSet {
    /// The owner as Route 53 keeps it: lower case, octal escapes, a dot at the end.
    pub name: String,
    /// The type's mnemonic.
    pub kind: String,
    /// Seconds; none for an alias.
    pub ttl: Option<u32>,
    /// The values in Route 53's text: TXT quoted, each as it was written.
    pub values: Vec<String>,
    /// What tells the record sets of a routing policy apart.
    pub identifier: Option<String>,
    /// Everything else (routing policy, alias target, health check), in alphabetical order: the element's name and its XML.
    pub others: BTreeMap<String, String>,
}

impl RecordSet {
    /// A simple TXT RRset, its values in Route 53's text (quoted).
    pub fn txt(owner: &str, ttl: u32, values: &[&str]) -> Self {
        Self {
            name: names::kept(owner),
            kind: "TXT".to_owned(),
            ttl: Some(ttl),
            values: values.iter().map(|value| (*value).to_owned()).collect(),
            ..Self::default()
        }
    }

    /// The same with another element of the API, such as `Weight` and its text.
    #[must_use]
    pub fn with(mut self, element: &str, text: &str) -> Self {
        if element == "SetIdentifier" {
            self.identifier = Some(text.to_owned());
        } else {
            self.others.insert(element.to_owned(), format!("<{element}>{text}</{element}>"));
        }
        self
    }

    pub(super) fn read(element: &Element) -> Self {
        let mut set = Self { name: names::kept(element.value("Name")), ..Self::default() };
        for child in &element.children {
            match child.name.as_str() {
                "Name" => {}
                "Type" => set.kind.clone_from(&child.text),
                "TTL" => set.ttl = child.text.parse().ok(),
                "SetIdentifier" => set.identifier = Some(child.text.clone()),
                "ResourceRecords" => set.values = child.children.iter().map(|record| record.value("Value").to_owned()).collect(),
                other => drop(set.others.insert(other.to_owned(), child.write())),
            }
        }
        set
    }

    /// True if a DELETE of `other` may remove this: the order of the values does not matter.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        let sorted = |set: &Self| {
            let mut set = set.clone();
            set.values.sort();
            set
        };
        sorted(self) == sorted(other)
    }

    pub(super) fn change(&self, action: &str) -> String {
        let identifier =
            self.identifier.as_ref().map(|id| format!("<SetIdentifier>{}</SetIdentifier>", xml::escape(id))).unwrap_or_default();
        let ttl = self.ttl.map(|ttl| format!("<TTL>{ttl}</TTL>")).unwrap_or_default();
        let values: String =
            self.values.iter().map(|value| format!("<ResourceRecord><Value>{}</Value></ResourceRecord>", xml::escape(value))).collect();
        let values = if values.is_empty() { values } else { format!("<ResourceRecords>{values}</ResourceRecords>") };
        format!(
            "<Change><Action>{action}</Action><ResourceRecordSet><Name>{}</Name><Type>{}</Type>{identifier}{}{ttl}{values}</ResourceRecordSet></Change>",
            self.name,
            self.kind,
            self.others.values().map(String::as_str).collect::<String>(),
        )
    }

    /// As the name servers take it; those that they do not serve are left out.
    pub(super) fn served(&self) -> Vec<Record> {
        let data = |value: &String| match self.kind.as_str() {
            "TXT" => names::strings(value).ok(),
            "CNAME" | "NS" | "A" | "SOA" => Some(vec![value.clone().into_bytes()]),
            _ => None,
        };
        let Some(owner) = names::presentation(&self.name) else { return Vec::new() };
        let record = |data| Record { owner: owner.clone(), ttl: self.ttl.unwrap_or_default(), kind: self.kind.clone(), data };
        self.values.iter().filter_map(data).map(record).collect()
    }
}
