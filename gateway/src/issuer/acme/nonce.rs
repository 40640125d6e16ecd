//! A pool of nonces (RFC 8555, 6.5): every answer of a CA brings one, and every signed request needs one.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Most nonces kept. One run has a handful of requests in flight; the rest of a burst's nonces would only grow old.
const MOST: usize = 64;
/// A nonce older than this is likelier to be refused than not.
const OLDEST: Duration = Duration::from_secs(600);
/// Longest nonce that is kept, in characters.
const LONGEST: usize = 512;

/// Unused nonces, the newest on top.
#[derive(Debug, Default)]
pub(super) struct Nonces(Mutex<Vec<(Instant, String)>>);

impl Nonces {
    /// Takes in the nonce of an answer. One that is no base64url (RFC 8555, 6.5.1) is thrown away.
    pub(super) fn put(&self, nonce: &str) {
        let good = (1..=LONGEST).contains(&nonce.len()) && nonce.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !good {
            return;
        }
        let mut pool = self.0.lock();
        if pool.len() >= MOST {
            pool.remove(0);
        }
        pool.push((Instant::now(), nonce.to_owned()));
    }

    /// The newest nonce, if there is a fresh one.
    pub(super) fn take(&self) -> Option<String> {
        let mut pool = self.0.lock();
        match pool.pop() {
            Some((since, nonce)) if since.elapsed() < OLDEST => Some(nonce),
            // Those below it are older still.
            _ => {
                pool.clear();
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_nonce_is_used_first_and_once() {
        let pool = Nonces::default();
        for nonce in ["a", "b", "", "not/base64url", "c"] {
            pool.put(nonce);
        }
        assert_eq!([pool.take(), pool.take(), pool.take(), pool.take()], [Some("c".into()), Some("b".into()), Some("a".into()), None]);
    }

    #[test]
    fn the_pool_is_bounded() {
        let pool = Nonces::default();
        for n in 0..MOST + 10 {
            pool.put(&n.to_string());
        }
        pool.put(&"x".repeat(LONGEST + 1));
        let taken: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(taken.len(), MOST);
        assert_eq!(taken.last(), Some(&"10".to_owned()));
    }
}
