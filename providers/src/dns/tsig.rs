//! Transaction signatures (RFC 8945): a request is signed with a shared key, and so is its answer.

use authdns::Name;
use aws_lc_rs::hmac as aws;
use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::Md5;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::message::{ANY, Record, TSIG, push};
use crate::Error;

/// How far the clocks may differ, in seconds (RFC 8945, 10).
pub(crate) const FUDGE: u16 = 300;
/// Where the header says how many additional records there are.
const ADDITIONAL: std::ops::Range<usize> = 10..12;
/// Largest key: a longer one is no key.
const MOST_KEY: usize = 1024;

/// What a message is signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum Algorithm {
    /// HMAC-MD5: for servers that know nothing better.
    #[serde(rename = "hmac-md5", alias = "hmac-md5.sig-alg.reg.int")]
    Md5,
    /// HMAC-SHA-1.
    #[serde(rename = "hmac-sha1")]
    Sha1,
    /// HMAC-SHA-224.
    #[serde(rename = "hmac-sha224")]
    Sha224,
    /// HMAC-SHA-256.
    #[default]
    #[serde(rename = "hmac-sha256")]
    Sha256,
    /// HMAC-SHA-384.
    #[serde(rename = "hmac-sha384")]
    Sha384,
    /// HMAC-SHA-512.
    #[serde(rename = "hmac-sha512")]
    Sha512,
}

impl Algorithm {
    /// The algorithm's name, uncompressed (RFC 8945, 6).
    fn wire(self) -> &'static [u8] {
        match self {
            Self::Md5 => b"\x08hmac-md5\x07sig-alg\x03reg\x03int\x00",
            Self::Sha1 => b"\x09hmac-sha1\x00",
            Self::Sha224 => b"\x0bhmac-sha224\x00",
            Self::Sha256 => b"\x0bhmac-sha256\x00",
            Self::Sha384 => b"\x0bhmac-sha384\x00",
            Self::Sha512 => b"\x0bhmac-sha512\x00",
        }
    }
}

impl std::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Md5 => "hmac-md5",
            Self::Sha1 => "hmac-sha1",
            Self::Sha224 => "hmac-sha224",
            Self::Sha256 => "hmac-sha256",
            Self::Sha384 => "hmac-sha384",
            Self::Sha512 => "hmac-sha512",
        })
    }
}

/// A shared key. It does not print its secret.
pub(crate) struct Key {
    name: Name,
    algorithm: Algorithm,
    secret: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({} {})", self.name, self.algorithm)
    }
}

/// Why an answer is not taken as the server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The server knows no key of this name and algorithm (BADKEY).
    UnknownKey,
    /// The server computes another signature: the keys differ (BADSIG).
    OtherKey,
    /// The server's clock is ahead of this one's (BADTIME).
    ServerAhead,
    /// The server's clock is behind this one's (BADTIME).
    ServerBehind,
    /// Another error in the signature's own error field.
    Other(u16),
    /// The answer's signature is malformed, wrong or old: it may not be the server's answer.
    Forged,
}

impl Failure {
    /// The error, with what a person has to look at.
    pub(crate) fn explained(self, key: &Key) -> Error {
        let (name, algorithm) = (key.name.to_relative_string(), key.algorithm);
        let clock = |way| {
            format!("the server's clock is {way} this machine's by more than {FUDGE} s (BADTIME): set both clocks, for example by NTP")
        };
        match self {
            Self::UnknownKey => Error::Auth(format!(
                "the server knows no TSIG key {name} with {algorithm}, or none that may do this here (BADKEY): compare name and algorithm with its configuration, and allow the key there"
            )),
            Self::OtherKey => {
                Error::Auth(format!("the server's TSIG key {name} has another secret (BADSIG): compare it with the server's configuration"))
            }
            Self::ServerAhead => Error::Auth(clock("ahead of")),
            Self::ServerBehind => Error::Auth(clock("behind")),
            Self::Other(code) => Error::Auth(format!("the server does not take signatures of the TSIG key {name} (error {code})")),
            Self::Forged => Error::Transport(format!("the answer is not signed as the TSIG key {name} signs: it may not be the server's")),
        }
    }
}

