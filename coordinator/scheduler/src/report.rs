//! The ends of attempts: which result counts, and what a failure means for its task, its job and the tasks that produced
//! its inputs. Losses of workers are in `membership`.

use tally_proto::failure::Failure;
use tally_proto::ids::{AttemptId, JobId, TaskId, WorkerId};

use crate::command::{JobFailure, Warning};
use crate::config::Config;
use crate::job::Job;
use crate::step::Scheduler;
use crate::task::{Attempt, Output, TaskState};
use crate::throttle::Blocked;
use crate::time::Millis;
use crate::worker::stop_attempt;

/// What an end without a result means for the task.
pub(crate) enum Verdict {
    /// A failure of the task. The retry waits, and a limited number of failures fails the job.
    Failure { reason: String },
    /// A failure, too, but the retry does not wait.
    LostWorker,
    /// Not a failure, up to a limited number.
    Excused { reason: String },
    /// The worker had no memory or disk space, at the start of the attempt or during it. Not a failure; the retry waits.
    /// The job fails if for a limited time all attempts of the task end like this and no other task of the stage is done,
    /// or if all workers refuse all of its tasks; in both cases at least as many attempts as may fail.
    Refused { reason: String },
    /// Not a failure. The number of such ends is bounded otherwise.
    Free,
}

impl Scheduler {
    pub(crate) fn attempt_ended(
        &mut self,
        worker: &WorkerId,
        attempt: &AttemptId,
        outcome: Result<(), Failure>,
    ) -> Result<(), Warning> {
        self.workers.seen(worker, self.now)?;
        if !self.workers.release(worker, attempt) {
            return Err(Warning::UnknownAttempt { worker: worker.clone(), attempt: attempt.clone() });
        }
        self.throttle(worker, attempt, &outcome);
        match outcome {
            Ok(()) => self.attempt_won(attempt),
            Err(failure) => self.attempt_failed(attempt, failure),
        }
        Ok(())
    }

    /// Updates what the job knows about the worker's room.
    fn throttle(&mut self, worker: &WorkerId, attempt: &AttemptId, outcome: &Result<(), Failure>) {
        let id = &attempt.task.job;
        let (running, now) = (self.workers.attempts_on(worker, id), self.now);
        let slots = self.workers.get(worker).map_or(0, |worker| worker.slots);
        let Some(Job { throttles, .. }) = self.jobs.get_mut(id) else { return };
        match outcome {
            Ok(()) => throttles.succeeded(worker, attempt, slots, now),
            Err(Failure::Refused { .. }) => throttles.refused(worker, attempt, running, now, &self.config),
            Err(Failure::Retryable { .. }) => throttles.failed(worker, attempt, running, now, &self.config),
            Err(Failure::FetchLost { .. } | Failure::Fatal { .. } | Failure::Cancelled) => {
                throttles.ended(worker, attempt);
            }
        }
    }

    /// Whether every worker refuses the job's tasks, and nothing runs that could show otherwise but probes.
    fn no_worker_has_room(&self, id: &JobId) -> bool {
        let Some(Job { throttles, .. }) = self.jobs.get(id) else { return false };
        let serving = self.workers.serving();
        !serving.is_empty()
            && serving.len() <= throttles.len()
            && serving.iter().all(|worker| throttles.contains(worker))
            && self.workers.attempts_of(id).all(|(worker, attempt)| throttles.is_probe(worker, attempt))
    }

    /// Makes the task of an attempt ready whose task message could not be built.
    pub(crate) fn not_started(&mut self, worker: &WorkerId, attempt: &AttemptId) -> Result<(), Warning> {
        if !self.workers.release(worker, attempt) {
            return Err(Warning::UnknownAttempt { worker: worker.clone(), attempt: attempt.clone() });
        }
        if let Some(job) = self.jobs.get_mut(&attempt.task.job) {
            job.throttles.ended(worker, attempt);
        }
        let Some((_, other)) = self.take_out(attempt) else { return Ok(()) };
        let task = &attempt.task;
        if let Some(stage) = self.jobs.get_mut(&task.job).and_then(|job| job.stage_mut(task.stage)) {
            stage.set(task.index, other.map_or(TaskState::Ready, TaskState::alone));
        }
        Ok(())
    }

