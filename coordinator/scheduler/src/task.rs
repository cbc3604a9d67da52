//! One task: its states, its running attempts and its record of failures. Which states follow
//! which is decided elsewhere; changing one goes through `stage`, which keeps the queues.

use tally_proto::ids::WorkerId;

use crate::event::TaskPlan;
use crate::time::Millis;

/// A running try at a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub number: u32,
    pub worker: WorkerId,
    pub started: Millis,
    /// The step that started it.
    pub step: u64,
    /// The version of its stage's inputs that it was started on; `None` for one that an earlier
    /// coordinator started.
    pub inputs: Option<u64>,
}

/// The output of a done task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Output {
    /// Who holds it.
    pub worker: WorkerId,
    /// The attempt that made it.
    pub attempt: u32,
    /// The step in which it was made.
    pub step: u64,
    /// The last step in which it was handed over; that in which it was made, if it never was.
    pub moved: u64,
}

/// The one or two attempts of a task that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Running {
    pub first: Attempt,
    pub second: Option<Attempt>,
}

impl Running {
    /// Takes the attempt of that number out: it, and the other one.
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

/// Where a task stands. Always exactly one of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TaskState {
    /// Starts when its stage's inputs are complete and there is a slot.
    Ready,
    /// Failed; becomes ready at that time.
    Backoff { until: Millis },
    /// Runs.
    Running(Running),
    /// Has an output.
    Done(Output),
    /// Was done and nobody needed its output when the holder was lost. Becomes ready if
    /// somebody does later.
    Gone,
}

impl TaskState {
    /// The state of a task with just this attempt.
    pub(crate) fn alone(attempt: Attempt) -> Self {
        Self::Running(Running { first: attempt, second: None })
    }
}

/// Refusals of a task one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The first.
    pub since: Millis,
    /// How many.
    pub times: u32,
}

/// One unit of work of a stage.
#[derive(Debug)]
pub(crate) struct Task {
    pub weight: u64,
    pub preferred: Option<WorkerId>,
    /// Where it failed, or its output could not be read from: other workers come first.
    pub avoid: Vec<WorkerId>,
    pub strikes: u32,
    /// Ends without a strike that count towards `Config::max_excused`.
    pub excused: u32,
    /// How often its output could not be read.
    pub losses: u32,
    /// Since workers began to refuse it, without one that took it.
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
            avoid: Vec::new(),
            strikes: 0,
            excused: 0,
            losses: 0,
            refusal: None,
            next_attempt: first_attempt,
            state: TaskState::Ready,
        }
    }

    pub(crate) fn state(&self) -> &TaskState {
        &self.state
    }

    /// For `Stage::set` alone, which keeps the queues in step.
    pub(crate) fn replace_state(&mut self, state: TaskState) {
        self.state = state;
    }

    /// Notes that a worker had no room for it.
    pub(crate) fn refused(&mut self, worker: &WorkerId, now: Millis) -> Option<Refusal> {
        self.avoid(worker);
        let refusal = self.refusal.get_or_insert(Refusal { since: now, times: 0 });
        refusal.times = refusal.times.saturating_add(1);
        Some(*refusal)
    }

    /// Notes that a worker took it.
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
