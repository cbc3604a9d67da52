//! A dataset with folders within the day and with an option: in one process and on a cluster, against a naive reference. Each
//! folder has its own part files, also without rows; the day is replaced as a whole; `verify` and `diff` know the folders.
//!
//! Not here: what the dataset shares with the one without folders (`toy.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Field, Fields};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tally_tests::cluster::{Bins, Setup, with_cluster};
use tally_tests::process::{Outcome, Tally};
use tally_tests::s3::reach;
use tally_tests::s3::server::{ADMIN, Kind, OUT, Server};
use tally_tests::table::data_files;
use tempfile::TempDir;

const DAY: &str = "20240115";
/// Shops of the dataset. The last one has no rows.
const SHOPS: u64 = 4;
const EXCLUDED: &str = "excluded-accounts";

fn bins() -> Bins {
    Bins {
        tally: env!("CARGO_BIN_EXE_tally-toy").into(),
        worker: env!("CARGO_BIN_EXE_tally-toy-worker").into(),
    }
}

fn tally(args: &[&str]) -> Tally {
    Tally::wrapped(&bins().tally, args)
}

/// The CRC-32 of an account. Rows are in the folder that their partition has without folders of the inputs, so that the
/// result is the same whether a mapper looks at the folder or at the account.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| {
                if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 }
            },
        )
    })
}

fn shop_of(account: &str) -> u64 {
    u64::from(crc32(account.as_bytes())) % SHOPS
}

/// Rows by shop and account: seconds and cents.
type Rows = BTreeMap<(u64, String), (i64, i64)>;

struct Scene {
    dir: TempDir,
    /// Events (seconds) and payments (cents) by account.
    events: Vec<(String, i64)>,
    payments: Vec<(String, i64)>,
}

fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) -> Result<()> {
    fs::create_dir_all(path.parent().context("no folder")?)?;
    let columns = columns.into_iter().map(|(name, column)| (name, column, true));
    let batch = RecordBatch::try_from_iter_with_nullable(columns)?;
    let mut writer = ArrowWriter::try_new(File::create(path)?, batch.schema(), None)?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(())
}

fn write_events(path: &Path, events: &[&(String, i64)]) -> Result<()> {
    let at: ArrayRef = Arc::new(Int64Array::from(vec![None::<i64>; events.len()]));
    let fields = Fields::from(vec![Field::new("at", DataType::Int64, true)]);
    let accounts = StringArray::from_iter(events.iter().map(|event| Some(&event.0)));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("account", Arc::new(accounts)),
        ("seconds", Arc::new(Int64Array::from_iter(events.iter().map(|event| Some(event.1))))),
        ("time", Arc::new(StructArray::new(fields, vec![at], None))),
        ("is_test", Arc::new(BooleanArray::from(vec![Some(false); events.len()]))),
    ];
    write(path, columns)
}

fn write_payments(path: &Path, payments: &[&(String, i64)]) -> Result<()> {
    let accounts = StringArray::from_iter(payments.iter().map(|payment| Some(&payment.0)));
    let cents = Int64Array::from_iter(payments.iter().map(|payment| Some(payment.1)));
    write(path, vec![("account", Arc::new(accounts)), ("cents", Arc::new(cents))])
}

impl Scene {
    fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("tally shops ").tempdir()?;
        let open = (0..2_000).map(|number| format!("account {number}"));
        let open: Vec<String> = open.filter(|account| shop_of(account) != SHOPS - 1).collect();
        let pick = |at: usize, step: usize| open[at * step % open.len()].clone();
        let events: Vec<_> = (0..5_000).map(|at| (pick(at, 7), at as i64 % 60)).collect();
        let payments: Vec<_> = (0..2_000).map(|at| (pick(at, 11), at as i64)).collect();
        let scene = Scene { dir, events, payments };
        for shop in 0..SHOPS {
            let of = |rows: &[(String, i64)]| -> Vec<(String, i64)> {
                rows.iter().filter(|(account, _)| shop_of(account) == shop).cloned().collect()
            };
            let (events, payments) = (of(&scene.events), of(&scene.payments));
            let file = |table: &str| scene.path(&format!("in/{table}/day={DAY}/shop={shop}/part-0.parquet"));
            if shop < SHOPS - 1 {
                write_events(&file("events"), &events.iter().collect::<Vec<_>>())?;
                write_payments(&file("payments"), &payments.iter().collect::<Vec<_>>())?;
            }
        }
        fs::create_dir(scene.path("spill"))?;
        Ok(scene)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn expected(&self, excluded: &BTreeSet<String>) -> Rows {
        let mut rows = Rows::new();
        let wanted = |(account, _): &&(String, i64)| !excluded.contains(account);
        for (account, seconds) in self.events.iter().filter(wanted) {
            rows.entry((shop_of(account), account.clone())).or_default().0 += seconds;
        }
        for (account, cents) in self.payments.iter().filter(wanted) {
            rows.entry((shop_of(account), account.clone())).or_default().1 += cents;
        }
        rows
    }

