//! Log lines that strangers cause, so many a second and no more: what they do not find in the log they find in the metrics.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lines a second.
const LINES: u32 = 20;
const SECOND: Duration = Duration::from_secs(1);

/// Counts the lines of the current second.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<Option<Window>>);

#[derive(Debug)]
struct Window {
    began: Instant,
    lines: u32,
    left_out: u64,
}

impl Throttle {
    /// `None` if this line is to be left out; else how many were left out before it.
    pub(super) fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        let mut current = self.0.lock();
        let window = current.get_or_insert(Window { began: now, lines: 0, left_out: 0 });
        if now.duration_since(window.began) >= SECOND {
            (window.began, window.lines) = (now, 0);
        }
        if window.lines == LINES {
            window.left_out += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_lines_and_the_next_one_says_what_is_missing() {
        let (throttle, begin) = (Throttle::default(), Instant::now());
        for _ in 0..LINES {
            assert_eq!(throttle.admit_at(begin), Some(0));
        }
        for _ in 0..5 {
            assert_eq!(throttle.admit_at(begin + SECOND / 2), None);
        }
        assert_eq!(throttle.admit_at(begin + SECOND), Some(5));
        assert_eq!(throttle.admit_at(begin + SECOND), Some(0));
    }
}
