//! Does DNSSEC stand in the way, in the zone of the challenge name or in that of its value?

use std::collections::BTreeSet;

use authdns::Name;
use futures_util::future::join_all;

use super::report::{Outcome, Rung, RungId};
use crate::propagation::{
    Resolver,
    diagnose::{self, Dnssec, Security},
};

const ID: RungId = RungId::Dnssec;

/// Looks at each of these zones; the worst of them counts.
pub(super) async fn climb(resolver: &Resolver, zones: &BTreeSet<Name>) -> Rung {
    if zones.is_empty() {
        return Rung::skipped(ID, "the zone of the name is not known");
    }
    let found = join_all(zones.iter().map(|zone| async move {
        match diagnose::dnssec(resolver, zone).await {
            Ok(found) => judge(&found),
            Err(error) => Rung::warning(
                ID,
                format!("{} could not be looked at: {error}", zone.to_relative_string()),
                "see to the resolvers under propagation.resolvers, or to the servers of the zone",
            ),
        }
    }))
    .await;
    let evidence: Vec<String> = found.iter().flat_map(|rung| rung.evidence.iter().cloned()).collect();
    let summary = found.iter().map(|rung| rung.summary.as_str()).collect::<Vec<_>>().join("; ");
    let worst = found.into_iter().max_by_key(|rung| rung.outcome);
    match worst {
        Some(worst) if worst.outcome > Outcome::Ok => worst.because(evidence),
        _ => Rung::ok(ID, summary).because(evidence),
    }
}

fn judge(found: &Dnssec) -> Rung {
    let zone = found.zone.to_relative_string();
    let has = |there: bool| if there { "has" } else { "has no" };
    let mut evidence = vec![format!("{zone}: the parent {} DS records, the zone {} DNSKEY records", has(found.ds), has(found.dnskey))];
    evidence.extend(found.faults.iter().map(|fault| format!("{zone}: {fault}")));
    let advice = found.advice();
    let rung = match found.security {
        Security::Secure => Rung::ok(ID, format!("{zone} validates")),
        Security::Insecure => {
            evidence.extend(advice);
            Rung::ok(ID, format!("{zone} is not signed for the world, so that nobody validates it"))
        }
        Security::Unvalidated => {
            Rung::ok(ID, format!("{zone} is signed, its keys fit and its signatures are in date; the resolvers do not validate"))
        }
        Security::Bogus => Rung::failed(
            ID,
            format!("{zone} does not validate: CAs get no answer"),
            "sign the zone anew, and compare the DS records at the registrar with its keys; to get on at once, remove those DS records",
        ),
        Security::Unresolvable => {
            Rung::failed(ID, format!("{zone} does not resolve, validated or not"), "mend its delegation and its servers first")
        }
    };
    rung.because(evidence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_is_said_with_what_says_so() {
        for (ds, dnskey, security, outcome, said) in [
            (true, true, Security::Secure, Outcome::Ok, "validates"),
            (false, false, Security::Insecure, Outcome::Ok, "nobody validates it"),
            (true, true, Security::Unvalidated, Outcome::Ok, "the resolvers do not validate"),
            (true, true, Security::Bogus, Outcome::Failed, "does not validate: CAs get no answer"),
            (true, false, Security::Unresolvable, Outcome::Failed, "does not resolve"),
        ] {
            let zone = "example.test".parse().expect("a name");
            let faults = if security == Security::Bogus { vec!["the signatures of its SOA record ended".to_owned()] } else { Vec::new() };
            let rung = judge(&Dnssec { zone, ds, dnskey, faults: faults.clone(), security });
            assert!(rung.outcome == outcome && rung.summary.contains(said), "{rung:?}");
            assert_eq!(rung.next.is_some(), outcome == Outcome::Failed);
            assert_eq!(rung.evidence.len(), 1 + faults.len(), "{rung:?}");
        }
    }

    #[tokio::test]
    async fn without_a_zone_or_a_resolver_it_says_so() {
        let resolver = Resolver::new(Vec::new());
        assert_eq!(climb(&resolver, &BTreeSet::new()).await.outcome, Outcome::Skipped);
        let rung = climb(&resolver, &BTreeSet::from(["example.test".parse().expect("a name")])).await;
        assert!(rung.outcome == Outcome::Warning && rung.summary.contains("there are no resolvers"), "{rung:?}");
    }
}
