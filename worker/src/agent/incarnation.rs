//! One incarnation of a worker, under one id: its slots and store, and the server of its outputs. When the coordinator
//! declares the worker lost, the incarnation ends and another one begins.
//!
//! Not here: the stream to the coordinator (`session`), and what is started and reported (`machine`).

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use tally_common::discovery::consul::Consul;
use tally_common::discovery::membership::{Kind, Member, Membership, Registration};
use tally_common::procfs::resident_bytes;
use tally_common::security::Security;
use tally_proto::dispatch::Dispatch;
use tally_proto::ids::InvalidId;
use tally_proto::report::Report;
use tally_proto::{AttemptId, Failure, JobId, PROTOCOL, WorkerId, v1};
use tally_scan::footer::Footers;
use tally_shuffle::error::TaskError;
use tally_shuffle::flight::{self, Client, MigrationError, ServeConfig, ServeError, Server, Traffic};
use tally_shuffle::peers::OutputLocation;
use tally_shuffle::store::StoreError;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio::time::timeout;

use super::machine::{AgentInput, HeldOutputs, TaskHost};
use super::status::WorkerStatus;
use crate::runner::{StartError, Worker};
use crate::shares::WorkerConfig;

/// How long cancelled tasks may take to stop, and the removal of spilled outputs after that.
const LAST_STEPS: Duration = Duration::from_secs(5);

/// The options of a worker process.
#[derive(Debug)]
pub struct Options {
    /// The prefix of its ids; see [`super::name`].
    pub name: String,
    /// Number of concurrent tasks.
    pub slots: usize,
    /// Bytes of memory for everything large.
    pub memory_limit: u64,
    /// The spill directory, for outputs that do not fit into memory.
    pub spill_dir: PathBuf,
    /// Maximum bytes in the spill directory.
    pub spill_limit: u64,
    /// The listener of the Flight service, which is used by all incarnations.
    pub listener: TcpListener,
    /// The address at which other workers reach it, `host:port`.
    pub advertise: String,
    /// Maximum duration of a drain.
    pub drain_timeout: Duration,
    /// The Consul in which it registers, and the kind of registration.
    pub consul: Option<(Consul, Option<Registration>)>,
    /// The security of incoming and outgoing connections.
    pub security: Arc<Security>,
    /// The status that health checks and metrics show.
    pub status: Arc<WorkerStatus>,
    /// The runtime of the data plane: serving and fetching outputs, reading inputs. It must not be the agent's own
    /// runtime, because heartbeats would be delayed.
    pub io: Handle,
}

