//! Where a question is put, and how: one server over one transport.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use hickory_proto::op::Message;

use super::{
    exchange::{ExchangeError, Question, exchange, exchange_tcp},
    https::Https,
};

/// One server over one transport. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) enum Upstream {
    /// UDP, and TCP where the answer is too long for it.
    Udp(SocketAddr),
    /// TCP alone.
    Tcp(SocketAddr),
    /// HTTPS (RFC 8484).
    Https(Arc<Https>),
}

impl Upstream {
    /// Asks it, for `patience` at most (for each of UDP and TCP).
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub(super) async fn exchange(&self, question: &Question, patience: Duration) -> Result<Message, ExchangeError> {
        match self {
            Self::Udp(address) => exchange(*address, question, patience).await,
            Self::Tcp(address) => exchange_tcp(*address, question, patience).await,
            Self::Https(server) => server.exchange(question, patience).await,
        }
    }
}

impl fmt::Display for Upstream {
    /// As it is written in the configuration; plain addresses are UDP.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(address) => write!(f, "{address}"),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Https(server) => write!(f, "{server}"),
        }
    }
}
