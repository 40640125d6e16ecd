//! One certificate of the list: what is due, and what an outcome changes.

use std::{collections::HashSet, time::Duration};

use super::{
    super::renewal::{self, PAUSE, Validity},
    Action, DUE_AT_BIRTH, Deployed, Next, Order, Ordered, Polled, State, Status, Task, Wanted, Why,
    queue::Urgency,
};
use crate::{
    claim::Timestamp,
    issuer::{Budget, Exhausted, OrderKind, OrderShape},
    store::{Renewal, Standing},
};

const DAY: i64 = 24 * 3_600_000;
/// No CA is believed that asks for more, and nothing here waits longer.
const LONGEST_WAIT: Duration = Duration::from_secs(61 * 86_400);

/// One certificate of the list.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) renewal: Renewal,
    /// What the configuration wants; `None` if it is not in it.
    pub(super) wanted: Option<Wanted>,
    /// An order is in flight.
    pub(super) ordering: bool,
    /// An order is under way from before a restart.
    pub(super) under_way: bool,
    /// The identifier that the poll in flight asks for.
    polling: Option<String>,
    /// The fingerprint that the deployment in flight will have.
    deploying: Option<String>,
    /// Since when it is known here.
    since: Timestamp,
}

impl Entry {
    /// One of which nothing is known.
    pub(super) fn new(name: &str, now: Timestamp) -> Self {
        Self::kept(Renewal { name: name.to_owned(), ..Renewal::default() }, now)
    }

    /// One that was there before.
    pub(super) fn kept(renewal: Renewal, now: Timestamp) -> Self {
        Self { renewal, wanted: None, ordering: false, under_way: false, polling: None, deploying: None, since: now }
    }

    /// Compares what was kept with what the configuration wants now. True if something changed.
    pub(super) fn reconsider(&mut self, now: Timestamp, random: &mut dyn FnMut() -> f64) -> bool {
        let Some(wanted) = &self.wanted else { return false };
        let before = self.renewal.clone();
        // No wait is that long: the clock was wrong when it was chosen.
        let most = now.after(LONGEST_WAIT);
        for wait in [&mut self.renewal.not_until, &mut self.renewal.deploy_not_until, &mut self.renewal.poll_at] {
            *wait = wait.filter(|until| *until <= most);
        }
        // What failed when something else was wanted says nothing of this.
        if self.renewal.tried_wish.as_ref().is_some_and(|tried| *tried != wanted.wish) {
            self.forgive();
        }
        if self.renewal.deploy_tried.is_some() && self.renewal.deploy_tried != self.deployment() {
            self.renewal.deploy_failures = 0;
            self.renewal.deploy_failure = None;
            self.renewal.deploy_not_until = None;
        }
        self.keep_or_choose(random);
        self.renewal != before
    }

    /// When an order is due; `None` if none is.
    pub(super) fn order_at(&self) -> Option<Timestamp> {
        let why = self.why()?;
        if self.ordering {
            return None;
        }
        let due = match why {
            Why::Due => self.renewal.renew_at?,
            Why::UnderWay | Why::Asked | Why::Revoked | Why::New | Why::Changed | Why::Rehearsal => Timestamp(0),
        };
        Some(self.renewal.not_until.map_or(due, |until| until.max(due)))
    }

    /// When the CA is to be asked for its window; `None` if it is not.
    pub(super) fn poll_at(&self) -> Option<Timestamp> {
        let (wanted, standing) = (self.wanted.as_ref()?, self.renewal.standing.as_ref()?);
        standing.id.as_ref()?;
        let asked = !wanted.dry_run && !self.renewal.revoked && self.polling.is_none() && wanted.directories.contains(&standing.directory);
        asked.then(|| self.renewal.poll_at.unwrap_or(Timestamp(0)))
    }

    /// When it is to be deployed; `None` if all is where it goes.
    pub(super) fn deploy_at(&self) -> Option<Timestamp> {
        let wanted = self.deployment()?;
        let due = self.deploying.is_none() && !self.renewal.revoked && self.renewal.deployed.as_ref() != Some(&wanted);
        due.then(|| self.renewal.deploy_not_until.unwrap_or(Timestamp(0)))
    }

    /// Who goes first. One that does not exist yet is as urgent as one that ends in a day.
    pub(super) fn urgency(&self) -> Urgency {
        let soon = self.since.0.saturating_add(DAY);
        let end = self.renewal.standing.as_ref().map_or(soon, |standing| standing.not_after.0);
        match self.why() {
            Some(Why::Asked) => i64::MIN,
            Some(Why::UnderWay) => i64::MIN + 1,
            Some(Why::Revoked) => i64::MIN + 2,
            Some(Why::Changed) => end.min(soon),
            Some(Why::New | Why::Rehearsal) => soon,
            Some(Why::Due) | None => end,
        }
    }

