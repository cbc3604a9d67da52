//! Outputs that are lost, and computed again, while tasks that read them are being dispatched. Each of these cases once
//! published a wrong day with exit code 0. The expected output is known from how the day was generated.
//!
//! Not here: single faults at each stage (`chaos`).

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tally_tests::cluster::faults::{Fault, Moment};
use tally_tests::cluster::truth::MANY_TASKS;
use tally_tests::cluster::view::JobView;
use tally_tests::cluster::{Cluster, Setup, with_cluster};
use tally_tests::day::{DataFile, Day, Format};
use tally_tests::golden::DATE;
use tally_tests::naive::DEFAULT_THEME;
use tally_tests::output::Place;
use tally_tests::process::Summary;
use tally_tests::rows::{ActiveAddon, AddonRow, MainRow, Row, Theme};
use tally_tests::scratch::Scratch;
use tally_tests::table;

/// Clients of the day.
const CLIENTS: i64 = 200_000;
/// Rows of an input file of `main_summary`, and clients of one of `addons`.
const FILE: i64 = 10_000;

/// A day of clients whose ids are not UUIDs, each with add-ons of both kinds, and so two rows of the output.
static DAY: LazyLock<Made> = LazyLock::new(|| Made::new().expect("a day"));

struct Made {
    dir: Scratch,
    /// Sorted.
    rows: Vec<Row>,
}

fn id(client: i64) -> Option<String> {
    Some(format!("client-{client:06}"))
}

fn addon(client: i64, name: &str, foreign: bool) -> AddonRow {
    AddonRow {
        client_id: id(client),
        addon_id: Some(name.into()),
        foreign_install: Some(foreign),
        is_system: Some(false),
        user_disabled: Some(false),
        app_disabled: Some(false),
    }
}

/// Every fourth client has a theme of its own.
fn has_theme(client: i64) -> bool {
    client % 4 == 0
}

fn ping(client: i64) -> MainRow {
    let theme = if has_theme(client) { "a theme" } else { DEFAULT_THEME };
    let days = [client % 500 + 7, client % 500];
    let addon = |day| Some(ActiveAddon { install_day: i32::try_from(day).ok() });
    MainRow {
        client_id: id(client),
        profile_creation_date: Some(client % 1000),
        active_theme: Some(Theme { addon_id: Some(theme.into()) }),
        active_addons: Some(days.map(addon).into()),
    }
}

fn rows(client: i64) -> [Row; 2] {
    let row = |foreign, count| Row {
        client_id: id(client),
        foreign_install: Some(foreign),
        count,
        // One group of each kind.
        user_type: Some(0),
        profile_creation_date: Some(client % 1000),
        min_install_day: i32::try_from(client % 500).ok(),
        has_custom_theme: Some(if has_theme(client) { 1 } else { -1 }),
        n_custom_theme_clients: CLIENTS as i32 / 4,
        n_clients: CLIENTS as i32,
    };
    [row(false, 1 + client % 2), row(true, 1)]
}

impl Made {
    fn new() -> Result<Self> {
        let dir = Scratch::new("tally day ")?;
        // Spread over the clients, so that each file has all partitions.
        let clients = |file: i64| (0..FILE).map(move |n| n * (CLIENTS / FILE) + file);
        let addons = |client: i64| {
            let second = (client % 2 == 1).then(|| addon(client, "two", false));
            [addon(client, "one", false), addon(client, "one", true)].into_iter().chain(second)
        };
        let format = || Format { row_group_rows: 2000, ..Format::default() };
        let path = |file: i64| format!("part-{file:05}.snappy.parquet");
        let mut day = Day::default();
        for file in 0..CLIENTS / FILE {
            day.main.push(DataFile::new(path(file), clients(file).map(ping).collect(), format()));
            day.addons.push(DataFile::new(path(file), clients(file).flat_map(addons).collect(), format()));
        }
        day.write(dir.path(), DATE)?;
        Ok(Self { dir, rows: (0..CLIENTS).flat_map(rows).collect() })
    }

    fn check(&self, place: &Place, summary: &Summary) -> Result<()> {
        let mut rows = place.read_output(DATE)?;
        rows.sort();
        table::compare(&rows, &self.rows)?;
        ensure!(summary.rows == self.rows.len() as u64, "{summary:?}");
        ensure!(summary.n_clients == CLIENTS as u64, "{summary:?}");
        Ok(())
    }
}

/// How long a worker may be disconnected here: the faults below must all happen within this time.
const GRACE: Duration = Duration::from_secs(3);
const GRACE_FLAGS: &[&str] = &["--worker-grace", "3000"];
/// How often the day is tried until the intended sequence happens, on a machine that may be slow.
const TRIES: usize = 5;
/// Workers that are killed until one of them holds a reduce output.
const KILLS: usize = 12;

fn stage_is(job: &JobView, name: &str, holds: impl Fn(u64, u64, u64) -> bool) -> bool {
    let stage = job.stages.iter().find(|stage| stage.name == name);
    stage.is_some_and(|stage| holds(stage.tasks, stage.done, stage.running))
}

