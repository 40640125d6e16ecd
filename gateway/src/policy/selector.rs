//! A Kubernetes LabelSelector: which namespaces a rule means by their labels.
//!
//! Requirements are joined by "and". As in Kubernetes, `NotIn` also matches where the label is absent.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

/// Longest label value, and longest name part of a label's key.
const LONGEST: usize = 63;
/// Longest prefix of a label's key, which is a DNS subdomain.
const LONGEST_PREFIX: usize = 253;

/// Matches sets of labels; valid, and never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    match_labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    match_expressions: Vec<Requirement>,
}

/// One of `matchExpressions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// How its value is looked at.
    pub operator: Operator,
    /// What it is compared with; empty for [`Operator::Exists`] and [`Operator::DoesNotExist`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// How a requirement looks at a label's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Operator {
    /// The label is there, and has one of the values.
    In,
    /// The label has none of the values, or is not there.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
}

/// Why a selector is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Nothing is required, which in Kubernetes means everything.
    #[error("is empty: give it matchLabels or matchExpressions, or write namespaces: [\"*\"] for every namespace")]
    Empty,
    /// Not a key that a label can have.
    #[error("{0:?} is not the key of a label, such as team or example.com/team")]
    Key(String),
    /// Not a value that a label can have.
    #[error("{0:?} is not the value of a label (at most {LONGEST} letters, digits, -, _ and ., and a letter or digit at both ends)")]
    Value(String),
    /// `In` or `NotIn` without values.
    #[error("{0} of the key {1:?} needs values")]
    NeedsValues(Operator, String),
    /// `Exists` or `DoesNotExist` with values.
    #[error("{0} of the key {1:?} takes no values: leave them out, or write In")]
    TakesNoValues(Operator, String),
}

impl Selector {
    /// A selector as Kubernetes writes it.
    ///
    /// # Errors
    /// The first [`SelectorError`].
    pub fn new(match_labels: BTreeMap<String, String>, match_expressions: Vec<Requirement>) -> Result<Self, SelectorError> {
        if match_labels.is_empty() && match_expressions.is_empty() {
            return Err(SelectorError::Empty);
        }
        for (key, value) in &match_labels {
            check_key(key)?;
            check_value(value)?;
        }
        match_expressions.iter().try_for_each(Requirement::check)?;
        Ok(Self { match_labels, match_expressions })
    }

    /// True if labels fulfil every requirement.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.matches(labels.get(&requirement.key)))
    }
}

impl Requirement {
    fn check(&self) -> Result<(), SelectorError> {
        check_key(&self.key)?;
        self.values.iter().try_for_each(|value| check_value(value))?;
        match (self.operator, self.values.is_empty()) {
            (Operator::In | Operator::NotIn, true) => Err(SelectorError::NeedsValues(self.operator, self.key.clone())),
            (Operator::Exists | Operator::DoesNotExist, false) => Err(SelectorError::TakesNoValues(self.operator, self.key.clone())),
            _ => Ok(()),
        }
    }

    fn matches(&self, value: Option<&String>) -> bool {
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

/// `[prefix/]name`, as Kubernetes takes it.
fn check_key(key: &str) -> Result<(), SelectorError> {
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.first().is_some_and(alphanumeric)
            && bytes.last().is_some_and(alphanumeric)
            && bytes.iter().all(|byte| alphanumeric(byte) || *byte == b'-')
    };
    let prefix_fits = prefix.is_none_or(|prefix| prefix.len() <= LONGEST_PREFIX && prefix.split('.').all(label));
    if prefix_fits && !name.is_empty() && is_label_text(name) { Ok(()) } else { Err(SelectorError::Key(key.to_owned())) }
}

fn check_value(value: &str) -> Result<(), SelectorError> {
    if is_label_text(value) { Ok(()) } else { Err(SelectorError::Value(value.to_owned())) }
}

/// A value may be empty.
fn is_label_text(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= LONGEST
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
        && bytes.first().is_none_or(u8::is_ascii_alphanumeric)
        && bytes.last().is_none_or(u8::is_ascii_alphanumeric)
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::In => "In",
            Self::NotIn => "NotIn",
            Self::Exists => "Exists",
            Self::DoesNotExist => "DoesNotExist",
        })
    }
}

