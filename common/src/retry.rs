//! When a failed call is tried again: the delays, the number of retries, and the deadline. The one policy type of all
//! retry loops.
//!
//! Not here: which errors are worth another try (`stores::is_transient`, and each caller), the retries of single requests
//! to object stores (`stores::settings`), the scheduler's retries of tasks (`tally-scheduler`), the watch of Consul
//! (`consul-api-client`).

use std::time::{Duration, Instant};

/// Delays between the tries of a call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    delays: Delays,
    max_retries: u32,
    deadline: Duration,
    /// The share of each delay that is random.
    jitter: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Delays {
    /// In milliseconds; the last one repeats.
    Listed(&'static [u64]),
    /// Each twice as long as the one before, up to `max`.
    Doubling { first: Duration, max: Duration },
}

impl RetryPolicy {
    const fn new(delays: Delays) -> Self {
        RetryPolicy { delays, max_retries: u32::MAX, deadline: Duration::MAX, jitter: 0.0 }
    }

    /// The same delay before each retry, without a limit on their number.
    pub const fn fixed(delay: Duration) -> Self {
        Self::doubling(delay, delay)
    }

    /// Delays that double from `first` up to `max`, without a limit on their number.
    pub const fn doubling(first: Duration, max: Duration) -> Self {
        Self::new(Delays::Doubling { first, max })
    }

    /// One retry after each of these delays, in milliseconds.
    pub const fn listed(millis: &'static [u64]) -> Self {
        Self::new(Delays::Listed(millis)).with_max_retries(millis.len() as u32)
    }

    /// The same delays, for at most `max_retries` retries. The last of listed delays repeats.
    #[must_use]
    pub const fn with_max_retries(mut self, max_retries: u32) -> Self {
        self.max_retries = max_retries;
        self
    }

    /// The same delays, without a retry that would begin `deadline` or more after the first try.
    #[must_use]
    pub const fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The same delays with a random part: a `share` of 0.5 gives delays between half and all of each.
    #[must_use]
    pub const fn with_jitter(mut self, share: f64) -> Self {
        self.jitter = share;
        self
    }

    /// The delay before a retry; `None` to give up. Retries count from 0, `elapsed` is the time since the first try, and
    /// `chance` is random, from 0 to 1.
    pub fn next_delay(&self, retry: u32, elapsed: Duration, chance: f64) -> Option<Duration> {
        if retry >= self.max_retries {
            return None;
        }
        let delay = match self.delays {
            Delays::Listed(millis) => {
                let at = (retry as usize).min(millis.len().saturating_sub(1));
                Duration::from_millis(*millis.get(at)?)
            }
            Delays::Doubling { first, max } => first.saturating_mul(2u32.saturating_pow(retry)).min(max),
        };
        let delay = if self.jitter > 0.0 { delay.mul_f64(1.0 - self.jitter * (1.0 - chance)) } else { delay };
        (elapsed.saturating_add(delay) < self.deadline).then_some(delay)
    }

    /// The retries of one call, whose first try begins now.
    pub fn start(self) -> Retries {
        Retries { policy: self, retry: 0, started: Instant::now() }
    }
}

/// The delays before the retries of one call, as an iterator that ends when the caller must give up.
#[derive(Debug, Clone)]
pub struct Retries {
    policy: RetryPolicy,
    retry: u32,
    started: Instant,
}

impl Retries {
    /// Waits before the next retry; `false` at once if there is none.
    pub async fn wait(&mut self) -> bool {
        let Some(delay) = self.next() else { return false };
        tokio::time::sleep(delay).await;
        true
    }

    /// The time until the deadline.
    pub fn time_left(&self) -> Duration {
        self.policy.deadline.saturating_sub(self.started.elapsed())
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        *self = self.policy.start();
    }
}

impl Iterator for Retries {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let delay = self.policy.next_delay(self.retry, self.started.elapsed(), rand::random())?;
        self.retry = self.retry.saturating_add(1);
        Some(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn delays(policy: RetryPolicy) -> Vec<u128> {
        let delays = (0..5).map_while(|retry| policy.next_delay(retry, Duration::ZERO, 1.0));
        delays.map(|delay| delay.as_millis()).collect()
    }

    #[test]
    fn delays_follow_the_policy() {
        assert_eq!(delays(RetryPolicy::listed(&[0, 200, 500])), [0, 200, 500]);
        assert_eq!(delays(RetryPolicy::listed(&[200, 500]).with_max_retries(4)), [200, 500, 500, 500]);
        assert_eq!(delays(RetryPolicy::doubling(millis(100), millis(700))), [100, 200, 400, 700, 700]);
        assert_eq!(delays(RetryPolicy::fixed(millis(5)).with_max_retries(2)), [5, 5]);
        assert!(delays(RetryPolicy::listed(&[])).is_empty());
    }

    #[test]
    fn jitter_shortens_a_delay_by_at_most_its_share() {
        let policy = RetryPolicy::fixed(millis(100)).with_jitter(0.5);
        for (chance, expect) in [(0.0, 50), (0.5, 75), (1.0, 100)] {
            assert_eq!(policy.next_delay(0, Duration::ZERO, chance), Some(millis(expect)));
        }
    }

    #[test]
    fn no_retry_begins_at_the_deadline_or_later() {
        let policy = RetryPolicy::fixed(millis(100)).with_deadline(millis(1000));
        assert_eq!(policy.next_delay(7, millis(899), 0.0), Some(millis(100)));
        assert_eq!(policy.next_delay(7, millis(900), 0.0), None);
    }

    #[test]
    fn delays_stay_in_range_for_any_number_of_retries() {
        let policy = RetryPolicy::doubling(millis(100), Duration::from_secs(2));
        assert_eq!(
            policy.next_delay(u32::MAX - 1, Duration::MAX - Duration::from_secs(3), 0.0),
            Some(Duration::from_secs(2))
        );
    }

    #[test]
    fn a_reset_starts_over() {
        let mut retries = RetryPolicy::doubling(millis(100), millis(700)).start();
        assert_eq!([retries.next(), retries.next()], [Some(millis(100)), Some(millis(200))]);
        retries.reset();
        assert_eq!(retries.next(), Some(millis(100)));
    }
}
