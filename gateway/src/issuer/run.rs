//! One run, from names to a checked certificate.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::pin,
    time::{Duration, Instant},
};

use authdns::Name;
use futures_util::{
    StreamExt, TryStreamExt,
    future::{Either, select},
    stream,
};
use parking_lot::Mutex;
use rcgen::KeyPair;
use tokio::task::JoinHandle;

use super::{
    acme::{Authorization, Clients, Download, Order, Polled, Problem, Session, Status},
    caa, certificate,
    claims::Claims,
    error::{Failure, IssueError},
    event::{Event, Reporter},
    issued::{Issued, Outcome, Rehearsal, Stage, Target, Timings},
    names::Names,
    request::IssueRequest,
    target::{self, Destination},
};
use crate::{
    claim::Backend,
    config::Directory,
    engine::Engine,
    propagation::{Checker, Plan, Progress, PropagationError, Values},
};

/// Requests to the CA that one run has in flight. More would want more nonces than answers bring.
const CA_IN_FLIGHT: usize = 8;
/// Delegations that one run follows side by side.
const DNS_IN_FLIGHT: usize = 16;
/// How long the CA may take to validate, and to issue.
const VALIDATION: Duration = Duration::from_secs(300);
const ISSUANCE: Duration = Duration::from_secs(300);

/// What one run works with.
pub(super) struct Run<'a> {
    pub(super) engine: &'a Engine,
    pub(super) clients: &'a Clients,
    pub(super) request: &'a IssueRequest,
    /// The CA of this run.
    pub(super) directory: &'a Directory,
    pub(super) names: &'a Names,
    pub(super) reporter: &'a Reporter,
    pub(super) claims: &'a Claims,
}

/// An order with what is left to prove.
struct Ordered {
    order: Order,
    pending: Vec<Pending>,
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
    found: BTreeMap<Name, Result<Destination, String>>,
    plan: Result<Plan, PropagationError>,
}

