//! The rung `issuers`: do the issuers of cert-manager that mean us find us, and may they have anything written?

use std::collections::{BTreeMap, BTreeSet};

use authdns::Name;
use kube::{ResourceExt, api::DynamicObject};
use serde_json::Value;

use super::{
    super::report::{Outcome, Rung, RungId},
    ask::{Asked, Listed, Place, Unasked},
    text::{count_of, first, short},
};
use crate::{
    config::Config,
    doors::webhook::{Wanted, wanted},
    policy::{Attempt, Miss, Policy, Rule},
};

const ID: RungId = RungId::Issuers;
/// The backend that needs no entry under `backends`.
const EMBEDDED: &str = "embedded";
/// Slips of the pen by which a name is still meant.
const SLIPS: usize = 2;
/// Solvers of one issuer that are looked at.
const MOST_SOLVERS: usize = 100;
/// Secrets of issuers that are asked about.
const MOST_SECRETS: usize = 50;
/// Characters of a name that are read; ours have fewer.
const LONGEST_NAME: usize = 260;
const RIGHT: &str = "{apiGroups: [cert-manager.io], resources: [issuers, clusterissuers], verbs: [list]}";

/// An Issuer or ClusterIssuer, and what it has of webhooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Issuer {
    kind: String,
    /// `None` for a ClusterIssuer.
    namespace: Option<String>,
    name: String,
    /// Why it is not Ready, if it says that it is not.
    unready: Option<String>,
    solvers: Vec<Solver>,
}

/// A solver that is a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Solver {
    /// Its place among `spec.acme.solvers`; the first is 0.
    index: usize,
    group: String,
    name: String,
    /// What its `config` asks for, or how we would refuse it.
    wanted: Result<Wanted, String>,
}

/// Who we are, and whom we serve.
pub(super) struct Ours<'a> {
    /// The API group.
    pub(super) group: &'a str,
    /// The solver.
    pub(super) solver: &'a str,
    /// The backends of the configuration, `embedded` among them if there is an embedded zone.
    pub(super) backends: Vec<Backend<'a>>,
    /// Who may have what written.
    pub(super) policy: &'a Policy,
    /// All API groups that the API server has; `None` if they are not known.
    pub(super) groups: Option<BTreeSet<String>>,
    /// The labels of all namespaces; `None` if they are not known, or not needed.
    pub(super) labels: Option<BTreeMap<String, BTreeMap<String, String>>>,
    /// What counts as the namespace of a ClusterIssuer.
    pub(super) cluster_namespace: &'a str,
    /// What is known of the Secrets that issuers name.
    pub(super) secrets: BTreeMap<Place, Asked<()>>,
}

/// A backend that an issuer may pick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Backend<'a> {
    name: &'a str,
    /// It works with Secrets of issuers alone.
    lent: bool,
}

/// The backends that an issuer may pick.
pub(super) fn backends(config: &Config) -> Vec<Backend<'_>> {
    let embedded = config.dns.as_ref().is_some_and(|dns| !dns.zones.is_empty());
    let embedded = embedded.then_some(Backend { name: EMBEDDED, lent: false });
    embedded.into_iter().chain(config.backends.iter().map(|backend| Backend { name: &backend.name, lent: backend.is_lent() })).collect()
}

/// The Secrets of the issuers that mean us and name one that they may.
pub(super) fn secrets(lists: [&Asked<Listed<Issuer>>; 2], ours: &Ours<'_>) -> BTreeSet<Place> {
    let issuers = lists.into_iter().filter_map(|list| list.as_ref().ok()).flat_map(|list| &list.found);
    let solvers = issuers.flat_map(|issuer| issuer.solvers.iter().map(move |solver| (issuer, solver)));
    let ours_alone = solvers.filter(|(_, solver)| matches!(addressed(solver, ours), Addressed::Us));
    ours_alone.filter_map(|(issuer, solver)| allowed(issuer, solver, ours).ok().flatten()).take(MOST_SECRETS).collect()
}

