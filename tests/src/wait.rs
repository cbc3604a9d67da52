//! Waiting for a condition with a deadline: the only place where a test may sleep. Not here: the conditions.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The pause between two polls.
const PAUSE: Duration = Duration::from_millis(1);
/// The pause between polls that are expensive, such as starting a process.
pub const PATIENT: Duration = Duration::from_millis(10);

/// Polls `condition` until it returns a value, and returns that value.
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

/// [`wait_for`] with a pause of its own between two polls.
///
/// # Errors
/// Those of [`wait_for`].
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

/// The timeout of [`eventually`].
const LONG: Duration = Duration::from_secs(60);

/// Polls on a runtime until there is an answer.
///
/// # Errors
/// Names `what` when a minute passes first; an error of the query itself ends the wait at once.
pub async fn eventually<T, F: Future<Output = Result<Option<T>>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = ask().await? {
            return Ok(value);
        }
        if start.elapsed() > LONG {
            bail!("waited {:.1} s in vain for {what}", LONG.as_secs_f64());
        }
        tokio::time::sleep(PATIENT).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_question_is_asked_until_it_is_answered() {
        let mut asked = 0;
        let ask = || {
            asked += 1;
            let answer = (asked == 3).then_some(asked);
            async move { Ok(answer) }
        };
        assert_eq!(eventually("three questions", ask).await.unwrap(), 3);
        let wrong = eventually::<(), _>("sense", || async { bail!("nonsense") }).await;
        assert!(wrong.unwrap_err().to_string().contains("nonsense"));
    }

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
