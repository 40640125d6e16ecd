use proptest::{prelude::*, sample::select};

use super::*;
use crate::policy::{Operator, Requirement};

const ZONE: &str = "auth.test";

fn name(text: &str) -> Name {
    text.parse().expect(text)
}

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| text.parse().expect(text)).collect()
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn labels(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A rule of one namespace for some names.
fn rule(namespace: &str, names: &[&str]) -> Rule {
    Rule { namespaces: texts(&[namespace]), names: patterns(names), ..Rule::default() }
}

fn by_label(team: &str, names: &[&str]) -> Rule {
    let selector = Selector::new(labels(&[("team", team)]), Vec::new()).expect("valid");
    Rule { selector: Some(selector), names: patterns(names), ..Rule::default() }
}

fn policy(rules: &[Rule]) -> Policy {
    Policy { rules: rules.to_vec() }
}

/// An attempt with everything that it points at.
#[derive(Debug, Clone)]
struct Case {
    namespace: String,
    labels: Option<BTreeMap<String, String>>,
    dns_name: Option<Name>,
    owner: Name,
    backend: Option<String>,
    secret: bool,
    zones: Vec<Name>,
}

impl Case {
    /// For a name of `team-a`, at its challenge name.
    fn of(dns_name: &str) -> Self {
        Self {
            namespace: "team-a".to_owned(),
            labels: None,
            dns_name: Some(name(dns_name)),
            owner: name(&format!("_acme-challenge.{dns_name}")),
            backend: Some("corp".to_owned()),
            secret: false,
            zones: vec![name(ZONE)],
        }
    }

    fn at(self, owner: &str) -> Self {
        Self { owner: name(owner), ..self }
    }

    fn attempt(&self) -> Attempt<'_> {
        Attempt {
            namespace: &self.namespace,
            labels: self.labels.as_ref(),
            dns_name: self.dns_name.as_ref(),
            owner: &self.owner,
            backend: self.backend.as_deref(),
            secret: self.secret,
            zones: &self.zones,
        }
    }

    fn is_allowed_by(&self, rules: &[Rule]) -> bool {
        policy(rules).allows(&self.attempt()).is_ok()
    }

    fn refused_by(&self, rules: &[Rule]) -> String {
        policy(rules).allows(&self.attempt()).expect_err("a refusal").to_string()
    }
}

#[test]
fn namespaces_are_meant_by_name_or_by_labels() {
    let case = Case::of("a.example.com");
    let of = |team: &str| Case { labels: Some(labels(&[("team", team)])), ..case.clone() };
    let listed = rule("team-a", &["*"]);
    let either = Rule { namespaces: texts(&["team-b"]), ..by_label("a", &["*"]) };
    assert!(case.is_allowed_by(&[rule("team-b", &["*"]), listed]));
    assert!(case.is_allowed_by(&[rule("*", &["*"])]));
    assert!(!case.is_allowed_by(&[rule("team", &["*"])]));
    assert!(!case.is_allowed_by(&[rule("TEAM-A", &["*"])]));
    assert!(of("a").is_allowed_by(std::slice::from_ref(&either)), "by its labels");
    assert!(!of("b").is_allowed_by(std::slice::from_ref(&either)));
    assert!(Case { namespace: "team-b".to_owned(), ..of("b") }.is_allowed_by(std::slice::from_ref(&either)), "by its name");
    // Labels that are not known match nothing, not even what asks for their absence.
    let absent = Requirement { key: "blocked".to_owned(), operator: Operator::DoesNotExist, values: Vec::new() };
    let selector = Selector::new(BTreeMap::new(), vec![absent]).expect("valid");
    let free = Rule { selector: Some(selector), names: patterns(&["*"]), ..Rule::default() };
    assert!(of("a").is_allowed_by(std::slice::from_ref(&free)));
    assert!(!case.is_allowed_by(&[free]));
    assert!(!case.is_allowed_by(&[Rule { names: patterns(&["*"]), ..Rule::default() }]), "a rule of nobody allows nobody");
}

#[test]
fn without_targets_a_value_stands_at_the_name_s_own_places() {
    let rules = [rule("team-a", &["a.example.com"])];
    let case = Case::of("a.example.com");
    for (owner, allowed) in [
        ("_acme-challenge.a.example.com", true),
        ("a.example.com.auth.test", true),
        ("_acme-challenge.a.example.com.auth.test", true),
        ("_ACME-Challenge.A.example.com", true),
        ("a.example.com", false),
        ("auth.test", false),
        ("x.a.example.com.auth.test", false),
        ("b.example.com.auth.test", false),
        ("_acme-challenge.b.example.com", false),
        ("_acme-challenge.x.a.example.com", false),
        ("a.example.com.notauth.test", false),
        ("a.example.com.elsewhere.test", false),
    ] {
        assert_eq!(case.clone().at(owner).is_allowed_by(&rules), allowed, "{owner}");
    }
    // In nested zones a place belongs to one name.
    let nested = Case { zones: vec![name(ZONE), name("com.auth.test")], ..case.at("a.example.com.auth.test") };
    assert!(!nested.is_allowed_by(&rules));
    assert!(nested.at("a.example.com.com.auth.test").is_allowed_by(&rules));
}

