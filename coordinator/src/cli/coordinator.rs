//! `tally coordinator`: the service that plans jobs, drives workers and publishes days.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tally_worker::membership::{Kind, Member, MemberArgs, Membership};
use tally_worker::security::{Security, ServerArgs};
use tally_worker::traces::{self, TraceArgs};
use tally_worker::{duration, http, port_file};
use tokio::net::TcpListener;

use super::Stop;
use crate::election::Election;
use crate::service::lead::LeadOptions;
use crate::service::observed::Seen;
use crate::service::serve::{Exit, ServeOptions, serve};
use crate::service::{Role, Timing};

/// How long writes that are under way may take when the process ends.
const LAST_WRITES: Duration = Duration::from_secs(1);

/// Arguments of `tally coordinator`.
#[derive(Debug, Args)]
pub struct CoordinatorArgs {
    /// Address to listen on; port 0 takes any that is free
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "TALLY_COORDINATOR_LISTEN",
        default_value = "127.0.0.1:7070"
    )]
    listen: String,
    /// Where its journal lies: a path or file:// URL that coordinators which may succeed each
    /// other share
    #[arg(long, value_name = "URL", env = "TALLY_COORDINATOR_STATE_DIR")]
    state_dir: String,
    /// Where workers and clients reach it [default: the address that it listens on]
    #[arg(long, value_name = "HOST:PORT", env = "TALLY_COORDINATOR_ADVERTISE")]
    advertise: Option<String>,
    /// Jobs that are over and can still be asked for
    #[arg(long, value_name = "N", env = "TALLY_COORDINATOR_HISTORY", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    history: u32,
    /// Jobs that run at a time, at most; more are refused
    #[arg(long, value_name = "N", env = "TALLY_COORDINATOR_MAX_JOBS", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1000))]
    max_jobs: u32,
    /// How long a job waits while there are no workers; then it fails
    #[arg(
        long, value_name = "TIME", env = "TALLY_COORDINATOR_NO_WORKERS_TIMEOUT", default_value = "5m",
        value_parser = duration::parse
    )]
    no_workers_timeout: Duration,
    /// File that the address is written to, once it listens
    #[arg(long, value_name = "FILE")]
    port_file: Option<PathBuf>,
    /// Address where /healthz, /readyz and /metrics are served over HTTP [default: nowhere]
    #[arg(long, value_name = "HOST:PORT", env = "TALLY_COORDINATOR_HTTP_LISTEN")]
    http_listen: Option<String>,
    /// File that this address is written to
    #[arg(long, value_name = "FILE", requires = "http_listen")]
    http_port_file: Option<PathBuf>,
    #[command(flatten)]
    member: MemberArgs,
    #[command(flatten)]
    security: ServerArgs,
    /// Bearer tokens that are accepted instead of certificates: a line `ROLE NAME TOKEN` each, with
    /// the role operator or reader, and the token or sha256:DIGEST; read anew when it changes
    #[arg(long, help_heading = "Security", value_name = "FILE", env = "TALLY_COORDINATOR_TOKENS_FILE")]
    tokens_file: Option<PathBuf>,
    /// Requests a second that each address may make, twice as many at once; not those of workers
    #[arg(long, help_heading = "Security", value_name = "N", env = "TALLY_COORDINATOR_MAX_REQUEST_RATE", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_request_rate: u32,
    #[command(flatten)]
    traces: TraceArgs,
    #[command(flatten)]
    timing: TimingArgs,
}

/// Waits, for tests.
#[derive(Debug, Args)]
struct TimingArgs {
    /// Between two signs of life
    #[arg(long, value_name = "MS", default_value_t = 1000, hide = true, value_parser = clap::value_parser!(u64).range(10..))]
    heartbeat: u64,
    /// After a worker's stream broke, until it is lost
    #[arg(long, value_name = "MS", default_value_t = 2000, hide = true)]
    worker_grace: u64,
    /// Silence after which a worker is lost
    #[arg(long, value_name = "MS", default_value_t = 10_000, hide = true, value_parser = clap::value_parser!(u64).range(100..))]
    worker_timeout: u64,
    /// After taking the lead, until jobs of earlier epochs go on
    #[arg(long, value_name = "MS", default_value_t = 3000, hide = true)]
    settle: u64,
    /// Records of the journal after which a snapshot replaces them
    #[arg(long, value_name = "N", default_value_t = 1000, hide = true, value_parser = clap::value_parser!(u64).range(1..))]
    compact_after: u64,
}

