//! The answer to a client that asks what a job does: running attempts and what they wait for, stages, incidents. Built on
//! demand, so that a job that no client looks at costs nothing.
//!
//! Not here: the status that every change updates (`metrics`).

use std::collections::BTreeMap;
use std::time::Duration;

use tally_common::counts::counted;
use tally_proto::{AttemptId, JobId, StageId, WorkerId, v1};
use tally_scheduler::{Pending, RunningAttempt};

use super::Driver;
use super::job_run::JobRun;
use crate::cluster::Member;
use crate::events::is_incident;
use crate::job::STAGES;

/// The most running attempts in an answer.
pub(crate) const MAX_RUNNING: usize = 500;
/// The most incidents in an answer.
pub(crate) const MAX_INCIDENTS: usize = 100;

/// The detail of a job that ended, or of one at the moment of its last record.
pub fn recorded_detail(notes: &v1::JobNotes) -> v1::JobDetail {
    let (incidents, left_out) = incidents(&notes.events);
    let stage = |(at, name): (usize, &&str)| v1::StageDetail {
        name: (*name).into(),
        millis: notes.phase_millis.get(at + 1).copied().unwrap_or(0),
        r#use: notes.stages.get(at).copied(),
        ..v1::StageDetail::default()
    };
    v1::JobDetail {
        stages: STAGES.iter().enumerate().map(stage).collect(),
        incidents,
        incidents_left_out: left_out + notes.left_out,
        skew: notes.skew,
        phases_millis: notes.phase_millis.clone(),
        ..v1::JobDetail::default()
    }
}

/// The last incidents, and the number of those before.
fn incidents(events: &[v1::JobEvent]) -> (Vec<v1::JobEvent>, u64) {
    let all: Vec<&v1::JobEvent> = events.iter().filter(|event| is_incident(event)).collect();
    let left_out = all.len().saturating_sub(MAX_INCIDENTS);
    (all.into_iter().skip(left_out).cloned().collect(), left_out as u64)
}

fn pending_text(pending: Pending) -> String {
    match pending {
        Pending::Tasks { stage, missing } => {
            let name = STAGES.get(stage.0 as usize).copied().unwrap_or_default();
            format!("wait for {}", counted(missing, &format!("{name} task")))
        }
        Pending::Workers => "no worker takes tasks".into(),
        Pending::Retry => "failed, and wait for their retry".into(),
        Pending::Room => "workers refused tasks: they have no free memory or disk space".into(),
        Pending::Slots => "all slots are taken".into(),
    }
}

/// The name of a wait in answers.
fn wait_name(kind: v1::WaitKind) -> &'static str {
    match kind {
        v1::WaitKind::Slot => "slot",
        v1::WaitKind::Memory => "memory",
        v1::WaitKind::Store => "store",
        v1::WaitKind::Worker => "worker",
        v1::WaitKind::Task => "task",
        v1::WaitKind::Unspecified => "",
    }
}

impl Driver {
    /// What a live job does now; `None` if the job is not live.
    pub(super) fn describe(&mut self, job: &JobId) -> Option<v1::JobDetail> {
        let now = self.now.elapsed;
        let mut running: Vec<RunningAttempt> = self.scheduler.running(job).collect();
        running.sort_by(|a, b| (a.started, &a.attempt).cmp(&(b.started, &b.attempt)));
        let left_out = running.len().saturating_sub(MAX_RUNNING) as u64;
        running.truncate(MAX_RUNNING);
        let beats = self.beats(running.iter().map(|running| &running.worker));
        let running = running.iter().map(|running| self.running_task(running, &beats)).collect();
        let pending: Vec<Option<Pending>> =
            (0..STAGES.len() as u32).map(|stage| self.scheduler.pending(job, StageId(stage))).collect();
        let run = self.jobs.get(job)?;
        let (_, phases) = run.phases.notes(now);
        let notes = v1::JobNotes { phase_millis: phases, ..run.notes.all(job.as_str()) };
        let mut detail = v1::JobDetail { running, running_left_out: left_out, ..recorded_detail(&notes) };
        detail.phase_millis = u64::try_from(run.phases.elapsed(now).as_millis()).unwrap_or(u64::MAX);
        for ((stage, pending), amount) in detail.stages.iter_mut().zip(pending).zip(amounts(run)) {
            (stage.rows, stage.bytes) = amount;
            stage.pending_reason = pending.map(pending_text).unwrap_or_default();
        }
        Some(detail)
    }

