//! What the planner does next, case by case.

use proptest::prelude::*;

use super::*;
use crate::{
    issuer::{Exhausted, Limit, OrderKind, Scope},
    store::{Standing, Window},
};

const CA: &str = "https://acme-v02.api.letsencrypt.org/directory";
const OTHER: &str = "https://acme.example/directory";
const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const START: i64 = 1_790_000_000_000;

fn at(millis: i64) -> Timestamp {
    Timestamp(START + millis)
}

fn wanted(name: &str) -> Wanted {
    Wanted {
        name: name.into(),
        names: vec![format!("{name}.example.com")],
        directories: vec![CA.into()],
        wish: "wish".into(),
        renew_before: None,
        deployment: String::new(),
        dry_run: false,
    }
}

/// Ninety days, of which so many are over at the start.
fn standing(name: &str, over: i64) -> Standing {
    Standing {
        id: Some(format!("id.{name}.{over}")),
        serial: format!("{name}{over}"),
        directory: CA.into(),
        names: vec![format!("{name}.example.com")],
        wish: "wish".into(),
        not_before: at(-over * DAY),
        not_after: at((90 - over) * DAY),
        issued: at(-over * DAY),
    }
}

fn kept(name: &str, over: i64) -> Renewal {
    Renewal { name: name.into(), standing: Some(standing(name, over)), poll_at: Some(at(60 * DAY)), ..Renewal::default() }
}

fn window(from: i64, to: i64) -> Window {
    Window { start: at(from * DAY), end: at(to * DAY), explanation: None }
}

struct Bench {
    planner: Planner,
    budget: Budget,
    changed: Vec<Renewal>,
}

const ALL: Room = Room { orders: 1000, polls: 1000, deployments: 1000 };

impl Bench {
    fn new(wanted: Vec<Wanted>, renewals: Vec<Renewal>, now: i64) -> Self {
        let (planner, changed) = Planner::new(wanted, renewals, at(now), &mut || 0.5);
        Self { planner, budget: Budget::default(), changed }
    }

    fn room(&mut self, now: i64, room: Room) -> Vec<String> {
        let text = |task| match task {
            Task::Order(order) => format!("order {}", order.name),
            Task::Poll { name, .. } => format!("poll {name}"),
            Task::Deploy { name } => format!("deploy {name}"),
        };
        self.planner.next(at(now), &mut self.budget, room).into_iter().map(text).collect()
    }

    fn tasks(&mut self, now: i64) -> Vec<String> {
        self.room(now, ALL)
    }

    fn order(&mut self, now: i64) -> Order {
        match self.planner.next(at(now), &mut self.budget, ALL).into_iter().next() {
            Some(Task::Order(order)) => order,
            other => panic!("{other:?} instead of an order"),
        }
    }

    fn state(&self, name: &str, now: i64) -> State {
        self.planner.status(name, at(now)).unwrap().state
    }

    fn wakes(&self) -> Option<i64> {
        self.planner.wake_at().map(|at| at.0 - START)
    }

    fn fail(&mut self, name: &str, now: i64) -> Renewal {
        self.planner.ordered(name, Ordered::Failed { text: "no".into(), retry_at: None }, at(now), 0.0).unwrap()
    }
}

