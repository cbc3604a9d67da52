//! The comparison of two days as multisets of rows: in whatever files, row groups and order the rows are stored. Both days
//! are read once; the first rows that differ are then read again to show their values.
//!
//! The last columns, which have one value for a whole day, are compared by day, so that a different count of clients does
//! not make all rows different. The folder within the day is part of a row, where the dataset has folders. Not here: how a difference is shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;
use tally_dataset::Dataset;
use tally_scan::InputFile;
use tokio::runtime::Handle;

use super::buckets::{Buckets, Entry, Tag};
use super::differences::{Differences, Differing};
use super::local_copy::LocalCopy;
use super::part_rows::PartRows;
use super::row_hashes::{RowHasher, in_folder};
use super::row_values::{RowValues, values};
use super::{AuditError, AuditLimits, OUTPUT};
use crate::dates::date_folder;
use crate::output_folder::folder_value;
use crate::plan::listing::day_files;

/// The folder of a day.
#[derive(Debug, Clone)]
pub struct DayLocation {
    root: String,
    folder: String,
}

impl DayLocation {
    /// A day by the URL of its folder.
    pub fn of_folder(url: &str) -> Self {
        let url = url.trim_end_matches('/');
        let (root, folder) = url.rsplit_once('/').unwrap_or((".", url));
        DayLocation { root: if root.is_empty() { "/".into() } else { root.into() }, folder: folder.into() }
    }

    /// The day of a date in an output of that dataset.
    pub fn of_date(dataset: &dyn Dataset, output: &str, date: &str) -> Self {
        let folder = date_folder(dataset.partition_column(), date);
        DayLocation { root: output.trim_end_matches('/').into(), folder }
    }

    /// The URL of the folder.
    pub fn url(&self) -> String {
        format!("{}/{}", self.root.trim_end_matches('/'), self.folder)
    }

    async fn files(&self, dataset: &dyn Dataset) -> Result<Vec<InputFile>, AuditError> {
        let found = day_files(OUTPUT, &self.root, &self.folder).await?;
        let below = format!("/{}=", dataset.partition_column());
        let is_root = |file: &InputFile| {
            let (_, path) = file.path.as_ref().rsplit_once(&format!("{}/", self.folder)).unwrap_or_default();
            format!("/{path}").contains(&below)
        };
        match found.files.iter().any(is_root) {
            true => Err(AuditError::SeveralDays { url: self.url() }),
            false => Ok(found.files),
        }
    }
}

/// One of the compared days.
#[derive(Debug, Clone, Serialize)]
pub struct Side {
    /// URL of its folder.
    pub url: String,
    /// Its files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
}

/// A column with one value for the whole day that differs.
#[derive(Debug, Clone, Serialize)]
pub struct ConstantDifference {
    /// The column.
    pub column: String,
    /// Its value in the first day.
    pub a: Value,
    /// Its value in the second day.
    pub b: Value,
}

/// The rows of a key that only one of the days has.
#[derive(Debug, Clone, Serialize)]
pub struct KeyDifference {
    /// The key.
    pub key: Value,
    /// Rows that only the first day has.
    pub only_in_a: Vec<RowValues>,
    /// Rows that only the second day has.
    pub only_in_b: Vec<RowValues>,
}

/// The result of a comparison. The JSON form is stable: fields are added, never changed.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// The dataset.
    pub dataset: &'static str,
    /// The key column.
    pub key_column: &'static str,
    /// The days have the same rows.
    pub equal: bool,
    /// The first day.
    pub a: Side,
    /// The second day.
    pub b: Side,
    /// Columns of the whole day with different values.
    pub constants: Vec<ConstantDifference>,
    /// Rows that only the first day has, or has more often.
    pub rows_only_in_a: u64,
    /// Rows that only the second day has, or has more often.
    pub rows_only_in_b: u64,
    /// Keys with such rows.
    pub differing_keys: u64,
    /// The first of them, in the order of the files.
    pub first: Vec<KeyDifference>,
}

/// Compares two days. At most `shown` keys that differ are read again.
///
/// # Errors
/// [`AuditError`]: a day cannot be read.
pub async fn compare(
    dataset: Arc<dyn Dataset>,
    days: [&DayLocation; 2],
    limits: &AuditLimits,
    shown: usize,
) -> Result<Comparison, AuditError> {
    let files = [days[0].files(&*dataset).await?, days[1].files(&*dataset).await?];
    let reader = Reader { dataset, limits: limits.clone() };
    let mut with_constants = false;
    let (read, differences) = loop {
        let a = reader.day(days[0], &files[0], with_constants).await?;
        let b = reader.day(days[1], &files[1], with_constants).await?;
        // Files of one day with different values: they are part of the rows, then.
        if !with_constants && (a.constants.len() > 1 || b.constants.len() > 1) {
            with_constants = true;
            continue;
        }
        let differences = Differences::of(&mut a.buckets.lock(), &mut b.buckets.lock(), shown)?;
        break ([a, b], differences);
    };
    let constants = match with_constants {
        true => vec![],
        false => reader.constant_differences(&read[0].constants, &read[1].constants),
    };
    let first = reader.show(days, &files, differences.first).await?;
    let side = |at: usize| Side {
        url: days[at].url(),
        files: files[at].len(),
        bytes: files[at].iter().map(|file| file.size).sum(),
        rows: read[at].buckets.lock().len(),
    };
    Ok(Comparison {
        dataset: reader.dataset.name(),
        key_column: reader.dataset.key_column(),
        equal: constants.is_empty() && differences.keys == 0,
        a: side(0),
        b: side(1),
        constants,
        rows_only_in_a: differences.only_in_a,
        rows_only_in_b: differences.only_in_b,
        differing_keys: differences.keys,
        first,
    })
}

