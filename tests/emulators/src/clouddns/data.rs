//! TXT data in presentation form.

/// The character-strings of TXT data (RFC 1035, 5.1); `None` if it is none.
pub(super) fn strings(text: &str) -> Option<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    let mut bytes = text.bytes().peekable();
    loop {
        while bytes.next_if(u8::is_ascii_whitespace).is_some() {}
        let Some(first) = bytes.peek().copied() else { break };
        let quoted = first == b'"';
        let mut string = Vec::new();
        if quoted {
            bytes.next();
        }
        loop {
            match bytes.next() {
                None if quoted => return None,
                None => break,
                Some(b'"') if quoted => break,
                Some(b'"') => return None,
                Some(byte) if !quoted && byte.is_ascii_whitespace() => break,
                Some(b'\\') => {
                    let digits: Vec<u8> = bytes.clone().take(3).take_while(u8::is_ascii_digit).collect();
                    if digits.len() == 3 {
                        string.push(std::str::from_utf8(&digits).ok()?.parse().ok()?);
                        bytes.nth(2);
                    } else {
                        string.push(bytes.next()?);
                    }
                }
                Some(byte) => string.push(byte),
            }
        }
        if string.len() > 255 {
            return None;
        }
        all.push(string);
    }
    (!all.is_empty()).then_some(all)
}

/// Character-strings in quotes.
pub(super) fn quoted(strings: &[Vec<u8>]) -> String {
    let quote = |string: &Vec<u8>| {
        let escape = |byte: &u8| match byte {
            b'"' | b'\\' => format!("\\{}", char::from(*byte)),
            b' '..=b'~' => char::from(*byte).to_string(),
            byte => format!("\\{byte:03}"),
        };
        format!("\"{}\"", string.iter().map(escape).collect::<String>())
    };
    strings.iter().map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn txt_data_is_read_as_master_files_are() {
        assert_eq!(strings(r#""a b" "c\"\\\007""#), Some(vec![b"a b".to_vec(), b"c\"\\\x07".to_vec()]));
        assert_eq!(strings("a b"), Some(vec![b"a".to_vec(), b"b".to_vec()]));
        assert_eq!(strings(r#""open"#), None);
        assert_eq!(strings(&format!("\"{}\"", "x".repeat(256))), None);
        assert_eq!(quoted(&[b"a\"".to_vec(), b"\xff".to_vec()]), r#""a\"" "\255""#);
    }
}
