//! The limit of 15 MiB on ids and add-on ids: the same in one process and in a cluster, whose messages must have room for
//! each value. At the limit the rows are right; beyond it the job fails at once, and the error names the file, the row
//! group, the column, the value and the limit.
//!
//! Not here: rows with very many items (the units of `map_addons`).

use anyhow::{Context, Result, ensure};
use tally_tests::cluster::client::Client;
use tally_tests::cluster::{Setup, with_cluster};
use tally_tests::day::{DataFile, Day, Format, ValueEncoding};
use tally_tests::golden::DATE;
use tally_tests::output::Place;
use tally_tests::process::{Outcome, Tally};
use tally_tests::rows::{ActiveAddon, AddonRow, MainRow};
use tally_tests::{naive, table};

/// The limit of a value.
const LIMIT: usize = 15 << 20;
/// More clients, so that each worker has map outputs and partitions.
const OTHERS: usize = 40;

fn id(at: usize) -> String {
    format!("{at:08x}-0000-4000-8000-{at:012x}")
}

fn rows(clients: &[String], addons: &[String]) -> (Vec<MainRow>, Vec<AddonRow>) {
    let main = clients.iter().map(|client| MainRow {
        client_id: Some(client.clone()),
        profile_creation_date: Some(17_000),
        active_theme: None,
        active_addons: Some(vec![Some(ActiveAddon { install_day: Some(16_000) })]),
    });
    let rows = clients.iter().flat_map(|client| {
        addons.iter().map(|addon| AddonRow {
            client_id: Some(client.clone()),
            addon_id: Some(addon.clone()),
            foreign_install: Some(false),
            is_system: Some(false),
            user_disabled: Some(false),
            app_disabled: Some(false),
        })
    });
    (main.collect(), rows.collect())
}

/// Several files, so that each worker has map tasks. Each file repeats the long values.
fn day(client: usize, addon: usize, encoding: ValueEncoding) -> Day {
    let format = Format { encoding, ..Format::default() };
    let (mut main, mut addons) = (vec![], vec![]);
    for file in 0..2 {
        let mut clients: Vec<String> = (0..OTHERS).map(|at| id(file * OTHERS + at)).collect();
        let (mains, mut rows_of_addons) = rows(&clients, &["short@example.org".into()]);
        clients = vec!["c".repeat(client)];
        let (long, long_addons) = rows(&clients, &["a".repeat(addon)]);
        rows_of_addons.extend(long_addons);
        let name = format!("part-{file}.parquet");
        main.push(DataFile::new(&name, [mains, long].concat(), format.clone()));
        addons.push(DataFile::new(&name, rows_of_addons, format.clone()));
    }
    Day { main, addons, litter: vec![] }
}

const CUT: [&str; 4] = ["--partitions", "4", "--shard-bytes", "1"];

/// The day by `tally run` and by the cluster.
fn both(day: &Day, client: &Client, check: impl Fn(&Place, Outcome) -> Result<()>) -> Result<()> {
    let dir = Place::new()?;
    let root = dir.path().join("day");
    day.write(&root, DATE)?;
    let place = Place::new()?;
    let outcome = Tally::job(&root, &place).date(DATE).args(CUT).args(["--workers", "2"]).run()?;
    check(&place, outcome).context("by tally run")?;
    let place = Place::new()?;
    let outcome = client.submit_command(&root, &place, &[]).args(CUT).run()?;
    check(&place, outcome).context("by the cluster")
}

#[test]
fn values_have_one_limit_in_one_process_and_in_a_cluster() -> Result<()> {
    let setup = Setup { workers: 2, worker_memory: "512MiB", ..Setup::default() };
    with_cluster(setup, |cluster| {
        let client = cluster.client();
        for encoding in [ValueEncoding::LargeDictionary, ValueEncoding::Plain] {
            let day = day(LIMIT, LIMIT, encoding);
            let expected = naive::aggregate(&day.main_rows(), &day.addon_rows());
            both(&day, &client, |place, outcome| {
                outcome.summary()?;
                table::compare(&place.read_output(DATE)?, &expected.rows)
            })
            .with_context(|| format!("at the limit, {encoding:?}"))?;
        }
        let long = LIMIT + 1;
        let cases = [
            (day(long, 9, ValueEncoding::Plain), "client_id", "\"cccc"),
            (day(9, long, ValueEncoding::LargeDictionary), "addon_id", "\"aaaa"),
        ];
        for (day, column, start) in cases {
            both(&day, &client, |_, outcome| {
                let bytes = long.to_string();
                let words = ["part-", "row group 0", column, &bytes, "limit of 15 MiB", start];
                outcome.expect_failure(1, &words).map(drop)
            })?;
        }
        let failed = client.jobs()?;
        let failed: Vec<_> = failed.iter().filter(|job| job.state == "failed").collect();
        ensure!(failed.len() == 2, "{failed:?}");
        for job in failed {
            ensure!(job.stage("map")?.failed_attempts <= 2, "a long value was tried again: {job:?}");
        }
        Ok(())
    })
}
