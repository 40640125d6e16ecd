//! Problem documents (RFC 7807; RFC 8555, 6.7), and what stands in for them when a proxy answers in the CA's place.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Prefix of ACME's error types.
const ACME: &str = "urn:ietf:params:acme:error:";
/// Longest text taken from an answer that is no problem document, in characters.
const EXCERPT: usize = 200;

/// What a CA says when it refuses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// The type, such as `urn:ietf:params:acme:error:rateLimited`; empty if the answer was no problem document.
    #[serde(rename = "type")]
    pub kind: String,
    /// The CA's words for people.
    pub detail: String,
    /// The HTTP status; 0 where the problem stands in an object of its own.
    pub status: u16,
    /// What is wrong with each identifier (RFC 8555, 6.7.1).
    pub subproblems: Vec<Subproblem>,
}

/// What is wrong with one identifier (RFC 8555, 6.7.1).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Subproblem {
    /// The type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The CA's words for people.
    pub detail: String,
    /// The identifier.
    pub identifier: Option<Identifier>,
}

/// An ACME identifier (RFC 8555, 9.7.7).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Identifier {
    /// `dns`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The name.
    pub value: String,
}

impl Problem {
    /// Reads the body of an answer with an error status. Whatever it is, something that a person can use comes out.
    pub(super) fn read(status: u16, body: &[u8]) -> Self {
        match serde_json::from_slice::<Self>(body) {
            Ok(problem) if !(problem.kind.is_empty() && problem.detail.is_empty()) => Self { status, ..problem },
            _ => {
                let text = String::from_utf8_lossy(body);
                let words: Vec<_> = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
                let excerpt: String = words.join(" ").chars().take(EXCERPT).collect();
                let detail = if excerpt.is_empty() { "an empty answer".to_owned() } else { format!("not a problem document: {excerpt}") };
                Self { status, detail, ..Self::default() }
            }
        }
    }

    /// True if the type is ACME's `kind`, such as `badNonce`.
    pub fn is(&self, kind: &str) -> bool {
        self.kind.strip_prefix(ACME) == Some(kind)
    }

    /// True if the CA wants to be asked again later: a rate limit, or too much to do.
    pub fn is_later(&self) -> bool {
        matches!(self.status, 429 | 503) || self.is("rateLimited")
    }
}

impl fmt::Display for Problem {
    /// `detail (rateLimited, HTTP 429)`, then one indented line for each identifier.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = short(&self.kind);
        let detail = if self.detail.is_empty() { "no reason given" } else { &self.detail };
        match (kind.is_empty(), self.status) {
            (true, 0) => f.write_str(detail)?,
            (true, status) => write!(f, "{detail} (HTTP {status})")?,
            (false, 0) => write!(f, "{detail} ({kind})")?,
            (false, status) => write!(f, "{detail} ({kind}, HTTP {status})")?,
        }
        for sub in &self.subproblems {
            let name = sub.identifier.as_ref().map_or("", |identifier| &identifier.value);
            write!(f, "\n  {name}: {} ({})", sub.detail, short(&sub.kind))?;
        }
        Ok(())
    }
}

fn short(kind: &str) -> &str {
    kind.strip_prefix(ACME).unwrap_or(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subproblems_are_kept_and_shown() {
        // The example of RFC 8555, 6.7.1.
        let body = br#"{"type":"urn:ietf:params:acme:error:malformed","detail":"Some of the identifiers requested were rejected","subproblems":[
            {"type":"urn:ietf:params:acme:error:malformed","detail":"Invalid underscore in DNS name \"_example.org\"","identifier":{"type":"dns","value":"_example.org"}},
            {"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"This CA will not issue for \"example.net\"","identifier":{"type":"dns","value":"example.net"}}]}"#;
        let problem = Problem::read(403, body);
        assert!(problem.is("malformed") && !problem.is_later());
        assert_eq!(
            problem.to_string(),
            "Some of the identifiers requested were rejected (malformed, HTTP 403)\n  _example.org: Invalid underscore in DNS name \"_example.org\" (malformed)\n  example.net: This CA will not issue for \"example.net\" (rejectedIdentifier)"
        );
    }

    #[test]
    fn answers_that_are_no_problem_documents_still_say_something() {
        let page = Problem::read(503, b"<html>\n<body>\tupstream is\x07 down</body></html>");
        assert!(page.is_later());
        assert_eq!(page.to_string(), "not a problem document: <html> <body> upstream is down</body></html> (HTTP 503)");
        assert_eq!(Problem::read(500, b"").to_string(), "an empty answer (HTTP 500)");
        assert_eq!(Problem::read(502, br#"{"message":"no"}"#).detail, r#"not a problem document: {"message":"no"}"#);
        assert_eq!(Problem::read(500, "ä".repeat(5000).as_bytes()).detail.chars().filter(|&c| c == 'ä').count(), EXCERPT);
    }

    #[test]
    fn rate_limits_are_known_by_type_and_by_status() {
        assert!(Problem::read(400, br#"{"type":"urn:ietf:params:acme:error:rateLimited"}"#).is_later());
        assert!(Problem::read(429, b"{}").is_later());
        // The status of the answer counts, not one that the body claims.
        assert_eq!(Problem::read(429, br#"{"type":"x","status":200}"#).status, 429);
    }
}
