//! The loss of workers: what it means for their tasks and outputs, and which workers count as lost. Joining
//! changes only the list in `worker`.

use tally_proto::ids::WorkerId;

use crate::command::{JobFailure, Warning};
use crate::job::Phase;
use crate::report::Verdict;
use crate::step::Scheduler;
use crate::worker::Worker;

impl Scheduler {
    pub(crate) fn worker_lost(&mut self, id: &WorkerId) -> Result<(), Warning> {
        let worker = self.workers.lose(id)?;
        self.on_worker_lost(id, &worker);
        Ok(())
    }

    pub(crate) fn worker_draining(&mut self, id: &WorkerId) -> Result<(), Warning> {
        self.workers.seen(id, self.now)?;
        self.workers.drain(id)?;
        self.release_lanes(id);
        Ok(())
    }

    /// Gives the lanes of a worker that takes no further tasks to others.
    fn release_lanes(&mut self, id: &WorkerId) {
        let stages = self.jobs.values_mut().flat_map(|job| &mut job.stages);
        stages.for_each(|stage| stage.release_lanes(id));
    }

    /// Ends the attempts of a removed worker, which counts as a failure unless the worker was draining, and drops its
    /// outputs; `settle` runs the tasks again whose outputs are needed.
    fn on_worker_lost(&mut self, id: &WorkerId, worker: &Worker) {
        self.release_lanes(id);
        for job in self.jobs.values_mut() {
            job.stages.iter_mut().for_each(|stage| stage.drop_outputs(id));
            job.throttles.on_worker_lost(id);
        }
        for attempt in worker.busy.keys() {
            let verdict = if worker.draining { Verdict::Free } else { Verdict::LostWorker };
            self.attempt_over(attempt, verdict);
        }
    }

    /// Removes workers that are silent for too long, and fails jobs that waited too long for workers.
    pub(crate) fn time_out(&mut self) {
        let silent = self.config.worker_timeout.map(|timeout| self.workers.timed_out(self.now, timeout));
        // All are removed first, so that no task is started on one of them.
        let lost = silent.into_iter().flatten().filter_map(|id| Some((self.workers.lose(&id).ok()?, id)));
        for (worker, id) in lost.collect::<Vec<_>>() {
            self.on_worker_lost(&id, &worker);
        }
        let limit = self.config.no_workers_timeout;
        let overdue = self.jobs.iter().filter_map(|(id, job)| match job.phase {
            Phase::Running { waiting_since: Some(since) } if since.after(limit) <= self.now => {
                Some((id.clone(), self.now.since(since)))
            }
            _ => None,
        });
        for (id, waited) in overdue.collect::<Vec<_>>() {
            self.fail(&id, JobFailure::NoWorkers { waited });
        }
    }
}
