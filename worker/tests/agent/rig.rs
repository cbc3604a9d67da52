//! An agent in the test's own process, and the orders that tests give it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tally_proto::v1;
use tally_worker::agent::{self, AgentError, Left, Options, Wish};
use tally_worker::leader::{Leader, Source};
use tally_worker::security::{Dialer, Security};
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::fake::DEADLINE;

/// A running agent.
pub struct Agent {
    /// Where it spills.
    pub spill_dir: TempDir,
    /// What is wanted of it.
    pub wish: watch::Sender<Wish>,
    running: JoinHandle<Result<Left, AgentError>>,
}

impl Agent {
    /// Starts an agent of two slots that looks for these coordinators.
    pub fn start(coordinators: &[&str], drain_timeout: Duration) -> Result<Self> {
        let spill_dir = tempfile::tempdir()?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let options = Options {
            name: "test".into(),
            slots: 2,
            memory_limit: 256 << 20,
            spill_dir: spill_dir.path().into(),
            spill_limit: 1 << 30,
            advertise: listener.local_addr()?.to_string(),
            listener,
            drain_timeout,
            consul: None,
            security: Security::plain(),
            seen: Default::default(),
            io: Handle::current(),
        };
        let listed = coordinators.iter().map(|address| Ok(address.parse()?)).collect::<Result<_>>()?;
        let wish = watch::Sender::new(Wish::Stay);
        let running = tokio::spawn(agent::run(
            options,
            Leader::new(Source::Listed(listed), Dialer::plain()),
            wish.clone(),
        ));
        Ok(Agent { spill_dir, wish, running })
    }

    /// How it ended.
    pub async fn ended(self) -> Result<Result<Left, AgentError>> {
        Ok(timeout(DEADLINE, self.running).await.context("the agent does not end")??)
    }
}

fn order(index: u32, work: v1::MapWork) -> v1::TaskOrder {
    v1::TaskOrder {
        attempt: Some(attempt(index)),
        dataset: "addon_aggregates".into(),
        key: b"key".to_vec(),
        work: Some(v1::task_order::Work::Map(work)),
    }
}

/// The attempt at task `index` that orders are about.
pub fn attempt(index: u32) -> v1::Attempt {
    v1::Attempt { job: "job".into(), stage: 0, index, attempt: 4096 }
}

/// An order that is done at once.
pub fn short(index: u32) -> v1::TaskOrder {
    order(index, v1::MapWork { table: 0, partitions: 4, pieces: vec![], most_sums: 4 })
}

/// An order that fails at once.
pub fn wrong(index: u32) -> v1::TaskOrder {
    order(index, v1::MapWork { table: 9, partitions: 4, pieces: vec![], most_sums: 4 })
}

/// An order that takes far longer than the test, unless it is stopped.
pub fn long(index: u32) -> Result<v1::TaskOrder> {
    long_over(index, &golden_file())
}

/// The same over a Parquet file of the test's own, which may spoil it.
pub fn long_over(index: u32, file: &Path) -> Result<v1::TaskOrder> {
    let file = file.canonicalize()?;
    let url = file.to_str().context("the path is no text")?.to_string();
    let size = file.metadata()?.len();
    let piece = v1::InputPiece {
        url,
        size,
        etag: None,
        row_groups: vec![0; 200_000],
        footer_bytes: 0,
        footer: vec![],
    };
    Ok(order(index, v1::MapWork { table: 0, partitions: 4, pieces: vec![piece; 4], most_sums: 4 }))
}

/// A small file of add-ons.
pub fn golden_file() -> PathBuf {
    let day = "case-01/addons/v2/submission_date_s3=20170227/sample_id=0/part-00000.parquet";
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(day)
}
