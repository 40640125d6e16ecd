//! The configured resolvers. No cache of our own: an answer that is a second old may be the mistake that a person has just corrected.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use authdns::Name;
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Record, RecordType},
};

use super::{
    exchange::{DNS, Question},
    https::Https,
    upstream::Upstream,
};
use crate::config::{self, ResolverAddress};

/// How long each resolver may take, in the first round and in the second.
const PATIENCE: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(7)];

/// Recursive resolvers, asked in turn. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Resolver(Arc<[Upstream]>);

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// There is nobody to ask.
    #[error("there are no resolvers: set propagation.resolvers, or nameservers in /etc/resolv.conf")]
    NoResolvers,
    /// No resolver gave a usable answer.
    #[error("no answer to {} {kind}: {what}", name.to_relative_string())]
    NoAnswer {
        /// The name asked for.
        name: Name,
        /// The type asked for.
        kind: String,
        /// What each resolver did.
        what: String,
    },
    /// CNAMEs that lead back to themselves.
    #[error("its CNAMEs lead in a circle, back to {}", .0.to_relative_string())]
    Circle(Name),
    /// More CNAMEs than anybody follows.
    #[error("it leads through more than {0} CNAMEs")]
    TooLong(usize),
    /// The servers of a zone on the way are not to be found.
    #[error("{0}")]
    NoServers(String),
    /// A DNAME whose target, put in place of its owner, makes a name that is too long (RFC 6672, 2.2).
    #[error("the DNAME at {} makes a name that is too long", .0.to_relative_string())]
    Overflow(Name),
}

/// What a resolver said: records of the type asked for (and CNAMEs on the way to them).
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    pub(super) records: Vec<Record>,
    /// The authority section: where the name does not exist, the SOA record of the zone that would hold it.
    pub(super) authorities: Vec<Record>,
    /// True if there is no such name (NXDOMAIN), rather than no record of that type.
    pub(super) no_such_name: bool,
}

impl Resolver {
    /// These resolvers.
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        Self(servers.into_iter().map(Upstream::Udp).collect())
    }

    /// The configured resolvers, or the system's where none are configured. Those of the system are read at each call: laptops move.
    pub fn configured(config: &config::Propagation) -> Self {
        if !config.resolvers.is_empty() {
            let upstream = |address: &ResolverAddress| match address {
                ResolverAddress::Udp(address) => Upstream::Udp(*address),
                ResolverAddress::Tcp(address) => Upstream::Tcp(*address),
                ResolverAddress::Https(url) => Upstream::Https(Arc::new(Https::new(url.clone(), config.ca_file.as_deref()))),
            };
            return Self(config.resolvers.iter().map(upstream).collect());
        }
        let system = hickory_resolver::system_conf::read_system_conf();
        Self::new(
            system
                .map(|(config, _)| config.name_servers().iter().map(|server| SocketAddr::new(server.ip, DNS)).collect())
                .unwrap_or_default(),
        )
    }

    /// Each of them.
    pub(super) fn upstreams(&self) -> &[Upstream] {
        &self.0
    }

    /// Asks one resolver after the other, twice over, until one answers.
    ///
    /// # Errors
    /// [`ResolveError::NoResolvers`] and [`ResolveError::NoAnswer`].
    pub(super) async fn lookup(&self, name: &Name, kind: RecordType) -> Result<Answer, ResolveError> {
        let usable = |message: &Message| match message.metadata.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => Ok(()),
            ResponseCode::ServFail => Err("SERVFAIL (the servers of the zone do not answer it, or DNSSEC is broken)".to_owned()),
            code => Err(format!("{code}")),
        };
        let message = self.message(&Question::recursive(name, kind), usable).await?;
        let no_such_name = message.metadata.response_code == ResponseCode::NXDomain;
        Ok(Answer { records: message.answers, authorities: message.authorities, no_such_name })
    }

    /// The same for any question and any rcode that `usable` takes.
    ///
    /// # Errors
    /// As [`Resolver::lookup`].
    pub(super) async fn message(
        &self,
        question: &Question,
        usable: impl Fn(&Message) -> Result<(), String>,
    ) -> Result<Message, ResolveError> {
        if self.0.is_empty() {
            return Err(ResolveError::NoResolvers);
        }
        let mut failures = Vec::new();
        for patience in PATIENCE {
            failures.clear();
            for server in self.0.iter() {
                let answer = server.exchange(question, patience).await.map_err(|error| error.to_string());
                match answer.and_then(|message| usable(&message).map(|()| message)) {
                    Ok(message) => return Ok(message),
                    Err(failure) => failures.push(format!("resolver {server}: {failure}")),
                }
            }
        }
        Err(ResolveError::NoAnswer { name: question.name.clone(), kind: question.kind.to_string(), what: failures.join("; ") })
    }
}
