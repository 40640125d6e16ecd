//! What stands at an owner name, and what a change makes of it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    Change, Error, TxtSet,
    txt::{self, Escapes},
};

/// An RRset as the API writes it. Values of others are never taken apart: the text that came is the text that is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rrset {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) ttl: u32,
    #[serde(default)]
    pub(super) rrdatas: Vec<String>,
    /// Set where the answer depends on who asks; such an RRset has no plain values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) routing_policy: Option<serde_json::Value>,
}

impl Rrset {
    /// What it counts for in a change.
    pub(super) fn size(&self) -> usize {
        self.rrdatas.iter().map(String::len).sum()
    }

    fn values(&self) -> impl Iterator<Item = String> {
        self.rrdatas.iter().map(|text| txt::decode_text(text, Escapes::Decimal))
    }
}

/// What stands at one owner name, as far as TXT is concerned. As JSON, it is [`TxtSet::version`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Standing {
    /// The TXT RRset, if there is one that can be changed.
    txt: Option<Rrset>,
    /// Why no TXT can be written there.
    blocked: Option<Block>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Block {
    Cname,
    RoutingPolicy,
}

impl Standing {
    /// Takes an RRset of this owner into account.
    pub(super) fn take(&mut self, rrset: Rrset) {
        match rrset.kind.as_str() {
            "CNAME" => self.blocked = Some(Block::Cname),
            "TXT" if rrset.routing_policy.is_some() => self.blocked = Some(Block::RoutingPolicy),
            "TXT" => self.txt = Some(rrset),
            _ => {}
        }
    }

    /// It, as the caller wants it.
    pub(super) fn set(&self) -> TxtSet {
        let values: BTreeSet<String> = self.txt.iter().flat_map(Rrset::values).collect();
        TxtSet { values, version: serde_json::to_string(self).unwrap_or_default() }
    }
}

/// What a change comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// All is as it shall be.
    Nothing,
    /// It cannot be made.
    Refused(Error),
    /// The RRset that stands goes, and the other takes its place.
    Write(Box<Swap>),
}

/// One RRset for another; at least one of them is there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Swap {
    pub(super) deletion: Option<Rrset>,
    pub(super) addition: Option<Rrset>,
}

impl Plan {
    /// The plan for a change; `ttl` is that of a new RRset.
    pub(super) fn of(change: &Change, ttl: u32) -> Self {
        let owner = change.owner.to_relative_string();
        let Ok(standing) = serde_json::from_str::<Standing>(&change.version) else {
            return Self::Refused(Error::Conflict(format!("what stood at {owner} was not read from Cloud DNS: read it first")));
        };
        if let Some(block) = standing.blocked {
            if change.add.is_empty() {
                return Self::Nothing;
            }
            return Self::Refused(Error::Rejected(match block {
                Block::Cname => format!("{owner} is a CNAME, beside which nothing can stand: write where it leads to, or remove it"),
                Block::RoutingPolicy => {
                    format!("the TXT records at {owner} have a routing policy, which would be lost: remove the policy, or use another name")
                }
            }));
        }
        let mut rrdatas = Vec::new();
        let mut there = BTreeSet::new();
        for text in standing.txt.iter().flat_map(|rrset| &rrset.rrdatas) {
            let value = txt::decode_text(text, Escapes::Decimal);
            if change.add.contains(&value) || !change.remove.contains(&value) {
                rrdatas.push(text.clone());
                there.insert(value);
            }
        }
        let missing = change.add.iter().filter(|value| !there.contains(*value));
        rrdatas.extend(missing.map(|value| txt::quote(value.as_bytes(), Escapes::Decimal)));
        if standing.txt.as_ref().map_or(rrdatas.is_empty(), |rrset| rrset.rrdatas == rrdatas) {
            return Self::Nothing;
        }
        let addition = (!rrdatas.is_empty()).then(|| Rrset {
            name: standing.txt.as_ref().map_or_else(|| change.owner.to_string(), |rrset| rrset.name.clone()),
            kind: "TXT".to_owned(),
            ttl: standing.txt.as_ref().map_or(ttl, |rrset| rrset.ttl),
            rrdatas,
            routing_policy: None,
        });
        Self::Write(Box::new(Swap { deletion: standing.txt, addition }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(rrdatas: &[&str]) -> TxtSet {
        let mut standing = Standing::default();
        if !rrdatas.is_empty() {
            standing.take(rrset("TXT", rrdatas));
        }
        standing.set()
    }

    fn rrset(kind: &str, rrdatas: &[&str]) -> Rrset {
        Rrset {
            name: "_acme-challenge.example.com.".to_owned(),
            kind: kind.to_owned(),
            ttl: 17,
            rrdatas: rrdatas.iter().map(|text| (*text).to_owned()).collect(),
            routing_policy: None,
        }
    }

    fn plan(version: &str, add: &[&str], remove: &[&str]) -> Plan {
        let set = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        let owner = "_acme-challenge.example.com".parse().expect("a name");
        Plan::of(&Change { owner, add: set(add), remove: set(remove), version: version.to_owned() }, 60)
    }

    #[test]
    fn strangers_values_and_the_ttl_stay_as_they_came() {
        let strange = ["\"a\" \"b\\\"\"", "unquoted", "\"\\195\\164\""];
        let set = standing(&strange);
        assert_eq!(set.values, BTreeSet::from(["ab\"".to_owned(), "unquoted".to_owned(), "ä".to_owned()]));
        let Plan::Write(swap) = plan(&set.version, &["ours"], &[]) else { panic!("something to write") };
        assert_eq!(swap.deletion, Some(rrset("TXT", &strange)));
        assert_eq!(swap.addition, Some(rrset("TXT", &["\"a\" \"b\\\"\"", "unquoted", "\"\\195\\164\"", "\"ours\""])));
    }

    #[test]
    fn the_last_value_takes_the_rrset_with_it() {
        let set = standing(&["\"ours\""]);
        assert_eq!(
            plan(&set.version, &[], &["ours"]),
            Plan::Write(Box::new(Swap { deletion: Some(rrset("TXT", &["\"ours\""])), addition: None }))
        );
        assert_eq!(
            plan(&standing(&[]).version, &["new"], &["old"]),
            Plan::Write(Box::new(Swap { deletion: None, addition: Some(Rrset { ttl: 60, ..rrset("TXT", &["\"new\""]) }) }))
        );
    }

    #[test]
    fn what_is_so_already_is_not_written() {
        assert_eq!(plan(&standing(&["\"a\""]).version, &["a"], &["b"]), Plan::Nothing);
        assert_eq!(plan(&standing(&["a"]).version, &["a"], &[]), Plan::Nothing, "without quotes it is the same value");
        assert_eq!(plan(&standing(&[]).version, &[], &["b"]), Plan::Nothing);
    }

    #[test]
    fn a_cname_and_a_routing_policy_are_not_written_over() {
        for (blocked, said) in [
            (rrset("CNAME", &["elsewhere.example."]), "is a CNAME"),
            (Rrset { routing_policy: Some(serde_json::json!({"wrr": {}})), ..rrset("TXT", &[]) }, "routing policy"),
        ] {
            let mut standing = Standing::default();
            standing.take(blocked);
            let version = standing.set().version;
            assert_eq!(plan(&version, &[], &["gone"]), Plan::Nothing);
            let Plan::Refused(Error::Rejected(text)) = plan(&version, &["new"], &[]) else { panic!("it has to be refused") };
            assert!(text.contains(said), "{text}");
        }
        assert!(matches!(plan("", &["new"], &[]), Plan::Refused(Error::Conflict(_))));
    }
}
