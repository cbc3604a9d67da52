//! The audit of one published day: every part file is read, and what it has is compared with what the job recorded.
//!
//! Not here: the comparisons (`findings`).

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::ArrowError;
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use serde::Serialize;
use tally_common::counts::counted;
use tally_common::stores::urls;
use tally_dataset::{Dataset, Fingerprint};
use tally_scan::InputFile;
use tokio::runtime::Handle;

use super::buckets::{BUCKETS, Buckets, Entry, Tag};
use super::findings::{Finding, PartAudit, of_parts};
use super::local_copy::LocalCopy;
use super::part_rows::PartRows;
use super::row_hashes::{RowHasher, in_folder};
use super::{AuditError, AuditLimits, OUTPUT};
use crate::dates::date_folder;
use crate::output_folder::folder_value;
use crate::part_footer::PartFooter;
use crate::plan::listing::{DayFiles, ListError, day_files};
use crate::publish::store_staging::StoreStaging;
use crate::results::checksum_text;
use crate::summary::{NamedTotals, grouped};

/// Findings that a report lists.
const MAX_FINDINGS: usize = 100;
/// Rows that occur twice that a report names.
const MAX_REPEATED: usize = 10;
/// Totals whose lower bound can be checked: the flags of a row.
const MAX_TOTALS: usize = 8;

/// The result of the audit of a day. The JSON form is stable: fields are added, never changed.
#[derive(Debug, Clone, Serialize)]
pub struct DayReport {
    /// The dataset.
    pub dataset: &'static str,
    /// The date, `YYYYMMDD`.
    pub date: String,
    /// URL of the day's folder.
    pub url: String,
    /// The day is what its job published.
    pub valid: bool,
    /// The job that wrote it, by the footers.
    pub job_id: Option<String>,
    /// Part files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Rows that were read.
    pub rows: u64,
    /// Distinct values of the key column.
    pub distinct_keys: u64,
    /// The checksum of the rows that were read.
    pub checksum: String,
    /// The counters that the footers have.
    pub totals: NamedTotals,
    /// What is wrong; the first ones.
    pub findings: Vec<Finding>,
    /// All that is wrong.
    pub findings_count: usize,
}

/// Verifies a day of the output rooted at `output`.
///
/// # Errors
/// [`AuditError`]: the day could not be read, which says nothing about it.
pub async fn verify(
    dataset: Arc<dyn Dataset>,
    output: &str,
    date: &str,
    limits: &AuditLimits,
) -> Result<DayReport, AuditError> {
    let folder = date_folder(dataset.partition_column(), date);
    let (mut findings, mut manifest) = (vec![], None);
    if !urls::is_local(output) {
        if StoreStaging::is_half_published(output, &folder).await? {
            findings.push(Finding::of_day("a publish of the day is not complete: compute the day again"));
        } else {
            manifest = StoreStaging::published(output, &folder).await?;
        }
    }
    let found = match day_files(OUTPUT, output, &folder).await {
        // All objects of a published day were removed.
        Err(ListError::Nothing { .. }) if manifest.is_some() => {
            DayFiles { files: vec![], modified: None, warning: None }
        }
        found => found?,
    };
    findings.extend(found.warning.map(Finding::of_day));
    let buckets = Arc::new(Mutex::new(Buckets::new(limits.memory / 4, limits.spill_dir.clone())));
    let audits = found.files.into_iter().enumerate().map(|(number, file)| {
        let (dataset, buckets, limits) = (dataset.clone(), buckets.clone(), limits.clone());
        let (folder, io) = (folder.clone(), Handle::current());
        async move {
            let (name, size) = (file.name.clone(), file.size);
            let audit = PartOfDay { dataset, file, number: number as u64, buckets, folder };
            match tokio::task::spawn_blocking(move || audit.read(&limits, &io)).await {
                Ok(part) => part,
                Err(_) => Ok(undecodable(name, size)),
            }
        }
    });
    let audits = futures::stream::iter(audits).buffered(limits.threads.max(1));
    let parts: Vec<PartAudit> = audits.try_collect().await?;
    findings.extend(of_parts(&*dataset, date, &parts, manifest.as_ref()));
    let footer = parts.iter().find_map(|part| part.footer.as_ref());
    let totals = footer.map(|footer| footer.day.totals.clone()).unwrap_or_default();
    let names: Vec<&str> = parts.iter().map(|part| part.file.as_str()).collect();
    let keys = Keys::of(&*dataset, &mut buckets.lock(), &names)?;
    findings.extend(keys.findings(&*dataset, &totals.counters));
    let checksum = parts.iter().fold(0u64, |all, part| all.wrapping_add(part.checksum));
    let findings_count = findings.len();
    findings.truncate(MAX_FINDINGS);
    Ok(DayReport {
        dataset: dataset.name(),
        date: date.into(),
        url: format!("{}/{folder}", output.trim_end_matches('/')),
        valid: findings_count == 0,
        job_id: footer.map(|footer| footer.day.job.clone()),
        files: parts.len(),
        bytes: parts.iter().map(|part| part.bytes).sum(),
        rows: parts.iter().map(|part| part.rows).sum(),
        distinct_keys: keys.distinct,
        checksum: checksum_text(checksum),
        totals: NamedTotals::new(dataset.totals(), &totals),
        findings,
        findings_count,
    })
}

