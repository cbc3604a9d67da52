//! The bytes of a column chunk, in order and in windows of bounded size.
//!
//! There are three carriers. A file that was fetched whole is in memory. A local file is read by the decoder's own
//! thread into one reused buffer, with read-ahead hints to the kernel. A file of an object store is fetched in windows
//! on the I/O runtime, and the decoder's thread waits on a bounded channel: at most three windows of a chunk are in
//! memory, one being decoded, one waiting, and one being fetched. `source` decides which carrier a file needs.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tally_common::waits::{self, WaitKind};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::ScanContext;
use crate::error::Fault;
use crate::fetch::{AbortOnDrop, Arrivals, Fetch};
use crate::source::{Carrier, DiskFile, InputFile, OpenFile};

/// The bytes of a column chunk in order.
pub(crate) enum Feed {
    Disk(DiskFeed),
    Store(StoreFeed),
}

impl Feed {
    /// Starts to read `range` of `file` in windows of the context's size.
    pub(crate) fn start(context: &ScanContext, file: &Arc<OpenFile>, range: Range<u64>) -> Feed {
        let window = context.window.max(1);
        match &file.carrier {
            Carrier::Disk(disk) => Feed::Disk(DiskFeed::start(disk.clone(), range, window)),
            Carrier::Store => Feed::Store(StoreFeed::windows(context, file.input.clone(), range, window)),
            Carrier::Whole(whole) => {
                let bytes = whole.bytes.slice(range.start as usize..range.end as usize);
                Feed::Store(StoreFeed::held(context, bytes))
            }
        }
    }

    /// A chunk of `bytes` bytes of the file `name` that are being fetched.
    pub(crate) fn fetched(
        context: &ScanContext,
        name: &str,
        bytes: u64,
        arrivals: Arrivals,
        fetch: Fetch,
    ) -> Feed {
        Feed::Store(StoreFeed::new(context, name, bytes, arrivals, Source::Fetch(fetch)))
    }

    /// Bytes not yet taken.
    pub(crate) fn remaining(&self) -> u64 {
        match self {
            Feed::Disk(feed) => feed.unread.end - feed.unread.start + feed.held.len() as u64,
            Feed::Store(feed) => feed.unreceived + feed.current.len() as u64,
        }
    }

    /// Extends the chunk by the range `more` of `file`, which follows it.
    pub(crate) fn extend(&mut self, file: &OpenFile, more: Range<u64>) -> Result<(), Fault> {
        match self {
            Feed::Disk(feed) => feed.unread.end += more.end - more.start,
            Feed::Store(feed) => {
                feed.unreceived += more.end - more.start;
                feed.tail = file.get(&feed.io, more)?;
            }
        }
        Ok(())
    }

    /// The available bytes: at least `bytes`, if that many remain in the chunk.
    pub(crate) fn peek(&mut self, bytes: usize) -> Result<&[u8], Fault> {
        match self {
            Feed::Disk(feed) => {
                feed.fill(bytes)?;
                Ok(&feed.buffer[feed.held.clone()])
            }
            Feed::Store(feed) => {
                feed.fill(bytes)?;
                Ok(&feed.current)
            }
        }
    }

    /// Takes the next `bytes`, which must remain. They stay readable until the next call.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<&[u8], Fault> {
        if bytes as u64 > self.remaining() {
            return Fault::corrupt("a page extends beyond its column chunk");
        }
        match self {
            Feed::Disk(feed) => {
                feed.fill(bytes)?;
                let start = feed.held.start;
                feed.held.start += bytes;
                Ok(&feed.buffer[start..start + bytes])
            }
            Feed::Store(feed) => {
                feed.fill(bytes)?;
                feed.taken = feed.current.split_to(bytes);
                Ok(&feed.taken)
            }
        }
    }
}

/// Bytes of a column chunk that are announced to the kernel as read-ahead. With single windows, files that are not in
/// the page cache are read at a third of the disk's rate.
const READ_AHEAD: u64 = 8 << 20;

/// Feed of a local file.
pub(crate) struct DiskFeed {
    file: Arc<DiskFile>,
    /// The part of the file that is not read yet.
    unread: Range<u64>,
    /// Offset up to which reads are announced to the kernel.
    expected: u64,
    window: u64,
    buffer: Vec<u8>,
    /// The part of the buffer that is read and not yet taken.
    held: Range<usize>,
}

impl DiskFeed {
    fn start(file: Arc<DiskFile>, range: Range<u64>, window: u64) -> Self {
        let mut feed =
            DiskFeed { file, expected: range.start, unread: range, window, buffer: vec![], held: 0..0 };
        feed.expect();
        feed
    }

    /// Announces more reads to the kernel when half of the announced bytes are read.
    fn expect(&mut self) {
        let until = self.unread.end.min(self.unread.start.saturating_add(READ_AHEAD));
        let from = self.expected.max(self.unread.start);
        if until > from && from <= self.unread.start.saturating_add(READ_AHEAD / 2) {
            self.file.expect(from..until);
            self.expected = until;
        }
    }

