//! Speculative attempts for stragglers: which attempts are slow, and when the next one will be. Which result counts is
//! decided in `report`.

use tally_proto::ids::{JobId, StageId, TaskId, WorkerId};

use crate::config::Speculation;
use crate::placement::MAX_PASSED_OVER;
use crate::stage::Stage;
use crate::step::Scheduler;
use crate::task::{Task, TaskState};
use crate::time::Millis;

impl Scheduler {
    /// Starts speculative attempts on slots that no pending task could take, in each stage for the longest running tasks
    /// first.
    pub(crate) fn speculate(&mut self) {
        let Some(rule) = self.config.speculation else { return };
        if self.workers.free().is_empty() {
            return;
        }
        for task in self.slow_tasks(&rule) {
            if let Some(worker) = self.speculative_worker(&task) {
                if let Some(stage) = self.jobs.get_mut(&task.job).and_then(|job| job.stage_mut(task.stage)) {
                    stage.speculative_attempts += 1;
                }
                self.start(task, worker);
            }
        }
    }

    /// The tasks whose only attempt is slow, up to a limit per stage.
    fn slow_tasks(&self, rule: &Speculation) -> Vec<TaskId> {
        let mut slow = Vec::new();
        for (id, at, stage) in self.complete_inputs() {
            let Some(limit) = stage.slow_after(rule) else { continue };
            let overdue = stage.alone(Millis(0)).take_while(|(started, _)| started.after(limit) <= self.now);
            slow.extend(overdue.take(MAX_PASSED_OVER).map(|(_, index)| TaskId {
                job: id.clone(),
                stage: StageId(at),
                index,
            }));
        }
        slow
    }

    /// The open stages whose inputs all exist, because a speculative attempt reads them, too.
    fn complete_inputs(&self) -> impl Iterator<Item = (&JobId, u32, &Stage)> {
        self.jobs.iter().flat_map(|(id, job)| {
            let open = job.open();
            let stages = (0u32..).zip(&job.stages);
            let able = move |at: u32| open[at as usize] && job.inputs_exist(at as usize);
            stages.filter(move |(at, _)| able(*at)).map(move |(at, stage)| (id, at, stage))
        })
    }

    /// The least loaded free worker that does not run the task, did not fail it, and has room for the job.
    fn speculative_worker(&self, id: &TaskId) -> Option<WorkerId> {
        let job = self.jobs.get(&id.job)?;
        let task = job.stage(id.stage)?.task(id.index)?;
        let mut free = self.workers.free().iter().map(|(_, _, worker)| worker);
        let fits = |worker: &WorkerId| !task.avoid.contains(worker) && !job.throttles.contains(worker);
        free.find(|worker| !runs_on(task, worker) && fits(worker)).cloned()
    }

    /// When the next attempt becomes slow, while a slot is free for a speculative attempt.
    pub(crate) fn next_slow(&self) -> Option<Millis> {
        let rule = self.config.speculation.as_ref()?;
        if self.workers.free().is_empty() {
            return None;
        }
        let next = self.complete_inputs().filter_map(|(_, _, stage)| {
            let limit = stage.slow_after(rule)?;
            // The last step considered the attempts that are slow already: only an event can give them a worker. So the
            // next change is the first attempt after them.
            let from = Millis((self.now.0.saturating_add(1)).saturating_sub(Millis(0).after(limit).0));
            stage.alone(from).next().map(|(started, _)| started.after(limit))
        });
        next.min()
    }
}

fn runs_on(task: &Task, worker: &WorkerId) -> bool {
    match task.state() {
        TaskState::Running(running) => running.attempts().any(|attempt| attempt.worker == *worker),
        _ => false,
    }
}
