//! What is exported of the certificates, at each scrape.
//!
//! A list can hold 100,000 of them, and a dozen series for each would make a scrape of a hundred megabytes. So there are series for the first [`MOST`] by name, beyond them only
//! for those that are not well, and a gauge says of how many there are none. The planner is asked for a page at a time: it has other things to do.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
    registry::Unit,
};

use super::{
    Manager, State,
    planner::{Action, Status},
};
use crate::{claim::Timestamp, config::Config, issuer::DirectoryNames};

/// Certificates that have series whatever their state, and certificates beyond them that have series because they are not well.
const MOST: usize = 10_000;
/// Certificates that are looked at in one go, while the planner waits.
const PAGE: usize = 500;
/// cert-manager's kinds of issuers are its own. `issuer_group` is empty, and so is `namespace`.
const ISSUER_KIND: &str = "Directory";

/// Exports the certificates.
#[derive(Debug)]
pub struct CertificateMetrics {
    manager: Manager,
    names: DirectoryNames,
}

/// What is exported of one certificate. Times are in seconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    name: String,
    /// The URL of the directory that it is ordered from first.
    directory: String,
    expiry: Option<i64>,
    renewal: Option<i64>,
    /// `None` for a rehearsal, which brings none.
    ready: Option<bool>,
    last_success: Option<i64>,
    next_attempt: Option<i64>,
    failures: u32,
    deployment_failures: u32,
}

/// What is exported of all of them.
#[derive(Debug, Default)]
struct Sample {
    rows: Vec<Row>,
    left_out: u64,
    census: [u64; STATES.len()],
}

/// All states, as metrics name them.
const STATES: [State; 11] = [
    State::Unlisted,
    State::Paused,
    State::Expired,
    State::Renewing,
    State::Failing,
    State::Waiting,
    State::Revoked,
    State::New,
    State::Rehearsed,
    State::Undeployed,
    State::Valid,
];

/// As in the JSON of reports.
const fn label(state: State) -> &'static str {
    match state {
        State::Unlisted => "unlisted",
        State::Paused => "paused",
        State::Expired => "expired",
        State::Renewing => "renewing",
        State::Failing => "failing",
        State::Waiting => "waiting",
        State::Revoked => "revoked",
        State::New => "new",
        State::Rehearsed => "rehearsed",
        State::Undeployed => "undeployed",
        State::Valid => "valid",
    }
}

impl CertificateMetrics {
    /// For the certificates of `manager`.
    pub fn new(manager: Manager, config: &Config) -> Self {
        Self { manager, names: DirectoryNames::of(config) }
    }

    fn sample(&self) -> Sample {
        let now = Timestamp::now();
        Sample::take(now, MOST, |after, show| self.manager.look(after, PAGE, now, show))
    }
}

