//! Queries in numbers: one at a time for latencies, a window of them for throughput.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::ensure;
use hickory_proto::rr::RecordType;

use super::Latencies;
use crate::dns::query;

/// How long an answer may take before it counts as lost.
const LOST: Duration = Duration::from_secs(1);

/// The bytes of TXT queries for these names.
///
/// # Errors
/// When a name cannot be encoded.
pub fn queries(names: &[String]) -> anyhow::Result<Vec<Vec<u8>>> {
    names.iter().map(|name| Ok(query(name, RecordType::TXT).to_vec()?)).collect()
}

/// Latencies of queries sent one after the other, with `pause` between them, until `duration` is over; and how many were lost.
///
/// # Errors
/// When the server cannot be asked at all.
pub fn latencies(server: SocketAddr, queries: &[Vec<u8>], pause: Duration, duration: Duration) -> anyhow::Result<(Latencies, u64)> {
    ensure!(!queries.is_empty(), "nothing to ask");
    let socket = connected(server)?;
    let mut reply = [0; 4096];
    let (mut samples, mut lost) = (Vec::new(), 0);
    let begun = Instant::now();
    for query in queries.iter().cycle() {
        let start = Instant::now();
        if start - begun >= duration {
            break;
        }
        socket.send(query)?;
        match socket.recv(&mut reply) {
            Ok(_) => samples.push(start.elapsed()),
            Err(error) if is_timeout(&error) => lost += 1,
            Err(error) => return Err(error.into()),
        }
        if !pause.is_zero() {
            std::thread::park_timeout(pause);
        }
    }
    Ok((Latencies::new(samples), lost))
}

/// Keeps `window` queries outstanding until `duration` is over; gives how many were answered with data.
///
/// # Errors
/// When the server cannot be asked, or answers without data.
pub fn blast(server: SocketAddr, queries: &[Vec<u8>], window: usize, duration: Duration) -> anyhow::Result<u64> {
    ensure!(!queries.is_empty(), "nothing to ask");
    let socket = connected(server)?;
    let mut reply = [0; 4096];
    let mut next = queries.iter().cycle();
    let (mut answered, mut outstanding) = (0, 0);
    let begun = Instant::now();
    while begun.elapsed() < duration {
        // Half a window at once, so that the server too meets several in its queue.
        if outstanding <= window / 2 {
            for query in next.by_ref().take(window - outstanding) {
                socket.send(query)?;
                outstanding += 1;
            }
        }
        match socket.recv(&mut reply) {
            Ok(length) => {
                // ANCOUNT (RFC 1035, 4.1.1).
                ensure!(length > 12 && reply.get(6..8) != Some(&[0, 0]), "an answer without data");
                answered += 1;
                outstanding = outstanding.saturating_sub(1);
            }
            Err(error) if is_timeout(&error) => outstanding = 0,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(answered)
}

fn connected(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(LOST))?;
    Ok(socket)
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
