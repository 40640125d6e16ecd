//! What a sweep found and did, for people and for programs.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Leftover;

/// Characters of a value that are shown: enough to find it, and not what proves control of a name.
const SHOWN: usize = 8;

/// What a sweep is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepRequest {
    /// Remove what is found.
    #[serde(default)]
    pub apply: bool,
    /// Look at one backend alone.
    #[serde(default)]
    pub backend: Option<String>,
}

/// Why there is no report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "error", rename_all = "snake_case")]
pub enum SweepError {
    /// No such backend.
    #[error("no backend is named {backend:?}; the configuration has: {}", if known.is_empty() { "none".to_owned() } else { known.join(", ") })]
    NoBackend {
        /// What was asked for.
        backend: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The ledger could not be read or written.
    #[error("{text}")]
    Store {
        /// What it said.
        text: String,
    },
}

impl From<crate::store::StoreError> for SweepError {
    fn from(error: crate::store::StoreError) -> Self {
        Self::Store { text: error.to_string() }
    }
}

/// What a sweep found and did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The values that should be gone, by backend, zone and owner.
    pub rows: Vec<Row>,
    /// Backends and zones that could not be asked: what stands there is not known.
    pub unasked: Vec<Unasked>,
}

/// A value that should be gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The backend's name.
    pub backend: String,
    /// The zone, without the last dot.
    pub zone: String,
    /// The owner name, without the last dot.
    pub owner: String,
    /// The value's first characters.
    pub value: String,
    /// Why it should be gone.
    pub why: Why,
    /// Since when (RFC 3339), where that is known.
    pub since: Option<String>,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Why a value should be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Its time is over.
    Expired,
    /// Its holder let go.
    Released,
    /// It carries the mark of this installation, and nobody claims it.
    Unclaimed,
}

/// What became of a value that should be gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Nothing: it was only looked for.
    WouldRemove,
    /// It is gone.
    Removed,
    /// Somebody claimed it meanwhile: it stays.
    Claimed,
    /// It still stands.
    Failed {
        /// Deterministic text.
        reason: String,
    },
}

/// What could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Unasked {
    /// The backend's name.
    pub backend: String,
    /// The zone, without the last dot; `None` if not even the zones are known.
    pub zone: Option<String>,
    /// Deterministic text.
    pub reason: String,
}

impl Row {
    pub(super) fn new(leftover: &Leftover, outcome: Outcome) -> Self {
        let value = leftover.value.as_str();
        let shown: String = value.chars().take(SHOWN).collect();
        Self {
            backend: leftover.lane.backend.as_str().to_owned(),
            zone: leftover.lane.zone.to_relative_string(),
            owner: leftover.owner.to_relative_string(),
            value: if shown.len() < value.len() { format!("{shown}…") } else { shown },
            why: leftover.why,
            since: leftover.since.map(|since| since.to_string()),
            outcome,
        }
    }
}

impl Report {
    /// Values that still stand though they should be gone.
    pub fn remaining(&self) -> usize {
        self.rows.iter().filter(|row| matches!(row.outcome, Outcome::WouldRemove | Outcome::Failed { .. })).count()
    }

    /// Values that were removed.
    pub fn removed(&self) -> usize {
        self.rows.iter().filter(|row| row.outcome == Outcome::Removed).count()
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Expired => "expired",
            Self::Released => "released",
            Self::Unclaimed => "unclaimed",
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldRemove => f.write_str("stands"),
            Self::Removed => f.write_str("removed"),
            Self::Claimed => f.write_str("claimed meanwhile, stays"),
            Self::Failed { reason } => write!(f, "failed: {reason}"),
        }
    }
}

impl fmt::Display for Report {
    /// A table, and what could not be asked; no line end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines: Vec<String> = Vec::new();
        if !self.rows.is_empty() {
            let head = ["BACKEND", "ZONE", "OWNER", "VALUE", "WHY", "SINCE", "OUTCOME"].map(str::to_owned);
            let rows = self.rows.iter().map(|row| {
                let since = row.since.clone().unwrap_or_else(|| "unknown".to_owned());
                [
                    row.backend.clone(),
                    row.zone.clone(),
                    row.owner.clone(),
                    row.value.clone(),
                    row.why.to_string(),
                    since,
                    row.outcome.to_string(),
                ]
            });
            let table: Vec<[String; 7]> = std::iter::once(head).chain(rows).collect();
            let width = |column: usize| table.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
            let widths: Vec<usize> = (0..7).map(width).collect();
            for row in &table {
                let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
                lines.push(cells.join("  ").trim_end().to_owned());
            }
        }
        for Unasked { backend, zone, reason } in &self.unasked {
            let zone = zone.as_ref().map_or_else(String::new, |zone| format!(", zone {zone}"));
            lines.push(format!("not asked: backend {backend}{zone}: {reason}"));
        }
        lines.push(match (self.removed(), self.remaining()) {
            (0, 0) if self.unasked.is_empty() => "nothing was left behind".to_owned(),
            (removed, remaining) => format!("{removed} removed, {remaining} left"),
        });
        f.write_str(&lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_get_a_table_and_programs_get_json() {
        let row = |owner: &str, outcome: Outcome| Row {
            backend: "corp".to_owned(),
            zone: "example.com".to_owned(),
            owner: owner.to_owned(),
            value: "abcdefgh…".to_owned(),
            why: Why::Expired,
            since: Some("2026-11-23T09:00:00Z".to_owned()),
            outcome,
        };
        let report = Report {
            rows: vec![
                row("_acme-challenge.example.com", Outcome::Removed),
                row("_acme-challenge.www.example.com", Outcome::Failed { reason: "refused: not today".to_owned() }),
            ],
            unasked: vec![Unasked { backend: "other".to_owned(), zone: None, reason: "no answer: time-out".to_owned() }],
        };
        insta::assert_snapshot!("report", report);
        let json = serde_json::to_string(&report).expect("JSON");
        assert!(json.contains(r#""why":"expired","since":"2026-11-23T09:00:00Z","outcome":"removed"}"#), "{json}");
        assert_eq!(serde_json::from_str::<Report>(&json).expect("read back"), report);
        assert_eq!((report.removed(), report.remaining()), (1, 1));
        assert_eq!(Report { rows: Vec::new(), unasked: Vec::new() }.to_string(), "nothing was left behind");
    }
}
