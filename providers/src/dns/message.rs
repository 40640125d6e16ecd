//! Messages: queries and updates out, answers in (RFC 1035, 4; RFC 2136, 2).

use authdns::Name;

/// Numbers of types, classes and opcodes (RFC 1035, 3.2; RFC 2136, 1.3).
pub(crate) const NS: u16 = 2;
pub(crate) const CNAME: u16 = 5;
pub(crate) const SOA: u16 = 6;
pub(crate) const TXT: u16 = 16;
const OPT: u16 = 41;
pub(crate) const TSIG: u16 = 250;
const IN: u16 = 1;
const NONE: u16 = 254;
pub(crate) const ANY: u16 = 255;
const UPDATE: u8 = 5;

/// Largest datagram that a server may answer with (DNS flag day 2020).
const PAYLOAD: u16 = 1232;
const HEADER: usize = 12;
/// Where the name of the first question, or of the zone, stands: a pointer to it (RFC 1035, 4.1.4).
const FIRST_NAME: [u8; 2] = [0xC0, HEADER as u8];
/// The longest character-string (RFC 1035, 3.3).
const MOST_STRING: usize = 255;

/// What a server says of a request (RFC 1035, 4.1.1; RFC 2136, 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rcode(pub(crate) u8);

impl Rcode {
    pub(crate) const NOERROR: Self = Self(0);
    pub(crate) const FORMERR: Self = Self(1);
    pub(crate) const SERVFAIL: Self = Self(2);
    pub(crate) const NXDOMAIN: Self = Self(3);
    pub(crate) const NOTIMP: Self = Self(4);
    pub(crate) const REFUSED: Self = Self(5);
    pub(crate) const YXRRSET: Self = Self(7);
    pub(crate) const NOTAUTH: Self = Self(9);
    pub(crate) const NOTZONE: Self = Self(10);
}

impl std::fmt::Display for Rcode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names =
            ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH", "NOTZONE"];
        match names.get(usize::from(self.0)) {
            Some(name) => f.write_str(name),
            None => write!(f, "RCODE{}", self.0),
        }
    }
}

/// A question for an authoritative server (RD clear), its id still 0; `edns` where datagrams matter.
pub(crate) fn query(name: &Name, kind: u16, edns: bool) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)];
    bytes.extend_from_slice(name.as_wire());
    push(&mut bytes, &[kind, IN]);
    if edns {
        bytes.push(0);
        push(&mut bytes, &[OPT, PAYLOAD, 0, 0, 0]);
    }
    bytes
}

/// An update of one zone (RFC 2136, 2), its id still 0.
#[derive(Debug)]
pub(crate) struct Update {
    /// The header and the zone.
    bytes: Vec<u8>,
    zone: Name,
    /// The prerequisites, and how many there are.
    required: (Vec<u8>, u16),
    /// The changes, and how many there are.
    changes: (Vec<u8>, u16),
}

impl Update {
    /// One that changes nothing yet.
    pub(crate) fn new(zone: &Name) -> Self {
        let mut bytes = vec![0, 0, UPDATE << 3, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(zone.as_wire());
        push(&mut bytes, &[SOA, IN]);
        Self { bytes, zone: zone.clone(), required: Default::default(), changes: Default::default() }
    }

    /// Changes nothing at all if there is a TXT RRset at `owner` by then (2.4.3): YXRRSET.
    pub(crate) fn require_absent(&mut self, owner: &Name) {
        let (bytes, count) = &mut self.required;
        record(bytes, owner, &self.zone, NONE, 0, &[]);
        *count = count.saturating_add(1);
    }

    /// Adds a TXT value to an RRset (2.5.1); the whole RRset gets this TTL.
    pub(crate) fn add(&mut self, owner: &Name, ttl: u32, value: &str) {
        self.change(owner, IN, ttl, value);
    }

    /// Deletes a TXT value from an RRset (2.5.4).
    pub(crate) fn delete(&mut self, owner: &Name, value: &str) {
        self.change(owner, NONE, 0, value);
    }

    /// The message.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let counts = [self.required.1, self.changes.1].map(u16::to_be_bytes).concat();
        if let Some(place) = self.bytes.get_mut(6..10) {
            place.copy_from_slice(&counts);
        }
        self.bytes.extend_from_slice(&self.required.0);
        self.bytes.extend_from_slice(&self.changes.0);
        self.bytes
    }

    fn change(&mut self, owner: &Name, class: u16, ttl: u32, value: &str) {
        let (bytes, count) = &mut self.changes;
        record(bytes, owner, &self.zone, class, ttl, &strings(value));
        *count = count.saturating_add(1);
    }
}

