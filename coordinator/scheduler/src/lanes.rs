//! Lanes: the ready tasks of a stage that belong on one worker, because of what they read or because of who will read
//! what they write. A lane has a home once a worker has started one of its tasks, or from the beginning if its tasks
//! prefer a worker.
//!
//! Not here: which task a free worker takes (`placement`).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, btree_set};

use tally_proto::ids::WorkerId;

/// What the tasks of a lane have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LaneKey {
    /// Their affinity.
    Affinity(u32),
    /// Their preferred worker.
    Worker(WorkerId),
}

/// A ready task of a lane, the heaviest first.
pub(crate) type LaneTask = (Reverse<u64>, u32);

#[derive(Debug, Default)]
struct Lane {
    ready: BTreeSet<LaneTask>,
    /// The cost of its ready tasks.
    cost: u128,
    home: Option<WorkerId>,
}

/// The lanes of a stage.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    lanes: BTreeMap<LaneKey, Lane>,
    /// The lanes with ready tasks and a home, by home.
    homes: BTreeMap<WorkerId, BTreeSet<LaneKey>>,
    /// The lanes with ready tasks and without a home, the most expensive first.
    unclaimed: BTreeSet<(Reverse<u128>, LaneKey)>,
    ready: usize,
}

/// A task's part of the cost of its lane. Tasks without weight count, too.
pub(crate) fn cost(weight: u64) -> u128 {
    u128::from(weight) + 1
}

impl Lanes {
    /// Adds a ready task to its lane, or removes it.
    pub(crate) fn file(&mut self, key: LaneKey, task: LaneTask, present: bool) {
        self.update(key, |lane, ready| {
            let changed = if present { lane.ready.insert(task) } else { lane.ready.remove(&task) };
            match (changed, present) {
                (false, _) => {}
                (true, true) => (lane.cost, *ready) = (lane.cost + cost(task.0.0), *ready + 1),
                (true, false) => (lane.cost, *ready) = (lane.cost - cost(task.0.0), *ready - 1),
            }
        });
    }

    /// A worker starts a task of a lane: it is the home of the lane, unless there is one.
    pub(crate) fn claim(&mut self, key: LaneKey, worker: &WorkerId) {
        self.update(key, |lane, _| {
            lane.home.get_or_insert_with(|| worker.clone());
        });
    }

    /// A worker takes no further tasks: its lanes have no home.
    pub(crate) fn release(&mut self, worker: &WorkerId) {
        let homed = self.lanes.iter().filter(|(_, lane)| lane.home.as_ref() == Some(worker));
        for key in homed.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.update(key, |lane, _| lane.home = None);
        }
    }

    /// The number of ready tasks.
    pub(crate) fn ready(&self) -> usize {
        self.ready
    }

    /// The ready tasks of a lane.
    pub(crate) fn tasks(&self, key: &LaneKey) -> btree_set::Iter<'_, LaneTask> {
        const NONE: &BTreeSet<LaneTask> = &BTreeSet::new();
        self.lanes.get(key).map_or(NONE, |lane| &lane.ready).iter()
    }

    /// The cost of the ready tasks of a lane.
    pub(crate) fn cost(&self, key: &LaneKey) -> u128 {
        self.lanes.get(key).map_or(0, |lane| lane.cost)
    }

    /// The home of a lane.
    pub(crate) fn home(&self, key: &LaneKey) -> Option<&WorkerId> {
        self.lanes.get(key)?.home.as_ref()
    }

    /// The lanes with ready tasks whose home is that worker.
    pub(crate) fn at(&self, worker: &WorkerId) -> impl Iterator<Item = &LaneKey> {
        self.homes.get(worker).into_iter().flatten()
    }

    /// The lanes with ready tasks and a home.
    pub(crate) fn claimed(&self) -> impl Iterator<Item = &LaneKey> {
        self.homes.values().flatten()
    }

    /// The lanes with ready tasks and without a home, the most expensive first.
    pub(crate) fn unclaimed(&self) -> btree_set::Iter<'_, (Reverse<u128>, LaneKey)> {
        self.unclaimed.iter()
    }

    /// Changes a lane, which is created if there is none, and the number of ready tasks, and updates the indexes.
    fn update(&mut self, key: LaneKey, change: impl FnOnce(&mut Lane, &mut usize)) {
        let mut lane = self.lanes.remove(&key).unwrap_or_else(|| match &key {
            LaneKey::Affinity(_) => Lane::default(),
            LaneKey::Worker(worker) => Lane { home: Some(worker.clone()), ..Lane::default() },
        });
        self.index(&key, &lane, false);
        change(&mut lane, &mut self.ready);
        self.index(&key, &lane, true);
        self.lanes.insert(key, lane);
    }

    fn index(&mut self, key: &LaneKey, lane: &Lane, present: bool) {
        if lane.ready.is_empty() {
            return;
        }
        match &lane.home {
            None => {
                let entry = (Reverse(lane.cost), key.clone());
                if present {
                    self.unclaimed.insert(entry)
                } else {
                    self.unclaimed.remove(&entry)
                };
            }
            Some(home) => {
                let lanes = self.homes.entry(home.clone()).or_default();
                if present {
                    lanes.insert(key.clone())
                } else {
                    lanes.remove(key)
                };
                if lanes.is_empty() {
                    self.homes.remove(home);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_listed_once_and_only_while_it_has_ready_tasks() {
        let (w, v) = (WorkerId::parse("w").unwrap(), WorkerId::parse("v").unwrap());
        let mut lanes = Lanes::default();
        let a = || LaneKey::Affinity(7);
        let task = (Reverse(5), 0);
        let state = |lanes: &Lanes| {
            let listed = [lanes.unclaimed().count(), lanes.at(&w).count(), lanes.at(&v).count()];
            (listed, lanes.ready(), lanes.cost(&a()))
        };
        lanes.file(a(), task, true);
        lanes.file(a(), task, true);
        assert_eq!(state(&lanes), ([1, 0, 0], 1, 6));
        lanes.claim(a(), &w);
        lanes.claim(a(), &v);
        assert_eq!(state(&lanes), ([0, 1, 0], 1, 6));
        lanes.file(a(), task, false);
        assert_eq!((state(&lanes), lanes.home(&a())), (([0, 0, 0], 0, 0), Some(&w)));
        lanes.file(a(), task, true);
        assert_eq!(state(&lanes), ([0, 1, 0], 1, 6));
        lanes.release(&w);
        assert_eq!((state(&lanes), lanes.claimed().count()), (([1, 0, 0], 1, 6), 0));
        lanes.file(LaneKey::Worker(v.clone()), (Reverse(0), 1), true);
        assert_eq!(state(&lanes), ([1, 0, 1], 2, 6));
    }
}
