//! The limits on the streams of a server: their number, and the bytes that are in flight.
//!
//! Not here: the streams (`produce`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tonic::Status;

use super::{MESSAGE_LIMIT, Traffic};

/// Maximum number of waiting readers.
const MAX_WAITING: usize = 1024;
/// How long a reader waits before it is refused and may retry later.
pub const WAIT_TIMEOUT: Duration = Duration::from_secs(3);
/// The unit in which bytes are counted.
pub const UNIT: usize = 1 << 10;

/// The limits that all streams of a server share.
pub struct Gate {
    streams: Arc<Semaphore>,
    waiting: AtomicUsize,
    bytes: Arc<Semaphore>,
    units: u32,
    traffic: Arc<Traffic>,
}

/// The permit of a stream.
pub struct StreamPermit {
    pub stream: OwnedSemaphorePermit,
    /// The semaphore of bytes in flight, in units, and the number of all units.
    pub bytes: Arc<Semaphore>,
    pub units: u32,
    pub serving: ServingGuard,
}

/// Counts a stream while it exists.
pub struct ServingGuard(pub Arc<Traffic>);

impl Drop for ServingGuard {
    fn drop(&mut self) {
        self.0.serving.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The refusal of a reader that may retry.
pub fn busy(what: &str) -> Status {
    Status::resource_exhausted(format!("this worker {what}; retry later"))
}

impl Gate {
    /// Limits the server to `streams` streams with `bytes` bytes in flight.
    pub fn new(streams: usize, bytes: usize, traffic: Arc<Traffic>) -> Self {
        // One message must always fit, with the data that it is made of.
        let units = (bytes.max(2 * MESSAGE_LIMIT) / UNIT) as u32;
        Gate {
            streams: Arc::new(Semaphore::new(streams.max(1))),
            waiting: AtomicUsize::new(0),
            bytes: Arc::new(Semaphore::new(units as usize)),
            units,
            traffic,
        }
    }

    /// Waits for a permit.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED if too many readers wait, or it takes too long.
    pub async fn enter(&self) -> Result<StreamPermit, Status> {
        let stream = match self.streams.clone().try_acquire_owned() {
            Ok(stream) => stream,
            Err(_) => self.wait().await?,
        };
        self.traffic.serving.fetch_add(1, Ordering::Relaxed);
        let serving = ServingGuard(self.traffic.clone());
        Ok(StreamPermit { stream, bytes: self.bytes.clone(), units: self.units, serving })
    }

    async fn wait(&self) -> Result<OwnedSemaphorePermit, Status> {
        struct Waiting<'a>(&'a AtomicUsize);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if before >= MAX_WAITING {
            return Err(busy("has too many readers waiting"));
        }
        match timeout(WAIT_TIMEOUT, self.streams.clone().acquire_owned()).await {
            Ok(Ok(stream)) => Ok(stream),
            _ => Err(busy("serves as many readers as it can")),
        }
    }
}
