//! The number of rows that a map task has to read, according to the footers: for simulated workers that read nothing.

use std::fs::File;

use anyhow::{Context, Result};
use parquet::file::reader::{FileReader, SerializedFileReader};
use tally_proto::v1;

/// The rows of the row groups of a map task's files, which are stored on this machine.
///
/// # Errors
/// A file does not exist, or has no such row group.
pub fn rows(work: &v1::MapWork) -> Result<u64> {
    let mut rows = 0;
    for piece in &work.pieces {
        let file = File::open(&piece.url).with_context(|| format!("opening {}", piece.url))?;
        let reader = SerializedFileReader::new(file).with_context(|| format!("reading {}", piece.url))?;
        for &number in &piece.row_groups {
            let group = reader.metadata().row_groups().get(number as usize);
            rows += group.with_context(|| format!("{} has no row group {number}", piece.url))?.num_rows();
        }
    }
    Ok(rows.try_into()?)
}