impl Key {
    /// A key.
    ///
    /// `None` if it is empty or too long to be one.
    pub(crate) fn new(name: Name, algorithm: Algorithm, secret: Zeroizing<Vec<u8>>) -> Option<Self> {
        (1..=MOST_KEY).contains(&secret.len()).then_some(Self { name, algorithm, secret })
    }

    /// Signs a message at `now` (seconds since 1970): appends the record (4.2) and gives the signature, which the answer is signed with as well.
    pub(crate) fn sign(&self, message: &mut Vec<u8>, now: u64) -> Vec<u8> {
        let id = message.get(..2).map(<[u8]>::to_vec).unwrap_or_default();
        let stamp = Stamp { time: now, fudge: FUDGE, error: 0, other: &[] };
        let mac = self.mac(&[message, &self.variables(&stamp)]);
        if let Some(count) = message.get_mut(ADDITIONAL)
            && let Ok(bytes) = <[u8; 2]>::try_from(&*count)
        {
            count.copy_from_slice(&u16::from_be_bytes(bytes).saturating_add(1).to_be_bytes());
        }
        let mut data = self.algorithm.wire().to_vec();
        data.extend_from_slice(&time(now));
        push(&mut data, &[FUDGE, mac.len() as u16]);
        data.extend_from_slice(&mac);
        data.extend_from_slice(&id);
        push(&mut data, &[0, 0]);
        message.extend_from_slice(self.name.as_wire());
        push(message, &[TSIG, ANY, 0, 0, data.len() as u16]);
        message.extend_from_slice(&data);
        mac
    }

    /// Checks the signature of an answer to a message that was signed with `request`. `at` is where the answer's TSIG record begins.
    ///
    /// # Errors
    /// [`Failure`]. What the server says of its failure to check ours is taken without a signature, as it cannot have one (5.3.2).
    pub(crate) fn verify(&self, request: &[u8], answer: &[u8], record: &Record, at: usize, now: u64) -> Result<(), Failure> {
        let data = Data::parse(&record.data).ok_or(Failure::Forged)?;
        match data.error {
            16 => return Err(Failure::OtherKey),
            17 => return Err(Failure::UnknownKey),
            _ => {}
        }
        let named = record.owner == self.name && data.algorithm.eq_ignore_ascii_case(self.algorithm.wire());
        if !named || record.class != ANY || record.ttl != 0 {
            return Err(Failure::Forged);
        }
        // As it was before it was signed: the original id, and one record less.
        let mut unsigned = answer.get(..at).ok_or(Failure::Forged)?.to_vec();
        let count = unsigned.get_mut(ADDITIONAL).ok_or(Failure::Forged)?;
        let before = <[u8; 2]>::try_from(&*count).map(u16::from_be_bytes).map_err(|_| Failure::Forged)?;
        let additional = before.checked_sub(1).ok_or(Failure::Forged)?;
        count.copy_from_slice(&additional.to_be_bytes());
        unsigned.get_mut(..2).ok_or(Failure::Forged)?.copy_from_slice(data.original_id);
        let stamp = Stamp { time: data.time, fudge: data.fudge, error: data.error, other: data.other };
        let length = u16::try_from(request.len()).unwrap_or_default().to_be_bytes();
        let expected = self.mac(&[&length, request, &unsigned, &self.variables(&stamp)]);
        if aws_lc_rs::constant_time::verify_slices_are_equal(&expected, data.mac).is_err() {
            return Err(Failure::Forged);
        }
        match data.error {
            0 if data.time.abs_diff(now) > u64::from(FUDGE.max(data.fudge)) => Err(Failure::Forged),
            0 => Ok(()),
            18 => match data.other.try_into().map(seconds) {
                Ok(server) if server < now => Err(Failure::ServerBehind),
                _ => Err(Failure::ServerAhead),
            },
            error => Err(Failure::Other(error)),
        }
    }

