//! What the CAs' rate limits leave, so that no order is sent that would meet one.
//!
//! Each limit is a token bucket, kept as GCRA: one number, the time at which the bucket is full again. A bucket of N tokens that gets one every p has a
//! token as long as `full_at - now <= (N - 1) * p`, and taking one moves `full_at` p later. What is full again is forgotten, so that there are only as many
//! rows as tokens were taken of late.
//!
//! There is no clock here and no disk: times are given, and the rows that changed are given back, to be written before what they were taken for is done.

mod domain;
mod limit;
mod scope;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub use limit::Limit;
pub use scope::Scope;

use self::{
    domain::{registered, registered_domains},
    limit::{Bucket, Known},
};
use crate::{claim::Timestamp, store::BudgetRow};

/// Rows below this are not looked through for full ones.
const FEW_ROWS: usize = 1024;
/// So many sets of names that have to wait for an unclear reason mean that it is not about them.
const UNCLEAR: usize = 2;
/// No wait that a CA asks for is believed to be longer.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 86_400);

/// What is known of the rate limits of all CAs that are used.
#[derive(Debug, Default)]
pub struct Budget {
    cas: BTreeMap<String, Ca>,
    rows: usize,
    /// So many rows make it worth while to look for full ones.
    prune_at: usize,
}

/// One CA, by the URL of its directory.
#[derive(Debug, Default)]
struct Ca {
    known: Option<&'static Known>,
    fills: HashMap<Limit, HashMap<String, Fill>>,
}

/// How full a bucket is; by default it is full.
#[derive(Debug, Clone, Copy, Default)]
struct Fill {
    /// When it is full again.
    full_at: Timestamp,
    /// By how many milliseconds the CA counted later than we did, at most, since it was full. It is in `full_at` already.
    late: i64,
}

/// An order, as far as rate limits care.
#[derive(Debug, Clone, Copy)]
pub struct OrderShape<'a> {
    /// The URL of the CA's directory.
    pub directory: &'a str,
    /// The DNS names.
    pub names: &'a [String],
    /// What it is to the CA.
    pub kind: OrderKind,
}

/// What an order is to a CA that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OrderKind {
    /// A set of names that it has not certified before.
    New,
    /// A set of names that it has certified before. Let's Encrypt counts neither the order nor the certificate per domain.
    Renewal,
    /// It names the certificate that it replaces (RFC 9773, 5), which was not replaced before and shares a name. Let's Encrypt lets it pass all limits.
    Replacement,
}

/// How far an order came that brought no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// The CA has no such order.
    NotPlaced,
    /// The CA has it, but was not asked to issue.
    NotFinalized,
}

/// A limit that is used up.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Exhausted {
    /// The URL of the CA's directory.
    pub directory: String,
    /// Which limit.
    pub limit: Limit,
    /// What it counts by: a registered domain, a name, a set of names; empty where it is the account or the CA.
    pub subject: String,
    /// When there is a token again.
    pub until: Timestamp,
}

/// What is left of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left<'a> {
    /// The URL of the CA's directory.
    pub directory: &'a str,
    /// Which limit.
    pub limit: Limit,
    /// What it counts by; empty where it is the account.
    pub subject: &'a str,
    /// Tokens that are there.
    pub tokens: u32,
    /// Tokens that there can be.
    pub capacity: u32,
}

impl Budget {
    /// From the rows that were kept. Rows of limits that this acmegate does not know are left out.
    pub fn new(rows: Vec<BudgetRow>) -> Self {
        let mut budget = Self { prune_at: FEW_ROWS, ..Self::default() };
        for row in rows {
            if let Some(limit) = Limit::parse(&row.limit) {
                budget.set(&row.directory, limit, &row.subject, Fill { full_at: row.full_at, late: 0 });
            }
        }
        budget
    }

