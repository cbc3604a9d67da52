//! Which requests to a worker are repeated: those that fail because it is busy or because the connection broke, as often
//! as makes sense.
//!
//! Not here: when a worker is lost (`peer`), what a request is repeated with (`fetch`, `sizes`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tally_common::retry::{Retries, RetryPolicy};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::Traffic;
use super::client::Client;

/// How long a holder may be too busy, while it sends no batch to any task of this worker.
const BUSY_TIMEOUT: Duration = Duration::from_secs(120);
/// Number of retries of requests to a holder that does not respond.
const MAX_UNANSWERED: u32 = 3;
/// The delays between requests.
const RETRY: RetryPolicy = RetryPolicy::doubling(Duration::from_millis(20), Duration::from_secs(1));

/// Whether the connection broke, as opposed to a refusal by the holder.
fn is_reset(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled | Code::Aborted)
}

/// Retries requests that fail because the holder is busy or because the connection broke. A broken response is retried
/// once. A request without any response is retried a few times, because a broken connection may look usable for a
/// moment.
pub struct FetchRetries {
    /// Counters of retries.
    traffic: Arc<Traffic>,
    /// Responses that broke.
    broken: u32,
    /// Whether a message was received since the last request.
    pub answered: bool,
    /// Consecutive requests without a response.
    unanswered: u32,
    retries: Retries,
    busy: Option<BusySpell>,
}

/// A holder refuses requests because it is busy: since when, and the number of batches that it had sent then.
struct BusySpell {
    since: Instant,
    batches: u64,
}

impl FetchRetries {
    /// No request was made yet.
    pub fn new(traffic: Arc<Traffic>) -> Self {
        FetchRetries {
            traffic,
            broken: 0,
            answered: false,
            unanswered: 0,
            retries: RETRY.start(),
            busy: None,
        }
    }

    /// Waits if a retry makes sense. Returns whether it does. `batches` is the number of batches that the holder has
    /// sent to all tasks of this worker.
    pub async fn wait_to_retry(&mut self, status: &Status, batches: u64) -> bool {
        let may = self.may_retry(status.code(), Instant::now(), batches);
        let counts = &self.traffic;
        let count = match (may, status.code()) {
            (true, Code::ResourceExhausted) => Some(&counts.repeats_busy),
            (true, _) => Some(&counts.repeats_broken),
            // The size of a message is no failure of a worker.
            (false, Code::OutOfRange) => None,
            (false, _) => Some(&counts.given_up),
        };
        if let Some(count) = count {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if may {
            self.retries.wait().await;
        }
        may
    }

    /// Whether a request that ended with this status is repeated.
    fn may_retry(&mut self, code: Code, now: Instant, batches: u64) -> bool {
        if code == Code::ResourceExhausted {
            self.is_busy(now, batches)
        } else if std::mem::take(&mut self.answered) {
            self.broken += 1;
            is_reset(code) && self.broken <= 1
        } else {
            self.unanswered += 1;
            is_reset(code) && self.unanswered <= MAX_UNANSWERED
        }
    }

    /// Whether a busy holder may still be asked again. While it sends batches to other tasks, it is only slow.
    fn is_busy(&mut self, now: Instant, batches: u64) -> bool {
        let spell = self.busy.get_or_insert(BusySpell { since: now, batches });
        if spell.batches != batches {
            *spell = BusySpell { since: now, batches };
        }
        now.duration_since(spell.since) < BUSY_TIMEOUT
    }

    /// Records a batch that the slot did not have yet.
    pub fn progress(&mut self) {
        (self.answered, self.unanswered, self.busy) = (true, 0, None);
        self.retries.reset();
    }
}

/// Repeats a call to the worker at `address` until it responds, or a retry makes no sense.
///
/// # Errors
/// The last status.
pub async fn with_retries<T, F>(client: &Client, address: &str, call: impl Fn() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<T, Status>>,
{
    let mut retries = FetchRetries::new(client.traffic().clone());
    let (_, peer) = client.service(address)?;
    loop {
        match peer.wait(call()).await {
            Ok(answer) => return Ok(answer),
            Err(status) if retries.wait_to_retry(&status, peer.batches()).await => {}
            Err(status) => return Err(status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_repeated_as_often_as_makes_sense() {
        /// What a request ends with.
        #[derive(Clone, Copy)]
        enum End {
            /// The status of a request without a response.
            Unanswered(Code),
            /// The status of a response that breaks, without a new batch.
            Broken(Code),
            /// The same after a new batch.
            AfterBatch(Code),
            /// A refusal at this second, when the holder has sent so many batches to other tasks.
            Busy(u64, u64),
        }
        use Code::{DataLoss, DeadlineExceeded, NotFound, ResourceExhausted, Unavailable};
        use End::{AfterBatch, Broken, Busy, Unanswered};
        // The ends of requests, and the number of the first one that is not repeated.
        let cases: &[(&str, &[End], Option<usize>)] = &[
            ("no holder", &[Unanswered(Unavailable); 5], Some(3)),
            ("a response that breaks", &[Broken(Unavailable); 3], Some(1)),
            ("breaks with progress between", &[AfterBatch(Unavailable); 3], Some(1)),
            ("a lost holder", &[Unanswered(DeadlineExceeded)], Some(0)),
            ("a missing output", &[Unanswered(NotFound)], Some(0)),
            ("unreadable data", &[AfterBatch(DataLoss)], Some(0)),
            ("a busy holder", &[Busy(1, 0), Busy(60, 0), Busy(120, 0), Busy(121, 0)], Some(3)),
            ("a slow holder", &[Busy(1, 0), Busy(100, 1), Busy(200, 2), Busy(310, 3)], None),
            (
                "a slow holder that then sends nothing",
                &[Busy(1, 0), Busy(100, 1), Busy(219, 1), Busy(220, 1)],
                Some(3),
            ),
            (
                "a holder that is busy after each batch",
                &[Busy(0, 0), AfterBatch(ResourceExhausted), Busy(121, 0)],
                None,
            ),
        ];
        for (name, ends, stops) in cases {
            let start = Instant::now();
            let mut retries = FetchRetries::new(Arc::default());
            let found = ends.iter().position(|end| {
                let (code, second, batches) = match *end {
                    Unanswered(code) | Broken(code) | AfterBatch(code) => (code, 110, 0),
                    Busy(second, batches) => (ResourceExhausted, second, batches),
                };
                match end {
                    Broken(_) => retries.answered = true,
                    AfterBatch(_) => retries.progress(),
                    Unanswered(_) | Busy(..) => {}
                }
                !retries.may_retry(code, start + Duration::from_secs(second), batches)
            });
            assert_eq!(found, *stops, "{name}");
        }
    }
}