    /// What is signed beside the message (4.3.3).
    fn variables(&self, stamp: &Stamp<'_>) -> Vec<u8> {
        let mut variables = self.name.as_wire().to_vec();
        push(&mut variables, &[ANY, 0, 0]);
        variables.extend_from_slice(self.algorithm.wire());
        variables.extend_from_slice(&time(stamp.time));
        push(&mut variables, &[stamp.fudge, stamp.error, stamp.other.len() as u16]);
        variables.extend_from_slice(stamp.other);
        variables
    }

    fn mac(&self, parts: &[&[u8]]) -> Vec<u8> {
        let algorithm = match self.algorithm {
            Algorithm::Md5 => return md5(&self.secret, parts),
            Algorithm::Sha1 => aws::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Algorithm::Sha224 => aws::HMAC_SHA224,
            Algorithm::Sha256 => aws::HMAC_SHA256,
            Algorithm::Sha384 => aws::HMAC_SHA384,
            Algorithm::Sha512 => aws::HMAC_SHA512,
        };
        let mut context = aws::Context::with_key(&aws::Key::new(algorithm, &self.secret));
        parts.iter().for_each(|part| context.update(part));
        context.sign().as_ref().to_vec()
    }
}

/// The one algorithm that aws-lc-rs does not have.
fn md5(secret: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    // A key of any length is taken (RFC 2104, 2).
    let Ok(mut context) = Hmac::<Md5>::new_from_slice(secret) else { return Vec::new() };
    parts.iter().for_each(|part| context.update(part));
    context.finalize().into_bytes().to_vec()
}

struct Stamp<'a> {
    time: u64,
    fudge: u16,
    error: u16,
    other: &'a [u8],
}

/// The data of a TSIG record (4.2).
struct Data<'a> {
    algorithm: &'a [u8],
    time: u64,
    fudge: u16,
    mac: &'a [u8],
    original_id: &'a [u8],
    error: u16,
    other: &'a [u8],
}

impl<'a> Data<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut end = 0;
        while let length @ 1..=63 = *bytes.get(end)? {
            end += usize::from(length) + 1;
        }
        let (algorithm, rest) = bytes.split_at_checked(end + 1)?;
        let (time, rest) = rest.split_first_chunk::<6>()?;
        let (fudge, rest) = rest.split_first_chunk::<2>()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (mac, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        let (original_id, rest) = rest.split_at_checked(2)?;
        let (error, rest) = rest.split_first_chunk::<2>()?;
        let (length, other) = rest.split_first_chunk::<2>()?;
        let whole = other.len() == usize::from(u16::from_be_bytes(*length));
        let (time, fudge, error) = (seconds(*time), u16::from_be_bytes(*fudge), u16::from_be_bytes(*error));
        whole.then_some(Self { algorithm, time, fudge, mac, original_id, error, other })
    }
}

/// Seconds in 48 bits.
fn time(seconds: u64) -> [u8; 6] {
    let [_, _, time @ ..] = seconds.to_be_bytes();
    time
}