/// On one line, in YAML's flow style.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        if !self.match_labels.is_empty() {
            f.write_str("matchLabels: {")?;
            for (number, (key, value)) in self.match_labels.iter().enumerate() {
                write!(f, "{}{key:?}: {value:?}", if number == 0 { "" } else { ", " })?;
            }
            f.write_str("}")?;
        }
        if !self.match_expressions.is_empty() {
            f.write_str(if self.match_labels.is_empty() { "matchExpressions: [" } else { ", matchExpressions: [" })?;
            for (number, Requirement { key, operator, values }) in self.match_expressions.iter().enumerate() {
                write!(f, "{}{{key: {key:?}, operator: {operator}", if number == 0 { "" } else { ", " })?;
                if !values.is_empty() {
                    write!(f, ", values: {values:?}")?;
                }
                f.write_str("}")?;
            }
            f.write_str("]")?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn requirement(key: &str, operator: Operator, values: &[&str]) -> Requirement {
        Requirement { key: key.to_owned(), operator, values: values.iter().map(|value| (*value).to_owned()).collect() }
    }

    fn selector(match_labels: &[(&str, &str)], expressions: Vec<Requirement>) -> Selector {
        Selector::new(labels(match_labels), expressions).expect("valid")
    }

    #[test]
    fn every_requirement_has_to_be_fulfilled() {
        use Operator::{DoesNotExist, Exists, In, NotIn};
        let given = labels(&[("team", "a"), ("env", "prod"), ("empty", "")]);
        for (operator, key, values, matches) in [
            (In, "team", &["a", "b"][..], true),
            (In, "team", &["b"], false),
            (In, "team", &["A"], false),
            (In, "absent", &["a"], false),
            (In, "empty", &[""], true),
            (NotIn, "team", &["b"], true),
            (NotIn, "team", &["a", "b"], false),
            (NotIn, "absent", &["a"], true),
            (Exists, "team", &[], true),
            (Exists, "empty", &[], true),
            (Exists, "absent", &[], false),
            (DoesNotExist, "absent", &[], true),
            (DoesNotExist, "team", &[], false),
        ] {
            let selector = selector(&[], vec![requirement(key, operator, values)]);
            assert_eq!(selector.matches(&given), matches, "{selector}");
        }
        assert!(selector(&[("team", "a"), ("env", "prod")], Vec::new()).matches(&given));
        assert!(!selector(&[("team", "a"), ("env", "test")], Vec::new()).matches(&given));
        assert!(!selector(&[("absent", "")], Vec::new()).matches(&given));
        assert!(!selector(&[("team", "a")], vec![requirement("env", NotIn, &["prod"])]).matches(&given));
        assert!(!selector(&[("team", "a")], Vec::new()).matches(&labels(&[])));
    }

    #[test]
    fn what_kubernetes_would_not_take_is_refused() {
        let new = |match_labels: &[(&str, &str)], expressions| Selector::new(labels(match_labels), expressions).map(|_| ());
        assert_eq!(new(&[], Vec::new()), Err(SelectorError::Empty));
        for key in ["", "a b", "-a", "a-", "/a", "a/", "A.example/a", "a..b/c", "a/b/c", &"k".repeat(64)] {
            assert_eq!(new(&[(key, "a")], Vec::new()), Err(SelectorError::Key(key.to_owned())), "{key}");
        }
        for key in ["a", "Team_1.x", "kubernetes.io/metadata.name", "a-b.example/C", &"k".repeat(63)] {
            assert_eq!(new(&[(key, "a")], Vec::new()), Ok(()), "{key}");
        }
        for value in ["a b", "-a", "a.", "a/b", &"v".repeat(64)] {
            assert_eq!(new(&[("a", value)], Vec::new()), Err(SelectorError::Value(value.to_owned())), "{value}");
            assert!(new(&[], vec![requirement("a", Operator::In, &[value])]).is_err(), "{value}");
        }
        for (operator, values, message) in [
            (Operator::In, &[][..], "In of the key \"a\" needs values"),
            (Operator::NotIn, &[], "NotIn of the key \"a\" needs values"),
            (Operator::Exists, &["a"], "Exists of the key \"a\" takes no values: leave them out, or write In"),
            (Operator::DoesNotExist, &["a"], "DoesNotExist of the key \"a\" takes no values: leave them out, or write In"),
        ] {
            let error = new(&[], vec![requirement("a", operator, values)]).expect_err(message);
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn it_is_shown_as_it_is_written() {
        let both = selector(
            &[("env", "prod"), ("team", "a")],
            vec![requirement("tier", Operator::In, &["1", "2"]), requirement("old", Operator::DoesNotExist, &[])],
        );
        assert_eq!(
            both.to_string(),
            r#"{matchLabels: {"env": "prod", "team": "a"}, matchExpressions: [{key: "tier", operator: In, values: ["1", "2"]}, {key: "old", operator: DoesNotExist}]}"#
        );
        assert_eq!(
            serde_json::to_value(selector(&[("team", "a")], Vec::new())).expect("JSON"),
            serde_json::json!({"matchLabels": {"team": "a"}})
        );
    }

    proptest! {
        #[test]
        fn operators_come_in_opposites(value in prop::option::of("[ab]"), values in prop::collection::vec("[ab]", 1..3)) {
            let given: BTreeMap<String, String> = value.map(|value| ("k".to_owned(), value)).into_iter().collect();
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let matches = |operator, values: &[&str]| selector(&[], vec![requirement("k", operator, values)]).matches(&given);
            prop_assert_ne!(matches(Operator::In, &values), matches(Operator::NotIn, &values));
            prop_assert_ne!(matches(Operator::Exists, &[]), matches(Operator::DoesNotExist, &[]));
        }
    }
}
