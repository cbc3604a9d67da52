//! A cluster of real processes between two buckets: results, and a leader that is killed before and after each step of
//! the publish. Its successor finds the journal in a folder or in the store itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tally_tests::cluster::client::DEADLINE;
use tally_tests::cluster::nodes::QUICK;
use tally_tests::cluster::{Cluster, Setup, with_cluster};
use tally_tests::day::Format;
use tally_tests::generated::Generated;
use tally_tests::golden::DATE;
use tally_tests::http::metrics;
use tally_tests::output::Place;
use tally_tests::reference::Reference;
use tally_tests::refile::refile;
use tally_tests::s3::client::Client;
use tally_tests::s3::fetched::Needed;
use tally_tests::s3::proxy::{Exchange, Fault, Proxy};
use tally_tests::s3::server::{ADMIN, DATA, Kind, OUT, Server};
use tally_tests::s3::{check_nothing_left, day_folder, put_case, put_old_output, read_output, submit};
use tally_tests::table;
use tally_tests::wait::{PATIENT, wait_every, wait_for};

/// The suffix of the key of a day's first decision.
const DECISION: &str = "/commits/00000001";
/// Several part files.
const FILES: [&str; 2] = ["--target-file-size", "2KB"];

fn setup(endpoint: SocketAddr, state_dir: Option<&str>) -> Setup {
    Setup {
        workers: 2,
        coordinator_flags: QUICK.to_vec(),
        environment: ADMIN.environment(endpoint).to_vec(),
        state_dir: state_dir.map(str::to_string),
        ..Setup::default()
    }
}

fn golden_cases_go_from_s3_to_s3_with_the_journal_there() -> Result<()> {
    let server = Server::start(Kind::Seaweed)?;
    let (data, out) = (server.client(DATA)?, server.client(OUT)?);
    with_cluster(setup(server.address(), Some("s3://out/state")), |cluster| {
        for name in ["case-03", "case-05", "case-08", "case-13-legacy-lists"] {
            let case = put_case(&data, name)?;
            submit(&cluster.client(), name).args(FILES).run()?.summary().context(name)?;
            table::compare(&read_output(&out)?, &case.expected_rows()?).context(name)?;
            check_nothing_left(&out).context(name)?;
        }
        let journal = out.list("state")?;
        ensure!(!journal.is_empty(), "there is no journal");
        for key in journal {
            let record = String::from_utf8_lossy(&out.get(&key)?).into_owned();
            ensure!(!record.contains(ADMIN.secret), "a secret in {key}");
        }
        let nodes = cluster.coordinators.iter().map(|node| &node.process);
        for process in nodes.chain(cluster.workers.iter().map(|node| &node.process)) {
            ensure!(!process.said().contains(ADMIN.secret), "a secret is logged: {}", process.said());
        }
        Ok(())
    })
}

fn workers_fetch_no_footer_that_the_coordinator_fetched() -> Result<()> {
    let server = Server::start(Kind::Seaweed)?;
    let folder = Place::new()?;
    let day = Generated::new(folder.path(), &["--clients", "60000"])?;
    // For large files, the coordinator reads the footers.
    let root = folder.path().join("large");
    refile(&day.root, &root, 3, usize::MAX, &Format { row_group_rows: 40_000, ..Format::default() })?;
    server.client(DATA)?.put_tree(&root, "day")?;
    let needed = Needed::of(&root)?;
    ensure!(needed.small_files == 0, "{needed:?}");
    let proxy = Proxy::before(server.address())?;
    with_cluster(setup(proxy.address(), None), |cluster| {
        let summary = submit(&cluster.client(), "day").run()?.summary()?;
        assert_eq!((summary.rows, summary.n_clients), (day.totals.rows, day.totals.n_clients));
        let right = Reference::of_day(&root, DATE)?;
        table::compare(&read_output(&server.client(OUT)?)?, &right.rows)?;
        println!(
            "{:?} for {} of chunks and {} of footers",
            needed.check_ends(&proxy.take())?,
            needed.chunks,
            needed.footers
        );
        // Both sides report their number of requests.
        let ok = "tally_object_store_requests_total{service=\"s3\",method=\"GET\",outcome=\"ok\"}";
        let asked = |page: &BTreeMap<String, f64>| page.get(ok).copied().unwrap_or_default();
        let mut workers = 0.0;
        for worker in &cluster.workers {
            workers += asked(&metrics(worker.http()?)?);
        }
        let coordinator = asked(&cluster.metrics()?);
        ensure!(coordinator > 0.0 && workers > 0.0, "coordinator {coordinator}, workers {workers}");
        Ok(())
    })
}

