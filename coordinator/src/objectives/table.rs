//! The objectives table beside an output: `<output>_objectives/<day folder>/objectives.parquet`, one file of one row per day.
//!
//! The file repeats what the part files of the day state. It is never written from anything else, so it cannot disagree with
//! the day: it is removed before a publish begins, and written from the published day afterwards, whatever the publish
//! ended with. If the process dies in between, the day is missing from the table until it is published again. A later leader or
//! `tally gc` that carries the publish out writes it, too.
//!
//! A table that cannot be written does not fail a job: the day is published, and `tally report` reads the part files.
//! Not here: what part files state (`day`).

use std::sync::Arc;
use std::time::Duration;

use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use tally_common::stores::explain;
use tally_common::stores::urls::{self, UrlError};
use tally_dataset::objectives::table_row;
use tally_dataset::{Dataset, ObjectivesSpec};

use super::DayObjectives;
use super::day::{self, FoundDay, ReadError};

/// What the root of the table is named after the output.
pub const SUFFIX: &str = "_objectives";
/// The file of a day.
const FILE: &str = "objectives.parquet";
/// Time limit for one update of the table.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Updates until the table and a day that others publish at the same time agree.
const TRIES: usize = 4;

/// The table cannot be updated.
#[derive(Debug, thiserror::Error)]
enum TableError {
    #[error(transparent)]
    Url(#[from] UrlError),
    #[error("the table of {0} cannot be beside the root of a bucket")]
    NoParent(String),
    #[error(transparent)]
    Day(#[from] ReadError),
    #[error("{}", explain(.0))]
    Store(#[from] Error),
    #[error(transparent)]
    Encode(#[from] ParquetError),
    #[error("no answer in {} s", TIMEOUT.as_secs())]
    TimedOut,
    #[error("other processes publish the day at the same time")]
    Contended,
    #[error("opening it panicked")]
    Panic,
}

/// The table's file of one day.
pub(crate) struct DayTable {
    dataset: Arc<dyn Dataset>,
    spec: ObjectivesSpec,
    output: String,
    day_folder: String,
}

impl DayTable {
    /// The file of a day of an output, by the name of its dataset; `None` if the dataset has no objectives.
    pub(crate) fn new(dataset: &str, output: &str, day_folder: &str) -> Option<Self> {
        let dataset = tally_dataset::dataset(dataset)?;
        let spec = *dataset.objectives()?;
        Some(DayTable { dataset, spec, output: output.into(), day_folder: day_folder.into() })
    }

    /// Removes the day from the table, before it is replaced, with what a process left behind that died while it wrote the
    /// file. If another process writes it now, that fails, and this one writes it afterwards.
    pub(crate) async fn retract(&self) {
        let removed = async {
            let file = self.open().await?;
            remove(&file).await?;
            if urls::is_local(&self.output) {
                let path = LocalFileSystem::new().path_to_filesystem(&file.1)?;
                tokio::task::spawn_blocking(move || remove_unfinished(&path))
                    .await
                    .map_err(|_| TableError::Panic)?;
            }
            Ok(())
        };
        self.warn(limited(removed).await);
    }

    /// Makes the table's day what the output's day is.
    pub(crate) async fn update(&self) {
        self.warn(limited(self.follow_day()).await);
    }

    fn warn(&self, done: Result<(), TableError>) {
        if let Err(error) = done {
            let (day, table) = (&self.day_folder, format!("{}{SUFFIX}", self.output.trim_end_matches('/')));
            tracing::warn!(%day, %table, %error, "the objectives table cannot be updated; `tally report` does not need it");
        }
    }

    async fn follow_day(&self) -> Result<(), TableError> {
        let file = self.open().await?;
        let mut written = None;
        for _ in 0..TRIES {
            let found = day::read(&*self.dataset, &self.output, &self.day_folder).await?;
            // Another process may have published the day since it was read.
            if written.as_ref() == Some(&found) {
                return Ok(());
            }
            match &found {
                FoundDay::Objectives(day) => {
                    file.0.put(&file.1, self.encode(day)?.into()).await?;
                }
                FoundDay::Missing | FoundDay::WithoutObjectives => remove(&file).await?,
            }
            written = Some(found);
        }
        Err(TableError::Contended)
    }

    async fn open(&self) -> Result<(Arc<dyn ObjectStore>, Path), TableError> {
        let output = self.output.clone();
        let (store, root) = match urls::is_local(&output) {
            true => {
                // Resolving a path blocks.
                let opened = tokio::task::spawn_blocking(move || urls::open(&output)).await;
                let (_, root) = opened.map_err(|_| TableError::Panic)??;
                let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new().with_fsync(true));
                (store, root)
            }
            false => urls::open(&output)?,
        };
        let no_parent = || TableError::NoParent(self.output.clone());
        if root.as_ref().is_empty() {
            return Err(no_parent());
        }
        let path = format!("{root}{SUFFIX}/{}/{FILE}", self.day_folder);
        Ok((store, Path::parse(path).map_err(|_| no_parent())?))
    }

    fn encode(&self, day: &DayObjectives) -> Result<Vec<u8>, TableError> {
        let row = table_row(&*self.dataset, &self.spec, day.rows, day.checksum.as_deref(), &day.counts);
        let row = row.map_err(|error| ParquetError::ArrowError(error.to_string()))?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by(format!("tally version {}", env!("CARGO_PKG_VERSION")))
            .build();
        let mut writer = ArrowWriter::try_new(vec![], row.schema(), Some(properties))?;
        writer.write(&row)?;
        Ok(writer.into_inner()?)
    }
}

/// Removes the file, if it exists. Days that are computed for the first time need no permission to delete.
async fn remove((store, path): &(Arc<dyn ObjectStore>, Path)) -> Result<(), TableError> {
    let removed = match store.head(path).await {
        Ok(_) => store.delete(path).await,
        Err(error) => Err(error),
    };
    match removed {
        Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes the files that `object_store` writes before it gives them the name of that file: the name, `#`, and a number.
fn remove_unfinished(file: &std::path::Path) {
    let Some(Ok(entries)) = file.parent().map(std::fs::read_dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(FILE)?.strip_prefix('#'));
        if number.is_some_and(|number| number.parse::<u64>().is_ok()) {
            // One that stays is ignored by all readers.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

async fn limited(work: impl Future<Output = Result<(), TableError>>) -> Result<(), TableError> {
    tokio::time::timeout(TIMEOUT, work).await.unwrap_or(Err(TableError::TimedOut))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_dead_process_left_behind_is_removed_with_the_day() {
        let dir = std::env::temp_dir().join(format!("tally objectives {}", std::process::id()));
        let day = dir.join("v1_objectives/day=1");
        std::fs::create_dir_all(&day).unwrap();
        for name in [FILE, "objectives.parquet#1", "objectives.parquet#27", "objectives.parquet#x", "other#1"]
        {
            std::fs::write(day.join(name), name).unwrap();
        }
        let output = dir.join("v1").display().to_string();
        DayTable::new("addon_aggregates", &output, "day=1").unwrap().retract().await;
        let mut left: Vec<_> =
            std::fs::read_dir(&day).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(left, ["objectives.parquet#x", "other#1"]);
    }
}
