//! The names of one certificate, judged before anything is sent.

use std::{collections::HashSet, fmt, net::IpAddr, str::FromStr};

use authdns::Name;

use crate::policy::CHALLENGE_LABEL;

/// Most names in one certificate that any known CA takes.
pub const MAX_NAMES: usize = 100;

/// A text cannot be a name in a certificate, or there is none; it says what is wrong and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadName(String);

/// The names of one certificate: each valid, none twice, in the order they were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(Vec<CertName>);

/// One name of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CertName {
    /// The domain, without `*.`.
    pub domain: Name,
    /// True for `*.<domain>`.
    pub wildcard: bool,
}

impl Names {
    /// Judges names as a person wrote them.
    ///
    /// # Errors
    /// [`BadName`] for the first that cannot be in a certificate, or if there are none or more than [`MAX_NAMES`].
    pub fn parse(texts: &[String]) -> Result<Self, BadName> {
        Self::new(texts.iter().map(|text| text.parse()).collect::<Result<_, _>>()?)
    }

    /// Takes names, each once.
    ///
    /// # Errors
    /// [`BadName`] if there are none or more than [`MAX_NAMES`].
    pub fn new(mut names: Vec<CertName>) -> Result<Self, BadName> {
        let mut seen = HashSet::new();
        names.retain(|name| seen.insert(name.clone()));
        match names.len() {
            0 => Err(bad("no name was given: name at least one, such as example.com".into())),
            1..=MAX_NAMES => Ok(Self(names)),
            many => Err(bad(format!("{many} names are too many for one certificate: give {MAX_NAMES} at most"))),
        }
    }

    /// The names.
    pub fn iter(&self) -> impl Iterator<Item = &CertName> {
        self.0.iter()
    }

    /// The domains, each once: a wildcard and its apex share their challenge name.
    pub fn domains(&self) -> Vec<Name> {
        let mut seen = HashSet::new();
        self.0.iter().filter(|name| seen.insert(&name.domain)).map(|name| name.domain.clone()).collect()
    }

    /// The names as ACME and certificates write them.
    pub fn to_strings(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}

impl FromStr for CertName {
    type Err = BadName;

    /// Judges a name as a person wrote it.
    fn from_str(text: &str) -> Result<Self, BadName> {
        let fail = |why: &str| Err(bad(format!("{text:?} cannot be in a certificate: {why}")));
        let plain = text.strip_suffix('.').unwrap_or(text);
        if plain.is_empty() {
            return fail("it is empty");
        }
        if !plain.is_ascii() {
            return fail("write an internationalised name in its xn-- form (the form that your registrar and `idn2` show)");
        }
        if plain.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok() {
            return fail("it is an IP address, and DNS-01 proves names only");
        }
        if plain.contains("://") || plain.contains('/') {
            return fail("write the name alone, without scheme or path");
        }
        let (wildcard, domain) = match plain.strip_prefix("*.") {
            Some(domain) => (true, domain),
            None => (false, plain),
        };
        if domain.contains('*') {
            return fail("`*` may only be the whole leftmost label, as in *.example.com");
        }
        for label in domain.split('.') {
            let ends_well = !label.starts_with('-') && !label.ends_with('-');
            if label.is_empty() || !ends_well || !label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
                return fail(
                    "each label has letters, digits and inner hyphens only (a certificate is for a host, not for _acme-challenge or the like)",
                );
            }
        }
        if !domain.contains('.') {
            return fail("it has one label; a public name has at least two");
        }
        if domain.rsplit('.').next().is_some_and(|top| top.bytes().all(|b| b.is_ascii_digit())) {
            return fail("its last label is a number");
        }
        let parsed: Name = domain.parse().map_err(|error| bad(format!("{text:?} cannot be in a certificate: {error}")))?;
        if parsed.prepend(CHALLENGE_LABEL).is_err() {
            return fail("with `_acme-challenge.` in front it is longer than a domain name may be");
        }
        Ok(Self { domain: parsed, wildcard })
    }
}

impl fmt::Display for CertName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.wildcard { "*." } else { "" };
        write!(f, "{star}{}", self.domain.to_relative_string())
    }
}

fn bad(text: String) -> BadName {
    BadName(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(texts: &[&str]) -> Result<Names, String> {
        Names::parse(&texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>()).map_err(|error| error.to_string())
    }

    #[test]
    fn names_are_folded_and_keep_their_order() {
        let names = parse(&["Example.COM.", "*.example.com", "example.com", "a.example.com"]).unwrap();
        assert_eq!(names.to_strings(), ["example.com", "*.example.com", "a.example.com"]);
        let domains: Vec<_> = names.domains().iter().map(Name::to_relative_string).collect();
        assert_eq!(domains, ["example.com", "a.example.com"]);
    }

    #[test]
    fn what_cannot_be_in_a_certificate_is_refused_with_advice() {
        for (text, advice) in [
            ("", "empty"),
            (".", "empty"),
            ("bücher.example", "xn--"),
            ("192.0.2.1", "IP address"),
            ("[2001:db8::1]", "IP address"),
            ("2001:db8::1", "IP address"),
            ("https://example.com", "without scheme"),
            ("a.*.example.com", "leftmost"),
            ("*.*.example.com", "leftmost"),
            ("w*.example.com", "leftmost"),
            ("*", "leftmost"),
            ("_acme-challenge.example.com", "letters, digits"),
            ("-a.example.com", "letters, digits"),
            ("a..example.com", "letters, digits"),
            ("a b.example.com", "letters, digits"),
            ("localhost", "at least two"),
            ("*.com", "at least two"),
            ("1.2.3.4.5", "number"),
        ] {
            let error = parse(&[text]).expect_err(text);
            assert!(error.contains(advice), "{text}: {error}");
        }
        assert!(parse(&[]).unwrap_err().contains("at least one"));
        let label = "a".repeat(63);
        assert!(parse(&[&format!("{label}.{label}.{label}.{}", "a".repeat(50))]).unwrap_err().contains("_acme-challenge."));
        let many: Vec<_> = (0..=MAX_NAMES).map(|n| format!("n{n}.example.com")).collect();
        assert!(Names::parse(&many).unwrap_err().to_string().contains("too many"));
    }
}
