//! From names to an order, and to what is left to prove.

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    super::{
        acme::{Authorization, Order, Problem, Session, Status, Wishes},
        caa,
        error::{Failure, IssueError},
        event::Event,
        journal,
    },
    CA_IN_FLIGHT, Clock, Delegations, Ordered, Pending, Run, SKEW,
};

impl Run<'_> {
    /// An order, an earlier run's or a new one, with what is left to prove of it.
    ///
    /// # Errors
    /// [`IssueError`].
    pub(super) async fn order(&self, clock: &Clock, session: &Session) -> Result<Ordered, IssueError> {
        let signed_in = clock.time("account", session.sign_in(&*self.engine.store, self.directory)).await;
        if let Some(url) = signed_in.map_err(|error| IssueError::from_acme("the account's registration", error))? {
            self.reporter.send(Event::AccountReady { url });
        }
        let (order, walked) = match self.resumed(clock, session).await? {
            Some(order) => (order, None),
            None => {
                let (order, walked) = self.new_order(clock, session).await?;
                (order, Some(walked))
            }
        };
        if order.status != Status::Pending {
            return Ok(Ordered { order, pending: Vec::new(), delegations: None });
        }
        let authorizations = clock.time("authorizations", self.authorizations(session, &order)).await?;
        let mut pending = Vec::new();
        for (url, authorization) in authorizations {
            match authorization.status {
                Status::Valid => self.reporter.send(Event::AlreadyAuthorized { name: authorization.name() }),
                _ => pending.push(self.challenge(session, url, &authorization)?),
            }
        }
        if pending.is_empty() {
            return Ok(Ordered { order, pending, delegations: None });
        }
        let delegations = match walked {
            Some(walked) => walked,
            None => clock.time("delegations", self.walk()).await?,
        };
        Ok(Ordered { order, pending, delegations: Some(delegations) })
    }

    /// The order that an earlier run left, if something can come of it yet.
    async fn resumed(&self, clock: &Clock, session: &Session) -> Result<Option<Order>, IssueError> {
        let wish = journal::wish(self.request, self.directory, self.names);
        let Some(left) = self.journal.take_left(&self.directory.url, &wish) else { return Ok(None) };
        let names = self.names.to_strings();
        let found = match &left.url {
            Some(url) => clock.time("order again", session.take_up(url, &names, left.key_pem.is_some())).await,
            None => Ok(clock.time("order again", session.lost_order(&names)).await),
        };
        let Some(order) = found.map_err(|error| IssueError::from_acme("the order", error))? else { return Ok(None) };
        self.journal.take_up(left, &order.url);
        self.reporter.send(Event::OrderResumed { url: order.url.clone() });
        Ok(Some(order))
    }

    /// Orders, after everything that can be known to be in the way before it costs anything.
    async fn new_order(&self, clock: &Clock, session: &Session) -> Result<(Order, Delegations), IssueError> {
        let (caa, walked) = tokio::join!(clock.time("caa", self.caa(session)), clock.time("delegations", self.walk()));
        caa?;
        let walked = walked?;
        let wish = journal::wish(self.request, self.directory, self.names);
        let taken = self.charge(&self.names.to_strings()).await?;
        clock.time("journal", self.journal.begin(&self.directory.url, &wish, taken)).await?;
        let order = clock.time("order", self.place_order(clock, session)).await?;
        self.journal.ordered(&order.url);
        self.check_clock(session);
        self.reporter.send(Event::OrderCreated { url: order.url.clone(), names: self.names.iter().count() });
        Ok((order, walked))
    }

    async fn place_order(&self, clock: &Clock, session: &Session) -> Result<Order, IssueError> {
        let names = self.names.to_strings();
        let wishes =
            Wishes { names: &names, profile: self.directory.profile.as_deref(), replaces: self.request.replaced_at(self.directory) };
        let order = match session.new_order(wishes).await {
            Err(error) if error.is("accountDoesNotExist") => {
                let again = clock.time("account again", session.sign_in_again(&*self.engine.store, self.directory)).await;
                let url = again.map_err(|error| IssueError::from_acme("the account's registration", error))?;
                self.reporter.warn(format!(
                    "the CA had forgotten our account; the same key is registered again as {url}. CAA records that name the old accounturi have to be changed"
                ));
                session.new_order(wishes).await
            }
            other => other,
        };
        order.map_err(|error| IssueError::from_acme("the order", error))
    }

    fn check_clock(&self, session: &Session) {
        let ahead = session.clock_ahead();
        if ahead.unsigned_abs() >= SKEW.as_secs() {
            let which = if ahead > 0 { "fast" } else { "slow" };
            self.reporter.warn(format!(
                "this machine's clock is {} s {which} by the CA's: synchronise it by NTP, or certificates will be renewed at the wrong time and signatures refused",
                ahead.unsigned_abs()
            ));
        }
    }

    /// Before the order: a CA that looks at the CAA records after it has already counted it.
    async fn caa(&self, session: &Session) -> Result<(), IssueError> {
        let acme = |error| IssueError::from_acme("its directory", error);
        let (identities, account) = (session.caa_identities().await.map_err(acme)?, session.signed_in().map_err(acme)?);
        let warnings = caa::check(self.engine, self.names, &identities, &account.url).await?;
        warnings.into_iter().for_each(|text| self.reporter.warn(text));
        Ok(())
    }

    pub(super) async fn authorizations(&self, session: &Session, order: &Order) -> Result<Vec<(String, Authorization)>, IssueError> {
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
}
