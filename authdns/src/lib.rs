//! An authoritative DNS server for zones that live in memory and change while they answer.

mod answer;
mod counters;
mod edns;
mod handler;
mod message;
mod name;
mod record;
mod rrset;
mod server;
mod tcp;
mod tsig;
mod types;
mod udp;
mod writer;
mod zone;

pub use answer::{Outcome, Transport, respond};
pub use counters::Counters;
pub use handler::Handler;
pub use name::{MAX_LABEL, MAX_NAME, Name, NameError};
pub use record::{RecordError, StaticRecord};
pub use server::{BindError, Limits, Server};
pub use types::{Rcode, RecordType, UnknownType};
pub use zone::{Answer, ZoneConfig, ZoneError, Zones};
