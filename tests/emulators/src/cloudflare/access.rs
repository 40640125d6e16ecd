//! Who may do what, and how often.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use axum::http::HeaderMap;
use serde_json::json;

use super::{
    ACCOUNT,
    answer::{Answer, Refused},
};

/// The documented rate: 1,200 calls in five minutes.
const RATE: (u32, Duration) = (1200, Duration::from_secs(300));

/// What a token may be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Zone / Zone / Read.
    ZoneRead,
    /// Zone / DNS / Read.
    DnsRead,
    /// Zone / DNS / Edit, which can read as well.
    DnsEdit,
}

/// All credentials, and the calls of the present window.
#[derive(Debug, Default)]
pub(super) struct Access {
    tokens: BTreeMap<String, Token>,
    /// Global API keys by e-mail address.
    keys: BTreeMap<String, String>,
    limit: Option<(u32, Duration)>,
    window: Option<(Instant, u32)>,
    blocked_until: Option<Instant>,
}

#[derive(Debug, Clone, Default)]
struct Token {
    rights: BTreeSet<Right>,
    /// Ids of zones; `None` is every zone.
    zones: Option<BTreeSet<String>>,
    owned_by_account: bool,
    expired: bool,
}

/// Whoever makes a call.
#[derive(Debug)]
pub(super) struct Caller {
    /// `None` may do everything.
    token: Option<Token>,
}

impl Access {
    pub(super) fn grant(&mut self, token: &str, rights: &[Right]) {
        let mut rights: BTreeSet<Right> = rights.iter().copied().collect();
        if rights.contains(&Right::DnsEdit) {
            rights.insert(Right::DnsRead);
        }
        self.tokens.insert(token.to_owned(), Token { rights, ..Token::default() });
    }

    pub(super) fn restrict(&mut self, token: &str, zones: &[&str]) {
        if let Some(token) = self.tokens.get_mut(token) {
            token.zones = Some(zones.iter().map(|id| (*id).to_owned()).collect());
        }
    }

    pub(super) fn give_to_account(&mut self, token: &str) {
        if let Some(token) = self.tokens.get_mut(token) {
            token.owned_by_account = true;
        }
    }

    pub(super) fn expire(&mut self, token: &str) {
        if let Some(token) = self.tokens.get_mut(token) {
            token.expired = true;
        }
    }

    pub(super) fn grant_key(&mut self, email: &str, key: &str) {
        self.keys.insert(email.to_owned(), key.to_owned());
    }

    pub(super) fn limit_rate(&mut self, limit: Option<(u32, Duration)>) {
        self.limit = limit;
        self.window = None;
        self.blocked_until = None;
    }

    /// Counts a call, and refuses it where it is one too many: then nothing goes for a whole window.
    pub(super) fn count_call(&mut self) -> Result<(), Refused> {
        let now = Instant::now();
        let (most, length) = self.limit.unwrap_or(RATE);
        let (start, count) = self.window.filter(|(start, _)| now - *start < length).unwrap_or((now, 0));
        self.window = Some((start, count.saturating_add(1)));
        if self.limit.is_none() {
            return Ok(());
        }
        if count >= most && self.blocked_until.is_none_or(|until| until <= now) {
            self.blocked_until = Some(now + length);
        }
        match self.blocked_until {
            Some(until) if until > now => Err(Refused::throttled(until - now)),
            _ => Ok(()),
        }
    }

    /// Calls left, seconds to the end of the window, calls in a window, and its seconds.
    pub(super) fn rate(&self) -> (u32, u64, u32, u64) {
        let (most, length) = self.limit.unwrap_or(RATE);
        let (start, count) = self.window.unwrap_or((Instant::now(), 0));
        let left = length.saturating_sub(start.elapsed());
        (most.saturating_sub(count), left.as_millis().div_ceil(1000) as u64, most, length.as_secs())
    }

    /// The caller behind the headers of a call.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Result<Caller, Refused> {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(token) = header("authorization") {
            let token = bearer(token)?;
            let found = self.tokens.get(token).filter(|token| !token.expired);
            return found.map(|token| Caller { token: Some(token.clone()) }).ok_or_else(|| Refused::new(403, 9109, "Invalid access token"));
        }
        match (header("x-auth-email"), header("x-auth-key")) {
            (Some(email), Some(key)) if self.keys.get(email).is_some_and(|good| good == key) => Ok(Caller { token: None }),
            (Some(_), Some(_)) => Err(Refused::new(403, 9103, "Unknown X-Auth-Key or X-Auth-Email")),
            _ => Err(Refused::new(400, 9106, "Missing X-Auth-Key, X-Auth-Email or Authorization headers")),
        }
    }

    /// What the endpoints say that try a token: a user's is unknown to an account's, and the other way round.
    pub(super) fn verify(&self, headers: &HeaderMap, account: Option<&str>) -> Result<Answer, Refused> {
        let Some(header) = headers.get("authorization").and_then(|value| value.to_str().ok()) else {
            return Err(Refused::new(400, 6003, "Invalid request headers").because(6111, "Invalid format for Authorization header"));
        };
        let token = self.tokens.get(bearer(header)?);
        match token.filter(|token| token.owned_by_account == account.is_some() && account.is_none_or(|account| account == ACCOUNT)) {
            Some(token) => {
                let status = if token.expired { "expired" } else { "active" };
                Ok(Answer::of(json!({"id": "ed17574386854bf78a67040be0a770b0", "status": status})))
            }
            None => Err(Refused::new(401, 1000, "Invalid API Token")),
        }
    }
}

impl Caller {
    /// Refuses what the caller may not do in the zone with this id.
    pub(super) fn may(&self, right: Right, zone: &str) -> Result<(), Refused> {
        let Some(token) = &self.token else { return Ok(()) };
        let reaches = token.zones.as_ref().is_none_or(|zones| zones.contains(zone));
        if reaches && token.rights.contains(&right) { Ok(()) } else { Err(Refused::new(403, 10000, "Authentication error")) }
    }

    /// Whether a zone shows up in the caller's lists.
    pub(super) fn sees(&self, zone: &str) -> bool {
        self.may(Right::ZoneRead, zone).is_ok()
    }
}

fn bearer(header: &str) -> Result<&str, Refused> {
    let token =
        header.strip_prefix("Bearer ").filter(|token| token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
    token.ok_or_else(|| Refused::new(400, 6003, "Invalid request headers").because(6111, "Invalid format for Authorization header"))
}
