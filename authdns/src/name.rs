//! Domain names: absolute, in canonical (lower-case) form.
//!
//! Every name that acmegate stores, compares or routes by is a [`Name`], so that `Example.COM`, `example.com` and `example.com.` are one thing,
//! and so that "within a zone" always means on a label boundary (`notexample.com` is not within `example.com`).

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Longest name in wire form, the root label included (RFC 1035, 2.3.4).
pub const MAX_NAME: usize = 255;
/// Longest label (RFC 1035, 2.3.4).
pub const MAX_LABEL: usize = 63;

/// Why a text or a run of bytes is not a domain name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing at all, or two dots in a row.
    #[error("a label is empty")]
    EmptyLabel,
    /// A label of more than 63 bytes.
    #[error("a label is longer than 63 bytes")]
    LabelTooLong,
    /// More than 255 bytes in wire form.
    #[error("the name is longer than 255 bytes")]
    NameTooLong,
    /// A byte that this form does not take; write an internationalised name in its `xn--` form.
    #[error("the character {0:?} cannot stand in a name (write an internationalised name in its xn-- form)")]
    BadCharacter(char),
    /// An escape other than `\DDD` or `\X`.
    #[error("a backslash is not followed by a character or by three digits up to 255")]
    BadEscape,
    /// Wire bytes that end early, or hold a compression pointer.
    #[error("the wire form is cut short or compressed")]
    BadWire,
}

/// An absolute domain name in lower case: uncompressed wire form inside, master-file text outside (RFC 1035, 5.1; RFC 4343).
///
/// Cloning is cheap. `Display` writes the trailing dot; [`FromStr`] takes names with or without it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<[u8]>);

impl Name {
    /// The root, `.`.
    pub fn root() -> Self {
        Self(Arc::from([0u8].as_slice()))
    }

    /// Reads an uncompressed wire form that fills `wire` exactly, folding it to lower case.
    ///
    /// # Errors
    /// [`NameError`] if it is not one whole uncompressed name.
    pub fn from_wire(wire: &[u8]) -> Result<Self, NameError> {
        if wire.len() > MAX_NAME {
            return Err(NameError::NameTooLong);
        }
        let mut at = 0;
        loop {
            match *wire.get(at).ok_or(NameError::BadWire)? as usize {
                0 if at + 1 == wire.len() => break,
                0 => return Err(NameError::BadWire),
                length @ 1..=MAX_LABEL => at += 1 + length,
                _ => return Err(NameError::BadWire),
            }
        }
        // Length octets are below 64 and so are never letters: folding the whole run is safe.
        Ok(Self(wire.to_ascii_lowercase().into()))
    }

