//! Yardsticks that depend on nothing but the machine.

use std::{
    fs::File,
    io::Write,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::anyhow;

use super::Latencies;

/// The cost with which the original acme-dns hashes its keys.
const BCRYPT_COST: u32 = 10;
/// What SQLite appends to its log for a small transaction.
const PAGE: usize = 4096;

/// How many bcrypt verifications of cost 10 all cores together do in a second: what the original acme-dns can do at most, for it does one for each
/// update.
///
/// # Errors
/// When bcrypt fails.
pub fn bcrypt_rate(duration: Duration) -> anyhow::Result<f64> {
    let key = "0123456789abcdefghijklmnopqrstuvwxyzABCD";
    let hash = bcrypt::hash(key, BCRYPT_COST)?;
    let begun = Instant::now();
    let worker = || -> anyhow::Result<f64> {
        let mut done = 0.0;
        while begun.elapsed() < duration {
            anyhow::ensure!(bcrypt::verify(key, &hash)?, "bcrypt does not know its own hash");
            done += 1.0;
        }
        // Each worker ends a verification later than told, at a time of its own.
        Ok(done / begun.elapsed().as_secs_f64())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cores()).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().map_err(|_| anyhow!("a bcrypt worker died"))?).sum()
    })
}

/// How long it takes to append 4 kB to a file in `folder` and to make them durable, again and again.
///
/// # Errors
/// When the file cannot be written.
pub fn fsyncs(folder: &Path, duration: Duration) -> anyhow::Result<Latencies> {
    let path = folder.join("fsync-yardstick");
    let mut file = File::create(&path)?;
    let page = [0x5a; PAGE];
    let begun = Instant::now();
    let mut samples = Vec::new();
    while begun.elapsed() < duration {
        let start = Instant::now();
        file.write_all(&page)?;
        file.sync_data()?;
        samples.push(start.elapsed());
    }
    std::fs::remove_file(path)?;
    Ok(Latencies::new(samples))
}

/// Cores that this program may use.
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}
