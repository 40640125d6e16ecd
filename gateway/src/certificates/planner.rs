//! What is to be done next, of all the certificates of the list.
//!
//! ```text
//!           next()                      ordered() / polled() / deployed()
//!  entries ────────▶ tasks, in flight ─────────────────────────────────────▶ Renewal, to be written
//!     ▲  by time, then by urgency                                               │
//!     └─────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! All that is known of a certificate is its [`Renewal`], which is on disk; the rest is made from it and from the configuration at each start. Orders are
//! asked of the [`Budget`]: one that it does not allow waits, and holds up nobody.
//!
//! For whoever carries the tasks out, an order's life is:
//! 1. [`Planner::next`] hands it out and takes it of the budget; [`Order::taken`] is written with the intent.
//! 2. If it comes to another CA, that one's [`Planner::kind_at`] is asked of the budget and taken first; what it does not allow is passed over.
//! 3. With a certificate: [`Budget::issued`]. Without: [`Budget::failed`] for the names that the CA did not validate, [`Budget::told`] if it said "later", and
//!    [`Budget::give_back`] unless it was finalized.
//! 4. [`Planner::ordered`], whose [`Renewal`] is written in the transaction that ends the order. If the order is still under way, [`Planner::resume`].

mod entry;
mod queue;
mod status;
mod task;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, ops::Bound};

pub use status::{Action, Next, State, Status};
pub use task::{Deployed, Order, Ordered, Polled, Room, Task, Wanted, Why};

use self::{
    entry::Entry,
    queue::{Id, Queue},
};
use super::renewal;
use crate::{
    claim::Timestamp,
    issuer::{Budget, OrderKind, OrderShape},
    store::{Renewal, Standing},
};

/// So many orders are refused in one call of [`Planner::next`]; the next one goes on with the others.
const MOST_REFUSED: usize = 1000;
/// Polls that are overdue at a start are spread: one in so many milliseconds…
const POLL_EVERY: i64 = 40;
/// … but not over more than this.
const POLLS_WITHIN: i64 = 3_600_000;
/// Polls let orders that find no room go first for so many milliseconds, and take turns with them from then on.
const POLLS_HELD: i64 = 60_000;
/// A certificate that is due at its issuance is a mistake of the CA or of a clock, and is not ordered anew at once.
const DUE_AT_BIRTH: std::time::Duration = std::time::Duration::from_secs(600);

/// What is to be done next, of all the certificates of the list.
#[derive(Debug, Default)]
pub struct Planner {
    entries: BTreeMap<Id, Entry>,
    orders: Queue,
    polls: Queue,
    deployments: Queue,
    /// The last call had to stop before it had asked the budget of all that is ready.
    more: Option<Timestamp>,
    /// Since when orders have found no room, and polls have not been asked for.
    held: Option<Timestamp>,
}

impl Planner {
    /// From what the configuration wants and how the certificates stood. `random` gives numbers from 0 to 1. With it come those whose times had to be chosen
    /// anew, because the configuration changed: they are to be written.
    pub fn new(wanted: Vec<Wanted>, renewals: Vec<Renewal>, now: Timestamp, random: &mut dyn FnMut() -> f64) -> (Self, Vec<Renewal>) {
        let mut entries: BTreeMap<Id, Entry> =
            renewals.into_iter().map(|renewal| (Id::from(renewal.name.as_str()), Entry::kept(renewal, now))).collect();
        for wanted in wanted {
            let id = Id::from(wanted.name.as_str());
            let fresh = || Entry::new(&wanted.name, now);
            let entry = entries.entry(id).or_insert_with(fresh);
            entry.wanted = Some(wanted);
        }
        let overdue = entries.values().filter(|entry| entry.poll_at().is_some_and(|at| at <= now)).count();
        let within = i64::try_from(overdue).unwrap_or(i64::MAX).saturating_mul(POLL_EVERY).min(POLLS_WITHIN);
        let mut changed = Vec::new();
        for entry in entries.values_mut() {
            if entry.poll_at().is_some_and(|at| at <= now) {
                let spread = renewal::Interval { from: now, to: Timestamp(now.0.saturating_add(within)) };
                entry.renewal.poll_at = Some(spread.choose(random()));
            }
            if entry.reconsider(now, &mut *random) {
                changed.push(entry.renewal.clone());
            }
        }
        let mut planner = Self { entries, ..Self::default() };
        let ids: Vec<Id> = planner.entries.keys().cloned().collect();
        for id in ids {
            planner.schedule(&id);
        }
        (planner, changed)
    }

