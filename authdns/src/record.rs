//! Static records in master-file text.

use std::{fmt, net, str::FromStr};

use hickory_proto::serialize::binary::BinEncodable;

use crate::{
    name::{Name, NameError, unescape, wire_as_written},
    types::RecordType,
};

/// TTL of a record that gives none.
const DEFAULT_TTL: u32 = 3600;
/// Greatest TTL (RFC 2181, 8).
const MAX_TTL: u32 = i32::MAX as u32;

/// One record of a zone that an operator wrote: `owner [ttl] [IN] type rdata` on one line (RFC 1035, 5.1), TTL 3600 if none is given.
///
/// Names are absolute, with or without the last dot; the letter case of the RDATA is kept. RDATA of any type may be written as `\# length hex`
/// (RFC 3597). `Display` gives back a text that reads as the same record.
#[derive(Clone, Debug)]
pub struct StaticRecord {
    pub(crate) owner: Name,
    pub(crate) ttl: u32,
    pub(crate) rtype: RecordType,
    /// Uncompressed.
    pub(crate) rdata: Box<[u8]>,
    /// The RDATA as it was written.
    text: Box<str>,
}

/// Why a text is not a record that a zone can hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The first word is no name.
    #[error("the owner {0:?} is not a domain name: {1}")]
    Owner(String, NameError),
    /// A number in the place of the TTL that is none.
    #[error("the TTL {0} is not between 0 and 2147483647")]
    Ttl(String),
    /// A class other than IN.
    #[error("the class {0} is not served: only IN is")]
    Class(String),
    /// No type, or an unknown one.
    #[error("{0:?} is not a record type (write an unknown one as TYPE and its number, its data as \\# length hex)")]
    Type(String),
    /// A type whose records the server makes itself, or does not serve.
    #[error("{0} records cannot be written here: the server makes them itself or does not serve them")]
    Reserved(RecordType),
    /// RDATA that does not read as its type.
    #[error("the data of the {rtype} record is wrong: {reason}")]
    Data {
        /// The type.
        rtype: RecordType,
        /// What is wrong with the data.
        reason: String,
    },
    /// A quoted string without its end.
    #[error("a quoted string has no end")]
    OpenQuote,
}

impl StaticRecord {
    /// The owner name.
    pub fn owner(&self) -> &Name {
        &self.owner
    }

    /// The record type.
    pub fn record_type(&self) -> RecordType {
        self.rtype
    }
}

impl PartialEq for StaticRecord {
    /// Equal in what is served, however it was written.
    fn eq(&self, other: &Self) -> bool {
        (&self.owner, self.ttl, self.rtype, &self.rdata) == (&other.owner, other.ttl, other.rtype, &other.rdata)
    }
}

impl Eq for StaticRecord {}

impl fmt::Display for StaticRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.owner, self.ttl, self.rtype, self.text)
    }
}

impl FromStr for StaticRecord {
    type Err = RecordError;

    fn from_str(text: &str) -> Result<Self, RecordError> {
        let words = split(text)?;
        let mut rest = words.iter();
        let owner = rest.next().map_or("", |word| word.raw);
        let owner = owner.parse().map_err(|error| RecordError::Owner(owner.to_owned(), error))?;
        let (mut ttl, mut class) = (None, None);
        let rtype = loop {
            let word = rest.next().map_or("", |word| word.raw);
            if ttl.is_none() && word.starts_with(|c: char| c.is_ascii_digit()) {
                ttl = Some(word.parse().ok().filter(|&ttl| ttl <= MAX_TTL).ok_or_else(|| RecordError::Ttl(word.to_owned()))?);
            } else if class.is_none() && ["IN", "CH", "HS", "CS"].iter().any(|name| word.eq_ignore_ascii_case(name)) {
                class = Some(word);
            } else {
                break word.parse::<RecordType>().map_err(|_| RecordError::Type(word.to_owned()))?;
            }
        };
        if let Some(class) = class.filter(|class| !class.eq_ignore_ascii_case("IN")) {
            return Err(RecordError::Class(class.to_owned()));
        }
        if is_reserved(rtype) {
            return Err(RecordError::Reserved(rtype));
        }
        let fields = rest.as_slice();
        let rdata = parse_rdata(rtype, fields).map_err(|reason| RecordError::Data { rtype, reason })?;
        let text = fields.iter().map(|word| if word.quoted { format!("\"{}\"", word.raw) } else { word.raw.to_owned() });
        let text = text.collect::<Vec<_>>().join(" ").into();
        Ok(Self { owner, ttl: ttl.unwrap_or(DEFAULT_TTL), rtype, rdata: rdata.into(), text })
    }
}

