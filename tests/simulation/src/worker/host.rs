//! What a simulated worker runs and holds, as its agent sees it: the real state machine's [`TaskHost`].
//!
//! Not here: what a task does (`tasks`).

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use tally_proto::dispatch::Dispatch;
use tally_proto::ids::attempt_number;
use tally_proto::{AttemptId, Failure, JobId, PROTOCOL, WorkerId, v1};
use tally_worker::agent::{HeldOutputs, TaskHost};

use crate::signal::Signal;
use crate::tasks::Owner;
use crate::world::{self, say};

/// The memory of a worker, as it tells the coordinator.
const MEMORY: u64 = 1 << 20;

/// Attempts of one task in one term: more than the pauses between retries leave time for.
const MAX_TRIES: u32 = 60;

/// A task that is to be spawned.
pub struct Started {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its message.
    pub dispatch: Dispatch,
    /// Set when the attempt is to stop.
    pub stop: Rc<Signal>,
}

/// One incarnation of a simulated worker.
pub struct Host {
    /// Its id.
    pub id: WorkerId,
    owner: Owner,
    slots: usize,
    address: String,
    running: BTreeMap<AttemptId, Rc<Signal>>,
    /// Tasks that the last step of the agent started.
    pub started: Vec<Started>,
}

impl Host {
    /// An incarnation without tasks. What an earlier one held is dropped.
    pub fn new(id: WorkerId, owner: Owner, slots: usize, address: String) -> Self {
        world::with(|world| world.processes[owner.process].outputs = Default::default());
        Host { id, owner, slots, address, running: BTreeMap::new(), started: vec![] }
    }

    /// The attempts that run.
    pub fn running(&self) -> impl Iterator<Item = &AttemptId> {
        self.running.keys()
    }

    /// An attempt ended.
    pub fn ended(&mut self, attempt: &AttemptId) {
        self.running.remove(attempt);
    }
}

impl TaskHost for Host {
    fn id(&self) -> &WorkerId {
        &self.id
    }

    fn hello(&self) -> v1::Hello {
        v1::Hello {
            protocol: PROTOCOL,
            version: "simulated".into(),
            worker: self.id.to_string(),
            slots: self.slots as u32,
            memory_limit: MEMORY,
            flight_address: self.address.clone(),
            reduce_table_bytes: MEMORY,
            ..v1::Hello::default()
        }
    }

    fn heartbeat(&self) -> v1::Heartbeat {
        world::with(|world| {
            let outputs = &world.processes[self.owner.process].outputs;
            let memory_used = outputs.iter().map(|(_, held)| held.output.bytes()).sum();
            v1::Heartbeat { memory_used, serving: outputs.serving, ..v1::Heartbeat::default() }
        })
    }

    fn start(&mut self, dispatch: Dispatch) -> Result<(), Failure> {
        let head = &dispatch.head;
        let attempt = head.attempt.as_ref().and_then(|attempt| AttemptId::try_from(attempt).ok());
        let attempt = attempt.ok_or_else(|| Failure::Fatal { reason: "no attempt".into() })?;
        let number = attempt_number(attempt.attempt);
        if number > MAX_TRIES {
            world::violated(|| format!("{attempt} is the {number}th attempt of its task in one term"));
        }
        if world::with(|world| world.now < world.processes[self.owner.process].full_until) {
            return Err(Failure::Refused { reason: "the spill limit is reached".into() });
        }
        if self.running.len() >= self.slots {
            return Err(Failure::Refused { reason: "it has no free slot".into() });
        }
        say!("worker {} starts {attempt}", self.owner.process);
        world::with(|world| {
            world.processes[self.owner.process].outputs.admit(&attempt.task.job, &head.key);
        });
        let stop = Rc::new(Signal::default());
        self.running.insert(attempt.clone(), stop.clone());
        self.started.push(Started { attempt, dispatch, stop });
        Ok(())
    }

    fn stop(&mut self, attempt: &AttemptId) {
        if let Some(stop) = self.running.get(attempt) {
            say!("worker {} stops {attempt}", self.owner.process);
            stop.set();
        }
    }

    fn admit(&mut self, job: &JobId, key: &[u8]) {
        world::with(|world| world.processes[self.owner.process].outputs.admit(job, key));
    }

    fn release(&mut self, job: &JobId) {
        say!("worker {} releases {job}", self.owner.process);
        world::with(|world| world.processes[self.owner.process].outputs.release(job));
    }

    fn jobs(&self) -> BTreeSet<JobId> {
        world::with(|world| world.processes[self.owner.process].outputs.jobs().cloned().collect())
    }

    fn result(&self, attempt: &AttemptId) -> Option<v1::TaskResult> {
        world::with(|world| {
            let held = world.processes[self.owner.process].outputs.get(attempt)?;
            Some(held.result.clone())
        })
    }

    fn inventory(&self) -> Vec<(AttemptId, v1::TaskResult)> {
        world::with(|world| {
            let held = world.processes[self.owner.process].outputs.iter();
            held.map(|(attempt, held)| (attempt.clone(), held.result.clone())).collect()
        })
    }

    fn held(&self) -> HeldOutputs {
        world::with(|world| {
            let outputs = &world.processes[self.owner.process].outputs;
            let migrated = outputs.iter().filter(|(_, held)| held.migrated).count();
            HeldOutputs { all: outputs.iter().count(), migrated }
        })
    }

    fn note_migrated(&mut self, attempt: &AttemptId) {
        world::with(|world| world.processes[self.owner.process].outputs.note_migrated(attempt));
    }
}
