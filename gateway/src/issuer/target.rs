//! Where the value of a domain goes, and the record that a person has to create if it goes nowhere.
//!
//! The CA looks at `_acme-challenge.<domain>` and follows CNAMEs. The issuer may write exactly two names for a domain, both inside a zone that
//! acmegate serves: the challenge name itself (a delegation by NS), or `<domain>.<zone>` (a delegation by CNAME). Any other end of the chain
//! belongs to somebody else: an acme-dns account (whatever form a domain has, names in an account's shape are the accounts' alone), or another domain whose owner did not ask for this.

use authdns::Name;

use crate::{
    policy::{CHALLENGE_LABEL, is_account_name},
    propagation::{Chain, ResolveError, Resolver, follow},
};

/// Where the values of one domain go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Destination {
    /// `_acme-challenge.<domain>`.
    pub(super) challenge: Name,
    /// The owner name of the TXT values.
    pub(super) owner: Name,
    /// The served zone around it.
    pub(super) zone: Name,
}

/// Follows the delegation of `domain`. `zone_of` gives the zone that holds a name, `served` are all of them, for the advice.
///
/// # Errors
/// A text that says what was found instead and which record to create.
pub(super) async fn find(
    domain: &Name,
    resolver: &Resolver,
    served: &[Name],
    zone_of: impl Fn(&Name) -> Option<Name>,
) -> Result<Destination, String> {
    let challenge = domain.prepend(CHALLENGE_LABEL).map_err(|error| format!("{domain}: {error}"))?;
    if let Some(zone) = zone_of(&challenge) {
        if is_account_name(&challenge, &zone) {
            return Err(format!("{} belongs to an acme-dns account: the issuer may not write it", challenge.to_relative_string()));
        }
        return Ok(Destination { owner: challenge.clone(), challenge, zone });
    }
    // The walk stops at the first name in a zone of ours. To ask a resolver for that name before its value stands there would leave "no such
    // name" in a cache that the CA may share.
    let chain = follow(resolver, &challenge, |name| zone_of(name).is_some()).await;
    judge(domain, challenge, chain, served, zone_of)
}

fn judge(
    domain: &Name,
    challenge: Name,
    chain: Result<Chain, ResolveError>,
    served: &[Name],
    zone_of: impl Fn(&Name) -> Option<Name>,
) -> Result<Destination, String> {
    let advice = match served.first().map(|zone| domain.under(zone)) {
        None => "no zone is served here: add one under dns.zones".to_owned(),
        Some(Err(_)) => {
            "the names of this domain and of the served zone are too long together: serve a zone with a shorter name".to_owned()
        }
        Some(Ok(wanted)) => format!("create the record\n  {challenge} CNAME {wanted}"),
    };
    let name = challenge.to_relative_string();
    let chain = match chain {
        Ok(chain) => chain,
        Err(error) => return Err(format!("{name} could not be followed: {error}")),
    };
    let Some(end) = chain.end() else {
        return Err(format!("{name} has no CNAME: {advice}"));
    };
    if let Some(zone) = zone_of(end) {
        if domain.under(&zone).is_ok_and(|wanted| wanted == *end) && !is_account_name(end, &zone) {
            return Ok(Destination { challenge, owner: end.clone(), zone });
        }
        if chain.is_accident() {
            return Err(accident(&name, end, &advice));
        }
        let (end, domain) = (end.to_relative_string(), domain.to_relative_string());
        return Err(format!("{name} leads to {end}, and the issuer may not write that name for {domain}: {advice}"));
    }
    if chain.is_accident() {
        return Err(accident(&name, end, &advice));
    }
    let through = if chain.links.len() > 1 { " at the end of a chain of CNAMEs" } else { "" };
    let end = end.to_relative_string();
    Err(format!("{name} leads to {end}{through}, which lies in no zone that acmegate serves: {advice}"))
}

