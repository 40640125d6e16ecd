//! The one look-up: a name and a type, and the typed answer to them (RFC 1034, 4.3.2).

use std::sync::atomic::Ordering;

use parking_lot::MappedRwLockReadGuard;

use super::{
    Zones,
    data::{Node, Soa, Zone},
    dynamic::Owner,
};
use crate::{
    name::{Name, suffixes},
    rrset::{self, Rrset},
    types::{Rcode, RecordType},
};

/// Longest chain of aliases that is followed; what was found until then is the answer.
const MAX_ALIASES: usize = 16;

/// What the zones say about a name and a type, before any encoding.
///
/// It may hold one of 256 locks for reading: encode it and drop it, and do not call [`Zones::set_txt`] meanwhile.
#[must_use]
pub struct Answer<'z> {
    /// `NoError`, `NxDomain` or `Refused`.
    pub rcode: Rcode,
    /// The AA bit: clear in referrals and refusals.
    pub authoritative: bool,
    /// CNAMEs that were followed, then what stands at the end of them.
    pub(crate) aliases: Vec<Set<'z>>,
    pub(crate) data: Option<Set<'z>>,
    /// SOA of negative answers, NS of referrals.
    pub(crate) authority: Option<Set<'z>>,
    /// Addresses of servers that other sections name.
    pub(crate) addresses: Vec<Set<'z>>,
    /// How many of the addresses have to be there: glue, without which a referral leads nowhere (RFC 9471).
    pub(crate) glue: usize,
}

/// An RRset in an answer.
pub(crate) struct Set<'z> {
    /// `None`: the name of the question.
    pub(crate) owner: Option<Name>,
    pub(crate) rtype: RecordType,
    pub(crate) ttl: u32,
    pub(crate) data: Data<'z>,
}

/// Where the RDATA of a set are.
pub(crate) enum Data<'z> {
    Static(&'z Rrset),
    Txt(MappedRwLockReadGuard<'z, Owner>),
    Soa(&'z Soa),
}

impl Answer<'_> {
    /// The values of the TXT records in the answer, each with its character-strings put together.
    pub fn txt(&self) -> Vec<Vec<u8>> {
        let sets = self.data.iter().filter(|set| set.rtype == RecordType::TXT);
        sets.flat_map(|set| set.rdata()).map(rrset::txt_value).collect()
    }

    fn new(rcode: Rcode) -> Self {
        let authoritative = rcode != Rcode::Refused;
        Self { rcode, authoritative, aliases: Vec::new(), data: None, authority: None, addresses: Vec::new(), glue: 0 }
    }
}

impl Set<'_> {
    /// The uncompressed RDATA; none for the SOA, which is put together when it is written.
    pub(crate) fn rdata(&self) -> impl Iterator<Item = &[u8]> {
        rrset::iter(match &self.data {
            Data::Static(rrset) => rrset.rdata.as_bytes(),
            Data::Txt(owner) => owner.rdata(),
            Data::Soa(_) => &[],
        })
    }
}

impl Set<'_> {
    /// The uncompressed RDATA of every record.
    pub(crate) fn to_rdata(&self) -> Vec<Vec<u8>> {
        match &self.data {
            Data::Soa(soa) => vec![soa.to_rdata()],
            Data::Static(_) | Data::Txt(_) => self.rdata().map(<[u8]>::to_vec).collect(),
        }
    }
}

/// A name that exists.
struct Found<'z> {
    node: Option<&'z Node>,
    /// The wildcard that stands for the name (RFC 4592), if the name itself does not exist.
    wildcard: Option<Name>,
}

