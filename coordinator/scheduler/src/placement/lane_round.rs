//! One round over the lanes of a stage: which of their tasks a free worker takes. It is an overlay: the lanes change when
//! the assignments are carried out.
//!
//! All tasks of lanes can run on every worker. Not here: tasks without a lane.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, btree_set};
use std::iter::Peekable;

use tally_proto::ids::WorkerId;

use crate::lanes::{LaneKey, LaneTask, Lanes, cost};

/// A task that a worker takes from a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) stage: u32,
    pub(super) index: u32,
    pub(super) weight: u64,
}

/// The lanes of a stage, and what was taken from them in this round.
#[derive(Debug)]
pub(crate) struct LaneRound<'a> {
    stage: u32,
    lanes: &'a Lanes,
    opened: BTreeMap<&'a LaneKey, Opened<'a>>,
    unclaimed: Peekable<btree_set::Iter<'a, (Reverse<u128>, LaneKey)>>,
    claimed: BTreeMap<WorkerId, Vec<&'a LaneKey>>,
    /// The lanes with a home by the cost of their tasks, which may have become less since. Filled when it is needed.
    longest: Option<BinaryHeap<(u128, &'a LaneKey)>>,
}

/// A lane from which tasks were taken.
#[derive(Debug)]
struct Opened<'a> {
    tasks: btree_set::Iter<'a, LaneTask>,
    cost: u128,
}

impl<'a> LaneRound<'a> {
    /// A round over the lanes of the stage with that number.
    pub(crate) fn new(stage: u32, lanes: &'a Lanes) -> Self {
        let unclaimed = lanes.unclaimed().peekable();
        let (opened, claimed) = (BTreeMap::new(), BTreeMap::new());
        Self { stage, lanes, opened, unclaimed, claimed, longest: None }
    }

    /// The next task of the lanes whose home is the worker.
    pub(super) fn own(&mut self, worker: &WorkerId) -> Option<Taken> {
        let lanes = self.lanes;
        let claimed = self.claimed.get(worker).cloned().unwrap_or_default();
        lanes.at(worker).chain(claimed).find_map(|key| self.take(key))
    }

    /// The first task of a lane without a home, whose home is then the worker; `None` if that task is lighter than
    /// `least`.
    pub(super) fn claim(&mut self, worker: &WorkerId, least: u64) -> Option<Taken> {
        let lanes = self.lanes;
        let heaviest = |key: &LaneKey| lanes.tasks(key).next().map_or(0, |(Reverse(weight), _)| *weight);
        let (_, key) = self.unclaimed.next_if(|(_, key)| heaviest(key) >= least)?;
        self.claimed.entry(worker.clone()).or_default().push(key);
        if let Some(longest) = &mut self.longest {
            longest.push((lanes.cost(key), key));
        }
        self.take(key)
    }

    /// The longest lane with a home, and the home.
    pub(super) fn longest(&mut self) -> Option<(&'a LaneKey, WorkerId)> {
        let lanes = self.lanes;
        let mut longest = self.longest.take().unwrap_or_else(|| {
            let all = lanes.claimed().chain(self.claimed.values().flatten().copied());
            all.map(|key| (self.cost(key), key)).collect()
        });
        let mut found = None;
        while let Some((cost, key)) = longest.pop() {
            let now = self.cost(key);
            if now > 0 {
                longest.push((now, key));
            }
            if now > 0 && now == cost {
                found = Some(key);
                break;
            }
        }
        self.longest = Some(longest);
        let key = found?;
        let claimed = || self.claimed.iter().find(|(_, keys)| keys.contains(&key)).map(|(home, _)| home);
        Some((key, lanes.home(key).or_else(claimed)?.clone()))
    }

    /// The heaviest remaining task of a lane.
    pub(super) fn take(&mut self, key: &'a LaneKey) -> Option<Taken> {
        let lanes = self.lanes;
        let opened = self
            .opened
            .entry(key)
            .or_insert_with(|| Opened { tasks: lanes.tasks(key), cost: lanes.cost(key) });
        let &(Reverse(weight), index) = opened.tasks.next()?;
        opened.cost = opened.cost.saturating_sub(cost(weight));
        Some(Taken { stage: self.stage, index, weight })
    }

    /// The cost of the remaining tasks of a lane.
    fn cost(&self, key: &LaneKey) -> u128 {
        self.opened.get(key).map_or_else(|| self.lanes.cost(key), |opened| opened.cost)
    }
}
