//! Days of many small files, and of files of many tiny row groups, in S3: correct, and with few requests, embedded and
//! on a cluster. The cost of a day of large files: `s3`.
//!
//! `TALLY_SMALL_FILES` and `TALLY_ROW_GROUPS` make the days larger, for measurements (see bench/README.md); with
//! `TALLY_REPORT_ONLY` the bounds are not checked, because older programs do not meet them.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tally_tests::cluster::nodes::QUICK;
use tally_tests::cluster::{Setup, with_cluster};
use tally_tests::day::{DataFile, Day, Format};
use tally_tests::generated::Generated;
use tally_tests::golden::DATE;
use tally_tests::output::Place;
use tally_tests::process::Summary;
use tally_tests::reference::Reference;
use tally_tests::refile::refile;
use tally_tests::rows::{AddonRow, MainRow};
use tally_tests::s3::fetched::{Needed, SMALL_FILE};
use tally_tests::s3::proxy::{Exchange, Proxy};
use tally_tests::s3::server::{ADMIN, DATA, Kind, OUT, Server};
use tally_tests::s3::{job, read_output, submit};
use tally_tests::table;

/// Files of both tables: `TALLY_SMALL_FILES`, else these.
const SMALL_FILES: usize = 300;
/// Row groups of a file: `TALLY_ROW_GROUPS`, else these.
const ROW_GROUPS: usize = 2_000;
/// Minimum average number of row groups per request.
const ROW_GROUPS_A_REQUEST: usize = 20;

/// Maximum fetched bytes in hundredths of the needed ones, for row groups of one row with other columns between them, and
/// without.
const MAX_WITH_EXTRAS: u64 = 125;
const MAX_WITHOUT: u64 = 103;

fn scale(name: &str, default: usize) -> Result<usize> {
    let set = std::env::var(name).ok();
    set.map_or(Ok(default), |text| text.parse()).with_context(|| name.to_string())
}

fn bounds_count() -> bool {
    std::env::var_os("TALLY_REPORT_ONLY").is_none()
}

fn setup(endpoint: SocketAddr) -> Setup {
    Setup {
        workers: 2,
        coordinator_flags: QUICK.to_vec(),
        environment: ADMIN.environment(endpoint).to_vec(),
        ..Setup::default()
    }
}

/// Runs the day that is stored under `root` of a folder, embedded and on a cluster, and checks results; `check` gets
/// what the proxy recorded.
fn run_everywhere(
    root: &std::path::Path,
    name: &str,
    check: impl Fn(&[Exchange], &str, &Summary) -> Result<()>,
) -> Result<()> {
    let server = Server::start(Kind::Seaweed)?;
    let (data, out) = (server.client(DATA)?, server.client(OUT)?);
    data.put_tree(root, "day")?;
    let right = Reference::of_day(root, DATE)?;
    let proxy = Proxy::before(server.address())?;
    let place = Place::new()?;
    let summary = job(proxy.address(), ADMIN, "day", &place.spill()).run()?.summary()?;
    table::compare(&read_output(&out)?, &right.rows).context("embedded")?;
    check(&proxy.take(), &format!("{name}, embedded"), &summary)?;
    with_cluster(setup(proxy.address()), |cluster| {
        let summary = submit(&cluster.client(), "day").run()?.summary()?;
        table::compare(&read_output(&out)?, &right.rows).context("on a cluster")?;
        check(&proxy.take(), &format!("{name}, cluster of 2 workers"), &summary)
    })
}

fn small_files_take_one_request_each() -> Result<()> {
    let files = scale("TALLY_SMALL_FILES", SMALL_FILES)? / 2;
    let folder = Place::new()?;
    let clients = files.max(2_000).to_string();
    let day = Generated::new(folder.path(), &["--clients", &clients])?;
    let root = folder.path().join("small");
    refile(&day.root, &root, files, usize::MAX, &Format { extras: true, ..Format::default() })?;
    let needed = Needed::of(&root)?;
    ensure!(needed.chunks == 0 && needed.small_files > files, "{} small files", needed.small_files);
    run_everywhere(&root, "small files", |exchanges, name, summary| {
        let fetched = needed.check_ends(exchanges)?;
        println!("{name}: {} files, {} GETs, {:.2} s", needed.small_files, fetched.gets, summary.seconds);
        if bounds_count() {
            needed.check(exchanges)?;
        }
        Ok(())
    })
}

