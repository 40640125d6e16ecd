//! Which CAs may issue for the name.

use super::{
    clock::Asked,
    report::{Rung, RungId},
    subject::Subject,
};
use crate::propagation::{
    Resolver,
    diagnose::{Caa, CaaClimb, CaaRecord},
};

const ID: RungId = RungId::Caa;

/// Looks the records up, and reads them as each CA of the configuration does.
pub(super) async fn climb(resolver: &Resolver, subject: &Subject, asked: &[Asked]) -> Rung {
    match CaaClimb::new(resolver).find(None, &subject.domain).await {
        Ok(caa) => judge(&caa, subject.wildcard, asked),
        Err(error) => Rung::failed(
            ID,
            format!("the CAA records could not be looked up, for which CAs refuse: {error}"),
            "mend the servers or the DNSSEC of the zone that fails; a server that does not know CAA has to answer with an empty answer, not with an error",
        ),
    }
}

fn judge(caa: &Caa, wildcard: bool, asked: &[Asked]) -> Rung {
    let Some(at) = &caa.at else { return Rung::ok(ID, "no CAA record at the name or above it: every CA may issue") };
    let at = at.to_relative_string();
    let mut evidence: Vec<String> = caa.records.iter().flat_map(|record| lines(&at, record)).collect();
    let mut refusals = Vec::new();
    let mut known = 0;
    for (place, ca) in asked.iter().enumerate() {
        if ca.identities.is_empty() {
            evidence.push(format!("{}: does not say by which name CAA records mean it", ca.name));
            continue;
        }
        known += 1;
        match caa.allows(&ca.identities, ca.account.as_deref(), wildcard) {
            Ok(()) => evidence.push(format!("{} ({}): may issue", ca.name, ca.identities.join(", "))),
            Err(why) => {
                evidence.push(format!("{} ({}): may not issue", ca.name, ca.identities.join(", ")));
                refusals.push((place, &ca.name, why));
            }
        }
    }
    let named = |(_, name, why): &(usize, &String, String)| (format!("{name} may not issue: {}", split(why).0), split(why).1.to_owned());
    let rung = match refusals.first() {
        // The first is the one that `issue` takes when it is told nothing.
        Some(refusal) if refusal.0 == 0 || refusals.len() == known => {
            let (summary, next) = named(refusal);
            Rung::failed(ID, summary, next)
        }
        Some(refusal) => {
            let (summary, next) = named(refusal);
            Rung::warning(ID, summary, format!("if {} shall issue: {next}", refusal.1))
        }
        None if known > 0 => Rung::ok(ID, format!("the CAA records of {at} let the configured CAs issue")),
        None => unknown(caa, &at, wildcard),
    };
    rung.because(evidence)
}

/// No CA of the configuration says who it is.
fn unknown(caa: &Caa, at: &str, wildcard: bool) -> Rung {
    let of = |tag: &str| caa.records.iter().filter(|record| record.tag == tag).collect::<Vec<_>>();
    let relevant = match of("issuewild") {
        wild if wildcard && !wild.is_empty() => wild,
        _ => of("issue"),
    };
    let issuers: Vec<&str> = relevant.iter().filter_map(|record| record.issuer.as_deref()).collect();
    if relevant.is_empty() {
        return Rung::ok(ID, format!("the CAA records of {at} let every CA issue"));
    }
    if issuers.is_empty() {
        return Rung::failed(
            ID,
            format!("the CAA records of {at} let nobody issue"),
            format!("add {at} CAA 0 {} with the CA's domain", if wildcard { "issuewild" } else { "issue" }),
        );
    }
    Rung::warning(
        ID,
        format!("the CAA records of {at} let {} issue; whether that is a CA of yours could not be found out", issuers.join(", ")),
        "compare with what your CA's documentation gives as its CAA identity",
    )
}

/// A record as a zone file has it, and what RFC 8657 makes of it.
fn lines(at: &str, record: &CaaRecord) -> Vec<String> {
    let mut lines = vec![format!("{at} CAA {} {} {:?}", if record.critical { 128 } else { 0 }, record.tag, record.value)];
    lines.extend(record.account_uri.iter().map(|uri| format!("  only for the account {uri}")));
    if !record.validation_methods.is_empty() {
        lines.push(format!("  only by {}", record.validation_methods.join(", ")));
    }
    lines
}

