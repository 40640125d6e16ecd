//! An authoritative DNS server for zones that live in memory and change while they answer.

mod name;

pub use name::{MAX_LABEL, MAX_NAME, Name, NameError};

mod zones;
pub use zones::{ZoneConfig, Zones};
