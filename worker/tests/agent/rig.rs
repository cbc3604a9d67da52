//! An agent in the test's process, and the task messages of the tests.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tally_common::discovery::leader::{Leader, Source};
use tally_common::security::{Dialer, Security};
use tally_proto::v1;
use tally_worker::agent::{self, AgentError, ExitReason, Options, ShutdownRequest, WorkerStatus};
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::fake::DEADLINE;

/// A running agent.
pub struct Agent {
    /// Its spill directory.
    pub spill_dir: TempDir,
    /// Its status.
    pub status: Arc<WorkerStatus>,
    /// Sends shutdown requests.
    pub request: watch::Sender<ShutdownRequest>,
    running: JoinHandle<Result<ExitReason, AgentError>>,
}

impl Agent {
    /// Starts an agent with two slots and these coordinators.
    pub fn start(coordinators: &[&str], drain_timeout: Duration) -> Result<Self> {
        let spill_dir = tempfile::tempdir()?;
        let status = Arc::<WorkerStatus>::default();
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
            status: status.clone(),
            io: Handle::current(),
        };
        let listed = coordinators.iter().map(|address| Ok(address.parse()?)).collect::<Result<_>>()?;
        let request = watch::Sender::new(ShutdownRequest::Stay);
        let running = tokio::spawn(agent::run(
            options,
            Leader::new(Source::Listed(listed), Dialer::plain()),
            request.clone(),
        ));
        Ok(Agent { spill_dir, status, request, running })
    }

    /// Waits for its end.
    pub async fn ended(self) -> Result<Result<ExitReason, AgentError>> {
        Ok(timeout(DEADLINE, self.running).await.context("the agent does not end")??)
    }
}

fn dispatch(index: u32, work: v1::MapWork) -> v1::TaskDispatch {
    v1::TaskDispatch {
        attempt: Some(attempt(index)),
        dataset: "addon_aggregates".into(),
        key: b"key".to_vec(),
        work: Some(v1::task_dispatch::Work::Map(work)),
        has_options: false,
    }
}

/// The attempt that task messages are about.
pub fn attempt(index: u32) -> v1::Attempt {
    v1::Attempt { job: "job".into(), stage: 0, index, attempt: 4096 }
}

/// A task that ends at once.
pub fn short(index: u32) -> v1::TaskDispatch {
    dispatch(index, v1::MapWork { table: 0, partitions: 4, pieces: vec![], most_sums: 4, folder: None })
}

/// A task that fails at once.
pub fn wrong(index: u32) -> v1::TaskDispatch {
    dispatch(index, v1::MapWork { table: 9, partitions: 4, pieces: vec![], most_sums: 4, folder: None })
}

/// A task that takes far longer than the test, unless it is cancelled.
pub fn long(index: u32) -> Result<v1::TaskDispatch> {
    long_over(index, &golden_file())
}

/// The same with the test's own Parquet file, which it may corrupt.
pub fn long_over(index: u32, file: &Path) -> Result<v1::TaskDispatch> {
    let file = file.canonicalize()?;
    let url = file.to_str().context("the path is not UTF-8")?.to_string();
    let size = file.metadata()?.len();
    let piece = v1::InputPiece {
        url,
        size,
        etag: None,
        row_groups: vec![0; 200_000],
        footer_bytes: 0,
        footer: vec![],
    };
    Ok(dispatch(
        index,
        v1::MapWork { table: 0, partitions: 4, pieces: vec![piece; 4], most_sums: 4, folder: None },
    ))
}

/// A small file of add-ons.
pub fn golden_file() -> PathBuf {
    let day = "case-01/addons/v2/submission_date_s3=20170227/sample_id=0/part-00000.parquet";
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(day)
}
