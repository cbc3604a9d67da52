//! The watch of one worker's stream, from the accepted hello to its end: inventory, reports, silence. Pure: messages and
//! times come in, inputs of the driver go out.
//!
//! The form of a worker's messages is checked here; invalid ones are logged and ignored. Not here: reading the stream
//! (`service::control`); what follows from a report, and the loss of workers whose stream broke (the driver).

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tally_proto::convert::{BadMessage, required};
use tally_proto::v1::worker_message::Message;
use tally_proto::{AttemptId, Failure, WorkerId, v1};

use super::message::{Attached, Inventory, LastBeat, Outgoing, WorkerInput, WorkerUpdate};

/// The most outputs and attempts in an inventory.
const MAX_INVENTORY: usize = 1_000_000;
/// A timeout that is this late was caused by this process, which did not run meanwhile.
pub const STALL: Duration = Duration::from_millis(500);

/// The most attempts of a heartbeat that are kept, and the longest text in one, in bytes. Workers send no more.
const MAX_ATTEMPTS: usize = 256;
const MAX_SUBJECT: usize = 256;

/// A heartbeat without what a worker should not have sent.
fn bounded(mut heartbeat: v1::Heartbeat) -> v1::Heartbeat {
    heartbeat.attempts.truncate(MAX_ATTEMPTS);
    for wait in heartbeat.attempts.iter_mut().filter_map(|attempt| attempt.wait.as_mut()) {
        let length = wait.subject.floor_char_boundary(MAX_SUBJECT);
        wait.subject.truncate(length);
    }
    heartbeat
}

/// What happens on a worker's stream.
#[derive(Debug)]
pub enum StreamInput {
    /// The worker sent a message.
    Message(Box<v1::WorkerMessage>),
    /// The stream ended or failed, for this reason.
    Ended(String),
    /// Time passed, see [`StreamWatch::next_wakeup`].
    Tick,
}

/// The watch of a worker's stream.
#[derive(Debug)]
pub struct StreamWatch {
    worker: WorkerId,
    generation: u64,
    timeout: Duration,
    /// The begin of the wait for the next message.
    waits_since: Duration,
    beat: Arc<Mutex<LastBeat>>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The inventory is incomplete. The channel is the driver's as soon as it is complete.
    Attaching { channel: Outgoing, inventory: Inventory },
    /// The worker takes tasks.
    Attached,
    /// Nothing follows.
    Over,
}

impl StreamWatch {
    /// The watch of a stream whose hello was accepted. `channel` leads to the worker; `timeout` is the time without a
    /// message after which the worker is lost; `now` counts from any fixed moment.
    pub fn new(
        worker: WorkerId,
        attached: Attached,
        channel: Outgoing,
        timeout: Duration,
        now: Duration,
    ) -> Self {
        StreamWatch {
            worker,
            generation: attached.generation,
            timeout,
            waits_since: now,
            beat: Arc::default(),
            state: State::Attaching { channel, inventory: Inventory::default() },
        }
    }

    /// Begins to wait for the next message; the time at which a [`StreamInput::Tick`] has to be passed if there is none.
    /// `None`: the stream is over.
    pub fn next_wakeup(&mut self, now: Duration) -> Option<Duration> {
        self.waits_since = now;
        (!matches!(self.state, State::Over)).then(|| now.saturating_add(self.timeout))
    }

    /// Takes an input; returns what the driver has to be told.
    pub fn step(&mut self, now: Duration, input: StreamInput) -> Option<WorkerInput> {
        if let State::Over = self.state {
            return None;
        }
        let (worker, generation) = (self.worker.clone(), self.generation);
        match input {
            StreamInput::Message(message) => match message.message {
                Some(message) => self.message(message),
                None => {
                    tally_common::warn_limited!(%worker, "a message of an unknown kind was ignored");
                    None
                }
            },
            StreamInput::Ended(reason) => {
                tracing::info!(%worker, reason, "a worker's stream broke");
                Some(self.broken())
            }
            StreamInput::Tick => {
                let waited = now.saturating_sub(self.waits_since);
                // This process did not run meanwhile: messages may wait to be read.
                if waited < self.timeout || waited > self.timeout + STALL {
                    return None;
                }
                self.state = State::Over;
                Some(WorkerInput::Silent { worker, generation })
            }
        }
    }

    /// Until a worker has attached, the driver has to be told that it is alive.
    fn alive(&self) -> Option<WorkerInput> {
        let (worker, generation) = (self.worker.clone(), self.generation);
        matches!(self.state, State::Attaching { .. }).then_some(WorkerInput::Attaching { worker, generation })
    }

    fn broken(&mut self) -> WorkerInput {
        self.state = State::Over;
        WorkerInput::Broken { worker: self.worker.clone(), generation: self.generation }
    }

    fn message(&mut self, message: Message) -> Option<WorkerInput> {
        let worker = &self.worker;
        let attaching = matches!(self.state, State::Attaching { .. });
        match (message, attaching) {
            (Message::Heartbeat(heartbeat), _) => {
                let mut beat = self.beat.lock();
                beat.heartbeat = bounded(heartbeat);
                beat.count += 1;
                drop(beat);
                self.alive()
            }
            (Message::Inventory(page), true) => self.page(page),
            (_, true) => {
                // Not its content, which is as long as a message may be.
                tally_common::warn_limited!(%worker, "ignored a message before the end of the inventory");
                None
            }
            (Message::Hello(_) | Message::Inventory(_), false) => {
                tally_common::warn_limited!(%worker, "ignored a hello or inventory on an attached stream");
                None
            }
            (message, false) => match update(message) {
                Ok(update) => {
                    let update = update?;
                    if let WorkerUpdate::Goodbye { .. } = update {
                        self.state = State::Over;
                    }
                    let (worker, generation) = (self.worker.clone(), self.generation);
                    Some(WorkerInput::Update { worker, generation, update })
                }
                Err(error) => {
                    tally_common::warn_limited!(%worker, %error, "a worker's message was ignored");
                    None
                }
            },
        }
    }

