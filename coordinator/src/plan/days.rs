//! The days that the inputs and the output of a dataset have, and the state of each: published, outdated, missing.
//!
//! Only names, sizes and times of files are read. Not here: the content of files (`inspect`), and which days a user asks
//! for (`coordinator/cli`).

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDate, Utc};
use futures::StreamExt;
use tally_common::stores::urls;
use tally_dataset::Dataset;

use super::listing::{self, DayFiles, ListError};
use crate::dates::{date_folder, date_text};
use crate::job_id::submitted_at;
use crate::publish::store_staging::StoreStaging;

/// Days that are listed at a time.
const CONCURRENT_DAYS: usize = 16;
/// The name of the output in errors, where inputs have the name of their table.
const OUTPUT: &str = "output";

/// A dataset, with the roots of its inputs and its output.
#[derive(Clone, Copy)]
pub struct Roots<'a> {
    /// The dataset.
    pub dataset: &'a dyn Dataset,
    /// URLs of the input tables' roots, in the dataset's order.
    pub inputs: &'a [String],
    /// URL of the output's root.
    pub output: &'a str,
}

/// The dates for which each root has a folder.
#[derive(Debug, Clone, Default)]
pub struct Dates {
    /// By input table, in the dataset's order.
    pub inputs: Vec<BTreeSet<NaiveDate>>,
    /// Those of the output.
    pub output: BTreeSet<NaiveDate>,
}

impl Dates {
    /// The first and the last date in any root; `None` if there are no dates.
    pub fn span(&self) -> Option<(NaiveDate, NaiveDate)> {
        let roots = || self.inputs.iter().chain([&self.output]);
        let first = roots().filter_map(|dates| dates.first()).min()?;
        let last = roots().filter_map(|dates| dates.last()).max()?;
        Some((*first, *last))
    }
}

/// The data files of a day below one root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DayFolder {
    /// Files.
    pub files: usize,
    /// Bytes of all files.
    pub bytes: u64,
    /// Of an input: the last modification of a file. Of the output: the time whose inputs it has. That is when its job was
    /// submitted; if its file names do not have that time, it is the first modification of a file.
    pub time: DateTime<Utc>,
}

impl DayFolder {
    fn new(found: &DayFiles, time: DateTime<Utc>) -> Self {
        DayFolder { files: found.files.len(), bytes: found.files.iter().map(|file| file.size).sum(), time }
    }
}

/// The state of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DayState {
    /// The output has the day, and no input file is newer.
    Published,
    /// The output has the day, but an input file was modified after its job was submitted.
    Outdated,
    /// All inputs have the day, and the output does not.
    Missing,
    /// An input does not have the day, and neither does the output.
    NoInputs,
    /// A folder of the day cannot be listed, or a publish of the day is not complete.
    Unreadable,
}

impl DayState {
    /// The state in tables and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            DayState::Published => "published",
            DayState::Outdated => "outdated",
            DayState::Missing => "missing",
            DayState::NoInputs => "no_inputs",
            DayState::Unreadable => "unreadable",
        }
    }
}

/// What the roots have of a day.
#[derive(Debug, Clone)]
pub struct Day {
    /// The date.
    pub date: NaiveDate,
    /// By input table, in the dataset's order; `None` without data files.
    pub inputs: Vec<Option<DayFolder>>,
    /// The output's part files; `None` if there are none.
    pub output: Option<DayFolder>,
    /// Why a folder of the day cannot be listed, or that a publish of the day is not complete.
    pub problem: Option<String>,
}

impl Day {
    fn new(date: NaiveDate) -> Self {
        Day { date, inputs: vec![], output: None, problem: None }
    }

    /// The last modification of an input file.
    pub fn newest_input(&self) -> Option<DateTime<Utc>> {
        self.inputs.iter().flatten().map(|input| input.time).max()
    }

    /// The state of the day.
    pub fn state(&self) -> DayState {
        // Ids of jobs have milliseconds; a later microsecond of a file means nothing.
        let millis = |time: DateTime<Utc>| time.timestamp_millis();
        let newest = self.newest_input().map(millis);
        match &self.output {
            _ if self.problem.is_some() => DayState::Unreadable,
            Some(output) if newest.is_some_and(|newest| newest > millis(output.time)) => DayState::Outdated,
            Some(_) => DayState::Published,
            None if self.inputs.iter().all(Option::is_some) => DayState::Missing,
            None => DayState::NoInputs,
        }
    }

