//! Stand-in until the zones land.
use crate::Name;

/// A zone's configuration.
#[derive(Debug, Clone)]
pub struct ZoneConfig {
    /// Apex.
    pub name: Name,
}

/// All zones.
#[derive(Debug, Clone, Default)]
pub struct Zones {}

impl Zones {
    /// The zone that encloses a name.
    pub fn zone_of(&self, _name: &Name) -> Option<Name> {
        None
    }
}
