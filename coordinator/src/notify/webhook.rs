//! The body of a webhook's request. Pure.
//!
//! Not here: the JSON of a job (`view`).

use serde::Serialize;
use tally_proto::v1;

use crate::view;

/// The only event so far. Receivers ignore events that they do not know.
const ENDED: &str = "job_ended";

/// The envelope. `deploy/docs/notifications.md` lists the fields.
#[derive(Serialize)]
struct Envelope<'a> {
    event: &'static str,
    /// The state in which the job ended: `done`, `failed` or `cancelled`.
    state: &'static str,
    /// As in the header.
    idempotency_key: &'a str,
    job: view::Job<'a>,
}

/// The key of a notice about a job: the same for each try, and another one for each state.
pub fn key(status: &v1::JobStatus) -> String {
    format!("{}:{}", status.job, view::state(status.state()))
}

/// The body for a job that has ended: one line of JSON with the version of its schema.
///
/// # Errors
/// Never for the types of this program.
pub fn body(status: &v1::JobStatus) -> serde_json::Result<String> {
    view::json(&Envelope {
        event: ENDED,
        state: view::state(status.state()),
        idempotency_key: &key(status),
        job: view::Job::from(status),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::test_jobs;

    #[test]
    fn the_body_has_the_job_in_a_versioned_envelope() {
        let spec = v1::JobSpec { ready_marker: Some("_SUCCESS".into()), ..test_jobs::asked() };
        let status = test_jobs::status(spec, v1::JobState::Done);
        let status = v1::JobStatus { summary: r#"{"rows":7}"#.into(), ..status };
        let body: Value = serde_json::from_str(&body(&status).unwrap()).unwrap();
        assert_eq!(body["schema_version"], 1);
        assert_eq!((&body["event"], &body["state"]), (&json!("job_ended"), &json!("done")));
        assert_eq!(body["idempotency_key"], "20170227-1a-2b-0:done");
        let job = &body["job"];
        assert_eq!((&job["job_id"], &job["state"]), (&json!("20170227-1a-2b-0"), &json!("done")));
        assert_eq!((&job["summary"]["rows"], &job["ready_marker"]), (&json!(7), &json!("_SUCCESS")));
        assert_eq!(job["ended_at"], "2017-01-01T00:00:01.500Z");
    }
}
