//! What a CA means that answers "later": everything, new orders, a domain, a set of names.

use super::{Limit, plain, registered, set};
use crate::issuer::Problem;

/// What has to wait when a CA asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every request.
    Directory,
    /// New orders of this account.
    Account,
    /// Orders with names in a registered domain.
    Domain(String),
    /// Orders with a name.
    Name(String),
    /// Orders for this exact set of names.
    Names(Vec<String>),
    /// The CA did not say what: this exact set of names; but all new orders, once it has refused several sets so.
    Unclear(Vec<String>),
}

impl Scope {
    /// What a refusal of an order for `names` is about, by its words: Let's Encrypt's software says which limit it was. An answer that no ACME server gave
    /// (503, or a 429 without a problem document) comes from a gate before the CA, which counts requests: everything waits.
    pub fn of(problem: &Problem, names: &[String]) -> Self {
        let says = |words: &str| problem.detail.contains(words);
        if problem.status == 503 || problem.kind.is_empty() || says("too many new registrations") {
            return Self::Directory;
        }
        match quoted(&problem.detail) {
            _ if says("exact set of") => Self::Names(names.to_vec()),
            Some(name) if says("too many failed authorizations") => Self::Name(plain(name)),
            Some(domain) if says("already issued for") => Self::Domain(plain(domain)),
            _ if says("too many new orders") => Self::Account,
            _ => Self::Unclear(names.to_vec()),
        }
    }

    /// The row that says so.
    pub(super) fn row(&self) -> (Limit, String) {
        match self {
            Self::Directory => (Limit::WaitDirectory, String::new()),
            Self::Account => (Limit::WaitAccount, String::new()),
            Self::Domain(domain) => (Limit::WaitDomain, registered(domain)),
            Self::Name(name) => (Limit::WaitName, plain(name)),
            Self::Names(names) | Self::Unclear(names) => (Limit::WaitNames, set(names)),
        }
    }
}

/// What stands between the first two quotation marks.
fn quoted(text: &str) -> Option<&str> {
    text.split('"').nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ca_s_words_say_what_has_to_wait() {
        let names = ["a.example.com".to_owned(), "b.example.com".to_owned()];
        let scope = |status, kind: &str, detail: &str| {
            Scope::of(&Problem { status, kind: kind.into(), detail: detail.into(), subproblems: vec![] }, &names)
        };
        let limited = |detail: &str| scope(429, "urn:ietf:params:acme:error:rateLimited", detail);
        assert_eq!(
            limited("too many new orders (300) from this account in the last 3h0m0s, retry after 2026-01-02 03:04:05 UTC: see https://…"),
            Scope::Account
        );
        assert_eq!(
            limited(
                r#"too many certificates (50) already issued for "example.com" in the last 168h0m0s, retry after 2026-01-02 03:04:05 UTC: see https://…"#
            ),
            Scope::Domain("example.com".into())
        );
        for kind in ["domains", "identifiers"] {
            let text = format!("too many certificates (5) already issued for this exact set of {kind} in the last 168h0m0s, retry after …");
            assert_eq!(limited(&text), Scope::Names(names.to_vec()));
        }
        assert_eq!(
            limited(r#"too many failed authorizations (5) for "A.example.com" in the last 1h0m0s, retry after …"#),
            Scope::Name("a.example.com".into())
        );
        assert_eq!(limited("too many new registrations (10) from this IP address in the last 3h0m0s, retry after …"), Scope::Directory);
        assert_eq!(limited("slow down"), Scope::Unclear(names.to_vec()));
        assert_eq!(scope(503, "urn:ietf:params:acme:error:rateLimited", "Service busy; retry later."), Scope::Directory);
        assert_eq!(scope(429, "", "not a problem document: 429 Too Many Requests"), Scope::Directory);
    }
}