impl Sample {
    /// Looks at all certificates, by pages that follow the one that ended with a name.
    fn take(now: Timestamp, most: usize, mut page: impl FnMut(Option<&str>, &mut dyn FnMut(&Status<'_>))) -> Self {
        let (mut sample, mut last) = (Self::default(), None::<String>);
        loop {
            let mut end = None;
            page(last.as_deref(), &mut |status| {
                sample.add(status, now, most);
                status.renewal.name.clone_into(end.get_or_insert_default());
            });
            match end {
                Some(name) => last = Some(name),
                None => return sample,
            }
        }
    }

    fn add(&mut self, status: &Status<'_>, now: Timestamp, most: usize) {
        if let Some(count) = STATES.iter().position(|state| *state == status.state).and_then(|at| self.census.get_mut(at)) {
            *count += 1;
        }
        // What the configuration does not want any more may expire, and nobody needs to hear of it.
        if status.wanted.is_none() {
            return;
        }
        let bound = if is_well(status, now) { most } else { most.saturating_mul(2) };
        match self.rows.len() < bound {
            true => self.rows.push(Row::of(status, now)),
            false => self.left_out += 1,
        }
    }
}

/// False for what somebody might want to look at: alerts ask for it.
fn is_well(status: &Status<'_>, now: Timestamp) -> bool {
    let renewal = status.renewal;
    let troubled = matches!(status.state, State::Paused | State::Expired | State::Failing | State::Waiting | State::Revoked);
    // The alert waits for a quarter of the time that was kept for the renewal.
    let overdue = renewal.standing.is_some() && renewal.renew_at.is_some_and(|at| at <= now);
    !troubled && !overdue && renewal.failures == 0 && renewal.deploy_failures == 0
}

impl Row {
    fn of(status: &Status<'_>, now: Timestamp) -> Self {
        let renewal = status.renewal;
        // What a rehearsal brought is no certificate to rely on.
        let real = status.wanted.is_some_and(|wanted| !wanted.dry_run);
        let standing = renewal.standing.as_ref().filter(|_| real);
        let as_wanted = |wish: &str| status.wanted.is_some_and(|wanted| wanted.wish == wish);
        let attempt = status.next.filter(|next| matches!(next.action, Action::Order | Action::Ordering));
        Self {
            name: renewal.name.clone(),
            directory: status.wanted.and_then(|wanted| wanted.directories.first().cloned()).unwrap_or_default(),
            expiry: standing.map(|standing| seconds(standing.not_after)),
            renewal: standing.and(renewal.renew_at).map(seconds),
            ready: real.then(|| standing.is_some_and(|standing| standing.not_after > now && !renewal.revoked && as_wanted(&standing.wish))),
            last_success: standing.map(|standing| seconds(standing.issued)),
            next_attempt: attempt.map(|next| seconds(next.at)),
            failures: renewal.failures,
            deployment_failures: renewal.deploy_failures,
        }
    }
}

const fn seconds(time: Timestamp) -> i64 {
    time.0.div_euclid(1000)
}

impl Collector for CertificateMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Sample { rows, left_out, census } = self.sample();
        let help = "Certificates of the list, by how they stand.";
        let mut family = encoder.encode_descriptor("acmegate_certificates", help, None, MetricType::Gauge)?;
        for (state, count) in STATES.into_iter().zip(census) {
            let labels = [("state", label(state))];
            ConstGauge::new(whole(count)).encode(family.encode_family(&labels)?)?;
        }
        let help = "Certificates that have no series of their own, for there are too many and they are well.";
        let family = encoder.encode_descriptor("acmegate_certificates_left_out", help, None, MetricType::Gauge)?;
        ConstGauge::new(whole(left_out)).encode(family)?;
        if rows.is_empty() {
            return Ok(());
        }
        for (name, unit, help, value) in OWN {
            let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
            for (row, value) in rows.iter().filter_map(|row| Some((row, value(row)?))) {
                let labels = [("name", row.name.as_str())];
                ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        for (name, unit, help, value) in CERT_MANAGERS {
            let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
            for (row, value) in rows.iter().filter_map(|row| Some((row, value(row)?))) {
                let labels = self.in_cert_manager(row);
                ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        let (name, help) = ("certmanager_certificate_ready_status", "acmegate_certificate_ready under cert-manager's name.");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (row, ready) in rows.iter().filter_map(|row| Some((row, row.ready?))) {
            for (condition, holds) in [("True", ready), ("False", !ready), ("Unknown", false)] {
                let labels = (self.in_cert_manager(row), [("condition", condition)]);
                ConstGauge::new(i64::from(holds)).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

impl CertificateMetrics {
    fn in_cert_manager<'a>(&'a self, row: &'a Row) -> [(&'static str, &'a str); 5] {
        [
            ("name", &row.name),
            ("namespace", ""),
            ("issuer_name", self.names.name(&row.directory)),
            ("issuer_kind", ISSUER_KIND),
            ("issuer_group", ""),
        ]
    }
}

type Exported = (&'static str, Option<&'static Unit>, &'static str, fn(&Row) -> Option<i64>);

/// Names, without their units, units, explanations, and where the values are.
const OWN: [Exported; 7] = [
    (
        "acmegate_certificate_expiry_timestamp",
        Some(&Unit::Seconds),
        "When the certificate ends, in Unix time; absent while there is none.",
        |row| row.expiry,
    ),
    ("acmegate_certificate_renewal_timestamp", Some(&Unit::Seconds), "When the certificate is to be renewed, in Unix time.", |row| {
        row.renewal
    }),
    ("acmegate_certificate_ready", None, "1 if there is a certificate that is valid and as the configuration wants it, 0 if not.", |row| {
        row.ready.map(i64::from)
    }),
    ("acmegate_certificate_last_success_timestamp", Some(&Unit::Seconds), "When the certificate was issued, in Unix time.", |row| {
        row.last_success
    }),
    ("acmegate_certificate_next_attempt_timestamp", Some(&Unit::Seconds), "When it is next ordered, in Unix time.", |row| row.next_attempt),
    ("acmegate_certificate_failures", None, "Attempts in a row to get the certificate that failed.", |row| Some(i64::from(row.failures))),
    ("acmegate_certificate_deployment_failures", None, "Attempts in a row to put the certificate where it goes that failed.", |row| {
        Some(i64::from(row.deployment_failures))
    }),
];

/// The same for names that people alert on already.
const CERT_MANAGERS: [Exported; 2] = [
    (
        "certmanager_certificate_expiration_timestamp",
        Some(&Unit::Seconds),
        "acmegate_certificate_expiry_timestamp_seconds under cert-manager's name.",
        |row| row.expiry,
    ),
    (
        "certmanager_certificate_renewal_timestamp",
        Some(&Unit::Seconds),
        "acmegate_certificate_renewal_timestamp_seconds under cert-manager's name.",
        |row| row.renewal,
    ),
];

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::ops::Bound;

    use super::{
        super::planner::{Ordered, Planner, Wanted},
        *,
    };
    use crate::store::{Renewal, Standing};

    const NOW: Timestamp = Timestamp(1_700_000_000_000);
    const DAY: i64 = 86_400_000;

    fn wanted(name: &str) -> Wanted {
        Wanted {
            name: name.to_owned(),
            names: vec![format!("{name}.test")],
            directories: vec!["https://ca.test/dir".to_owned()],
            wish: "wish".to_owned(),
            renew_before: None,
            deployment: String::new(),
            dry_run: false,
        }
    }

    /// One that was issued ten days ago for ninety.
    fn kept(name: &str) -> Renewal {
        let standing = Standing {
            id: None,
            serial: "01".to_owned(),
            directory: "https://ca.test/dir".to_owned(),
            names: vec![format!("{name}.test")],
            wish: "wish".to_owned(),
            not_before: Timestamp(NOW.0 - 10 * DAY),
            not_after: Timestamp(NOW.0 + 80 * DAY),
            issued: Timestamp(NOW.0 - 10 * DAY),
        };
        Renewal { name: name.to_owned(), standing: Some(standing), ..Renewal::default() }
    }

    fn sample(planner: &Planner, most: usize) -> Sample {
        Sample::take(NOW, most, |after, show| {
            planner.iter_from(after.map_or(Bound::Unbounded, Bound::Excluded), NOW).take(3).for_each(|status| show(&status))
        })
    }

    fn planner(wanted: Vec<Wanted>, renewals: Vec<Renewal>) -> Planner {
        Planner::new(wanted, renewals, NOW, &mut || 0.5).0
    }

    #[test]
    fn beyond_the_bound_only_what_is_not_well_has_series() {
        let names: Vec<_> = (0..20).map(|at| format!("c{at:02}")).collect();
        let mut planner = planner(names.iter().map(|name| wanted(name)).collect(), names.iter().map(|name| kept(name)).collect());
        let failed = || Ordered::Failed { text: "no".to_owned(), retry_at: None };
        planner.ordered("c03", failed(), NOW, 0.5);
        for at in 8..16 {
            planner.ordered(&format!("c{at:02}"), failed(), NOW, 0.5);
        }
        let named = |sample: &Sample| sample.rows.iter().map(|row| row.name.clone()).collect::<Vec<_>>();
        let all = sample(&planner, 20);
        assert_eq!((named(&all), all.left_out), (names, 0));
        let some = sample(&planner, 5);
        assert_eq!(named(&some), ["c00", "c01", "c02", "c03", "c04", "c08", "c09", "c10", "c11", "c12"]);
        assert_eq!(some.left_out, 10);
        let count = |state| some.census[STATES.iter().position(|known| *known == state).unwrap()];
        assert_eq!((count(State::Failing), count(State::Valid), some.census.iter().sum::<u64>()), (9, 11, 20));
    }

    #[test]
    fn ready_is_what_is_valid_and_as_it_is_wanted() {
        let changed = Wanted { wish: "another".to_owned(), ..wanted("changed") };
        let rehearsed = Wanted { dry_run: true, ..wanted("rehearsed") };
        let mut expired = kept("expired");
        expired.standing = expired.standing.map(|standing| Standing { not_after: NOW, ..standing });
        let revoked = Renewal { revoked: true, ..kept("revoked") };
        let list = vec![changed, wanted("expired"), wanted("new"), rehearsed, wanted("revoked"), wanted("well")];
        let known = vec![kept("changed"), expired, kept("rehearsed"), revoked, kept("unlisted"), kept("well")];
        let sample = sample(&planner(list, known), 100);
        let ready: Vec<_> = sample.rows.iter().map(|row| (row.name.as_str(), row.ready)).collect();
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(ready, [("changed", no), ("expired", no), ("new", no), ("rehearsed", None), ("revoked", no), ("well", yes)]);
        let well = sample.rows.last().unwrap();
        assert_eq!((well.expiry, well.last_success), (Some((NOW.0 + 80 * DAY) / 1000), Some((NOW.0 - 10 * DAY) / 1000)));
        assert!(well.renewal == well.next_attempt && well.renewal > Some(NOW.0 / 1000));
        let (new, rehearsed) = (&sample.rows[2], &sample.rows[3]);
        assert_eq!((new.expiry, new.renewal, new.last_success, new.next_attempt), (None, None, None, Some(NOW.0 / 1000)));
        assert_eq!((rehearsed.expiry, rehearsed.renewal), (None, None));
    }

    #[test]
    fn metrics_name_states_as_reports_do() {
        for state in STATES {
            assert_eq!(serde_json::to_value(state).unwrap(), label(state));
        }
        assert_eq!(STATES.iter().collect::<std::collections::HashSet<_>>().len(), STATES.len());
    }
}
