//! Days with files of foreign shapes give the output of Spark, or the expected error: from folders and from S3. On a
//! cluster: `cluster_foreign`.

use std::path::Path;

use anyhow::{Result, ensure};
use tally_tests::foreign::{all, case};
use tally_tests::golden::DATE;
use tally_tests::output::Place;
use tally_tests::process::Tally;
use tally_tests::s3::server::{ADMIN, DATA, Kind, OUT, Server};
use tally_tests::s3::{check_nothing_left, day_folder, job, read_output};

fn foreign_files_are_read_as_spark_reads_them() -> Result<()> {
    all(|case| {
        let place = Place::new()?;
        let outcome = Tally::job(&case.day, &place).date(DATE).run()?;
        case.check(outcome, || place.read_output(DATE))
    })
}

fn foreign_files_in_s3_are_read_as_spark_reads_them() -> Result<()> {
    let server = Server::start(Kind::Seaweed)?;
    let (data, out) = (server.client(DATA)?, server.client(OUT)?);
    let spill = Place::new()?;
    all(|case| {
        data.put_tree(&case.day, &case.name)?;
        for key in out.list(&day_folder())? {
            out.remove(&key)?;
        }
        let outcome = job(server.address(), ADMIN, &case.name, &spill.spill()).run()?;
        case.check(outcome, || read_output(&out))?;
        check_nothing_left(&out)
    })
}

/// Skipped files are named.
fn files_without_a_byte_are_passed_over_with_a_warning() -> Result<()> {
    let case = case("01-zero-byte-part")?;
    let place = Place::new()?;
    let outcome = Tally::job(&case.day, &place).date(DATE).run()?.expect_code(0)?;
    ensure!(outcome.stderr.contains("part-00099.parquet"), "no warning names the file\n{outcome}");
    // A table without other files has no data.
    let day = place.path().join("day");
    copy(&case.day.join("main_summary"), &day.join("main_summary"))?;
    let empty = day.join(format!("addons/v2/submission_date_s3={DATE}/sample_id=1"));
    std::fs::create_dir_all(&empty)?;
    std::fs::write(empty.join("part-0.parquet"), b"")?;
    let outcome = Tally::job(&day, &place).date(DATE).run()?;
    outcome.expect_failure(1, &["addons", "no data files", "are empty"]).map(drop)
}

/// The day's folder is a column of the table, so its name is matched as those of columns are.
fn the_name_of_the_days_folder_matches_without_regard_to_letter_case() -> Result<()> {
    let case = case("21-letter-case")?;
    let place = Place::new()?;
    let day = place.path().join("day");
    copy(&case.day, &day)?;
    let table = day.join("main_summary/v3");
    let renamed = table.join(format!("Submission_Date_S3={DATE}"));
    std::fs::rename(table.join(format!("submission_date_s3={DATE}")), &renamed)?;
    case.check(Tally::job(&day, &place).date(DATE).run()?, || place.read_output(DATE))?;
    copy(&renamed, &table.join(format!("SUBMISSION_DATE_S3={DATE}")))?;
    let outcome = Tally::job(&day, &place).date(DATE).run()?;
    outcome.expect_failure(1, &["Submission_Date_S3", "SUBMISSION_DATE_S3", "letter case"]).map(drop)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

tally_tests::tests![
    foreign_files_are_read_as_spark_reads_them,
    foreign_files_in_s3_are_read_as_spark_reads_them,
    files_without_a_byte_are_passed_over_with_a_warning,
    the_name_of_the_days_folder_matches_without_regard_to_letter_case,
];
