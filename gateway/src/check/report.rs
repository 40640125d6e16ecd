//! What a check found, for people and for programs.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

/// What a check is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckRequest {
    /// The domain or challenge name, as a person wrote it.
    pub name: String,
    /// Put a test value into DNS, see it at every server, and take it back.
    #[serde(default)]
    pub write: bool,
}

/// Why there is no report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "error", rename_all = "snake_case")]
pub enum CheckError {
    /// It is no name that a certificate can be for.
    #[error("{text}")]
    BadName {
        /// What is wrong and what to write instead.
        text: String,
    },
    /// It was stopped; a test value that stood was let go.
    #[error("the check was stopped before its end; no test value stays")]
    Stopped,
}

/// What a check found: the ladder from the bottom up. This is the JSON of `--json`; fields and words are only ever added to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The name, as certificates write it (`*.` included, internationalised labels as `xn--`).
    pub name: String,
    /// Where the CA looks: `_acme-challenge.` and the domain.
    pub challenge: String,
    /// Where the value would stand: the challenge name, or the end of its CNAMEs; `None` if that is not known.
    pub owner: Option<String>,
    /// The zone that acmegate would write; `None` if there is none.
    pub zone: Option<String>,
    /// The backend that serves it, by its name in the configuration (`embedded` for acmegate's own zones); `None` if there is none.
    pub backend: Option<String>,
    /// The worst of the rungs: `ok`, `warning` or `failed`.
    pub outcome: Outcome,
    /// The rungs, always all of them and in this order.
    pub rungs: Vec<Rung>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rung {
    /// What was looked at.
    pub id: RungId,
    /// How it is.
    pub outcome: Outcome,
    /// One sentence.
    pub summary: String,
    /// What says so, a line each.
    pub evidence: Vec<String>,
    /// What a person does next; `None` where nothing has to be done.
    pub next: Option<String>,
}

/// How a rung is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was not looked at; the summary says why.
    Skipped,
    /// Nothing is in the way.
    Ok,
    /// It works, or may, and yet a person should look.
    Warning,
    /// A certificate would fail here.
    Failed,
}

/// The rungs, from the bottom up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RungId {
    /// This machine's clock against those of the ACME directories.
    Clock,
    /// The CNAMEs and DNAMEs of the challenge name.
    Chain,
    /// The zone of the owner name, and the backend that is chosen for it.
    Backend,
    /// How the world finds that zone.
    Delegation,
    /// What each address of each of its servers says.
    Servers,
    /// The backend's credential.
    Credential,
    /// Whether the backend lets the name be read (nothing is changed).
    Allowed,
    /// A test value is taken by the DNS (`--write`).
    Write,
    /// Every server answers it (`--write`).
    Seen,
    /// It is taken back, and no server answers it any more (`--write`).
    Removed,
    /// Which CAs may issue (RFC 8659, RFC 8657).
    Caa,
    /// Whether validating resolvers get answers.
    Dnssec,
    /// The cluster's API server, and who we are there (`--kubernetes`, as all that follow).
    Cluster,
    /// The APIService, through which the API server finds the webhook door.
    #[serde(rename = "apiservice")]
    ApiService,
    /// The roots in the APIService, and the certificate that the door shows.
    CaBundle,
    /// What we ourselves may do in the cluster.
    Rights,
    /// Whether cert-manager may call.
    Caller,
    /// The Issuers and ClusterIssuers that mean us.
    Issuers,
    /// The Challenges that are ours to meet.
    Challenges,
}

impl RungId {
    /// As reports write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clock => "clock",
            Self::Chain => "chain",
            Self::Backend => "backend",
            Self::Delegation => "delegation",
            Self::Servers => "servers",
            Self::Credential => "credential",
            Self::Allowed => "allowed",
            Self::Write => "write",
            Self::Seen => "seen",
            Self::Removed => "removed",
            Self::Caa => "caa",
            Self::Dnssec => "dnssec",
            Self::Cluster => "cluster",
            Self::ApiService => "apiservice",
            Self::CaBundle => "ca_bundle",
            Self::Rights => "rights",
            Self::Caller => "caller",
            Self::Issuers => "issuers",
            Self::Challenges => "challenges",
        }
    }
}

impl Outcome {
    /// As reports write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }

    /// The colour of a terminal (SGR).
    fn colour(self) -> &'static str {
        match self {
            Self::Ok => "32",
            Self::Warning => "33",
            Self::Failed => "31",
            Self::Skipped => "2",
        }
    }
}

impl Rung {
    /// Nothing is in the way.
    pub(super) fn ok(id: RungId, summary: impl Into<String>) -> Self {
        Self::new(id, Outcome::Ok, summary)
    }

