//! A second dataset through the whole engine, in one process and on a cluster, against a naive reference: another key,
//! other tables, another partition column, sums and a maximum, three totals, constants of several types.
//!
//! Not here: failures, which the engine handles in the same way for all datasets.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Field, Fields};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;
use tally_tests::cluster::{Bins, Setup, with_cluster};
use tally_tests::process::{Outcome, Tally};
use tally_tests::table::data_files;
use tempfile::TempDir;

const DAY: &str = "20240115";
const ACCOUNTS: u64 = 3_000;
/// Several tasks in each stage.
const CUT: [&str; 6] = ["--shard-bytes", "20KB", "--partitions", "5", "--target-file-size", "60KB"];

/// The same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    /// One of this many values is null.
    fn maybe<T>(&mut self, once_in: u64, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.below(once_in) != 0).then(|| value(self))
    }
}

struct Event {
    account: Option<String>,
    seconds: Option<i64>,
    at: Option<i64>,
    is_test: Option<bool>,
}

struct Payment {
    account: Option<String>,
    cents: Option<i64>,
}

/// Half of the accounts are UUIDs, the others names.
fn account(number: u64) -> String {
    match number % 2 {
        0 => format!("{:08x}-0000-4000-8000-{number:012x}", number.wrapping_mul(2_654_435_761) as u32),
        _ => format!("kontö {number}"),
    }
}

fn events(numbers: &mut Numbers, count: usize) -> Vec<Event> {
    let event = |_| Event {
        account: numbers.maybe(50, |n| account(n.below(ACCOUNTS))),
        seconds: numbers.maybe(20, |n| n.below(5_000) as i64),
        at: numbers.maybe(10, |n| n.below(86_400) as i64 - 1_000),
        is_test: numbers.maybe(9, |n| n.below(3) == 0),
    };
    (0..count).map(event).collect()
}

fn payments(numbers: &mut Numbers, count: usize) -> Vec<Payment> {
    // Some of these accounts have no events.
    let payment = |_| Payment {
        account: numbers.maybe(50, |n| account(ACCOUNTS / 2 + n.below(ACCOUNTS))),
        cents: numbers.maybe(30, |n| n.below(100_000) as i64 - 2_000),
    };
    (0..count).map(payment).collect()
}

/// Writes a file with several row groups.
fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) -> Result<()> {
    std::fs::create_dir_all(path.parent().context("no folder")?)?;
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, c)| (name, c, true)))?;
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(1_500)).build();
    let mut writer = ArrowWriter::try_new(File::create(path)?, batch.schema(), Some(properties))?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(())
}

fn write_events(path: &Path, events: &[Event]) -> Result<()> {
    let at: ArrayRef = Arc::new(Int64Array::from_iter(events.iter().map(|event| event.at)));
    let fields = Fields::from(vec![Field::new("at", DataType::Int64, true)]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("is_test", Arc::new(BooleanArray::from_iter(events.iter().map(|event| event.is_test)))),
        ("time", Arc::new(StructArray::new(fields, vec![at], None))),
        ("account", Arc::new(StringArray::from_iter(events.iter().map(|event| event.account.as_ref())))),
        ("seconds", Arc::new(Int64Array::from_iter(events.iter().map(|event| event.seconds)))),
    ];
    write(path, columns)
}

