//! Local days of very many small files with long names: the result is exact, and planning takes bounded memory.
//!
//! Not here: many files in a store (`s3`), and in a cluster (`cluster_many_files`).

use anyhow::{Context, Result, ensure};
use tally_tests::golden::{Case, DATE};
use tally_tests::many::{TABLES, add, copy_case, count, day, files, without_row_groups};
use tally_tests::output::Place;
use tally_tests::process::{Summary, Tally};
use tally_tests::table;

/// Files for CI.
const FEW: usize = 4_000;
/// The memory that a process may use for them.
const MAX_PEAK: u64 = 256 << 20;
/// The bytes of their paths.
const PATH_BYTES: usize = 220;

/// Adds files to a golden day in which the same rows repeated change nothing, and runs the job.
fn run(row_groups: bool) -> Result<(Summary, usize)> {
    let case = Case::new("case-05");
    let place = Place::new()?;
    let root = place.path().join("day");
    copy_case(&case, &root)?;
    let many = count(FEW)?;
    for table in TABLES {
        let folder = day(&root, table);
        let whole = files(&folder)?.into_iter().next().context("no file")?;
        let empty = place.path().join(format!("{}.parquet", table.replace('/', "-")));
        without_row_groups(&whole, &empty)?;
        let repeated = row_groups && table == TABLES[0];
        add(&folder, if repeated { &whole } else { &empty }, many / 2, PATH_BYTES)?;
    }
    let summary = Tally::job(&root, &place).date(DATE).args(["--threads", "2"]).run()?.summary()?;
    table::compare(&place.read_output(DATE)?, &case.expected_rows()?)?;
    let [plan, map, ..] = &summary.stages[..] else { anyhow::bail!("no stages") };
    println!(
        "{many} files: planned in {:.2} s with {} MiB, read by {} tasks in {:.2} s, {} MiB at most",
        plan.seconds,
        plan.peak_memory_bytes >> 20,
        map.tasks,
        map.seconds,
        summary.peak_memory_bytes >> 20
    );
    ensure!(plan.peak_memory_bytes <= MAX_PEAK, "{} bytes", plan.peak_memory_bytes);
    Ok((summary, many))
}

#[test]
fn files_without_row_groups_are_planned_in_little_memory_and_read_by_no_task() -> Result<()> {
    let (summary, _) = run(false)?;
    let tasks = summary.stages[1].tasks;
    ensure!(tasks <= 8, "{tasks} tasks");
    Ok(())
}

#[test]
fn many_small_files_are_planned_in_little_memory_and_read_by_several_tasks() -> Result<()> {
    run(true).map(drop)
}