    /// A person should look.
    pub(super) fn warning(id: RungId, summary: impl Into<String>, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..Self::new(id, Outcome::Warning, summary) }
    }

    /// A certificate would fail here.
    pub(super) fn failed(id: RungId, summary: impl Into<String>, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..Self::new(id, Outcome::Failed, summary) }
    }

    /// It was not looked at.
    pub(super) fn skipped(id: RungId, why: impl Into<String>) -> Self {
        Self::new(id, Outcome::Skipped, why)
    }

    /// It could not be looked at, and this is how it could.
    pub(super) fn unseen(id: RungId, why: impl Into<String>, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..Self::skipped(id, why) }
    }

    /// The same with this evidence.
    pub(super) fn because(self, evidence: Vec<String>) -> Self {
        Self { evidence, ..self }
    }

    /// True if a rung that stands on this one can be climbed.
    pub(super) fn holds(&self) -> bool {
        matches!(self.outcome, Outcome::Ok | Outcome::Warning)
    }

    fn new(id: RungId, outcome: Outcome, summary: impl Into<String>) -> Self {
        Self { id, outcome, summary: summary.into(), evidence: Vec::new(), next: None }
    }
}

impl Report {
    /// How many rungs have this outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        count(&self.rungs, outcome)
    }

    /// For people, without a last line end; with colours if it goes to a terminal.
    pub fn text(&self, colours: bool) -> String {
        let mut text = String::new();
        // A write to a String does not fail.
        let _ = self.write(&mut text, colours);
        text
    }

    fn write(&self, out: &mut impl fmt::Write, colours: bool) -> fmt::Result {
        writeln!(out, "{}: the CA looks at {}", self.name, self.challenge)?;
        if let Some(owner) = self.owner.as_ref().filter(|owner| **owner != self.challenge) {
            writeln!(out, "{:1$}  which leads to {owner}", "", self.name.chars().count())?;
        }
        writeln!(out)?;
        write_rungs(out, &self.rungs, colours)
    }
}

/// How many of the rungs have this outcome.
pub(super) fn count(rungs: &[Rung], outcome: Outcome) -> usize {
    rungs.iter().filter(|rung| rung.outcome == outcome).count()
}

/// The outcome of all together; skipped ones count for nothing.
pub(super) fn worst(rungs: &[Rung]) -> Outcome {
    rungs.iter().map(|rung| rung.outcome).max().unwrap_or(Outcome::Ok).max(Outcome::Ok)
}

/// The rungs for people, and how many of each outcome there are; without a last line end.
pub(super) fn write_rungs(out: &mut impl fmt::Write, rungs: &[Rung], colours: bool) -> fmt::Result {
    for rung in rungs {
        let (outcome, id) = (format!("{:7}", rung.outcome.as_str()), rung.id.as_str());
        let outcome = if colours { format!("\x1b[{}m{outcome}\x1b[0m", rung.outcome.colour()) } else { outcome };
        writeln!(out, "{outcome}  {id:10}  {}", indented(&rung.summary, 21))?;
        for line in &rung.evidence {
            writeln!(out, "{:23}{}", "", indented(line, 23))?;
        }
        if let Some(next) = &rung.next {
            writeln!(out, "{:18}-> {}", "", indented(next, 21))?;
        }
    }
    let counts = [Outcome::Ok, Outcome::Warning, Outcome::Failed, Outcome::Skipped].map(|outcome| match (outcome, count(rungs, outcome)) {
        (Outcome::Warning, count) if count != 1 => format!("{count} warnings"),
        (outcome, count) => format!("{count} {}", outcome.as_str()),
    });
    write!(out, "\n{}", counts.join(", "))
}

/// Text over several lines, each after the first that far to the right. What comes from DNS may hold anything: nothing of it steers a terminal.
fn indented(text: &str, column: usize) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => {
                let _ = write!(clean, "\n{:column$}", "");
            }
            other if other.is_control() => clean.extend(other.escape_default()),
            other => clean.push(other),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            name: "*.example.com".to_owned(),
            challenge: "_acme-challenge.example.com".to_owned(),
            owner: Some("example.com.auth.example.org".to_owned()),
            zone: Some("auth.example.org".to_owned()),
            backend: Some("corp".to_owned()),
            outcome: Outcome::Failed,
            rungs: vec![
                Rung::ok(RungId::Clock, "agrees with letsencrypt"),
                Rung::warning(
                    RungId::Servers,
                    "1 of 2 addresses does not serve auth.example.org",
                    "mend it, or remove it from the NS records",
                )
                .because(vec!["ns1 (192.0.2.1): NOERROR".to_owned(), "ns2 (192.0.2.2): \x1b[2Jdoes not answer".to_owned()]),
                Rung::failed(
                    RungId::Credential,
                    "the credential was refused: BADKEY",
                    "create the record\n_acme-challenge.example.com. CNAME x.",
                ),
                Rung::skipped(RungId::Allowed, "the credential does not work"),
            ],
        }
    }

    #[test]
    fn people_get_aligned_text_and_programs_get_json() {
        insta::assert_snapshot!("text", report().text(false));
        let json = serde_json::to_string_pretty(&report()).expect("JSON");
        insta::assert_snapshot!("json", json);
        assert_eq!(serde_json::from_str::<Report>(&json).expect("read back"), report());
    }

    #[test]
    fn colours_are_for_terminals_and_only_ours() {
        let coloured = report().text(true);
        assert!(coloured.contains("\x1b[31mfailed \x1b[0m  credential"), "{coloured}");
        assert!(!report().text(false).contains('\x1b'));
        assert!(!coloured.contains("\x1b[2J"), "what DNS says steers no terminal");
    }
}
