//! The TXT values that come and go: one sharded map for all zones.
//!
//! An owner is one heap block: a small head, its name without the zone's, and its RDATA ready to be copied into messages; a million owners with two
//! values each take about 180 MB. Readers take one shard's lock for the time of a look-up and a copy; the shards make it unlikely that
//! they meet a writer there. Writers are serialised by the caller.
//!
//! Names between an owner and its apex exist as empty non-terminals (RFC 4592, 2.2.2) as long as something exists below them. `parents` counts, for
//! each such name, the names directly below it that exist, so an update touches its own name and its ancestors and nothing else.

use std::hash::{BuildHasher, RandomState};

use hashbrown::{HashTable, hash_table::Entry};
use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};

use crate::{
    name::{MAX_NAME, Name, parent_of},
    rrset::{self, RdataList},
};

/// Number of shards; a power of two.
const SHARDS: usize = 256;

/// The map of all zones' dynamic TXT RRsets.
pub(crate) struct TxtMap {
    hasher: RandomState,
    /// The apex of each zone, by its number: owners are kept without it.
    apexes: Vec<Name>,
    shards: Box<[RwLock<Shard>]>,
}

#[derive(Default)]
struct Shard {
    owners: HashTable<Owner>,
    parents: HashTable<Parent>,
}

/// A name that something exists below.
struct Parent {
    name: Box<[u8]>,
    /// How many names directly below it exist.
    children: u32,
}

/// An owner name and its values.
///
/// ```text
/// zone (2) | length of the name (1) | own values (2, the top bit: hidden) | name, relative | RDLENGTH RDATA RDLENGTH RDATA …
/// ```
/// The values that were set stand first, static ones of the same owner after them.
pub(crate) struct Owner(Box<[u8]>);

const HEAD: usize = 5;
const HIDDEN: u16 = 0x8000;

/// Greatest number of values at one owner; a message holds fewer.
pub(crate) const MAX_VALUES: usize = 4096;

/// What is to stand at an owner.
pub(crate) struct Values {
    /// The values that were set, then the static ones.
    pub(crate) rdata: RdataList,
    /// How many of them were set; 0 removes the owner.
    pub(crate) own: usize,
    /// The owner is below a delegation or beside a CNAME: its values are kept but not answered.
    pub(crate) hidden: bool,
}

/// The outcome of [`TxtMap::set`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Added,
    Replaced,
    Removed,
    Nothing,
}

impl Owner {
    fn new(zone: u16, relative: &[u8], values: &Values) -> Self {
        let own = values.own.min(MAX_VALUES) as u16 | if values.hidden { HIDDEN } else { 0 };
        let mut bytes = Vec::with_capacity(HEAD + relative.len() + values.rdata.as_bytes().len());
        bytes.extend_from_slice(&zone.to_be_bytes());
        bytes.push(relative.len() as u8);
        bytes.extend_from_slice(&own.to_be_bytes());
        bytes.extend_from_slice(relative);
        bytes.extend_from_slice(values.rdata.as_bytes());
        Self(bytes.into_boxed_slice())
    }

    /// Number of the zone that it is in.
    pub(crate) fn zone(&self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }

    /// Whether a delegation above it or a CNAME beside it keeps it from being answered.
    pub(crate) fn is_hidden(&self) -> bool {
        self.0[3] & (HIDDEN >> 8) as u8 != 0
    }

    /// The RDATA in the form of [`RdataList`].
    pub(crate) fn rdata(&self) -> &[u8] {
        &self.0[HEAD + usize::from(self.0[2])..]
    }

    /// The RDATA that were set.
    fn own_rdata(&self) -> impl Iterator<Item = &[u8]> {
        rrset::iter(self.rdata()).take((u16::from_be_bytes([self.0[3], self.0[4]]) & !HIDDEN).into())
    }

    fn relative(&self) -> &[u8] {
        &self.0[HEAD..HEAD + usize::from(self.0[2])]
    }
}

impl TxtMap {
    /// A map for the zones with these apexes; their place in the list is their number.
    pub(crate) fn new(apexes: Vec<Name>) -> Self {
        Self { hasher: RandomState::new(), apexes, shards: std::iter::repeat_with(RwLock::default).take(SHARDS).collect() }
    }

