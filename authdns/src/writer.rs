//! Responses as they go out: records appended in wire form, names compressed against the question, and a size that is never passed.

use crate::{
    message::{HEADER, Question},
    name::suffixes,
    types::{CLASS_IN, RecordType},
    zone::{Data, Set},
};

/// A pointer to the name of the question, which always stands right behind the header.
const QUESTION_POINTER: u16 = 0xc000 | HEADER as u16;

/// Writes one response at the end of a buffer. What does not fit in the limit is not written at all.
pub(crate) struct Writer<'o, 'q> {
    out: &'o mut Vec<u8>,
    /// Where the message begins.
    start: usize,
    /// Length of the message that must not be passed.
    limit: usize,
    /// The question's name, as sent; empty if there is none.
    name: &'q [u8],
}

impl<'o, 'q> Writer<'o, 'q> {
    /// Writes the header, whose counts are set at the end, and the question.
    pub(crate) fn new(out: &'o mut Vec<u8>, limit: usize, id: u16, flags: u16, question: Option<Question<'q>>) -> Self {
        let start = out.len();
        let mut header = [0; HEADER];
        header[..2].copy_from_slice(&id.to_be_bytes());
        header[2..4].copy_from_slice(&flags.to_be_bytes());
        header[5] = question.is_some().into();
        out.extend_from_slice(&header);
        if let Some(question) = &question {
            out.extend_from_slice(question.bytes);
        }
        Self { out, start, limit, name: question.map_or(&[], |question| question.name()) }
    }

    /// Keeps `length` bytes free at the end of the message.
    pub(crate) fn reserve(&mut self, length: usize) {
        self.limit = self.limit.saturating_sub(length);
    }

    /// Whether `length` more bytes fit, besides those that are reserved.
    pub(crate) fn has_room(&self, length: usize) -> bool {
        self.length() + length <= self.limit
    }

    /// Writes all records of a set, or none of them. `None`: they do not fit; else their number.
    pub(crate) fn set(&mut self, set: &Set<'_>) -> Option<u16> {
        let mark = self.out.len();
        let written = if let Data::Soa(_) = &set.data { self.soa(set) } else { self.records(set) };
        if written.is_none() || !self.has_room(0) {
            self.out.truncate(mark);
            return None;
        }
        written
    }

    /// Writes bytes that are a record already, and whose room is known to be there.
    pub(crate) fn raw(&mut self, record: &[u8]) {
        self.out.extend_from_slice(record);
    }

    /// Sets the counts of the answer, authority and additional sections.
    pub(crate) fn counts(&mut self, counts: [u16; 3]) {
        for (index, count) in counts.into_iter().enumerate() {
            self.patch(6 + 2 * index, count);
        }
    }

    /// Sets bits in the second word of the header.
    pub(crate) fn flag(&mut self, bits: u16) {
        let at = self.start + 2;
        if let Some(&[high, low]) = self.out.get(at..at + 2) {
            self.patch(2, u16::from_be_bytes([high, low]) | bits);
        }
    }

    /// Length of the message so far.
    fn length(&self) -> usize {
        self.out.len() - self.start
    }

    fn patch(&mut self, at: usize, word: u16) {
        let at = self.start + at;
        if let Some(field) = self.out.get_mut(at..at + 2) {
            field.copy_from_slice(&word.to_be_bytes());
        }
    }

    fn records(&mut self, set: &Set<'_>) -> Option<u16> {
        let mut count = 0;
        let prefix = embedded_name(set.rtype);
        // Most sets stand at the question's own name: their records begin alike, and their RDATA is copied as it is.
        let head = head(QUESTION_POINTER, set.rtype, set.ttl);
        for rdata in set.rdata() {
            if !self.has_room(0) {
                return None;
            }
            count += 1;
            match &set.owner {
                None => self.out.extend_from_slice(&head),
                Some(owner) => {
                    self.name(owner.as_wire(), true);
                    self.out.extend_from_slice(&head[2..]);
                }
            }
            match prefix.and_then(|length| rdata.split_at_checked(length)) {
                None => {
                    self.out.extend_from_slice(&(rdata.len() as u16).to_be_bytes());
                    self.out.extend_from_slice(rdata);
                }
                Some((prefix, name)) => self.sized(|writer| {
                    writer.out.extend_from_slice(prefix);
                    writer.name(name, false);
                }),
            }
        }
        Some(count)
    }

    fn soa(&mut self, set: &Set<'_>) -> Option<u16> {
        let Data::Soa(soa) = &set.data else { return None };
        match &set.owner {
            None => self.out.extend_from_slice(&QUESTION_POINTER.to_be_bytes()),
            Some(owner) => self.name(owner.as_wire(), true),
        }
        self.out.extend_from_slice(&head(0, set.rtype, set.ttl)[2..]);
        self.sized(|writer| {
            writer.name(soa.primary.as_wire(), false);
            writer.name(soa.contact.as_wire(), false);
            for number in soa.numbers() {
                writer.out.extend_from_slice(&number.to_be_bytes());
            }
        });
        Some(1)
    }

    /// Writes RDLENGTH and the RDATA that `write` writes.
    fn sized(&mut self, write: impl FnOnce(&mut Self)) {
        let at = self.length();
        self.out.extend_from_slice(&[0, 0]);
        write(self);
        let length = (self.length() - at - 2) as u16;
        self.patch(at, length);
    }

    /// Writes a name; the longest tail that it shares with the question's becomes a pointer. Letter case counts in RDATA, which stays as
    /// it was written, and not in owners.
    fn name(&mut self, name: &[u8], fold_case: bool) {
        for tail in suffixes(name) {
            let shared = self.name.len().checked_sub(tail.len()).filter(|_| tail.len() > 1);
            let same = |at: usize| {
                let theirs = &self.name[at..];
                if fold_case { theirs.eq_ignore_ascii_case(tail) } else { theirs == tail }
            };
            // Equal bytes at the end are equal labels: only the place of a label boundary could differ, and then a length octet would too.
            if let Some(at) = shared.filter(|&at| is_boundary(self.name, at) && same(at)) {
                self.out.extend_from_slice(&name[..name.len() - tail.len()]);
                self.out.extend_from_slice(&(QUESTION_POINTER + at as u16).to_be_bytes());
                return;
            }
        }
        self.out.extend_from_slice(name);
    }
}

/// Whether a label begins at this place of a name.
fn is_boundary(name: &[u8], at: usize) -> bool {
    suffixes(name).any(|suffix| suffix.len() == name.len() - at)
}

/// Owner pointer, type, class and TTL.
fn head(owner: u16, rtype: RecordType, ttl: u32) -> [u8; 10] {
    let ([o0, o1], [t0, t1], [c0, c1], [l0, l1, l2, l3]) =
        (owner.to_be_bytes(), rtype.0.to_be_bytes(), CLASS_IN.to_be_bytes(), ttl.to_be_bytes());
    [o0, o1, t0, t1, c0, c1, l0, l1, l2, l3]
}

/// Number of bytes before the name that ends the RDATA, for the types whose names may be compressed (RFC 3597, 4).
fn embedded_name(rtype: RecordType) -> Option<usize> {
    match rtype {
        RecordType::NS | RecordType::CNAME | RecordType::PTR => Some(0),
        RecordType::MX => Some(2),
        _ => None,
    }
}
