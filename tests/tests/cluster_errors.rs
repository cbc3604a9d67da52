//! Wrong usage of a cluster: wrong addresses, unknown and hostile ids, ports in use, noise on a port, days that can't
//! be read. Each gives an error that says what and where; no process crashes; other jobs continue.
//!
//! Not here: processes that die (`chaos`), what a day must be like (`errors`).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_tests::cluster::client::{Client, DEADLINE, DEPOSED, NO_LEADER};
use tally_tests::cluster::faults::Fault;
use tally_tests::cluster::{Setup, with_cluster};
use tally_tests::golden::{Case, DATE};
use tally_tests::output::{Place, check_unchanged, snapshot};
use tally_tests::process::Tally;
use tally_tests::scene::{GROUP_ROWS, Scene};
use tally_tests::table;
use tally_tests::wait::wait_for;

/// A small job that must succeed, whatever happened before it.
fn check_works(client: &Client) -> Result<()> {
    let (case, place) = (Case::new("case-05"), Place::new()?);
    let summary = client.submit_command(&case.dir, &place, &[]).run()?.summary()?;
    ensure!(summary.rows == case.totals()?.rows, "{summary:?}");
    table::compare(&place.read_output(DATE)?, &case.expected_rows()?)
}

/// An address without a listener: a port that was bound and closed.
fn unused_address() -> Result<String> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.to_string())
}

fn no_listener_at_the_address() -> Result<()> {
    let address = unused_address()?;
    let case = Case::new("case-01");
    let place = Place::new()?;
    let client =
        Client::new(["--coordinator", &address, "--connect-timeout", "500ms"].map(String::from).to_vec());
    client.submit_command(&case.dir, &place, &[]).run()?.expect_failure(NO_LEADER, &[&address])?;
    for command in ["jobs", "workers"] {
        client.tally(command).run()?.expect_failure(NO_LEADER, &[&address])?;
    }
    client.tally("job").args(["x"]).run()?.expect_failure(NO_LEADER, &[&address])?;
    Tally::new("jobs").run()?.expect_failure(2, &["--coordinator"])?;
    for bad in ["", "nowhere", "127.0.0.1:0", "127.0.0.1:99999", "ftp://127.0.0.1:1"] {
        Tally::new("jobs")
            .args(["--coordinator", bad])
            .run()?
            .expect_failure(2, &["address"])
            .context(bad)?;
    }
    Ok(())
}

/// A server that is not a coordinator: it accepts and sends nothing, or uses another protocol.
fn another_server_at_the_address() -> Result<()> {
    for answer in [None, Some("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?.to_string();
        let flags = ["--coordinator", &address, "--connect-timeout", "1s"];
        let mut running = Tally::new("jobs").args(flags).spawn()?;
        let mut open = Vec::new();
        listener.set_nonblocking(true)?;
        wait_for("the end of tally jobs", DEADLINE, || {
            if let Ok((mut stream, _)) = listener.accept() {
                answer.map(|answer| stream.write_all(answer.as_bytes())).transpose().ok();
                open.push(stream);
            }
            Ok(running.ended()?.then_some(()))
        })?;
        running.wait()?.expect_failure(NO_LEADER, &[&address])?;
    }
    Ok(())
}

fn unknown_and_hostile_ids() -> Result<()> {
    with_cluster(Setup { workers: 1, ..Setup::default() }, |cluster| {
        let client = cluster.client();
        let long = "x".repeat(100_000);
        let ids =
            ["no-such-job", "../../etc/passwd", "/etc/passwd", "a/b", "..", "", " ", "a\nb", "%2e%2e", &long];
        for id in ids {
            for command in ["job", "cancel"] {
                let outcome = client.tally(command).args(["--", id]).run()?;
                ensure!(matches!(outcome.code(), Some(1 | 2)), "{command} {id:.20}: {outcome}");
                ensure!(!outcome.stderr.contains("panicked"), "{outcome}");
            }
            let outcome = client.drain_command(id).run()?;
            ensure!(matches!(outcome.code(), Some(1 | 2)), "drain {id:.20}: {outcome}");
            ensure!(!outcome.stderr.contains("panicked"), "{outcome}");
        }
        client.tally("job").args(["no-such-job"]).run()?.expect_failure(1, &["no-such-job"])?;
        client.drain_command("no-such-worker").run()?.expect_failure(1, &["no-such-worker"])?;
        check_works(&client)
    })
}

/// Bytes that are not HTTP/2, half a handshake, and connections that send nothing, to every port of the cluster.
fn noise_on_the_ports() -> Result<()> {
    with_cluster(Setup { workers: 1, ..Setup::default() }, |cluster| {
        let ports = [cluster.coordinators[0].address(), cluster.workers[0].address()];
        let mut silent = Vec::new();
        for port in ports {
            let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
            let huge_frame = [&preface[..], &[0xff; 64]].concat();
            for noise in
                [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0; 4096], &[0xff; 4096], preface, &huge_frame]
            {
                let mut stream = TcpStream::connect(port)?;
                stream.set_read_timeout(Some(Duration::from_millis(100)))?;
                // The other side may close the connection in the middle.
                let _ = stream.write_all(noise);
                let _ = stream.read(&mut [0; 64]);
                silent.push(stream);
            }
            for _ in 0..20 {
                silent.push(TcpStream::connect(port)?);
            }
        }
        check_works(&cluster.client())?;
        cluster.check_no_crash()
    })
}

