//! How outputs travel between workers: an Arrow Flight server over the store, a client that is the
//! other carrier of [`crate::peers::Peers`], and the hand-over of outputs.
//!
//! `ticket` and `wire` are what both ends agree on; `server` answers with what `produce` makes,
//! `listing` describes and `put` takes over; `client` reads through `fetch`, as `maps` and `file`;
//! `give` hands over. Not here: which worker reads what (the order), where outputs lie (`store`).

pub mod client;
mod fetch;
mod file;
mod give;
mod listing;
mod maps;
mod produce;
mod put;
pub mod server;
mod ticket;
mod wire;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

pub use client::Client;
pub use give::HandOverError;
pub use server::{ServeConfig, ServeError, Server, serve};

/// The longest message that either end takes, in bytes.
pub const MESSAGE_LIMIT: usize = 16 << 20;
/// Bytes of a file in one message.
const FILE_PART: usize = 4 << 20;
/// Where a channel is kept alive, and how long a dead one may go unnoticed.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// A stream may have so many bytes on the way.
const STREAM_WINDOW: u32 = 4 << 20;
/// And all streams of a connection together so many.
const CONNECTION_WINDOW: u32 = 32 << 20;
/// Bytes of an HTTP/2 frame: at the protocol's least, framing costs more than copying.
const FRAME: u32 = 1 << 20;

/// What went over the wire so far, and what goes now.
#[derive(Debug, Default)]
pub struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
    serving: AtomicU32,
    repeats_busy: AtomicU64,
    repeats_broken: AtomicU64,
    given_up: AtomicU64,
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

    /// Askings of other workers that were repeated: as they were busy, and as the way broke.
    pub fn repeats(&self) -> [u64; 2] {
        [&self.repeats_busy, &self.repeats_broken].map(|count| count.load(Ordering::Relaxed))
    }

    /// Askings of other workers that were given up.
    pub fn given_up(&self) -> u64 {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Output streams that are served just now.
    pub fn serving(&self) -> u32 {
        self.serving.load(Ordering::Relaxed)
    }
}