/// A day that was read.
struct ReadDay {
    buckets: Arc<Mutex<Buckets>>,
    /// Different values of the last columns; one, or the first two.
    constants: Vec<Vec<Value>>,
}

/// Reads days of a dataset.
struct Reader {
    dataset: Arc<dyn Dataset>,
    limits: AuditLimits,
}

impl Reader {
    /// Reads all rows of a day. The last columns are part of a row if they differ from those of the first row of its file,
    /// or with `with_constants`.
    async fn day(
        &self,
        day: &DayLocation,
        files: &[InputFile],
        with_constants: bool,
    ) -> Result<ReadDay, AuditError> {
        let buckets = Buckets::new(self.limits.memory / 6, self.limits.spill_dir.clone());
        let buckets = Arc::new(Mutex::new(buckets));
        let read = files.iter().enumerate().map(|(number, file)| {
            let part = self.part(file, day);
            let buckets = buckets.clone();
            let read = move || part.hash(number as u64, with_constants, &buckets);
            async move { tokio::task::spawn_blocking(read).await.map_err(|_| AuditError::Panic)? }
        });
        let read = futures::stream::iter(read).buffered(self.limits.threads.max(1));
        let constants =
            read.try_fold(vec![], |mut all: Vec<Vec<Value>>, found: Option<Vec<Value>>| async move {
                if let Some(found) = found.filter(|found| all.len() < 2 && !all.contains(found)) {
                    all.push(found);
                }
                Ok(all)
            });
        let constants = constants.await?;
        Ok(ReadDay { buckets, constants })
    }

    fn part(&self, file: &InputFile, day: &DayLocation) -> Part {
        let folders = self.dataset.folders();
        let folder = folders.and_then(|folders| {
            Some((folders.column, folder_value(&folders, file.path.as_ref(), &day.folder)?))
        });
        let (dataset, limits) = (self.dataset.clone(), self.limits.clone());
        Part { dataset, limits, file: file.clone(), folder, io: Handle::current() }
    }

    fn constant_differences(&self, a: &[Vec<Value>], b: &[Vec<Value>]) -> Vec<ConstantDifference> {
        let schema = self.dataset.output_schema();
        let columns = schema.fields().iter().skip(self.dataset.reduced_schema().fields().len());
        let pairs = a.first().zip(b.first()).into_iter().flat_map(|(a, b)| a.iter().zip(b));
        let differing = columns.zip(pairs).filter(|(_, (a, b))| a != b);
        let difference = |(field, (a, b)): (&Arc<arrow_schema::Field>, (&Value, &Value))| {
            ConstantDifference { column: field.name().clone(), a: a.clone(), b: b.clone() }
        };
        differing.map(difference).collect()
    }

    /// Reads the rows of differing keys.
    async fn show(
        &self,
        days: [&DayLocation; 2],
        files: &[Vec<InputFile>; 2],
        keys: Vec<Differing>,
    ) -> Result<Vec<KeyDifference>, AuditError> {
        let mut rows: [BTreeMap<(u64, u64), RowValues>; 2] = Default::default();
        for (side, found) in rows.iter_mut().enumerate() {
            let mut wanted: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
            for tag in keys.iter().flat_map(|key| &key.only_in[side]) {
                let Tag { file, row, .. } = Tag::unpack(*tag);
                wanted.entry(file).or_default().push(row);
            }
            for (number, mut numbers) in wanted {
                let Some(file) = files[side].get(usize::try_from(number).unwrap_or(usize::MAX)) else {
                    continue;
                };
                numbers.sort_unstable();
                let part = self.part(file, days[side]);
                let wanted = numbers.clone();
                let read = tokio::task::spawn_blocking(move || part.rows(&wanted)).await;
                let read = read.map_err(|_| AuditError::Panic)??;
                found.extend(numbers.into_iter().map(|row| (number, row)).zip(read));
            }
        }
        let key_column = self.dataset.key_column();
        let shown = |key: Differing| {
            let of = |side: usize| {
                let tags = key.only_in[side].iter().map(|&tag| Tag::unpack(tag));
                tags.filter_map(|tag| rows[side].get(&(tag.file, tag.row)).cloned()).collect::<Vec<_>>()
            };
            let (only_in_a, only_in_b) = (of(0), of(1));
            let any = only_in_a.first().or(only_in_b.first());
            let key = any.and_then(|row| row.get(key_column)).cloned().unwrap_or_default();
            KeyDifference { key, only_in_a, only_in_b }
        };
        Ok(keys.into_iter().map(shown).collect())
    }
}

