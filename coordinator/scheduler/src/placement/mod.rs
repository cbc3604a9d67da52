//! Placement: a pure function from free slots and pending tasks to assignments. Solving again after the assignments were
//! carried out gives no further ones.
//!
//! Not here: whether a task may start, and what starting means.

use std::collections::{BTreeMap, BTreeSet};

use tally_proto::ids::WorkerId;

use crate::throttle::Offer;
use crate::worker::{Rank, Workers};

/// The most tasks of a job that are skipped in one round because all free workers avoid them. It bounds the cost of a round
/// if one worker fails every task. The skipped tasks go to other workers, which exist, because a task avoids workers only
/// while others exist.
pub(crate) const MAX_PASSED_OVER: usize = 128;

/// A task that could start.
#[derive(Debug, Clone)]
pub(crate) struct Candidate<'a> {
    pub stage: u32,
    pub index: u32,
    pub weight: u64,
    pub preferred: Option<&'a WorkerId>,
    /// Workers on which it failed. They are chosen only if no other worker takes tasks.
    pub avoid: &'a [WorkerId],
}

/// The pending tasks of one job, the first to start first.
#[derive(Debug)]
pub(crate) struct Queue<'a, I> {
    /// The number of running attempts of the job.
    pub running: usize,
    pub candidates: I,
    /// The workers that refuse the job's tasks. They are chosen only if no other worker is free.
    pub throttled: BTreeMap<&'a WorkerId, Offer>,
}

/// A candidate and its worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// The index of the job's queue.
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

/// The workers that take tasks now or soon, and their free slots.
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

    /// The preferred worker if it has a free slot, otherwise the least loaded one; a throttled worker only if no other is
    /// free. An avoided worker is never chosen while another one has room, even if that one is busy: a worker on which every
    /// task fails at once is always free, and would use up all attempts.
    fn choose(&self, candidate: &Candidate<'_>, throttled: &BTreeMap<&WorkerId, Offer>) -> Option<WorkerId> {
        let avoided = |id: &WorkerId| candidate.avoid.contains(id);
        let has_room = |id: &WorkerId| throttled.get(id).is_none_or(|offer| offer.has_room);
        let elsewhere =
            !candidate.avoid.is_empty() && self.serving.iter().any(|id| !avoided(id) && has_room(id));
        let fits = |id: &WorkerId| !(elsewhere && avoided(id));
        let open = |id: &WorkerId| fits(id) && !throttled.contains_key(id);
        if let Some(preferred) = candidate.preferred
            && self.free.contains_key(preferred)
            && open(preferred)
        {
            return Some(preferred.clone());
        }
        let offered = |id: &WorkerId| fits(id) && throttled.get(id).is_some_and(|offer| offer.starts > 0);
        let mut least = self.by_load.iter().map(|(_, _, id)| id);
        least.clone().find(|id| open(id)).or_else(|| least.find(|id| offered(id))).cloned()
    }

    /// Whether a job may use a free slot.
    fn has_offer(&self, throttled: &BTreeMap<&WorkerId, Offer>) -> bool {
        let mut free = self.free.keys();
        free.any(|id| throttled.get(id).is_none_or(|offer| offer.starts > 0))
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

/// Fills free slots. Each goes to the job with the fewest running attempts (the earlier queue if they are equal), and there
/// to the first task that a free worker may take.
pub(crate) fn place<'a, I>(mut fleet: Fleet<'_>, mut queues: Vec<Queue<'_, I>>) -> Vec<Assignment>
where
    I: Iterator<Item = Candidate<'a>>,
{
    let mut placed = Vec::new();
    let mut passed_over = vec![0; queues.len()];
    let mut turns: BTreeSet<_> = queues.iter().enumerate().map(|(at, queue)| (queue.running, at)).collect();
    while !fleet.free.is_empty()
        && let Some((running, at)) = turns.pop_first()
    {
        let Queue { candidates, throttled, .. } = &mut queues[at];
        if !fleet.has_offer(throttled) {
            continue;
        }
        for candidate in candidates {
            if let Some(worker) = fleet.choose(&candidate, throttled) {
                fleet.take(&worker, candidate.weight);
                if let Some(offer) = throttled.get_mut(&worker) {
                    offer.starts -= 1;
                }
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
