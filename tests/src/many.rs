//! Days of very many small files with long names, as links to a few files: they are made quickly and take little space.
//!
//! Not here: what a job does with them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;

use crate::golden::{Case, DATE};

/// The input tables, with the folders of their days below the root.
pub const TABLES: [&str; 2] = ["addons/v2", "main_summary/v3"];
/// Links to one file; file systems allow a limited number.
const LINKS: usize = 10_000;
/// Folders over which files are spread, like the samples of production.
const FOLDERS: usize = 100;
/// The longest part of a path.
const PART: usize = 200;

/// The number of files: `TALLY_MANY_FILES`, else `few`, which are enough for CI.
pub fn count(few: usize) -> Result<usize> {
    Ok(std::env::var("TALLY_MANY_FILES").ok().map(|files| files.parse()).transpose()?.unwrap_or(few))
}

/// The folder of a table's day.
pub fn day(root: &Path, table: &str) -> PathBuf {
    root.join(table).join(format!("submission_date_s3={DATE}"))
}

/// Copies the inputs of a golden case.
pub fn copy_case(case: &Case, to: &Path) -> Result<()> {
    for table in TABLES {
        for file in files(&day(&case.dir, table))? {
            let copy = to.join(file.strip_prefix(&case.dir)?);
            std::fs::create_dir_all(copy.parent().context("no folder")?)?;
            std::fs::copy(&file, &copy)?;
        }
    }
    Ok(())
}

/// The Parquet files below a folder, in their order.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![];
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|extension| extension == "parquet") => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Adds `count` files with the content of `original` to the day in `folder`, whose paths have about `path_bytes` bytes.
pub fn add(folder: &Path, original: &Path, count: usize, path_bytes: usize) -> Result<()> {
    let names = PART / 2;
    let mut source = original.to_path_buf();
    for number in 0..count {
        let mut path = folder.join(format!("sample_id={}", number % FOLDERS));
        loop {
            let room = path_bytes.saturating_sub(path.as_os_str().len() + names);
            if room < 2 {
                break;
            }
            path.push("x".repeat((room - 1).min(PART)));
        }
        if number < FOLDERS {
            std::fs::create_dir_all(&path)?;
        }
        path.push(format!("many-{number:0>width$}.parquet", width = names - 14));
        if number.is_multiple_of(LINKS) {
            std::fs::copy(original, &path)?;
            source = path;
        } else {
            std::fs::hard_link(&source, &path).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// Writes a file with the schema of `like` and no row group.
pub fn without_row_groups(like: &Path, to: &Path) -> Result<()> {
    let reader = SerializedFileReader::new(File::open(like)?)?;
    let schema = reader.metadata().file_metadata().schema_descr().root_schema_ptr();
    SerializedFileWriter::new(File::create(to)?, schema, Arc::default())?.close()?;
    Ok(())
}
