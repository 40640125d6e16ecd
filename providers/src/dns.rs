//! Plain DNS to one server, for providers that speak it: queries, updates (RFC 2136), signatures (RFC 8945), over TCP or UDP.
//!
//! Messages are made and read by hand: an update is a dozen lines, and a signature is over the very bytes of a message.

pub(crate) mod exchange;
pub(crate) mod message;
pub(crate) mod tsig;
