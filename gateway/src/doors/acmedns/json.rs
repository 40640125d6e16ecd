//! JSON as the original acme-dns reads it: by the rules of Go's `encoding/json`, so that a body that worked there works here.
//!
//! Those rules differ from serde's: keys match in any letter case, the last of equal keys wins, `null` leaves a field as it is, a value of the wrong
//! type is skipped and reported at the end, broken UTF-8 becomes U+FFFD, and nesting goes 10,000 deep.

use std::borrow::Cow;

use uuid::Uuid;

/// Deepest nesting that Go takes.
const MAX_DEPTH: usize = 10_000;

/// The text is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// What the original decodes each body into, whatever the route.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Post<'a> {
    pub(super) subdomain: Cow<'a, str>,
    pub(super) txt: Cow<'a, str>,
    pub(super) allowfrom: Vec<Cow<'a, str>>,
    /// A known key had a value of the wrong type; the other fields are good all the same.
    pub(super) mistyped: bool,
}

impl<'a> Post<'a> {
    /// Reads a body that must be one value and nothing else (Go's `json.Unmarshal`).
    ///
    /// # Errors
    /// [`Malformed`] if it is not JSON.
    pub(super) fn from_whole(text: &'a [u8]) -> Result<Self, Malformed> {
        let start = skip_space(text, 0);
        let end = skip_value(text, start)?;
        if skip_space(text, end) != text.len() {
            return Err(Malformed);
        }
        Ok(Self::decode(&text[start..end]))
    }

    /// Reads the first value of a body and leaves the rest (Go's `json.Decoder`).
    ///
    /// # Errors
    /// [`Malformed`] if the body does not begin with a whole JSON value.
    pub(super) fn from_first(text: &'a [u8]) -> Result<Self, Malformed> {
        let start = skip_space(text, 0);
        let end = skip_value(text, start)?;
        Ok(Self::decode(&text[start..end]))
    }

    fn decode(value: &'a [u8]) -> Self {
        let mut post = Self::default();
        match value.first() {
            Some(b'{') => post.decode_members(value),
            Some(b'n') => {}
            _ => post.mistyped = true,
        }
        post
    }

    fn decode_members(&mut self, object: &'a [u8]) {
        let mut members = Elements::new(object);
        while let Some(key) = members.next_value() {
            let Some(value) = members.next_value() else { return };
            match Field::of(key) {
                Some(Field::Subdomain) => self.mistyped |= !set(&mut self.subdomain, value),
                Some(Field::Txt) => self.mistyped |= !set(&mut self.txt, value),
                Some(Field::Password) => self.mistyped |= !set(&mut Cow::default(), value),
                Some(Field::AllowFrom) => self.decode_allowfrom(value),
                Some(Field::Username) => match value.first() {
                    Some(b'n') => {}
                    Some(b'"') if parse_uuid(unquote(value).as_bytes()).is_none() => {
                        // Unlike a wrong type, this makes Go stop: what comes later is not decoded.
                        self.mistyped = true;
                        return;
                    }
                    Some(b'"') => {}
                    _ => self.mistyped = true,
                },
                None => {}
            }
        }
    }

    fn decode_allowfrom(&mut self, value: &'a [u8]) {
        match value.first() {
            Some(b'[') => {
                // A list that stood before is written over in place: what is no string leaves the old one.
                let mut before = std::mem::take(&mut self.allowfrom).into_iter();
                let mut elements = Elements::new(value);
                while let Some(element) = elements.next_value() {
                    let mut text = before.next().unwrap_or_default();
                    self.mistyped |= !set(&mut text, element);
                    self.allowfrom.push(text);
                }
            }
            Some(b'n') => self.allowfrom.clear(),
            _ => self.mistyped = true,
        }
    }
}

/// Reads a UUID in the forms that the original takes: hyphenated, bare, `urn:uuid:` in front, or between any two characters.
pub(super) fn parse_uuid(text: &[u8]) -> Option<Uuid> {
    let inner = match text.len() {
        32 | 36 => text,
        38 => text.get(1..37)?,
        45 if text.get(..9)?.eq_ignore_ascii_case(b"urn:uuid:") => text.get(9..)?,
        _ => return None,
    };
    Uuid::try_parse_ascii(inner).ok()
}

/// The keys that are decoded.
#[derive(Clone, Copy)]
enum Field {
    Username,
    Password,
    Subdomain,
    Txt,
    AllowFrom,
}

