//! Another acme-dns: the original, or an acmegate.
//!
//! Its API adds a value to an account, and nothing else. Values stand at the account's own name, which a CNAME leads to; what stands there is read from its DNS.
//! An account keeps a few values (the original two), and a new one takes the place of the oldest: nothing can be removed, it is pushed out. So an account has to be
//! one's own, and:
//!
//! - The original tells the oldest by whole seconds, so updates of one account are that far apart.
//! - Where a value that shall stay might be the oldest, it is sent again first. It then takes the place of the oldest, be that its own or another one's, and is
//!   the newest itself: at no moment is it gone.

mod accounts;

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use authdns::Name;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use reqwest::{Method, RequestBuilder, StatusCode, Url, header::HeaderValue};
use schemars::JsonSchema;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use zeroize::Zeroizing;

use crate::{
    Calls, Change, Context, Error, Limits, Listing, Provider, Receipt, TxtSet, Zone,
    dns::{
        exchange::{Server, Transport},
        message::{Answer, CNAME, Rcode, TXT, query},
    },
    http::{self, Http, Reply},
    limiter::Limiter,
    secret::{SecretRef, Secrets},
};
use accounts::{Account, Accounts};

/// A second of the original's clock, and what clocks are off by.
const APART: Duration = Duration::from_millis(1050);
/// Accounts updated at a time: the original spends 60 ms of a core on each password.
const PARALLEL: usize = 8;
/// Accounts in one go: each takes a second or two, and what comes meanwhile waits for all of them.
const MOST_OWNERS: usize = 50;
/// Accounts tried by one look at the credentials; the next look goes on where it ended.
const TRIED: usize = 10;
/// Most accounts that are registered into one file.
const MOST_ACCOUNTS: usize = 10_000;
/// The label that challenges stand at (RFC 8555, 8.4).
const CHALLENGE: &str = "_acme-challenge.";

/// Settings of `provider: acmedns`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// The base of the API, such as `https://auth.acme-dns.io`, with the path in front of `/update` if there is one; HTTPS unless it is on this machine.
    endpoint: String,
    /// The accounts, in the JSON that lego, cert-manager and certbot's plugins keep: a map from domains to accounts.
    accounts: SecretRef,
    /// Domains within which a name that has no account gets one, when a value is first wanted there. It is added to the account file, and the error names the
    /// CNAME record to create; once that is there, values follow it. Needs `accounts: {file: …}`, in a folder that acmegate may write to.
    #[serde(default)]
    register: Vec<String>,
    /// Networks that may update the accounts registered from here, such as `192.0.2.0/24`; empty for all.
    #[serde(default)]
    allow_from: Vec<String>,
    /// The name server of this acme-dns, as `HOST` or `HOST:PORT`: what stands is read from it. By default port 53 of the endpoint's host.
    #[serde(default)]
    nameserver: Option<String>,
    /// How many values it keeps for one account: 2 at the original, what `values:` says at an acmegate.
    #[serde(default = "two")]
    values: usize,
    /// PEM with the roots of the API's HTTPS, instead of the system's.
    #[serde(default)]
    ca_file: Option<PathBuf>,
}

fn two() -> usize {
    2
}

impl crate::kind::Settings for Settings {
    const ID: &'static str = "acmedns";
    const TITLE: &'static str = "acme-dns";

    fn build(self, context: &Context) -> Result<Arc<dyn Provider>, String> {
        let base = http::endpoint(&self.endpoint)?;
        let host = base.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let server = match &self.nameserver {
            Some(nameserver) => Server::parse("nameserver", nameserver, Transport::Udp)?,
            None => Server::new(host.clone(), 53, Transport::Udp),
        };
        let domain = |text: &String| text.parse::<Name>().map_err(|error| format!("register: {text:?} is no name: {error}"));
        let register = self.register.iter().map(domain).collect::<Result<Vec<_>, _>>()?;
        if !register.is_empty() && !matches!(self.accounts, SecretRef::File(_)) {
            return Err("register: accounts that are made have to be kept: write `accounts: {file: …}`".to_owned());
        }
        if !(2..=100).contains(&self.values) {
            return Err("values: an account keeps 2 values at the original, and up to 100 elsewhere".to_owned());
        }
        // The original checks 16 passwords a second.
        let limiter = Arc::new(Limiter::new(Duration::from_millis(60), 16));
        Ok(Arc::new(AcmeDns {
            url: self.endpoint,
            base,
            host,
            http: Http::new(self.ca_file.as_deref(), limiter)?,
            server,
            accounts: self.accounts,
            register,
            allow_from: self.allow_from,
            values: self.values,
            secrets: Arc::clone(&context.secrets),
            started: Instant::now(),
            updated: Mutex::default(),
            registering: tokio::sync::Mutex::default(),
            tried: AtomicUsize::new(0),
        }))
    }
}

