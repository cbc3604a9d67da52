//! Workers in other processes: which are attached, by which stream, and what was dispatched to each.
//!
//! The driver's loop owns this state; connections reach it through the driver's inbox. Not here: what the loss of a
//! worker means (`tally-scheduler`), the messages on the wire (`service::control`).

mod as_fleet;
mod hello;
mod member;
mod message;
mod stream_watch;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tally_proto::{JobId, WorkerId, v1};
use v1::coordinator_message::Message;

pub use hello::{Hello, HelloError};
pub use member::{Member, Removal, SendError};
pub use message::{
    AttachError, Attached, Inventory, LastBeat, Outbound, Outgoing, WorkerInput, WorkerUpdate,
};
pub use stream_watch::{STALL, StreamInput, StreamWatch};

/// Messages that may wait for a worker, in addition to one task per slot. A worker for which more messages wait does not
/// read them and counts as lost.
pub const OUTBOX: usize = 256;
/// Lost workers that are remembered.
const REMEMBERED: usize = 4096;

/// The attached workers, and those that detached a moment ago.
pub struct RemoteFleet {
    epoch: u64,
    members: BTreeMap<WorkerId, Member>,
    generations: u64,
    lost: BTreeSet<WorkerId>,
    lost_order: VecDeque<WorkerId>,
}

impl RemoteFleet {
    /// An empty fleet, led in this epoch.
    pub fn new(epoch: u64) -> Self {
        RemoteFleet {
            epoch,
            members: BTreeMap::new(),
            generations: 0,
            lost: BTreeSet::new(),
            lost_order: VecDeque::new(),
        }
    }

    /// Accepts a worker. Its earlier stream, if there is one, is closed. The worker is overdue at `deadline`, unless its
    /// channel is open by then.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn attach(&mut self, hello: Hello, deadline: Duration) -> Result<Attached, AttachError> {
        if hello.epoch > self.epoch {
            return Err(AttachError::NewerEpoch(hello.epoch));
        }
        if self.lost.contains(&hello.worker) {
            return Err(AttachError::Removed(hello.worker));
        }
        self.generations += 1;
        let generation = self.generations;
        match self.members.get_mut(&hello.worker) {
            Some(member) if !member.same_incarnation(&hello) => {
                return Err(AttachError::DuplicateId(hello.worker));
            }
            Some(member) => member.attach_again(hello, generation, deadline),
            None => {
                self.members.insert(hello.worker.clone(), Member::new(hello, generation, deadline));
            }
        }
        Ok(Attached { generation, epoch: self.epoch })
    }

    /// Opens the channel to a worker once its inventory is complete. False if the stream is not its latest.
    pub fn open(&mut self, worker: &WorkerId, generation: u64, channel: Outgoing) -> bool {
        match self.current(worker, generation) {
            Some(member) => {
                member.open(channel);
                true
            }
            None => false,
        }
    }

    /// The member, if that stream is its latest.
    pub fn current(&mut self, worker: &WorkerId, generation: u64) -> Option<&mut Member> {
        self.members.get_mut(worker).filter(|member| member.generation == generation)
    }

    /// Closes a worker's channel, if that stream is its latest. The worker is overdue at `deadline`, unless it attaches by
    /// then.
    pub fn cut(&mut self, worker: &WorkerId, generation: u64, deadline: Duration) {
        if let Some(member) = self.current(worker, generation) {
            member.cut(deadline);
        }
    }

    /// The workers that are overdue; `grace` is the time that a worker has whose channel was closed without a report.
    pub fn overdue(&mut self, now: Duration, grace: Duration) -> Vec<WorkerId> {
        let mut overdue = vec![];
        for (id, member) in &mut self.members {
            if member.hung_up() {
                member.cut(now.saturating_add(grace));
            }
            if member.deadline.is_some_and(|deadline| deadline <= now) {
                overdue.push(id.clone());
            }
        }
        overdue
    }

    /// Moves all deadlines: this process did not run for that long.
    pub fn postpone(&mut self, late: Duration) {
        let deadlines = self.members.values_mut().filter_map(|member| member.deadline.as_mut());
        deadlines.for_each(|deadline| *deadline = deadline.saturating_add(late));
    }

    /// A member.
    pub fn member(&mut self, worker: &WorkerId) -> Option<&mut Member> {
        self.members.get_mut(worker)
    }

    /// All members, in the order of their ids.
    pub fn members(&self) -> &BTreeMap<WorkerId, Member> {
        &self.members
    }

    /// All members, to note what they sent.
    pub fn members_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.members.values_mut()
    }

    /// Removes a worker for good: it may attach only under another id.
    pub fn give_up(&mut self, worker: &WorkerId) -> bool {
        if self.lost.insert(worker.clone()) {
            self.lost_order.push_back(worker.clone());
        }
        if self.lost_order.len() > REMEMBERED
            && let Some(oldest) = self.lost_order.pop_front()
        {
            self.lost.remove(&oldest);
        }
        self.members.remove(worker).is_some()
    }

    /// Tells a worker to drop these jobs, and those of which it was told on a stream that broke.
    pub fn release_on(&mut self, worker: &WorkerId, jobs: impl IntoIterator<Item = JobId>) {
        let Some(member) = self.members.get_mut(worker) else { return };
        jobs.into_iter().for_each(|job| member.release(self.epoch, job));
        member.send_releases(self.epoch);
    }

    /// Tells workers to drop jobs for which there was no room on their streams.
    pub fn send_releases(&mut self) {
        self.members.values_mut().for_each(|member| member.send_releases(self.epoch));
    }

    /// Sends a message to a worker.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn send(&mut self, worker: &WorkerId, message: Message) -> Result<(), SendError> {
        let epoch = self.epoch;
        let member = self.members.get_mut(worker).ok_or_else(|| SendError::Unknown(worker.clone()))?;
        member.send(Outbound::Message(Box::new(v1::CoordinatorMessage { epoch, message: Some(message) })))
    }
}

#[cfg(test)]
mod tests;
