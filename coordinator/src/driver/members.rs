//! Reports of workers in other processes: attach, inventory, ends of attempts, drain, loss. A report affects no
//! job but the one that it names.

use std::collections::{BTreeMap, BTreeSet};

use tally_common::counts::counted;
use tally_proto::v1::EventKind;
use tally_proto::{AttemptId, Failure, JobId, StageId, WorkerId, v1};
use tally_scheduler::{Event, FoundTask, StagePhase};

use super::Driver;
use super::numbering::is_earlier;
use crate::cluster::{AttachError, Inventory, Removal, WorkerInput, WorkerUpdate};

impl Driver {
    pub(super) fn worker(&mut self, input: WorkerInput) {
        let now = self.now.elapsed;
        let Some(fleet) = self.workers.remote() else { return };
        match input {
            WorkerInput::Hello(hello, reply) => {
                let worker = hello.worker.clone();
                let answer = fleet.attach(hello, now.saturating_add(self.silence));
                if let Err(error) = &answer {
                    tally_common::warn_limited!(%worker, %error, "a worker was refused");
                    if let AttachError::NewerEpoch(_) = error {
                        self.question_epoch();
                    }
                }
                // Only a watched stream reports its end, and no one watches a stream whose worker hung up meanwhile.
                if let Err(Ok(attached)) = reply.send(answer) {
                    self.broken(&worker, attached.generation);
                }
            }
            WorkerInput::Attaching { worker, generation } => {
                let deadline = fleet.current(&worker, generation).and_then(|member| member.deadline.as_mut());
                if let Some(deadline) = deadline {
                    *deadline = now.saturating_add(self.silence);
                }
            }
            WorkerInput::Attached { worker, generation, channel, inventory, beat } => {
                if fleet.open(&worker, generation, channel)
                    && let Some(member) = fleet.member(&worker)
                {
                    member.beat = beat;
                    member.heard_inventory(now);
                    self.attached(&worker, inventory);
                }
            }
            WorkerInput::Update { worker, generation, update } => {
                if fleet.current(&worker, generation).is_some() {
                    self.update(worker, update);
                } else {
                    tally_common::warn_limited!(%worker, "ignored an update from a replaced stream or a lost worker");
                }
            }
            WorkerInput::Broken { worker, generation } => self.broken(&worker, generation),
            WorkerInput::Gone { worker, generation } => {
                self.lose_current(&worker, generation, "its address refuses connections");
            }
            WorkerInput::Silent { worker, generation } => {
                self.lose_current(&worker, generation, "it sent no message for too long");
            }
            WorkerInput::List(after, max, reply) => {
                let times = (now, self.silent_after);
                let _ = reply.send(self.workers.list(&self.scheduler, after.as_ref(), max, times));
            }
            WorkerInput::Drain(worker, reply) => {
                let status = self.ask_to_drain(&worker);
                let _ = reply.send(status);
            }
        }
    }

    /// Gives up a worker, if that stream is its latest.
    fn lose_current(&mut self, worker: &WorkerId, generation: u64, why: &'static str) {
        if self.workers.remote().is_some_and(|fleet| fleet.current(worker, generation).is_some()) {
            tracing::warn!(%worker, why, "a worker is lost");
            self.metrics.count_worker(false);
            self.remove(worker, Removal::Lost(why));
        }
    }

    /// A worker's stream ended. It is lost unless it attaches again in time.
    fn broken(&mut self, worker: &WorkerId, generation: u64) {
        let deadline = self.now.elapsed.saturating_add(self.grace);
        let Some(fleet) = self.workers.remote() else { return };
        let attached = fleet.current(worker, generation).is_some_and(|member| member.attached());
        fleet.cut(worker, generation, deadline);
        if attached {
            self.note_worker(EventKind::WorkerDetached, worker, "the connection broke; it may attach again");
        }
    }

    /// Gives up workers whose stream ended, or which said hello, and which did not attach in time.
    pub(super) fn lose_overdue(&mut self) {
        let (now, grace) = (self.now.elapsed, self.grace);
        let Some(fleet) = self.workers.remote() else { return };
        for worker in fleet.overdue(now, grace) {
            // The loss of one worker may show that another is lost, too.
            if self.workers.member(&worker).is_none() {
                continue;
            }
            let why = "it did not attach in time";
            tracing::warn!(%worker, why, "a worker is lost");
            self.metrics.count_worker(false);
            self.remove(&worker, Removal::Lost(why));
        }
    }

