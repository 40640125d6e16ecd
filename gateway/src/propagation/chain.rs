//! Chains of CNAMEs and DNAMEs.
//!
//! **DNAME** (RFC 6672): a record above the name renames everything below it. Resolvers put the CNAME that follows from it into the answer, but some answers
//! hold the DNAME alone: then the CNAME is made here.
//!
//! **A wildcard** (`*.example.com CNAME x`) makes a CNAME of every name without records of its own, `_acme-challenge.www.example.com` among them: nobody
//! delegated the challenge to `x`. It is told from a record by asking for a name beside it that nobody can have made.

use async_trait::async_trait;
use authdns::Name;
use hickory_proto::rr::{RData, Record, RecordType};
use serde::{Deserialize, Serialize};

use super::{
    exchange::to_name,
    resolver::{Answer, ResolveError, Resolver},
};

/// Most CNAMEs followed; CAs' resolvers give up between 8 and 20.
const MOST: usize = 16;

/// Where CNAMEs lead.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// The steps in order; empty if the start has no CNAME.
    pub links: Vec<Link>,
}

/// One step of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Where it leads.
    pub target: Name,
    /// What leads there.
    pub by: By,
}

/// What leads from one name to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// A CNAME record of that name.
    Cname,
    /// A wildcard CNAME above it: every name beside it leads there too.
    Wildcard,
    /// A DNAME record at this name above it.
    Dname(Name),
}

impl Chain {
    /// The last target; `None` if there is none.
    pub fn end(&self) -> Option<&Name> {
        self.links.last().map(|link| &link.target)
    }

    /// True if the first step is a wildcard's: the name has no record of its own.
    pub fn is_accident(&self) -> bool {
        self.links.first().is_some_and(|link| link.by == By::Wildcard)
    }
}

/// Who is asked where a name of a chain leads.
#[derive(Debug, Clone)]
pub enum Whom {
    /// Nobody: the chain ends there.
    Nobody,
    /// These servers: resolvers, or the name's own servers, whose answers no cache remembers.
    These(Resolver),
}

/// Knows whom to ask about each name of a chain.
#[async_trait]
pub trait Guide: Sync {
    /// Whom to ask where `name` leads.
    ///
    /// # Errors
    /// [`ResolveError`] if its servers cannot be found.
    async fn whom(&self, name: &Name) -> Result<Whom, ResolveError>;
}

/// Follows CNAMEs and DNAMEs from `start`, one question a link, to the first name for which `stop` holds or to the end. No question is asked about a name for
/// which `stop` holds. Whether the first link is a wildcard's is found out, too.
///
/// # Errors
/// [`ResolveError`].
pub async fn follow(resolver: &Resolver, start: &Name, stop: impl Fn(&Name) -> bool + Sync) -> Result<Chain, ResolveError> {
    struct Until<'a, F>(&'a Resolver, F);

    #[async_trait]
    impl<F: Fn(&Name) -> bool + Sync> Guide for Until<'_, F> {
        async fn whom(&self, name: &Name) -> Result<Whom, ResolveError> {
            Ok(if self.1(name) { Whom::Nobody } else { Whom::These(self.0.clone()) })
        }
    }

    trace(start, &Until(resolver, stop), &|_| false).await
}

/// The same, with a guide who says whom to ask about each name. That the first link is a wildcard's does not matter, and is not found out, where it leads to a name
/// that is `meant`.
///
/// # Errors
/// [`ResolveError`].
pub async fn trace(start: &Name, guide: &dyn Guide, meant: &(dyn Fn(&Name) -> bool + Sync)) -> Result<Chain, ResolveError> {
    let mut chain = Chain::default();
    let mut at = start.clone();
    while let Whom::These(servers) = guide.whom(&at).await? {
        let Some(mut next) = link(&servers.lookup(&at, RecordType::CNAME).await?, &at)? else { break };
        if chain.links.is_empty() && !meant(&next.target) {
            next = next.or_wildcard(beside(&servers, start).await.as_ref());
        }
        if next.target == *start || chain.links.iter().any(|link| link.target == next.target) {
            return Err(ResolveError::Circle(next.target));
        }
        if chain.links.len() == MOST {
            return Err(ResolveError::TooLong(MOST));
        }
        at = next.target.clone();
        chain.links.push(next);
    }
    Ok(chain)
}

