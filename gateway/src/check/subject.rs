//! The name that is checked, as a person may write it.

use authdns::Name;

use super::CheckError;
use crate::{issuer::Names, policy::CHALLENGE_LABEL};

/// What is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    /// The domain, without `*.`.
    pub(super) domain: Name,
    /// True for `*.<domain>`.
    pub(super) wildcard: bool,
    /// `_acme-challenge.<domain>`.
    pub(super) challenge: Name,
}

impl Subject {
    /// Takes domains, wildcards, internationalised names in either form, and challenge names.
    ///
    /// # Errors
    /// [`CheckError::BadName`].
    pub(super) fn parse(text: &str) -> Result<Self, CheckError> {
        let bad = |text: String| CheckError::BadName { text };
        let text = text.trim();
        let label = format!("{}.", String::from_utf8_lossy(CHALLENGE_LABEL));
        let plain = match text.get(..label.len()) {
            Some(start) if start.eq_ignore_ascii_case(&label) => text.get(label.len()..).unwrap_or_default(),
            _ => text,
        };
        let names = Names::parse(&[ascii(plain)]).map_err(|error| bad(error.to_string()))?;
        let name = names.iter().next().ok_or_else(|| bad(format!("{text:?} is no name")))?;
        let challenge = name.domain.prepend(CHALLENGE_LABEL).map_err(|error| bad(format!("{text:?}: {error}")))?;
        Ok(Self { domain: name.domain.clone(), wildcard: name.wildcard, challenge })
    }

    /// As certificates write it.
    pub(super) fn name(&self) -> String {
        format!("{}{}", if self.wildcard { "*." } else { "" }, self.domain.to_relative_string())
    }
}

/// An internationalised name in its `xn--` form (as browsers make it, UTS 46), anything else as it is.
fn ascii(name: &str) -> String {
    let (star, domain) = name.strip_prefix("*.").map_or(("", name), |domain| ("*.", domain));
    // What would make the rest of a URL of it is no name, and is refused as such.
    let is_name = !domain.is_ascii() && domain.chars().all(|c| !c.is_ascii() || c.is_ascii_alphanumeric() || matches!(c, '-' | '.'));
    let host = is_name.then(|| reqwest::Url::parse(&format!("https://{domain}/")).ok()).flatten();
    match host.as_ref().and_then(reqwest::Url::host_str) {
        Some(host) => format!("{star}{host}"),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_in_every_form_that_people_write() {
        for (text, name, challenge) in [
            ("www.Example.com.", "www.example.com", "_acme-challenge.www.example.com"),
            ("*.example.com", "*.example.com", "_acme-challenge.example.com"),
            ("_acme-challenge.www.example.com", "www.example.com", "_acme-challenge.www.example.com"),
            ("_ACME-Challenge.www.example.com.", "www.example.com", "_acme-challenge.www.example.com"),
            (" bücher.example ", "xn--bcher-kva.example", "_acme-challenge.xn--bcher-kva.example"),
            ("*.Bücher.example", "*.xn--bcher-kva.example", "_acme-challenge.xn--bcher-kva.example"),
            ("_acme-challenge.bücher.example", "xn--bcher-kva.example", "_acme-challenge.xn--bcher-kva.example"),
        ] {
            let subject = Subject::parse(text).expect(text);
            assert_eq!((subject.name().as_str(), subject.challenge.to_relative_string().as_str()), (name, challenge), "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_advice() {
        for (text, advice) in [
            ("", "empty"),
            ("localhost", "at least two"),
            ("https://bücher.example/", "xn--"),
            ("bücher.example/x", "xn--"),
            ("a b.example.com", "letters, digits"),
            ("192.0.2.1", "IP address"),
            ("_acme-challenge.", "empty"),
            ("_dmarc.example.com", "letters, digits"),
        ] {
            let error = Subject::parse(text).expect_err(text).to_string();
            assert!(error.contains(advice), "{text}: {error}");
        }
    }
}