/// Each client's rows, in the order of the day, are one row group.
fn row_groups_of_one_row_share_requests() -> Result<()> {
    let groups = scale("TALLY_ROW_GROUPS", ROW_GROUPS)?;
    for extras in [false, true] {
        let folder = Place::new()?;
        let day = Generated::new(folder.path(), &["--clients", &groups.to_string()])?;
        let root = folder.path().join("groups");
        let format = Format { row_group_rows: 1, extras, ..Format::default() };
        refile(&day.root, &root, 1, groups, &format)?;
        let needed = Needed::of(&root)?;
        let name = if extras { "row groups of one row, with other columns" } else { "row groups of one row" };
        ensure!(needed.small_files == 0, "{name}: a file has less than {SMALL_FILE} bytes");
        run_everywhere(&root, name, |exchanges, name, summary| {
            let files = exchanges.iter().filter(|e| e.method == "GET" && e.target.contains(".parquet"));
            let bytes: u64 = files.clone().map(|exchange| exchange.received).sum();
            let (gets, all) = (files.count(), 2 * groups);
            println!(
                "{name}: {all} row groups, {gets} GETs, {bytes} bytes of {} needed, {:.2} s",
                needed.chunks + needed.footers,
                summary.seconds
            );
            if bounds_count() {
                let most = all / ROW_GROUPS_A_REQUEST;
                ensure!(gets <= most, "{name}: {gets} requests, {most} at most may be");
                let least = needed.chunks + needed.footers;
                let percent = if extras { MAX_WITH_EXTRAS } else { MAX_WITHOUT };
                let most = least * percent / 100;
                ensure!(
                    bytes <= most,
                    "{name}: {bytes} bytes are fetched, {most} at most may be, {least} are needed"
                );
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn small_files_that_lack_a_column_are_named() -> Result<()> {
    let server = Server::start(Kind::Seaweed)?;
    let (data, out) = (server.client(DATA)?, server.client(OUT)?);
    let row = AddonRow {
        client_id: Some("c".into()),
        addon_id: Some("a".into()),
        foreign_install: Some(false),
        is_system: Some(false),
        user_disabled: Some(false),
        app_disabled: Some(false),
    };
    let ping = MainRow { client_id: Some("c".into()), ..MainRow::default() };
    let format = Format::default();
    let whole = DataFile::new("part-0.parquet", vec![row.clone()], format.clone());
    let mut narrow = DataFile::new("part-1.parquet", vec![row; 3], format.clone());
    narrow.missing = ["foreign_install"].into();
    let main = vec![DataFile::new("part-0.parquet", vec![ping], format)];
    for (name, addons, fails) in [("some", vec![whole, narrow.clone()], false), ("all", vec![narrow], true)] {
        let folder = Place::new()?;
        let day = Day { main: main.clone(), addons, litter: vec![] };
        day.write(folder.path(), DATE)?;
        data.put_tree(folder.path(), name)?;
        let place = Place::new()?;
        let outcome = job(server.address(), ADMIN, name, &place.spill()).run()?;
        if fails {
            let words = ["foreign_install", "none of the day's 1 file", "part-1.parquet"];
            outcome.expect_failure(1, &words)?;
            continue;
        }
        let said = outcome.stderr.clone();
        outcome.summary()?;
        for word in ["foreign_install is missing from 1 of 2 files", "part-1.parquet", "3 rows"] {
            ensure!(said.contains(word), "no {word:?} in {said:?}");
        }
        table::compare(&read_output(&out)?, &Reference::of_day(folder.path(), DATE)?.rows)?;
    }
    Ok(())
}

tally_tests::tests![
    small_files_take_one_request_each,
    row_groups_of_one_row_share_requests,
    small_files_that_lack_a_column_are_named,
];
