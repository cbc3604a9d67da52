//! The row groups of one file, opened in order. Small neighbouring row groups of an object store are fetched together,
//! because a request for the few bytes of one row group takes as long as a request for a hundred of them.
//!
//! Bounds of bytes and requests: deploy/docs/object-stores.md, "Requests and bytes".
//!
//! Not here: the requests that fetch given chunks (`fetch`), the next files (the map task).

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use parquet::file::metadata::ParquetMetaData;
use tally_dataset::TableSpec;

use crate::fetch::{self, Arrivals, Fetch};
use crate::source::{Carrier, OpenFile};
use crate::{Located, RowGroup, ScanContext, ScanError};

/// Maximum bytes of row groups that are fetched together. Transferring this many bytes takes longer than the latency of
/// a request, so larger fetches would save little.
const MAX_JOINT_BYTES: u64 = 1 << 20;
/// Maximum number of row groups that are fetched together. The readers of each take a few kilobytes.
const MAX_JOINT_GROUPS: usize = 128;
/// Row groups that need fewer bytes than this on average are tiny: a request per row group costs more than its bytes.
const TINY_GROUP_BYTES: u64 = 4 << 10;
/// Unneeded bytes that may be fetched per tiny row group. A request takes as long as ten times as many bytes.
const GAP_PER_TINY_GROUP: u64 = 8 << 10;
/// Minimum number of tiny row groups for which unneeded bytes are fetched. With fewer, a file of large columns could be
/// read almost whole for nothing.
const MIN_TINY_GROUPS: usize = 16;
/// Files of at least this size are read with few unneeded bytes, whatever their row groups are.
const LARGE_FILE: u64 = 64 << 20;

/// The row groups of a file that are not read yet.
pub struct RowGroups<'a> {
    context: &'a ScanContext,
    table: &'a TableSpec,
    file: Arc<OpenFile>,
    metadata: Arc<ParquetMetaData>,
    /// Their numbers in the file, and their indexes in `metadata`.
    numbers: Box<dyn Iterator<Item = (usize, usize)> + 'a>,
    /// The first of them that are already located, but did not fit into the previous fetch.
    located: VecDeque<Located<'a>>,
}

impl<'a> RowGroups<'a> {
    /// The given row groups of an open file, as pairs of the number in the file and the index in `metadata`.
    pub fn new(
        context: &'a ScanContext,
        table: &'a TableSpec,
        file: Arc<OpenFile>,
        metadata: Arc<ParquetMetaData>,
        numbers: Box<dyn Iterator<Item = (usize, usize)> + 'a>,
    ) -> Self {
        RowGroups { context, table, file, metadata, numbers, located: VecDeque::new() }
    }

    /// The open file of the row groups.
    #[inline]
    pub fn open_file(&self) -> &Arc<OpenFile> {
        &self.file
    }

    /// Opens the next row group, and those that are fetched together with it. Returns none if all are opened.
    ///
    /// # Errors
    /// [`ScanError`], naming file, row group and column.
    pub fn open_next(&mut self) -> Result<VecDeque<RowGroup<'a>>, ScanError> {
        let Some(first) = self.locate()? else { return Ok(VecDeque::new()) };
        let mut together = VecDeque::from([first]);
        if !matches!(self.file.carrier, Carrier::Store) {
            return together.into_iter().map(Located::open).collect();
        }
        let most = self.context.whole.min(MAX_JOINT_BYTES);
        let mut bytes = together[0].bytes();
        while together.len() < MAX_JOINT_GROUPS {
            let Some(next) = self.locate()? else { break };
            bytes += next.bytes();
            if bytes > most {
                self.located.push_front(next);
                break;
            }
            together.push_back(next);
        }
        if let Some(fetched) = self.fetch(&together) {
            return opened(together, fetched);
        }
        // The budget has no room for all of them, but perhaps for one. Otherwise its chunks are fetched in windows.
        let Some(first) = together.pop_front() else { return Ok(VecDeque::new()) };
        together.into_iter().rev().for_each(|later| self.located.push_front(later));
        let alone = VecDeque::from([first]);
        match self.fetch(&alone) {
            Some(fetched) => opened(alone, fetched),
            None => alone.into_iter().map(Located::open).collect(),
        }
    }

    fn locate(&mut self) -> Result<Option<Located<'a>>, ScanError> {
        if let Some(next) = self.located.pop_front() {
            return Ok(Some(next));
        }
        let Some((number, at)) = self.numbers.next() else { return Ok(None) };
        let (file, metadata) = (self.file.clone(), self.metadata.clone());
        RowGroup::locate(self.context, file, metadata, at, number, self.table).map(Some)
    }

    /// Starts to fetch the given row groups, if they are small enough and the budget has room for them.
    fn fetch(&self, groups: &VecDeque<Located<'a>>) -> Option<(Fetch, Vec<Arrivals>)> {
        let ScanContext { io, whole, budget, .. } = self.context;
        let chunks: Vec<_> = groups.iter().flat_map(Located::ranges).collect();
        if fetch::total(&chunks) > *whole {
            return None;
        }
        let requests = requests(&chunks, groups.len(), self.file.input.size);
        fetch::start(io, &self.file.input, &chunks, requests, budget)
    }
}

