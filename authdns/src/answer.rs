//! From the bytes of a query to the bytes of its response: the pure function under UDP and TCP.

use crate::{
    edns::{self, OPT_LENGTH},
    message::{FLAG_RESPONSE, OPCODE, Query},
    name::MAX_NAME,
    types::{CLASS_IN, Rcode, RecordType},
    writer::Writer,
    zone::{Answer, Zones},
};

/// How a query came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// One datagram; the response fits in what the client takes, 1232 bytes at most.
    Udp,
    /// DNS over TCP (RFC 7766).
    Tcp,
    /// DNS over TLS (RFC 7858).
    Tls,
    /// DNS over HTTPS (RFC 8484).
    Https,
    /// DNS over QUIC (RFC 9250).
    Quic,
}

impl Transport {
    /// Every transport.
    pub const ALL: [Self; 5] = [Self::Udp, Self::Tcp, Self::Tls, Self::Https, Self::Quic];
}

/// What became of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// No response: it was none that asks for one.
    Dropped,
    /// A response was written.
    Answered {
        /// Its response code.
        rcode: Rcode,
        /// Its TC bit: the client is to ask again over TCP.
        truncated: bool,
    },
}

/// AA.
const FLAG_AUTHORITATIVE: u16 = 0x0400;
/// TC.
const FLAG_TRUNCATED: u16 = 0x0200;
/// RD.
const FLAG_RECURSION_DESIRED: u16 = 0x0100;

/// Answers `query` from `zones`, appending the response to `out`; nothing is appended to what deserves no response.
pub fn respond(zones: &Zones, query: &[u8], transport: Transport, out: &mut Vec<u8>) -> Outcome {
    let Some(query) = Query::parse(query) else { return Outcome::Dropped };
    let limit = if transport == Transport::Udp { edns::udp_limit(query.edns) } else { usize::from(u16::MAX) };
    match decide(zones, &query) {
        Ok(answer) => write(&query, &answer, limit, out),
        Err(rcode) => {
            write_error(&query, rcode, limit, out);
            Outcome::Answered { rcode, truncated: false }
        }
    }
}

/// The answer to a query, or the response code of a response without records.
pub(crate) fn decide<'z>(zones: &'z Zones, query: &Query<'_>) -> Result<Answer<'z>, Rcode> {
    if let Some(rcode) = query.fault {
        return Err(rcode);
    }
    if query.edns.is_some_and(|edns| edns.version != 0) {
        return Err(Rcode::BadVers);
    }
    if query.tsig.is_some() {
        return Err(Rcode::NotAuth);
    }
    let question = query.question.ok_or(Rcode::FormErr)?;
    if question.class != CLASS_IN {
        return Err(Rcode::Refused);
    }
    let mut lower = [0; MAX_NAME];
    let name = question.name();
    let lower = lower.get_mut(..name.len()).ok_or(Rcode::FormErr)?;
    lower.copy_from_slice(name);
    // Length octets are below 64 and so are never letters.
    lower.make_ascii_lowercase();
    if matches!(question.rtype, RecordType::AXFR | RecordType::IXFR) {
        // No transfer for anybody; of what is no zone here, least of all (RFC 5936, 2.2.1).
        return Err(if zones.has_apex(lower) { Rcode::Refused } else { Rcode::NotAuth });
    }
    let answer = zones.lookup_wire(lower, question.rtype);
    if answer.rcode == Rcode::Refused { Err(Rcode::Refused) } else { Ok(answer) }
}

/// The second word of a response's header, without TC. RD is copied; RA and AD are for resolvers, and CD is cleared (RFC 4035, 3.1.6).
fn response_flags(query: &Query<'_>, rcode: Rcode, authoritative: bool) -> u16 {
    let copied = query.flags & (OPCODE | FLAG_RECURSION_DESIRED);
    FLAG_RESPONSE | copied | if authoritative { FLAG_AUTHORITATIVE } else { 0 } | u16::from(rcode as u8 & 0x0f)
}

/// RD.
pub(crate) fn is_recursion_desired(query: &Query<'_>) -> bool {
    query.flags & FLAG_RECURSION_DESIRED != 0
}

fn write(query: &Query<'_>, answer: &Answer<'_>, limit: usize, out: &mut Vec<u8>) -> Outcome {
    let flags = response_flags(query, answer.rcode, answer.authoritative);
    let mut writer = Writer::new(out, limit, query.id, flags, query.question);
    let opt = query.edns.map(|edns| edns.response(answer.rcode));
    writer.reserve(opt.map_or(0, |_| OPT_LENGTH));
    let mut counts = [0; 3];
    let truncated = write_sections(&mut writer, answer, &mut counts).is_none();
    if truncated {
        writer.flag(FLAG_TRUNCATED);
    }
    if let Some(opt) = opt {
        writer.raw(&opt);
        counts[2] += 1;
    }
    writer.counts(counts);
    Outcome::Answered { rcode: answer.rcode, truncated }
}

/// Writes the sections and counts their records. `None`: a set that has to be there does not fit, and neither it nor what would follow was written; what
/// stands is whole (RFC 2181, 9).
fn write_sections(writer: &mut Writer<'_, '_>, answer: &Answer<'_>, counts: &mut [u16; 3]) -> Option<()> {
    let [answers, authorities, additionals] = counts;
    for set in answer.aliases.iter().chain(&answer.data) {
        *answers += writer.set(set)?;
    }
    if let Some(set) = &answer.authority {
        *authorities += writer.set(set)?;
    }
    for (index, set) in answer.addresses.iter().enumerate() {
        match writer.set(set) {
            Some(count) => *additionals += count,
            None if index < answer.glue => return None,
            None => break,
        }
    }
    Some(())
}

fn write_error(query: &Query<'_>, rcode: Rcode, limit: usize, out: &mut Vec<u8>) {
    let mut writer = Writer::new(out, limit, query.id, response_flags(query, rcode, false), query.question);
    let mut additionals = 0;
    if let Some(edns) = query.edns {
        writer.raw(&edns.response(rcode));
        additionals += 1;
    }
    if let Some(tsig) = query.tsig.filter(|_| rcode == Rcode::NotAuth) {
        let record = tsig.unknown_key();
        if writer.has_room(record.len()) {
            writer.raw(&record);
            additionals += 1;
        }
    }
    writer.counts([0, 0, additionals]);
}
