//! The destination of a write task: a file in the job's staging directory, or a multipart upload that stays open.
//! Readers of the output see neither of them until the coordinator publishes it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use object_store::PutPayload;
use object_store::path::Path as Key;
use tally_common::budget::Reservation;
use tally_common::stores::urls;
use tally_common::stores::{Bucket, concerns_credentials, explain, is_transient};
use tally_common::waits::{self, WaitKind};
use tally_proto::v1;
use tally_proto::v1::write_work::Target;
use tally_scan::AbortOnDrop;
use tally_shuffle::error::TaskError;
use tokio::sync::oneshot;

use crate::task::context::TaskContext;

/// Bytes written at a time.
pub(crate) const COPY: usize = 1 << 20;

/// Bytes after which writeback to disk starts, while more are written. Without it, the sync at the end would take as
/// long as the copying, and the cores would be idle.
const WRITEBACK: u64 = 8 << 20;

/// A part file that is being written. The I/O errors of an upload contain a [`TaskError`].
pub(crate) trait PartFile: Write + Send {
    /// Makes it durable, and describes it.
    ///
    /// # Errors
    /// [`TaskError`].
    fn finish(self: Box<Self>) -> Result<Written, TaskError>;
}

/// The description of a part file.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Bytes.
    pub bytes: u64,
    /// CRC-32 of all bytes.
    pub crc32: u32,
    /// The ids of an upload's parts, in order.
    pub parts: Vec<String>,
}

/// Opens the target of a write task.
///
/// # Errors
/// [`TaskError`].
pub(crate) fn create<'a>(
    context: &'a TaskContext,
    target: &Target,
) -> Result<Box<dyn PartFile + 'a>, TaskError> {
    match target {
        Target::Path(path) => Ok(Box::new(LocalFile::create(path)?)),
        Target::Upload(upload) => Ok(Box::new(Upload::open(context, upload)?)),
    }
}

struct LocalFile {
    path: String,
    file: BufWriter<File>,
    crc: crc32fast::Hasher,
    /// Bytes written, and those for which writeback has started.
    written: u64,
    started: u64,
}

/// Starts writeback of a range of a file. It is only a hint: errors occur again in the sync.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn start_writeback(file: &File, from: u64, bytes: u64) {
    use std::os::fd::AsRawFd;
    let (from, bytes) = (from.cast_signed(), bytes.cast_signed());
    // SAFETY: takes no pointer, and the descriptor is open.
    unsafe {
        libc::sync_file_range(file.as_raw_fd(), from, bytes, libc::SYNC_FILE_RANGE_WRITE);
    }
}

#[cfg(not(target_os = "linux"))]
fn start_writeback(_: &File, _: u64, _: u64) {}

fn failed(path: &str, what: &'static str) -> impl FnOnce(io::Error) -> TaskError {
    move |source| TaskError::write(path, what, source)
}

impl LocalFile {
    fn create(path: &str) -> Result<Self, TaskError> {
        let _waiting = waits::begin(WaitKind::Store, path);
        let file = File::create(Path::new(path)).map_err(failed(path, "the part file cannot be created"))?;
        let file = BufWriter::with_capacity(COPY, file);
        Ok(LocalFile { path: path.into(), file, crc: crc32fast::Hasher::new(), written: 0, started: 0 })
    }
}

