//! What a `status.reason` of a Challenge means, in plain words. Half of the texts are our own (cert-manager passes them on), half are of cert-manager and Kubernetes;
//! one that is not known here is shown as it is.

/// What somebody can do about a stuck challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Let the policy allow it.
    Policy,
    /// Bring the issuer back.
    Issuer,
    /// Mend the issuer's `config`.
    Config,
    /// Look at the name: its zone, its CNAME, its DNS service.
    Name,
    /// Look at acmegate's log.
    Log,
    /// Look at another rung of this ladder.
    Rung(&'static str),
    /// Look at what cert-manager says.
    CertManager,
}

/// What parts of a reason stand for, the more particular first.
const MEANINGS: &[(&str, &str, Remedy)] = &[
    ("webhook.policy has no rule", "acmegate's policy refuses it", Remedy::Policy),
    ("no rule of webhook.policy", "acmegate's policy refuses it", Remedy::Policy),
    (" may not write for ", "acmegate's policy refuses it", Remedy::Policy),
    (" may write for ", "acmegate's policy refuses it", Remedy::Policy),
    ("config: ", "acmegate refuses the issuer's config", Remedy::Config),
    ("config must be an object", "acmegate refuses the issuer's config", Remedy::Config),
    ("acmegate has no backend ", "acmegate refuses the issuer's config", Remedy::Config),
    (" has no credential of its own", "acmegate refuses the issuer's config", Remedy::Config),
    (" works without a Secret of an issuer", "acmegate refuses the issuer's config", Remedy::Config),
    ("may not be read by acmegate's service account", "acmegate may not read the issuer's Secret", Remedy::Rung("issuers")),
    ("belongs to an acme-dns account", "the CNAME leads to somebody else's name", Remedy::Name),
    (" has no zone around ", "acmegate cannot write the zone of the name", Remedy::Name),
    ("no zone that acmegate can write", "acmegate cannot write the zone of the name", Remedy::Name),
    ("the DNS backend has not taken the value", "the DNS service does not take the value", Remedy::Name),
    ("values are waiting for this zone", "the DNS service is too slow for what is asked of it", Remedy::Name),
    ("of this client are waiting for this zone", "the DNS service is too slow for what is asked of it", Remedy::Name),
    ("the value is not in DNS yet", "the DNS service takes its time", Remedy::Name),
    ("acmegate's store failed", "acmegate cannot write its store", Remedy::Log),
    ("acmegate failed", "acmegate has a defect", Remedy::Log),
    ("x509:", "the API server does not believe the webhook's certificate", Remedy::Rung("ca_bundle")),
    ("is forbidden: User", "cert-manager may not call acmegate", Remedy::Rung("caller")),
    ("could not find the requested resource", "the API server knows no such solver", Remedy::Rung("issuers")),
    ("unable to handle the request", "the API server does not reach acmegate", Remedy::Rung("apiservice")),
    ("error trying to reach service", "the API server does not reach acmegate", Remedy::Rung("apiservice")),
    ("propagat", "cert-manager does not see the value in DNS", Remedy::Name),
    ("SERVFAIL", "cert-manager's resolver gets no answer for the name", Remedy::Name),
    ("NXDOMAIN", "cert-manager's resolver finds no such name or zone", Remedy::Name),
    ("i/o timeout", "cert-manager's resolver does not answer it", Remedy::CertManager),
];

/// What a reason means.
pub(super) fn meaning(reason: &str) -> (&'static str, Remedy) {
    let known = MEANINGS.iter().find(|(part, ..)| reason.contains(part));
    known.map_or(("cert-manager does not get on with it", Remedy::CertManager), |&(_, means, remedy)| (means, remedy))
}

#[cfg(test)]
mod tests {
    use authdns::Name;
    use serde_json::json;

    use super::*;
    use crate::{
        doors::webhook::wanted,
        ledger::ClaimError,
        policy::{Attempt, Policy, Rule},
    };

    /// Each text of ours is made where it is made for cert-manager: one that is reworded is missed here.
    #[test]
    fn our_own_refusals_are_known() {
        let (example, other): (Name, Name) = ("example.com".parse().unwrap(), "other.test".parse().unwrap());
        let refusal = |rules: Vec<Rule>| {
            let attempt = Attempt {
                namespace: "team-a",
                labels: None,
                dns_name: Some(&example),
                owner: &other,
                backend: Some("b"),
                secret: true,
                zones: &[],
            };
            Policy { rules }.allows(&attempt).unwrap_err().to_string()
        };
        let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<_>>();
        let rule = |names: Vec<_>| Rule { namespaces: vec!["team-a".into()], names, ..Rule::default() };
        let anywhere = || Rule { targets: Some(names(&["*"])), ..rule(names(&["*"])) };
        let policy = [
            vec![],
            vec![Rule { namespaces: vec!["other".into()], ..anywhere() }],
            vec![rule(names(&["a.test"]))],
            vec![rule(names(&["*"]))],
            vec![Rule { backends: Some(vec!["c".into()]), ..anywhere() }],
            vec![anywhere()],
        ];
        for rules in policy {
            let reason = refusal(rules);
            assert_eq!(meaning(&reason).1, Remedy::Policy, "{reason}");
        }
        for config in [json!(5), json!({"url": "x"}), json!({"backend": 5}), json!({"secret": 5}), json!({"secret": {"name": "x"}})] {
            let reason = wanted(&config).unwrap_err();
            assert_eq!(meaning(&reason).1, Remedy::Config, "{reason}");
        }
        for (error, remedy) in [
            (ClaimError::NoBackend("x".into()), Remedy::Config),
            (ClaimError::NeedsSecret("x".into()), Remedy::Config),
            (ClaimError::OwnCredential("x".into()), Remedy::Config),
            (ClaimError::NoZone(example.clone()), Remedy::Name),
            (ClaimError::NotServed { backend: "x".into(), owner: example.clone() }, Remedy::Name),
            (ClaimError::Backend("it refuses".into()), Remedy::Name),
            (ClaimError::InProgress, Remedy::Name),
        ] {
            assert_eq!(meaning(&error.to_string()).1, remedy, "{error}");
        }
    }

    #[test]
    fn what_others_say_is_known_or_left_to_them() {
        for (reason, remedy) in [
            (
                "acmegate.acme.acmegate.io is forbidden: User \"system:serviceaccount:cert-manager:cert-manager\" cannot create resource",
                Remedy::Rung("caller"),
            ),
            ("the server is currently unable to handle the request (post acmegate.acme.acmegate.io)", Remedy::Rung("apiservice")),
            ("error trying to reach service: x509: certificate signed by unknown authority", Remedy::Rung("ca_bundle")),
            ("the server could not find the requested resource (post acmegat.acme.acmegate.io)", Remedy::Rung("issuers")),
            ("Waiting for DNS-01 challenge propagation: DNS record for \"example.com\" not yet propagated", Remedy::Name),
            (
                "the DNS backend has not taken the value yet: the key token of the Secret dns may not be read by acmegate's service account",
                Remedy::Rung("issuers"),
            ),
            ("", Remedy::CertManager),
            ("something new", Remedy::CertManager),
        ] {
            assert_eq!(meaning(reason).1, remedy, "{reason}");
        }
    }
}
