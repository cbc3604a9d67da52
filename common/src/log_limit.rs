//! Limits of the log lines that others can cause. A peer that repeats a refused request or an invalid message must not fill
//! disks: after a burst there is one line per second, which has the number of lines that were left out before it.
//!
//! Not here: counts (metrics have all of them), the format of the log (`logging`).

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The maximum number of lines at once.
const BURST: u32 = 100;
/// After a burst, the interval between lines.
const INTERVAL: Duration = Duration::from_secs(1);
/// The maximum number of bytes of a text that a peer chose.
const MAX_TEXT: usize = 300;

/// The number of lines that were left out since the last line, if there are any.
pub type Suppressed = Option<NonZeroU64>;

/// The limit of one kind of line. It is usually a `static`: see [`warn_limited`](crate::warn_limited).
#[derive(Debug, Default)]
pub struct LogLimit(Mutex<Option<Bucket>>);

#[derive(Debug)]
struct Bucket {
    lines: u32,
    /// When `lines` last grew.
    at: Instant,
    suppressed: u64,
}

impl LogLimit {
    /// A limit with its whole burst.
    pub const fn new() -> Self {
        LogLimit(Mutex::new(None))
    }

    /// Whether a line may be logged now; `None` if not.
    pub fn admit(&self) -> Option<Suppressed> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<Suppressed> {
        let mut bucket = self.0.lock();
        let bucket = bucket.get_or_insert(Bucket { lines: BURST, at: now, suppressed: 0 });
        let grown = now.saturating_duration_since(bucket.at).as_secs() / INTERVAL.as_secs();
        if grown > 0 {
            bucket.lines = BURST.min(bucket.lines.saturating_add(u32::try_from(grown).unwrap_or(BURST)));
            bucket.at = now;
        }
        match bucket.lines.checked_sub(1) {
            Some(left) => {
                bucket.lines = left;
                Some(NonZeroU64::new(std::mem::take(&mut bucket.suppressed)))
            }
            None => {
                bucket.suppressed += 1;
                None
            }
        }
    }
}

/// The beginning of a text that a peer chose, for a log line.
pub fn shorten(text: &str) -> &str {
    if text.len() <= MAX_TEXT {
        return text;
    }
    let end = (0..=MAX_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

/// [`tracing::warn!`] for a line that a peer can cause as often as it likes: at most 100 at once and one per second for each
/// place in the code. A line that follows others that were left out has their number as `suppressed`.
#[macro_export]
macro_rules! warn_limited {
    ($($line:tt)+) => {{
        static LIMIT: $crate::log_limit::LogLimit = $crate::log_limit::LogLimit::new();
        if let Some(suppressed) = LIMIT.admit() {
            tracing::warn!(suppressed, $($line)+);
        }
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_burst_there_is_a_line_per_second_with_the_number_of_the_others() {
        let (limit, start) = (LogLimit::new(), Instant::now());
        let logged = |n: usize, at| (0..n).filter_map(|_| limit.admit_at(at)).collect::<Vec<_>>();
        assert_eq!(logged(1000, start), [None; BURST as usize]);
        assert_eq!(logged(1000, start + INTERVAL / 2), []);
        assert_eq!(logged(1000, start + INTERVAL), [NonZeroU64::new(1900)]);
        let later = start + 3 * INTERVAL;
        assert_eq!(logged(1000, later), [NonZeroU64::new(999), None]);
        assert_eq!(logged(1000, later + 1000 * INTERVAL).len(), BURST as usize);
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(shorten("short"), "short");
        assert_eq!(shorten(&"x".repeat(10_000)).len(), MAX_TEXT);
        let text = format!("x{}", "é".repeat(10_000));
        assert!(shorten(&text).len() >= MAX_TEXT - 1 && text.starts_with(shorten(&text)));
    }
}
