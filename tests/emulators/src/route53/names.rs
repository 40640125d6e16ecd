//! Names and TXT values as Route 53 keeps them.

use std::fmt::Write as _;

/// The labels of a name as bytes, with octal escapes resolved.
fn labels(name: &str) -> Vec<Vec<u8>> {
    let (mut labels, mut label) = (Vec::new(), Vec::new());
    let mut rest = name.strip_suffix('.').unwrap_or(name).as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'.' => labels.push(std::mem::take(&mut label)),
            b'\\' => match octal(rest) {
                Some(byte) => {
                    label.push(byte);
                    rest = rest.get(3..).unwrap_or_default();
                }
                None => label.push(byte),
            },
            byte => label.push(byte.to_ascii_lowercase()),
        }
    }
    labels.push(label);
    labels
}

fn octal(digits: &[u8]) -> Option<u8> {
    let digits = digits.get(..3)?;
    let value = digits.iter().try_fold(0u32, |sum, digit| char::from(*digit).to_digit(8).map(|digit| sum * 8 + digit))?;
    u8::try_from(value).ok()
}

/// A name as Route 53 keeps it: lower case, a dot at the end, and octal escapes for every byte but letters, digits, `-` and `_`.
pub(super) fn kept(name: &str) -> String {
    let mut text = String::new();
    for label in labels(name) {
        for byte in label {
            match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => text.push(char::from(byte)),
                byte => {
                    let _ = write!(text, "\\{byte:03o}");
                }
            }
        }
        text.push('.');
    }
    text
}

/// A kept name as the name servers take it; `None` for one that they cannot carry.
pub(super) fn presentation(name: &str) -> Option<String> {
    let name = name.replace("\\052", "*").replace("\\056", "\\.");
    (!name.replace("\\.", "").contains('\\')).then_some(name)
}

/// The character-strings of a TXT value.
///
/// # Errors
/// What Route 53 says of a value that is none.
pub(super) fn strings(value: &str) -> Result<Vec<Vec<u8>>, String> {
    let fatal = |problem: &str| format!("Invalid Resource Record: 'FATAL problem: {problem} encountered with '{value}''");
    let mut strings = Vec::new();
    let mut rest = value.trim().as_bytes();
    while !rest.is_empty() {
        rest = rest.strip_prefix(b"\"").ok_or_else(|| fatal("InvalidCharacterString (Value should be enclosed in quotation marks)"))?;
        let mut string = Vec::new();
        loop {
            let (&byte, after) = rest.split_first().ok_or_else(|| fatal("UnbalancedQuotes (Value is missing a quotation mark)"))?;
            rest = after;
            match byte {
                b'"' => break,
                b'\\' => match octal(rest) {
                    Some(byte) => {
                        string.push(byte);
                        rest = rest.get(3..).unwrap_or_default();
                    }
                    None => {
                        let (&byte, after) =
                            rest.split_first().ok_or_else(|| fatal("InvalidCharacterString (Value ends in a backslash)"))?;
                        string.push(byte);
                        rest = after;
                    }
                },
                byte => string.push(byte),
            }
        }
        if string.len() > 255 {
            return Err(fatal("CharacterStringTooLong (Value is too long)"));
        }
        strings.push(string);
        rest = rest.trim_ascii_start();
    }
    if strings.is_empty() { Err(fatal("InvalidCharacterString (Value is empty)")) } else { Ok(strings) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_escaped() {
        assert_eq!(kept("*.Example.com"), "\\052.example.com.");
        assert_eq!(kept("\\052.a\\056b.example.com."), "\\052.a\\056b.example.com.");
        assert_eq!(presentation("\\052.a\\056b.example.com.").as_deref(), Some("*.a\\.b.example.com."));
        assert_eq!(presentation("a\\041.example.com."), None);
    }

    #[test]
    fn values_are_quoted_strings() {
        assert_eq!(strings(r#""a\"\101" "b""#), Ok(vec![b"a\"A".to_vec(), b"b".to_vec()]));
        assert!(strings("bare").expect_err("refused").contains("enclosed in quotation marks"));
        assert!(strings(&format!("\"{}\"", "x".repeat(256))).expect_err("refused").contains("too long"));
        assert!(strings("\"open").is_err());
    }
}
