//! Does DNSSEC stand in the way? A CA validates; a zone that does not validate has no answers for it.

use std::{
    collections::BTreeSet,
    time::{SystemTime, UNIX_EPOCH},
};

use authdns::Name;
use futures_util::future::join4;
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{RData, RecordType},
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
    /// What everybody can see to be wrong without validating: keys that do not fit, signatures that are out of date.
    pub faults: Vec<String>,
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
    let (parent, keys) = (ds?, dnskey?);
    let (ds, dnskey) = (has(&parent, RecordType::DS), has(&keys, RecordType::DNSKEY));
    let fails = |answer: &Message| answer.metadata.response_code == ResponseCode::ServFail;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut faults = Vec::new();
    if ds && dnskey && !checked.metadata.authentic_data {
        faults.extend(unfitting(&parent, &keys));
        faults.extend(out_of_date(&unchecked, "SOA record", now));
        faults.extend(out_of_date(&keys, "DNSKEY records", now));
    }
    let security = match (fails(&checked), fails(&unchecked)) {
        (_, true) => Security::Unresolvable,
        (true, false) => Security::Bogus,
        // What everybody can see needs no validating resolver: the parent insists, and there is no key.
        (false, false) if ds && !dnskey => Security::Bogus,
        (false, false) if checked.metadata.authentic_data => Security::Secure,
        (false, false) if !faults.is_empty() => Security::Bogus,
        (false, false) if ds => Security::Unvalidated,
        (false, false) => Security::Insecure,
    };
    Ok(Dnssec { zone: zone.clone(), ds, dnskey, faults, security })
}

/// DS records that fit none of the keys: the zone has other keys than the registrar was told.
fn unfitting(parent: &Message, keys: &Message) -> Option<String> {
    // Key tag and algorithm (RFC 4034, 5.1 and 2.1).
    let wanted: BTreeSet<(u16, u8)> = rdata(parent, RecordType::DS)
        .filter_map(|data| Some((u16::from_be_bytes([*data.first()?, *data.get(1)?]), *data.get(2)?)))
        .collect();
    let there: BTreeSet<(u16, u8)> = rdata(keys, RecordType::DNSKEY).filter_map(|data| Some((key_tag(data), *data.get(3)?))).collect();
    let list = |keys: &BTreeSet<(u16, u8)>| {
        keys.iter().map(|(tag, algorithm)| format!("{tag} (algorithm {algorithm})")).collect::<Vec<_>>().join(", ")
    };
    wanted
        .is_disjoint(&there)
        .then(|| format!("the DS records at the parent are for the keys {}, and the zone has {}", list(&wanted), list(&there)))
}

/// Signatures of which none is valid now. Resolvers that leave signatures out show nothing.
fn out_of_date(answer: &Message, what: &str, now: u64) -> Option<String> {
    // Expiration and inception count seconds modulo 2^32 (RFC 4034, 3.1.5); the dates of one answer are close together.
    let four = |data: &[u8], at: usize| Some(u32::from_be_bytes(data.get(at..at + 4)?.try_into().ok()?));
    let spans: Vec<(i64, i64)> = rdata(answer, RecordType::RRSIG)
        .filter_map(|data| {
            let distance = |time: u32| i64::from(time.wrapping_sub(now as u32).cast_signed());
            Some((distance(four(data, 12)?), distance(four(data, 8)?)))
        })
        .collect();
    let latest = spans.iter().map(|(_, end)| *end).max()?;
    if spans.iter().any(|(begin, end)| *begin <= 0 && *end >= 0) {
        return None;
    }
    let date = |distance: i64| {
        let seconds = i64::try_from(now).unwrap_or_default().saturating_add(distance);
        jiff::Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default()
    };
    Some(match latest < 0 {
        true => format!("the signatures of its {what} ended at {}", date(latest)),
        false => format!("the signatures of its {what} begin in the future, at {}", date(spans.iter().map(|(begin, _)| *begin).min()?)),
    })
}