/// A file whose decoder panicked.
fn undecodable(file: String, bytes: u64) -> PartAudit {
    let faults = vec!["it cannot be decoded: the decoder panicked".into()];
    PartAudit { file, bytes, faults, ..PartAudit::default() }
}

/// A part file that is to be read.
struct PartOfDay {
    dataset: Arc<dyn Dataset>,
    file: InputFile,
    number: u64,
    buckets: Arc<Mutex<Buckets>>,
    folder: String,
}

impl PartOfDay {
    /// Reads the file. Blocks.
    fn read(&self, limits: &AuditLimits, io: &Handle) -> Result<PartAudit, AuditError> {
        let path = self.file.path.as_ref();
        let (_, name) = path.rsplit_once(&format!("{}/", self.folder)).unwrap_or(("", path));
        let mut part = PartAudit {
            file: self.file.name.clone(),
            name: name.into(),
            key: path.into(),
            bytes: self.file.size,
            ..PartAudit::default()
        };
        let copy = LocalCopy::get(&self.file, &limits.spill_dir, io)?;
        part.crc32 = copy.crc32;
        let rows = match PartRows::open(copy.file) {
            Ok(rows) => rows,
            Err(why) => {
                part.faults.push(format!("it cannot be read as a Parquet file: {why}"));
                return Ok(part);
            }
        };
        let entries = rows.entries();
        match PartFooter::read(&entries, &*self.dataset) {
            Ok(footer) => part.footer = Some(footer),
            Err(why) => part.faults.push(match entries.get("tally.dataset") {
                Some(name) if name.as_str() != self.dataset.name() => {
                    format!("foreign file: it is one of the dataset {name:?}: is --dataset right?")
                }
                _ => format!("foreign file: {why}"),
            }),
        }
        let schema = self.dataset.output_schema();
        if let Some(fault) = rows.schema_fault(&schema, true) {
            part.faults.push(fault);
            return Ok(part);
        }
        match self.rows(rows, &mut part) {
            Ok(()) => part.is_complete = true,
            Err(RowsError::Decode(why)) => part.faults.push(format!("it cannot be decoded: {why}")),
            Err(RowsError::Audit(error)) => return Err(error),
        }
        Ok(part)
    }

    fn rows(&self, rows: PartRows, part: &mut PartAudit) -> Result<(), RowsError> {
        let (dataset, schema) = (&*self.dataset, self.dataset.output_schema());
        let reduced: Vec<usize> = (0..dataset.reduced_schema().fields().len()).collect();
        let constants = match &part.footer {
            Some(footer) => dataset.constants(&footer.day.totals).map_err(|e| e.to_string())?,
            None => vec![],
        };
        let keys = RowHasher::new(&schema, [dataset.key_column()])?;
        let columns = dataset.unique_columns();
        // Without such columns, the hashes are not looked at.
        let columns = if columns.is_empty() { &[dataset.key_column()] } else { columns };
        let unique = RowHasher::new(&schema, columns.iter().copied())?;
        part.nulls = vec![0; reduced.len()];
        let (mut all, mut differing, mut impossible) = (Fingerprint::default(), false, false);
        for batch in rows.batches(schema.clone(), None)? {
            let batch = batch?;
            let only_reduced = batch.project(&reduced)?;
            dataset.fingerprint(&only_reduced, &mut all).map_err(|e| e.to_string())?;
            for (nulls, column) in part.nulls.iter_mut().zip(only_reduced.columns()) {
                *nulls += column.null_count() as u64;
            }
            if !differing && let Some(fault) = other_constant(&batch, &constants, part.rows)? {
                part.faults.push(fault);
                differing = true;
            }
            if !impossible && let Some(found) = dataset.impossible_row(&batch).map_err(|e| e.to_string())? {
                let row = grouped(part.rows + found.row as u64 + 1);
                part.faults.push(format!("row {row}: {}, which no job writes", found.fault));
                impossible = true;
            }
            let folder =
                dataset.folders().and_then(|folders| folder_value(&folders, &part.key, &self.folder));
            let entries = self.entries(&batch, part.rows, &keys, &unique, folder)?;
            self.buckets.lock().add(&entries)?;
            part.rows += batch.num_rows() as u64;
        }
        part.checksum = all.checksum;
        Ok(())
    }

