//! Who may issue for a name (CAA, RFC 8659), and with which account and challenge (RFC 8657).

use std::{collections::HashMap, sync::Arc};

use authdns::Name;
use hickory_proto::rr::{RData, RecordType};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use super::super::{
    exchange::to_name,
    resolver::{ResolveError, Resolver},
};

/// Most names climbed: no name has more labels.
const MOST: usize = 128;

/// The CAA records that count for a name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caa {
    /// The name that has them: the closest one at or above the name asked for; `None` if none has, so that every CA may issue.
    pub at: Option<Name>,
    /// The records, sorted.
    pub records: Vec<CaaRecord>,
}

/// One CAA record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CaaRecord {
    /// In lower case: `issue`, `issuewild`, `iodef`, or something that not every CA knows.
    pub tag: String,
    /// The value as it stands.
    pub value: String,
    /// True if a CA that does not know the tag must not issue.
    pub critical: bool,
    /// For `issue` and `issuewild`: the CA's domain; `None` allows none.
    pub issuer: Option<String>,
    /// The one account that may issue.
    pub account_uri: Option<String>,
    /// The challenges that may be used, such as `dns-01`; empty is any.
    pub validation_methods: Vec<String>,
}

/// The servers of a zone, which say what is not there without anybody remembering it.
#[derive(Debug, Clone, Copy)]
pub struct OwnServers<'a> {
    /// They.
    pub servers: &'a Resolver,
    /// The zone.
    pub zone: &'a Name,
}

/// Looks up CAA records for the names of one certificate: what stands above several of them is asked for once.
#[derive(Debug)]
pub struct CaaClimb<'r> {
    resolver: &'r Resolver,
    at: Mutex<HashMap<Name, Arc<OnceCell<Vec<CaaRecord>>>>>,
}

impl<'r> CaaClimb<'r> {
    /// Nothing is known yet.
    pub fn new(resolver: &'r Resolver) -> Self {
        Self { resolver, at: Mutex::default() }
    }

    /// The CAA records for `domain`, climbing to the root. Resolvers are not asked for names that the zone's `own` servers do not know.
    ///
    /// # Errors
    /// [`ResolveError`]: to a CA that is a reason not to issue.
    pub async fn find(&self, own: Option<OwnServers<'_>>, domain: &Name) -> Result<Caa, ResolveError> {
        let mut at = Some(domain.clone());
        for _ in 0..MOST {
            let Some(name) = at.filter(|name| name.depth() > 0) else { break };
            let known = self.at.lock().entry(name.clone()).or_default().clone();
            let records = known.get_or_try_init(|| self.records(own, &name)).await?;
            if !records.is_empty() {
                return Ok(Caa { at: Some(name), records: records.clone() });
            }
            at = name.parent();
        }
        Ok(Caa::default())
    }

    /// The records of one name, sorted.
    async fn records(&self, own: Option<OwnServers<'_>>, name: &Name) -> Result<Vec<CaaRecord>, ResolveError> {
        if let Some(own) = own.filter(|own| name.is_within(own.zone))
            && own.servers.lookup(name, RecordType::CAA).await?.no_such_name
        {
            return Ok(Vec::new());
        }
        let answer = self.resolver.lookup(name, RecordType::CAA).await?;
        // The records may stand at the end of CNAMEs: whatever owner they have, they count for the name asked for.
        let of_dns = answer.records.iter().filter(|record| to_name(&record.name).is_some());
        let mut records: Vec<CaaRecord> = of_dns
            .filter_map(|record| match &record.data {
                RData::CAA(caa) => Some(CaaRecord::new(&caa.tag, &caa.value, caa.issuer_critical)),
                _ => None,
            })
            .collect();
        records.sort();
        Ok(records)
    }
}

