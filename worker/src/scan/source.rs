//! The files of an input: where they lie, which version was planned, and how their bytes come.
//!
//! This is the one place that tells files of this machine from those of object stores. Not here:
//! the order in which a column chunk's bytes are read (`feed`).

use std::fs::{File, Metadata};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{GetOptions, GetResultPayload, ObjectStore, ObjectStoreExt};

use super::error::{Fault, Place, ScanError};
use crate::urls;

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
    /// Bytes of its footer, where they are known.
    pub footer: Option<u64>,
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
        Ok(InputFile { store, path, name, size: meta.size, etag: meta.e_tag, footer: None })
    }
}

/// How a file's bytes come.
#[derive(Debug)]
pub(crate) enum Carrier {
    /// Read by whoever needs them.
    Disk(Arc<DiskFile>),
    /// Fetched on the I/O runtime.
    Store,
}

/// A file about to be read.
#[derive(Debug)]
pub struct OpenFile {
    /// What the planner saw.
    pub input: InputFile,
    pub(crate) carrier: Carrier,
}

impl OpenFile {
    /// Opens a file, if it is still the one planned. Of an object store nothing is asked: each of its
    /// reads checks the version. For threads outside a runtime: there a local file is opened where the
    /// caller is, without a way to another thread and back.
    ///
    /// # Errors
    /// [`ScanError`], naming the file.
    pub fn open(input: InputFile) -> Result<Self, ScanError> {
        if !urls::is_local(&input.name) {
            return Ok(OpenFile { input, carrier: Carrier::Store });
        }
        let place = || Place { file: input.name.clone(), ..Place::default() };
        let options = GetOptions { if_match: input.etag.clone(), head: true, ..GetOptions::default() };
        let found = futures::executor::block_on(input.store.get_opts(&input.path, options));
        let found = found.map_err(|e| Fault::from(e).at(place()))?;
        let carrier = match found.payload {
            GetResultPayload::File(file, _) => {
                let disk = DiskFile::new(file, input.size).map_err(|fault| fault.at(place()))?;
                Carrier::Disk(Arc::new(disk))
            }
            _ => Carrier::Store,
        };
        Ok(OpenFile { input, carrier })
    }
}

/// A file of this machine, held open: who replaces it does not change what is read here.
#[derive(Debug)]
pub(crate) struct DiskFile {
    file: File,
    /// Size and time of the last change when it was opened.
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
    fn new(file: File, size: u64) -> Result<Self, Fault> {
        let version = version(&file.metadata().map_err(|e| cannot_read(&e))?);
        if version.0 == size { Ok(DiskFile { file, version }) } else { changed() }
    }

    /// Fills `out` from place `at`, and sees that nobody wrote to the file since it was opened.
    pub(crate) fn read(&self, at: u64, out: &mut [u8]) -> Result<(), Fault> {
        match self.file.read_exact_at(out, at) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return changed(),
            Err(e) => return Err(cannot_read(&e)),
        }
        let now = version(&self.file.metadata().map_err(|e| cannot_read(&e))?);
        if now == self.version { Ok(()) } else { changed() }
    }

    /// Tells the kernel what will be read next, so that a disk works while the decoder does.
    pub(crate) fn expect(&self, range: Range<u64>) {
        if let Some(length) = range.end.checked_sub(range.start).and_then(std::num::NonZeroU64::new) {
            // A hint: a file system that takes none loses nothing but time.
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
            Carrier::Store => panic!("a local file is read through its store"),
        }
    }

    #[test]
    fn a_file_that_is_written_to_or_cut_is_noticed_and_one_that_is_replaced_is_read_on() {
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
            // An old time of change: the clock of file systems is coarse.
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