    /// Whether the order would keep all limits now.
    ///
    /// # Errors
    /// [`Exhausted`]: of the limits that it would break the one that lasts longest.
    pub fn ask(&self, order: &OrderShape<'_>, now: Timestamp) -> Result<(), Exhausted> {
        let Some(ca) = self.cas.get(order.directory) else { return Ok(()) };
        let mut worst: Option<Exhausted> = None;
        for (limit, subject) in ca.asked(order) {
            let fill = ca.fill(limit, &subject);
            let until = ca.bucket(limit).map_or_else(|| bounded(fill.full_at, now, LONGEST_WAIT), |bucket| bucket.free_at(fill, now));
            if until > now && worst.as_ref().is_none_or(|worst| worst.until < until) {
                worst = Some(Exhausted { directory: order.directory.to_owned(), limit, subject, until });
            }
        }
        worst.map_or(Ok(()), Err)
    }

    /// Counts an order, as the intent to send it is written down. The rows are to be written with it.
    pub fn take(&mut self, order: &OrderShape<'_>, now: Timestamp) -> Vec<BudgetRow> {
        let ca = self.ca(order.directory);
        let counted = ca.counted(order);
        let mut rows = Vec::with_capacity(counted.len());
        for (limit, subject) in counted {
            let Some(bucket) = ca.bucket(limit) else { continue };
            let full_at = bucket.taken(ca.fill(limit, &subject), now);
            rows.push((limit, subject, full_at));
        }
        self.write(order.directory, rows, now)
    }

    /// Takes back what was counted of an order that brought no certificate and will bring none. What was finalized counts, whatever came of it.
    pub fn give_back(&mut self, order: &OrderShape<'_>, came: Came, now: Timestamp) -> Vec<BudgetRow> {
        let ca = self.ca(order.directory);
        let mut rows = Vec::new();
        for (limit, subject) in ca.counted(order) {
            let Some(bucket) = ca.bucket(limit) else { continue };
            let fill = ca.fill(limit, &subject);
            let back = came == Came::NotPlaced || limit != Limit::NewOrders;
            if back && fill.full_at > now {
                rows.push((limit, subject, bucket.returned(fill)));
            }
        }
        self.write(order.directory, rows, now)
    }

    /// Counts failed authorizations: the names whose authorization the CA says is invalid.
    pub fn failed(&mut self, directory: &str, names: &[String], now: Timestamp) -> Vec<BudgetRow> {
        let ca = self.ca(directory);
        let mut rows = Vec::new();
        for name in names.iter().map(|name| plain(name)).collect::<HashSet<_>>() {
            for limit in [Limit::FailedAuthorizations, Limit::ConsecutiveFailures] {
                if let Some(bucket) = ca.bucket(limit) {
                    rows.push((limit, name.clone(), bucket.taken(ca.fill(limit, &name), now)));
                }
            }
        }
        self.write(directory, rows, now)
    }

    /// Settles an order that brought a certificate, counted at `taken`. A CA counts certificates as it issues them, later than we did: its bucket is full later,
    /// too, by as much as the slowest order took since it was full.
    pub fn issued(&mut self, order: &OrderShape<'_>, taken: Timestamp, now: Timestamp) -> Vec<BudgetRow> {
        let late = now.0.saturating_sub(taken.0).max(0);
        let ca = self.ca(order.directory);
        let mut rows = Vec::new();
        // It was let pass whatever the bucket held, and takes a token now if there is one.
        if let (OrderKind::Replacement, Some(bucket)) = (order.kind, ca.bucket(Limit::ExactSet)) {
            let subject = set(order.names);
            let fill = ca.fill(Limit::ExactSet, &subject);
            if bucket.free_at(fill, now) <= now {
                let late = if fill.full_at > now { fill.late } else { 0 };
                rows.push((Limit::ExactSet, subject, Fill { full_at: bucket.taken(fill, now), late }));
            }
        }
        for (limit, subject) in ca.counted(order).into_iter().filter(|(limit, _)| *limit != Limit::NewOrders) {
            let (Some(bucket), fill) = (ca.bucket(limit), ca.fill(limit, &subject)) else { continue };
            if fill.full_at > now && late > fill.late {
                rows.push((limit, subject, bucket.counted_later(fill, late)));
            }
        }
        let mut rows = self.fill(order.directory, rows, now);
        rows.extend(self.succeeded(order.directory, order.names, now));
        rows
    }

