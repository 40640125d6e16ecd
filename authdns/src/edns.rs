//! EDNS(0): the OPT pseudo-record (RFC 6891).

use crate::types::{Rcode, RecordType};

/// The largest UDP message that is sent and announced: it fits in every path's MTU (RFC 9715, 3.1).
pub(crate) const UDP_PAYLOAD: u16 = 1232;
/// The largest UDP message for who does not speak EDNS, and the least that an announced size counts for (RFC 6891, 6.2.5).
pub(crate) const MIN_PAYLOAD: u16 = 512;
/// Length of the OPT record that this server writes.
pub(crate) const OPT_LENGTH: usize = 11;

/// What the OPT record of a query says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Edns {
    pub(crate) version: u8,
    /// DO: the client wants DNSSEC records (RFC 3225).
    pub(crate) dnssec_ok: bool,
    /// As announced.
    pub(crate) payload: u16,
}

impl Edns {
    /// Reads the fixed fields and the options of an OPT record. `None`: the options do not add up. (Those of another version may look
    /// otherwise, and BADVERS is the answer to it, whatever they hold: RFC 6891, 6.1.3.)
    pub(crate) fn parse(class: u16, ttl: u32, mut options: &[u8]) -> Option<Self> {
        let [_extended_rcode, version, flags, _] = ttl.to_be_bytes();
        while version == 0 && !options.is_empty() {
            let (head, rest) = options.split_first_chunk::<4>()?;
            options = rest.get(usize::from(u16::from_be_bytes([head[2], head[3]]))..)?;
        }
        Some(Self { version, dnssec_ok: flags & 0x80 != 0, payload: class })
    }

    /// The OPT record of a response.
    pub(crate) fn response(self, rcode: Rcode) -> [u8; OPT_LENGTH] {
        let [_, opt] = RecordType::OPT.0.to_be_bytes();
        let [size_high, size_low] = UDP_PAYLOAD.to_be_bytes();
        [0, 0, opt, size_high, size_low, rcode as u8 >> 4, 0, if self.dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]
    }
}

/// The largest UDP response to a query.
pub(crate) fn udp_limit(edns: Option<Edns>) -> usize {
    edns.map_or(MIN_PAYLOAD, |edns| edns.payload.clamp(MIN_PAYLOAD, UDP_PAYLOAD)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_to_add_up() {
        let plain = Edns { version: 0, dnssec_ok: false, payload: 4096 };
        assert_eq!(Edns::parse(4096, 0, &[]), Some(plain));
        assert_eq!(Edns::parse(4096, 0, &[0, 3, 0, 0, 255, 255, 0, 1, 9]), Some(plain));
        assert_eq!(Edns::parse(4096, 0, &[0, 3, 0]), None);
        assert_eq!(Edns::parse(4096, 0, &[0, 3, 0, 2, 1]), None);
        assert!(Edns::parse(4096, 0x0001_0000, &[0, 3, 0]).is_some());
        assert_eq!(Edns::parse(1, 0x0001_8000, &[]), Some(Edns { version: 1, dnssec_ok: true, payload: 1 }));
    }

    #[test]
    fn sizes_have_a_floor_and_a_cap() {
        let of = |payload| udp_limit(Some(Edns { version: 0, dnssec_ok: false, payload }));
        assert_eq!([udp_limit(None), of(0), of(511), of(513), of(1232), of(1233), of(65535)], [512, 512, 512, 513, 1232, 1232, 1232]);
    }
}
