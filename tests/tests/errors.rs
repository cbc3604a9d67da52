//! Bad input, bad output folders and bad flags. A job that can't be done exits with 1 and an error that names the
//! problem, and the old output stays unchanged; a command that can't be parsed exits with 2. Full disks are in `disks`,
//! Ctrl-C is in `interrupt`.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, ListArray, StringArray, StructArray,
};
use arrow_buffer::OffsetBuffer;
use arrow_schema::Field;
use tally_tests::golden::DATE;
use tally_tests::output::{Place, check_unchanged, snapshot};
use tally_tests::process::{Tally, job_args};
use tally_tests::scene::{GROUP_ROWS, Scene, corrupt_chunk, write_columns};

const FIRST: &str = "part-00000.snappy.parquet";
const SECOND: &str = "part-00001.snappy.parquet";

/// The scene's two tables, by the last folders of their roots.
const TABLES: [&str; 2] = ["main_summary/v3", "addons/v2"];

#[test]
fn the_unmodified_scene_succeeds() -> Result<()> {
    let scene = Scene::new()?;
    let summary = Tally::job(&scene.root, &scene.place).date(DATE).run()?.summary()?;
    assert_eq!(summary.rows, 6 * GROUP_ROWS as u64);
    Ok(())
}

#[test]
fn a_missing_table_is_named() -> Result<()> {
    for table in TABLES {
        let scene = Scene::new()?;
        std::fs::remove_dir_all(scene.root.join(table))?;
        scene.fails(&[table])?;
    }
    Ok(())
}

#[test]
fn a_missing_date_is_named_with_the_dates_that_exist() -> Result<()> {
    for table in TABLES {
        let scene = Scene::new()?;
        let date = |date: &str| scene.root.join(table).join(format!("submission_date_s3={date}"));
        std::fs::create_dir(date("20170301"))?;
        std::fs::copy(date(DATE).join(FIRST), date("20170301").join(FIRST))?;
        std::fs::rename(date(DATE), date("20170215"))?;
        scene.fails(&[table, DATE, "20170215", "20170301"]).context(table)?;
    }
    Ok(())
}

#[test]
fn a_date_without_data_files_is_an_error() -> Result<()> {
    for table in TABLES {
        let scene = Scene::new()?;
        let partition = scene.root.join(table).join(format!("submission_date_s3={DATE}"));
        for name in [FIRST, SECOND] {
            std::fs::remove_file(partition.join(name))?;
        }
        scene.fails(&[table, DATE]).context("an empty folder")?;
        std::fs::write(partition.join("_SUCCESS"), "")?;
        std::fs::write(partition.join(".part-00000.parquet.crc"), "crc")?;
        scene.fails(&[table, DATE]).context("marks only")?;
    }
    Ok(())
}

/// A way to corrupt a whole file.
type Corrupt = fn(&mut Vec<u8>);

#[test]
fn a_file_that_is_no_whole_parquet_is_named() -> Result<()> {
    let corruptions: [(&str, Corrupt); 7] = [
        // A file of no bytes is skipped: see `foreign`.
        ("a byte", |bytes| bytes.truncate(1)),
        ("text", |bytes| *bytes = b"client_id,addon_id\n1,2\n".repeat(100)),
        ("the magic alone", |bytes| bytes.truncate(4)),
        ("cut in half", |bytes| bytes.truncate(bytes.len() / 2)),
        ("without its last byte", |bytes| bytes.truncate(bytes.len() - 1)),
        ("a footer of garbage", |bytes| {
            let end = bytes.len();
            bytes[end - 300..end - 8].fill(0xEE);
        }),
        ("a footer longer than the file", |bytes| {
            let end = bytes.len();
            bytes[end - 8..end - 4].copy_from_slice(&0x7FFF_FFFFu32.to_le_bytes());
        }),
    ];
    for (what, corrupt) in corruptions {
        for table in TABLES {
            let scene = Scene::new()?;
            let path = scene.root.join(table).join(format!("submission_date_s3={DATE}")).join(SECOND);
            let mut bytes = std::fs::read(&path)?;
            corrupt(&mut bytes);
            std::fs::write(&path, bytes)?;
            scene.fails(&[table, SECOND]).with_context(|| format!("{table}: {what}"))?;
        }
    }
    Ok(())
}

