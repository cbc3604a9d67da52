//! One life of a worker under one id: its slots and store, and the server of its outputs. When the
//! coordinator gives it up, all of that ends and another life begins.
//!
//! Not here: the stream to the coordinator (`session`).

use std::collections::HashMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tally_proto::convert::BadMessage;
use tally_proto::ids::InvalidId;
use tally_proto::{AttemptId, Failure, JobId, PROTOCOL, WorkerId, v1};
use tokio::runtime::Handle;

use super::hand_over::HandOvers;
use super::outbox::{Fact, Outbox};
use super::rules::Holdings;
use super::seen::Seen;
use crate::consul::Consul;
use crate::flight::{self, ServeConfig, ServeError, Server, Traffic};
use crate::membership::{Kind, Member, Membership, Registration};
use crate::order::{Order, ReduceInputs};
use crate::runner::{Report, StartError, Worker, WorkerConfig};
use crate::scan::footer::Footers;
use crate::security::Security;

/// Facts that may wait to be told, beside those of the slots' own attempts.
const MOST_UNTOLD: usize = 8192;
/// How long tasks that were told to stop may take to do so.
const LAST_STEPS: Duration = Duration::from_secs(5);

/// What a worker's process is given.
#[derive(Debug)]
pub struct Options {
    /// What its ids begin with; see [`super::name`].
    pub name: String,
    /// Tasks at a time.
    pub slots: usize,
    /// Bytes of memory for everything large.
    pub memory_limit: u64,
    /// Where outputs go that memory has no room for.
    pub spill_dir: PathBuf,
    /// Bytes that may lie there.
    pub spill_limit: u64,
    /// Where outputs are served; kept over all lives.
    pub listener: TcpListener,
    /// Where others reach it, `host:port`.
    pub advertise: String,
    /// How long a drain may take.
    pub drain_timeout: Duration,
    /// The Consul where it shows itself, and how it does so.
    pub consul: Option<(Consul, Option<Registration>)>,
    /// Who may connect, and how others are connected to.
    pub security: Arc<Security>,
    /// What is shown of it to those outside.
    pub seen: Arc<Seen>,
    /// Where the data plane runs: outputs served and fetched, inputs read. Never where the agent
    /// itself runs, whose beats would wait.
    pub io: Handle,
}

