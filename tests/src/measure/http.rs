//! A lean load generator for the acme-dns API: prepared bytes, keep-alive, one request outstanding on each connection, one thread for all of them.
//!
//! It runs on the cores of the server that it measures, so what it costs itself is measured too.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Latencies, usage};
use crate::acmedns::Account;

/// What is asked again and again on one connection.
#[derive(Debug, Clone)]
pub struct Request {
    bytes: Vec<u8>,
    /// Where the value stands that is new in each request.
    value: Option<usize>,
    status: &'static [u8; 3],
}

/// Length of a TXT value.
const VALUE: usize = 43;

impl Request {
    /// An update as lego sends it, with another value each time.
    pub fn update(address: SocketAddr, account: &Account) -> Self {
        let body = format!("{{\"subdomain\":\"{}\",\"txt\":\"{}\"}}\n", account.subdomain, "0".repeat(VALUE));
        let head = format!(
            "POST /update HTTP/1.1\r\nHost: {address}\r\nUser-Agent: goacmedns (linux; amd64)\r\nContent-Length: {}\r\nAccept: application/json\r\n\
             Content-Type: application/json\r\nX-Api-Key: {}\r\nX-Api-User: {}\r\n\r\n",
            body.len(),
            account.password,
            account.username
        );
        let bytes = (head + &body).into_bytes();
        let value = bytes.len() - "\"}\n".len() - VALUE;
        Self { bytes, value: Some(value), status: b"200" }
    }

    /// A registration as lego sends it.
    pub fn register(address: SocketAddr) -> Self {
        let bytes = format!(
            "POST /register HTTP/1.1\r\nHost: {address}\r\nUser-Agent: goacmedns (linux; amd64)\r\nContent-Length: 5\r\nAccept: application/json\r\n\
             Content-Type: application/json\r\n\r\nnull\n"
        );
        Self { bytes: bytes.into_bytes(), value: None, status: b"201" }
    }
}

/// What a run of load did.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Requests that were answered as they should be, a second.
    pub rate: f64,
    /// Their latencies.
    pub latencies: Latencies,
    /// How many they were.
    pub answered: u64,
    /// CPU time of the load generator's thread, warm-up included.
    pub load_cpu: Duration,
}

/// A load that runs on a thread of its own.
#[derive(Debug)]
pub struct Load(thread::JoinHandle<anyhow::Result<Outcome>>);

impl Load {
    /// Starts a connection for each request: for `warm_up` unmeasured, then for `duration`.
    pub fn start(address: SocketAddr, requests: Vec<Request>, warm_up: Duration, duration: Duration) -> Self {
        Self(thread::spawn(move || drive(address, requests, warm_up, duration)))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When a connection broke or an answer was not what it should be.
    pub fn outcome(self) -> anyhow::Result<Outcome> {
        self.0.join().map_err(|_| anyhow!("the load generator died"))?
    }
}

/// Runs a load to its end.
///
/// # Errors
/// When a connection broke or an answer was not what it should be.
pub fn run(address: SocketAddr, requests: Vec<Request>, warm_up: Duration, duration: Duration) -> anyhow::Result<Outcome> {
    Load::start(address, requests, warm_up, duration).outcome()
}

fn drive(address: SocketAddr, requests: Vec<Request>, warm_up: Duration, duration: Duration) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let samples = runtime.block_on(async {
        let mut streams = Vec::new();
        for _ in &requests {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            streams.push(stream);
        }
        let from = Instant::now() + warm_up;
        let window = Window { from, until: from + duration };
        let connections = requests.into_iter().zip(streams).enumerate();
        let tasks: Vec<_> =
            connections.map(|(number, (request, stream))| tokio::spawn(connection(number, stream, request, window))).collect();
        let mut samples = Vec::new();
        for task in tasks {
            samples.append(&mut task.await??);
        }
        anyhow::Ok(samples)
    })?;
    let load_cpu = usage::this_thread()?;
    let answered = samples.len() as u64;
    Ok(Outcome { rate: answered as f64 / duration.as_secs_f64(), latencies: Latencies::new(samples), answered, load_cpu })
}

#[derive(Clone, Copy)]
struct Window {
    from: Instant,
    until: Instant,
}

async fn connection(number: usize, mut stream: TcpStream, mut request: Request, window: Window) -> anyhow::Result<Vec<Duration>> {
    let mut samples = Vec::new();
    let mut buffer = vec![0; 4096];
    for round in 0_u64.. {
        if let Some(slot) = request.value.and_then(|at| request.bytes.get_mut(at..at + VALUE)) {
            slot.copy_from_slice(format!("{number:023}{round:020}").as_bytes());
        }
        let start = Instant::now();
        if start >= window.until {
            break;
        }
        stream.write_all(&request.bytes).await?;
        read_response(&mut stream, &mut buffer, request.status).await?;
        let end = Instant::now();
        if end >= window.from && end < window.until {
            samples.push(end - start);
        }
    }
    Ok(samples)
}

async fn read_response(stream: &mut TcpStream, buffer: &mut [u8], status: &[u8; 3]) -> anyhow::Result<()> {
    let mut filled = 0;
    loop {
        let room = buffer.get_mut(filled..).filter(|room| !room.is_empty()).context("an answer longer than 4 kB")?;
        let read = stream.read(room).await?;
        anyhow::ensure!(read > 0, "the connection was closed before the answer");
        filled += read;
        let received = buffer.get(..filled).unwrap_or_default();
        let Some(head) = find(received, b"\r\n\r\n") else { continue };
        if received.get(9..12) != Some(&status[..]) {
            bail!("an answer that was not {}: {}", String::from_utf8_lossy(status), String::from_utf8_lossy(received));
        }
        let length = content_length(received.get(..head).unwrap_or_default()).context("an answer without Content-Length")?;
        if filled >= head + 4 + length {
            return Ok(());
        }
    }
}

fn content_length(head: &[u8]) -> Option<usize> {
    let name = b"\r\ncontent-length: ";
    let at = head.windows(name.len()).position(|window| window.eq_ignore_ascii_case(name))?;
    let digits = head.get(at + name.len()..)?.iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0')))
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_where_the_request_says() {
        let text = |text: &str| text.to_owned();
        let account = Account {
            username: text("user"),
            password: text("key"),
            fulldomain: text("a.test"),
            subdomain: text("a"),
            allowfrom: Vec::new(),
        };
        let mut request = Request::update(([127, 0, 0, 1], 80).into(), &account);
        let slot = request.value.and_then(|at| request.bytes.get_mut(at..at + VALUE));
        slot.expect("a slot").fill(b'x');
        let sent = String::from_utf8(request.bytes).expect("text");
        assert!(sent.ends_with(&format!("\r\n\r\n{{\"subdomain\":\"a\",\"txt\":\"{}\"}}\n", "x".repeat(VALUE))), "{sent}");
        assert_eq!(content_length(sent.as_bytes()), sent.split_once("\r\n\r\n").map(|(_, body)| body.len()));
    }
}
