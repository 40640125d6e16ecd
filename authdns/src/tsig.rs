//! Signed queries (RFC 8945). No key is known here yet, and a client that signs has to be told so rather than answered as if it had not.

use crate::types::RecordType;

/// The extended error "key not recognised" (RFC 8945, 3).
const BADKEY: u16 = 17;
/// TSIG records have class ANY (RFC 8945, 4.2).
const CLASS_ANY: u16 = 255;

/// The TSIG record at the end of a query (RFC 8945, 4.2).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tsig<'q> {
    /// The name of the key, uncompressed.
    key: &'q [u8],
    /// The name of the algorithm, uncompressed.
    algorithm: &'q [u8],
    /// The time signed and the fudge.
    time: [u8; 8],
    original_id: [u8; 2],
}

impl<'q> Tsig<'q> {
    /// Reads a record, its owner being uncompressed. `None`: it is malformed.
    pub(crate) fn parse(key: &'q [u8], class: u16, ttl: u32, rdata: &'q [u8]) -> Option<Self> {
        let (length, compressed) = crate::message::name_extent(rdata)?;
        let (algorithm, rest) = rdata.split_at_checked(length)?;
        let (&time, rest) = rest.split_first_chunk::<8>()?;
        let (&mac, rest) = rest.split_first_chunk::<2>()?;
        let rest = rest.get(u16::from_be_bytes(mac).into()..)?;
        let (&[id_high, id_low, _, _, other_high, other_low], other) = rest.split_first_chunk::<6>()?;
        let whole = other.len() == usize::from(u16::from_be_bytes([other_high, other_low]));
        let sound = class == CLASS_ANY && ttl == 0 && !compressed && whole;
        sound.then_some(Self { key, algorithm, time, original_id: [id_high, id_low] })
    }

    /// The record of the response that says that the key is unknown; it is not signed (RFC 8945, 5.2.1).
    pub(crate) fn unknown_key(&self) -> Vec<u8> {
        let mut record = self.key.to_vec();
        for word in [RecordType::TSIG.0, CLASS_ANY, 0, 0, (self.algorithm.len() + 16) as u16] {
            record.extend_from_slice(&word.to_be_bytes());
        }
        record.extend_from_slice(self.algorithm);
        record.extend_from_slice(&self.time);
        record.extend_from_slice(&[0, 0]);
        record.extend_from_slice(&self.original_id);
        record.extend_from_slice(&BADKEY.to_be_bytes());
        record.extend_from_slice(&[0, 0]);
        record
    }
}
