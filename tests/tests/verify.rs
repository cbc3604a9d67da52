//! `tally verify`: days as their jobs published them are valid, and anything that was changed since is found and named.
//!
//! Files are changed by another program's writer, so the Parquet files are valid. In object stores: `s3_audits`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arrow_array::{ArrayRef, BooleanArray, Int32Array, Int64Array, StringArray};
use serde_json::Value;
use tally_tests::golden::{CASES, Case, DATE};
use tally_tests::output::{Place, part_files};
use tally_tests::process::{Outcome, Tally};
use tally_tests::rewrite::PartFile;

/// A published day of several part files.
struct Day {
    place: Place,
    files: Vec<PathBuf>,
}

impl Day {
    fn new(case: &str) -> Result<Self> {
        let place = Place::new()?;
        let job = Tally::job(&Case::new(case).dir, &place).date(DATE).args(["--target-file-size", "2KB"]);
        job.run()?.expect_code(0)?;
        let files = part_files(&place.partition(DATE))?;
        Ok(Day { place, files })
    }

    fn verify(&self) -> Result<Outcome> {
        verify(&self.place.output(), self.place.path()).run()
    }

    /// Runs `tally verify`, which must find something about this file, or about the day, with these words.
    fn expect(&self, file: Option<&Path>, words: &[&str]) -> Result<()> {
        let outcome = self.verify()?.expect_failure(1, &["is not what its job published"])?;
        let report: Value = serde_json::from_str(&outcome.stdout).with_context(|| outcome.to_string())?;
        ensure!(report["valid"] == false, "{report}");
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let findings = report["findings"].as_array().context("no findings")?;
        let matches = |finding: &&Value| {
            let problem = finding["problem"].as_str().unwrap_or_default();
            let of = finding["file"].as_str().map(|file| name(Path::new(file)));
            of == file.map(name) && words.iter().all(|word| problem.contains(word))
        };
        ensure!(
            findings.iter().any(|finding| matches(&finding)),
            "nothing of {file:?} has {words:?}: {report}"
        );
        Ok(())
    }

    /// Rewrites a part file with a change.
    fn rewrite(&self, file: usize, change: impl FnOnce(&mut PartFile) -> Result<()>) -> Result<()> {
        let mut part = PartFile::read(&self.files[file])?;
        change(&mut part)?;
        part.write(&self.files[file])
    }
}

fn verify(output: &Path, spill: &Path) -> Tally {
    let args = ["--date", DATE, "--output-format", "json"];
    let paths = [("--output", output), ("--spill-dir", spill)];
    paths.into_iter().fold(Tally::new("verify").args(args), |command, (flag, path)| {
        command.args([flag.as_ref(), path.as_os_str()])
    })
}

#[test]
fn a_day_of_another_dataset_is_named() -> Result<()> {
    let day = Day::new("case-05")?;
    let verify = verify(&day.place.output(), day.place.path()).args(["--dataset", "addon_aggregates_v2"]);
    let outcome = verify.run()?.expect_failure(1, &["is not what its job published"])?;
    let named = r#"it is one of the dataset \"addon_aggregates\": is --dataset right?"#;
    ensure!(outcome.stdout.contains(named), "{outcome}");
    Ok(())
}

#[test]
fn the_days_of_all_golden_cases_are_valid() -> Result<()> {
    for name in CASES {
        let day = Day::new(name)?;
        let outcome = day.verify()?.expect_code(0).context(name)?;
        let report: Value = serde_json::from_str(&outcome.stdout)?;
        let totals = Case::new(name).totals()?;
        let numbers = ["rows", "n_clients", "n_custom_theme_clients"].map(|key| report[key].as_u64());
        // The counters are in an object of their own.
        let counters = &report["totals"];
        ensure!(numbers[0] == Some(totals.rows), "{name}: {report}");
        ensure!(counters["n_clients"] == totals.n_clients, "{name}: {report}");
        ensure!(counters["n_custom_theme_clients"] == totals.n_custom_theme_clients, "{name}: {report}");
        let rows = Case::new(name).expected_rows()?;
        let clients: std::collections::BTreeSet<_> = rows.iter().map(|row| &row.client_id).collect();
        ensure!(report["distinct_keys"] == clients.len(), "{name}: {report}");
        ensure!(report["valid"] == true && report["findings"] == serde_json::json!([]), "{name}: {report}");
    }
    Ok(())
}