/// The provider.
struct AcmeDns {
    /// The endpoint as it was given; its path may be a secret.
    url: String,
    base: Url,
    host: String,
    http: Http,
    server: Server,
    accounts: SecretRef,
    register: Vec<Name>,
    allow_from: Vec<String>,
    values: usize,
    secrets: Arc<dyn Secrets>,
    /// Before this, another process may have updated any account.
    started: Instant,
    /// When each account was last updated, by subdomain; whoever holds the lock is the one who updates it.
    updated: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Option<Instant>>>>>,
    /// One registration at a time: a domain gets one account.
    registering: tokio::sync::Mutex<()>,
    /// How many accounts have been tried.
    tried: AtomicUsize,
}

impl std::fmt::Debug for AcmeDns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "acmedns {}", self.host)
    }
}

#[async_trait]
impl Provider for AcmeDns {
    fn limits(&self) -> Limits {
        Limits { owners: MOST_OWNERS, values: self.values, removes: false, ..Limits::default() }
    }

    async fn zones(&self, apex: Option<&Name>) -> Result<Listing, Error> {
        let accounts = self.accounts().await?;
        let mut names: BTreeSet<Name> = accounts.all.iter().filter_map(|account| account.fulldomain.parent()).collect();
        names.extend(self.register.iter().cloned());
        let wanted = names.into_iter().filter(|name| apex.is_none_or(|apex| apex == name));
        let zones = wanted.map(|name| Zone { id: name.to_relative_string(), name, nameservers: BTreeSet::new() }).collect();
        Ok(Listing { zones, complete: true })
    }

    async fn read(&self, zone: &Zone, owners: &[Name]) -> Vec<Result<TxtSet, Error>> {
        let accounts = match self.accounts().await {
            Ok(accounts) => accounts,
            Err(error) => return owners.iter().map(|_| Err(error.clone())).collect(),
        };
        let mut results = Vec::with_capacity(owners.len());
        let mut asked = Vec::new();
        for owner in owners {
            results.push(match accounts.at(owner) {
                Some(_) => {
                    asked.push(query(owner, TXT, true));
                    None
                }
                None => Some(Err(self.without_account(zone, owner, &accounts).await)),
            });
        }
        let mut answers = self.server.ask(asked, None).await.into_iter();
        let fill = |(result, owner): (Option<Result<TxtSet, Error>>, &Name)| {
            result.unwrap_or_else(|| {
                let answer = answers.next().unwrap_or_else(|| Err(Error::Unsent("it was not asked for".to_owned())));
                Ok(TxtSet { values: self.standing(owner, answer)?, version: String::new() })
            })
        };
        results.into_iter().zip(owners).map(fill).collect()
    }

    async fn apply(&self, zone: &Zone, changes: &[Change]) -> Vec<Result<Receipt, Error>> {
        let accounts = match self.accounts().await {
            Ok(accounts) => accounts,
            Err(error) => return changes.iter().map(|_| Err(error.clone())).collect(),
        };
        // What stops everything after it: the rate, or no answer. An account that is refused says nothing of the others.
        let stopped: Mutex<Option<Error>> = Mutex::new(None);
        let calls: Vec<_> = changes.iter().map(|change| self.apply_one(zone, change, &accounts, &stopped)).collect();
        stream::iter(calls).buffered(PARALLEL).collect().await
    }

    async fn verify(&self) -> Result<String, Error> {
        let accounts = self.accounts().await?;
        if let Some(broken) = accounts.broken.first() {
            return Err(Error::Auth(format!("{}: {broken}: register it anew, or take it out", self.accounts)));
        }
        let health = self.http.send(self.request(Method::GET, "health")).await?;
        if health.status.is_server_error() {
            return Err(health.error(""));
        }
        let first = self.tried.load(Ordering::Relaxed);
        let turn = accounts.all.iter().cycle().skip(first.checked_rem(accounts.all.len()).unwrap_or(0)).take(TRIED.min(accounts.all.len()));
        let mut tried = 0;
        for account in turn {
            // Who it is and what it may are looked at before the value, which is none.
            match self.update(account, "").await {
                Err(Error::Rejected(text)) if text.ends_with("bad_txt") => {}
                Err(error) => return Err(error),
                Ok(()) => return Err(Error::Rejected("the server takes what is no value: it is no acme-dns".to_owned())),
            }
            tried += 1;
        }
        self.tried.fetch_add(tried, Ordering::Relaxed);
        if let Some(account) = accounts.all.first() {
            self.stands(&account.fulldomain).await?;
        }
        Ok(format!("{} accounts at {}, of which {tried} were tried now", accounts.all.len(), self.host))
    }

