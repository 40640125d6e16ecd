//! What stands at an owner, and the change that turns it into what shall stand there: DELETE of exactly what was read and CREATE of the new RRset, in one
//! batch, so that nothing newer is overwritten.

use std::collections::BTreeSet;

use aws_lc_rs::digest;
use aws_sdk_route53::types::{Change as Operation, ChangeAction, ResourceRecord, ResourceRecordSet, RrType};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::name::written;
use crate::{
    Change, Error, TxtSet,
    txt::{self, Escapes},
};

/// Most characters of values in a call.
pub(super) const MOST_CHARACTERS: usize = 32_000;
/// Most records in a call.
pub(super) const MOST_RECORDS: usize = 1000;

/// What stands at an owner, in Route 53's own text: the version of a [`TxtSet`] is this as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Standing {
    /// No TXT.
    Absent,
    /// One RRset, as everywhere.
    Simple(Set),
    /// Record sets with the multivalue routing policy, beside which no simple one can stand.
    Multivalue(Vec<Set>),
    /// Something that is not ours to change.
    Closed {
        /// What it is.
        why: String,
        /// The values there, decoded: a change that they make already is no change.
        values: BTreeSet<String>,
    },
}

/// A record set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Set {
    ttl: i64,
    /// Quoted, as they came.
    values: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identifier: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    health_check: Option<String>,
}

/// The operations of one change, and how much of a call they take.
#[derive(Debug, Clone, Default)]
pub(super) struct Plan {
    pub(super) operations: Vec<Operation>,
    pub(super) records: usize,
    pub(super) characters: usize,
}

impl Standing {
    /// From the TXT (and CNAME) record sets of one owner.
    pub(super) fn of(sets: &[ResourceRecordSet]) -> Self {
        let txt: Vec<_> = sets.iter().filter(|set| *set.r#type() == RrType::Txt).collect();
        let shut = |why: String| Self::Closed { why, values: values(sets) };
        if txt.is_empty() {
            return match sets.first() {
                Some(_) => shut("a CNAME stands there, and beside it nothing else can".to_owned()),
                None => Self::Absent,
            };
        }
        if let Some(why) = txt.iter().find_map(|set| closed(set)) {
            return shut(why);
        }
        let read = |set: &&ResourceRecordSet| Set {
            ttl: set.ttl().unwrap_or_default(),
            values: set.resource_records().iter().map(|record| record.value().to_owned()).collect(),
            identifier: set.set_identifier().map(str::to_owned),
            health_check: set.health_check_id().map(str::to_owned),
        };
        match txt.as_slice() {
            [one] if one.set_identifier().is_none() => Self::Simple(read(one)),
            several if several.iter().all(|set| set.multi_value_answer() == Some(true)) => {
                Self::Multivalue(several.iter().map(read).collect())
            }
            _ => shut("its TXT has a routing policy that is not known here".to_owned()),
        }
    }

    /// As a caller sees it: the decoded values (of `sets`, whatever their policy) and the version.
    pub(super) fn seen(&self, sets: &[ResourceRecordSet]) -> TxtSet {
        TxtSet { values: values(sets), version: serde_json::to_string(self).unwrap_or_default() }
    }

    /// What a version stands for; `None` if it is not one of ours.
    pub(super) fn from_version(version: &str) -> Option<Self> {
        serde_json::from_str(version).ok()
    }

    /// The operations that make the change; `None` if it is made already. New RRsets get `ttl`.
    ///
    /// # Errors
    /// [`Error::Rejected`] where there is no way to make it.
    pub(super) fn plan(&self, change: &Change, ttl: u32) -> Result<Option<Plan>, Error> {
        let owner = written(&change.owner);
        let remove: BTreeSet<&String> = change.remove.difference(&change.add).collect();
        let mut plan = Plan::default();
        match self {
            Self::Absent => {
                let new = Set { ttl: i64::from(ttl), values: change.add.iter().map(|value| quoted(value)).collect(), ..Set::default() };
                if !new.values.is_empty() {
                    plan.push(ChangeAction::Create, &owner, &new)?;
                }
            }
            Self::Simple(old) => {
                let new = old.changed(&remove, &change.add);
                if new != *old {
                    plan.replace(&owner, old, &new)?;
                }
            }
            Self::Multivalue(sets) => {
                let mut missing = change.add.clone();
                for old in sets {
                    missing.retain(|value| !old.holds(value));
                    let new = old.changed(&remove, &BTreeSet::new());
                    if new != *old {
                        plan.replace(&owner, old, &new)?;
                    }
                }
                let ttl = sets.first().map_or(i64::from(ttl), |set| set.ttl);
                for value in missing {
                    let new = Set { ttl, values: vec![quoted(&value)], identifier: Some(identifier(&value)), health_check: None };
                    plan.push(ChangeAction::Create, &owner, &new)?;
                }
            }
            Self::Closed { values, .. } if change.add.is_subset(values) && remove.iter().all(|value| !values.contains(*value)) => {}
            Self::Closed { why, .. } => {
                let name = change.owner.to_relative_string();
                return Err(Error::Rejected(format!(
                    "{name} cannot be changed: {why}; take that away, or point the challenge elsewhere with a CNAME"
                )));
            }
        }
        if plan.characters > MOST_CHARACTERS || plan.records > MOST_RECORDS {
            return Err(Error::Rejected(format!(
                "the values at {} do not fit in one call of Route 53 ({} records with {} characters; at most {MOST_RECORDS} with {MOST_CHARACTERS}): remove some",
                change.owner.to_relative_string(),
                plan.records,
                plan.characters,
            )));
        }
        Ok((!plan.operations.is_empty()).then_some(plan))
    }
}

impl Set {
    fn holds(&self, value: &str) -> bool {
        self.values.iter().any(|text| decoded(text) == value)
    }

