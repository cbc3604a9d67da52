//! An open stream to a coordinator that has accepted the worker: what is sent next, and when the coordinator is lost.
//!
//! Not here: what a message of the coordinator changes (the parent module).

use std::time::Duration;

use tally_proto::v1;
use tally_proto::v1::worker_message::Message;

use super::host::TaskHost;
use super::inventory::Pages;
use super::messages::StreamError;
use super::outbox::{Fact, Outbox};
use super::rules::FailureDetector;

/// Minimum interval of heartbeats, whatever the coordinator requests.
const MIN_HEARTBEAT_INTERVAL: Duration = Duration::from_millis(10);

/// See the module documentation.
pub struct Attached {
    /// The coordinator.
    pub address: String,
    pages: Pages,
    /// A heartbeat is due.
    beat: bool,
    /// The coordinator must be told that the worker drains.
    draining: bool,
    heartbeat_interval: Duration,
    next_beat: Duration,
    detector: FailureDetector,
}

impl Attached {
    /// A stream that was opened at `now`. That the worker drains is sent on every stream, because an earlier message may
    /// not have been delivered.
    pub fn new(now: Duration, address: String, welcome: &v1::Welcome, pages: Pages, draining: bool) -> Self {
        let heartbeat_interval = Duration::from_millis(welcome.heartbeat_millis).max(MIN_HEARTBEAT_INTERVAL);
        let patience = Duration::from_millis(welcome.timeout_millis).max(2 * heartbeat_interval);
        let detector = FailureDetector::new(patience, now);
        Attached { address, pages, beat: false, draining, heartbeat_interval, next_beat: now, detector }
    }

    /// The worker drains from now on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// A message of the coordinator was received.
    pub fn received(&mut self, now: Duration) {
        self.detector.received(now);
    }

    /// Whether there is a message to send.
    pub fn wants_to_send(&self, outbox: &Outbox) -> bool {
        !self.pages.ended() || self.beat || self.draining || !outbox.is_empty()
    }

    /// The next message: heartbeats come first, and the inventory precedes everything else.
    pub fn next_message(&mut self, outbox: &mut Outbox, host: &dyn TaskHost) -> Option<Message> {
        if std::mem::take(&mut self.beat) {
            return Some(Message::Heartbeat(host.heartbeat()));
        }
        if let Some(page) = self.pages.next() {
            return Some(Message::Inventory(page));
        }
        if std::mem::take(&mut self.draining) {
            return Some(Message::Draining(v1::Draining {}));
        }
        outbox.take().map(Fact::message)
    }

    /// Processes the passage of time.
    ///
    /// # Errors
    /// [`StreamError::Silent`].
    pub fn tick(&mut self, now: Duration) -> Result<(), StreamError> {
        if now >= self.next_beat {
            self.beat = true;
            self.next_beat = now.saturating_add(self.heartbeat_interval);
        }
        if self.detector.is_expired(now) { Err(StreamError::Silent) } else { Ok(()) }
    }

    /// When to call [`Attached::tick`].
    pub fn next_wakeup(&self) -> Duration {
        self.next_beat.min(self.detector.deadline())
    }
}
