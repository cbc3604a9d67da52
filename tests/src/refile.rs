//! The rows of a day in other files, with the number and format that a test needs. Not here: writing them (`day`).

use std::path::Path;

use anyhow::{Result, ensure};

use crate::columns::Record;
use crate::day::{DataFile, Day, Format};
use crate::golden::DATE;
use crate::table;

/// Rewrites the day under `from` to `to`: each table into about `files` files of `format`, at most `most` rows of it.
///
/// # Errors
/// A file cannot be read or written, or a table has fewer rows.
pub fn refile(from: &Path, to: &Path, files: usize, most: usize, format: &Format) -> Result<()> {
    let partition = |table: &str| from.join(table).join(format!("submission_date_s3={DATE}"));
    let (mut main, mut addons) = (vec![], vec![]);
    for file in table::data_files(&partition("main_summary/v3"))? {
        main.extend(table::read_main(&file)?);
    }
    for file in table::data_files(&partition("addons/v2"))? {
        addons.extend(table::read_addons(&file)?);
    }
    let day = Day {
        main: cut(main, files, most, format)?,
        addons: cut(addons, files, most, format)?,
        litter: vec![],
    };
    day.write(to, DATE)
}

fn cut<R: Record>(mut rows: Vec<R>, files: usize, most: usize, format: &Format) -> Result<Vec<DataFile<R>>> {
    rows.truncate(most);
    ensure!(rows.len() >= files, "{} rows are too few for {files} files", rows.len());
    let parts = rows.chunks(rows.len().div_ceil(files));
    let file = |(number, part): (usize, &[R])| {
        DataFile::new(format!("part-{number:05}.parquet"), part.to_vec(), format.clone())
    };
    Ok(parts.enumerate().map(file).collect())
}
