//! Durations as options have them: `90s`, `15m`, `1h30m`, `250ms`, `60`. A library's parser would accept months (`1M`) and
//! weeks, and no number without a unit.
//!
//! Not here: retries and deadlines (`retry`).

use std::time::Duration;

/// A year, in seconds: a longer duration is a typing error.
const MAX_SECONDS: f64 = 366.0 * 86_400.0;

/// A text that is not a duration between 1 ms and a year.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration: write for example 90s, 15m or 1h30m")]
pub struct InvalidDuration(String);

/// Parses a duration; a bare number is seconds.
///
/// # Errors
/// [`InvalidDuration`].
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let shape = || InvalidDuration(text.into());
    let mut seconds = 0.0;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| shape())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ms" => 0.001,
            "" | "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return Err(shape()),
        };
        rest = rest[letters..].trim_start();
        seconds += number * unit;
    }
    if text.trim().is_empty() || !(0.001..=MAX_SECONDS).contains(&seconds) {
        return Err(shape());
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, millis) in [
            ("90s", 90_000),
            ("15m", 900_000),
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("60", 60_000),
            ("1.5m", 90_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "s", "-1s", "1 fortnight", "0s", "1..5s", "999999d", "1h m"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
