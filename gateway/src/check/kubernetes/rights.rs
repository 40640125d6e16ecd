//! The rung `rights`: what we ourselves have to be allowed in the cluster, as far as the configuration needs it.

use std::collections::BTreeSet;

use k8s_openapi::api::authorization::v1::ResourceAttributes;
use providers::secret::SecretRef;

use super::{
    super::report::{Outcome, Rung, RungId},
    ask::Asked,
    text::{count_of, first},
};
use crate::{
    config::{self, Callers, Config},
    doors::webhook::VERSION,
};

const ID: RungId = RungId::Rights;

/// Something that we have to be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Right {
    /// Each of these.
    pub(super) verbs: &'static [&'static str],
    group: &'static str,
    resource: &'static str,
    /// One object alone; `None` is all of them.
    name: Option<String>,
    /// One namespace alone; `None` is the whole cluster.
    namespace: Option<String>,
    /// How bad it is to be without.
    without: Outcome,
    /// What does not happen then.
    lost: &'static str,
}

/// What the configuration needs; `own` is our namespace.
pub(super) fn needed(config: &Config, webhook: &config::Webhook, own: &str) -> Vec<Right> {
    let right =
        |verbs, group, resource, lost| Right { verbs, group, resource, name: None, namespace: None, without: Outcome::Failed, lost };
    let mut rights = Vec::new();
    if webhook.callers == Some(Callers::Cluster) {
        rights.push(Right {
            name: Some("extension-apiserver-authentication".to_owned()),
            namespace: Some("kube-system".to_owned()),
            ..right(&["get", "list", "watch"], "", "configmaps", "nobody is let in: who may call is not known")
        });
        let lost = "everybody is refused: what callers may do is not known";
        rights.push(right(&["create"], "authorization.k8s.io", "subjectaccessreviews", lost));
        rights.push(Right {
            without: Outcome::Warning,
            ..right(&["create"], "authentication.k8s.io", "tokenreviews", "callers with a token are refused")
        });
    }
    if webhook.service.is_some() {
        rights.push(Right {
            name: Some(format!("{VERSION}.{}", webhook.group)),
            ..right(&["list", "watch", "patch"], "apiregistration.k8s.io", "apiservices", "the caBundle of our certificate is not written")
        });
    }
    if webhook.policy.rules.iter().any(|rule| rule.selector.is_some()) {
        rights.push(right(&["list", "watch"], "", "namespaces", "rules of webhook.policy with a selector mean nobody"));
    }
    rights.push(Right {
        without: Outcome::Warning,
        ..right(&["create", "patch"], "events.k8s.io", "events", "people are not told by Events of what was refused")
    });
    let secrets = config.backends.iter().flat_map(|backend| backend.settings.secrets()).filter_map(|(_, secret)| match secret {
        SecretRef::Kubernetes(secret) => Some((secret.namespace.unwrap_or_else(|| own.to_owned()), secret.name)),
        // Which Secrets issuers have is not in the configuration: see the rung `issuers`.
        SecretRef::File(_) | SecretRef::Env(_) | SecretRef::Issuer(_) => None,
    });
    // One Secret may have many keys.
    for (namespace, name) in secrets.collect::<BTreeSet<_>>() {
        rights.push(Right {
            name: Some(name),
            namespace: Some(namespace),
            ..right(&["get"], "", "secrets", "a backend has no credential")
        });
    }
    rights
}

/// `answers` has one for each verb of each right, in their order.
pub(super) fn judge(rights: &[Right], answers: &[Vec<Asked<bool>>], user: &str) -> Rung {
    let (mut lines, mut missing, mut outcome) = (Vec::new(), Vec::new(), Outcome::Ok);
    let mut unasked = None;
    for (right, answers) in rights.iter().zip(answers) {
        let lacks: Vec<&str> = right.verbs.iter().zip(answers).filter(|(_, answer)| **answer == Ok(false)).map(|(verb, _)| *verb).collect();
        unasked = unasked.or_else(|| answers.iter().find_map(|answer| answer.as_ref().err()));
        if !lacks.is_empty() {
            outcome = outcome.max(right.without);
            lines.push(format!("missing: {} of {}: {}", lacks.join(", "), right.object(), right.lost));
            missing.push(right.rule());
        }
    }
    if missing.is_empty() {
        return match unasked {
            Some(unasked) => Rung::skipped(ID, format!("what {user} may do could not be asked: {unasked}")),
            None => Rung::ok(ID, format!("{user} may do all that the configuration needs ({})", count_of(rights.len(), "right"))),
        };
    }
    let next = format!(
        "grant what is missing (the chart does by rbac.create: true; is this the account of acmegate?):\n{}",
        first(missing).join("\n")
    );
    let summary = format!("{user} lacks {} that the configuration needs", count_of(lines.len(), "right"));
    let rung = if outcome == Outcome::Failed { Rung::failed(ID, summary, next) } else { Rung::warning(ID, summary, next) };
    rung.because(first(lines))
}

