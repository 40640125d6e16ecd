//! An authoritative DNS server for zones that live in memory and change while they answer.
//!
//! It serves what a DNS-01 gateway needs: a few static records a zone, and any number of TXT RRsets that come and go by the second. It knows no
//! HTTP, no store and no ACME; whoever embeds it puts values in with [`Zones::set_txt`] and sees them answered when that returns.
//!
//! ```text
//!  UDP, TCP ── bytes ──▶ message ─▶ answer::decide ─▶ Zones::lookup ─▶ Answer ─▶ writer ── bytes ──▶
//!  TLS, HTTPS, QUIC ───▶ (the same two, in Handler)                         └──▶ hickory-server's types
//! ```
//! There is **one look-up**, from a name and a type to a typed [`Answer`], and two encoders over it: [`respond`], a pure function from bytes to bytes,
//! and [`Handler`] for the listeners of hickory-server. A test proves that they give equal messages.
//!
//! - `zone` holds the data. What an operator writes never changes and needs no lock (`zone::data`); TXT values live in one sharded map for all zones
//!   (`zone::dynamic`), where an update costs the same in a zone of ten names and of a million, and never holds readers up for longer
//!   than a copy.
//! - The plain case, a TXT query for a name that has values, is one hash look-up and a copy, without allocation.
//! - [`Server`] brings the sockets: UDP on threads of their own, so that nothing else in the process delays an answer, TCP on the caller's runtime.
//!
//! What is answered to odd queries follows the RFCs that the code names, and where they leave a choice, what Knot DNS and NSD do:
//! zones may nest; CNAMEs are followed inside their zone; delegations are referred with glue; wildcards are synthesised (RFC 4592), from
//! dynamic owners too; ANY gets one RRset (RFC 8482); the only class is IN. Transfers, dynamic update and DNSSEC are not served.

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