    fn calls(&self) -> Calls {
        let (http, dns) = (self.http.limiter().calls(), self.server.limiter().calls());
        Calls { sent: http.sent + dns.sent, throttled: http.throttled + dns.throttled, failed: http.failed + dns.failed }
    }
}

impl AcmeDns {
    /// The accounts as they are now.
    async fn accounts(&self) -> Result<Accounts, Error> {
        let text = match &self.accounts {
            // It may be larger than secrets are, and need not be there yet where accounts are registered.
            SecretRef::File(path) => match accounts::read(path).map_err(Error::Auth)? {
                Some(text) => text,
                None if !self.register.is_empty() => return Ok(Accounts::default()),
                None => {
                    return Err(Error::Auth(format!(
                        "{} is not there: put the accounts there, or name domains to `register`",
                        self.accounts
                    )));
                }
            },
            secret => Zeroizing::new(self.secrets.read(secret).await?.expose_secret().to_owned()),
        };
        Accounts::parse(&text, &self.url).map_err(|reason| Error::Auth(format!("{} {reason}", self.accounts)))
    }

    /// Why nothing can be done at a name that is no account's; a name that may have one gets it.
    async fn without_account(&self, zone: &Zone, owner: &Name, accounts: &Accounts) -> Error {
        let name = owner.to_relative_string();
        if !self.register.iter().any(|domain| owner.is_within(domain)) {
            return if accounts.all.iter().any(|account| account.fulldomain.parent().as_ref() == Some(&zone.name)) {
                Error::Rejected(format!(
                    "{} has no account whose values stand at {name}: compare the CNAME that led here with it",
                    self.accounts
                ))
            } else {
                Error::NotFound(format!("{} has no account below {}", self.accounts, zone.name.to_relative_string()))
            };
        }
        let domain = name.strip_prefix(CHALLENGE).unwrap_or(&name);
        let target = match accounts.of(domain) {
            Some(account) => account.fulldomain.clone(),
            None => match self.registered(domain).await {
                Ok(account) => account.fulldomain,
                Err(error) => return error,
            },
        };
        Error::Rejected(format!(
            "no CNAME leads from {name} to acme-dns yet: create the record `{name}. CNAME {}.`, and try again",
            target.to_relative_string()
        ))
    }

    /// A new account for a domain, or the one that it got meanwhile.
    async fn registered(&self, domain: &str) -> Result<Account, Error> {
        let SecretRef::File(path) = &self.accounts else {
            return Err(Error::Auth("accounts that are made have to be kept: write `accounts: {file: …}`".to_owned()));
        };
        let _turn = self.registering.lock().await;
        let accounts = self.accounts().await?;
        if let Some(account) = accounts.of(domain) {
            return Ok(account.clone());
        }
        if accounts.all.len() >= MOST_ACCOUNTS {
            return Err(Error::Rejected(format!("{} has {MOST_ACCOUNTS} accounts: no more are registered", self.accounts)));
        }
        // Before there is an account that could not be kept.
        let place = accounts::prepare(path).map_err(Error::Auth)?;
        let body = if self.allow_from.is_empty() { json!({}) } else { json!({"allowfrom": self.allow_from}) };
        let reply = self.http.send(self.request(Method::POST, "register").json(&body)).await?;
        if !reply.status.is_success() {
            return Err(refused_registration(&reply));
        }
        let mut made: Value = reply.json()?;
        let account =
            Account::read(domain, &made).map_err(|reason| Error::Transport(format!("the account that was registered {reason}")))?;
        if let Some(fields) = made.as_object_mut() {
            fields.insert("server_url".to_owned(), self.url.as_str().into());
        }
        let text = accounts::add(path, place, domain, made).map_err(Error::Auth)?;
        let kept = Accounts::parse(&text, &self.url).map_err(Error::Auth)?;
        // Another program may have been quicker.
        Ok(kept.of(domain).cloned().unwrap_or(account))
    }