    /// A worker whose inventory is complete takes tasks from now on.
    fn attached(&mut self, worker: &WorkerId, inventory: Inventory) {
        let Some(member) = self.workers.member(worker) else { return };
        let first = !std::mem::replace(&mut member.joined, true);
        let (slots, draining) = (member.hello.slots, member.draining);
        let (dispatched, stopped) = (member.running.clone(), member.stopped.clone());
        // A client asked it to drain while it was away.
        let unasked = draining && !member.hello.draining;
        let outputs = inventory.outputs.len();
        if first {
            let address = &member.hello.flight_address;
            tracing::info!(%worker, slots, address, outputs, "a worker attached");
        }
        let again = if first { "" } else { " again" };
        let text =
            format!("attached{again}, with {} and {}", counted(slots, "slot"), counted(outputs, "output"));
        self.note_worker(EventKind::WorkerAttached, worker, &text);
        if first {
            self.apply(Event::WorkerJoined { worker: worker.clone(), slots, draining });
        } else if draining {
            self.apply(Event::WorkerDraining { worker: worker.clone() });
        }
        if unasked {
            self.workers.ask_to_drain(worker);
        }
        // What it reported on an earlier stream is in this inventory again.
        if !first {
            self.jobs.forget_worker(worker);
        }
        let running: BTreeSet<AttemptId> = inventory.running.into_iter().collect();
        let mut named: BTreeSet<JobId> = running.iter().map(|attempt| attempt.task.job.clone()).collect();
        let mut ended = BTreeSet::new();
        let mut found: Vec<(AttemptId, bool)> = vec![];
        for (attempt, result) in inventory.outputs {
            named.insert(attempt.task.job.clone());
            if dispatched.contains(&attempt) {
                // It ended while the stream was broken.
                ended.insert(attempt.clone());
                self.ended(worker, attempt, Ok(result));
            } else if self.keep_found(&attempt, result) {
                found.push((attempt, true));
            }
        }
        for attempt in dispatched.difference(&running).filter(|attempt| !ended.contains(attempt)) {
            self.dispatch_again(worker, attempt.clone());
        }
        for attempt in running {
            let wanted = match dispatched.contains(&attempt) {
                // A request to stop it may have been lost with the earlier stream.
                true => self.jobs.contains(&attempt.task.job) && !stopped.contains(&attempt),
                false => self.accepts(&attempt),
            };
            match (wanted, dispatched.contains(&attempt)) {
                (true, true) => {}
                (true, false) => found.push((attempt, false)),
                (false, _) => self.workers.stop(worker, &attempt),
            }
        }
        self.adopt(worker, found);
        named.retain(|job| !self.jobs.contains(job));
        self.workers.release_on(worker, named);
    }

    /// Sends a task again that never arrived, or whose result was lost on the way back, if its inputs are still the
    /// same (see [`Driver::start`]). No other worker received this attempt meanwhile.
    fn dispatch_again(&mut self, worker: &WorkerId, attempt: AttemptId) {
        if !self.jobs.contains(&attempt.task.job) {
            self.ended(worker, attempt, Err(Failure::Cancelled));
            return;
        }
        if let Some(member) = self.workers.member(worker) {
            member.ended(&attempt);
        }
        tracing::info!(%worker, %attempt, "a task message was lost and is sent again");
        if let Some(answer) = self.start(worker.clone(), attempt) {
            self.apply(answer);
        }
    }

    /// Whether an attempt that this term did not dispatch to a worker may be one of an earlier term that is still of use.
    fn accepts(&self, attempt: &AttemptId) -> bool {
        let task = &attempt.task;
        is_earlier(self.first_attempt, attempt.attempt)
            && self.scheduler.output(task).is_none()
            && self.jobs.get(&task.job).is_some_and(|run| run.takeover.accepts(task))
    }

    /// Keeps the result of an output that a worker has from an earlier term; false if it cannot be used. An output of this
    /// term can be used if its result is known: a worker that was away still has it.
    fn keep_found(&mut self, attempt: &AttemptId, result: v1::TaskResult) -> bool {
        let accepts = self.accepts(attempt);
        let Some(run) = self.jobs.get_mut(&attempt.task.job) else { return false };
        if !accepts {
            return run.knows(attempt);
        }
        match run.keep(attempt, result) {
            Ok(()) => true,
            Err(failure) => {
                tally_common::warn_limited!(%attempt, %failure, "ignored an invalid result");
                false
            }
        }
    }