/// An incarnation could not start.
#[derive(Debug, thiserror::Error)]
pub enum IncarnationError {
    /// The slots or the spill directory.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The server of outputs.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The listener.
    #[error("the Flight listener is not usable: {0}")]
    Listener(#[from] std::io::Error),
    /// The id.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// A bug in the program.
    #[error("the start of the worker did not end: {0}")]
    Interrupted(#[from] JoinError),
}

/// A running incarnation.
pub struct Incarnation {
    worker: Worker,
    /// The status that health checks and metrics show.
    pub status: Arc<WorkerStatus>,
    hello: v1::Hello,
    reports: mpsc::Receiver<Report>,
    client: Client,
    io: Handle,
    /// Running output migrations, and their results.
    transfers: JoinSet<AgentInput>,
    traffic: Arc<Traffic>,
    server: Server,
    membership: Option<Membership>,
}

impl Incarnation {
    /// Starts slots and the server under a new id. The spill directories of dead processes are removed first, which may
    /// take long.
    ///
    /// # Errors
    /// [`IncarnationError`].
    pub async fn begin(options: Arc<Options>) -> Result<Self, IncarnationError> {
        spawn_blocking(move || Self::begin_blocking(&options)).await?
    }

    fn begin_blocking(options: &Options) -> Result<Self, IncarnationError> {
        let id = WorkerId::parse(&format!("{}-{:012x}", options.name, rand::random_range(0..1u64 << 48)))?;
        let footer_bytes = options.memory_limit / 32;
        let config = WorkerConfig {
            id: id.clone(),
            slots: options.slots,
            memory_limit: options.memory_limit - footer_bytes,
            memory_option: options.memory_limit,
            spill_dir: options.spill_dir.clone(),
            spill_limit: options.spill_limit,
        };
        let footers = Arc::new(Footers::new(usize::try_from(footer_bytes).unwrap_or(usize::MAX)));
        // Room for the ends of all attempts that a worker has at a time.
        let (sender, reports) = mpsc::channel(4 * options.slots.max(1));
        let traffic = Arc::new(Traffic::default());
        let _runtime = options.io.enter();
        let client = flight::Client::new(traffic.clone(), options.security.dialer());
        let report = {
            let status = options.status.clone();
            move |report: Report| {
                status.ended(&report.outcome);
                // If the incarnation has ended, its reports are not needed.
                let _ = sender.blocking_send(report);
            }
        };
        let worker =
            Worker::start(config, Arc::new(client.clone()), footers, options.io.clone(), Box::new(report))?;
        let listener = options.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let limits = ServeConfig::for_memory(options.memory_limit);
        let server = flight::serve(
            worker.store().clone(),
            listener,
            limits,
            traffic.clone(),
            options.security.clone(),
        )?;
        tracing::info!(worker = %id, slots = options.slots, address = options.advertise, "this worker is ready");
        let status = options.status.clone();
        status.begin(
            options.slots,
            options.memory_limit,
            worker.gauges(),
            traffic.clone(),
            options.security.clone(),
        );
        let hello = v1::Hello {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").into(),
            worker: id.to_string(),
            slots: u32::try_from(options.slots).unwrap_or(u32::MAX),
            memory_limit: options.memory_limit,
            flight_address: options.advertise.clone(),
            reduce_table_bytes: worker.shares().reduce as u64,
            ..Default::default()
        };
        Ok(Incarnation {
            worker,
            status,
            hello,
            reports,
            client,
            io: options.io.clone(),
            transfers: JoinSet::new(),
            traffic,
            server,
            membership: None,
        })
    }

    /// Registers the worker in Consul, if configured. `maintenance` is called when an operator enables maintenance mode
    /// there. Call it on the agent's runtime.
    pub fn show(&mut self, options: &Options, maintenance: impl FnOnce() + Send + 'static) {
        let Some((consul, how)) = options.consul.clone() else { return };
        let facts = [
            ("version", env!("CARGO_PKG_VERSION").to_string()),
            ("slots", options.slots.to_string()),
            ("memory_limit", options.memory_limit.to_string()),
        ];
        let member = Member {
            kind: Kind::Worker,
            id: self.worker.id().to_string(),
            address: options.advertise.clone(),
            facts: facts.map(|(name, value)| (name.to_string(), value)).into(),
            tls: options.security.is_tls(),
        };
        let membership = Membership::join(consul, member, how);
        let mut wanted = membership.maintenance();
        tokio::spawn(async move {
            // An error means that the worker was deregistered first.
            if wanted.wait_for(|wanted| *wanted).await.is_ok() {
                tracing::info!("Consul's maintenance mode is enabled: draining");
                maintenance();
            }
        });
        self.membership = Some(membership);
    }

    /// The next end of an attempt or of an output migration. Cancel safe.
    pub async fn next_input(&mut self) -> AgentInput {
        loop {
            tokio::select! {
                Some(report) = self.reports.recv() => return AgentInput::Ended(report),
                Some(ended) = self.transfers.join_next() => match ended {
                    Ok(input) => return input,
                    // Panics are caught, and transfers are aborted only at the end.
                    Err(error) => tracing::error!(%error, "an output migration did not end"),
                },
                else => std::future::pending().await,
            }
        }
    }

    /// Migrates an output to another worker. The result is a [`Incarnation::next_input`].
    pub fn migrate_out(&mut self, to: OutputLocation, attempt: AttemptId) {
        let (client, store) = (self.client.clone(), self.worker.store().clone());
        let transfer = async move {
            let sent = AssertUnwindSafe(client.migrate_out(&to, &store, &attempt)).catch_unwind().await;
            let outcome = sent.unwrap_or_else(|_| {
                let (worker, attempt) = (to.worker.to_string(), attempt.clone());
                Err(MigrationError::Failed { worker, attempt, reason: "the transfer panicked".into() })
            });
            AgentInput::MigrationEnded { attempt, to: to.worker, outcome }
        };
        self.transfers.spawn_on(transfer, &self.io);
    }

    /// Ends the incarnation: output streams may take up to `streams`, tasks are cancelled.
    pub async fn end(self, streams: Duration) {
        let Incarnation { worker, server, membership, transfers, reports, status, .. } = self;
        status.end();
        // Slots no longer wait for room, and the receivers of unfinished outputs drop them.
        drop((reports, transfers));
        if let Some(membership) = membership {
            membership.leave().await;
        }
        server.stop(streams).await;
        let store = worker.store().clone();
        // A disk may hang, so neither the agent's thread nor the exit waits for it.
        if timeout(LAST_STEPS, spawn_blocking(move || drop(worker))).await.is_err() {
            tracing::warn!("a task did not stop in time");
        }
        let removal = spawn_blocking(move || {
            store.remove_spilled();
            drop(store);
        });
        if timeout(LAST_STEPS, removal).await.is_err() {
            tracing::warn!(
                "the spill directory was not removed in time: the next worker that starts here removes it"
            );
        }
    }
}

impl TaskHost for Incarnation {
    fn id(&self) -> &WorkerId {
        self.worker.id()
    }

    fn hello(&self) -> v1::Hello {
        self.hello.clone()
    }

    fn heartbeat(&self) -> v1::Heartbeat {
        let counters = self.worker.counters();
        v1::Heartbeat {
            rows_read: counters.rows.load(Ordering::Relaxed),
            bytes_read: counters.bytes.load(Ordering::Relaxed),
            spilled_bytes: self.worker.store().spilled(),
            memory_used: self.worker.memory_used(),
            shuffle_bytes_sent: self.traffic.sent(),
            shuffle_bytes_received: self.traffic.received(),
            serving: self.traffic.serving(),
            spill_limit: self.worker.store().spill().limit(),
            spill_used: self.worker.store().spill().used(),
            resident_bytes: resident_bytes().unwrap_or_default().0,
            attempts: self.worker.running_report(),
        }
    }

    fn start(&mut self, dispatch: Dispatch) -> Result<(), Failure> {
        if let Some(full) = self.worker.store().spill().refusal() {
            return Err(TaskError::Store(StoreError::Spill(full)).into());
        }
        let begun = self.worker.run(dispatch).map_err(|error| Failure::from(TaskError::from(error)))?;
        let busy = || TaskError::NoSlot { worker: self.id().clone() }.into();
        begun.then_some(()).ok_or_else(busy)
    }

    fn stop(&mut self, attempt: &AttemptId) {
        self.worker.stop(attempt);
    }

    fn admit(&mut self, job: &JobId, key: &[u8]) {
        self.worker.store().admit(job, key);
    }

    fn release(&mut self, job: &JobId) {
        self.worker.release(job);
    }

    fn jobs(&self) -> BTreeSet<JobId> {
        // A dictionary exists only beside a key.
        self.worker.store().jobs()
    }

    fn result(&self, attempt: &AttemptId) -> Option<v1::TaskResult> {
        self.worker.store().get_with_result(attempt).map(|(_, result)| result)
    }

    fn inventory(&self) -> Vec<(AttemptId, v1::TaskResult)> {
        self.worker.store().inventory()
    }

    fn held(&self) -> HeldOutputs {
        let store = self.worker.store();
        HeldOutputs { all: store.outputs(), migrated: store.migrated() }
    }

    fn note_migrated(&mut self, attempt: &AttemptId) {
        self.worker.store().note_migrated(attempt);
    }
}
