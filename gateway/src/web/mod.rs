//! What every HTTP door stands on: listeners, TLS that follows its files, and limits on all that a client can make us hold.
//!
//! A door is an [`axum::Router`]; [`serve()`] runs it on a listener. No client can hold a connection, a request or memory for longer, or more of it,
//! than [`Limits`] allows: the number of connections is bounded, and so are the TLS handshake, the time between two requests, the header's time and
//! size, the body's time and size, and the handler's time.

mod authority;
mod bind;
mod body;
mod clients;
mod limits;
mod self_made;
mod serve;
mod tls;

pub use authority::{Authority, AuthorityError, Subject};
pub use bind::{BindError, Bound, Listener, bind};
pub use body::{BodyError, read_body};
pub use clients::{ClientChain, Clients};
pub use limits::Limits;
pub use self_made::{RENEWED_AFTER, SelfMade};
pub use serve::{Peer, serve};
pub use tls::{ReloadedTls, TlsError};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