impl Issuer {
    /// Reads what cert-manager's API has; what is not there, or not of its form, counts as absent.
    pub(super) fn read(kind: &str, object: &DynamicObject) -> Self {
        let solvers = object.data.pointer("/spec/acme/solvers").and_then(Value::as_array);
        let solvers = solvers.into_iter().flatten().enumerate().filter_map(|(index, solver)| {
            let webhook = solver.pointer("/dns01/webhook")?;
            let text = |key: &str| webhook.get(key).and_then(Value::as_str).unwrap_or_default().chars().take(LONGEST_NAME).collect();
            let wanted = wanted(webhook.get("config").unwrap_or(&Value::Null)).map_err(|refusal| short(&refusal));
            Some(Solver { index, group: text("groupName"), name: text("solverName"), wanted })
        });
        let conditions = object.data.pointer("/status/conditions").and_then(Value::as_array);
        let ready = conditions.into_iter().flatten().find(|condition| condition["type"] == "Ready");
        let unready = ready.filter(|ready| ready["status"] == "False").map(|ready| short(ready["message"].as_str().unwrap_or_default()));
        Self {
            kind: kind.to_owned(),
            namespace: object.namespace(),
            name: object.name_any(),
            unready,
            solvers: solvers.take(MOST_SOLVERS).collect(),
        }
    }

    /// Whether a Challenge in this namespace means this issuer by these.
    pub(super) fn is(&self, kind: &str, name: &str, namespace: &str) -> bool {
        self.kind == kind && self.name == name && self.namespace.as_deref().is_none_or(|own| own == namespace)
    }

    /// `Issuer team-a/acme`.
    fn title(&self) -> String {
        let namespace = self.namespace.as_ref().map_or_else(String::new, |namespace| format!("{namespace}/"));
        format!("{} {namespace}{}", self.kind, self.name)
    }

    fn edit(&self) -> String {
        let namespace = self.namespace.as_ref().map_or_else(String::new, |namespace| format!("--namespace {namespace} "));
        format!("kubectl {namespace}edit {} {}", self.kind.to_lowercase(), self.name)
    }
}

/// What is wrong with a solver of an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    outcome: Outcome,
    text: String,
}

fn failed(text: String) -> Finding {
    Finding { outcome: Outcome::Failed, text }
}

fn warning(text: String) -> Finding {
    Finding { outcome: Outcome::Warning, text }
}

/// The lists are of Issuers and ClusterIssuers.
pub(super) fn judge(lists: [&Asked<Listed<Issuer>>; 2], ours: &Ours<'_>, user: &str) -> Rung {
    let titles = ["Issuers", "ClusterIssuers"];
    let unseen: Vec<(&str, &Unasked)> =
        titles.into_iter().zip(lists).filter_map(|(title, list)| Some((title, list.as_ref().err()?))).collect();
    if let [(_, Unasked::Missing), (_, Unasked::Missing)] = unseen.as_slice() {
        return Rung::warning(
            ID,
            "the cluster knows no Issuers: cert-manager is not installed, or older than v1.0",
            "install cert-manager; without it nobody calls acmegate",
        );
    }
    if let [(_, unasked), (_, _)] = unseen.as_slice() {
        return unasked.rung(ID, "Issuers and ClusterIssuers", user, RIGHT);
    }
    let (mut ours_in_all, mut lines, mut edit, mut outcome) = (0, Vec::new(), None, Outcome::Ok);
    let issuers = || lists.iter().filter_map(|list| list.as_ref().ok()).flat_map(|list| &list.found);
    for issuer in issuers() {
        let (means_us, findings) = findings(issuer, ours);
        ours_in_all += usize::from(means_us);
        for (index, finding) in findings {
            // The worst ones are shown first; in one issuer, in their order.
            lines.push((finding.outcome, format!("{}, solver {}: {}", issuer.title(), index + 1, finding.text)));
            if finding.outcome > outcome {
                (outcome, edit) = (finding.outcome, Some(issuer.edit()));
            }
        }
    }
    lines.sort_by_key(|(outcome, _)| std::cmp::Reverse(*outcome));
    let (wrong, mut evidence) = (lines.len(), first(lines.into_iter().map(|(_, line)| line).collect()));
    evidence.extend(unseen.iter().map(|(title, unasked)| format!("{title} were not looked at: {unasked}")));
    let part = lists.iter().any(|list| list.as_ref().is_ok_and(|list| !list.whole));
    let mean = format!("issuers that have challenges met here: {ours_in_all} of {}", issuers().count());
    let rung = match (outcome, unseen.first()) {
        (Outcome::Failed, _) => Rung::failed(ID, format!("{mean}; {} to mend", count_of(wrong, "thing")), mend(edit)),
        (Outcome::Warning, _) => Rung::warning(ID, format!("{mean}; {} to look at", count_of(wrong, "thing")), mend(edit)),
        (_, Some((_, unasked))) => {
            return unasked.rung(ID, "every issuer", user, RIGHT).because(evidence);
        }
        _ if part => {
            Rung::warning(ID, format!("{mean}; there are more than were looked at"), "look at the others by namespace: kubectl get issuers")
        }
        _ if ours_in_all == 0 => Rung::warning(
            ID,
            "no issuer has challenges met here",
            format!("give one a solver\ndns01: {{webhook: {{groupName: {}, solverName: {}}}}}", ours.group, ours.solver),
        ),
        _ => Rung::ok(ID, mean),
    };
    if part {
        evidence.push("the cluster has more issuers than were looked at".to_owned());
    }
    rung.because(evidence)
}

