//! The scheduler's options: limits and timeouts, validated once.
//!
//! Not here: where the values come from (the coordinator).

use std::time::Duration;

/// All limits and timeouts of the scheduler.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The number of failures of a task with which its job fails. Ends that are not the task's fault do not count. At
    /// least 1.
    pub max_attempts: u32,
    /// The number of each task's first attempt. Successive coordinators use different ranges, so that each number
    /// identifies one attempt.
    pub first_attempt: u32,
    /// The pause before the retry after a task's first failure; it doubles with each further failure.
    pub retry_backoff: Duration,
    /// The longest pause before a retry.
    pub retry_backoff_max: Duration,
    /// The number of excused ends of a task (an uncommanded stop, a read from a worker that no longer had the output).
    /// Each further one counts as a failure, so that retries are bounded.
    pub max_excused: u32,
    /// How often the output of one task may be unreadable or incompatible, so that the task runs again. One more time
    /// fails the job. Outputs that are lost with their worker do not count.
    pub max_output_losses: u32,
    /// The number of outputs that a job cannot read from one worker, after which all outputs of the stage on that worker
    /// count as lost and their tasks run again elsewhere.
    pub max_holder_losses: u32,
    /// The time without an event after which a worker is lost. `None` if the caller
    /// reports every lost worker, as the coordinator does.
    pub worker_timeout: Option<Duration>,
    /// A job with pending work fails if no worker takes tasks for this time, or if all workers refuse one of its tasks for
    /// this time and at least `max_attempts` times.
    pub no_workers_timeout: Duration,
    /// Speculative attempts for stragglers; `None` for none.
    pub speculation: Option<Speculation>,
}

/// The conditions for a speculative attempt of a running task.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speculation {
    /// The share of a stage's tasks, from 0 to 1, that must be done first.
    pub quantile: f64,
    /// An attempt is slow if it runs for longer than this multiple of the median duration of the stage's winners. At least
    /// 1.
    pub multiplier: f64,
    /// No attempt is slow before it has run for this time.
    pub minimum: Duration,
}

/// An invalid option.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// No task could run.
    #[error("max_attempts is 0: set it to 1 or more")]
    NoAttempts,
    /// Every worker would be lost at once.
    #[error("worker_timeout is 0: set it to several heartbeats, or leave it out")]
    NoWorkerTimeout,
    /// Not a share.
    #[error("speculation.quantile is {0}: set it between 0 and 1")]
    Quantile(f64),
    /// The median attempt would be slow.
    #[error("speculation.multiplier is {0}: set it to 1 or more")]
    Multiplier(f64),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_attempts: 4,
            first_attempt: 0,
            retry_backoff: Duration::from_millis(500),
            retry_backoff_max: Duration::from_secs(30),
            max_excused: 8,
            max_output_losses: 4,
            max_holder_losses: 2,
            worker_timeout: Some(Duration::from_secs(15)),
            no_workers_timeout: Duration::from_secs(300),
            speculation: Some(Speculation::default()),
        }
    }
}

impl Default for Speculation {
    fn default() -> Self {
        Self { quantile: 0.75, multiplier: 1.5, minimum: Duration::from_secs(5) }
    }
}

impl Config {
    pub(crate) fn checked(self) -> Result<Self, ConfigError> {
        if self.max_attempts == 0 {
            return Err(ConfigError::NoAttempts);
        }
        if self.worker_timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(ConfigError::NoWorkerTimeout);
        }
        if let Some(speculation) = self.speculation {
            if !(0.0..=1.0).contains(&speculation.quantile) {
                return Err(ConfigError::Quantile(speculation.quantile));
            }
            if !(speculation.multiplier >= 1.0 && speculation.multiplier.is_finite()) {
                return Err(ConfigError::Multiplier(speculation.multiplier));
            }
        }
        Ok(self)
    }

    /// The pause before the retry after a task's `failures`-th failure.
    pub(crate) fn backoff(&self, failures: u32) -> Duration {
        let factor = 2u32.saturating_pow(failures.saturating_sub(1));
        self.retry_backoff.saturating_mul(factor).min(self.retry_backoff_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_options_are_refused() {
        let with = |quantile, multiplier| Config {
            speculation: Some(Speculation { quantile, multiplier, ..Speculation::default() }),
            ..Config::default()
        };
        let cases = [
            (Config { max_attempts: 0, ..Config::default() }, "max_attempts"),
            (Config { worker_timeout: Some(Duration::ZERO), ..Config::default() }, "worker_timeout"),
            (with(1.5, 2.0), "quantile"),
            (with(f64::NAN, 2.0), "quantile"),
            (with(0.5, 0.5), "multiplier"),
            (with(0.5, f64::INFINITY), "multiplier"),
        ];
        for (config, named) in cases {
            let error = config.checked().unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
        assert!(Config::default().checked().is_ok());
    }

    #[test]
    fn the_backoff_doubles_up_to_its_limit() {
        let config = Config {
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_millis(700),
            ..Config::default()
        };
        let waits: Vec<_> = [1, 2, 3, 4, 99].map(|n| config.backoff(n).as_millis()).into();
        assert_eq!(waits, [100, 200, 400, 700, 700]);
    }
}
