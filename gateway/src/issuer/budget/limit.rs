//! The limits that CAs are known to have, and what people are told of them.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Exhausted, Fill, bounded};
use crate::claim::Timestamp;

/// A limit, or a wait that a CA asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Orders by account.
    NewOrders,
    /// Certificates by registered domain, whoever orders them.
    CertificatesPerDomain,
    /// Certificates for the very same set of names, whoever orders them.
    ExactSet,
    /// Failed authorizations by name and account.
    FailedAuthorizations,
    /// Failed authorizations in a row by name and account; after so many the CA pauses the name until a person tells it to go on.
    ConsecutiveFailures,
    /// The CA asked to wait with everything.
    WaitDirectory,
    /// The CA asked to wait with new orders.
    WaitAccount,
    /// The CA asked to wait with a registered domain.
    WaitDomain,
    /// The CA asked to wait with a set of names.
    WaitNames,
    /// The CA asked to wait with a name, in whatever set.
    WaitName,
}

/// A token bucket.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bucket {
    /// Tokens that it can hold.
    pub(super) capacity: u32,
    /// It gets one in so many milliseconds.
    every: i64,
}

/// What is published of a CA's limits.
#[derive(Debug)]
pub(super) struct Known {
    name: &'static str,
    host: &'static str,
    new_orders: Bucket,
    /// `None` is one that nobody can meet.
    per_domain: Option<Bucket>,
    exact_set: Bucket,
    failed: Bucket,
    consecutive: Bucket,
}

const HOUR: i64 = 3_600_000;
const WEEK: i64 = 7 * 24 * HOUR;

/// Published at <https://letsencrypt.org/docs/rate-limits/> and <https://letsencrypt.org/docs/staging-environment/>. Of other CAs no figures are known here: what
/// they teach by Retry-After is kept all the same.
const KNOWN: [Known; 2] = [
    Known {
        name: "Let's Encrypt",
        host: "acme-v02.api.letsencrypt.org",
        new_orders: Bucket { capacity: 300, every: 3 * HOUR / 300 },
        per_domain: Some(Bucket { capacity: 50, every: WEEK / 50 }),
        exact_set: Bucket { capacity: 5, every: WEEK / 5 },
        failed: Bucket { capacity: 5, every: HOUR / 5 },
        consecutive: Bucket { capacity: 1152, every: 24 * HOUR },
    },
    Known {
        name: "Let's Encrypt's staging",
        host: "acme-staging-v02.api.letsencrypt.org",
        new_orders: Bucket { capacity: 1500, every: 3 * HOUR / 1500 },
        per_domain: None,
        exact_set: Bucket { capacity: 30_000, every: WEEK / 30_000 },
        failed: Bucket { capacity: 200, every: HOUR / 200 },
        consecutive: Bucket { capacity: 3600, every: 6 * HOUR / 3600 },
    },
];

impl Limit {
    /// Every limit.
    pub const ALL: [Self; 10] = [
        Self::NewOrders,
        Self::CertificatesPerDomain,
        Self::ExactSet,
        Self::FailedAuthorizations,
        Self::ConsecutiveFailures,
        Self::WaitDirectory,
        Self::WaitAccount,
        Self::WaitDomain,
        Self::WaitNames,
        Self::WaitName,
    ];

    /// As it is stored and as metrics name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NewOrders => "new_orders",
            Self::CertificatesPerDomain => "certificates_per_domain",
            Self::ExactSet => "exact_set",
            Self::FailedAuthorizations => "failed_authorizations",
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::WaitDirectory => "wait_directory",
            Self::WaitAccount => "wait_account",
            Self::WaitDomain => "wait_domain",
            Self::WaitNames => "wait_names",
            Self::WaitName => "wait_name",
        }
    }

    /// The inverse of [`Self::as_str`].
    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|limit| limit.as_str() == text)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Bucket {
    /// When there is a token.
    pub(super) fn free_at(&self, fill: Fill, now: Timestamp) -> Timestamp {
        Timestamp(self.bounded(fill, now).0 - (i64::from(self.capacity) - 1) * self.every)
    }

    /// When it is full again after one more is taken.
    pub(super) fn taken(&self, fill: Fill, now: Timestamp) -> Timestamp {
        let full_at = Timestamp(fill.full_at.0.max(now.0).saturating_add(self.every));
        self.bounded(Fill { full_at, ..fill }, now)
    }

    /// When it is full again after one is put back.
    pub(super) fn returned(&self, fill: Fill) -> Timestamp {
        Timestamp(fill.full_at.0.saturating_sub(self.every))
    }

    /// The same, where the CA counted so many milliseconds later than we did.
    pub(super) fn counted_later(&self, fill: Fill, late: i64) -> Fill {
        let late = late.clamp(fill.late, self.every.max(fill.late));
        Fill { full_at: Timestamp(fill.full_at.0.saturating_add(late - fill.late)), late }
    }

    /// Tokens that are there.
    pub(super) fn left(&self, fill: Fill, now: Timestamp) -> u32 {
        let missing = (self.bounded(fill, now).0 - now.0).max(0);
        // One that is not whole is none.
        let missing = (missing + self.every - 1) / self.every;
        self.capacity.saturating_sub(u32::try_from(missing).unwrap_or(u32::MAX))
    }

    /// Emptier than empty it cannot be, unless a clock was set back.
    fn bounded(&self, fill: Fill, now: Timestamp) -> Timestamp {
        let longest = i64::from(self.capacity) * self.every + fill.late;
        bounded(fill.full_at, now, Duration::from_millis(u64::try_from(longest).unwrap_or_default()))
    }
}