fn a_port_in_use() -> Result<()> {
    with_cluster(Setup { workers: 1, ..Setup::default() }, |cluster| {
        let taken = cluster.coordinators[0].address().to_string();
        let state = cluster.path().join("other-state");
        let second = Tally::new("coordinator").args(["--listen", &taken, "--state-dir"]).args([&state]);
        second.run()?.expect_failure(1, &[&taken, "in use"])?;
        let spill = cluster.path().join("other-spill");
        let taken = cluster.workers[0].address().to_string();
        let leader = cluster.coordinators[0].address().to_string();
        let worker = tally_tests::cluster::nodes::worker_bin();
        Tally::wrapped(
            &worker,
            ["--coordinator", &leader, "--listen", &taken, "--slots", "1", "--spill-dir"],
        )
        .args([&spill])
        .run()?
        .expect_failure(1, &[&taken, "in use"])?;
        check_works(&cluster.client())
    })
}

/// All processes start before Consul: they log what they tried, wait, and connect when it is available.
fn consul_that_comes_last() -> Result<()> {
    with_cluster(Setup { workers: 1, consul: true, ..Setup::default() }, |cluster| {
        let address = cluster.consul.as_ref().context("no Consul")?.address();
        for process in [&mut cluster.workers[0].process, &mut cluster.coordinators[0].process] {
            process.terminate()?;
            process.wait_done(DEADLINE)?;
        }
        cluster.consul.as_mut().context("no Consul")?.kill();
        cluster.coordinators[0].restart()?;
        cluster.workers[0].restart()?;
        for process in [&cluster.coordinators[0].process, &cluster.workers[0].process] {
            wait_for("a message about Consul", DEADLINE, || {
                let said = process.said();
                let tells = |line: &str| line.contains(&address) && line.contains("trying again");
                Ok(said.lines().any(tells).then_some(()))
            })
            .context(process.name().to_string())?;
        }
        let asked = cluster.client().tally("jobs").args(["--connect-timeout", "500ms"]).run()?;
        asked.expect_failure(NO_LEADER, &[&address])?;
        cluster.consul.as_mut().context("no Consul")?.restart()?;
        cluster.wait_attached(1)?;
        check_works(&cluster.client())
    })
}

/// A second coordinator with the same state takes the lead; the first stops with the reason, and the job continues on
/// the workers.
fn a_second_coordinator_on_the_same_state() -> Result<()> {
    with_cluster(Setup { workers: 1, ..Setup::default() }, |cluster| {
        check_works(&cluster.client())?;
        let first = cluster.client().jobs()?;
        cluster.add_coordinator()?;
        cluster.coordinators[0].process.wait_code(DEPOSED, DEADLINE)?;
        let known = cluster.direct_client().jobs()?;
        ensure!(known.len() == first.len() && known[0].job_id == first[0].job_id, "{known:?}");
        Ok(())
    })
}

