//! Errors of disks.
//!
//! Not here: how much disk space is used (`tally-shuffle`'s `spill`).

use std::io;

/// Whether the error means that a disk or a quota is full.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