impl Known {
    /// What is known of the CA at a directory URL.
    pub(super) fn of(directory: &str) -> Option<&'static Self> {
        KNOWN.iter().find(|known| known.host == host(directory))
    }

    /// The size of a limit.
    pub(super) const fn bucket(&self, limit: Limit) -> Option<&Bucket> {
        match limit {
            Limit::NewOrders => Some(&self.new_orders),
            Limit::CertificatesPerDomain => self.per_domain.as_ref(),
            Limit::ExactSet => Some(&self.exact_set),
            Limit::FailedAuthorizations => Some(&self.failed),
            Limit::ConsecutiveFailures => Some(&self.consecutive),
            Limit::WaitDirectory | Limit::WaitAccount | Limit::WaitDomain | Limit::WaitNames | Limit::WaitName => None,
        }
    }
}

/// Says which limit, whose, until when, and what a person can do.
pub(super) fn explain(f: &mut fmt::Formatter<'_>, spent: &Exhausted) -> fmt::Result {
    let known = Known::of(&spent.directory);
    let ca = known.map_or_else(|| host(&spent.directory), |known| known.name);
    let most = known.and_then(|known| known.bucket(spent.limit)).map_or(0, |bucket| bucket.capacity);
    let (subject, until) = (Subject(&spent.subject), spent.until);
    let what = match spent.limit {
        Limit::NewOrders => {
            format!(
                "{ca} takes {most} new orders of an account in 3 hours, and they are used up; a second CA in the configuration would be asked meanwhile"
            )
        }
        Limit::CertificatesPerDomain => {
            format!(
                "{ca} issues {most} certificates a week for {subject} and what is below it, and they are used up; fewer certificates with more names each, or a wildcard, need fewer"
            )
        }
        Limit::ExactSet => {
            format!(
                "{ca} issues {most} certificates a week for the very same names, and those for {subject} are used up; whatever orders them again and again should be stopped"
            )
        }
        Limit::FailedAuthorizations => {
            format!(
                "{ca} forgives {most} failed validations of a name in an hour, and those of {subject} are used up; `acmegate check` finds what is wrong with it"
            )
        }
        Limit::ConsecutiveFailures => {
            format!("{ca} was asked to validate {subject} in vain {most} times; `acmegate check` finds what is wrong with it")
        }
        Limit::WaitDirectory => format!("{ca} asked to wait with everything"),
        Limit::WaitAccount => format!("{ca} asked to wait with new orders"),
        Limit::WaitDomain => format!("{ca} asked to wait with {subject} and what is below it"),
        Limit::WaitNames => format!("{ca} asked to wait with the certificate for {subject}"),
        Limit::WaitName => format!("{ca} asked to wait with {subject}; `acmegate check` finds what is wrong with it"),
    };
    write!(f, "{what}; it goes on by itself at {until}")
}

/// The subject of a row, as people read it.
struct Subject<'a>(&'a str);

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = self.0.split_once('+').and_then(|(first, more)| Some((first, more.split_once(' ')?.0)));
        match more {
            Some((first, "1")) => write!(f, "{first} and 1 more name"),
            Some((first, more)) => write!(f, "{first} and {more} more names"),
            None => f.write_str(self.0),
        }
    }
}

/// The host of a URL, without its port.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    authority.split_once(':').map_or(authority, |(host, _)| host)
}
