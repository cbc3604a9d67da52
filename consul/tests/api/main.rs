//! The client with real agents; every test starts its own. Not here: tests without Consul (unit tests).

// A panic here fails the test.
#![allow(clippy::unwrap_used)]

mod agent;
mod away;
mod kv;
mod security;
mod session;
mod watch;

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use consul_api_client::{Changes, Client, Config, NewSession};
use futures::StreamExt;
use serde_json::json;
use tally_tests::consul::{ConsulAgent, Setup};

/// The time limit of each wait.
const DEADLINE: Duration = Duration::from_secs(60);

/// A `-dev` agent and a client of it.
fn start() -> Result<(ConsulAgent, Client)> {
    start_with(Setup::default())
}

fn start_with(setup: Setup) -> Result<(ConsulAgent, Client)> {
    let agent = ConsulAgent::start(setup)?;
    let client = Client::new(&Config::new(agent.address()))?;
    Ok((agent, client))
}

/// A server that keeps its data, and accepts sessions shorter than Consul's usual 10 s.
fn durable() -> Setup {
    Setup { durable: true, config: json!({ "session_ttl_min": "1s" }), ..Setup::default() }
}

/// A session without TTL, whose keys are free as soon as it is destroyed.
fn plain_session() -> NewSession {
    NewSession { lock_delay: Some(Duration::ZERO), ..NewSession::default() }
}

/// Repeats a call until it returns a value.
async fn eventually<T, F>(what: &str, mut ask: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let start = Instant::now();
    while start.elapsed() < DEADLINE {
        if let Some(value) = ask().await? {
            return Ok(value);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("waited in vain for {what}")
}

/// The next item of a watch.
async fn next<T>(changes: &mut Changes<T>) -> Result<consul_api_client::Result<T>> {
    tokio::time::timeout(DEADLINE, changes.next())
        .await
        .context("the watch is silent")?
        .context("the watch ended")
}

/// The first value of a watch that `wanted` accepts, and the number of errors before it.
async fn first<T: std::fmt::Debug>(
    changes: &mut Changes<T>,
    wanted: impl Fn(&T) -> bool,
) -> Result<(T, usize)> {
    let mut errors = 0;
    let start = Instant::now();
    while start.elapsed() < DEADLINE {
        match next(changes).await? {
            Ok(value) if wanted(&value) => return Ok((value, errors)),
            Ok(_) => {}
            Err(_) => errors += 1,
        }
    }
    bail!("the watch never saw it")
}

fn main() -> std::process::ExitCode {
    tally_tests::harness::run([
        agent::tests(),
        away::tests(),
        kv::tests(),
        security::tests(),
        session::tests(),
        watch::tests(),
    ])
}
