//! Outputs that the coordinator wants at another worker: given by Flight, one order after another,
//! and what became of each put in the outbox.
//!
//! Goes on while the worker has no coordinator. Not here: what is given to whom (the coordinator),
//! how (`flight`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use tally_proto::{AttemptId, WorkerId, v1};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::outbox::{Fact, Outbox};
use crate::flight::{Client, HandOverError};
use crate::peers::Place;
use crate::store::Store;

/// Orders that may wait; the coordinator repeats those that come to nothing.
const MOST_WAITING: usize = 64;
/// Outputs given at a time.
const AT_A_TIME: usize = 4;
/// How often one that has no time, or was not told of the job yet, is asked again, and the wait
/// before the first time; each later one is twice as long.
const TRIES: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The task that carries hand-overs out.
pub struct HandOvers {
    orders: mpsc::Sender<v1::HandOver>,
    task: JoinHandle<()>,
}

/// An order that is being carried out.
struct Giver {
    client: Client,
    store: Arc<Store>,
    outbox: Arc<Outbox>,
    to: Place,
    /// The other takes nothing: the rest is not even tried.
    hopeless: AtomicBool,
}

impl HandOvers {
    /// Starts the task, on the runtime that it is called on.
    pub fn start(client: Client, store: Arc<Store>, outbox: Arc<Outbox>) -> Self {
        let (sender, mut orders) = mpsc::channel::<v1::HandOver>(MOST_WAITING);
        let task = tokio::spawn(async move {
            while let Some(order) = orders.recv().await {
                let worker = match WorkerId::parse(&order.to) {
                    Ok(worker) => worker,
                    Err(error) => {
                        tracing::warn!(%error, "told to hand over to nobody");
                        continue;
                    }
                };
                let to = Place { worker, address: order.flight_address };
                let (client, store, outbox) = (client.clone(), store.clone(), outbox.clone());
                let giver = Giver { client, store, outbox, to, hopeless: AtomicBool::new(false) };
                let gives = stream::iter(order.attempts);
                gives.for_each_concurrent(AT_A_TIME, |attempt| giver.give(attempt)).await;
            }
        });
        HandOvers { orders: sender, task }
    }

    /// Gives outputs to another worker, as soon as it can.
    pub fn order(&self, order: v1::HandOver) {
        if let Err(error) = self.orders.try_send(order) {
            tracing::warn!(%error, "an order to hand over was not taken: it will come again");
        }
    }

    /// Ends what is under way: the other end drops what is not whole.
    pub fn stop(&self) {
        self.task.abort();
    }
}

impl Giver {
    async fn give(&self, attempt: v1::Attempt) {
        let attempt = match AttemptId::try_from(&attempt) {
            Ok(attempt) => attempt,
            Err(error) => {
                tracing::warn!(%error, "told to hand over what is no attempt");
                return;
            }
        };
        let to = self.to.worker.clone();
        match self.try_to_give(&attempt).await {
            Ok(()) => {
                tracing::debug!(%attempt, %to, "handed over");
                self.store.note_given(&attempt);
                self.outbox.push(Fact::Moved(attempt, to));
            }
            Err(reason) => {
                tracing::warn!(%attempt, %to, at = self.to.address, reason, "an output was not handed over");
                self.outbox.push(Fact::NotMoved(attempt, to, reason));
            }
        }
    }

    async fn try_to_give(&self, attempt: &AttemptId) -> Result<(), String> {
        let mut wait = FIRST_WAIT;
        for again in (0..TRIES).rev() {
            if self.hopeless.load(Ordering::Relaxed) {
                break;
            }
            let error = match self.client.hand_over(&self.to, &self.store, attempt).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match error {
                HandOverError::Gone(_) => return Err(error.to_string()),
                HandOverError::Refused { .. } if again > 0 => {}
                HandOverError::Refused { .. } | HandOverError::Failed { .. } => {
                    self.hopeless.store(true, Ordering::Relaxed);
                    return Err(error.to_string());
                }
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        Err(format!("worker {} took nothing of the same order", self.to.worker))
    }
}
