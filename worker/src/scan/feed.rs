//! The bytes of a column chunk, in order and in windows of bounded size.
//!
//! Two carriers. Files of this machine are read by the decoder's own thread into one buffer that is
//! used again, while the kernel is told what comes next. Of other stores windows are fetched on the
//! I/O runtime, and the decoder's thread blocks on a bounded channel: at most three windows of a
//! chunk are held, one being decoded, one waiting, one on its way. Which of the two a file needs is
//! decided where it is opened (`source`).

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::ScanContext;
use super::error::Fault;
use super::fetch::{Arrivals, Fetch, Task};
use super::source::{Carrier, DiskFile, InputFile, OpenFile};

/// A chunk's bytes in order.
pub(crate) enum Feed {
    Disk(DiskFeed),
    Store(StoreFeed),
}

impl Feed {
    /// Starts reading `range` of `file` in windows of the context's size.
    pub(crate) fn start(context: &ScanContext, file: &Arc<OpenFile>, range: Range<u64>) -> Feed {
        let window = context.window.max(1);
        match &file.carrier {
            Carrier::Disk(disk) => Feed::Disk(DiskFeed::start(disk.clone(), range, window)),
            Carrier::Store => Feed::Store(StoreFeed::windows(context, file.input.clone(), range, window)),
        }
    }

    /// A chunk of `bytes` whose bytes are on their way.
    pub(crate) fn fetched(context: &ScanContext, bytes: u64, arrivals: Arrivals, fetch: Fetch) -> Feed {
        Feed::Store(StoreFeed::new(context, bytes, arrivals, Source::Fetch(fetch)))
    }

    /// Bytes not yet taken.
    pub(crate) fn remaining(&self) -> u64 {
        match self {
            Feed::Disk(feed) => feed.unread.end - feed.unread.start + feed.held.len() as u64,
            Feed::Store(feed) => feed.unreceived + feed.current.len() as u64,
        }
    }

    /// Lets the chunk go on: `more` of `file` is behind what it had.
    pub(crate) fn extend(&mut self, file: &OpenFile, more: Range<u64>) -> Result<(), Fault> {
        match self {
            Feed::Disk(feed) => feed.unread.end += more.end - more.start,
            Feed::Store(feed) => {
                feed.unreceived += more.end - more.start;
                feed.tail = feed.io.block_on(file.input.get(more))?;
            }
        }
        Ok(())
    }

    /// What is there, at least `bytes` of it if the chunk has so many left.
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

    /// Takes the next `bytes`, which must remain; they stay readable until the next call.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<&[u8], Fault> {
        if bytes as u64 > self.remaining() {
            return Fault::corrupt("a page reaches beyond its column chunk");
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

/// Bytes of a column chunk that the kernel is told to expect. A window alone keeps no disk busy: files that are not
/// in the page cache came at a third of the rate that the same disk has for `cat`.
const EXPECTED: u64 = 8 << 20;

/// Of a file on this machine.
pub(crate) struct DiskFeed {
    file: Arc<DiskFile>,
    /// What of the file is still to be read.
    unread: Range<u64>,
    /// Up to where the kernel was told to expect reads.
    expected: u64,
    window: u64,
    buffer: Vec<u8>,
    /// What of the buffer is read and not yet taken.
    held: Range<usize>,
}

impl DiskFeed {
    fn start(file: Arc<DiskFile>, range: Range<u64>, window: u64) -> Self {
        let mut feed =
            DiskFeed { file, expected: range.start, unread: range, window, buffer: vec![], held: 0..0 };
        feed.expect();
        feed
    }

    /// Tells the kernel of more when half of what it was told is read.
    fn expect(&mut self) {
        let until = self.unread.end.min(self.unread.start.saturating_add(EXPECTED));
        let from = self.expected.max(self.unread.start);
        if until > from && from <= self.unread.start.saturating_add(EXPECTED / 2) {
            self.file.expect(from..until);
            self.expected = until;
        }
    }

    /// Makes at least `bytes` readable, or all that is left.
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
            // A page larger than a window is read; its memory is not this feed's any more.
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

/// How often a wait for bytes looks whether the task was told to stop.
const LOOK: Duration = Duration::from_millis(100);

/// Of a file in an object store.
pub(crate) struct StoreFeed {
    io: Handle,
    cancelled: Arc<AtomicBool>,
    arrivals: Arrivals,
    current: Bytes,
    taken: Bytes,
    /// Bytes of the chunk not yet received, the last of which are `tail`.
    unreceived: u64,
    tail: Bytes,
    _source: Source,
}

/// What brings the bytes; it ends with its readers.
enum Source {
    Windows(#[expect(dead_code)] Task),
    Fetch(#[expect(dead_code)] Fetch),
}

impl StoreFeed {
    fn new(context: &ScanContext, bytes: u64, arrivals: Arrivals, source: Source) -> Self {
        StoreFeed {
            io: context.io.clone(),
            cancelled: context.cancelled.clone(),
            arrivals,
            current: Bytes::new(),
            taken: Bytes::new(),
            unreceived: bytes,
            tail: Bytes::new(),
            _source: source,
        }
    }

    fn windows(context: &ScanContext, file: InputFile, range: Range<u64>, window: u64) -> Self {
        let (sender, arrivals) = mpsc::channel(1);
        let bytes = range.end - range.start;
        let task = Task::spawn(&context.io, async move {
            let mut at = range.start;
            while at < range.end {
                let end = range.end.min(at + window);
                let bytes = file.get(at..end).await;
                let failed = bytes.is_err();
                // The decoder gone means that nobody needs the rest.
                if sender.send(bytes).await.is_err() || failed {
                    return;
                }
                at = end;
            }
        });
        StoreFeed::new(context, bytes, arrivals, Source::Windows(task))
    }

    fn receive(&mut self) -> Result<Bytes, Fault> {
        if self.unreceived == self.tail.len() as u64 {
            self.unreceived = 0;
            return Ok(std::mem::take(&mut self.tail));
        }
        let arrived = loop {
            if let Ok(arrived) = self.arrivals.try_recv() {
                break Some(arrived);
            }
            match self.io.block_on(async { timeout(LOOK, self.arrivals.recv()).await }) {
                Ok(arrived) => break arrived,
                Err(_) if self.cancelled.load(Ordering::Relaxed) => return Err(Fault::Cancelled),
                Err(_) => {}
            }
        };
        let window =
            arrived.unwrap_or_else(|| Err(Fault::Io("the fetching task ended before its chunk".into())))?;
        self.unreceived = self.unreceived.saturating_sub(window.len() as u64);
        Ok(window)
    }

    /// Makes at least `bytes` readable, or all that is left.
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