/// The types that the server makes (SOA, DNSSEC), that belong to messages, or whose meaning it does not carry out (DNAME).
fn is_reserved(rtype: RecordType) -> bool {
    use RecordType as T;
    let made_here =
        matches!(rtype, T::SOA | T::SIG | T::KEY | T::RRSIG | T::NSEC | T::NSEC3 | T::NSEC3PARAM | T::DNSKEY | T::CDS | T::CDNSKEY);
    made_here || rtype == T::DNAME || rtype.is_meta()
}

/// One word of a record, escapes not yet undone.
#[derive(Debug, Clone, Copy)]
struct Word<'t> {
    raw: &'t str,
    quoted: bool,
}

/// Cuts a line into words at blanks, outside quotes and up to a comment. Parentheses only join lines, and are left out.
fn split(text: &str) -> Result<Vec<Word<'_>>, RecordError> {
    let mut words = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '(' || c == ')');
        let quoted = rest.starts_with('"');
        let body = if quoted { &rest[1..] } else { rest };
        if body.is_empty() && !quoted || rest.starts_with(';') {
            return Ok(words);
        }
        let mut escaped = false;
        let end = body.find(|c: char| {
            let ends = !escaped && if quoted { c == '"' } else { c.is_whitespace() || "();".contains(c) };
            escaped = !escaped && c == '\\';
            ends
        });
        if quoted && end.is_none() {
            return Err(RecordError::OpenQuote);
        }
        let (raw, tail) = body.split_at(end.unwrap_or(body.len()));
        words.push(Word { raw, quoted });
        rest = if quoted { &tail[1..] } else { tail };
    }
}

/// A piece of RDATA, as its text and its wire form correspond.
#[derive(Debug, Clone, Copy)]
enum Field {
    U8,
    U16,
    Ip4,
    Ip6,
    Name,
    /// A character-string (RFC 1035, 3.3).
    String,
    /// One or more character-strings, to the end.
    Strings,
    /// The tag of CAA: a length and letters or digits (RFC 8659, 4.1).
    Tag,
    /// Text to the end, without a length.
    Text,
    /// Hexadecimal to the end, blanks allowed.
    Hex,
}

/// The layout of a type's RDATA; `None`: not known here.
fn layout(rtype: RecordType) -> Option<&'static [Field]> {
    use Field::*;
    Some(match rtype {
        RecordType::A => &[Ip4],
        RecordType::AAAA => &[Ip6],
        RecordType::NS | RecordType::CNAME | RecordType::PTR => &[Name],
        RecordType::MX => &[U16, Name],
        RecordType::TXT | RecordType::SPF => &[Strings],
        RecordType::SRV => &[U16, U16, U16, Name],
        RecordType::CAA => &[U8, Tag, Text],
        RecordType::DS => &[U16, U8, U8, Hex],
        RecordType::TLSA | RecordType::SMIMEA => &[U8, U8, U8, Hex],
        RecordType::SSHFP => &[U8, U8, Hex],
        RecordType::HINFO => &[String, String],
        RecordType::RP => &[Name, Name],
        RecordType::NAPTR => &[U16, U16, String, String, String, Name],
        RecordType::URI => &[U16, U16, Text],
        _ => return None,
    })
}