    /// The uncompressed wire form, in lower case, root label included.
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }

    /// The labels from left to right, without the root.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.as_wire();
        std::iter::from_fn(move || {
            let (&length, tail) = rest.split_first()?;
            if length == 0 {
                return None;
            }
            let (label, tail) = tail.split_at(length as usize);
            rest = tail;
            Some(label)
        })
    }

    /// Number of labels, the root not counted.
    pub fn depth(&self) -> usize {
        self.labels().count()
    }

    /// The name without its leftmost label; `None` at the root.
    pub fn parent(&self) -> Option<Self> {
        let first = self.0[0] as usize;
        (first != 0).then(|| Self(self.0[first + 1..].into()))
    }

    /// True if this name is `zone` or below it, on a label boundary.
    pub fn is_within(&self, zone: &Self) -> bool {
        let mut rest = self.as_wire();
        while rest.len() > zone.0.len() {
            rest = &rest[rest[0] as usize + 1..];
        }
        rest == zone.as_wire()
    }

    /// `label` put in front of this name.
    ///
    /// # Errors
    /// [`NameError`] if the label is empty or too long, or the name becomes too long.
    pub fn prepend(&self, label: &[u8]) -> Result<Self, NameError> {
        match label.len() {
            0 => return Err(NameError::EmptyLabel),
            1..=MAX_LABEL => {}
            _ => return Err(NameError::LabelTooLong),
        }
        if self.0.len() + label.len() + 1 > MAX_NAME {
            return Err(NameError::NameTooLong);
        }
        let mut wire = Vec::with_capacity(self.0.len() + label.len() + 1);
        wire.push(label.len() as u8);
        wire.extend(label.iter().map(u8::to_ascii_lowercase));
        wire.extend_from_slice(&self.0);
        Ok(Self(wire.into()))
    }

    /// This name, seen as relative, put in front of `origin`: `example.com` under `auth.example.org` is `example.com.auth.example.org`.
    ///
    /// # Errors
    /// [`NameError::NameTooLong`] if the two do not fit in 255 bytes.
    pub fn under(&self, origin: &Self) -> Result<Self, NameError> {
        if self.0.len() - 1 + origin.0.len() > MAX_NAME {
            return Err(NameError::NameTooLong);
        }
        let mut wire = self.0[..self.0.len() - 1].to_vec();
        wire.extend_from_slice(&origin.0);
        Ok(Self(wire.into()))
    }

    /// The text without the trailing dot (`.` for the root), as ACME writes names.
    pub fn to_relative_string(&self) -> String {
        let mut text = self.to_string();
        if text.len() > 1 {
            text.pop();
        }
        text
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut wire = wire_as_written(text)?;
        wire.make_ascii_lowercase();
        Ok(Self(wire.into()))
    }
}

/// The uncompressed wire form of a name in master-file text, in the letter case of the text.
pub(crate) fn wire_as_written(text: &str) -> Result<Vec<u8>, NameError> {
    if text == "." {
        return Ok(vec![0]);
    }
    let mut wire = Vec::with_capacity(text.len() + 2);
    let mut label = Vec::with_capacity(MAX_LABEL);
    let mut close = |label: &mut Vec<u8>| match label.len() {
        0 => Err(NameError::EmptyLabel),
        1..=MAX_LABEL => {
            wire.push(label.len() as u8);
            wire.append(label);
            if wire.len() >= MAX_NAME { Err(NameError::NameTooLong) } else { Ok(()) }
        }
        _ => Err(NameError::LabelTooLong),
    };
    let mut rest = text.strip_suffix('.').filter(|t| !ends_in_open_escape(t)).unwrap_or(text).chars();
    while let Some(character) = rest.next() {
        match character {
            '.' => close(&mut label)?,
            '\\' => label.push(unescape(&mut rest)?),
            '!'..='~' => label.push(character as u8),
            other => return Err(NameError::BadCharacter(other)),
        }
    }
    close(&mut label)?;
    wire.push(0);
    Ok(wire)
}

/// `wire` and its ancestors up to the root, from the longest to the shortest. `wire` is a whole uncompressed name.
pub(crate) fn suffixes(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(wire), |name| parent_of(name))
}

/// The wire form without its leftmost label; `None` at the root.
pub(crate) fn parent_of(wire: &[u8]) -> Option<&[u8]> {
    match *wire.first()? {
        0 => None,
        length => wire.get(usize::from(length) + 1..),
    }
}

/// True if `text` ends in an odd number of backslashes, so that a dot after it would be part of the label.
fn ends_in_open_escape(text: &str) -> bool {
    text.bytes().rev().take_while(|&b| b == b'\\').count() % 2 == 1
}

