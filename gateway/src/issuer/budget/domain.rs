//! Registered domains, as CAs count them.

use std::collections::BTreeSet;

use super::plain;

/// The registered domain of a name, by the Public Suffix List with its private part: what a registrar, or whoever else hands out names to the public, gave
/// out as one. A public suffix is its own.
pub(super) fn registered(name: &str) -> String {
    let name = plain(name);
    let domain = name.strip_prefix("*.").unwrap_or(&name);
    psl::domain_str(domain).unwrap_or(domain).to_owned()
}

/// The registered domains of the names, each once.
pub(super) fn registered_domains(names: &[String]) -> BTreeSet<String> {
    names.iter().map(|name| registered(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registered_domain_is_what_somebody_was_given() {
        for (name, domain) in [
            ("example.com", "example.com"),
            ("*.example.com", "example.com"),
            ("A.B.Example.COM.", "example.com"),
            ("new.blog.example.co.uk", "example.co.uk"),
            // The private part of the list: each of them is a customer's.
            ("x.shop.github.io", "shop.github.io"),
            // A public suffix itself.
            ("github.io", "github.io"),
            ("co.uk", "co.uk"),
            // A top that the list does not have.
            ("a.b.c.internal", "c.internal"),
        ] {
            assert_eq!(registered(name), domain, "{name}");
        }
        let names = ["a.example.com", "*.example.com", "example.org"].map(str::to_owned);
        assert_eq!(registered_domains(&names).into_iter().collect::<Vec<_>>(), ["example.com", "example.org"]);
    }
}
