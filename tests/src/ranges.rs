//! A range of days with the inputs of a golden case under several dates, and what `tally backfill`, `days` and `plan` say about
//! them. Not here: the scenarios.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::golden::{Case, DATE};
use crate::output::{Entry, Place, check_no_spill, is_part_name, snapshot};
use crate::process::{Outcome, Tally};
use crate::{objectives, table};

const TABLES: [(&str, &str); 2] = [("--addons", "addons/v2"), ("--main-summary", "main_summary/v3")];

/// Three consecutive dates.
pub const THREE: [&str; 3] = ["20170226", DATE, "20170228"];

/// One day in the JSON of a command. Each command has some of the fields.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct DayView {
    pub date: String,
    pub state: String,
    pub job_id: Option<String>,
    pub rows: Option<u64>,
    pub files: Option<u64>,
    pub shards: Option<u64>,
    pub reason: Option<String>,
}

/// The days in the JSON on standard output.
///
/// # Errors
/// It has another form.
pub fn days(outcome: &Outcome) -> Result<Vec<DayView>> {
    #[derive(Deserialize)]
    struct Days {
        days: Vec<DayView>,
    }
    let parsed: Days = serde_json::from_str(&outcome.stdout).with_context(|| outcome.to_string())?;
    Ok(parsed.days)
}

/// The state of each day.
///
/// # Errors
/// See [`days`].
pub fn states(outcome: &Outcome) -> Result<Vec<String>> {
    Ok(days(outcome)?.into_iter().map(|day| day.state).collect())
}

/// Inputs of several days, and an output.
pub struct Range {
    pub place: Place,
    root: PathBuf,
    case: Case,
}

impl Range {
    /// A range whose inputs have these dates.
    ///
    /// # Errors
    /// The file system fails.
    pub fn new(dates: &[&str]) -> Result<Self> {
        let place = Place::new()?;
        let root = place.path().join("days");
        for (_, table) in TABLES {
            std::fs::create_dir_all(root.join(table))?;
        }
        let range = Self { place, root, case: Case::new("case-05") };
        dates.iter().try_for_each(|date| range.add(date))?;
        Ok(range)
    }

    fn folder(&self, table: &str, date: &str) -> PathBuf {
        self.root.join(table).join(format!("submission_date_s3={date}"))
    }

    /// Copies the case's inputs to this date.
    ///
    /// # Errors
    /// The file system fails.
    pub fn add(&self, date: &str) -> Result<()> {
        for (_, table) in TABLES {
            let from = self.case.dir.join(table).join(format!("submission_date_s3={DATE}"));
            for file in table::data_files(&from)? {
                let copy = self.folder(table, date).join(file.strip_prefix(&from)?);
                std::fs::create_dir_all(copy.parent().context("a file has a folder")?)?;
                std::fs::copy(&file, &copy)?;
            }
        }
        Ok(())
    }

    /// Links the golden date of the inputs under `root` to this date.
    ///
    /// # Errors
    /// The file system fails.
    pub fn link(&self, root: &Path, date: &str) -> Result<()> {
        for (_, table) in TABLES {
            let from = root.join(table).join(format!("submission_date_s3={DATE}"));
            std::os::unix::fs::symlink(from, self.folder(table, date))?;
        }
        Ok(())
    }

    /// Removes the inputs of this date from one table.
    ///
    /// # Errors
    /// The file system fails.
    pub fn remove_main_summary(&self, date: &str) -> Result<()> {
        Ok(std::fs::remove_dir_all(self.folder(TABLES[1].1, date))?)
    }

    /// Late data: an input file of this date is modified now.
    ///
    /// # Errors
    /// The file system fails.
    pub fn touch(&self, date: &str) -> Result<()> {
        let files = table::data_files(&self.folder(TABLES[0].1, date))?;
        let file = files.first().context("no file")?;
        File::options().write(true).open(file)?.set_modified(SystemTime::now())?;
        Ok(())
    }

    /// The command with the roots of inputs and output.
    pub fn named(&self, command: Tally) -> Tally {
        let inputs = TABLES.map(|(flag, table)| (flag, self.root.join(table)));
        let roots = inputs.into_iter().chain([("--output", self.place.output())]);
        roots.fold(command, |command, (flag, root)| command.args([flag.as_ref(), root.as_os_str()]))
    }

    /// The same with JSON output.
    pub fn of(&self, command: Tally) -> Tally {
        self.named(command).args(["--output-format", "json"])
    }

    /// The same for the dates from `from` to `to`.
    pub fn between(&self, command: Tally, [from, to]: [&str; 2]) -> Tally {
        self.of(command).args(["--from", from, "--to", to])
    }

    /// `tally backfill` in one process.
    pub fn backfill(&self, ends: [&str; 2]) -> Tally {
        let spill = self.place.spill();
        self.between(Tally::new("backfill"), ends).args(["--spill-dir".as_ref(), spill.as_os_str()])
    }

    /// Checks that the output has exactly these days, each with the rows that Spark computed, and nothing else.
    ///
    /// # Errors
    /// Names the difference.
    pub fn check_published(&self, dates: &[&str]) -> Result<()> {
        check_no_spill(&self.place.spill())?;
        self.check_days(dates)?;
        for date in dates {
            let rows = table::read_aggregates(&self.place.partition(date))?;
            table::compare(&rows, &self.case.expected_rows()?).with_context(|| date.to_string())?;
        }
        Ok(())
    }

    /// Checks that the output has part files of exactly these days, and nothing else.
    ///
    /// # Errors
    /// Names the difference.
    pub fn check_days(&self, dates: &[&str]) -> Result<()> {
        let mut found = BTreeSet::new();
        for (name, entry) in snapshot(&self.place.published())? {
            let path = self.place.published().join(name);
            if let Entry::File(_) = entry
                && !dates.iter().any(|date| path == objectives::file_of(&self.place.partition(date)))
            {
                ensure!(is_part_name(&path), "{} is no part file", path.display());
                found.extend(path.parent().map(Path::to_path_buf));
            }
        }
        let wanted: BTreeSet<PathBuf> = dates.iter().map(|date| self.place.partition(date)).collect();
        ensure!(found == wanted, "the days are {found:?} instead of {wanted:?}");
        Ok(())
    }
}
