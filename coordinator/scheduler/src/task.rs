//! One task: its state, its running attempts and its failures. States are changed through `stage`, which keeps the queues.
//!
//! Not here: which state follows which.

use tally_proto::ids::WorkerId;

use crate::event::TaskPlan;
use crate::lanes::LaneKey;
use crate::time::Millis;

/// A running attempt of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub number: u32,
    pub worker: WorkerId,
    pub started: Millis,
    /// The step that started it.
    pub step: u64,
    /// The version of its inputs at its start; `None` if an earlier coordinator started it.
    pub inputs: Option<u64>,
}

/// The output of a done task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Output {
    /// The worker that holds it.
    pub worker: WorkerId,
    /// The attempt that made it.
    pub attempt: u32,
    /// The step in which it was made.
    pub step: u64,
    /// The step of its last migration, or in which it was made if it was never migrated.
    pub moved: u64,
}

/// The attempts of a running task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Running {
    pub first: Attempt,
    pub second: Option<Attempt>,
}

impl Running {
    /// The attempt of that number, and the other one.
    pub(crate) fn split(&self, number: u32) -> Option<(Attempt, Option<Attempt>)> {
        match &self.second {
            _ if self.first.number == number => Some((self.first.clone(), self.second.clone())),
            Some(second) if second.number == number => Some((second.clone(), Some(self.first.clone()))),
            _ => None,
        }
    }

    pub(crate) fn attempts(&self) -> impl Iterator<Item = &Attempt> {
        std::iter::once(&self.first).chain(&self.second)
    }
}

/// The state of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TaskState {
    /// Waits for its inputs and a slot.
    Ready,
    /// Failed, and becomes ready at that time.
    Backoff { until: Millis },
    /// Runs.
    Running(Running),
    /// Has an output.
    Done(Output),
    /// Was done, and its output was lost with its worker. Becomes ready if the output is needed.
    OutputLost,
}

impl TaskState {
    /// The state of a task with just this attempt.
    pub(crate) fn alone(attempt: Attempt) -> Self {
        Self::Running(Running { first: attempt, second: None })
    }
}

/// Successive refusals of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The time of the first one since a task of the stage was done.
    pub since: Millis,
    /// Their number since then.
    pub times: u32,
    /// Their total number.
    pub in_a_row: u32,
}

/// One unit of work of a stage.
#[derive(Debug)]
pub(crate) struct Task {
    pub weight: u64,
    pub preferred: Option<WorkerId>,
    affinity: Option<u32>,
    /// Workers on which it failed, or from which its output could not be read. Other workers are preferred.
    pub avoid: Vec<WorkerId>,
    pub failures: u32,
    /// Ends that are not failures and count towards `Config::max_excused`.
    pub excused: u32,
    /// The number of times that its output could not be read.
    pub losses: u32,
    /// The refusals since a worker accepted it.
    refusal: Option<Refusal>,
    /// The number of the next attempt.
    pub next_attempt: u32,
    state: TaskState,
}

impl Task {
    pub(crate) fn new(plan: TaskPlan, first_attempt: u32) -> Self {
        Self {
            weight: plan.weight,
            preferred: plan.preferred,
            affinity: plan.affinity,
            avoid: Vec::new(),
            failures: 0,
            excused: 0,
            losses: 0,
            refusal: None,
            next_attempt: first_attempt,
            state: TaskState::Ready,
        }
    }

    /// The lane that it belongs to. None after it avoids a worker: then it starts as soon as any other worker has room. Like
    /// the workers that it avoids, it does not change while the task is ready.
    pub(crate) fn lane(&self) -> Option<LaneKey> {
        if !self.avoid.is_empty() {
            return None;
        }
        let preferred = self.preferred.clone().map(LaneKey::Worker);
        preferred.or_else(|| self.affinity.map(LaneKey::Affinity))
    }

    /// The number of refusals since a worker accepted it. It changes only while the task runs, because the queue of ready
    /// tasks is ordered by it.
    pub(crate) fn refusals(&self) -> u32 {
        self.refusal.map_or(0, |refusal| refusal.in_a_row)
    }

    pub(crate) fn state(&self) -> &TaskState {
        &self.state
    }

    /// Only for `Stage::set`, which updates the queues.
    pub(crate) fn replace_state(&mut self, state: TaskState) {
        self.state = state;
    }

    /// Notes that a worker had no room for it; `won` is the time of the stage's last success. While tasks of the stage
    /// succeed, room becomes free.
    pub(crate) fn refused(&mut self, worker: &WorkerId, now: Millis, won: Option<Millis>) -> Refusal {
        self.avoid(worker);
        let refusal = self.refusal.get_or_insert(Refusal { since: now, times: 0, in_a_row: 0 });
        if won.is_some_and(|won| won >= refusal.since) {
            (refusal.since, refusal.times) = (now, 0);
        }
        refusal.times = refusal.times.saturating_add(1);
        refusal.in_a_row = refusal.in_a_row.saturating_add(1);
        *refusal
    }

    /// Notes that a worker accepted it.
    pub(crate) fn begun(&mut self) -> Option<Refusal> {
        self.refusal = None;
        None
    }

    pub(crate) fn avoid(&mut self, worker: &WorkerId) {
        if !self.avoid.contains(worker) {
            self.avoid.push(worker.clone());
        }
    }
}