#[test]
fn a_certificate_is_got_deployed_polled_and_got_again() {
    let mut bench = Bench::new(vec![Wanted { deployment: "files".into(), ..wanted("a") }], vec![], 0);
    assert_eq!(bench.state("a", 0), State::New);
    let order = bench.order(0);
    assert_eq!((order.why, order.kind, order.replaces.clone(), order.directory.as_str()), (Why::New, OrderKind::New, None, CA));
    assert_eq!(order.taken.len(), 3, "{:?}", order.taken);
    assert_eq!(bench.tasks(1), [""; 0], "in flight");
    assert_eq!(bench.state("a", 1), State::Renewing);
    let renewal = bench.planner.ordered("a", Ordered::Issued(standing("a", 0)), at(1), 0.5).unwrap();
    assert_eq!(renewal.renew_at, Some(at(55 * DAY + DAY / 2)));
    assert_eq!(bench.state("a", 1), State::Undeployed);
    assert_eq!(bench.tasks(1), ["deploy a", "poll a"]);
    bench.planner.deployed("a", Deployed::Done, at(2), 0.0);
    let polled = Polled::Window { window: window(59, 61), retry_at: Some(at(6 * HOUR)) };
    let renewal = bench.planner.polled("a", polled.clone(), at(0), 0.5).unwrap();
    assert_eq!((renewal.renew_at, renewal.poll_at), (Some(at(60 * DAY)), Some(at(6 * HOUR + 45 * MINUTE))));
    assert_eq!(bench.state("a", 2), State::Valid);
    let next = bench.planner.status("a", at(2)).unwrap().next.unwrap();
    assert_eq!(next, Next { action: Action::Order, at: at(60 * DAY) });
    assert_eq!(bench.wakes(), Some(6 * HOUR + 45 * MINUTE));
    assert_eq!(bench.tasks(10 * HOUR), ["poll a"]);
    // The same window again changes nothing.
    let renewal = bench.planner.polled("a", polled, at(10 * HOUR), 0.9).unwrap();
    assert_eq!(renewal.renew_at, Some(at(60 * DAY)));
    let tasks = bench.planner.next(at(60 * DAY), &mut bench.budget, Room { polls: 0, ..ALL });
    let [Task::Order(order)] = tasks.as_slice() else { panic!("{tasks:?}") };
    assert_eq!((order.why, order.kind, order.replaces.as_deref()), (Why::Due, OrderKind::Replacement, Some("id.a.0")));
    let renewal = bench.planner.ordered("a", Ordered::Issued(standing("a", -60)), at(60 * DAY), 0.5).unwrap();
    assert_eq!((renewal.window, renewal.failures), (None, 0));
    assert_eq!(bench.tasks(60 * DAY)[0], "deploy a", "the new one has to go there, too");
}

#[test]
fn the_most_urgent_go_first() {
    let list = ["valid", "due", "soon", "expired", "asked", "new"];
    let mut renewals = vec![kept("valid", 10), kept("due", 70), kept("soon", 89), kept("expired", 91), kept("asked", 10)];
    renewals[2].standing.as_mut().unwrap().not_after = at(HOUR);
    let mut bench = Bench::new(list.iter().map(|name| wanted(name)).collect(), renewals, 0);
    bench.planner.force("asked");
    assert_eq!(bench.room(0, Room { orders: 2, ..ALL }), ["order asked", "order expired"]);
    assert_eq!(bench.room(0, Room { orders: 0, ..ALL }), [""; 0]);
    assert_eq!(bench.tasks(0), ["order soon", "order new", "order due"]);
    assert_eq!(bench.state("expired", 0), State::Expired);
}

#[test]
fn one_that_a_limit_stops_waits_and_lets_others_go() {
    let list: Vec<_> = ["a", "b", "c"].iter().map(|name| wanted(name)).collect();
    let other = Wanted { names: vec!["other.example.org".into()], ..wanted("d") };
    let mut bench = Bench::new(list.into_iter().chain([other]).collect(), vec![], 0);
    bench.budget.told(CA, &Scope::Domain("example.com".into()), at(HOUR), at(0));
    assert_eq!(bench.tasks(1), ["order d"]);
    assert_eq!((bench.state("a", 1), bench.wakes()), (State::Waiting, Some(HOUR)));
    let status = bench.planner.status("b", at(1)).unwrap();
    assert_eq!(status.next, Some(Next { action: Action::Order, at: at(HOUR) }));
    assert_eq!(status.waits.unwrap().limit, Limit::WaitDomain);
    assert_eq!(bench.tasks(HOUR - 1), [""; 0]);
    // What else happens to it does not let it ask again.
    bench.planner.redeploy("b");
    assert_eq!(bench.state("b", 1), State::Waiting);
    // What somebody asks for waits as well, but before the others.
    bench.planner.force("c");
    assert_eq!(bench.tasks(HOUR - 1), [""; 0]);
    assert_eq!(bench.tasks(HOUR), ["order c", "order a", "order b"]);
}

