//! May this principal write this name?
//!
//! A name inside a zone that acmegate serves belongs to who claimed it: an acme-dns account owns its subdomain and nothing else; the issuer owns
//! `<domain>.<zone>` and `_acme-challenge.<domain>` where that is a served zone itself or lies in one; a webhook namespace owns what the [`Policy`] gives it.
//!
//! Everything here is pure: it asks nobody and remembers nothing. Files: [`rules`] who may write what; [`pattern`] which names; [`selector`] which labels;
//! [`namespaces`] where labels come from.

mod namespaces;
mod pattern;
mod rules;
mod selector;

use authdns::Name;
use uuid::Uuid;

pub use namespaces::{Namespaces, NoCluster};
pub use pattern::{Pattern, PatternError};
pub use rules::{Attempt, Miss, Policy, Refusal, Rule};
pub use selector::{Operator, Requirement, Selector, SelectorError};

/// Where DNS-01 looks (RFC 8555, 8.4).
pub const CHALLENGE_LABEL: &[u8] = b"_acme-challenge";

/// True if `owner` is, or lies below, a label of `zone` that has the form of an acme-dns subdomain: such names are the accounts' alone, whether
/// the account exists yet or not, so that nobody can sit on a name before its account is made.
pub fn is_account_name(owner: &Name, zone: &Name) -> bool {
    let depth = owner.depth();
    let zone_depth = zone.depth();
    if !owner.is_within(zone) || depth <= zone_depth {
        return false;
    }
    let label = owner.labels().nth(depth - zone_depth - 1).unwrap_or_default();
    // The hyphenated form alone: that is what registration hands out.
    label.len() == 36 && Uuid::try_parse_ascii(label).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().expect(text)
    }

    #[test]
    fn account_names_are_the_uuids_right_below_the_zone() {
        let zone = name("auth.test");
        assert!(is_account_name(&name("8e5700ea-a4bf-41c7-8a77-e990661dcc6a.auth.test"), &zone));
        assert!(is_account_name(&name("deep.8E5700EA-a4bf-41c7-8a77-e990661dcc6a.auth.test"), &zone));
        assert!(!is_account_name(&name("example.com.auth.test"), &zone));
        assert!(!is_account_name(&name("auth.test"), &zone));
        assert!(!is_account_name(&name("8e5700ea-a4bf-41c7-8a77-e990661dcc6a.other.test"), &zone));
        assert!(!is_account_name(&name("8e5700ea-a4bf-41c7-8a77-e990661dcc6a.com.auth.test"), &zone));
    }
}