    async fn apply_one(&self, zone: &Zone, change: &Change, accounts: &Accounts, stopped: &Mutex<Option<Error>>) -> Result<Receipt, Error> {
        let Some(account) = accounts.at(&change.owner) else { return Err(self.without_account(zone, &change.owner, accounts).await) };
        if change.add.len() > self.values {
            let most = self.values;
            return Err(Error::Rejected(format!(
                "acme-dns keeps {most} values at one name, not {}: wait until others are done",
                change.add.len()
            )));
        }
        if let Some(value) = change.add.iter().find(|value| !is_challenge(value)) {
            return Err(Error::Rejected(format!(
                "acme-dns takes the values of DNS-01 alone (43 characters), not one of {} bytes",
                value.len()
            )));
        }
        if change.add.is_empty() {
            return Ok(Receipt::default());
        }
        let turn = Arc::clone(self.updated.lock().entry(account.subdomain.clone()).or_default());
        let mut last = turn.lock().await;
        let standing = self.stands(&change.owner).await?;
        for (done, value) in updates(&standing, &change.add, self.values).into_iter().enumerate() {
            let before = stopped.lock().clone();
            let result = match before {
                Some(error) => Err(error),
                None => {
                    sleep_until(last.unwrap_or(self.started) + APART).await;
                    let result = self.update(account, value).await;
                    *last = Some(Instant::now());
                    result
                }
            };
            if let Err(error) = result {
                match &error {
                    Error::Transport(text) => {
                        *stopped.lock() = Some(Error::Unsent(format!("a call before this one got no answer: {text}")));
                    }
                    Error::RateLimited { .. } | Error::Unsent(_) => *stopped.lock() = Some(error.clone()),
                    _ => {}
                }
                return Err(if done == 0 { error } else { Error::Transport(format!("a part of the change was made, and then: {error}")) });
            }
        }
        Ok(Receipt::default())
    }

    /// Makes a value the newest of its account.
    async fn update(&self, account: &Account, value: &str) -> Result<(), Error> {
        let domain = &account.domain;
        let header = |text: &str| {
            let mut value = HeaderValue::from_str(text).map_err(|_| Error::Auth(format!("the account of {domain} is none")))?;
            value.set_sensitive(true);
            Ok::<_, Error>(value)
        };
        let request = self.request(Method::POST, "update");
        let request =
            request.header("X-Api-User", header(&account.username)?).header("X-Api-Key", header(account.password.expose_secret())?);
        let reply = self.http.send(request.json(&json!({"subdomain": account.subdomain, "txt": value}))).await?;
        match reply.status {
            status if status.is_success() => Ok(()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Error::Auth(format!(
                "acme-dns does not take the account of {domain} (HTTP {}): compare {} with what was registered, and look whether its allowfrom lets this machine in",
                reply.status.as_u16(),
                self.accounts
            ))),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                Err(Error::Auth("there is no acme-dns at the endpoint: compare it, its path included (HTTP 404)".to_owned()))
            }
            _ => Err(reply.error(&words(&reply))),
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut url = self.base.clone();
        // An http URL always has a path.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push(path);
        }
        self.http.client().request(method, url)
    }

    /// The values at an account's name now.
    async fn stands(&self, owner: &Name) -> Result<BTreeSet<String>, Error> {
        let answer = self.server.ask(vec![query(owner, TXT, true)], None).await.pop();
        self.standing(owner, answer.unwrap_or_else(|| Err(Error::Unsent("nothing was asked".to_owned()))))
    }

    /// The values in an answer of its DNS about an account's name.
    fn standing(&self, owner: &Name, answer: Result<Answer, Error>) -> Result<BTreeSet<String>, Error> {
        let advice = "set `nameserver` to the DNS of this acme-dns";
        let answer = answer.map_err(|error| match error {
            Error::Unsent(text) => Error::Unsent(format!("what stands cannot be read: {text}: {advice}")),
            Error::Transport(text) => Error::Unsent(format!("what stands cannot be read: {text}: {advice}")),
            other => other,
        })?;
        let name = owner.to_relative_string();
        // Names without a value are said not to exist.
        if !answer.authoritative || !matches!(answer.rcode, Rcode::NOERROR | Rcode::NXDOMAIN) {
            return Err(Error::Rejected(format!("{} is not authoritative for {name} ({}): {advice}", self.server, answer.rcode)));
        }
        if answer.answers.iter().any(|record| record.kind == CNAME && record.owner == *owner) {
            return Err(Error::Rejected(format!("a CNAME stands at {name}, where acme-dns has its values")));
        }
        let values = answer.answers.iter().filter(|record| record.kind == TXT && record.owner == *owner);
        Ok(values.map(|record| record.text()).collect())
    }
}