#[test]
fn as_many_as_there_are_tokens_are_handed_out_and_no_more() {
    let list = (0..400).map(|n| Wanted { names: vec![format!("n{n}.d{n}.example")], ..wanted(&format!("c{n:03}")) }).collect();
    let mut bench = Bench::new(list, vec![], 0);
    assert_eq!(bench.tasks(0).len(), 300);
    assert_eq!(bench.wakes(), Some(36 * SECOND));
    assert_eq!(bench.tasks(36 * SECOND), ["order c300"]);
    assert_eq!(bench.wakes(), Some(72 * SECOND));
}

#[test]
fn a_refused_crowd_is_asked_in_portions() {
    let list = (0..2500).map(|n| wanted(&format!("c{n:04}"))).collect();
    let mut bench = Bench::new(list, vec![], 0);
    bench.budget.told(CA, &Scope::Account, at(HOUR), at(0));
    assert_eq!((bench.tasks(5).len(), bench.wakes()), (0, Some(5)));
    assert_eq!((bench.tasks(5).len(), bench.wakes()), (0, Some(5)));
    assert_eq!((bench.tasks(5).len(), bench.wakes()), (0, Some(HOUR)));
}

#[test]
fn a_ca_that_is_used_up_is_passed_over() {
    let two = Wanted { directories: vec![CA.into(), OTHER.into()], ..wanted("a") };
    let mut bench = Bench::new(vec![two], vec![], 0);
    bench.budget.told(CA, &Scope::Account, at(HOUR), at(0));
    assert_eq!(bench.order(1).directory, OTHER);
    // Both are: the one that is back sooner decides.
    bench.budget.told(OTHER, &Scope::Account, at(HOUR / 2), at(0));
    bench.planner.ordered("a", Ordered::Stopped, at(1), 0.0);
    assert_eq!((bench.tasks(2), bench.wakes()), (vec![], Some(HOUR / 2)));
    assert_eq!(bench.order(HOUR / 2).directory, OTHER);
    // The manager met a limit by itself, at a CA that it tried next.
    let limit = Exhausted { directory: OTHER.into(), limit: Limit::WaitAccount, subject: String::new(), until: at(2 * HOUR) };
    bench.planner.ordered("a", Ordered::Waits(limit), at(HOUR / 2), 0.0);
    assert_eq!((bench.state("a", HOUR / 2), bench.wakes()), (State::Waiting, Some(2 * HOUR)));
}

#[test]
fn failures_back_off_one_by_one() {
    let mut bench = Bench::new(vec![wanted("a"), wanted("b")], vec![], 0);
    assert_eq!(bench.tasks(0), ["order a", "order b"]);
    let renewal = bench.fail("a", 0);
    assert_eq!((renewal.failures, renewal.failure.as_deref(), renewal.not_until), (1, Some("no"), Some(at(MINUTE))));
    bench.planner.ordered("b", Ordered::Stopped, at(0), 0.0);
    assert_eq!((bench.state("a", 1), bench.state("b", 1)), (State::Failing, State::New));
    assert_eq!(bench.tasks(1), ["order b"]);
    assert_eq!((bench.tasks(MINUTE - 1), bench.tasks(MINUTE)), (vec![], vec!["order a".to_owned()]));
    bench.fail("a", MINUTE);
    assert_eq!(bench.tasks(11 * MINUTE - 1), [""; 0]);
    let at_once = bench.planner.force("a").unwrap();
    assert_eq!((at_once.forced, at_once.failures, at_once.not_until), (true, 0, None));
    assert_eq!(bench.tasks(3 * MINUTE), ["order a"], "a person need not wait");
    let kept = bench.fail("a", 3 * MINUTE);
    assert!(kept.forced, "until it is there");
    // The same, after a restart: the same wait; something else is wanted: none.
    let mut again = Bench::new(vec![wanted("a")], vec![kept.clone()], 3 * MINUTE);
    assert_eq!((again.tasks(3 * MINUTE), again.wakes()), (vec![], Some(4 * MINUTE)));
    let mut again = Bench::new(vec![Wanted { wish: "else".into(), ..wanted("a") }], vec![kept], 3 * MINUTE);
    assert_eq!(again.changed.len(), 1);
    assert_eq!(again.tasks(3 * MINUTE), ["order a"]);
}

