//! CNAME chains. DNAMEs need no word here: a resolver makes CNAMEs of them.

use authdns::Name;
use hickory_proto::rr::{RData, RecordType};

use super::{
    exchange::to_name,
    resolver::{ResolveError, Resolver},
};

/// Most CNAMEs followed; CAs' resolvers give up between 8 and 20.
const MOST: usize = 16;

/// Where CNAMEs lead.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// The targets in order, the start not among them; empty if the start has no CNAME.
    pub links: Vec<Name>,
}

/// Follows CNAMEs from `start`, one question a link, to the first name for which `stop` holds or to the end. No question is asked about a name for which `stop` holds.
///
/// # Errors
/// [`ResolveError`].
pub async fn follow(resolver: &Resolver, start: &Name, stop: impl Fn(&Name) -> bool) -> Result<Chain, ResolveError> {
    let mut chain = Chain::default();
    let mut at = start.clone();
    while !stop(&at) {
        let answer = resolver.lookup(&at, RecordType::CNAME).await?;
        let target = answer.records.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if to_name(&record.name).as_ref() == Some(&at) => to_name(&target.0),
            _ => None,
        });
        let Some(target) = target else { break };
        if target == *start || chain.links.contains(&target) {
            return Err(ResolveError::Circle(target));
        }
        if chain.links.len() == MOST {
            return Err(ResolveError::TooLong(MOST));
        }
        chain.links.push(target.clone());
        at = target;
    }
    Ok(chain)
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
        assert_eq!(chain.links, [name("b.test"), name("c.ours")]);
    }

    #[tokio::test]
    async fn chains_end_where_there_is_no_cname() {
        let (_fake, resolver) = resolver(&[("a.test.", "b.test.")], "").await;
        assert_eq!(follow(&resolver, &name("a.test"), |_| false).await.unwrap().links, [name("b.test")]);
        assert_eq!(follow(&resolver, &name("x.test"), |_| false).await.unwrap().links, []);
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
        assert_eq!(follow(&both, &name("a.test"), |name| *name != self::name("a.test")).await.unwrap().links, [name("b.test")]);
    }
}