    fn attempt_won(&mut self, attempt: &AttemptId) {
        let Some((won, other)) = self.take_out(attempt) else { return };
        let task = &attempt.task;
        let Some(stage) = self.jobs.get_mut(&task.job).and_then(|job| job.stage_mut(task.stage)) else {
            return;
        };
        stage.durations.add(self.now.0.saturating_sub(won.started.0));
        stage.won = Some(self.now);
        if let Some(task) = stage.task_mut(task.index) {
            task.begun();
        }
        let (step, moved) = (self.steps, self.steps);
        let output = Output { worker: won.worker, attempt: won.number, step, moved };
        stage.set(task.index, TaskState::Done(output));
        if let Some(loser) = other {
            let stopped = AttemptId { task: task.clone(), attempt: loser.number };
            stop_attempt(&mut self.workers, &mut self.out, loser.worker, stopped);
        }
    }

    fn attempt_failed(&mut self, attempt: &AttemptId, failure: Failure) {
        let Some((failed, _)) = self.take_out(attempt) else { return };
        let task = &attempt.task;
        let verdict = match failure {
            Failure::Retryable { reason } => Verdict::Failure { reason },
            Failure::Refused { reason } => Verdict::Refused { reason },
            Failure::Cancelled => Verdict::Excused { reason: "stopped without a command".into() },
            Failure::Fatal { reason } => {
                self.count_failed(task);
                let (task, worker) = (task.clone(), failed.worker);
                return self.fail(&attempt.task.job, JobFailure::Fatal { task, worker, reason });
            }
            Failure::FetchLost { worker, task: producer, reason } => {
                let Some(job) = self.jobs.get_mut(&task.job) else { return };
                match fetch_lost(job, &self.config, task, &failed, (worker, producer, reason)) {
                    Ok(verdict) => verdict,
                    Err(reason) => {
                        self.count_failed(task);
                        return self.fail(&task.job, reason);
                    }
                }
            }
        };
        self.attempt_over(attempt, verdict);
    }

    /// Counts an attempt that ended without a result.
    fn count_failed(&mut self, task: &TaskId) {
        if let Some(stage) = self.jobs.get_mut(&task.job).and_then(|job| job.stage_mut(task.stage)) {
            stage.failed_attempts += 1;
        }
    }

    /// Counts a refusal of the job's tasks by all workers.
    fn count_blocked(&mut self, id: &JobId) -> Option<Blocked> {
        let blocked = self.no_worker_has_room(id);
        self.jobs.get_mut(id)?.throttles.count_blocked(blocked, self.now)
    }

    /// The attempt, if its task still runs it, and the other attempt of the task. `None` if the other attempt won or the job
    /// ended.
    fn take_out(&self, attempt: &AttemptId) -> Option<(Attempt, Option<Attempt>)> {
        let stage = self.jobs.get(&attempt.task.job)?.stage(attempt.task.stage)?;
        match stage.task(attempt.task.index)?.state() {
            TaskState::Running(running) => running.split(attempt.attempt),
            _ => None,
        }
    }

    /// Ends an attempt without a result.
    pub(crate) fn attempt_over(&mut self, attempt: &AttemptId, verdict: Verdict) {
        let Some((over, other)) = self.take_out(attempt) else { return };
        let id = &attempt.task;
        let alone = other.is_none();
        let blocked = match verdict {
            Verdict::Refused { .. } if alone => self.count_blocked(&id.job),
            _ => None,
        };
        let Some(stage) = self.jobs.get_mut(&id.job).and_then(|job| job.stage_mut(id.stage)) else { return };
        let won = stage.won;
        stage.failed_attempts += 1;
        let Some(task) = stage.task_mut(id.index) else { return };
        let at_once = matches!(verdict, Verdict::LostWorker);
        let refusal = match verdict {
            // The other attempt had room.
            Verdict::Refused { .. } if !alone => {
                task.avoid(&over.worker);
                None
            }
            Verdict::Refused { .. } => Some(task.refused(&over.worker, self.now, won)),
            _ => task.begun(),
        };
        let mut next = TaskState::Ready;
        if let Some(refusal) = refusal {
            let (now, config) = (self.now, &self.config);
            let overdue = |since: Millis, times: u32| {
                since.after(config.no_workers_timeout) <= now && times >= config.max_attempts
            };
            if let Verdict::Refused { reason } = &verdict
                && (overdue(refusal.since, refusal.times)
                    || blocked.is_some_and(|blocked| overdue(blocked.since, blocked.times)))
            {
                let (task, worker, reason) = (id.clone(), over.worker, reason.clone());
                let waited = self.config.no_workers_timeout;
                return self.fail(&id.job, JobFailure::Refused { task, waited, worker, reason });
            }
            next = TaskState::Backoff { until: self.now.after(self.config.backoff(refusal.in_a_row)) };
        }
        let failure = match verdict {
            Verdict::Failure { reason } => Some(reason),
            Verdict::LostWorker => Some("the worker was lost".to_owned()),
            Verdict::Excused { reason } => {
                task.excused += 1;
                (task.excused > self.config.max_excused).then_some(reason)
            }
            Verdict::Free | Verdict::Refused { .. } => None,
        };
        if let Some(reason) = failure {
            task.failures += 1;
            task.avoid(&over.worker);
            let tries = task.failures;
            if tries >= self.config.max_attempts && other.is_none() {
                let (task, worker) = (id.clone(), over.worker);
                return self.fail(&id.job, JobFailure::TooManyTries { task, tries, worker, reason });
            }
            if !at_once {
                next = TaskState::Backoff { until: self.now.after(self.config.backoff(tries)) };
            }
        }
        stage.set(id.index, other.map_or(next, TaskState::alone));
    }
}

