//! The bytes of a column chunk, fetched ahead of the decoder in windows of bounded size.
//!
//! The fetching runs on the I/O runtime; the decoder's thread blocks on a bounded channel. So at
//! most three windows of a chunk are held: one being decoded, one waiting, one on its way.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::error::Fault;

/// A file as the planner saw it.
#[derive(Debug, Clone)]
pub struct InputFile {
    /// Where it lies.
    pub store: Arc<dyn ObjectStore>,
    /// Its path in the store.
    pub path: Path,
    /// Its name in messages.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// The version that the plan was made for, if the store has such.
    pub etag: Option<String>,
}

impl InputFile {
    /// Reads a range, failing if the file is not the one planned.
    pub(crate) async fn get(&self, range: Range<u64>) -> Result<Bytes, Fault> {
        let wanted = range.end - range.start;
        let options =
            GetOptions { range: Some(range.into()), if_match: self.etag.clone(), ..GetOptions::default() };
        let bytes = self.store.get_opts(&self.path, options).await?.bytes().await?;
        if bytes.len() as u64 != wanted {
            return Err(Fault::Changed(format!("{} bytes instead of {wanted}", bytes.len())));
        }
        Ok(bytes)
    }

    /// Looks at the file as it is now.
    ///
    /// # Errors
    /// What the store says.
    pub async fn head(
        store: Arc<dyn ObjectStore>,
        path: Path,
        name: String,
    ) -> Result<InputFile, object_store::Error> {
        let meta = store.head(&path).await?;
        Ok(InputFile { store, path, name, size: meta.size, etag: meta.e_tag })
    }
}

/// A chunk's bytes in order.
pub(crate) struct Feed {
    windows: mpsc::Receiver<Result<Bytes, Fault>>,
    current: Bytes,
    /// Bytes of the chunk not yet received.
    unreceived: u64,
}

impl Feed {
    /// Starts fetching `range` of `file` in windows of `window` bytes.
    pub(crate) fn start(io: &Handle, file: Arc<InputFile>, range: Range<u64>, window: u64) -> Feed {
        let (sender, windows) = mpsc::channel(1);
        let unreceived = range.end - range.start;
        io.spawn(async move {
            let mut at = range.start;
            while at < range.end {
                let end = range.end.min(at + window.max(1));
                let bytes = file.get(at..end).await;
                let failed = bytes.is_err();
                // The decoder gone means that nobody needs the rest.
                if sender.send(bytes).await.is_err() || failed {
                    return;
                }
                at = end;
            }
        });
        Feed { windows, current: Bytes::new(), unreceived }
    }

    fn receive(&mut self) -> Result<Bytes, Fault> {
        let window = self
            .windows
            .blocking_recv()
            .unwrap_or_else(|| Err(Fault::Io("the fetching task ended before its chunk".into())))?;
        self.unreceived = self.unreceived.saturating_sub(window.len() as u64);
        Ok(window)
    }

    /// Bytes not yet taken.
    pub(crate) fn remaining(&self) -> u64 {
        self.unreceived + self.current.len() as u64
    }

    /// What is there, at least `bytes` of it if the chunk has so many left.
    pub(crate) fn peek(&mut self, bytes: usize) -> Result<&[u8], Fault> {
        if self.current.len() < bytes && self.unreceived > 0 {
            let wanted = (bytes as u64).min(self.remaining()) as usize;
            let mut joined = Vec::with_capacity(wanted);
            joined.extend_from_slice(&self.current);
            while joined.len() < wanted {
                joined.extend_from_slice(&self.receive()?);
            }
            self.current = joined.into();
        }
        Ok(&self.current)
    }

    /// Takes the next `bytes`, which must remain.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<Bytes, Fault> {
        if bytes as u64 > self.remaining() {
            return Fault::corrupt("a page reaches beyond its column chunk");
        }
        if self.current.is_empty() && bytes > 0 {
            self.current = self.receive()?;
        }
        self.peek(bytes)?;
        Ok(self.current.split_to(bytes))
    }
}
