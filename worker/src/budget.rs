//! One memory budget a process, in bytes, that everything large draws from.
//!
//! Not here: what to do where it runs out; that is each user's own answer (flush, spill, another
//! pass, a clear error).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often a patient reservation looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// How long a patient reservation waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// A shared count of bytes with a limit.
#[derive(Debug, Clone)]
pub struct Budget {
    inner: Arc<Inner>,
    patience: Duration,
}

#[derive(Debug)]
struct Inner {
    limit: u64,
    used: AtomicU64,
}

/// Bytes taken from a budget, given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    bytes: u64,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Budget { inner: Arc::new(Inner { limit, used: AtomicU64::new(0) }), patience: PATIENCE }
    }

    /// The same bytes, for somebody who waits so long and not longer.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Budget { patience, ..self }
    }

    /// Its limit in bytes.
    pub fn limit(&self) -> u64 {
        self.inner.limit
    }

    /// Bytes reserved now.
    pub fn used(&self) -> u64 {
        self.inner.used.load(Ordering::Relaxed)
    }

    /// Takes `bytes`, or nothing if they are not there.
    pub fn reserve(&self, bytes: usize) -> Option<Reservation> {
        let bytes = bytes as u64;
        let fits = |used: u64| used.checked_add(bytes).filter(|&sum| sum <= self.inner.limit);
        self.inner.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(Reservation { budget: self.clone(), bytes })
    }
}

impl Budget {
    /// Takes `bytes`, waiting a while for others to give some back; nothing if they could never be
    /// there, or are not by then.
    pub fn reserve_patiently(&self, bytes: usize) -> Option<Reservation> {
        let deadline = Instant::now() + self.patience;
        loop {
            if let Some(held) = self.reserve(bytes) {
                return Some(held);
            }
            if bytes as u64 > self.limit() || Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.inner.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_given_back() {
        let budget = Budget::new(100);
        let first = budget.reserve(60).unwrap();
        assert!(budget.reserve(41).is_none());
        let second = budget.reserve(40).unwrap();
        assert_eq!(budget.used(), 100);
        drop(first);
        assert_eq!(budget.used(), 40);
        drop(second);
        assert_eq!(budget.used(), 0);
        assert!(budget.reserve(usize::MAX).is_none());
        let held = budget.reserve(80).unwrap();
        let other = budget.clone();
        let waiting = std::thread::spawn(move || other.reserve_patiently(50).is_some());
        drop(held);
        assert!(waiting.join().unwrap());
        let held = budget.reserve(1).unwrap();
        let patient = budget.clone().with_patience(Duration::from_secs(3600));
        assert!(patient.reserve_patiently(101).is_none());
        assert!(budget.with_patience(Duration::ZERO).reserve_patiently(100).is_none());
        drop(held);
    }
}