/// What the coordinator's first incarnation logged about a job.
fn said(cluster: &Cluster, job: &str, what: &str) -> Result<bool> {
    let log = std::fs::read_to_string(cluster.path().join("logs/coordinator-0.1.log"))?;
    Ok(log.lines().any(|line| line.contains(job) && line.contains(what)))
}

/// The second worker dies near the end of the map stage; the first loses its stream before the stage changes, and is
/// sent a reduce task, which cannot arrive. The coordinator declares the second lost and schedules its outputs again
/// when the first reconnects. Returns true if this sequence happened.
fn back_in_the_gap(cluster: &mut Cluster, place: &Place) -> Result<bool> {
    let client = cluster.client();
    let (job, _) = cluster.submit_held(DAY.dir.path(), place, MANY_TASKS, Moment::Stage("map", 0.8))?;
    let held = cluster.worker_view(1)?.outputs;
    ensure!(held > 1, "the second worker holds {held} outputs");
    // The third keeps its running task, the others complete the rest.
    for at in [0, 1] {
        cluster.workers[at].process.thaw()?;
    }
    let one_left =
        |job: &JobView| stage_is(job, "map", |tasks, done, running| done == tasks - 1 && running == 1);
    client.wait_for_job(&job.id, "one map task being left", one_left)?;
    let lost = cluster.worker_view(1)?.worker_id;
    cluster.inject(Fault::KillWorker(1))?;
    let killed = Instant::now();
    std::thread::sleep(GRACE * 3 / 5);
    // In this order it cannot reconnect at once.
    cluster.inject(Fault::CutControl(0))?;
    cluster.inject(Fault::BreakControl(0))?;
    let reducing =
        |job: &JobView| stage_is(job, "reduce", |tasks, done, running| tasks > 0 && done + running > 1);
    loop {
        cluster.workers[2].process.thaw()?;
        std::thread::sleep(Duration::from_millis(2));
        cluster.workers[2].process.freeze()?;
        let seen = client.job(&job.id)?;
        if reducing(&seen) {
            break;
        }
        if seen.is_over() || killed.elapsed() > GRACE * 4 {
            bail!("no reduce task was dispatched: {seen:?}");
        }
    }
    client.wait_for_workers("the dead worker being given up", |workers| {
        workers.iter().all(|worker| worker.worker_id != lost)
    })?;
    cluster.mend(Fault::CutControl(0))?;
    client.wait_for_workers("the first worker being back", |workers| {
        workers.len() == 2 && workers.iter().all(|worker| worker.state == "attached")
    })?;
    cluster.workers[2].process.thaw()?;
    let id = job.id.clone();
    DAY.check(place, &job.done()?)?;
    let hit = said(cluster, &id, "was not started")?;
    cluster.mend(Fault::KillWorker(1))?;
    cluster.wait_attached(3)?;
    cluster.wait_empty()?;
    Ok(hit)
}

#[test]
fn a_worker_that_comes_back_while_map_outputs_are_made_again() -> Result<()> {
    let setup = Setup { proxied: true, coordinator_flags: GRACE_FLAGS.to_vec(), ..Setup::default() };
    with_cluster(setup, |cluster| {
        for tried in 1..=TRIES {
            let place = Place::new()?;
            if back_in_the_gap(cluster, &place).with_context(|| format!("in try {tried}"))? {
                return Ok(());
            }
        }
        bail!("no task was lost whose inputs changed in {TRIES} tries")
    })
}

/// A worker that holds outputs of reduce tasks dies when a third of the part files are written: the others are written
/// from other attempts' row groups, by workers that met the ids in another order. The tables are so large that each of
/// these tasks takes several passes over the clients.
#[test]
fn reduce_outputs_that_are_made_again_while_part_files_are_written() -> Result<()> {
    let setup = Setup { worker_memory: "100MiB", ..Setup::quick() };
    with_cluster(setup, |cluster| {
        let flags = ["--partitions", "2", "--shard-bytes", "100KB", "--target-file-size", "20KB"];
        for at in (0..3).cycle().take(KILLS) {
            let place = Place::new()?;
            let moment = Moment::Stage("write", 0.3);
            let (job, before) = cluster.submit_held(DAY.dir.path(), &place, &flags, moment)?;
            cluster.inject(Fault::KillWorker(at))?;
            cluster.release()?;
            let id = job.id.clone();
            DAY.check(&place, &job.done()?).with_context(|| format!("without worker {at}"))?;
            let reruns = cluster.client().job(&id)?.stage("reduce")?.reruns;
            cluster.mend(Fault::KillWorker(at))?;
            cluster.wait_attached(3)?;
            cluster.wait_empty()?;
            // At least one of the three holds none, each time another.
            if reruns > 0 {
                ensure!(before.stage("write")?.done > 100, "few part files were written: {before:?}");
                return Ok(());
            }
        }
        bail!("no reduce output was lost")
    })
}
