//! The rung `challenges`: which of the challenges that we have to meet are stuck, and why?

use std::{cmp::Reverse, time::Duration};

use jiff::Timestamp;
use kube::{ResourceExt, api::DynamicObject};
use serde_json::Value;

use super::{
    super::report::{Outcome, Rung, RungId},
    ask::{Asked, Listed, Unasked},
    explain::{Remedy, meaning},
    issuers::{Issuer, Ours},
    text::{MOST_SHOWN, count_of, short},
};

const ID: RungId = RungId::Challenges;
/// DNS may take its time to show a value everywhere, but not that long.
const SEEN_BY_NOW: Duration = Duration::from_secs(3600);
/// How many different things to do are told.
const MOST_REMEDIES: usize = 3;
const RIGHT: &str = "{apiGroups: [acme.cert-manager.io], resources: [challenges], verbs: [list]}";

/// A Challenge whose solver is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    namespace: String,
    name: String,
    /// What the certificate is for.
    dns_name: String,
    /// The value stands where the CNAMEs of the challenge name lead.
    follows: bool,
    solver: String,
    issuer: (String, String),
    created: Option<Timestamp>,
    /// Since when it should be gone.
    deleted: Option<Timestamp>,
    /// Something keeps it from going.
    held: bool,
    state: String,
    presented: bool,
    processing: bool,
    reason: String,
}

impl Challenge {
    /// Reads what cert-manager's API has; `None` if it is not for this API group.
    pub(super) fn read(object: &DynamicObject, group: &str) -> Option<Self> {
        let at = |pointer: &str| object.data.pointer(pointer);
        let text = |pointer: &str| at(pointer).and_then(Value::as_str).unwrap_or_default();
        if text("/spec/solver/dns01/webhook/groupName") != group {
            return None;
        }
        let is = |pointer: &str| at(pointer).and_then(Value::as_bool).unwrap_or(false);
        let kind = Some(text("/spec/issuerRef/kind")).filter(|kind| !kind.is_empty()).unwrap_or("Issuer");
        Some(Self {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            dns_name: domain(text("/spec/dnsName")),
            follows: text("/spec/solver/dns01/cnameStrategy") == "Follow",
            solver: short(text("/spec/solver/dns01/webhook/solverName")),
            issuer: (short(kind), short(text("/spec/issuerRef/name"))),
            created: object.metadata.creation_timestamp.as_ref().map(|time| time.0),
            deleted: object.metadata.deletion_timestamp.as_ref().map(|time| time.0),
            held: !object.finalizers().is_empty(),
            state: short(text("/status/state")),
            presented: is("/status/presented"),
            processing: is("/status/processing"),
            reason: short(text("/status/reason")),
        })
    }

    fn has_ended(&self) -> bool {
        matches!(&*self.state, "valid" | "invalid" | "expired" | "errored")
    }

    fn age(&self, since: Option<Timestamp>, now: Timestamp) -> Duration {
        since.and_then(|since| Duration::try_from(now.duration_since(since)).ok()).unwrap_or_default()
    }
}

/// A challenge that does not get on.
struct Finding {
    outcome: Outcome,
    age: Duration,
    lines: Vec<String>,
    next: String,
}

/// `issuers` are of both kinds.
pub(super) fn judge(
    listed: &Asked<Listed<Challenge>>,
    issuers: [&Asked<Listed<Issuer>>; 2],
    ours: &Ours<'_>,
    stuck_after: Duration,
    now: Timestamp,
    user: &str,
) -> Rung {
    let listed = match listed {
        Ok(listed) => listed,
        Err(Unasked::Missing) => return Rung::skipped(ID, "the cluster knows no Challenges: see the rung `issuers`"),
        Err(unasked) => return unasked.rung(ID, "Challenges", user, RIGHT),
    };
    let mut findings: Vec<Finding> =
        listed.found.iter().filter_map(|challenge| finding(challenge, issuers, ours, stuck_after, now)).collect();
    findings.sort_by_key(|finding| Reverse((finding.outcome, finding.age)));
    let (stuck, all) = (findings.len(), listed.found.len());
    let mut next: Vec<String> = Vec::new();
    for finding in findings.iter().take(MOST_SHOWN) {
        if next.len() < MOST_REMEDIES && !next.contains(&finding.next) {
            next.push(finding.next.clone());
        }
    }
    let outcome = findings.first().map_or(Outcome::Ok, |finding| finding.outcome);
    let mut evidence: Vec<String> = findings.into_iter().take(MOST_SHOWN).flat_map(|finding| finding.lines).collect();
    if stuck > MOST_SHOWN {
        evidence.push(format!("and {} more", stuck - MOST_SHOWN));
    }
    if !listed.whole {
        evidence.push("the cluster has more challenges than were looked at".to_owned());
    }
    let rung = match outcome {
        Outcome::Failed => Rung::failed(ID, format!("challenges that do not get on: {stuck} of {all}"), next.join("\n")),
        Outcome::Warning => Rung::warning(ID, format!("challenges that are slow, or have failed: {stuck} of {all}"), next.join("\n")),
        _ if !listed.whole => Rung::warning(
            ID,
            "there are more challenges than were looked at; of these, none is stuck",
            "look at the others by namespace: kubectl get challenges",
        ),
        _ if all == 0 => Rung::ok(ID, "no challenge is under way"),
        _ => Rung::ok(ID, format!("{} under way, none stuck", count_of(all, "challenge"))),
    };
    rung.because(evidence)
}