impl Field {
    const ALL: [(&'static str, Self); 5] = [
        ("subdomain", Self::Subdomain),
        ("txt", Self::Txt),
        ("allowfrom", Self::AllowFrom),
        ("username", Self::Username),
        ("password", Self::Password),
    ];

    fn of(quoted: &[u8]) -> Option<Self> {
        let key = unquote(quoted);
        // Unicode folds the long s to s, and so does Go.
        let key = if key.contains('ſ') { Cow::Owned(key.replace('ſ', "s")) } else { key };
        Self::ALL.into_iter().find_map(|(name, field)| key.eq_ignore_ascii_case(name).then_some(field))
    }
}

/// Sets a string field. False if the value has the wrong type; `null` leaves the field.
fn set<'a>(field: &mut Cow<'a, str>, value: &'a [u8]) -> bool {
    match value.first() {
        Some(b'"') => {
            *field = unquote(value);
            true
        }
        Some(b'n') => true,
        _ => false,
    }
}

/// The values in an array, or the keys and values of an object in turn. The text has been checked as a whole before.
struct Elements<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Elements<'a> {
    fn new(container: &'a [u8]) -> Self {
        Self { text: container, at: 1 }
    }

    fn next_value(&mut self) -> Option<&'a [u8]> {
        let start = self.text.iter().skip(self.at).position(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',' | b':'))? + self.at;
        let end = skip_value(self.text, start).ok()?;
        self.at = end;
        self.text.get(start..end)
    }
}

/// The text of a checked, quoted string.
fn unquote(quoted: &[u8]) -> Cow<'_, str> {
    let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    if !inner.contains(&b'\\') {
        return String::from_utf8_lossy(inner);
    }
    let mut text = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'\\' {
            text.push(byte);
            continue;
        }
        let Some((&escape, tail)) = rest.split_first() else { break };
        rest = tail;
        match escape {
            b'b' => text.push(8),
            b'f' => text.push(12),
            b'n' => text.push(b'\n'),
            b'r' => text.push(b'\r'),
            b't' => text.push(b'\t'),
            b'u' => {
                let unit = hex4(rest);
                rest = rest.get(4..).unwrap_or_default();
                let pair = rest.strip_prefix(b"\\u").map(hex4);
                let character = match (unit, pair) {
                    (0xD800..0xDC00, Some(low @ 0xDC00..0xE000)) => {
                        rest = rest.get(6..).unwrap_or_default();
                        char::from_u32(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00))
                    }
                    _ => char::from_u32(unit),
                };
                let character = character.unwrap_or(char::REPLACEMENT_CHARACTER);
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            literal => text.push(literal),
        }
    }
    Cow::Owned(String::from_utf8_lossy(&text).into_owned())
}

fn hex4(text: &[u8]) -> u32 {
    text.iter().take(4).fold(0, |unit, &digit| unit * 16 + char::from(digit).to_digit(16).unwrap_or(0))
}

fn skip_space(text: &[u8], at: usize) -> usize {
    text.iter().skip(at).position(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).map_or(text.len(), |spaces| at + spaces)
}

/// The end of the JSON value that begins at `at` (RFC 8259), without recursion: the text is a stranger's.
fn skip_value(text: &[u8], mut at: usize) -> Result<usize, Malformed> {
    let mut open = Vec::new();
    loop {
        // A value, or the end of an empty container.
        at = skip_space(text, at);
        match text.get(at).ok_or(Malformed)? {
            bracket @ (b'{' | b'[') => {
                open.push(*bracket);
                if open.len() > MAX_DEPTH {
                    return Err(Malformed);
                }
                at = skip_space(text, at + 1);
                let closing = if *bracket == b'{' { b'}' } else { b']' };
                if text.get(at) == Some(&closing) {
                    open.pop();
                    at += 1;
                } else {
                    if *bracket == b'{' {
                        at = skip_key(text, at)?;
                    }
                    continue;
                }
            }
            b'"' => at = skip_string(text, at)?,
            b't' => at = skip_word(text, at, b"true")?,
            b'f' => at = skip_word(text, at, b"false")?,
            b'n' => at = skip_word(text, at, b"null")?,
            b'-' | b'0'..=b'9' => at = skip_number(text, at)?,
            _ => return Err(Malformed),
        }
        // After a value: close containers until one goes on.
        loop {
            let Some(bracket) = open.last() else { return Ok(at) };
            at = skip_space(text, at);
            match (bracket, text.get(at).ok_or(Malformed)?) {
                (b'{', b'}') | (b'[', b']') => {
                    open.pop();
                    at += 1;
                }
                (b'{', b',') => {
                    at = skip_key(text, skip_space(text, at + 1))?;
                    break;
                }
                (b'[', b',') => {
                    at += 1;
                    break;
                }
                _ => return Err(Malformed),
            }
        }
    }
}

/// A key and its colon.
fn skip_key(text: &[u8], at: usize) -> Result<usize, Malformed> {
    let at = skip_space(text, skip_string(text, at)?);
    if text.get(at) == Some(&b':') { Ok(at + 1) } else { Err(Malformed) }
}

