//! Queries as they come in: the header, the question, and a walk over the rest that finds the OPT and TSIG records (RFC 1035, 4).
//!
//! Other records of a query have no meaning here: they have to be whole, and nobody looks into them.

use crate::{
    edns::Edns,
    name::{MAX_LABEL, MAX_NAME},
    tsig::Tsig,
    types::{Rcode, RecordType},
};

/// Length of the header of every message.
pub(crate) const HEADER: usize = 12;

/// QR: a response.
pub(crate) const FLAG_RESPONSE: u16 = 0x8000;
/// The opcode, which a response copies.
pub(crate) const OPCODE: u16 = 0x7800;

/// A message that asks for a response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Query<'q> {
    pub(crate) id: u16,
    /// The second word of the header, as it came.
    pub(crate) flags: u16,
    /// The question, if there is exactly one and it can be read.
    pub(crate) question: Option<Question<'q>>,
    /// The OPT record, if it was read.
    pub(crate) edns: Option<Edns>,
    /// The TSIG record, if there is one.
    pub(crate) tsig: Option<Tsig<'q>>,
    /// Why the query cannot be answered, seen from its form alone.
    pub(crate) fault: Option<Rcode>,
}

/// The one question of a query.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'q> {
    /// Name, type and class as they were sent; the name is uncompressed.
    pub(crate) bytes: &'q [u8],
    pub(crate) rtype: RecordType,
    pub(crate) class: u16,
}

impl<'q> Question<'q> {
    /// The name in the letter case that was sent.
    pub(crate) fn name(&self) -> &'q [u8] {
        &self.bytes[..self.bytes.len() - 4]
    }
}

impl<'q> Query<'q> {
    /// Reads a message. `None`: it deserves no response, being too short for a header or a response itself.
    pub(crate) fn parse(message: &'q [u8]) -> Option<Self> {
        let (&header, _) = message.split_first_chunk::<HEADER>()?;
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let flags = word(2);
        if flags & FLAG_RESPONSE != 0 {
            return None;
        }
        let mut query = Self { id: word(0), flags, question: None, edns: None, tsig: None, fault: None };
        let counts = [word(4), word(6), word(8), word(10)];
        let read = query.read_body(Reader { message, at: HEADER }, counts);
        query.fault = if flags & OPCODE != 0 { Some(Rcode::NotImp) } else { read.err() };
        Some(query)
    }

    /// The opcode; 0 is QUERY.
    pub(crate) fn opcode(&self) -> u8 {
        ((self.flags & OPCODE) >> 11) as u8
    }

    /// Reads what follows the header. On an error, what was read until then stays: a response repeats it.
    fn read_body(&mut self, mut reader: Reader<'q>, [questions, answers, authorities, additionals]: [u16; 4]) -> Result<(), Rcode> {
        // QDCOUNT is 1 in every query (RFC 9619, 4); without any question the OPT record can still be found.
        if questions > 1 {
            return Err(Rcode::FormErr);
        }
        if questions == 1 {
            self.question = Some(reader.question().ok_or(Rcode::FormErr)?);
        }
        for _ in 0..u32::from(answers) + u32::from(authorities) {
            let record = reader.record().ok_or(Rcode::FormErr)?;
            if matches!(record.rtype, RecordType::OPT | RecordType::TSIG) {
                return Err(Rcode::FormErr);
            }
        }
        for _ in 0..additionals {
            let record = reader.record().ok_or(Rcode::FormErr)?;
            // TSIG is the last record (RFC 8945, 5.1).
            if self.tsig.is_some() {
                return Err(Rcode::FormErr);
            }
            self.read_additional(&record).ok_or(Rcode::FormErr)?;
        }
        if reader.at == reader.message.len() && self.question.is_some() { Ok(()) } else { Err(Rcode::FormErr) }
    }

    fn read_additional(&mut self, record: &Record<'q>) -> Option<()> {
        match record.rtype {
            // One OPT at most, at the root (RFC 6891, 6.1.1).
            RecordType::OPT if self.edns.is_some() || record.owner != [0] => return None,
            RecordType::OPT => self.edns = Some(Edns::parse(record.class, record.ttl, record.rdata)?),
            RecordType::TSIG if record.is_compressed => return None,
            RecordType::TSIG => self.tsig = Some(Tsig::parse(record.owner, record.class, record.ttl, record.rdata)?),
            _ => {}
        }
        Some(())
    }
}

/// A record, as far as anyone here looks at it.
struct Record<'q> {
    owner: &'q [u8],
    is_compressed: bool,
    rtype: RecordType,
    class: u16,
    ttl: u32,
    rdata: &'q [u8],
}

struct Reader<'q> {
    message: &'q [u8],
    at: usize,
}

impl<'q> Reader<'q> {
    /// A question whose name is uncompressed: nothing stands before it that a pointer could mean.
    fn question(&mut self) -> Option<Question<'q>> {
        let (length, is_compressed) = name_extent(self.rest()?)?;
        let bytes = self.take(length + 4).filter(|_| !is_compressed)?;
        let &[.., type_high, type_low, class_high, class_low] = bytes else { return None };
        Some(Question {
            bytes,
            rtype: RecordType(u16::from_be_bytes([type_high, type_low])),
            class: u16::from_be_bytes([class_high, class_low]),
        })
    }

    fn record(&mut self) -> Option<Record<'q>> {
        let start = self.at;
        let (length, is_compressed) = name_extent(self.rest()?)?;
        let owner = self.take(length)?;
        if let &[.., high, low] = owner
            && is_compressed
        {
            // A pointer means a name that stands before (RFC 1035, 4.1.4).
            let target = usize::from(u16::from_be_bytes([high & 0x3f, low]));
            if !(HEADER..start).contains(&target) {
                return None;
            }
        }
        let (head, _) = self.take(10)?.split_first_chunk::<10>()?;
        Some(Record {
            owner,
            is_compressed,
            rtype: RecordType(u16::from_be_bytes([head[0], head[1]])),
            class: u16::from_be_bytes([head[2], head[3]]),
            ttl: u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
            rdata: self.take(u16::from_be_bytes([head[8], head[9]]).into())?,
        })
    }

    fn rest(&self) -> Option<&'q [u8]> {
        self.message.get(self.at..)
    }

    fn take(&mut self, length: usize) -> Option<&'q [u8]> {
        let bytes = self.rest()?.get(..length)?;
        self.at += length;
        Some(bytes)
    }
}

/// How many bytes the name at the start takes up there, and whether it ends in a compression pointer. `None`: it is no name.
pub(crate) fn name_extent(bytes: &[u8]) -> Option<(usize, bool)> {
    let mut at = 0;
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        match length {
            0 => return (at <= MAX_NAME).then_some((at, false)),
            1..=MAX_LABEL => at += length,
            0xc0.. => return (at < MAX_NAME && at < bytes.len()).then_some((at + 1, true)),
            _ => return None,
        }
    }
}