    /// Forgets failures in a row, because the CA does: a certificate was issued ([`Self::issued`] says so by itself), or a person has told it to go on.
    pub fn succeeded(&mut self, directory: &str, names: &[String], now: Timestamp) -> Vec<BudgetRow> {
        let ca = self.ca(directory);
        let limit = Limit::ConsecutiveFailures;
        let rows =
            names.iter().map(|name| plain(name)).filter(|name| ca.fill(limit, name).full_at > now).map(|name| (limit, name, now)).collect();
        self.write(directory, rows, now)
    }

    /// Remembers that a CA wants to be asked later (Retry-After). The later one of two such times holds.
    pub fn told(&mut self, directory: &str, scope: &Scope, until: Timestamp, now: Timestamp) -> Vec<BudgetRow> {
        let (limit, subject) = scope.row();
        let ca = self.ca(directory);
        let until = bounded(until, now, LONGEST_WAIT);
        let mut rows = vec![(limit, subject)];
        let refused = |fills: &HashMap<String, Fill>| fills.values().filter(|fill| fill.full_at > now).count();
        if matches!(scope, Scope::Unclear(_)) && ca.fills.get(&limit).map_or(0, refused) >= UNCLEAR {
            rows.push((Limit::WaitAccount, String::new()));
        }
        let rows = rows.into_iter().map(|(limit, subject)| {
            let until = ca.fill(limit, &subject).full_at.max(until);
            (limit, subject, until)
        });
        let rows = rows.collect();
        self.write(directory, rows, now)
    }

    /// What is left: of the limits by account all, of the others those of which less than a quarter is left.
    pub fn left(&self, now: Timestamp) -> impl Iterator<Item = Left<'_>> {
        self.cas.iter().flat_map(move |(directory, ca)| {
            let of_account = ca.bucket(Limit::NewOrders).map(|bucket| {
                let tokens = bucket.left(ca.fill(Limit::NewOrders, ""), now);
                Left { directory, limit: Limit::NewOrders, subject: "", tokens, capacity: bucket.capacity }
            });
            let scarce = ca.fills.iter().filter(|(limit, _)| **limit != Limit::NewOrders).flat_map(move |(limit, rows)| {
                rows.iter().filter_map(move |(subject, fill)| {
                    let bucket = ca.bucket(*limit)?;
                    let tokens = bucket.left(*fill, now);
                    let scarce = tokens.saturating_mul(4) < bucket.capacity;
                    scarce.then_some(Left { directory, limit: *limit, subject, tokens, capacity: bucket.capacity })
                })
            });
            of_account.into_iter().chain(scarce)
        })
    }

    /// Forgets what is full again. Called now and then by itself.
    pub fn prune(&mut self, now: Timestamp) {
        self.rows = 0;
        for ca in self.cas.values_mut() {
            for rows in ca.fills.values_mut() {
                rows.retain(|_, fill| fill.full_at > now);
                rows.shrink_to(rows.len().saturating_mul(2));
                self.rows += rows.len();
            }
        }
        self.prune_at = self.rows.saturating_mul(2).max(FEW_ROWS);
    }

    /// How many rows are kept.
    pub const fn len(&self) -> usize {
        self.rows
    }

    /// True if every bucket is full.
    pub const fn is_empty(&self) -> bool {
        self.rows == 0
    }

    fn ca(&mut self, directory: &str) -> &Ca {
        self.cas.entry(directory.to_owned()).or_insert_with(|| Ca::new(directory))
    }

    fn set(&mut self, directory: &str, limit: Limit, subject: &str, fill: Fill) {
        let ca = self.cas.entry(directory.to_owned()).or_insert_with(|| Ca::new(directory));
        let old = ca.fills.entry(limit).or_default().insert(subject.to_owned(), fill);
        self.rows += usize::from(old.is_none());
    }

    /// Buckets that are full at other times now; the CA is as late with them as it was, unless they were full.
    fn write(&mut self, directory: &str, rows: Vec<(Limit, String, Timestamp)>, now: Timestamp) -> Vec<BudgetRow> {
        let ca = self.ca(directory);
        let rows = rows.into_iter().map(|(limit, subject, full_at)| {
            let old = ca.fill(limit, &subject);
            let late = if old.full_at > now { old.late } else { 0 };
            (limit, subject, Fill { full_at, late })
        });
        let rows = rows.collect();
        self.fill(directory, rows, now)
    }

    fn fill(&mut self, directory: &str, rows: Vec<(Limit, String, Fill)>, now: Timestamp) -> Vec<BudgetRow> {
        for (limit, subject, fill) in &rows {
            self.set(directory, *limit, subject, *fill);
        }
        if self.rows > self.prune_at {
            self.prune(now);
        }
        let row = |(limit, subject, fill): (Limit, String, Fill)| BudgetRow {
            directory: directory.to_owned(),
            limit: limit.as_str().to_owned(),
            subject,
            full_at: fill.full_at,
        };
        rows.into_iter().map(row).collect()
    }
}