/// A file without its middle: the footer is intact and points beyond the end.
#[test]
fn a_file_that_lost_its_middle_is_named() -> Result<()> {
    let scene = Scene::new()?;
    let path = scene.addons().join(SECOND);
    let mut bytes = std::fs::read(&path)?;
    let third = bytes.len() / 3;
    bytes.drain(third..2 * third);
    std::fs::write(&path, bytes)?;
    scene.fails(&["addons/v2", SECOND])?;
    Ok(())
}

/// A way to corrupt the pages of a column chunk.
type CorruptChunk = fn(&mut [u8]);

#[test]
fn a_corrupt_chunk_is_named_by_file_row_group_and_column() -> Result<()> {
    let chunks = [
        ("addons/v2", "client_id", 0),
        ("addons/v2", "addon_id", 1),
        ("addons/v2", "foreign_install", 2),
        ("addons/v2", "is_system", 1),
        ("main_summary/v3", "client_id", 2),
        ("main_summary/v3", "profile_creation_date", 1),
        ("main_summary/v3", "active_theme.addon_id", 0),
        ("main_summary/v3", "active_addons.list.element.install_day", 1),
    ];
    let corruptions: [(&str, CorruptChunk); 3] = [
        ("garbage", |bytes| bytes.fill(0xFF)),
        ("zeros", |bytes| bytes.fill(0)),
        ("garbage from the middle on", |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle..].fill(0xFF);
        }),
    ];
    for (table, column, group) in chunks {
        for (what, corrupt) in corruptions {
            let scene = Scene::new()?;
            let path = scene.root.join(table).join(format!("submission_date_s3={DATE}")).join(SECOND);
            corrupt_chunk(&path, group, column, corrupt)?;
            let top = column.split('.').next().unwrap_or(column);
            let words = [table, SECOND, &format!("row group {group}"), top];
            scene.fails(&words).with_context(|| format!("{what} in {column}"))?;
        }
    }
    Ok(())
}

/// Rewrites both files of a table without `column`.
fn without(scene: &Scene, table: &str, column: &str) -> Result<()> {
    for name in [FIRST, SECOND] {
        let path = scene.root.join(table).join(format!("submission_date_s3={DATE}")).join(name);
        let columns = good_columns(table).into_iter().filter(|(name, _)| *name != column).collect();
        write_columns(&path, columns)?;
    }
    Ok(())
}

/// Columns of one row with the right types.
fn good_columns(table: &str) -> Vec<(&'static str, ArrayRef)> {
    let flag = || Arc::new(BooleanArray::from(vec![false])) as ArrayRef;
    let text = |text: &str| Arc::new(StringArray::from(vec![text])) as ArrayRef;
    if table == "addons/v2" {
        return vec![
            ("client_id", text("c")),
            ("addon_id", text("a")),
            ("foreign_install", flag()),
            ("is_system", flag()),
            ("user_disabled", flag()),
            ("app_disabled", flag()),
        ];
    }
    vec![
        ("client_id", text("c")),
        ("profile_creation_date", long()),
        ("active_addons", list_of(group_of("install_day", int()))),
        ("active_theme", group_of("addon_id", text("t"))),
    ]
}

fn int() -> ArrayRef {
    Arc::new(Int32Array::from(vec![5]))
}

fn long() -> ArrayRef {
    Arc::new(Int64Array::from(vec![5]))
}

fn double() -> ArrayRef {
    Arc::new(Float64Array::from(vec![0.5]))
}

fn string() -> ArrayRef {
    Arc::new(StringArray::from(vec!["text"]))
}

fn group_of(name: &str, array: ArrayRef) -> ArrayRef {
    let field = Arc::new(Field::new(name, array.data_type().clone(), true));
    Arc::new(StructArray::from(vec![(field, array)]))
}

fn list_of(array: ArrayRef) -> ArrayRef {
    let field = Arc::new(Field::new("element", array.data_type().clone(), true));
    Arc::new(ListArray::new(field, OffsetBuffer::from_lengths([1]), array, None))
}