/// RFC 4034, appendix B.
fn key_tag(data: &[u8]) -> u16 {
    let sum: u32 = data.iter().enumerate().map(|(at, byte)| if at % 2 == 0 { u32::from(*byte) << 8 } else { u32::from(*byte) }).sum();
    (sum.wrapping_add(sum >> 16) & 0xFFFF) as u16
}

/// The data of an answer's records of a type that the library leaves as it is.
fn rdata(answer: &Message, kind: RecordType) -> impl Iterator<Item = &[u8]> {
    answer.answers.iter().filter_map(move |record| match &record.data {
        RData::Unknown { code, rdata } if *code == kind => Some(rdata.anything.as_slice()),
        _ => None,
    })
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
    use hickory_proto::rr::{Record, rdata};

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

    /// An answer with records of a type.
    fn answer(kind: RecordType, records: &[Vec<u8>]) -> Message {
        let mut answer = Message::response(0, hickory_proto::op::OpCode::Query);
        let data = |bytes: &Vec<u8>| RData::Unknown { code: kind, rdata: rdata::NULL::with(bytes.clone()) };
        answer.answers.extend(records.iter().map(|bytes| Record::from_rdata("zone.test.".parse().unwrap(), 60, data(bytes))));
        answer
    }

    #[test]
    fn keys_are_known_by_tag_and_algorithm() {
        // The key of RFC 4034, 5.4, and its DS record: tag 60485, algorithm 5.
        let key = "AQOeiiR0GOMYkDshWoSKz9XzfwJr1AYtsmx3TGkJaNXVbfi/2pHm822aJ5iI9BMzNXxeYCmZDRD99WYwYqUSdjMmmAphXdvxegXd/M5+X7OrzKBaMbCVdFLUUh6DhweJBjEVv5f2wwjM9XzcnOf+EPbtG9DMBmADjFDc2w/rljwvFw==";
        let mut bytes = vec![1, 0, 3, 5];
        bytes.extend(data_encoding::BASE64.decode(key.as_bytes()).unwrap());
        assert_eq!(key_tag(&bytes), 60485);
        let keys = answer(RecordType::DNSKEY, &[bytes]);
        let ds = |tag: u16| answer(RecordType::DS, &[[&tag.to_be_bytes()[..], &[5, 1, 9, 9]].concat()]);
        assert_eq!(unfitting(&ds(60485), &keys), None);
        let fault = unfitting(&ds(4711), &keys).unwrap();
        assert!(fault.contains("for the keys 4711 (algorithm 5), and the zone has 60485"), "{fault}");
    }

    #[test]
    fn one_signature_in_date_is_enough_and_none_shown_is_no_fault() {
        let now = 1_800_000_000u32;
        let signature = |begin: i64, end: i64| {
            let at = |distance: i64| ((i64::from(now) + distance) as u32).to_be_bytes();
            [&[0, 6, 8, 2, 0, 0, 0, 60][..], &at(end), &at(begin), &[0, 1, 0]].concat()
        };
        let judged = |spans: &[(i64, i64)]| {
            let records: Vec<_> = spans.iter().map(|(begin, end)| signature(*begin, *end)).collect();
            out_of_date(&answer(RecordType::RRSIG, &records), "SOA record", now.into())
        };
        assert_eq!(judged(&[]), None);
        assert_eq!(judged(&[(-200, -100), (-10, 10)]), None);
        assert_eq!(judged(&[(-200, -100), (-200, 0 - 60)]).unwrap(), "the signatures of its SOA record ended at 2027-01-15T07:59:00Z");
        assert_eq!(judged(&[(60, 100)]).unwrap(), "the signatures of its SOA record begin in the future, at 2027-01-15T08:01:00Z");
        assert!(out_of_date(&answer(RecordType::RRSIG, &[vec![0, 6, 8]]), "SOA record", 0).is_none(), "cut short");
    }
}
