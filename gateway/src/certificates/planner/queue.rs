//! Who is next: a queue by time, then by urgency, with gates at which those wait who meet a limit.
//!
//! ```text
//!            at()               ripen()                pop()
//!  anybody ───────▶ timed ─────────────────▶ ready ───────────▶ handed out
//!                                              ▲  │ park(): a limit is used up
//!                             the most urgent, │  ▼
//!                             one at a time    gate, until there is a token
//! ```
//!
//! What is due costs, not what is there: those before one gate are let through one by one, until one of them is refused again.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use crate::{
    claim::Timestamp,
    issuer::{Exhausted, Limit},
};

/// The name of a certificate.
pub(super) type Id = Arc<str>;

/// Who goes first: the smaller.
pub(super) type Urgency = i64;

/// A queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    places: HashMap<Id, Place>,
    timed: BTreeSet<(Timestamp, Id)>,
    ready: BTreeSet<(Urgency, Id)>,
    gates: HashMap<Key, Gate>,
    /// Of the gates that are closed.
    opens: BTreeSet<(Timestamp, Key)>,
}

/// Where somebody is.
#[derive(Debug, Clone)]
struct Place {
    /// Since when it is due, or when it will be.
    time: Timestamp,
    urgency: Urgency,
    stage: Stage,
}

#[derive(Debug, Clone)]
enum Stage {
    Timed,
    /// With the gate that it came through, behind which others may wait.
    Ready(Option<Key>),
    Gated(Key),
}

/// What a gate is there for: a limit of a CA, for one of those that it counts by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    directory: Arc<str>,
    limit: Limit,
    subject: Arc<str>,
}

#[derive(Debug, Default)]
struct Gate {
    until: Timestamp,
    open: bool,
    waiting: BTreeSet<(Urgency, Id)>,
}

/// Somebody who is out of the queue, and has to be let go or parked.
#[derive(Debug)]
pub(super) struct Popped {
    /// Who.
    pub(super) id: Id,
    time: Timestamp,
    urgency: Urgency,
    through: Option<Key>,
}

impl Queue {
    /// Puts somebody into the queue, or at another place in it. Who is there for the same time and as urgent keeps its place, at a gate, too.
    pub(super) fn at(&mut self, id: &Id, time: Timestamp, urgency: Urgency) {
        if self.places.get(id).is_some_and(|place| (place.time, place.urgency) == (time, urgency)) {
            return;
        }
        self.drop(id);
        self.timed.insert((time, id.clone()));
        self.places.insert(id.clone(), Place { time, urgency, stage: Stage::Timed });
    }

    /// Takes somebody out of the queue.
    pub(super) fn drop(&mut self, id: &Id) {
        let Some(Place { time, urgency, stage }) = self.places.remove(id) else { return };
        match stage {
            Stage::Timed => {
                self.timed.remove(&(time, id.clone()));
            }
            Stage::Ready(through) => {
                self.ready.remove(&(urgency, id.clone()));
                self.next_through(through);
            }
            Stage::Gated(key) => {
                if let Some(gate) = self.gates.get_mut(&key) {
                    gate.waiting.remove(&(urgency, id.clone()));
                    self.forget_if_empty(&key);
                }
            }
        }
    }

    /// Makes ready what is due, and opens the gates whose time has come.
    pub(super) fn ripen(&mut self, now: Timestamp) {
        while self.timed.first().is_some_and(|(time, _)| *time <= now) {
            let Some((_, id)) = self.timed.pop_first() else { break };
            self.make_ready(id, None);
        }
        while self.opens.first().is_some_and(|(time, _)| *time <= now) {
            let Some((_, key)) = self.opens.pop_first() else { break };
            if let Some(gate) = self.gates.get_mut(&key) {
                gate.open = true;
            }
            self.next_through(Some(key));
        }
    }

    /// The most urgent of those who are ready. Ends in [`Self::let_go`] or [`Self::park`].
    pub(super) fn pop(&mut self) -> Option<Popped> {
        let (_, id) = self.ready.pop_first()?;
        let Place { time, urgency, stage } = self.places.remove(&id)?;
        let through = if let Stage::Ready(through) = stage { through } else { None };
        Some(Popped { id, time, urgency, through })
    }

    /// It need not wait: the next one of its gate may try.
    pub(super) fn let_go(&mut self, popped: Popped) {
        self.next_through(popped.through);
    }

    /// It waits for a limit. If that is the one of the gate that it came through, all the others there need not even try.
    pub(super) fn park(&mut self, popped: Popped, limit: &Exhausted) {
        let key = Key { directory: limit.directory.as_str().into(), limit: limit.limit, subject: limit.subject.as_str().into() };
        let Popped { id, time, urgency, through } = popped;
        let gate = self.gates.entry(key.clone()).or_insert_with(|| Gate { open: true, ..Gate::default() });
        gate.waiting.insert((urgency, id.clone()));
        if !gate.open {
            self.opens.remove(&(gate.until, key.clone()));
        }
        (gate.open, gate.until) = (false, limit.until);
        self.opens.insert((limit.until, key.clone()));
        if through.as_ref() != Some(&key) {
            self.next_through(through);
        }
        self.places.insert(id, Place { time, urgency, stage: Stage::Gated(key) });
    }

    /// As [`Self::park`], for somebody who is in the queue.
    pub(super) fn park_known(&mut self, id: &Id, limit: &Exhausted) {
        let Some(Place { time, urgency, .. }) = self.places.get(id).cloned() else { return };
        self.drop(id);
        self.park(Popped { id: id.clone(), time, urgency, through: None }, limit);
    }

