//! Client connections do not use up the file descriptors of a process: with a low limit and more idle connections than
//! that, journal, staging and health work; a limit that may be raised is raised.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_tests::cluster::client::{Client, DEADLINE};
use tally_tests::cluster::nodes::worker_bin;
use tally_tests::cluster::server::Server;
use tally_tests::cluster::truth::DAY;
use tally_tests::http::{get, metrics};
use tally_tests::output::Place;
use tally_tests::process::{clean, tally_bin};
use tally_tests::wait::wait_for;

/// The limit of open files.
const LIMIT: usize = 40;
/// More than the limit.
const IDLE: usize = 60;
const FLAGS: &[&str] = &["--shard-bytes", "100KB", "--partitions", "4", "--target-file-size", "1MB"];

/// A process that was started by a shell, with its address and its health.
struct Limited {
    process: Server,
    address: SocketAddr,
    http: SocketAddr,
}

impl Limited {
    /// Starts it after `ulimit`, which sets limits.
    fn start(name: &str, ulimit: &str, bin: &Path, flags: &[&str], folder: &Path) -> Result<Self> {
        let files: [PathBuf; 2] = ["port", "http"].map(|kind| folder.join(format!("{name}.{kind}")));
        let mut command = Command::new("sh");
        clean(&mut command);
        command.args(["-c", &format!("{ulimit} && exec \"$0\" \"$@\"")]).arg(bin).args(flags);
        command.args(["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
        command.arg("--port-file").arg(&files[0]).arg("--http-port-file").arg(&files[1]);
        let process = Server::start(name, command, &folder.join(format!("{name}.log")))?;
        let read = |file: &Path| {
            wait_for("an address", DEADLINE, || {
                Ok(std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()))
            })
            .with_context(|| process.said())
        };
        let (address, http) = (read(&files[0])?, read(&files[1])?);
        Ok(Limited { process, address, http })
    }

    fn wait_ready(&self) -> Result<()> {
        let ready =
            wait_for("readiness", DEADLINE, || Ok((get(self.http, "/readyz")?.0 == 200).then_some(())));
        ready.with_context(|| self.process.said())
    }

    /// Connections that send nothing.
    fn crowd(&self) -> Result<Vec<TcpStream>> {
        (0..IDLE).map(|_| Ok(TcpStream::connect(self.address)?)).collect()
    }

    fn refused(&self) -> Result<f64> {
        Ok(metrics(self.http)?["tally_refusals_total{reason=\"open_files\"}"])
    }
}

/// The soft limit of open files of a process.
fn soft_limit(process: u32) -> Result<u64> {
    let limits = std::fs::read_to_string(format!("/proc/{process}/limits"))?;
    let line = limits.lines().find(|line| line.starts_with("Max open files")).context("no such limit")?;
    let soft = line.split_whitespace().nth(3).context("no soft limit")?;
    Ok(soft.parse()?)
}

#[test]
fn idle_connections_leave_files_to_journal_staging_and_health() -> Result<()> {
    let place = Place::new()?;
    let folder = place.path();
    let (state, spill) = (folder.join("state"), folder.join("of-the-worker"));
    let ulimit = format!("ulimit -n {LIMIT}");
    let flags = ["coordinator", "--state-dir", &state.display().to_string()];
    let mut coordinator = Limited::start("coordinator", &ulimit, &tally_bin(), &flags, folder)?;
    coordinator.wait_ready()?;
    let leader = coordinator.address.to_string();
    let spill = spill.display().to_string();
    let flags = ["--coordinator", &leader, "--slots", "1", "--memory-limit", "256MiB", "--spill-dir", &spill];
    let mut worker = Limited::start("worker", &ulimit, &worker_bin(), &flags, folder)?;
    worker.wait_ready()?;
    let client = Client::new(vec!["--coordinator".into(), leader.clone()]);
    let crowds = [coordinator.crowd()?, worker.crowd()?];
    for process in [&coordinator, &worker] {
        // While connections wait for their first byte, all slots are taken.
        wait_for("refusals for want of open files", DEADLINE, || {
            Ok((process.refused()? > 0.0).then_some(()))
        })?;
        assert_eq!(get(process.http, "/healthz")?.0, 200);
        let said = process.process.said();
        ensure!(said.contains("connections are refused"), "{said}");
        ensure!(!said.contains("Too many open files"), "{said}");
    }
    // A silent client is disconnected after a while, and others are accepted; the client retries until then.
    let job = client.submit_command(&DAY.root, &place, FLAGS).args(["--connect-timeout", "60s"]).run()?;
    DAY.check_summary(&place, &job.summary()?)?;
    drop(crowds);
    for process in [&mut worker, &mut coordinator] {
        let said = process.process.said();
        ensure!(!said.contains("Too many open files"), "{said}");
        process.process.terminate()?;
        process.process.wait_done(Duration::from_secs(60))?;
    }
    Ok(())
}

#[test]
fn the_limit_of_open_files_is_raised_as_far_as_it_may_be() -> Result<()> {
    let place = Place::new()?;
    let state = place.path().join("state").display().to_string();
    let flags = ["coordinator", "--state-dir", &state];
    let ulimit = "ulimit -Sn 40 && ulimit -Hn 200";
    let mut process = Limited::start("coordinator", ulimit, &tally_bin(), &flags, place.path())?;
    process.wait_ready()?;
    assert_eq!(soft_limit(process.process.id())?, 200);
    let crowd = process.crowd()?;
    assert_eq!(get(process.http, "/healthz")?.0, 200);
    assert_eq!(process.refused()?, 0.0, "there is room for all");
    drop(crowd);
    process.process.terminate()?;
    process.process.wait_done(DEADLINE)
}
