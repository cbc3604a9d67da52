//! Days whose files come from many writers of Parquet, beside what DuckDB computes from a plain copy of the same rows: made by
//! `tests/writers/make_days.py`, run and compared here. `TALLY_WRITERS` names the writers (`quick`, which is what
//! `tests/run` sets up; `all`; or names with commas between), `TALLY_WRITER_SEEDS` the days, as in `1-20,77`.
//!
//! Not here: the writers.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use crate::golden::DATE;
use crate::harness::Missing;
use crate::output::Place;
use crate::process::Summary;
use crate::python::python;
use crate::table;

/// The exit code of the program where a writer is not installed.
const NOT_INSTALLED: i32 = 3;

/// Made days, below a folder that goes unless one of them fails.
pub struct Days {
    folder: TempDir,
    writers: String,
    seeds: Vec<u64>,
}

impl Days {
    /// Makes the days of the seeds that the environment asks for, or of these.
    ///
    /// # Errors
    /// [`Missing`] where there is no Python, no npm's package or a writer is not installed; a writer fails.
    pub fn new(seeds: &str) -> Result<Self> {
        let writers = std::env::var("TALLY_WRITERS").unwrap_or_else(|_| "quick".into());
        let seeds = std::env::var("TALLY_WRITER_SEEDS").unwrap_or_else(|_| seeds.into());
        let seeds = read_seeds(&seeds).with_context(|| format!("TALLY_WRITER_SEEDS is {seeds:?}"))?;
        let packages = std::env::var_os("HYPARQUET");
        let packages =
            packages.ok_or_else(|| Missing("no HYPARQUET; `tests/tools/hyparquet` makes it".into()))?;
        let python = std::env::var_os("TALLY_WRITERS_PYTHON").map_or_else(python, |path| Ok(path.into()))?;
        let folder = tempfile::Builder::new().prefix("tally writers ").tempdir()?;
        let mut command = Command::new(python);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("writers/make_days.py"));
        command.arg(folder.path()).arg(&writers).args(seeds.iter().map(u64::to_string));
        let made =
            command.env("HYPARQUET", packages).output().with_context(|| format!("starting {command:?}"))?;
        let said = String::from_utf8_lossy(&made.stderr);
        if made.status.code() == Some(NOT_INSTALLED) {
            return Err(Missing(said.trim().into()).into());
        }
        ensure!(made.status.success(), "{command:?}: {said}");
        Ok(Self { folder, writers, seeds })
    }

    /// Runs each day by `run`, with flags that its seed gives, and compares the output with what is right. All days are run,
    /// also after one that fails.
    ///
    /// # Errors
    /// Days fail: with how to run each of them again, and where its files are kept.
    pub fn check(self, run: impl Fn(&Path, &Place, &[String]) -> Result<Summary>) -> Result<()> {
        let mut failed = Vec::new();
        for seed in &self.seeds {
            let day = self.folder.path().join(seed.to_string());
            if let Err(error) = check_day(&day, *seed, &run) {
                failed.push((seed, day, error));
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        let (days, writers) = (self.seeds.len(), &self.writers);
        let mut text = format!("{} of {days} days are wrong\n", failed.len());
        for (seed, day, error) in failed {
            text += &format!(
                "TALLY_WRITERS={writers} TALLY_WRITER_SEEDS={seed} runs it again; its files are kept in {}\n{error:?}\n",
                day.display()
            );
        }
        let _kept: PathBuf = self.folder.keep();
        bail!(text)
    }
}

fn check_day(
    day: &Path,
    seed: u64,
    run: &impl Fn(&Path, &Place, &[String]) -> Result<Summary>,
) -> Result<()> {
    let place = Place::new()?;
    let flags = flags(seed);
    let summary = run(&day.join("mixed"), &place, &flags).with_context(|| format!("{flags:?}"))?;
    let rows = place.read_output(DATE)?;
    table::compare(&rows, &table::read_aggregates(&day.join("expected.parquet"))?)
        .with_context(|| format!("{flags:?}"))?;
    ensure!(summary.rows == rows.len() as u64, "{summary:?}");
    Ok(())
}

/// How a job is cut into pieces.
fn flags(seed: u64) -> Vec<String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let shard = ["1", "2KB", "1GiB"][rng.random_range(0..3)];
    let partitions = [1, 3, 16][rng.random_range(0..3)];
    let flags = ["--shard-bytes", shard, "--partitions", &partitions.to_string()];
    flags.map(str::to_string).into()
}

fn read_seeds(text: &str) -> Result<Vec<u64>> {
    let mut seeds = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        seeds.extend(first.trim().parse::<u64>()?..=last.trim().parse()?);
    }
    Ok(seeds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_numbers_and_ranges() {
        assert_eq!(read_seeds("1-3,77").unwrap(), [1, 2, 3, 77]);
        assert!(read_seeds("").is_err() && read_seeds("a-3").is_err());
    }
}
