//! Limits that keep one client from exhausting a coordinator, each reached on a real process: jobs at a time, requests
//! per second by address, requests at a time on a connection, followers of jobs. The refusal names the limit, and other
//! clients are not affected.
//!
//! Not here: messages over their size (`cluster_strangers`), connections of a listener (`security/listen.rs`), files
//! that need more memory than there is (`tests/hostile`).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use tally_proto::v1;
use tally_proto::v1::jobs_client::JobsClient;
use tally_tests::cluster::client::DEADLINE;
use tally_tests::cluster::server::Server;
use tally_tests::cluster::truth::DAY;
use tally_tests::cluster::{Setup, with_cluster};
use tally_tests::http::{get, metrics};
use tally_tests::output::Place;
use tally_tests::process::{clean, tally_bin};
use tally_tests::wait::wait_for;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

/// Requests at a time on a connection.
const STREAMS: usize = 256;
/// Followers of jobs, all clients together.
const WATCHERS: usize = 1024;

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// A connection of its own from that address of this machine.
async fn connect(to: SocketAddr, from: IpAddr) -> Result<JobsClient<Channel>> {
    let endpoint = Endpoint::from_shared(format!("http://{to}"))?.local_address(Some(from));
    Ok(JobsClient::new(endpoint.connect().await?))
}

#[test]
fn jobs_beyond_the_most_are_refused_until_one_is_over() -> Result<()> {
    // Frozen workers do not become lost.
    let coordinator_flags = vec!["--max-jobs", "2", "--worker-timeout", "60000"];
    with_cluster(Setup { workers: 1, coordinator_flags, ..Setup::default() }, |cluster| {
        let places = [Place::new()?, Place::new()?, Place::new()?];
        cluster.freeze_workers()?;
        let client = cluster.client();
        let jobs = [client.submit(&DAY.root, &places[0], &[])?, client.submit(&DAY.root, &places[1], &[])?];
        let third = client.submit_command(&DAY.root, &places[2], &[]).run()?;
        third.expect_failure(1, &["runs 2 jobs", "submit again"])?;
        let log = &cluster.coordinators[0].process;
        wait_for("a line about the third job", DEADLINE, || {
            let is_refusal = |line: &str| {
                ["a request was refused", "Jobs/Submit", "127.0.0.1:", "runs 2 jobs"]
                    .iter()
                    .all(|words| line.contains(words))
            };
            Ok(log.said().lines().any(is_refusal).then_some(()))
        })?;
        cluster.release()?;
        for (place, job) in places.iter().zip(jobs) {
            DAY.check_summary(place, &job.done()?)?;
        }
        let again = cluster.client().submit_command(&DAY.root, &places[2], &[]).run()?.summary()?;
        DAY.check_summary(&places[2], &again)
    })
}

/// A coordinator that accepts one request per second from each address, and two at once; returns its address and its health.
fn slow_coordinator(folder: &Path) -> Result<(Server, SocketAddr, SocketAddr)> {
    let files = ["port", "http"].map(|name| folder.join(name));
    let mut command = Command::new(tally_bin());
    clean(&mut command);
    command.args(["coordinator", "--max-request-rate", "1", "--listen", "127.0.0.1:0"]);
    command.args(["--http-listen", "127.0.0.1:0", "--state-dir"]).arg(folder.join("state"));
    command.arg("--port-file").arg(&files[0]).arg("--http-port-file").arg(&files[1]);
    let process = Server::start("coordinator", command, &folder.join("coordinator.log"))?;
    let read = |file: &Path| {
        wait_for("an address", DEADLINE, || {
            Ok(std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()))
        })
        .with_context(|| process.said())
    };
    let (address, http) = (read(&files[0])?, read(&files[1])?);
    wait_for("a leader", DEADLINE, || Ok((get(http, "/readyz")?.0 == 200).then_some(())))?;
    Ok((process, address, http))
}

#[test]
fn an_address_that_asks_too_often_is_refused_and_no_other() -> Result<()> {
    /// Far more than are allowed at once; the rate would need a minute to admit them all.
    const ASKED: usize = 60;
    let place = Place::new()?;
    let (mut process, address, http) = slow_coordinator(place.path())?;
    let list = |mut jobs: JobsClient<Channel>| async move { jobs.list(v1::ListRequest::default()).await };
    let refused = runtime()?.block_on(async {
        let often = connect(address, Ipv4Addr::LOCALHOST.into()).await?;
        let answers = join_all((0..ASKED).map(|_| list(often.clone()))).await;
        let refused: Vec<Status> = answers.into_iter().filter_map(Result::err).collect();
        ensure!(!refused.is_empty() && refused.len() < ASKED, "{} of {ASKED} are refused", refused.len());
        for status in &refused {
            let right =
                status.code() == Code::ResourceExhausted && status.message().contains("too many requests");
            ensure!(right, "{status:?}");
        }
        // Another address has its own limit.
        list(connect(address, Ipv4Addr::new(127, 0, 0, 2).into()).await?).await?;
        // A client that waits is admitted again.
        timeout(DEADLINE, async {
            while list(often.clone()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(1500)).await;
            }
        })
        .await
        .context("it is still refused")?;
        anyhow::Ok(refused.len() as f64)
    })?;
    let counted = metrics(http)?["tally_refusals_total{reason=\"rate\"}"];
    ensure!(counted >= refused, "{counted} of {refused} are counted");
    let said = process.said();
    let lines = said.lines().filter(|line| line.contains("a request was refused"));
    let lines =
        lines.filter(|line| line.contains("\"reason\":\"rate\"") && line.contains("\"peer\":\"127.0.0.1:"));
    ensure!(lines.count() as f64 == counted, "not each refusal has a line: {said}");
    process.terminate()?;
    process.wait_done(DEADLINE)
}