impl Caa {
    /// Whether a CA that calls itself by one of `identities` (the directory's `caaIdentities`) may issue by DNS-01, for a wildcard or not, with this account.
    ///
    /// # Errors
    /// Why not, and the record to create or to change.
    pub fn allows(&self, identities: &[String], account: Option<&str>, wildcard: bool) -> Result<(), String> {
        let Some(at) = &self.at else { return Ok(()) };
        let (at, tags) = (at.to_relative_string(), ["issue", "issuewild", "iodef", "contactemail", "contactphone"]);
        if let Some(unknown) = self.records.iter().find(|record| record.critical && !tags.contains(&record.tag.as_str())) {
            return Err(format!("{at} has a critical CAA record that CAs need not know, {}: they will refuse", unknown.tag));
        }
        let of = |tag: &str| self.records.iter().filter(|record| record.tag == tag).collect::<Vec<_>>();
        // For a wildcard, issuewild counts alone where there is one (RFC 8659, 4.3).
        let (tag, relevant) = match of("issuewild") {
            wild if wildcard && !wild.is_empty() => ("issuewild", wild),
            _ => ("issue", of("issue")),
        };
        if relevant.is_empty() {
            return Ok(());
        }
        let wanted = identities.first().map_or("the CA's domain", String::as_str);
        let ours: Vec<_> =
            relevant.iter().filter(|record| identities.iter().any(|one| record.issuer.as_ref() == Some(&one.to_lowercase()))).collect();
        if ours.is_empty() {
            let there: Vec<_> = relevant.iter().map(|record| record.issuer.as_deref().unwrap_or("nobody")).collect();
            return Err(format!("the CAA records of {at} let {} issue, not {wanted}: add {at} CAA 0 {tag} \"{wanted}\"", there.join(", ")));
        }
        let by_dns: Vec<_> = ours
            .iter()
            .filter(|record| record.validation_methods.is_empty() || record.validation_methods.iter().any(|method| method == "dns-01"))
            .collect();
        if by_dns.is_empty() {
            return Err(format!("the CAA record of {at} for {wanted} does not allow dns-01: add it to its validationmethods"));
        }
        let fits = |record: &CaaRecord| record.account_uri.as_deref().is_none_or(|uri| account.is_none_or(|account| account == uri));
        if by_dns.iter().any(|record| fits(record)) {
            return Ok(());
        }
        Err(format!(
            "the CAA record of {at} for {wanted} names another account: set its accounturi to {}",
            account.unwrap_or("the account's URL")
        ))
    }
}

