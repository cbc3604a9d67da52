//! Hostile clients that use the cluster's protocol: a worker with nonsense reports, hostile jobs and ids, invalid
//! tickets, messages over the limit. Each gets a status with the reason, the log has a line about it, no process
//! crashes, and the output of the job that runs meanwhile is exact.
//!
//! Not here: noise, wrong addresses and wrong usage of the commands (`cluster_errors`).

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use arrow_flight::Ticket;
use arrow_flight::flight_service_client::FlightServiceClient;
use prost::Message;
use tally_proto::v1;
use tally_proto::v1::control_client::ControlClient;
use tally_proto::v1::jobs_client::JobsClient;
use tally_proto::v1::worker_message::Message as Up;
use tally_tests::cluster::client::DEADLINE;
use tally_tests::cluster::faults::Moment;
use tally_tests::cluster::server::Server;
use tally_tests::cluster::truth::{DAY, MANY_TASKS};
use tally_tests::cluster::{Setup, with_cluster};
use tally_tests::output::Place;
use tally_tests::wait::wait_for;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Larger than any message may be.
const OVER: usize = 17 << 20;
/// How a message over the limit is refused.
const TOO_LARGE: &[Code] = &[Code::OutOfRange, Code::Aborted, Code::ResourceExhausted];
/// The number of each task's first attempt in a cluster's first epoch.
const FIRST_ATTEMPT: u32 = 4096;

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

async fn channel(address: SocketAddr) -> Result<Channel> {
    Ok(Channel::from_shared(format!("http://{address}"))?.connect().await?)
}

/// Waits for a line of a process's log that contains all of these words.
fn logged(process: &Server, words: &[&str]) -> Result<()> {
    wait_for(&format!("a line with {words:?} in the log of {}", process.name()), DEADLINE, || {
        let said = process.said();
        let found = said.lines().any(|line| words.iter().all(|word| line.contains(word)));
        Ok(found.then_some(()))
    })
}

/// Checks that a call was refused with a reason.
fn refusal<T: std::fmt::Debug>(answer: Result<T, Status>, codes: &[Code]) -> Result<Status> {
    match answer {
        Ok(answer) => bail!("it was not refused: {answer:?}"),
        Err(status) if codes.contains(&status.code()) && !status.message().is_empty() => Ok(status),
        Err(status) => bail!("refused, but not with one of {codes:?} and a reason: {status:?}"),
    }
}

/// Reports that no worker can send about a job: ends, failures and moves of attempts that are unknown, or of other workers.
fn nonsense(job: &str) -> Vec<Up> {
    let real = v1::Attempt { job: job.into(), stage: 0, index: 0, attempt: FIRST_ATTEMPT };
    let attempts = [
        real.clone(),
        v1::Attempt { job: "ghost".into(), ..real.clone() },
        v1::Attempt { job: "../../etc/passwd".into(), ..real.clone() },
        v1::Attempt { job: String::new(), ..real.clone() },
        v1::Attempt { stage: 77, ..real.clone() },
        v1::Attempt { index: u32::MAX, ..real.clone() },
        v1::Attempt { attempt: 9, ..real.clone() },
    ];
    let failure = |kind| Some(v1::ended::Outcome::Failure(v1::Failure { kind: Some(kind) }));
    let lost = v1::FetchLost { worker: "no-worker".into(), producer: Some(real), reason: "so".into() };
    let reduced = v1::task_result::Result::Reduce(v1::ReduceResult::default());
    let outcomes = [
        failure(v1::failure::Kind::Fatal("because".into())),
        failure(v1::failure::Kind::FetchLost(lost)),
        Some(v1::ended::Outcome::Done(v1::TaskResult { result: Some(reduced), usage: None })),
        Some(v1::ended::Outcome::Done(v1::TaskResult::default())),
        None,
    ];
    let mut all = vec![Up::Ended(v1::Ended::default()), Up::Inventory(v1::Inventory::default())];
    for attempt in attempts {
        let attempt = Some(attempt);
        let ended = |outcome: &Option<_>| v1::Ended { attempt: attempt.clone(), outcome: outcome.clone() };
        all.extend(outcomes.iter().map(|outcome| Up::Ended(ended(outcome))));
        all.push(Up::OutputMigrated(v1::OutputMigrated { attempt: attempt.clone(), to: "no-worker".into() }));
        all.push(Up::MigrationFailed(v1::MigrationFailed {
            attempt,
            to: "../x".into(),
            reason: String::new(),
        }));
    }
    all
}

