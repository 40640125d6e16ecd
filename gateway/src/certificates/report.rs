//! How a certificate stands, for people and programs.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::planner::{Action, Next, State, Status};
use crate::claim::Timestamp;

/// How a certificate of the list stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CertificateReport {
    /// Its name in the list.
    pub name: String,
    /// The DNS names: those of the configuration, or of the certificate if it is not in it.
    pub names: Vec<String>,
    /// In a word.
    pub state: State,
    /// Valid from.
    #[serde(with = "rfc3339", default)]
    pub not_before: Option<Timestamp>,
    /// Valid until.
    #[serde(with = "rfc3339", default)]
    pub not_after: Option<Timestamp>,
    /// Its serial number, hexadecimal.
    pub serial: Option<String>,
    /// The URL of the directory of the CA that issued it.
    pub directory: Option<String>,
    /// When it is renewed if nothing comes between.
    #[serde(with = "rfc3339", default)]
    pub renew_at: Option<Timestamp>,
    /// When the CA would like it to be renewed (RFC 9773).
    pub window: Option<SuggestedWindow>,
    /// What is done next.
    pub next: Option<Action>,
    /// When; in the past it is as soon as there is room.
    #[serde(with = "rfc3339", default)]
    pub next_at: Option<Timestamp>,
    /// When it was last tried to get one.
    #[serde(with = "rfc3339", default)]
    pub tried: Option<Timestamp>,
    /// Attempts in a row that failed.
    pub failures: u32,
    /// What the last one failed of.
    pub failure: Option<String>,
    /// The limit that it waits for.
    pub waits: Option<String>,
    /// Where a person has to tell the CA that it goes on.
    pub unpause_url: Option<String>,
    /// Deployments in a row that failed.
    pub deploy_failures: u32,
    /// What the last one failed of.
    pub deploy_failure: Option<String>,
}

/// When a CA would like a certificate to be renewed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuggestedWindow {
    /// From.
    #[serde(with = "rfc3339", default)]
    pub start: Option<Timestamp>,
    /// To.
    #[serde(with = "rfc3339", default)]
    pub end: Option<Timestamp>,
    /// A page that says why.
    pub explanation: Option<String>,
}

impl CertificateReport {
    /// From what the planner knows.
    pub(super) fn of(status: &Status<'_>) -> Self {
        let Status { state, next, waits, renewal, wanted } = status;
        let standing = renewal.standing.as_ref();
        let names = wanted.map(|wanted| &wanted.names).or(standing.map(|standing| &standing.names));
        Self {
            name: renewal.name.clone(),
            names: names.cloned().unwrap_or_default(),
            state: *state,
            not_before: standing.map(|standing| standing.not_before),
            not_after: standing.map(|standing| standing.not_after),
            serial: standing.map(|standing| standing.serial.clone()),
            directory: standing.map(|standing| standing.directory.clone()),
            renew_at: renewal.renew_at,
            window: renewal.window.as_ref().map(|window| SuggestedWindow {
                start: Some(window.start),
                end: Some(window.end),
                explanation: window.explanation.clone(),
            }),
            next: next.map(|next| next.action),
            next_at: next.map(|next: Next| next.at),
            tried: renewal.tried,
            failures: renewal.failures,
            failure: renewal.failure.clone(),
            waits: waits.as_ref().map(ToString::to_string),
            unpause_url: renewal.unpause_url.clone(),
            deploy_failures: renewal.deploy_failures,
            deploy_failure: renewal.deploy_failure.clone(),
        }
    }

    /// Whether nothing more comes of it by itself, now.
    pub(super) fn is_settled(&self, now: Timestamp) -> bool {
        match self.next {
            Some(Action::Ordering | Action::Deploying) => false,
            Some(Action::Order | Action::Deploy) => self.waits.is_some() || self.next_at.is_some_and(|at| at > now),
            None => true,
        }
    }

    /// What a person wants to know in a line of a table: the name, how it stands, until when it is valid, what is next, the names.
    pub fn columns(&self, now: Timestamp) -> [String; 5] {
        let until = self.not_after.map_or_else(|| "-".to_owned(), |at| format!("{} ({})", day(at), distance(at, now)));
        let next = match (self.next, self.next_at) {
            (Some(action), Some(at)) if at > now => format!("{action} in {}", span(at, now)),
            (Some(action), _) => action.to_string(),
            (None, _) => "-".to_owned(),
        };
        [self.name.clone(), self.state.to_string(), until, next, self.names.join(" ")]
    }
}

impl fmt::Display for CertificateReport {
    /// Some lines for people: what it is, what happened, what is done next and when, and what a person can do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.state)?;
        let mut line = |what: &str, text: &str| write!(f, "\n  {:12} {}", format!("{what}:"), text.replace('\n', "\n               "));
        line("names", &self.names.join(" "))?;
        if let (Some(from), Some(until)) = (self.not_before, self.not_after) {
            line("valid", &format!("{from} to {until}"))?;
        }
        if let Some(directory) = &self.directory {
            line("from", directory)?;
        }
        if let Some(serial) = &self.serial {
            line("serial", serial)?;
        }
        if let Some(at) = self.renew_at {
            line("renewed at", &at.to_string())?;
        }
        if let Some(SuggestedWindow { start: Some(start), end: Some(end), explanation }) = &self.window {
            let why = explanation.as_ref().map(|why| format!(", as {why} says")).unwrap_or_default();
            line("CA's window", &format!("{start} to {end}{why}"))?;
        }
        if let Some(failure) = &self.failure {
            let times = if self.failures == 1 { "once".to_owned() } else { format!("{} times in a row", self.failures) };
            line("failed", &format!("{times}; the last time: {failure}"))?;
        }
        if let Some(waits) = &self.waits {
            line("waits", waits)?;
        }
        if let Some(failure) = &self.deploy_failure {
            line("not deployed", failure)?;
        }
        if let (Some(action), Some(at)) = (self.next, self.next_at) {
            line("next", &format!("{action} at {at}"))?;
        }
        match self.state {
            State::Paused => {
                let url = self.unpause_url.as_deref().unwrap_or("its website");
                line(
                    "to do",
                    &format!("mend what failed, tell the CA at {url} that it goes on, then `acmegate certificates renew {}`", self.name),
                )
            }
            State::Failing | State::Expired if self.failure.is_some() => {
                line("to do", &format!("mend what it says, then `acmegate certificates renew {}`, or wait for the next attempt", self.name))
            }
            State::Undeployed if self.deploy_failure.is_some() => {
                line("to do", &format!("mend what it says, then `acmegate certificates deploy {}`; nothing is issued for it", self.name))
            }
            State::Unlisted => line("to do", &format!("`acmegate certificates delete {}` if nothing needs it any more", self.name)),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Order => "order",
            Self::Ordering => "ordering",
            Self::Deploy => "deploy",
            Self::Deploying => "deploying",
        })
    }
}

fn day(at: Timestamp) -> String {
    at.to_string().chars().take(10).collect()
}

fn distance(at: Timestamp, now: Timestamp) -> String {
    if at > now { span(at, now) } else { "expired".to_owned() }
}

/// The time between, in the unit that a person would say.
fn span(at: Timestamp, now: Timestamp) -> String {
    let seconds = at.0.saturating_sub(now.0) / 1000;
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Times as RFC 3339 writes them, to the second.
mod rfc3339 {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use crate::claim::Timestamp;

    pub(super) fn serialize<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        time.map(|time| time.to_string()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        let time: jiff::Timestamp = text.parse().map_err(D::Error::custom)?;
        Ok(Some(Timestamp(time.as_millisecond())))
    }
}
