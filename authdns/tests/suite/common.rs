//! Zones, queries and readable responses for the tests.

use authdns::{Name, Outcome, RecordType, Transport, ZoneConfig, Zones, respond};
use hickory_proto::{op::Message, rr::Record};

pub(crate) const APEX: &str = "auth.example.org";

pub(crate) const RECORDS: &[&str] = &[
    "ns1.auth.example.org. 3600 A 198.51.100.1",
    "ns1.auth.example.org. 3600 AAAA 2001:db8::53",
    "www.auth.example.org. 300 CNAME Target.auth.example.org.",
    "target.auth.example.org. 300 AAAA 2001:db8::1",
    "away.auth.example.org. CNAME www.example.com.",
    "nowhere.auth.example.org. CNAME missing.auth.example.org.",
    "loop1.auth.example.org. CNAME loop2.auth.example.org.",
    "loop2.auth.example.org. CNAME loop1.auth.example.org.",
    "down.auth.example.org. CNAME a.sub.auth.example.org.",
    "sub.auth.example.org. NS ns.sub.auth.example.org.",
    "sub.auth.example.org. NS ns.other.example.",
    "sub.auth.example.org. DS 1 13 2 0001020304",
    "ns.sub.auth.example.org. A 198.51.100.2",
    "plain.auth.example.org. NS ns.other.example.",
    "*.wild.auth.example.org. TXT anything",
    "*.alias.auth.example.org. CNAME target.auth.example.org.",
    "deep.x.y.auth.example.org. TXT deep",
    "mixed.auth.example.org. 60 TXT \"Fixed Value\"",
    "mixed.auth.example.org. 60 A 192.0.2.7",
    "mail.auth.example.org. MX 10 ns1.auth.example.org.",
];

pub(crate) fn name(text: &str) -> Name {
    text.parse().expect(text)
}

pub(crate) fn config(apex: &str, records: &[&str]) -> ZoneConfig {
    let mut config = ZoneConfig::new(name(apex), vec![name("ns1.auth.example.org")], name("hostmaster.example.org"));
    config.records = records.iter().map(|record| record.parse().expect(record)).collect();
    config
}

/// One zone with the records above and no dynamic values.
pub(crate) fn zones() -> Zones {
    Zones::new(vec![config(APEX, RECORDS)]).expect("sound zones")
}

pub(crate) fn set(zones: &Zones, serial: u32, owner: &str, values: &[&str]) {
    zones.set_txt(&name(APEX), serial, [(name(owner), values.iter().map(|&value| value.into()).collect())]);
}

/// A query as a resolver sends it, ID 0x1234, RD clear.
pub(crate) fn query(owner: &str, rtype: RecordType) -> Vec<u8> {
    raw_query(name(owner).as_wire(), rtype, 1)
}

pub(crate) fn raw_query(owner: &[u8], rtype: RecordType, class: u16) -> Vec<u8> {
    let mut query = vec![0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend_from_slice(owner);
    query.extend_from_slice(&rtype.0.to_be_bytes());
    query.extend_from_slice(&class.to_be_bytes());
    query
}

/// `query` with a record more in the section whose count stands at `count` in the header.
pub(crate) fn with_record(mut query: Vec<u8>, count: usize, owner: &[u8], rtype: u16, class: u16, ttl: u32, rdata: &[u8]) -> Vec<u8> {
    query[count + 1] += 1;
    query.extend_from_slice(owner);
    query.extend_from_slice(&rtype.to_be_bytes());
    query.extend_from_slice(&class.to_be_bytes());
    query.extend_from_slice(&ttl.to_be_bytes());
    query.extend_from_slice(&(rdata.len() as u16).to_be_bytes());
    query.extend_from_slice(rdata);
    query
}

pub(crate) const ADDITIONAL: usize = 10;

/// `query` with an OPT record that announces `size`.
pub(crate) fn with_opt(query: Vec<u8>, size: u16) -> Vec<u8> {
    with_record(query, ADDITIONAL, &[0], 41, size, 0, &[])
}

/// A response, taken apart.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) bytes: Vec<u8>,
    pub(crate) message: Message,
}

impl Response {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let message = Message::from_vec(&bytes).expect("a response that parses");
        Self { bytes, message }
    }

    pub(crate) fn flags(&self) -> u16 {
        u16::from_be_bytes([self.bytes[2], self.bytes[3]])
    }

    pub(crate) fn rcode(&self) -> u16 {
        self.message.metadata.response_code.into()
    }

    pub(crate) fn answers(&self) -> Vec<String> {
        text(&self.message.answers)
    }

    pub(crate) fn authorities(&self) -> Vec<String> {
        text(&self.message.authorities)
    }

    pub(crate) fn additionals(&self) -> Vec<String> {
        text(&self.message.additionals)
    }

    pub(crate) fn is_truncated(&self) -> bool {
        self.flags() & 0x0200 != 0
    }

    pub(crate) fn is_authoritative(&self) -> bool {
        self.flags() & 0x0400 != 0
    }
}

fn text(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| format!("{} {} {} {}", record.name, record.ttl, record.record_type(), record.data)).collect()
}

/// The response to bytes over a transport; `None`: there was none.
pub(crate) fn ask_over(zones: &Zones, query: &[u8], transport: Transport) -> Option<Response> {
    let mut out = b"before".to_vec();
    let outcome = respond(zones, query, transport, &mut out);
    let response = out.strip_prefix(b"before").expect("what stood in the buffer is left alone").to_vec();
    match outcome {
        Outcome::Dropped => {
            assert!(response.is_empty());
            None
        }
        Outcome::Answered { rcode, truncated } => {
            let response = Response::new(response);
            assert_eq!((response.rcode() & 0xf, response.is_truncated()), (rcode as u16 & 0xf, truncated));
            Some(response)
        }
    }
}

pub(crate) fn ask_bytes(zones: &Zones, query: &[u8]) -> Response {
    ask_over(zones, query, Transport::Udp).expect("a response")
}

pub(crate) fn ask(zones: &Zones, owner: &str, rtype: RecordType) -> Response {
    ask_bytes(zones, &query(owner, rtype))
}

pub(crate) const SOA: &str = "auth.example.org. 10 SOA ns1.auth.example.org. hostmaster.example.org. 1 3600 600 604800 10";
