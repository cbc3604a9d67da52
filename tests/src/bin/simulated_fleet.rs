//! Many workers that do no work, which leaves only the coordinator's own work.
//!
//! `simulated_fleet COORDINATOR WORKERS` attaches that many workers of one slot each to a real coordinator
//! (`host:port`), answers every dispatched task at once with a synthetic result, and ends when the first job is
//! released. Prints JSON: completed tasks, the seconds between the first task and the last, and how long a free worker
//! waited for its next task (milliseconds). Not here: any data, the job's submit (the caller's).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tally_proto::v1;
use tally_proto::v1::control_client::ControlClient;
use tally_proto::v1::coordinator_message::Message as Down;
use tally_proto::v1::worker_message::Message as Word;
use tally_proto::v1::write_work::Target;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

/// What one worker recorded: when each task arrived, and how long the worker had waited for it.
type Seen = Vec<(Instant, Option<Duration>)>;

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [coordinator, workers] = args.as_slice() else { bail!("usage: simulated_fleet HOST:PORT WORKERS") };
    let workers: usize = workers.parse().context("the number of workers")?;
    let over = Arc::new(AtomicBool::new(false));
    let mut fleet = vec![];
    for number in 0..workers {
        let endpoint = Endpoint::from_shared(format!("http://{coordinator}"))?;
        fleet.push(tokio::spawn(work(endpoint, number, over.clone())));
    }
    let mut seen = vec![];
    for worker in fleet {
        seen.extend(worker.await??);
    }
    println!("{}", summary(&seen)?);
    Ok(())
}

fn summary(seen: &Seen) -> Result<serde_json::Value> {
    let first = seen.iter().map(|(at, _)| *at).min().context("no task arrived")?;
    let last = seen.iter().map(|(at, _)| *at).max().context("no task arrived")?;
    let mut waits: Vec<f64> =
        seen.iter().filter_map(|(_, wait)| wait.map(|wait| wait.as_secs_f64() * 1000.0)).collect();
    waits.sort_by(f64::total_cmp);
    let at = |share: f64| waits.get(((waits.len() as f64 - 1.0) * share) as usize).copied();
    let seconds = (last - first).as_secs_f64();
    Ok(json!({
        "tasks": seen.len(),
        "seconds": seconds,
        "tasks_per_second": seen.len() as f64 / seconds.max(1e-9),
        "wait_ms": { "p50": at(0.5), "p99": at(0.99), "max": at(1.0) },
    }))
}

async fn work(endpoint: Endpoint, number: usize, over: Arc<AtomicBool>) -> Result<Seen> {
    let mut client = ControlClient::new(endpoint.connect().await?);
    let (sender, receiver) = mpsc::channel(16);
    let hello = v1::Hello {
        protocol: tally_proto::PROTOCOL,
        version: env!("CARGO_PKG_VERSION").into(),
        worker: format!("simulated-{number}-{}", std::process::id()),
        slots: 1,
        memory_limit: 1 << 30,
        // No task reads outputs that do not exist.
        flight_address: "127.0.0.1:1".into(),
        reduce_table_bytes: 256 << 20,
        ..v1::Hello::default()
    };
    say(&sender, Word::Hello(hello)).await?;
    say(&sender, Word::Inventory(v1::Inventory { last: true, ..v1::Inventory::default() })).await?;
    let mut messages = client.attach(ReceiverStream::new(receiver)).await?.into_inner();
    let mut seen: Seen = vec![];
    let mut free_since = None;
    let mut beat = tokio::time::interval(Duration::from_secs(1));
    while !over.load(Ordering::Relaxed) {
        let message = tokio::select! {
            message = messages.message() => message?.context("the coordinator hung up")?,
            _ = beat.tick() => {
                say(&sender, Word::Heartbeat(v1::Heartbeat::default())).await?;
                continue;
            }
        };
        match message.message {
            Some(Down::Start(dispatch)) => {
                let now = Instant::now();
                seen.push((now, free_since.map(|since| now - since)));
                let done = v1::ended::Outcome::Done(result(&dispatch)?);
                say(&sender, Word::Ended(v1::Ended { attempt: dispatch.attempt, outcome: Some(done) }))
                    .await?;
                free_since = Some(Instant::now());
            }
            Some(Down::Release(_)) => over.store(true, Ordering::Relaxed),
            _ => {}
        }
    }
    Ok(seen)
}

async fn say(sender: &mpsc::Sender<v1::WorkerMessage>, word: Word) -> Result<()> {
    sender.send(v1::WorkerMessage { message: Some(word) }).await.context("the stream is closed")
}

/// What a worker reports that found one client in every partition.
fn result(dispatch: &v1::TaskDispatch) -> Result<v1::TaskResult> {
    use v1::task_dispatch::Work;
    use v1::task_result::Result as Done;
    let done = match dispatch.work.as_ref().context("a task without work")? {
        Work::Map(work) => {
            Done::Map(v1::MapResult { rows: tally_tests::shard::rows(work)?, ..v1::MapResult::default() })
        }
        Work::Reduce(_) => Done::Reduce(v1::ReduceResult {
            totals: Some(v1::Totals::new(1, &[1, 0])),
            row_group_rows: vec![1],
            bytes: 1,
            passes: 1,
            ..v1::ReduceResult::default()
        }),
        Work::Write(work) => {
            let Some(Target::Path(path)) = &work.target else { bail!("the fleet writes files only") };
            std::fs::write(path, "not a part file").context("the staged part")?;
            Done::Write(v1::WriteResult {
                rows: work.pieces.iter().map(|piece| piece.row_groups.len() as u64).sum(),
                bytes: 1,
                ..Default::default()
            })
        }
    };
    Ok(v1::TaskResult { result: Some(done), usage: None })
}
