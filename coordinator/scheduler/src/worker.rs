//! The list of workers, sorted for each query: by serving, by free slots, by silence. What their loss
//! means for tasks is decided in `membership`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tally_proto::ids::{AttemptId, JobId, WorkerId};

use crate::command::{Command, Warning};
use crate::time::Millis;

/// The number of lost workers that are remembered, so that their late events are recognised. Late events of others are
/// ignored as those of unknown workers; only a late join would be accepted.
const LOST_REMEMBERED: usize = 4096;

/// A worker that joined and is not lost.
#[derive(Debug)]
pub(crate) struct Worker {
    pub slots: u32,
    pub draining: bool,
    pub last_seen: Millis,
    /// The attempts that take its slots, including those that have been asked to stop.
    pub busy: BTreeMap<AttemptId, Slot>,
    /// The number of those that have not been asked to stop.
    wanted: usize,
    /// The sum of their weights.
    load: u128,
}

/// An attempt that takes a slot.
#[derive(Debug)]
pub(crate) struct Slot {
    weight: u64,
    since: Millis,
    stopped: bool,
}

impl Worker {
    /// Whether it takes tasks, now or after the end of an attempt. A worker whose attempts were all asked to stop and do not
    /// end may be stuck, so it does not count.
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

/// The order of workers, least loaded first: by bytes, attempts and name.
pub(crate) type Rank = (u128, usize, WorkerId);

/// All workers, and the indexes over them.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    joined: BTreeMap<WorkerId, Worker>,
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
        self.index(id, &worker);
        self.joined.insert(id.clone(), worker);
        Ok(())
    }

    /// Notes that a worker is alive.
    pub(crate) fn seen(&mut self, id: &WorkerId, now: Millis) -> Result<(), Warning> {
        self.update(id, |worker| worker.last_seen = now).ok_or_else(|| self.not_joined(id))
    }

    pub(crate) fn drain(&mut self, id: &WorkerId) -> Result<(), Warning> {
        self.update(id, |worker| worker.draining = true).ok_or_else(|| self.not_joined(id))
    }

    /// Removes a worker for good, including one whose join is still on its way.
    pub(crate) fn lose(&mut self, id: &WorkerId) -> Result<Worker, Warning> {
        let known = self.joined.contains_key(id);
        let warning = self.not_joined(id);
        if self.lost.insert(id.clone()) {
            self.lost_order.push_back(id.clone());
        }
        if self.lost_order.len() > LOST_REMEMBERED
            && let Some(oldest) = self.lost_order.pop_front()
        {
            self.lost.remove(&oldest);
        }
        if known {
            self.unindex(id);
        }
        self.joined.remove(id).ok_or(warning)
    }

    /// Takes a slot for an attempt from `since` on.
    pub(crate) fn occupy(&mut self, id: &WorkerId, attempt: AttemptId, weight: u64, since: Millis) {
        self.update(id, |worker| {
            worker.busy.insert(attempt, Slot { weight, since, stopped: false });
            worker.wanted += 1;
            worker.load += u128::from(weight);
        });
    }

    /// Notes that an attempt was asked to stop; false if it takes no slot there.
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

    /// Since when an attempt that was asked to stop takes a slot.
    pub(crate) fn stopped_since(&self, id: &WorkerId, attempt: &AttemptId) -> Option<Millis> {
        let slot = self.joined.get(id)?.busy.get(attempt)?;
        slot.stopped.then_some(slot.since)
    }

    /// Frees the attempt's slot; false if it takes none there.
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
        self.joined.get(id)
    }

    /// The workers that take new tasks, now or soon.
    pub(crate) fn serving(&self) -> &BTreeSet<WorkerId> {
        &self.serving
    }

    /// The workers with a free slot, least loaded first.
    pub(crate) fn free(&self) -> &BTreeSet<Rank> {
        &self.free
    }

    /// The number of attempts of the job that take a slot of a worker.
    pub(crate) fn attempts_on(&self, id: &WorkerId, job: &JobId) -> usize {
        let busy = self.joined.get(id).into_iter().flat_map(|worker| worker.busy.keys());
        busy.filter(|attempt| attempt.task.job == *job).count()
    }

    /// The attempts of the job that take a slot and have not been asked to stop, with their workers. The cost is
    /// proportional to the number of workers.
    pub(crate) fn attempts_of(&self, job: &JobId) -> impl Iterator<Item = (&WorkerId, &AttemptId)> {
        self.joined.iter().flat_map(move |(id, worker)| {
            let wanted = worker.busy.iter().filter(|(_, slot)| !slot.stopped);
            wanted.filter(move |(attempt, _)| attempt.task.job == *job).map(move |(attempt, _)| (id, attempt))
        })
    }

    /// Whether an attempt of the job takes a slot somewhere.
    pub(crate) fn busy_with(&self, job: &JobId) -> bool {
        self.joined.values().any(|worker| worker.busy.keys().any(|attempt| attempt.task.job == *job))
    }

    /// The worker that is silent for the longest time, and the time of its last event.
    pub(crate) fn most_silent(&self) -> Option<(Millis, &WorkerId)> {
        self.silent.first().map(|(seen, id)| (*seen, id))
    }

    /// The workers that are silent for longer than the timeout.
    pub(crate) fn timed_out(&self, now: Millis, timeout: Duration) -> Vec<WorkerId> {
        let overdue = self.silent.iter().take_while(|(seen, _)| seen.after(timeout) <= now);
        overdue.map(|(_, id)| id.clone()).collect()
    }

    /// The warning for a worker that has not joined.
    fn not_joined(&self, id: &WorkerId) -> Warning {
        let worker = id.clone();
        if self.lost.contains(id) {
            Warning::LostWorker { worker }
        } else {
            Warning::UnknownWorker { worker }
        }
    }

    /// Changes a worker and updates the indexes.
    fn update<R>(&mut self, id: &WorkerId, change: impl FnOnce(&mut Worker) -> R) -> Option<R> {
        self.unindex(id);
        let mut worker = self.joined.remove(id)?;
        let result = change(&mut worker);
        self.index(id, &worker);
        self.joined.insert(id.clone(), worker);
        Some(result)
    }

    fn index(&mut self, id: &WorkerId, worker: &Worker) {
        self.silent.insert((worker.last_seen, id.clone()));
        if worker.serving() {
            self.serving.insert(id.clone());
        }
        if worker.free_slots() > 0 {
            self.free.insert(worker.rank(id));
        }
    }

    fn unindex(&mut self, id: &WorkerId) {
        if let Some(worker) = self.joined.get(id) {
            self.silent.remove(&(worker.last_seen, id.clone()));
            self.serving.remove(id);
            self.free.remove(&worker.rank(id));
        }
    }
}

/// Tells an attempt to stop, unless its worker is lost.
pub(crate) fn stop_attempt(
    workers: &mut Workers,
    out: &mut Vec<Command>,
    worker: WorkerId,
    attempt: AttemptId,
) {
    if workers.stop(&worker, &attempt) {
        out.push(Command::Stop { worker, attempt });
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
