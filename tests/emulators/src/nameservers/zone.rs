//! What one publication of a zone answers (RFC 1034, 4.3.2; RFC 4592 for wildcards).

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, NS, SOA, TXT},
    },
};

use super::absolute;

/// The TTL of what is made up, in seconds.
const TTL: u32 = 60;

/// How long a resolver may remember that something is not there, in seconds: a test that waits for a value must not wait for this.
const NEGATIVE_TTL: u32 = 1;

/// The longest CNAME chain that is followed within a zone.
const LONGEST_CHAIN: usize = 8;

/// A zone as it was published.
#[derive(Debug)]
pub(super) struct Snapshot {
    apex: Name,
    records: HashMap<Name, Vec<Record>>,
    /// Every owner and every name between one and the apex: they exist, even with no records of their own.
    existing: HashSet<Name>,
}

impl Snapshot {
    /// The zone of these records; SOA, and NS with the addresses of its names, are made up if they are not among them.
    pub(super) fn new(apex: &Name, records: &[super::Record], servers: &[IpAddr], serial: u32) -> Self {
        let mut zone = Self { apex: apex.clone(), records: HashMap::new(), existing: HashSet::new() };
        for record in records {
            zone.add(parse(record));
        }
        let host =
            |label: &str| apex.prepend_label(label).unwrap_or_else(|e| panic!("{apex} is too long for name servers of its own: {e}"));
        if zone.rrset(apex, RecordType::SOA).next().is_none() {
            let soa = SOA::new(host("ns1"), host("hostmaster"), serial, 3600, 600, 86_400, NEGATIVE_TTL);
            zone.add(Record::from_rdata(apex.clone(), TTL, RData::SOA(soa)));
        }
        if zone.rrset(apex, RecordType::NS).next().is_none() {
            for (number, ip) in (1..).zip(servers) {
                let name = host(&format!("ns{number}"));
                zone.add(Record::from_rdata(apex.clone(), TTL, RData::NS(NS(name.clone()))));
                let address = match *ip {
                    IpAddr::V4(ip) => RData::A(A(ip)),
                    IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
                };
                zone.add(Record::from_rdata(name, TTL, address));
            }
        }
        zone
    }

    /// Fills in the answer to a question about a name in this zone.
    pub(super) fn answer(&self, name: &Name, kind: RecordType, message: &mut Message) {
        message.metadata.authoritative = true;
        let mut name = name.clone();
        for _ in 0..LONGEST_CHAIN {
            if let Some(cut) = self.cut(&name, kind) {
                return self.refer(&cut, message);
            }
            let source = if self.existing.contains(&name) { Some(name.clone()) } else { self.wildcard(&name) };
            let Some(source) = source else {
                // The code is that of the last name of the chain (RFC 6604).
                message.metadata.response_code = ResponseCode::NXDomain;
                return self.deny(message);
            };
            let renamed = |record: &Record| Record::from_rdata(name.clone(), record.ttl, record.data.clone());
            let found: Vec<_> = self.rrset(&source, kind).map(renamed).collect();
            if !found.is_empty() {
                message.add_answers(found);
                return;
            }
            let Some(cname) = self.rrset(&source, RecordType::CNAME).next() else { return self.deny(message) };
            message.add_answer(renamed(cname));
            let RData::CNAME(target) = &cname.data else { return };
            let mut target = target.0.to_lowercase();
            target.set_fqdn(true);
            if !self.apex.zone_of(&target) {
                return;
            }
            name = target;
        }
    }

    fn add(&mut self, record: Record) {
        assert!(self.apex.zone_of(&record.name), "{} is not in the zone {}", record.name, self.apex);
        let mut name = record.name.clone();
        self.records.entry(name.clone()).or_default().push(record);
        while self.existing.insert(name.clone()) && name != self.apex {
            name = name.base_name();
        }
    }

    fn rrset(&self, name: &Name, kind: RecordType) -> impl Iterator<Item = &Record> {
        let records = self.records.get(name).into_iter().flatten();
        records.filter(move |record| kind == RecordType::ANY || record.record_type() == kind)
    }

    /// The delegation that a name stands at or under, if it does; the highest one. The DS at the cut itself is this zone's.
    fn cut(&self, name: &Name, kind: RecordType) -> Option<Name> {
        let below = (self.apex.iter().count() + 1..=name.iter().count()).map(|labels| name.trim_to(labels));
        let mut cuts = below.filter(|owner| self.rrset(owner, RecordType::NS).next().is_some());
        cuts.find(|owner| kind != RecordType::DS || owner != name)
    }

    fn refer(&self, cut: &Name, message: &mut Message) {
        message.metadata.authoritative = !message.answers.is_empty();
        for record in self.rrset(cut, RecordType::NS) {
            message.add_authority(record.clone());
            if let RData::NS(host) = &record.data {
                let host = host.0.to_lowercase();
                let glue = self.rrset(&host, RecordType::A).chain(self.rrset(&host, RecordType::AAAA));
                message.add_additionals(glue.cloned().collect::<Vec<_>>());
            }
        }
    }

    /// The wildcard that stands for a name that does not exist.
    fn wildcard(&self, name: &Name) -> Option<Name> {
        let mut encloser = name.base_name();
        while !self.existing.contains(&encloser) {
            encloser = encloser.base_name();
        }
        let wildcard = encloser.prepend_label("*").ok()?;
        self.existing.contains(&wildcard).then_some(wildcard)
    }

    /// Says that there is nothing: the SOA for as long as that may be remembered (RFC 2308, 3).
    fn deny(&self, message: &mut Message) {
        for soa in self.rrset(&self.apex, RecordType::SOA) {
            let mut soa = soa.clone();
            if let RData::SOA(data) = &soa.data {
                soa.ttl = soa.ttl.min(data.minimum);
            }
            message.add_authority(soa);
        }
    }
}

fn parse(record: &super::Record) -> Record {
    let invalid = |why: &dyn std::fmt::Display| -> ! { panic!("{record:?} is not in presentation form: {why}") };
    let data = if record.kind == "TXT" {
        RData::TXT(TXT::from_bytes(record.data.iter().map(Vec::as_slice).collect()))
    } else {
        let kind: RecordType = record.kind.parse().unwrap_or_else(|e| invalid(&e));
        let mut text = String::from_utf8_lossy(&record.data.concat()).into_owned();
        if matches!(kind, RecordType::CNAME | RecordType::NS | RecordType::PTR) && !text.ends_with('.') {
            text.push('.');
        }
        RData::try_from_str(kind, &text).unwrap_or_else(|e| invalid(&e))
    };
    Record::from_rdata(absolute(&record.owner), record.ttl, data)
}
