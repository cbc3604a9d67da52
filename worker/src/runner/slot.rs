//! The thread of a slot: takes one task message after another, runs the task, and reports its outcome.
//!
//! A panic ends its task, not its thread. Not here: the queue of task messages and the state of the worker (the parent
//! module).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::time::SystemTime;

use parking_lot::Mutex;
use tally_common::{memory, traces};
use tally_proto::convert::required;
use tally_proto::dispatch::Dispatch;
use tally_proto::ids::attempt_number;
use tally_proto::report::{Report, outcome_name};
use tally_proto::{AttemptId, Failure, v1};
use tally_shuffle::error::TaskError;
use tally_shuffle::peers::ReadContext;
use tally_shuffle::store::Output;

use super::Queued;
use super::datasets::JobDataset;
use super::running::{Meter, Running};
use super::shared::Shared;
use crate::task::context::{TaskContext, reclaim};
use crate::task::{map, reduce, write};

/// Runs task messages from `inbox` until the worker is dropped.
pub(super) fn run(shared: &Arc<Shared>, inbox: &Mutex<mpsc::Receiver<Queued>>) {
    let mut scratch = map::Scratch::default();
    let mut last_job = None;
    loop {
        let queued = inbox.lock().recv();
        let Ok((dispatch, dataset)) = queued else { return };
        let Some(Ok(attempt)) = dispatch.head.attempt.as_ref().map(AttemptId::try_from) else { continue };
        // At the highest level, so that log lines of all levels contain it.
        let task = &attempt.task;
        let _span = tracing::error_span!("attempt", job = %task.job, stage = task.stage.0, task = task.index, attempt = attempt_number(attempt.attempt))
            .entered();
        let Running { cancelled, progress, waits, .. } = shared.running.take(&attempt);
        let watched = waits.watch();
        let meter = Meter::start();
        let budget = shared.budget.for_task(cancelled.clone());
        let reading = ReadContext {
            job: attempt.task.job.clone(),
            key: dispatch.head.key.clone().into(),
            budget: budget.clone(),
            cancelled,
            io: shared.io.clone(),
            received: Default::default(),
        };
        let context = TaskContext {
            worker: shared.config.id.clone(),
            peers: shared.peers.clone(),
            reading,
            dictionaries: shared.dictionaries.clone(),
            shares: shared.shares,
            budget,
            store: shared.store.clone(),
            footers: shared.footers.clone(),
            counters: shared.counters.clone(),
            progress,
            io: shared.io.clone(),
        };
        // A mapper has the options of its job.
        let is_other_job = last_job.replace(task.job.clone()).is_some_and(|last| last != task.job);
        if is_other_job || !matches!(dispatch.head.work, Some(v1::task_dispatch::Work::Map(_))) {
            scratch = map::Scratch::default();
        }
        tracing::debug!("an attempt begins");
        let began = SystemTime::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let (result, output) = execute(&context, &attempt, &dispatch, &dataset, &mut scratch)?;
            let result = v1::TaskResult { result: Some(result), usage: Some(meter.usage(&waits)) };
            if let Some(output) = output {
                // If the job was released meanwhile, the output is dropped, and no task reads it.
                shared.store.put(attempt.clone(), output, result.clone());
            }
            Ok(result)
        }));
        drop(watched);
        let outcome = outcome
            .unwrap_or_else(|panic| Err(TaskError::Panic(panic_message(&*panic))))
            .map_err(Failure::from);
        drop(context);
        if shared.budget.is_contended() {
            reclaim(&shared.dictionaries);
        }
        tracing::debug!(outcome = outcome_name(&outcome), "an attempt is over");
        traces::attempt(&shared.config.id, &attempt, stage_name(&dispatch), began, &outcome);
        // In this order, an attempt is always running or reported.
        (shared.report)(Report { worker: shared.config.id.clone(), attempt: attempt.clone(), outcome });
        let others = shared.running.end(&attempt);
        // The reduce stage ends soon, and this slot has no further tasks of it. Its tables are not needed soon, so their
        // memory is returned while other slots still work. The last slot keeps it for the next stage.
        let reduced = matches!(dispatch.head.work, Some(v1::task_dispatch::Work::Reduce(_)));
        if reduced && (1..shared.config.slots).contains(&others) {
            memory::give_back_freed_memory();
        }
    }
}

/// The name of a task's stage.
fn stage_name(dispatch: &Dispatch) -> &'static str {
    match dispatch.head.work {
        Some(v1::task_dispatch::Work::Map(_)) => "map",
        Some(v1::task_dispatch::Work::Reduce(_)) => "reduce",
        Some(v1::task_dispatch::Work::Write(_)) => "write",
        None => "unknown",
    }
}

/// The message of a panic.
fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

fn execute(
    context: &TaskContext,
    attempt: &AttemptId,
    dispatch: &Dispatch,
    dataset: &JobDataset,
    scratch: &mut map::Scratch,
) -> Result<(v1::task_result::Result, Option<Output>), TaskError> {
    use v1::task_dispatch::Work;
    use v1::task_result::Result as Done;
    let dataset = dataset.get(&dispatch.head.dataset, &dispatch.options)?;
    context.check_cancelled()?;
    Ok(match required(dispatch.head.work.as_ref(), "work")? {
        Work::Map(work) => {
            let (result, output) = map::run(context, &*dataset, work, scratch)?;
            (Done::Map(result), Some(output))
        }
        Work::Reduce(work) => {
            let inputs = required(dispatch.inputs.as_deref(), "inputs")?;
            let (result, output) = reduce::run(context, attempt, &*dataset, work, inputs)?;
            (Done::Reduce(result), Some(output))
        }
        Work::Write(work) => (Done::Write(write::run(context, attempt, &*dataset, work)?), None),
    })
}