/// What is wrong, and what to do about it.
fn split(why: &str) -> (&str, &str) {
    why.rsplit_once(": ").unwrap_or((why, "change the CAA records"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::report::Outcome;

    fn record(tag: &str, value: &str, issuer: Option<&str>) -> CaaRecord {
        CaaRecord {
            tag: tag.to_owned(),
            value: value.to_owned(),
            critical: false,
            issuer: issuer.map(str::to_owned),
            account_uri: None,
            validation_methods: Vec::new(),
        }
    }

    fn ca(name: &str, identities: &[&str], account: Option<&str>) -> Asked {
        let identities = identities.iter().map(|&one| one.to_owned()).collect();
        Asked { name: name.to_owned(), identities, account: account.map(str::to_owned), ahead: Ok(0) }
    }

    fn caa(records: Vec<CaaRecord>) -> Caa {
        Caa { at: Some("example.test".parse().unwrap()), records }
    }

    #[test]
    fn what_the_default_ca_may_not_fails_and_what_another_may_not_warns() {
        let records = || caa(vec![record("issue", "a.test", Some("a.test"))]);
        let (a, b) = (|| ca("a", &["a.test"], None), || ca("b", &["b.test"], None));
        assert_eq!(judge(&records(), false, &[a(), b()]).outcome, Outcome::Warning);
        let refused = judge(&records(), false, &[b(), a()]);
        assert_eq!(refused.outcome, Outcome::Failed);
        assert_eq!(refused.next.as_deref(), Some("add example.test CAA 0 issue \"b.test\""), "{refused:?}");
        assert_eq!(judge(&records(), false, &[a()]).outcome, Outcome::Ok);
        assert_eq!(judge(&records(), false, &[ca("old", &[], None), b()]).outcome, Outcome::Failed, "the one that is known may not");
        assert_eq!(judge(&Caa::default(), false, &[b()]).outcome, Outcome::Ok);
    }

    #[test]
    fn wildcards_and_accounts_are_told_apart_and_shown() {
        let wild = caa(vec![record("issue", "a.test", Some("a.test")), record("issuewild", ";", None)]);
        assert_eq!(judge(&wild, false, &[ca("a", &["a.test"], None)]).outcome, Outcome::Ok);
        let refused = judge(&wild, true, &[ca("a", &["a.test"], None)]);
        assert_eq!((refused.outcome, refused.next.as_deref()), (Outcome::Failed, Some("add example.test CAA 0 issuewild \"a.test\"")));
        let mut bound = record("issue", "a.test; accounturi=https://a.test/1; validationmethods=dns-01", Some("a.test"));
        bound.account_uri = Some("https://a.test/1".to_owned());
        bound.validation_methods = vec!["dns-01".to_owned()];
        let mine = judge(&caa(vec![bound.clone()]), false, &[ca("a", &["a.test"], Some("https://a.test/1"))]);
        assert_eq!(mine.outcome, Outcome::Ok);
        assert_eq!(mine.evidence[1..3], ["  only for the account https://a.test/1".to_owned(), "  only by dns-01".to_owned()]);
        let theirs = judge(&caa(vec![bound]), false, &[ca("a", &["a.test"], Some("https://a.test/2"))]);
        assert!(
            theirs.outcome == Outcome::Failed && theirs.next.as_deref() == Some("set its accounturi to https://a.test/2"),
            "{theirs:?}"
        );
    }

    #[test]
    fn without_a_known_ca_the_records_are_shown_and_only_a_ban_fails() {
        let some = judge(&caa(vec![record("issue", "a.test", Some("a.test"))]), false, &[ca("old", &[], None)]);
        assert!(some.outcome == Outcome::Warning && some.evidence[0] == "example.test CAA 0 issue \"a.test\"", "{some:?}");
        assert_eq!(judge(&caa(vec![record("issue", ";", None)]), false, &[]).outcome, Outcome::Failed);
        assert_eq!(judge(&caa(vec![record("iodef", "mailto:a@b.test", None)]), true, &[]).outcome, Outcome::Ok);
    }
}