impl Zones {
    /// What the zones say about `name` and `rtype`, class IN. `ANY` is answered with one RRset (RFC 8482, 4.1).
    pub fn lookup(&self, name: &Name, rtype: RecordType) -> Answer<'_> {
        self.lookup_wire(name.as_wire(), rtype)
    }

    /// The same for a whole uncompressed name in lower case.
    pub(crate) fn lookup_wire(&self, name: &[u8], rtype: RecordType) -> Answer<'_> {
        // What nearly every query asks for: one look-up, and the zone need not be searched for.
        if rtype == RecordType::TXT
            && let Some(owner) = self.0.txt.get(name).filter(|owner| !owner.is_hidden())
            && let Some(zone) = self.numbered(owner.zone())
        {
            let data = Some(Set { owner: None, rtype: RecordType::TXT, ttl: zone.txt_ttl, data: Data::Txt(owner) });
            return Answer { data, ..Answer::new(Rcode::NoError) };
        }
        let zone = self.enclosing(name);
        // A DS belongs to the parent's side of a cut (RFC 4035, 3.1.4.1); without the parent, the child says that it has none.
        let above = zone.filter(|zone| rtype == RecordType::DS && zone.apex.as_wire() == name).and_then(|zone| self.numbered(zone.parent?));
        match above.or(zone) {
            Some(zone) => self.lookup_in(zone, name, rtype),
            None => Answer::new(Rcode::Refused),
        }
    }

    fn lookup_in<'z>(&'z self, zone: &'z Zone, question: &[u8], rtype: RecordType) -> Answer<'z> {
        let mut answer = Answer::new(Rcode::NoError);
        // The end of the chain of aliases so far; `None`: the question's own name.
        let mut alias: Option<Name> = None;
        loop {
            let name = alias.as_ref().map_or(question, Name::as_wire);
            if let Some((owner, ns)) = zone.cut(name, rtype) {
                answer.authoritative = alias.is_some();
                answer.authority = Some(Set { owner: Some(owner.clone()), rtype: ns.rtype, ttl: ns.ttl, data: Data::Static(ns) });
                self.add_glue(zone, owner, ns, &mut answer);
                return answer;
            }
            let Some(found) = self.find(zone, name) else {
                answer.rcode = Rcode::NxDomain;
                answer.authority = Some(soa(zone));
                return answer;
            };
            let cname = found.node.and_then(|node| node.rrset(RecordType::CNAME));
            if let Some(cname) = cname.filter(|_| rtype != RecordType::CNAME && rtype != RecordType::ANY) {
                let target = cname.targets.first().cloned();
                let set = Set { owner: alias.take(), rtype: cname.rtype, ttl: cname.ttl, data: Data::Static(cname) };
                answer.aliases.push(set);
                let Some(target) = target.filter(|target| self.is_followed(zone, question, &answer, target)) else { return answer };
                alias = Some(target);
                continue;
            }
            answer.data = self.data_at(zone, &found, name, rtype, alias.clone());
            if answer.data.is_none() {
                answer.authority = Some(soa(zone));
            }
            self.add_addresses(zone, &mut answer);
            return answer;
        }
    }

    /// The RRset of a type at a name that exists, or one of those there for ANY.
    fn data_at<'z>(&'z self, zone: &'z Zone, found: &Found<'z>, name: &[u8], rtype: RecordType, owner: Option<Name>) -> Option<Set<'z>> {
        let any = rtype == RecordType::ANY;
        if rtype == RecordType::SOA && name == zone.apex.as_wire() {
            return Some(Set { owner, ..soa(zone) });
        }
        let rrset = found.node.and_then(|node| if any { node.first() } else { node.rrset(rtype) });
        // Static TXT is also among the dynamic values, if there are any.
        if rtype == RecordType::TXT || any && rrset.is_none_or(|rrset| rrset.rtype >= RecordType::TXT) {
            let source = found.wildcard.as_ref().map_or(name, Name::as_wire);
            if let Some(values) = self.0.txt.get(source).filter(|values| !values.is_hidden()) {
                return Some(Set { owner, rtype: RecordType::TXT, ttl: zone.txt_ttl, data: Data::Txt(values) });
            }
        }
        rrset.map(|rrset| Set { owner, rtype: rrset.rtype, ttl: rrset.ttl, data: Data::Static(rrset) })
    }

    /// The name itself if it exists, or the wildcard that stands for it; `None`: no such name (RFC 4592, 3.3.1).
    fn find<'z>(&self, zone: &'z Zone, name: &[u8]) -> Option<Found<'z>> {
        let node = zone.node(name);
        if node.is_some() || self.0.txt.exists(name) {
            return Some(Found { node, wildcard: None });
        }
        if zone.wildcards.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let encloser = suffixes(name).skip(1).find(|ancestor| zone.node(ancestor).is_some() || self.0.txt.exists(ancestor))?;
        let wildcard = Name::from_wire(encloser).ok()?.prepend(b"*").ok()?;
        let node = zone.node(wildcard.as_wire());
        (node.is_some() || self.0.txt.exists(wildcard.as_wire())).then_some(Found { node, wildcard: Some(wildcard) })
    }

    /// Whether an alias leads on within the zone, and to a name where the answer has not been yet.
    fn is_followed(&self, zone: &Zone, question: &[u8], answer: &Answer<'_>, target: &Name) -> bool {
        let seen = question == target.as_wire() || answer.aliases.iter().any(|set| set.owner.as_ref() == Some(target));
        let inside = self.enclosing(target.as_wire()).is_some_and(|found| found.number == zone.number);
        inside && !seen && answer.aliases.len() < MAX_ALIASES
    }

    /// Addresses of the servers of a delegation: first those inside it, which nobody else can tell.
    fn add_glue<'z>(&self, zone: &'z Zone, cut: &Name, ns: &'z Rrset, answer: &mut Answer<'z>) {
        let (inside, outside): (Vec<_>, Vec<_>) = ns.targets.iter().partition(|target| target.is_within(cut));
        for target in inside {
            push_addresses(zone, target, answer);
        }
        answer.glue = answer.addresses.len();
        for target in outside {
            push_addresses(zone, target, answer);
        }
    }

    /// Addresses of the hosts that an answer names, where the zone has them (RFC 1034, 4.3.2, step 6).
    fn add_addresses<'z>(&self, zone: &'z Zone, answer: &mut Answer<'z>) {
        let Some(Set { data: Data::Static(rrset), .. }) = answer.data else { return };
        if rrset.rtype != RecordType::CNAME {
            for target in &rrset.targets {
                push_addresses(zone, target, answer);
            }
        }
    }
}

fn push_addresses<'z>(zone: &'z Zone, host: &Name, answer: &mut Answer<'z>) {
    let Some(node) = zone.node(host.as_wire()) else { return };
    for rrset in [RecordType::A, RecordType::AAAA].into_iter().filter_map(|rtype| node.rrset(rtype)) {
        answer.addresses.push(Set { owner: Some(host.clone()), rtype: rrset.rtype, ttl: rrset.ttl, data: Data::Static(rrset) });
    }
}

/// The zone's SOA as negative answers carry it: its TTL is its MINIMUM (RFC 2308, 3).
fn soa(zone: &Zone) -> Set<'_> {
    Set { owner: Some(zone.apex.clone()), rtype: RecordType::SOA, ttl: zone.soa.negative_ttl, data: Data::Soa(&zone.soa) }
}