#[test]
fn a_flood_of_requests_is_counted_and_logs_little() -> Result<()> {
    const ASKED: usize = 5000;
    let place = Place::new()?;
    let (mut process, address, http) = slow_coordinator(place.path())?;
    let (before, start) = (process.said().len(), Instant::now());
    let refused = runtime()?.block_on(async {
        let jobs = connect(address, Ipv4Addr::LOCALHOST.into()).await?;
        let mut refused = 0;
        for _ in 0..ASKED / 100 {
            let list =
                |mut jobs: JobsClient<Channel>| async move { jobs.list(v1::ListRequest::default()).await };
            let answers = join_all((0..100).map(|_| list(jobs.clone()))).await;
            refused += answers.iter().filter(|answer| answer.is_err()).count();
        }
        anyhow::Ok(refused)
    })?;
    ensure!(metrics(http)?["tally_refusals_total{reason=\"rate\"}"] == refused as f64, "not all are counted");
    let said = process.said();
    let bytes = said.len() - before;
    // A burst of lines, and one per second.
    let lines = 100 + 2 + start.elapsed().as_secs() as usize;
    ensure!(refused > ASKED / 2 && bytes < 400 * lines, "{bytes} bytes about {refused} refusals: {said}");
    // Another client's refusal after a second has the number of those that were left out.
    std::thread::sleep(Duration::from_millis(1100));
    runtime()?.block_on(async {
        let mut jobs = connect(address, Ipv4Addr::new(127, 0, 0, 2).into()).await?;
        for _ in 0..10 {
            let _ = jobs.list(v1::ListRequest::default()).await;
        }
        anyhow::Ok(())
    })?;
    wait_for("a line with the number of the others", DEADLINE, || {
        let is_sum = |line: &str| line.contains("\"suppressed\":") && line.contains("\"peer\":\"127.0.0.2:");
        Ok(process.said().lines().any(is_sum).then_some(()))
    })?;
    process.terminate()?;
    process.wait_done(DEADLINE)
}

/// Follows the job so often at once on one connection.
async fn follow(
    jobs: &JobsClient<Channel>,
    job: &str,
    times: usize,
) -> Result<Vec<Streaming<v1::JobStatus>>> {
    let watch = |mut jobs: JobsClient<Channel>| async move { jobs.watch(request(job)).await };
    let streams = join_all((0..times).map(|_| watch(jobs.clone()))).await;
    streams.into_iter().map(|stream| Ok(stream?.into_inner())).collect()
}

fn request(job: &str) -> v1::JobRequest {
    v1::JobRequest { job: job.into() }
}

#[test]
fn followers_of_jobs_and_requests_on_a_connection_are_limited() -> Result<()> {
    let coordinator_flags = vec!["--max-request-rate", "100000"];
    // Without workers, the job stays in its state.
    with_cluster(Setup { workers: 0, coordinator_flags, ..Setup::default() }, |cluster| {
        let place = Place::new()?;
        let job = cluster.client().submit_detached(&DAY.root, &place, &[])?;
        let address = cluster.coordinators[0].address();
        runtime()?.block_on(async {
            let here = IpAddr::from(Ipv4Addr::LOCALHOST);
            let mut first = connect(address, here).await?;
            let mut followed = vec![];
            followed.push(timeout(DEADLINE, follow(&first, &job, STREAMS)).await??);
            // Another one on this connection waits until a follower ends.
            let mut further = Box::pin(first.get(request(&job)));
            let waits = timeout(Duration::from_millis(500), &mut further).await;
            ensure!(waits.is_err(), "a connection has more than {STREAMS} requests: {waits:?}");
            followed[0].pop();
            timeout(DEADLINE, further).await.context("it was never served")??;
            // Other connections are not delayed, until the limit of followers is reached.
            while followed.len() < WATCHERS / STREAMS {
                let other = connect(address, here).await?;
                followed.push(timeout(DEADLINE, follow(&other, &job, STREAMS)).await??);
            }
            let mut last = connect(address, here).await?;
            let mut taken = vec![];
            let refused = timeout(DEADLINE, async {
                loop {
                    // The follower that ended has freed its place.
                    match last.watch(request(&job)).await {
                        Ok(stream) => taken.push(stream),
                        Err(status) => return status,
                    }
                }
            });
            let refused = refused.await.context("followers are not limited")?;
            ensure!(refused.code() == Code::ResourceExhausted && taken.len() <= 1, "{refused:?}");
            ensure!(refused.message().contains("1024 clients follow jobs"), "{refused:?}");
            // Queries are still possible, and following again when another follower ends.
            ensure!(last.get(request(&job)).await?.into_inner().job == job);
            followed.pop();
            timeout(DEADLINE, async {
                while last.watch(request(&job)).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            })
            .await
            .context("the places are not released")
        })?;
        cluster.client().tally("cancel").args([&job]).run()?.expect_code(0)?;
        Ok(())
    })
}
