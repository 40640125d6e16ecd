//! What the issuer counts: requests to CAs, attempts and how long they took, what is left of the CAs' limits, and how our clock stands to theirs.
//!
//! Requests are exported twice: under names of our own, and under those of cert-manager, for which alerts and dashboards exist. The latter break a rule of
//! OpenMetrics (a counter's name ends with `_total`), so they are of no type here; Prometheus sees them by the very names that cert-manager gives them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet},
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use super::{Issuer, Left, charge::Limits, error::IssueError, issued::Outcome};
use crate::{claim::Timestamp, config::Config};

/// CAs, and names of directories, that have series of their own; the configuration names a handful, the command line can bring others.
const MOST_NAMES: usize = 64;
/// What stands for all more of them.
const OTHER: &str = "other";
/// Limits of which it is said what is left: those of accounts first.
const MOST_LIMITS: usize = 1000;

/// What a request to a CA is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Action {
    Directory,
    Nonce,
    Account,
    NewOrder,
    Order,
    Authorization,
    Challenge,
    Finalize,
    Certificate,
    RenewalInfo,
    Revocation,
    KeyChange,
}

impl Action {
    /// As our metrics name it.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Nonce => "nonce",
            Self::Account => "account",
            Self::NewOrder | Self::Order => "order",
            Self::Authorization => "authorization",
            Self::Challenge => "challenge",
            Self::Finalize => "finalize",
            Self::Certificate => "certificate",
            Self::RenewalInfo => "renewal_info",
            Self::Revocation => "revocation",
            Self::KeyChange => "key_change",
        }
    }

    /// As cert-manager (1.21) names it. Of what it does not do, or not by itself, the name is made up.
    const fn in_cert_manager(self) -> &'static str {
        match self {
            Self::Directory => "discover",
            Self::Nonce => "new_nonce",
            Self::Account => "register_account",
            Self::NewOrder => "authorize_order",
            Self::Order => "get_order",
            Self::Authorization => "get_authorization",
            Self::Challenge => "accept_challenge",
            Self::Finalize => "create_order_cert",
            Self::Certificate => "fetch_cert",
            Self::RenewalInfo => "get_renewal_info",
            Self::Revocation => "revoke_cert",
            Self::KeyChange => "key_change",
        }
    }
}

/// A request to a CA that came to an end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// The CA's directory's host, with its port if that is not 443.
    pub(super) host: &'a str,
    pub(super) action: Action,
    pub(super) method: &'static str,
    /// The HTTP status; `None` if there was no answer that could be read.
    pub(super) status: Option<u16>,
    pub(super) took: Duration,
}

/// The issuer's counters; clones share them.
#[derive(Debug, Clone)]
pub(super) struct IssuerMetrics {
    requests: Arc<Mutex<BTreeMap<Request, Tally>>>,
    durations: Family<RequestLabels, Histogram>,
    ahead: Family<HostLabels, Gauge>,
    attempts: Family<AttemptLabels, Counter>,
    issuances: Family<DirectoryLabels, Histogram>,
    hosts: Known,
    directories: Known,
}

/// What requests are counted by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Request {
    host: String,
    action: Action,
    method: &'static str,
    status: Option<u16>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    count: u64,
    seconds: f64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    host: String,
    action: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HostLabels {
    host: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    directory: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectoryLabels {
    directory: String,
}

/// The first names that come have series of their own.
#[derive(Debug, Clone, Default)]
struct Known(Arc<Mutex<HashSet<String>>>);

impl Known {
    fn name(&self, name: &str) -> String {
        let mut known = self.0.lock();
        if !known.contains(name) {
            if known.len() >= MOST_NAMES {
                return OTHER.to_owned();
            }
            known.insert(name.to_owned());
        }
        name.to_owned()
    }
}

impl Default for IssuerMetrics {
    fn default() -> Self {
        Self {
            requests: Arc::default(),
            // From a CA beside us (5 ms) to what a request may take (60 s).
            durations: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.005, 2.5, 11))),
            ahead: Family::default(),
            attempts: Family::default(),
            // From a CA that remembers everything (0.1 s) to the slowest DNS (27 min).
            issuances: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.1, 2.0, 15))),
            hosts: Known::default(),
            directories: Known::default(),
        }
    }
}

impl IssuerMetrics {
    /// A request that came to an end.
    pub(super) fn asked(&self, asked: &Asked<'_>) {
        let host = self.hosts.name(asked.host);
        let seconds = asked.took.as_secs_f64();
        self.durations.get_or_create(&RequestLabels { host: host.clone(), action: asked.action.as_str() }).observe(seconds);
        let request = Request { host, action: asked.action, method: asked.method, status: asked.status };
        let mut requests = self.requests.lock();
        let tally = requests.entry(request).or_default();
        tally.count += 1;
        tally.seconds += seconds;
    }

    /// By how many seconds our clock is ahead of a CA's.
    pub(super) fn is_ahead(&self, host: &str, seconds: i64) {
        self.ahead.get_or_create(&HostLabels { host: self.hosts.name(host) }).set(seconds);
    }