/// What `\\DDD` or `\\X` stands for, the backslash being read already.
pub(crate) fn unescape(rest: &mut std::str::Chars<'_>) -> Result<u8, NameError> {
    let first = rest.next().ok_or(NameError::BadEscape)?;
    if !first.is_ascii_digit() {
        return if first.is_ascii() { Ok(first as u8) } else { Err(NameError::BadEscape) };
    }
    let mut code = first.to_digit(10);
    for _ in 0..2 {
        let digit = rest.next().and_then(|c| c.to_digit(10));
        code = code.zip(digit).map(|(code, digit)| code * 10 + digit);
    }
    code.and_then(|code| u8::try_from(code).ok()).ok_or(NameError::BadEscape)
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() == 1 {
            return f.write_str(".");
        }
        for label in self.labels() {
            for &byte in label {
                match byte {
                    b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => write!(f, "\\{}", byte as char)?,
                    b'!'..=b'~' => write!(f, "{}", byte as char)?,
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Maps keyed by [`Name`] can be asked with wire bytes in lower case.
impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|error| de::Error::custom(format_args!("{text:?} is not a domain name: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        text.parse().expect(text)
    }

    #[test]
    fn case_and_the_last_dot_do_not_matter() {
        assert_eq!(name("_ACME-challenge.Example.COM"), name("_acme-challenge.example.com."));
        assert_eq!(name("Example.com").to_string(), "example.com.");
        assert_eq!(name("example.com.").to_relative_string(), "example.com");
        assert_eq!(Name::root().to_relative_string(), ".");
    }

    #[test]
    fn within_is_on_label_boundaries() {
        assert!(name("a.example.com").is_within(&name("example.com")));
        assert!(name("example.com").is_within(&name("example.com")));
        assert!(name("example.com").is_within(&Name::root()));
        assert!(!name("notexample.com").is_within(&name("example.com")));
        assert!(!name("com").is_within(&name("example.com")));
        assert!(!name("example.com.net").is_within(&name("example.com")));
    }

    #[test]
    fn escapes_keep_dots_inside_labels() {
        let one = name(r"a\.b.example.com");
        assert_eq!(one.depth(), 3);
        assert_eq!(one.to_string(), r"a\.b.example.com.");
        assert_eq!(name(r"\097.com"), name("a.com"));
        assert_eq!(name(r"a\.").depth(), 1);
        assert_eq!(r"\256.com".parse::<Name>(), Err(NameError::BadEscape));
        assert_eq!(r"a\".parse::<Name>(), Err(NameError::BadEscape));
    }

    #[test]
    fn what_is_not_a_name_is_refused() {
        assert_eq!("".parse::<Name>(), Err(NameError::EmptyLabel));
        assert_eq!("a..b".parse::<Name>(), Err(NameError::EmptyLabel));
        assert_eq!("ä.example".parse::<Name>(), Err(NameError::BadCharacter('ä')));
        assert_eq!("a b.example".parse::<Name>(), Err(NameError::BadCharacter(' ')));
        assert_eq!("x".repeat(64).parse::<Name>(), Err(NameError::LabelTooLong));
        let longest = format!("{}.{}", ["x".repeat(63), "x".repeat(63), "x".repeat(63)].join("."), "x".repeat(61));
        assert_eq!(name(&longest).as_wire().len(), MAX_NAME);
        assert_eq!(format!("{longest}x").parse::<Name>(), Err(NameError::NameTooLong));
        assert_eq!(Name::from_wire(&[1, b'a']), Err(NameError::BadWire));
        assert_eq!(Name::from_wire(&[0xc0, 0]), Err(NameError::BadWire));
    }

    #[test]
    fn one_name_under_another() {
        assert_eq!(name("example.com").under(&name("auth.test")).expect("fits"), name("example.com.auth.test"));
        assert_eq!(name("auth.test").prepend(b"X").expect("fits"), name("x.auth.test"));
        assert_eq!(name("a.b").parent(), Some(name("b")));
        assert_eq!(Name::root().parent(), None);
    }

    proptest! {
        #[test]
        fn text_and_wire_agree(labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..8)) {
            let mut built = Name::root();
            for label in labels.iter().rev() {
                built = built.prepend(label).expect("short");
            }
            prop_assert_eq!(&name(&built.to_string()), &built);
            prop_assert_eq!(&Name::from_wire(built.as_wire()).expect("own wire"), &built);
            prop_assert_eq!(built.depth(), labels.len());
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), text in ".{0,40}") {
            let _ = Name::from_wire(&bytes);
            let _ = text.parse::<Name>();
        }
    }
}
