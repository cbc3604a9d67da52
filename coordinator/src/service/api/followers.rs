//! The places of clients that follow streams: a maximum for all, and a smaller one for each address, so that one client
//! cannot take all of them.
//!
//! Not here: the streams (`live`), the connections of the listener (`tally_common::connections`).

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tally_common::security::{Peer, RateKey};
use tonic::codegen::http::request::Parts;

use super::problem::Problem;

/// The maximum number of streams over all clients: half of the connections of the listener.
pub(super) const MAX_STREAMS: usize = 32;
/// The maximum number of streams of an address; IPv6 addresses of one network count together.
pub(super) const MAX_STREAMS_PER_CLIENT: usize = 8;

/// The streams of each address. A request without one is a test's.
type Counts = HashMap<Option<RateKey>, usize>;

/// The places.
#[derive(Debug, Default)]
pub(super) struct Followers(Arc<Mutex<Counts>>);

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Follower {
    counts: Arc<Mutex<Counts>>,
    client: Option<RateKey>,
}

impl Followers {
    /// A place for the client of a request.
    pub(super) fn admit(&self, parts: &Parts) -> Result<Follower, Problem> {
        let peer = parts.extensions.get::<Peer>();
        self.place(peer.map(|peer| RateKey::new(peer.address.ip(), false)))
    }

    fn place(&self, client: Option<RateKey>) -> Result<Follower, Problem> {
        let mut counts = self.0.lock();
        if counts.values().sum::<usize>() >= MAX_STREAMS {
            let what = format!("clients follow {MAX_STREAMS} streams, which is the limit: try again later");
            return Err(Problem::busy(what));
        }
        let own = counts.entry(client).or_default();
        if client.is_some() && *own >= MAX_STREAMS_PER_CLIENT {
            return Err(Problem::busy(format!(
                "this address follows {MAX_STREAMS_PER_CLIENT} streams, which is the limit: close some of them"
            )));
        }
        *own += 1;
        Ok(Follower { counts: self.0.clone(), client })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        let Some(own) = counts.get_mut(&self.client) else { return };
        *own = own.saturating_sub(1);
        if *own == 0 {
            counts.remove(&self.client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_takes_only_some_of_the_places() {
        let followers = Followers::default();
        let client = |last| Some(RateKey::new([10, 0, 0, last].into(), false));
        let mut open = vec![];
        for last in 0..4 {
            for _ in 0..MAX_STREAMS_PER_CLIENT {
                open.push(followers.place(client(last)).unwrap());
            }
            assert!(followers.place(client(last)).is_err());
        }
        assert_eq!(open.len(), MAX_STREAMS);
        assert!(followers.place(client(9)).is_err());
        open.pop();
        let last = followers.place(client(9)).unwrap();
        assert!(followers.place(client(3)).is_err());
        drop((open, last));
        assert!(followers.0.lock().is_empty());
    }
}
