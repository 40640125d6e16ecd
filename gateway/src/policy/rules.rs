//! The rules: which namespaces may have which names written, where, and through which backends.
//!
//! A rule allows an attempt if all of its conditions hold, and an attempt is allowed if one rule allows it; what no rule allows is refused. So a rule that is
//! added never takes anything away, and the order of the rules matters for nothing but which of them is told to have allowed it.
//!
//! The place of a value is a condition of its own, because a tenant is master of its own DNS: it could point the CNAME of its challenge name at the
//! challenge name of somebody else, and have values written there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use authdns::Name;
use serde::Serialize;

use super::{CHALLENGE_LABEL, Pattern, Selector};

/// Most names that a refusal quotes from the rules.
const MOST_QUOTED: usize = 3;

/// The rules, in the order of the configuration. Without one, nothing is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// The rules.
    pub rules: Vec<Rule>,
}

/// What some namespaces may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// The namespaces by name; `*` is every one. A namespace is meant if it is listed here or if `selector` matches its labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// The namespaces by their labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// The names that certificates may be for.
    pub names: Vec<Pattern>,
    /// Where values may stand, CNAMEs followed; `None` is at the challenge name and at its place in an embedded zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub targets: Option<Vec<Pattern>>,
    /// The backends that may be used, `embedded` among them; `None` is any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backends: Option<Vec<String>>,
    /// May an issuer's `config` name a Secret of its own namespace.
    pub secrets: bool,
}

/// What somebody wants to do.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The namespace of the issuer.
    pub namespace: &'a str,
    /// That namespace's labels; `None` where they are not known.
    pub labels: Option<&'a BTreeMap<String, String>>,
    /// The name that the certificate is for, without `*.`. Where it was left out, the owner name stands for it, without its challenge label.
    pub dns_name: Option<&'a Name>,
    /// Where the value shall stand.
    pub owner: &'a Name,
    /// The backend that would write it; `None` leaves this condition out.
    pub backend: Option<&'a str>,
    /// A Secret of the namespace shall be used.
    pub secret: bool,
    /// The embedded zones.
    pub zones: &'a [Name],
}

/// The first condition of a rule that does not hold; the later it comes, the nearer the rule was to allowing the attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Miss {
    /// The rule does not mean the namespace.
    Namespace,
    /// The rule may mean the namespace; its labels are not known.
    Labels,
    /// The name is not among `names`.
    Name,
    /// The place is not among `targets`.
    Target,
    /// The backend is not among `backends`.
    Backend,
    /// The rule allows no Secrets.
    Secret,
}

/// Why no rule allows an attempt, and what an administrator should add if it is meant to be. The same text for the same rules in any order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(String);

impl Policy {
    /// The first rule that allows the attempt.
    ///
    /// # Errors
    /// [`Refusal`], where none does.
    pub fn allows(&self, attempt: &Attempt<'_>) -> Result<&Rule, Refusal> {
        self.rules.iter().find(|rule| rule.judge(attempt).is_ok()).ok_or_else(|| self.refusal(attempt))
    }

    fn refusal(&self, attempt: &Attempt<'_>) -> Refusal {
        let nearest = self.rules.iter().filter_map(|rule| rule.judge(attempt).err()).max();
        let near: Vec<&Rule> = self.rules.iter().filter(|rule| rule.judge(attempt).err() == nearest).collect();
        let Attempt { namespace, owner, .. } = attempt;
        let subject = attempt.subject().to_relative_string();
        let place = owner.to_relative_string();
        let missing = Rule::suggested(attempt);
        Refusal(match nearest {
            None => format!("webhook.policy has no rule, so that nothing is allowed: add {missing}"),
            Some(Miss::Namespace) => {
                format!("no rule of webhook.policy is for the namespace {namespace}: add it to the namespaces of one, or add {missing}")
            }
            Some(Miss::Labels) => format!(
                "no rule of webhook.policy names the namespace {namespace}, and its labels, by which some rules go, are not known here: add it to the namespaces of one, or add {missing}"
            ),
            Some(Miss::Name) => format!(
                "the namespace {namespace} may not write for {subject}: its rules name {}; add {subject:?} to the names of one of them in webhook.policy",
                listed(near.iter().flat_map(|rule| &rule.names).map(ToString::to_string))
            ),
            Some(Miss::Target) => {
                let advice = if attempt.challenge().as_ref() == Some(owner) {
                    "let the CNAME of that name lead to one of them, or"
                } else {
                    "correct the CNAME that leads there, or"
                };
                let own = || attempt.own_places().map(|place| place.to_relative_string());
                let allowed = near.iter().flat_map(|rule| match &rule.targets {
                    Some(targets) => targets.iter().map(ToString::to_string).collect::<Vec<_>>(),
                    None => own().collect(),
                });
                format!(
                    "the namespace {namespace} may write for {subject}, but not at {place}: its rules allow {}; {advice} add {place:?} to the targets of one of them in webhook.policy",
                    listed(allowed)
                )
            }
            Some(Miss::Backend) => {
                let backend = attempt.backend.unwrap_or_default();
                let allowed = near.iter().flat_map(|rule| rule.backends.iter().flatten().cloned());
                format!(
                    "the namespace {namespace} may write for {subject}, but not through the backend {backend}: its rules allow {}; name one of them in the issuer's config, or add {backend:?} to the backends of a rule in webhook.policy",
                    listed(allowed)
                )
            }
            Some(Miss::Secret) => format!(
                "the namespace {namespace} may write for {subject}, but not with a Secret of its own: leave it out of the issuer's config, or set secrets: true in its rule in webhook.policy"
            ),
        })
    }
}

