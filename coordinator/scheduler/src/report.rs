//! The ends of attempts: which result counts, what a failure means for its task, its job and
//! the producers of its inputs. Losses of whole workers are in `membership`.

use tally_proto::failure::Failure;
use tally_proto::ids::{AttemptId, JobId, TaskId, WorkerId};

use crate::command::{JobFailure, Warning};
use crate::config::Config;
use crate::job::Job;
use crate::settle::order_stop;
use crate::step::Scheduler;
use crate::task::{Attempt, Output, TaskState};

/// What an end without a result means for the task.
pub(crate) enum Verdict {
    /// It speaks against the task: a limited number of them fails the job. The retry waits.
    Strike { reason: String },
    /// A strike too, but nothing that waiting would mend.
    LostWorker,
    /// It speaks against nobody; a limited number is free.
    Excused { reason: String },
    /// The worker had no room: it speaks against nobody, and the retry waits. The time that this goes on
    /// without any attempt is bounded.
    Refused { reason: String },
    /// It speaks against nobody, and something else bounds how often it happens.
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
        match outcome {
            Ok(()) => self.attempt_won(attempt),
            Err(failure) => self.attempt_failed(attempt, failure),
        }
        Ok(())
    }

    /// Gives an attempt back that no order could be made for.
    pub(crate) fn not_started(&mut self, worker: &WorkerId, attempt: &AttemptId) -> Result<(), Warning> {
        if !self.workers.release(worker, attempt) {
            return Err(Warning::UnknownAttempt { worker: worker.clone(), attempt: attempt.clone() });
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
        let (step, moved) = (self.steps, self.steps);
        let output = Output { worker: won.worker, attempt: won.number, step, moved };
        stage.set(task.index, TaskState::Done(output));
        if let Some(loser) = other {
            let stopped = AttemptId { task: task.clone(), attempt: loser.number };
            order_stop(&mut self.workers, &mut self.out, loser.worker, stopped);
        }
    }

    fn attempt_failed(&mut self, attempt: &AttemptId, failure: Failure) {
        let Some((failed, _)) = self.take_out(attempt) else { return };
        let task = &attempt.task;
        let verdict = match failure {
            Failure::Retryable { reason } => Verdict::Strike { reason },
            Failure::Refused { reason } => Verdict::Refused { reason },
            Failure::Cancelled => Verdict::Excused { reason: "stopped without having been told to".into() },
            Failure::Fatal { reason } => {
                let (task, worker) = (task.clone(), failed.worker);
                return self.fail(&attempt.task.job, JobFailure::Fatal { task, worker, reason });
            }
            Failure::FetchLost { worker, task: producer, reason } => {
                let Some(job) = self.jobs.get_mut(&task.job) else { return };
                match fetch_lost(job, &self.config, task, &failed, (worker, producer, reason)) {
                    Ok(verdict) => verdict,
                    Err(reason) => return self.fail(&task.job, reason),
                }
            }
        };
        self.attempt_over(attempt, verdict);
    }

    /// The attempt, if its task still runs it, and the other attempt of the task. `None` for one
    /// that lost against the other or whose job is over.
    fn take_out(&self, attempt: &AttemptId) -> Option<(Attempt, Option<Attempt>)> {
        let stage = self.jobs.get(&attempt.task.job)?.stage(attempt.task.stage)?;
        match stage.task(attempt.task.index)?.state() {
            TaskState::Running(running) => running.split(attempt.attempt),
            _ => None,
        }
    }

    /// Takes an attempt that has no result out of its task.
    pub(crate) fn attempt_over(&mut self, attempt: &AttemptId, verdict: Verdict) {
        let Some((over, other)) = self.take_out(attempt) else { return };
        let id = &attempt.task;
        let Some(stage) = self.jobs.get_mut(&id.job).and_then(|job| job.stage_mut(id.stage)) else { return };
        let Some(task) = stage.task_mut(id.index) else { return };
        let at_once = matches!(verdict, Verdict::LostWorker);
        let refusal = match verdict {
            Verdict::Refused { .. } => task.refused(&over.worker, self.now),
            _ => task.begun(),
        };
        let mut next = TaskState::Ready;
        if let Some(refusal) = refusal {
            if let Verdict::Refused { reason } = &verdict
                && refusal.since.after(self.config.no_workers_timeout) <= self.now
                && other.is_none()
            {
                let (task, worker, reason) = (id.clone(), over.worker, reason.clone());
                let waited = self.config.no_workers_timeout;
                return self.fail(&id.job, JobFailure::Refused { task, waited, worker, reason });
            }
            next = TaskState::Backoff { until: self.now.after(self.config.backoff(refusal.times)) };
        }
        let strike = match verdict {
            Verdict::Strike { reason } => Some(reason),
            Verdict::LostWorker => Some("the worker was lost".to_owned()),
            Verdict::Excused { reason } => {
                task.excused += 1;
                (task.excused > self.config.max_excused).then_some(reason)
            }
            Verdict::Free | Verdict::Refused { .. } => None,
        };
        if let Some(reason) = strike {
            task.strikes += 1;
            task.avoid(&over.worker);
            let tries = task.strikes;
            if tries >= self.config.max_attempts && other.is_none() {
                let (task, worker) = (id.clone(), over.worker);
                return self.fail(&id.job, JobFailure::TooManyTries { task, tries, worker, reason });
            }
            if !at_once {
                next = TaskState::Backoff { until: self.now.after(self.config.backoff(tries)) };
            }
        }
        stage.failed_attempts += 1;
        stage.set(id.index, other.map_or(next, TaskState::alone));
    }
}

/// Marks the output that a consumer could not read as lost, if it is the one that the consumer
/// was sent to.
///
/// Where a holder's outputs prove unreadable one after another, all that it holds of the stage is
/// lost with them.
///
/// An output made after the consumer started is not: another consumer's report was first, and
/// this one, told of the old output, says nothing about the new one.
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
        let reason = format!("reported a lost input that is none of its inputs, {producer}: {reason}");
        return Ok(Verdict::Strike { reason });
    };
    match stage.output(producer.index) {
        // Handed over since the consumer was told where it is: each time is somebody's drain.
        Some(output) if output.worker != holder && output.moved > attempt.step => return Ok(Verdict::Free),
        Some(output) if output.worker != holder || output.step > attempt.step => {
            let reason =
                format!("looked for the output of {producer} on worker {holder}, not its holder: {reason}");
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
    // Finding out costs its reader a time-out: after some the rest is not tried.
    if job.unreadable_at(&holder) >= config.max_holder_losses
        && let Some(stage) = job.stage_mut(producer.stage)
    {
        stage.rerun_held(&holder);
    }
    Ok(Verdict::Free)
}

impl Scheduler {
    /// Notes the new holder of an output.
    pub(crate) fn output_moved(&mut self, task: TaskId, from: WorkerId, to: WorkerId) -> Result<(), Warning> {
        if self.workers.get(&to).is_some() && self.move_output(&task.job, &task, &from, &to).is_some() {
            return Ok(());
        }
        Err(Warning::UnknownMove { task, from, to })
    }

    fn move_output(&mut self, job: &JobId, task: &TaskId, from: &WorkerId, to: &WorkerId) -> Option<()> {
        let stage = self.jobs.get_mut(job)?.stage_mut(task.stage)?;
        let output = stage.output(task.index).filter(|output| output.worker == *from)?.clone();
        stage.set(task.index, TaskState::Done(Output { worker: to.clone(), moved: self.steps, ..output }));
        Some(())
    }
}
