//! The bytes of a part file as a local file: the file itself, or a copy of an object in a temporary file that has no name.
//! All of it blocks, on threads outside of the runtime.
//!
//! Not here: what the bytes are (`part_rows`).

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use futures::StreamExt;
use object_store::{Error, GetOptions};
use tally_common::stores::{explain, urls};
use tally_scan::InputFile;
use tokio::runtime::Handle;

use super::AuditError;

/// A part file that can be read at any offset.
#[derive(Debug)]
pub struct LocalCopy {
    /// The file.
    pub file: File,
    /// CRC-32 of all bytes of an object.
    pub crc32: Option<u32>,
}

impl LocalCopy {
    /// Opens a file, or copies an object to a temporary file in `dir`.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn get(file: &InputFile, dir: &Path, io: &Handle) -> Result<Self, AuditError> {
        if urls::is_local(&file.name) {
            let opened = File::open(&file.name).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => AuditError::Replaced(file.name.clone()),
                _ => AuditError::Read { file: file.name.clone(), why: error.to_string() },
            })?;
            return Ok(LocalCopy { file: opened, crc32: None });
        }
        io.block_on(copy(file, dir))
    }
}

async fn copy(file: &InputFile, dir: &Path) -> Result<LocalCopy, AuditError> {
    let failed = |error: Error| match error {
        Error::NotFound { .. } | Error::Precondition { .. } => AuditError::Replaced(file.name.clone()),
        error => AuditError::Read { file: file.name.clone(), why: explain(&error) },
    };
    let full = |source| AuditError::Spill { dir: PathBuf::from(dir), source };
    let mut local = tempfile::tempfile_in(dir).map_err(full)?;
    let mut crc32 = crc32fast::Hasher::new();
    let options = GetOptions { if_match: file.etag.clone(), ..GetOptions::default() };
    let mut bytes = file.store.get_opts(&file.path, options).await.map_err(failed)?.into_stream();
    let mut copied = 0;
    while let Some(some) = bytes.next().await {
        let some = some.map_err(failed)?;
        crc32.update(&some);
        copied += some.len() as u64;
        local.write_all(&some).map_err(full)?;
    }
    if copied != file.size {
        return Err(AuditError::Replaced(file.name.clone()));
    }
    Ok(LocalCopy { file: local, crc32: Some(crc32.finalize()) })
}
