//! Days with large dictionaries, and less memory than all of their tasks need at once. Not here: days that are larger
//! than memory because of many rows (`disks`), and the memory of the reader alone (`tally-worker`, `limits`).

use anyhow::{Context, Result, ensure};
use tally_tests::cluster::{Setup, with_cluster};
use tally_tests::day::{DataFile, Day, Format, ValueEncoding};
use tally_tests::golden::DATE;
use tally_tests::output::Place;
use tally_tests::process::Tally;
use tally_tests::reference::Reference;
use tally_tests::rows::{ActiveAddon, AddonRow, MainRow};
use tally_tests::table;

/// A day of so many clients, whose ids are strings of so many bytes; add-on ids are as long. Each of these columns has a
/// dictionary in one page.
fn day(clients: usize, bytes: usize) -> Day {
    let codec = parquet::basic::Compression::UNCOMPRESSED;
    let format = Format { encoding: ValueEncoding::LargeDictionary, codec, ..Format::default() };
    let id = |at: usize, what: &str| format!("{at:08}-{what}-{}", "x".repeat(bytes));
    let main = (0..clients).map(|at| MainRow {
        client_id: Some(id(at, "client")),
        profile_creation_date: Some(at as i64 % 1000),
        active_theme: None,
        active_addons: Some(vec![Some(ActiveAddon { install_day: Some(at as i32 % 1000) })]),
    });
    let addons = (0..clients).map(|at| AddonRow {
        client_id: Some(id(at, "client")),
        addon_id: Some(id(at, "addon")),
        foreign_install: Some(at % 3 == 0),
        is_system: Some(false),
        user_disabled: Some(false),
        app_disabled: Some(false),
    });
    Day {
        main: vec![DataFile::new("part-0.parquet", main.collect(), format.clone())],
        addons: vec![DataFile::new("part-0.parquet", addons.collect(), format)],
        litter: vec![],
    }
}

/// Four jobs at once, each of which has enough memory on the worker alone: two dictionaries of 11 MB per task, counted
/// twice while they are read, are 46 of the 97 MiB that 400 MiB leave for them. All four hold one and wait for the
/// other; then their reduce tasks need their distinct strings.
#[test]
fn four_jobs_with_large_dictionaries_on_one_worker_are_all_right() -> Result<()> {
    let day = day(18_000, 600);
    let right = Reference::of_rows(day.main_rows(), day.addon_rows());
    let root = tempfile::tempdir()?;
    day.write(root.path(), DATE)?;
    drop(day);
    // Frozen workers do not become lost.
    let coordinator_flags = vec!["--worker-timeout", "60000"];
    let setup = Setup {
        workers: 1,
        worker_slots: "4",
        worker_memory: "400MiB",
        coordinator_flags,
        ..Setup::default()
    };
    with_cluster(setup, |cluster| {
        let places = [Place::new()?, Place::new()?, Place::new()?, Place::new()?];
        cluster.freeze_workers()?;
        let client = cluster.client();
        let mut jobs = vec![];
        for place in &places {
            jobs.push(client.submit(root.path(), place, &["--partitions", "2"])?);
        }
        cluster.release()?;
        for (at, (job, place)) in jobs.into_iter().zip(&places).enumerate() {
            job.done().with_context(|| format!("job {at} of four"))?;
            table::compare(&place.read_output(DATE)?, &right.rows)
                .with_context(|| format!("job {at} of four"))?;
        }
        Ok(())
    })
}

/// A dictionary that exceeds a limit fails the job at once, and the limit that the message names is enough.
#[test]
fn a_dictionary_too_large_for_the_limit_names_the_limit_that_is_enough() -> Result<()> {
    // 40 MB in one page, counted twice, are more than a quarter of 256 MiB.
    let day = day(1000, 40_000);
    let right = Reference::of_rows(day.main_rows(), day.addon_rows());
    let root = tempfile::tempdir()?;
    day.write(root.path(), DATE)?;
    drop(day);
    let place = Place::new()?;
    let run = |limit: &str| {
        Tally::job(root.path(), &place).date(DATE).args(["--threads", "1", "--memory-limit", limit]).run()
    };
    let failed = run("256MiB")?.expect_failure(1, &["part-0.parquet", "--memory-limit"])?;
    let said = failed.to_string();
    let named = said.split("set --memory-limit to ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let named = named.with_context(|| format!("no value is named: {said}"))?;
    ensure!(!said.contains("tried again") && !said.contains("no worker had room"), "{said}");
    run(named)?.summary()?;
    table::compare(&place.read_output(DATE)?, &right.rows)
}
