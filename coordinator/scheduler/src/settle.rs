//! The end of every step: what follows from the state after an event. Due retries, reruns for lost outputs, stages to
//! plan, jobs to publish, free slots, jobs that wait for workers; and the next time at which a tick changes something.

use tally_proto::ids::{AttemptId, JobId, StageId, TaskId, WorkerId};

use crate::command::Command;
use crate::job::{Job, Phase};
use crate::placement::{Candidate, Fleet, LaneRound, Queue, place};
use crate::status::StagePhase;
use crate::step::Scheduler;
use crate::task::{Attempt, Running, TaskState};
use crate::time::Millis;
use crate::worker::stop_attempt;

impl Scheduler {
    pub(crate) fn settle(&mut self) {
        for (id, job) in &mut self.jobs {
            job.stages.iter_mut().for_each(|stage| stage.end_backoffs(self.now));
            job.rerun_needed();
            for (worker, attempt) in job.withdraw(id) {
                stop_attempt(&mut self.workers, &mut self.out, worker, attempt);
            }
            advance(id, job, &mut self.out);
        }
        self.fill_slots();
        self.speculate();
        let no_workers = self.workers.serving().is_empty();
        for job in self.jobs.values_mut() {
            let waits = no_workers && job.needs_workers();
            if let Phase::Running { waiting_since } = &mut job.phase {
                *waiting_since = waits.then(|| waiting_since.unwrap_or(self.now));
            }
        }
    }

    fn fill_slots(&mut self) {
        if self.workers.free().is_empty() {
            return;
        }
        let mut jobs: Vec<_> = self.jobs.iter().filter(|(_, job)| job.startable().next().is_some()).collect();
        jobs.sort_unstable_by_key(|(_, job)| job.order);
        let queues = jobs.iter().map(|(id, job)| Queue {
            running: job.attempts(),
            candidates: candidates(job),
            throttled: job.throttles.offers(self.now, |worker| self.workers.attempts_on(worker, id)),
            lanes: lanes(job),
        });
        let placed = place(Fleet::of(&self.workers), queues.collect());
        let owners: Vec<JobId> = jobs.iter().map(|(id, _)| (*id).clone()).collect();
        for assignment in placed {
            let (stage, index) = (StageId(assignment.stage), assignment.index);
            let task = TaskId { job: owners[assignment.queue].clone(), stage, index };
            self.start(task, assignment.worker);
        }
    }

    /// Starts an attempt: the first of a ready task, or the speculative one of a running task.
    pub(crate) fn start(&mut self, id: TaskId, worker: WorkerId) {
        let Some(job) = self.jobs.get_mut(&id.job).filter(|job| job.stage(id.stage).is_some()) else {
            return;
        };
        let inputs = Some(job.inputs_version(id.stage.0 as usize));
        let running = self.workers.attempts_on(&worker, &id.job);
        let Some(stage) = job.stage_mut(id.stage) else { return };
        let Some(task) = stage.task_mut(id.index) else { return };
        let attempt = Attempt {
            number: task.next_attempt,
            worker: worker.clone(),
            started: self.now,
            step: self.steps,
            inputs,
        };
        task.next_attempt += 1;
        let (weight, number) = (task.weight, attempt.number);
        let state = match task.state() {
            TaskState::Running(Running { first, .. }) => {
                TaskState::Running(Running { first: first.clone(), second: Some(attempt) })
            }
            _ => {
                stage.claim_lane(id.index, &worker);
                TaskState::alone(attempt)
            }
        };
        stage.set(id.index, state);
        let attempt = AttemptId { task: id, attempt: number };
        job.throttles.started(&worker, &attempt, running);
        self.workers.occupy(&worker, attempt.clone(), weight, self.now);
        self.out.push(Command::Start { worker, attempt });
    }

    /// The next time at which a [`crate::Event::Tick`] changes something without another event; it may be in the past.
    /// `None`: no tick is needed before the next event.
    pub fn next_wakeup(&self) -> Option<Millis> {
        let silence = self.config.worker_timeout.zip(self.workers.most_silent());
        let silence = silence.map(|(timeout, (seen, _))| seen.after(timeout));
        let jobs = self.jobs.values().flat_map(|job| {
            let waiting = match job.phase {
                Phase::Running { waiting_since } => waiting_since,
                Phase::Publishing => None,
            };
            let gives_up = waiting.map(|since| since.after(self.config.no_workers_timeout));
            let probe = job.startable().next().and_then(|_| job.throttles.next_probe(self.now));
            job.stages.iter().filter_map(|stage| stage.next_backoff()).chain(gives_up).chain(probe)
        });
        jobs.chain(silence).chain(self.next_slow()).min()
    }
}

/// Commands the planning of stages whose inputs are complete, and the publish after the last stage.
fn advance(id: &JobId, job: &mut Job, out: &mut Vec<Command>) {
    let open = job.open();
    if let Phase::Running { .. } = job.phase
        && !open.contains(&true)
    {
        job.phase = Phase::Publishing;
        out.push(Command::Publish { job: id.clone() });
        return;
    }
    for (stage, _) in (0u32..).zip(open).filter(|(_, open)| *open) {
        let index = stage as usize;
        if job.stages[index].phase == StagePhase::Waiting && job.inputs_exist(index) {
            job.stages[index].phase = StagePhase::Planning;
            out.push(Command::PlanStage { job: id.clone(), stage: StageId(stage) });
        }
    }
}

fn candidates(job: &Job) -> impl Iterator<Item = Candidate<'_>> {
    job.startable().flat_map(|(stage, state)| {
        state.ready().map(move |(index, task)| Candidate {
            stage,
            index,
            weight: task.weight,
            preferred: task.preferred.as_ref(),
            avoid: &task.avoid,
        })
    })
}

fn lanes(job: &Job) -> Vec<LaneRound<'_>> {
    let stages = job.startable().filter(|(_, state)| state.lanes().ready() > 0);
    stages.map(|(stage, state)| LaneRound::new(stage, state.lanes())).collect()
}
