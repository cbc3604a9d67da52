//! The scheduler's options: limits and waits, checked once when it is made. Where the values
//! come from (file, environment, flags) is the coordinator's business.

use std::time::Duration;

/// Every limit and wait of the scheduler.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Strikes (failures that speak against the task) that a task may collect: with the last
    /// of them its job fails. At least 1.
    pub max_attempts: u32,
    /// The number of each task's first attempt: coordinators that follow each other start apart, so
    /// that no number means two attempts.
    pub first_attempt: u32,
    /// The wait before the retry after a task's first strike; doubles with every further one.
    pub retry_backoff: Duration,
    /// The longest wait before a retry.
    pub retry_backoff_max: Duration,
    /// Ends without a result that speak against nobody (an unasked stop, a read from where the
    /// output no longer was) before each further one is a strike, so that no retry is endless.
    pub max_excused: u32,
    /// How often the output of one task may turn out unreadable, or unfit, and be made again. One time
    /// more fails the job. Outputs lost with their worker are not counted.
    pub max_output_losses: u32,
    /// With how many outputs that could not be read from a holder all that it holds of the stage
    /// counts as lost to the job, and is made again elsewhere.
    pub max_holder_losses: u32,
    /// Silence after which a worker is lost. `None` where workers cannot fall silent (embedded).
    pub worker_timeout: Option<Duration>,
    /// How long a job with work to do waits while no worker takes tasks, or all refuse one, before it fails.
    pub no_workers_timeout: Duration,
    /// Second attempts for stragglers; `None` for none.
    pub speculation: Option<Speculation>,
}

/// When a second attempt of a running task is started.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speculation {
    /// The share of a stage's tasks, from 0 to 1, that must be done first.
    pub quantile: f64,
    /// An attempt is slow from this many times the median duration of the stage's winners.
    /// At least 1.
    pub multiplier: f64,
    /// No attempt is slow before it has run this long.
    pub minimum: Duration,
}

/// An option that makes no sense.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// No task could ever be tried.
    #[error("max_attempts is 0: set it to 1 or more")]
    NoAttempts,
    /// Every worker would be lost as soon as it joins.
    #[error("worker_timeout is 0: set it to several heartbeats, or leave it out")]
    NoWorkerTimeout,
    /// Not a share.
    #[error("speculation.quantile is {0}: set it between 0 and 1")]
    Quantile(f64),
    /// Would call the median attempt slow.
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

    /// The wait before the retry that follows a task's `strikes`-th strike.
    pub(crate) fn backoff(&self, strikes: u32) -> Duration {
        let factor = 2u32.saturating_pow(strikes.saturating_sub(1));
        self.retry_backoff.saturating_mul(factor).min(self.retry_backoff_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_make_no_sense_are_refused() {
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
