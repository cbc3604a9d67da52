//! What a worker has, cut into pages: the second thing that it says on each new stream.

use std::collections::BTreeSet;
use std::iter::Peekable;

use prost::Message;
use tally_proto::{AttemptId, v1};

use super::outbox::Outbox;
use crate::runner::Worker;

/// Bytes of a page, at most, unless one entry alone has more.
pub const PAGE_BYTES: usize = 1 << 20;

type Outputs = Box<dyn Iterator<Item = v1::HeldOutput> + Send>;
type Running = Box<dyn Iterator<Item = v1::Attempt> + Send>;

/// The pages of an inventory, made as they are sent; there is always at least one.
pub struct Pages {
    outputs: Peekable<Outputs>,
    running: Peekable<Running>,
    page_bytes: usize,
    ended: bool,
}

/// Takes stock. An attempt is either an output, or it runs, or its end is yet to be told; in the
/// two latter cases it is said to run, and its end follows.
pub fn take(worker: &Worker, outbox: &Outbox) -> Pages {
    // In this order: who ends in between is found at least once.
    let mut running: BTreeSet<AttemptId> = worker.running().into_iter().collect();
    let outputs = worker.store().inventory();
    let listed = |attempt: &AttemptId| outputs.binary_search_by(|(held, _)| held.cmp(attempt)).is_ok();
    running.extend(outbox.untold(listed));
    running.retain(|attempt| !listed(attempt));
    Pages::new(outputs, running, PAGE_BYTES)
}

impl Pages {
    fn new(
        outputs: Vec<(AttemptId, v1::TaskResult)>,
        running: BTreeSet<AttemptId>,
        page_bytes: usize,
    ) -> Self {
        let held = |(attempt, result): (AttemptId, v1::TaskResult)| v1::HeldOutput {
            attempt: Some((&attempt).into()),
            result: Some(result),
        };
        let outputs: Outputs = Box::new(outputs.into_iter().map(held));
        let running: Running = Box::new(running.into_iter().map(|attempt| (&attempt).into()));
        Pages { outputs: outputs.peekable(), running: running.peekable(), page_bytes, ended: false }
    }

    /// Whether the last page was given.
    pub fn ended(&self) -> bool {
        self.ended
    }
}

/// Moves entries to the page until it is full. Whether it is.
fn fill<T: Message>(
    from: &mut Peekable<impl Iterator<Item = T>>,
    to: &mut Vec<T>,
    bytes: &mut usize,
    most: usize,
) -> bool {
    // Each entry has a tag and its length before it.
    let size = |entry: &T| entry.encoded_len() + 6;
    while let Some(next) = from.peek().map(size) {
        if *bytes > 0 && *bytes + next > most {
            return true;
        }
        *bytes += next;
        to.extend(from.next());
    }
    false
}

impl Iterator for Pages {
    type Item = v1::Inventory;

    fn next(&mut self) -> Option<v1::Inventory> {
        if self.ended {
            return None;
        }
        let mut page = v1::Inventory::default();
        let mut bytes = 0;
        let full = fill(&mut self.outputs, &mut page.outputs, &mut bytes, self.page_bytes)
            || fill(&mut self.running, &mut page.running, &mut bytes, self.page_bytes);
        self.ended = !full;
        page.last = !full;
        Some(page)
    }
}

#[cfg(test)]
mod tests {
    use tally_proto::{JobId, StageId, TaskId};

    use super::*;

    fn attempt(index: u32) -> AttemptId {
        let job = JobId::parse("20170227-18f0-1a2b-0").unwrap();
        AttemptId { task: TaskId { job, stage: StageId(1), index }, attempt: 4096 }
    }

    fn check(outputs: u32, running: u32, page_bytes: usize, pages: usize) {
        let result =
            v1::MapResult { rows: 1 << 40, bytes_read: 1 << 40, partials: 7, shuffle_bytes: 7, sums: None };
        let result = v1::TaskResult { result: Some(v1::task_result::Result::Map(result)) };
        let outputs: Vec<_> = (0..outputs).map(|index| (attempt(index), result.clone())).collect();
        let running: BTreeSet<_> = (0..running).map(|index| attempt(1_000_000 + index)).collect();
        let made: Vec<_> = Pages::new(outputs.clone(), running.clone(), page_bytes).collect();
        assert_eq!(made.len(), pages);
        let entry = 60;
        assert!(made.iter().all(|page| page.encoded_len() <= page_bytes.max(entry) + 2));
        assert!(made.iter().rev().skip(1).all(|page| !page.last) && made.last().unwrap().last);
        let held = made.iter().flat_map(|page| &page.outputs);
        let held: Vec<_> = held.map(|held| held.attempt.clone().unwrap()).collect();
        assert_eq!(held, outputs.iter().map(|(id, _)| id.into()).collect::<Vec<v1::Attempt>>());
        let runs: Vec<_> = made.iter().flat_map(|page| &page.running).cloned().collect();
        assert_eq!(runs, running.iter().map(Into::into).collect::<Vec<v1::Attempt>>());
    }

    #[test]
    fn pages_hold_everything_once_and_none_is_too_large() {
        check(0, 0, PAGE_BYTES, 1);
        check(3, 2, PAGE_BYTES, 1);
        check(20_000, 8, PAGE_BYTES, 2);
        check(10, 10, 400, 3);
        // An entry that is larger than a page has one of its own.
        check(3, 0, 20, 3);
    }
}
