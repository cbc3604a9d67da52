//! Jobs for unit tests, which change the fields that they are about. Not here: jobs that run (`tests`).

use tally_proto::v1;

use crate::job::JobSpec;

/// A job as a client asks for it.
pub(crate) fn asked() -> v1::JobSpec {
    v1::JobSpec {
        dataset: "addon_aggregates".into(),
        date: "20170227".into(),
        inputs: vec!["/data/addons/v2".into(), "/data/main_summary/v3".into()],
        output: "/out".into(),
        target_file_size: 1,
        ..Default::default()
    }
}

/// The same with an id.
pub(crate) fn job() -> JobSpec {
    JobSpec::recorded("a", asked()).unwrap()
}

/// The status of a job in that state.
pub(crate) fn status(spec: v1::JobSpec, state: v1::JobState) -> v1::JobStatus {
    v1::JobStatus {
        job: format!("{}-1a-2b-0", spec.date),
        spec: Some(spec),
        submitted_at: 1_483_228_800_000,
        ended_at: 1_483_228_801_500,
        state: state.into(),
        ..Default::default()
    }
}
