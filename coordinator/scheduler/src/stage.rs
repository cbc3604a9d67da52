//! One stage: its tasks, and the queues and counters over them. Every change of a task's state goes through
//! [`Stage::set`], so the queues always match the tasks, and no step has to iterate over all tasks.
//!
//! Not here: why a state changes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tally_proto::ids::{StageId, WorkerId};

use crate::config::Speculation;
use crate::event::TaskPlan;
use crate::lanes::Lanes;
use crate::median::Median;
use crate::status::{StagePhase, StageStatus};
use crate::task::{Output, Running, Task, TaskState};
use crate::time::Millis;

/// A stage of a job.
#[derive(Debug)]
pub(crate) struct Stage {
    /// Earlier stages, by index.
    pub reads: Vec<usize>,
    /// Later stages, by index.
    pub readers: Vec<usize>,
    pub phase: StagePhase,
    pub failed_attempts: u64,
    pub reruns: u64,
    pub speculative_attempts: u64,
    /// The durations of the winning attempts, in milliseconds.
    pub durations: Median,
    /// The time of the last success.
    pub won: Option<Millis>,
    /// The number of changes of outputs: made, lost or migrated.
    pub version: u64,
    tasks: Vec<Task>,
    queues: Queues,
}

/// The tasks by state.
#[derive(Debug, Default)]
struct Queues {
    /// Ready tasks without a lane: those that were refused least often first, and of these the heaviest.
    ready: BTreeSet<(u32, Reverse<u64>, u32)>,
    /// The other ready tasks.
    lanes: Lanes,
    backoff: BTreeSet<(Millis, u32)>,
    running: usize,
    /// Tasks that run with a single attempt, longest first.
    alone: BTreeSet<(Millis, u32)>,
    /// Done tasks by the worker that holds the output.
    held: BTreeMap<WorkerId, BTreeSet<u32>>,
    done: usize,
    lost: BTreeSet<u32>,
}

fn toggle<T: Ord>(set: &mut BTreeSet<T>, item: T, present: bool) {
    if present {
        set.insert(item);
    } else {
        set.remove(&item);
    }
}

fn count(counter: &mut usize, present: bool) {
    *counter = if present { *counter + 1 } else { *counter - 1 };
}

impl Queues {
    /// Adds the task to the queue of its state, or removes it.
    fn file(&mut self, index: u32, task: &Task, present: bool) {
        match task.state() {
            TaskState::Ready => match task.lane() {
                Some(lane) => self.lanes.file(lane, (Reverse(task.weight), index), present),
                None => toggle(&mut self.ready, (task.refusals(), Reverse(task.weight), index), present),
            },
            TaskState::Backoff { until } => toggle(&mut self.backoff, (*until, index), present),
            TaskState::Running(running) => {
                count(&mut self.running, present);
                if running.second.is_none() {
                    toggle(&mut self.alone, (running.first.started, index), present);
                }
            }
            TaskState::Done(output) => {
                count(&mut self.done, present);
                let held = self.held.entry(output.worker.clone()).or_default();
                toggle(held, index, present);
                if held.is_empty() {
                    self.held.remove(&output.worker);
                }
            }
            TaskState::OutputLost => toggle(&mut self.lost, index, present),
        }
    }
}

impl Stage {
    pub(crate) fn new(reads: &[StageId]) -> Self {
        Self {
            reads: reads.iter().map(|stage| stage.0 as usize).collect(),
            readers: Vec::new(),
            phase: StagePhase::Waiting,
            failed_attempts: 0,
            reruns: 0,
            speculative_attempts: 0,
            durations: Median::default(),
            won: None,
            version: 0,
            tasks: Vec::new(),
            queues: Queues::default(),
        }
    }

    /// Sets the tasks of the stage.
    pub(crate) fn plan(&mut self, plans: Vec<TaskPlan>, first_attempt: u32) {
        self.phase = StagePhase::Planned;
        self.tasks = plans.into_iter().map(|plan| Task::new(plan, first_attempt)).collect();
        for (index, task) in (0u32..).zip(&self.tasks) {
            self.queues.file(index, task, true);
        }
    }

