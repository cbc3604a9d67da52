//! The connections of one listener, up to a maximum. If there is no room for a new connection, another one is closed, so
//! that clients that hold connections cannot keep others out. The rules prefer to close connections of the address that
//! has the most, and never wait for the client.
//!
//! Not here: accepting and serving connections (`security::listen`, `http`), the limit of open files (`open_files`).

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// How long a new connection without a request is closed only if there is no older one: its request may be on its way.
const FRESH: Duration = Duration::from_secs(1);
/// The share of the maximum that is closed at once, so that a flood of connections does not rank all others each time.
const BATCH: usize = 64;

/// Which connections are closed to make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// For short requests: first those that had a request, from the longest idle one; then those without one.
    CloseUsed,
    /// For streams: those without an accepted request. Others only if they have no certificate and their address has more
    /// than half of the maximum.
    KeepUsed,
}

/// Clients that are limited together: an IPv4 address, or the 64 bits that identify a network of IPv6. A client can use any
/// address of its network.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        address => address,
    }
}

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct Slot {
    network: IpAddr,
    use_of: Mutex<Use>,
    closed: AtomicBool,
    waker: AtomicWaker,
}

#[derive(Debug, Clone, Copy)]
struct Use {
    /// The time of the last request, or of the start.
    last: Instant,
    /// Whether a request was accepted.
    used: bool,
    /// Whether the client has a certificate.
    certified: bool,
}

/// What decides the order in which connections are closed, smallest first: a class, whether the connection is fresh, the
/// connections of its network, whether it is unused, and its last use.
type Rank = (u8, bool, Reverse<usize>, bool, Instant);