#[test]
fn retry_after_is_obeyed() {
    let mut bench = Bench::new(vec![wanted("a")], vec![], 0);
    bench.tasks(0);
    bench.planner.ordered("a", Ordered::Failed { text: "later".into(), retry_at: Some(at(5 * HOUR)) }, at(0), 0.9);
    assert_eq!((bench.tasks(5 * HOUR - 1), bench.tasks(5 * HOUR)), (vec![], vec!["order a".to_owned()]));
}

#[test]
fn a_paused_one_waits_for_a_person() {
    let mut bench = Bench::new(vec![wanted("a")], vec![], 0);
    bench.tasks(0);
    let outcome = Ordered::Paused { text: "paused".into(), url: "https://ca.example/unpause".into() };
    let renewal = bench.planner.ordered("a", outcome, at(0), 0.0).unwrap();
    assert_eq!(renewal.unpause_url.as_deref(), Some("https://ca.example/unpause"));
    assert_eq!((bench.state("a", 1), bench.wakes()), (State::Paused, Some(7 * DAY)));
    assert_eq!(bench.planner.force("a").unwrap().unpause_url, None);
    assert_eq!(bench.tasks(2), ["order a"]);
}

#[test]
fn what_changed_or_was_revoked_is_renewed_at_once() {
    let changed = Wanted { wish: "else".into(), names: vec!["b.example.com".into(), "c.example.com".into()], ..wanted("b") };
    let mut bench = Bench::new(vec![wanted("a"), changed], vec![kept("a", 1), kept("b", 1)], 0);
    let order = bench.order(0);
    assert_eq!((order.name.as_str(), order.why, order.kind), ("b", Why::Changed, OrderKind::New));
    assert!(bench.planner.revoked("a").unwrap().revoked);
    assert_eq!(bench.state("a", 0), State::Revoked);
    let order = bench.order(0);
    assert_eq!((order.name.as_str(), order.why, order.kind), ("a", Why::Revoked, OrderKind::Renewal));
    assert_eq!(bench.fail("a", 0).not_until, Some(at(MINUTE)));
    bench.tasks(MINUTE);
    assert!(!bench.planner.ordered("a", Ordered::Issued(standing("a", 0)), at(MINUTE), 0.0).unwrap().revoked);
    // Of one that is not there, nothing can be revoked.
    let mut bench = Bench::new(vec![wanted("a")], vec![], 0);
    assert!(!bench.planner.revoked("a").unwrap().revoked);
}