    /// The owner with this name in lower case. Holds one shard's lock for reading until it is dropped.
    pub(crate) fn get(&self, name: &[u8]) -> Option<MappedRwLockReadGuard<'_, Owner>> {
        let hash = self.hash(name);
        RwLockReadGuard::try_map(self.shard(hash).read(), |shard| shard.owners.find(hash, |owner| self.is(owner, name))).ok()
    }

    /// True if the name has values or something below it has.
    pub(crate) fn exists(&self, name: &[u8]) -> bool {
        let hash = self.hash(name);
        let shard = self.shard(hash).read();
        shard.owners.find(hash, |owner| self.is(owner, name)).is_some()
            || shard.parents.find(hash, |parent| &*parent.name == name).is_some()
    }

    /// The values that were set at the owner.
    pub(crate) fn own_values(&self, name: &[u8]) -> Vec<Box<str>> {
        let text = |rdata: &[u8]| String::from_utf8_lossy(&rrset::txt_value(rdata)).into_owned().into_boxed_str();
        self.get(name).map(|owner| owner.own_rdata().map(text).collect()).unwrap_or_default()
    }

    /// Puts values at an owner, or removes it. Only one caller at a time.
    pub(crate) fn set(&self, zone: u16, name: &Name, values: &Values) -> Change {
        let wire = name.as_wire();
        let Some(apex) = self.apexes.get(usize::from(zone)) else { return Change::Nothing };
        let hash = self.hash(wire);
        if values.own == 0 {
            if !self.remove(hash, wire) {
                return Change::Nothing;
            }
            self.unlink(wire, apex);
            return Change::Removed;
        }
        let relative = &wire[..wire.len().saturating_sub(apex.as_wire().len())];
        let owner = Owner::new(zone, relative, values);
        // Ancestors come first, so that nobody sees a name that exists below one that does not.
        if self.get(wire).is_none() {
            self.link(wire, apex);
        }
        let mut shard = self.shard(hash).write();
        match shard.owners.entry(hash, |known| self.is(known, wire), |known| self.hash_of(known)) {
            Entry::Occupied(mut entry) => {
                *entry.get_mut() = owner;
                Change::Replaced
            }
            Entry::Vacant(entry) => {
                entry.insert(owner);
                Change::Added
            }
        }
    }

    fn remove(&self, hash: u64, wire: &[u8]) -> bool {
        let mut shard = self.shard(hash).write();
        match shard.owners.find_entry(hash, |owner| self.is(owner, wire)) {
            Ok(entry) => {
                entry.remove();
                true
            }
            Err(_) => false,
        }
    }

    /// Notes that `name`, so far without values, is to have some: its ancestors exist from now on.
    fn link(&self, name: &[u8], apex: &Name) {
        let mut child = name;
        let mut existed = self.exists(child);
        while !existed {
            let Some(parent) = parent_of(child).filter(|&parent| parent != apex.as_wire()) else { return };
            existed = self.exists(parent);
            self.count(parent, 1);
            child = parent;
        }
    }

    /// Notes that `name` has lost its values: ancestors that nothing exists below any more go.
    fn unlink(&self, name: &[u8], apex: &Name) {
        let mut child = name;
        while !self.exists(child) {
            let Some(parent) = parent_of(child).filter(|&parent| parent != apex.as_wire()) else { return };
            self.count(parent, -1);
            child = parent;
        }
    }

    /// Changes the number of names that exist directly below `name`.
    fn count(&self, name: &[u8], change: i32) {
        let hash = self.hash(name);
        let mut shard = self.shard(hash).write();
        match shard.parents.entry(hash, |parent| &*parent.name == name, |parent| self.hash(&parent.name)) {
            Entry::Occupied(mut entry) => {
                let parent = entry.get_mut();
                parent.children = parent.children.saturating_add_signed(change);
                if parent.children == 0 {
                    entry.remove();
                }
            }
            Entry::Vacant(entry) => {
                if change > 0 {
                    entry.insert(Parent { name: name.into(), children: 1 });
                }
            }
        }
    }

    fn is(&self, owner: &Owner, name: &[u8]) -> bool {
        let relative = owner.relative();
        let apex = self.apexes.get(usize::from(owner.zone())).map_or(&[][..], Name::as_wire);
        name.strip_prefix(relative) == Some(apex)
    }

    fn hash(&self, name: &[u8]) -> u64 {
        self.hasher.hash_one(name)
    }

    /// The hash of the owner's whole name.
    fn hash_of(&self, owner: &Owner) -> u64 {
        let relative = owner.relative();
        let apex = self.apexes.get(usize::from(owner.zone())).map_or(&[][..], Name::as_wire);
        let mut name = [0; MAX_NAME];
        let (head, rest) = name.split_at_mut(relative.len());
        head.copy_from_slice(relative);
        let tail = &mut rest[..apex.len()];
        tail.copy_from_slice(apex);
        let length = relative.len() + apex.len();
        self.hash(&name[..length])
    }

    /// The table inside a shard uses the lowest and the highest bits of the hash: take others.
    fn shard(&self, hash: u64) -> &RwLock<Shard> {
        &self.shards[(hash >> 40) as usize % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rrset::txt_rdata;

    fn name(text: &str) -> Name {
        text.parse().expect(text)
    }

    fn values(texts: &[&str]) -> Values {
        let mut rdata = RdataList::default();
        for text in texts {
            assert!(rdata.push(&txt_rdata(text.as_bytes())));
        }
        Values { rdata, own: texts.len(), hidden: false }
    }

    fn map() -> TxtMap {
        TxtMap::new(vec![name("a.test"), Name::root()])
    }

    #[test]
    fn ancestors_exist_as_long_as_something_below_them_does() {
        let map = map();
        let exists = |text: &str| map.exists(name(text).as_wire());
        assert_eq!(map.set(0, &name("x.y.z.a.test"), &values(&["1"])), Change::Added);
        assert_eq!(map.set(0, &name("w.y.z.a.test"), &values(&["1"])), Change::Added);
        assert_eq!(map.set(0, &name("y.z.a.test"), &values(&["1", "2"])), Change::Added);
        assert_eq!(map.set(0, &name("y.z.a.test"), &values(&["3"])), Change::Replaced);
        assert!(exists("z.a.test") && exists("y.z.a.test") && !exists("a.test") && !exists("q.a.test"));
        assert_eq!(map.set(0, &name("y.z.a.test"), &values(&[])), Change::Removed);
        assert_eq!(map.set(0, &name("y.z.a.test"), &values(&[])), Change::Nothing);
        assert_eq!(map.set(0, &name("x.y.z.a.test"), &values(&[])), Change::Removed);
        assert!(exists("y.z.a.test") && exists("z.a.test") && !exists("x.y.z.a.test"));
        assert_eq!(map.set(0, &name("w.y.z.a.test"), &values(&[])), Change::Removed);
        assert!(!exists("y.z.a.test") && !exists("z.a.test"));
        assert!(map.shards.iter().all(|shard| shard.read().parents.is_empty() && shard.read().owners.is_empty()));
    }

    #[test]
    fn apexes_and_the_root_can_own_values() {
        let map = map();
        for (zone, owner) in [(0, "a.test"), (1, "."), (1, "b")] {
            map.set(zone, &name(owner), &values(&["v", "w"]));
            assert_eq!(map.own_values(name(owner).as_wire()), ["v".into(), "w".into()], "{owner}");
            assert_eq!(map.get(name(owner).as_wire()).map(|owner| owner.zone()), Some(zone));
        }
        assert!(map.get(name("test").as_wire()).is_none());
    }

    #[test]
    fn hidden_owners_are_kept_and_marked() {
        let map = map();
        let owner = name("x.a.test");
        map.set(0, &owner, &Values { hidden: true, ..values(&["v"]) });
        assert_eq!(map.get(owner.as_wire()).map(|owner| owner.is_hidden()), Some(true));
        assert_eq!(map.own_values(owner.as_wire()), ["v".into()]);
        map.set(0, &owner, &values(&["v"]));
        assert_eq!(map.get(owner.as_wire()).map(|owner| owner.is_hidden()), Some(false));
    }

    #[test]
    fn growing_tables_keep_every_owner() {
        let map = map();
        let owner = |number: u32| name(&format!("n{number}.a.test"));
        for number in 0..20_000 {
            map.set(0, &owner(number), &values(&[&number.to_string()]));
        }
        for number in 0..20_000 {
            assert_eq!(map.own_values(owner(number).as_wire()), [number.to_string().into()]);
        }
    }
}