    /// Hands out an order, at the first CA whose limits allow it.
    ///
    /// # Errors
    /// The limit that lets it wait, the soonest if there are several CAs.
    pub(super) fn order(&mut self, budget: &mut Budget, now: Timestamp) -> Result<Option<Task>, Exhausted> {
        let (Some(wanted), Some(why)) = (&self.wanted, self.why()) else { return Ok(None) };
        let mut soonest: Option<Exhausted> = None;
        for directory in &wanted.directories {
            let (kind, replaces) = self.kind(wanted, directory, now);
            let shape = OrderShape { directory, names: &wanted.names, kind };
            let free = matches!(why, Why::UnderWay | Why::Rehearsal);
            match if free { Ok(()) } else { budget.ask(&shape, now) } {
                Ok(()) => {
                    let taken = if free { Vec::new() } else { budget.take(&shape, now) };
                    let (name, directory) = (wanted.name.clone(), directory.clone());
                    self.ordering = true;
                    return Ok(Some(Task::Order(Order { name, directory, kind, replaces, why, taken })));
                }
                Err(limit) => {
                    if soonest.as_ref().is_none_or(|soonest| limit.until < soonest.until) {
                        soonest = Some(limit);
                    }
                }
            }
        }
        soonest.map_or(Ok(None), Err)
    }

    /// Hands out a poll.
    pub(super) fn poll(&mut self) -> Option<Task> {
        let standing = self.renewal.standing.as_ref()?;
        let id = standing.id.clone()?;
        self.polling = Some(id.clone());
        Some(Task::Poll { name: self.renewal.name.clone(), directory: standing.directory.clone(), id })
    }

    /// Hands out a deployment.
    pub(super) fn deploy(&mut self) -> Option<Task> {
        self.deploying = Some(self.deployment()?);
        Some(Task::Deploy { name: self.renewal.name.clone() })
    }

    /// What came of an order.
    pub(super) fn ordered(&mut self, outcome: Ordered, now: Timestamp, spread: f64) {
        let wish = self.wanted.as_ref().map(|wanted| wanted.wish.clone());
        match outcome {
            Ordered::Issued(standing) => self.issued(standing, now, spread),
            Ordered::Rehearsed => {
                self.forgive();
                self.renewal.forced = false;
                self.renewal.not_until = Some(renewal::next_rehearsal(now, spread));
            }
            Ordered::Failed { text, retry_at } => {
                self.renewal.failures = self.renewal.failures.saturating_add(1);
                self.renewal.failure = Some(text);
                // What is revoked is as good as expired.
                let end = self.renewal.standing.as_ref().map(|standing| if self.renewal.revoked { now } else { standing.not_after });
                self.renewal.not_until = Some(renewal::after_failure(self.renewal.failures, now, end, retry_at, spread));
            }
            Ordered::Paused { text, url } => {
                self.renewal.failures = self.renewal.failures.saturating_add(1);
                self.renewal.failure = Some(text);
                self.renewal.unpause_url = Some(url);
                self.renewal.not_until = Some(now.after(PAUSE));
            }
            Ordered::Waits(_) | Ordered::Stopped => return,
        }
        self.renewal.tried = Some(now);
        self.renewal.tried_wish = wish;
    }

    /// What came of a poll. One for a certificate that was replaced meanwhile says nothing.
    pub(super) fn polled(&mut self, outcome: Polled, now: Timestamp, spread: f64) {
        let asked = self.polling.take();
        if asked.is_none() || asked != self.renewal.standing.as_ref().and_then(|standing| standing.id.clone()) {
            return;
        }
        self.renewal.poll_at = Some(match &outcome {
            Polled::Window { retry_at, .. } => renewal::poll_at(now, *retry_at, spread),
            Polled::Nothing => renewal::poll_at(now, None, spread),
            Polled::Failed { retry_at } => renewal::after_failed_poll(now, *retry_at, spread),
        });
        match outcome {
            Polled::Window { window, .. } => self.renewal.window = Some(window),
            Polled::Nothing => self.renewal.window = None,
            Polled::Failed { .. } => return,
        }
        self.keep_or_choose(&mut || spread);
    }

    /// What came of a deployment.
    pub(super) fn deployed(&mut self, outcome: Deployed, now: Timestamp, spread: f64) {
        let Some(what) = self.deploying.take() else { return };
        match outcome {
            Deployed::Done => {
                self.renewal.deployed = Some(what.clone());
                self.renewal.deploy_failures = 0;
                self.renewal.deploy_failure = None;
                self.renewal.deploy_not_until = None;
            }
            Deployed::Failed { text } => {
                self.renewal.deploy_failures = self.renewal.deploy_failures.saturating_add(1);
                self.renewal.deploy_failure = Some(text);
                self.renewal.deploy_not_until = Some(renewal::after_failed_deployment(self.renewal.deploy_failures, now, spread));
            }
            Deployed::Stopped => return,
        }
        self.renewal.deploy_tried = Some(what);
    }

    /// Forgets failures: a person did something, or something else is wanted.
    pub(super) fn forgive(&mut self) {
        self.renewal.failures = 0;
        self.renewal.failure = None;
        self.renewal.not_until = None;
        self.renewal.unpause_url = None;
    }

