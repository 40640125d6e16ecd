//! What of a zone never changes: its SOA (the serial aside), its name servers and the records that an operator wrote.

use std::{
    collections::{HashMap, hash_map},
    sync::atomic::{AtomicU32, Ordering},
};

use super::{ZoneConfig, ZoneError};
use crate::{
    name::{Name, suffixes},
    rrset::Rrset,
    types::RecordType,
};

/// One zone, without its dynamic values.
pub(crate) struct Zone {
    pub(crate) apex: Name,
    /// Its place in the list of zones.
    pub(crate) number: u16,
    /// The zone that encloses it, if that is served too.
    pub(crate) parent: Option<u16>,
    pub(crate) txt_ttl: u32,
    pub(crate) soa: Soa,
    /// Static owners and the empty non-terminals above them.
    nodes: HashMap<Name, Node>,
    /// Whether any name below the apex is delegated.
    has_cuts: bool,
    /// How many owners have a label `*`, static and dynamic ones together: with none, no wildcard needs to be sought.
    pub(crate) wildcards: AtomicU32,
}

/// The SOA record (RFC 1035, 3.3.13).
pub(crate) struct Soa {
    pub(crate) primary: Name,
    pub(crate) contact: Name,
    serial: AtomicU32,
    /// Refresh, retry, expire.
    timers: [u32; 3],
    /// TTL of the record and its MINIMUM: how long "no" is remembered (RFC 2308, 3).
    pub(crate) negative_ttl: u32,
}

impl Soa {
    pub(crate) fn serial(&self) -> u32 {
        self.serial.load(Ordering::Acquire)
    }

    /// Serial, refresh, retry, expire and MINIMUM, in the order of the RDATA.
    pub(crate) fn numbers(&self) -> [u32; 5] {
        let [refresh, retry, expire] = self.timers;
        [self.serial(), refresh, retry, expire, self.negative_ttl]
    }

    /// The uncompressed RDATA.
    pub(crate) fn to_rdata(&self) -> Vec<u8> {
        let mut rdata = [self.primary.as_wire(), self.contact.as_wire()].concat();
        rdata.extend(self.numbers().into_iter().flat_map(u32::to_be_bytes));
        rdata
    }

    pub(crate) fn set_serial(&self, serial: u32) {
        self.serial.store(serial, Ordering::Release);
    }
}

/// The static data at one name; none at an empty non-terminal.
#[derive(Default)]
pub(crate) struct Node {
    /// In the order of their types.
    rrsets: Vec<Rrset>,
    /// The name is delegated to other servers: NS below the apex.
    is_cut: bool,
}

impl Node {
    pub(crate) fn rrset(&self, rtype: RecordType) -> Option<&Rrset> {
        self.rrsets.iter().find(|rrset| rrset.rtype == rtype)
    }

    pub(crate) fn first(&self) -> Option<&Rrset> {
        self.rrsets.first()
    }

    fn add(&mut self, rtype: RecordType, ttl: u32, rdata: &[u8]) {
        let at = match self.rrsets.binary_search_by_key(&rtype, |rrset| rrset.rtype) {
            Ok(at) => at,
            Err(at) => {
                self.rrsets.insert(at, Rrset::new(rtype));
                at
            }
        };
        self.rrsets[at].push(ttl, rdata);
    }
}

/// A negative answer is remembered for at most this long, in seconds: whoever waits for a challenge asked too early.
const MAX_NEGATIVE_TTL: u32 = 60;

impl Zone {
    /// Builds a zone; `number` is its place in the list.
    pub(crate) fn new(config: ZoneConfig, number: u16) -> Result<Self, ZoneError> {
        let primary = config.nameservers.first().cloned().ok_or_else(|| ZoneError::NoNameserver(config.name.clone()))?;
        let soa = Soa {
            primary,
            contact: config.contact,
            serial: AtomicU32::new(1),
            timers: [config.refresh, config.retry, config.expire],
            negative_ttl: config.negative_ttl.min(MAX_NEGATIVE_TTL),
        };
        let mut zone = Self {
            apex: config.name,
            number,
            parent: None,
            txt_ttl: config.txt_ttl,
            soa,
            nodes: HashMap::new(),
            has_cuts: false,
            wildcards: AtomicU32::new(0),
        };
        for nameserver in &config.nameservers {
            zone.node_mut(&zone.apex.clone()).add(RecordType::NS, config.ns_ttl, nameserver.as_wire());
        }
        for record in &config.records {
            if !record.owner.is_within(&zone.apex) {
                return Err(ZoneError::OutsideZone { record: record.to_string(), zone: zone.apex });
            }
            if record.rtype == RecordType::NS && is_wildcard(record.owner.as_wire()) {
                return Err(ZoneError::DelegatedWildcard(record.owner.clone()));
            }
            let is_new = zone.nodes.get(&record.owner).is_none_or(|node| node.first().is_none());
            if is_new && holds_wildcard(record.owner.as_wire()) {
                zone.wildcards.fetch_add(1, Ordering::Relaxed);
            }
            zone.node_mut(&record.owner).add(record.rtype, record.ttl, &record.rdata);
        }
        zone.check()?;
        Ok(zone)
    }

