//! The checksums in part files, computed independently by the formula in deploy/docs/architecture/checksums.md, with
//! the standard library alone. Not here: any code of the engine.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use parquet::file::reader::{FileReader, SerializedFileReader};

use crate::rows::Row;
use crate::table;

const S: u64 = 0x243f6a8885a308d3;
const K: u64 = 0x13198a2e03707344;

fn step(h: u64, a: u64, b: u64) -> u64 {
    let product = (h ^ a) as u128 * (b ^ K) as u128;
    (product % (1 << 64)) as u64 ^ (product >> 64) as u64
}

fn row_hash(row: &Row) -> u64 {
    let id = row.client_id.as_deref().unwrap_or_default().as_bytes();
    let mut padded = id.to_vec();
    while !padded.len().is_multiple_of(16) {
        padded.push(0);
    }
    let word = |at: usize| {
        let bytes = padded[at..at + 8].iter().rev();
        bytes.fold(0u64, |word, &byte| word * 256 + u64::from(byte))
    };
    let mut h = S;
    for at in (0..padded.len()).step_by(16) {
        h = step(h, word(at), word(at + 8));
    }
    let mut head = 256 * id.len() as u64;
    head += if row.has_custom_theme.is_some() { 16 } else { 0 };
    head += if row.min_install_day.is_some() { 8 } else { 0 };
    head += if row.profile_creation_date.is_some() { 4 } else { 0 };
    head += match row.foreign_install {
        Some(false) => 0,
        Some(true) => 1,
        None => 2,
    };
    let (user_type, date) = (row.user_type.unwrap_or(0), row.profile_creation_date.unwrap_or(0));
    let columns = step(step(S, head, row.count as u64), user_type as u64, date as u64);
    let (day, theme) = (row.min_install_day.unwrap_or(0), row.has_custom_theme.unwrap_or(0));
    step(columns ^ h, i64::from(day) as u64, theme as u64)
}

/// The checksum of rows.
pub fn of(rows: &[Row]) -> u64 {
    rows.iter().fold(0, |sum: u64, row| sum.wrapping_add(row_hash(row)))
}

/// The footer keys of a Parquet file that begin with `tally.`, without that prefix.
///
/// # Errors
/// A file that cannot be read.
pub fn footer(path: &Path) -> Result<HashMap<String, String>> {
    let reader = SerializedFileReader::new(File::open(path)?)?;
    let entries = reader.metadata().file_metadata().key_value_metadata().cloned().unwrap_or_default();
    let ours = |entry: parquet::file::metadata::KeyValue| {
        Some((entry.key.strip_prefix("tally.")?.to_string(), entry.value?))
    };
    Ok(entries.into_iter().filter_map(ours).collect())
}

/// Checks all that the part files of a day state about their rows; returns the day's checksum.
///
/// # Errors
/// Names the file and the wrong statement.
pub fn verify(partition: &Path) -> Result<u64> {
    let files = table::data_files(partition)?;
    let (mut rows, mut sum, mut said) = (0, 0u64, vec![]);
    for file in &files {
        let name = file.display();
        let (mine, footer) = (table::read_aggregates(file)?, footer(file)?);
        let entry = |key: &str| footer.get(key).with_context(|| format!("{name} has no tally.{key}"));
        let checksum = of(&mine);
        ensure!(*entry("rows")? == mine.len().to_string(), "{name}: {footer:?}, but {} rows", mine.len());
        ensure!(*entry("checksum")? == format!("{checksum:016x}"), "{name}: {footer:?}, not {checksum:016x}");
        let clients = [entry("n_clients")?, entry("n_custom_theme_clients")?];
        for row in &mine {
            let held = [row.n_clients.to_string(), row.n_custom_theme_clients.to_string()];
            ensure!(clients == [&held[0], &held[1]], "{name}: {footer:?}, but {row:?}");
        }
        rows += mine.len();
        sum = sum.wrapping_add(checksum);
        said.push([entry("total_rows")?.clone(), entry("total_checksum")?.clone()]);
    }
    let total = [rows.to_string(), format!("{sum:016x}")];
    ensure!(said.iter().all(|said| *said == total), "the files say {said:?} of a day of {total:?}");
    Ok(sum)
}