#[test]
fn a_failed_deployment_is_made_again_and_nothing_is_ordered() {
    let files = |to: &str| Wanted { deployment: to.into(), ..wanted("a") };
    let mut bench = Bench::new(vec![files("files")], vec![kept("a", 1)], 0);
    assert_eq!(bench.tasks(0), ["deploy a"]);
    let failed = Deployed::Failed { text: "disk full".into() };
    let renewal = bench.planner.deployed("a", failed.clone(), at(0), 0.0).unwrap();
    assert_eq!((renewal.deploy_failures, renewal.deploy_not_until, renewal.failures), (1, Some(at(MINUTE)), 0));
    assert_eq!(bench.state("a", 0), State::Undeployed);
    assert_eq!((bench.tasks(MINUTE - 1), bench.tasks(MINUTE)), (vec![], vec!["deploy a".to_owned()]));
    let renewal = bench.planner.deployed("a", failed, at(MINUTE), 0.0).unwrap();
    assert_eq!(renewal.deploy_not_until, Some(at(11 * MINUTE)));
    let mut again = Bench::new(vec![files("elsewhere")], vec![renewal.clone()], MINUTE);
    assert_eq!(again.tasks(MINUTE), ["deploy a"], "something else is wanted");
    let mut again = Bench::new(vec![files("files")], vec![renewal], MINUTE);
    assert_eq!(again.tasks(MINUTE), [""; 0]);
    assert_eq!(again.tasks(11 * MINUTE), ["deploy a"]);
    let done = again.planner.deployed("a", Deployed::Done, at(11 * MINUTE), 0.0).unwrap();
    assert_eq!((done.deploy_failures, done.deploy_failure), (0, None));
    assert_eq!((again.state("a", 12 * MINUTE), again.tasks(12 * MINUTE)), (State::Valid, vec![]));
    again.planner.redeploy("a");
    assert_eq!(again.tasks(13 * MINUTE), ["deploy a"]);
}

#[test]
fn renewed_while_it_is_deployed_it_is_deployed_again() {
    let mut bench = Bench::new(vec![Wanted { deployment: "files".into(), ..wanted("a") }], vec![kept("a", 80)], 0);
    assert_eq!(bench.tasks(0), ["order a", "deploy a"]);
    bench.planner.ordered("a", Ordered::Issued(standing("a", 0)), at(1), 0.0);
    bench.planner.deployed("a", Deployed::Done, at(2), 0.0);
    assert!(bench.tasks(2).contains(&"deploy a".to_owned()));
}

#[test]
fn what_an_order_is_to_the_ca_depends_on_the_window_and_the_names() {
    let kind = |names: &[&str], window: Option<Window>, directory: &str| {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        let wanted = Wanted { names, directories: vec![directory.into()], ..wanted("a") };
        let mut bench = Bench::new(vec![wanted], vec![Renewal { window, forced: true, ..kept("a", 60) }], 0);
        let order = bench.order(0);
        (order.kind, order.replaces.is_some())
    };
    let (now, later) = (Some(window(-1, 1)), Some(window(1, 2)));
    assert_eq!(kind(&["a.example.com"], now.clone(), CA), (OrderKind::Replacement, true));
    assert_eq!(kind(&["a.example.com", "b.example.com"], now.clone(), CA), (OrderKind::Replacement, true), "one name is enough");
    assert_eq!(kind(&["b.example.com"], now.clone(), CA), (OrderKind::New, false));
    assert_eq!(kind(&["a.example.com"], later.clone(), CA), (OrderKind::Renewal, true), "before its time it counts");
    assert_eq!(kind(&["a.example.com", "b.example.com"], later, CA), (OrderKind::New, true));
    assert_eq!(kind(&["a.example.com"], None, CA), (OrderKind::Renewal, false));
    assert_eq!(kind(&["a.example.com"], now, OTHER), (OrderKind::New, false));
}