impl Link {
    /// The same as a wildcard's, if a name beside leads to the same target.
    fn or_wildcard(self, beside: Option<&Self>) -> Self {
        let same = beside.is_some_and(|beside| beside.by == By::Cname && beside.target == self.target);
        if same && self.by == By::Cname { Self { by: By::Wildcard, ..self } } else { self }
    }
}

/// Where a name beside this one leads, one that nobody can have made; `None` if nowhere, or nobody knows.
async fn beside(resolver: &Resolver, name: &Name) -> Option<Link> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).ok()?;
    let label = format!("acmegate-{}", data_encoding::HEXLOWER.encode(&random));
    let beside = name.parent()?.prepend(label.as_bytes()).ok()?;
    link(&resolver.lookup(&beside, RecordType::CNAME).await.ok()?, &beside).ok()?
}

/// The step that an answer holds for a name.
///
/// # Errors
/// [`ResolveError::Overflow`].
fn link(answer: &Answer, at: &Name) -> Result<Option<Link>, ResolveError> {
    let dname = answer.records.iter().find_map(|record| dname(record).filter(|(owner, _)| at != owner && at.is_within(owner)));
    let cname = answer.records.iter().find_map(|record| match &record.data {
        RData::CNAME(target) if to_name(&record.name).as_ref() == Some(at) => to_name(&target.0),
        _ => None,
    });
    Ok(match (dname, cname) {
        (Some((owner, _)), Some(target)) => Some(Link { target, by: By::Dname(owner) }),
        (Some((owner, target)), None) => match renamed(at, &owner, &target) {
            Some(target) => Some(Link { target, by: By::Dname(owner) }),
            None => return Err(ResolveError::Overflow(owner)),
        },
        (None, target) => target.map(|target| Link { target, by: By::Cname }),
    })
}

/// Owner and target of a DNAME record; the target is never compressed (RFC 6672, 2.5).
fn dname(record: &Record) -> Option<(Name, Name)> {
    match &record.data {
        RData::Unknown { code, rdata } if *code == RecordType::DNAME => {
            Some((to_name(&record.name)?, Name::from_wire(&rdata.anything).ok()?))
        }
        _ => None,
    }
}

