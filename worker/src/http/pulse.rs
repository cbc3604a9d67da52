//! The sign that a runtime turns.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Between two signs.
const BEAT: Duration = Duration::from_secs(1);
/// Silence after which a loop counts as stuck: far more than a machine with all cores busy causes.
pub const STUCK: Duration = Duration::from_secs(120);

/// When a runtime last turned.
#[derive(Debug)]
pub struct Pulse {
    started: Instant,
    /// Milliseconds after that.
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

    /// Whether it turned lately.
    ///
    /// # Errors
    /// A sentence: since when not.
    pub fn check(&self) -> Result<(), String> {
        stuck(Duration::from_millis(self.elapsed().saturating_sub(self.last.load(Ordering::Relaxed))))
    }
}

/// Whether a loop that was silent for so long still turns.
///
/// # Errors
/// A sentence.
pub fn stuck(silence: Duration) -> Result<(), String> {
    if silence > STUCK {
        return Err(format!("the process has stood still for {} s", silence.as_secs()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_that_stands_still_is_noticed_late_but_surely() {
        assert_eq!(Pulse::default().check(), Ok(()));
        assert_eq!(stuck(STUCK), Ok(()));
        let Some(started) = Instant::now().checked_sub(STUCK + BEAT) else { return };
        let pulse = Pulse { started, ..Pulse::default() };
        assert!(pulse.check().unwrap_err().contains("121 s"), "{:?}", pulse.check());
    }
}