#[test]
fn a_poll_of_one_that_was_replaced_says_nothing() {
    let mut bench = Bench::new(vec![wanted("a")], vec![Renewal { poll_at: None, ..kept("a", 80) }], 0);
    assert_eq!(bench.tasks(HOUR), ["order a", "poll a"]);
    bench.planner.ordered("a", Ordered::Issued(standing("a", 0)), at(HOUR), 0.0);
    let old = Polled::Window { window: window(-20, -19), retry_at: None };
    let renewal = bench.planner.polled("a", old, at(HOUR), 0.0).unwrap();
    assert_eq!(renewal.window, None);
    assert_eq!(bench.tasks(HOUR), ["poll a"], "the new one");
    let renewal = bench.planner.polled("a", Polled::Nothing, at(HOUR), 0.0).unwrap();
    assert_eq!(renewal.poll_at, Some(at(25 * HOUR)), "a CA that has none is asked once a day");
    // Called back.
    assert_eq!(bench.tasks(25 * HOUR), ["poll a"]);
    bench.planner.polled("a", Polled::Window { window: window(-2, -1), retry_at: None }, at(25 * HOUR), 0.0);
    assert_eq!(bench.order(25 * HOUR).why, Why::Due);
}

#[test]
fn polls_wait_while_orders_do_but_not_for_ever() {
    let list = ["a", "b", "c", "d"];
    let renewals = ["c", "d"].iter().map(|name| Renewal { poll_at: Some(at(1)), ..kept(name, 1) }).collect();
    let mut bench = Bench::new(list.iter().map(|name| wanted(name)).collect(), renewals, 0);
    let one = Room { orders: 1, polls: 1, deployments: 1 };
    assert_eq!(bench.room(1, one), ["order a"]);
    assert_eq!(bench.room(POLLS_HELD, Room { orders: 0, ..one }), [""; 0]);
    assert_eq!(bench.room(POLLS_HELD + 1, Room { orders: 0, ..one }), ["poll c"], "a minute is enough");
    assert_eq!(bench.room(POLLS_HELD + 1, one), ["order b", "poll d"], "no order waits");
}

#[test]
fn polls_that_are_overdue_at_a_start_do_not_come_at_once() {
    let list: Vec<_> = (0..1000).map(|n| format!("c{n:03}")).collect();
    let renewals = list.iter().map(|name| Renewal { poll_at: Some(at(-DAY)), ..kept(name, 1) }).collect();
    let mut seed = 0.0;
    let mut random = || {
        seed = (seed + 0.618) % 1.0;
        seed
    };
    let (planner, changed) = Planner::new(list.iter().map(|name| wanted(name)).collect(), renewals, at(0), &mut random);
    assert_eq!(changed.len(), 1000, "times were chosen, and are to be kept");
    let mut bench = Bench { planner, budget: Budget::default(), changed };
    let halves = [bench.tasks(20 * SECOND).len(), bench.tasks(40 * SECOND).len()];
    assert!(halves[0].abs_diff(500) < 50 && halves[0] + halves[1] == 1000, "{halves:?}");
}

#[test]
fn one_that_is_not_in_the_configuration_is_kept_and_left_alone() {
    let mut bench = Bench::new(vec![], vec![kept("a", 89)], 0);
    assert_eq!((bench.tasks(10 * DAY), bench.wakes()), (vec![], None));
    let status = bench.planner.status("a", at(0)).unwrap();
    assert_eq!((status.state, status.next, status.state.to_string().as_str()), (State::Unlisted, None, "not in the configuration"));
    assert_eq!(bench.planner.force("a"), None);
    assert!(bench.planner.deleted("a", at(0)) && !bench.planner.deleted("a", at(0)));
    assert_eq!(bench.planner.iter(at(0)).count(), 0);
}

#[test]
fn one_that_was_deleted_is_new_again_if_it_is_wanted() {
    let mut bench = Bench::new(vec![wanted("a")], vec![kept("a", 1)], 0);
    assert_eq!(bench.tasks(0), [""; 0]);
    assert!(bench.planner.deleted("a", at(0)));
    assert_eq!(bench.order(0).why, Why::New);
}

