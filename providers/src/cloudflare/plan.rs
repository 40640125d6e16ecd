//! What stands at an owner, what a change makes of it, and the batch of several changes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{api::Record, value};
use crate::{
    Change, Error, TxtSet,
    txt::{self, Escapes},
};

/// The TXT records at one owner: what [`TxtSet::version`] holds, as JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Standing {
    /// The TTL that the RRset has.
    ttl: Option<u32>,
    /// The records that carry each value: by its letters, two records can differ (with and without quotes).
    records: BTreeMap<String, Vec<Held>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Held {
    id: String,
    /// Whether it carries our mark.
    ours: bool,
}

/// What one change takes.
#[derive(Debug)]
pub(super) struct Plan {
    /// Ids of records.
    deletes: Vec<String>,
    /// Values.
    posts: Vec<String>,
    ttl: u32,
}

/// The body of `POST …/dns_records/batch`.
#[derive(Debug, Serialize)]
pub(super) struct Batch {
    deletes: Vec<Delete>,
    posts: Vec<Post>,
    /// Which change each delete, and each post, is for.
    #[serde(skip)]
    deletes_for: Vec<usize>,
    #[serde(skip)]
    posts_for: Vec<usize>,
}

#[derive(Debug, Serialize)]
struct Delete {
    id: String,
}

#[derive(Debug, Serialize)]
struct Post {
    #[serde(rename = "type")]
    kind: &'static str,
    name: String,
    content: String,
    ttl: u32,
    comment: String,
}

impl Standing {
    pub(super) fn of(found: &[Record], mark: &str) -> Self {
        let mut records: BTreeMap<String, Vec<Held>> = BTreeMap::new();
        for record in found {
            let ours = record.comment.as_deref() == Some(mark);
            records.entry(value(record)).or_default().push(Held { id: record.id.clone(), ours });
        }
        Self { ttl: found.first().map(Record::seconds), records }
    }

    pub(super) fn into_set(self) -> TxtSet {
        // A map of strings and numbers cannot fail to become JSON.
        let version = serde_json::to_string(&self).unwrap_or_default();
        TxtSet { values: self.records.into_keys().collect(), version }
    }

    fn read(version: &str) -> Result<Self, Error> {
        serde_json::from_str(version).map_err(|_| Error::Conflict("the change says nothing of what stood before it: read first".to_owned()))
    }
}

impl Plan {
    /// What a change takes; new RRsets get `ttl`.
    pub(super) fn of(change: &Change, ttl: u32) -> Result<Self, Error> {
        let standing = Standing::read(&change.version)?;
        let posts = change.add.iter().filter(|value| !standing.records.contains_key(*value)).cloned().collect();
        let mut deletes = Vec::new();
        for held in change.remove.iter().filter_map(|value| standing.records.get(value)) {
            // A stranger may have put the same value there: where we know ours, that one stays.
            let marked = held.iter().any(|record| record.ours);
            deletes.extend(held.iter().filter(|record| record.ours || !marked).map(|record| record.id.clone()));
        }
        Ok(Self { deletes, posts, ttl: standing.ttl.unwrap_or(ttl) })
    }

    /// The number of operations.
    pub(super) fn len(&self) -> usize {
        self.deletes.len() + self.posts.len()
    }

    /// Whether what it deletes is still there, and what it posts is not.
    pub(super) fn still_fits(&self, now: &TxtSet) -> bool {
        let Ok(standing) = Standing::read(&now.version) else { return false };
        let stands = |id: &String| standing.records.values().flatten().any(|record| record.id == *id);
        self.deletes.iter().all(stands) && !self.posts.iter().any(|value| now.values.contains(value))
    }
}

