//! Queries as bytes, whole or broken: nothing here checks what it writes.

/// The id of every query.
pub(crate) const ID: u16 = 0x1234;

pub(crate) const QR: u16 = 0x8000;
pub(crate) const AA: u16 = 0x0400;
pub(crate) const TC: u16 = 0x0200;
pub(crate) const RD: u16 = 0x0100;
pub(crate) const RA: u16 = 0x0080;
pub(crate) const Z: u16 = 0x0040;
pub(crate) const AD: u16 = 0x0020;
pub(crate) const CD: u16 = 0x0010;

pub(crate) const IN: u16 = 1;
pub(crate) const A: u16 = 1;
pub(crate) const NS: u16 = 2;
pub(crate) const SOA: u16 = 6;
pub(crate) const TXT: u16 = 16;
pub(crate) const OPT: u16 = 41;
pub(crate) const TSIG: u16 = 250;
pub(crate) const IXFR: u16 = 251;
pub(crate) const AXFR: u16 = 252;
pub(crate) const ANY: u16 = 255;

/// A message in parts; the counts are those of the parts unless they are told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Packet {
    flags: u16,
    questions: Vec<Vec<u8>>,
    sections: [Vec<Vec<u8>>; 3],
    counts: Option<[u16; 4]>,
    tail: Vec<u8>,
}

impl Packet {
    /// No question.
    pub(crate) fn empty() -> Self {
        Self::default()
    }

    /// One question in class IN.
    pub(crate) fn ask(name: &str, rtype: u16) -> Self {
        Self::empty().question(question(&wire(name), rtype, IN))
    }

    pub(crate) fn flags(mut self, flags: u16) -> Self {
        self.flags |= flags;
        self
    }

    pub(crate) fn opcode(self, opcode: u16) -> Self {
        self.flags(opcode << 11)
    }

    pub(crate) fn question(mut self, question: Vec<u8>) -> Self {
        self.questions.push(question);
        self
    }

    pub(crate) fn answer(mut self, record: Vec<u8>) -> Self {
        self.sections[0].push(record);
        self
    }

    pub(crate) fn authority(mut self, record: Vec<u8>) -> Self {
        self.sections[1].push(record);
        self
    }

    pub(crate) fn additional(mut self, record: Vec<u8>) -> Self {
        self.sections[2].push(record);
        self
    }

    /// An OPT record that announces this size and nothing else.
    pub(crate) fn edns(self, size: u16) -> Self {
        self.additional(opt(size, 0, &[]))
    }

    /// Counts that need not be those of the sections.
    pub(crate) fn counts(mut self, counts: [u16; 4]) -> Self {
        self.counts = Some(counts);
        self
    }

    /// Bytes after the last record.
    pub(crate) fn tail(mut self, bytes: &[u8]) -> Self {
        self.tail.extend_from_slice(bytes);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let [answers, authorities, additionals] = &self.sections;
        let parts = [&self.questions, answers, authorities, additionals];
        let counts = self.counts.unwrap_or(parts.map(|part| part.len() as u16));
        let mut bytes = [ID, self.flags].into_iter().chain(counts).flat_map(u16::to_be_bytes).collect::<Vec<_>>();
        bytes.extend(parts.into_iter().flatten().flatten());
        bytes.extend(&self.tail);
        bytes
    }
}

/// A name in wire form, its letters as given.
pub(crate) fn wire(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut wire: Vec<u8> = labels.flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
    wire.push(0);
    wire
}

/// A question of any bytes for a name.
pub(crate) fn question(name: &[u8], rtype: u16, class: u16) -> Vec<u8> {
    [name, &rtype.to_be_bytes(), &class.to_be_bytes()].concat()
}

/// A record.
pub(crate) fn record(name: &[u8], rtype: u16, class: u16, ttl: u32, rdata: &[u8]) -> Vec<u8> {
    [name, &rtype.to_be_bytes(), &class.to_be_bytes(), &ttl.to_be_bytes(), &(rdata.len() as u16).to_be_bytes(), rdata].concat()
}

/// An OPT record; `ttl` is extended rcode, version and flags.
pub(crate) fn opt(size: u16, ttl: u32, options: &[u8]) -> Vec<u8> {
    record(&[0], OPT, size, ttl, options)
}

/// An EDNS option.
pub(crate) fn option(code: u16, data: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), &(data.len() as u16).to_be_bytes(), data].concat()
}

/// RDATA of an SOA with this serial.
pub(crate) fn soa(serial: u32) -> Vec<u8> {
    let mut rdata = [wire("ns1.battery.test"), wire("hostmaster.battery.test")].concat();
    for number in [serial, 1, 1, 1, 1] {
        rdata.extend(u32::to_be_bytes(number));
    }
    rdata
}

/// A TSIG record (RFC 8945, 4.2) with a MAC of 32 bytes, signed now by nobody.
pub(crate) fn tsig(key: &str, algorithm: &str, seconds: u64) -> Vec<u8> {
    let mut rdata = wire(algorithm);
    rdata.extend(&seconds.to_be_bytes()[2..]);
    rdata.extend(300_u16.to_be_bytes());
    rdata.extend(32_u16.to_be_bytes());
    rdata.extend([0xaa; 32]);
    rdata.extend(ID.to_be_bytes());
    rdata.extend([0; 4]);
    record(&wire(key), TSIG, 255, 0, &rdata)
}
