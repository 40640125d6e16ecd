//! The numbers of the protocol: record types, response codes, classes and opcodes (IANA, "Domain Name System (DNS) Parameters").

use std::{fmt, str::FromStr};

/// A record type: RR TYPE or QTYPE (RFC 1035, 3.2.2 and 3.2.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordType(pub u16);

/// Declares the constants and the mnemonics of the types that have a name here.
macro_rules! record_types {
    ($($name:ident = $code:literal,)*) => {
        #[allow(missing_docs, reason = "the mnemonics of the IANA registry say what they are")]
        impl RecordType {
            $(pub const $name: Self = Self($code);)*

            fn mnemonic(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some(stringify!($name)),)*
                    _ => None,
                }
            }

            fn from_mnemonic(text: &str) -> Option<Self> {
                $(if text.eq_ignore_ascii_case(stringify!($name)) {
                    return Some(Self::$name);
                })*
                None
            }
        }
    };
}

record_types! {
    A = 1, NS = 2, CNAME = 5, SOA = 6, PTR = 12, HINFO = 13, MX = 15, TXT = 16, RP = 17, SIG = 24, KEY = 25, AAAA = 28, SRV = 33, NAPTR = 35,
    DNAME = 39, OPT = 41, DS = 43, SSHFP = 44, RRSIG = 46, NSEC = 47, DNSKEY = 48, NSEC3 = 50, NSEC3PARAM = 51, TLSA = 52, SMIMEA = 53,
    CDS = 59, CDNSKEY = 60, SVCB = 64, HTTPS = 65, SPF = 99, TKEY = 249, TSIG = 250, IXFR = 251, AXFR = 252, MAILB = 253, MAILA = 254,
    ANY = 255, URI = 256, CAA = 257,
}

impl RecordType {
    /// True for the types that only queries carry, or that speak of the message and not of a name (RFC 6895, 3.1): no zone holds them.
    pub fn is_meta(self) -> bool {
        matches!(self.0, 0 | 41 | 128..=255)
    }
}

impl FromStr for RecordType {
    type Err = UnknownType;

    /// Reads a mnemonic in any letter case, or `TYPE` and a number (RFC 3597, 5).
    fn from_str(text: &str) -> Result<Self, UnknownType> {
        if let Some(known) = Self::from_mnemonic(text) {
            return Ok(known);
        }
        let number = text.get(..4).filter(|head| head.eq_ignore_ascii_case("TYPE")).and_then(|_| text.get(4..));
        number.filter(|n| n.bytes().all(|b| b.is_ascii_digit())).and_then(|n| n.parse().ok()).map(Self).ok_or(UnknownType)
    }
}

/// The text is no record type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a record type (write an unknown one as TYPE and its number)")]
pub struct UnknownType;

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mnemonic() {
            Some(name) => f.write_str(name),
            None => write!(f, "TYPE{}", self.0),
        }
    }
}

impl fmt::Debug for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a response says about the query (RFC 1035, 4.1.1; RFC 6891, 9): the codes that this server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Rcode {
    /// Answered, with or without data.
    NoError = 0,
    /// The query cannot be read.
    FormErr = 1,
    /// The server failed.
    ServFail = 2,
    /// The name does not exist, nor anything below it (RFC 8020).
    NxDomain = 3,
    /// This kind of query is not served.
    NotImp = 4,
    /// Not for this server: a foreign zone, another class, a transfer.
    Refused = 5,
    /// The query is signed with a key that is not known here (RFC 8945, 5.2).
    NotAuth = 9,
    /// An EDNS version other than 0; the only one here that needs the OPT record's upper bits (RFC 6891, 6.1.3).
    BadVers = 16,
}

impl Rcode {
    /// Every code that this server sends.
    pub const ALL: [Self; 8] =
        [Self::NoError, Self::FormErr, Self::ServFail, Self::NxDomain, Self::NotImp, Self::Refused, Self::NotAuth, Self::BadVers];

    /// The mnemonic of the IANA registry, in capitals.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoError => "NOERROR",
            Self::FormErr => "FORMERR",
            Self::ServFail => "SERVFAIL",
            Self::NxDomain => "NXDOMAIN",
            Self::NotImp => "NOTIMP",
            Self::Refused => "REFUSED",
            Self::NotAuth => "NOTAUTH",
            Self::BadVers => "BADVERS",
        }
    }
}

impl fmt::Display for Rcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The Internet: the only class that is served.
pub(crate) const CLASS_IN: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_read_and_write_their_names() {
        assert_eq!("txt".parse(), Ok(RecordType::TXT));
        assert_eq!("TYPE16".parse(), Ok(RecordType::TXT));
        assert_eq!("type65280".parse(), Ok(RecordType(65280)));
        assert_eq!(RecordType(65280).to_string(), "TYPE65280");
        assert_eq!(RecordType::CAA.to_string(), "CAA");
        for wrong in ["", "TYPE", "TYPE65536", "TYPE+1", "TYPEx", "NOPE", "TÿPE1"] {
            assert_eq!(wrong.parse::<RecordType>(), Err(UnknownType), "{wrong}");
        }
    }

    #[test]
    fn meta_types_are_known() {
        assert!(RecordType::ANY.is_meta() && RecordType::OPT.is_meta() && RecordType::TSIG.is_meta() && RecordType(0).is_meta());
        assert!(!RecordType::TXT.is_meta() && !RecordType::CAA.is_meta() && !RecordType(65280).is_meta());
    }
}
