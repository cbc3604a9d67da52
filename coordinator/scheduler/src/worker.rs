//! The workers: who is here, who takes tasks, who has a free slot, who was silent for longest.
//! What their loss means for tasks is decided in `membership`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tally_proto::ids::{AttemptId, JobId, WorkerId};

use crate::command::Warning;
use crate::time::Millis;

/// How many lost workers are remembered, to know their late words. What an older one says is
/// ignored as from an unknown worker; only its join would be believed.
const LOST_REMEMBERED: usize = 4096;

/// A worker that is here.
#[derive(Debug)]
pub(crate) struct Worker {
    pub slots: u32,
    pub draining: bool,
    pub last_seen: Millis,
    /// What takes its slots: also attempts that were told to stop.
    pub busy: BTreeMap<AttemptId, Slot>,
    /// How many of them were not told to stop.
    wanted: usize,
    /// The sum of their weights.
    load: u128,
}

/// What takes a slot.
#[derive(Debug)]
pub(crate) struct Slot {
    weight: u64,
    stopped: bool,
}

impl Worker {
    /// Whether it takes tasks, now or when one of its own ends. One that has nothing but
    /// attempts that were told to stop and do not end may be stuck: nobody should wait for it.
    fn serving(&self) -> bool {
        self.free_slots() > 0 || (!self.draining && self.wanted > 0)
    }

    pub(crate) fn free_slots(&self) -> usize {
        if self.draining { 0 } else { (self.slots as usize).saturating_sub(self.busy.len()) }
    }

    fn rank(&self, id: &WorkerId) -> Rank {
        (self.load, self.busy.len(), id.clone())
    }
}

/// Least loaded first: bytes, then attempts, then the name.
pub(crate) type Rank = (u128, usize, WorkerId);

/// All workers, and the orders in which they are asked for.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    here: BTreeMap<WorkerId, Worker>,
    serving: BTreeSet<WorkerId>,
    free: BTreeSet<Rank>,
    silent: BTreeSet<(Millis, WorkerId)>,
    lost: BTreeSet<WorkerId>,
    lost_order: VecDeque<WorkerId>,
}

impl Workers {
    pub(crate) fn join(
        &mut self,
        id: &WorkerId,
        slots: u32,
        draining: bool,
        now: Millis,
    ) -> Result<(), Warning> {
        if self.lost.contains(id) {
            return Err(Warning::LostWorker { worker: id.clone() });
        }
        if self.update(id, |worker| worker.last_seen = now).is_some() {
            return Err(Warning::KnownWorker { worker: id.clone() });
        }
        let busy = BTreeMap::new();
        let worker = Worker { slots, draining, last_seen: now, busy, wanted: 0, load: 0 };
        self.enter(id, &worker);
        self.here.insert(id.clone(), worker);
        Ok(())
    }

    /// Notes a sign of life.
    pub(crate) fn seen(&mut self, id: &WorkerId, now: Millis) -> Result<(), Warning> {
        self.update(id, |worker| worker.last_seen = now).ok_or_else(|| self.stranger(id))
    }

    pub(crate) fn drain(&mut self, id: &WorkerId) -> Result<(), Warning> {
        self.update(id, |worker| worker.draining = true).ok_or_else(|| self.stranger(id))
    }

    /// Takes a worker out for ever, also one whose join is still on its way.
    pub(crate) fn lose(&mut self, id: &WorkerId) -> Result<Worker, Warning> {
        let known = self.here.contains_key(id);
        let warning = self.stranger(id);
        if self.lost.insert(id.clone()) {
            self.lost_order.push_back(id.clone());
        }
        if self.lost_order.len() > LOST_REMEMBERED
            && let Some(oldest) = self.lost_order.pop_front()
        {
            self.lost.remove(&oldest);
        }
        if known {
            self.leave(id);
        }
        self.here.remove(id).ok_or(warning)
    }

    /// Takes a slot for an attempt.
    pub(crate) fn occupy(&mut self, id: &WorkerId, attempt: AttemptId, weight: u64) {
        self.update(id, |worker| {
            worker.busy.insert(attempt, Slot { weight, stopped: false });
            worker.wanted += 1;
            worker.load += u128::from(weight);
        });
    }