impl CaaRecord {
    /// From tag and value (RFC 8659, 4.2: `issuer.example; name=value name=value` with semicolons between, blanks anywhere).
    fn new(tag: &str, value: &[u8], critical: bool) -> Self {
        let (tag, value) = (tag.to_lowercase(), String::from_utf8_lossy(value).into_owned());
        let mut record = Self { critical, issuer: None, account_uri: None, validation_methods: Vec::new(), value: value.clone(), tag };
        if matches!(record.tag.as_str(), "issue" | "issuewild") {
            let mut parts = value.split(';').map(str::trim);
            record.issuer = parts.next().filter(|issuer| !issuer.is_empty()).map(|issuer| issuer.trim_end_matches('.').to_lowercase());
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                match name.trim().to_lowercase().as_str() {
                    "accounturi" => record.account_uri = Some(value.trim().to_owned()),
                    "validationmethods" => {
                        record.validation_methods = value.split(',').map(|method| method.trim().to_lowercase()).collect();
                    }
                    _ => {}
                }
            }
        }
        record
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{Message, ResponseCode},
        rr::{Record, rdata},
    };

    use super::{
        super::super::fake::{Fake, reply},
        *,
    };

    fn zone_file(query: &Message) -> Message {
        let asked = &query.queries[0];
        let issue = |value: &str| RData::CAA(rdata::CAA::new_issue(false, Some(value.parse().unwrap()), Vec::new()));
        let mut answer = reply(query, false, &[]);
        match asked.name.to_ascii().as_str() {
            "example.test." => answer.answers.push(Record::from_rdata(asked.name.clone(), 60, issue("ca.test"))),
            "alias.test." => {
                let target = RData::CNAME(rdata::CNAME("example.test.".parse().unwrap()));
                answer.answers.push(Record::from_rdata(asked.name.clone(), 60, target));
                answer.answers.push(Record::from_rdata("example.test.".parse().unwrap(), 60, issue("ca.test")));
            }
            "broken.test." => answer.metadata.response_code = ResponseCode::ServFail,
            _ => {}
        }
        answer
    }

    #[tokio::test]
    async fn the_closest_name_with_records_counts() {
        let fake = Fake::start(|query, _| vec![zone_file(query)]).await;
        let resolver = Resolver::new(vec![fake.address]);
        let found = |name: &str| {
            let (resolver, name) = (resolver.clone(), name.parse::<Name>().unwrap());
            async move { CaaClimb::new(&resolver).find(None, &name).await }
        };
        let above = found("a.b.example.test").await.unwrap();
        assert_eq!((above.at, above.records[0].issuer.as_deref()), (Some("example.test".parse().unwrap()), Some("ca.test")));
        assert_eq!(found("alias.test").await.unwrap().at, Some("alias.test".parse().unwrap()));
        assert_eq!(found("free.test").await.unwrap(), Caa::default());
        assert!(found("www.broken.test").await.is_err());
    }

    #[tokio::test]
    async fn a_resolver_is_not_asked_for_what_the_zone_says_is_not_there() {
        let fake = Fake::start(|query, _| vec![zone_file(query)]).await;
        let own = Fake::start(|query, _| {
            let mut answer = reply(query, true, &[]);
            if query.queries[0].name.to_ascii() != "example.test." {
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
            vec![answer]
        })
        .await;
        let (resolver, servers) = (Resolver::new(vec![fake.address]), Resolver::new(vec![own.address]));
        let zone: Name = "example.test".parse().unwrap();
        let (climb, of_zone) = (CaaClimb::new(&resolver), OwnServers { servers: &servers, zone: &zone });
        let found = climb.find(Some(of_zone), &"new.sub.example.test".parse().unwrap()).await.unwrap();
        assert_eq!(found.at.as_ref(), Some(&zone));
        assert_eq!((own.asked(), fake.asked()), (3, 1), "the one name that is there");
        assert_eq!(climb.find(Some(of_zone), &"other.sub.example.test".parse().unwrap()).await.unwrap(), found);
        assert_eq!((own.asked(), fake.asked()), (4, 1), "what is above both is known");
    }

    fn allows(records: &[(&str, &str)], account: Option<&str>, wildcard: bool) -> Result<(), String> {
        let records = records.iter().map(|(tag, value)| CaaRecord::new(tag, value.as_bytes(), *tag == "future")).collect();
        let caa = Caa { at: Some("example.test".parse().unwrap()), records };
        caa.allows(&["ca.test".to_owned()], account, wildcard)
    }

    #[test]
    fn the_records_are_read_as_a_ca_reads_them() {
        let account = Some("https://ca.test/acct/1");
        for (records, wildcard, why_not) in [
            (&[("issue", "ca.test")][..], false, None),
            (&[("issue", " CA.test ; policy=ev")][..], true, None),
            (&[("iodef", "mailto:a@b.test")][..], false, None),
            (&[("issue", ";")][..], false, Some("let nobody issue")),
            (&[("issue", "other.test")][..], false, Some("let other.test issue, not ca.test: add example.test CAA 0 issue \"ca.test\"")),
            (&[("issue", "ca.test"), ("issuewild", ";")][..], false, None),
            (&[("issue", "ca.test"), ("issuewild", ";")][..], true, Some("add example.test CAA 0 issuewild")),
            (&[("issue", "ca.test; validationmethods=http-01")][..], false, Some("does not allow dns-01")),
            (&[("issue", "ca.test; validationmethods=http-01, dns-01")][..], false, None),
            (&[("issue", "ca.test; accounturi=https://ca.test/acct/1")][..], false, None),
            (&[("issue", "ca.test; accounturi=https://ca.test/acct/2")][..], false, Some("set its accounturi to https://ca.test/acct/1")),
            (&[("issue", "ca.test"), ("future", "x")][..], false, Some("critical CAA record")),
        ] {
            let verdict = allows(records, account, wildcard);
            match why_not {
                None => assert_eq!(verdict, Ok(()), "{records:?}"),
                Some(why) => assert!(verdict.as_ref().is_err_and(|error| error.contains(why)), "{records:?}: {verdict:?}"),
            }
        }
        // Before there is an account, any one fits.
        assert!(allows(&[("issue", "ca.test; accounturi=https://ca.test/acct/2")], None, false).is_ok());
    }
}