    /// How it stands.
    pub(super) fn status(&self, waits: Option<Exhausted>, now: Timestamp) -> Status<'_> {
        Status {
            state: self.state(waits.is_some(), now),
            next: self.next(waits.as_ref(), now),
            waits,
            renewal: &self.renewal,
            wanted: self.wanted.as_ref(),
        }
    }

    fn state(&self, waits: bool, now: Timestamp) -> State {
        let Some(wanted) = &self.wanted else { return State::Unlisted };
        let standing = self.renewal.standing.as_ref().filter(|_| !wanted.dry_run);
        if self.renewal.unpause_url.is_some() {
            State::Paused
        } else if standing.is_some_and(|standing| standing.not_after <= now) {
            State::Expired
        } else if self.ordering {
            State::Renewing
        } else if self.renewal.failures > 0 {
            State::Failing
        } else if waits {
            State::Waiting
        } else if self.renewal.revoked {
            State::Revoked
        } else if wanted.dry_run && self.renewal.tried_wish.as_ref() == Some(&wanted.wish) {
            State::Rehearsed
        } else if standing.is_none() {
            State::New
        } else if self.deployment().is_some_and(|wanted| self.renewal.deployed.as_ref() != Some(&wanted)) {
            State::Undeployed
        } else {
            State::Valid
        }
    }

    fn next(&self, waits: Option<&Exhausted>, now: Timestamp) -> Option<Next> {
        let at = |action, at| Some(Next { action, at });
        if self.ordering {
            return at(Action::Ordering, now);
        }
        if self.deploying.is_some() {
            return at(Action::Deploying, now);
        }
        let order = waits.map(|limit| limit.until).or_else(|| self.order_at());
        match (order, self.deploy_at()) {
            (order, Some(deploy)) if order.is_none_or(|order| deploy <= order) => at(Action::Deploy, deploy.max(now)),
            (Some(order), _) => at(Action::Order, order.max(now)),
            (None, _) => None,
        }
    }

    /// Why an order is made next; `None` if none is.
    fn why(&self) -> Option<Why> {
        let wanted = self.wanted.as_ref()?;
        if self.under_way {
            return Some(Why::UnderWay);
        }
        if wanted.dry_run {
            return Some(Why::Rehearsal);
        }
        let why = match &self.renewal.standing {
            _ if self.renewal.forced => Why::Asked,
            None => Why::New,
            Some(_) if self.renewal.revoked => Why::Revoked,
            Some(standing) if standing.wish != wanted.wish => Why::Changed,
            Some(_) => Why::Due,
        };
        Some(why)
    }

    /// What an order is to a CA, and what it replaces there.
    pub(super) fn kind(&self, wanted: &Wanted, directory: &str, now: Timestamp) -> (OrderKind, Option<String>) {
        let Some(standing) = self.renewal.standing.as_ref().filter(|standing| standing.directory == directory) else {
            return (OrderKind::New, None);
        };
        let (old, new): (HashSet<_>, HashSet<_>) = (standing.names.iter().collect(), wanted.names.iter().collect());
        // A CA that gave a window knows what `replaces` is.
        let window = self.renewal.window.as_ref().filter(|_| !old.is_disjoint(&new));
        let replaces = window.and(standing.id.clone());
        // Let's Encrypt exempts what it asked for, when it asked for it.
        let invited = replaces.is_some() && window.is_some_and(|window| (window.start..window.end).contains(&now));
        let kind = match (invited, old == new) {
            (true, _) => OrderKind::Replacement,
            (false, true) => OrderKind::Renewal,
            (false, false) => OrderKind::New,
        };
        (kind, replaces)
    }

    fn issued(&mut self, standing: Standing, now: Timestamp, spread: f64) {
        let deployed = self.renewal.deployed.take();
        let poll_at = standing.id.is_some().then_some(now);
        self.renewal =
            Renewal { name: std::mem::take(&mut self.renewal.name), standing: Some(standing), poll_at, deployed, ..Renewal::default() };
        self.keep_or_choose(&mut || spread);
        if self.renewal.renew_at.is_some_and(|at| at <= now) {
            self.renewal.not_until = Some(now.after(DUE_AT_BIRTH));
        }
    }

    /// A time that was chosen stays as long as it could have been chosen.
    fn keep_or_choose(&mut self, random: &mut dyn FnMut() -> f64) {
        let Some(standing) = &self.renewal.standing else { return };
        let validity = Validity { not_before: standing.not_before, not_after: standing.not_after };
        let before = self.wanted.as_ref().and_then(|wanted| wanted.renew_before);
        let interval = renewal::interval(validity, before, self.renewal.window.as_ref());
        if !self.renewal.renew_at.is_some_and(|at| interval.has(at)) {
            self.renewal.renew_at = Some(interval.choose(random()));
        }
    }

    /// The fingerprint that it has when all is where it goes; `None` if there is nothing to deploy.
    fn deployment(&self) -> Option<String> {
        let (wanted, standing) = (self.wanted.as_ref()?, self.renewal.standing.as_ref()?);
        let goes = !wanted.dry_run && !wanted.deployment.is_empty();
        goes.then(|| format!("{} {}", standing.serial, wanted.deployment))
    }
}