    /// An attempt to get a certificate at one CA that came to an end.
    pub(super) fn attempted(&self, directory: &str, outcome: &Result<Outcome, IssueError>, took: Duration) {
        let directory = self.directories.name(directory);
        if let Ok(Outcome::Issued(_)) = outcome {
            self.issuances.get_or_create(&DirectoryLabels { directory: directory.clone() }).observe(took.as_secs_f64());
        }
        self.attempts.get_or_create(&AttemptLabels { directory, outcome: label(outcome) }).inc();
    }
}

/// What came of an attempt, in a word.
const fn label(outcome: &Result<Outcome, IssueError>) -> &'static str {
    match outcome {
        Ok(Outcome::Issued(_)) => "issued",
        Ok(Outcome::Rehearsed(_)) => "rehearsed",
        Err(error) => match error {
            IssueError::BadName { .. } => "bad_name",
            IssueError::BadDirectory { .. } => "bad_directory",
            IssueError::NoAccount { .. } => "no_account",
            IssueError::Caa { .. } => "caa",
            IssueError::Delegation { .. } => "delegation",
            IssueError::Claim { .. } => "claim",
            IssueError::Propagation { .. } => "propagation",
            IssueError::Refused { .. } => "refused",
            IssueError::Later { .. } => "later",
            IssueError::Limited { .. } => "limited",
            IssueError::Invalid { .. } => "invalid",
            IssueError::Unreachable { .. } => "unreachable",
            IssueError::TooSlow { .. } => "too_slow",
            IssueError::BadCertificate { .. } => "bad_certificate",
            IssueError::Store { .. } => "store",
            IssueError::Cancelled => "stopped",
            IssueError::Internal { .. } => "internal",
        },
    }
}

impl Issuer {
    /// Exports what the issuer counts. `registry` has no prefix.
    pub fn register(&self, registry: &mut Registry) {
        let metrics = &self.metrics;
        let acme = registry.sub_registry_with_prefix("acmegate").sub_registry_with_prefix("acme");
        let help = "Time from a request to a CA to the end of its answer";
        acme.register_with_unit("request_duration", help, Unit::Seconds, metrics.durations.clone());
        let help = "By how much our clock was ahead of the CA's at its last answer; behind, if negative";
        acme.register_with_unit("clock_ahead", help, Unit::Seconds, metrics.ahead.clone());
        let help = "Attempts to get a certificate at a CA that came to an end, by what came of them";
        acme.register("attempts", help, metrics.attempts.clone());
        let help = "Time that attempts took which brought a certificate";
        acme.register_with_unit("issuance_duration", help, Unit::Seconds, metrics.issuances.clone());
        registry.register_collector(Box::new(Requests(metrics.clone())));
        let names = DirectoryNames::of(&self.engine.config);
        registry.register_collector(Box::new(BudgetMetrics { limits: self.limits.clone(), names }));
    }
}

/// What directories are called, by their URLs.
#[derive(Debug)]
pub(crate) struct DirectoryNames(HashMap<String, String>);

impl DirectoryNames {
    /// Those of a configuration, staging directories of rehearsals included.
    pub(crate) fn of(config: &Config) -> Self {
        let own = config.certificates.iter().flat_map(|certificate| certificate.directories.iter().map(|directory| &**directory));
        let mut names = HashMap::new();
        for directory in config.issuer.directories.iter().chain(own) {
            if !names.contains_key(&directory.url) {
                names.insert(directory.url.clone(), directory.name.clone());
            }
        }
        Self(names)
    }

    /// The name of the directory at `url`, or the URL if it has none.
    pub(crate) fn name<'a>(&'a self, url: &'a str) -> &'a str {
        self.0.get(url).map_or(url, String::as_str)
    }
}

/// Exports the counted requests.
#[derive(Debug)]
struct Requests(IssuerMetrics);

impl Collector for Requests {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let requests = self.0.requests.lock().clone();
        own(&requests, &mut encoder)?;
        certmanager_count(&requests, &mut encoder)?;
        certmanager_duration(&requests, &mut encoder)
    }
}

type Tallies = BTreeMap<Request, Tally>;