/// A part file of a compared day.
struct Part {
    dataset: Arc<dyn Dataset>,
    limits: AuditLimits,
    file: InputFile,
    /// The column and the value of its folder within the day, if it is in one.
    folder: Option<(&'static str, u32)>,
    io: Handle,
}

impl Part {
    fn open(&self) -> Result<PartRows, AuditError> {
        let copy = LocalCopy::get(&self.file, &self.limits.spill_dir, &self.io)?;
        let rows = PartRows::open(copy.file).map_err(|why| self.failed(why))?;
        match rows.schema_fault(&self.dataset.output_schema(), false) {
            Some(fault) => Err(self.failed(fault)),
            None => Ok(rows),
        }
    }

    fn failed(&self, why: impl ToString) -> AuditError {
        let (file, dataset) = (self.file.name.clone(), self.dataset.name());
        AuditError::Decode { file, dataset, why: why.to_string() }
    }

    /// Adds all rows to the buckets. Returns the values of the last columns in the first row. Blocks.
    fn hash(
        &self,
        number: u64,
        with_constants: bool,
        buckets: &Mutex<Buckets>,
    ) -> Result<Option<Vec<Value>>, AuditError> {
        let schema = self.dataset.output_schema();
        let reduced = self.dataset.reduced_schema().fields().len();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let hasher =
            |columns: &[&str]| RowHasher::new(&schema, columns.iter().copied()).map_err(|e| self.failed(e));
        let keys = hasher(&[self.dataset.key_column()])?;
        let (rows, constants) = (hasher(&names[..reduced])?, hasher(&names[reduced..])?);
        let has_constants = reduced < names.len();
        let mut first: Option<(Vec<Value>, u64)> = None;
        let mut row = 0;
        for batch in self.open()?.batches(schema.clone(), None).map_err(|why| self.failed(why))? {
            let batch = batch.map_err(|why| self.failed(why))?;
            let hash = |hasher: &RowHasher| hasher.hash(&batch).map_err(|e| self.failed(e));
            let folder = self.folder.map(|(_, value)| value);
            let mut hashes: Vec<u64> = hash(&rows)?.into_iter().map(|hash| in_folder(hash, folder)).collect();
            if has_constants && batch.num_rows() > 0 {
                let others = hash(&constants)?;
                let (_, usual) = first.get_or_insert_with(|| {
                    let all = values(&batch, 0);
                    (all.0.into_iter().skip(reduced).map(|(_, value)| value).collect(), others[0])
                });
                for (hash, other) in hashes.iter_mut().zip(&others) {
                    if with_constants || other != usual {
                        *hash = hash.rotate_left(21) ^ other;
                    }
                }
            }
            let entries = hash(&keys)?.into_iter().zip(hashes).zip(row..).map(|((key, hash), row)| Entry {
                key,
                row: hash,
                tag: Tag { file: number, row, flags: 0 }.pack(),
            });
            let entries: Vec<Entry> = entries.collect();
            buckets.lock().add(&entries)?;
            row += batch.num_rows() as u64;
        }
        Ok(first.map(|(values, _)| values))
    }

    /// A row with the column of its folder.
    fn with_folder(&self, mut row: RowValues) -> RowValues {
        row.0.extend(self.folder.map(|(column, value)| (column.to_string(), value.into())));
        row
    }

    /// The rows with these numbers, which are sorted. Blocks.
    fn rows(&self, numbers: &[u64]) -> Result<Vec<RowValues>, AuditError> {
        let mut rows = vec![];
        let batches = self.open()?.batches(self.dataset.output_schema(), Some(numbers));
        for batch in batches.map_err(|why| self.failed(why))? {
            let batch = batch.map_err(|why| self.failed(why))?;
            rows.extend((0..batch.num_rows()).map(|row| self.with_folder(values(&batch, row))));
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_named_by_its_folder_or_by_output_and_date() {
        let dataset = tally_dataset::addon_aggregates::AddonAggregates::new();
        let day = DayLocation::of_folder("s3://b/agg/submission_date_s3=20170227/");
        assert_eq!((&*day.root, &*day.folder), ("s3://b/agg", "submission_date_s3=20170227"));
        assert_eq!(DayLocation::of_date(&dataset, "s3://b/agg/", "20170227").url(), day.url());
        assert_eq!(DayLocation::of_folder("day").url(), "./day");
        assert_eq!(DayLocation::of_folder("/day").url(), "/day");
    }
}