    /// Makes at least `bytes` readable, or all that remain.
    fn fill(&mut self, bytes: usize) -> Result<(), Fault> {
        if self.held.len() >= bytes || self.unread.is_empty() {
            return Ok(());
        }
        self.buffer.copy_within(self.held.clone(), 0);
        self.held = 0..self.held.len();
        let left = self.unread.end - self.unread.start;
        let all = left.saturating_add(self.held.len() as u64);
        let room = (bytes as u64).max(self.window).min(all) as usize;
        if self.buffer.len() < room {
            self.buffer.resize(room, 0);
        } else if self.buffer.len() as u64 > self.window && room as u64 <= self.window {
            // The page that was larger than a window is read, so its memory is released.
            self.buffer.truncate(self.window as usize);
            self.buffer.shrink_to_fit();
        }
        let more = left.min((self.buffer.len() - self.held.end) as u64);
        let at = self.unread.start;
        self.file.read(at, &mut self.buffer[self.held.end..][..more as usize])?;
        self.held.end += more as usize;
        self.unread.start += more;
        self.expect();
        Ok(())
    }
}

/// Feed of a file in an object store.
pub(crate) struct StoreFeed {
    io: Handle,
    cancelled: CancellationToken,
    /// The name of the file.
    name: String,
    arrivals: Arrivals,
    current: Bytes,
    taken: Bytes,
    /// Bytes of the chunk not yet received. The last of them are `tail`.
    unreceived: u64,
    tail: Bytes,
    _source: Source,
}

/// The task that delivers the bytes. It is aborted when its readers are dropped.
enum Source {
    Windows(#[expect(dead_code)] AbortOnDrop),
    Fetch(#[expect(dead_code)] Fetch),
    /// All bytes are in memory.
    Held,
}

impl StoreFeed {
    fn new(context: &ScanContext, name: &str, bytes: u64, arrivals: Arrivals, source: Source) -> Self {
        StoreFeed {
            io: context.io.clone(),
            cancelled: context.cancelled.clone(),
            name: name.into(),
            arrivals,
            current: Bytes::new(),
            taken: Bytes::new(),
            unreceived: bytes,
            tail: Bytes::new(),
            _source: source,
        }
    }

    fn held(context: &ScanContext, bytes: Bytes) -> Self {
        let (_, arrivals) = mpsc::channel(1);
        StoreFeed { current: bytes, ..StoreFeed::new(context, "", 0, arrivals, Source::Held) }
    }

    fn windows(context: &ScanContext, file: InputFile, range: Range<u64>, window: u64) -> Self {
        let (sender, arrivals) = mpsc::channel(1);
        let bytes = range.end - range.start;
        let name = file.name.clone();
        let task = AbortOnDrop::spawn(&context.io, async move {
            let mut at = range.start;
            while at < range.end {
                let end = range.end.min(at + window);
                let bytes = file.get(at..end).await;
                let failed = bytes.is_err();
                // The decoder was dropped, so the rest is not needed.
                if sender.send(bytes).await.is_err() || failed {
                    return;
                }
                at = end;
            }
        });
        StoreFeed::new(context, &name, bytes, arrivals, Source::Windows(task))
    }

    fn receive(&mut self) -> Result<Bytes, Fault> {
        if self.unreceived == self.tail.len() as u64 {
            self.unreceived = 0;
            return Ok(std::mem::take(&mut self.tail));
        }
        let arrived = match self.arrivals.try_recv() {
            Ok(arrived) => Some(arrived),
            Err(_) => {
                let _waiting = waits::begin(WaitKind::Store, &self.name);
                self.io.block_on(async {
                    tokio::select! {
                        biased;
                        arrived = self.arrivals.recv() => Ok(arrived),
                        () = self.cancelled.cancelled() => Err(Fault::Cancelled),
                    }
                })?
            }
        };
        let window =
            arrived.unwrap_or_else(|| Err(Fault::Io("the fetching task ended before its chunk".into())))?;
        self.unreceived = self.unreceived.saturating_sub(window.len() as u64);
        Ok(window)
    }

    /// Makes at least `bytes` readable, or all that remain.
    fn fill(&mut self, bytes: usize) -> Result<(), Fault> {
        if self.current.is_empty() && bytes > 0 && self.unreceived > 0 {
            self.current = self.receive()?;
        }
        if self.current.len() < bytes && self.unreceived > 0 {
            let wanted = (bytes as u64).min(self.unreceived + self.current.len() as u64) as usize;
            let mut joined = Vec::with_capacity(wanted);
            joined.extend_from_slice(&self.current);
            while joined.len() < wanted {
                joined.extend_from_slice(&self.receive()?);
            }
            self.current = joined.into();
        }
        Ok(())
    }
}
