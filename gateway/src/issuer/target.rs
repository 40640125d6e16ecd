//! Where the value of a domain goes, and the record that a person has to create if it goes nowhere.
//!
//! The CA looks at `_acme-challenge.<domain>` and follows CNAMEs; so does the issuer, and it writes where they end:
//! - in a zone of a backend, whatever the name: the configuration lists the zones that may be written;
//! - in an embedded zone, exactly two names for a domain: the challenge name itself (a delegation by NS), or `<domain>.<zone>` (a delegation by CNAME). Any other
//!   end there belongs to somebody else: an acme-dns account (whatever form a domain has, names in an account's shape are the accounts' alone), or another
//!   domain whose owner did not ask for this.

use async_trait::async_trait;
use authdns::Name;

use crate::{
    claim::{Backend, Lane},
    engine::Engine,
    ledger::ClaimError,
    policy::{CHALLENGE_LABEL, is_account_name},
    propagation::{Chain, Guide, trace},
};

/// Where the values of one domain go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Destination {
    /// `_acme-challenge.<domain>`.
    pub(super) challenge: Name,
    /// The owner name of the TXT values.
    pub(super) owner: Name,
    /// The zone around it, and who serves that.
    pub(super) lane: Lane,
}

/// What is served here.
#[async_trait]
pub(super) trait Served: Guide {
    /// Where a value at this name would go; `None` if nothing here serves it.
    ///
    /// # Errors
    /// A text, if a backend that might serve it cannot be asked.
    async fn lane_of(&self, name: &Name) -> Result<Option<Lane>, String>;

    /// The embedded zones.
    fn zones(&self) -> Vec<Name>;
}

