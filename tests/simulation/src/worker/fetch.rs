//! Reads of outputs from other workers over the simulated network, and output migrations to them.
//!
//! A read fails like the real ones: a worker that is down, cut off or paused for too long does not have the output as far
//! as the reader can tell. Not here: the stream to the coordinator (`network`).

use std::rc::Rc;

use tally_proto::{AttemptId, Failure, WorkerId, v1};
use tally_shuffle::flight::MigrationError;
use tally_shuffle::peers::OutputLocation;

use super::outputs::{Held, Output};
use crate::signal::sleep;
use crate::tasks::Owner;
use crate::world::{self, MILLISECOND, Micros, SECOND};

/// The pauses before each try of a read.
const TRIES: [Micros; 4] = [0, 200 * MILLISECOND, SECOND, 3 * SECOND];
/// The time without an answer after which a try fails.
const PATIENCE: Micros = 5 * SECOND;

/// The Flight address of a worker process.
pub fn address(process: usize) -> String {
    format!("worker-{process}:7171")
}

fn process_of(address: &str) -> Option<usize> {
    address.strip_prefix("worker-")?.strip_suffix(":7171")?.parse().ok()
}

/// A request to another process reaches it, or does not.
async fn reach(from: Owner, to: usize) -> Result<(), &'static str> {
    let latency = world::draw(|rng| rng.between(MILLISECOND / 2, 4 * MILLISECOND));
    sleep(latency).await;
    let (state, until) = world::with(|world| {
        let failed = world.rng.chance(world.rates.peer_failure);
        let process = world.processes.get(to);
        let state = match process {
            None => Err("no such address"),
            Some(process) if !process.alive => Err("connection refused"),
            Some(_) if failed => Err("connection reset"),
            Some(_) if world.is_cut(from.process, to) => Err("no answer"),
            Some(_) => Ok(()),
        };
        (state, process.map_or(0, |process| process.paused_until.saturating_sub(world.now)))
    });
    if state == Err("no answer") || until > PATIENCE {
        sleep(PATIENCE).await;
        return Err("no answer");
    }
    if until > 0 {
        sleep(until).await;
    }
    state
}

/// The outputs of these attempts at a location.
///
/// # Errors
/// The attempt that cannot be read, and why.
pub async fn fetch(
    from: Owner,
    location: &v1::Location,
    key: &[u8],
    attempts: &[AttemptId],
) -> Result<Vec<Rc<Output>>, Failure> {
    let Some(first) = attempts.first() else { return Ok(vec![]) };
    let lost = |attempt: &AttemptId, reason: &str| match WorkerId::parse(&location.worker) {
        Ok(worker) => Failure::FetchLost { worker, task: attempt.task.clone(), reason: reason.into() },
        Err(error) => Failure::Retryable { reason: error.to_string() },
    };
    let Some(to) = process_of(&location.address) else { return Err(lost(first, "no address")) };
    let mut why = "";
    for pause in TRIES {
        sleep(pause).await;
        if to != from.process
            && let Err(failed) = reach(from, to).await
        {
            why = failed;
            continue;
        }
        let read = world::with(|world| {
            let process = &mut world.processes[to];
            let held = attempts.iter().map(|attempt| {
                let held = process.outputs.read(attempt, key).map(|held| held.output.clone());
                held.ok_or_else(|| attempt.clone())
            });
            let read: Result<Vec<_>, _> = held.collect();
            process.outputs.serving += 1;
            (read, process.life)
        });
        let latency = world::draw(|rng| rng.between(MILLISECOND / 2, 4 * MILLISECOND));
        sleep(latency).await;
        let (outputs, life) = read;
        let broke = world::with(|world| {
            let process = &mut world.processes[to];
            if process.life == life {
                process.outputs.serving = process.outputs.serving.saturating_sub(1);
            }
            process.life != life || !process.alive
        });
        match outputs {
            Err(attempt) => return Err(lost(&attempt, "it is not held there")),
            Ok(_) if broke => why = "the stream broke",
            Ok(outputs) => return Ok(outputs),
        }
    }
    Err(lost(first, why))
}

/// Migrates an output to another worker.
///
/// # Errors
/// [`MigrationError`].
pub async fn migrate(from: Owner, to: OutputLocation, attempt: AttemptId) -> Result<(), MigrationError> {
    let failed = |reason: &str| MigrationError::Failed {
        worker: to.worker.to_string(),
        attempt: attempt.clone(),
        reason: reason.into(),
    };
    let held = world::with(|world| {
        let outputs = &world.processes[from.process].outputs;
        let held = outputs.get(&attempt)?;
        let held = Held { output: held.output.clone(), result: held.result.clone(), migrated: false };
        Some((held, outputs.key(&attempt.task.job)?.to_vec()))
    });
    let (held, key) = held.ok_or_else(|| MigrationError::Removed(attempt.clone()))?;
    let process = process_of(&to.address).ok_or_else(|| failed("no address"))?;
    reach(from, process).await.map_err(failed)?;
    let kept = world::with(|world| {
        let process = &mut world.processes[process];
        let full = world.now < process.full_until;
        !full && process.outputs.put_migrated(attempt.clone(), held, &key)
    });
    if !kept {
        let (worker, attempt, reason) = (to.worker.to_string(), attempt.clone(), "no room".into());
        return Err(MigrationError::Refused { worker, attempt, reason });
    }
    // The confirmation may be lost, although the receiver has the output.
    reach(from, process).await.map_err(failed)
}