impl Right {
    /// The question about one of the verbs.
    pub(super) fn attributes(&self, verb: &str) -> ResourceAttributes {
        ResourceAttributes {
            verb: Some(verb.to_owned()),
            group: Some(self.group.to_owned()),
            resource: Some(self.resource.to_owned()),
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            ..Default::default()
        }
    }

    /// `secrets/dns in team-a`.
    fn object(&self) -> String {
        let group = if self.group.is_empty() { String::new() } else { format!(".{}", self.group) };
        let name = self.name.as_ref().map_or_else(String::new, |name| format!("/{name}"));
        let place = self.namespace.as_ref().map_or_else(String::new, |namespace| format!(" in {namespace}"));
        format!("{}{group}{name}{place}", self.resource)
    }

    /// As it would stand in a Role or ClusterRole.
    fn rule(&self) -> String {
        let role = self.namespace.as_ref().map_or_else(|| "ClusterRole".to_owned(), |namespace| format!("Role in {namespace}"));
        let names = self.name.as_ref().map_or_else(String::new, |name| format!("resourceNames: [{name}], "));
        let group = if self.group.is_empty() { "\"\"" } else { self.group };
        let verbs = self.verbs.join(", ");
        format!("{role}: {{apiGroups: [{group}], resources: [{}], {names}verbs: [{verbs}]}}", self.resource)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{
        super::{
            super::report::Outcome::{Failed, Ok as Fine, Skipped, Warning},
            ask::Unasked,
        },
        *,
    };

    const ALONE: &str = "version: v1\ndata: /tmp/x\nwebhook: {listen: \"127.0.0.1:8443\"}\n";
    const WHOLE: &str = r#"
version: v1
data: /tmp/x
webhook:
  listen: "0.0.0.0:8443"
  callers: {cluster: true}
  service: {name: gate, namespace: dns}
  policy: [{selector: {matchLabels: {team: a}}, names: ["*"]}]
backends:
- {name: a, provider: cloudflare, zones: [example.com], settings: {token: {kubernetes: {name: own, key: token}}}}
- {name: b, provider: cloudflare, zones: [example.net], settings: {token: {kubernetes: {name: theirs, key: token, namespace: team-a}}}}
"#;

    fn rights(yaml: &str) -> Vec<Right> {
        let config = Config::from_yaml(yaml, Path::new("config.yaml")).unwrap();
        needed(&config, config.webhook.as_ref().unwrap(), "dns")
    }

    fn objects(rights: &[Right]) -> Vec<String> {
        rights.iter().map(Right::object).collect()
    }

    #[test]
    fn no_more_is_asked_for_than_the_configuration_needs() {
        assert_eq!(objects(&rights(ALONE)), ["events.events.k8s.io"]);
        let whole = [
            "configmaps/extension-apiserver-authentication in kube-system",
            "subjectaccessreviews.authorization.k8s.io",
            "tokenreviews.authentication.k8s.io",
            "apiservices.apiregistration.k8s.io/v1alpha1.acme.acmegate.io",
            "namespaces",
            "events.events.k8s.io",
            "secrets/own in dns",
            "secrets/theirs in team-a",
        ];
        assert_eq!(objects(&rights(WHOLE)), whole);
    }

    #[test]
    fn what_is_missing_is_told_as_a_rule() {
        let rights = rights(WHOLE);
        let all: Vec<Vec<Asked<bool>>> = rights.iter().map(|right| right.verbs.iter().map(|_| Ok(true)).collect()).collect();
        let judged = |right: usize, verb: usize, answer: Asked<bool>| {
            let mut answers = all.clone();
            answers[right][verb] = answer;
            judge(&rights, &answers, "robot")
        };
        assert_eq!(judged(0, 0, Ok(true)).outcome, Fine);
        let events = judged(5, 1, Ok(false));
        assert_eq!(events.outcome, Warning);
        assert_eq!(events.evidence, ["missing: patch of events.events.k8s.io: people are not told by Events of what was refused"]);
        let roots = judged(0, 2, Ok(false));
        assert_eq!(roots.outcome, Failed);
        let rule = "Role in kube-system: {apiGroups: [\"\"], resources: [configmaps], resourceNames: [extension-apiserver-authentication], verbs: [get, list, watch]}";
        assert!(roots.next.unwrap().ends_with(rule));
        let away = judged(0, 0, Err(Unasked::Failed("gone".into())));
        assert_eq!((away.outcome, away.summary.as_str()), (Skipped, "what robot may do could not be asked: gone"));
    }
}
