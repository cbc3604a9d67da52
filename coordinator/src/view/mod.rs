//! Jobs, workers, events and reports as JSON, for the commands and for the HTTP API. The JSON is stable: fields are added, never
//! changed; `deploy/docs/json.md` lists them.
//!
//! `job_view`, `detail_view`, `attempt_view`, `worker_view` and `report_view` are the objects. Not here: the requests (`client`, `service`), tables for
//! people (`cli`).

mod attempt_view;
mod detail_view;
mod job_view;
mod report_view;
mod worker_view;

use chrono::{DateTime, SecondsFormat};
use serde::Serialize;

pub use attempt_view::Attempts;
pub use detail_view::{Detail, Event, Events, StageTimes, kind};
pub use job_view::{Job, Jobs, Progress, state};
pub use report_view::Report;
pub use worker_view::{Worker, Workers};

/// The version of the JSON of all commands and of the HTTP API. New fields do not change it; see `deploy/docs/json.md`.
const SCHEMA_VERSION: u32 = 1;

/// One line of JSON: an object with the version of its schema, and a line break.
///
/// # Errors
/// The value is not an object. Never for the types of this program.
pub fn json(value: &impl Serialize) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Versioned<'a, T> {
        schema_version: u32,
        #[serde(flatten)]
        value: &'a T,
    }
    let versioned = Versioned { schema_version: SCHEMA_VERSION, value };
    serde_json::to_string(&versioned).map(|text| text + "\n")
}

/// Seconds with a resolution of milliseconds.
pub fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}

/// A time from milliseconds since 1970; `None` for 0.
pub fn time(millis: u64) -> Option<String> {
    let millis = i64::try_from(millis).ok().filter(|millis| *millis > 0)?;
    Some(DateTime::from_timestamp_millis(millis)?.to_rfc3339_opts(SecondsFormat::Millis, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(time(1_488_153_600_123).as_deref(), Some("2017-02-27T00:00:00.123Z"));
        assert_eq!(time(0), None);
        assert_eq!(time(u64::MAX), None);
    }

    #[test]
    fn an_object_begins_with_its_version() {
        #[derive(Serialize)]
        struct One {
            a: u32,
        }
        assert_eq!(json(&One { a: 2 }).unwrap(), "{\"schema_version\":1,\"a\":2}\n");
        assert!(json(&3).is_err(), "not an object");
    }
}