impl Ca {
    fn new(directory: &str) -> Self {
        Self { known: Known::of(directory), fills: HashMap::new() }
    }

    /// The limit's size at this CA; `None` if it has no such limit, or if the limit is a wait that it asked for.
    fn bucket(&self, limit: Limit) -> Option<&'static Bucket> {
        self.known.and_then(|known| known.bucket(limit))
    }

    fn fill(&self, limit: Limit, subject: &str) -> Fill {
        self.fills.get(&limit).and_then(|fills| fills.get(subject)).copied().unwrap_or_default()
    }

    /// The limits that an order has to keep.
    fn asked(&self, order: &OrderShape<'_>) -> Vec<(Limit, String)> {
        let exempt = self.known.is_some() && order.kind == OrderKind::Replacement;
        let mut asked = vec![(Limit::WaitDirectory, String::new()), (Limit::WaitNames, set(order.names))];
        if exempt {
            return asked;
        }
        let counted = self.counted(order);
        // What a CA asked to wait with is what it counts; of what it does not count for this order, nothing needs to wait.
        if self.known.is_none() || order.kind == OrderKind::New {
            asked.push((Limit::WaitAccount, String::new()));
            asked.extend(registered_domains(order.names).into_iter().map(|domain| (Limit::WaitDomain, domain)));
        }
        for name in order.names.iter().map(|name| plain(name)) {
            asked.push((Limit::FailedAuthorizations, name.clone()));
            asked.push((Limit::ConsecutiveFailures, name.clone()));
            asked.push((Limit::WaitName, name));
        }
        asked.extend(counted);
        asked
    }

    /// The limits that an order counts against from its intent on.
    fn counted(&self, order: &OrderShape<'_>) -> Vec<(Limit, String)> {
        if self.known.is_none() || order.kind == OrderKind::Replacement {
            return Vec::new();
        }
        let mut counted = vec![(Limit::ExactSet, set(order.names))];
        if order.kind == OrderKind::New {
            counted.push((Limit::NewOrders, String::new()));
            counted.extend(registered_domains(order.names).into_iter().map(|domain| (Limit::CertificatesPerDomain, domain)));
        }
        counted
    }
}

impl Exhausted {
    /// Which limit, whose, until when, and what a person can do.
    pub fn text(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        limit::explain(f, self)
    }
}

/// A name as limits count it.
fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// A set of names, whatever their order: short enough for a row, and a person sees which it is.
fn set(names: &[String]) -> String {
    let mut names: Vec<_> = names.iter().map(|name| plain(name)).collect();
    names.sort_unstable();
    names.dedup();
    match names.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [first, rest @ ..] => {
            let hash = blake3::hash(names.join(" ").as_bytes()).to_hex();
            format!("{first}+{} {}", rest.len(), &hash[..32])
        }
    }
}

/// Not later than `longest` from now: what says more was written by a clock that was wrong.
fn bounded(time: Timestamp, now: Timestamp, longest: Duration) -> Timestamp {
    time.min(now.after(longest))
}