/// A name with its suffix `from` replaced by `to`; `None` if that is too long.
fn renamed(name: &Name, from: &Name, to: &Name) -> Option<Name> {
    let labels: Vec<&[u8]> = name.labels().take(name.depth().saturating_sub(from.depth())).collect();
    labels.iter().rev().try_fold(to.clone(), |name, label| name.prepend(label).ok())
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::ResponseCode,
        rr::{Record, rdata},
    };

    use super::{
        super::fake::{Fake, reply},
        *,
    };

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn targets(chain: &Chain) -> Vec<Name> {
        chain.links.iter().map(|link| link.target.clone()).collect()
    }

    /// A resolver that knows CNAMEs, answers NXDOMAIN for the rest, and SERVFAIL for what the test says must not be asked.
    async fn resolver(links: &'static [(&'static str, &'static str)], forbidden: &'static str) -> (Fake, Resolver) {
        let fake = Fake::start(move |query, _| {
            let asked = query.queries[0].name.to_ascii().to_lowercase();
            let mut answer = reply(query, false, &[]);
            let target = links.iter().find(|(from, _)| asked == *from || (from.starts_with("#") && asked.starts_with("n")));
            match target {
                _ if asked == forbidden => answer.metadata.response_code = ResponseCode::ServFail,
                // `#` counts up for ever: n1., n2., …
                Some(("#", _)) => {
                    let number: u32 = asked.trim_start_matches('n').trim_end_matches('.').parse().unwrap();
                    let target = format!("n{}.", number + 1);
                    answer.answers.push(cname(query.queries[0].name.clone(), &target));
                }
                Some((_, to)) => answer.answers.push(cname(query.queries[0].name.clone(), to)),
                None => answer.metadata.response_code = ResponseCode::NXDomain,
            }
            vec![answer]
        })
        .await;
        let resolver = Resolver::new(vec![fake.address]);
        (fake, resolver)
    }

    fn cname(owner: hickory_proto::rr::Name, target: &str) -> Record {
        Record::from_rdata(owner, 60, RData::CNAME(rdata::CNAME(target.parse().unwrap())))
    }

    #[tokio::test]
    async fn a_chain_is_followed_to_the_first_name_of_ours_and_no_further() {
        let (_fake, resolver) = resolver(&[("a.test.", "B.test."), ("b.test.", "c.ours.")], "c.ours.").await;
        let chain = follow(&resolver, &name("a.test"), |name| name.to_string().ends_with(".ours.")).await.unwrap();
        assert_eq!(targets(&chain), [name("b.test"), name("c.ours")]);
    }

    #[tokio::test]
    async fn chains_end_where_there_is_no_cname() {
        let (_fake, resolver) = resolver(&[("a.test.", "b.test.")], "").await;
        assert_eq!(targets(&follow(&resolver, &name("a.test"), |_| false).await.unwrap()), [name("b.test")]);
        assert_eq!(follow(&resolver, &name("x.test"), |_| false).await.unwrap(), Chain::default());
    }

    #[tokio::test]
    async fn circles_and_endless_chains_are_errors() {
        let (_fake, circle) = resolver(&[("a.test.", "b.test."), ("b.test.", "a.test.")], "").await;
        assert_eq!(follow(&circle, &name("a.test"), |_| false).await, Err(ResolveError::Circle(name("a.test"))));
        let (_fake, endless) = resolver(&[("#", "")], "").await;
        assert_eq!(follow(&endless, &name("n1"), |_| false).await, Err(ResolveError::TooLong(MOST)));
    }

    #[tokio::test]
    async fn a_resolver_that_fails_is_named_and_the_next_one_asked() {
        let (failing, alone) = resolver(&[], "a.test.").await;
        let error = follow(&alone, &name("a.test"), |_| false).await.unwrap_err().to_string();
        assert!(error.contains(&format!("resolver {}: SERVFAIL", failing.address)), "{error}");
        let (good, _) = resolver(&[("a.test.", "b.test.")], "").await;
        let both = Resolver::new(vec![failing.address, good.address]);
        assert_eq!(targets(&follow(&both, &name("a.test"), |name| *name != self::name("a.test")).await.unwrap()), [name("b.test")]);
    }

    /// A resolver where everything below `*.wild.test` leads to `www.test`, but `own.wild.test`, and everything below `old.test` is to be found below `new.test`.
    async fn renaming(with_cname: bool) -> (Fake, Resolver) {
        let fake = Fake::start(move |query, _| {
            let asked = name(&query.queries[0].name.to_ascii());
            let mut answer = reply(query, false, &[]);
            let owner = query.queries[0].name.clone();
            if asked == name("own.wild.test") {
                answer.answers.push(cname(owner, "ours.test."));
            } else if asked.is_within(&name("wild.test")) {
                answer.answers.push(cname(owner, "www.test."));
            } else if asked.is_within(&name("old.test")) {
                let target = rdata::NULL::with(name("new.test").as_wire().to_vec());
                answer.answers.push(Record::from_rdata(
                    "old.test.".parse().unwrap(),
                    60,
                    RData::Unknown { code: RecordType::DNAME, rdata: target },
                ));
                if with_cname {
                    answer.answers.push(cname(owner, &renamed(&asked, &name("old.test"), &name("new.test")).unwrap().to_string()));
                }
            }
            vec![answer]
        })
        .await;
        let resolver = Resolver::new(vec![fake.address]);
        (fake, resolver)
    }

    #[tokio::test]
    async fn a_wildcard_is_told_from_a_record_of_its_own() {
        let (_fake, resolver) = renaming(true).await;
        let accident = follow(&resolver, &name("_acme-challenge.wild.test"), |_| false).await.unwrap();
        assert_eq!(accident.links, [Link { target: name("www.test"), by: By::Wildcard }]);
        assert!(accident.is_accident());
        let own = follow(&resolver, &name("own.wild.test"), |_| false).await.unwrap();
        assert_eq!(own.links, [Link { target: name("ours.test"), by: By::Cname }]);
        assert!(!own.is_accident());
    }

    #[tokio::test]
    async fn a_dname_renames_what_is_below_it() {
        for with_cname in [true, false] {
            let (_fake, resolver) = renaming(with_cname).await;
            let chain = follow(&resolver, &name("_acme-challenge.www.old.test"), |_| false).await.unwrap();
            let by = By::Dname(name("old.test"));
            assert_eq!(chain.links, [Link { target: name("_acme-challenge.www.new.test"), by }], "with the CNAME: {with_cname}");
        }
        let long = name("old.test").prepend(&[b'a'; 63]).unwrap().prepend(&[b'a'; 63]).unwrap().prepend(&[b'a'; 63]).unwrap();
        let target = name("a-longer-name-than-before-that-does-not-fit-into-what-is-left.test");
        assert_eq!(renamed(&long, &name("old.test"), &target), None);
    }
}