    /// Notes that an attempt was told to stop; false where it has no slot there.
    pub(crate) fn stop(&mut self, id: &WorkerId, attempt: &AttemptId) -> bool {
        let stop = |worker: &mut Worker| {
            let Some(slot) = worker.busy.get_mut(attempt) else { return false };
            if !slot.stopped {
                worker.wanted -= 1;
            }
            slot.stopped = true;
            true
        };
        self.update(id, stop).unwrap_or(false)
    }

    /// Frees the attempt's slot; false where it has none there.
    pub(crate) fn release(&mut self, id: &WorkerId, attempt: &AttemptId) -> bool {
        let release = |worker: &mut Worker| {
            let Some(slot) = worker.busy.remove(attempt) else { return false };
            if !slot.stopped {
                worker.wanted -= 1;
            }
            worker.load -= u128::from(slot.weight);
            true
        };
        self.update(id, release).unwrap_or(false)
    }

    pub(crate) fn get(&self, id: &WorkerId) -> Option<&Worker> {
        self.here.get(id)
    }

    /// The workers that take new tasks, now or soon.
    pub(crate) fn serving(&self) -> &BTreeSet<WorkerId> {
        &self.serving
    }

    /// The workers with a free slot, least loaded first.
    pub(crate) fn free(&self) -> &BTreeSet<Rank> {
        &self.free
    }

    /// Whether an attempt of the job takes a slot somewhere.
    pub(crate) fn busy_with(&self, job: &JobId) -> bool {
        self.here.values().any(|worker| worker.busy.keys().any(|attempt| attempt.task.job == *job))
    }

    /// The worker that was silent for longest, and since when.
    pub(crate) fn most_silent(&self) -> Option<(Millis, &WorkerId)> {
        self.silent.first().map(|(seen, id)| (*seen, id))
    }

    /// The workers that were silent for the time-out.
    pub(crate) fn timed_out(&self, now: Millis, timeout: Duration) -> Vec<WorkerId> {
        let overdue = self.silent.iter().take_while(|(seen, _)| seen.after(timeout) <= now);
        overdue.map(|(_, id)| id.clone()).collect()
    }

    /// Why a worker that is not here is not.
    fn stranger(&self, id: &WorkerId) -> Warning {
        let worker = id.clone();
        if self.lost.contains(id) {
            Warning::LostWorker { worker }
        } else {
            Warning::UnknownWorker { worker }
        }
    }

    /// Changes a worker and keeps the orders.
    fn update<R>(&mut self, id: &WorkerId, change: impl FnOnce(&mut Worker) -> R) -> Option<R> {
        self.leave(id);
        let mut worker = self.here.remove(id)?;
        let result = change(&mut worker);
        self.enter(id, &worker);
        self.here.insert(id.clone(), worker);
        Some(result)
    }

    fn enter(&mut self, id: &WorkerId, worker: &Worker) {
        self.silent.insert((worker.last_seen, id.clone()));
        if worker.serving() {
            self.serving.insert(id.clone());
        }
        if worker.free_slots() > 0 {
            self.free.insert(worker.rank(id));
        }
    }

    fn leave(&mut self, id: &WorkerId) {
        if let Some(worker) = self.here.get(id) {
            self.silent.remove(&(worker.last_seen, id.clone()));
            self.serving.remove(id);
            self.free.remove(&worker.rank(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_lost_workers_is_bounded() {
        let mut workers = Workers::default();
        let id = |n: usize| WorkerId::parse(&format!("w{n}")).unwrap();
        for n in 0..LOST_REMEMBERED + 10 {
            assert_eq!(workers.lose(&id(n)).unwrap_err(), Warning::UnknownWorker { worker: id(n) });
        }
        assert_eq!((workers.lost.len(), workers.lost_order.len()), (LOST_REMEMBERED, LOST_REMEMBERED));
        assert_eq!(
            workers.join(&id(10), 1, false, Millis(0)),
            Err(Warning::LostWorker { worker: id(10) }),
            "a join that comes after the loss"
        );
        assert_eq!(workers.join(&id(9), 1, false, Millis(0)), Ok(()));
    }
}
