//! Does DNSSEC stand in the way? A CA validates; a zone that does not validate has no answers for it.

use authdns::Name;
use futures_util::future::join4;
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RecordType,
};
use serde::{Deserialize, Serialize};

use super::super::{
    exchange::Question,
    resolver::{ResolveError, Resolver},
};

/// How a zone stands with DNSSEC, and what says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dnssec {
    /// The zone.
    pub zone: Name,
    /// True if its parent has DS records for it: validating resolvers insist on signatures.
    pub ds: bool,
    /// True if it has DNSKEY records.
    pub dnskey: bool,
    /// What follows.
    pub security: Security,
}

/// What validating resolvers make of a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    /// The resolvers validated it.
    Secure,
    /// No DS at the parent: nobody validates it.
    Insecure,
    /// The resolvers answer only when they are told not to validate: CAs find nothing.
    Bogus,
    /// Signed, says the parent, but the resolvers do not say that they validated it.
    Unvalidated,
    /// The zone does not resolve, validated or not.
    Unresolvable,
}

/// Asks the resolvers for what the zone and its parent publish, and for the zone with and without validation.
///
/// # Errors
/// [`ResolveError`] if no resolver answers at all.
pub async fn dnssec(resolver: &Resolver, zone: &Name) -> Result<Dnssec, ResolveError> {
    let question = |kind, validation| {
        let question = Question { validation: Some(validation), ..Question::recursive(zone, kind) };
        // SERVFAIL is an answer here.
        Box::pin(async move { resolver.message(&question, |_| Ok(())).await })
    };
    let (checked, unchecked, ds, dnskey) = join4(
        question(RecordType::SOA, true),
        question(RecordType::SOA, false),
        question(RecordType::DS, false),
        question(RecordType::DNSKEY, false),
    )
    .await;
    let (checked, unchecked) = (checked?, unchecked?);
    let has = |answer: &Message, kind| answer.answers.iter().any(|record| record.record_type() == kind);
    let (ds, dnskey) = (has(&ds?, RecordType::DS), has(&dnskey?, RecordType::DNSKEY));
    let fails = |answer: &Message| answer.metadata.response_code == ResponseCode::ServFail;
    let security = match (fails(&checked), fails(&unchecked)) {
        (_, true) => Security::Unresolvable,
        (true, false) => Security::Bogus,
        // What everybody can see needs no validating resolver: the parent insists, and there is no key.
        (false, false) if ds && !dnskey => Security::Bogus,
        (false, false) if checked.metadata.authentic_data => Security::Secure,
        (false, false) if ds => Security::Unvalidated,
        (false, false) => Security::Insecure,
    };
    Ok(Dnssec { zone: zone.clone(), ds, dnskey, security })
}

impl Dnssec {
    /// What to do, if there is something to do.
    pub fn advice(&self) -> Option<String> {
        let zone = self.zone.to_relative_string();
        match self.security {
            Security::Bogus if self.ds && !self.dnskey => Some(format!(
                "the parent of {zone} has DS records, but {zone} has no DNSKEY: CAs get no answer; sign the zone, or remove the DS records at the registrar"
            )),
            Security::Bogus => Some(format!(
                "{zone} does not validate: CAs get no answer; sign it again, and compare the DS records at the registrar with its keys"
            )),
            Security::Unresolvable => Some(format!("{zone} does not resolve, validated or not: mend its delegation and its servers first")),
            Security::Insecure if self.dnskey => Some(format!(
                "{zone} is signed, but its parent has no DS records: nobody validates it; add them at the registrar, or leave it"
            )),
            Security::Secure | Security::Insecure | Security::Unvalidated => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::{RData, Record, rdata};

    use super::{
        super::super::fake::{Fake, reply},
        *,
    };

    /// A resolver that validates: `bogus.test` fails unless it is told not to check, `keyless.test` and `signed.test` have a DS, the latter keys too.
    async fn validating() -> Fake {
        Fake::start(|query, _| {
            let asked = &query.queries[0];
            let (name, checked) = (asked.name.to_ascii(), !query.metadata.checking_disabled);
            assert!(query.edns.as_ref().unwrap().flags().dnssec_ok);
            let mut answer = reply(query, false, &[]);
            let records = match (name.as_str(), asked.query_type) {
                ("signed.test." | "bogus.test." | "keyless.test.", RecordType::DS) => 1,
                ("signed.test." | "bogus.test." | "half.test.", RecordType::DNSKEY) => 1,
                _ => 0,
            };
            for _ in 0..records {
                let data = RData::Unknown { code: asked.query_type, rdata: rdata::NULL::with(vec![1, 2, 3, 4]) };
                answer.answers.push(Record::from_rdata(asked.name.clone(), 60, data));
            }
            answer.metadata.authentic_data = name == "signed.test." && checked;
            if name == "dead.test." || (name == "bogus.test." && checked) {
                answer.metadata.response_code = ResponseCode::ServFail;
            }
            vec![answer]
        })
        .await
    }

    #[tokio::test]
    async fn what_validates_is_told_from_what_does_not() {
        let fake = validating().await;
        let resolver = Resolver::new(vec![fake.address]);
        for (zone, security, advice) in [
            ("signed.test", Security::Secure, None),
            ("plain.test", Security::Insecure, None),
            ("half.test", Security::Insecure, Some("add them at the registrar")),
            ("bogus.test", Security::Bogus, Some("does not validate")),
            ("keyless.test", Security::Bogus, Some("has no DNSKEY")),
            ("dead.test", Security::Unresolvable, Some("does not resolve")),
        ] {
            let found = dnssec(&resolver, &zone.parse().unwrap()).await.unwrap();
            assert_eq!(found.security, security, "{zone}: {found:?}");
            let given = found.advice();
            assert!(
                given.as_deref().is_some_and(|given| given.contains(advice.unwrap_or_default())) == advice.is_some(),
                "{zone}: {given:?}"
            );
        }
    }
}
