//! The row groups of one file, opened in order. Small neighbouring row groups of an object store are fetched together,
//! because a request for the few bytes of one row group takes as long as a request for a hundred of them.
//!
//! Not here: the requests that fetch given chunks (`fetch`), the next files (the map task).

use std::collections::VecDeque;
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
        let bytes = fetch::total(&chunks);
        let max_gap_bytes = max_gap_bytes(bytes, groups.len(), self.file.input.size);
        (bytes <= *whole)
            .then(|| fetch::start(io, &self.file.input, &chunks, max_gap_bytes, budget))
            .flatten()
    }
}

fn opened<'a>(
    groups: VecDeque<Located<'a>>,
    (fetch, arrivals): (Fetch, Vec<Arrivals>),
) -> Result<VecDeque<RowGroup<'a>>, ScanError> {
    let mut arrivals = arrivals.into_iter();
    groups.into_iter().map(|group| group.open_fetched(&fetch, &mut arrivals)).collect()
}

/// Unneeded bytes that may be fetched so that the needed bytes of some row groups of a file share requests.
fn max_gap_bytes(needed: u64, row_groups: usize, file_bytes: u64) -> u64 {
    let count = row_groups as u64;
    let tiny = row_groups >= MIN_TINY_GROUPS && needed < count * TINY_GROUP_BYTES && file_bytes < LARGE_FILE;
    if tiny { count * GAP_PER_TINY_GROUP } else { needed / fetch::GAP_FRACTION }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_unneeded_bytes_are_fetched_only_between_many_tiny_row_groups_of_small_files() {
        let max_gap_bytes = |needed, groups| super::max_gap_bytes(needed, groups, LARGE_FILE - 1);
        assert_eq!(max_gap_bytes(0, 0), 0);
        assert_eq!(max_gap_bytes(100 * 500, 100), 100 * GAP_PER_TINY_GROUP);
        assert_eq!(max_gap_bytes(1000, MIN_TINY_GROUPS - 1), 1000 / 64);
        assert_eq!(max_gap_bytes(TINY_GROUP_BYTES * 100, 100), TINY_GROUP_BYTES * 100 / 64);
        assert_eq!(max_gap_bytes(MAX_JOINT_BYTES, 1), MAX_JOINT_BYTES / 64);
        assert_eq!(super::max_gap_bytes(100 * 500, 100, LARGE_FILE), 100 * 500 / 64);
    }
}