    /// The arguments of a job, with the file of excluded accounts if there are any.
    fn args(&self, output: &str, excluded: &BTreeSet<String>) -> Result<Vec<String>> {
        let table = |name: &str| format!("{name}={}", self.path("in").join(name).display());
        let output = self.path(output).display().to_string();
        let words =
            ["--dataset", "accounts_by_shop", "--date", DAY, "--output-format", "json", "--output", &output];
        let cut = ["--shard-bytes", "5KB", "--target-file-size", "4KB"];
        let tables = ["--table".into(), table("payments"), "--table".into(), table("events")];
        let mut args: Vec<String> = words.iter().chain(&cut).map(ToString::to_string).chain(tables).collect();
        if !excluded.is_empty() {
            let file = self.path("excluded");
            fs::write(&file, excluded.iter().map(|account| format!("{account}\n")).collect::<String>())?;
            args.extend(["--dataset-option".into(), format!("{EXCLUDED}={}", file.display())]);
        }
        Ok(args)
    }

    fn run(&self, output: &str, excluded: &BTreeSet<String>) -> Result<Outcome> {
        let args = self.args(output, excluded)?;
        tally(&["run", "--threads", "2", "--spill-dir"]).args([self.path("spill")]).args(args).run()
    }

    /// Every folder has files with exactly its rows, and the output has nothing else.
    fn check(&self, output: &str, expected: &Rows) -> Result<()> {
        let (root, day) = (self.path(output), self.path(output).join(format!("day={DAY}")));
        let names = |folder: &Path| -> Result<BTreeSet<String>> {
            let entries = fs::read_dir(folder)?;
            entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
        };
        ensure!(names(&root)? == BTreeSet::from([format!("day={DAY}")]), "{:?}", names(&root)?);
        let shops: BTreeSet<String> = (0..SHOPS).map(|shop| format!("shop={shop}")).collect();
        ensure!(names(&day)? == shops, "{:?}", names(&day)?);
        let (mut found, mut all) = (Rows::new(), BTreeSet::new());
        for shop in 0..SHOPS {
            let files = data_files(&day.join(format!("shop={shop}")))?;
            ensure!(if shop == SHOPS - 1 { files.len() == 1 } else { files.len() > 1 }, "{shop}: {files:?}");
            for file in files {
                let name = file.file_name().context("no name")?.to_string_lossy().into_owned();
                ensure!(all.insert(name.clone()), "{name} twice");
                for batch in ParquetRecordBatchReaderBuilder::try_new(File::open(&file)?)?.build()? {
                    let batch = batch?;
                    let int = |at: usize| batch.column(at).as_primitive::<Int64Type>();
                    for (row, account) in batch.column(0).as_string::<i32>().iter().enumerate() {
                        let key = (shop, account.context("a null account")?.to_string());
                        let values = (int(1).value(row), int(3).value(row));
                        ensure!(found.insert(key.clone(), values).is_none(), "{key:?} twice");
                    }
                }
            }
        }
        ensure!(found == *expected, "{} rows differ from {}", found.len(), expected.len());
        Ok(())
    }

    fn verify(&self, output: &str) -> Result<Outcome> {
        let output = self.path(output);
        tally(&["verify", "--dataset", "accounts_by_shop", "--date", DAY, "--output"]).args([output]).run()
    }

    fn diff(&self, a: &str, b: &str) -> Result<Outcome> {
        let days = [self.path(a), self.path(b)];
        tally(&["diff", "--dataset", "accounts_by_shop", "--date", DAY]).args(days).run()
    }
}

/// Some accounts, and one that does not exist.
fn some(scene: &Scene) -> BTreeSet<String> {
    let accounts = scene.events.iter().take(300).map(|(account, _)| account.clone());
    accounts.chain(["stranger".to_string()]).collect()
}

