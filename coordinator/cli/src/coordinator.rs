//! `tally coordinator`: the service that plans jobs, dispatches tasks to workers and publishes days.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tally_common::discovery::membership::{Kind, Member, MemberArgs, Membership};
use tally_common::runtime::block_on;
use tally_common::security::{Security, ServerArgs, TokenUse};
use tally_common::signals::EndSignals;
use tally_common::traces::{self, TraceArgs};
use tally_common::{addresses, duration, http, port_file};
use tally_coordinator::election::Election;
use tally_coordinator::notify::delivery::Sinks;
use tally_coordinator::service::api::{HostName, HttpApi};
use tally_coordinator::service::lead::LeadOptions;
use tally_coordinator::service::observed::Seen;
use tally_coordinator::service::serve::{Exit, ServeOptions, check_journal, serve};
use tally_coordinator::service::{CoordinatorRole, Timing};
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use crate::Stop;
use crate::notify_args::NotifyArgs;

/// How long the process waits at its end for writes in progress.
const LAST_WRITES: Duration = Duration::from_secs(1);

/// Arguments of `tally coordinator`.
#[derive(Debug, Args)]
pub struct CoordinatorArgs {
    /// Address to listen on; with port 0, any free port
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7070")]
    listen: String,
    /// Where the journal is stored: a path, or an s3://, gs://, az:// or file:// URL; all coordinators
    /// of a cluster share it
    #[arg(long, value_name = "URL")]
    state_dir: String,
    /// Address for workers and clients: HOST:PORT, or HOST for the port that it listens on [default: the address that it
    /// listens on]
    #[arg(long, value_name = "HOST[:PORT]")]
    advertise: Option<String>,
    /// Number of finished jobs to keep for `tally jobs` and `tally job`
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    history: u32,
    /// Maximum number of running jobs; further jobs are refused
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1000))]
    max_jobs: u32,
    /// How long a job waits without any worker before it fails
    #[arg(
        long, value_name = "TIME", default_value = "5m",
        value_parser = duration::parse
    )]
    no_workers_timeout: Duration,
    /// File to write the address to, once the coordinator listens
    #[arg(long, value_name = "FILE")]
    port_file: Option<PathBuf>,
    /// Address for the web page, the API under /api/v1, /healthz, /readyz, /metrics and /log over HTTP [default:
    /// none]; operators in --tokens-file change the log filter with PUT /log
    #[arg(long, value_name = "HOST:PORT")]
    http_listen: Option<String>,
    /// File to write this address to
    #[arg(long, value_name = "FILE", requires = "http_listen")]
    http_port_file: Option<PathBuf>,
    /// Host name by which clients reach the API over HTTP in plain text, such as that of a proxy; it can be given several
    /// times, and `*.` stands for any names. Addresses, localhost, and with --insecure names without dots and those of
    /// Kubernetes are always accepted
    #[arg(long, value_name = "NAME", value_delimiter = ',', requires = "http_listen")]
    http_host: Vec<HostName>,
    #[command(flatten)]
    member: MemberArgs,
    #[command(flatten)]
    security: ServerArgs,
    /// File of bearer tokens that are accepted instead of certificates: one line `ROLE NAME TOKEN` per token,
    /// with the role operator or reader, and the token or sha256:DIGEST; it is read again when it changes
    #[arg(long, help_heading = "Security", value_name = "FILE")]
    tokens_file: Option<PathBuf>,
    /// Maximum requests per second and client address, with bursts of twice as many; workers are not limited
    #[arg(long, help_heading = "Security", value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_request_rate: u32,
    #[command(flatten)]
    notify: NotifyArgs,
    #[command(flatten)]
    traces: TraceArgs,
    #[command(flatten)]
    timing: TimingArgs,
}

/// Timeouts, for tests.
#[derive(Debug, Args)]
struct TimingArgs {
    /// Interval between two heartbeats
    #[arg(long, value_name = "MS", default_value_t = 1000, hide = true, value_parser = clap::value_parser!(u64).range(10..))]
    heartbeat: u64,
    /// Time after a worker's stream breaks until the worker is lost
    #[arg(long, value_name = "MS", default_value_t = 2000, hide = true)]
    worker_grace: u64,
    /// Time without a heartbeat after which a worker is lost
    #[arg(long, value_name = "MS", default_value_t = 10_000, hide = true, value_parser = clap::value_parser!(u64).range(100..))]
    worker_timeout: u64,
    /// Time after becoming the leader until jobs of earlier epochs continue
    #[arg(long, value_name = "MS", default_value_t = 3000, hide = true)]
    settle: u64,
    /// Records of the journal after which a snapshot replaces them
    #[arg(long, value_name = "N", default_value_t = 1000, hide = true, value_parser = clap::value_parser!(u64).range(1..))]
    compact_after: u64,
}

