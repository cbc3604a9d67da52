//! What a job must give: the rows of a generated day as `tally run` computes them in one process, where they were
//! checked against Spark and a naive reference. Not here: who else computes them.

use std::path::PathBuf;
use std::sync::LazyLock;

use anyhow::{Context, Result, ensure};

use crate::generated::Generated;
use crate::golden::DATE;
use crate::output::Place;
use crate::process::{Summary, Tally};
use crate::rows::Row;
use crate::scratch::Scratch;
use crate::table;

/// Makes a job over [`DAY`] one of many small tasks in all stages.
pub const MANY_TASKS: &[&str] =
    &["--shard-bytes", "100KB", "--partitions", "24", "--target-file-size", "1MB"];

/// The day of most tests.
pub static DAY: LazyLock<Truth> =
    LazyLock::new(|| Truth::new(&["--clients", "300000", "--narrow"]).expect("a day that succeeds"));

/// A day and its right output.
pub struct Truth {
    /// Holds `addons/v2` and `main_summary/v3`.
    pub root: PathBuf,
    rows: Vec<Row>,
    n_clients: u64,
    _dir: Scratch,
}

impl Truth {
    /// Generates a day with these flags and computes its output.
    ///
    /// # Errors
    /// One of the two fails, or the output is not what the generator promised.
    pub fn new(flags: &[&str]) -> Result<Self> {
        let dir = Scratch::new("tally day ")?;
        let day = Generated::new(dir.path(), flags)?;
        let place = Place::new()?;
        let summary = Tally::job(&day.root, &place).date(DATE).run()?.summary()?;
        ensure!(summary.rows == day.totals.rows, "tally run gave {} rows of {:?}", summary.rows, day.totals);
        let rows = place.read_output(DATE)?;
        Ok(Self { root: day.root, rows, n_clients: day.totals.n_clients, _dir: dir })
    }

    /// Checks that `place` holds exactly the right rows, each once, in part files and nothing else.
    ///
    /// # Errors
    /// Says what differs.
    pub fn check(&self, place: &Place) -> Result<()> {
        let rows = place.read_output(DATE)?;
        table::compare(&rows, &self.rows).with_context(|| format!("in {}", place.output().display()))
    }

    /// [`Truth::check`], and that the summary says the same.
    ///
    /// # Errors
    /// Says what differs.
    pub fn check_summary(&self, place: &Place, summary: &Summary) -> Result<()> {
        self.check(place)?;
        ensure!(summary.rows == self.rows.len() as u64, "{summary:?}, not {} rows", self.rows.len());
        ensure!(summary.n_clients == self.n_clients, "{summary:?}, not {} clients", self.n_clients);
        Ok(())
    }
}
