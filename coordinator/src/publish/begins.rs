//! A gate for the uploads of a job that are beginning, so that none is left behind when the job ends.
//!
//! Not here: the uploads and their records (`store_staging`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{RwLock, RwLockReadGuard};
use tokio::time::timeout;

/// How long the end of a job waits for uploads that are beginning.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The uploads of a job that are beginning.
#[derive(Debug, Default)]
pub(super) struct Begins {
    /// The job ended: no upload begins afterwards.
    closed: AtomicBool,
    /// Held for reading while an upload begins.
    pending: RwLock<()>,
}

impl Begins {
    /// Lets [`Begins::close`] wait until the guard is dropped. Afterwards the caller asks whether the gate is closed.
    pub(super) async fn enter(&self) -> RwLockReadGuard<'_, ()> {
        self.pending.read().await
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Closes the gate, and waits for the uploads that are beginning. One that takes too long has to remove itself
    /// when it has begun.
    pub(super) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        timeout(TIMEOUT, self.pending.write()).await.ok();
    }
}