impl Run<'_> {
    /// The whole way.
    ///
    /// # Errors
    /// [`IssueError`]. Claims may stand; the caller releases them.
    pub(super) async fn go(&self) -> Result<Outcome, IssueError> {
        let clock = Clock::start();
        let directory = self.directory;
        let session = self.clients.session(directory).await.map_err(|error| IssueError::from_acme("connect", error))?;
        let checker = Checker::new(&self.engine.config.propagation);
        if self.request.dry_run {
            return self.rehearse(&clock, &session, &checker).await;
        }
        let kind = self.request.key_type;
        let key = tokio::task::spawn_blocking(move || certificate::new_key(kind));
        let (ordered, delegations) = self.order_and_walk(&clock, &session, &checker).await?;
        if let Some(delegations) = delegations {
            self.prove(&clock, &session, &checker, &ordered.pending, delegations).await?;
        }
        let order = self.validated(&clock, &session, ordered.order).await?;
        self.obtain(&clock, &session, order, key).await.map(|issued| Outcome::Issued(Box::new(issued)))
    }

    /// Orders, and meanwhile follows the delegations; waits for those only if something is left to prove.
    async fn order_and_walk(
        &self,
        clock: &Clock,
        session: &Session,
        checker: &Checker,
    ) -> Result<(Ordered, Option<Delegations>), IssueError> {
        let ordering = pin!(self.order(clock, session));
        let walking = pin!(clock.time("delegations", self.walk(checker)));
        match select(ordering, walking).await {
            Either::Left((ordered, walking)) => {
                let ordered = ordered?;
                let walked = if ordered.pending.is_empty() { None } else { Some(walking.await) };
                Ok((ordered, walked))
            }
            Either::Right((walked, ordering)) => Ok((ordering.await?, Some(walked))),
        }
    }

    async fn order(&self, clock: &Clock, session: &Session) -> Result<Ordered, IssueError> {
        let (store, directory) = (&*self.engine.store, self.directory);
        let signed_in = clock.time("account", session.sign_in(store, directory)).await;
        if let Some(url) = signed_in.map_err(|error| IssueError::from_acme("the account's registration", error))? {
            self.reporter.send(Event::AccountReady { url });
        }
        clock.time("caa", self.caa(session)).await?;
        let names = self.names.to_strings();
        let profile = directory.profile.as_deref();
        let order = match clock.time("order", session.new_order(&names, profile)).await {
            Err(error) if error.is("accountDoesNotExist") => {
                let again = clock.time("account again", session.sign_in_again(store, directory)).await;
                let url = again.map_err(|error| IssueError::from_acme("the account's registration", error))?;
                self.reporter.warn(format!(
                    "the CA had forgotten our account; the same key is registered again as {url}. CAA records that name the old accounturi have to be changed"
                ));
                clock.time("order", session.new_order(&names, profile)).await
            }
            other => other,
        };
        let order = order.map_err(|error| IssueError::from_acme("the order", error))?;
        self.reporter.send(Event::OrderCreated { url: order.url.clone(), names: names.len() });
        if order.status != Status::Pending {
            return Ok(Ordered { order, pending: Vec::new() });
        }
        let authorizations = clock.time("authorizations", self.authorizations(session, &order)).await?;
        let mut pending = Vec::new();
        for (url, authorization) in authorizations {
            match authorization.status {
                Status::Valid => self.reporter.send(Event::AlreadyAuthorized { name: authorization.name() }),
                _ => pending.push(self.challenge(session, url, &authorization)?),
            }
        }
        Ok(Ordered { order, pending })
    }

    /// Before the order: a CA that looks at the CAA records after it has already counted it.
    async fn caa(&self, session: &Session) -> Result<(), IssueError> {
        let acme = |error| IssueError::from_acme("its directory", error);
        let (identities, account) = (session.caa_identities().await.map_err(acme)?, session.signed_in().map_err(acme)?);
        let warnings = caa::check(self.engine, self.names, &identities, &account.url).await?;
        warnings.into_iter().for_each(|text| self.reporter.warn(text));
        Ok(())
    }

    async fn authorizations(&self, session: &Session, order: &Order) -> Result<Vec<(String, Authorization)>, IssueError> {
        let fetch = |url: String| async move { session.authorization(&url).await.map(|authorization| (url, authorization)) };
        let fetches: Vec<_> = order.authorizations.iter().cloned().map(fetch).collect();
        stream::iter(fetches).buffered(CA_IN_FLIGHT).try_collect().await.map_err(|error| IssueError::from_acme("an authorization", error))
    }

    fn challenge(&self, session: &Session, authorization_url: String, authorization: &Authorization) -> Result<Pending, IssueError> {
        let name = authorization.name();
        let refused = |detail: String| {
            let problem = Box::new(Problem { detail, ..Problem::default() });
            IssueError::Refused { action: format!("to validate {name} by DNS"), problem }
        };
        if authorization.status != Status::Pending {
            return Err(IssueError::Invalid { failures: vec![Failure { problem: authorization.problem(), name }] });
        }
        let challenge = authorization.dns01().ok_or_else(|| refused("it offers no dns-01 challenge for this name".into()))?;
        let domain =
            authorization.domain().parse().map_err(|_| refused("its authorization is for something that is no domain name".into()))?;
        let value = session.dns01_value(&challenge.token).map_err(|error| IssueError::from_acme("a challenge", error))?;
        Ok(Pending { domain, authorization_url, challenge_url: challenge.url.clone(), value, name })
    }

    /// Follows every domain's delegation, and finds the servers of the zones at their ends.
    async fn walk(&self, checker: &Checker) -> Delegations {
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
        let found: BTreeMap<_, _> = stream::iter(walks).buffered(DNS_IN_FLIGHT).collect().await;
        // What a backend serves is seen by the dispatch.
        let embedded = found.values().flatten().filter(|found| found.lane.backend == Backend::Embedded);
        let zones: BTreeSet<Name> = embedded.map(|found| found.lane.zone.clone()).collect();
        Delegations { plan: checker.plan(&zones).await, found }
    }

    /// Puts the values up, sees them at every server, and lets the CA look.
    async fn prove(
        &self,
        clock: &Clock,
        session: &Session,
        checker: &Checker,
        pending: &[Pending],
        delegations: Delegations,
    ) -> Result<(), IssueError> {
        let mut values = Vec::with_capacity(pending.len());
        let mut problems = BTreeSet::new();
        for pending in pending {
            match delegations.found.get(&pending.domain) {
                Some(Ok(found)) => values.push((found.owner.clone(), pending.value.clone())),
                Some(Err(problem)) => drop(problems.insert(problem.clone())),
                None => {
                    let text = format!("its order has an authorization for {}, which was not asked for", pending.name);
                    return Err(IssueError::Unreachable { action: "the order".into(), text });
                }
            }
        }
        if !problems.is_empty() {
            return Err(IssueError::Delegation { texts: problems.into_iter().collect() });
        }
        self.show(clock, checker, values, &delegations.plan?).await?;
        clock.time("submission", self.submit(session, pending)).await
    }

    /// Waits for the CA's word on an order whose challenges are submitted. One that another run's authorizations have made ready meanwhile is
    /// looked at all the same: what we hold is older than they are.
    async fn validated(&self, clock: &Clock, session: &Session, order: Order) -> Result<Order, IssueError> {
        if order.status != Status::Pending {
            return Ok(order);
        }
        let waited = clock.time("validation", session.wait(&order.url, |status| status == Status::Pending, VALIDATION)).await;
        let order = match waited.map_err(|error| IssueError::from_acme("the order", error))? {
            Polled::Done(order) => order,
            Polled::TooSlow => return Err(IssueError::TooSlow { action: "validation".into(), seconds: VALIDATION.as_secs() }),
        };
        if order.status == Status::Invalid {
            return Err(self.failures(session, &order).await?);
        }
        self.reporter.send(Event::OrderReady);
        Ok(order)
    }

    /// Claims values, and waits until they are visible.
    async fn show(&self, clock: &Clock, checker: &Checker, values: Vec<(Name, String)>, plan: &Plan) -> Result<(), IssueError> {
        let mut wanted = Values::new();
        for (owner, value) in values.iter().filter(|(owner, _)| self.engine.ledger.zone_of(owner).is_some()) {
            wanted.entry(owner.clone()).or_default().insert(value.clone());
        }
        let count = values.len();
        clock.time("claims", self.claims.set(values)).await?;
        self.reporter.send(Event::ValuesSet { values: count });
        let watch = |progress| match progress {
            Progress::Ready { zone, ready, servers } => self.reporter.send(Event::Waiting { zone, ready, servers }),
            Progress::LeftAside { text } => self.reporter.warn(text),
        };
        clock.time("propagation", checker.wait(plan, &wanted, &watch)).await?;
        clock.time("caches", self.claims.outlast_caches()).await;
        self.reporter.send(Event::Visible);
        Ok(())
    }

    async fn submit(&self, session: &Session, pending: &[Pending]) -> Result<(), IssueError> {
        let submit = |pending: &Pending| {
            let (challenge, authorization) = (pending.challenge_url.clone(), pending.authorization_url.clone());
            let action = format!("the challenge for {}", pending.name);
            async move {
                let Err(error) = session.submit(&challenge).await else { return Ok(()) };
                // Another order of this account may share the authorization and have been first; then the order will tell.
                if error.is("malformed") && session.authorization(&authorization).await.is_ok_and(|found| found.status != Status::Pending) {
                    return Ok(());
                }
                Err(IssueError::from_acme(&action, error))
            }
        };
        let submissions: Vec<_> = pending.iter().map(submit).collect();
        stream::iter(submissions).buffer_unordered(CA_IN_FLIGHT).try_collect::<()>().await?;
        self.reporter.send(Event::ChallengesSubmitted { challenges: pending.len() });
        Ok(())
    }

    /// What the CA says of each name of an invalid order.
    async fn failures(&self, session: &Session, order: &Order) -> Result<IssueError, IssueError> {
        let authorizations = self.authorizations(session, order).await?;
        let failed = authorizations.iter().filter(|(_, authorization)| !matches!(authorization.status, Status::Valid | Status::Pending));
        let mut failures: Vec<_> = failed.map(|(_, failed)| Failure { name: failed.name(), problem: failed.problem() }).collect();
        failures.sort_by(|a, b| a.name.cmp(&b.name));
        if let (true, Some(problem)) = (failures.is_empty(), &order.error) {
            return Ok(IssueError::Refused { action: "the order".into(), problem: Box::new(problem.clone()) });
        }
        Ok(IssueError::Invalid { failures })
    }

    /// From an order whose names are proved to the certificate. The values have done their work, and go meanwhile.
    async fn obtain(
        &self,
        clock: &Clock,
        session: &Session,
        order: Order,
        key: JoinHandle<Result<KeyPair, String>>,
    ) -> Result<Issued, IssueError> {
        let ((), obtained) =
            tokio::join!(clock.time("release", self.claims.release(self.reporter)), self.finalize(clock, session, order, key));
        let (order, key) = obtained?;
        let downloaded = clock.time("download", session.certificate(&order)).await;
        let downloaded = downloaded.map_err(|error| IssueError::from_acme("the certificate", error))?;
        let Download { url, chain, .. } = self.preferred(session, downloaded).await?;
        let names = self.names.to_strings();
        let checked = certificate::check(&chain, &names, &key).map_err(|text| IssueError::BadCertificate { text })?;
        checked.warnings.iter().for_each(|text| self.reporter.warn(text));
        self.reporter.send(Event::Issued);
        Ok(Issued {
            private_key_pem: certificate::key_pem(&key),
            certificate_pem: checked.certificate_pem,
            chain_pem: checked.chain_pem,
            fullchain_pem: checked.fullchain_pem,
            names,
            not_before: checked.not_before,
            not_after: checked.not_after,
            url,
            timings: clock.read(session.requests()),
        })
    }

    /// The certificate with the chain that was asked for, or with the CA's own if there is none such: a certificate with another chain is better than none.
    async fn preferred(&self, session: &Session, first: Download) -> Result<Download, IssueError> {
        let Some(wanted) = &self.directory.preferred_chain else { return Ok(first) };
        let mut offered = Vec::new();
        let mut is_it = |download: &Download| {
            let issuer = certificate::last_issuer(&download.chain);
            let found = issuer.as_deref() == Some(wanted);
            offered.extend(issuer);
            found
        };
        if is_it(&first) {
            return Ok(first);
        }
        for url in &first.alternates {
            match session.chain(url.clone()).await {
                Ok(other) if is_it(&other) => return Ok(other),
                Ok(_) => {}
                Err(error) => self.reporter.warn(format!("a chain that the CA offers could not be had: {error}")),
            }
        }
        let offered = if offered.is_empty() { "none whose issuer can be read".to_owned() } else { offered.join(", ") };
        self.reporter.warn(format!("the CA offers no chain that ends with {wanted:?}, but {offered}; its own was taken"));
        Ok(first)
    }

    async fn finalize(
        &self,
        clock: &Clock,
        session: &Session,
        order: Order,
        key: JoinHandle<Result<KeyPair, String>>,
    ) -> Result<(Order, KeyPair), IssueError> {
        let internal = |text: String| IssueError::Internal { text };
        let key = clock.time("key", key).await.map_err(|error| internal(format!("a key could not be made: {error}")))?.map_err(internal)?;
        if order.status != Status::Ready {
            // Nobody but this run finalizes its order, and a valid order would be for a key that is not ours.
            let problem = Problem {
                detail: format!("the order is {:?} before its signing request was sent", order.status).to_lowercase(),
                ..Problem::default()
            };
            return Err(IssueError::Refused { action: "the order".into(), problem: Box::new(order.error.unwrap_or(problem)) });
        }
        let request = certificate::signing_request(&self.names.to_strings(), &key).map_err(internal)?;
        let finalized = clock.time("finalize", session.finalize(&order, &request)).await;
        let mut order = finalized.map_err(|error| IssueError::from_acme("the signing request", error))?;
        if matches!(order.status, Status::Ready | Status::Processing) {
            let waiting = |status| matches!(status, Status::Ready | Status::Processing);
            let waited = clock.time("issuance", session.wait(&order.url, waiting, ISSUANCE)).await;
            order = match waited.map_err(|error| IssueError::from_acme("the order", error))? {
                Polled::Done(order) => order,
                Polled::TooSlow => return Err(IssueError::TooSlow { action: "the certificate".into(), seconds: ISSUANCE.as_secs() }),
            };
        }
        match order.status {
            Status::Valid => Ok((order, key)),
            _ => {
                let problem = order.error.unwrap_or_else(|| Problem { detail: "the order became invalid".into(), ..Problem::default() });
                Err(IssueError::Refused { action: "the signing request".into(), problem: Box::new(problem) })
            }
        }
    }

    /// Everything up to the order, with values that mean nothing: two for an apex with its wildcard, as a real order would have.
    async fn rehearse(&self, clock: &Clock, session: &Session, checker: &Checker) -> Result<Outcome, IssueError> {
        let (probed, delegations) = tokio::join!(clock.time("directory", session.probe()), clock.time("delegations", self.walk(checker)));
        probed.map_err(|error| IssueError::from_acme("its directory", error))?;
        let mut destinations = BTreeMap::new();
        let mut problems = Vec::new();
        for (domain, found) in delegations.found {
            match found {
                Ok(found) => drop(destinations.insert(domain, found)),
                Err(problem) => problems.push(problem),
            }
        }
        if !problems.is_empty() {
            return Err(IssueError::Delegation { texts: problems });
        }
        let owners = self.names.iter().filter_map(|name| destinations.get(&name.domain)).map(|found| found.owner.clone());
        let values = owners.map(|owner| Ok((owner, made_up()?))).collect::<Result<Vec<_>, IssueError>>()?;
        self.show(clock, checker, values, &delegations.plan?).await?;
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
