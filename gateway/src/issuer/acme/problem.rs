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

    /// True if the CA wants to be asked again later: a rate limit, or too much to do. Not where it waits for a person ([`Problem::unpause_url`]).
    pub fn is_later(&self) -> bool {
        (matches!(self.status, 429 | 503) || self.is("rateLimited")) && self.unpause_url().is_none()
    }

    /// The page at which a person has to let the account go on, after Let's Encrypt has paused it for a name that failed too often. It says so by a rate limit without an end,
    /// whose text ends with the page. Asking again changes nothing, and each answer has another URL for the same.
    pub fn unpause_url(&self) -> Option<&str> {
        if !self.is("rateLimited") {
            return None;
        }
        let is_around = |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '/' | '=');
        let mut words = self.detail.split_ascii_whitespace().map(|word| word.trim_matches(is_around));
        words.find(|word| word.starts_with("https://") && word.contains("/unpause") && word.bytes().all(|b| b.is_ascii_graphic()))
    }

    /// True if it may be about the certificate that an order was to replace (RFC 9773, 5). Only one such reason has a type; CAs of the drafts had none.
    pub(super) fn is_about_replacing(&self) -> bool {
        let text = format!("{} {}", self.kind, self.detail).to_ascii_lowercase();
        let says = self.is("alreadyReplaced") || ["replac", "certid"].iter().any(|word| text.contains(word));
        says && !self.is("rateLimited")
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
    fn a_paused_account_waits_for_a_person() {
        // As Boulder words it.
        let paused = "Your account is temporarily prevented from requesting certificates for a.test, b.test and possibly others. Please visit: https://portal.letsencrypt.org/sfe/v1/unpause?jwt=eyJ.e-_30.c2ln";
        let of = |kind: &str, detail: &str| {
            let kind = format!("urn:ietf:params:acme:error:{kind}");
            Problem::read(429, serde_json::json!({"type": kind, "detail": detail}).to_string().as_bytes())
        };
        let problem = of("rateLimited", paused);
        assert_eq!(problem.unpause_url(), Some("https://portal.letsencrypt.org/sfe/v1/unpause?jwt=eyJ.e-_30.c2ln"));
        assert!(!problem.is_later());
        let wrapped = of("rateLimited", "paused (see <https://ca.test/unpause/7>.)");
        assert_eq!(wrapped.unpause_url(), Some("https://ca.test/unpause/7"));
        let usual =
            "too many failed authorizations (5) for \"a.test\", retry after 2026-01-01: see https://letsencrypt.org/docs/rate-limits/";
        for problem in [of("rateLimited", usual), of("rateLimited", "http://ca.test/unpause"), of("malformed", paused)] {
            assert_eq!(problem.unpause_url(), None, "{problem}");
            assert!(problem.is_later(), "{problem}");
        }
    }

    #[test]
    fn refusals_to_replace_are_known() {
        let of = |kind: &str, detail: &str| Problem { kind: format!("{ACME}{kind}"), detail: detail.into(), ..Problem::default() };
        for refusal in [
            of("alreadyReplaced", ""),
            // Boulder's and Pebble's.
            of("malformed", "Could not validate ARI 'replaces' field :: while parsing ARI CertID an error occurred"),
            of("unauthorized", "requester account did not request the certificate being replaced by this order"),
            of("malformed", "parsing ARI CertID failed: no"),
        ] {
            assert!(refusal.is_about_replacing(), "{refusal}");
        }
        for other in [of("rejectedIdentifier", "the policy forbids a.test"), of("rateLimited", "too many replacements")] {
            assert!(!other.is_about_replacing(), "{other}");
        }
    }

    #[test]
    fn rate_limits_are_known_by_type_and_by_status() {
        assert!(Problem::read(400, br#"{"type":"urn:ietf:params:acme:error:rateLimited"}"#).is_later());
        assert!(Problem::read(429, b"{}").is_later());
        // The status of the answer counts, not one that the body claims.
        assert_eq!(Problem::read(429, br#"{"type":"x","status":200}"#).status, 429);
    }
}