fn each_folder_has_its_rows_and_the_day_is_replaced_as_a_whole() -> Result<()> {
    let scene = Scene::new()?;
    let none = BTreeSet::new();
    let day = scene.path("out").join(format!("day={DAY}"));
    for folder in ["shop=1", "shop=9", ""] {
        fs::create_dir_all(day.join(folder))?;
        fs::write(day.join(folder).join("part-old.parquet"), "old")?;
    }
    let summary: serde_json::Value = serde_json::from_str(&scene.run("out", &none)?.expect_code(0)?.stdout)?;
    let expected = scene.expected(&none);
    scene.check("out", &expected)?;
    ensure!(summary["rows"] == expected.len() && summary["files"] == data_files(&day)?.len(), "{summary}");
    let excluded = some(&scene);
    scene.run("out", &excluded)?.expect_code(0)?;
    scene.check("out", &scene.expected(&excluded))?;
    scene.verify("out")?.expect_code(0)?;
    Ok(())
}

fn a_date_without_inputs_is_an_error_and_the_old_day_stays() -> Result<()> {
    let scene = Scene::new()?;
    let none = BTreeSet::new();
    scene.run("out", &none)?.expect_code(0)?;
    fs::remove_dir_all(scene.path("in/events").join(format!("day={DAY}")))?;
    scene.run("out", &none)?.expect_failure(1, &["events", "no data files"])?;
    scene.check("out", &scene.expected(&none))
}

fn a_row_in_another_folder_is_found() -> Result<()> {
    let scene = Scene::new()?;
    let none = BTreeSet::new();
    for output in ["out", "other"] {
        scene.run(output, &none)?.expect_code(0)?;
    }
    scene.diff("out", "other")?.expect_code(0)?;
    let day = scene.path("other").join(format!("day={DAY}"));
    let file = data_files(&day.join("shop=0"))?.remove(0);
    let rows =
        ParquetRecordBatchReaderBuilder::try_new(File::open(&file)?)?.metadata().file_metadata().num_rows();
    fs::rename(&file, day.join("shop=1").join(file.file_name().context("no name")?))?;
    let wrong = scene.verify("other")?.expect_code(1)?;
    ensure!(wrong.stdout.contains("it is in shop=1, and its footer says shop=0"), "{wrong}");
    let differs = scene.diff("out", "other")?.expect_code(1)?;
    ensure!(differs.stdout.contains("shop=0") && differs.stdout.contains("shop=1"), "{differs}");
    ensure!(differs.stdout.contains(&format!("{rows} rows only in A, {rows} rows only in B")), "{differs}");
    Ok(())
}

fn days_and_plan_know_the_folders_and_other_partitions_are_refused() -> Result<()> {
    let scene = Scene::new()?;
    let none = BTreeSet::new();
    scene.run("out", &none)?.expect_code(0)?;
    let table = |name: &str| format!("{name}={}", scene.path("in").join(name).display());
    let place = |command: &str| {
        let tables = ["--table".into(), table("payments"), "--table".into(), table("events")];
        let output = ["--output".into(), scene.path("out").display().to_string()];
        tally(&[command, "--dataset", "accounts_by_shop", "--output-format", "json"])
            .args(tables)
            .args(output)
    };
    let days = place("days").run()?.expect_code(0)?;
    let days: serde_json::Value = serde_json::from_str(&days.stdout)?;
    let files = data_files(&scene.path("out"))?.len();
    ensure!(days["days"][0]["state"] == "published" && days["days"][0]["output"]["files"] == files, "{days}");
    let planned = place("plan").args(["--date", DAY]).run()?.expect_code(0)?;
    let planned: serde_json::Value = serde_json::from_str(&planned.stdout)?;
    ensure!(planned["days"][0]["partitions"] == SHOPS, "{planned}");
    let other = place("plan").args(["--date", DAY, "--partitions", "5"]).run()?;
    other.expect_failure(2, &["accounts_by_shop has a partition for each of its 4 folders shop=N"])?;
    place("plan").args(["--date", DAY, "--partitions", "4"]).run()?.expect_code(0)?;
    Ok(())
}

