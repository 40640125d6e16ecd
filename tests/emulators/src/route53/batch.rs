//! What Route 53 checks of a batch of changes, and ministack does not, or tells of in fewer words.

use super::{RecordSet, names, xml::Element};

const MOST_RECORDS: usize = 1000;
const MOST_CHARACTERS: usize = 32_000;
const MOST_VALUE: usize = 4000;

/// One change.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    pub(super) action: String,
    pub(super) set: RecordSet,
}

/// The changes of a request.
pub(super) fn operations(request: &Element) -> Vec<Operation> {
    let changes = request.child("ChangeBatch").map(|batch| batch.list("Changes")).unwrap_or_default();
    let read = |change: &Element| {
        Some(Operation { action: change.value("Action").to_owned(), set: RecordSet::read(change.child("ResourceRecordSet")?) })
    };
    changes.iter().filter_map(read).collect()
}

/// Brings every name of a request into the form in which Route 53 keeps it.
pub(super) fn keep_names(element: &mut Element) {
    for child in &mut element.children {
        if element.name == "ResourceRecordSet" && child.name == "Name" {
            child.text = names::kept(&child.text);
        }
        keep_names(child);
    }
}

/// What is wrong with a batch, whatever the zone holds.
pub(super) fn malformed(zone: &str, operations: &[Operation]) -> Vec<String> {
    let twice = |operation: &Operation| if operation.action == "UPSERT" { 2 } else { 1 };
    let records: usize = operations.iter().map(|operation| operation.set.values.len() * twice(operation)).sum();
    let characters: usize = operations
        .iter()
        .map(|operation| operation.set.values.iter().map(|value| value.chars().count()).sum::<usize>() * twice(operation))
        .sum();
    let mut wrong = Vec::new();
    if records > MOST_RECORDS {
        wrong.push(format!("Number of records limit of {MOST_RECORDS} exceeded."));
    }
    if characters > MOST_CHARACTERS {
        wrong.push(format!("Number of characters limit of {MOST_CHARACTERS} exceeded."));
    }
    for Operation { set, .. } in operations {
        if set.name != zone && !set.name.ends_with(&format!(".{zone}")) {
            wrong.push(format!("RRSet with DNS name {} is not permitted in zone {zone}", set.name));
        }
        if set.kind == "TXT" {
            wrong.extend(set.values.iter().filter_map(|value| match names::strings(value) {
                Ok(_) if value.len() > MOST_VALUE => {
                    Some(format!("Invalid Resource Record: 'FATAL problem: ValueTooLong encountered with '{value}''"))
                }
                Ok(_) => None,
                Err(wrong) => Some(wrong),
            }));
        }
    }
    wrong
}

/// What a batch asks that does not fit what stands; every change that does not is told of.
pub(super) fn conflicts(zone: &str, standing: &[RecordSet], operations: &[Operation]) -> Vec<String> {
    let mut standing = standing.to_vec();
    let mut wrong = Vec::new();
    for Operation { action, set } in operations {
        let at = standing.iter().position(|old| (&old.name, &old.kind, &old.identifier) == (&set.name, &set.kind, &set.identifier));
        let named = format!(
            "resource record set [name='{}', type='{}'{}]",
            set.name,
            set.kind,
            set.identifier.as_ref().map(|id| format!(", set identifier='{id}'")).unwrap_or_default()
        );
        match (action.as_str(), at) {
            ("DELETE", None) => wrong.push(format!("Tried to delete {named} but it was not found")),
            ("DELETE", Some(at)) => {
                if standing.get(at).is_some_and(|old| old.is_same_as(set)) {
                    standing.remove(at);
                } else {
                    wrong.push(format!("Tried to delete {named} but the values provided do not match the current values"));
                }
            }
            ("CREATE", Some(_)) => wrong.push(format!("Tried to create {named} but it already exists")),
            (_, Some(at)) => {
                standing.remove(at);
                standing.push(set.clone());
            }
            (_, None) => {
                let beside = standing.iter().find(|old| old.name == set.name && (old.kind == "CNAME") != (set.kind == "CNAME"));
                let mixed = standing
                    .iter()
                    .any(|old| old.name == set.name && old.kind == set.kind && old.identifier.is_none() != set.identifier.is_none());
                if beside.is_some() {
                    wrong.push(format!(
                        "RRSet of type {} with DNS name {} is not permitted as it conflicts with other records with the same DNS name in zone {zone}",
                        set.kind, set.name
                    ));
                } else if mixed {
                    wrong.push(format!("RRSet with DNS name {}, type {}, cannot be created as an RRSet of another routing policy exists with the same name and type.", set.name, set.kind));
                } else {
                    standing.push(set.clone());
                }
            }
        }
    }
    wrong
}
