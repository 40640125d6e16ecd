//! Names as Route 53 writes and sorts them.

use std::fmt::Write as _;

use authdns::Name;

/// The name as Route 53 keeps it: lower case, a dot at the end, and `\ooo` (octal) for every byte but `a-z`, `0-9`, `-` and `_`.
pub(super) fn written(name: &Name) -> String {
    let mut text = String::with_capacity(name.as_wire().len() + 1);
    for label in name.labels() {
        text.push_str(&escaped(label));
        text.push('.');
    }
    if text.is_empty() { ".".to_owned() } else { text }
}

fn escaped(label: &[u8]) -> String {
    let mut text = String::with_capacity(label.len());
    for &byte in label {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "\\{byte:03o}");
            }
        }
    }
    text
}

/// The name behind Route 53's text; `None` if it is none.
pub(super) fn parse(text: &str) -> Option<Name> {
    let (mut wire, mut label) = (Vec::with_capacity(text.len() + 2), Vec::new());
    let mut rest = text.strip_suffix('.').unwrap_or(text).bytes();
    loop {
        match rest.next() {
            Some(b'\\') => {
                let digits = [rest.next()?, rest.next()?, rest.next()?];
                let byte = digits.iter().try_fold(0u32, |sum, digit| char::from(*digit).to_digit(8).map(|digit| sum * 8 + digit))?;
                label.push(u8::try_from(byte).ok()?);
            }
            Some(byte @ (b'!'..=b'~')) if byte != b'.' => label.push(byte),
            Some(b'.') | None if label.is_empty() => return None,
            end @ (Some(b'.') | None) => {
                wire.push(u8::try_from(label.len()).ok()?);
                wire.append(&mut label);
                if end.is_none() {
                    break;
                }
            }
            Some(_) => return None,
        }
    }
    wire.push(0);
    Name::from_wire(&wire).ok()
}

/// Where a name stands in a listing.
///
/// The documentation sorts by the text with the labels turned round, the last dot included (`com.example.www.`), so that `-` comes before the end of a
/// label; a server that compares label by label differs for those names alone. Nothing is concluded from a place on which the two disagree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    text: String,
    labels: Vec<String>,
}

impl Place {
    /// The place of a name.
    pub(super) fn of(name: &Name) -> Self {
        let mut labels: Vec<String> = name.labels().map(escaped).collect();
        labels.reverse();
        let text = labels.iter().flat_map(|label| [label.as_str(), "."]).collect();
        Self { text, labels }
    }

    /// True if it comes before the other in either way of sorting.
    pub(super) fn is_before(&self, other: &Self) -> bool {
        self.text < other.text && self.labels < other.labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    #[test]
    fn escapes_are_octal_both_ways() {
        for (ours, theirs) in [
            ("*.example.com", "\\052.example.com."),
            ("a\\.b.example.com", "a\\056b.example.com."),
            ("_x.a-1.test", "_x.a-1.test."),
            (".", "."),
        ] {
            assert_eq!(written(&name(ours)), theirs);
            if ours != "." {
                assert_eq!(parse(theirs), Some(name(ours)));
            }
        }
        assert_eq!(parse("*.Example.com"), Some(name("*.example.com")), "what other servers give back");
        for bad in ["", "a..b", "\\05", "\\999.x", "\\08x", "a b"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn nothing_is_concluded_where_the_two_ways_of_sorting_differ() {
        let place = |text: &str| Place::of(&name(text));
        assert!(place("example.com").is_before(&place("a.example.com")));
        assert!(place("a.example.com").is_before(&place("b.a.example.com")));
        // "com.a-b." < "com.a." as text, and [com, a] < [com, a-b] by labels.
        assert!(!place("a.com").is_before(&place("a-b.com")) && !place("a-b.com").is_before(&place("a.com")));
        assert!(!place("a.com").is_before(&place("a.com")));
    }
}