    fn changed(&self, remove: &BTreeSet<&String>, add: &BTreeSet<String>) -> Self {
        let mut new = self.clone();
        new.values.retain(|text| !remove.contains(&decoded(text)));
        new.values.extend(add.iter().filter(|value| !self.holds(value)).map(|value| quoted(value)));
        new
    }
}

impl Plan {
    fn replace(&mut self, owner: &str, old: &Set, new: &Set) -> Result<(), Error> {
        self.push(ChangeAction::Delete, owner, old)?;
        if new.values.is_empty() { Ok(()) } else { self.push(ChangeAction::Create, owner, new) }
    }

    fn push(&mut self, action: ChangeAction, owner: &str, set: &Set) -> Result<(), Error> {
        let built = |error: aws_sdk_route53::error::BuildError| Error::Rejected(format!("no call can be made of the change: {error}"));
        let mut records = Vec::with_capacity(set.values.len());
        for value in &set.values {
            records.push(ResourceRecord::builder().value(value).build().map_err(built)?);
            self.records += 1;
            self.characters += value.chars().count();
        }
        let set = ResourceRecordSet::builder()
            .name(owner)
            .r#type(RrType::Txt)
            .ttl(set.ttl)
            .set_set_identifier(set.identifier.clone())
            .set_multi_value_answer(set.identifier.is_some().then_some(true))
            .set_health_check_id(set.health_check.clone())
            .set_resource_records(Some(records))
            .build()
            .map_err(built)?;
        self.operations.push(Operation::builder().action(action).resource_record_set(set).build().map_err(built)?);
        Ok(())
    }
}

/// The values of the TXT among `sets`, decoded.
fn values(sets: &[ResourceRecordSet]) -> BTreeSet<String> {
    let records = sets.iter().filter(|set| *set.r#type() == RrType::Txt).flat_map(ResourceRecordSet::resource_records);
    records.map(|record| decoded(record.value())).collect()
}

/// Why a TXT record set cannot be changed value by value.
fn closed(set: &ResourceRecordSet) -> Option<String> {
    let policy = if set.alias_target().is_some() {
        return Some("its TXT is an alias of another record".to_owned());
    } else if set.traffic_policy_instance_id().is_some() {
        return Some("its TXT is made by a traffic policy".to_owned());
    } else if set.weight().is_some() {
        "weighted"
    } else if set.region().is_some() {
        "latency"
    } else if set.failover().is_some() {
        "failover"
    } else if set.geo_location().is_some() || set.geo_proximity_location().is_some() {
        "geographic"
    } else if set.cidr_routing_config().is_some() {
        "IP-based"
    } else {
        return None;
    };
    Some(format!("its TXT has the {policy} routing policy, so that different askers get different values"))
}

fn decoded(text: &str) -> String {
    txt::decode_text(text, Escapes::Octal)
}

fn quoted(value: &str) -> String {
    txt::quote(value.as_bytes(), Escapes::Octal)
}

/// The identifier of our record set for one value, the same each time: two writers of one value cannot make two sets of it.
fn identifier(value: &str) -> String {
    let hash = digest::digest(&digest::SHA256, value.as_bytes());
    format!("acmegate-{}", HEXLOWER.encode(hash.as_ref().get(..16).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use aws_sdk_route53::types::AliasTarget;

    use super::*;

    fn set(values: &[&str]) -> aws_sdk_route53::types::builders::ResourceRecordSetBuilder {
        let records = values.iter().map(|value| ResourceRecord::builder().value(*value).build().expect("a record")).collect();
        ResourceRecordSet::builder().name("x.example.com.").r#type(RrType::Txt).ttl(77).set_resource_records(Some(records))
    }

    fn change(add: &[&str], remove: &[&str]) -> Change {
        let values = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Change { owner: "x.example.com".parse().expect("a name"), add: values(add), remove: values(remove), version: String::new() }
    }

    /// The operations as text.
    fn plan(sets: Vec<ResourceRecordSet>, change: &Change) -> Result<Vec<String>, Error> {
        let standing = Standing::of(&sets);
        let version = standing.seen(&sets).version;
        assert_eq!(Standing::from_version(&version).as_ref(), Some(&standing), "{version}");
        let text = |operation: &Operation| {
            let set = operation.resource_record_set().expect("a set");
            let values: Vec<_> = set.resource_records().iter().map(ResourceRecord::value).collect();
            let identifier = set.set_identifier().map(|text| format!(" {text} {:?}", set.multi_value_answer())).unwrap_or_default();
            format!("{}{identifier} {} {}", operation.action(), set.ttl().unwrap_or_default(), values.join(" | "))
        };
        Ok(standing.plan(change, 60)?.map(|plan| plan.operations.iter().map(text).collect()).unwrap_or_default())
    }

    fn simple(values: &[&str]) -> Vec<ResourceRecordSet> {
        vec![set(values).build().expect("a set")]
    }

    #[test]
    fn foreign_values_and_their_ttl_go_back_as_they_came() {
        let foreign = "\"v=spf1\" \"\\101 \\\"q\\\"\"";
        assert_eq!(plan(vec![], &change(&["ours"], &["gone"])).expect("planned"), ["CREATE 60 \"ours\""]);
        assert_eq!(
            plan(simple(&[foreign]), &change(&["ours"], &[])).expect("planned"),
            [format!("DELETE 77 {foreign}"), format!("CREATE 77 {foreign} | \"ours\"")]
        );
        assert_eq!(
            plan(simple(&[foreign, "\"ours\""]), &change(&[], &["ours"])).expect("planned"),
            [format!("DELETE 77 {foreign} | \"ours\""), format!("CREATE 77 {foreign}")]
        );
        assert_eq!(plan(simple(&["\"ours\""]), &change(&[], &["ours"])).expect("planned"), ["DELETE 77 \"ours\""]);
        let none: [&str; 0] = [];
        assert_eq!(plan(simple(&["\"ours\""]), &change(&["ours"], &["gone"])).expect("planned"), none);
        assert_eq!(plan(vec![], &change(&[], &["gone"])).expect("planned"), none);
    }

    #[test]
    fn multivalue_sets_stay_multivalue() {
        let multi = |id: &str, values: &[&str]| set(values).set_identifier(id).multi_value_answer(true).build().expect("a set");
        let id = identifier("ours");
        assert_eq!(
            plan(vec![multi("a", &["\"theirs\""])], &change(&["ours"], &[])).expect("planned"),
            [format!("CREATE {id} Some(true) 77 \"ours\"")]
        );
        assert_eq!(
            plan(vec![multi("a", &["\"theirs\""]), multi(&id, &["\"ours\""])], &change(&["theirs"], &["ours"])).expect("planned"),
            [format!("DELETE {id} Some(true) 77 \"ours\"")]
        );
    }

    #[test]
    fn what_is_not_ours_to_change_says_why() {
        let alias = AliasTarget::builder().hosted_zone_id("Z").dns_name("y.").evaluate_target_health(false).build().expect("a target");
        let cname = ResourceRecordSet::builder().name("x.example.com.").r#type(RrType::Cname).ttl(1).build().expect("a set");
        for (sets, said) in [
            (vec![set(&["\"a\""]).set_identifier("a").weight(1).build().expect("a set")], "weighted"),
            (vec![ResourceRecordSet::builder().name("x.").r#type(RrType::Txt).alias_target(alias).build().expect("a set")], "alias"),
            (vec![set(&["\"a\""]).set_identifier("a").build().expect("a set")], "not known here"),
            (vec![cname], "CNAME"),
        ] {
            assert!(plan(sets.clone(), &change(&[], &["gone"])).expect("nothing to do").is_empty());
            let error = plan(sets, &change(&["ours"], &[])).expect_err("closed");
            assert!(matches!(&error, Error::Rejected(text) if text.contains(said)), "{error}");
        }
    }

    #[test]
    fn what_fits_in_no_call_is_not_sent() {
        let long = format!("\"{}\"", "x".repeat(250));
        let error = plan(simple(&vec![long.as_str(); 70]), &change(&["ours"], &[])).expect_err("too long");
        assert!(matches!(&error, Error::Rejected(text) if text.contains("do not fit")), "{error}");
    }
}
