//! The zones: their configuration, their changes, and the one look-up that stands under every transport.

mod data;
mod dynamic;
mod lookup;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, atomic::Ordering},
};

use parking_lot::Mutex;

pub use self::lookup::Answer;
pub(crate) use self::lookup::{Data, Set};
use self::{
    data::Zone,
    dynamic::{Change, MAX_VALUES, TxtMap, Values},
};
use crate::{
    name::{Name, suffixes},
    record::StaticRecord,
    rrset::{self, RdataList, txt_rdata},
    types::RecordType,
};

/// A zone to serve.
#[derive(Clone, Debug)]
pub struct ZoneConfig {
    /// The apex.
    pub name: Name,
    /// The names of the zone's servers, the primary first; at least one. Those inside the zone need an A or AAAA among `records`.
    pub nameservers: Vec<Name>,
    /// The mailbox of who is responsible, as a name: `hostmaster.example.org` is `hostmaster@example.org` (RFC 1035, 3.3.13, RNAME).
    pub contact: Name,
    /// Records that never change.
    pub records: Vec<StaticRecord>,
    /// TTL of the TXT RRsets that claims make, in seconds; 1 by default, for they are asked for once.
    pub txt_ttl: u32,
    /// How long resolvers may remember that a name or a type is not there, in seconds (the SOA's TTL and MINIMUM; RFC 2308); 10 by default, for whoever
    /// looked too early waits for as long; at most 60.
    pub negative_ttl: u32,
    /// TTL of the NS RRset at the apex, in seconds; 3600 by default.
    pub ns_ttl: u32,
    /// SOA REFRESH, in seconds: how often secondaries look for a new serial.
    pub refresh: u32,
    /// SOA RETRY, in seconds.
    pub retry: u32,
    /// SOA EXPIRE, in seconds.
    pub expire: u32,
}

impl ZoneConfig {
    /// A zone with no records but its SOA and NS.
    pub fn new(name: Name, nameservers: Vec<Name>, contact: Name) -> Self {
        Self {
            name,
            nameservers,
            contact,
            records: Vec::new(),
            txt_ttl: 1,
            negative_ttl: 10,
            ns_ttl: 3600,
            refresh: 3600,
            retry: 600,
            expire: 604_800,
        }
    }
}

/// Why zones cannot be served as configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ZoneError {
    /// Two zones of one name.
    #[error("the zone {0} is given twice")]
    Duplicate(Name),
    /// More zones than can be numbered.
    #[error("there are more than 65535 zones")]
    TooMany,
    /// No name server.
    #[error("the zone {0} has no name server: give at least one")]
    NoNameserver(Name),
    /// A record whose owner is not within the zone.
    #[error("the record \"{record}\" is outside its zone {zone}")]
    OutsideZone {
        /// The record.
        record: String,
        /// The zone that it was given to.
        zone: Name,
    },
    /// A CNAME at a name that has other data, or at an apex (RFC 1034, 3.6.2).
    #[error("{0} has a CNAME beside other data: a CNAME stands alone, and never at the top of a zone")]
    CnameBesideData(Name),
    /// Two CNAMEs at one name (RFC 2181, 10.1).
    #[error("{0} has several CNAMEs: a name is an alias of one other name")]
    SeveralCnames(Name),
    /// NS at a wildcard, which means nothing (RFC 4592, 4.2).
    #[error("{0} is a wildcard and cannot be delegated")]
    DelegatedWildcard(Name),
}

/// All zones that are served, in memory. Cloning is cheap; all clones are the same zones.
#[derive(Clone)]
pub struct Zones(Arc<Inner>);

impl Default for Zones {
    /// No zone: every query is refused.
    fn default() -> Self {
        Self(Arc::new(Inner {
            zones: Vec::new(),
            numbers: HashMap::new(),
            deepest: 0,
            txt: TxtMap::new(Vec::new()),
            writer: Mutex::new(()),
        }))
    }
}

impl fmt::Debug for Zones {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

struct Inner {
    zones: Vec<Zone>,
    numbers: HashMap<Name, u16>,
    /// The greatest number of labels in an apex.
    deepest: usize,
    txt: TxtMap,
    /// Held while values change.
    writer: Mutex<()>,
}

impl Zones {
    /// Builds the zones, each with serial 1 and without dynamic values. Zones may nest: the names of an inner zone are answered from it alone.
    ///
    /// # Errors
    /// [`ZoneError`] says which zone or record cannot be.
    pub fn new(configs: Vec<ZoneConfig>) -> Result<Self, ZoneError> {
        let mut zones = Vec::with_capacity(configs.len());
        let mut numbers = HashMap::with_capacity(configs.len());
        for (number, config) in configs.into_iter().enumerate() {
            let number = u16::try_from(number).map_err(|_| ZoneError::TooMany)?;
            if numbers.insert(config.name.clone(), number).is_some() {
                return Err(ZoneError::Duplicate(config.name));
            }
            zones.push(Zone::new(config, number)?);
        }
        for child in 0..zones.len() {
            let apex = zones[child].apex.clone();
            let parent = suffixes(apex.as_wire()).skip(1).find_map(|name| numbers.get(name)).copied();
            zones[child].parent = parent;
            if let Some(parent) = parent.and_then(|number| zones.get_mut(usize::from(number))) {
                parent.add_child(&apex);
            }
        }
        let txt = TxtMap::new(zones.iter().map(|zone| zone.apex.clone()).collect());
        let deepest = zones.iter().map(|zone| zone.apex.depth()).max().unwrap_or(0);
        Ok(Self(Arc::new(Inner { zones, numbers, deepest, txt, writer: Mutex::new(()) })))
    }