/// Sends all of these reports and a goodbye, as a worker; gives up when the coordinator has received them.
async fn send_nonsense(address: SocketAddr, job: &str) -> Result<()> {
    let hello = v1::Hello {
        protocol: tally_proto::PROTOCOL,
        version: "unknown".into(),
        worker: "liar".into(),
        slots: 1,
        memory_limit: 1 << 30,
        flight_address: "127.0.0.1:1".into(),
        // So that it gets no task.
        draining: true,
        reduce_table_bytes: 64 << 20,
        ..v1::Hello::default()
    };
    let held = v1::Attempt { job: "ghost".into(), ..v1::Attempt::default() };
    let inventory =
        v1::Inventory { outputs: vec![v1::HeldOutput::default()], running: vec![held], last: true };
    let (say, said) = mpsc::channel(4);
    let messages = [Up::Hello(hello), Up::Inventory(inventory)].into_iter().chain(nonsense(job));
    let messages: Vec<_> = messages.chain([Up::Goodbye(v1::Goodbye { clean: true })]).collect();
    let mut client = ControlClient::new(channel(address).await?);
    let talk = async {
        for message in messages {
            // The coordinator may close the connection, which the receiving half sees.
            if say.send(v1::WorkerMessage { message: Some(message) }).await.is_err() {
                break;
            }
        }
        drop(say);
    };
    let listen = async {
        let mut messages_down = client.attach(ReceiverStream::new(said)).await?.into_inner();
        while let Ok(Some(_)) = messages_down.message().await {}
        anyhow::Ok(())
    };
    tokio::time::timeout(DEADLINE, async { tokio::join!(talk, listen).1 })
        .await
        .context("it was not released")?
}

#[test]
fn a_worker_that_reports_nonsense_changes_nothing() -> Result<()> {
    with_cluster(Setup::default(), |cluster| {
        let place = Place::new()?;
        let (job, _) = cluster.submit_held(&DAY.root, &place, MANY_TASKS, Moment::Stage("map", 0.5))?;
        let id = job.id.clone();
        runtime()?.block_on(send_nonsense(cluster.coordinators[0].address(), &id))?;
        let log = &cluster.coordinators[0].process;
        logged(log, &["liar", "was not dispatched"])?;
        logged(log, &["liar", "a worker's message was ignored"])?;
        logged(log, &["liar", "ignored a hello or inventory"])?;
        cluster.release()?;
        DAY.check_summary(&place, &job.done()?)?;
        let over = cluster.client().job(&id)?;
        let failed: u64 = over.stages.iter().map(|stage| stage.failed_attempts).sum();
        ensure!(failed == 0 && over.reruns() == 0, "{over:?}");
        cluster.wait_attached(3)?;
        cluster.wait_empty()
    })
}

/// Invalid specs of jobs, made from a valid one.
fn tricks(good: &v1::JobSpec) -> Vec<v1::JobSpec> {
    let with = |change: &dyn Fn(&mut v1::JobSpec)| {
        let mut spec = good.clone();
        change(&mut spec);
        spec
    };
    vec![
        with(&|spec| spec.dataset = "../addon_aggregates".into()),
        with(&|spec| spec.date = "../../etc".into()),
        with(&|spec| spec.date = "2017\u{0}227".into()),
        with(&|spec| spec.output = String::new()),
        with(&|spec| spec.output = "relative/../../etc".into()),
        with(&|spec| spec.output = spec.inputs[0].clone()),
        with(&|spec| spec.output = "gopher://127.0.0.1/out".into()),
        with(&|spec| spec.inputs.clear()),
        with(&|spec| spec.inputs = vec!["/".into(); 1000]),
        with(&|spec| spec.target_file_size = 0),
        with(&|spec| spec.partitions = Some(0)),
        with(&|spec| spec.partitions = Some(u32::MAX)),
        with(&|spec| spec.expectations = vec!["rows".into()]),
        with(&|spec| spec.expectations = vec!["rows > 0".into(); 65]),
        with(&|spec| spec.shard_bytes = Some(0)),
    ]
}

