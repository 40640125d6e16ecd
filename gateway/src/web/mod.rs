//! What every HTTP door stands on: listeners, TLS that follows its files, and limits on all that a client can make us hold.
//!
//! A door is an [`axum::Router`]; [`serve()`] runs it on a listener. No client can hold a connection, a request or memory for longer, or more of it,
//! than [`Limits`] allows: the number of connections is bounded, and so are the TLS handshake, the time between two requests, the header's time and
//! size, the body's time and size, and the handler's time.

mod bind;
mod body;
mod limits;
mod serve;
mod tls;

pub use bind::{BindError, Bound, Listener, bind};
pub use body::{BodyError, read_body};
pub use limits::Limits;
pub use serve::{Peer, serve};
pub use tls::{ReloadedTls, TlsError};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