/// A life could not begin.
#[derive(Debug, thiserror::Error)]
pub enum LifeError {
    /// The slots, or the spill directory.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The server of outputs.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The listener.
    #[error("the listener of outputs cannot be used: {0}")]
    Listener(#[from] std::io::Error),
    /// The id.
    #[error(transparent)]
    Id(#[from] InvalidId),
}

/// A living worker.
pub struct Life {
    /// Runs orders.
    pub worker: Worker,
    /// What is to be told.
    pub outbox: Arc<Outbox>,
    /// How it is seen from outside.
    pub seen: Arc<Seen>,
    /// What reduce orders of each job read, by version: the latest that was told on this stream.
    inputs: Mutex<HashMap<JobId, (u64, Arc<ReduceInputs>)>>,
    hand_overs: HandOvers,
    traffic: Arc<Traffic>,
    server: Server,
    membership: Option<Membership>,
}

impl Life {
    /// Starts slots and server under a new id.
    ///
    /// # Errors
    /// [`LifeError`].
    pub fn begin(options: &Options) -> Result<Self, LifeError> {
        let id = WorkerId::parse(&format!("{}-{:012x}", options.name, rand::random_range(0..1u64 << 48)))?;
        let footer_bytes = options.memory_limit / 32;
        let config = WorkerConfig {
            id: id.clone(),
            slots: options.slots,
            memory_limit: options.memory_limit - footer_bytes,
            spill_dir: options.spill_dir.clone(),
            spill_limit: options.spill_limit,
        };
        let footers = Arc::new(Footers::new(usize::try_from(footer_bytes).unwrap_or(usize::MAX)));
        let outbox = Arc::new(Outbox::new(MOST_UNTOLD + options.slots));
        let traffic = Arc::new(Traffic::default());
        let _runtime = options.io.enter();
        let client = flight::Client::new(traffic.clone(), options.security.dialer());
        let report = {
            let (outbox, seen) = (outbox.clone(), options.seen.clone());
            move |report: Report| {
                seen.ended(&report.outcome);
                outbox.push(Fact::Ended(report.attempt, report.outcome));
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
        let hand_overs = HandOvers::start(client, worker.store().clone(), outbox.clone());
        let seen = options.seen.clone();
        seen.begin(
            options.slots,
            options.memory_limit,
            worker.gauges(),
            traffic.clone(),
            options.security.clone(),
        );
        Ok(Life {
            worker,
            outbox,
            seen,
            inputs: Mutex::default(),
            hand_overs,
            traffic,
            server,
            membership: None,
        })
    }

    /// Shows the worker in Consul, where there is one; `maintenance` is called when somebody there
    /// wants it to go. To be called on the agent's runtime.
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
            // An error means that it left Consul first.
            if wanted.wait_for(|wanted| *wanted).await.is_ok() {
                tracing::info!("Consul's maintenance mode: the worker drains");
                maintenance();
            }
        });
        self.membership = Some(membership);
    }

    /// How it introduces itself.
    pub fn hello(&self, options: &Options, epoch: u64, draining: bool) -> v1::Hello {
        v1::Hello {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").into(),
            worker: self.worker.id().to_string(),
            slots: u32::try_from(options.slots).unwrap_or(u32::MAX),
            memory_limit: options.memory_limit,
            flight_address: options.advertise.clone(),
            epoch,
            draining,
            reduce_table_bytes: self.worker.shares().reduce as u64,
        }
    }

    /// A sign of life.
    pub fn heartbeat(&self) -> v1::Heartbeat {
        let counters = self.worker.counters();
        v1::Heartbeat {
            rows_read: counters.rows.load(Ordering::Relaxed),
            bytes_read: counters.bytes.load(Ordering::Relaxed),
            spilled_bytes: self.worker.store().spilled(),
            memory_used: self.worker.memory_used(),
            shuffle_bytes_sent: self.traffic.sent(),
            shuffle_bytes_received: self.traffic.received(),
            serving: self.traffic.serving(),
        }
    }

    /// What would be lost if it ended now.
    pub fn holdings(&self) -> Holdings {
        let given = self.worker.store().given();
        Holdings {
            running: self.worker.running().len(),
            outputs: self.worker.store().outputs().saturating_sub(given),
            given,
            untold: self.outbox.len(),
        }
    }

    /// Carries an order out, or says why not.
    pub fn start(&self, order: v1::TaskOrder) {
        let attempt = match order.attempt.as_ref().map(AttemptId::try_from) {
            Some(Ok(attempt)) => attempt,
            _ => {
                tracing::warn!(attempt = ?order.attempt, "an order that names no attempt was ignored");
                return;
            }
        };
        if self.worker.is_running(&attempt) {
            tracing::info!(%attempt, "ordered again while it runs");
            return;
        }
        if let Some((_, result)) = self.worker.store().get_with_result(&attempt) {
            tracing::info!(%attempt, "ordered again though it is done");
            self.outbox.push(Fact::Ended(attempt, Ok(result)));
            return;
        }
        if let Err(failure) = self.give(order, &attempt.task.job) {
            tracing::warn!(%attempt, %failure, "an order was refused");
            self.outbox.push(Fact::Ended(attempt, Err(failure)));
        }
    }

    /// A new stream begins: what the one before told is told again.
    pub fn forget_inputs(&self) {
        self.inputs.lock().clear();
    }

    /// Keeps what reduce orders that follow read.
    pub fn take_inputs(&self, message: v1::ReduceInputs) {
        let version = message.version;
        match JobId::parse(&message.job).map_err(Into::into).and_then(|job| Ok((job, message.try_into()?))) {
            Ok((job, inputs)) => drop(self.inputs.lock().insert(job, (version, Arc::new(inputs)))),
            // Orders that read them are refused.
            Err::<_, BadMessage>(error) => tracing::warn!(%error, "told inputs that are none"),
        }
    }

    /// What an order reads beside what it says.
    fn inputs(&self, order: &v1::TaskOrder, job: &JobId) -> Result<Option<Arc<ReduceInputs>>, String> {
        let Some(v1::task_order::Work::Reduce(work)) = &order.work else { return Ok(None) };
        match self.inputs.lock().get(job) {
            Some((version, inputs)) if *version == work.inputs_version => Ok(Some(inputs.clone())),
            _ => Err(format!("it reads version {} of inputs that were not told", work.inputs_version)),
        }
    }

    /// Gives the order to a slot; why that is not possible.
    fn give(&self, order: v1::TaskOrder, job: &JobId) -> Result<(), Failure> {
        let spill = self.worker.store().spill();
        let id = self.worker.id();
        if spill.is_full() {
            let limit = spill.limit();
            let reason = format!("worker {id} takes no work: its --spill-limit of {limit} bytes is reached");
            return Err(Failure::Refused { reason });
        }
        let failed = |reason| Failure::Retryable { reason };
        let inputs = self.inputs(&order, job).map_err(failed)?;
        match self.worker.run(Order { head: order, inputs }) {
            Ok(true) => Ok(()),
            Ok(false) => Err(failed(format!("worker {id} has no free slot"))),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// Drops all that is kept of a job.
    pub fn release(&self, job: &JobId) {
        self.inputs.lock().remove(job);
        self.worker.release(job);
        self.outbox.release(job);
    }

    /// Gives outputs to another worker, as soon as it can.
    pub fn hand_over(&self, order: v1::HandOver) {
        self.hand_overs.order(order);
    }

    /// Takes a job in whose outputs may come by hand-overs.
    pub fn admit(&self, job: &JobId, key: &[u8]) {
        self.worker.store().admit(job, key);
    }

    /// Ends it: running streams of outputs may take so long, tasks are stopped.
    pub async fn end(self, streams: Duration) {
        let Life { worker, server, membership, hand_overs, seen, .. } = self;
        seen.end();
        hand_overs.stop();
        if let Some(membership) = membership {
            membership.leave().await;
        }
        server.stop(streams).await;
        let store = worker.store().clone();
        // The slots' threads are waited for, but not for ever: theirs may be a disk that hangs.
        let ended = tokio::task::spawn_blocking(move || drop(worker));
        if tokio::time::timeout(LAST_STEPS, ended).await.is_err() {
            tracing::warn!("a task did not stop in time");
        }
        store.remove_spilled();
    }
}