fn finding(
    challenge: &Challenge,
    issuers: [&Asked<Listed<Issuer>>; 2],
    ours: &Ours<'_>,
    stuck_after: Duration,
    now: Timestamp,
) -> Option<Finding> {
    let (age, leaving) = (challenge.age(challenge.created, now), challenge.age(challenge.deleted, now));
    let (outcome, age, state, why) = match challenge {
        Challenge { deleted: Some(_), held: true, .. } => {
            (leaving > stuck_after).then_some(())?;
            (Outcome::Failed, leaving, "deleted, and held by its finalizer (its namespace cannot go either)", why(challenge, issuers, ours))
        }
        // On its way out.
        Challenge { deleted: Some(_), .. } => return None,
        _ if challenge.state == "valid" => return None,
        _ if challenge.has_ended() => (Outcome::Warning, age, "ended without success", why(challenge, issuers, ours)),
        _ if age <= stuck_after => return None,
        Challenge { presented: true, .. } => {
            let outcome = if age > SEEN_BY_NOW { Outcome::Failed } else { Outcome::Warning };
            (outcome, age, "presented", why(challenge, issuers, ours))
        }
        Challenge { processing: false, reason, .. } if reason.is_empty() => {
            let means = "cert-manager has not begun with it: it works on 60 at once, and on one for each name";
            (Outcome::Warning, age, "waiting", (means, Remedy::CertManager))
        }
        _ => (Outcome::Failed, age, "not presented", why(challenge, issuers, ours)),
    };
    let (means, remedy) = why;
    let Challenge { namespace, name, dns_name, .. } = challenge;
    let place = if challenge.follows { ", or where its CNAME leads" } else { "" };
    let mut lines = vec![
        format!("{namespace}/{name}, {}, {state}: {means}", lasted(age)),
        format!("  its value belongs at _acme-challenge.{dns_name}{place}"),
    ];
    if !challenge.reason.is_empty() {
        lines.push(format!("  status.reason: {}", challenge.reason));
    }
    Some(Finding { outcome, age, lines, next: next(challenge, ours, remedy) })
}

/// What keeps it, and what helps.
fn why(challenge: &Challenge, issuers: [&Asked<Listed<Issuer>>; 2], ours: &Ours<'_>) -> (&'static str, Remedy) {
    let (kind, name) = &challenge.issuer;
    // Whoever has not seen all of them does not know that one is gone.
    let seen = issuers.iter().all(|list| list.as_ref().is_ok_and(|list| list.whole));
    let mut all = issuers.iter().filter_map(|list| list.as_ref().ok()).flat_map(|list| &list.found);
    if seen && !all.any(|issuer| issuer.is(kind, name, &challenge.namespace)) {
        return ("its issuer is gone, and without it cert-manager can neither present nor clean up", Remedy::Issuer);
    }
    if challenge.solver != ours.solver {
        return ("its solverName is not ours", Remedy::Rung("issuers"));
    }
    match &*challenge.reason {
        "" if challenge.presented => ("the value is in DNS; cert-manager has not told the CA yet, or the CA is at it", Remedy::Name),
        "" => ("cert-manager says nothing of it", Remedy::CertManager),
        reason => meaning(reason),
    }
}

fn next(challenge: &Challenge, ours: &Ours<'_>, remedy: Remedy) -> String {
    let Challenge { namespace, name, dns_name, issuer: (kind, issuer), .. } = challenge;
    let delete = format!("kubectl --namespace {namespace} delete challenge {name}");
    match remedy {
        Remedy::Issuer if challenge.deleted.is_some() => format!(
            "create the {kind} {} again; or let the Challenge go without a CleanUp, and look for its value afterwards (acmegate sweep):\n\
             kubectl --namespace {namespace} patch challenge {name} --type merge --patch '{{\"metadata\": {{\"finalizers\": null}}}}'",
            issuer
        ),
        Remedy::Issuer => format!("create the {kind} {} again, or {delete}", issuer),
        // Whatever was in the way, cert-manager tries again.
        Remedy::Rung(rung) if challenge.deleted.is_some() => format!("see the rung `{rung}`; then it goes by itself"),
        Remedy::Policy => {
            let namespace = if kind == "ClusterIssuer" { ours.cluster_namespace } else { namespace };
            format!(
                "see what the rules say: acmegate policy test --namespace {namespace} --name {dns_name}; then change webhook.policy, or delete the Certificate"
            )
        }
        Remedy::Config => {
            format!("mend the config of the {kind} {}, then kubectl --namespace {namespace} delete challenge {name}", issuer)
        }
        Remedy::Name => format!("acmegate check {dns_name}"),
        Remedy::Log => "look into the log of `acmegate serve`, and at its data folder (is the disk full?)".to_owned(),
        Remedy::Rung(rung) => format!("see the rung `{rung}`; if the Challenge stays afterwards, {delete}"),
        Remedy::CertManager => {
            format!("kubectl --namespace {namespace} describe challenge {name}; and look into the log of cert-manager's controller")
        }
    }
}

/// A name that a person may copy into a shell: whoever may write Challenges may write anything in the place of one.
fn domain(text: &str) -> String {
    let is_domain = text.len() <= 253 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._*".contains(&b));
    if is_domain { text.to_owned() } else { "NO-DOMAIN-NAME".to_owned() }
}

/// `for 5 min` is enough.
fn lasted(age: Duration) -> String {
    match age.as_secs() {
        seconds @ ..120 => format!("for {seconds} s"),
        seconds @ ..7200 => format!("for {} min", seconds / 60),
        seconds @ ..172_800 => format!("for {} h", seconds / 3600),
        seconds => format!("for {} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests;
