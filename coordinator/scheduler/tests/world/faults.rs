//! The faults of workers: they die, their attempts end in all ways, their reports are lost, their outputs are migrated.
//! The actions choose which fault happens when.

use tally_proto::failure::Failure;
use tally_proto::ids::{AttemptId, JobId, StageId, TaskId, WorkerId};
use tally_scheduler::{Event, FoundTask, JobShape, Scheduler, StageShape};

use super::{Checked, SimJob, SimWorker, World, choose, reporter};

impl World {
    /// The worker dies, with what it runs.
    pub(super) fn fall(&mut self, at: usize) -> WorkerId {
        self.workers[at].well = false;
        self.workers[at].running.clear();
        self.workers[at].held.clear();
        self.workers[at].id.clone()
    }

    /// An attempt ends, in the way that the number chooses; the report is on its way.
    pub(super) fn end_one(&mut self, n: u8, how: u8) {
        let running = self.workers.iter().enumerate();
        let running = running.flat_map(|(at, worker)| worker.running.iter().map(move |a| (at, a.clone())));
        let running: Vec<_> = running.collect();
        let Some((at, attempt)) = choose(running.len(), n).map(|at| running[at].clone()) else { return };
        self.workers[at].running.remove(&attempt);
        let outcome = match how % 32 {
            0..=19 => Ok(()),
            20..=23 => Err(Failure::Retryable { reason: "i/o".into() }),
            24..=26 => Err(self.lost_input(&attempt.task)),
            27 => Err(Failure::Cancelled),
            28 => Err(Failure::Refused { reason: "no room".into() }),
            29..=30 => Err(Failure::FetchLost {
                worker: self.workers[at].id.clone(),
                task: TaskId { index: u32::from(how), ..attempt.task.clone() },
                reason: "nonsense".into(),
            }),
            _ => Err(Failure::Fatal { reason: "bad input".into() }),
        };
        if outcome.is_ok() {
            self.workers[at].held.insert(attempt.clone());
        }
        self.mail.push(Event::AttemptEnded { worker: self.workers[at].id.clone(), attempt, outcome });
    }

    /// The failure to read one of the task's inputs where it is now.
    fn lost_input(&mut self, task: &TaskId) -> Failure {
        // An attempt of a job that ended before the coordinator changed may still run.
        let reads = self.jobs.get(&task.job).map(|job| job.reads[task.stage.0 as usize].clone());
        let reads = reads.unwrap_or_default();
        let inputs = reads.into_iter().flat_map(|stage| {
            let outputs = self.scheduler.outputs(&task.job, stage);
            outputs.map(move |(index, worker, _)| {
                (worker.clone(), TaskId { job: task.job.clone(), stage, index })
            })
        });
        let inputs: Vec<_> = inputs.collect();
        match self.roll(64) as usize {
            _ if inputs.is_empty() => Failure::Retryable { reason: "nothing to lose".into() },
            roll => {
                let (worker, task) = inputs[roll % inputs.len()].clone();
                Failure::FetchLost { worker, task, reason: "connection refused".into() }
            }
        }
    }

    /// A report is lost for good, and its worker with it.
    pub(super) fn lose(&mut self, n: u8) {
        let Some(at) = choose(self.mail.len(), n) else { return };
        // Only reports of workers are lost, not the driver's own events.
        let Some(worker) = reporter(&self.mail[at]).cloned() else { return };
        self.mail.remove(at);
        if let Some(at) = self.workers.iter().position(|known| known.id == worker) {
            self.fall(at);
        }
    }

    /// A task message does not arrive, although its worker is well.
    pub(super) fn miss(&mut self, n: u8) {
        let running = self.workers.iter().flat_map(|worker| {
            let id = worker.id.clone();
            worker.running.iter().map(move |attempt| (id.clone(), attempt.clone()))
        });
        let running: Vec<_> = running.collect();
        let Some(at) = choose(running.len(), n) else { return };
        let (id, attempt) = running[at].clone();
        for worker in self.workers.iter_mut().filter(|worker| worker.id == id) {
            worker.running.remove(&attempt);
        }
        self.log.push(format!("{} the task message of {attempt} does not arrive at {id}", self.now));
        self.missed.push((id, attempt));
    }

