//! Where a write task's bytes go: a file in the job's staging folder, or an upload that stays open.
//! Neither can be seen by readers of the output: making it visible is the coordinator's decision.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use object_store::PutPayload;
use object_store::path::Path as Key;
use tally_proto::v1;
use tally_proto::v1::write_work::Target;
use tokio::sync::oneshot;

use crate::budget::Reservation;
use crate::context::TaskContext;
use crate::error::TaskError;
use crate::scan::Task;
use crate::stores::{Bucket, explain};
use crate::urls;

/// Bytes written at a time.
pub(crate) const COPY: usize = 1 << 20;

/// Bytes after which the disk is set to work, while more are written: syncing the whole file at its end would leave the
/// cores with nothing to do for as long as the copying took.
const WRITEBACK: u64 = 8 << 20;

/// A part file in the making. Errors of its `write` that are no file's are [`TaskError`]s within.
pub(crate) trait PartFile: Write + Send {
    /// Makes it durable, and says what there is.
    ///
    /// # Errors
    /// [`TaskError`].
    fn finish(self: Box<Self>) -> Result<Written, TaskError>;
}

/// What was written.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Bytes.
    pub bytes: u64,
    /// CRC-32 of all of them.
    pub crc32: u32,
    /// Of an upload: its parts, in order, as the store names them.
    pub parts: Vec<String>,
}

/// Opens the target of an order.
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
    /// Bytes written, and those of them that are on their way to the disk.
    written: u64,
    started: u64,
}

/// Has the kernel begin to write some of a file's bytes to the disk. A hint: what goes wrong shows when it is synced.
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
    move |source| TaskError::Write { path: path.into(), what, source }
}

impl LocalFile {
    fn create(path: &str) -> Result<Self, TaskError> {
        let file = File::create(Path::new(path)).map_err(failed(path, "the part file cannot be made"))?;
        let file = BufWriter::with_capacity(COPY, file);
        Ok(LocalFile { path: path.into(), file, crc: crc32fast::Hasher::new(), written: 0, started: 0 })
    }
}

impl Write for LocalFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
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
        let file = file.into_inner().map_err(|e| failed(&path, "writing failed")(e.into_error()))?;
        file.sync_all().map_err(failed(&path, "the part file cannot be synced"))?;
        let bytes = file.metadata().map_err(failed(&path, "the part file cannot be looked at"))?.len();
        Ok(Written { bytes, crc32: crc.finalize(), parts: vec![] })
    }
}

/// A part that is under way.
type Sent = (oneshot::Receiver<Result<String, String>>, Task);

/// An upload in parts of one size; one part is under way while the next is filled.
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
        let bucket = urls::open_bucket(&upload.url).map_err(|e| TaskError::Order(e.to_string()))?;
        let no_bucket = || TaskError::Order(format!("{} is in no bucket", upload.url));
        let (bucket, key) = bucket.ok_or_else(no_bucket)?;
        let part_bytes = usize::try_from(upload.part_bytes).unwrap_or(usize::MAX);
        let bytes = part_bytes.saturating_mul(2);
        let held = context.budget.reserve_patiently(bytes);
        let held = held.ok_or(TaskError::Memory { what: "two parts of an upload", bytes })?;
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

    fn failed(&self, what: impl Into<String>) -> TaskError {
        TaskError::Upload { url: self.url.clone(), what: what.into() }
    }

    /// Waits for the part under way.
    fn settle(&mut self) -> Result<(), TaskError> {
        let Some((answer, _task)) = self.sent.take() else { return Ok(()) };
        let part = self.context.wait(answer)?.map_err(|_| self.failed("its request ended before it"))?;
        self.written.parts.push(part.map_err(|what| self.failed(what))?);
        Ok(())
    }

    fn send(&mut self) -> Result<(), TaskError> {
        self.settle()?;
        // As large as the others will be: the part before may still be held by its request.
        let bytes = std::mem::replace(&mut self.buffer, Vec::with_capacity(self.part_bytes));
        let (bucket, key, id) = (self.bucket.clone(), self.key.clone(), self.id.clone());
        let number = self.written.parts.len();
        let (sender, answer) = oneshot::channel();
        let task = Task::spawn(&self.context.io, async move {
            let sent = bucket.uploads.put_part(&key, &id, number, PutPayload::from(bytes)).await;
            // The writer gone means that the attempt was given up.
            let _ = sender.send(sent.map(|part| part.content_id).map_err(|e| explain(&e)));
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
        // Parts before the last have one size: what is here goes with the next, or at the end.
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