fn mend(edit: Option<String>) -> String {
    let edit = edit.unwrap_or_default();
    format!(
        "mend each as it says; the first by {edit}\na Challenge that is under way keeps its solver: delete it, and cert-manager makes it anew"
    )
}

/// Whether one of the solvers means us for sure, and what is wrong with which.
fn findings(issuer: &Issuer, ours: &Ours<'_>) -> (bool, Vec<(usize, Finding)>) {
    let (mut means_us, mut findings) = (false, Vec::new());
    for solver in &issuer.solvers {
        let found = match addressed(solver, ours) {
            Addressed::Others => continue,
            Addressed::Us => {
                means_us = true;
                let unready = issuer.unready.iter().map(|message| warning(format!("the issuer is not Ready: {message}")));
                unready.chain(refused(issuer, solver, ours)).collect()
            }
            Addressed::Nobody(finding) => vec![finding],
        };
        findings.extend(found.into_iter().map(|finding| (solver.index, finding)));
    }
    (means_us, findings)
}

/// Whom a solver means.
enum Addressed {
    Us,
    Others,
    /// Us, as it seems, but it does not reach us.
    Nobody(Finding),
}

fn addressed(solver: &Solver, ours: &Ours<'_>) -> Addressed {
    let (group, name) = (short(&solver.group), short(&solver.name));
    let groups = || format!("groupName is {group:?}: write {}", ours.group);
    let served = ours.groups.as_ref().map(|groups| groups.contains(&solver.group));
    match (solver.group == ours.group, solver.name == ours.solver) {
        (true, true) => Addressed::Us,
        (true, false) => Addressed::Nobody(failed(format!("solverName is {name:?}: write {}", ours.solver))),
        // Another webhook may have a solver of our name.
        (false, _) if served == Some(true) => Addressed::Others,
        (false, same) if same || near(&solver.group, ours.group) => {
            let names = if same { String::new() } else { format!(", and solverName {name:?}: write {}", ours.solver) };
            let sure = served.is_some() || near(&solver.group, ours.group);
            Addressed::Nobody(if sure {
                failed(format!("no API server has the group of its solver: {}{names}", groups()))
            } else {
                warning(format!("whether another webhook has that group is not known: {}, if we are meant{names}", groups()))
            })
        }
        (false, _) => Addressed::Others,
    }
}

/// What we would say to every challenge of a solver that means us.
fn refused(issuer: &Issuer, solver: &Solver, ours: &Ours<'_>) -> Option<Finding> {
    let place = match allowed(issuer, solver, ours) {
        Ok(place) => place?,
        Err(finding) => return Some(finding),
    };
    let (namespace, name) = &place;
    match ours.secrets.get(&place)? {
        Err(Unasked::Missing) => Some(failed(format!("config: there is no Secret {name} in the namespace {namespace}: create it"))),
        Err(Unasked::Forbidden) => Some(failed(format!(
            "config: we may not read the Secret {name} in the namespace {namespace}: grant it by a Role \
             {{apiGroups: [\"\"], resources: [secrets], resourceNames: [{name}], verbs: [get]}} (the chart's value is secrets.namespaces)"
        ))),
        Ok(()) | Err(Unasked::Unauthorized | Unasked::Failed(_)) => None,
    }
}

