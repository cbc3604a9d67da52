//! Jobs and workers of the tests of `tally top`.

use tally_proto::ids::ATTEMPT_BITS;
use tally_proto::v1::{
    EventKind, JobDetail, JobEvent, JobSpec, JobState, JobStatus, JobWaits, PartitionSkew, RunningTask,
    StageDetail, StageStatus, StageUse, WorkerStatus,
};

use super::app::Cluster;

/// A job in its map stage.
pub fn job(id: &str, state: JobState) -> JobStatus {
    let stage = |name: &str, done| StageStatus { name: name.into(), tasks: 40, done, ..Default::default() };
    let mut job = JobStatus {
        job: id.into(),
        spec: Some(JobSpec { date: "20170227".into(), output: "/day/out".into(), ..Default::default() }),
        phase: "map".into(),
        stages: vec![stage("map", 10), stage("reduce", 0)],
        elapsed_millis: 12_500,
        remaining_millis: Some(40_000),
        submitted_at: 1_488_153_600_000,
        ..JobStatus::default()
    };
    job.set_state(state);
    job
}

/// A worker with four slots that answers.
pub fn worker(id: &str) -> WorkerStatus {
    WorkerStatus {
        worker: id.into(),
        state: "attached".into(),
        slots: 4,
        running: 3,
        memory_limit: 1 << 30,
        memory_used: 1 << 29,
        spill_limit: 10 << 30,
        spill_used: 1 << 30,
        heartbeat_age_millis: 400,
        ..WorkerStatus::default()
    }
}

/// A worker whose heartbeats are missing.
pub fn frozen() -> WorkerStatus {
    WorkerStatus { silent: true, heartbeat_age_millis: 5400, ..worker("w-frozen") }
}

/// Three jobs and two workers.
pub fn cluster() -> Cluster {
    let mut waiting = job("20170227-b", JobState::Running);
    waiting.waits = Some(JobWaits {
        memory: 1,
        silent_workers: 1,
        silent_worker_ids: vec!["w-frozen".into()],
        ..JobWaits::default()
    });
    Cluster {
        leader: "host-1:7070".into(),
        jobs: vec![waiting, job("20170226-a", JobState::Cancelled), job("20170225-c", JobState::Failed)],
        workers: vec![worker("w-1"), frozen()],
        ..Cluster::default()
    }
}

/// The first of the jobs with a silent worker, a task that waits for memory, and a failed attempt.
pub fn detailed() -> JobStatus {
    let task = |index, worker: &str| RunningTask {
        stage: "map".into(),
        index,
        worker: worker.into(),
        age_millis: 9000,
        ..RunningTask::default()
    };
    let failed = JobEvent {
        at: 1_488_153_600_000,
        kind: EventKind::AttemptFailed.into(),
        stage: "map".into(),
        index: Some(3),
        worker: "w-1".into(),
        text: "the disk is full".into(),
        ..JobEvent::default()
    };
    let use_of = StageUse { task_millis: 70_000, peak_memory_bytes: 1 << 30, ..StageUse::default() };
    let detail = JobDetail {
        stages: vec![StageDetail {
            name: "map".into(),
            millis: 9000,
            rows: 18_000_000,
            bytes: 90 << 20,
            r#use: Some(use_of),
            pending_reason: "all slots are busy".into(),
        }],
        running: vec![
            // The first attempt of the third leader, and the second one.
            RunningTask { attempt: 3 << ATTEMPT_BITS, ..task(1, "w-1") },
            RunningTask { silent_millis: Some(5400), ..task(3, "w-frozen") },
            RunningTask {
                waits_for: "memory".into(),
                wait_millis: 7000,
                attempt: (3 << ATTEMPT_BITS) + 1,
                speculative: true,
                ..task(2, "w-1")
            },
        ],
        incidents: vec![failed],
        skew: Some(PartitionSkew { partitions: 64, largest: 7, largest_rows: 900, median_rows: 300 }),
        ..JobDetail::default()
    };
    JobStatus { detail: Some(detail), ..job("20170227-b", JobState::Running) }
}
