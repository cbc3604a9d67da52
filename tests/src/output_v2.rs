//! What an output of `addon_aggregates_v2` must look like on disk: a folder for each sample with part files of exactly its
//! columns, and nothing else; its rows. Not here: the expected rows (`naive_v2`, `golden_v2`).

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use arrow_array::Array;
use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde::Deserialize;

use crate::naive_v2::RowV2;
use crate::output::{Place, check_no_spill, is_part_name, part_files};
use crate::pings_v2::sample_of;
use crate::process::Tally;
use crate::table::{longs, read, strings, text};

/// The number of samples.
pub const SAMPLES: i64 = 100;
const KEYS: [&str; 4] = ["client_id", "normalized_channel", "app_version", "locale"];
/// The sums, in the order of [`RowV2::sums`].
pub const SUMS: [&str; 5] = [
    "n_self_installed_addons",
    "n_shield_addons",
    "n_foreign_installed_addons",
    "n_system_addons",
    "n_web_extensions",
];
const DATES: [&str; 2] = ["first_addon_install_date", "profile_creation_date"];

/// The object that a job of the dataset prints with `--output-format json`.
#[derive(Clone, Debug, Deserialize)]
pub struct SummaryV2 {
    pub date: String,
    pub rows: u64,
    pub files: u64,
    pub n_clients: u64,
    pub shuffle_bytes: u64,
    pub shuffle_network_bytes: u64,
    /// Everything else, among it the sums.
    #[serde(flatten)]
    others: serde_json::Map<String, serde_json::Value>,
}

/// Adds the flags of a job of the dataset over the day under `root` (`main_summary/v4`) into `place` to a command.
pub fn with_job(command: Tally, root: &Path, place: &Place, date: &str, pilots: Option<&Path>) -> Tally {
    let table = format!("main_summary={}", root.join("main_summary/v4").display());
    let mut command = command
        .args([
            "--dataset",
            "addon_aggregates_v2",
            "--output-format",
            "json",
            "--date",
            date,
            "--table",
            &table,
        ])
        .args([std::ffi::OsStr::new("--output"), place.output().as_os_str()]);
    if let Some(file) = pilots {
        command = command.args(["--dataset-option", &format!("test-pilot-ids={}", file.display())]);
    }
    command
}

/// Runs a command of [`with_job`], which must succeed.
///
/// # Errors
/// It fails, or prints something else than a summary.
pub fn summary_of(command: Tally) -> Result<SummaryV2> {
    let done = command.run()?.expect_code(0)?;
    serde_json::from_str(&done.stdout).with_context(|| format!("the summary has another form\n{done}"))
}

/// The rows of all samples of `date`, sorted, after a check of the folders, files and columns.
///
/// # Errors
/// Names what is missing or too many.
pub fn read_output(place: &Place, date: &str) -> Result<Vec<RowV2>> {
    check_no_spill(&place.spill())?;
    let partition = place.partition(date);
    let mut expected: Vec<PathBuf> =
        (0..SAMPLES).map(|sample| partition.join(format!("sample_id={sample}"))).collect();
    expected.sort();
    let found = part_files(&partition)?;
    ensure!(found == expected, "the folders of the day are {found:?}");
    let mut rows = vec![];
    for folder in expected {
        let files = part_files(&folder)?;
        ensure!(!files.is_empty(), "{} has no file", folder.display());
        for file in files {
            ensure!(is_part_name(&file), "{} is no part file", file.display());
            check_schema(&file)?;
            rows.extend(read_rows(&file, sample_of(&file)?)?);
        }
    }
    rows.sort();
    Ok(rows)
}

/// The rows of a file. Without `sample`, they have it in a column.
///
/// # Errors
/// Those of the reader.
pub fn read_rows(path: &Path, sample: Option<i64>) -> Result<Vec<RowV2>> {
    read(path, |batch, rows| {
        let n = batch.num_rows();
        let column = |name: &str| batch.column_by_name(name).cloned();
        let texts =
            |names: &[&str]| names.iter().map(|name| strings(column(name), n)).collect::<Result<Vec<_>>>();
        let (keys, dates) = (texts(&KEYS)?, texts(&DATES)?);
        let sums = SUMS.iter().map(|name| longs(column(name), n)).collect::<Result<Vec<_>>>()?;
        let samples = longs(column("sample_id"), n)?;
        for row in 0..n {
            ensure!(sums.iter().all(|sums| sums.is_valid(row)), "a sum is null");
            rows.push(RowV2 {
                sample: sample.unwrap_or_else(|| samples.value(row)),
                client_id: text(&keys[0], row),
                normalized_channel: text(&keys[1], row),
                app_version: text(&keys[2], row),
                locale: text(&keys[3], row),
                sums: [0, 1, 2, 3, 4].map(|at| sums[at].value(row)),
                first_addon_install_date: text(&dates[0], row),
                profile_creation_date: text(&dates[1], row),
            });
        }
        Ok(())
    })
}

/// Checks a part file's columns (name, type, nullability, order) and that every chunk is snappy.
fn check_schema(file: &Path) -> Result<()> {
    let reader = SerializedFileReader::new(File::open(file)?)
        .with_context(|| format!("reading {}", file.display()))?;
    let meta = reader.metadata();
    let mut found = vec![];
    for column in meta.file_metadata().schema_descr().columns() {
        let info = column.self_type().get_basic_info();
        ensure!(info.repetition() == Repetition::OPTIONAL, "{}: {column:?}", file.display());
        let is_text = info.logical_type_ref() == Some(&LogicalType::String);
        let physical = if is_text { Physical::BYTE_ARRAY } else { Physical::INT64 };
        ensure!(column.physical_type() == physical, "{}: {column:?}", file.display());
        found.push((column.path().string(), is_text));
    }
    let texts = |names: &[&str]| names.iter().map(|name| (name.to_string(), true)).collect::<Vec<_>>();
    let sums = SUMS.map(|name| (name.to_string(), false)).to_vec();
    let wanted = [texts(&KEYS), sums, texts(&DATES)].concat();
    ensure!(found == wanted, "{}: the columns are {found:?}", file.display());
    for chunk in meta.row_groups().iter().flat_map(|group| group.columns()) {
        ensure!(chunk.compression() == Compression::SNAPPY, "{}: {:?}", file.display(), chunk.compression());
    }
    Ok(())
}

/// Compares the totals of a summary with those of the expected rows.
///
/// # Errors
/// Shows the summary.
pub fn check_summary(summary: &SummaryV2, expected: &[RowV2]) -> Result<()> {
    for (at, name) in SUMS.iter().enumerate() {
        let sum: i64 = expected.iter().map(|row| row.sums[at]).sum();
        ensure!(
            summary.others.get(*name).is_some_and(|found| *found == sum),
            "{name} is not {sum}: {summary:?}"
        );
    }
    let mut clients: Vec<_> = expected.iter().map(|row| (row.sample, &row.client_id)).collect();
    clients.sort();
    clients.dedup();
    ensure!(
        (summary.rows, summary.n_clients) == (expected.len() as u64, clients.len() as u64),
        "{summary:?}"
    );
    ensure!(summary.files >= SAMPLES as u64, "{summary:?}");
    Ok(())
}
