//! Limits the requests per second of each client of the public API, with a bucket per address. The number of buckets is
//! bounded: clients beyond it share one bucket, which the limiters of libraries do not offer.
//!
//! Not here: which requests count (`guard`).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::connections::network;

/// The maximum number of clients with their own bucket; all others share one.
const MAX_CLIENTS: usize = 1024;
/// The address of the shared buckets.
const OTHERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// The size of a bucket, in seconds of the rate.
const BURST: f64 = 2.0;
/// The interval between searches for full buckets, which visit all of them.
const SWEEP: Duration = Duration::from_millis(100);

/// The clients that share a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RateKey {
    network: IpAddr,
    /// Clients with a certificate have their own bucket: others at the same address cannot empty it.
    certified: bool,
}

impl RateKey {
    /// The bucket of a client. All addresses of an IPv6 network (64 bits) share one.
    pub fn new(address: IpAddr, certified: bool) -> Self {
        RateKey { network: network(address), certified }
    }
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// The rate limit of all clients.
#[derive(Debug)]
pub struct Rate {
    per_second: f64,
    buckets: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    of: HashMap<RateKey, Bucket>,
    swept: Option<Instant>,
}

impl Rate {
    /// A limit of `per_second` requests for each client.
    pub fn new(per_second: u32) -> Self {
        Rate { per_second: f64::from(per_second), buckets: Mutex::default() }
    }

    /// Takes one request of a client; `false` if it exceeds the limit.
    pub fn take(&self, client: RateKey, now: Instant) -> bool {
        let full_bucket = self.per_second * BURST;
        let filled = |bucket: &Bucket| {
            (bucket.left + now.saturating_duration_since(bucket.at).as_secs_f64() * self.per_second)
                .min(full_bucket)
        };
        let mut buckets = self.buckets.lock();
        let Buckets { of, swept } = &mut *buckets;
        let crowded = |of: &HashMap<RateKey, Bucket>| of.len() >= MAX_CLIENTS && !of.contains_key(&client);
        if crowded(of) && swept.is_none_or(|at| now.saturating_duration_since(at) >= SWEEP) {
            // A full bucket is the same as a new one.
            of.retain(|_, bucket| filled(bucket) < full_bucket);
            *swept = Some(now);
        }
        let key = if crowded(of) { RateKey { network: OTHERS, ..client } } else { client };
        let bucket = of.entry(key).or_insert(Bucket { left: full_bucket, at: now });
        let left = filled(bucket);
        let may = left >= 1.0;
        *bucket = Bucket { left: if may { left - 1.0 } else { left }, at: now };
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_accepted_and_then_the_rate() {
        let (rate, start) = (Rate::new(10), Instant::now());
        let client = RateKey::new(IpAddr::from([10, 0, 0, 1]), false);
        let taken = |n: usize, at| (0..n).filter(|_| rate.take(client, at)).count();
        assert_eq!(taken(100, start), 20);
        assert_eq!(taken(100, start + Duration::from_millis(550)), 5);
        let others =
            [(2, false), (1, true)].map(|(last, certified)| RateKey::new([10, 0, 0, last].into(), certified));
        assert!(others.into_iter().all(|other| rate.take(other, start)), "other clients are not limited");
        assert_eq!(taken(100, start + Duration::from_secs(60)), 20);
    }

    #[test]
    fn clients_beyond_the_maximum_share_a_bucket_and_idle_ones_are_forgotten() {
        let (rate, start) = (Rate::new(1), Instant::now());
        for n in 0..100_000u32 {
            rate.take(RateKey::new(n.to_be_bytes().into(), false), start);
        }
        assert!(rate.buckets.lock().of.len() <= MAX_CLIENTS + 2);
        let late = |certified| RateKey::new([99, 9, 9, 9].into(), certified);
        assert!(!rate.take(late(false), start), "the shared bucket is empty");
        assert!(rate.take(late(true), start), "clients with a certificate share another one");
        assert!(rate.take(late(false), start + Duration::from_secs(10)));
        assert!(rate.buckets.lock().of.len() < 10);
    }
}
