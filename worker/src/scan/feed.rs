//! The bytes of a column chunk, in order and in windows of bounded size.
//!
//! Two carriers. Files of this machine are read by the decoder's own thread into one buffer that is
//! used again, while the kernel is told what comes next. Of other stores windows are fetched on the
//! I/O runtime, and the decoder's thread blocks on a bounded channel: at most three windows of a
//! chunk are held, one being decoded, one waiting, one on its way. Which of the two a file needs is
//! decided where it is opened (`source`).

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::error::Fault;
use super::source::{Carrier, DiskFile, InputFile, OpenFile};

/// A chunk's bytes in order.
pub(crate) enum Feed {
    Disk(DiskFeed),
    Store(StoreFeed),
}

impl Feed {
    /// Starts reading `range` of `file` in windows of `window` bytes.
    pub(crate) fn start(io: &Handle, file: &Arc<OpenFile>, range: Range<u64>, window: u64) -> Feed {
        let window = window.max(1);
        match &file.carrier {
            Carrier::Disk(disk) => Feed::Disk(DiskFeed::start(disk.clone(), range, window)),
            Carrier::Store => Feed::Store(StoreFeed::start(io, file.input.clone(), range, window)),
        }
    }

    /// Bytes not yet taken.
    pub(crate) fn remaining(&self) -> u64 {
        match self {
            Feed::Disk(feed) => feed.unread.end - feed.unread.start + feed.held.len() as u64,
            Feed::Store(feed) => feed.unreceived + feed.current.len() as u64,
        }
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

/// Of a file in an object store.
pub(crate) struct StoreFeed {
    windows: mpsc::Receiver<Result<Bytes, Fault>>,
    current: Bytes,
    taken: Bytes,
    /// Bytes of the chunk not yet received.
    unreceived: u64,
}

impl StoreFeed {
    fn start(io: &Handle, file: InputFile, range: Range<u64>, window: u64) -> Self {
        let (sender, windows) = mpsc::channel(1);
        let unreceived = range.end - range.start;
        io.spawn(async move {
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
        StoreFeed { windows, current: Bytes::new(), taken: Bytes::new(), unreceived }
    }

    fn receive(&mut self) -> Result<Bytes, Fault> {
        let window = self
            .windows
            .blocking_recv()
            .unwrap_or_else(|| Err(Fault::Io("the fetching task ended before its chunk".into())))?;
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
