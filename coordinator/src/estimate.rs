//! How much of a job is done, and the time that is left: estimates for people, from a job's status alone.
//!
//! Not here: who shows them.

use std::time::Duration;

use tally_proto::v1::{JobState, JobStatus};

/// The least finished share for which the time left is estimated.
const MIN_SHARE: f64 = 0.02;

/// The finished share of a job, from the finished share of a phase. Reading is most of a job.
pub fn job_share(phase: &str, share: f64) -> f64 {
    match phase {
        "map" => 0.75 * share,
        "reduce" => 0.75 + 0.2 * share,
        "write" => 0.95 + 0.04 * share,
        "publish" => 0.99,
        _ => 0.0,
    }
}

/// The finished share of a job, from 0 to 1.
pub fn share_done(status: &JobStatus) -> f64 {
    if status.state() == JobState::Done {
        return 1.0;
    }
    let share = |done: u64, all: u64| if all == 0 { 0.0 } else { (done as f64 / all as f64).min(1.0) };
    let stage = status.stages.iter().find(|stage| stage.name == status.phase);
    let tasks = stage.map_or(0.0, |stage| share(stage.done, stage.tasks));
    let reads = status.phase == "map" && status.rows_done > 0 && status.input_rows > 0;
    job_share(&status.phase, if reads { share(status.rows_done, status.input_rows) } else { tasks })
}

/// The time until a job's end, if it continues as fast as so far. `None` if too little is done to tell, if the job is being
/// cancelled, or if one of its workers is silent: its tasks do not end before it answers or is lost.
pub fn remaining(status: &JobStatus, elapsed: Duration) -> Option<Duration> {
    let runs = matches!(status.state(), JobState::Running | JobState::Publishing);
    let done = share_done(status);
    let blocked = status.cancelling || status.waits.as_ref().is_some_and(|waits| waits.silent_workers > 0);
    (runs && !blocked && done >= MIN_SHARE).then(|| elapsed.mul_f64((1.0 - done) / done))
}

#[cfg(test)]
mod tests {
    use tally_proto::v1::{JobWaits, StageStatus};

    use super::*;

    #[test]
    fn the_estimate_follows_rows_then_tasks() {
        let stage =
            |name: &str, done| StageStatus { name: name.into(), tasks: 4, done, ..Default::default() };
        let status = |phase: &str, rows_done| {
            let mut status =
                JobStatus { phase: phase.into(), rows_done, input_rows: 100, ..JobStatus::default() };
            status.stages = vec![stage("map", 1), stage("reduce", 2)];
            status.set_state(JobState::Running);
            status
        };
        let minute = Duration::from_secs(60);
        assert_eq!(share_done(&status("plan", 0)), 0.0);
        assert_eq!(share_done(&status("map", 0)), 0.75 / 4.0, "no rows are reported");
        assert_eq!(share_done(&status("map", 50)), 0.375);
        assert_eq!(share_done(&status("map", 700)), 0.75);
        assert_eq!(share_done(&status("reduce", 100)), 0.85);
        assert_eq!(remaining(&status("plan", 0), minute), None);
        let left = remaining(&status("map", 50), minute).unwrap();
        assert!((99..=101).contains(&left.as_secs()), "{left:?}");
        let mut blocked = status("map", 50);
        blocked.waits = Some(JobWaits { silent_workers: 1, ..JobWaits::default() });
        assert_eq!(remaining(&blocked, minute), None, "a worker is silent");
        blocked.waits = Some(JobWaits { memory: 1, ..JobWaits::default() });
        assert!(remaining(&blocked, minute).is_some());
        blocked.cancelling = true;
        assert_eq!(remaining(&blocked, minute), None);
        let mut done = status("publish", 100);
        done.set_state(JobState::Done);
        assert_eq!((share_done(&done), remaining(&done, minute)), (1.0, None));
    }
}
