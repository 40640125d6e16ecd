//! Orders, authorizations and challenges (RFC 8555, 7.1.3 to 7.1.6), and how to wait for an order.
//!
//! **Waiting.** The *order* is looked at, not its authorizations: one request, whatever the number of names. When is [`super::pace`]'s matter for the first second, and
//! from then on Retry-After's, never more often than once a second.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout_at};

use super::{AcmeError, Problem, client::Session, http::Reply, jws::encode, pace::Work, patience::Again, problem::Identifier};
use crate::issuer::{metrics::Action, renewal_info::CertificateId};

/// Between later looks, where the CA does not say.
const USUAL: Duration = Duration::from_secs(2);
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// How often in a row a look may fail before the run gives up.
const LOST_LOOKS: u32 = 5;
/// From the how-manieth lost answer on an order no longer says what it replaces: a server that fails over it once more may fail because of it.
const LOST_REPLACEMENTS: u32 = 2;
/// Before the CA is asked what became of a request whose answer was lost; longer each time.
const EARLY_LOOK: Duration = Duration::from_millis(250);
/// Before a challenge is submitted once more, at a CA that has looked in vain and looks again when it is asked to.
const RESUBMISSIONS: [Duration; 4] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];
/// Orders of the account that are looked at for a lost one, at each end of the list, and pages of the list.
const MOST_LISTED: usize = 10;
const MOST_PAGES: usize = 50;

/// A status (RFC 8555, 7.1.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::issuer) enum Status {
    Pending,
    Ready,
    Processing,
    Valid,
    Invalid,
    Deactivated,
    Expired,
    Revoked,
    #[serde(other)]
    Unknown,
}

/// An order.
#[derive(Debug, Clone, Deserialize)]
pub(in crate::issuer) struct Order {
    #[serde(skip)]
    pub(in crate::issuer) url: String,
    pub(in crate::issuer) status: Status,
    #[serde(default)]
    pub(in crate::issuer) authorizations: Vec<String>,
    #[serde(default)]
    identifiers: Vec<Identifier>,
    finalize: String,
    certificate: Option<String>,
    pub(in crate::issuer) error: Option<Problem>,
}

/// An authorization.
#[derive(Debug, Clone, Deserialize)]
pub(in crate::issuer) struct Authorization {
    identifier: Identifier,
    #[serde(default)]
    wildcard: bool,
    pub(in crate::issuer) status: Status,
    #[serde(default)]
    pub(in crate::issuer) challenges: Vec<Challenge>,
}

/// A challenge.
#[derive(Debug, Clone, Deserialize)]
pub(in crate::issuer) struct Challenge {
    #[serde(rename = "type")]
    kind: String,
    pub(in crate::issuer) url: String,
    #[serde(default)]
    pub(in crate::issuer) token: String,
    #[serde(default)]
    status: Option<Status>,
    #[serde(default)]
    pub(in crate::issuer) error: Option<Problem>,
}

/// A certificate as the CA sent it.
pub(in crate::issuer) struct Download {
    /// Where it came from.
    pub(in crate::issuer) url: String,
    /// PEM, the leaf first.
    pub(in crate::issuer) chain: String,
    /// Where it is with other chains.
    pub(in crate::issuer) alternates: Vec<String>,
}

/// How a wait ended.
pub(in crate::issuer) enum Polled {
    /// The order has left the status that was waited on.
    Done(Box<Order>),
    /// It had not when the time was up.
    TooSlow,
}

impl Authorization {
    /// The domain, without `*.`, lower case.
    pub(in crate::issuer) fn domain(&self) -> String {
        let value = self.identifier.value.to_ascii_lowercase();
        value.strip_prefix("*.").map(ToOwned::to_owned).unwrap_or(value)
    }

    /// The name as it stands in the certificate.
    pub(in crate::issuer) fn name(&self) -> String {
        if self.wildcard { format!("*.{}", self.domain()) } else { self.domain() }
    }

    /// The DNS-01 challenge, if the CA offers it with a token that may go into a key authorization (RFC 8555, 8.1).
    pub(in crate::issuer) fn dns01(&self) -> Option<&Challenge> {
        let good = |token: &str| !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        self.challenges.iter().find(|challenge| challenge.kind == "dns-01" && good(&challenge.token))
    }