fn write_payments(path: &Path, payments: &[Payment]) -> Result<()> {
    let accounts = StringArray::from_iter(payments.iter().map(|payment| payment.account.as_ref()));
    let cents = Int64Array::from_iter(payments.iter().map(|payment| payment.cents));
    write(path, vec![("account", Arc::new(accounts)), ("cents", Arc::new(cents))])
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Row {
    seconds: i64,
    last: Option<i64>,
    cents: i64,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Expected {
    rows: BTreeMap<String, Row>,
    paying: u64,
}

impl Expected {
    fn of(events: &[Event], payments: &[Payment]) -> Self {
        let mut rows: BTreeMap<String, Row> = BTreeMap::new();
        for event in events.iter().filter(|event| event.is_test != Some(true)) {
            let Some(account) = &event.account else { continue };
            let row = rows.entry(account.clone()).or_default();
            row.seconds += event.seconds.unwrap_or(0);
            row.last = row.last.max(event.at);
        }
        let mut paying = std::collections::BTreeSet::new();
        for payment in payments {
            let Some(account) = &payment.account else { continue };
            rows.entry(account.clone()).or_default().cents += payment.cents.unwrap_or(0);
            paying.insert(account);
        }
        Expected { paying: paying.len() as u64, rows }
    }

    fn seconds(&self) -> i64 {
        self.rows.values().map(|row| row.seconds).sum()
    }
}

/// A day in files, and its expected result.
struct Scene {
    dir: TempDir,
    expected: Expected,
}

impl Scene {
    fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("tally toy ").tempdir()?;
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
        let (events, payments) = (events(&mut numbers, 20_000), payments(&mut numbers, 6_000));
        let file =
            |table: &str, day: &str, name: &str| dir.path().join(table).join(format!("day={day}")).join(name);
        for (at, events) in events.chunks(7_000).enumerate() {
            write_events(&file("in/events", DAY, &format!("hour={at}/part-{at}.parquet")), events)?;
        }
        for (at, payments) in payments.chunks(2_500).enumerate() {
            write_payments(&file("in/payments", DAY, &format!("part-{at}.parquet")), payments)?;
        }
        // Another day, which must not be read.
        write_payments(&file("in/payments", "20240116", "part-0.parquet"), &payments[..100])?;
        let expected = Expected::of(&events, &payments);
        Ok(Scene { dir, expected })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The arguments of a job with this output.
    fn args(&self, output: &str) -> Vec<String> {
        let table = |name: &str| format!("{name}={}", self.path("in").join(name).display());
        let output = self.path(output).display().to_string();
        let words = ["--dataset", "accounts", "--date", DAY, "--output-format", "json", "--output", &output];
        let tables = ["--table".into(), table("payments"), "--table".into(), table("events")];
        words.iter().chain(&CUT).map(ToString::to_string).chain(tables).collect()
    }

    /// Checks what a job printed and published.
    fn check(&self, output: &str, done: Outcome) -> Result<()> {
        let done = done.expect_code(0)?;
        let summary: serde_json::Value = serde_json::from_str(&done.stdout)?;
        let expected = &self.expected;
        let (accounts, seconds) = (expected.rows.len() as u64, expected.seconds());
        let totals = [("n_accounts", accounts), ("n_paying_accounts", expected.paying)];
        for (name, value) in totals.into_iter().chain([("total_seconds", seconds as u64), ("rows", accounts)])
        {
            ensure!(summary[name] == value, "{name} is {} of {value}: {summary}", summary[name]);
        }
        ensure!(summary.get("n_clients").is_none(), "{summary}");
        let stages = summary["stages"].as_array().context("no stages")?;
        ensure!(stages.iter().filter(|stage| stage["tasks"].as_u64() > Some(1)).count() >= 4, "{summary}");

        let day = self.path(output).join(format!("day={DAY}"));
        let files = data_files(&self.path(output))?;
        ensure!(files.len() > 1 && files.iter().all(|file| file.parent() == Some(&day)), "{files:?}");
        let mut rows = BTreeMap::new();
        for file in &files {
            self.read(file, &mut rows)?;
        }
        ensure!(rows == expected.rows, "{} rows differ from {}", rows.len(), expected.rows.len());
        Ok(())
    }

    /// Adds a file's rows, which must be distinct, and checks its constants and its footer.
    fn read(&self, file: &Path, rows: &mut BTreeMap<String, Row>) -> Result<()> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(file)?)?;
        let names: Vec<_> = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
        let constants = ["n_accounts", "total_seconds", "paying_share", "currency"];
        ensure!(names == [&["account", "seconds", "last", "cents"], &constants[..]].concat(), "{names:?}");
        let (accounts, seconds) = (self.expected.rows.len(), self.expected.seconds());
        let metadata = builder.metadata().file_metadata().key_value_metadata().cloned().unwrap_or_default();
        let entry = |key: &str| metadata.iter().find(|entry| entry.key == key)?.value.clone();
        ensure!(entry("tally.dataset").as_deref() == Some("accounts"), "{metadata:?}");
        ensure!(entry("tally.n_accounts") == Some(accounts.to_string()), "{metadata:?}");
        ensure!(entry("tally.n_paying_accounts") == Some(self.expected.paying.to_string()), "{metadata:?}");
        ensure!(entry("tally.total_seconds") == Some(seconds.to_string()), "{metadata:?}");
        ensure!(entry("tally.n_clients").is_none(), "{metadata:?}");
        let share = (self.expected.paying * 100 / accounts as u64) as i64;
        for batch in builder.build()? {
            let batch = batch?;
            let int = |at: usize| batch.column(at).as_primitive::<Int64Type>();
            for (row, account) in batch.column(0).as_string::<i32>().iter().enumerate() {
                let account = account.context("a null account")?.to_string();
                let last = int(2).iter().nth(row).flatten();
                let found = Row { seconds: int(1).value(row), last, cents: int(3).value(row) };
                ensure!(rows.insert(account.clone(), found).is_none(), "{account} occurs twice");
                ensure!(batch.column(4).as_primitive::<Int32Type>().value(row) as usize == accounts);
                ensure!(int(5).value(row) == seconds && int(6).value(row) == share);
                ensure!(batch.column(7).as_string::<i32>().value(row) == "EUR");
            }
        }
        Ok(())
    }
}

