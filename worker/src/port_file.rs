//! Tells whoever started a process which address it got, by a file: port 0 takes any port that is free.

use std::net::SocketAddr;
use std::path::Path;

/// Writes the address to `file`. Whoever waits for the file never sees half of it.
///
/// # Errors
/// The folder can't be written; the text names the option.
pub fn write(file: &Path, address: SocketAddr) -> Result<(), String> {
    let mut half = file.as_os_str().to_owned();
    half.push(".new");
    let written = std::fs::write(&half, address.to_string()).and_then(|()| std::fs::rename(&half, file));
    written.map_err(|e| format!("--port-file {}: {e}", file.display()))
}