impl CoordinatorArgs {
    fn options(&self, address: String, role: Arc<Role>, security: Arc<Security>) -> ServeOptions {
        let millis = Duration::from_millis;
        let timing = Timing {
            heartbeat: millis(self.timing.heartbeat),
            grace: millis(self.timing.worker_grace),
            timeout: millis(self.timing.worker_timeout),
            settle: millis(self.timing.settle),
            no_workers: self.no_workers_timeout,
        };
        let lead = LeadOptions {
            address,
            history: self.history as usize,
            most_jobs: self.max_jobs as usize,
            compact_after: self.timing.compact_after,
            timing,
        };
        ServeOptions { state_dir: self.state_dir.clone(), lead, role, security }
    }

    fn security(&self) -> Result<Arc<Security>, Stop> {
        let security =
            Security::open(&self.security, self.tokens_file.as_deref(), Some(self.max_request_rate));
        security.map_err(|e| Stop::Usage(e.to_string()))
    }

    async fn bind(&self, security: &Security) -> Result<TcpListener, Stop> {
        let failed =
            |e| Stop::Failed(format!("--listen {}: {e}; give an address that is free here", self.listen));
        let listener = TcpListener::bind(&self.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        security.check(&self.listen, address).map_err(Stop::Usage)?;
        eprintln!("listening on {address}");
        if let Some(file) = &self.port_file {
            port_file::write(file, address).map_err(Stop::Failed)?;
        }
        Ok(listener)
    }

    /// Where others reach it.
    fn address(&self, listener: &TcpListener, consul: bool) -> Result<String, Stop> {
        if let Some(address) = &self.advertise {
            return Ok(address.clone());
        }
        let address = listener.local_addr().map_err(|e| Stop::Failed(format!("--listen: {e}")))?;
        if consul && address.ip().is_unspecified() {
            let what = format!("{address} is no address that others could use: give --advertise HOST:PORT");
            return Err(Stop::Usage(what));
        }
        Ok(address.to_string())
    }

    fn observe(&self, role: &Arc<Role>, security: &Arc<Security>) -> Result<Option<http::Server>, Stop> {
        let Some(listen) = &self.http_listen else { return Ok(None) };
        let seen = Arc::new(Seen::new(role.clone(), security.clone()));
        let server = http::serve(listen, self.http_port_file.as_deref(), seen.clone());
        let server = server.map_err(Stop::Failed)?;
        tokio::spawn(async move { seen.beat().await });
        Ok(Some(server))
    }

    async fn serve(&self, stop: impl Future<Output = ()>) -> Result<Exit, Stop> {
        let consul = self.member.consul.open().map_err(|e| Stop::Usage(e.to_string()))?;
        traces::start(&self.traces, "tally-coordinator").map_err(Stop::Usage)?;
        let security = self.security()?;
        let listener = self.bind(&security).await?;
        let address = self.address(&listener, consul.is_some())?;
        let role = Arc::new(Role::default());
        // Before the election, which waits for Consul.
        let _http = self.observe(&role, &security)?;
        let id = format!("{:016x}", rand::random::<u64>());
        let (election, membership) = match consul {
            None => (Election::alone(), None),
            Some(consul) => {
                let election = Election::consul(consul.clone(), &id, &address).await;
                let election = election.map_err(|e| Stop::Failed(e.to_string()))?;
                let facts = BTreeMap::from([("version".into(), env!("CARGO_PKG_VERSION").into())]);
                let (kind, tls) = (Kind::Coordinator, security.is_tls());
                let member = Member { kind, id, address: address.clone(), facts, tls };
                (election, Some(Membership::join(consul, member, self.member.consul_register)))
            }
        };
        let exit = serve(listener, self.options(address, role, security), election, stop).await;
        if let Some(membership) = membership {
            membership.leave().await;
        }
        exit.map_err(|e| Stop::Failed(e.to_string()))
    }
}

/// Runs the command.
pub(super) fn main(args: &CoordinatorArgs) -> Result<(), Stop> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|e| Stop::Failed(format!("the runtime cannot be started: {e}")))?;
    let exit = runtime.block_on(async {
        let stop = terminated().map_err(|e| Stop::Failed(format!("signals cannot be waited for: {e}")))?;
        args.serve(stop).await
    });
    traces::stop();
    // What is being made on a disk may be finished; a disk that hangs is not waited for.
    runtime.shutdown_timeout(LAST_WRITES);
    match exit? {
        Exit::Asked => Ok(()),
        Exit::Deposed(why) => Err(Stop::Deposed(why)),
    }
}

/// Resolves at the first Ctrl-C or SIGTERM.
fn terminated() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