impl Batch {
    pub(super) fn of(run: &[Change], plans: &[Plan], mark: &str) -> Self {
        let mut batch = Self { deletes: Vec::new(), posts: Vec::new(), deletes_for: Vec::new(), posts_for: Vec::new() };
        for (place, (change, plan)) in run.iter().zip(plans).enumerate() {
            for id in &plan.deletes {
                batch.deletes.push(Delete { id: id.clone() });
                batch.deletes_for.push(place);
            }
            for value in &plan.posts {
                batch.posts.push(Post {
                    kind: "TXT",
                    name: change.owner.to_relative_string(),
                    content: txt::quote(value.as_bytes(), Escapes::Decimal),
                    ttl: plan.ttl,
                    comment: mark.to_owned(),
                });
                batch.posts_for.push(place);
            }
        }
        batch
    }

    /// Which change a JSON pointer into the body is about.
    pub(super) fn change_at(&self, pointer: &str) -> Option<usize> {
        let mut parts = pointer.trim_start_matches('#').trim_start_matches('/').split('/');
        let list = match parts.next()? {
            "deletes" => &self.deletes_for,
            "posts" => &self.posts_for,
            _ => return None,
        };
        list.get(parts.next()?.parse::<usize>().ok()?).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn record(id: &str, content: &str, comment: Option<&str>) -> Record {
        let comment = comment.map_or("null".to_owned(), |comment| format!("{comment:?}"));
        let text = format!(r#"{{"id":"{id}","name":"a.example.com","type":"TXT","content":{content:?},"ttl":120,"comment":{comment}}}"#);
        serde_json::from_str(&text).expect("a record")
    }

    fn change(standing: &TxtSet, add: &[&str], remove: &[&str]) -> Change {
        let set = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<BTreeSet<_>>();
        Change { owner: "a.example.com".parse().expect("a name"), add: set(add), remove: set(remove), version: standing.version.clone() }
    }

    fn set(records: &[Record]) -> TxtSet {
        Standing::of(records, "ours").into_set()
    }

    #[test]
    fn values_are_compared_decoded_and_with_their_letter_case() {
        let standing = set(&[record("1", "bare value", None), record("2", "\"Quoted\"", None), record("3", "\"a\" \"b\"", None)]);
        assert_eq!(standing.values, ["Quoted", "ab", "bare value"].map(str::to_owned).into());
        let plan = Plan::of(&change(&standing, &["quoted", "Quoted"], &["bare value", "ab", "gone"]), 60).expect("a plan");
        assert_eq!((plan.posts, plan.deletes, plan.ttl), (vec!["quoted".to_owned()], vec!["3".to_owned(), "1".to_owned()], 120));
    }

    #[test]
    fn of_two_records_with_one_value_the_marked_one_goes() {
        let both =
            set(&[record("1", "v", None), record("2", "\"v\"", Some("ours")), record("3", "w", Some("other")), record("4", "\"w\"", None)]);
        let plan = Plan::of(&change(&both, &[], &["v", "w"]), 60).expect("a plan");
        assert_eq!(plan.deletes, ["2", "3", "4"], "where none is marked, all have the value that shall go");
    }

    #[test]
    fn pointers_lead_to_changes() {
        let standing = set(&[record("1", "old", None)]);
        let run = [change(&standing, &["x"], &[]), change(&standing, &["y", "z"], &["old"])];
        let plans: Vec<Plan> = run.iter().map(|change| Plan::of(change, 60).expect("a plan")).collect();
        let batch = Batch::of(&run, &plans, "ours");
        assert_eq!(batch.change_at("/posts/0/content"), Some(0));
        assert_eq!(batch.change_at("#/posts/2"), Some(1));
        assert_eq!(batch.change_at("/deletes/0"), Some(1));
        assert_eq!((batch.change_at("/posts/3"), batch.change_at("/zone"), batch.change_at("")), (None, None, None));
    }

    #[test]
    fn a_change_without_a_version_is_not_guessed_at() {
        let blind = change(&TxtSet::default(), &["x"], &[]);
        assert!(matches!(Plan::of(&blind, 60), Err(Error::Conflict(_))));
    }
}
