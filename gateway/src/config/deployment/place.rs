//! Objects of the Kubernetes cluster.

use std::{fmt, str::FromStr};

/// An object of a namespace: `NAMESPACE/NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
}

/// The text is no `NAMESPACE/NAME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not of the form NAMESPACE/NAME, in lower-case letters, digits, '-' and (in the name) '.'")]
pub struct BadPlace;

/// A Secret with `tls.crt` and `tls.key`.
#[derive(Debug, Clone)]
pub struct TlsSecret {
    /// Which one.
    pub place: Place,
    /// What stands in `ca.crt`.
    pub ca: CaCertificate,
    /// Whether fields that somebody else keeps are taken over.
    pub force: bool,
}

/// What stands in `ca.crt`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CaCertificate {
    /// There is none. Right for public CAs: clients have their roots.
    #[default]
    None,
    /// The last certificate of the chain that the CA sent, for clients that want to be shown a CA.
    LastOfChain,
}

impl TlsSecret {
    /// The Secret at a place, without `ca.crt`, not taken over from anybody.
    pub fn at(place: Place) -> Self {
        Self { place, ca: CaCertificate::None, force: false }
    }
}

impl fmt::Display for TlsSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret {}", self.place)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for Place {
    type Err = BadPlace;

    fn from_str(text: &str) -> Result<Self, BadPlace> {
        let label = |text: &str| {
            !text.is_empty()
                && !text.starts_with('-')
                && !text.ends_with('-')
                && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        let (namespace, name) = text.split_once('/').ok_or(BadPlace)?;
        let fits = label(namespace) && namespace.len() <= 63 && name.split('.').all(label) && name.len() <= 253;
        if fits { Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() }) } else { Err(BadPlace) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_namespace_and_a_name() {
        let place: Place = "apps/www.example.com".parse().unwrap();
        assert_eq!((place.namespace.as_str(), place.name.as_str()), ("apps", "www.example.com"));
        for wrong in ["", "apps", "/a", "apps/", "a/b/c", "Apps/a", "apps/..", "apps/-a", "a.b/c", "apps/a_b"] {
            assert_eq!(wrong.parse::<Place>(), Err(BadPlace), "{wrong}");
        }
    }
}