    /// An order of this certificate is under way, from before a restart or from an attempt that failed: the next attempt goes on with it, and costs the budget
    /// nothing. It is due at once, but for a wait after a failure.
    pub fn resume(&mut self, name: &str) {
        self.change(name, |entry| entry.under_way = true);
    }

    /// What is due and allowed, the most urgent first. What it hands out as an order is taken from the budget already ([`Order::taken`]): what does not come to
    /// its intent is to be given back ([`Budget::give_back`]).
    pub fn next(&mut self, now: Timestamp, budget: &mut Budget, room: Room) -> Vec<Task> {
        self.orders.ripen(now);
        self.polls.ripen(now);
        self.deployments.ripen(now);
        let mut tasks = self.next_orders(now, budget, room.orders);
        for _ in 0..room.deployments {
            let Some(popped) = self.deployments.pop() else { break };
            if let Some(entry) = self.entries.get_mut(&popped.id) {
                tasks.extend(entry.deploy());
            }
            self.deployments.let_go(popped);
        }
        for _ in 0..self.room_for_polls(now, room) {
            let Some(popped) = self.polls.pop() else { break };
            if let Some(entry) = self.entries.get_mut(&popped.id) {
                tasks.extend(entry.poll());
            }
            self.polls.let_go(popped);
        }
        tasks
    }

    /// A certificate that is missing matters more than when another one is to be renewed.
    fn room_for_polls(&mut self, now: Timestamp, room: Room) -> usize {
        if !self.orders.is_ready() {
            self.held = None;
            return room.polls;
        }
        let since = *self.held.get_or_insert(now);
        if now.0.saturating_sub(since.0) < POLLS_HELD { 0 } else { room.polls }
    }

    /// When [`Self::next`] has something to do again; what is ready already and found no room is not counted, for whoever makes room calls it.
    pub fn wake_at(&self) -> Option<Timestamp> {
        let queues = [&self.orders, &self.polls, &self.deployments];
        queues.into_iter().filter_map(Queue::wake_at).chain(self.more).min()
    }

    /// What came of an order. What is given back is to be written, with the certificate where there is one; `None` if no such certificate is known any more.
    pub fn ordered(&mut self, name: &str, outcome: Ordered, now: Timestamp, spread: f64) -> Option<Renewal> {
        let mut waits = None;
        let renewal = self.change(name, |entry| {
            entry.ordering = false;
            entry.under_way = false;
            match outcome {
                Ordered::Waits(limit) => waits = Some(limit),
                outcome => entry.ordered(outcome, now, spread),
            }
        });
        if let Some(limit) = waits.filter(|limit| limit.until > now) {
            self.orders.park_known(&Id::from(name), &limit);
        }
        renewal
    }

    /// What [`Self::ordered`] would give for a certificate: for to be written with it, in one transaction.
    pub fn once_issued(&self, name: &str, standing: Standing, now: Timestamp, spread: f64) -> Option<Renewal> {
        let mut entry = self.entries.get(name)?.clone();
        entry.ordered(Ordered::Issued(standing), now, spread);
        Some(entry.renewal)
    }

    /// What came of a poll; as [`Self::ordered`].
    pub fn polled(&mut self, name: &str, outcome: Polled, now: Timestamp, spread: f64) -> Option<Renewal> {
        self.change(name, |entry| entry.polled(outcome, now, spread))
    }

    /// What came of a deployment; as [`Self::ordered`].
    pub fn deployed(&mut self, name: &str, outcome: Deployed, now: Timestamp, spread: f64) -> Option<Renewal> {
        self.change(name, |entry| entry.deployed(outcome, now, spread))
    }

    /// Somebody wants it renewed now: before all others, whatever failed. It waits for limits all the same. `None` if it is not in the configuration.
    pub fn force(&mut self, name: &str) -> Option<Renewal> {
        self.entries.get(name)?.wanted.as_ref()?;
        self.change(name, |entry| {
            entry.renewal.forced = true;
            entry.forgive();
        })
    }

