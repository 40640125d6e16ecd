//! Orders, authorizations and challenges (RFC 8555, 7.1.3 to 7.1.6), and how to wait for an order.
//!
//! **Waiting.** CAs put a Retry-After of seconds on work that is done in milliseconds. So an order is asked for early, at 5, 15, 40, 100, 250 and
//! 600 ms after the act, and from then on as Retry-After says, never faster than once a second. That is polite: at most six extra requests for an
//! order, once for validation and once for issuance, where the strictest CA allows a hundred a second. The *order* is polled, not its
//! authorizations: one request, whatever the number of names.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout_at};

use super::{AcmeError, Problem, client::Session, http::Reply, jws::encode, patience::Again, problem::Identifier};

/// Pauses before the early looks: their sums are the times above.
const EARLY: [Duration; 6] = [
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(60),
    Duration::from_millis(150),
    Duration::from_millis(350),
];
/// Between later looks, where the CA does not say.
const USUAL: Duration = Duration::from_secs(2);
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// How often in a row a look may fail before the run gives up.
const LOST_LOOKS: u32 = 5;
/// Before the CA is asked what became of a request whose answer was lost; longer each time.
const EARLY_LOOK: Duration = Duration::from_millis(250);
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
    Done(Order),
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

#[derive(Serialize)]
struct NewOrder<'a> {
    identifiers: Vec<NewIdentifier<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<&'a str>,
}

#[derive(Serialize)]
struct NewIdentifier<'a> {
    r#type: &'static str,
    value: &'a str,
}

impl Order {
    /// The names that it is for, sorted.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.identifiers.iter().map(|identifier| identifier.value.to_ascii_lowercase()).collect();
        names.sort();
        names
    }
}

impl Session {
    /// Orders a certificate for `names` (RFC 8555, 7.4), of a profile of the CA's if one is named (draft-ietf-acme-profiles).
    ///
    /// # Errors
    /// [`AcmeError`]; [`AcmeError::Unusable`] if the CA has no such profile.
    pub(in crate::issuer) async fn new_order(&self, names: &[String], profile: Option<&str>) -> Result<Order, AcmeError> {
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
        let payload = NewOrder { identifiers, profile };
        let mut lost = 0;
        let order = loop {
            match self.persist(Again::Effect, || self.order_once(&url, &payload)).await {
                // It may have been made: a second one would count against the limits.
                Err(error) if error.is_lost() && lost < LOST_LOOKS => {
                    lost += 1;
                    tracing::debug!(directory = self.directory_url(), %error, "looking for an order whose answer was lost");
                    sleep(EARLY_LOOK * lost).await;
                    if let Some(order) = self.lost_order(names).await {
                        break order;
                    }
                }
                answered => break answered?,
            }
        };
        self.orders.lock().push(order.url.clone());
        self.client.orders.lock().insert(order.url.clone());
        Ok(order)
    }

    async fn order_once(&self, url: &str, payload: &NewOrder<'_>) -> Result<Order, AcmeError> {
        let reply = self.post(url, payload).await?;
        let url = reply.location.clone().ok_or_else(|| AcmeError::Malformed("the CA gave no URL for the order".into()))?;
        match read(&reply, url.clone()) {
            Ok(order) => Ok(order),
            // It was made, whatever the answer looked like.
            Err(_) => self.order(&url).await,
        }
    }

    /// An order for exactly these names that nobody has taken up, where the CA lists the account's orders (RFC 8555, 7.1.2.1). Those that do not list them give an
    /// order that is still open when the same is ordered again.
    async fn lost_order(&self, names: &[String]) -> Option<Order> {
        #[derive(Deserialize)]
        struct Orders {
            #[serde(default)]
            orders: Vec<String>,
        }
        let mut next = Some(self.account_object().await.ok()?.orders?);
        let mut listed = Vec::new();
        for _ in 0..MOST_PAGES {
            let Some(url) = next else { break };
            let page = || async {
                let reply = self.get(&url, "application/json").await?;
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
        Ok(Order { url: url.to_owned(), ..self.read(url).await? })
    }

    /// An authorization (RFC 8555, 7.5).
    ///
    /// # Errors
    /// [`AcmeError`].
    pub(in crate::issuer) async fn authorization(&self, url: &str) -> Result<Authorization, AcmeError> {
        self.read(url).await
    }

    /// Tells the CA that a challenge's value can be looked for (RFC 8555, 7.5.1).
    ///
    /// # Errors
    /// [`AcmeError`].
    pub(in crate::issuer) async fn submit(&self, challenge_url: &str) -> Result<(), AcmeError> {
        let empty = json!({});
        self.persist(Again::Harmless, || self.post(challenge_url, &empty)).await.map(drop)
    }

    /// Sends the signing request (RFC 8555, 7.4). CAs may answer with the order still processing, or valid at once.
    ///
    /// # Errors
    /// [`AcmeError`].
    pub(in crate::issuer) async fn finalize(&self, order: &Order, request_der: &[u8]) -> Result<Order, AcmeError> {
        let request = json!({"csr": encode(request_der)});
        let mut lost = 0;
        loop {
            let finalize = || async { read(&self.post(&order.finalize, &request).await?, order.url.clone()) };
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
            let reply = self.get(&url, "application/pem-certificate-chain").await?;
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

    /// Looks at an order until `waiting` no longer holds for its status, for `longest` at most. Lost answers and "later" are borne with.
    ///
    /// # Errors
    /// [`AcmeError`], if the CA refuses, or too many looks in a row were lost.
    pub(in crate::issuer) async fn wait(
        &self,
        order_url: &str,
        waiting: fn(Status) -> bool,
        longest: Duration,
    ) -> Result<Polled, AcmeError> {
        let deadline = Instant::now() + longest;
        let mut early = EARLY.into_iter();
        let mut pause = early.next().unwrap_or(USUAL);
        let mut lost = 0;
        loop {
            if Instant::now() + pause >= deadline {
                return Ok(Polled::TooSlow);
            }
            sleep(pause).await;
            let Ok(looked) = timeout_at(deadline, self.get(order_url, "application/json")).await else { return Ok(Polled::TooSlow) };
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
                        return Ok(Polled::Done(order));
                    }
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
        ca.signed_in().await.wait(&ca.url("/order/1"), |status| status == Status::Pending, longest).await
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

    #[tokio::test]
    async fn a_wait_ends() {
        let ca = ca(&[PENDING]).await;
        assert!(matches!(waited(&ca, Duration::from_millis(50)).await, Ok(Polled::TooSlow)));
    }
}
