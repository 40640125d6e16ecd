//! One run, from names to a checked certificate.

mod obtaining;
mod ordering;
mod proof;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use authdns::Name;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{
    acme::{Clients, Order, Session},
    certificate::CertificateKey,
    charge::Limits,
    claims::Claims,
    error::IssueError,
    event::{Event, Reporter},
    issued::{Outcome, Rehearsal, Stage, Target, Timings},
    journal::Journal,
    request::IssueRequest,
    target::{self, Destination},
};
use crate::{
    claim::{Backend, Timestamp},
    config::{Directory, Names},
    engine::Engine,
    propagation::{Checker, Plan},
};

/// Requests to the CA that one run has in flight. More would want more nonces than answers bring.
const CA_IN_FLIGHT: usize = 8;
/// Delegations that one run follows side by side.
const DNS_IN_FLIGHT: usize = 16;
/// By how much the clock may differ from the CA's. The answers of slow CAs take their time.
const SKEW: Duration = Duration::from_secs(90);
/// How long the CA may take to validate, and to issue.
const VALIDATION: Duration = Duration::from_secs(300);
const ISSUANCE: Duration = Duration::from_secs(300);

/// What one run works with.
pub(super) struct Run<'a> {
    pub(super) engine: &'a Engine,
    pub(super) clients: &'a Clients,
    pub(super) limits: &'a Limits,
    pub(super) request: &'a IssueRequest,
    /// The CA of this run.
    pub(super) directory: &'a Directory,
    pub(super) names: &'a Names,
    pub(super) reporter: &'a Reporter,
    pub(super) claims: &'a Claims,
    pub(super) journal: &'a Journal,
    /// Whether an order was charged for ([`super::charge`]).
    pub(super) charged: AtomicBool,
    /// When the run began, before anything was taken.
    pub(super) begun: Timestamp,
}

/// An order with what is left to prove, and where that goes; `None` if nothing is left.
struct Ordered {
    order: Order,
    pending: Vec<Pending>,
    delegations: Option<Delegations>,
}

/// A challenge to be met.
struct Pending {
    name: String,
    domain: Name,
    authorization_url: String,
    challenge_url: String,
    value: String,
}

/// Where the values of each domain go, and whom to ask whether they are there.
struct Delegations {
    found: BTreeMap<Name, Destination>,
    plan: Plan,
}

