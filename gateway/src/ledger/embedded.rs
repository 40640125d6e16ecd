//! The embedded zones as a projection of the ledger.

use authdns::{Name, Zones};

use crate::store::Projection;

/// Zones that answer what the ledger says.
#[derive(Clone)]
pub struct EmbeddedZones(pub Zones);

impl Projection for EmbeddedZones {
    fn project(&self, zone: &Name, serial: u32, owners: Vec<(Name, Vec<Box<str>>)>) {
        self.0.set_txt(zone, serial, owners);
    }
}