impl Rule {
    /// Whether the rule allows the attempt.
    ///
    /// # Errors
    /// The first [`Miss`].
    pub fn judge(&self, attempt: &Attempt<'_>) -> Result<(), Miss> {
        self.means_namespace(attempt)?;
        let holds = |holds: bool, miss: Miss| if holds { Ok(()) } else { Err(miss) };
        let subject = attempt.subject();
        holds(self.names.iter().any(|pattern| pattern.matches(&subject)), Miss::Name)?;
        let at_target = match &self.targets {
            Some(targets) => targets.iter().any(|pattern| pattern.matches(attempt.owner)),
            None => attempt.own_places().any(|place| place == *attempt.owner),
        };
        holds(at_target, Miss::Target)?;
        let through = self.backends.as_ref().zip(attempt.backend);
        holds(through.is_none_or(|(allowed, backend)| allowed.iter().any(|one| one == backend)), Miss::Backend)?;
        holds(self.secrets || !attempt.secret, Miss::Secret)
    }

    fn means_namespace(&self, attempt: &Attempt<'_>) -> Result<(), Miss> {
        if self.namespaces.iter().any(|listed| listed == "*" || listed == attempt.namespace) {
            return Ok(());
        }
        match (&self.selector, attempt.labels) {
            (Some(selector), Some(labels)) if selector.matches(labels) => Ok(()),
            (Some(_), None) => Err(Miss::Labels),
            _ => Err(Miss::Namespace),
        }
    }

    /// The least that allows an attempt, as an administrator could write it down.
    fn suggested(attempt: &Attempt<'_>) -> Self {
        let at_own_place = attempt.own_places().any(|place| place == *attempt.owner);
        Self {
            namespaces: vec![attempt.namespace.to_owned()],
            names: vec![Pattern::Within(attempt.subject())],
            targets: (!at_own_place).then(|| vec![Pattern::Within(attempt.owner.clone())]),
            secrets: attempt.secret,
            ..Self::default()
        }
    }
}

impl Attempt<'_> {
    /// The name that the rules' `names` are asked about.
    fn subject(&self) -> Name {
        self.dns_name.cloned().unwrap_or_else(|| {
            let challenge = self.owner.labels().next().is_some_and(|label| label == CHALLENGE_LABEL);
            self.owner.parent().filter(|_| challenge).unwrap_or_else(|| self.owner.clone())
        })
    }

    /// The challenge name of the subject; `None` if it would be too long.
    fn challenge(&self) -> Option<Name> {
        self.subject().prepend(CHALLENGE_LABEL).ok()
    }

    /// Where a value for the subject may stand without being named as a target: its challenge name, and, in the embedded zone that holds the owner,
    /// `<name>.<zone>` and `_acme-challenge.<name>.<zone>`. That zone is the longest around the owner, so that no place belongs to two names. An owner that stands for
    /// the name itself is its own place.
    fn own_places(&self) -> impl Iterator<Item = Name> {
        let zone = self.zones.iter().filter(|zone| self.owner.is_within(zone)).max_by_key(|zone| zone.depth());
        let names = [self.challenge(), Some(self.subject())];
        let in_zone = names.clone().into_iter().flatten().filter_map(move |name| name.under(zone?).ok());
        let [challenge, _] = names;
        let own = self.dns_name.is_none().then(|| self.owner.clone());
        challenge.into_iter().chain(in_zone).chain(own)
    }
}

/// Each once, in order, and no more than a few.
fn listed(texts: impl Iterator<Item = String>) -> String {
    let texts: BTreeSet<String> = texts.collect();
    let more = texts.len().saturating_sub(MOST_QUOTED);
    let quoted = texts.into_iter().take(MOST_QUOTED).collect::<Vec<_>>().join(", ");
    match more {
        0 if quoted.is_empty() => "none".to_owned(),
        0 => quoted,
        more => format!("{quoted} and {more} more"),
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Namespace => "it is not for the namespace",
            Self::Labels => "it goes by labels, and those of the namespace are not known",
            Self::Name => "the name is not among its names",
            Self::Target => {
                "the place of the value is not among its targets (without targets: the challenge name and its place in an embedded zone)"
            }
            Self::Backend => "the backend is not among its backends",
            Self::Secret => "it allows no Secrets of the namespace",
        })
    }
}

/// On one line, as it could stand in the configuration (YAML's flow style).
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |texts: &[Pattern]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        f.write_str("{")?;
        if !self.namespaces.is_empty() {
            write!(f, "namespaces: {:?}, ", self.namespaces)?;
        }
        if let Some(selector) = &self.selector {
            write!(f, "selector: {selector}, ")?;
        }
        write!(f, "names: {:?}", quoted(&self.names))?;
        if let Some(targets) = &self.targets {
            write!(f, ", targets: {:?}", quoted(targets))?;
        }
        if let Some(backends) = &self.backends {
            write!(f, ", backends: {backends:?}")?;
        }
        if self.secrets {
            f.write_str(", secrets: true")?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests;
