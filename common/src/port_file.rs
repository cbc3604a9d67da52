//! Writes the address of a process to a file for the program that started it: port 0 takes any free port.
//!
//! Not here: which option names the file.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("the port file {} cannot be written: {source}", file.display())]
pub struct PortFileError {
    file: PathBuf,
    source: io::Error,
}

/// Writes the address to `file`. A process that waits for the file never sees a part of it.
///
/// # Errors
/// [`PortFileError`].
pub fn write(file: &Path, address: SocketAddr) -> Result<(), PortFileError> {
    let mut half = file.as_os_str().to_owned();
    half.push(".new");
    let written = std::fs::write(&half, address.to_string()).and_then(|()| std::fs::rename(&half, file));
    written.map_err(|source| PortFileError { file: file.into(), source })
}