    /// The task of that number, if the stage has one.
    pub(crate) fn task(&self, index: u32) -> Option<&Task> {
        self.tasks.get(index as usize)
    }

    /// The task of that number, to change anything but its state.
    pub(crate) fn task_mut(&mut self, index: u32) -> Option<&mut Task> {
        self.tasks.get_mut(index as usize)
    }

    /// Changes the state of a task, if it exists.
    pub(crate) fn set(&mut self, index: u32, state: TaskState) {
        if let Some(task) = self.tasks.get_mut(index as usize) {
            self.queues.file(index, task, false);
            if [task.state(), &state].iter().any(|state| matches!(state, TaskState::Done(_))) {
                self.version += 1;
            }
            task.replace_state(state);
            self.queues.file(index, task, true);
        }
    }

    /// Whether all tasks are done, including those whose outputs were lost and not needed.
    pub(crate) fn complete(&self) -> bool {
        self.phase == StagePhase::Planned && self.queues.done + self.queues.lost.len() == self.tasks.len()
    }

    /// The tasks without a lane that are ready, heaviest first. Tasks that were refused come last, so that a worker with room for others
    /// is not offered the same task again and again.
    pub(crate) fn ready(&self) -> impl Iterator<Item = (u32, &Task)> {
        self.queues.ready.iter().map(|(_, _, index)| (*index, &self.tasks[*index as usize]))
    }

    /// The lanes, with all other tasks that are ready.
    pub(crate) fn lanes(&self) -> &Lanes {
        &self.queues.lanes
    }

    /// A worker starts or has a task: it becomes the home of the task's lane, unless there is one.
    pub(crate) fn claim_lane(&mut self, index: u32, worker: &WorkerId) {
        if let Some(lane) = self.task(index).and_then(Task::lane) {
            self.queues.lanes.claim(lane, worker);
        }
    }

    /// A worker takes no further tasks.
    pub(crate) fn release_lanes(&mut self, worker: &WorkerId) {
        self.queues.lanes.release(worker);
    }

    pub(crate) fn has_ready(&self) -> bool {
        self.ready_tasks() > 0
    }

    /// The number of tasks that are ready.
    fn ready_tasks(&self) -> usize {
        self.queues.ready.len() + self.queues.lanes.ready()
    }

    /// The number of tasks that are ready, or will be after the pause before their retry.
    pub(crate) fn idle(&self) -> usize {
        self.ready_tasks() + self.queues.backoff.len()
    }

    /// Makes the tasks ready whose pause is over.
    pub(crate) fn end_backoffs(&mut self, now: Millis) {
        while let Some((until, index)) = self.queues.backoff.first().copied()
            && until <= now
        {
            self.set(index, TaskState::Ready);
        }
    }

    pub(crate) fn next_backoff(&self) -> Option<Millis> {
        self.queues.backoff.first().map(|(until, _)| *until)
    }

    /// The number of running attempts.
    pub(crate) fn attempts(&self) -> usize {
        2 * self.queues.running - self.queues.alone.len()
    }

    /// Makes all running tasks ready. It iterates over all tasks, so it is only for the end of a job, or of a stage that is
    /// no longer open.
    pub(crate) fn take_running(&mut self) -> Vec<(u32, Running)> {
        let running = (0u32..).zip(&self.tasks).filter_map(|(index, task)| match task.state() {
            TaskState::Running(running) => Some((index, running.clone())),
            _ => None,
        });
        let running: Vec<_> = running.collect();
        for (index, _) in &running {
            self.set(*index, TaskState::Ready);
        }
        running
    }