    /// The entries of a batch whose first row has that number in the file. Rows of different folders do not repeat each other.
    fn entries(
        &self,
        batch: &RecordBatch,
        first: u64,
        keys: &RowHasher,
        unique: &RowHasher,
        folder: Option<u32>,
    ) -> Result<Vec<Entry>, RowsError> {
        let mut flags = vec![0u8; batch.num_rows()];
        let counted = self.dataset.counted_rows(batch).map_err(|e| e.to_string())?;
        for (total, rows) in counted.iter().take(MAX_TOTALS).enumerate() {
            for (flags, counted) in flags.iter_mut().zip(rows) {
                *flags |= u8::from(counted == Some(true)) << total;
            }
        }
        let unique = unique.hash(batch)?.into_iter().map(|hash| in_folder(hash, folder));
        let hashes = keys.hash(batch)?.into_iter().zip(unique);
        let tags = (first..).zip(flags).map(|(row, flags)| Tag { file: self.number, row, flags }.pack());
        Ok(hashes.zip(tags).map(|((key, row), tag)| Entry { key, row, tag }).collect())
    }
}

/// The rows of a file cannot be read.
enum RowsError {
    /// Because of the file.
    Decode(String),
    /// For another reason.
    Audit(AuditError),
}

impl From<String> for RowsError {
    fn from(why: String) -> Self {
        RowsError::Decode(why)
    }
}

impl From<ArrowError> for RowsError {
    fn from(error: ArrowError) -> Self {
        RowsError::Decode(error.to_string())
    }
}

impl From<AuditError> for RowsError {
    fn from(error: AuditError) -> Self {
        RowsError::Audit(error)
    }
}

/// The first row with another value than the day's in one of the last columns; `first` is the number of the first row.
fn other_constant(
    batch: &RecordBatch,
    constants: &[ArrayRef],
    first: u64,
) -> Result<Option<String>, ArrowError> {
    let at = batch.num_columns().saturating_sub(constants.len());
    for (column, (value, field)) in (at..).zip(constants.iter().zip(&batch.schema_ref().fields()[at..])) {
        let Some(row) = first_other(batch.column(column), value) else { continue };
        let shown = |array: &dyn Array, row| arrow_cast::display::array_value_to_string(array, row);
        let (found, expected) = (shown(batch.column(column), row)?, shown(value, 0)?);
        let (row, name) = (grouped(first + row as u64 + 1), field.name());
        return Ok(Some(format!("row {row}: {name} is {found}, and the footer says {expected} for the day")));
    }
    Ok(None)
}

/// The first row with another value than the only one of `value`.
fn first_other(column: &ArrayRef, value: &ArrayRef) -> Option<usize> {
    let last = column.len().checked_sub(1)?;
    let is_value = |row| &column.slice(row, 1) == value;
    // Whole columns are compared faster than values: each value is that of the row before.
    let is_constant = column.slice(0, last) == column.slice(1, last);
    if is_value(0) && is_constant { None } else { (0..=last).find(|&row| !is_value(row)) }
}

/// What the rows say about keys.
struct Keys {
    distinct: u64,
    /// By total: distinct keys that it counts.
    counted: Vec<u64>,
    /// Rows with the unique columns of another row, and the first ones with their place.
    repeated: u64,
    named: Vec<(String, String)>,
}