#[test]
fn a_needed_column_in_no_file_is_named() -> Result<()> {
    let columns = [
        ("main_summary/v3", "client_id"),
        ("addons/v2", "client_id"),
        ("addons/v2", "addon_id"),
        ("addons/v2", "foreign_install"),
        ("addons/v2", "is_system"),
        ("addons/v2", "user_disabled"),
        ("addons/v2", "app_disabled"),
    ];
    for (table, column) in columns {
        let scene = Scene::new()?;
        without(&scene, table, column)?;
        scene.fails(&[table, column]).with_context(|| format!("{table} without {column}"))?;
    }
    Ok(())
}

/// Table, column, the leaf to be named, the replacement, and the spellings of its type.
type WrongType = (&'static str, &'static str, &'static str, fn() -> ArrayRef, &'static [&'static str]);

const STRING: &[&str] = &["string", "utf8", "byte_array", "binary"];
const INT: &[&str] = &["int32", "integer", "int"];
const LONG: &[&str] = &["int64", "long", "bigint"];
const DOUBLE: &[&str] = &["double", "float64"];
const LIST: &[&str] = &["list", "array", "group", "struct"];

const WRONG_TYPES: [WrongType; 12] = [
    ("main_summary/v3", "client_id", "client_id", long, LONG),
    ("main_summary/v3", "profile_creation_date", "profile_creation_date", string, STRING),
    ("main_summary/v3", "profile_creation_date", "profile_creation_date", double, DOUBLE),
    ("main_summary/v3", "active_theme", "active_theme", string, STRING),
    ("main_summary/v3", "active_theme", "addon_id", || group_of("addon_id", int()), INT),
    ("main_summary/v3", "active_addons", "active_addons", string, STRING),
    (
        "main_summary/v3",
        "active_addons",
        "install_day",
        || list_of(group_of("install_day", string())),
        STRING,
    ),
    ("main_summary/v3", "active_addons", "active_addons", || list_of(int()), INT),
    ("addons/v2", "client_id", "client_id", double, DOUBLE),
    ("addons/v2", "addon_id", "addon_id", || list_of(string()), LIST),
    ("addons/v2", "is_system", "is_system", int, INT),
    ("addons/v2", "foreign_install", "foreign_install", string, STRING),
];

fn with_wrong_type(path: &Path, case: &WrongType) -> Result<()> {
    let (table, column, _, wrong, _) = case;
    let mut columns = good_columns(table);
    for (name, array) in &mut columns {
        if name == column {
            *array = wrong();
        }
    }
    write_columns(path, columns)
}

#[test]
fn a_column_of_a_wrong_type_is_named_with_its_type_and_file() -> Result<()> {
    for case in &WRONG_TYPES {
        let (table, _, named, _, spelled) = case;
        let scene = Scene::new()?;
        let partition = scene.root.join(table).join(format!("submission_date_s3={DATE}"));
        std::fs::remove_file(partition.join(SECOND))?;
        with_wrong_type(&partition.join(FIRST), case)?;
        let outcome = scene.fails(&[table, named, FIRST]).with_context(|| format!("{table} {named}"))?;
        outcome.expect_any(spelled)?;
    }
    Ok(())
}

#[test]
fn columns_that_do_not_merge_are_named_with_both_files() -> Result<()> {
    for case in &WRONG_TYPES {
        let (table, _, named, _, spelled) = case;
        for bad in [FIRST, SECOND] {
            let scene = Scene::new()?;
            let partition = scene.root.join(table).join(format!("submission_date_s3={DATE}"));
            with_wrong_type(&partition.join(bad), case)?;
            let outcome = scene.fails(&[named, FIRST, SECOND]).with_context(|| format!("{table} {named}"))?;
            outcome.expect_any(spelled)?;
        }
    }
    Ok(())
}

/// A file is in the place of the output's folder, or of a folder above it.
#[test]
fn an_output_that_can_not_be_a_folder_is_named() -> Result<()> {
    for depth in [0, 1] {
        let scene = Scene::new()?;
        let output = scene.place.path().join("other").join("agg").join("v1");
        let file = output.ancestors().nth(depth).context("a folder above")?.to_path_buf();
        std::fs::create_dir_all(file.parent().context("a parent")?)?;
        std::fs::write(&file, "a file")?;
        let before = snapshot(scene.place.path())?;
        let args = job_args(&scene.root, &output, &scene.place.spill());
        Tally::new("run").args(args).date(DATE).run()?.expect_failure(1, &["agg"])?;
        check_unchanged(&before, &snapshot(scene.place.path())?)?;
    }
    Ok(())
}

/// A file is in the place of the date's partition: it is not part of the dataset, and the job must not remove it.
#[test]
fn a_partition_that_is_a_file_is_named() -> Result<()> {
    let scene = Scene::new()?;
    std::fs::remove_dir_all(scene.place.partition(DATE))?;
    std::fs::write(scene.place.partition(DATE), "a file")?;
    scene.fails(&[&format!("submission_date_s3={DATE}")])?;
    Ok(())
}

#[test]
fn commands_that_can_not_be_understood_exit_with_2() -> Result<()> {
    let bad: [&[&str]; 15] = [
        &["--no-such-flag"],
        &["--memory-limit", "plenty"],
        &["--memory-limit", "1"],
        &["--memory-limit", "0"],
        &["--date", "2017-02-27"],
        &["--date", "20170230"],
        &["--date", "yesterday"],
        &["--threads", "0"],
        &["--workers", "0"],
        &["--workers", "two"],
        &["--workers", "3", "--threads", "2"],
        &["--target-file-size", "0"],
        &["--target-file-size", "big"],
        &["--output-format", "xml"],
        &["stray"],
    ];
    for flags in bad {
        let scene = Scene::new()?;
        let before = snapshot(scene.place.path())?;
        let mut args = job_args(&scene.root, &scene.place.output(), &scene.place.spill());
        if flags[0] == "--output-format" {
            // The last two are that flag itself.
            args.truncate(args.len() - 2);
        }
        let job = Tally::new("run").args(args);
        let job = if flags[0] == "--date" { job } else { job.date(DATE) };
        let outcome = job.args(flags).run()?.expect_code(2).with_context(|| format!("{flags:?}"))?;
        let named = flags[0].trim_start_matches('-');
        assert!(outcome.stderr.contains(named), "{flags:?} is not named\n{outcome}");
        check_unchanged(&before, &snapshot(scene.place.path())?)?;
    }
    Ok(())
}

#[test]
fn commands_that_lack_something_exit_with_2() -> Result<()> {
    let place = Place::new()?;
    let url = place.path().display().to_string();
    let bad: [(&str, &[&str]); 4] = [
        ("run", &["--addons"]),
        ("run", &["--addons", "gopher://x/y", "--main-summary", &url, "--output", &url]),
        ("no-such-command", &[]),
        ("generate", &["--clients", "many"]),
    ];
    for (command, flags) in bad {
        let outcome =
            Tally::new(command).args(flags).run()?.expect_code(2).with_context(|| format!("{flags:?}"))?;
        assert!(!outcome.stderr.trim().is_empty(), "{command} {flags:?}");
    }
    Ok(())
}

/// The error comes before the process listens, and names the whole path.
#[test]
fn a_state_directory_that_cannot_be_used_is_named() -> Result<()> {
    let place = Place::new()?;
    let file = place.path().join("file");
    std::fs::write(&file, "a file")?;
    let state = file.join("state");
    let flags = ["--listen", "127.0.0.1:0", "--state-dir"];
    let outcome = Tally::new("coordinator").args(flags).args([&state]).run()?;
    let named = format!("error: {}", state.display());
    let outcome = outcome.expect_failure(1, &[&named, "--state-dir"])?;
    anyhow::ensure!(!outcome.stderr.contains("listening on"), "{outcome}");
    Ok(())
}

fn yesterday() -> Result<String> {
    let output = Command::new("date").args(["-u", "-d", "yesterday", "+%Y%m%d"]).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Without a date, the job looks for yesterday's in UTC, which the scene does not have.
#[test]
fn the_date_is_yesterday_unless_said() -> Result<()> {
    let scene = Scene::new()?;
    let before = yesterday()?;
    let outcome = Tally::job(&scene.root, &scene.place).run()?.expect_failure(1, &[DATE])?;
    let after = yesterday()?;
    assert!([before, after].iter().any(|date| outcome.stderr.contains(date)), "{outcome}");
    Ok(())
}