#[test]
fn a_rehearsal_is_made_daily_and_costs_nothing() {
    let mut bench = Bench::new(vec![Wanted { dry_run: true, ..wanted("a") }], vec![], 0);
    let order = bench.order(0);
    assert_eq!((order.why, order.taken.len()), (Why::Rehearsal, 0));
    bench.planner.ordered("a", Ordered::Rehearsed, at(0), 0.0);
    assert_eq!((bench.state("a", 0), bench.wakes()), (State::Rehearsed, Some(DAY)));
    assert_eq!(bench.tasks(DAY), ["order a"]);
    bench.fail("a", DAY);
    assert_eq!(bench.state("a", DAY), State::Failing);
}

#[test]
fn an_order_that_is_under_way_goes_on_whatever_the_limits_say() {
    let mut bench = Bench::new(vec![wanted("a"), wanted("b")], vec![], 0);
    bench.budget.told(CA, &Scope::Account, at(HOUR), at(0));
    bench.planner.resume("b");
    let order = bench.order(0);
    assert_eq!((order.name.as_str(), order.why, order.taken.len()), ("b", Why::UnderWay, 0));
    bench.fail("b", 0);
    assert_eq!(bench.tasks(MINUTE), [""; 0], "another one counts");
}

#[test]
fn a_certificate_that_is_due_at_its_birth_makes_no_loop() {
    let mut bench = Bench::new(vec![wanted("a")], vec![], 0);
    bench.tasks(0);
    // From a CA whose clock is years behind.
    bench.planner.ordered("a", Ordered::Issued(standing("a", 1000)), at(0), 0.0);
    assert_eq!(bench.room(0, Room { polls: 0, ..ALL }), [""; 0]);
    assert_eq!(bench.room(10 * MINUTE, Room { polls: 0, ..ALL }), ["order a"]);
}

#[test]
fn a_wait_that_a_wrong_clock_chose_is_forgotten() {
    let renewal =
        Renewal { not_until: Some(at(4000 * DAY)), deploy_not_until: Some(at(4000 * DAY)), poll_at: Some(at(4000 * DAY)), ..kept("a", 80) };
    let mut bench = Bench::new(vec![Wanted { deployment: "files".into(), ..wanted("a") }], vec![renewal], 0);
    assert_eq!(bench.tasks(0), ["order a", "deploy a", "poll a"]);
}

#[derive(Debug, Clone)]
enum Step {
    Wait(i64),
    /// To the time that the planner wants.
    Wake,
    Next(usize),
    /// The outcome of the oldest order in flight.
    Outcome(u8),
    Force(usize),
    Revoke(usize),
    Redeploy(usize),
    Resume(usize),
    Delete(usize),
    Told(usize, i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => prop_oneof![0..MINUTE, 0..HOUR, 0..10 * DAY].prop_map(Step::Wait),
        3 => Just(Step::Wake),
        6 => prop_oneof![Just(0), Just(1), Just(3), Just(1000)].prop_map(Step::Next),
        6 => (0..8u8).prop_map(Step::Outcome),
        1 => (0..CROWD).prop_map(Step::Force),
        1 => (0..CROWD).prop_map(Step::Revoke),
        1 => (0..CROWD).prop_map(Step::Redeploy),
        1 => (0..CROWD).prop_map(Step::Resume),
        1 => (0..CROWD).prop_map(Step::Delete),
        2 => (0..4usize, 0..2 * DAY).prop_map(|(scope, until)| Step::Told(scope, until)),
    ]
}

const CROWD: usize = 12;

/// Three registered domains, some with a second CA.
fn crowd(n: usize) -> Wanted {
    let directories = if n.is_multiple_of(4) { vec![CA.into(), OTHER.into()] } else { vec![CA.into()] };
    Wanted { names: vec![format!("n{n}.d{}.example", n % 3)], directories, ..wanted(&format!("c{n:02}")) }
}