fn options_are_read_and_checked_before_anything_runs() -> Result<()> {
    let scene = Scene::new()?;
    let file = scene.path("file");
    let with = |option: String| -> Result<Outcome> {
        let args = scene.args("out", &BTreeSet::new())?;
        let option = ["--dataset-option".to_string(), option];
        tally(&["run", "--spill-dir"]).args([scene.path("spill")]).args(args).args(option).run()
    };
    let given = format!("{EXCLUDED}={}", file.display());
    with(given.clone())?.expect_failure(2, &["--dataset-option excluded-accounts", "No such file"])?;
    fs::write(&file, vec![b'x'; (1 << 20) + 1])?;
    with(given.clone())?.expect_failure(2, &["more than 1024 KiB"])?;
    fs::write(&file, b"\xff")?;
    with(given)?.expect_failure(2, &[EXCLUDED, "utf-8"])?;
    with(format!("other={}", file.display()))?.expect_failure(
        2,
        &["accounts_by_shop has no option", "other", "excluded-accounts", "accounts without rows"],
    )?;
    ensure!(!scene.path("out").exists());
    Ok(())
}

fn in_a_store_the_day_is_replaced_with_all_of_its_folders() -> Result<()> {
    let scene = Scene::new()?;
    let server = Server::start(Kind::Seaweed)?;
    let (store, none) = (server.client(OUT)?, BTreeSet::new());
    let old = [format!("agg/day={DAY}/shop=9/old.parquet"), format!("agg/day={DAY}/old.parquet")];
    old.iter().try_for_each(|key| store.put(key, b"old".to_vec()))?;
    for excluded in [some(&scene), none] {
        let mut args = scene.args("agg", &excluded)?;
        let output = args.iter().position(|arg| arg == "--output").context("no output")?;
        args[output + 1] = format!("s3://{OUT}/agg");
        let job = tally(&["run", "--threads", "2", "--spill-dir"]).args([scene.path("spill")]).args(args);
        reach(job, server.address(), ADMIN).run()?.expect_code(0)?;
        let copy = scene.path("agg");
        if copy.exists() {
            fs::remove_dir_all(&copy)?;
        }
        store.get_tree("agg", &copy)?;
        scene.check("agg", &scene.expected(&excluded))?;
        ensure!(store.open_uploads()? == 0);
    }
    let url = format!("s3://{OUT}/agg");
    let verify = tally(&["verify", "--dataset", "accounts_by_shop", "--date", DAY, "--output", &url]);
    reach(verify, server.address(), ADMIN).run()?.expect_code(0)?;
    Ok(())
}

fn a_cluster_makes_the_same_folders_with_the_options_of_the_client() -> Result<()> {
    let scene = Scene::new()?;
    let excluded = some(&scene);
    let setup = Setup { workers: 2, bins: Some(bins()), ..Setup::default() };
    with_cluster(setup, |cluster| {
        let coordinator = cluster.coordinators[0].address().to_string();
        let submit = |excluded: &BTreeSet<_>| -> Result<Outcome> {
            let args = scene.args("out", excluded)?;
            tally(&["submit", "--coordinator", &coordinator]).args(args).run()?.expect_code(0)
        };
        submit(&BTreeSet::new())?;
        scene.check("out", &scene.expected(&BTreeSet::new()))?;
        submit(&excluded)?;
        scene.check("out", &scene.expected(&excluded))?;
        scene.verify("out")?.expect_code(0)?;
        let shown = tally(&["job", "latest", "--coordinator", &coordinator]).run()?.expect_code(0)?;
        ensure!(shown.stdout.contains("excluded-accounts: ") && shown.stdout.contains("SHA-256"), "{shown}");
        ensure!(!shown.stdout.contains("stranger"), "{shown}");
        let shown =
            tally(&["job", "latest", "--output-format", "json", "--coordinator", &coordinator]).run()?;
        let shown: serde_json::Value = serde_json::from_str(&shown.expect_code(0)?.stdout)?;
        let size = fs::metadata(scene.path("excluded"))?.len();
        ensure!(shown["dataset_options"][0]["bytes"] == size, "{shown}");
        Ok(())
    })
}

tally_tests::tests![
    each_folder_has_its_rows_and_the_day_is_replaced_as_a_whole,
    a_date_without_inputs_is_an_error_and_the_old_day_stays,
    a_row_in_another_folder_is_found,
    days_and_plan_know_the_folders_and_other_partitions_are_refused,
    options_are_read_and_checked_before_anything_runs,
    in_a_store_the_day_is_replaced_with_all_of_its_folders,
    a_cluster_makes_the_same_folders_with_the_options_of_the_client,
];
