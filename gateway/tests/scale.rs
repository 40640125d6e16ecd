//! A long list of certificates, in counts: what a start writes and spreads, what a listing makes at once. What it takes in time and memory is measured by `tests/bench/scale.rs`.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{collections::BTreeMap, fmt::Write as _, path::Path, sync::Arc};

use gateway::{
    certificates::{
        Manager,
        planner::{Planner, Room, Task, Wanted},
        renewal::{self, Validity},
    },
    claim::Timestamp,
    config::Config,
    engine::Engine,
    issuer::{Budget, Issuer},
    store::{Renewal, Standing},
};
use prometheus_client::{encoding::text::encode, registry::Registry};

const COUNT: usize = 20_000;
/// Fewer of those that come from a text: reading one takes longer than all else in a build that is not optimized.
const WRITTEN: usize = 5_000;
const DIRECTORY: &str = "https://ca.example.test/directory";
const DAY: i64 = 86_400_000;
const EVERYTHING: Room = Room { orders: COUNT, polls: COUNT, deployments: COUNT };

fn name(number: usize) -> String {
    format!("c{number:05}")
}

fn config(data: &Path) -> Config {
    let mut text =
        format!("version: v1\ndata: {data:?}\nissuer: {{ directories: [{{ name: ca, url: \"{DIRECTORY}\" }}] }}\ncertificates:\n");
    for name in (0..WRITTEN).map(name) {
        writeln!(text, "  - {{ name: {name}, names: [{name}.example.test], store: [{{ files: /nowhere/{name} }}] }}").expect("written");
    }
    Config::from_yaml(&text, Path::new("acmegate.yaml")).expect("a valid configuration")
}

fn wanted() -> Vec<Wanted> {
    let wanted = |name: String| Wanted {
        names: vec![format!("{name}.example.test")],
        directories: vec![DIRECTORY.to_owned()],
        wish: format!("wish of {name}"),
        renew_before: None,
        deployment: format!("deployment of {name}"),
        dry_run: false,
        name,
    };
    (0..COUNT).map(name).map(wanted).collect()
}

/// How a certificate stands of which nothing is due.
fn settled(number: usize, wanted: &Wanted, now: Timestamp) -> Renewal {
    let serial = format!("{number:032x}");
    let (not_before, not_after) = (Timestamp(now.0 - 10 * DAY), Timestamp(now.0 + 80 * DAY));
    Renewal {
        name: wanted.name.clone(),
        renew_at: Some(renewal::interval(Validity { not_before, not_after }, None, None).choose(0.5)),
        poll_at: Some(Timestamp(now.0 + DAY)),
        deployed: Some(format!("{serial} {}", wanted.deployment)),
        standing: Some(Standing {
            id: Some(format!("aYhba4dGQEHhs3uEe6CuLN4ByNQ.{serial}")),
            serial,
            directory: DIRECTORY.to_owned(),
            names: wanted.names.clone(),
            wish: wanted.wish.clone(),
            not_before,
            not_after,
            issued: not_before,
        }),
        ..Renewal::default()
    }
}

fn all_settled(wanted: &[Wanted], now: Timestamp) -> Vec<Renewal> {
    wanted.iter().enumerate().map(|(number, wanted)| settled(number, wanted, now)).collect()
}

/// The same numbers at every run, spread evenly.
fn spread() -> impl FnMut() -> f64 {
    let mut at = 0.5_f64;
    move || {
        at = (at + 0.618_033_988_749_894_9).fract();
        at
    }
}

/// What the store has counted: transactions that wrote.
fn commits(registry: &Registry) -> u64 {
    let mut text = String::new();
    encode(&mut text, registry).expect("metrics");
    let count = text.lines().find_map(|line| line.strip_prefix("store_commit_seconds_count "));
    count.expect("commits are counted").parse().expect("a number")
}

