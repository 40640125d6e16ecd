//! Responses as they go out: records appended in wire form, names compressed (RFC 1035, 4.1.4), and a size that is never passed.

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
    /// Where labels begin that were written besides the question's; the plain answer has none.
    labels: Vec<u16>,
}

/// Pointers reach no further (14 bits), and no more places are remembered than are quickly gone through.
const MAX_POINTER: usize = 0x3fff;
const MAX_LABELS: usize = 64;

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
        Self { out, start, limit, name: question.map_or(&[], |question| question.name()), labels: Vec::new() }
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
            let length = self.length();
            self.labels.retain(|&at| usize::from(at) < length);
            return None;
        }
        written
    }

    /// Writes bytes that are a record already, and whose room is known to be there.
    pub(crate) fn raw(&mut self, record: &[u8]) {
        self.extend(record);
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
                None => self.extend(&head),
                Some(owner) => {
                    self.name(owner.as_wire(), true);
                    self.extend(&head[2..]);
                }
            }
            match prefix.and_then(|length| rdata.split_at_checked(length)) {
                None => {
                    self.extend(&(rdata.len() as u16).to_be_bytes());
                    self.extend(rdata);
                }
                Some((prefix, name)) => self.sized(|writer| {
                    writer.extend(prefix);
                    writer.name(name, false);
                }),
            }
        }
        Some(count)
    }

    fn soa(&mut self, set: &Set<'_>) -> Option<u16> {
        let Data::Soa(soa) = &set.data else { return None };
        match &set.owner {
            None => self.extend(&QUESTION_POINTER.to_be_bytes()),
            Some(owner) => self.name(owner.as_wire(), true),
        }
        self.extend(&head(0, set.rtype, set.ttl)[2..]);
        self.sized(|writer| {
            writer.name(soa.primary.as_wire(), false);
            writer.name(soa.contact.as_wire(), false);
            for number in soa.numbers() {
                writer.extend(&number.to_be_bytes());
            }
        });
        Some(1)
    }

    /// Writes RDLENGTH and the RDATA that `write` writes.
    fn sized(&mut self, write: impl FnOnce(&mut Self)) {
        let at = self.length();
        self.extend(&[0, 0]);
        write(self);
        let length = (self.length() - at - 2) as u16;
        self.patch(at, length);
    }

    /// Writes a name; its longest tail that stands in the message already becomes a pointer. Letter case counts in RDATA, which stays as it
    /// was written, and not in owners.
    fn name(&mut self, name: &[u8], fold_case: bool) {
        for tail in suffixes(name) {
            let known = if tail.len() > 1 { self.find(tail, fold_case) } else { None };
            if let Some(at) = known {
                return self.extend(&(0xc000 | at).to_be_bytes());
            }
            let label = tail.first().map_or(0, |&length| usize::from(length) + 1);
            if tail.len() > 1 && self.length() <= MAX_POINTER && self.labels.len() < MAX_LABELS {
                self.labels.push(self.length() as u16);
            }
            self.extend(tail.get(..label).unwrap_or_default());
        }
    }

    /// Where a name stands in the message: at the end of the question's, or in another that was written.
    fn find(&self, name: &[u8], fold_case: bool) -> Option<u16> {
        let question = self.name.len().checked_sub(name.len()).map(|at| at + HEADER);
        let question = question.filter(|&at| self.is_label(at)).map(|at| at as u16);
        question.into_iter().chain(self.labels.iter().copied()).find(|&at| self.stands_at(at.into(), name, fold_case))
    }

    /// Whether a label of the question begins at this place.
    fn is_label(&self, at: usize) -> bool {
        suffixes(self.name).any(|suffix| HEADER + self.name.len() - suffix.len() == at)
    }

    /// Whether `name` is what a reader of the message finds at this place, where a label or a pointer begins.
    fn stands_at(&self, mut at: usize, name: &[u8], fold_case: bool) -> bool {
        let Some(message) = self.out.get(self.start..) else { return false };
        let mut rest = name;
        loop {
            match message.get(at).copied().map(usize::from) {
                Some(0) => return rest == [0],
                Some(high @ 0xc0..) => {
                    let Some(&low) = message.get(at + 1) else { return false };
                    // Pointers lead backwards, for only what was written before is ever pointed at.
                    at = (high & 0x3f) << 8 | usize::from(low);
                }
                Some(length) => {
                    let (Some(theirs), Some((ours, tail))) = (message.get(at..=at + length), rest.split_at_checked(length + 1)) else {
                        return false;
                    };
                    if theirs != ours && !(fold_case && theirs.eq_ignore_ascii_case(ours)) {
                        return false;
                    }
                    (at, rest) = (at + length + 1, tail);
                }
                None => return false,
            }
        }
    }

    fn extend(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        rrset::Rrset,
        types::{CLASS_IN, RecordType},
    };

    fn wire(text: &str) -> Vec<u8> {
        crate::name::wire_as_written(text).expect(text)
    }

    #[test]
    fn names_point_at_what_stands_before() {
        let bytes = [wire("A.Example.org"), vec![0, 2, 0, 1]].concat();
        let question = Question { bytes: &bytes, rtype: RecordType::NS, class: CLASS_IN };
        let mut rrset = Rrset::new(RecordType::NS);
        for host in ["ns1.Example.org", "ns1.example.org", "x.ns1.example.org", "far.test", "near.far.test"] {
            assert!(rrset.push(60, &wire(host)));
        }
        let mut out = b"before".to_vec();
        let mut writer = Writer::new(&mut out, 512, 7, 0x8000, Some(question));
        let set = Set { owner: None, rtype: RecordType::NS, ttl: 60, data: Data::Static(&rrset) };
        assert_eq!(writer.set(&set), Some(5));
        let owned = Set { owner: "Example.ORG".parse().ok(), rtype: RecordType::NS, ttl: 60, data: Data::Static(&rrset) };
        assert_eq!(writer.set(&owned), Some(5));
        writer.counts([10, 0, 0]);
        let message = hickory_proto::op::Message::from_vec(&out[6..]).expect("a message");
        let hosts: Vec<String> = message.answers.iter().map(|record| record.data.to_string()).collect();
        let expected = ["ns1.Example.org.", "ns1.example.org.", "x.ns1.example.org.", "far.test.", "near.far.test."];
        assert_eq!((&hosts[..5], &hosts[5..]), (&expected.map(String::from)[..], &expected.map(String::from)[..]));
        assert_eq!(message.answers[9].name.to_string().to_lowercase(), "example.org.");
        // ns1 + pointer; ns1.example + pointer to org, for the letter case differs; x + pointer; far.test whole; near + pointer.
        let rdata = 6 + 14 + 4 + 10 + 7;
        // The second time a pointer is enough for each of them.
        assert_eq!(out.len() - 6, HEADER + bytes.len() + 10 * 12 + rdata + 5 * 2);
    }

    #[test]
    fn what_does_not_fit_leaves_no_trace() {
        let mut rrset = Rrset::new(RecordType::NS);
        assert!(rrset.push(60, &wire("one.test")) && rrset.push(60, &wire("two.test")));
        let bytes = [wire("q"), vec![0, 2, 0, 1]].concat();
        let question = Question { bytes: &bytes, rtype: RecordType::NS, class: CLASS_IN };
        let set = Set { owner: None, rtype: RecordType::NS, ttl: 60, data: Data::Static(&rrset) };
        let whole = HEADER + bytes.len() + 12 + 10 + 12 + 6;
        for limit in HEADER + bytes.len()..=whole {
            let mut out = Vec::new();
            let mut writer = Writer::new(&mut out, limit, 7, 0x8000, Some(question));
            assert_eq!(writer.set(&set), (limit == whole).then_some(2), "{limit}");
            assert_eq!(writer.labels.is_empty(), limit < whole);
            assert_eq!(out.len(), if limit == whole { whole } else { HEADER + bytes.len() });
        }
    }
}