/// A part file that another program rewrote without a change has other bytes, and the same rows.
#[test]
fn a_rewritten_file_with_the_same_rows_is_valid() -> Result<()> {
    let day = Day::new("case-05")?;
    ensure!(day.files.len() > 2, "{:?}", day.files);
    let before = std::fs::read(&day.files[1])?;
    day.rewrite(1, |_| Ok(()))?;
    ensure!(std::fs::read(&day.files[1])? != before);
    day.verify()?.expect_code(0)?;
    // The order of the rows means nothing.
    day.rewrite(1, |part| part.take((0..part.rows.num_rows() as u64).rev()))?;
    day.verify()?.expect_code(0)?;
    Ok(())
}

#[test]
fn one_changed_value_in_any_column_is_found_in_its_file() -> Result<()> {
    let changed = "a value was changed";
    let changes: [(&str, ArrayRef, &str); 11] = [
        ("client_id", Arc::new(StringArray::from(vec!["another client"])), changed),
        ("client_id", Arc::new(StringArray::from(vec![None::<&str>])), "client_id is null"),
        ("foreign_install", Arc::new(BooleanArray::from(vec![None])), ""),
        ("count", Arc::new(Int64Array::from(vec![4_711])), changed),
        ("user_type", Arc::new(Int64Array::from(vec![None])), "user_type is null"),
        ("profile_creation_date", Arc::new(Int64Array::from(vec![1])), changed),
        ("min_install_day", Arc::new(Int32Array::from(vec![1])), changed),
        ("has_custom_theme", Arc::new(Int64Array::from(vec![5])), "has_custom_theme is 5"),
        ("has_custom_theme", Arc::new(Int64Array::from(vec![5])), changed),
        ("n_custom_theme_clients", Arc::new(Int32Array::from(vec![9_999])), "n_custom_theme_clients is 9999"),
        ("n_clients", Arc::new(Int32Array::from(vec![9_999])), "row 2: n_clients is 9999, and the footer"),
    ];
    for (column, value, words) in changes {
        let day = Day::new("case-05")?;
        day.rewrite(1, |part| {
            // A value that differs from the one before.
            let at = part.schema().index_of(column)?;
            let same = |row: usize| part.rows.column(at).slice(row, 1).to_data() == value.to_data();
            let row = (1..part.rows.num_rows()).find(|&row| !same(row)).context("no row")?;
            part.set(row, column, value.clone())
        })?;
        day.expect(Some(&day.files[1]), &[words]).with_context(|| format!("{column}: {words}"))?;
    }
    Ok(())
}

#[test]
fn missing_and_foreign_files_are_named() -> Result<()> {
    let day = Day::new("case-05")?;
    let last = day.files.last().context("no files")?;
    let bytes = std::fs::read(last)?;
    std::fs::remove_file(last)?;
    let number = format!("missing file: part-{:05}", day.files.len() - 1);
    day.expect(None, &[&number])?;
    day.expect(None, &["rows, and their footers say"])?;
    std::fs::write(last, &bytes)?;
    day.verify()?.expect_code(0)?;
    // A file of the same day, twice.
    let copy = last.with_file_name("part-00000-copy.snappy.parquet");
    std::fs::copy(last, &copy)?;
    day.expect(Some(&copy), &["foreign file"])?;
    // The file that comes first by its name has the row first.
    day.expect(Some(last), &["repeats row", "part-00000-copy"])?;
    std::fs::remove_file(&copy)?;
    // A file of another job, and a Parquet file of another program.
    let other = Day::new("case-05")?;
    let foreign = last.with_file_name(other.files[0].file_name().unwrap_or_default());
    std::fs::copy(&other.files[0], &foreign)?;
    day.expect(Some(&foreign), &["foreign file: job"])?;
    std::fs::remove_file(&foreign)?;
    let bare = last.with_file_name("rows.parquet");
    std::fs::copy(Case::new("case-05").dir.join("expected.parquet"), &bare)?;
    day.expect(Some(&bare), &["foreign file: its footer does not have the key tally."])?;
    std::fs::remove_file(&bare)?;
    let below = last.with_file_name("sample_id=1");
    std::fs::create_dir(&below)?;
    let moved = below.join(last.file_name().unwrap_or_default());
    std::fs::rename(last, &moved)?;
    day.expect(Some(&moved), &["it is in sample_id=1, and its footer says the day's folder"])?;
    Ok(())
}

