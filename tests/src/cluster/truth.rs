//! The expected result of a job: the rows of a generated day as the reference computes them from its files, once per
//! day and test binary, or once for all test binaries of `tests/run`. Not here: the engine.

use std::fs::File;
use std::path::{Path, PathBuf};
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

/// The variable with the folder in which the test binaries of one run share their days. All of them must use the same
/// `tally`.
const SHARED: &str = "TALLY_TEST_DAYS";

/// A day and its expected output.
pub struct Truth {
    /// Holds `addons/v2` and `main_summary/v3`. Other tests may read it: nothing may change it.
    pub root: PathBuf,
    right: Aggregates,
    _dir: Option<Scratch>,
}

impl Truth {
    /// Generates a day with these flags and computes its output.
    ///
    /// # Errors
    /// One of the two fails, or the output differs from what the generator promised.
    pub fn new(flags: &[&str]) -> Result<Self> {
        if let Some(folder) = std::env::var_os(SHARED) {
            let (root, right) = shared(&Path::new(&folder).join(flags.join(" ")), flags)?;
            return Ok(Self { root, right, _dir: None });
        }
        let dir = Scratch::new("tally day ")?;
        let (root, right) = made(dir.path(), flags)?;
        Ok(Self { root, right, _dir: Some(dir) })
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

/// Generates a day, and computes its output.
fn made(folder: &Path, flags: &[&str]) -> Result<(PathBuf, Aggregates)> {
    let day = Generated::new(folder, flags)?;
    let right = Reference::of_day(&day.root, DATE)?;
    let (rows, clients) = (right.rows.len() as u64, right.n_clients as u64);
    let promised = (day.totals.rows, day.totals.n_clients);
    ensure!(
        (rows, clients) == promised,
        "the reference has {rows} rows, {clients} clients of {:?}",
        day.totals
    );
    Ok((day.root, right))
}

/// The same for the first test binary that needs this day; the others read what it wrote.
fn shared(folder: &Path, flags: &[&str]) -> Result<(PathBuf, Aggregates)> {
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let lock = File::create(folder.join("lock")).context("creating a lock file")?;
    lock.lock().context("waiting for another test binary that generates the same day")?;
    let (root, file) = (folder.join("day"), folder.join("expected.json"));
    if file.exists() {
        let content = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        return Ok((root, serde_json::from_slice(&content)?));
    }
    if root.exists() {
        // Its test binary was killed.
        std::fs::remove_dir_all(&root)?;
    }
    let (root, right) = made(folder, flags)?;
    let unfinished = folder.join("unfinished");
    std::fs::write(&unfinished, serde_json::to_vec(&right)?)?;
    std::fs::rename(unfinished, file)?;
    Ok((root, right))
}