    /// The outputs that exist, by index.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = (u32, &Output)> {
        (0u32..).zip(&self.tasks).filter_map(|(index, task)| match task.state() {
            TaskState::Done(output) => Some((index, output)),
            _ => None,
        })
    }

    /// The output of a task, if it exists.
    pub(crate) fn output(&self, index: u32) -> Option<&Output> {
        match self.task(index)?.state() {
            TaskState::Done(output) => Some(output),
            _ => None,
        }
    }

    /// The tasks whose output that worker holds.
    pub(crate) fn held(&self, worker: &WorkerId) -> impl Iterator<Item = u32> {
        self.queues.held.get(worker).into_iter().flatten().copied()
    }

    /// Marks the outputs of a worker as lost. Outputs that no stage reads are the job's result, which is not stored on
    /// workers.
    pub(crate) fn drop_outputs(&mut self, worker: &WorkerId) {
        if self.readers.is_empty() {
            return;
        }
        for index in self.held(worker).collect::<Vec<_>>() {
            self.set(index, TaskState::OutputLost);
        }
    }

    /// Makes all tasks ready whose output that worker holds, because it cannot be read.
    pub(crate) fn rerun_held(&mut self, worker: &WorkerId) {
        for index in self.held(worker).collect::<Vec<_>>() {
            if let Some(task) = self.task_mut(index) {
                task.avoid(worker);
            }
            self.set(index, TaskState::Ready);
            self.reruns += 1;
        }
    }

    /// Makes the tasks ready whose output is lost.
    pub(crate) fn rerun_lost(&mut self) {
        for index in self.queues.lost.clone() {
            self.set(index, TaskState::Ready);
            self.reruns += 1;
        }
    }

    /// The running time after which an attempt is slow; `None` while too few tasks are done.
    pub(crate) fn slow_after(&self, rule: &Speculation) -> Option<Duration> {
        if (self.queues.done as f64) < rule.quantile * self.tasks.len() as f64 {
            return None;
        }
        let median = self.durations.get()? as f64;
        Some(Duration::from_millis((median * rule.multiplier) as u64).max(rule.minimum))
    }

    /// The tasks with a single attempt that started at `from` or later, with their start, in its order.
    pub(crate) fn alone(&self, from: Millis) -> impl Iterator<Item = (Millis, u32)> {
        self.queues.alone.range((from, 0)..).copied()
    }

    pub(crate) fn status(&self) -> StageStatus {
        StageStatus {
            phase: self.phase,
            tasks: self.tasks.len(),
            pending: self.ready_tasks(),
            waiting: self.queues.backoff.len(),
            running: self.queues.running,
            done: self.queues.done + self.queues.lost.len(),
            failed_attempts: self.failed_attempts,
            reruns: self.reruns,
            speculative_attempts: self.speculative_attempts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Attempt;

    fn attempt(number: u32, started: u64) -> Attempt {
        let worker = WorkerId::parse("w").unwrap();
        Attempt { number, worker, started: Millis(started), step: 0, inputs: Some(0) }
    }

    #[test]
    fn every_state_is_counted_once_and_only_while_it_lasts() {
        let worker = WorkerId::parse("w").unwrap();
        let mut stage = Stage::new(&[]);
        stage.plan(vec![TaskPlan { weight: 1, preferred: None, affinity: None }], 0);
        let second = Running { first: attempt(0, 5), second: Some(attempt(1, 6)) };
        let output = Output { worker: worker.clone(), attempt: 0, step: 0, moved: 0 };
        let states = [
            (TaskState::Ready, [1, 0, 0, 0], 0, 0),
            (TaskState::Backoff { until: Millis(3) }, [0, 1, 0, 0], 0, 0),
            (TaskState::alone(attempt(0, 5)), [0, 0, 1, 0], 1, 0),
            (TaskState::Running(second), [0, 0, 1, 0], 2, 0),
            (TaskState::Done(output), [0, 0, 0, 1], 0, 1),
            (TaskState::OutputLost, [0, 0, 0, 1], 0, 0),
        ];
        for (state, counts, attempts, held) in states.iter().chain(states.iter().rev()) {
            stage.set(0, state.clone());
            let status = stage.status();
            let got = [status.pending, status.waiting, status.running, status.done];
            assert_eq!(got, *counts, "{state:?}");
            assert_eq!((stage.attempts(), stage.held(&worker).count()), (*attempts, *held), "{state:?}");
        }
    }

    #[test]
    fn the_heaviest_task_is_ready_first_and_ties_go_by_index() {
        let mut stage = Stage::new(&[]);
        stage.plan([3, 9, 3, 7].map(|weight| TaskPlan { weight, preferred: None, affinity: None }).into(), 0);
        let order: Vec<_> = stage.ready().map(|(index, _)| index).collect();
        assert_eq!(order, [1, 3, 0, 2]);
    }
}