fn skip_string(text: &[u8], mut at: usize) -> Result<usize, Malformed> {
    if text.get(at) != Some(&b'"') {
        return Err(Malformed);
    }
    at += 1;
    loop {
        match text.get(at).ok_or(Malformed)? {
            b'"' => return Ok(at + 1),
            b'\\' => match text.get(at + 1).ok_or(Malformed)? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => at += 2,
                b'u' if text.get(at + 2..at + 6).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) => at += 6,
                _ => return Err(Malformed),
            },
            0..b' ' => return Err(Malformed),
            _ => at += 1,
        }
    }
}

fn skip_word(text: &[u8], at: usize, word: &[u8]) -> Result<usize, Malformed> {
    if text.get(at..at + word.len()) == Some(word) { Ok(at + word.len()) } else { Err(Malformed) }
}

fn skip_number(text: &[u8], mut at: usize) -> Result<usize, Malformed> {
    let digits = |at: usize| match text.iter().skip(at).take_while(|byte| byte.is_ascii_digit()).count() {
        0 => Err(Malformed),
        count => Ok(at + count),
    };
    if text.get(at) == Some(&b'-') {
        at += 1;
    }
    at = if text.get(at) == Some(&b'0') { at + 1 } else { digits(at)? };
    if text.get(at) == Some(&b'.') {
        at = digits(at + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        at += 1;
        if let Some(b'+' | b'-') = text.get(at) {
            at += 1;
        }
        at = digits(at)?;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(text: &str) -> Result<Post<'_>, Malformed> {
        Post::from_whole(text.as_bytes())
    }

    #[test]
    fn what_clients_send() {
        let post = whole("{\"subdomain\":\"a\",\"txt\":\"b\"}\n").unwrap();
        assert_eq!((&*post.subdomain, &*post.txt, post.mistyped), ("a", "b", false));
        let post = whole(r#"{"subdomain":"a", "txt": "b"}"#).unwrap();
        assert_eq!((&*post.subdomain, &*post.txt), ("a", "b"));
        assert_eq!(whole("null\n").unwrap(), Post::default());
        assert_eq!(whole("{}").unwrap(), Post::default());
        assert_eq!(whole(r#"{"allowfrom": ["10.0.0.0/8", "::/0"]}"#).unwrap().allowfrom, ["10.0.0.0/8", "::/0"]);
    }

    #[test]
    fn keys_match_in_any_case_and_the_last_wins() {
        let post = whole(r#"{"Subdomain":"a","SUBDOMAIN":"b","\u017fubdomain":"c","ſubdomain":"d","tXt":"t"}"#).unwrap();
        assert_eq!((&*post.subdomain, &*post.txt), ("d", "t"));
        assert_eq!(whole(r#"{"AllowFrom":["a"],"allowfrom":["b"]}"#).unwrap().allowfrom, ["b"]);
    }

    #[test]
    fn null_leaves_a_field_and_empties_the_list() {
        let post = whole(r#"{"subdomain":"a","subdomain":null,"allowfrom":["x"],"allowfrom":null,"username":null}"#).unwrap();
        assert_eq!((&*post.subdomain, post.allowfrom.len(), post.mistyped), ("a", 0, false));
    }

    #[test]
    fn a_wrong_type_is_reported_and_the_rest_decoded() {
        for wrong in ["5", "true", "[]", "{}", "-1.5e3"] {
            let text = format!(r#"{{"txt":{wrong},"subdomain":"a"}}"#);
            let post = whole(&text).unwrap();
            assert_eq!((&*post.subdomain, &*post.txt, post.mistyped), ("a", "", true), "{wrong}");
        }
        for wrong in [r#""10.0.0.0/8""#, "5", "{}", "[5]", "[[]]"] {
            assert!(whole(&format!(r#"{{"allowfrom":{wrong}}}"#)).unwrap().mistyped, "{wrong}");
        }
        for other in ["5", "\"text\"", "[]", "true"] {
            assert!(whole(other).unwrap().mistyped, "{other}");
        }
    }

    #[test]
    fn a_username_that_is_no_uuid_stops_the_decoding() {
        let post = whole(r#"{"subdomain":"a","username":"x","txt":"b"}"#).unwrap();
        assert_eq!((&*post.subdomain, &*post.txt, post.mistyped), ("a", "", true));
    }

    #[test]
    fn escapes_and_broken_unicode() {
        let post = whole(r#"{"txt":"\u0061\n\/\ud83d\ude00\ud800x\udc00","subdomain":"é"}"#).unwrap();
        assert_eq!(post.txt, "a\n/😀\u{FFFD}x\u{FFFD}");
        assert_eq!(post.subdomain, "é");
        assert_eq!(Post::from_whole(b"{\"txt\":\"\xff\"}").unwrap().txt, "\u{FFFD}");
    }

    #[test]
    fn what_is_not_json() {
        for text in [
            "",
            " ",
            "{",
            "}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "[1,]",
            "[,1]",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "-",
            "nul",
            "tru",
            "\"a",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\t\"",
            "{} {}",
            "{}x",
            "\u{feff}{}",
            "{\"a\" 1}",
            "[1 2]",
            "{'a':1}",
            "[}",
            "{]",
            "NaN",
        ] {
            assert_eq!(whole(text), Err(Malformed), "{text:?}");
        }
    }

    #[test]
    fn what_follows_the_first_value_is_left() {
        assert_eq!(Post::from_first(b"{\"txt\":\"a\"}garbage").unwrap().txt, "a");
        assert_eq!(Post::from_first(b"{\"txt\":\"a\"").err(), Some(Malformed));
    }

    #[test]
    fn nesting_ends_where_it_does_in_go() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(whole(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(whole(&nested(MAX_DEPTH + 1)), Err(Malformed));
    }

    #[test]
    fn uuids_in_every_form_of_the_original() {
        let uuid = "8e5700ea-a4bf-41c7-8a77-e990661dcc6a";
        for text in [uuid.to_owned(), uuid.to_uppercase(), uuid.replace('-', ""), format!("{{{uuid}}}"), format!("URN:uuid:{uuid}")] {
            assert_eq!(parse_uuid(text.as_bytes()).map(|u| u.to_string()).as_deref(), Some(uuid), "{text}");
        }
        for text in ["", "8e5700ea", "8e5700eaa4bf-41c7-8a77-e990661dcc6a", &uuid.replace('8', "g")] {
            assert_eq!(parse_uuid(text.as_bytes()), None, "{text}");
        }
    }

    /// A JSON value as the model sees it: its text, and what it is to a string field.
    #[derive(Debug, Clone)]
    enum Model {
        Text(String),
        Null,
        Other(&'static str),
    }

    fn value() -> impl Strategy<Value = Model> {
        prop_oneof![
            4 => any::<String>().prop_map(Model::Text),
            1 => Just(Model::Null),
            1 => prop::sample::select(vec!["0", "-1.5e+3", "true", "[]", "{}", "[{\"txt\":\"no\"}]", "{\"subdomain\":[\"no\"]}"]).prop_map(Model::Other),
        ]
    }

    fn key() -> impl Strategy<Value = String> {
        prop_oneof![
            prop::sample::select(vec!["subdomain", "txt", "Subdomain", "TXT", "sUbDoMaIn", "Txt"]).prop_map(str::to_owned),
            "[a-z]{0,3}",
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_a_model(members in prop::collection::vec((key(), value()), 0..8), space in "[ \t\r\n]{0,2}") {
            let (mut subdomain, mut txt, mut mistyped) = (String::new(), String::new(), false);
            let mut text = Vec::new();
            for (key, value) in &members {
                let rendered = match value {
                    Model::Text(value) => serde_json::to_string(value).unwrap(),
                    Model::Null => "null".to_owned(),
                    Model::Other(text) => (*text).to_owned(),
                };
                text.push(format!("{space}{}{space}:{space}{rendered}{space}", serde_json::to_string(key).unwrap()));
                let field = match key.to_lowercase().as_str() {
                    "subdomain" => &mut subdomain,
                    "txt" => &mut txt,
                    _ => continue,
                };
                match value {
                    Model::Text(value) => field.clone_from(value),
                    Model::Null => {}
                    Model::Other(_) => mistyped = true,
                }
            }
            let text = format!("{space}{{{}}}{space}", text.join(","));
            let post = Post::from_whole(text.as_bytes()).unwrap();
            prop_assert_eq!((&*post.subdomain, &*post.txt, post.mistyped), (&*subdomain, &*txt, mistyped));
        }

        #[test]
        fn takes_what_serde_takes(text in r#"[\[\]{}",:0-9eE.+\-tfn \\u]{0,24}"#) {
            // serde also refuses numbers and surrogates that Go takes; whatever it takes is JSON.
            if serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok() {
                prop_assert!(Post::from_whole(text.as_bytes()).is_ok());
            }
        }

        #[test]
        fn never_panics(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Post::from_whole(&text);
            let _ = Post::from_first(&text);
        }

        #[test]
        fn never_panics_on_nearly_json(text in r#"\{("(subdomain|txt|allowfrom|username|\\u017f|\\ud800)?"?:?("|null|\[|5|\\)?,?){0,6}\}?"#) {
            let _ = Post::from_whole(text.as_bytes());
            let _ = Post::from_first(text.as_bytes());
        }
    }
}
