//! Waiting for a condition with a deadline: the only place where a test may sleep. Not here: what is waited for.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long a poll pauses before it looks again.
const PAUSE: Duration = Duration::from_millis(1);
/// The pause of a poll that costs something, as starting a process does.
pub const PATIENT: Duration = Duration::from_millis(10);

/// Polls `condition` until it gives a value, and returns that value.
///
/// # Errors
/// Names `what` when `deadline` passes first; an error of the condition itself ends the wait at once.
pub fn wait_for<T>(
    what: &str,
    deadline: Duration,
    condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    wait_every(PAUSE, what, deadline, condition)
}

/// [`wait_for`] with a pause of its own between two looks.
///
/// # Errors
/// As there.
pub fn wait_every<T>(
    pause: Duration,
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if start.elapsed() > deadline {
            bail!("waited {:.1} s in vain for {what}", deadline.as_secs_f64());
        }
        std::thread::sleep(pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_value_once_it_is_there() {
        let mut polls = 0;
        let value = wait_for("three polls", Duration::from_secs(10), || {
            polls += 1;
            Ok((polls == 3).then_some(polls))
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn names_what_it_waited_for() {
        let error = wait_for::<()>("a miracle", Duration::from_millis(5), || Ok(None)).unwrap_err();
        assert!(error.to_string().contains("a miracle"), "{error}");
    }
}
