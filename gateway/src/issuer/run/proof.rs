//! From what is left to prove to an order that the CA has validated.

use authdns::Name;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    super::{
        acme::{Order, Polled, Session, Status, Work},
        certificate::CertificateKey,
        error::{Failure, IssueError},
        event::Event,
    },
    CA_IN_FLIGHT, Clock, Delegations, Pending, Run, VALIDATION,
};
use crate::{
    propagation::{Checker, Plan, Progress, Values},
    store::OrderEntry,
};

impl Run<'_> {
    /// Puts the values up, sees them at every server, and lets the CA look. The order's URL and its key are written down in one transaction with the claims.
    ///
    /// # Errors
    /// [`IssueError`].
    pub(super) async fn prove(
        &self,
        clock: &Clock,
        session: &Session,
        checker: &Checker,
        pending: &[Pending],
        delegations: Delegations,
        key: &CertificateKey,
    ) -> Result<(), IssueError> {
        let mut values = Vec::with_capacity(pending.len());
        for pending in pending {
            let Some(found) = delegations.found.get(&pending.domain) else {
                let text = format!("its order has an authorization for {}, which was not asked for", pending.name);
                return Err(IssueError::Unreachable { action: "the order".into(), text });
            };
            values.push((found.owner.clone(), pending.value.clone()));
        }
        let pem = key.pem().await?;
        self.show(clock, checker, values, &delegations.plan, self.journal.placing(&pem)).await?;
        self.journal.placed();
        clock.time("submission", self.submit(session, pending)).await
    }

    /// Writes down the order's URL and its key, if they are not.
    ///
    /// # Errors
    /// [`IssueError`].
    pub(super) async fn place(&self, key: &CertificateKey) -> Result<(), IssueError> {
        self.journal.place(&key.pem().await?).await
    }

    /// Claims values, and waits until they are visible. The order is written down in one transaction with the claims.
    ///
    /// # Errors
    /// [`IssueError`].
    pub(super) async fn show(
        &self,
        clock: &Clock,
        checker: &Checker,
        values: Vec<(Name, String)>,
        plan: &Plan,
        order: Option<OrderEntry>,
    ) -> Result<(), IssueError> {
        let mut wanted = Values::new();
        for (owner, value) in values.iter().filter(|(owner, _)| self.engine.ledger.zone_of(owner).is_some()) {
            wanted.entry(owner.clone()).or_default().insert(value.clone());
        }
        let count = values.len();
        clock.time("claims", self.claims.set(values, order)).await?;
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

    /// Waits for the CA's word on an order whose challenges are submitted. One that another run's authorizations have made ready meanwhile is
    /// looked at all the same: what we hold is older than they are.
    ///
    /// # Errors
    /// [`IssueError`].
    pub(super) async fn validated(&self, clock: &Clock, session: &Session, order: Order) -> Result<Order, IssueError> {
        if order.status != Status::Pending {
            return Ok(order);
        }
        let waited =
            clock.time("validation", session.wait(&order.url, Work::Validation, |status| status == Status::Pending, VALIDATION)).await;
        let order = match waited.map_err(|error| IssueError::from_acme("the order", error))? {
            Polled::Done(order) => *order,
            Polled::TooSlow => return Err(IssueError::TooSlow { action: "validation".into(), seconds: VALIDATION.as_secs() }),
        };
        if order.status == Status::Invalid {
            return Err(self.failures(session, &order).await?);
        }
        self.reporter.send(Event::OrderReady);
        Ok(order)
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
}