    /// The apexes, in the order they were given.
    pub fn names(&self) -> Vec<Name> {
        self.0.zones.iter().map(|zone| zone.apex.clone()).collect()
    }

    /// The apex of the zone that `name` is in: the longest that encloses it.
    pub fn zone_of(&self, name: &Name) -> Option<Name> {
        self.enclosing(name.as_wire()).map(|zone| zone.apex.clone())
    }

    /// The SOA serial of the zone with this apex.
    pub fn serial(&self, zone: &Name) -> Option<u32> {
        self.zone(zone).map(|zone| zone.soa.serial())
    }

    /// Replaces the dynamic TXT values at each owner (an empty list removes them) and sets the zone's SOA serial. Queries see all of it when this
    /// returns; while it runs they may see some of the changes, under the old serial.
    ///
    /// Static TXT of the same owner stays and is answered beside them, each value once, with the zone's `txt_ttl`. Values over 255 bytes
    /// are split into character-strings. An owner that is not in `zone` ([`zone_of`](Self::zone_of)) and values that no record
    /// can hold are left out with an error in the log; values below a delegation or beside a static CNAME are kept, but hidden by it.
    pub fn set_txt(&self, zone: &Name, serial: u32, changes: impl IntoIterator<Item = (Name, Vec<Box<str>>)>) {
        let Some(zone) = self.zone(zone) else {
            tracing::error!(%zone, "TXT values for a zone that is not served are left out");
            return;
        };
        let _writer = self.0.writer.lock();
        for (owner, values) in changes {
            self.set_owner(zone, &owner, &values);
        }
        zone.soa.set_serial(serial);
    }

    /// The dynamic values at an owner, whether a delegation hides them or not.
    pub fn txt(&self, owner: &Name) -> Vec<Box<str>> {
        self.0.txt.own_values(owner.as_wire())
    }

    fn set_owner(&self, zone: &Zone, owner: &Name, values: &[Box<str>]) {
        if self.enclosing(owner.as_wire()).map(|found| found.number) != Some(zone.number) {
            tracing::error!(zone = %zone.apex, %owner, "TXT values outside their zone are left out");
            return;
        }
        let mut rdata = RdataList::default();
        let mut own = 0;
        for value in values {
            let fits = own < MAX_VALUES && value.len() <= MAX_VALUE;
            if !fits {
                tracing::error!(%owner, length = value.len(), "a TXT value that is too long, or one too many, is left out");
            } else if rdata.push(&txt_rdata(value.as_bytes())) {
                own += 1;
            }
        }
        let wire = owner.as_wire();
        let fixed = zone.node(wire).and_then(|node| node.rrset(RecordType::TXT));
        for rdata_fixed in fixed.iter().flat_map(|fixed| rrset::iter(fixed.rdata.as_bytes())) {
            rdata.push(rdata_fixed);
        }
        let hidden = own > 0 && zone.hides_txt(wire);
        if hidden {
            tracing::warn!(%owner, "TXT values are hidden by a delegation above their owner or a CNAME beside it");
        }
        let change = self.0.txt.set(zone.number, owner, &Values { rdata, own, hidden });
        if data::holds_wildcard(wire) {
            match change {
                Change::Added => _ = zone.wildcards.fetch_add(1, Ordering::Relaxed),
                Change::Removed => _ = zone.wildcards.fetch_sub(1, Ordering::Relaxed),
                Change::Replaced | Change::Nothing => {}
            }
        }
    }

    fn zone(&self, apex: &Name) -> Option<&Zone> {
        self.0.numbers.get(apex).and_then(|&number| self.numbered(number))
    }

    fn numbered(&self, number: u16) -> Option<&Zone> {
        self.0.zones.get(usize::from(number))
    }

    /// Whether a name in lower case is the apex of a zone.
    pub(crate) fn has_apex(&self, name: &[u8]) -> bool {
        self.0.numbers.contains_key(name)
    }

    /// The zone with the longest apex that encloses a name in lower case.
    fn enclosing(&self, name: &[u8]) -> Option<&Zone> {
        let depth = suffixes(name).count() - 1;
        let mut candidates = suffixes(name).skip(depth.saturating_sub(self.0.deepest));
        candidates.find_map(|apex| self.0.numbers.get(apex)).and_then(|&number| self.numbered(number))
    }
}

/// Longest TXT value: with its length octets it has to fit in an RDATA of 65535 bytes.
const MAX_VALUE: usize = 65_000;
