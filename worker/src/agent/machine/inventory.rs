//! The inventory of a worker, split into pages. It is the second message on each new stream.
//!
//! Not here: which attempts run and which outputs are held (`tasks`).

use std::collections::BTreeSet;
use std::iter::Peekable;

use prost::Message;
use tally_proto::limits::{LIST_BYTES, entry_len};
use tally_proto::{AttemptId, v1};

use super::outbox::check_result;

/// Default maximum bytes of a page, unless a single entry is larger. An entry is never larger than a message.
pub const PAGE_BYTES: usize = LIST_BYTES;

type Outputs = Box<dyn Iterator<Item = v1::HeldOutput> + Send>;
type Running = Box<dyn Iterator<Item = v1::Attempt> + Send>;

/// The pages of an inventory, created as they are sent. There is at least one.
pub struct Pages {
    outputs: Peekable<Outputs>,
    running: Peekable<Running>,
    page_bytes: usize,
    ended: bool,
}

/// The outputs whose results fit into a message. The others were reported as failures and are not used.
pub(super) fn reportable(mut outputs: Vec<(AttemptId, v1::TaskResult)>) -> Vec<(AttemptId, v1::TaskResult)> {
    outputs.retain(|(attempt, result)| check_result(attempt, result).is_ok());
    outputs
}

impl Pages {
    /// The pages of these outputs and running attempts, of up to `page_bytes` each.
    pub fn new(
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

    /// Whether the last page was returned.
    pub fn ended(&self) -> bool {
        self.ended
    }
}

/// Moves entries to the page until it is full. Returns whether it is full.
fn fill<T: Message>(
    from: &mut Peekable<impl Iterator<Item = T>>,
    to: &mut Vec<T>,
    bytes: &mut usize,
    most: usize,
) -> bool {
    // Both lists have tags of one byte.
    let size = |entry: &T| entry_len(1, entry);
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

    /// Bytes of three outputs and two running attempts in a page.
    const PAGE_ENTRIES: usize = 229;

    fn check(outputs: u32, running: u32, page_bytes: usize, pages: usize) {
        let result = v1::MapResult {
            rows: 1 << 40,
            bytes_read: 1 << 40,
            partials: 7,
            shuffle_bytes: 7,
            ..Default::default()
        };
        let result = v1::TaskResult { result: Some(v1::task_result::Result::Map(result)), usage: None };
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
        for (page_bytes, pages) in [(PAGE_ENTRIES - 1, 2), (PAGE_ENTRIES, 1), (PAGE_ENTRIES + 1, 1)] {
            check(3, 2, page_bytes, pages);
        }
        // An entry that is larger than a page gets its own page.
        check(3, 0, 20, 3);
    }

    #[test]
    fn outputs_whose_results_do_not_fit_into_a_message_are_not_listed() {
        let output = |index: u32, bytes: usize| {
            let result = v1::WriteResult { parts: vec!["x".repeat(bytes)], ..Default::default() };
            let result = v1::TaskResult { result: Some(v1::task_result::Result::Write(result)), usage: None };
            (attempt(index), result)
        };
        let most = tally_proto::MESSAGE_BYTES - 1024;
        let outputs = vec![output(0, 9), output(1, most), output(2, most + 2048), output(3, 9)];
        let listed = reportable(outputs);
        assert_eq!(listed.iter().map(|(id, _)| id.task.index).collect::<Vec<_>>(), [0, 1, 3]);
        let pages: Vec<_> = Pages::new(listed, BTreeSet::new(), PAGE_BYTES).collect();
        assert_eq!(pages.iter().map(|page| page.outputs.len()).collect::<Vec<_>>(), [1, 1, 1]);
        for page in pages {
            let message = v1::worker_message::Message::Inventory(page);
            let message = v1::WorkerMessage { message: Some(message) };
            assert!(message.encoded_len() <= tally_proto::MESSAGE_BYTES);
        }
    }
}