#[test]
fn targets_name_every_place() {
    let rules = [Rule { targets: Some(patterns(&["*.dns.test", "one.test"])), ..rule("team-a", &["a.example.com"]) }];
    for (owner, allowed) in [
        ("x.dns.test", true),
        ("one.test", true),
        ("dns.test", false),
        ("_acme-challenge.a.example.com", false),
        ("a.example.com.auth.test", false),
    ] {
        assert_eq!(Case::of("a.example.com").at(owner).is_allowed_by(&rules), allowed, "{owner}");
    }
}

#[test]
fn without_a_dns_name_the_owner_stands_for_it() {
    let case = |owner: &str| Case { dns_name: None, ..Case::of("unused") }.at(owner);
    let rules = [rule("team-a", &["a.example.com"])];
    assert!(case("_acme-challenge.a.example.com").is_allowed_by(&rules));
    assert!(case("a.example.com").is_allowed_by(&rules));
    assert!(case("cert-manager-dns01-tests.a.example.com").is_allowed_by(&rules));
    assert!(!case("_acme-challenge.example.com").is_allowed_by(&rules));
    assert!(!case("a.example.com.auth.test").is_allowed_by(&rules));
    let exactly = [rule("team-a", &["*.a.example.com"])];
    assert!(!case("_acme-challenge.a.example.com").is_allowed_by(&exactly), "the label of the challenge is not part of the name");
    assert!(!case(".").is_allowed_by(&rules));
    let targets = [Rule { targets: Some(patterns(&["elsewhere.test"])), ..rule("team-a", &["*"]) }];
    assert!(!case("_acme-challenge.a.example.com").is_allowed_by(&targets));
    assert!(case("elsewhere.test").is_allowed_by(&targets));
}

#[test]
fn backends_and_secrets_are_conditions() {
    let case = Case::of("a.example.com");
    let rules = [Rule { backends: Some(texts(&["corp", "embedded"])), ..rule("team-a", &["*"]) }];
    let through = |backend: Option<&str>| Case { backend: backend.map(str::to_owned), ..case.clone() };
    for (backend, allowed) in [(Some("corp"), true), (Some("embedded"), true), (Some("other"), false), (None, true)] {
        assert_eq!(through(backend).is_allowed_by(&rules), allowed, "{backend:?}");
    }
    let secret = Case { secret: true, ..case };
    assert!(!secret.is_allowed_by(&rules));
    assert!(secret.is_allowed_by(&[Rule { secrets: true, ..rules[0].clone() }]));
}

#[test]
fn the_first_rule_that_allows_is_given() {
    let rules = [rule("team-b", &["*"]), rule("team-a", &["a.example.com"]), rule("*", &["*"])];
    let policy = policy(&rules);
    assert_eq!(policy.allows(&Case::of("a.example.com").attempt()), Ok(&rules[1]));
    assert_eq!(policy.allows(&Case::of("b.example.com").attempt()), Ok(&rules[2]));
    // The conditions of two rules do not add up to one that allows.
    let halves = [rule("team-b", &["a.example.com"]), rule("team-a", &["b.example.com"])];
    assert!(!Case::of("a.example.com").is_allowed_by(&halves));
}

#[test]
fn refusals_tell_the_nearest_miss_and_what_to_add() {
    let case = Case::of("a.example.com");
    let far = [rule("team-c", &["*"])];
    let named = [rule("team-c", &["*"]), rule("team-a", &["d.test", "b.test", "c.test"]), rule("*", &["a.test", "b.test"])];
    let allowed = Rule { backends: Some(texts(&["other"])), ..rule("team-a", &["*.com"]) };
    let target = Rule { targets: Some(patterns(&["one.test"])), ..rule("team-a", &["*"]) };
    let messages = [
        case.refused_by(&[]),
        case.clone().at("evil.test").refused_by(&[]),
        Case { secret: true, ..case.clone() }.refused_by(&far),
        case.refused_by(&[far[0].clone(), by_label("a", &["*"])]),
        Case { labels: Some(labels(&[("team", "b")])), ..case.clone() }.refused_by(&[by_label("a", &["*"])]),
        case.refused_by(&named),
        case.clone().at("_acme-challenge.b.example.com").refused_by(&[allowed.clone(), named[1].clone()]),
        case.clone().at("evil.auth.test").refused_by(&[allowed.clone(), target.clone()]),
        case.refused_by(std::slice::from_ref(&target)),
        case.refused_by(&[allowed.clone(), target]),
        Case { secret: true, backend: Some("other".to_owned()), ..case }.refused_by(&[allowed]),
    ];
    insta::assert_snapshot!("refusals", messages.join("\n"));
}

