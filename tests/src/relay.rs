//! A relay from port 53 of an address of one's own to a server that will not listen there.
//!
//! BIND listens only on addresses that an interface has, and 127.53.0.0/16 is merely routed to the loopback interface. The relay passes datagrams and
//! streams on as they are, on a thread of its own. While there is none, nobody answers there: so a server is down, and up again, without being started anew.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UdpSocket},
    sync::oneshot,
    time::timeout,
};

/// How long the relay waits for the server's reply to a datagram.
const REPLY: Duration = Duration::from_secs(5);

/// A running relay; it ends when this is dropped.
pub struct Relay {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Relay {
    /// Relays UDP and TCP from `from` to `to`; both ports are bound when this returns.
    ///
    /// # Panics
    /// When `from` cannot be bound.
    pub fn start(from: SocketAddr, to: SocketAddr) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (bound, result) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let served = runtime.and_then(|runtime| runtime.block_on(serve(from, to, bound.clone(), stopped)));
            let _ = bound.send(served);
        });
        match result.recv() {
            Ok(Ok(())) => Self { stop: Some(stop), thread: Some(thread) },
            other => panic!("cannot relay {from} to {to}: {other:?}"),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(from: SocketAddr, to: SocketAddr, bound: mpsc::Sender<io::Result<()>>, stopped: oneshot::Receiver<()>) -> io::Result<()> {
    let udp = Arc::new(UdpSocket::bind(from).await?);
    let tcp = TcpListener::bind(from).await?;
    let _ = bound.send(Ok(()));
    tokio::select! {
        () = datagrams(udp, to) => {}
        () = streams(tcp, to) => {}
        _ = stopped => {}
    }
    Ok(())
}

async fn datagrams(udp: Arc<UdpSocket>, to: SocketAddr) {
    let mut query = vec![0; 65_535];
    loop {
        let Ok((length, client)) = udp.recv_from(&mut query).await else { continue };
        let (udp, query) = (Arc::clone(&udp), query.get(..length).unwrap_or_default().to_vec());
        tokio::spawn(async move {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            socket.connect(to).await?;
            socket.send(&query).await?;
            let mut reply = vec![0; 65_535];
            let length = timeout(REPLY, socket.recv(&mut reply)).await??;
            udp.send_to(reply.get(..length).unwrap_or_default(), client).await
        });
    }
}

async fn streams(tcp: TcpListener, to: SocketAddr) {
    loop {
        let Ok((mut client, _)) = tcp.accept().await else { continue };
        tokio::spawn(async move {
            let mut server = TcpStream::connect(to).await?;
            copy_bidirectional(&mut client, &mut server).await
        });
    }
}