/// Marks an output as lost that a consumer could not read, if the consumer was sent to that output.
///
/// If several outputs of one worker are unreadable, all outputs of the stage on that worker are lost.
///
/// An output that was made after the consumer started is not lost: another consumer reported the loss before, and this
/// report is about the old output.
fn fetch_lost(
    job: &mut Job,
    config: &Config,
    consumer: &TaskId,
    attempt: &Attempt,
    (holder, producer, reason): (WorkerId, TaskId, String),
) -> Result<Verdict, JobFailure> {
    let reads = job.stage(consumer.stage).is_some_and(|stage| {
        producer.job == consumer.job && stage.reads.contains(&(producer.stage.0 as usize))
    });
    let stage = job.stage_mut(producer.stage).filter(|stage| reads && stage.task(producer.index).is_some());
    let Some(stage) = stage else {
        let reason = format!("reported the loss of {producer}, which is none of its inputs: {reason}");
        return Ok(Verdict::Failure { reason });
    };
    match stage.output(producer.index) {
        // It was migrated since the consumer received its location. The number of drains bounds that.
        Some(output) if output.worker != holder && output.moved > attempt.step => return Ok(Verdict::Free),
        Some(output) if output.worker != holder || output.step > attempt.step => {
            let reason = format!(
                "read the output of {producer} from worker {holder}, which does not hold it: {reason}"
            );
            return Ok(Verdict::Excused { reason });
        }
        Some(_) => {}
        // Known to be lost: the consumer waits for the new one.
        None => return Ok(Verdict::Free),
    }
    let Some(task) = stage.task_mut(producer.index) else { return Ok(Verdict::Free) };
    task.losses += 1;
    task.avoid(&holder);
    if task.losses > config.max_output_losses {
        let losses = task.losses;
        return Err(JobFailure::OutputLost { task: producer, losses, worker: holder, reason });
    }
    stage.reruns += 1;
    stage.set(producer.index, TaskState::Ready);
    // Each unreadable output costs its reader a timeout, so after a few the others are not tried.
    if job.unreadable_at(&holder) >= config.max_holder_losses
        && let Some(stage) = job.stage_mut(producer.stage)
    {
        stage.rerun_held(&holder);
    }
    Ok(Verdict::Free)
}

impl Scheduler {
    /// Sets the worker that holds a migrated output.
    pub(crate) fn output_migrated(
        &mut self,
        task: TaskId,
        from: WorkerId,
        to: WorkerId,
    ) -> Result<(), Warning> {
        if self.workers.get(&to).is_some() && self.migrate_output(&task.job, &task, &from, &to).is_some() {
            return Ok(());
        }
        Err(Warning::UnknownMigration { task, from, to })
    }

    fn migrate_output(&mut self, job: &JobId, task: &TaskId, from: &WorkerId, to: &WorkerId) -> Option<()> {
        let stage = self.jobs.get_mut(job)?.stage_mut(task.stage)?;
        let output = stage.output(task.index).filter(|output| output.worker == *from)?.clone();
        stage.set(task.index, TaskState::Done(Output { worker: to.clone(), moved: self.steps, ..output }));
        Some(())
    }
}