fn own(requests: &Tallies, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let mut counts: BTreeMap<_, u64> = BTreeMap::new();
    for (request, tally) in requests {
        *counts.entry((&*request.host, request.status("none"), request.action.as_str())).or_default() += tally.count;
    }
    let help = "Requests to CAs, by what they were for and the HTTP status of the answer (none: there was no answer).";
    let mut family = encoder.encode_descriptor("acmegate_acme_requests", help, None, MetricType::Counter)?;
    for ((host, status, action), count) in counts {
        let labels = [("host", host), ("status", &status), ("action", action)];
        ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn certmanager_count(requests: &Tallies, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let (name, help) = ("certmanager_http_acme_client_request_count", "acmegate_acme_requests_total under cert-manager's name.");
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Unknown)?;
    for (request, tally) in requests {
        family.encode_family(&request.in_cert_manager())?.encode_gauge(&tally.count)?;
    }
    Ok(())
}

/// cert-manager's is a summary: its sum and its count are the same series; of its quantiles there are none.
fn certmanager_duration(requests: &Tallies, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let (name, help) = ("certmanager_http_acme_client_request_duration", "Time of requests to CAs under cert-manager's name.");
    let mut family = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
    for (request, tally) in requests {
        let whole = [(f64::INFINITY, tally.count)];
        let labels = request.in_cert_manager();
        family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(tally.seconds, tally.count, &whole, None)?;
    }
    Ok(())
}

impl Request {
    fn status(&self, none: &str) -> String {
        self.status.map_or_else(|| none.to_owned(), |status| status.to_string())
    }

    /// The labels that cert-manager gives it.
    fn in_cert_manager(&self) -> [(&'static str, String); 5] {
        [
            ("scheme", "https".to_owned()),
            ("host", self.host.clone()),
            ("action", self.action.in_cert_manager().to_owned()),
            ("method", self.method.to_owned()),
            ("status", self.status("999")),
        ]
    }
}

/// Exports what is left of the CAs' limits.
struct BudgetMetrics {
    limits: Limits,
    names: DirectoryNames,
}

impl fmt::Debug for BudgetMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BudgetMetrics").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Collector for BudgetMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(budget) = self.limits.known() else { return Ok(()) };
        let mut rows = Vec::new();
        {
            let (budget, now) = (budget.lock(), Timestamp::now());
            let of = |account: bool| budget.left(now).filter(move |left| left.subject.is_empty() == account);
            for Left { directory, limit, subject, tokens, capacity } in of(true).chain(of(false)).take(MOST_LIMITS) {
                rows.push(([directory.to_owned(), limit.to_string(), subject.to_owned()], tokens, capacity));
            }
        }
        for ([directory, ..], ..) in &mut rows {
            *directory = self.names.name(directory).to_owned();
        }
        let left = "What a CA's limit leaves: those of accounts, and of the others those that are nearly used up.";
        self.family(&mut encoder, "acmegate_acme_budget_left", left, rows.iter().map(|(labels, left, _)| (labels, *left)))?;
        let capacity = "What a CA's limit allows at most, of those in acmegate_acme_budget_left.";
        self.family(&mut encoder, "acmegate_acme_budget_capacity", capacity, rows.iter().map(|(labels, _, capacity)| (labels, *capacity)))
    }
}

impl BudgetMetrics {
    fn family<'r>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        rows: impl Iterator<Item = (&'r [String; 3], u32)>,
    ) -> Result<(), fmt::Error> {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for ([directory, limit, subject], value) in rows {
            let labels = [("directory", directory.as_str()), ("limit", limit), ("subject", subject)];
            ConstGauge::new(i64::from(value)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn text(collector: impl Collector) -> String {
        let (mut registry, mut text) = (Registry::default(), String::new());
        registry.register_collector(Box::new(collector));
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn a_request_counts_under_both_names() {
        let metrics = IssuerMetrics::default();
        let asked = |action, method, status, seconds| {
            metrics.asked(&Asked { host: "ca.test", action, method, status, took: Duration::from_secs(seconds) });
        };
        asked(Action::NewOrder, "POST", Some(201), 2);
        asked(Action::Order, "POST", Some(200), 1);
        asked(Action::Order, "POST", Some(200), 3);
        asked(Action::Nonce, "HEAD", None, 60);
        let text = text(Requests(metrics));
        for line in [
            r#"acmegate_acme_requests_total{host="ca.test",status="200",action="order"} 2"#,
            r#"acmegate_acme_requests_total{host="ca.test",status="201",action="order"} 1"#,
            r#"acmegate_acme_requests_total{host="ca.test",status="none",action="nonce"} 1"#,
            // Without _total, as cert-manager has it.
            r#"certmanager_http_acme_client_request_count{scheme="https",host="ca.test",action="get_order",method="POST",status="200"} 2"#,
            r#"certmanager_http_acme_client_request_count{scheme="https",host="ca.test",action="new_nonce",method="HEAD",status="999"} 1"#,
            r#"certmanager_http_acme_client_request_duration_seconds_sum{scheme="https",host="ca.test",action="get_order",method="POST",status="200"} 4.0"#,
            r#"certmanager_http_acme_client_request_duration_seconds_count{scheme="https",host="ca.test",action="get_order",method="POST",status="200"} 2"#,
        ] {
            assert!(text.lines().any(|given| given == line), "no {line} in\n{text}");
        }
    }

    #[test]
    fn hosts_and_directories_that_come_late_are_counted_together() {
        let metrics = IssuerMetrics::default();
        for at in 0..MOST_NAMES + 3 {
            let host = format!("ca{at}.test");
            metrics.asked(&Asked { host: &host, action: Action::Directory, method: "GET", status: Some(200), took: Duration::ZERO });
            metrics.attempted(&host, &Err(IssueError::Cancelled), Duration::ZERO);
        }
        let other = AttemptLabels { directory: OTHER.to_owned(), outcome: "stopped" };
        assert_eq!(metrics.attempts.get_or_create(&other).get(), 3);
        let text = text(Requests(metrics));
        assert!(text.contains(r#"acmegate_acme_requests_total{host="other",status="200",action="directory"} 3"#), "{text}");
    }
}
