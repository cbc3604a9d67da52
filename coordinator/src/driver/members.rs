//! What workers in other processes say: who comes and goes, what they hold, how their attempts
//! end. Nothing they say harms another job than the one it is about.

use std::collections::{BTreeMap, BTreeSet};

use tally_proto::v1::coordinator_message::Message;
use tally_proto::{AttemptId, Failure, JobId, StageId, TaskId, WorkerId, v1};
use tally_scheduler::{Event, Found, StagePhase};

use super::Driver;
use crate::cluster::{Inventory, Member, Refused, Said, WorkerInput};
use crate::job::WRITE;

impl Driver {
    pub(super) fn worker(&mut self, input: WorkerInput) {
        let Some(fleet) = self.fleet.remote() else { return };
        match input {
            WorkerInput::Hello(hello, reply) => {
                let worker = hello.worker.clone();
                let answer = fleet.attach(hello);
                if let Err(refused) = &answer {
                    tracing::warn!(%worker, reason = %refused, "a worker was refused");
                    if let Refused::NewerEpoch(_) = refused {
                        self.doubt.notify_one();
                    }
                }
                // A worker that hung up meanwhile is noticed by its connection.
                let _ = reply.send(answer);
            }
            WorkerInput::Attached { worker, generation, way, inventory, beat } => {
                if fleet.open(&worker, generation, way)
                    && let Some(member) = fleet.member(&worker)
                {
                    member.beat = beat;
                    self.attached(&worker, inventory);
                }
            }
            WorkerInput::Said { worker, generation, said } => {
                if fleet.current(&worker, generation).is_some() {
                    self.said(worker, said);
                } else {
                    tracing::warn!(%worker, ?said, "a word of a stream that was replaced, or of a lost worker");
                }
            }
            WorkerInput::Broken { worker, generation } => {
                if let Some(member) = fleet.current(&worker, generation) {
                    member.cut(generation);
                }
            }
            WorkerInput::Away { worker, generation, why } => {
                if fleet.current(&worker, generation).is_some() {
                    tracing::warn!(%worker, why, "a worker is lost");
                    self.counts.workers_lost += 1;
                    self.lose(&worker);
                }
            }
            WorkerInput::List(after, most, reply) => {
                let _ = reply.send(self.list_workers(after.as_ref(), most));
            }
            WorkerInput::Drain(worker, reply) => {
                let status = self.ask_to_drain(&worker);
                let _ = reply.send(status);
            }
        }
    }

    /// A worker whose inventory is complete takes orders from now on.
    fn attached(&mut self, worker: &WorkerId, inventory: Inventory) {
        let Some(member) = self.fleet.remote().and_then(|fleet| fleet.member(worker)) else { return };
        let first = !std::mem::replace(&mut member.joined, true);
        let (slots, draining) = (member.hello.slots, member.draining);
        let ordered = member.running.clone();
        if first {
            let address = &member.hello.flight_address;
            tracing::info!(%worker, slots, address, outputs = inventory.outputs.len(), "a worker attached");
            self.step(Event::WorkerJoined { worker: worker.clone(), slots, draining });
        } else if draining {
            self.step(Event::WorkerDraining { worker: worker.clone() });
        }
        let mut unknown = BTreeSet::new();
        let mut ended = BTreeSet::new();
        let mut found: Vec<(AttemptId, bool)> = vec![];
        for (attempt, result) in inventory.outputs {
            if ordered.contains(&attempt) {
                // It ended while the stream was broken.
                ended.insert(attempt.clone());
                self.ended(worker, attempt, Ok(result));
            } else if self.is_live(&attempt.task.job) {
                if self.keep_found(&attempt, result) {
                    found.push((attempt, true));
                }
            } else {
                unknown.insert(attempt.task.job);
            }
        }
        let running: BTreeSet<AttemptId> = inventory.running.into_iter().collect();
        for attempt in ordered.difference(&running).filter(|attempt| !ended.contains(attempt)) {
            self.order_again(worker, attempt.clone());
        }
        for attempt in running.difference(&ordered) {
            let adopts = self.jobs.get(&attempt.task.job).is_some_and(|run| !run.replanned);
            if adopts && attempt.task.stage.0 != WRITE {
                found.push((attempt.clone(), false));
            } else {
                self.fleet.stop(worker, attempt);
            }
        }
        self.adopt(worker, found);
        if let Some(fleet) = self.fleet.remote() {
            for job in unknown {
                if let Err(reason) = fleet.say(worker, Message::Release(job.to_string())) {
                    tracing::warn!(%worker, reason, "it cannot be told to drop a job");
                }
            }
        }
    }

    fn is_live(&self, job: &JobId) -> bool {
        self.jobs.contains_key(job)
    }

    /// Repeats an order that never arrived, or whose result was lost on the way back, if the order is still the
    /// same (see [`Driver::start`]). No other worker was told to run this attempt meanwhile.
    fn order_again(&mut self, worker: &WorkerId, attempt: AttemptId) {
        if !self.is_live(&attempt.task.job) {
            self.ended(worker, attempt, Err(Failure::Cancelled));
            return;
        }
        if let Some(member) = self.fleet.remote().and_then(|fleet| fleet.member(worker)) {
            member.running.remove(&attempt);
        }
        tracing::info!(%worker, %attempt, "its order got lost");
        if let Some(answer) = self.start(worker.clone(), attempt) {
            self.step(answer);
        }
    }