/// The Secret that a solver which means us names, if it names one and may.
fn allowed(issuer: &Issuer, solver: &Solver, ours: &Ours<'_>) -> Result<Option<Place>, Finding> {
    let wanted = solver.wanted.as_ref().map_err(|refusal| failed(refusal.clone()))?;
    check_backend(wanted, ours)?;
    let namespace = issuer.namespace.as_deref().unwrap_or(ours.cluster_namespace);
    let rules = rules_for(namespace, ours).map_err(|miss| match miss {
        Miss::Labels => warning(format!("whether a rule of webhook.policy is for the namespace {namespace} is not known, as its labels are not")),
        _ if issuer.namespace.is_none() => warning(format!(
            "no rule of webhook.policy is for the namespace {namespace}, as one of which a ClusterIssuer counts (unless cert-manager's --cluster-resource-namespace is another)"
        )),
        _ => failed(format!("no rule of webhook.policy is for the namespace {namespace}: add it to the namespaces of one")),
    })?;
    if let Some(backend) = &wanted.backend
        && !rules.iter().any(|rule| rule.backends.as_ref().is_none_or(|allowed| allowed.contains(backend)))
    {
        return Err(failed(format!("config: no rule of webhook.policy lets the namespace {namespace} use the backend {backend}")));
    }
    if wanted.secret.is_some() && !rules.iter().any(|rule| rule.secrets) {
        let text = format!("config: no rule of webhook.policy lets the namespace {namespace} use a Secret: set secrets: true in one");
        return Err(failed(text));
    }
    Ok(wanted.secret.as_ref().map(|secret| (namespace.to_owned(), secret.clone())))
}

/// Whether there is the backend that is wanted, and whether it goes with a Secret, or without one.
fn check_backend(wanted: &Wanted, ours: &Ours<'_>) -> Result<(), Finding> {
    let Some(name) = wanted.backend.as_deref() else { return Ok(()) };
    let Some(backend) = ours.backends.iter().find(|backend| backend.name == name) else {
        let known: Vec<&str> = ours.backends.iter().map(|backend| backend.name).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(failed(format!("config: the backend {name} is not configured here; known: {known}")));
    };
    match (backend.lent, &wanted.secret) {
        (true, None) => {
            Err(failed(format!("config: the backend {name} has no credential of its own: name a Secret by secret: {{name: …}}")))
        }
        (false, Some(_)) => Err(failed(format!("config: the backend {name} works without a Secret of an issuer: remove the key secret"))),
        (true, Some(_)) | (false, None) => Ok(()),
    }
}

/// The rules that mean a namespace.
fn rules_for<'p>(namespace: &str, ours: &Ours<'p>) -> Result<Vec<&'p Rule>, Miss> {
    // Of a rule that means the namespace, a later condition fails, or none.
    let root = Name::root();
    let labels = ours.labels.as_ref().and_then(|labels| labels.get(namespace));
    let attempt = Attempt { namespace, labels, dns_name: Some(&root), owner: &root, backend: None, secret: false, zones: &[] };
    let judged: Vec<_> = ours.policy.rules.iter().map(|rule| (rule, rule.judge(&attempt))).collect();
    let rules: Vec<_> =
        judged.iter().filter(|(_, judged)| !matches!(judged, Err(Miss::Namespace | Miss::Labels))).map(|(rule, _)| *rule).collect();
    match rules.is_empty() {
        false => Ok(rules),
        true if judged.iter().any(|(_, judged)| *judged == Err(Miss::Labels)) => Err(Miss::Labels),
        true => Err(Miss::Namespace),
    }
}

/// Whether somebody who wrote `given` may well have meant `meant`: a few slips, other letters' case, or a version that does not belong there.
fn near(given: &str, meant: &str) -> bool {
    let plain = given.trim().to_ascii_lowercase();
    let plain = plain.trim_start_matches("v1alpha1.").trim_end_matches("/v1alpha1").trim_matches('.');
    // A longer one takes longer to compare, and cannot be near.
    plain.len().abs_diff(meant.len()) <= SLIPS && distance(plain.as_bytes(), meant.as_bytes()) <= SLIPS
}

/// Levenshtein's: letters put in, taken out, or changed.
fn distance(one: &[u8], other: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.iter().enumerate() {
        let (mut diagonal, mut left) = (index, index + 1);
        for (place, theirs) in row.iter_mut().skip(1).zip(other) {
            let changed = diagonal + usize::from(letter != theirs);
            diagonal = *place;
            left = changed.min(diagonal + 1).min(left + 1);
            *place = left;
        }
        if let Some(start) = row.first_mut() {
            *start = index + 1;
        }
    }
    row.last().copied().unwrap_or(one.len())
}

#[cfg(test)]
mod tests;