#[tokio::test]
async fn a_start_writes_nothing_of_what_did_not_change_and_a_listing_comes_in_parts() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Arc::new(config(&folder.path().join("data")));
    let mut registry = Registry::default();
    let engine = Engine::open(config.clone(), &mut registry).expect("an engine");
    let wanted: Vec<Wanted> = config.certificates.iter().map(Manager::wanted).collect();
    let mut renewals = all_settled(&wanted, Timestamp::now());
    // For one of them the configuration has changed: a time outside what it gives was chosen before.
    let changed = renewals.get_mut(7).expect("the eighth");
    changed.renew_at = changed.standing.as_ref().map(|standing| standing.not_after);
    engine.store.save_renewals(renewals.clone()).await.expect("saved");
    let before = commits(&registry);

    let manager = Manager::open(engine.clone(), Issuer::new(engine.clone()), None).await.expect("a manager");
    assert_eq!(commits(&registry), before + 1, "one transaction for the one that changed");
    let after = engine.store.renewals().await.expect("renewals");
    let differ: Vec<_> = after.iter().zip(&renewals).filter(|(after, before)| after != before).map(|(after, _)| &after.name).collect();
    assert_eq!(differ, ["c00007"]);

    let again = Manager::open(engine.clone(), Issuer::new(engine.clone()), None).await.expect("a manager");
    assert_eq!(commits(&registry), before + 1, "nothing has changed since");
    drop(again);

    let (mut listed, mut after, mut parts) = (Vec::new(), None::<String>, 0);
    loop {
        let page = manager.page(after.as_deref());
        let Some(last) = page.last() else { break };
        after = Some(last.name.clone());
        assert!(page.len() <= WRITTEN / 5, "{} at once", page.len());
        parts += 1;
        listed.extend(page);
    }
    assert!(parts >= 5);
    assert_eq!(listed, manager.list());
    assert_eq!(listed.len(), WRITTEN);
    engine.close().await;
}

#[test]
fn a_tick_hands_out_what_is_due_and_wakes_for_the_next() {
    let (wanted, now) = (wanted(), Timestamp(1_790_000_000_000));
    let mut renewals = all_settled(&wanted, now);
    let at = Timestamp(now.0 + 3_600_000);
    let due: Vec<String> = (0..COUNT).step_by(200).map(name).collect();
    for renewal in renewals.iter_mut().step_by(200) {
        let standing = renewal.standing.as_mut().expect("standing");
        (standing.not_before, standing.not_after) = (Timestamp(now.0 - 57 * DAY), Timestamp(now.0 + 33 * DAY));
        let Standing { not_before, not_after, .. } = *standing;
        let times = renewal::interval(Validity { not_before, not_after }, None, None);
        assert!(times.has(at), "{times:?}");
        renewal.renew_at = Some(at);
    }
    let (mut planner, changed) = Planner::new(wanted, renewals, now, &mut spread());
    assert_eq!(changed, [], "what was chosen stays");
    let mut budget = Budget::new(Vec::new());
    assert_eq!(planner.next(now, &mut budget, EVERYTHING), []);
    assert_eq!(planner.wake_at(), Some(at));
    let tasks = planner.next(at, &mut budget, EVERYTHING);
    let orders: Vec<_> =
        tasks.iter().filter_map(|task| if let Task::Order(order) = task { Some(order.name.clone()) } else { None }).collect();
    assert_eq!(orders, due);
    assert_eq!(tasks.len(), due.len());
    assert_eq!(planner.next(at, &mut budget, EVERYTHING), [], "each is handed out once");
}

/// After a day without acmegate every certificate's renewal information is old: the CAs are not asked for all of it in one second.
#[test]
fn polls_that_are_overdue_at_a_start_are_spread() {
    let (wanted, now) = (wanted(), Timestamp(1_790_000_000_000));
    let mut renewals = all_settled(&wanted, now);
    for renewal in &mut renewals {
        renewal.poll_at = Some(Timestamp(now.0 - DAY));
    }
    let (mut planner, changed) = Planner::new(wanted, renewals, now, &mut spread());
    assert_eq!(changed, [], "when to ask is not worth a write");
    let mut budget = Budget::new(Vec::new());
    let (mut seconds, mut at) = (BTreeMap::new(), now);
    loop {
        let tasks = planner.next(at, &mut budget, EVERYTHING);
        assert!(tasks.iter().all(|task| matches!(task, Task::Poll { .. })), "nothing else is due");
        *seconds.entry((at.0 - now.0) / 1000).or_insert(0) += tasks.len();
        let Some(next) = planner.wake_at() else { break };
        if next.0 > now.0 + DAY {
            break;
        }
        at = next;
    }
    assert_eq!(seconds.values().sum::<usize>(), COUNT);
    let most = seconds.values().max().copied().unwrap_or_default();
    assert!(most <= 50, "{most} in one second");
    let last = seconds.keys().max().copied().unwrap_or_default();
    assert!((700..=800).contains(&last), "spread over {last} s: one in 40 ms");
}
