//! A scene for jobs that must fail: a valid small day, an old output, and a way to corrupt one of the two. The check is
//! always the same: exit code 1, the expected error, the old output unchanged, and no other files next to it or in the
//! spill folder. Not here: the ways to corrupt (`tests/errors.rs`).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow_array::{ArrayRef, RecordBatch};
use parquet::arrow::ArrowWriter;
use parquet::file::reader::{FileReader, SerializedFileReader};

use crate::day::{DataFile, Day, Format, ValueEncoding};
use crate::golden::DATE;
use crate::output::{Place, check_no_spill, check_unchanged, snapshot};
use crate::process::{Outcome, Tally};
use crate::rows::{ActiveAddon, AddonRow, MainRow, Theme};

/// The rows of a row group in the scene's files, each of which has three.
pub const GROUP_ROWS: usize = 40;

/// A day whose job would succeed, and an old output that must survive.
pub struct Scene {
    pub place: Place,
    /// Holds `addons/v2` and `main_summary/v3`.
    pub root: PathBuf,
}

impl Scene {
    /// Writes the day and the old output.
    pub fn new() -> Result<Self> {
        let place = Place::new()?;
        let root = place.path().join("day");
        good_day().write(&root, DATE)?;
        place.put_old_output(DATE)?;
        Ok(Self { place, root })
    }

    /// The partition of `main_summary`.
    pub fn main(&self) -> PathBuf {
        self.root.join(format!("main_summary/v3/submission_date_s3={DATE}"))
    }

    /// The partition of `addons`.
    pub fn addons(&self) -> PathBuf {
        self.root.join(format!("addons/v2/submission_date_s3={DATE}"))
    }

    /// Runs the job and checks that it fails as expected, with an error that contains each of `words`.
    pub fn fails(&self, words: &[&str]) -> Result<Outcome> {
        let before = snapshot(&self.place.published())?;
        let outcome = Tally::job(&self.root, &self.place).date(DATE).run()?;
        let outcome = outcome.expect_failure(1, words)?;
        check_unchanged(&before, &snapshot(&self.place.published())?).with_context(|| outcome.to_string())?;
        check_no_spill(&self.place.spill())?;
        Ok(outcome)
    }
}

/// Two files per table, each of three row groups with several pages per chunk.
fn good_day() -> Day {
    let format = Format {
        encoding: ValueEncoding::Plain,
        row_group_rows: GROUP_ROWS,
        page_rows: 10,
        ..Format::default()
    };
    let ping = |at: usize| MainRow {
        client_id: Some(client(at)),
        profile_creation_date: Some(16_000),
        active_theme: Some(Theme { addon_id: Some(format!("theme{at}")) }),
        active_addons: Some((0..3).map(|i| Some(ActiveAddon { install_day: Some(i) })).collect()),
    };
    let addon = |at: usize| AddonRow {
        client_id: Some(client(at)),
        addon_id: Some(format!("addon{at}@example.org")),
        foreign_install: Some(false),
        is_system: Some(false),
        user_disabled: Some(false),
        app_disabled: Some(false),
    };
    let name = |at: usize| format!("part-0000{at}.snappy.parquet");
    let rows = |at: usize| at * 3 * GROUP_ROWS..(at + 1) * 3 * GROUP_ROWS;
    Day {
        main: [0, 1].map(|at| DataFile::new(name(at), rows(at).map(ping).collect(), format.clone())).into(),
        addons: [0, 1]
            .map(|at| DataFile::new(name(at), rows(at).map(addon).collect(), format.clone()))
            .into(),
        litter: Vec::new(),
    }
}

fn client(at: usize) -> String {
    format!("{:08x}-1234-4abc-8def-{at:012x}", at.wrapping_mul(2_654_435_761) as u32)
}

/// Overwrites bytes of one column chunk: `corrupt` gets the chunk's bytes, pages with their headers.
pub fn corrupt_chunk(file: &Path, group: usize, column: &str, corrupt: impl FnOnce(&mut [u8])) -> Result<()> {
    let reader = SerializedFileReader::new(File::open(file)?)?;
    let chunks = reader.metadata().row_group(group).columns();
    let chunk = chunks.iter().find(|chunk| chunk.column_path().string() == column);
    let (start, len) = chunk.with_context(|| format!("no column {column}"))?.byte_range();
    let mut bytes = std::fs::read(file)?;
    corrupt(&mut bytes[start as usize..(start + len) as usize]);
    Ok(std::fs::write(file, bytes)?)
}

/// Replaces `file` by one with the given Arrow columns.
pub fn write_columns(file: &Path, columns: Vec<(&str, ArrayRef)>) -> Result<()> {
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )?;
    let mut writer = ArrowWriter::try_new(File::create(file)?, Arc::clone(&batch.schema()), None)?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table;

    #[test]
    fn the_day_is_valid_before_it_is_corrupted() {
        let scene = Scene::new().unwrap();
        assert_eq!(table::read_main(&scene.main()).unwrap().len(), 6 * GROUP_ROWS);
        assert_eq!(table::read_addons(&scene.addons()).unwrap().len(), 6 * GROUP_ROWS);
        let file = scene.addons().join("part-00001.snappy.parquet");
        corrupt_chunk(&file, 1, "addon_id", |bytes| bytes.fill(0xFF)).unwrap();
        assert!(table::read_addons(&scene.addons()).is_err());
    }
}