    /// Adds a page to the inventory. The last one attaches the worker; the others show the driver that it is alive.
    fn page(&mut self, page: v1::Inventory) -> Option<WorkerInput> {
        let (worker, generation) = (self.worker.clone(), self.generation);
        let State::Attaching { channel, inventory } = &mut self.state else { return None };
        for held in page.outputs {
            match held_output(held) {
                Ok(held) => inventory.outputs.push(held),
                Err(error) => tally_common::warn_limited!(%worker, %error, "a held output was ignored"),
            }
        }
        for running in &page.running {
            match AttemptId::try_from(running) {
                Ok(attempt) => inventory.running.push(attempt),
                Err(error) => tally_common::warn_limited!(%worker, %error, "an attempt was ignored"),
            }
        }
        if inventory.outputs.len() + inventory.running.len() > MAX_INVENTORY {
            tally_common::warn_limited!(%worker, "an inventory has more than {MAX_INVENTORY} entries: the stream is closed");
            return Some(self.broken());
        }
        if !page.last {
            return self.alive();
        }
        let (channel, inventory) = (channel.clone(), std::mem::take(inventory));
        self.state = State::Attached;
        Some(WorkerInput::Attached { worker, generation, channel, inventory, beat: self.beat.clone() })
    }
}

/// The report in a message of an attached worker.
fn update(message: Message) -> Result<Option<WorkerUpdate>, BadMessage> {
    Ok(Some(match message {
        Message::Ended(ended) => {
            use v1::ended::Outcome;
            let attempt = AttemptId::try_from(&required(ended.attempt, "attempt")?)?;
            let outcome = match required(ended.outcome, "outcome")? {
                Outcome::Done(result) => Ok(result),
                Outcome::Failure(failure) => Err(Failure::try_from(&failure)?),
            };
            WorkerUpdate::Ended(attempt, outcome)
        }
        Message::OutputMigrated(moved) => {
            let attempt = AttemptId::try_from(&required(moved.attempt, "attempt")?)?;
            WorkerUpdate::OutputMigrated(attempt, WorkerId::parse(&moved.to)?)
        }
        Message::MigrationFailed(kept) => {
            let attempt = AttemptId::try_from(&required(kept.attempt, "attempt")?)?;
            WorkerUpdate::MigrationFailed(attempt, WorkerId::parse(&kept.to)?, kept.reason)
        }
        Message::Draining(_) => WorkerUpdate::Draining,
        Message::Goodbye(goodbye) => WorkerUpdate::Goodbye { clean: goodbye.clean },
        Message::Hello(_) | Message::Inventory(_) | Message::Heartbeat(_) => return Ok(None),
    }))
}

fn held_output(held: v1::HeldOutput) -> Result<(AttemptId, v1::TaskResult), BadMessage> {
    let attempt = AttemptId::try_from(&required(held.attempt, "attempt")?)?;
    Ok((attempt, required(held.result, "result")?))
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn watch() -> StreamWatch {
        let (channel, _) = mpsc::channel(1);
        let worker = WorkerId::parse("w").unwrap();
        StreamWatch::new(worker, Attached { generation: 1, epoch: 1 }, channel, TIMEOUT, Duration::ZERO)
    }

    fn message(message: Message) -> StreamInput {
        StreamInput::Message(Box::new(v1::WorkerMessage { message: Some(message) }))
    }

    fn page(last: bool) -> StreamInput {
        message(Message::Inventory(v1::Inventory { last, ..Default::default() }))
    }

    #[test]
    fn a_worker_attaches_with_the_last_page_and_each_page_shows_that_it_is_alive() {
        let mut watch = watch();
        assert!(watch.step(Duration::ZERO, message(Message::Draining(v1::Draining {}))).is_none());
        assert!(matches!(watch.step(TIMEOUT, page(false)), Some(WorkerInput::Attaching { .. })));
        assert!(matches!(watch.step(TIMEOUT, page(true)), Some(WorkerInput::Attached { .. })));
        assert!(watch.step(TIMEOUT, page(true)).is_none());
        let goodbye = message(Message::Goodbye(v1::Goodbye { clean: true }));
        assert!(matches!(watch.step(TIMEOUT, goodbye), Some(WorkerInput::Update { .. })));
        let ended = StreamInput::Ended(String::new());
        assert!(watch.next_wakeup(TIMEOUT).is_none() && watch.step(TIMEOUT, ended).is_none());
    }

    #[test]
    fn silence_counts_from_the_begin_of_a_wait_and_not_while_this_process_did_not_run() {
        let mut watch = watch();
        let begin = Duration::from_secs(7);
        let due = watch.next_wakeup(begin).unwrap();
        assert_eq!(due, begin + TIMEOUT);
        assert!(watch.step(due - STALL, StreamInput::Tick).is_none());
        assert!(watch.step(due + 2 * STALL, StreamInput::Tick).is_none(), "the process was stopped");
        let due = watch.next_wakeup(due + 2 * STALL).unwrap();
        assert!(matches!(watch.step(due, StreamInput::Tick), Some(WorkerInput::Silent { .. })));
        assert!(watch.next_wakeup(due).is_none());
    }
}