    /// What the CA found wrong.
    pub(in crate::issuer) fn problem(&self) -> Problem {
        let found = self.challenges.iter().find_map(|challenge| challenge.error.clone());
        found.unwrap_or_else(|| Problem { detail: format!("the authorization is {:?}", self.status).to_lowercase(), ..Problem::default() })
    }
}

/// What is wanted of an order.
#[derive(Debug, Clone, Copy)]
pub(in crate::issuer) struct Wishes<'a> {
    /// The names of the certificate.
    pub(in crate::issuer) names: &'a [String],
    /// A profile of the CA's (draft-ietf-acme-profiles).
    pub(in crate::issuer) profile: Option<&'a str>,
    /// The certificate that the new one replaces (RFC 9773, 5). It is no more than a wish: a CA that does not like it is asked for an order without it.
    pub(in crate::issuer) replaces: Option<&'a CertificateId>,
}

#[derive(Serialize)]
struct NewOrder<'a> {
    identifiers: Vec<NewIdentifier<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<&'a CertificateId>,
}

#[derive(Serialize)]
struct NewIdentifier<'a> {
    r#type: &'static str,
    value: &'a str,
}

impl Order {
    /// The names that it is for, sorted.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.identifiers.iter().map(|identifier| identifier.value.to_ascii_lowercase()).collect();
        names.sort();
        names
    }
}

