//! Input files: where they are stored, which version was planned, and how their bytes are read.
//!
//! Only this module distinguishes local files from object stores. Not here: the order in which the bytes of a column
//! chunk are read (`feed`).

use std::fs::{File, Metadata};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{GetOptions, GetResultPayload, ObjectStore, ObjectStoreExt};
use tally_common::budget::Reservation;
use tally_common::stores::urls;
use tally_common::waits::{self, WaitKind};
use tokio::runtime::Handle;

use crate::error::{Fault, FilePosition, ScanError};

/// Files of an object store below this size are fetched whole, with their footers, in one request. The extra requests
/// that skip unneeded columns would take longer than these columns.
pub const SMALL_FILE: u64 = 1 << 20;

/// A file as the planner saw it.
#[derive(Debug, Clone)]
pub struct InputFile {
    /// The store that contains it.
    pub store: Arc<dyn ObjectStore>,
    /// Its path in the store.
    pub path: Path,
    /// Its name in messages.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// The version that was planned, if the store has versions.
    pub etag: Option<String>,
    /// Bytes of its footer, if known.
    pub footer: Option<u64>,
}

impl InputFile {
    /// Reads a range. Fails if the file is not the planned version.
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

    /// A local file, with the version that the store gives it.
    pub fn local(store: Arc<dyn ObjectStore>, path: Path, name: String, found: &Metadata) -> InputFile {
        InputFile { store, path, name, size: found.len(), etag: Some(local_etag(found)), footer: None }
    }

    /// The last `bytes` bytes of a local file, read on this thread; `None` if it cannot be read or is not the planned
    /// version. [`InputFile::get`] says why.
    pub(crate) fn local_end(&self, bytes: u64) -> Option<Bytes> {
        let file = self.local_file()?;
        let length = bytes.min(self.size);
        let mut end = vec![0; usize::try_from(length).ok()?];
        file.read_exact_at(&mut end, self.size - length).ok()?;
        Some(end.into())
    }

    /// A local file, opened on this thread; `None` if it cannot be opened or is not the planned version.
    fn local_file(&self) -> Option<File> {
        let file = File::open(&self.name).ok()?;
        let found = file.metadata().ok()?;
        let planned = found.is_file() && found.len() == self.size && self.etag == Some(local_etag(&found));
        planned.then_some(file)
    }

    /// Whether it is fetched whole.
    pub fn is_small(&self) -> bool {
        self.size < SMALL_FILE && !urls::is_local(&self.name)
    }

    /// Reads the current metadata of a file.
    ///
    /// # Errors
    /// The store's error.
    pub async fn head(
        store: Arc<dyn ObjectStore>,
        path: Path,
        name: String,
    ) -> Result<InputFile, object_store::Error> {
        let meta = store.head(&path).await?;
        Ok(InputFile { store, path, name, size: meta.size, etag: meta.e_tag, footer: None })
    }
}

/// The version of a local file, as `object_store` states it: tests compare the two.
fn local_etag(found: &Metadata) -> String {
    let modified = found.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let (inode, size) = (found.ino(), found.len());
    format!("\"{inode:x}-{:x}-{size:x}\"", modified.unwrap_or_default().as_micros())
}

/// How a file's bytes are read.
#[derive(Debug)]
pub(crate) enum Carrier {
    /// By the thread that decodes them.
    Disk(Arc<DiskFile>),
    /// In requests on the I/O runtime.
    Store,
    /// From memory.
    Whole(WholeFile),
}

/// All bytes of a small file, with their memory reservation.
#[derive(Debug)]
pub struct WholeFile {
    pub(crate) bytes: Bytes,
    _held: Reservation,
}

impl WholeFile {
    /// Keeps the reservation as long as the bytes.
    pub fn new(bytes: Bytes, held: Reservation) -> Self {
        WholeFile { bytes, _held: held }
    }
}

/// A file that is about to be read.
#[derive(Debug)]
pub struct OpenFile {
    /// The file as the planner saw it.
    pub input: InputFile,
    pub(crate) carrier: Carrier,
}

impl OpenFile {
    /// A file that was fetched whole.
    pub fn whole(input: InputFile, whole: WholeFile) -> Self {
        OpenFile { input, carrier: Carrier::Whole(whole) }
    }

    /// Bytes of it that are in memory.
    #[inline]
    pub fn held(&self) -> u64 {
        if let Carrier::Whole(file) = &self.carrier { file.bytes.len() as u64 } else { 0 }
    }

    /// Reads a range that no feed has requested. Call it only from threads outside of a runtime.
    pub(crate) fn get(&self, io: &Handle, range: Range<u64>) -> Result<Bytes, Fault> {
        match &self.carrier {
            Carrier::Whole(file) => Ok(file.bytes.slice(range.start as usize..range.end as usize)),
            Carrier::Disk(_) | Carrier::Store => {
                let _waiting = waits::begin(WaitKind::Store, &self.input.name);
                io.block_on(self.input.get(range))
            }
        }
    }

    /// Opens a file, if it is still the planned version. A file of an object store is not requested here, because each
    /// read checks the version. Call it only from threads outside of a runtime: a local file is opened on the calling
    /// thread.
    ///
    /// # Errors
    /// [`ScanError`], naming the file.
    pub fn open(input: InputFile) -> Result<Self, ScanError> {
        if !urls::is_local(&input.name) {
            return Ok(OpenFile { input, carrier: Carrier::Store });
        }
        let place = || FilePosition { file: input.name.clone(), ..FilePosition::default() };
        let _waiting = waits::begin(WaitKind::Store, &input.name);
        if let Some(file) = input.local_file() {
            let disk = DiskFile::new(file, &input.name, input.size).map_err(|fault| fault.at(place()))?;
            return Ok(OpenFile { input, carrier: Carrier::Disk(Arc::new(disk)) });
        }
        // Says why.
        let options = GetOptions { if_match: input.etag.clone(), head: true, ..GetOptions::default() };
        let found = futures::executor::block_on(input.store.get_opts(&input.path, options));
        let found = found.map_err(|e| Fault::from(e).at(place()))?;
        let carrier = match found.payload {
            GetResultPayload::File(file, _) => {
                let disk = DiskFile::new(file, &input.name, input.size).map_err(|fault| fault.at(place()))?;
                Carrier::Disk(Arc::new(disk))
            }
            _ => Carrier::Store,
        };
        Ok(OpenFile { input, carrier })
    }
}