fn seconds(time: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = time;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::message::{Answer, TXT, query};

    const NOW: u64 = 1_700_000_000;
    const ALL: [Algorithm; 6] =
        [Algorithm::Md5, Algorithm::Sha1, Algorithm::Sha224, Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512];

    fn key(name: &str, algorithm: Algorithm, secret: &[u8]) -> Key {
        Key::new(name.parse().expect(name), algorithm, Zeroizing::new(secret.to_vec())).expect("a key")
    }

    /// An answer, signed as a server does: with the request's signature before the message.
    fn answered(key: &Key, request: &[u8], stamp: &Stamp<'_>) -> Vec<u8> {
        let mut message = query(&"example.com".parse().expect("a name"), TXT, false);
        message[2] |= 0x80;
        let length = (request.len() as u16).to_be_bytes();
        let mac = key.mac(&[&length, request, &message, &key.variables(stamp)]);
        message[11] += 1;
        let mut data = key.algorithm.wire().to_vec();
        data.extend_from_slice(&time(stamp.time));
        push(&mut data, &[stamp.fudge, mac.len() as u16]);
        data.extend_from_slice(&mac);
        push(&mut data, &[0, stamp.error, stamp.other.len() as u16]);
        data.extend_from_slice(stamp.other);
        message.extend_from_slice(key.name.as_wire());
        push(&mut message, &[TSIG, ANY, 0, 0, data.len() as u16]);
        message.extend_from_slice(&data);
        message
    }

    fn verified(key: &Key, request: &[u8], message: &[u8], now: u64) -> Result<(), Failure> {
        let (record, at) = Answer::parse(message).expect("a message").tsig.expect("a signature");
        key.verify(request, message, &record, at, now)
    }

    #[test]
    fn an_answer_is_taken_only_from_who_has_the_key_and_to_what_was_asked() {
        for algorithm in ALL {
            let key = key("k.example", algorithm, b"secret");
            let mut asked = query(&"example.com".parse().expect("a name"), TXT, false);
            let mac = key.sign(&mut asked, NOW);
            let good = answered(&key, &mac, &Stamp { time: NOW + 299, fudge: FUDGE, error: 0, other: &[] });
            assert_eq!(verified(&key, &mac, &good, NOW), Ok(()), "{algorithm}");
            assert_eq!(verified(&key, b"another request", &good, NOW), Err(Failure::Forged));
            assert_eq!(verified(&key, &mac, &good, NOW - 10), Err(Failure::Forged), "signed at another time");
            assert_eq!(verified(&self::key("k.example", algorithm, b"other"), &mac, &good, NOW), Err(Failure::Forged));
            let mut touched = good.clone();
            touched[3] ^= 1;
            assert_eq!(verified(&key, &mac, &touched, NOW), Err(Failure::Forged), "another response code");
        }
    }

    #[test]
    fn a_server_with_another_clock_says_which_way() {
        let key = key("k.example", Algorithm::Sha256, b"secret");
        for (server, failure) in [(NOW + 1000, Failure::ServerAhead), (NOW - 1000, Failure::ServerBehind)] {
            let message = answered(&key, b"mac", &Stamp { time: NOW, fudge: FUDGE, error: 18, other: &time(server) });
            assert_eq!(verified(&key, b"mac", &message, NOW), Err(failure));
        }
    }

    #[test]
    fn known_signatures() {
        // RFC 2202, 2 and 3, and RFC 4231, 4.3: key "Jefe".
        let text: &[&[u8]] = &[b"what do ya ", b"want for nothing?"];
        for (algorithm, expected) in [
            (Algorithm::Md5, "750c783e6ab0b503eaa86e310a5db738"),
            (Algorithm::Sha1, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
            (Algorithm::Sha224, "a30e01098bc6dbbf45690f3a7e9e6d0f8bbea2a39e6148008fd05e44"),
            (Algorithm::Sha256, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        ] {
            let mac = key("k", algorithm, b"Jefe").mac(text);
            assert_eq!(data_encoding::HEXLOWER.encode(&mac), expected, "{algorithm}");
        }
    }

    #[test]
    fn the_secret_is_not_printed() {
        let key = key("k.example", Algorithm::Sha256, b"hunter2");
        assert_eq!(format!("{key:?}"), "Key(k.example. hmac-sha256)");
        assert!(Key::new("k".parse().expect("a name"), Algorithm::Md5, Zeroizing::default()).is_none(), "an empty key is none");
    }
}
