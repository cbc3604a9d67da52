//! Fetches the needed column chunks of one row group, or of small neighbouring ones, from an object store with few
//! requests. Neighbouring chunks share a request, large chunks take several, some requests run concurrently, and their
//! bytes are passed to the chunks' feeds in order.
//!
//! Not here: which row groups are fetched together (`joint`), chunks that are fetched in windows (`feed`).

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tally_common::budget::{Budget, Reservation};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::error::Fault;
use crate::source::InputFile;

/// Maximum bytes of a request.
const MAX_REQUEST_BYTES: u64 = 8 << 20;
/// Concurrent requests.
pub(crate) const MAX_CONCURRENT: usize = 4;
/// Unneeded bytes may be fetched to join requests, up to this fraction of the needed bytes: 1/64.
pub(crate) const GAP_FRACTION: u64 = 64;

/// A task that is aborted when the value is dropped.
#[derive(Debug)]
pub struct AbortOnDrop(AbortHandle);

impl AbortOnDrop {
    /// Runs `work` until it ends or the value is dropped.
    pub fn spawn(io: &Handle, work: impl Future<Output = ()> + Send + 'static) -> AbortOnDrop {
        AbortOnDrop(io.spawn(work).abort_handle())
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The bytes of one chunk, in order.
pub(crate) type Arrivals = mpsc::Receiver<Result<Bytes, Fault>>;

/// The sending end.
type Departures = mpsc::Sender<Result<Bytes, Fault>>;

/// Keeps a fetch alive. Shared by its chunks: the task, and its memory reservation.
#[derive(Debug, Clone)]
pub(crate) struct Fetch {
    _task: Arc<AbortOnDrop>,
    _held: Arc<Reservation>,
}

/// Bytes of some chunks.
pub(crate) fn total(chunks: &[Range<u64>]) -> u64 {
    chunks.iter().map(|chunk| chunk.end - chunk.start).sum()
}

/// Starts to fetch chunks of a file with these requests, which cover them. Returns `None` if `budget` has no room.
pub(crate) fn start(
    io: &Handle,
    file: &InputFile,
    chunks: &[Range<u64>],
    requests: Vec<Range<u64>>,
    budget: &Budget,
) -> Option<(Fetch, Vec<Arrivals>)> {
    let held = budget.try_reserve(usize::try_from(total(&requests)).ok()?)?;
    let mut senders = vec![];
    let mut arrivals = vec![];
    for chunk in chunks {
        let parts = requests.iter().filter(|request| overlap(request, chunk).is_some()).count();
        // The channel has room for all parts, so that a chunk that is read later does not block the others.
        let (sender, receiver) = mpsc::channel(parts.max(1));
        senders.push((chunk.clone(), sender));
        arrivals.push(receiver);
    }
    let file = file.clone();
    let got = futures::stream::iter(requests).map(move |request| {
        let file = file.clone();
        async move { (request.clone(), file.get(request).await) }
    });
    let task = AbortOnDrop::spawn(io, hand_out(got.buffered(MAX_CONCURRENT), senders));
    Some((Fetch { _task: Arc::new(task), _held: Arc::new(held) }, arrivals))
}

async fn hand_out(
    mut got: impl Stream<Item = (Range<u64>, Result<Bytes, Fault>)> + Unpin,
    chunks: Vec<(Range<u64>, Departures)>,
) {
    while let Some((request, bytes)) = got.next().await {
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(fault) => {
                // Chunks are not decoded in file order, so all readers get the error. A chunk that is complete has no
                // room in its channel, and needs no error.
                for (_, sender) in &chunks {
                    let _ = sender.try_send(Err(fault.duplicate()));
                }
                return;
            }
        };
        for (chunk, sender) in &chunks {
            let Some(part) = overlap(&request, chunk) else { continue };
            let (from, to) = (part.start - request.start, part.end - request.start);
            // The reader of a chunk may be dropped.
            let _ = sender.send(Ok(bytes.slice(from as usize..to as usize))).await;
        }
    }
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> Option<Range<u64>> {
    let both = a.start.max(b.start)..a.end.min(b.end);
    (!both.is_empty()).then_some(both)
}

/// The ranges to request: chunks in file order, joined over the smallest gaps as long as these have at most
/// `max_gap_bytes` in total, and split if they are large.
pub(crate) fn requests(chunks: &[Range<u64>], max_gap_bytes: u64) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = chunks.iter().filter(|chunk| !chunk.is_empty()).cloned().collect();
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    let mut gaps: Vec<u64> =
        ranges.windows(2).map(|pair| pair[1].start.saturating_sub(pair[0].end)).collect();
    gaps.sort_unstable();
    let mut left = max_gap_bytes;
    // If several gaps have the maximum width, perhaps only some of them can be bridged.
    let (mut widest, mut of_widest) = (0, 0);
    for gap in gaps {
        let Some(rest) = left.checked_sub(gap) else { break };
        (left, of_widest) = (rest, if gap == widest { of_widest + 1 } else { 1 });
        widest = gap;
    }
    let mut joined: Vec<Range<u64>> = vec![];
    for range in ranges {
        let gap = joined.last().map(|last| range.start.saturating_sub(last.end));
        match (joined.last_mut(), gap) {
            (Some(last), Some(gap)) if gap == 0 || gap < widest || gap == widest && of_widest > 0 => {
                of_widest -= u32::from(gap > 0 && gap == widest);
                last.end = last.end.max(range.end);
            }
            _ => joined.push(range),
        }
    }
    let cut = |range: Range<u64>| {
        let parts = (range.end - range.start).div_ceil(MAX_REQUEST_BYTES);
        let size = (range.end - range.start).div_ceil(parts);
        (0..parts).map(move |part| {
            let start = range.start + part * size;
            start..range.end.min(start + size)
        })
    };
    joined.into_iter().flat_map(cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use object_store::{ObjectStore, ObjectStoreExt};

    #[test]
    fn chunks_share_requests_if_the_gaps_are_small() {
        const M: u64 = 1 << 20;
        let requests = |chunks: &[Range<u64>]| requests(chunks, total(chunks) / GAP_FRACTION);
        assert_eq!(requests(&[]), vec![]);
        assert_eq!(requests(&[4..100, 100..164]), vec![4..164]);
        assert_eq!(requests(&[100..164, 4..100]), vec![4..164]);
        // A gap of two bytes is bridged, a gap of three is not.
        assert_eq!(requests(&[0..64, 66..130]), vec![0..130]);
        assert_eq!(requests(&[0..64, 67..131]), vec![0..64, 67..131]);
        // Only the smaller of two gaps is bridged.
        assert_eq!(requests(&[0..100, 103..203, 205..300]), vec![0..100, 103..300]);
        // Of two gaps of the same width one is bridged, and each narrower one.
        assert_eq!(super::requests(&[0..1, 7..8, 14..15, 19..20], 10), vec![0..8, 14..20]);
        // Chunks may overlap.
        assert_eq!(super::requests(&[0..100, 10..20, 30..40, 150..160], 9), vec![0..100, 150..160]);
        assert_eq!(requests(&[0..9 * M, 9 * M..17 * M]).len(), 3);
        for chunks in [vec![0..17 * M, 18 * M..30 * M], vec![5..5 + M, 5 + M..9 * M, 90 * M..90 * M + 1]] {
            let requests = requests(&chunks);
            assert!(
                requests.iter().all(|r| !r.is_empty() && r.end - r.start <= MAX_REQUEST_BYTES),
                "{requests:?}"
            );
            assert!(total(&requests) <= total(&chunks) + total(&chunks) / GAP_FRACTION);
            for chunk in chunks {
                let covered: u64 =
                    requests.iter().filter_map(|r| overlap(r, &chunk)).map(|r| r.end - r.start).sum();
                assert_eq!(covered, chunk.end - chunk.start);
            }
        }
    }

    #[test]
    fn each_chunk_gets_its_bytes_in_order_and_memory_is_released() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let bytes: Vec<u8> = (0..20_000_000u32).map(|at| (at / 7) as u8).collect();
        let path = Path::from("x");
        runtime.block_on(store.put(&path, bytes.clone().into())).unwrap();
        let file = runtime.block_on(InputFile::head(store, path, "mem://x".into())).unwrap();
        let budget = Budget::new(40_000_000);
        let chunks = [10..12_000_000, 12_000_000..12_000_010, 13_000_000..20_000_000];
        let (fetch, arrivals) =
            start(runtime.handle(), &file, &chunks, requests(&chunks, 0), &budget).unwrap();
        assert!(budget.used() >= total(&chunks));
        for (chunk, mut arrivals) in chunks.iter().zip(arrivals) {
            let mut found = vec![];
            while found.len() < (chunk.end - chunk.start) as usize {
                found.extend_from_slice(&arrivals.blocking_recv().unwrap().unwrap());
            }
            assert!(found == bytes[chunk.start as usize..chunk.end as usize]);
        }
        drop(fetch);
        assert_eq!(budget.used(), 0);
        let small = Budget::new(1000);
        assert!(start(runtime.handle(), &file, &chunks, requests(&chunks, 0), &small).is_none());
    }

    #[test]
    fn a_failed_request_is_reported_to_all_chunks() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let path = Path::from("x");
        runtime.block_on(store.put(&path, vec![0; 1000].into())).unwrap();
        let mut file = runtime.block_on(InputFile::head(store, path, "mem://x".into())).unwrap();
        file.etag = Some("another".into());
        let budget = Budget::new(10_000);
        let chunks = [0..10, 500..510, 990..1000];
        let (_fetch, arrivals) =
            start(runtime.handle(), &file, &chunks, requests(&chunks, 0), &budget).unwrap();
        for mut arrivals in arrivals {
            let fault = arrivals.blocking_recv().unwrap().unwrap_err();
            assert!(matches!(fault, Fault::Changed(_)), "{fault:?}");
        }
    }
}
