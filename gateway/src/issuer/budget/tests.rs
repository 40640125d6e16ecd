//! The budget against a naive model, and the cases that people will meet.

use proptest::prelude::*;

use super::*;

const CA: &str = "https://acme-v02.api.letsencrypt.org/directory";
const OTHER: &str = "https://acme.example/directory";
const SECOND: i64 = 1000;
const HOUR: i64 = 3600 * SECOND;
const WEEK: i64 = 7 * 24 * HOUR;
const START: i64 = 1_790_000_000_000;

fn at(millis: i64) -> Timestamp {
    Timestamp(START + millis)
}

fn names(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn order<'a>(kind: OrderKind, names: &'a [String]) -> OrderShape<'a> {
    OrderShape { directory: CA, names, kind }
}

fn refused(budget: &Budget, order: &OrderShape<'_>, now: Timestamp) -> (Limit, String, i64) {
    let limit = budget.ask(order, now).unwrap_err();
    (limit.limit, limit.subject, limit.until.0 - START)
}

/// A bucket that is filled drop by drop, a token being `every` drops.
struct Naive {
    capacity: i64,
    every: i64,
    drops: i64,
}

impl Naive {
    fn new(capacity: i64, period: i64) -> Self {
        Self { capacity, every: period / capacity, drops: period / capacity * capacity }
    }

