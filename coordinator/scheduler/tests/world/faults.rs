//! What goes wrong at workers: they die, their attempts end in every way, their reports are
//! lost, their outputs move. Which of it happens when is chosen by the actions.

use tally_proto::failure::Failure;
use tally_proto::ids::{TaskId, WorkerId};
use tally_scheduler::Event;

use super::{World, choose, speaker};

impl World {
    /// The worker dies, with what it runs.
    pub(super) fn fall(&mut self, at: usize) -> WorkerId {
        self.workers[at].well = false;
        self.workers[at].running.clear();
        self.workers[at].id.clone()
    }

    /// Some attempt ends, in the way that the number says; the report is on its way.
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
            27..=28 => Err(Failure::Cancelled),
            29..=30 => Err(Failure::FetchLost {
                worker: self.workers[at].id.clone(),
                task: TaskId { index: u32::from(how), ..attempt.task.clone() },
                reason: "nonsense".into(),
            }),
            _ => Err(Failure::Fatal { reason: "bad input".into() }),
        };
        self.mail.push(Event::AttemptEnded { worker: self.workers[at].id.clone(), attempt, outcome });
    }

    /// The failure to read one of the task's inputs where it is now.
    fn lost_input(&mut self, task: &TaskId) -> Failure {
        let reads = self.jobs[&task.job].reads[task.stage.0 as usize].clone();
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
        // The driver's own answers and the word of a worker's death come from within.
        let Some(worker) = speaker(&self.mail[at]).cloned() else { return };
        self.mail.remove(at);
        if let Some(at) = self.workers.iter().position(|known| known.id == worker) {
            self.fall(at);
        }
    }

    /// Some outputs go from one worker to another; the report is on its way.
    pub(super) fn hand_over(&mut self, n: u8, to: u8) {
        let Some(from) = choose(self.workers.len(), n).map(|at| self.workers[at].id.clone()) else { return };
        let Some(to) = choose(self.workers.len(), to).map(|at| self.workers[at].id.clone()) else { return };
        for attempt in self.scheduler.outputs_needed_from(&from).into_iter().take(2) {
            let TaskId { job, stage, index } = attempt.task;
            self.mail.push(Event::OutputMoved { job, stage, index, from: from.clone(), to: to.clone() });
        }
    }
}