fn parse_rdata(rtype: RecordType, words: &[Word<'_>]) -> Result<Vec<u8>, String> {
    let rdata = if let [Word { raw: r"\#", quoted: false }, length, hex @ ..] = words {
        let rdata = from_hex(hex)?;
        if length.raw.parse() != Ok(rdata.len()) {
            return Err(format!("the length {} is not that of the {} bytes that follow", length.raw, rdata.len()));
        }
        check_wire(rtype, &rdata)?;
        rdata
    } else if let Some(layout) = layout(rtype) {
        from_layout(layout, words)?
    } else if matches!(rtype, RecordType::SVCB | RecordType::HTTPS) {
        let text = words.iter().map(|word| word.raw).collect::<Vec<_>>().join(" ");
        let rdata = hickory_proto::rr::RData::try_from_str(rtype.0.into(), &text).map_err(|error| error.to_string())?;
        rdata.to_bytes().map_err(|error| error.to_string())?
    } else {
        return Err(r"the text form of this type is not known; write \# length hex".to_owned());
    };
    if rdata.len() > usize::from(u16::MAX) { Err("it is longer than 65535 bytes".to_owned()) } else { Ok(rdata) }
}

fn from_layout(layout: &[Field], mut words: &[Word<'_>]) -> Result<Vec<u8>, String> {
    let mut rdata = Vec::new();
    for field in layout {
        let (word, rest) = words.split_first().ok_or("it ends early")?;
        let raw = word.raw;
        let wrong = || format!("{raw:?} is not {}", field.wanted());
        match field {
            Field::U8 => rdata.push(raw.parse().map_err(|_| wrong())?),
            Field::U16 => rdata.extend(raw.parse::<u16>().map_err(|_| wrong())?.to_be_bytes()),
            Field::Ip4 => rdata.extend(raw.parse::<net::Ipv4Addr>().map_err(|_| wrong())?.octets()),
            Field::Ip6 => rdata.extend(raw.parse::<net::Ipv6Addr>().map_err(|_| wrong())?.octets()),
            Field::Name => rdata.extend(wire_as_written(raw).map_err(|error| format!("{raw:?} is not a domain name: {error}"))?),
            Field::String => push_string(&mut rdata, raw)?,
            Field::Tag if !raw.is_empty() && raw.bytes().all(|b| b.is_ascii_alphanumeric()) => push_string(&mut rdata, raw)?,
            Field::Tag => return Err(wrong()),
            Field::Text => rdata.extend(bytes_of(raw)?),
            Field::Strings => {
                for word in words {
                    push_string(&mut rdata, word.raw)?;
                }
                return Ok(rdata);
            }
            Field::Hex => {
                let bytes = from_hex(words)?;
                rdata.extend(bytes);
                return Ok(rdata);
            }
        }
        words = rest;
    }
    match words.first() {
        Some(word) => Err(format!("{:?} is too much", word.raw)),
        None => Ok(rdata),
    }
}

impl Field {
    fn wanted(self) -> &'static str {
        match self {
            Self::U8 => "a number from 0 to 255",
            Self::U16 => "a number from 0 to 65535",
            Self::Ip4 => "an IPv4 address",
            Self::Ip6 => "an IPv6 address",
            Self::Name => "a domain name",
            Self::Tag => "a tag of letters and digits",
            Self::Hex => "hexadecimal",
            Self::String | Self::Strings | Self::Text => "a text",
        }
    }
}

/// Checks wire bytes that were given in hexadecimal for a type whose names or lengths the server reads itself.
fn check_wire(rtype: RecordType, rdata: &[u8]) -> Result<(), String> {
    let Some(layout) = layout(rtype) else { return Ok(()) };
    let mut rest = rdata;
    for field in layout {
        let length = match field {
            Field::U8 => Some(1),
            Field::U16 => Some(2),
            Field::Ip4 => Some(4),
            Field::Ip6 => Some(16),
            Field::String | Field::Tag => rest.first().map(|&length| usize::from(length) + 1),
            Field::Name => name_length(rest),
            Field::Text | Field::Hex => Some(rest.len()),
            Field::Strings => strings_length(rest),
        };
        rest = length.and_then(|length| rest.get(length..)).ok_or("the bytes are not of this type")?;
    }
    if rest.is_empty() { Ok(()) } else { Err("the bytes are not of this type".to_owned()) }
}

/// Length of the uncompressed name that `wire` begins with.
fn name_length(wire: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let length @ 1.. = usize::from(*wire.get(at)?) {
        at += length + 1;
    }
    Name::from_wire(&wire[..=at]).is_ok().then_some(at + 1)
}

/// Length of `wire` if it is one or more whole character-strings.
fn strings_length(wire: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < wire.len() {
        at += usize::from(wire[at]) + 1;
    }
    (at == wire.len() && at > 0).then_some(at)
}

fn push_string(rdata: &mut Vec<u8>, raw: &str) -> Result<(), String> {
    let bytes = bytes_of(raw)?;
    let length = u8::try_from(bytes.len()).map_err(|_| "a string is longer than 255 bytes: write it as several".to_owned())?;
    rdata.push(length);
    rdata.extend(bytes);
    Ok(())
}

/// Undoes the escapes of a character-string (RFC 1035, 5.1).
fn bytes_of(raw: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.chars();
    while let Some(character) = rest.next() {
        match character {
            '\\' => bytes.push(unescape(&mut rest).map_err(|error| error.to_string())?),
            other => bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Ok(bytes)
}

fn from_hex(words: &[Word<'_>]) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = words
        .iter()
        .flat_map(|word| word.raw.chars())
        .map(|c| c.to_digit(16).map(|d| d as u8))
        .collect::<Option<_>>()
        .ok_or("it is not hexadecimal")?;
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err("the hexadecimal has an odd number of digits".to_owned());
    }
    Ok(pairs.map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(text: &str) -> StaticRecord {
        text.parse().expect(text)
    }

    fn rdata(text: &str) -> Vec<u8> {
        record(text).rdata.into_vec()
    }

    fn error(text: &str) -> String {
        text.parse::<StaticRecord>().expect_err(text).to_string()
    }

    #[test]
    fn records_read_and_write() {
        let one = record("ns1.Auth.example.org. 3600 A 198.51.100.1");
        assert_eq!(one.to_string(), "ns1.auth.example.org. 3600 A 198.51.100.1");
        assert_eq!(&*one.rdata, [198, 51, 100, 1]);
        for same in [
            "ns1.auth.example.org A 198.51.100.1",
            "ns1.auth.example.org. IN 3600 a 198.51.100.1 ; a comment",
            "  ns1.auth.example.org. 3600 in TYPE1 ( 198.51.100.1 )",
            r"ns1.auth.example.org. A \# 4 c6336401",
        ] {
            assert_eq!(record(same), one, "{same}");
            assert_eq!(record(&record(same).to_string()), one, "{same}");
        }
    }

    #[test]
    fn letter_case_of_rdata_is_kept() {
        assert_eq!(rdata("A.x CNAME Target.Example.Org"), b"\x06Target\x07Example\x03Org\0");
        assert_eq!(record("A.x TXT \"Ab C\" dE").to_string(), "a.x. 3600 TXT \"Ab C\" dE");
        assert_eq!(rdata("A.x TXT \"Ab C\" dE"), b"\x04Ab C\x02dE");
    }

    #[test]
    fn text_escapes_are_undone() {
        assert_eq!(rdata(r#"a.x TXT "a\"b\\c\200;" d\ e"#), b"\x07a\"b\\c\xc8;\x03d e");
        assert_eq!(rdata("a.x TXT \"\""), [0]);
        assert_eq!(rdata("a.x TXT ä"), [2, 0xc3, 0xa4]);
    }

    #[test]
    fn every_layout_has_its_wire_form() {
        assert_eq!(rdata("a.x AAAA 2001:db8::1"), "2001:db8::1".parse::<net::Ipv6Addr>().expect("address").octets());
        assert_eq!(rdata("a.x MX 10 mx.x"), b"\x00\x0a\x02mx\x01x\0");
        assert_eq!(rdata("a.x SRV 1 2 443 h.x"), b"\0\x01\0\x02\x01\xbb\x01h\x01x\0");
        assert_eq!(rdata("a.x CAA 0 issue \"ca.example; accounturi=x\""), b"\0\x05issueca.example; accounturi=x");
        assert_eq!(rdata("a.x DS 1 13 2 00FF 10"), [0, 1, 13, 2, 0, 255, 16]);
        assert_eq!(rdata("_443._tcp.a.x TLSA 3 1 1 abcd"), [3, 1, 1, 0xab, 0xcd]);
        assert_eq!(rdata("a.x HINFO RFC8482 \"\""), b"\x07RFC8482\0");
        assert_eq!(rdata("a.x NAPTR 1 2 s \"\" \"\" ."), b"\0\x01\0\x02\x01s\0\0\0");
        assert_eq!(rdata(r"a.x TYPE65280 \# 3 0a0b0c"), [10, 11, 12]);
        assert_eq!(rdata(r"a.x TYPE65280 \# 0"), []);
        assert_eq!(rdata("a.x HTTPS 1 . alpn=h2"), [0, 1, 0, 0, 1, 0, 3, 2, b'h', b'2']);
        assert_eq!(rdata("a.x HTTPS 1 . alpn=\"h2,h3\" port=8443"), b"\0\x01\0\0\x01\0\x06\x02h2\x02h3\0\x03\0\x02\x20\xfb");
    }

    #[test]
    fn errors_say_what_is_wrong() {
        assert_eq!(error(""), "the owner \"\" is not a domain name: a label is empty");
        assert_eq!(error("a.x"), "\"\" is not a record type (write an unknown one as TYPE and its number, its data as \\# length hex)");
        assert_eq!(error("a.x 2147483648 A 1.1.1.1"), "the TTL 2147483648 is not between 0 and 2147483647");
        assert_eq!(error("a.x CH TXT x"), "the class CH is not served: only IN is");
        assert_eq!(
            error("a.x SOA a b 1 2 3 4 5"),
            "SOA records cannot be written here: the server makes them itself or does not serve them"
        );
        assert_eq!(error("a.x A 1.1.1"), "the data of the A record is wrong: \"1.1.1\" is not an IPv4 address");
        assert_eq!(error("a.x A 1.1.1.1 2"), "the data of the A record is wrong: \"2\" is too much");
        assert_eq!(error("a.x MX 10"), "the data of the MX record is wrong: it ends early");
        assert_eq!(error("a.x TXT \"open"), "a quoted string has no end");
        assert_eq!(error(r"a.x A \# 3 010203"), "the data of the A record is wrong: the bytes are not of this type");
        assert_eq!(error(r"a.x A \# 4 010203"), "the data of the A record is wrong: the length 4 is not that of the 3 bytes that follow");
        assert_eq!(error(r"a.x NS \# 2 c000"), "the data of the NS record is wrong: the bytes are not of this type");
        for reserved in ["DNAME", "RRSIG", "DNSKEY", "OPT", "ANY", "AXFR", "TYPE0", "TYPE200"] {
            assert!(matches!(format!("a.x {reserved} x").parse::<StaticRecord>(), Err(RecordError::Reserved(_))), "{reserved}");
        }
    }

    proptest! {
        #[test]
        fn no_wire_bytes_panic(rtype in "A|AAAA|NS|MX|TXT|SRV|CAA|DS|TLSA|NAPTR|RP|URI|TYPE300", bytes in prop::collection::vec(0..70u8, 0..40)) {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            if let Ok(record) = format!(r"a.x {rtype} \# {} {hex}", bytes.len()).parse::<StaticRecord>() {
                prop_assert_eq!(&*record.rdata, &bytes);
                prop_assert!(crate::rrset::Rrset::new(record.rtype).push(record.ttl, &record.rdata));
            }
        }

        #[test]
        fn no_text_panics_and_display_reads_back(head in "[a-c]\\.x (60 )?(IN )?(A|TXT|MX|CAA|NS|DS|HTTPS|TYPE300)", tail in r#"[ -~ä]{0,40}"#) {
            if let Ok(record) = format!("{head} {tail}").parse::<StaticRecord>() {
                prop_assert_eq!(StaticRecord::from_str(&record.to_string()), Ok(record));
            }
            let _ = tail.parse::<StaticRecord>();
        }
    }
}
