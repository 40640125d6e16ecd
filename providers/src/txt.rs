//! TXT data in presentation format (RFC 1035, 5.1): quoted character-strings of 255 bytes at most, with escapes.
//!
//! Providers differ in how they escape what is not printable: `\DDD` is decimal in master files (and at PowerDNS and Cloudflare), octal at Route 53.

/// How `\DDD` is read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escapes {
    /// As RFC 1035 says.
    Decimal,
    /// As Route 53 says.
    Octal,
}

/// The longest character-string (RFC 1035, 3.3).
const MOST: usize = 255;

/// A value as presentation format: one quoted string for each 255 bytes.
pub fn quote(value: &[u8], escapes: Escapes) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    let mut chunks = value.chunks(MOST).peekable();
    if chunks.peek().is_none() {
        return "\"\"".to_owned();
    }
    while let Some(chunk) = chunks.next() {
        text.push('"');
        for &byte in chunk {
            match byte {
                b'"' | b'\\' => {
                    text.push('\\');
                    text.push(char::from(byte));
                }
                b' '..=b'~' => text.push(char::from(byte)),
                _ => match escapes {
                    Escapes::Decimal => text.push_str(&format!("\\{byte:03}")),
                    Escapes::Octal => text.push_str(&format!("\\{byte:03o}")),
                },
            }
        }
        text.push('"');
        if chunks.peek().is_some() {
            text.push(' ');
        }
    }
    text
}

/// The bytes behind presentation format: character-strings joined, quotes and escapes taken away. Text without quotes is taken as one string a word, as
/// master files do. What is malformed (an open quote, a lonely backslash) is taken as it stands: it is a stranger's, and only compared with.
pub fn decode(text: &str, escapes: Escapes) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes().peekable();
    let mut quoted = false;
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => quoted = !quoted,
            b' ' | b'\t' if !quoted => {}
            b'\\' => {
                let digits: Vec<u8> = rest.clone().take(3).take_while(u8::is_ascii_digit).collect();
                match number(&digits, escapes) {
                    Some(number) => {
                        bytes.push(number);
                        rest.nth(2);
                    }
                    None => bytes.push(rest.next().unwrap_or(b'\\')),
                }
            }
            byte => bytes.push(byte),
        }
    }
    bytes
}

/// [`decode`] as text, with replacement characters for what is not UTF-8.
pub fn decode_text(text: &str, escapes: Escapes) -> String {
    String::from_utf8_lossy(&decode(text, escapes)).into_owned()
}

fn number(digits: &[u8], escapes: Escapes) -> Option<u8> {
    let base: u16 = match escapes {
        Escapes::Decimal => 10,
        Escapes::Octal => 8,
    };
    if digits.len() != 3 {
        return None;
    }
    let value = digits.iter().try_fold(0u16, |sum, digit| {
        let digit = u16::from(digit - b'0');
        (digit < base).then(|| sum * base + digit)
    })?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_reads_back() {
        let long: Vec<u8> = (0..=255u8).chain(0..=255).collect();
        for value in [&b""[..], b"plain", b"a \"quoted\" \\ one", b"\x00\xff\x7f", &long] {
            for escapes in [Escapes::Decimal, Escapes::Octal] {
                assert_eq!(decode(&quote(value, escapes), escapes), value, "{escapes:?}");
            }
        }
        assert_eq!(quote(b"a\"b\\c\x07", Escapes::Decimal), r#""a\"b\\c\007""#);
        assert_eq!(quote(b"\xff", Escapes::Octal), r#""\377""#);
        assert_eq!(quote(&[b'x'; 256], Escapes::Decimal), format!("\"{}\" \"x\"", "x".repeat(255)));
    }

    #[test]
    fn strangers_forms_are_read_too() {
        assert_eq!(decode(r#""a" "b""#, Escapes::Decimal), b"ab");
        assert_eq!(decode("unquoted", Escapes::Decimal), b"unquoted");
        assert_eq!(decode(r#""open"#, Escapes::Decimal), b"open");
        assert_eq!(decode(r"x\", Escapes::Decimal), b"x\\");
        assert_eq!(decode(r#""\999""#, Escapes::Decimal), b"999", "no byte: the escape of a 9");
    }
}
