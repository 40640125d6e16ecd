//! What a caller is told while it waits.

use std::fmt;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// A step of a run. `Display` gives one plain line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The CA has made an account for us, or has said again which one is ours.
    AccountReady {
        /// The account's URL.
        url: String,
    },
    /// The CA has taken the order.
    OrderCreated {
        /// The order's URL.
        url: String,
        /// Names in it.
        names: usize,
    },
    /// An order that an earlier run placed is gone on with.
    OrderResumed {
        /// The order's URL.
        url: String,
    },
    /// The CA remembers that we control this name: nothing to prove.
    AlreadyAuthorized {
        /// The name.
        name: String,
    },
    /// The delegation of a name is being followed.
    LookingFor {
        /// `_acme-challenge.<domain>`.
        challenge: String,
    },
    /// Where the values of a name go.
    DelegationFound {
        /// `_acme-challenge.<domain>`.
        challenge: String,
        /// The owner name at the end of the CNAME chain; the same name where the challenge name lies in a zone of ours.
        owner: String,
    },
    /// Values stand in the ledger, and in DNS where the zone is our own.
    ValuesSet {
        /// How many.
        values: usize,
    },
    /// The authoritative servers of a zone are being asked.
    Waiting {
        /// The zone, or `recursive resolvers`.
        zone: String,
        /// Servers that answer every value.
        ready: usize,
        /// Servers asked.
        servers: usize,
    },
    /// Every server that has to answers every value.
    Visible,
    /// The CA was told to look.
    ChallengesSubmitted {
        /// How many.
        challenges: usize,
    },
    /// The CA has found every value.
    OrderReady,
    /// The certificate is there and was checked.
    Issued,
    /// The values are on their way out of DNS.
    Released,
    /// Something that a person should look at, though the run goes on.
    Warning {
        /// What happened and what to do.
        text: String,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AccountReady { url } => write!(f, "account {url}"),
            Self::OrderCreated { url, names } => write!(f, "order {url} for {}", count(*names, "name")),
            Self::OrderResumed { url } => write!(f, "going on with the order {url}"),
            Self::AlreadyAuthorized { name } => write!(f, "{name} is authorized already"),
            Self::LookingFor { challenge } => write!(f, "looking for {challenge}"),
            Self::DelegationFound { challenge, owner } if challenge == owner => write!(f, "{challenge} lies in a zone of ours"),
            Self::DelegationFound { challenge, owner } => write!(f, "{challenge} leads to {owner}"),
            Self::ValuesSet { values } => write!(f, "{} set", count(*values, "value")),
            Self::Waiting { zone, ready, servers } => write!(f, "waiting for {zone}: {ready} of {servers} servers answer every value"),
            Self::Visible => f.write_str("every value is visible"),
            Self::ChallengesSubmitted { challenges } => write!(f, "asked the CA to validate {}", count(*challenges, "challenge")),
            Self::OrderReady => f.write_str("the CA has validated every name"),
            Self::Issued => f.write_str("certificate issued"),
            Self::Released => f.write_str("values removed"),
            Self::Warning { text } => write!(f, "warning: {text}"),
        }
    }
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Hands events to whoever watches. A watcher that does not keep up misses lines rather than holding up a certificate; the log has them all.
#[derive(Debug, Clone)]
pub struct Reporter(Option<mpsc::Sender<Event>>);

impl Reporter {
    /// Reports to `events`.
    pub fn new(events: mpsc::Sender<Event>) -> Self {
        Self(Some(events))
    }

    /// Reports to the log alone.
    pub fn silent() -> Self {
        Self(None)
    }

    /// Reports a step.
    pub fn send(&self, event: Event) {
        match &event {
            Event::Warning { text } => tracing::warn!("{text}"),
            event => tracing::debug!("{event}"),
        }
        if let Some(events) = &self.0 {
            // Full or gone: see above.
            let _ = events.try_send(event);
        }
    }

    /// Reports something that a person should look at.
    pub fn warn(&self, text: impl Into<String>) {
        self.send(Event::Warning { text: text.into() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_that_does_not_keep_up_holds_up_nothing() {
        let (sender, mut receiver) = mpsc::channel(1);
        let reporter = Reporter::new(sender);
        reporter.send(Event::Visible);
        reporter.send(Event::OrderReady);
        assert_eq!(receiver.try_recv(), Ok(Event::Visible));
        assert!(receiver.try_recv().is_err());
        drop(receiver);
        reporter.warn("nobody listens");
    }

    #[test]
    fn lines_are_plain_and_count_well() {
        assert_eq!(Event::ValuesSet { values: 1 }.to_string(), "1 value set");
        assert_eq!(Event::OrderCreated { url: "u".into(), names: 2 }.to_string(), "order u for 2 names");
        let json = serde_json::to_string(&Event::Warning { text: "x".into() }).unwrap();
        assert_eq!(json, r#"{"event":"warning","text":"x"}"#);
    }
}
