//! Transfer of outputs between workers: an Arrow Flight server of the store, a client that implements `peers`, and the
//! migration of outputs.
//!
//! Both ends share `ticket` and `wire`. `server` has the service: `produce` makes its streams within the limits of `gate`,
//! `listing` describes outputs, and `migrate_in` receives outputs. `client` has the connections, and `peer` what is known
//! of the worker at the other end. `sizes` and `fetch` send requests, and `retries` repeats them. `remote_maps` and
//! `remote_file` read the responses, and `remote` implements [`crate::peers::Peers`] with them. `migrate_out` sends
//! outputs to other workers. Not here: which worker reads which output (the task message), where outputs are kept
//! (`store`).

pub mod client;
mod fetch;
mod gate;
mod listing;
mod migrate_in;
mod migrate_out;
mod peer;
mod produce;
mod remote;
mod remote_file;
mod remote_maps;
mod retries;
pub mod server;
mod sizes;
pub mod ticket;
mod wire;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

pub use client::{Client, ClientTiming};
pub use migrate_out::MigrationError;
pub use server::{ServeConfig, ServeError, Server, serve};

/// Maximum bytes of a message that either end accepts.
pub const MESSAGE_LIMIT: usize = 16 << 20;
/// Bytes of a file in one message.
const FILE_PART: usize = 4 << 20;
/// Interval of keep-alive pings on a connection without data.
const PING_INTERVAL: Duration = Duration::from_secs(3);
/// HTTP/2 itself ends no connection: see `client`.
const PING_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// Maximum number of streams of a connection.
const MAX_STREAMS: u32 = 256;
/// HTTP/2 flow control window of a stream, in bytes.
const STREAM_WINDOW: u32 = 4 << 20;
/// HTTP/2 flow control window of a connection for responses, in bytes. It has room for the windows of all streams, so
/// that streams without a reader at the moment never stop another one.
const RESPONSE_WINDOW: u32 = MAX_STREAMS * STREAM_WINDOW;
/// The same for requests. Of those, only output migrations are larger than a message, and few of them run at a time.
const REQUEST_WINDOW: u32 = 32 << 20;
/// Bytes of an HTTP/2 frame. With the protocol's minimum, framing costs more than copying.
const FRAME: u32 = 1 << 20;

/// Counters of the traffic between workers.
#[derive(Debug, Default)]
pub struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
    serving: AtomicU32,
    repeats_busy: AtomicU64,
    repeats_broken: AtomicU64,
    given_up: AtomicU64,
    paused: AtomicU64,
}

impl Traffic {
    /// Bytes sent to other workers.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes received from other workers.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Retried requests to other workers: because they were busy, and because the connection broke.
    pub fn repeats(&self) -> [u64; 2] {
        [&self.repeats_busy, &self.repeats_broken].map(|count| count.load(Ordering::Relaxed))
    }

    /// Failed requests to other workers, after retries.
    pub fn given_up(&self) -> u64 {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Streams that were closed because a task did not take their data, to be requested again when it does.
    pub fn paused(&self) -> u64 {
        self.paused.load(Ordering::Relaxed)
    }

    /// Output streams that are being served.
    pub fn serving(&self) -> u32 {
        self.serving.load(Ordering::Relaxed)
    }
}
