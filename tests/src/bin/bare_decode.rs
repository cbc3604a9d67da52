//! The lower bound of the job: it decodes the needed columns and does nothing else.
//!
//! `bare_decode THREADS DATE DATASET TABLE...` reads the files of the day of the dataset's tables (`addon_aggregates`: `addons`
//! and `main_summary`; `addon_aggregates_v2`: `main_summary`) with the parquet crate's `ParquetRecordBatchReader` (batches of
//! 8,192 rows, strings as Utf8), hands the files to the threads one by one, drops every batch, and prints rows and seconds as
//! JSON. Not here: Tally's own scan, filters, a runtime.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

const BATCH_ROWS: usize = 8192;

/// A needed leaf: the column it is under, and its own name where it is a field of that column.
type Leaf = (&'static str, Option<&'static str>);

const ADDONS: &[Leaf] = &[
    ("client_id", None),
    ("addon_id", None),
    ("foreign_install", None),
    ("is_system", None),
    ("user_disabled", None),
    ("app_disabled", None),
];
const MAIN_SUMMARY: &[Leaf] = &[
    ("client_id", None),
    ("profile_creation_date", None),
    ("active_theme", Some("addon_id")),
    ("active_addons", Some("install_day")),
];

const MAIN_SUMMARY_V4: &[Leaf] = &[
    ("client_id", None),
    ("normalized_channel", None),
    ("app_version", None),
    ("locale", None),
    ("profile_creation_date", None),
    ("active_addons", Some("addon_id")),
    ("active_addons", Some("foreign_install")),
    ("active_addons", Some("is_system")),
    ("active_addons", Some("is_web_extension")),
    ("active_addons", Some("install_day")),
];

/// The leaves of a dataset's tables.
fn tables(dataset: &str) -> Result<&'static [&'static [Leaf]]> {
    match dataset {
        "addon_aggregates" => Ok(&[ADDONS, MAIN_SUMMARY]),
        "addon_aggregates_v2" => Ok(&[MAIN_SUMMARY_V4]),
        other => bail!("no dataset {other}"),
    }
}

struct Input {
    path: PathBuf,
    leaves: &'static [Leaf],
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [threads, date, dataset, roots @ ..] = args.as_slice() else {
        bail!("usage: bare_decode THREADS DATE DATASET TABLE...");
    };
    let tables = tables(dataset)?;
    anyhow::ensure!(roots.len() == tables.len(), "{dataset} has {} tables", tables.len());
    let threads: usize = threads.parse().context("THREADS")?;
    let start = Instant::now();
    let mut inputs = Vec::new();
    for (root, leaves) in roots.iter().zip(tables) {
        let day = Path::new(root).join(format!("submission_date_s3={date}"));
        let before = inputs.len();
        list(&day, leaves, &mut inputs)?;
        anyhow::ensure!(inputs.len() > before, "no Parquet file below {}", day.display());
    }
    let next = AtomicUsize::new(0);
    let rows = thread::scope(|scope| {
        let hands: Vec<_> = (0..threads).map(|_| scope.spawn(|| work(&inputs, &next))).collect();
        let mut rows = 0;
        for hand in hands {
            rows += hand.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        anyhow::Ok(rows)
    })?;
    println!("{{\"rows\":{rows},\"seconds\":{:.6}}}", start.elapsed().as_secs_f64());
    Ok(())
}

fn list(folder: &Path, leaves: &'static [Leaf], inputs: &mut Vec<Input>) -> Result<()> {
    let reading = || format!("reading {}", folder.display());
    for entry in std::fs::read_dir(folder).with_context(reading)? {
        let path = entry.with_context(reading)?.path();
        if path.is_dir() {
            list(&path, leaves, inputs)?;
        } else if path.extension().is_some_and(|end| end == "parquet") {
            inputs.push(Input { path, leaves });
        }
    }
    Ok(())
}

/// Decodes files until none is left; returns the number of their rows.
fn work(inputs: &[Input], next: &AtomicUsize) -> Result<u64> {
    let mut rows = 0;
    while let Some(input) = inputs.get(next.fetch_add(1, Ordering::Relaxed)) {
        rows += decode(input).with_context(|| format!("decoding {}", input.path.display()))?;
    }
    Ok(rows)
}

fn decode(input: &Input) -> Result<u64> {
    // The writer's Arrow schema could ask for dictionaries; without it strings are Utf8.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(File::open(&input.path)?, options)?;
    let schema = builder.parquet_schema();
    let needed = |path: &[String]| {
        input.leaves.iter().any(|(column, field)| {
            path.first().is_some_and(|first| first == column)
                && field.is_none_or(|field| path.last().is_some_and(|last| last == field))
        })
    };
    let leaves = (0..schema.num_columns()).filter(|&at| needed(schema.column(at).path().parts()));
    let mask = ProjectionMask::leaves(schema, leaves);
    let mut rows = 0;
    for batch in builder.with_projection(mask).with_batch_size(BATCH_ROWS).build()? {
        rows += batch?.num_rows() as u64;
    }
    Ok(rows)
}
