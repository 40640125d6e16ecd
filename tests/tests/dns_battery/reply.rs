//! Replies made comparable: each field as text, names in lower case, sections as sorted sets.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};

use crate::packet;

/// A reply, or its absence, field by field.
pub(crate) type Fields = BTreeMap<&'static str, String>;

/// The fields of a reply. `None`: there was none.
///
/// # Errors
/// When it is no DNS message.
pub(crate) fn fields(reply: Option<&[u8]>) -> anyhow::Result<Fields> {
    let Some(message) = reply else { return Ok([("reply", "no".to_owned())].into()) };
    let mut reader = Reader { message, at: 0 };
    let mut fields: Fields = [("reply", "yes".to_owned())].into();
    let id = reader.u16()?;
    ensure!(id == packet::ID, "the reply has the id {id:#x}");
    let flags = reader.u16()?;
    ensure!(flags & packet::QR != 0, "the reply is a query");
    let bits = [
        ("aa", packet::AA),
        ("tc", packet::TC),
        ("rd", packet::RD),
        ("ra", packet::RA),
        ("z", packet::Z),
        ("ad", packet::AD),
        ("cd", packet::CD),
    ];
    fields.extend(bits.map(|(name, bit)| (name, u16::from(flags & bit != 0).to_string())));
    fields.insert("opcode", (flags >> 11 & 15).to_string());
    let mut rcode = flags & 15;
    let counts = [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?];
    let mut questions = Vec::new();
    for _ in 0..counts[0] {
        questions.push(format!("{} {} {}", reader.name()?, reader.u16()?, reader.u16()?));
    }
    fields.insert("question", questions.join("; "));
    fields.insert("edns", "none".into());
    for (name, count) in ["answer", "authority", "additional"].into_iter().zip(&counts[1..]) {
        let mut section = Vec::new();
        for _ in 0..*count {
            let record = reader.record()?;
            if record.rtype == packet::OPT {
                ensure!(name == "additional" && record.owner == ".", "OPT in {name} at {}", record.owner);
                let [extended, version, flags, zero] = record.ttl.to_be_bytes();
                rcode |= u16::from(extended) << 4;
                let dnssec_ok = u8::from(flags & 0x80 != 0);
                ensure!(flags & 0x7f == 0 && zero == 0, "reserved EDNS flags are set");
                fields.insert("edns", format!("v{version} size={} do={dnssec_ok} options={}", record.class, record.rdata));
            } else {
                section.push(format!("{} {} {} {} {}", record.owner, record.ttl, record.class, record.rtype, record.rdata));
            }
        }
        section.sort();
        fields.insert(name, section.join("; "));
    }
    ensure!(reader.at == message.len(), "{} bytes after the last record", message.len() - reader.at);
    fields.insert("rcode", rcode.to_string());
    Ok(fields)
}

struct Record {
    owner: String,
    rtype: u16,
    class: u16,
    ttl: u32,
    rdata: String,
}

struct Reader<'m> {
    message: &'m [u8],
    at: usize,
}

impl Reader<'_> {
    fn bytes(&mut self, length: usize) -> anyhow::Result<&[u8]> {
        let bytes = self.message.get(self.at..self.at + length).context("the reply ends early")?;
        self.at += length;
        Ok(bytes)
    }

    fn u16(&mut self) -> anyhow::Result<u16> {
        let bytes = self.bytes(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> anyhow::Result<u32> {
        Ok(u32::from(self.u16()?) << 16 | u32::from(self.u16()?))
    }

    /// A name in the letter case of the wire; compression is undone.
    fn name(&mut self) -> anyhow::Result<String> {
        let mut name = String::new();
        let mut end = None;
        for _ in 0..256 {
            let length = usize::from(self.bytes(1)?[0]);
            match length {
                0 => {
                    self.at = end.unwrap_or(self.at);
                    return Ok(if name.is_empty() { ".".into() } else { name });
                }
                1..=63 => name += &format!("{}.", self.bytes(length)?.escape_ascii()),
                0xc0.. => {
                    let low = usize::from(self.bytes(1)?[0]);
                    let target = (length & 0x3f) << 8 | low;
                    ensure!(target + 2 < self.at, "a compression pointer leads forward");
                    end = end.or(Some(self.at));
                    self.at = target;
                }
                _ => anyhow::bail!("a label of an unknown kind, {length:#x}"),
            }
        }
        anyhow::bail!("a name without an end")
    }

    fn record(&mut self) -> anyhow::Result<Record> {
        let owner = self.name()?.to_lowercase();
        let (rtype, class, ttl) = (self.u16()?, self.u16()?, self.u32()?);
        let length = usize::from(self.u16()?);
        let end = self.at + length;
        // The types with names in their RDATA that this zone has; their letter case is another test's subject.
        let rdata = match rtype {
            2 | 5 | 12 => self.name()?.to_lowercase(),
            6 => format!("{} {} {}", self.name()?.to_lowercase(), self.name()?.to_lowercase(), hex(self.bytes(20)?)),
            15 => format!("{} {}", self.u16()?, self.name()?.to_lowercase()),
            33 => format!("{} {}", hex(self.bytes(6)?), self.name()?.to_lowercase()),
            _ => hex(self.bytes(length)?),
        };
        ensure!(self.at == end, "the RDATA of {owner} {rtype} has another length than it says");
        Ok(Record { owner, rtype, class, ttl, rdata })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