    /// The worker of such a message attaches again, or is lost. The message is sent again only if its inputs are unchanged;
    /// otherwise the attempt is returned.
    pub(super) fn dispatch_again(&mut self, n: u8) -> Checked {
        let Some(at) = choose(self.missed.len(), n) else { return Ok(()) };
        let (worker, attempt) = self.missed.remove(at);
        if self.scheduler.inputs_of(&attempt).is_none() {
            self.tally.given_back += 1;
            return self.tell(Event::NotStarted { worker, attempt });
        }
        self.check_dispatch(&attempt)?;
        self.tally.resent += 1;
        if let Some(worker) = self.workers.iter_mut().find(|known| known.id == worker && known.well) {
            worker.running.insert(attempt);
        }
        Ok(())
    }

    /// Outputs are migrated from one worker to another; the report is on its way.
    pub(super) fn migrate(&mut self, n: u8, to: u8) {
        let Some(from) = choose(self.workers.len(), n).map(|at| self.workers[at].id.clone()) else { return };
        let Some(to) = choose(self.workers.len(), to).map(|at| self.workers[at].id.clone()) else { return };
        for attempt in self.scheduler.outputs_needed_from(&from).into_iter().take(2) {
            if let Some(to) = self.workers.iter_mut().find(|worker| worker.id == to && worker.well) {
                to.held.insert(attempt.clone());
            }
            let TaskId { job, stage, index } = attempt.task;
            self.mail.push(Event::OutputMigrated { job, stage, index, from: from.clone(), to: to.clone() });
        }
    }

    /// The tasks of a stage that healthy workers have.
    pub(super) fn inventory(&self, job: &JobId, stage: StageId) -> Vec<FoundTask> {
        let mut found = Vec::new();
        for worker in self.workers.iter().filter(|worker| worker.well) {
            let of_stage = |a: &&AttemptId| a.task.job == *job && a.task.stage == stage;
            let entry = |attempt: &AttemptId, done| FoundTask {
                index: attempt.task.index,
                attempt: attempt.attempt,
                worker: worker.id.clone(),
                done,
            };
            found.extend(worker.running.iter().filter(of_stage).map(|attempt| entry(attempt, false)));
            found.extend(worker.held.iter().filter(of_stage).map(|attempt| entry(attempt, true)));
        }
        found
    }

    /// The coordinator dies, with its state and all reports on their way. The next one reads the journal (jobs, plans), and
    /// the healthy workers attach to it.
    pub(super) fn restart(&mut self) -> Checked {
        self.tally.restarts += 1;
        self.epoch += 1;
        self.log.push(format!("{} epoch {}", self.now, self.epoch));
        self.scheduler = Scheduler::new(super::config(self.epoch << 12)).expect("valid options");
        self.mail.clear();
        self.missed.clear();
        self.reads.clear();
        self.believed.clear();
        self.lost.clear();
        self.wanted.clear();
        self.winners.clear();
        self.present.clear();
        self.past.append(&mut self.jobs);
        let live = self.past.extract_if(.., |_, job| job.finished.is_empty());
        let live: Vec<_> = live.collect();
        for at in 0..self.workers.len() {
            let SimWorker { id, well, slots, .. } = &self.workers[at];
            if *well {
                self.tell(Event::WorkerJoined { worker: id.clone(), slots: *slots, draining: false })?;
            }
        }
        for (job, known) in live {
            let stages: Vec<_> =
                known.reads.iter().map(|reads| StageShape { reads: reads.clone() }).collect();
            let SimJob { reads, plans, .. } = known;
            self.jobs.insert(job.clone(), SimJob { reads, plans, ..SimJob::default() });
            let shape = JobShape::new(stages).expect("a shape");
            self.tell(Event::JobSubmitted { job, shape })?;
        }
        Ok(())
    }
}
