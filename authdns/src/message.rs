//! Queries as they come in: the header, the question, and a walk over the rest that finds the OPT record (RFC 1035, 4).

use crate::{
    edns::Edns,
    name::{MAX_LABEL, MAX_NAME},
    types::{Rcode, RecordType},
};

/// Length of the header of every message.
pub(crate) const HEADER: usize = 12;

/// QR: a response.
const FLAG_RESPONSE: u16 = 0x8000;
/// RD, which a response copies.
pub(crate) const FLAG_RECURSION_DESIRED: u16 = 0x0100;
/// CD, which a response copies (RFC 4035, 3.1.6).
pub(crate) const FLAG_CHECKING_DISABLED: u16 = 0x0010;
/// The opcode.
const OPCODE: u16 = 0x7800;

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
        let (&header, body) = message.split_first_chunk::<HEADER>()?;
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let flags = word(2);
        if flags & FLAG_RESPONSE != 0 {
            return None;
        }
        let mut query = Self { id: word(0), flags, question: None, edns: None, fault: None };
        query.fault = query.read_body(body, [word(4), word(6), word(8), word(10)]).err();
        Some(query)
    }

    fn read_body(&mut self, body: &'q [u8], [questions, answers, authorities, additionals]: [u16; 4]) -> Result<(), Rcode> {
        let unknown_opcode = self.flags & OPCODE != 0;
        let verdict = if unknown_opcode { Rcode::NotImp } else { Rcode::FormErr };
        if questions != 1 {
            return Err(verdict);
        }
        let mut reader = Reader { rest: body };
        self.question = Some(reader.question().ok_or(verdict)?);
        if unknown_opcode {
            return Err(verdict);
        }
        for section in [Some(answers), Some(authorities), None] {
            for _ in 0..section.unwrap_or(additionals) {
                let record = reader.record().ok_or(Rcode::FormErr)?;
                if record.rtype != RecordType::OPT {
                    continue;
                }
                // One OPT at most, in the additional section, at the root (RFC 6891, 6.1.1).
                if section.is_some() || self.edns.is_some() || !record.at_root {
                    return Err(Rcode::FormErr);
                }
                self.edns = Some(Edns::parse(record.class, record.ttl, record.rdata).ok_or(Rcode::FormErr)?);
            }
        }
        if reader.rest.is_empty() { Ok(()) } else { Err(Rcode::FormErr) }
    }
}

/// A record, as far as anyone here looks at it.
struct Record<'q> {
    at_root: bool,
    rtype: RecordType,
    class: u16,
    ttl: u32,
    rdata: &'q [u8],
}

struct Reader<'q> {
    rest: &'q [u8],
}

impl<'q> Reader<'q> {
    /// A question whose name is uncompressed: nothing stands before it that a pointer could mean.
    fn question(&mut self) -> Option<Question<'q>> {
        let (length, compressed) = name_extent(self.rest)?;
        if compressed {
            return None;
        }
        let (bytes, rest) = self.rest.split_at_checked(length + 4)?;
        self.rest = rest;
        let &[.., type_high, type_low, class_high, class_low] = bytes else { return None };
        Some(Question {
            bytes,
            rtype: RecordType(u16::from_be_bytes([type_high, type_low])),
            class: u16::from_be_bytes([class_high, class_low]),
        })
    }

    fn record(&mut self) -> Option<Record<'q>> {
        let (length, _) = name_extent(self.rest)?;
        let (name, rest) = self.rest.split_at_checked(length)?;
        let (head, rest) = rest.split_first_chunk::<10>()?;
        let (rdata, rest) = rest.split_at_checked(u16::from_be_bytes([head[8], head[9]]).into())?;
        self.rest = rest;
        Some(Record {
            at_root: name == [0],
            rtype: RecordType(u16::from_be_bytes([head[0], head[1]])),
            class: u16::from_be_bytes([head[2], head[3]]),
            ttl: u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
            rdata,
        })
    }
}

/// How many bytes the name at the start takes up there, and whether it ends in a compression pointer. `None`: it is no name.
fn name_extent(bytes: &[u8]) -> Option<(usize, bool)> {
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