impl Keys {
    /// Counts the keys of all entries; `files` are the names of the files.
    fn of(dataset: &dyn Dataset, buckets: &mut Buckets, files: &[&str]) -> Result<Self, AuditError> {
        let counters = dataset.totals().len().min(MAX_TOTALS);
        let mut keys = Keys { distinct: 0, counted: vec![0; counters], repeated: 0, named: vec![] };
        let place = |entry: &Entry| {
            let Tag { file, row, .. } = Tag::unpack(entry.tag);
            let name = files.get(usize::try_from(file).unwrap_or(usize::MAX)).copied().unwrap_or_default();
            (name.to_string(), grouped(row + 1))
        };
        for bucket in 0..BUCKETS {
            let entries = buckets.take(bucket)?;
            for same_key in entries.chunk_by(|a, b| a.key == b.key) {
                keys.distinct += 1;
                let flags = same_key.iter().fold(0, |flags, entry| flags | Tag::unpack(entry.tag).flags);
                for (total, counted) in keys.counted.iter_mut().enumerate() {
                    *counted += u64::from(flags >> total & 1);
                }
                if dataset.unique_columns().is_empty() {
                    continue;
                }
                for pair in same_key.windows(2).filter(|pair| pair[0].row == pair[1].row) {
                    keys.repeated += 1;
                    if keys.named.len() < MAX_REPEATED {
                        let ((file, row), (other, first)) = (place(&pair[1]), place(&pair[0]));
                        keys.named.push((file, format!("row {row} repeats row {first} of {other}")));
                    }
                }
            }
        }
        Ok(keys)
    }

    fn findings(&self, dataset: &dyn Dataset, counters: &[u64]) -> Vec<Finding> {
        let columns = dataset.unique_columns().join(", ");
        let repeated = self.named.iter().map(|(file, what)| {
            Finding::of_file(file, format!("{what}: no two rows of a day have the same {columns}"))
        });
        let more = self.repeated.saturating_sub(self.named.len() as u64);
        let more =
            (more > 0).then(|| Finding::of_day(format!("{} that repeat others", counted(more, "more row"))));
        let totals = dataset.totals().iter().zip(counters).zip(&self.counted);
        let too_small = totals.filter(|((_, recorded), counted)| *recorded < counted).map(
            |((total, recorded), counted)| {
                let (name, key) = (total.name, dataset.key_column());
                let (recorded, counted) = (grouped(*recorded), grouped(*counted));
                Finding::of_day(format!(
                    "{name} is {recorded}, and the rows have {counted} such distinct {key}"
                ))
            },
        );
        repeated.chain(more).chain(too_small).collect()
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::Int32Array;
    use tally_dataset::addon_aggregates::AddonAggregates;

    use super::*;

    #[test]
    fn the_first_row_with_another_value_is_found() {
        let ints = |values: &[Option<i32>]| Arc::new(Int32Array::from(values.to_vec())) as ArrayRef;
        for value in [Some(7), None] {
            let first = |rows: &[Option<i32>]| first_other(&ints(rows), &ints(&[value]));
            assert_eq!((first(&[]), first(&[value; 9])), (None, None));
            for (row, other) in (0..9).flat_map(|row| [Some(8), Some(7), None].map(|other| (row, other))) {
                let mut rows = [value; 9];
                rows[row..].fill(other);
                assert_eq!(first(&rows), (other != value).then_some(row), "{value:?} {rows:?}");
            }
        }
    }

    #[test]
    fn keys_are_counted_and_repeated_rows_are_named() {
        let mut buckets = Buckets::new(1 << 20, std::env::temp_dir());
        let entry = |key: u64, row: u64, file: u64, number: u64, flags: u8| {
            let tag = Tag { file, row: number, flags }.pack();
            Entry { key: key << 50, row, tag }
        };
        let entries =
            [entry(1, 1, 0, 0, 1), entry(1, 2, 0, 1, 3), entry(900, 3, 0, 2, 0), entry(1, 2, 1, 9, 3)];
        buckets.add(&entries).unwrap();
        let dataset = AddonAggregates::new();
        let keys = Keys::of(&dataset, &mut buckets, &["one", "two"]).unwrap();
        assert_eq!((keys.distinct, &keys.counted, keys.repeated), (2, &vec![1, 1], 1));
        let findings = keys.findings(&dataset, &[0, 1]);
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert_eq!(findings[0].file.as_deref(), Some("two"));
        assert!(findings[0].problem.starts_with("row 10 repeats row 2 of one: no two rows"), "{findings:?}");
        assert_eq!(findings[1].problem, "n_clients is 0, and the rows have 1 such distinct client_id");
    }
}
