//! The CNAMEs and DNAMEs of the challenge name: where the value stands in the end.

use async_trait::async_trait;
use authdns::Name;

use super::{
    Ladder,
    report::{Rung, RungId},
    subject::Subject,
};
use crate::{
    config::Check,
    policy::is_account_name,
    propagation::{By, Chain, Guide, Link, ResolveError, Resolver, Whom, diagnose, trace},
};

const ID: RungId = RungId::Chain;

/// As the issuer asks, but that nothing is fatal here: where a backend or its zone's servers cannot be asked, a later rung says so.
#[async_trait]
impl Guide for Ladder {
    async fn whom(&self, name: &Name) -> Result<Whom, ResolveError> {
        if self.zones.zone_of(name).is_some() {
            return Ok(Whom::Nobody);
        }
        let resolvers = || Whom::These(self.checker.resolver().clone());
        Ok(match self.dispatch.route(name).await {
            Ok(None) => resolvers(),
            Ok(Some(lane)) => match self.check(Some(&lane)) {
                Check::Authoritative => self.own_servers(&lane.zone).await.map_or(Whom::Nobody, Whom::These),
                Check::Recursive | Check::None => Whom::Nobody,
            },
            // It may well lie in a zone of theirs.
            Err(_) => match diagnose::zone_of(&self.checker, name).await {
                Ok(zone) => self.own_servers(&zone).await.map_or_else(resolvers, Whom::These),
                Err(_) => resolvers(),
            },
        })
    }
}

/// What was found.
pub(super) struct Found {
    pub(super) rung: Rung,
    /// Where the value would stand; `None` if that is not known, or nowhere.
    pub(super) owner: Option<Name>,
}

impl Ladder {
    /// Follows the challenge name. No resolver is asked for a name whose value may come, and so none keeps that there is nothing.
    pub(super) async fn chain(&self, subject: &Subject) -> Found {
        let challenge = &subject.challenge;
        let chain = match trace(challenge, self, &|_| false).await {
            Ok(chain) => chain,
            Err(error) => return lost(challenge, &error),
        };
        let own_record = !chain.links.is_empty() && !chain.is_accident();
        // A record of the name's own goes before a wildcard: so does a value that a backend puts there.
        let by_backend = !own_record && matches!(self.dispatch.route(challenge).await, Ok(Some(_)));
        self.judge(subject, &chain, by_backend)
    }

    /// The servers of a zone themselves, whose answers no cache remembers.
    async fn own_servers(&self, zone: &Name) -> Option<Resolver> {
        let found = self.checker.delegation(zone).await.ok()?;
        Some(Resolver::new(found.servers.iter().map(|server| server.address).collect()))
    }

    /// `by_backend`: a backend serves the challenge name itself.
    fn judge(&self, subject: &Subject, chain: &Chain, by_backend: bool) -> Found {
        let challenge = &subject.challenge;
        let (name, evidence) = (challenge.to_relative_string(), links(challenge, chain));
        let found = |rung: Rung, owner: Option<&Name>| Found { rung: rung.because(evidence.clone()), owner: owner.cloned() };
        let Some(end) = chain.end() else {
            return match self.zones.zone_of(challenge) {
                Some(zone) if is_account_name(challenge, &zone) => found(account(challenge), Some(challenge)),
                Some(_) => found(Rung::ok(ID, format!("{name} lies in a zone of acmegate's own")), Some(challenge)),
                // The one thing that can be missing.
                None if self.routes.is_empty() => {
                    found(Rung::failed(ID, format!("{name} has no CNAME record"), self.record(subject)), None)
                }
                None => found(Rung::ok(ID, format!("{name} has no CNAME record: the value stands at the name itself")), Some(challenge)),
            };
        };
        let target = end.to_relative_string();
        if chain.is_accident() {
            let wildcard = format!("{name} has no record of its own, and a wildcard CNAME above it leads it to {target}");
            return match by_backend {
                true => {
                    let next = format!(
                        "nothing, if the backend writes {name} itself: a value there goes before the wildcard, once resolvers have forgotten that. With cert-manager, \
                         leave cnameStrategy at None; or create a CNAME record of its own"
                    );
                    found(Rung::warning(ID, wildcard, next), Some(challenge))
                }
                false => found(
                    Rung::failed(ID, wildcard, format!("a record of its own goes before the wildcard: {}", self.record(subject))),
                    None,
                ),
            };
        }
        let Some(zone) = self.zones.zone_of(end) else {
            return found(Rung::ok(ID, format!("{name} leads to {target}")), Some(end));
        };
        if is_account_name(end, &zone) {
            return found(account(end), Some(end));
        }
        if subject.domain.under(&zone).is_ok_and(|wanted| wanted == *end) {
            return found(
                Rung::ok(ID, format!("{name} leads to {target}, where `acmegate issue` puts the values of this domain")),
                Some(end),
            );
        }
        let rung = Rung::warning(
            ID,
            format!("{name} leads to {target}, which `acmegate issue` may not write for this domain"),
            format!("leave it, if cert-manager follows the CNAME (cnameStrategy: Follow); for `acmegate issue`: {}", self.record(subject)),
        );
        found(rung, Some(end))
    }

    /// The record that leads the challenge to acmegate, or where there can be none, what makes one possible.
    pub(super) fn record(&self, subject: &Subject) -> String {
        match self.zones.names().first().map(|zone| subject.domain.under(zone)) {
            Some(Ok(wanted)) => format!("create the record\n{} CNAME {wanted}", subject.challenge),
            Some(Err(_)) => "this domain and the zone under dns.zones are too long together: serve a zone with a shorter name".to_owned(),
            None => {
                "serve a zone under dns.zones and lead the name there by a CNAME record, or configure a backend for its zone".to_owned()
            }
        }
    }
}

fn account(owner: &Name) -> Rung {
    Rung::ok(
        ID,
        format!(
            "the value stands at {}, which belongs to an acme-dns account: only that account's client sets it",
            owner.to_relative_string()
        ),
    )
}

fn lost(challenge: &Name, error: &ResolveError) -> Found {
    let next = match error {
        ResolveError::NoResolvers | ResolveError::NoAnswer { .. } | ResolveError::NoServers(_) => {
            "if other names resolve, mend the servers or the DNSSEC of this zone; if not, the resolvers under propagation.resolvers"
        }
        ResolveError::Circle(_) | ResolveError::TooLong(_) => "correct the CNAME records: CAs give up there too",
        ResolveError::Overflow(_) => "lead the challenge name elsewhere by a shorter DNAME, or by a CNAME record of its own",
    };
    Found { rung: Rung::failed(ID, format!("{} could not be followed: {error}", challenge.to_relative_string()), next), owner: None }
}

/// One line a step.
fn links(start: &Name, chain: &Chain) -> Vec<String> {
    let mut from = start.to_relative_string();
    let line = |link: &Link| {
        let to = link.target.to_relative_string();
        let line = match &link.by {
            By::Cname => format!("{from} CNAME {to}"),
            By::Wildcard => format!("{from} CNAME {to} (by a wildcard: every name beside it leads there)"),
            By::Dname(owner) => format!("{from} CNAME {to} (by the DNAME of {})", owner.to_relative_string()),
        };
        from = to;
        line
    };
    chain.links.iter().map(line).collect()
}
