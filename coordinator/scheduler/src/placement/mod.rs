//! Placement: a pure function from free slots and pending tasks to assignments. Solving again after the assignments were
//! carried out gives no further ones.
//!
//! A free worker takes a task of its own lanes first, then one of a lane without a home, then one without a lane, and last
//! one of the longest lane of another worker: no slot is idle while a task could run. Not here: whether a task may start,
//! and what starting means.

mod lane_round;

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;

use tally_proto::ids::WorkerId;

use crate::throttle::Offer;
use crate::worker::{Rank, Workers};
pub(crate) use lane_round::LaneRound;
use lane_round::Taken;

/// The most tasks of a job that are skipped in one round because all free workers avoid them. It bounds the cost of a round
/// if one worker fails every task. The skipped tasks go to other workers, which exist, because a task avoids workers only
/// while others exist.
pub(crate) const MAX_PASSED_OVER: usize = 128;

/// A task without a lane that could start.
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
    /// The lanes with pending tasks.
    pub lanes: Vec<LaneRound<'a>>,
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
        self.least(throttled, fits)
    }

    /// The least loaded free worker that fits; a throttled one only if there is no other.
    fn least(
        &self,
        throttled: &BTreeMap<&WorkerId, Offer>,
        fits: impl Fn(&WorkerId) -> bool,
    ) -> Option<WorkerId> {
        let open = |id: &WorkerId| !throttled.contains_key(id);
        let offered = |id: &WorkerId| throttled.get(id).is_some_and(|offer| offer.starts > 0);
        let mut least = self.by_load.iter().map(|(_, _, id)| id).filter(|id| fits(id));
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

/// A queue during a round.
struct Turns<'a, I: Iterator> {
    candidates: Peekable<I>,
    throttled: BTreeMap<&'a WorkerId, Offer>,
    lanes: Vec<LaneRound<'a>>,
    passed_over: usize,
}

impl<'a, I: Iterator<Item = Candidate<'a>>> Turns<'a, I> {
    /// The next task of the job, and its worker.
    fn next(&mut self, fleet: &Fleet<'_>) -> Option<(Taken, WorkerId)> {
        if self.lanes.is_empty() {
            return self.without_lane(fleet);
        }
        let worker = fleet.least(&self.throttled, |_| true)?;
        if let Some(taken) = self.lanes.iter_mut().find_map(|lanes| lanes.own(&worker)) {
            return Some((taken, worker));
        }
        let next = self.candidates.peek().map_or(0, |candidate| candidate.weight);
        if let Some(taken) = self.lanes.iter_mut().find_map(|lanes| lanes.claim(&worker, next)) {
            return Some((taken, worker));
        }
        if let Some(placed) = self.without_lane(fleet) {
            return Some(placed);
        }
        if let Some(taken) = self.lanes.iter_mut().find_map(|lanes| lanes.claim(&worker, 0)) {
            return Some((taken, worker));
        }
        self.lanes.iter_mut().find_map(|lanes| {
            let (lane, home) = lanes.longest()?;
            let at_home = fleet.free.contains_key(&home) && !self.throttled.contains_key(&home);
            Some((lanes.take(lane)?, if at_home { home } else { worker.clone() }))
        })
    }

    /// The first task without a lane that a free worker may take.
    fn without_lane(&mut self, fleet: &Fleet<'_>) -> Option<(Taken, WorkerId)> {
        while self.passed_over < MAX_PASSED_OVER
            && let Some(candidate) = self.candidates.next()
        {
            if let Some(worker) = fleet.choose(&candidate, &self.throttled) {
                let Candidate { stage, index, weight, .. } = candidate;
                return Some((Taken { stage, index, weight }, worker));
            }
            self.passed_over += 1;
        }
        None
    }
}

/// Fills free slots. Each goes to the job with the fewest running attempts (the earlier queue if they are equal), and there
/// to the first task that a free worker may take.
pub(crate) fn place<'a, I>(mut fleet: Fleet<'_>, queues: Vec<Queue<'a, I>>) -> Vec<Assignment>
where
    I: Iterator<Item = Candidate<'a>>,
{
    let mut placed = Vec::new();
    let mut turns: BTreeSet<_> = queues.iter().enumerate().map(|(at, queue)| (queue.running, at)).collect();
    let begin = |queue: Queue<'a, I>| {
        let Queue { candidates, throttled, lanes, .. } = queue;
        Turns { candidates: candidates.peekable(), throttled, lanes, passed_over: 0 }
    };
    let mut queues: Vec<_> = queues.into_iter().map(begin).collect();
    while !fleet.free.is_empty()
        && let Some((running, at)) = turns.pop_first()
    {
        let queue = &mut queues[at];
        if !fleet.has_offer(&queue.throttled) {
            continue;
        }
        if let Some((Taken { stage, index, weight }, worker)) = queue.next(&fleet) {
            fleet.take(&worker, weight);
            if let Some(offer) = queue.throttled.get_mut(&worker) {
                offer.starts -= 1;
            }
            placed.push(Assignment { queue: at, stage, index, worker });
            turns.insert((running + 1, at));
        }
    }
    placed
}

#[cfg(test)]
mod tests;