    /// When the next one is due; those who are ready are not counted.
    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        let timed = self.timed.first().map(|(time, _)| *time);
        let gated = self.opens.first().map(|(time, _)| *time);
        timed.into_iter().chain(gated).min()
    }

    /// True if somebody is ready.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// True if somebody is in the queue.
    #[cfg(test)]
    pub(super) fn has(&self, id: &Id) -> bool {
        self.places.contains_key(id)
    }

    /// What somebody waits for, if it is a limit.
    pub(super) fn waits(&self, id: &Id) -> Option<Exhausted> {
        let Some(Place { stage: Stage::Gated(key), .. }) = self.places.get(id) else { return None };
        let gate = self.gates.get(key)?;
        Some(Exhausted { directory: key.directory.to_string(), limit: key.limit, subject: key.subject.to_string(), until: gate.until })
    }

    fn make_ready(&mut self, id: Id, through: Option<Key>) {
        if let Some(place) = self.places.get_mut(&id) {
            place.stage = Stage::Ready(through);
            self.ready.insert((place.urgency, id));
        }
    }

    /// The most urgent one behind an open gate is ready.
    fn next_through(&mut self, key: Option<Key>) {
        let Some(key) = key else { return };
        let Some(gate) = self.gates.get_mut(&key) else { return };
        if !gate.open {
            return;
        }
        if let Some((_, id)) = gate.waiting.pop_first() {
            self.make_ready(id, Some(key));
        } else {
            self.gates.remove(&key);
        }
    }

    /// A gate that is closed, and nobody is behind it.
    fn forget_if_empty(&mut self, key: &Key) {
        let Some(gate) = self.gates.get(key) else { return };
        if !gate.open && gate.waiting.is_empty() {
            self.opens.remove(&(gate.until, key.clone()));
            self.gates.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(subject: &str, until: i64) -> Exhausted {
        Exhausted { directory: "d".into(), limit: Limit::NewOrders, subject: subject.into(), until: Timestamp(until) }
    }

    fn queue(names: &[&str]) -> Queue {
        let mut queue = Queue::default();
        for (urgency, name) in (0..).zip(names) {
            queue.at(&Id::from(*name), Timestamp(10), urgency);
        }
        queue
    }

    /// Pops all; parks them at a limit as long as `refuses` says so. Who was let go.
    fn drain(queue: &mut Queue, now: i64, mut refuses: impl FnMut(&str) -> Option<Exhausted>) -> (Vec<String>, usize) {
        queue.ripen(Timestamp(now));
        let (mut gone, mut tries) = (Vec::new(), 0);
        while let Some(popped) = queue.pop() {
            tries += 1;
            match refuses(&popped.id) {
                Some(limit) => queue.park(popped, &limit),
                None => {
                    gone.push(popped.id.to_string());
                    queue.let_go(popped);
                }
            }
        }
        (gone, tries)
    }

    #[test]
    fn the_most_urgent_goes_first_and_not_before_its_time() {
        let mut queue = queue(&["a", "b", "c"]);
        queue.at(&"b".into(), Timestamp(10), -1);
        queue.at(&"late".into(), Timestamp(11), -5);
        assert_eq!(queue.wake_at(), Some(Timestamp(10)));
        assert_eq!(drain(&mut queue, 9, |_| None).0, [""; 0]);
        assert_eq!(drain(&mut queue, 10, |_| None).0, ["b", "a", "c"]);
        assert_eq!(drain(&mut queue, 11, |_| None).0, ["late"]);
        assert_eq!(queue.wake_at(), None);
    }

    #[test]
    fn a_gate_lets_through_one_by_one_until_one_is_refused_again() {
        let names: Vec<String> = (0..100).map(|n| format!("{n:03}")).collect();
        let mut queue = queue(&names.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(drain(&mut queue, 10, |_| Some(limit("x", 50))), (vec![], 100));
        assert_eq!(queue.wake_at(), Some(Timestamp(50)));
        assert_eq!(queue.waits(&"007".into()), Some(limit("x", 50)));
        let mut tokens = 2;
        let refuse = |_: &str| {
            if tokens == 0 {
                Some(limit("x", 60))
            } else {
                tokens -= 1;
                None
            }
        };
        assert_eq!(drain(&mut queue, 50, refuse), (vec!["000".to_owned(), "001".to_owned()], 3), "the others did not even try");
        assert_eq!(queue.waits(&"099".into()), Some(limit("x", 60)));
        // Who leaves is not missed, and the last one takes the gate along.
        queue.drop(&"002".into());
        assert_eq!(drain(&mut queue, 60, |_| None).0.len(), 97);
        assert!(queue.gates.is_empty() && queue.opens.is_empty() && queue.places.is_empty());
    }

    #[test]
    fn one_who_meets_another_limit_holds_up_nobody() {
        let mut queue = queue(&["a", "b", "c"]);
        drain(&mut queue, 10, |_| Some(limit("x", 50)));
        let (gone, _) = drain(&mut queue, 50, |id| (id == "a").then(|| limit("y", 90)));
        assert_eq!(gone, ["b", "c"]);
        assert_eq!(queue.waits(&"a".into()), Some(limit("y", 90)));
        queue.drop(&"a".into());
        assert!(queue.gates.is_empty() && queue.wake_at().is_none());
    }

    #[test]
    fn one_who_leaves_while_it_is_ready_lets_the_next_one_through() {
        let mut queue = queue(&["a", "b"]);
        drain(&mut queue, 10, |_| Some(limit("x", 50)));
        queue.ripen(Timestamp(50));
        queue.drop(&"a".into());
        assert_eq!(drain(&mut queue, 50, |_| None).0, ["b"]);
    }
}
