//! Where an emulator listens.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use axum::Router;
use tokio::{net::TcpListener, task::AbortHandle};

/// An HTTP server on a free port of loopback; clones share it, and it ends with the last.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    _server: Arc<Server>,
}

#[derive(Debug)]
struct Server(AbortHandle);

impl Door {
    /// Opens one.
    ///
    /// # Panics
    /// When no port can be had.
    pub(crate) async fn open(app: Router) -> Self {
        let (listener, address) = Self::reserve().await;
        Self::serve(listener, address, app)
    }

    /// A free port, for an app that has to know where it is.
    ///
    /// # Panics
    /// When there is none.
    #[allow(clippy::expect_used, reason = "a test cannot go on without it")]
    pub(crate) async fn reserve() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port of loopback");
        let address = listener.local_addr().expect("its address");
        (listener, address)
    }

    /// Opens one on a port that was reserved.
    pub(crate) fn serve(listener: TcpListener, address: SocketAddr, app: Router) -> Self {
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, app).await;
        });
        Self { address, _server: Arc::new(Server(task.abort_handle())) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}
