//! Workers in other processes: who is attached, by which stream, and what each was ordered.
//!
//! Owned by the driver's loop; connections reach it through the driver's inbox. `connection`
//! is one worker's stream. Not here: what a worker's loss means (`tally-scheduler`), what is
//! said over the wire (`service::control`).

mod member;
mod message;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tally_proto::{AttemptId, JobId, WorkerId, v1};
use v1::coordinator_message::Message;

use crate::fleet::{Capacity, Fleet, Order};
pub use member::{Hello, HelloError, Member};
pub use message::{Attached, Inventory, Outbound, Outgoing, Refused, Said, WorkerInput};

/// Messages that may wait for a worker, beside one order a slot. More means that it does not
/// read: it counts as lost.
pub const OUTBOX: usize = 256;
/// Workers given up that are remembered.
const REMEMBERED: usize = 4096;
/// What a fleet without workers is planned for: some will come.
const EXPECTED_SLOTS: usize = 16;
/// Table bytes that the smallest worker has.
const LEAST_TABLE_BYTES: u64 = 24 << 20;

/// The attached workers, and those that just broke off.
pub struct RemoteFleet {
    epoch: u64,
    members: BTreeMap<WorkerId, Member>,
    generations: u64,
    given_up: BTreeSet<WorkerId>,
    given_up_order: VecDeque<WorkerId>,
}

impl RemoteFleet {
    /// A fleet of nobody, led in this epoch.
    pub fn new(epoch: u64) -> Self {
        RemoteFleet {
            epoch,
            members: BTreeMap::new(),
            generations: 0,
            given_up: BTreeSet::new(),
            given_up_order: VecDeque::new(),
        }
    }

    /// Lets a worker in, or says why not. What it was attached by before is cut.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn attach(&mut self, hello: Hello) -> Result<Attached, Refused> {
        if hello.epoch > self.epoch {
            return Err(Refused::NewerEpoch(hello.epoch));
        }
        if self.given_up.contains(&hello.worker) {
            return Err(Refused::GivenUp(hello.worker));
        }
        self.generations += 1;
        let generation = self.generations;
        match self.members.get_mut(&hello.worker) {
            Some(member) if !member.same_life(&hello) => return Err(Refused::Twin(hello.worker)),
            Some(member) => member.cut(generation),
            None => {
                self.members.insert(hello.worker.clone(), Member::new(hello, generation));
            }
        }
        Ok(Attached { generation, epoch: self.epoch })
    }

    /// Opens the way to a worker, once its inventory is complete. False if the stream is not its
    /// latest.
    pub fn open(&mut self, worker: &WorkerId, generation: u64, way: Outgoing) -> bool {
        match self.current(worker, generation) {
            Some(member) => {
                member.open(way);
                true
            }
            None => false,
        }
    }

    /// The member, if that stream is its latest.
    pub fn current(&mut self, worker: &WorkerId, generation: u64) -> Option<&mut Member> {
        self.members.get_mut(worker).filter(|member| member.generation == generation)
    }

    /// A member.
    pub fn member(&mut self, worker: &WorkerId) -> Option<&mut Member> {
        self.members.get_mut(worker)
    }

    /// All members, in the order of their ids.
    pub fn members(&self) -> &BTreeMap<WorkerId, Member> {
        &self.members
    }

    /// Takes a worker out for good: it may come back only under another id.
    pub fn give_up(&mut self, worker: &WorkerId) -> bool {
        if self.given_up.insert(worker.clone()) {
            self.given_up_order.push_back(worker.clone());
        }
        if self.given_up_order.len() > REMEMBERED
            && let Some(oldest) = self.given_up_order.pop_front()
        {
            self.given_up.remove(&oldest);
        }
        self.members.remove(worker).is_some()
    }

    /// Says something to a worker; an error where it does not listen any more.
    ///
    /// # Errors
    /// Why it counts as lost.
    pub fn say(&mut self, worker: &WorkerId, message: Message) -> Result<(), String> {
        let epoch = self.epoch;
        let member = self.members.get_mut(worker).ok_or_else(|| format!("there is no worker {worker}"))?;
        member.say(Outbound::Message(Box::new(v1::CoordinatorMessage { epoch, message: Some(message) })))
    }
}

impl Fleet for RemoteFleet {
    fn start(&mut self, worker: &WorkerId, attempt: &AttemptId, order: Order) -> Result<(), String> {
        let epoch = self.epoch;
        let member = self.members.get_mut(worker).ok_or_else(|| format!("there is no worker {worker}"))?;
        member.running.insert(attempt.clone());
        // While it is away the order waits for its return: what runs is compared then.
        member.order(epoch, &attempt.task.job, order)
    }

    fn address(&self, worker: &WorkerId) -> String {
        self.members.get(worker).map(|member| member.hello.flight_address.clone()).unwrap_or_default()
    }

    fn stop(&mut self, worker: &WorkerId, attempt: &AttemptId) {
        if let Err(reason) = self.say(worker, Message::Stop(attempt.into())) {
            tracing::warn!(%worker, %attempt, reason, "it cannot be told to stop");
        }
    }

    fn release(&mut self, job: &JobId) {
        for (worker, member) in &mut self.members {
            // One that is away says what it holds when it comes back.
            if let Err(reason) = member.release(self.epoch, job) {
                tracing::warn!(%worker, %job, reason, "it cannot be told to drop the job");
            }
        }
    }

    fn capacity(&self) -> Capacity {
        let serving = || self.members.values().filter(|member| !member.draining).map(|member| &member.hello);
        let slots: usize = serving().map(|hello| hello.slots as usize).sum();
        let least = serving().map(|hello| hello.reduce_table_bytes).min();
        Capacity {
            slots: if slots == 0 { EXPECTED_SLOTS } else { slots },
            reduce_table_bytes: least.filter(|&bytes| bytes > 0).unwrap_or(LEAST_TABLE_BYTES),
        }
    }

    fn remote(&mut self) -> Option<&mut RemoteFleet> {
        Some(self)
    }
}

#[cfg(test)]
mod tests;