/// The values to send, in their order, so that in the end all of `wanted` stand, and at no moment one that stood already is missing.
fn updates<'w>(standing: &BTreeSet<String>, wanted: &'w BTreeSet<String>, places: usize) -> Vec<&'w String> {
    let (kept, missing): (Vec<_>, Vec<_>) = wanted.iter().partition(|value| standing.contains(*value));
    if missing.is_empty() || standing.len() + missing.len() <= places {
        return missing;
    }
    kept.into_iter().chain(missing).collect()
}

/// True for a value as DNS-01 has it: 32 bytes in base64url (RFC 8555, 8.4).
fn is_challenge(value: &str) -> bool {
    value.len() == 43 && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn refused_registration(reply: &Reply) -> Error {
    match reply.status {
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Error::Rejected(
            "registration is switched off there, or the endpoint's path is wrong (HTTP 404): have an account made, and put it into the account file".to_owned(),
        ),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Error::Auth("registration is not open to everybody there: have an account made, and put it into the account file".to_owned())
        }
        _ => reply.error(&words(reply)),
    }
}

/// The server's own word for an error.
fn words(reply: &Reply) -> String {
    let said: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    said["error"].as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(values: &[&str]) -> BTreeSet<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    /// What the original does: the oldest row is overwritten, the first of several that are equally old.
    fn after(mut rows: Vec<(&'static str, u64)>, standing: &BTreeSet<String>, wanted: &BTreeSet<String>) -> (BTreeSet<String>, bool) {
        let values = |rows: &[(&str, u64)]| rows.iter().map(|(value, _)| (*value).to_owned()).filter(|v| !v.is_empty()).collect();
        let stays: BTreeSet<String> = standing.intersection(wanted).cloned().collect();
        let mut gapless = true;
        for (second, value) in updates(standing, wanted, rows.len()).into_iter().enumerate() {
            let oldest = (0..rows.len()).min_by_key(|&row| rows[row].1).expect("rows");
            rows[oldest] = (["a", "b", "c", "d"].into_iter().find(|v| v == value).expect("one of them"), 100 + second as u64);
            gapless &= stays.is_subset(&values(&rows));
        }
        (values(&rows), gapless)
    }

    #[test]
    fn what_is_wanted_stands_in_the_end_and_what_stood_never_goes() {
        let all = [set(&["a"]), set(&["b"]), set(&["a", "b"]), set(&["a", "c"]), set(&["c", "d"]), set(&["b", "d"])];
        for rows in [
            [("", 0), ("", 0)],
            [("a", 5), ("", 0)],
            [("a", 1), ("b", 2)],
            [("a", 2), ("b", 1)],
            [("a", 1), ("a", 2)],
            [("b", 3), ("b", 3)],
        ] {
            let standing: BTreeSet<String> = rows.iter().map(|(value, _)| (*value).to_owned()).filter(|v| !v.is_empty()).collect();
            for wanted in &all {
                let (stands, gapless) = after(rows.to_vec(), &standing, wanted);
                assert!(wanted.is_subset(&stands) && gapless, "{rows:?} {wanted:?}: {stands:?}");
            }
        }
        assert!(updates(&set(&["a", "b"]), &set(&["a"]), 2).is_empty(), "what stands is not sent again");
        assert_eq!(updates(&set(&["a"]), &set(&["a", "b"]), 2), ["b"], "where a place is free");
        assert_eq!(updates(&set(&["a", "b", "c"]), &set(&["a", "d"]), 8), ["d"]);
    }

    #[test]
    fn only_values_of_dns01_are_sent() {
        assert!(is_challenge("LHDhK3oGRvkiefQnx7OOczTY5Tic_xZ6HcMOc_gmtoM"));
        for value in ["", "short", "LHDhK3oGRvkiefQnx7OOczTY5Tic_xZ6HcMOc_gmto=", "LHDhK3oGRvkiefQnx7OOczTY5Tic_xZ6HcMOc_gmtoMM"] {
            assert!(!is_challenge(value), "{value}");
        }
    }
}
