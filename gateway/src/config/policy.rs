//! The list `webhook.policy:`: from what is written to the rules that are asked.

use std::{collections::HashSet, fmt::Display, str::FromStr};

use super::{
    parse::{Parser, flat},
    spec::{BackendSpec, OperatorSpec, RuleSpec, SelectorSpec},
};
use crate::policy::{CHALLENGE_LABEL, Operator, Pattern, Policy, Requirement, Rule, Selector};

/// The backend that is always there.
const EMBEDDED: &str = "embedded";

impl Parser<'_> {
    pub(super) fn policy(&mut self, specs: &[RuleSpec], backends: &[BackendSpec]) -> Option<Policy> {
        let rules = specs.iter().enumerate().map(|(index, spec)| self.rule(spec, backends, &format!("webhook.policy[{index}]")));
        let rules = rules.collect::<Vec<_>>().into_iter().collect::<Option<_>>()?;
        Some(Policy { rules })
    }

    fn rule(&mut self, spec: &RuleSpec, backends: &[BackendSpec], path: &str) -> Option<Rule> {
        if spec.namespaces.is_none() && spec.selector.is_none() {
            self.wrong(
                path,
                "is for no namespace: add namespaces: [team-a], namespaces: [\"*\"] for every one, or a selector of their labels",
            );
        }
        if let Some(namespaces) = &spec.namespaces {
            self.namespaces(namespaces, &format!("{path}.namespaces"));
        }
        let selector = spec.selector.as_ref().map(|selector| self.selector(selector, &format!("{path}.selector")));
        let names = self.patterns(
            &spec.names,
            &format!("{path}.names"),
            "is empty: name what certificates may be for, such as example.com, or \"*\" for every name",
        );
        for (index, pattern) in names.iter().flatten().enumerate() {
            let starts = pattern.apex().and_then(|apex| apex.labels().next().map(|label| label == CHALLENGE_LABEL));
            if starts == Some(true) {
                let message = "is a challenge name: write the name that certificates are for, without _acme-challenge";
                self.wrong(&format!("{path}.names[{index}]"), message);
            }
        }
        let targets = spec.targets.as_ref().map(|targets| {
            self.patterns(
                targets,
                &format!("{path}.targets"),
                "is empty: leave it out for the challenge name and its place in an embedded zone",
            )
        });
        if let Some(names) = &spec.backends {
            self.rule_backends(names, backends, &format!("{path}.backends"));
        }
        Some(Rule {
            namespaces: spec.namespaces.clone().unwrap_or_default(),
            selector: flat(selector)?,
            names: names?,
            targets: flat(targets)?,
            backends: spec.backends.clone(),
            secrets: spec.secrets,
        })
    }

    fn namespaces(&mut self, namespaces: &[String], path: &str) {
        self.a_few_different(namespaces, path, "is empty: name a namespace, or \"*\" for every one");
        for (index, namespace) in namespaces.iter().enumerate() {
            let is_label = (1..=63).contains(&namespace.len())
                && namespace.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !namespace.starts_with('-')
                && !namespace.ends_with('-');
            if namespace != "*" && !is_label {
                let message = format!("{namespace:?} is neither the name of a namespace, such as team-a, nor \"*\" for every one");
                self.wrong(&format!("{path}[{index}]"), message);
            }
        }
    }

    fn rule_backends(&mut self, names: &[String], backends: &[BackendSpec], path: &str) {
        self.a_few_different(names, path, "is empty: leave it out for every backend");
        for (index, name) in names.iter().enumerate() {
            if name != EMBEDDED && !backends.iter().any(|backend| backend.name == *name) {
                let known: Vec<&str> = std::iter::once(EMBEDDED).chain(backends.iter().map(|backend| backend.name.as_str())).collect();
                let message = format!("{name:?} is not among backends: add it there first, or name one of {}", known.join(", "));
                self.wrong(&format!("{path}[{index}]"), message);
            }
        }
    }

    fn patterns(&mut self, texts: &[String], path: &str, empty: &str) -> Option<Vec<Pattern>> {
        let patterns = texts.iter().enumerate().map(|(index, text)| {
            let read = Pattern::from_str(text);
            read.map_err(|error| self.wrong(&format!("{path}[{index}]"), format!("{text:?} is not a pattern of names: {error}"))).ok()
        });
        let patterns: Option<Vec<_>> = patterns.collect::<Vec<_>>().into_iter().collect();
        match &patterns {
            // `Example.com.` is `example.com` once more.
            Some(patterns) => self.a_few_different(patterns, path, empty),
            None => self.a_few_different(texts, path, empty),
        }
        patterns
    }

    /// A list that is there has something in it, and nothing twice.
    fn a_few_different<T: Display + Eq + std::hash::Hash>(&mut self, items: &[T], path: &str, empty: &str) {
        if items.is_empty() {
            self.wrong(path, empty);
        }
        let mut seen = HashSet::new();
        for (index, item) in items.iter().enumerate() {
            if !seen.insert(item) {
                self.wrong(&format!("{path}[{index}]"), format!("\"{item}\" stands here twice"));
            }
        }
    }

    fn selector(&mut self, spec: &SelectorSpec, path: &str) -> Option<Selector> {
        let expressions = spec.match_expressions.iter().map(|one| Requirement {
            key: one.key.clone(),
            operator: match one.operator {
                OperatorSpec::In => Operator::In,
                OperatorSpec::NotIn => Operator::NotIn,
                OperatorSpec::Exists => Operator::Exists,
                OperatorSpec::DoesNotExist => Operator::DoesNotExist,
            },
            values: one.values.clone(),
        });
        Selector::new(spec.match_labels.clone(), expressions.collect()).map_err(|error| self.wrong(path, error.to_string())).ok()
    }
}

#[cfg(test)]
mod tests;