/// A store that accepts requests and does not answer: the job says so before any request times out.
fn a_frozen_store_is_what_running_tasks_wait_for() -> Result<()> {
    let server = Server::start(Kind::Seaweed)?;
    let case = put_case(&server.client(DATA)?, "case-05")?;
    let proxy = Proxy::before(server.address())?;
    with_cluster(setup(proxy.address(), None), |cluster| {
        let client = cluster.client();
        // The coordinator lists the files, which are small; workers read them.
        proxy.break_next("GET", "case-05/", 0, usize::MAX, Fault::Hold);
        let running = submit(&client, "case-05").spawn()?;
        let waits = wait_every(PATIENT, "tasks that wait for the store", DEADLINE, || {
            let Some(job) = client.jobs()?.pop() else { return Ok(None) };
            let job = client.job(&job.job_id)?;
            let detail = job.detail.context("no detail")?;
            // Far more than the interval of heartbeats, also on a busy machine.
            for task in detail.running.iter().filter(|task| task.age_seconds > 10.0) {
                ensure!(task.waits_for.is_some(), "it is not said what this task waits for: {task:?}");
            }
            Ok(detail.running.into_iter().find_map(|task| task.waits_for.filter(|wait| wait.seconds >= 1.0)))
        })?;
        ensure!(waits.kind == "store", "{waits:?}");
        ensure!(waits.subject.as_ref().is_some_and(|file| file.contains("s3://data/case-05/")), "{waits:?}");
        wait_every(PATIENT, "the table", DEADLINE, || {
            let table = client.tally("job").args(["latest"]).run()?.expect_code(0)?.stdout;
            Ok((table.contains("waits for store, ") && table.contains("for the store")).then_some(()))
        })?;
        proxy.heal();
        running.wait()?.summary()?;
        table::compare(&read_output(&server.client(OUT)?)?, &case.expected_rows()?)
    })
}

/// Where the leader is killed: after how many such requests, and what of the request reaches the store.
const STEPS: [(&str, &str, usize, Fault); 8] = [
    ("POST", "?uploads", 2, Fault::HoldAnswer),
    ("PUT", "partNumber", 1, Fault::HoldAnswer),
    ("PUT", "/commits/", 0, Fault::Hold),
    ("PUT", "/commits/", 0, Fault::HoldAnswer),
    ("POST", "uploadId", 1, Fault::HoldAnswer),
    ("PUT", ".outcome", 0, Fault::HoldAnswer),
    ("POST", "?delete", 1, Fault::Hold),
    ("PUT", ".done", 0, Fault::HoldAnswer),
];

/// Files of one job alone, and no others.
fn check_once(out: &Client) -> Result<Vec<String>> {
    let files = out.list(&day_folder())?;
    let jobs: BTreeSet<_> = files
        .iter()
        .filter_map(|key| key.rsplit_once("/part-")?.1.split_once('-')?.1.rsplit_once('-'))
        .collect();
    let jobs: BTreeSet<_> = jobs.into_iter().map(|(job, _)| job).collect();
    ensure!(jobs.len() == 1, "files of {} jobs: {files:?}", jobs.len());
    check_nothing_left(out)?;
    Ok(files)
}

