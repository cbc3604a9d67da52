//! What the loss of a worker means for the tasks that ran there and the outputs that it held,
//! and who counts as lost. Joining and draining change nothing but the list in `worker`.

use tally_proto::ids::WorkerId;

use crate::command::{JobFailure, Warning};
use crate::job::Phase;
use crate::report::Verdict;
use crate::step::Scheduler;
use crate::worker::Worker;

impl Scheduler {
    pub(crate) fn worker_lost(&mut self, id: &WorkerId) -> Result<(), Warning> {
        let worker = self.workers.lose(id)?;
        self.bereave(id, &worker);
        Ok(())
    }

    /// What a worker that was taken out leaves behind: its attempts go back, with a strike
    /// unless it was draining; its outputs are gone, and `settle` runs those again that are
    /// needed.
    fn bereave(&mut self, id: &WorkerId, worker: &Worker) {
        for job in self.jobs.values_mut() {
            job.stages.iter_mut().for_each(|stage| stage.drop_outputs(id));
        }
        for attempt in worker.busy.keys() {
            let verdict = if worker.draining { Verdict::Free } else { Verdict::LostWorker };
            self.attempt_over(attempt, verdict);
        }
    }

    /// Gives up on workers that fell silent, and on jobs that waited too long for any.
    pub(crate) fn time_out(&mut self) {
        let silent = self.config.worker_timeout.map(|timeout| self.workers.timed_out(self.now, timeout));
        // All are taken out before anything follows, so that nothing is ordered from one of them.
        let lost = silent.into_iter().flatten().filter_map(|id| Some((self.workers.lose(&id).ok()?, id)));
        for (worker, id) in lost.collect::<Vec<_>>() {
            self.bereave(&id, &worker);
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