    /// Makes room for a zone below this one that is served too: the name exists here as a cut, though nothing but DS is ever asked of it here.
    pub(crate) fn add_child(&mut self, apex: &Name) {
        self.node_mut(apex);
    }

    /// The node of an owner; the names between it and the apex come to exist with it.
    fn node_mut(&mut self, owner: &Name) -> &mut Node {
        let mut ancestor = owner.parent();
        while let Some(name) = ancestor.filter(|name| name != &self.apex && name.is_within(&self.apex)) {
            ancestor = name.parent();
            match self.nodes.entry(name) {
                hash_map::Entry::Occupied(_) => break,
                hash_map::Entry::Vacant(entry) => entry.insert(Node::default()),
            };
        }
        self.nodes.entry(owner.clone()).or_default()
    }

    fn check(&mut self) -> Result<(), ZoneError> {
        for (owner, node) in &mut self.nodes {
            if let Some(cname) = node.rrset(RecordType::CNAME) {
                // The apex has SOA beside anything.
                if node.rrsets.len() > 1 || owner == &self.apex {
                    return Err(ZoneError::CnameBesideData(owner.clone()));
                }
                if cname.targets.len() > 1 {
                    return Err(ZoneError::SeveralCnames(owner.clone()));
                }
            }
            node.is_cut = owner != &self.apex && node.rrset(RecordType::NS).is_some();
            self.has_cuts |= node.is_cut;
        }
        for nameserver in self.nodes.get(&self.apex).and_then(|node| node.rrset(RecordType::NS)).iter().flat_map(|ns| &ns.targets) {
            let node = self.nodes.get(nameserver);
            if nameserver.is_within(&self.apex) && node.is_none_or(|n| n.rrset(RecordType::A).or(n.rrset(RecordType::AAAA)).is_none()) {
                tracing::warn!(zone = %self.apex, %nameserver, "the name server is inside its own zone but has no A or AAAA record there");
            }
        }
        Ok(())
    }

    /// The static data at a name; `None` if no static name is there or below.
    pub(crate) fn node(&self, name: &[u8]) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// The name, with its NS, at which the zone hands `name` to other servers: the uppermost cut (RFC 1034, 4.3.2, step 3b). A DS at a cut belongs
    /// to this side of it (RFC 4035, 3.1.4.1).
    pub(crate) fn cut(&self, name: &[u8], rtype: RecordType) -> Option<(&Name, &Rrset)> {
        if !self.has_cuts {
            return None;
        }
        let mut found = None;
        for (depth, ancestor) in suffixes(name).enumerate() {
            if ancestor == self.apex.as_wire() {
                break;
            }
            if let Some((owner, node)) = self.nodes.get_key_value(ancestor).filter(|(_, node)| node.is_cut)
                && (depth > 0 || rtype != RecordType::DS)
            {
                found = node.rrset(RecordType::NS).map(|ns| (owner, ns));
            }
        }
        found
    }

    /// True if answers for `name` come from elsewhere: below a cut, at one, or at an alias.
    pub(crate) fn hides_txt(&self, name: &[u8]) -> bool {
        self.cut(name, RecordType::TXT).is_some() || self.node(name).is_some_and(|node| node.rrset(RecordType::CNAME).is_some())
    }
}

/// True if any label is `*`: the name is a wildcard, or makes one exist above it (RFC 4592, 2.1.1 and 2.2.2).
pub(crate) fn holds_wildcard(name: &[u8]) -> bool {
    suffixes(name).any(is_wildcard)
}

/// True if the first label is `*`.
fn is_wildcard(name: &[u8]) -> bool {
    name.starts_with(b"\x01*")
}
