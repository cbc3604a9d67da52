//! What a client knows of one worker that it reads from: shared by all requests to its address.
//!
//! Requests wait as long as the worker makes progress on any of them, because a request that waits behind others on a
//! slow network, or for a slow disk, is not lost. Not here: connections (`client`), which requests are retried (`fetch`).

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tally_common::liveness::{CHECK_INTERVAL, PeerProgress, PeerWatch};
use tokio::time::{Instant, timeout};
use tonic::Status;

/// See the module documentation.
#[derive(Debug)]
pub struct Peer {
    silence: Duration,
    start: Instant,
    progress: PeerProgress,
    batches: AtomicU64,
    waits: Mutex<Waits>,
}

/// The requests that wait for the worker, and the watch over it meanwhile.
#[derive(Debug)]
struct Waits {
    silence: Duration,
    waiting: usize,
    /// When the last request ended, if none waits.
    ended: Duration,
    watch: PeerWatch,
}

/// A request that begins within this time continues the silence of the one before: it may be its retry.
const RETRY_GAP: Duration = Duration::from_secs(3);

impl Waits {
    fn new(silence: Duration) -> Self {
        let watch = PeerWatch::new(silence, Duration::ZERO, 0);
        Waits { silence, waiting: 0, ended: Duration::ZERO, watch }
    }

    /// A request begins to wait. Silence counts from the first one.
    fn begin(&mut self, now: Duration, progress: u64) {
        if self.waiting == 0 && now.saturating_sub(self.ended) > RETRY_GAP {
            self.watch = PeerWatch::new(self.silence, now, progress);
        }
        self.waiting += 1;
    }

    fn end(&mut self, now: Duration) {
        self.waiting -= 1;
        self.ended = now;
    }
}

struct Waiting<'a>(&'a Peer);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waits.lock().end(self.0.start.elapsed());
    }
}

impl Peer {
    /// A worker that is lost after `silence`.
    pub fn new(silence: Duration) -> Self {
        Peer {
            silence,
            start: Instant::now(),
            progress: PeerProgress::default(),
            batches: AtomicU64::new(0),
            waits: Mutex::new(Waits::new(silence)),
        }
    }

    /// The progress on all connections to it.
    pub fn progress(&self) -> &PeerProgress {
        &self.progress
    }

    /// Number of batches that it has sent, on any stream.
    pub fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    /// Counts a batch.
    pub fn count_batch(&self) {
        self.batches.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits for a response as long as the worker is not lost.
    ///
    /// # Errors
    /// That of the response, or DEADLINE_EXCEEDED.
    pub async fn wait<T>(&self, response: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let _waiting = self.begin();
        let mut response = pin!(response);
        loop {
            match timeout(CHECK_INTERVAL, &mut response).await {
                Ok(response) => return response,
                Err(_) if self.is_lost() => {
                    let what = format!("it sent nothing for {} s", self.silence.as_secs());
                    return Err(Status::deadline_exceeded(what));
                }
                Err(_) => {}
            }
        }
    }

    fn begin(&self) -> Waiting<'_> {
        self.waits.lock().begin(self.start.elapsed(), self.progress.bytes());
        Waiting(self)
    }

    fn is_lost(&self) -> bool {
        self.waits.lock().watch.is_lost(self.start.elapsed(), self.progress.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_secs(10);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Checks each second, and returns the second of the first loss.
    fn lost(waits: &mut Waits, seconds: std::ops::RangeInclusive<u64>, progress: u64) -> Option<u64> {
        seconds.into_iter().find(|&now| waits.watch.is_lost(Duration::from_secs(now), progress))
    }

    #[test]
    fn requests_share_the_silence_of_their_worker() {
        let mut waits = Waits::new(SILENCE);
        waits.begin(seconds(100), 7);
        assert_eq!(lost(&mut waits, 101..=106, 7), None);
        // A second request and a retry of the first one inherit it.
        waits.begin(seconds(106), 7);
        waits.end(seconds(107));
        waits.end(seconds(107));
        waits.begin(seconds(108), 7);
        assert_eq!(lost(&mut waits, 108..=120, 7), Some(110));
        // A later one has the whole time.
        waits.end(seconds(110));
        waits.begin(seconds(200), 7);
        assert_eq!(lost(&mut waits, 201..=220, 7), Some(210));
        // After progress as well.
        assert_eq!(lost(&mut waits, 211..=230, 8), Some(221));
    }

    #[tokio::test]
    async fn a_response_is_waited_for() {
        let peer = Peer::new(SILENCE);
        assert_eq!(peer.wait(std::future::ready(Ok(7))).await.unwrap(), 7);
        assert_eq!(peer.waits.lock().waiting, 0);
    }
}