    /// The files of the day below a root; `None` if there are none or they cannot be listed, which is noted.
    async fn list(&mut self, table: &'static str, url: &str, folder: &str) -> Option<DayFiles> {
        match listing::day_files(table, url, folder).await {
            Ok(found) => Some(found),
            Err(ListError::Nothing { .. }) => None,
            Err(error) => {
                self.problem.get_or_insert_with(|| error.to_string());
                None
            }
        }
    }
}

impl Roots<'_> {
    /// The dates for which the roots have folders.
    ///
    /// # Errors
    /// [`ListError`]: a root cannot be listed.
    pub async fn dates(&self) -> Result<Dates, ListError> {
        let column = self.dataset.partition_column();
        let mut dates = Dates::default();
        for (table, url) in self.dataset.tables().iter().zip(self.inputs) {
            dates.inputs.push(listing::dates(table.name, url, column).await?);
        }
        dates.output = listing::dates(OUTPUT, self.output, column).await?;
        Ok(dates)
    }

    /// What the roots have of each of these days, in their order. `dates` says which folders exist: only those are listed.
    pub async fn days(&self, dates: &Dates, wanted: impl Iterator<Item = NaiveDate>) -> Vec<Day> {
        let days = wanted.map(|date| self.day(dates, date));
        futures::stream::iter(days).buffered(CONCURRENT_DAYS).collect().await
    }

    async fn day(&self, dates: &Dates, date: NaiveDate) -> Day {
        let text = date_text(date);
        let folder = date_folder(self.dataset.partition_column(), &text);
        let mut day = Day::new(date);
        for ((table, url), has) in self.dataset.tables().iter().zip(self.inputs).zip(&dates.inputs) {
            let found = match has.contains(&date) {
                true => day.list(table.name, url, &folder).await,
                false => None,
            };
            let input = found.and_then(|found| Some(DayFolder::new(&found, found.modified?.last)));
            day.inputs.push(input);
        }
        if dates.output.contains(&date)
            && let Some(found) = day.list(OUTPUT, self.output, &folder).await
        {
            day.output = made_at(&found, &text).map(|time| DayFolder::new(&found, time));
        }
        if let Some(problem) = self.half_published(&folder).await {
            day.problem.get_or_insert(problem);
        }
        day
    }

    /// Says that a publish of the day is decided and not carried out, or that this cannot be known. In a file system, a day
    /// is replaced in one step.
    async fn half_published(&self, folder: &str) -> Option<String> {
        if urls::is_local(self.output) {
            return None;
        }
        match StoreStaging::is_half_published(self.output, folder).await {
            Ok(false) => None,
            Ok(true) => {
                Some(format!("{OUTPUT}: the publish of the day is not complete: compute the day again"))
            }
            Err(error) => Some(error.to_string()),
        }
    }
}

/// The time whose inputs a published day has.
fn made_at(found: &DayFiles, date: &str) -> Option<DateTime<Utc>> {
    // Other programs may have added files.
    let names = found.files.iter().filter_map(|file| file.path.filename());
    let submitted = names.filter_map(|name| submitted_by_name(name, date)).min();
    submitted.or(found.modified.map(|modified| modified.first))
}

/// When the job of a part file was submitted, by the file's name; `None` for files of other programs.
fn submitted_by_name(name: &str, date: &str) -> Option<DateTime<Utc>> {
    let (_, job) = name.strip_prefix("part-")?.split_once('-')?;
    submitted_at(job).filter(|_| job.split('-').next() == Some(date))
}

#[cfg(test)]
mod tests {
    use tally_dataset::addon_aggregates::AddonAggregates;

