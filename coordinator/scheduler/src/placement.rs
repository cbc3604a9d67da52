//! Who runs what next: a pure function from free slots and pending tasks to assignments.
//! Solving again after the assignments were carried out gives nothing new. Whether a task may
//! start at all, and what starting means, is decided elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use tally_proto::ids::WorkerId;

use crate::worker::{Rank, Workers};

/// How many tasks of a job that no free worker should take are passed over in one round, in
/// search of one that it should. Bounds a round's cost when one worker fails all it is given;
/// the tasks passed over go to other workers, which exist (or they would not be barred here).
pub(crate) const MAX_PASSED_OVER: usize = 128;

/// A task that could start.
#[derive(Debug, Clone)]
pub(crate) struct Candidate<'a> {
    pub stage: u32,
    pub index: u32,
    pub weight: u64,
    pub preferred: Option<&'a WorkerId>,
    /// Where it failed: taken only if nobody else takes tasks at all.
    pub avoid: &'a [WorkerId],
}

/// The pending tasks of one job, the first to start first.
#[derive(Debug)]
pub(crate) struct Queue<I> {
    /// How many attempts of the job run.
    pub running: usize,
    pub candidates: I,
}

/// A candidate and its worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// The place of the job's queue.
    pub queue: usize,
    pub stage: u32,
    pub index: u32,
    pub worker: WorkerId,
}

/// A worker with a free slot.
#[derive(Debug, Clone)]
struct Free {
    slots: usize,
    load: u128,
    busy: usize,
}

/// The workers that take tasks now or soon, and what of them is free.
#[derive(Debug, Clone)]
pub(crate) struct Fleet<'a> {
    serving: &'a BTreeSet<WorkerId>,
    free: BTreeMap<WorkerId, Free>,
    by_load: BTreeSet<Rank>,
}

impl<'a> Fleet<'a> {
    pub(crate) fn of(workers: &'a Workers) -> Self {
        let by_load = workers.free().clone();
        let free = by_load.iter().filter_map(|(load, busy, id)| {
            let slots = workers.get(id)?.free_slots();
            Some((id.clone(), Free { slots, load: *load, busy: *busy }))
        });
        Self { serving: workers.serving(), free: free.collect(), by_load }
    }

    /// The preferred worker if it has a slot, else the least loaded one; never one to avoid
    /// while another exists, even a busy one: a worker that fails at once is always free, and
    /// would eat all tries.
    fn choose(&self, candidate: &Candidate<'_>) -> Option<WorkerId> {
        let avoided = |id: &WorkerId| candidate.avoid.contains(id);
        let elsewhere = self.serving.iter().any(|id| !avoided(id));
        let fits = |id: &WorkerId| !(elsewhere && avoided(id));
        if let Some(preferred) = candidate.preferred
            && self.free.contains_key(preferred)
            && fits(preferred)
        {
            return Some(preferred.clone());
        }
        self.by_load.iter().map(|(_, _, id)| id).find(|id| fits(id)).cloned()
    }

    fn take(&mut self, id: &WorkerId, weight: u64) {
        let Some(mut worker) = self.free.remove(id) else { return };
        self.by_load.remove(&(worker.load, worker.busy, id.clone()));
        worker.slots -= 1;
        worker.busy += 1;
        worker.load += u128::from(weight);
        if worker.slots > 0 {
            self.by_load.insert((worker.load, worker.busy, id.clone()));
            self.free.insert(id.clone(), worker);
        }
    }
}

/// Fills free slots: each goes to the job with the fewest running attempts (the earlier queue
/// where they are equal), there to the first task that a free worker should take.
pub(crate) fn place<'a, I>(mut fleet: Fleet<'_>, mut queues: Vec<Queue<I>>) -> Vec<Assignment>
where
    I: Iterator<Item = Candidate<'a>>,
{
    let mut placed = Vec::new();
    let mut passed_over = vec![0; queues.len()];
    let mut turns: BTreeSet<_> = queues.iter().enumerate().map(|(at, queue)| (queue.running, at)).collect();
    while !fleet.free.is_empty()
        && let Some((running, at)) = turns.pop_first()
    {
        for candidate in queues[at].candidates.by_ref() {
            if let Some(worker) = fleet.choose(&candidate) {
                fleet.take(&worker, candidate.weight);
                let Candidate { stage, index, .. } = candidate;
                placed.push(Assignment { queue: at, stage, index, worker });
                turns.insert((running + 1, at));
                break;
            }
            passed_over[at] += 1;
            if passed_over[at] == MAX_PASSED_OVER {
                break;
            }
        }
    }
    placed
}

#[cfg(test)]
mod tests;