/// A local file that is kept open. If the path is replaced, this still reads the old file.
#[derive(Debug)]
pub(crate) struct DiskFile {
    file: File,
    name: String,
    /// Size and modification time when it was opened.
    version: (u64, i64, i64),
}

fn version(metadata: &Metadata) -> (u64, i64, i64) {
    (metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}

fn cannot_read(error: &std::io::Error) -> Fault {
    Fault::Io(error.to_string())
}

fn changed<T>() -> Result<T, Fault> {
    Err(Fault::Changed("the file changed while the job ran".into()))
}

impl DiskFile {
    fn new(file: File, name: &str, size: u64) -> Result<Self, Fault> {
        let version = version(&file.metadata().map_err(|e| cannot_read(&e))?);
        if version.0 == size { Ok(DiskFile { file, name: name.into(), version }) } else { changed() }
    }

    /// Fills `out` from offset `at`, and checks that the file was not modified since it was opened.
    pub(crate) fn read(&self, at: u64, out: &mut [u8]) -> Result<(), Fault> {
        let _waiting = waits::begin(WaitKind::Store, &self.name);
        match self.file.read_exact_at(out, at) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return changed(),
            Err(e) => return Err(cannot_read(&e)),
        }
        let now = version(&self.file.metadata().map_err(|e| cannot_read(&e))?);
        if now == self.version { Ok(()) } else { changed() }
    }

    /// Announces the next reads to the kernel, so that the disk works during decoding.
    pub(crate) fn expect(&self, range: Range<u64>) {
        if let Some(length) = range.end.checked_sub(range.start).and_then(std::num::NonZeroU64::new) {
            // Only a hint: a file system that ignores it costs time, nothing else.
            let _ = rustix::fs::fadvise(&self.file, range.start, Some(length), rustix::fs::Advice::WillNeed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::local::LocalFileSystem;
    use tokio::runtime::Runtime;

    fn planned(runtime: &Runtime, name: &std::path::Path) -> InputFile {
        let path = Path::from_absolute_path(name).unwrap();
        let store = Arc::new(LocalFileSystem::new());
        runtime.block_on(InputFile::head(store, path, name.display().to_string())).unwrap()
    }

    fn disk(file: &OpenFile) -> &DiskFile {
        match &file.carrier {
            Carrier::Disk(disk) => disk,
            other => panic!("a local file is read by {other:?}"),
        }
    }

    #[test]
    fn modified_files_are_detected_and_replaced_files_are_still_readable() {
        let runtime = Runtime::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("x");
        let mut four = [0; 4];
        for (touch, fails) in [
            ((|name| std::fs::write(name, b"01234567").unwrap()) as fn(&std::path::Path), true),
            (|name| File::options().write(true).open(name).unwrap().set_len(5).unwrap(), true),
            (|name| std::fs::remove_file(name).unwrap(), false),
        ] {
            std::fs::write(&name, b"abcdefgh").unwrap();
            // An old modification time, because file system clocks are coarse.
            File::options().write(true).open(&name).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
            let file = OpenFile::open(planned(&runtime, &name)).unwrap();
            disk(&file).read(2, &mut four).unwrap();
            assert_eq!(&four, b"cdef");
            touch(&name);
            let read = disk(&file).read(4, &mut four);
            assert_eq!(matches!(read, Err(Fault::Changed(_))), fails, "{read:?}");
        }
    }

    #[test]
    fn the_version_of_a_local_file_is_that_of_the_store() {
        let runtime = Runtime::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("x");
        let second = std::time::Duration::from_secs(1);
        for modified in
            [UNIX_EPOCH - second, UNIX_EPOCH, UNIX_EPOCH + second / 3, UNIX_EPOCH + 1_700_000_000 * second]
        {
            std::fs::write(&name, b"abcdefgh").unwrap();
            File::options().write(true).open(&name).unwrap().set_modified(modified).unwrap();
            let planned = planned(&runtime, &name);
            let found = std::fs::metadata(&name).unwrap();
            let local = InputFile::local(planned.store.clone(), planned.path.clone(), "x".into(), &found);
            assert_eq!((local.size, &local.etag), (8, &planned.etag));
            assert_eq!(planned.local_end(3).as_deref(), Some(b"fgh".as_slice()));
            assert_eq!(planned.local_end(100).as_deref(), Some(b"abcdefgh".as_slice()));
            std::fs::write(&name, b"ABCDEFG").unwrap();
            assert_eq!(planned.local_end(3), None, "another version");
        }
        let gone = planned(&runtime, &name);
        std::fs::remove_file(&name).unwrap();
        assert_eq!(gone.local_end(3), None);
    }

    #[test]
    fn a_file_that_is_not_the_one_planned_is_not_opened() {
        let runtime = Runtime::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("x");
        std::fs::write(&name, b"abcdefgh").unwrap();
        let input = planned(&runtime, &name);
        std::fs::write(&name, b"abc").unwrap();
        let error = OpenFile::open(input).unwrap_err();
        assert!(matches!(error, ScanError::Changed { .. }), "{error}");
    }
}