    fn pour(&mut self, drops: i64) {
        self.drops = (self.drops + drops).min(self.capacity * self.every);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Wait(i64),
    /// Asks, and takes if it may.
    Order(usize, OrderKind),
    GiveBack,
    Failed(usize),
    Succeeded(usize),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![Just(OrderKind::New), Just(OrderKind::Renewal)];
    prop_oneof![
        2 => prop_oneof![0..2 * SECOND, 0..40 * SECOND, 0..15 * 60 * SECOND, 0..4 * HOUR, 0..WEEK].prop_map(Step::Wait),
        8 => (0..SETS.len(), kind).prop_map(|(set, kind)| Step::Order(set, kind)),
        1 => Just(Step::GiveBack),
        3 => (0..SETS.len()).prop_map(Step::Failed),
        1 => (0..SETS.len()).prop_map(Step::Succeeded),
        1 => Just(Step::Restart),
    ]
}

const SETS: [&[&str]; 4] = [&["a.one.example"], &["b.one.example", "two.example"], &["two.example", "*.two.example"], &["three.example"]];

proptest! {
    #[test]
    fn it_allows_what_a_naive_model_allows(steps in proptest::collection::vec(step(), 1..400)) {
        let mut budget = Budget::default();
        let mut model: HashMap<(Limit, String), Naive> = HashMap::new();
        let mut disk: HashMap<(String, String), BudgetRow> = HashMap::new();
        let mut now = 0;
        let mut taken: Option<(Vec<String>, OrderKind)> = None;
        let counted = |names: &[String], kind| {
            let mut sorted = names.to_vec();
            sorted.sort();
            let mut keys = vec![(Limit::ExactSet, sorted.join(" "))];
            if kind == OrderKind::New {
                keys.push((Limit::NewOrders, String::new()));
                let domains: HashSet<_> = names.iter().map(|name| name.rsplit('.').take(2).collect::<Vec<_>>().join(".")).collect();
                keys.extend(domains.into_iter().map(|domain| (Limit::CertificatesPerDomain, domain)));
            }
            keys
        };
        let naive = |limit| match limit {
            Limit::NewOrders => Naive::new(300, 3 * HOUR),
            Limit::CertificatesPerDomain => Naive::new(50, WEEK),
            Limit::ExactSet => Naive::new(5, WEEK),
            Limit::FailedAuthorizations => Naive::new(5, HOUR),
            _ => Naive::new(1152, 1152 * 24 * HOUR),
        };
        for step in steps {
            let mut written = Vec::new();
            match step {
                Step::Wait(millis) => {
                    now += millis;
                    model.values_mut().for_each(|bucket| bucket.pour(millis));
                }
                Step::Order(set, kind) => {
                    let names = names(SETS[set]);
                    let shape = order(kind, &names);
                    let counts = counted(&names, kind);
                    let failures = [Limit::FailedAuthorizations, Limit::ConsecutiveFailures];
                    let asks = failures.into_iter().flat_map(|limit| names.iter().map(move |name| (limit, name.clone())));
                    let lacking = asks.chain(counts.clone()).filter_map(|key| {
                        let bucket = model.entry(key.clone()).or_insert_with(|| naive(key.0));
                        (bucket.drops < bucket.every).then_some(bucket.every - bucket.drops)
                    });
                    match (lacking.max(), budget.ask(&shape, at(now))) {
                        (None, Ok(())) => {
                            for key in counts {
                                let every = naive(key.0).every;
                                model.get_mut(&key).unwrap().drops -= every;
                            }
                            written = budget.take(&shape, at(now));
                            taken = Some((names, kind));
                        }
                        (Some(missing), Err(limit)) => {
                            prop_assert_eq!(limit.until, at(now + missing));
                            prop_assert!(budget.ask(&shape, Timestamp(limit.until.0 - 1)).is_err());
                            prop_assert!(budget.ask(&shape, limit.until).is_ok());
                        }
                        (model, ours) => prop_assert!(false, "model {:?}, ours {:?}", model, ours),
                    }
                }
                Step::GiveBack => if let Some((names, kind)) = taken.take() {
                    for key in counted(&names, kind) {
                        let every = naive(key.0).every;
                        model.get_mut(&key).unwrap().pour(every);
                    }
                    written = budget.give_back(&order(kind, &names), Came::NotPlaced, at(now));
                },
                Step::Failed(set) => {
                    let names = names(SETS[set]);
                    for name in &names {
                        for limit in [Limit::FailedAuthorizations, Limit::ConsecutiveFailures] {
                            let bucket = model.entry((limit, name.clone())).or_insert_with(|| naive(limit));
                            bucket.drops = (bucket.drops - bucket.every).max(0);
                        }
                    }
                    written = budget.failed(CA, &names, at(now));
                }
                Step::Succeeded(set) => {
                    let names = names(SETS[set]);
                    for name in &names {
                        model.remove(&(Limit::ConsecutiveFailures, name.clone()));
                    }
                    written = budget.succeeded(CA, &names, at(now));
                }
                Step::Restart => {
                    disk.retain(|_, row| row.full_at > at(now));
                    budget = Budget::new(disk.values().cloned().collect());
                }
            }
            disk.extend(written.into_iter().map(|row| ((row.limit.clone(), row.subject.clone()), row)));
        }
    }
}

#[test]
fn a_burst_then_one_by_one() {
    let mut budget = Budget::default();
    let lists: Vec<_> = (0..400).map(|n| names(&[&format!("n{n}.d{}.example", n % 100)])).collect();
    let allowed = |budget: &mut Budget, now: i64| {
        let free = lists.iter().filter(|names| {
            let order = order(OrderKind::New, names);
            budget.ask(&order, at(now)).map(|()| budget.take(&order, at(now))).is_ok()
        });
        free.count()
    };
    assert_eq!(allowed(&mut budget, 0), 300);
    assert_eq!(allowed(&mut budget, 36 * SECOND - 1), 0);
    assert_eq!(allowed(&mut budget, 36 * SECOND), 1);
    assert_eq!(allowed(&mut budget, 36 * SECOND * 11), 10);
    let left: Vec<_> =
        budget.left(at(36 * SECOND * 13)).filter(|left| left.limit == Limit::NewOrders).map(|left| (left.tokens, left.capacity)).collect();
    assert_eq!(left, [(2, 300)]);
}

#[test]
fn staging_takes_more() {
    let mut budget = Budget::default();
    let staging = "https://acme-staging-v02.api.letsencrypt.org/directory";
    let allowed = (0..2000).filter(|n| {
        let names = names(&[&format!("n{n}.example.com")]);
        let order = OrderShape { directory: staging, names: &names, kind: OrderKind::New };
        budget.ask(&order, at(0)).map(|()| budget.take(&order, at(0))).is_ok()
    });
    assert_eq!(allowed.count(), 1500);
}

#[test]
fn renewals_and_replacements_are_not_counted_as_let_s_encrypt_does_not() {
    let (mut budget, a) = (Budget::default(), names(&["a.example.com", "www.example.com"]));
    for _ in 0..4 {
        assert_eq!(budget.take(&order(OrderKind::Renewal, &a), at(0)).len(), 1, "the exact set alone");
    }
    budget.take(&order(OrderKind::New, &a), at(0));
    let (limit, subject, until) = refused(&budget, &order(OrderKind::Renewal, &a), at(0));
    assert_eq!((limit, until), (Limit::ExactSet, WEEK / 5));
    assert!(subject.starts_with("a.example.com+1 "), "{subject}");
    // The order and the case of the names do not matter.
    assert!(budget.ask(&order(OrderKind::Renewal, &names(&["WWW.example.com.", "a.example.com"])), at(0)).is_err());
    // A replacement passes, and takes out what is there when it is issued.
    let replacement = order(OrderKind::Replacement, &a);
    assert_eq!(budget.ask(&replacement, at(0)), Ok(()));
    assert_eq!(budget.take(&replacement, at(0)), []);
    assert_eq!(budget.issued(&replacement, at(0), at(0)), []);
    assert_eq!(budget.issued(&replacement, at(0), at(WEEK / 5)).len(), 1);
    assert!(budget.ask(&order(OrderKind::Renewal, &a), at(WEEK / 5)).is_err());
    // At another CA all of it is unknown.
    assert_eq!(budget.take(&OrderShape { directory: OTHER, ..order(OrderKind::New, &a) }, at(0)), []);
}

#[test]
fn what_brought_no_certificate_is_given_back_but_for_the_order() {
    let (mut budget, a) = (Budget::default(), names(&["a.example.com"]));
    for n in 0..20 {
        let order = order(OrderKind::New, &a);
        assert_eq!(budget.ask(&order, at(n)), Ok(()));
        budget.take(&order, at(n));
        budget.give_back(&order, Came::NotFinalized, at(n));
    }
    let left: Vec<_> = budget.left(at(20)).map(|left| (left.limit, left.tokens)).collect();
    assert_eq!(left, [(Limit::NewOrders, 280)]);
    let order = order(OrderKind::New, &a);
    budget.take(&order, at(30));
    budget.give_back(&order, Came::NotPlaced, at(30));
    assert_eq!(budget.left(at(30)).next().map(|left| left.tokens), Some(280));
}

#[test]
fn a_ca_that_counts_later_than_we_has_its_tokens_back_later() {
    let (mut budget, a) = (Budget::default(), names(&["a.example.com"]));
    let order = order(OrderKind::Renewal, &a);
    for n in 0..5 {
        budget.take(&order, at(0));
        // Side by side, the slowest took 50 s.
        budget.issued(&order, at(0), at((n + 1) * 10 * SECOND));
    }
    assert_eq!(refused(&budget, &order, at(HOUR)).2, WEEK / 5 + 50 * SECOND);
}

#[test]
fn failures_of_a_name_stop_every_order_with_it() {
    let mut budget = Budget::default();
    let (bad, both, other) = (names(&["a.example.com"]), names(&["a.example.com", "b.example.com"]), names(&["b.example.com"]));
    for n in 0..5 {
        budget.failed(CA, &bad, at(n));
    }
    assert_eq!(refused(&budget, &order(OrderKind::Renewal, &both), at(5)), (Limit::FailedAuthorizations, "a.example.com".into(), HOUR / 5));
    assert!(budget.ask(&order(OrderKind::New, &other), at(5)).is_ok());
    for n in 0..1200 {
        budget.failed(CA, &bad, at(n));
    }
    assert_eq!(refused(&budget, &order(OrderKind::New, &bad), at(2 * HOUR)).0, Limit::ConsecutiveFailures);
    budget.succeeded(CA, &bad, at(2 * HOUR));
    assert!(budget.ask(&order(OrderKind::New, &bad), at(2 * HOUR)).is_ok());
}

#[test]
fn waits_that_a_ca_asks_for_hold_for_what_it_meant() {
    let mut budget = Budget::default();
    let (a, b, c) = (names(&["a.example.com"]), names(&["b.example.com"]), names(&["c.example.org"]));
    let shape = |names| OrderShape { directory: OTHER, names, kind: OrderKind::New };
    let waiting = |budget: &Budget| [&a, &b, &c].map(|names| budget.ask(&shape(names), at(1)).is_err());
    budget.told(OTHER, &Scope::Names(a.clone()), at(HOUR), at(0));
    assert_eq!(waiting(&budget), [true, false, false]);
    // The earlier one of two does not shorten it.
    budget.told(OTHER, &Scope::Names(a.clone()), at(2), at(0));
    assert_eq!(refused(&budget, &shape(&a), at(1)).2, HOUR);
    budget.told(OTHER, &Scope::Domain("example.com".into()), at(HOUR), at(0));
    assert_eq!(waiting(&budget), [true, true, false]);
    budget.told(OTHER, &Scope::Account, at(HOUR), at(0));
    assert_eq!(waiting(&budget), [true, true, true]);
    assert!(budget.ask(&order(OrderKind::New, &a), at(1)).is_ok(), "another CA");
    // What a CA does not count does not wait for its counting, but for the CA itself.
    let mut budget = Budget::default();
    budget.told(CA, &Scope::Account, at(HOUR), at(0));
    assert!(budget.ask(&order(OrderKind::New, &a), at(1)).is_err());
    assert!(budget.ask(&order(OrderKind::Renewal, &a), at(1)).is_ok());
    budget.told(CA, &Scope::Directory, at(HOUR), at(0));
    assert!(budget.ask(&order(OrderKind::Replacement, &a), at(1)).is_err());
    assert!(budget.ask(&order(OrderKind::Replacement, &a), at(HOUR)).is_ok());
}

#[test]
fn a_ca_that_refuses_one_set_after_the_other_is_left_alone() {
    let mut budget = Budget::default();
    let lists: Vec<_> = (0..3).map(|n| names(&[&format!("n{n}.example")])).collect();
    let (fresh, shape) = (names(&["fresh.example"]), |names| OrderShape { directory: OTHER, names, kind: OrderKind::New });
    for names in &lists {
        assert!(budget.ask(&shape(&fresh), at(1)).is_ok());
        budget.told(OTHER, &Scope::Unclear(names.clone()), at(HOUR), at(0));
    }
    assert_eq!(refused(&budget, &shape(&fresh), at(1)).0, Limit::WaitAccount);
}

#[test]
fn a_clock_that_was_wrong_does_not_stop_it_for_years() {
    let row = |limit: &str, subject: &str| BudgetRow {
        directory: CA.into(),
        limit: limit.into(),
        subject: subject.into(),
        full_at: at(1000 * WEEK),
    };
    let a = names(&["a.example.com"]);
    let budget = Budget::new(vec![row("exact_set", "a.example.com"), row("a limit of the future", "")]);
    assert_eq!(budget.len(), 1);
    assert_eq!(refused(&budget, &order(OrderKind::Renewal, &a), at(0)).2, WEEK / 5);
    let budget = Budget::new(vec![row("wait_directory", "")]);
    assert_eq!(refused(&budget, &order(OrderKind::Renewal, &a), at(0)).2, 60 * 24 * HOUR);
}

#[test]
fn what_is_full_again_is_forgotten() {
    let mut budget = Budget::default();
    for n in 0..100_000i64 {
        budget.take(&order(OrderKind::Renewal, &names(&[&format!("n{n}.example")])), at(n * 100 * SECOND));
        assert!(budget.len() < 3000, "{n}: {}", budget.len());
    }
    budget.prune(at(100_000 * 100 * SECOND + WEEK));
    assert!(budget.is_empty());
}

#[test]
fn the_texts_say_which_limit_whose_until_when_and_what_to_do() {
    let text = |directory: &str, limit, subject: &str| {
        Exhausted { directory: directory.into(), limit, subject: subject.into(), until: at(0) }.text()
    };
    let texts: Vec<_> = Limit::ALL.into_iter().map(|limit| text(CA, limit, "example.com")).collect();
    insta::assert_snapshot!(texts.join("\n"));
    assert!(text(CA, Limit::ExactSet, "a.example.com+2 0123").contains("a.example.com and 2 more names"));
    assert!(text("https://127.0.0.1:14000/dir", Limit::WaitDirectory, "").starts_with("127.0.0.1 asked to wait"));
}