fn opened<'a>(
    groups: VecDeque<Located<'a>>,
    (fetch, arrivals): (Fetch, Vec<Arrivals>),
) -> Result<VecDeque<RowGroup<'a>>, ScanError> {
    let mut arrivals = arrivals.into_iter();
    groups.into_iter().map(|group| group.open_fetched(&fetch, &mut arrivals)).collect()
}

/// The requests that fetch some row groups of a file together. Unneeded bytes between chunks are fetched up to a 64th of
/// the needed ones; more only between many tiny row groups, and only if the requests would not all run at once then.
fn requests(chunks: &[Range<u64>], row_groups: usize, file_bytes: u64) -> Vec<Range<u64>> {
    let needed = fetch::total(chunks);
    let few = fetch::requests(chunks, needed / fetch::GAP_FRACTION);
    let count = row_groups as u64;
    let tiny = row_groups >= MIN_TINY_GROUPS && needed < count * TINY_GROUP_BYTES && file_bytes < LARGE_FILE;
    if !tiny || few.len() <= fetch::MAX_CONCURRENT {
        return few;
    }
    fetch::requests(chunks, count * GAP_PER_TINY_GROUP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Chunks of row groups that follow each other: the bytes before each chunk, and its own.
    fn layout(groups: &[Vec<(u64, u64)>]) -> Vec<Range<u64>> {
        let mut at = 4;
        let chunks = groups.iter().flatten().map(|&(gap, bytes)| {
            let start = at + gap;
            at = start + bytes;
            start..at
        });
        chunks.collect()
    }

    fn groups() -> impl Strategy<Value = Vec<Vec<(u64, u64)>>> {
        let gap = prop_oneof![2 => Just(0u64), 3 => 0..200u64, 1 => 0..20_000u64];
        let chunk = (gap, prop_oneof![0..300u64, 0..5000u64]);
        prop::collection::vec(prop::collection::vec(chunk, 1..5), 1..=MAX_JOINT_GROUPS)
    }

    proptest! {
        #[test]
        fn unneeded_bytes_and_requests_are_bounded(groups in groups(), size in 0..2 * LARGE_FILE) {
            let chunks = layout(&groups);
            let needed = fetch::total(&chunks);
            let (share, count) = (needed / fetch::GAP_FRACTION, groups.len() as u64);
            let (few, got) = (fetch::requests(&chunks, share), requests(&chunks, groups.len(), size));
            for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
                prop_assert!(got.iter().any(|got| got.start <= chunk.start && chunk.end <= got.end));
            }
            let unneeded = fetch::total(&got) - needed;
            prop_assert!(got.len() <= few.len());
            // A file that is large, row groups that are not tiny, and few requests have the strict bound.
            let may_pay = groups.len() >= MIN_TINY_GROUPS
                && needed < count * TINY_GROUP_BYTES
                && size < LARGE_FILE
                && few.len() > fetch::MAX_CONCURRENT;
            let most = if may_pay { count * GAP_PER_TINY_GROUP } else { share };
            prop_assert!(unneeded <= most, "{unneeded} of {most}, {needed} needed");
            // Requests remain only if the narrowest gap between them is wider than what may still be fetched.
            let gap = got.windows(2).map(|pair| pair[1].start - pair[0].end).min();
            prop_assert!(gap.is_none_or(|gap| unneeded + gap > most), "{gap:?} and {unneeded} of {most}");
        }
    }

    /// Requests of a file, and fetched bytes in hundredths of the needed ones.
    fn cost(row_groups: &[Vec<(u64, u64)>], file_bytes: u64) -> (usize, u64) {
        let (mut count, mut bytes, mut needed) = (0, 0, 0);
        for together in row_groups.chunks(MAX_JOINT_GROUPS) {
            let chunks = layout(together);
            let requests = requests(&chunks, together.len(), file_bytes);
            (count, bytes) = (count + requests.len(), bytes + fetch::total(&requests));
            needed += fetch::total(&chunks);
        }
        (count, bytes * 100 / needed)
    }

    #[test]
    fn a_file_of_row_groups_of_one_row_takes_few_requests_and_a_large_one_few_unneeded_bytes() {
        // Four needed chunks, and one in six bytes of a row group is not needed.
        let row_groups = vec![vec![(120, 200), (0, 150), (0, 150), (0, 100)]; 14_000];
        assert_eq!(cost(&row_groups, LARGE_FILE - 1), (110, 119));
        let (_, bytes) = cost(&row_groups, LARGE_FILE);
        assert!(bytes <= 101, "{bytes} %");
        // With nothing in between both have few requests.
        let row_groups = vec![vec![(0, 200), (0, 400)]; 14_000];
        assert_eq!(cost(&row_groups, LARGE_FILE), (110, 100));
        // Row groups of more than some rows are never read with many unneeded bytes.
        let row_groups = vec![vec![(3000, 6000), (0, 6000)]; 1000];
        assert!(cost(&row_groups, LARGE_FILE - 1).1 <= 101);
    }
}