    /// Keeps the result of an attempt that this term did not order; false where it is of no use.
    fn keep_found(&mut self, attempt: &AttemptId, result: v1::TaskResult) -> bool {
        let task = &attempt.task;
        let Some(run) = self.jobs.get_mut(&task.job) else { return false };
        let strange = run.replanned || task.stage.0 >= WRITE;
        if strange || run.tasks(task.stage).is_some_and(|tasks| task.index as usize >= tasks) {
            return false;
        }
        match run.results.keep(attempt, result) {
            Ok(()) => true,
            Err(failure) => {
                tracing::warn!(%attempt, %failure, "a result that is none");
                false
            }
        }
    }

    /// Offers the scheduler what a worker has, now or when the stage is planned.
    fn adopt(&mut self, worker: &WorkerId, found: Vec<(AttemptId, bool)>) {
        let mut planned: BTreeMap<(JobId, StageId), Vec<Found>> = BTreeMap::new();
        for (attempt, done) in found {
            let AttemptId { task, attempt } = attempt;
            let known = Found { index: task.index, attempt, worker: worker.clone(), done };
            let status = self.scheduler.status(&task.job);
            let stage = status.as_ref().and_then(|status| status.stages.get(task.stage.0 as usize));
            let Some(run) = self.jobs.get_mut(&task.job) else { continue };
            if stage.is_some_and(|stage| stage.phase == StagePhase::Planned) {
                planned.entry((task.job, task.stage)).or_default().push(known);
            } else {
                run.note_found(task.stage, known);
            }
        }
        for ((job, stage), found) in planned {
            self.running_there(&job, stage, &found);
            self.step(Event::Found { job, stage, found });
        }
    }

    /// Notes attempts that run on workers though this term did not order them.
    pub(super) fn running_there(&mut self, job: &JobId, stage: StageId, found: &[Found]) {
        let Some(fleet) = self.fleet.remote() else { return };
        for found in found.iter().filter(|found| !found.done) {
            let task = TaskId { job: job.clone(), stage, index: found.index };
            if let Some(member) = fleet.member(&found.worker) {
                member.running.insert(AttemptId { task, attempt: found.attempt });
            }
        }
    }

    fn said(&mut self, worker: WorkerId, said: Said) {
        match said {
            Said::Ended(attempt, outcome) => self.ended(&worker, attempt, outcome),
            Said::Moved(attempt, to) => self.moved(worker, &attempt, to),
            Said::NotMoved(attempt, to, reason) => self.not_moved(&worker, &attempt, &to, &reason),
            Said::Draining => self.begin_drain(&worker),
            Said::Goodbye { clean } => {
                tracing::info!(%worker, clean, "a worker left");
                let counts = &mut self.counts;
                *(if clean { &mut counts.workers_drained } else { &mut counts.workers_lost }) += 1;
                self.lose(&worker);
            }
        }
    }

    /// The end of an attempt, as a worker in another process tells it.
    fn ended(&mut self, worker: &WorkerId, attempt: AttemptId, outcome: Result<v1::TaskResult, Failure>) {
        let member = self.fleet.remote().and_then(|fleet| fleet.member(worker));
        if member.is_some_and(|member: &mut Member| member.running.remove(&attempt)) {
            self.report(worker.clone(), attempt, outcome);
            return;
        }
        match outcome {
            // Told to stop, or ordered by an earlier term: what it made may still be of use.
            Ok(result) => match self.keep_found(&attempt, result) {
                true => self.adopt(worker, vec![(attempt, true)]),
                false => tracing::warn!(%worker, %attempt, "the end of an attempt that was not ordered"),
            },
            Err(failure) => {
                tracing::warn!(%worker, %attempt, %failure, "the end of an attempt that was not ordered");
                if let Some(run) = self.jobs.get_mut(&attempt.task.job) {
                    run.found_failed(worker, &attempt);
                }
            }
        }
    }

    /// Gives a worker up.
    pub(super) fn lose(&mut self, worker: &WorkerId) {
        let members = self.fleet.remote().map(|fleet| fleet.members());
        if members.is_some_and(|members| members.get(worker).is_some_and(|member| member.joined)) {
            self.step(Event::WorkerLost { worker: worker.clone() });
        } else {
            self.forget_worker(worker);
        }
    }

    /// Forgets a worker here; the scheduler is told, too.
    pub(super) fn forget_worker(&mut self, worker: &WorkerId) {
        let Some(fleet) = self.fleet.remote() else { return };
        fleet.give_up(worker);
        self.drains.lost(worker);
        self.beginning.retain(|_, at| at != worker);
        self.jobs.values_mut().for_each(|run| run.worker_lost(worker));
    }

    fn list_workers(&mut self, after: Option<&WorkerId>, most: usize) -> (Vec<v1::WorkerStatus>, bool) {
        let Some(fleet) = self.fleet.remote() else { return (vec![], false) };
        let mut later = fleet.members().iter().filter(|(id, _)| after.is_none_or(|after| *id > after));
        let status = |(id, member): (&WorkerId, &Member)| {
            let outputs = self.scheduler.outputs_held_by(id) as u64;
            v1::WorkerStatus { outputs, ..member.status() }
        };
        let page: Vec<_> = later.by_ref().take(most).map(status).collect();
        (page, later.next().is_some())
    }
}