/// Appends a TXT record, the zone's part of its owner being a pointer: a datagram holds twice as many changes that way.
fn record(bytes: &mut Vec<u8>, owner: &Name, zone: &Name, class: u16, ttl: u32, data: &[u8]) {
    match owner.as_wire().strip_suffix(zone.as_wire()) {
        // That the zone's bytes end the owner's says nothing of where labels begin.
        Some(labels) if on_boundary(labels) => {
            bytes.extend_from_slice(labels);
            bytes.extend_from_slice(&FIRST_NAME);
        }
        _ => bytes.extend_from_slice(owner.as_wire()),
    }
    push(bytes, &[TXT, class]);
    bytes.extend_from_slice(&ttl.to_be_bytes());
    push(bytes, &[data.len() as u16]);
    bytes.extend_from_slice(data);
}

/// Bytes of an update that one prerequisite about `owner` needs, at most.
pub(crate) fn requirement_size(owner: &Name) -> usize {
    owner.as_wire().len() + 10
}

/// Bytes of an update that one value at `owner` needs, at most.
pub(crate) fn value_size(owner: &Name, value: &str) -> usize {
    requirement_size(owner) + value.len() + value.len() / MOST_STRING + 1
}

/// A value as character-strings, each with its length.
fn strings(value: &str) -> Vec<u8> {
    if value.is_empty() {
        return vec![0];
    }
    let mut data = Vec::with_capacity(value.len() + 2);
    for chunk in value.as_bytes().chunks(MOST_STRING) {
        data.push(chunk.len() as u8);
        data.extend_from_slice(chunk);
    }
    data
}

fn on_boundary(mut labels: &[u8]) -> bool {
    while let Some((&length, rest)) = labels.split_first() {
        match rest.get(usize::from(length)..) {
            Some(rest) => labels = rest,
            None => return false,
        }
    }
    true
}

/// The first question of a request, or the zone of an update.
pub(crate) fn question(request: &[u8]) -> Option<(Name, u16)> {
    let mut reader = Reader { bytes: request, at: HEADER };
    Some((reader.name()?, reader.word()?))
}

/// Appends words in network order.
pub(crate) fn push(bytes: &mut Vec<u8>, words: &[u16]) {
    words.iter().for_each(|word| bytes.extend_from_slice(&word.to_be_bytes()));
}

/// An answer, read whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) id: u16,
    pub(crate) rcode: Rcode,
    pub(crate) authoritative: bool,
    pub(crate) truncated: bool,
    /// True if the request was sent before and may have been carried out then: this answers its repetition.
    pub(crate) repeated: bool,
    /// The first question, or the zone of an update; servers may leave it out of errors.
    pub(crate) question: Option<(Name, u16)>,
    pub(crate) answers: Vec<Record>,
    pub(crate) authority: Vec<Record>,
    /// The signature, and where in the message its record begins.
    pub(crate) tsig: Option<(Record, usize)>,
}

/// A record; compressed names in its data are left as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) owner: Name,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    pub(crate) ttl: u32,
    pub(crate) data: Vec<u8>,
}

impl Answer {
    /// Reads a message; `None` if it is malformed or a request.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { bytes, at: 0 };
        let id = reader.word()?;
        let flags = reader.word()?;
        let counts = [reader.word()?, reader.word()?, reader.word()?, reader.word()?];
        let [questions, answers, authority, additional] = counts;
        if flags & 0x8000 == 0 {
            return None;
        }
        let mut question = None;
        for _ in 0..questions {
            let asked = (reader.name()?, reader.word()?);
            reader.word()?;
            question.get_or_insert(asked);
        }
        let answers = reader.records(answers)?;
        let authority = reader.records(authority)?;
        let mut tsig = None;
        for _ in 0..additional {
            let at = reader.at;
            let record = reader.record()?;
            // A signature that is not the last record is no signature (RFC 8945, 5.1).
            if tsig.is_some() {
                return None;
            }
            if record.kind == TSIG {
                tsig = Some((record, at));
            }
        }
        Some(Self {
            id,
            rcode: Rcode((flags & 0xF) as u8),
            authoritative: flags & 0x0400 != 0,
            truncated: flags & 0x0200 != 0,
            repeated: false,
            question,
            answers,
            authority,
            tsig,
        })
    }
}

