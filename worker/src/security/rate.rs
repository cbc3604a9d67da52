//! How many requests a second each client of the public API may make: a bucket of tokens an address, which fills up
//! with time. Not here: which requests count (`rules`).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use parking_lot::Mutex;

/// Clients that are told apart; all beyond share one bucket.
const MOST_CLIENTS: usize = 1024;
/// The bucket of those.
const OTHERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// Seconds' worth of requests that may come at once.
const BURST: f64 = 2.0;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// The requests of all clients.
#[derive(Debug)]
pub struct Rate {
    per_second: f64,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

impl Rate {
    /// So many requests a second for each client.
    pub fn new(per_second: u32) -> Self {
        Rate { per_second: f64::from(per_second), buckets: Mutex::default() }
    }

    /// Whether a client may make one more request now.
    pub fn take(&self, client: IpAddr, now: Instant) -> bool {
        let most = self.per_second * BURST;
        let filled = |bucket: &Bucket| {
            (bucket.left + now.saturating_duration_since(bucket.at).as_secs_f64() * self.per_second).min(most)
        };
        let mut buckets = self.buckets.lock();
        if buckets.len() >= MOST_CLIENTS && !buckets.contains_key(&client) {
            // Who has been quiet for long enough is as good as new.
            buckets.retain(|_, bucket| filled(bucket) < most);
        }
        let full = buckets.len() >= MOST_CLIENTS && !buckets.contains_key(&client);
        let key = if full { OTHERS } else { client };
        let bucket = buckets.entry(key).or_insert(Bucket { left: most, at: now });
        let left = filled(bucket);
        let may = left >= 1.0;
        *bucket = Bucket { left: if may { left - 1.0 } else { left }, at: now };
        may
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_taken_and_then_the_rate() {
        let (rate, start) = (Rate::new(10), Instant::now());
        let client = IpAddr::from([10, 0, 0, 1]);
        let taken = |n: usize, at| (0..n).filter(|_| rate.take(client, at)).count();
        assert_eq!(taken(100, start), 20);
        assert_eq!(taken(100, start + Duration::from_millis(550)), 5);
        assert!(rate.take(IpAddr::from([10, 0, 0, 2]), start), "others are not held up");
        assert_eq!(taken(100, start + Duration::from_secs(60)), 20);
    }

    #[test]
    fn clients_beyond_count_share_and_are_forgotten() {
        let (rate, start) = (Rate::new(1), Instant::now());
        for n in 0..100_000u32 {
            rate.take(IpAddr::from(n.to_be_bytes()), start);
        }
        assert!(rate.buckets.lock().len() <= MOST_CLIENTS + 1);
        assert!(!rate.take(IpAddr::from([9, 9, 9, 9]), start), "the shared bucket is empty");
        assert!(rate.take(IpAddr::from([9, 9, 9, 9]), start + Duration::from_secs(10)));
        assert!(rate.buckets.lock().len() < 10);
    }
}