impl CoordinatorArgs {
    fn options(
        &self,
        address: String,
        role: Arc<CoordinatorRole>,
        security: Arc<Security>,
        sinks: Sinks,
    ) -> ServeOptions {
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
            max_jobs: self.max_jobs as usize,
            compact_after: self.timing.compact_after,
            timing,
            sinks,
        };
        ServeOptions { state_dir: self.state_dir.clone(), lead, role, security }
    }

    fn security(&self) -> Result<Arc<Security>, Stop> {
        let tokens = self.tokens_file.as_deref().map(|file| (file, TokenUse::InsteadOfCertificate));
        let security = Security::open(&self.security, tokens, Some(self.max_request_rate));
        security.map_err(|e| Stop::Usage(e.to_string()))
    }

    async fn bind(&self, security: &Security) -> Result<TcpListener, Stop> {
        let failed =
            |e| Stop::Failed(format!("--listen {}: {e}; give a free address of this machine", self.listen));
        let addresses = addresses::listen(&self.listen).map_err(failed)?;
        let listener = TcpListener::bind(&addresses[..]).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        security.check(&self.listen, address).map_err(|e| Stop::Usage(e.to_string()))?;
        eprintln!("listening on {address}");
        if let Some(file) = &self.port_file {
            port_file::write(file, address).map_err(|e| Stop::Failed(e.to_string()))?;
        }
        Ok(listener)
    }

    /// The address for other processes.
    fn address(&self, listener: &TcpListener, consul: bool) -> Result<String, Stop> {
        let address = listener.local_addr().map_err(|e| Stop::Failed(format!("--listen: {e}")))?;
        if let Some(given) = &self.advertise {
            return addresses::advertised(given, address.port())
                .map_err(|e| Stop::Usage(format!("--advertise: {e}, or only the host")));
        }
        if consul && address.ip().is_unspecified() {
            let what = format!("other processes cannot connect to {address}: give --advertise HOST:PORT");
            return Err(Stop::Usage(what));
        }
        Ok(address.to_string())
    }

    fn observe(
        &self,
        role: &Arc<CoordinatorRole>,
        security: &Arc<Security>,
    ) -> Result<Option<http::Server>, Stop> {
        let Some(listen) = &self.http_listen else { return Ok(None) };
        let seen = Arc::new(Seen::new(role.clone(), security.clone()));
        let api = HttpApi::new(role.clone(), security.clone(), self.http_host.clone());
        let pages = http::Pages { site: Arc::new(api), runtime: Handle::current() };
        let file = self.http_port_file.as_deref();
        let server = http::serve(listen, file, seen.clone(), security.clone(), Some(pages));
        let server = server.map_err(|e| Stop::Failed(e.to_string()))?;
        tokio::spawn(async move { seen.beat().await });
        Ok(Some(server))
    }

    async fn serve(&self, stop: impl Future<Output = ()>) -> Result<Exit, Stop> {
        let consul = self.member.consul.open().map_err(|e| Stop::Usage(e.to_string()))?;
        traces::start(&self.traces, "tally-coordinator").map_err(|e| Stop::Usage(e.to_string()))?;
        let security = self.security()?;
        let sinks = self.notify.sinks()?;
        check_journal(&self.state_dir).await.map_err(|e| Stop::Failed(e.to_string()))?;
        let listener = self.bind(&security).await?;
        let address = self.address(&listener, consul.is_some())?;
        let role = Arc::new(CoordinatorRole::default());
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
        let exit = serve(listener, self.options(address, role, security, sinks), election, stop).await;
        if let Some(membership) = membership {
            membership.leave().await;
        }
        exit.map_err(|e| Stop::Failed(e.to_string()))
    }
}

/// Runs the command.
pub(crate) fn main(args: &CoordinatorArgs) -> Result<(), Stop> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|e| Stop::Failed(format!("the runtime cannot be started: {e}")))?;
    let exit = block_on(&runtime, async {
        let signals = EndSignals::new();
        let mut signals =
            signals.map_err(|e| Stop::Failed(format!("signal handlers cannot be installed: {e}")))?;
        args.serve(async move { signals.next().await }).await
    });
    traces::stop();
    // Writes in progress may finish, but the process does not wait for a hung disk.
    runtime.shutdown_timeout(LAST_WRITES);
    match exit? {
        Exit::Asked => Ok(()),
        Exit::Deposed(why) => Err(Stop::Deposed(why)),
    }
}