impl Record {
    /// The character-strings of a TXT record, joined.
    pub(crate) fn text(&self) -> String {
        let mut text = Vec::with_capacity(self.data.len());
        let mut rest = self.data.as_slice();
        while let Some((&length, tail)) = rest.split_first() {
            let (string, tail) = tail.split_at_checked(length.into()).unwrap_or((tail, &[]));
            text.extend_from_slice(string);
            rest = tail;
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

struct Reader<'m> {
    bytes: &'m [u8],
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn word(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    fn records(&mut self, count: u16) -> Option<Vec<Record>> {
        (0..count).map(|_| self.record()).collect()
    }

    fn record(&mut self) -> Option<Record> {
        let owner = self.name()?;
        let (kind, class) = (self.word()?, self.word()?);
        let ttl = u32::from(self.word()?) << 16 | u32::from(self.word()?);
        let length = self.word()?;
        Some(Record { owner, kind, class, ttl, data: self.take(length.into())?.to_vec() })
    }

    /// A name, its pointers followed. They lead backwards only, so they end.
    fn name(&mut self) -> Option<Name> {
        let mut wire = Vec::new();
        let (mut at, mut end) = (self.at, None);
        loop {
            let length = *self.bytes.get(at)?;
            match length {
                0 => break,
                1..=63 => {
                    wire.extend_from_slice(self.bytes.get(at..=at + usize::from(length))?);
                    at += usize::from(length) + 1;
                }
                0xC0.. => {
                    let target = usize::from(length & 0x3F) << 8 | usize::from(*self.bytes.get(at + 1)?);
                    end.get_or_insert(at + 2);
                    if target >= at || wire.len() > authdns::MAX_NAME {
                        return None;
                    }
                    at = target;
                }
                _ => return None,
            }
        }
        self.at = end.unwrap_or(at + 1);
        wire.push(0);
        Name::from_wire(&wire).ok()
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{Message, OpCode, UpdateMessage},
        rr::{DNSClass, RData, RecordType},
    };

    use super::*;

    fn name(text: &str) -> Name {
        text.parse().expect(text)
    }

    #[test]
    fn an_update_reads_as_it_was_meant() {
        let zone = name("example.com");
        let mut update = Update::new(&zone);
        update.add(&name("_acme-challenge.a.example.com"), 60, "one");
        update.delete(&zone, &"x".repeat(300));
        update.add(&name("*.example.com"), 60, "");
        update.require_absent(&name("_acme-challenge.a.example.com"));
        let read = Message::from_vec(&update.finish()).expect("a message");
        let required: Vec<_> = read.prerequisites().iter().map(|r| (r.name.to_string(), r.record_type(), r.dns_class, r.ttl)).collect();
        assert_eq!(required, [("_acme-challenge.a.example.com.".to_owned(), RecordType::TXT, DNSClass::NONE, 0)]);
        assert_eq!(read.metadata.op_code, OpCode::Update);
        assert_eq!(read.zones()[0].name().to_string(), "example.com.");
        let records: Vec<_> = read.updates().iter().map(|r| (r.name.to_string(), r.dns_class, r.ttl)).collect();
        assert_eq!(
            records,
            [
                ("_acme-challenge.a.example.com.".to_owned(), DNSClass::IN, 60),
                ("example.com.".to_owned(), DNSClass::NONE, 0),
                ("*.example.com.".to_owned(), DNSClass::IN, 60)
            ]
        );
        let RData::TXT(long) = &read.updates()[1].data else { panic!("{read:?}") };
        assert_eq!(long.txt_data.iter().map(|string| string.len()).collect::<Vec<_>>(), [255, 45]);
    }

    #[test]
    fn a_zone_that_only_looks_like_a_suffix_is_no_pointer() {
        // The last bytes of the owner's only label are those of the zone's wire form.
        let zone = name("a");
        let owner = Name::from_wire(b"\x03x\x01a\x00").expect("one label of three bytes");
        let mut update = Update::new(&zone);
        update.add(&owner, 1, "v");
        let read = Message::from_vec(&update.finish()).expect("a message");
        assert_eq!(read.updates()[0].name.num_labels(), 1);
    }

    #[test]
    fn answers_with_pointers_are_read_and_loops_are_not() {
        let mut bytes = query(&name("a.example.com"), TXT, true);
        assert_eq!(Message::from_vec(&bytes).expect("a message").queries[0].query_type(), RecordType::TXT);
        assert_eq!(Answer::parse(&bytes), None, "a request is no answer");
        bytes[2] |= 0x84;
        bytes[7] = 1;
        bytes.truncate(bytes.len() - 11);
        bytes[11] = 0;
        bytes.extend_from_slice(&FIRST_NAME);
        push(&mut bytes, &[TXT, IN, 0, 60, 6, 0x0161]);
        bytes.extend_from_slice(b"\x01\xff\x00x");
        let mut longer = bytes.clone();
        let answer = Answer::parse(&bytes);
        // Six bytes of data: "a", one byte that is no UTF-8, an empty string, and a string longer than what is left.
        let answer = answer.expect("an answer");
        assert_eq!((answer.authoritative, answer.rcode, answer.answers.len()), (true, Rcode::NOERROR, 1));
        assert_eq!(answer.answers[0].owner, name("a.example.com"));
        assert_eq!(answer.answers[0].text(), "a\u{fffd}");
        for length in 0..bytes.len() {
            assert_eq!(Answer::parse(&bytes[..length]), None, "cut at {length}");
        }
        longer[12] = 0xC0;
        longer[13] = 12;
        assert_eq!(Answer::parse(&longer), None, "a pointer to itself");
    }
}