    /// It was revoked: it is replaced at once.
    pub fn revoked(&mut self, name: &str) -> Option<Renewal> {
        self.change(name, |entry| {
            entry.renewal.revoked = entry.renewal.standing.is_some();
            entry.forgive();
        })
    }

    /// Somebody wants it deployed again now.
    pub fn redeploy(&mut self, name: &str) -> Option<Renewal> {
        self.change(name, |entry| {
            entry.renewal.deployed = None;
            entry.renewal.deploy_failures = 0;
            entry.renewal.deploy_not_until = None;
        })
    }

    /// It was deleted from the store. One that the configuration wants is new again. False if it was not known.
    pub fn deleted(&mut self, name: &str, now: Timestamp) -> bool {
        let Some((id, entry)) = self.entries.remove_entry(name) else { return false };
        for queue in [&mut self.orders, &mut self.polls, &mut self.deployments] {
            queue.drop(&id);
        }
        if entry.wanted.is_some() {
            let mut fresh = Entry::new(name, now);
            (fresh.wanted, fresh.ordering) = (entry.wanted, entry.ordering);
            self.entries.insert(id.clone(), fresh);
            self.schedule(&id);
        }
        true
    }

    /// What an order of this certificate is to a CA, and what it replaces there: for those CAs that are tried after the one that it was handed out for. `None` if
    /// it is not in the configuration.
    pub fn kind_at(&self, name: &str, directory: &str, now: Timestamp) -> Option<(OrderKind, Option<String>)> {
        let entry = self.entries.get(name)?;
        Some(entry.kind(entry.wanted.as_ref()?, directory, now))
    }

    /// How a certificate stands.
    pub fn status(&self, name: &str, now: Timestamp) -> Option<Status<'_>> {
        let (id, entry) = self.entries.get_key_value(name)?;
        Some(entry.status(self.orders.waits(id), now))
    }

    /// How all of them stand, by name.
    pub fn iter(&self, now: Timestamp) -> impl Iterator<Item = Status<'_>> {
        self.entries.iter().map(move |(id, entry)| entry.status(self.orders.waits(id), now))
    }

    /// The same from one end on: for who looks at them by and by.
    pub fn iter_from<'p>(&'p self, from: Bound<&str>, now: Timestamp) -> impl Iterator<Item = Status<'p>> {
        self.entries.range::<str, _>((from, Bound::Unbounded)).map(move |(id, entry)| entry.status(self.orders.waits(id), now))
    }

    fn next_orders(&mut self, now: Timestamp, budget: &mut Budget, room: usize) -> Vec<Task> {
        let (mut tasks, mut refused) = (Vec::new(), 0);
        while tasks.len() < room && refused < MOST_REFUSED {
            let Some(popped) = self.orders.pop() else { break };
            let Some(entry) = self.entries.get_mut(&popped.id) else {
                self.orders.let_go(popped);
                continue;
            };
            match entry.order(budget, now) {
                Ok(task) => {
                    tasks.extend(task);
                    self.orders.let_go(popped);
                }
                Err(limit) => {
                    refused += 1;
                    self.orders.park(popped, &limit);
                }
            }
        }
        self.more = (refused >= MOST_REFUSED && self.orders.is_ready()).then_some(now);
        tasks
    }

    /// Changes an entry, and its places in the queues with it.
    fn change(&mut self, name: &str, change: impl FnOnce(&mut Entry)) -> Option<Renewal> {
        let entry = self.entries.get_mut(name)?;
        change(entry);
        let (id, renewal) = (Id::from(name), entry.renewal.clone());
        self.schedule(&id);
        Some(renewal)
    }

    fn schedule(&mut self, id: &Id) {
        let Some(entry) = self.entries.get(id) else { return };
        let plan = [(&mut self.orders, entry.order_at()), (&mut self.polls, entry.poll_at()), (&mut self.deployments, entry.deploy_at())];
        for (queue, at) in plan {
            match at {
                Some(at) => queue.at(id, at, entry.urgency()),
                None => queue.drop(id),
            }
        }
    }
}

/// The shape of an order, for those who have one of these in hand.
impl Order {
    /// What the budget wants to know of it.
    pub fn shape<'a>(&'a self, names: &'a [String]) -> OrderShape<'a> {
        OrderShape { directory: &self.directory, names, kind: self.kind }
    }
}