fn bins() -> Bins {
    Bins {
        tally: env!("CARGO_BIN_EXE_tally-toy").into(),
        worker: env!("CARGO_BIN_EXE_tally-toy-worker").into(),
    }
}

fn run(args: &[String], spill: &Path) -> Result<Outcome> {
    Tally::wrapped(&bins().tally, ["run"]).args(args).args(["--spill-dir"]).args([spill]).run()
}

#[test]
fn a_second_dataset_is_exact_in_one_process() -> Result<()> {
    let scene = Scene::new()?;
    let spill = scene.path("spill");
    std::fs::create_dir(&spill)?;
    for workers in ["1", "2"] {
        let args =
            [scene.args("out"), ["--workers", workers, "--threads", "2"].map(String::from).into()].concat();
        scene.check("out", run(&args, &spill)?)?;
    }
    Ok(())
}

#[test]
fn a_second_dataset_is_exact_on_a_cluster() -> Result<()> {
    let scene = Scene::new()?;
    let setup = Setup { workers: 2, bins: Some(bins()), ..Setup::default() };
    with_cluster(setup, |cluster| {
        let coordinator = cluster.coordinators[0].address().to_string();
        let submit = Tally::wrapped(&bins().tally, ["submit", "--coordinator", &coordinator]);
        scene.check("out", submit.args(scene.args("out")).run()?)
    })
}

#[test]
fn options_are_checked_against_the_dataset() -> Result<()> {
    let scene = Scene::new()?;
    let check = |args: &[&str], words: &[&str]| -> Result<()> {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        run(&args, &scene.path("spill"))?.expect_failure(2, words).map(drop)
    };
    let output = scene.path("out").display().to_string();
    let accounts = ["--dataset", "accounts", "--date", DAY];
    let with = |more: &[&'static str]| [&accounts[..], more].concat();
    check(&["--dataset", "nothing"], &["nothing", "addon_aggregates, accounts"])?;
    check(&with(&["--table", "addons=/a"]), &["--table addons", "events, payments"])?;
    check(&with(&["--addons", "/a"]), &["--addons", "events, payments"])?;
    let missing = |args: &[&str], named: &[&str], given: &[&str]| -> Result<()> {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let outcome = run(&args, &scene.path("spill"))?.expect_failure(2, named)?;
        let listed = |option: &&&str| outcome.stderr.contains(&format!("\n  {option}"));
        ensure!(!given.iter().any(|option| listed(&option)), "{outcome}");
        Ok(())
    };
    missing(
        &with(&["--table", "payments=/p"]),
        &["\n  --table events=URL", "\n  --output URL"],
        &["--table payments=URL"],
    )?;
    let roots = ["--table", "events=/e", "--table", "payments=/p"];
    missing(&with(&roots), &["\n  --output URL"], &["--table"])?;
    let tables = ["\n  --table events=URL", "\n  --table payments=URL"];
    missing(&[&accounts[..], &["--output", &output]].concat(), &tables, &["--output"])?;
    check(&with(&["--preset", "telemetry"]), &["--preset", "accounts has no presets"])
}
