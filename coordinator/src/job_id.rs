//! The id of a job, which begins with its day and the time of its submission, and its secret.
//!
//! Not here: what an id may contain (`tally_proto::ids`).

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Utc};
use tally_proto::JobId;
use tally_proto::ids::InvalidId;

/// A new job id: the date, the time, the process id and a counter.
///
/// # Errors
/// [`InvalidId`] if the date is invalid.
pub fn new_id(date: &str) -> Result<JobId, InvalidId> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    JobId::parse(&format!("{date}-{:x}-{:x}-{count}", now.as_millis(), std::process::id()))
}

/// When a job was submitted, to the millisecond: from its id, or from a name that begins with it. `None` if the text has
/// another form.
pub fn submitted_at(id: &str) -> Option<DateTime<Utc>> {
    let millis = id.split('-').nth(1)?;
    DateTime::from_timestamp_millis(i64::from_str_radix(millis, 16).ok()?)
}

/// A new secret with which workers may fetch a job's outputs.
pub fn new_key() -> Vec<u8> {
    rand::random::<[u8; 16]>().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_the_time_of_the_submission() {
        let before = Utc::now().timestamp_millis();
        let at = submitted_at(new_id("20170227").unwrap().as_str()).unwrap().timestamp_millis();
        assert!((before..=Utc::now().timestamp_millis()).contains(&at), "{before} {at}");
        for bad in ["", "20170227", "20170227-xyz-1-0", "20170227--1"] {
            assert_eq!(submitted_at(bad), None, "{bad}");
        }
    }
}