impl Run<'_> {
    /// The whole way. What an earlier run's order came to says nothing of a new one, which is placed then: its value may have gone with its process before the CA had
    /// seen it.
    ///
    /// # Errors
    /// [`IssueError`]. Claims may stand; the caller releases them.
    pub(super) async fn to_its_end(&self, cancel: &CancellationToken) -> Result<Outcome, IssueError> {
        let go = || async {
            tokio::select! {
                biased;
                () = cancel.cancelled() => Err(IssueError::Cancelled),
                outcome = Box::pin(self.go()) => outcome,
            }
        };
        let outcome = self.ended(go().await).await;
        match outcome {
            (Err(error), true) if error.ends_the_order() => {
                self.reporter.warn(format!("the order of an earlier run came to nothing, and a new one is placed: {error}"));
                self.claims.release(self.reporter).await;
                self.ended(go().await).await.0
            }
            (outcome, _) => outcome,
        }
    }

    /// What is left to be noted when a run has ended. With the outcome it gives whether the order was an earlier run's.
    async fn ended(&self, outcome: Result<Outcome, IssueError>) -> (Result<Outcome, IssueError>, bool) {
        let placed = self.journal.is_placed();
        let resumed = match &outcome {
            Ok(_) => false,
            Err(error) => self.journal.give_up(error).await,
        };
        self.settle(&outcome, placed).await;
        (outcome, resumed)
    }

    async fn go(&self) -> Result<Outcome, IssueError> {
        let clock = Clock::start();
        let directory = self.directory;
        let session = self.clients.session(directory).await.map_err(|error| IssueError::from_acme("connect", error))?;
        let checker = Checker::new(&self.engine.config.propagation);
        if self.request.dry_run {
            return self.rehearse(&clock, &session, &checker).await;
        }
        let Ordered { order, pending, delegations } = self.order(&clock, &session).await?;
        let key = match self.journal.key().or_else(|| self.request.key.clone()) {
            Some(key) => CertificateKey::known(key),
            None => CertificateKey::new(self.request.key_type),
        };
        if let Some(delegations) = delegations {
            self.prove(&clock, &session, &checker, &pending, delegations, &key).await?;
        }
        let order = self.validated(&clock, &session, order).await?;
        self.obtain(&clock, &session, order, &key).await.map(|issued| Outcome::Issued(Box::new(issued)))
    }

    /// Follows every domain's delegation, and finds the servers of the zones at their ends.
    async fn walk(&self) -> Result<Delegations, IssueError> {
        let follow = |domain: Name| async move {
            let challenge = format!("_acme-challenge.{}", domain.to_relative_string());
            self.reporter.send(Event::LookingFor { challenge: challenge.clone() });
            let found = target::find(&domain, self.engine).await;
            if let Ok(found) = &found {
                self.reporter.send(Event::DelegationFound { challenge, owner: found.owner.to_relative_string() });
            }
            (domain, found)
        };
        let walks: Vec<_> = self.names.domains().into_iter().map(follow).collect();
        let walked: Vec<_> = stream::iter(walks).buffered(DNS_IN_FLIGHT).collect().await;
        let mut found = BTreeMap::new();
        let mut texts = BTreeSet::new();
        for (domain, outcome) in walked {
            match outcome {
                Ok(destination) => drop(found.insert(domain, destination)),
                Err(problem) => drop(texts.insert(problem)),
            }
        }
        if !texts.is_empty() {
            return Err(IssueError::Delegation { texts: texts.into_iter().collect() });
        }
        // What a backend serves is seen by the dispatch.
        let embedded = found.values().filter(|found| found.lane.backend == Backend::Embedded);
        let zones: BTreeSet<Name> = embedded.map(|found| found.lane.zone.clone()).collect();
        Ok(Delegations { plan: self.engine.propagation.plan(&zones).await?, found })
    }

    /// Everything up to the order, with values that mean nothing: two for an apex with its wildcard, as a real order would have.
    async fn rehearse(&self, clock: &Clock, session: &Session, checker: &Checker) -> Result<Outcome, IssueError> {
        let (probed, delegations) = tokio::join!(clock.time("directory", session.probe()), clock.time("delegations", self.walk()));
        probed.map_err(|error| IssueError::from_acme("its directory", error))?;
        let Delegations { found: destinations, plan } = delegations?;
        let owners = self.names.iter().filter_map(|name| destinations.get(&name.domain)).map(|found| found.owner.clone());
        let values = owners.map(|owner| Ok((owner, made_up()?))).collect::<Result<Vec<_>, IssueError>>()?;
        self.show(clock, checker, values, &plan, None).await?;
        clock.time("release", self.claims.release(self.reporter)).await;
        let text = |name: &Name| name.to_relative_string();
        let targets = destinations.values().map(|found| Target { challenge: text(&found.challenge), owner: text(&found.owner) }).collect();
        Ok(Outcome::Rehearsed(Rehearsal { targets, timings: clock.read(session.requests()) }))
    }
}

/// A value as long as a real one, and as random.
fn made_up() -> Result<String, IssueError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| IssueError::Internal { text: format!("the system gives no random numbers: {error}") })?;
    Ok(data_encoding::BASE64URL_NOPAD.encode(&bytes))
}

/// Where the time goes.
struct Clock {
    start: Instant,
    stages: Mutex<Vec<Stage>>,
}

impl Clock {
    fn start() -> Self {
        Self { start: Instant::now(), stages: Mutex::default() }
    }

    async fn time<T>(&self, name: &str, work: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let done = work.await;
        self.stages.lock().push(Stage { name: name.to_owned(), took: start.elapsed() });
        done
    }

    fn read(&self, requests: u32) -> Timings {
        Timings { stages: self.stages.lock().clone(), total: self.start.elapsed(), requests }
    }
}