impl Write for LocalFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _waiting = waits::begin(WaitKind::Store, &self.path);
        let written = self.file.write(bytes)?;
        self.crc.update(&bytes[..written]);
        self.written += written as u64;
        if self.written - self.started >= WRITEBACK {
            self.file.flush()?;
            start_writeback(self.file.get_ref(), self.started, self.written - self.started);
            self.started = self.written;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl PartFile for LocalFile {
    fn finish(self: Box<Self>) -> Result<Written, TaskError> {
        let LocalFile { path, file, crc, .. } = *self;
        let _waiting = waits::begin(WaitKind::Store, &path);
        let file = file.into_inner().map_err(|e| failed(&path, "writing failed")(e.into_error()))?;
        file.sync_all().map_err(failed(&path, "the part file cannot be synced"))?;
        let bytes =
            file.metadata().map_err(failed(&path, "the metadata of the part file cannot be read"))?.len();
        Ok(Written { bytes, crc32: crc.finalize(), parts: vec![] })
    }
}

/// A part that is being uploaded.
type Sent = (oneshot::Receiver<Result<String, object_store::Error>>, AbortOnDrop);

/// A multipart upload with parts of one size. One part is uploaded while the next one is filled.
struct Upload<'a> {
    context: &'a TaskContext,
    url: String,
    bucket: Arc<Bucket>,
    key: Key,
    id: String,
    part_bytes: usize,
    buffer: Vec<u8>,
    sent: Option<Sent>,
    written: Written,
    crc: crc32fast::Hasher,
    _held: Reservation,
}

impl<'a> Upload<'a> {
    fn open(context: &'a TaskContext, upload: &v1::Upload) -> Result<Self, TaskError> {
        let bucket = urls::open_bucket(&upload.url)?;
        let no_bucket = || TaskError::InvalidTask(format!("{} is not in a bucket", upload.url));
        let (bucket, key) = bucket.ok_or_else(no_bucket)?;
        let part_bytes = usize::try_from(upload.part_bytes).unwrap_or(usize::MAX);
        let bytes = part_bytes.saturating_mul(2);
        let held = context.budget.reserve(bytes).map_err(TaskError::memory("two parts of an upload"))?;
        Ok(Upload {
            context,
            url: upload.url.clone(),
            bucket,
            key,
            id: upload.id.clone(),
            part_bytes,
            buffer: Vec::with_capacity(part_bytes),
            sent: None,
            written: Written::default(),
            crc: crc32fast::Hasher::new(),
            _held: held,
        })
    }

    fn failed(&self, error: &object_store::Error) -> TaskError {
        // The upload was aborted by another process. The next attempt does not use it.
        let missing = matches!(error, object_store::Error::NotFound { .. });
        let again = missing || is_transient(error) || concerns_credentials(error);
        TaskError::Upload { url: self.url.clone(), what: explain(error), again }
    }

    /// Waits for the current part.
    fn settle(&mut self) -> Result<(), TaskError> {
        let Some((answer, _task)) = self.sent.take() else { return Ok(()) };
        let _waiting = waits::begin(WaitKind::Store, &self.url);
        let part = self.context.wait(answer)?.map_err(|_| TaskError::Upload {
            url: self.url.clone(),
            what: "its request was aborted".into(),
            again: true,
        })?;
        self.written.parts.push(part.map_err(|error| self.failed(&error))?);
        Ok(())
    }

    fn send(&mut self) -> Result<(), TaskError> {
        self.settle()?;
        // A new buffer, because the request may still use the old one.
        let bytes = std::mem::replace(&mut self.buffer, Vec::with_capacity(self.part_bytes));
        let (bucket, key, id) = (self.bucket.clone(), self.key.clone(), self.id.clone());
        let number = self.written.parts.len();
        let (sender, answer) = oneshot::channel();
        let task = AbortOnDrop::spawn(&self.context.io, async move {
            let sent = bucket.uploads.put_part(&key, &id, number, PutPayload::from(bytes)).await;
            // The attempt may have ended.
            let _ = sender.send(sent.map(|part| part.content_id));
        });
        self.sent = Some((answer, task));
        Ok(())
    }
}

impl Write for Upload<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == self.part_bytes {
            self.send().map_err(io::Error::other)?;
        }
        let taken = bytes.len().min(self.part_bytes - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        self.crc.update(&bytes[..taken]);
        self.written.bytes += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        // All parts except the last have one size, so buffered bytes are sent with the next part or at the end.
        Ok(())
    }
}

impl PartFile for Upload<'_> {
    fn finish(mut self: Box<Self>) -> Result<Written, TaskError> {
        self.send()?;
        self.settle()?;
        let crc32 = self.crc.clone().finalize();
        Ok(Written { crc32, ..std::mem::take(&mut self.written) })
    }
}