fn kill_at(
    cluster: &mut Cluster,
    proxy: &Proxy,
    out: &Client,
    step: (&str, &str, usize, Fault),
) -> Result<()> {
    for key in out.list("agg")? {
        out.remove(&key)?;
    }
    put_old_output(out)?;
    let (method, part, skip, fault) = step;
    proxy.break_next(method, part, skip, 1, fault);
    let running = submit(&cluster.client(), "case-05").args(FILES).spawn()?;
    proxy.wait_held(1)?;
    cluster.coordinators[0].process.kill()?;
    proxy.heal();
    cluster.coordinators[0].restart()?;
    // The command follows the job to the new leader.
    running.wait()?.summary()?;
    check_once(out).map(drop)
}

fn a_leader_that_is_killed_in_a_publish_is_succeeded_by_one_that_ends_it() -> Result<()> {
    let server = Server::start(Kind::Seaweed)?;
    let (data, out) = (server.client(DATA)?, server.client(OUT)?);
    let case = put_case(&data, "case-05")?;
    for state_dir in [None, Some("s3://out/state")] {
        let proxy = Proxy::before(server.address())?;
        with_cluster(setup(proxy.address(), state_dir), |cluster| {
            // A journal in the store doubles the requests, not the number of failure points.
            let steps = if state_dir.is_some() { &STEPS[2..4] } else { &STEPS[..] };
            for step in steps {
                kill_at(cluster, &proxy, &out, step.clone())
                    .with_context(|| format!("{step:?}, {state_dir:?}"))?;
                table::compare(&read_output(&out)?, &case.expected_rows()?)
                    .with_context(|| format!("{step:?}"))?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// The leader is frozen while its decision is in flight, so that the next leader finds none, and computes the day
/// again; then both decisions arrive, in either order. The first leader's cannot be carried out any more, because its
/// uploads were aborted.
fn a_leader_that_wakes_up_with_its_decision_on_the_way_publishes_nothing_twice() -> Result<()> {
    for first in [Proxy::let_first_go, Proxy::let_last_go] {
        let server = Server::start(Kind::Seaweed)?;
        let (data, out) = (server.client(DATA)?, server.client(OUT)?);
        let case = put_case(&data, "case-05")?;
        put_old_output(&out)?;
        let proxy = Proxy::before(server.address())?;
        let setup = Setup { coordinators: 2, consul: true, ..setup(proxy.address(), None) };
        with_cluster(setup, |cluster| {
            let old = cluster.leader()?;
            proxy.break_next("PUT", DECISION, 0, 2, Fault::Hold);
            let running = submit(&cluster.client(), "case-05").args(FILES).spawn()?;
            proxy.wait_held(1)?;
            cluster.coordinators[old].process.freeze()?;
            // The successor's, of the same job.
            proxy.wait_held(2)?;
            ensure!(cluster.leader()? != old, "coordinator {old} still leads");
            first(&proxy);
            wait_for("the first decision", DEADLINE, || {
                let arrived = |seen: &Exchange| seen.method == "PUT" && seen.target.ends_with(DECISION);
                Ok(proxy.exchanges().iter().any(arrived).then_some(()))
            })?;
            proxy.heal();
            running.wait()?.summary()?;
            let files = check_once(&out)?;
            cluster.coordinators[old].process.thaw()?;
            wait_for_the_end_of_a_term(cluster, old)?;
            assert_eq!(check_once(&out)?, files, "published twice");
            table::compare(&read_output(&out)?, &case.expected_rows()?)
        })?;
    }
    Ok(())
}

/// Whether it learns from Consul or from the journal that it no longer leads.
fn wait_for_the_end_of_a_term(cluster: &Cluster, old: usize) -> Result<()> {
    wait_every(PATIENT, "the end of the old term", DEADLINE, || {
        let said = cluster.coordinators[old].process.said();
        let ends = ["this coordinator no longer leads", "was elected: this one is a standby now"];
        Ok(ends.iter().any(|end| said.contains(end)).then_some(()))
    })
}

tally_tests::tests![
    golden_cases_go_from_s3_to_s3_with_the_journal_there,
    workers_fetch_no_footer_that_the_coordinator_fetched,
    a_frozen_store_is_what_running_tasks_wait_for,
    a_leader_that_is_killed_in_a_publish_is_succeeded_by_one_that_ends_it,
    a_leader_that_wakes_up_with_its_decision_on_the_way_publishes_nothing_twice,
];