    use super::*;
    use crate::dates::parse_date;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 500_900).unwrap()
    }

    fn folder(seconds: i64) -> Option<DayFolder> {
        Some(DayFolder { files: 1, bytes: 1, time: at(seconds) })
    }

    fn state(inputs: [Option<DayFolder>; 2], output: Option<DayFolder>) -> DayState {
        let date = parse_date("20170227").unwrap();
        Day { inputs: inputs.to_vec(), output, ..Day::new(date) }.state()
    }

    #[test]
    fn the_state_of_a_day_follows_from_its_folders_and_their_times() {
        assert_eq!(state([folder(5), folder(7)], folder(9)), DayState::Published);
        assert_eq!(state([folder(5), folder(9)], folder(9)), DayState::Published);
        assert_eq!(state([folder(10), folder(7)], folder(9)), DayState::Outdated);
        assert_eq!(state([folder(5), folder(10)], folder(9)), DayState::Outdated);
        assert_eq!(state([folder(5), folder(7)], None), DayState::Missing);
        assert_eq!(state([folder(5), None], None), DayState::NoInputs);
        assert_eq!(state([None, None], None), DayState::NoInputs);
        // Inputs that were archived do not make the output wrong.
        assert_eq!(state([None, None], folder(9)), DayState::Published);
        assert_eq!(state([None, folder(10)], folder(9)), DayState::Outdated);
        let date = parse_date("20170227").unwrap();
        let unreadable = Day { output: folder(9), problem: Some("denied".into()), ..Day::new(date) };
        assert_eq!(unreadable.state(), DayState::Unreadable);
    }

    #[test]
    fn an_input_within_the_millisecond_of_its_job_is_not_late() {
        let output =
            DayFolder { time: DateTime::from_timestamp_millis(9_000).unwrap(), ..folder(0).unwrap() };
        let input = |micros: i64| {
            let time = DateTime::from_timestamp_micros(9_000_000 + micros).unwrap();
            Some(DayFolder { time, ..output })
        };
        assert_eq!(state([input(999), input(0)], Some(output)), DayState::Published);
        assert_eq!(state([input(1_000), input(0)], Some(output)), DayState::Outdated);
    }

    #[test]
    fn part_files_of_a_job_have_the_time_of_its_submission() {
        let time = |name: &str| submitted_by_name(name, "20170227").map(|time| time.timestamp_millis());
        let millis = Some(0x1a203b13e4c);
        assert_eq!(time("part-00003-20170227-1a203b13e4c-6eeb-0.snappy.parquet"), millis);
        assert_eq!(time("part-00003-20170227-1a203b13e4c-6eeb-0-8193.snappy.parquet"), millis);
        for other in [
            "part-00000-20170226-1a203b13e4c-6eeb-0.snappy.parquet",
            "part-00000-11111111-2222-3333-4444-555555555555.c000.snappy.parquet",
            "part-00000-old.snappy.parquet",
            "data.parquet",
        ] {
            assert_eq!(time(other), None, "{other}");
        }
    }

    #[tokio::test]
    async fn roots_say_which_days_they_have() {
        let place = tempfile::tempdir().unwrap();
        let root = |name: &str| place.path().join(name).display().to_string();
        let write = |table: &str, date: &str, name: &str| {
            let folder = place.path().join(table).join(format!("submission_date_s3={date}/sample_id=1"));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(name), "x").unwrap();
        };
        for table in ["addons", "main"] {
            write(table, "20170225", "part.parquet");
            write(table, "20170227", "part.parquet");
        }
        write("addons", "20170226", "part.parquet");
        write("main", "20170226", "_SUCCESS");
        // Far in the future, so that the inputs are older.
        write("agg", "20170227", "part-00000-20170227-fffffffffff-1-0.snappy.parquet");
        write("agg", "20170225", "part-00000-20170225-1-1-0.snappy.parquet");
        let dataset = AddonAggregates::new();
        let inputs = [root("addons"), root("main")];
        let output = root("agg");
        let roots = Roots { dataset: &dataset, inputs: &inputs, output: &output };
        let dates = roots.dates().await.unwrap();
        let (first, last) = dates.span().unwrap();
        assert_eq!((date_text(first), date_text(last)), ("20170225".into(), "20170227".into()));
        let days = roots.days(&dates, first.iter_days().take(4)).await;
        let states: Vec<_> = days.iter().map(|day| day.state().name()).collect();
        assert_eq!(states, ["outdated", "no_inputs", "published", "no_inputs"]);
        assert_eq!(days[1].inputs.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false]);
        let (inputs, output) = ([root("none"), root("none")], root("none"));
        let nothing = Roots { inputs: &inputs, output: &output, ..roots };
        assert_eq!(nothing.dates().await.unwrap().span(), None);
    }
}