/// Days that can't be computed fail at once, with the file; other jobs are not affected, and the old day stays.
fn a_corrupt_file_fails_its_job_and_no_other() -> Result<()> {
    let scene = Scene::new()?;
    let file = table::data_files(&scene.addons())?.remove(1);
    let mut bytes = std::fs::read(&file)?;
    // In a data page of the last row group: the footer stays intact, so that a worker has to find it.
    let middle = bytes.len() / 2;
    bytes[middle..middle + 200].fill(0xA5);
    std::fs::write(&file, &bytes)?;
    with_cluster(Setup::default(), |cluster| {
        let client = cluster.client();
        let before = snapshot(&scene.place.published())?;
        let outcome = client.submit_command(&scene.root, &scene.place, &["--shard-bytes", "1"]).run()?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        outcome.expect_failure(1, &[&name, "row group"])?;
        check_unchanged(&before, &snapshot(&scene.place.published())?)?;
        let failed = client.jobs()?.remove(0);
        ensure!(
            failed.state == "failed" && failed.reason.as_ref().is_some_and(|reason| reason.contains(&name))
        );
        ensure!(failed.stage("map")?.failed_attempts <= 2, "a corrupt file was tried again: {failed:?}");
        check_works(&client)?;
        ensure!(client.workers()?.len() == 3, "a corrupt file cost a worker");
        Ok(())
    })
}

/// Inputs that do not exist, an output over an input: refused, or failed with the path.
fn impossible_jobs() -> Result<()> {
    let scene = Scene::new()?;
    with_cluster(Setup { workers: 1, ..Setup::default() }, |cluster| {
        let client = cluster.client();
        let nowhere = scene.place.path().join("nowhere");
        let outcome = client.submit_command(&nowhere, &scene.place, &[]).run()?;
        ensure!(matches!(outcome.code(), Some(1 | 2)) && outcome.stderr.contains("nowhere"), "{outcome}");
        let over = client.tally("submit").date(DATE).args(["--addons"]).args([scene.root.join("addons/v2")]);
        let over = over.args(["--main-summary"]).args([scene.root.join("main_summary/v3")]);
        over.args(["--output"])
            .args([scene.root.join("addons/v2")])
            .run()?
            .expect_failure(2, &["overlap"])?;
        client
            .submit_undated(&scene.root, &scene.place, &["--date", "20170231"])
            .run()?
            .expect_failure(2, &["--date", "20170231", "is not a date"])?;
        let summary = client.submit_command(&scene.root, &scene.place, &[]).run()?.summary()?;
        ensure!(summary.rows == 6 * GROUP_ROWS as u64, "{summary:?}");
        Ok(())
    })
}

/// Finished jobs expire, in `tally jobs` and in the journal.
fn history_is_bounded() -> Result<()> {
    let setup = Setup {
        workers: 1,
        coordinator_flags: vec!["--history", "3", "--compact-after", "10"],
        ..Setup::default()
    };
    with_cluster(setup, |cluster| {
        let client = cluster.client();
        let (case, place) = (Case::new("case-05"), Place::new()?);
        let mut ids = Vec::new();
        for _ in 0..8 {
            ids.push(client.submit_command(&case.dir, &place, &[]).run()?.summary()?.job_id);
        }
        let known = |client: &Client| -> Result<Vec<String>> {
            Ok(client.jobs()?.into_iter().map(|job| job.job_id).collect())
        };
        let newest: Vec<_> = ids.iter().rev().take(3).cloned().collect();
        ensure!(known(&client)? == newest, "{:?}, not {newest:?}", known(&client)?);
        client.tally("job").args([&ids[0]]).run()?.expect_failure(1, &[&ids[0]])?;
        let records = snapshot(&cluster.state())?.len();
        ensure!(records < 25, "{records} files in the journal");
        // The next incarnation has the same list.
        cluster.inject(Fault::KillCoordinator(0))?;
        cluster.mend(Fault::KillCoordinator(0))?;
        ensure!(known(&client)? == newest, "{:?} after a restart", known(&client)?);
        check_works(&client)
    })
}

tally_tests::tests![
    no_listener_at_the_address,
    another_server_at_the_address,
    unknown_and_hostile_ids,
    noise_on_the_ports,
    a_port_in_use,
    consul_that_comes_last,
    a_second_coordinator_on_the_same_state,
    a_corrupt_file_fails_its_job_and_no_other,
    impossible_jobs,
    history_is_bounded,
];
