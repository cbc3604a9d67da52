//! The outputs of a job that count: the winning attempt of each task, and references to its output in task messages.
//!
//! Not here: what the attempts reported (`results`), and which workers hold most of a task's inputs (`holders`).

use std::collections::HashMap;

use tally_proto::{AttemptId, JobId, StageId, TaskId, WorkerId, v1};
use tally_scheduler::Scheduler;

/// The winning attempt of a task, and the worker that holds its output.
#[derive(Debug, Clone)]
pub struct Winner {
    /// The attempt.
    pub attempt: AttemptId,
    /// The worker that holds its output.
    pub worker: WorkerId,
}

/// The current outputs of a stage, in the order of its tasks.
pub fn winners(scheduler: &Scheduler, job: &JobId, stage: u32) -> Vec<Winner> {
    let outputs = scheduler.outputs(job, StageId(stage));
    outputs
        .map(|(index, worker, attempt)| {
            let task = TaskId { job: job.clone(), stage: StageId(stage), index };
            Winner { attempt: AttemptId { task, attempt }, worker: worker.clone() }
        })
        .collect()
}

/// The locations of a task's inputs. Each worker is listed once, however many outputs it holds.
#[derive(Default)]
pub struct OutputLocations {
    list: Vec<v1::Location>,
    indices: HashMap<WorkerId, u32>,
}

impl OutputLocations {
    /// A reference to a winner's output for a task message; `address` gives the address of a worker.
    pub fn reference(&mut self, winner: &Winner, address: impl Fn(&WorkerId) -> String) -> v1::OutputRef {
        let location = *self.indices.entry(winner.worker.clone()).or_insert_with(|| {
            let worker = winner.worker.to_string();
            self.list.push(v1::Location { worker, address: address(&winner.worker) });
            self.list.len() as u32 - 1
        });
        let AttemptId { task, attempt } = &winner.attempt;
        v1::OutputRef { location, stage: task.stage.0, index: task.index, attempt: *attempt }
    }

    /// The list of workers for the task message.
    pub fn into_list(self) -> Vec<v1::Location> {
        self.list
    }
}