proptest! {
    /// A certificate that is due and that no limit stops is handed out, whatever happened before: one that got lost would expire.
    #[test]
    fn nobody_gets_lost(steps in proptest::collection::vec(step(), 1..200)) {
        let renewals = (0..CROWD).step_by(2).map(|n| Renewal { poll_at: None, ..kept(&format!("c{n:02}"), 10 * i64::try_from(n).unwrap()) }).collect();
        let mut bench = Bench::new((0..CROWD).map(crowd).collect(), renewals, 0);
        let mut now = 0;
        let mut in_flight = std::collections::VecDeque::new();
        for step in steps {
            let name = |n: usize| format!("c{n:02}");
            match step {
                Step::Wait(millis) => now += millis,
                Step::Wake => now = bench.wakes().unwrap_or(now).max(now),
                Step::Force(n) => drop(bench.planner.force(&name(n))),
                Step::Revoke(n) => drop(bench.planner.revoked(&name(n))),
                Step::Redeploy(n) => drop(bench.planner.redeploy(&name(n))),
                Step::Resume(n) => bench.planner.resume(&name(n)),
                Step::Delete(n) => prop_assert!(bench.planner.deleted(&name(n), at(now))),
                Step::Told(scope, until) => {
                    let scope = match scope {
                        0 => Scope::Directory,
                        1 => Scope::Account,
                        2 => Scope::Domain("d1.example".into()),
                        _ => Scope::Names(vec!["n4.d1.example".into()]),
                    };
                    bench.budget.told(CA, &scope, at(now + until), at(now));
                }
                Step::Outcome(kind) => if let Some(name) = in_flight.pop_front() {
                    let name: String = name;
                    let limit = Exhausted { directory: CA.into(), limit: Limit::NewOrders, subject: String::new(), until: at(now + HOUR) };
                    let outcome = match kind {
                        0 | 1 => Ordered::Failed { text: "no".into(), retry_at: (kind == 0).then_some(at(now + DAY)) },
                        2 => Ordered::Stopped,
                        3 => Ordered::Waits(limit),
                        4 => Ordered::Paused { text: "no".into(), url: "u".into() },
                        _ => Ordered::Issued(standing(&name, -now / DAY)),
                    };
                    prop_assert!(bench.planner.ordered(&name, outcome, at(now), 0.5).is_some());
                },
                Step::Next(room) => {
                    let tasks = bench.planner.next(at(now), &mut bench.budget, Room { orders: room, polls: room, deployments: room });
                    in_flight.extend(tasks.into_iter().filter_map(|task| match task {
                        Task::Order(order) => Some(order.name),
                        _ => None,
                    }));
                    if room == 1000 {
                        for (id, entry) in &bench.planner.entries {
                            let Some(due) = entry.order_at().filter(|due| *due <= at(now)) else { continue };
                            let wanted = entry.wanted.as_ref().unwrap();
                            let free = wanted.directories.iter().find(|directory| {
                                let (kind, _) = entry.kind(wanted, directory, at(now));
                                bench.budget.ask(&OrderShape { directory, names: &wanted.names, kind }, at(now)).is_ok()
                            });
                            let told = bench.planner.orders.waits(id).is_some_and(|limit| limit.limit == Limit::NewOrders && limit.until > at(now));
                            prop_assert!(free.is_none() || told, "{id} is due since {due}, {free:?} allows it");
                            prop_assert!(bench.planner.orders.waits(id).is_some(), "{id} waits for nothing");
                        }
                    }
                }
            }
            for (id, entry) in &bench.planner.entries {
                prop_assert_eq!(entry.order_at().is_some(), bench.planner.orders.has(id), "{}", id);
                prop_assert_eq!(entry.ordering, in_flight.contains(&id.to_string()), "{}", id);
                prop_assert_eq!(entry.poll_at().is_some(), bench.planner.polls.has(id), "{}", id);
            }
            let waiting = bench.planner.entries.values().filter(|entry| entry.order_at().is_some()).count();
            prop_assert!(waiting == 0 || bench.planner.orders.wake_at().is_some() || bench.planner.orders.is_ready(), "nobody would wake it");
        }
    }
}