    /// The last heartbeats of some workers, by attempt.
    fn beats<'a>(&mut self, workers: impl Iterator<Item = &'a WorkerId>) -> BTreeMap<WorkerId, Beat> {
        let now = self.now.elapsed;
        let silent_after = self.silent_after;
        let mut beats = BTreeMap::new();
        for worker in workers {
            if !beats.contains_key(worker)
                && let Some(member) = self.workers.member(worker)
            {
                beats.insert(worker.clone(), Beat::of(member, now, silent_after));
            }
        }
        beats
    }

    fn running_task(&self, running: &RunningAttempt, beats: &BTreeMap<WorkerId, Beat>) -> v1::RunningTask {
        let AttemptId { task, attempt } = &running.attempt;
        let mut shown = v1::RunningTask {
            stage: STAGES.get(task.stage.0 as usize).copied().unwrap_or_default().into(),
            index: task.index,
            attempt: *attempt,
            worker: running.worker.to_string(),
            age_millis: self.millis().0.saturating_sub(running.started.0),
            speculative: running.speculative,
            ..v1::RunningTask::default()
        };
        if self.workers.waits_for_upload(&running.attempt) {
            (shown.waits_for, shown.wait_subject) = ("store".into(), "the upload of the part file".into());
            shown.wait_millis = shown.age_millis;
        }
        let Some(beat) = beats.get(&running.worker) else { return shown };
        shown.host.clone_from(&beat.host);
        shown.silent_millis = beat.silent_millis;
        let Some(reported) = beat.attempts.get(&running.attempt) else { return shown };
        (shown.rows, shown.bytes) = (reported.rows, reported.bytes);
        if let Some(wait) = &reported.wait {
            shown.waits_for = wait_name(wait.kind()).into();
            shown.wait_subject.clone_from(&wait.subject);
            shown.wait_millis = wait.millis.saturating_add(beat.age_millis);
        }
        shown
    }
}

/// Rows and bytes by stage.
fn amounts(run: &JobRun) -> [(u64, u64); 3] {
    run.amounts().map(|amount| (amount.rows, amount.bytes))
}

/// The last heartbeat of a worker.
struct Beat {
    host: String,
    age_millis: u64,
    silent_millis: Option<u64>,
    attempts: BTreeMap<AttemptId, v1::RunningAttempt>,
}

impl Beat {
    fn of(member: &Member, now: Duration, silent_after: Duration) -> Self {
        let address = &member.hello.flight_address;
        let age = member.heartbeat_age(now);
        let age_millis = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let beat = member.beat.lock();
        let attempts = beat.heartbeat.attempts.iter().filter_map(|reported| {
            Some((AttemptId::try_from(reported.attempt.as_ref()?).ok()?, reported.clone()))
        });
        Beat {
            host: address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host).into(),
            age_millis,
            silent_millis: member.is_silent(now, silent_after).then_some(age_millis),
            attempts: attempts.collect(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use prost::Message;
    use tally_proto::ids::MAX_ID_BYTES;
    use tally_proto::limits::MESSAGE_BYTES;

    use super::*;
    use crate::events::MAX_BYTES;

    /// A running task with the longest texts and the largest numbers.
    pub(crate) fn largest_task() -> v1::RunningTask {
        v1::RunningTask {
            stage: "reduce".into(),
            index: u32::MAX,
            attempt: u32::MAX,
            worker: "w".repeat(MAX_ID_BYTES),
            host: "h".repeat(256),
            age_millis: u64::MAX,
            speculative: true,
            rows: u64::MAX,
            bytes: u64::MAX,
            waits_for: "memory".into(),
            wait_subject: "s".repeat(256),
            wait_millis: u64::MAX,
            silent_millis: Some(u64::MAX),
        }
    }

    #[test]
    fn the_largest_detail_fits_into_a_message() {
        let detail = v1::JobDetail { running: vec![largest_task(); MAX_RUNNING], ..v1::JobDetail::default() };
        assert!(detail.encoded_len() + 2 * MAX_BYTES < MESSAGE_BYTES / 4, "{}", detail.encoded_len());
    }

    #[test]
    fn the_last_incidents_are_told_and_the_others_counted() {
        let failed = |number| v1::JobEvent {
            number,
            kind: v1::EventKind::AttemptFailed.into(),
            ..v1::JobEvent::default()
        };
        let accepted = v1::JobEvent { number: 1, kind: v1::EventKind::Accepted.into(), ..Default::default() };
        let events = std::iter::once(accepted).chain((2..203).map(failed)).collect();
        let notes =
            v1::JobNotes { events, left_out: 5, phase_millis: vec![1, 2, 3, 4, 5], ..Default::default() };
        let detail = recorded_detail(&notes);
        assert_eq!((detail.incidents.len(), detail.incidents_left_out), (MAX_INCIDENTS, 106));
        assert_eq!(detail.incidents.last().unwrap().number, 202);
        assert_eq!(detail.stages.iter().map(|stage| stage.millis).collect::<Vec<_>>(), [2, 3, 4]);
    }
}