    /// Offers the scheduler what a worker has, now or when the stage is planned.
    fn adopt(&mut self, worker: &WorkerId, found: Vec<(AttemptId, bool)>) {
        let mut planned: BTreeMap<(JobId, StageId), Vec<FoundTask>> = BTreeMap::new();
        for (attempt, done) in found {
            let AttemptId { task, attempt } = attempt;
            let known = FoundTask { index: task.index, attempt, worker: worker.clone(), done };
            let status = self.scheduler.status(&task.job);
            let stage = status.as_ref().and_then(|status| status.stages.get(task.stage.0 as usize));
            let Some(run) = self.jobs.get_mut(&task.job) else { continue };
            if stage.is_some_and(|stage| stage.phase == StagePhase::Planned) {
                planned.entry((task.job, task.stage)).or_default().push(known);
            } else {
                run.takeover.note(task.stage, known);
            }
        }
        for ((job, stage), found) in planned {
            self.workers.note_running(&job, stage, &found);
            self.apply(Event::TasksFound { job, stage, found });
        }
    }

    fn update(&mut self, worker: WorkerId, update: WorkerUpdate) {
        match update {
            WorkerUpdate::Ended(attempt, outcome) => self.ended(&worker, attempt, outcome),
            WorkerUpdate::OutputMigrated(attempt, to) => self.output_migrated(worker, &attempt, to),
            WorkerUpdate::MigrationFailed(attempt, to, reason) => {
                tracing::warn!(from = %worker, %to, %attempt, reason, "an output was not migrated");
                let now = self.now.elapsed;
                self.workers.drains.migration_failed(now, &worker, &attempt, &to);
            }
            WorkerUpdate::Draining => self.begin_drain(&worker),
            WorkerUpdate::Goodbye { clean } => {
                tracing::info!(%worker, clean, "a worker left");
                self.metrics.count_worker(clean);
                self.remove(&worker, if clean { Removal::Drained } else { Removal::Lost("it left") });
            }
        }
    }

    /// The end of an attempt, reported by a worker in another process.
    fn ended(&mut self, worker: &WorkerId, attempt: AttemptId, outcome: Result<v1::TaskResult, Failure>) {
        if self.workers.member(worker).is_some_and(|member| member.ended(&attempt)) {
            self.report(worker.clone(), attempt, outcome);
            return;
        }
        // An earlier term may have dispatched it, for a stage that is not planned yet.
        let run = self.jobs.get_mut(&attempt.task.job);
        let noted = run.is_some_and(|run| run.takeover.attempt_ended(worker, &attempt));
        match outcome {
            Ok(result) if noted => {
                if self.keep_found(&attempt, result) {
                    self.adopt(worker, vec![(attempt, true)]);
                }
            }
            Ok(_) => tracing::warn!(%worker, %attempt, "an attempt ended that was not dispatched"),
            Err(failure) => {
                tracing::warn!(%worker, %attempt, %failure, "an attempt ended that was not dispatched");
            }
        }
    }

    /// Removes a worker. The scheduler, if it knows the worker, hears of it first.
    fn remove(&mut self, worker: &WorkerId, why: Removal) {
        if let Some(member) = self.workers.member(worker) {
            member.removed_because = Some(why);
        }
        if self.workers.has_joined(worker) {
            self.apply(Event::WorkerLost { worker: worker.clone() });
        } else {
            self.on_worker_lost(worker);
        }
    }

    /// Removes a worker from the driver's own state.
    pub(super) fn on_worker_lost(&mut self, worker: &WorkerId) {
        if self.workers.on_worker_lost(worker) {
            self.jobs.forget_worker(worker);
        }
    }

    /// A worker begins to drain.
    fn begin_drain(&mut self, worker: &WorkerId) {
        let Some(member) = self.workers.member(worker) else { return };
        if !std::mem::replace(&mut member.draining, true) {
            tracing::info!(%worker, "a worker drains");
        }
        let joined = member.joined;
        self.note_worker(EventKind::WorkerDraining, worker, "it drains");
        self.workers.drains.forget_answer(worker);
        if joined {
            self.apply(Event::WorkerDraining { worker: worker.clone() });
        }
        self.workers.drain(self.now.elapsed, &self.scheduler, &self.jobs);
    }

    /// Tells a worker to drain; `None` if the worker is unknown.
    fn ask_to_drain(&mut self, worker: &WorkerId) -> Option<v1::WorkerStatus> {
        self.workers.member(worker)?;
        self.workers.ask_to_drain(worker);
        self.begin_drain(worker);
        let (now, silent_after) = (self.now.elapsed, self.silent_after);
        Some(self.workers.member(worker)?.status(now, silent_after))
    }

    /// Another worker holds an output now.
    fn output_migrated(&mut self, from: WorkerId, attempt: &AttemptId, to: WorkerId) {
        let last = self.workers.drains.migrated(self.now.elapsed, &from, attempt);
        let task = &attempt.task;
        let (job, stage, index) = (task.job.clone(), task.stage, task.index);
        self.apply(Event::OutputMigrated { job, stage, index, from, to });
        if last {
            self.workers.drain(self.now.elapsed, &self.scheduler, &self.jobs);
        }
    }
}
