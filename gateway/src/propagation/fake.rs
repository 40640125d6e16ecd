//! A scripted DNS server for tests: UDP and TCP on one port of loopback.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hickory_proto::{
    op::{Message, OpCode},
    rr::{RData, Record, rdata},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    task::JoinHandle,
};

use super::Checker;
use crate::config::{self, Check, ResolverAddress};

/// A server that answers as its script says, until it is dropped.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    asked: Arc<AtomicUsize>,
    tasks: [JoinHandle<()>; 2],
}

impl Fake {
    /// Starts a server. `script` gets each query and whether it came over TCP, and gives the messages to send back.
    pub(crate) async fn start(script: impl Fn(&Message, bool) -> Vec<Message> + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), script).await
    }

    /// The same at an address; port 0 is any that is free.
    pub(crate) async fn at(address: SocketAddr, script: impl Fn(&Message, bool) -> Vec<Message> + Send + Sync + 'static) -> Self {
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind(address).await.unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (tcp, udp);
            }
        };
        let address = udp.local_addr().unwrap();
        let script = Arc::new(script);
        let asked = Arc::new(AtomicUsize::new(0));
        let over_udp = tokio::spawn({
            let (script, asked) = (script.clone(), asked.clone());
            async move {
                let mut buffer = [0; 4096];
                while let Ok((length, client)) = udp.recv_from(&mut buffer).await {
                    asked.fetch_add(1, Ordering::Relaxed);
                    let query = Message::from_vec(&buffer[..length]).unwrap();
                    for answer in script(&query, false) {
                        udp.send_to(&answer.to_vec().unwrap(), client).await.unwrap();
                    }
                }
            }
        });
        let over_tcp = tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let length = stream.read_u16().await.unwrap();
                let mut query = vec![0; length.into()];
                stream.read_exact(&mut query).await.unwrap();
                for answer in script(&Message::from_vec(&query).unwrap(), true) {
                    let answer = answer.to_vec().unwrap();
                    stream.write_u16(answer.len() as u16).await.unwrap();
                    stream.write_all(&answer).await.unwrap();
                }
            }
        });
        Self { address, asked, tasks: [over_udp, over_tcp] }
    }

    /// Queries over UDP so far.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// An answer to `query` with these TXT values.
pub(crate) fn reply(query: &Message, authoritative: bool, texts: &[&str]) -> Message {
    let mut answer = Message::response(query.metadata.id, OpCode::Query);
    answer.metadata.authoritative = authoritative;
    answer.queries.clone_from(&query.queries);
    for text in texts {
        answer.answers.push(Record::from_rdata(query.queries[0].name.clone(), 1, RData::TXT(rdata::TXT::new(vec![(*text).to_owned()]))));
    }
    answer
}

impl Checker {
    /// A checker with these resolvers, for authoritative servers on this port.
    pub(crate) fn over(resolvers: &[SocketAddr], port: u16) -> Self {
        let resolvers = resolvers.iter().copied().map(ResolverAddress::Udp).collect();
        let config = config::Propagation { resolvers, ca_file: None, check: Check::Authoritative, timeout: Duration::from_millis(1500) };
        Self { port, ..Self::new(&config) }
    }
}