#[test]
fn jobs_and_ids_that_play_tricks_are_refused() -> Result<()> {
    with_cluster(Setup { workers: 1, ..Setup::default() }, |cluster| {
        let place = Place::new()?;
        let text = |path: std::path::PathBuf| path.display().to_string();
        let good = v1::JobSpec {
            dataset: "addon_aggregates".into(),
            date: tally_tests::golden::DATE.into(),
            inputs: ["addons/v2", "main_summary/v3"].map(|table| text(DAY.root.join(table))).into(),
            output: text(place.output()),
            target_file_size: 1 << 20,
            shard_bytes: None,
            partitions: None,
            expectations: vec![],
            ready_marker: None,
            options: vec![],
        };
        let address = cluster.coordinators[0].address();
        runtime()?.block_on(async {
            let mut jobs = JobsClient::new(channel(address).await?);
            for spec in tricks(&good) {
                let context = format!("{spec:?}");
                let answer = jobs.submit(v1::SubmitRequest { spec: Some(spec) }).await;
                refusal(answer, &[Code::InvalidArgument])
                    .with_context(|| context.chars().take(300).collect::<String>())?;
            }
            let answer = jobs.submit(v1::SubmitRequest { spec: None }).await;
            refusal(answer, &[Code::InvalidArgument])?;
            for job in ["../../etc/passwd", "", "a\nb", "x\u{0}", &"x".repeat(65)] {
                let asked = || v1::JobRequest { job: job.into() };
                refusal(jobs.get(asked()).await, &[Code::InvalidArgument])?;
                refusal(jobs.cancel(asked()).await, &[Code::InvalidArgument])?;
                refusal(jobs.watch(asked()).await.map(drop), &[Code::InvalidArgument])?;
                let worker = v1::WorkerRequest { worker: job.into() };
                refusal(jobs.drain_worker(worker).await, &[Code::InvalidArgument])?;
            }
            let page = v1::ListRequest { page_size: u32::MAX, page_token: "../..".into() };
            refusal(jobs.list(page).await, &[Code::InvalidArgument])?;
            let huge = v1::JobSpec { output: "x".repeat(OVER), ..good.clone() };
            let answer = jobs.submit(v1::SubmitRequest { spec: Some(huge) }).await;
            refusal(answer, TOO_LARGE)?;
            anyhow::Ok(())
        })?;
        let log = &cluster.coordinators[0].process;
        for words in
            [["Jobs/Submit", "is not a date"], ["Jobs/Get", "not a valid id"], ["Jobs/Submit", "too large"]]
        {
            logged(log, &[&["a request was refused", "127.0.0.1:"][..], &words].concat())?;
        }
        ensure!(cluster.client().jobs()?.is_empty(), "something was taken");
        let job = cluster.client().submit(&DAY.root, &place, &[])?;
        DAY.check_summary(&place, &job.done()?)
    })
}

#[test]
fn tickets_that_are_none_open_nothing() -> Result<()> {
    with_cluster(Setup { workers: 1, ..Setup::default() }, |cluster| {
        let place = Place::new()?;
        let (job, _) = cluster.submit_held(&DAY.root, &place, MANY_TASKS, Moment::Stage("map", 0.5))?;
        cluster.release()?;
        let ticket = v1::Ticket {
            job: job.id.clone(),
            stage: 0,
            outputs: vec![v1::TaskAttempt { index: 0, attempt: FIRST_ATTEMPT }],
            key: b"guessed".to_vec(),
            what: Some(v1::ticket::What::Partition(0)),
            skip: 0,
        };
        let many = vec![v1::TaskAttempt { index: u32::MAX, attempt: u32::MAX }; 100_000];
        let range = v1::ticket::What::Range(v1::Range { offset: u64::MAX, length: u64::MAX });
        let tickets = [
            vec![],
            b"nonsense".to_vec(),
            vec![0xff; 4096],
            ticket.encode_to_vec(),
            v1::Ticket { key: vec![], ..ticket.clone() }.encode_to_vec(),
            v1::Ticket { job: "../../etc/passwd".into(), ..ticket.clone() }.encode_to_vec(),
            v1::Ticket { outputs: vec![], ..ticket.clone() }.encode_to_vec(),
            v1::Ticket { outputs: many, ..ticket.clone() }.encode_to_vec(),
            v1::Ticket { what: Some(range), ..ticket.clone() }.encode_to_vec(),
        ];
        let codes = [Code::InvalidArgument, Code::NotFound, Code::PermissionDenied];
        let address = cluster.workers[0].address();
        runtime()?.block_on(async {
            let mut flight = FlightServiceClient::new(channel(address).await?);
            for ticket in tickets {
                let answer = flight.do_get(Ticket { ticket: ticket.clone().into() }).await.map(drop);
                refusal(answer, &codes).with_context(|| format!("{:.200}", format!("{ticket:?}")))?;
            }
            let huge = Ticket { ticket: vec![1; OVER].into() };
            refusal(flight.do_get(huge).await.map(drop), TOO_LARGE)?;
            anyhow::Ok(())
        })?;
        let log = &cluster.workers[0].process;
        for words in [["FlightService/DoGet", "ticket"], ["FlightService/DoGet", "too large"]] {
            logged(log, &[&["a request was refused", "127.0.0.1:"][..], &words].concat())?;
        }
        DAY.check_summary(&place, &job.done()?)
    })
}
