//! A TCP relay with a gate: while it is shut, whoever connects waits at it. So a test can do something just before a look-up is answered, however quick
//! that would be.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use crate::wait::bounded;

/// A running relay, for the runtime that made it; it ends when this is dropped.
pub struct Gate {
    address: SocketAddr,
    /// Where it leads to; nowhere while it is shut.
    to: watch::Sender<Option<SocketAddr>>,
    waiting: Arc<watch::Sender<usize>>,
    task: JoinHandle<()>,
}

impl Gate {
    /// Listens on a port of 127.0.0.1; it is shut.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn start() -> Self {
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = bound.unwrap_or_else(|e| panic!("a gate cannot listen: {e}"));
        let address = listener.local_addr().unwrap_or_else(|e| panic!("where does the gate listen? {e}"));
        let (to, leads) = watch::channel(None);
        let waiting = Arc::new(watch::Sender::new(0));
        let task = tokio::spawn(serve(listener, leads, Arc::clone(&waiting)));
        Self { address, to, waiting, task }
    }

    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets everybody through to this address, those that wait too.
    pub fn open(&self, to: SocketAddr) {
        self.to.send_replace(Some(to));
    }

    /// From now on, whoever comes waits.
    pub fn shut(&self) {
        self.to.send_replace(None);
    }

    /// Returns when somebody waits at the gate.
    ///
    /// # Panics
    /// When nobody comes within [`LIMIT`](crate::wait::LIMIT).
    pub async fn has_visitor(&self) {
        let mut waiting = self.waiting.subscribe();
        let came = bounded("somebody at the gate", waiting.wait_for(|&waiting| waiting > 0)).await;
        came.unwrap_or_else(|e| panic!("the gate is gone: {e}"));
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, leads: watch::Receiver<Option<SocketAddr>>, waiting: Arc<watch::Sender<usize>>) {
    // They end with this task.
    let mut visitors = JoinSet::new();
    loop {
        let Ok((mut client, _)) = listener.accept().await else { continue };
        let (mut leads, waiting) = (leads.clone(), Arc::clone(&waiting));
        visitors.spawn(async move {
            waiting.send_modify(|waiting| *waiting += 1);
            let to = leads.wait_for(Option::is_some).await.ok().and_then(|to| *to);
            waiting.send_modify(|waiting| *waiting -= 1);
            if let Some(to) = to {
                let mut server = TcpStream::connect(to).await?;
                copy_bidirectional(&mut client, &mut server).await?;
            }
            std::io::Result::Ok(())
        });
        while visitors.try_join_next().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn who_comes_waits_until_it_opens() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let gate = Gate::start().await;
        let mut client = TcpStream::connect(gate.address()).await.unwrap();
        client.write_all(b"?").await.unwrap();
        gate.has_visitor().await;
        gate.open(server.local_addr().unwrap());
        let (mut served, _) = server.accept().await.unwrap();
        assert_eq!(served.read_u8().await.unwrap(), b'?');
        served.write_all(b"!").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'!');
        gate.shut();
        let _second = TcpStream::connect(gate.address()).await.unwrap();
        gate.has_visitor().await;
    }
}
