//! The rules that every step must keep, and the expected state that they need: the joined workers and their attempts.

use std::collections::{BTreeMap, BTreeSet};

use tally_proto::ids::{AttemptId, JobId, StageId, TaskId, WorkerId};
use tally_scheduler::{Command, Event, FoundTask, JobState, Millis};

use super::{Believed, Checked, Read, WORKER_TIMEOUT, World, reporter};

impl World {
    /// Updates the expected state for an event.
    pub(super) fn believe(&mut self, event: &Event) {
        if let Some(known) = reporter(event).and_then(|worker| self.believed.get_mut(worker)) {
            known.last_seen = self.now;
        }
        match event {
            Event::WorkerJoined { worker, slots, draining } => {
                let fresh = !self.believed.contains_key(worker) && !self.lost.contains(worker);
                if fresh {
                    let busy = BTreeSet::new();
                    let known = Believed { slots: *slots, draining: *draining, last_seen: self.now, busy };
                    self.believed.insert(worker.clone(), known);
                }
            }
            Event::WorkerDraining { worker } => {
                if let Some(known) = self.believed.get_mut(worker) {
                    known.draining = true;
                }
            }
            Event::WorkerLost { worker } => self.forget_worker(worker),
            Event::AttemptEnded { worker, attempt, outcome } => {
                let ran = self.believed.get_mut(worker).is_some_and(|known| known.busy.remove(attempt));
                if ran && self.wanted.remove(attempt) && outcome.is_ok() {
                    self.succeeded.insert(attempt.clone());
                }
            }
            Event::NotStarted { worker, attempt } => {
                let ran = self.believed.get_mut(worker).is_some_and(|known| known.busy.remove(attempt));
                if ran {
                    self.wanted.remove(attempt);
                }
            }
            Event::StagePlanned { job, stage, found, .. } | Event::TasksFound { job, stage, found } => {
                found.iter().for_each(|found| self.believe_found(job, *stage, found));
            }
            Event::Tick => {
                let overdue = self.believed.iter().filter(|(_, w)| w.last_seen + WORKER_TIMEOUT <= self.now);
                for worker in overdue.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
                    self.tally.timed_out += 1;
                    self.forget_worker(&worker);
                }
            }
            _ => {}
        }
    }

    /// Takes over found tasks as the scheduler must: those of joined workers, outputs before running attempts, and the first
    /// of each.
    fn believe_found(&mut self, job: &JobId, stage: StageId, found: &FoundTask) {
        let task = TaskId { job: job.clone(), stage, index: found.index };
        let attempt = AttemptId { task, attempt: found.attempt };
        let over = self.jobs.get(job).is_none_or(|job| !job.finished.is_empty());
        let Some(known) = self.believed.get_mut(&found.worker).filter(|_| !over) else { return };
        self.tally.adopted += 1;
        if found.done {
            self.succeeded.insert(attempt);
            return;
        }
        known.busy.insert(attempt.clone());
        self.wanted.insert(attempt);
    }

    fn forget_worker(&mut self, worker: &WorkerId) {
        self.lost.insert(worker.clone());
        for attempt in self.believed.remove(worker).map(|known| known.busy).unwrap_or_default() {
            self.wanted.remove(&attempt);
        }
    }

    pub(super) fn check_command(&mut self, command: &Command) -> Checked {
        match command {
            Command::Start { worker, attempt } => self.check_start(worker, attempt),
            Command::Stop { worker, attempt } => {
                let runs = self.believed.get(worker).is_some_and(|known| known.busy.contains(attempt));
                if !runs || !self.wanted.remove(attempt) {
                    return self.wrong(&format!("{attempt} is stopped and does not run on {worker}"));
                }
                Ok(())
            }
            Command::PlanStage { job, .. } | Command::Publish { job } => {
                let publish = matches!(command, Command::Publish { .. });
                let Some(known) = self.jobs.get_mut(job) else { return self.wrong("an unknown job") };
                let again = known.publishing;
                known.publishing = publish;
                if again || !known.finished.is_empty() {
                    return self.wrong("a command for a job that publishes or has ended");
                }
                Ok(())
            }
            Command::FinishJob { job, outcome } => {
                let Some(known) = self.jobs.get_mut(job) else { return self.wrong("an unknown job") };
                known.finished.push(outcome.clone());
                if known.finished.len() > 1 || self.wanted.iter().any(|attempt| attempt.task.job == *job) {
                    return self.wrong(&format!("job {job} is finished twice, or with attempts running"));
                }
                Ok(())
            }
            Command::ReleaseJob { job } => {
                let Some(known) = self.jobs.get_mut(job) else { return self.wrong("an unknown job") };
                known.released += 1;
                if known.released > 1 || known.finished.is_empty() {
                    return self.wrong(&format!("job {job} is released twice, or before its end"));
                }
                Ok(())
            }
            Command::Warn { .. } => {
                self.tally.warnings += 1;
                Ok(())
            }
        }
    }

    fn check_start(&mut self, worker: &WorkerId, attempt: &AttemptId) -> Checked {
        let task = &attempt.task;
        let job = &self.jobs[&task.job];
        if !job.finished.is_empty() || job.publishing {
            return self.wrong(&format!("{attempt} starts though its job is over"));
        }
        if !self.started.insert(attempt.clone()) {
            return self.wrong(&format!("{attempt} starts twice"));
        }
        let reads = self.inputs(task);
        self.reads.insert(attempt.clone(), reads);
        self.check_dispatch(attempt)?;
        let others: Vec<_> = self.wanted.iter().filter(|other| other.task == *task).cloned().collect();
        let Some(known) = self.believed.get_mut(worker) else {
            return self.wrong(&format!("{attempt} starts on {worker}, which is not here"));
        };
        let beside = others.iter().any(|other| known.busy.contains(other));
        known.busy.insert(attempt.clone());
        if known.draining || known.busy.len() > known.slots as usize {
            return self.wrong(&format!("{attempt} starts on {worker}, which has no slot for it"));
        }
        if others.len() > 1 || beside {
            return self.wrong(&format!("{attempt} starts beside {others:?}"));
        }
        self.wanted.insert(attempt.clone());
        Ok(())
    }

    /// A task message that is built now names all outputs of all input stages, and the same ones as at the start of the
    /// attempt.
    pub(super) fn check_dispatch(&self, attempt: &AttemptId) -> Checked {
        let task = &attempt.task;
        let reads = &self.jobs[&task.job].reads[task.stage.0 as usize];
        if reads.iter().any(|read| self.outputs_missing(task, *read)) {
            return self.wrong(&format!("{attempt} starts before its inputs exist"));
        }
        if self.scheduler.inputs_of(attempt).is_none() {
            return self.wrong(&format!("{attempt} starts and has no inputs"));
        }
        if self.reads.get(attempt) != Some(&self.inputs(task)) {
            return self.wrong(&format!("{attempt} reads other outputs than it was started on"));
        }
        Ok(())
    }

    /// The inputs that a task message would name now.
    fn inputs(&self, task: &TaskId) -> Vec<Read> {
        let reads = &self.jobs[&task.job].reads[task.stage.0 as usize];
        let outputs = reads.iter().flat_map(|&read| {
            let outputs = self.scheduler.outputs(&task.job, read);
            outputs.map(move |(index, worker, attempt)| (read, index, worker.clone(), attempt))
        });
        outputs.collect()
    }

    fn outputs_missing(&self, task: &TaskId, read: StageId) -> bool {
        let status = self.scheduler.status(&task.job);
        let tasks = status.map_or(0, |status| status.stages[read.0 as usize].tasks);
        self.scheduler.outputs(&task.job, read).count() != tasks
    }

    /// The invariants between any two steps.
    pub(super) fn check_state(&mut self) -> Checked {
        for (id, job) in &self.jobs {
            let Some(status) = self.scheduler.status(id) else { return self.wrong("a job is unknown") };
            let over = matches!(status.state, JobState::Finished { .. });
            if over == job.finished.is_empty() {
                return self.wrong(&format!("job {id}: {:?} is not what was said", status.state));
            }
            for (at, stage) in (0u32..).zip(&status.stages) {
                let published = job.publishing && !over && job.is_result(StageId(at));
                if published && self.scheduler.outputs(id, StageId(at)).count() != stage.tasks {
                    return self.wrong(&format!("job {id} is published without all of stage {at}"));
                }
                if stage.pending + stage.waiting + stage.running + stage.done != stage.tasks {
                    return self.wrong(&format!("job {id}: a task of stage {at} is lost: {stage:?}"));
                }
                let of_stage = |a: &&AttemptId| a.task.job == *id && a.task.stage == StageId(at);
                let running: BTreeSet<_> = self.wanted.iter().filter(of_stage).map(|a| &a.task).collect();
                if running.len() != stage.running {
                    return self.wrong(&format!("job {id}: stage {at} runs {running:?}, says {stage:?}"));
                }
            }
        }
        self.check_outputs()
    }

    /// Each task has at most one winner: its success was reported, and its worker has joined. Another winner requires that
    /// the first was lost and an attempt was started since.
    fn check_outputs(&mut self) -> Checked {
        let mut found = Vec::new();
        for (id, job) in &self.jobs {
            for at in 0..job.reads.len() as u32 {
                for (index, worker, attempt) in self.scheduler.outputs(id, StageId(at)) {
                    let task = TaskId { job: id.clone(), stage: StageId(at), index };
                    found.push((AttemptId { task, attempt }, worker.clone()));
                }
            }
        }
        let mut present = BTreeMap::new();
        for (winner, worker) in found {
            let before = self.winners.insert(winner.task.clone(), winner.attempt);
            if before.is_some_and(|before| before > winner.attempt) {
                return self.wrong(&format!("{winner} wins after attempt {before:?}"));
            }
            if self.present.get(&winner.task).is_some_and(|held| *held != winner.attempt) {
                return self.wrong(&format!("{winner} wins beside attempt {before:?}"));
            }
            // A job's result is not stored on workers.
            let is_result =
                self.jobs.get(&winner.task.job).is_some_and(|job| job.is_result(winner.task.stage));
            let here = is_result || self.believed.contains_key(&worker);
            if !self.succeeded.contains(&winner) || !here {
                return self.wrong(&format!("{winner} on {worker} is no output"));
            }
            if self.wanted.iter().any(|attempt| attempt.task == winner.task) {
                return self.wrong(&format!("{winner} has won and the task goes on"));
            }
            present.insert(winner.task, winner.attempt);
        }
        self.present = present;
        Ok(())
    }

    /// A second tick without another event has no effect, and no further tick is due.
    pub(super) fn tick_again(&mut self) -> Checked {
        let commands = self.scheduler.step(Millis(self.now), Event::Tick);
        let wakeup = self.scheduler.next_wakeup();
        if !commands.is_empty() || wakeup.is_some_and(|at| at.0 <= self.now) {
            return self.wrong(&format!("a second tick gives {commands:?}, the next at {wakeup:?}"));
        }
        Ok(())
    }
}