impl Slot {
    fn new(network: IpAddr) -> Self {
        let use_of = Use { last: Instant::now(), used: false, certified: false };
        Slot {
            network,
            use_of: Mutex::new(use_of),
            closed: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// Notes that a request was accepted.
    pub(crate) fn note_use(&self) {
        let mut of = self.use_of.lock();
        (of.last, of.used) = (Instant::now(), true);
    }

    /// Notes that the client has a certificate.
    pub(crate) fn note_certificate(&self) {
        self.use_of.lock().certified = true;
    }

    /// Whether a request was accepted, or the client has a certificate.
    pub(crate) fn is_trusted(&self) -> bool {
        let of = self.use_of.lock();
        of.used || of.certified
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Ready when the connection must be closed. Only the last task that polled is woken.
    pub(crate) fn poll_closed(&self, cx: &Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.closed.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Ends when the connection must be closed.
    pub(crate) async fn closed(&self) {
        poll_fn(|cx| self.poll_closed(cx)).await;
    }

    /// `None` if the connection is not closed for one of `newcomer`, or is being closed. `count` is the number of
    /// connections of its network.
    fn rank(
        &self,
        (policy, half): (Policy, usize),
        count: usize,
        newcomer: IpAddr,
        now: Instant,
    ) -> Option<Rank> {
        if self.closed.load(Ordering::Acquire) {
            return None;
        }
        let Use { last, used, certified } = *self.use_of.lock();
        let fresh = !used && now.saturating_duration_since(last) < FRESH;
        let class = match policy {
            Policy::CloseUsed => 0,
            Policy::KeepUsed if certified => return None,
            Policy::KeepUsed if !used => 0,
            Policy::KeepUsed if count > half && self.network != newcomer => 1,
            Policy::KeepUsed => return None,
        };
        Some((class, fresh, Reverse(count), !used, last))
    }
}

/// The connections of a listener.
#[derive(Debug)]
pub(crate) struct Connections {
    max: usize,
    policy: Policy,
    open: Mutex<Open>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    slots: BTreeMap<u64, Arc<Slot>>,
}

/// The place of a connection, which is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    id: u64,
    slot: Arc<Slot>,
    of: Arc<Connections>,
}

impl Place {
    /// The state of the connection.
    pub(crate) fn slot(&self) -> Arc<Slot> {
        self.slot.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.open.lock().slots.remove(&self.id);
        self.of.freed.notify_waiters();
    }
}

impl Connections {
    /// A listener's connections, at most `max`.
    pub(crate) fn new(max: usize, policy: Policy) -> Arc<Self> {
        Arc::new(Connections { max, policy, open: Mutex::default(), freed: Notify::new() })
    }

    /// A place for a new connection, and the number of connections that were closed for it. Waits until they are closed, or
    /// until another ends by itself. With `full`, one must end even if the maximum is not reached: `None` if none may be
    /// closed.
    pub(crate) async fn admit(self: &Arc<Self>, peer: IpAddr, mut full: bool) -> Option<(Place, usize)> {
        let newcomer = network(peer);
        let mut closing: Option<u64> = None;
        let mut count = 0;
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // From here on, no end of a connection is missed.
            freed.as_mut().enable();
            {
                let mut open = self.open.lock();
                if closing.is_some_and(|id| !open.slots.contains_key(&id)) {
                    (closing, full) = (None, false);
                }
                if !full && open.slots.len() < self.max {
                    return Some((self.enter(&mut open, newcomer), count));
                }
                if closing.is_none() {
                    let victims = self.victims(&open, newcomer, Instant::now());
                    victims.iter().filter_map(|id| open.slots.get(id)).for_each(|slot| slot.close());
                    count += victims.len();
                    closing = victims.first().copied();
                    if closing.is_none() && full {
                        return None;
                    }
                }
            }
            freed.await;
        }
    }

    fn enter(self: &Arc<Self>, open: &mut Open, network: IpAddr) -> Place {
        let (id, slot) = (open.next, Arc::new(Slot::new(network)));
        open.next += 1;
        open.slots.insert(id, slot.clone());
        Place { id, slot, of: self.clone() }
    }

    /// The connections to close for one of `newcomer`, in the order of their ranks.
    fn victims(&self, open: &Open, newcomer: IpAddr, now: Instant) -> Vec<u64> {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for slot in open.slots.values() {
            *counts.entry(slot.network).or_default() += 1;
        }
        let rules = (self.policy, self.max / 2);
        let rank =
            |slot: &Slot| slot.rank(rules, counts.get(&slot.network).copied().unwrap_or(0), newcomer, now);
        let mut ranked: Vec<(Rank, u64)> =
            open.slots.iter().filter_map(|(id, slot)| Some((rank(slot)?, *id))).collect();
        ranked.sort_unstable();
        let class = ranked.first().map(|((class, ..), _)| *class);
        ranked.retain(|((of, ..), _)| Some(*of) == class);
        ranked.truncate((self.max / BATCH).max(1));
        ranked.into_iter().map(|(_, id)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// Admits a connection; those that are closed for it end at once.
    async fn enter(connections: &Arc<Connections>, places: &mut Vec<Option<Place>>, peer: IpAddr) -> bool {
        let admit = connections.admit(peer, false);
        tokio::pin!(admit);
        for _ in 0..2 {
            if let Some(admitted) = admit.as_mut().now_or_never() {
                places.push(admitted.map(|(place, _)| place));
                return true;
            }
            let is_closed = |place: &Option<Place>| {
                place.as_ref().is_some_and(|place| place.slot.closed.load(Ordering::Acquire))
            };
            places.iter_mut().filter(|place| is_closed(place)).for_each(|place| *place = None);
        }
        false
    }

    fn age(places: &[Option<Place>]) {
        for place in places.iter().flatten() {
            let mut of = place.slot.use_of.lock();
            of.last = of.last.checked_sub(2 * FRESH).unwrap();
        }
    }

    fn left(places: &[Option<Place>]) -> Vec<usize> {
        (0..places.len()).filter(|at| places[*at].is_some()).collect()
    }

    #[tokio::test]
    async fn idle_connections_of_the_address_that_has_most_are_closed_first() {
        let connections = Connections::new(4, Policy::CloseUsed);
        let mut places = vec![];
        for of in [1, 2, 2, 3] {
            assert!(enter(&connections, &mut places, peer(of)).await);
        }
        places.iter().flatten().for_each(|place| place.slot.note_use());
        assert!(enter(&connections, &mut places, peer(4)).await);
        assert_eq!(left(&places), [0, 2, 3, 4], "the older one of address 2");
        // Now each address has one. The new one has not been used: it may be a probe whose request arrives now.
        assert!(enter(&connections, &mut places, peer(5)).await);
        assert_eq!(left(&places), [2, 3, 4, 5]);
    }

    #[tokio::test]
    async fn a_new_connection_outlives_old_ones_without_a_request() {
        let connections = Connections::new(3, Policy::CloseUsed);
        let mut places = vec![];
        for of in [1, 2, 3] {
            assert!(enter(&connections, &mut places, peer(of)).await);
        }
        age(&places);
        // Two new ones of one address: the old ones are closed first, although their addresses have fewer.
        for _ in 0..2 {
            assert!(enter(&connections, &mut places, peer(4)).await);
        }
        assert_eq!(left(&places), [2, 3, 4]);
    }

    #[tokio::test]
    async fn streams_outlive_connections_without_an_accepted_request() {
        let connections = Connections::new(3, Policy::KeepUsed);
        let mut places = vec![];
        for of in [1, 2, 3] {
            assert!(enter(&connections, &mut places, peer(of)).await);
        }
        places[0].as_ref().unwrap().slot.note_use();
        places[1].as_ref().unwrap().slot.note_certificate();
        assert!(enter(&connections, &mut places, peer(4)).await);
        assert_eq!(left(&places), [0, 1, 3]);
        places[3].as_ref().unwrap().slot.note_use();
        assert!(!enter(&connections, &mut places, peer(5)).await, "all are in use: it waits");
        assert!(connections.admit(peer(5), true).await.is_none(), "nothing can be closed");
        places[0] = None;
        assert!(enter(&connections, &mut places, peer(5)).await);
    }

    #[tokio::test]
    async fn an_address_with_more_than_half_of_the_connections_makes_room_for_others() {
        let connections = Connections::new(4, Policy::KeepUsed);
        let mut places = vec![];
        for of in [1, 1, 1, 2] {
            assert!(enter(&connections, &mut places, peer(of)).await);
        }
        places.iter().flatten().for_each(|place| place.slot.note_use());
        assert!(!enter(&connections, &mut places, peer(1)).await, "not for itself");
        assert!(enter(&connections, &mut places, peer(3)).await);
        assert_eq!(left(&places), [1, 2, 3, 4]);
        places[4].as_ref().unwrap().slot.note_use();
        assert!(!enter(&connections, &mut places, peer(4)).await, "it has no more than half now");
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_client() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2::9"));
        assert_ne!(of("2001:db8:1:2::9"), of("2001:db8:1:3::9"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
