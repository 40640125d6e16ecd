//! RRsets: the data of one type at one owner, in the form that answers are made from.

use crate::{name::Name, types::RecordType};

/// RDATA of an RRset in uncompressed wire form, each preceded by its RDLENGTH: what stands in a message, without the repeated head of each record.
///
/// The bytes are only ever made by [`push`](Self::push) and so are always whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RdataList(Vec<u8>);

impl RdataList {
    /// Adds one RDATA unless it is there already (RFC 2181, 5: an RRset has no duplicates) or longer than a record can be.
    pub(crate) fn push(&mut self, rdata: &[u8]) -> bool {
        let Ok(length) = u16::try_from(rdata.len()) else { return false };
        if iter(&self.0).any(|known| known == rdata) {
            return false;
        }
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(rdata);
        true
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The RDATA in bytes that an [`RdataList`] made.
pub(crate) fn iter(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, tail) = rest.split_first_chunk()?;
        let (rdata, tail) = tail.split_at_checked(u16::from_be_bytes(*length).into())?;
        rest = tail;
        Some(rdata)
    })
}

/// An RRset that never changes.
#[derive(Debug, Clone)]
pub(crate) struct Rrset {
    pub(crate) rtype: RecordType,
    pub(crate) ttl: u32,
    pub(crate) rdata: RdataList,
    /// The names that the RDATA speak of, in order, for the types that make a server add addresses or follow: NS, CNAME, MX, SRV.
    pub(crate) targets: Vec<Name>,
}

impl Rrset {
    pub(crate) fn new(rtype: RecordType) -> Self {
        Self { rtype, ttl: u32::MAX, rdata: RdataList::default(), targets: Vec::new() }
    }

    /// Adds a record. The TTL of the set is the smallest that was given (RFC 2181, 5.2: they may not differ). False: it was there already.
    pub(crate) fn push(&mut self, ttl: u32, rdata: &[u8]) -> bool {
        self.ttl = self.ttl.min(ttl);
        if !self.rdata.push(rdata) {
            return false;
        }
        if let Some(target) = name_offset(self.rtype).and_then(|at| rdata.get(at..)).and_then(|wire| Name::from_wire(wire).ok()) {
            self.targets.push(target);
        }
        true
    }
}

/// Where the one domain name in RDATA of this type begins, if the name is followed, or completed with addresses.
fn name_offset(rtype: RecordType) -> Option<usize> {
    match rtype {
        RecordType::NS | RecordType::CNAME => Some(0),
        RecordType::MX => Some(2),
        RecordType::SRV => Some(6),
        _ => None,
    }
}

/// RDATA of TXT for one value: character-strings of at most 255 bytes (RFC 1035, 3.3.14).
pub(crate) fn txt_rdata(value: &[u8]) -> Vec<u8> {
    let mut rdata = Vec::with_capacity(value.len() + value.len() / 255 + 1);
    if value.is_empty() {
        rdata.push(0);
    }
    for string in value.chunks(255) {
        rdata.push(string.len() as u8);
        rdata.extend_from_slice(string);
    }
    rdata
}

/// The value that [`txt_rdata`] was given: the character-strings put together.
pub(crate) fn txt_value(mut rdata: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(rdata.len());
    while let Some((string, rest)) = rdata.split_first().and_then(|(&length, rest)| rest.split_at_checked(length.into())) {
        value.extend_from_slice(string);
        rdata = rest;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_hold_each_rdata_once() {
        let mut list = RdataList::default();
        assert!(list.push(b"one") && list.push(b"") && list.push(b"two"));
        assert!(!list.push(b"one") && !list.push(b""));
        assert!(!list.push(&vec![0; 65_536]));
        assert_eq!(iter(list.as_bytes()).collect::<Vec<_>>(), [&b"one"[..], b"", b"two"]);
    }

    #[test]
    fn long_values_are_split_into_strings() {
        for length in [0, 1, 255, 256, 510, 511, 1000] {
            let value = vec![b'x'; length];
            let rdata = txt_rdata(&value);
            assert_eq!(rdata.len(), length + length.div_ceil(255).max(1));
            assert_eq!(txt_value(&rdata), value);
        }
    }

    #[test]
    fn the_smallest_ttl_counts() {
        let mut set = Rrset::new(RecordType::A);
        assert!(set.push(300, &[1, 1, 1, 1]) && set.push(60, &[2, 2, 2, 2]) && !set.push(30, &[1, 1, 1, 1]));
        assert_eq!(set.ttl, 30);
    }
}