impl Session {
    /// Orders a certificate (RFC 8555, 7.4).
    ///
    /// # Errors
    /// [`AcmeError`]; [`AcmeError::Unusable`] if the CA has no such profile.
    pub(in crate::issuer) async fn new_order(&self, wishes: Wishes<'_>) -> Result<Order, AcmeError> {
        let Wishes { names, profile, replaces } = wishes;
        let document = self.document().await?;
        let url = document.new_order.clone();
        let profiles = &document.meta.profiles;
        if let Some(profile) = profile.filter(|profile| !profiles.contains_key(*profile)) {
            let known: Vec<_> = profiles.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let text = format!("it has no profile {profile:?}; it has: {known}");
            return Err(AcmeError::Unusable { directory: self.directory_url().to_owned(), text });
        }
        let identifiers = names.iter().map(|value| NewIdentifier { r#type: "dns", value }).collect();
        // A CA without renewal information has nothing to do with it, and some refuse what they do not know.
        let mut payload = NewOrder { identifiers, profile, replaces: replaces.filter(|_| document.renewal_info.is_some()) };
        let mut lost = 0;
        let order = loop {
            match self.persist(Again::Effect, || self.order_once(&url, &payload)).await {
                // It may have been made: a second one would count against the limits.
                Err(error) if error.is_lost() && lost < LOST_LOOKS => {
                    lost += 1;
                    tracing::info!(directory = self.directory_url(), %error, "looking for an order whose answer was lost");
                    sleep(EARLY_LOOK * lost).await;
                    if let Some(order) = self.lost_order(names).await {
                        break order;
                    }
                    if lost >= LOST_REPLACEMENTS {
                        payload.replaces = None;
                    }
                }
                Err(AcmeError::Problem { problem, .. }) if payload.replaces.is_some() && problem.is_about_replacing() => {
                    tracing::info!(directory = self.directory_url(), %problem, "ordering without saying what is replaced");
                    payload.replaces = None;
                }
                answered => break answered?,
            }
        };
        self.taken(&order.url);
        Ok(order)
    }

    async fn order_once(&self, url: &str, payload: &NewOrder<'_>) -> Result<Order, AcmeError> {
        let reply = self.post(Action::NewOrder, url, payload).await?;
        let url = reply.location.clone().ok_or_else(|| AcmeError::Malformed("the CA gave no URL for the order".into()))?;
        match read(&reply, url.clone()) {
            Ok(order) => Ok(order),
            // It was made, whatever the answer looked like.
            Err(_) => self.order(&url).await,
        }
    }

    /// An order for exactly these names that nobody has taken up, where the CA lists the account's orders (RFC 8555, 7.1.2.1). Those that do not list them give an
    /// order that is still open when the same is ordered again.
    pub(in crate::issuer) async fn lost_order(&self, names: &[String]) -> Option<Order> {
        #[derive(Deserialize)]
        struct Orders {
            #[serde(default)]
            orders: Vec<String>,
        }
        let (account, orders) = (self.signed_in().ok()?, self.account_object().await.ok()?.orders?);
        if is_step_cas(self.directory_url(), &account.url, &orders) {
            return None;
        }
        let mut next = Some(orders);
        let mut listed = Vec::new();
        for _ in 0..MOST_PAGES {
            let Some(url) = next else { break };
            let page = || async {
                let reply = self.get(Action::Order, &url, "application/json").await?;
                Ok((reply.json::<Orders>()?, reply.next))
            };
            let (orders, more) = self.persist(Again::Harmless, page).await.ok()?;
            listed.extend(orders.orders);
            next = more;
        }
        let mut wanted = names.to_vec();
        wanted.sort();
        // The newest may stand at either end.
        let (newest, oldest) = (listed.iter().rev().take(MOST_LISTED), listed.iter().take(MOST_LISTED));
        for url in newest.chain(oldest) {
            if self.client.orders.lock().contains(url) {
                continue;
            }
            let Ok(order) = self.order(url).await else { continue };
            if matches!(order.status, Status::Pending | Status::Ready) && order.names() == wanted {
                return Some(order);
            }
        }
        None
    }

    /// An order as it is now (RFC 8555, 7.4).
    ///
    /// # Errors
    /// [`AcmeError`].
    pub(in crate::issuer) async fn order(&self, url: &str) -> Result<Order, AcmeError> {
        Ok(Order { url: url.to_owned(), ..self.read(Action::Order, url).await? })
    }

    /// An authorization (RFC 8555, 7.5).
    ///
    /// # Errors
    /// [`AcmeError`].
    pub(in crate::issuer) async fn authorization(&self, url: &str) -> Result<Authorization, AcmeError> {
        self.read(Action::Authorization, url).await
    }

    /// Tells the CA that a challenge's value can be looked for (RFC 8555, 7.5.1). step-ca looks before it answers; if it has not found the value, the challenge stays pending with
    /// an error, and nobody looks again before it is submitted again (RFC 8555, 8.2): an order that waits for it waits for ever.
    ///
    /// # Errors
    /// [`AcmeError`]; what the CA found wrong, if it looked several times in vain.
    pub(in crate::issuer) async fn submit(&self, challenge_url: &str) -> Result<(), AcmeError> {
        self.submit_until_found(challenge_url, &RESUBMISSIONS).await
    }

    async fn submit_until_found(&self, challenge_url: &str, pauses: &[Duration]) -> Result<(), AcmeError> {
        let empty = json!({});
        let mut pauses = pauses.iter();
        loop {
            let reply = self.persist(Again::Harmless, || self.post(Action::Challenge, challenge_url, &empty)).await?;
            // What other CAs answer may be anything: the order will tell.
            let missed = reply.json::<Challenge>().ok().filter(|now| now.status == Some(Status::Pending)).and_then(|now| now.error);
            let Some(problem) = missed else { return Ok(()) };
            let Some(pause) = pauses.next() else { return Err(AcmeError::Problem { problem: Box::new(problem), retry_at: None }) };
            tracing::debug!(directory = self.directory_url(), %problem, ?pause, "submitting a challenge again");
            sleep(*pause).await;
        }
    }

    /// Sends the signing request (RFC 8555, 7.4). CAs may answer with the order still processing, or valid at once.
    ///
    /// # Errors
    /// [`AcmeError`].
    pub(in crate::issuer) async fn finalize(&self, order: &Order, request_der: &[u8]) -> Result<Order, AcmeError> {
        let request = json!({"csr": encode(request_der)});
        let mut lost = 0;
        loop {
            let finalize = || async { read(&self.post(Action::Finalize, &order.finalize, &request).await?, order.url.clone()) };
            match self.persist(Again::Effect, finalize).await {
                // The order tells whether the request arrived. A second one would be refused.
                Err(error) if error.is_lost() && lost < LOST_LOOKS => {
                    lost += 1;
                    sleep(EARLY_LOOK * lost).await;
                    let now = self.order(&order.url).await?;
                    if now.status != Status::Ready {
                        return Ok(now);
                    }
                }
                answered => return answered,
            }
        }
    }

    /// The certificate of a valid order with the CA's own chain (RFC 8555, 7.4.2).
    ///
    /// # Errors
    /// [`AcmeError`].
    pub(in crate::issuer) async fn certificate(&self, order: &Order) -> Result<Download, AcmeError> {
        let url = order.certificate.clone().ok_or_else(|| AcmeError::Malformed("the order is valid and has no certificate URL".into()))?;
        self.chain(url).await
    }

    /// The same certificate with another chain, at a URL of [`Download::alternates`].
    ///
    /// # Errors
    /// [`AcmeError`].
    pub(in crate::issuer) async fn chain(&self, url: String) -> Result<Download, AcmeError> {
        let download = || async {
            let reply = self.get(Action::Certificate, &url, "application/pem-certificate-chain").await?;
            let whole = |chain: &String| {
                let begun = chain.matches("-----BEGIN ").count();
                begun > 0 && begun == chain.matches("-----END ").count()
            };
            let chain = String::from_utf8(reply.body).ok().filter(whole);
            let chain = chain.ok_or_else(|| AcmeError::Malformed("the certificate is not PEM".into()))?;
            Ok(Download { url: url.clone(), chain, alternates: reply.alternates })
        };
        self.persist(Again::Harmless, download).await
    }

    /// Looks at an order until `waiting` no longer holds for its status, for `longest` at most, as `work` usually takes. Lost answers and "later" are borne with.
    ///
    /// # Errors
    /// [`AcmeError`], if the CA refuses, or too many looks in a row were lost.
    pub(in crate::issuer) async fn wait(
        &self,
        order_url: &str,
        work: Work,
        waiting: fn(Status) -> bool,
        longest: Duration,
    ) -> Result<Polled, AcmeError> {
        let (pace, begun) = (self.client.paces.of(work), Instant::now());
        let deadline = begun + longest;
        let mut early = pace.looks();
        let mut pause = early.next().unwrap_or(USUAL);
        let (mut lost, mut first) = (0, true);
        loop {
            if Instant::now() + pause >= deadline {
                return Ok(Polled::TooSlow);
            }
            sleep(pause).await;
            let Ok(looked) = timeout_at(deadline, self.get(Action::Order, order_url, "application/json")).await else {
                return Ok(Polled::TooSlow);
            };
            let said = match looked {
                Ok(reply) => {
                    let order = match read(&reply, order_url.to_owned()) {
                        Ok(order) => order,
                        Err(_) if lost < LOST_LOOKS => {
                            lost += 1;
                            pause = USUAL;
                            continue;
                        }
                        Err(error) => return Err(error),
                    };
                    lost = 0;
                    if !waiting(order.status) {
                        pace.done(begun.elapsed(), first);
                        return Ok(Polled::Done(Box::new(order)));
                    }
                    first = false;
                    early.next().or_else(|| wait_of(reply.retry_at))
                }
                Err(AcmeError::Problem { problem, retry_at }) if problem.is_later() => wait_of(retry_at),
                Err(error) if error.is_lost() && lost < LOST_LOOKS => {
                    lost += 1;
                    None
                }
                Err(error) => return Err(error),
            };
            pause = said.unwrap_or(USUAL);
        }
    }
}

/// True for the list of orders of an account at step-ca, by how it makes its URLs. That list must not be read: if no order is pending at that moment, step-ca (0.30.2) writes an empty
/// list that it cannot read again, and answers every further order of the account with a 500, for ever. It counts no orders either: a second one for a lost one costs nothing.
fn is_step_cas(directory: &str, account: &str, orders: &str) -> bool {
    let in_provisioner = |base: &str| account.strip_prefix(base).is_some_and(|rest| rest.starts_with("/account/"));
    directory.strip_suffix("/directory").is_some_and(in_provisioner) && orders.strip_prefix(account) == Some("/orders")
}

fn wait_of(retry_at: Option<SystemTime>) -> Option<Duration> {
    retry_at.map(|at| at.duration_since(SystemTime::now()).unwrap_or_default().clamp(SHORTEST, LONGEST))
}

fn read(reply: &Reply, url: String) -> Result<Order, AcmeError> {
    Ok(Order { url, ..reply.json()? })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::{super::fake::FakeCa, *};

    #[test]
    fn an_order_and_its_authorizations_are_read() {
        // RFC 8555, 7.1.3 and 7.1.4, shortened.
        let order: Order = serde_json::from_str(
            r#"{"status":"valid","expires":"2016-01-20T14:09:07.99Z","identifiers":[{"type":"dns","value":"www.example.org"}],
                "authorizations":["https://example.com/acme/authz/PAniVnsZcis"],"finalize":"https://example.com/acme/order/TOlocE8rfgo/finalize",
                "certificate":"https://example.com/acme/cert/mAt3xBGaobw"}"#,
        )
        .unwrap();
        assert_eq!((order.status, order.authorizations.len()), (Status::Valid, 1));
        let authorization: Authorization = serde_json::from_str(
            r#"{"status":"pending","identifier":{"type":"dns","value":"Example.org"},"wildcard":true,"challenges":[
                {"type":"http-01","url":"https://ca.test/1","status":"pending","token":"abc"},
                {"type":"dns-01","url":"https://ca.test/2","status":"pending","token":"DGyRejmCefe7v4NfDGDKfA"}]}"#,
        )
        .unwrap();
        assert_eq!((authorization.domain(), authorization.name()), ("example.org".into(), "*.example.org".into()));
        assert_eq!(authorization.dns01().unwrap().url, "https://ca.test/2");
        assert_eq!(authorization.problem().detail, "the authorization is pending");
    }

    #[test]
    fn a_token_that_is_not_base64url_is_not_used() {
        let authorization: Authorization = serde_json::from_str(
            r#"{"status":"pending","identifier":{"type":"dns","value":"a.test"},"challenges":[{"type":"dns-01","url":"u","token":"a.b c"}]}"#,
        )
        .unwrap();
        assert!(authorization.dns01().is_none());
    }

    #[test]
    fn a_new_status_of_a_later_standard_does_not_break_reading() {
        assert_eq!(serde_json::from_str::<Status>(r#""paused""#).unwrap(), Status::Unknown);
    }

    #[test]
    fn retry_after_is_obeyed_within_reason() {
        assert_eq!(wait_of(None), None);
        assert_eq!(wait_of(Some(SystemTime::UNIX_EPOCH)), Some(SHORTEST));
        assert_eq!(wait_of(Some(SystemTime::now() + Duration::from_secs(9999))), Some(LONGEST));
    }

    /// A CA whose order passes through these answers, the last one for ever.
    async fn ca(answers: &'static [(u16, &'static str)]) -> FakeCa {
        let count = AtomicUsize::new(0);
        FakeCa::start(move |_| {
            let at = count.fetch_add(1, Ordering::Relaxed).min(answers.len() - 1);
            (answers[at].0, vec!["Replay-Nonce: n".into()], answers[at].1.as_bytes().to_vec())
        })
        .await
    }

    const PENDING: (u16, &str) = (200, r#"{"status":"pending","finalize":"f"}"#);
    const READY: (u16, &str) = (200, r#"{"status":"ready","finalize":"f"}"#);

    async fn waited(ca: &FakeCa, longest: Duration) -> Result<Polled, AcmeError> {
        ca.signed_in().await.wait(&ca.url("/order/1"), Work::Validation, |status| status == Status::Pending, longest).await
    }

    #[tokio::test]
    async fn an_order_is_looked_at_until_it_moves() {
        let ca = ca(&[PENDING, PENDING, READY]).await;
        let Ok(Polled::Done(order)) = waited(&ca, Duration::from_secs(60)).await else { panic!() };
        assert_eq!((order.status, order.url), (Status::Ready, ca.url("/order/1")));
        assert_eq!(ca.lines().iter().filter(|line| *line == "POST /order/1").count(), 3);
    }

    #[tokio::test]
    async fn lost_looks_are_borne_with_and_refusals_are_not() {
        let shaky = ca(&[(502, "<html>"), READY]).await;
        assert!(matches!(waited(&shaky, Duration::from_secs(60)).await, Ok(Polled::Done(_))));
        let refusing = ca(&[(403, r#"{"type":"urn:ietf:params:acme:error:unauthorized"}"#)]).await;
        assert!(waited(&refusing, Duration::from_secs(60)).await.is_err_and(|error| error.is("unauthorized")));
    }

    #[test]
    fn the_list_that_step_ca_cannot_bear_to_be_read_is_known_by_its_url() {
        let step_ca = |path: &str| format!("https://ca.test:9000/acme/open/{path}");
        assert!(is_step_cas(&step_ca("directory"), &step_ca("account/Tya7r2"), &step_ca("account/Tya7r2/orders")));
        // RFC 8555's own, and Pebble's.
        assert!(!is_step_cas("https://ca.test/directory", "https://ca.test/acme/acct/1", "https://ca.test/acme/orders/1"));
        assert!(!is_step_cas("https://ca.test/dir", "https://ca.test/my-account/1", "https://ca.test/list-orderz/1"));
    }

    #[tokio::test]
    async fn a_challenge_that_waits_to_be_submitted_again_is_submitted_again() {
        const MISSED: (u16, &str) = (
            200,
            r#"{"type":"dns-01","status":"pending","token":"t","url":"u","error":{"type":"urn:ietf:params:acme:error:dns","detail":"SERVFAIL"}}"#,
        );
        const FOUND: (u16, &str) = (200, r#"{"type":"dns-01","status":"valid","token":"t","url":"u"}"#);
        const BEGUN: (u16, &str) = (200, r#"{"type":"dns-01","status":"pending","token":"t","url":"u"}"#);
        let pauses = [Duration::from_millis(1); 2];
        for (answers, submissions) in [(&[MISSED, MISSED, FOUND][..], 3), (&[BEGUN], 1), (&[(200, "<html>")], 1)] {
            let ca = ca(answers).await;
            ca.signed_in().await.submit_until_found(&ca.url("/challenge"), &pauses).await.unwrap();
            assert_eq!(ca.lines().iter().filter(|line| *line == "POST /challenge").count(), submissions);
        }
        let blind = ca(&[MISSED]).await;
        let error = blind.signed_in().await.submit_until_found(&blind.url("/challenge"), &pauses).await.unwrap_err();
        assert_eq!(error.to_string(), "SERVFAIL (dns)");
        assert_eq!(blind.lines().iter().filter(|line| *line == "POST /challenge").count(), 3);
    }

    const ID: &str = "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE";

    /// A CA that refuses orders that replace something in this way. Gives how the order ended, and the `replaces` of each request for it.
    async fn replaced(status: u16, body: &'static str) -> (Result<Order, AcmeError>, Vec<serde_json::Value>) {
        let ca = FakeCa::start(move |asked| {
            let nonce = "Replay-Nonce: n".to_owned();
            match asked.line.as_str() {
                "POST /order HTTP/1.1" if asked.payload().get("replaces").is_some() => (status, vec![nonce], body.as_bytes().to_vec()),
                "POST /order HTTP/1.1" => (201, vec![nonce, "Location: https://ca.test/order/1".into()], READY.1.into()),
                _ => (404, vec![nonce], Vec::new()),
            }
        })
        .await;
        let id = ID.parse().unwrap();
        let wishes = Wishes { names: &["a.test".to_owned()], profile: None, replaces: Some(&id) };
        let ordered = ca.signed_in().await.new_order(wishes).await;
        let orders = ca.asked().into_iter().filter(|asked| asked.line.starts_with("POST /order"));
        (ordered, orders.map(|asked| asked.payload()["replaces"].clone()).collect())
    }

    #[tokio::test]
    async fn an_order_that_may_not_replace_is_made_without() {
        for (status, body) in [
            (409, r#"{"type":"urn:ietf:params:acme:error:alreadyReplaced","detail":"no"}"#),
            (400, r#"{"type":"urn:ietf:params:acme:error:malformed","detail":"unknown member \"replaces\""}"#),
        ] {
            let (ordered, orders) = replaced(status, body).await;
            assert_eq!(ordered.unwrap().url, "https://ca.test/order/1");
            assert_eq!(orders, [json!(ID), json!(null)]);
        }
        // Another refusal is the CA's last word.
        let (refused, orders) = replaced(400, r#"{"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"no"}"#).await;
        assert!(refused.unwrap_err().is("rejectedIdentifier"));
        assert_eq!(orders, [json!(ID)]);
    }

    #[tokio::test]
    async fn a_ca_that_fails_over_a_replacement_is_asked_without() {
        let (ordered, orders) = replaced(500, r#"{"type":"urn:ietf:params:acme:error:serverInternal","detail":"oops"}"#).await;
        assert_eq!(ordered.unwrap().url, "https://ca.test/order/1");
        assert_eq!(orders, [json!(ID), json!(ID), json!(null)]);
    }

    #[tokio::test]
    async fn a_wait_ends() {
        let ca = ca(&[PENDING]).await;
        assert!(matches!(waited(&ca, Duration::from_millis(50)).await, Ok(Polled::TooSlow)));
    }
}
