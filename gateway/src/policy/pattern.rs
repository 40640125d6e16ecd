//! Which domain names a rule means: a name and everything below it, everything below it alone, or every name.

use std::{fmt, str::FromStr};

use authdns::{Name, NameError};
use serde::{Serialize, Serializer};

/// Matches domain names on label boundaries, in any letter case: `example.com` never means `notexample.com`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pattern {
    /// `*`: every name.
    Any,
    /// `example.com`: the name and everything below it.
    Within(Name),
    /// `*.example.com`: everything below the name, and not the name.
    Below(Name),
}

/// Why a text is not a [`Pattern`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A `*` that is not a whole first label.
    #[error("a * stands for everything below a name, as in *.example.com, or alone for every name")]
    Wildcard,
    /// `.` and `*.`, which mean more than they look like.
    #[error("it has no label: write * for every name")]
    Root,
    /// The rest is not a domain name.
    #[error("it is not a domain name: {0}")]
    Name(#[from] NameError),
}

impl Pattern {
    /// True if it means this name.
    pub fn matches(&self, name: &Name) -> bool {
        match self {
            Self::Any => true,
            Self::Within(apex) => name.is_within(apex),
            Self::Below(apex) => name != apex && name.is_within(apex),
        }
    }

    /// The name after which it is called; `None` for `*`.
    pub fn apex(&self) -> Option<&Name> {
        match self {
            Self::Any => None,
            Self::Within(apex) | Self::Below(apex) => Some(apex),
        }
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let (rest, below) = text.strip_prefix("*.").map_or((text, false), |rest| (rest, true));
        if below && rest.is_empty() {
            return Err(PatternError::Root);
        }
        let apex: Name = rest.parse()?;
        if apex == Name::root() {
            return Err(PatternError::Root);
        }
        if apex.labels().any(|label| label.contains(&b'*')) {
            return Err(PatternError::Wildcard);
        }
        Ok(if below { Self::Below(apex) } else { Self::Within(apex) })
    }
}

/// As it is written, without the last dot.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Within(apex) => f.write_str(&apex.to_relative_string()),
            Self::Below(apex) => write!(f, "*.{}", apex.to_relative_string()),
        }
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        text.parse().expect(text)
    }

    fn pattern(text: &str) -> Pattern {
        text.parse().expect(text)
    }

    #[test]
    fn names_match_on_label_boundaries() {
        for (written, matching, others) in [
            ("*", &["example.com", "com", "."][..], &[][..]),
            (
                "example.com",
                &["example.com", "EXAMPLE.com.", "www.example.com", "_acme-challenge.a.b.Example.com"],
                &["notexample.com", "example.com.net", "com", "example.org", r"a\.example.com"],
            ),
            ("Example.COM.", &["example.com", "www.example.com"], &["notexample.com"]),
            ("*.example.com", &["www.example.com", "a.b.example.com"], &["example.com", "notexample.com", "com"]),
            ("xn--bcher-kva.example", &["www.xn--bcher-kva.example"], &["bucher.example"]),
        ] {
            let pattern = pattern(written);
            for matching in matching {
                assert!(pattern.matches(&name(matching)), "{written} means {matching}");
            }
            for other in others {
                assert!(!pattern.matches(&name(other)), "{written} does not mean {other}");
            }
        }
    }

    #[test]
    fn what_is_no_pattern_is_told() {
        for (written, error) in [
            ("", PatternError::Name(NameError::EmptyLabel)),
            (".", PatternError::Root),
            ("*.", PatternError::Root),
            ("*..", PatternError::Root),
            ("*.*.example.com", PatternError::Wildcard),
            ("a.*.example.com", PatternError::Wildcard),
            ("*example.com", PatternError::Wildcard),
            ("**", PatternError::Wildcard),
            (r"\042.example.com", PatternError::Wildcard),
            ("a..example.com", PatternError::Name(NameError::EmptyLabel)),
            ("bücher.example", PatternError::Name(NameError::BadCharacter('ü'))),
        ] {
            assert_eq!(written.parse::<Pattern>(), Err(error), "{written}");
        }
    }

    fn any_name() -> impl Strategy<Value = Name> {
        prop::collection::vec("[a-cA-C_-]{1,3}", 1..5).prop_map(|labels| name(&labels.join(".")))
    }

    proptest! {
        #[test]
        fn a_label_more_is_below_and_a_letter_more_is_not(apex in any_name(), label in "[a-c]{1,4}") {
            let (within, below) = (Pattern::Within(apex.clone()), Pattern::Below(apex.clone()));
            let longer = apex.prepend(label.as_bytes()).expect("short");
            prop_assert!(within.matches(&apex) && !below.matches(&apex));
            prop_assert!(within.matches(&longer) && below.matches(&longer));
            let glued = name(&format!("x{apex}"));
            prop_assert!(!within.matches(&glued) && !below.matches(&glued));
        }

        #[test]
        fn the_text_reads_back(apex in any_name()) {
            for pattern in [Pattern::Any, Pattern::Within(apex.clone()), Pattern::Below(apex)] {
                prop_assert_eq!(&pattern.to_string().parse::<Pattern>().expect("its own text"), &pattern);
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = text.parse::<Pattern>();
        }
    }
}