#[test]
fn a_changed_footer_is_found() -> Result<()> {
    let checks: [(&str, &str, &[&str]); 6] = [
        ("tally.rows", "1", &["its footer says 1"]),
        ("tally.checksum", "0123456789abcdef", &["its footer says 0123456789abcdef"]),
        ("tally.n_clients", "9999", &["tally.n_clients is 9999", "those of the other files say"]),
        ("tally.total_rows", "9999", &["tally.total_rows is 9999"]),
        ("tally.job_id", "20170227-1-1-0", &["foreign file: job 20170227-1-1-0"]),
        ("tally.total_nulls", "{}", &["invalid value for tally.total_nulls"]),
    ];
    for (key, value, words) in checks {
        let day = Day::new("case-05")?;
        day.rewrite(1, |part| {
            part.set_entry(key, value);
            Ok(())
        })?;
        day.expect(Some(&day.files[1]), words).with_context(|| key.to_string())?;
    }
    // In all files alike: the rows contradict it.
    let day = Day::new("case-05")?;
    for file in 0..day.files.len() {
        day.rewrite(file, |part| {
            part.set_entry("tally.total_nulls", &{
                let entry = part.entries.iter().find(|entry| entry.key == "tally.total_nulls");
                let mut nulls: Value =
                    serde_json::from_str(entry.and_then(|e| e.value.as_deref()).unwrap_or("{}"))?;
                nulls["foreign_install"] = 9_999.into();
                nulls.to_string()
            });
            Ok(())
        })?;
    }
    day.expect(None, &["foreign_install has", "the footers say 9,999"])
}

#[test]
fn rows_that_moved_between_files_or_are_gone_are_found() -> Result<()> {
    let day = Day::new("case-05")?;
    day.rewrite(1, |part| part.take(1..part.rows.num_rows() as u64))?;
    day.expect(Some(&day.files[1]), &["rows, and its footer says"])?;
    // The first row twice, instead of the second one.
    let day = Day::new("case-05")?;
    day.rewrite(1, |part| part.take([0, 0].into_iter().chain(2..part.rows.num_rows() as u64)))?;
    day.expect(Some(&day.files[1]), &["a value was changed"])?;
    day.expect(Some(&day.files[1]), &["row 2 repeats row 1 of"])?;
    // Two files take each other's place: the day has the same rows.
    let day = Day::new("case-05")?;
    let aside = day.place.path().join("aside");
    std::fs::rename(&day.files[0], &aside)?;
    std::fs::rename(&day.files[1], &day.files[0])?;
    std::fs::rename(&aside, &day.files[1])?;
    day.verify()?.expect_code(0)?;
    Ok(())
}

#[test]
fn damaged_files_and_other_schemas_are_found() -> Result<()> {
    let day = Day::new("case-05")?;
    let bytes = std::fs::read(&day.files[0])?;
    std::fs::write(&day.files[0], &bytes[..bytes.len() / 2])?;
    day.expect(Some(&day.files[0]), &["cannot be read as a Parquet file"])?;
    // A bit of a data page: either it cannot be decoded, or a value is another one.
    let mut flipped = bytes.clone();
    flipped[60] ^= 0x10;
    std::fs::write(&day.files[0], &flipped)?;
    day.expect(Some(&day.files[0]), &[""])?;
    std::fs::write(&day.files[0], b"")?;
    day.expect(None, &["empty files"])?;
    std::fs::write(&day.files[0], &bytes)?;
    day.verify()?.expect_code(0)?;
    day.rewrite(0, |part| {
        let columns: Vec<usize> = (0..part.rows.num_columns() - 1).collect();
        part.rows = part.rows.project(&columns)?;
        Ok(())
    })?;
    day.expect(Some(&day.files[0]), &["does not have the columns: n_clients Int32 required"])
}

#[test]
fn a_day_that_does_not_exist_is_another_error_than_a_changed_one() -> Result<()> {
    let place = Place::new()?;
    let outcome = verify(&place.output(), place.path()).run()?;
    outcome.expect_failure(7, &["output: no data files"])?;
    let few = verify(&place.output(), place.path()).args(["--memory-limit", "1MiB"]).run()?;
    few.expect_failure(2, &["--memory-limit is too little", "128MiB"])?;
    Ok(())
}
