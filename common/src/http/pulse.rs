//! Checks that a runtime or a loop makes progress.
//!
//! Not here: how the result is served (`http`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The interval between beats.
const BEAT: Duration = Duration::from_secs(1);
/// The time without progress after which a loop counts as stuck: far longer than an overloaded machine delays it.
pub const STUCK: Duration = Duration::from_secs(120);

/// Why a process is not healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unhealthy {
    /// A loop of it makes no progress.
    #[error("the process has made no progress for {seconds} s")]
    Stalled {
        /// For how long.
        seconds: u64,
    },
    /// It cannot do its work now.
    #[error("{0}")]
    NotReady(&'static str),
}

/// When a runtime last made progress.
#[derive(Debug)]
pub struct Pulse {
    started: Instant,
    /// Milliseconds after `started`.
    last: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Pulse { started: Instant::now(), last: AtomicU64::default() }
    }
}

impl Pulse {
    /// Beats on the runtime that this runs on; never ends.
    pub async fn beat(&self) {
        loop {
            self.last.store(self.elapsed(), Ordering::Relaxed);
            tokio::time::sleep(BEAT).await;
        }
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether it made progress lately.
    ///
    /// # Errors
    /// [`Unhealthy::Stalled`].
    pub fn check(&self) -> Result<(), Unhealthy> {
        stuck(Duration::from_millis(self.elapsed().saturating_sub(self.last.load(Ordering::Relaxed))))
    }
}

/// Checks the time since the last progress of a loop.
///
/// # Errors
/// [`Unhealthy::Stalled`].
pub fn stuck(silence: Duration) -> Result<(), Unhealthy> {
    if silence > STUCK {
        return Err(Unhealthy::Stalled { seconds: silence.as_secs() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stalled_runtime_is_noticed() {
        assert_eq!(Pulse::default().check(), Ok(()));
        assert_eq!(stuck(STUCK), Ok(()));
        let Some(started) = Instant::now().checked_sub(STUCK + BEAT) else { return };
        let pulse = Pulse { started, ..Pulse::default() };
        assert!(pulse.check().unwrap_err().to_string().contains("121 s"), "{:?}", pulse.check());
    }
}