/// Nobody meant the challenge to go there: the record to create comes before the wildcard.
fn accident(name: &str, end: &Name, advice: &str) -> String {
    let end = end.to_relative_string();
    format!(
        "{name} has no record of its own, and a wildcard CNAME above it leads it to {end}: a record of its own goes before the wildcard; {advice}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::propagation::{By, Link};

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn ours(name_asked: &Name) -> Option<Name> {
        [name("auth.test"), name("_acme-challenge.ns.test")].into_iter().find(|zone| name_asked.is_within(zone))
    }

    fn judged(domain: &str, links: &[&str]) -> Result<Name, String> {
        let domain = name(domain);
        let chain = Ok(Chain { links: links.iter().map(|link| Link { target: name(link), by: By::Cname }).collect() });
        let challenge = domain.prepend(CHALLENGE_LABEL).unwrap();
        judge(&domain, challenge, chain, &[name("auth.test")], ours).map(|found| found.owner)
    }

    #[test]
    fn the_end_of_the_chain_is_the_domain_under_a_served_zone() {
        assert_eq!(judged("example.com", &["example.com.auth.test"]), Ok(name("example.com.auth.test")));
        assert_eq!(judged("example.com", &["_acme-challenge.other.test", "example.com.auth.test"]), Ok(name("example.com.auth.test")));
    }

    #[test]
    fn any_other_end_is_refused_with_the_record_to_create() {
        let record = "_acme-challenge.example.com. CNAME example.com.auth.test.";
        for (links, found) in [
            (&[][..], "has no CNAME"),
            (&["victim.test.auth.test"][..], "leads to victim.test.auth.test,"),
            (&["8e5700ea-a4bf-41c7-8a77-e990661dcc6a.auth.test"][..], "leads to 8e5700ea-a4bf-41c7-8a77-e990661dcc6a.auth.test,"),
            (&["deep.example.com.auth.test"][..], "may not write"),
            (&["auth.test"][..], "may not write"),
            (&["example.com.elsewhere.test"][..], "lies in no zone"),
            (&["a.test", "b.test"][..], "chain of CNAMEs"),
        ] {
            let error = judged("example.com", links).expect_err(found);
            assert!(error.contains(found) && error.contains(record), "{error}");
        }
    }

    #[test]
    fn a_wildcard_is_not_taken_for_a_delegation() {
        for end in ["www.example.com", "other.test.auth.test"] {
            let chain = Ok(Chain { links: vec![Link { target: name(end), by: By::Wildcard }] });
            let error = judge(&name("example.com"), name("_acme-challenge.example.com"), chain, &[name("auth.test")], ours).unwrap_err();
            assert!(error.contains("wildcard CNAME") && error.contains(end), "{error}");
            assert!(error.contains("_acme-challenge.example.com. CNAME example.com.auth.test."), "{error}");
        }
    }

    #[tokio::test]
    async fn a_challenge_name_in_a_served_zone_needs_no_lookup() {
        // A resolver without servers fails every question.
        let resolver = Resolver::new(Vec::new());
        let found = find(&name("ns.test"), &resolver, &[name("auth.test")], ours).await.unwrap();
        assert_eq!((found.owner, found.zone), (name("_acme-challenge.ns.test"), name("_acme-challenge.ns.test")));
        let error = find(&name("example.com"), &resolver, &[name("auth.test")], ours).await.unwrap_err();
        assert!(error.contains("could not be followed"), "{error}");
    }

    #[tokio::test]
    async fn the_names_of_accounts_are_never_written() {
        let account = "8e5700ea-a4bf-41c7-8a77-e990661dcc6a";
        let resolver = Resolver::new(Vec::new());
        let error = find(&name(&format!("{account}.auth.test")), &resolver, &[name("auth.test")], ours).await.unwrap_err();
        assert!(error.contains("belongs to an acme-dns account"), "{error}");
        // A domain whose top label looks like an account.
        let domain = format!("host.{account}");
        assert!(judged(&domain, &[&format!("{domain}.auth.test")]).is_err());
    }

    #[test]
    fn without_a_zone_the_advice_is_to_serve_one() {
        let domain = name("example.com");
        let error = judge(&domain, name("_acme-challenge.example.com"), Ok(Chain { links: Vec::new() }), &[], |_| None).unwrap_err();
        assert!(error.contains("dns.zones"), "{error}");
    }
}