/// Names, namespaces, backends and places of a small world, so that rules and attempts often meet.
fn any_rule() -> impl Strategy<Value = Rule> {
    let pattern = || select(vec!["*", "a.test", "*.a.test", "b.test", "x.a.test", "auth.test", "_acme-challenge.a.test"]);
    let patterns_of = move || prop::collection::vec(pattern(), 1..3).prop_map(|texts| patterns(&texts));
    let selector = select(vec![None, Some("a"), Some("b")]);
    let backends = select(vec![None, Some(texts(&["corp"])), Some(texts(&["embedded", "other"]))]);
    let namespaces = prop::collection::vec(select(vec!["*", "one", "two"]), 0..3);
    (namespaces, selector, patterns_of(), prop::option::of(patterns_of()), backends, any::<bool>()).prop_map(
        |(namespaces, team, names, targets, backends, secrets)| Rule {
            namespaces: texts(&namespaces),
            selector: team.and_then(|team| by_label(team, &[]).selector),
            names,
            targets,
            backends,
            secrets,
        },
    )
}

fn any_case() -> impl Strategy<Value = Case> {
    let dns_name = select(vec![None, Some("a.test"), Some("x.a.test"), Some("b.test"), Some("ba.test")]);
    let owner = select(vec!["_acme-challenge.a.test", "a.test.auth.test", "_acme-challenge.b.test", "x.a.test", "elsewhere.org"]);
    let team = select(vec![None, Some("a"), Some("b")]);
    let backend = select(vec![None, Some("corp"), Some("embedded")]);
    (select(vec!["one", "two", "three"]), team, dns_name, owner, backend, any::<bool>()).prop_map(
        |(namespace, team, dns_name, owner, backend, secret)| Case {
            namespace: namespace.to_owned(),
            labels: team.map(|team| labels(&[("team", team)])),
            dns_name: dns_name.map(name),
            owner: name(owner),
            backend: backend.map(str::to_owned),
            secret,
            zones: vec![name(ZONE)],
        },
    )
}

proptest! {
    #[test]
    fn a_rule_more_takes_nothing_away(rules in prop::collection::vec(any_rule(), 0..4), more in any_rule(), at in any::<prop::sample::Index>(), case in any_case()) {
        let mut with = rules.clone();
        with.insert(at.index(rules.len() + 1), more.clone());
        prop_assert_eq!(case.is_allowed_by(&with), case.is_allowed_by(&rules) || case.is_allowed_by(&[more]));
    }

    #[test]
    fn the_order_of_the_rules_changes_no_answer(
        (rules, shuffled) in prop::collection::vec(any_rule(), 0..5).prop_flat_map(|rules| (Just(rules.clone()), Just(rules).prop_shuffle())),
        case in any_case(),
    ) {
        let answer = |rules: &[Rule]| policy(rules).allows(&case.attempt()).map(drop);
        prop_assert_eq!(answer(&rules), answer(&shuffled));
    }

    #[test]
    fn a_rule_that_is_farther_off_changes_no_refusal(rules in prop::collection::vec(any_rule(), 1..4), far in any_rule(), case in any_case()) {
        let nearest = rules.iter().map(|rule| rule.judge(&case.attempt()).err()).collect::<Option<Vec<_>>>();
        let (Some(misses), Err(miss)) = (nearest, far.judge(&case.attempt())) else { return Ok(()) };
        if misses.into_iter().max().is_some_and(|nearest| miss < nearest) {
            let mut with = rules.clone();
            with.push(far);
            prop_assert_eq!(case.refused_by(&with), case.refused_by(&rules));
        }
    }

    #[test]
    fn what_a_refusal_suggests_would_be_allowed(case in any_case()) {
        let suggested = Rule::suggested(&case.attempt());
        prop_assert!(case.is_allowed_by(std::slice::from_ref(&suggested)), "{}", suggested);
        prop_assert!(case.refused_by(&[]).ends_with(&suggested.to_string()));
    }

    #[test]
    fn a_rule_for_a_name_never_reaches_another(label in "[a-z]{1,8}", case in any_case()) {
        let rules = [rule("*", &["a.test"])];
        let other = Case { dns_name: Some(name(&format!("{label}a.test"))), owner: name(&format!("_acme-challenge.{label}a.test")), ..case };
        prop_assert!(!other.is_allowed_by(&rules));
    }
}