#[async_trait]
impl Served for Engine {
    async fn lane_of(&self, name: &Name) -> Result<Option<Lane>, String> {
        match self.ledger.lane_of(name).await {
            Ok(lane) => Ok(Some(lane)),
            Err(ClaimError::NoZone(_)) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    fn zones(&self) -> Vec<Name> {
        self.config.dns.iter().flat_map(|dns| &dns.zones).map(|zone| zone.name.clone()).collect()
    }
}

/// Follows the delegation of `domain`.
///
/// # Errors
/// A text that says what was found instead and which record to create.
pub(super) async fn find(domain: &Name, served: &dyn Served) -> Result<Destination, String> {
    let challenge = domain.prepend(CHALLENGE_LABEL).map_err(|error| format!("{domain}: {error}"))?;
    let (here, unasked) = match served.lane_of(&challenge).await {
        Ok(lane) => (lane, None),
        // A backend that cannot be asked is none of our business where a CNAME leads elsewhere.
        Err(why) => (None, Some(why)),
    };
    if let Some(lane) = here.as_ref().filter(|lane| lane.backend == Backend::Embedded) {
        if is_account_name(&challenge, &lane.zone) {
            return Err(format!("{} belongs to an acme-dns account: the issuer may not write it", challenge.to_relative_string()));
        }
        return Ok(Destination { owner: challenge.clone(), challenge, lane: lane.clone() });
    }
    let name = challenge.to_relative_string();
    let zones = served.zones();
    let meant = |end: &Name| zones.iter().any(|zone| domain.under(zone).is_ok_and(|wanted| wanted == *end));
    let chain = trace(&challenge, served, &meant).await.map_err(|error| format!("{name} could not be followed: {error}"))?;
    match here {
        // A record at the name itself goes before the wildcard.
        Some(lane) if chain.end().is_none() || chain.is_accident() => Ok(Destination { owner: challenge.clone(), challenge, lane }),
        _ => {
            let lane = match chain.end() {
                Some(end) => served.lane_of(end).await?,
                None => None,
            };
            judge(domain, challenge, &chain, lane, &zones).map_err(|advice| unasked.unwrap_or(advice))
        }
    }
}

/// `lane` is where the chain's end lies.
fn judge(domain: &Name, challenge: Name, chain: &Chain, lane: Option<Lane>, zones: &[Name]) -> Result<Destination, String> {
    let advice = match zones.first().map(|zone| domain.under(zone)) {
        None => "nothing here serves it: add its zone to a backend under backends, or a zone to delegate to under dns.zones".to_owned(),
        Some(Err(_)) => {
            "the names of this domain and of the served zone are too long together: serve a zone with a shorter name".to_owned()
        }
        Some(Ok(wanted)) => format!("create the record\n  {challenge} CNAME {wanted}"),
    };
    let name = challenge.to_relative_string();
    let Some(end) = chain.end() else {
        return Err(format!("{name} has no CNAME: {advice}"));
    };
    if let Some(lane) = lane {
        let ours = match lane.backend {
            Backend::Embedded => domain.under(&lane.zone).is_ok_and(|wanted| wanted == *end) && !is_account_name(end, &lane.zone),
            Backend::Provider(_) => !chain.is_accident(),
        };
        if ours {
            return Ok(Destination { challenge, owner: end.clone(), lane });
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
    use hickory_proto::rr::{RData, Record, rdata};

    use super::*;
    use crate::propagation::{By, Link, ResolveError, Resolver, Whom, fake};

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    /// Serves `auth.test` and `_acme-challenge.ns.test` itself, and `corp.test` at a backend. Nobody can be asked about any name.
    struct Fake;

    #[async_trait]
    impl Guide for Fake {
        async fn whom(&self, at: &Name) -> Result<Whom, ResolveError> {
            Ok(if lane(at).is_some() { Whom::Nobody } else { Whom::These(Resolver::new(Vec::new())) })
        }
    }

    #[async_trait]
    impl Served for Fake {
        async fn lane_of(&self, at: &Name) -> Result<Option<Lane>, String> {
            Ok(lane(at))
        }

        fn zones(&self) -> Vec<Name> {
            vec![name("auth.test")]
        }
    }

    /// As [`Fake`], beside a backend that cannot be asked.
    struct Broken(Resolver);

    #[async_trait]
    impl Guide for Broken {
        async fn whom(&self, at: &Name) -> Result<Whom, ResolveError> {
            Ok(if lane(at).is_some() { Whom::Nobody } else { Whom::These(self.0.clone()) })
        }
    }

    #[async_trait]
    impl Served for Broken {
        async fn lane_of(&self, at: &Name) -> Result<Option<Lane>, String> {
            lane(at).map(Some).ok_or_else(|| "the credential was refused".to_owned())
        }

        fn zones(&self) -> Vec<Name> {
            Fake.zones()
        }
    }

    /// A resolver that knows one CNAME.
    async fn knowing(from: &'static str, to: &'static str) -> (fake::Fake, Resolver) {
        let fake = fake::Fake::start(move |query, _| {
            let mut answer = fake::reply(query, false, &[]);
            if query.queries[0].name.to_ascii() == from {
                let target = rdata::CNAME(to.parse().unwrap());
                answer.answers.push(Record::from_rdata(query.queries[0].name.clone(), 60, RData::CNAME(target)));
            }
            vec![answer]
        })
        .await;
        let resolver = Resolver::new(vec![fake.address]);
        (fake, resolver)
    }

    #[tokio::test]
    async fn a_backend_that_cannot_be_asked_is_in_the_way_of_its_own_names_alone() {
        let (_fake, resolver) = knowing("_acme-challenge.example.com.", "example.com.auth.test.").await;
        let served = Broken(resolver);
        assert_eq!(find(&name("example.com"), &served).await.unwrap().owner, name("example.com.auth.test"));
        assert_eq!(find(&name("example.org"), &served).await, Err("the credential was refused".to_owned()));
    }

    fn lane(at: &Name) -> Option<Lane> {
        let lanes = [("embedded", "auth.test"), ("embedded", "_acme-challenge.ns.test"), ("corp", "corp.test")];
        let lanes = lanes.map(|(backend, zone)| Lane { backend: Backend::from(backend), zone: name(zone) });
        lanes.into_iter().find(|lane| at.is_within(&lane.zone))
    }

    fn judged(domain: &str, links: &[(&str, By)]) -> Result<Name, String> {
        let domain = name(domain);
        let chain = Chain { links: links.iter().map(|(link, by)| Link { target: name(link), by: by.clone() }).collect() };
        let challenge = domain.prepend(CHALLENGE_LABEL).unwrap();
        let end = chain.end().and_then(lane);
        judge(&domain, challenge, &chain, end, &[name("auth.test")]).map(|found| found.owner)
    }

    fn through(domain: &str, links: &[&str]) -> Result<Name, String> {
        let links: Vec<_> = links.iter().map(|link| (*link, By::Cname)).collect();
        judged(domain, &links)
    }

    #[test]
    fn the_end_of_the_chain_is_the_domain_under_a_served_zone() {
        assert_eq!(through("example.com", &["example.com.auth.test"]), Ok(name("example.com.auth.test")));
        assert_eq!(through("example.com", &["_acme-challenge.other.test", "example.com.auth.test"]), Ok(name("example.com.auth.test")));
    }

    #[test]
    fn in_a_zone_of_a_backend_it_may_be_any_name() {
        assert_eq!(through("example.com", &["validation.corp.test"]), Ok(name("validation.corp.test")));
        let error = judged("example.com", &[("validation.corp.test", By::Wildcard)]).expect_err("nobody delegated it");
        assert!(error.contains("wildcard CNAME"), "{error}");
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
            let error = through("example.com", links).expect_err(found);
            assert!(error.contains(found) && error.contains(record), "{error}");
        }
    }

    #[test]
    fn a_wildcard_is_not_taken_for_a_delegation() {
        for end in ["www.example.com", "other.test.auth.test"] {
            let error = judged("example.com", &[(end, By::Wildcard)]).unwrap_err();
            assert!(error.contains("wildcard CNAME") && error.contains(end), "{error}");
            assert!(error.contains("_acme-challenge.example.com. CNAME example.com.auth.test."), "{error}");
        }
    }

    #[tokio::test]
    async fn a_challenge_name_in_a_served_zone_is_the_destination() {
        let found = find(&name("ns.test"), &Fake).await.unwrap();
        assert_eq!((found.owner, found.lane.zone), (name("_acme-challenge.ns.test"), name("_acme-challenge.ns.test")));
        let found = find(&name("www.corp.test"), &Fake).await.unwrap();
        assert_eq!((found.owner, found.lane.backend), (name("_acme-challenge.www.corp.test"), Backend::from("corp")));
        // A resolver without servers fails every question.
        let error = find(&name("example.com"), &Fake).await.unwrap_err();
        assert!(error.contains("could not be followed"), "{error}");
    }

    #[tokio::test]
    async fn the_names_of_accounts_are_never_written() {
        let account = "8e5700ea-a4bf-41c7-8a77-e990661dcc6a";
        let error = find(&name(&format!("{account}.auth.test")), &Fake).await.unwrap_err();
        assert!(error.contains("belongs to an acme-dns account"), "{error}");
        // A domain whose top label looks like an account.
        let domain = format!("host.{account}");
        assert!(through(&domain, &[&format!("{domain}.auth.test")]).is_err());
    }

    #[test]
    fn without_a_zone_the_advice_is_to_serve_one() {
        let challenge = name("_acme-challenge.example.com");
        let error = judge(&name("example.com"), challenge, &Chain::default(), None, &[]).unwrap_err();
        assert!(error.contains("dns.zones") && error.contains("backends"), "{error}");
    }
}
