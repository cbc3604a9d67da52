//! The expected result of a job: the rows of a generated day as the reference computes them from its files, once per
//! day and test binary. Not here: the engine.

use std::path::PathBuf;
use std::sync::LazyLock;

use anyhow::{Context, Result, ensure};

use crate::generated::Generated;
use crate::golden::DATE;
use crate::naive::Aggregates;
use crate::output::Place;
use crate::process::Summary;
use crate::reference::Reference;
use crate::scratch::Scratch;
use crate::table;

/// Splits a job over [`DAY`] into many small tasks in all stages.
pub const MANY_TASKS: &[&str] =
    &["--shard-bytes", "100KB", "--partitions", "24", "--target-file-size", "1MB"];

/// The day of most tests.
pub static DAY: LazyLock<Truth> =
    LazyLock::new(|| Truth::new(&["--clients", "300000", "--narrow"]).expect("a day that succeeds"));

/// A day and its expected output.
pub struct Truth {
    /// Holds `addons/v2` and `main_summary/v3`.
    pub root: PathBuf,
    right: Aggregates,
    _dir: Scratch,
}

impl Truth {
    /// Generates a day with these flags and computes its output.
    ///
    /// # Errors
    /// One of the two fails, or the output differs from what the generator promised.
    pub fn new(flags: &[&str]) -> Result<Self> {
        let dir = Scratch::new("tally day ")?;
        let day = Generated::new(dir.path(), flags)?;
        let right = Reference::of_day(&day.root, DATE)?;
        let (rows, clients) = (right.rows.len() as u64, right.n_clients as u64);
        let promised = (day.totals.rows, day.totals.n_clients);
        ensure!(
            (rows, clients) == promised,
            "the reference has {rows} rows, {clients} clients of {:?}",
            day.totals
        );
        Ok(Self { root: day.root, right, _dir: dir })
    }

    /// Checks that `place` holds exactly the expected rows, each once, in part files and nothing else.
    ///
    /// Shows the difference.
    pub fn check(&self, place: &Place) -> Result<()> {
        let rows = place.read_output(DATE)?;
        table::compare(&rows, &self.right.rows).with_context(|| format!("in {}", place.output().display()))
    }

    /// [`Truth::check`], and that the summary agrees.
    ///
    /// # Errors
    /// Shows the difference.
    pub fn check_summary(&self, place: &Place, summary: &Summary) -> Result<()> {
        self.check(place)?;
        let found = (summary.rows, summary.n_clients, summary.n_custom_theme_clients);
        let Aggregates { rows, n_clients, n_custom_theme_clients } = &self.right;
        let right = (rows.len() as u64, *n_clients as u64, *n_custom_theme_clients as u64);
        ensure!(found == right, "{summary:?}, not rows, clients and clients with a custom theme {right:?}");
        Ok(())
    }
}
