//! The arguments of `tally-worker`. Errors name the option and its value.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tally_common::discovery::consul::Consul;
use tally_common::discovery::leader::{Address, Source};
use tally_common::discovery::membership::MemberArgs;
use tally_common::logging::LogFormat;
use tally_common::security::{Security, ServerArgs, TokenUse};
use tally_common::traces::TraceArgs;
use tally_common::{addresses, duration, http, local_dir, memory, port_file, size};
use tally_shuffle::spill;
use tokio::runtime::Handle;

use super::error::CommandError;
use crate::agent::{self, Options, WorkerStatus};
use crate::shares::WorkerConfig;

const HELP: &str = "Settings:
  Each option can also be set by a variable of the environment (--spill-dir: TALLY_SPILL_DIR) and in the file of --config
  (spill-dir = \"...\"). Options come before variables, variables before the file, and the file before defaults.

Examples:
  A worker of a coordinator on this machine:
    tally-worker --coordinator localhost:7070 --slots 2 --memory-limit 1GiB

Exit codes:
  0    drained: it exited on request, and nothing that was needed was lost
  1    it could not start, or a coordinator refused it
  2    invalid arguments
  3    it exited with outputs that may be needed: the drain timed out, or the
       coordinator had declared it lost; lost outputs are made again elsewhere
  4    the coordinator has another version of the protocol
  130  it was requested a second time to exit, and exited at once

The first SIGTERM, SIGINT or SIGHUP drains the worker, the second ends it at once.";

/// Runs Tally's tasks: attaches to the leading coordinator and runs the tasks that it sends.
#[derive(Debug, Parser)]
#[command(name = "tally-worker", version, after_help = HELP)]
pub(super) struct Args {
    /// Coordinators, any of which may lead; tried in turn until one does
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    coordinator: Vec<Address>,
    /// Beginning of the worker's id, up to 40 of a-z, 0-9 and '-'; a random part follows [default: the host's name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Tasks at a time, each on a thread of its own [default: all cores that
    /// the memory limit has room for]
    #[arg(
        long, value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=1024)
    )]
    slots: Option<u16>,
    /// Memory for tables, shuffle, reduce and writers; what does not fit is written to disk. The default
    /// is three quarters of what this machine or its cgroup allows
    #[arg(
        long, value_name = "SIZE",
        default_value = default_memory(), value_parser = size::parse
    )]
    memory_limit: u64,
    /// Directory for data that does not fit into memory
    #[arg(long, value_name = "DIR", default_value_os_t = spill::default_dir(), value_parser = local_dir::parser())]
    spill_dir: PathBuf,
    /// Maximum bytes in that directory; beyond, tasks are refused [default: 90 % of
    /// the free space at the start]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    spill_limit: Option<u64>,
    /// Address where outputs are served to other workers: HOST:PORT, or :PORT for all addresses; port 0 takes any free port
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    listen: String,
    /// Address where other workers reach the worker: HOST:PORT, or HOST for the port that it listens on
    /// [default: the address that it listens on]
    #[arg(long, value_name = "HOST[:PORT]")]
    advertise: Option<String>,
    /// Maximum time to migrate needed outputs to other workers when the worker drains: for
    /// example 60s, 5m
    #[arg(
        long, value_name = "TIME", default_value = "60s",
        value_parser = duration::parse
    )]
    drain_timeout: Duration,
    /// File that the address is written to, once the worker listens
    #[arg(long, value_name = "FILE")]
    port_file: Option<PathBuf>,
    /// Address where /healthz, /readyz, /metrics and /log are served over HTTP [default: none]; an operator of
    /// --tokens-file changes the log filter with PUT /log
    #[arg(long, value_name = "HOST:PORT")]
    http_listen: Option<String>,
    /// File that this address is written to
    #[arg(long, value_name = "FILE", requires = "http_listen")]
    http_port_file: Option<PathBuf>,
    /// Log filter for standard error, for example `info` or `tally=debug`
    #[arg(long, default_value = "info")]
    pub(super) log: String,
    /// Format of log lines
    #[arg(long, value_enum, default_value_t = LogFormat::Auto)]
    pub(super) log_format: LogFormat,
    #[command(flatten)]
    member: MemberArgs,
    #[command(flatten)]
    security: ServerArgs,
    /// Bearer tokens, as for a coordinator: an operator's token may change the log filter with PUT /log. Connections
    /// still need a certificate. The file is read again when it changes
    #[arg(long, help_heading = "Security", value_name = "FILE")]
    tokens_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) traces: TraceArgs,
}

/// Memory for a worker if the system does not report its own.
const UNKNOWN_MEMORY: u64 = 2 << 30;

fn default_memory() -> String {
    let whole = memory::available().map_or(UNKNOWN_MEMORY, |bytes| bytes / 4 * 3);
    format!("{}MiB", whole >> 20)
}

/// The minimum memory limit for a number of slots, including footers, in bytes.
fn min_memory(slots: usize) -> u64 {
    WorkerConfig::min_memory(slots) * 32 / 31 + 1
}

impl Args {
    /// The configured Consul.
    ///
    /// # Errors
    /// [`CommandError::Usage`]: its settings are invalid.
    pub(super) fn consul(&self) -> Result<Option<Consul>, CommandError> {
        self.member.consul.open().map_err(|e| CommandError::Usage(e.to_string()))
    }

    /// The security of incoming and outgoing connections.
    ///
    /// # Errors
    /// [`CommandError::Usage`], naming the option or file.
    pub(super) fn security(&self) -> Result<Arc<Security>, CommandError> {
        let tokens = self.tokens_file.as_deref().map(|file| (file, TokenUse::BesidesCertificate));
        Security::open(&self.security, tokens, None).map_err(|e| CommandError::Usage(e.to_string()))
    }

    /// Where coordinators are discovered.
    ///
    /// # Errors
    /// [`CommandError::Usage`]: no source is configured.
    pub(super) fn source(&self, consul: Option<Consul>) -> Result<Source, CommandError> {
        match (self.coordinator.is_empty(), consul) {
            (false, _) => Ok(Source::Listed(self.coordinator.clone())),
            (true, Some(consul)) => Ok(Source::Consul(consul)),
            (true, None) => Err(CommandError::Usage("set --coordinator HOST:PORT, or --consul URL".into())),
        }
    }

    /// Serves health checks and metrics, if configured.
    ///
    /// # Errors
    /// [`CommandError::Failed`].
    pub(super) fn http(
        &self,
        status: &Arc<WorkerStatus>,
        security: &Arc<Security>,
    ) -> Result<Option<http::Server>, CommandError> {
        let serve = |listen: &String| {
            http::serve(listen, self.http_port_file.as_deref(), status.clone(), security.clone(), None)
        };
        let server = self.http_listen.as_ref().map(serve).transpose();
        server.map_err(|e| CommandError::Failed(e.to_string()))
    }

    /// The options of the agent. The data plane runs on `io`.
    ///
    /// # Errors
    /// [`CommandError`], naming the option.
    pub(super) fn options(
        &self,
        io: Handle,
        consul: Option<Consul>,
        status: Arc<WorkerStatus>,
        security: Arc<Security>,
    ) -> Result<Options, CommandError> {
        let slots = self.slots()?;
        let spill_limit = self.spill_limit()?;
        let (listener, address) = self.listen()?;
        let advertise = self.advertise(address)?;
        security.check(&self.listen, address).map_err(|e| CommandError::Usage(e.to_string()))?;
        tracing::info!(
            slots,
            memory_limit = self.memory_limit,
            spill_dir = %self.spill_dir.display(),
            spill_limit,
            "tally-worker {}",
            env!("CARGO_PKG_VERSION")
        );
        Ok(Options {
            name: self.name(),
            slots,
            memory_limit: self.memory_limit,
            spill_dir: self.spill_dir.clone(),
            spill_limit,
            listener,
            advertise,
            drain_timeout: self.drain_timeout,
            consul: consul.map(|consul| (consul, self.member.consul_register)),
            security,
            status,
            io,
        })
    }

    fn name(&self) -> String {
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        agent::name(&self.name.clone().unwrap_or_else(host))
    }

    fn slots(&self) -> Result<usize, CommandError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let fitting = usize::try_from(self.memory_limit / min_memory(1)).unwrap_or(cores);
        let slots = self.slots.map_or_else(|| cores.min(fitting).max(1), usize::from);
        let least = min_memory(slots);
        if self.memory_limit < least {
            let fewer = if slots == 1 { "" } else { ", or use fewer --slots" };
            return Err(CommandError::Usage(format!(
                "--memory-limit {} is too little for --slots {slots}: set it to {} or more{fewer}",
                size::text(self.memory_limit),
                size::option_above(least)
            )));
        }
        Ok(slots)
    }

    fn spill_limit(&self) -> Result<u64, CommandError> {
        let failed = |e: &dyn std::fmt::Display| {
            CommandError::Failed(format!(
                "--spill-dir {}: {e}; set a directory that is writable",
                self.spill_dir.display()
            ))
        };
        std::fs::create_dir_all(&self.spill_dir).map_err(|e| failed(&e))?;
        if let Some(limit) = self.spill_limit {
            return Ok(limit);
        }
        let disk = rustix::fs::statvfs(&self.spill_dir).map_err(|e| failed(&e))?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize) / 10 * 9)
    }

    fn listen(&self) -> Result<(TcpListener, SocketAddr), CommandError> {
        let failed = |e| {
            CommandError::Failed(format!("--listen {}: {e}; set a free address of this host", self.listen))
        };
        let addresses = addresses::listen(&self.listen).map_err(failed)?;
        let listener = TcpListener::bind(&addresses[..]).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        if let Some(file) = &self.port_file {
            port_file::write(file, address).map_err(|e| CommandError::Failed(e.to_string()))?;
        }
        Ok((listener, address))
    }

    fn advertise(&self, address: SocketAddr) -> Result<String, CommandError> {
        let Some(given) = &self.advertise else {
            if address.ip().is_unspecified() {
                return Err(CommandError::Usage(format!(
                    "--listen {}: other workers cannot reach this address: set the one that they reach with --advertise HOST",
                    self.listen
                )));
            }
            return Ok(address.to_string());
        };
        addresses::advertised(given, address.port())
            .map_err(|e| CommandError::Usage(format!("--advertise: {e}, or only the host")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(more: &[&str]) -> Args {
        let given = ["tally-worker", "--coordinator", "a:7070,b:7070"];
        Args::try_parse_from(given.iter().chain(more)).unwrap()
    }

    fn usage<T: std::fmt::Debug>(result: Result<T, CommandError>) -> String {
        match result {
            Err(CommandError::Usage(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn slots_are_as_many_as_the_memory_has_room_for() {
        let cores = std::thread::available_parallelism().unwrap().get();
        assert_eq!(args(&["--memory-limit", "100MiB"]).slots().unwrap(), 1);
        assert_eq!(args(&["--memory-limit", "1TiB"]).slots().unwrap(), cores);
        assert_eq!(args(&["--memory-limit", "1GiB", "--slots", "7"]).slots().unwrap(), 7);
        let message = usage(args(&["--memory-limit", "1GiB", "--slots", "70"]).slots());
        assert!(message.contains("--memory-limit 1.0 GiB") && message.contains("--slots 70"), "{message}");
        assert!(message.ends_with("or use fewer --slots"), "{message}");
        let message = usage(args(&["--memory-limit", "1MiB"]).slots());
        assert!(message.contains("--slots 1") && message.ends_with("or more"), "{message}");
    }

    #[test]
    fn the_name_is_that_of_the_host_or_the_option() {
        assert_eq!(args(&["--name", "worker-1"]).name(), "worker-1");
        assert_eq!(args(&["--name", "Rack 3"]).name(), "rack-3");
        assert!(!args(&[]).name().is_empty());
    }

    #[test]
    fn the_advertised_address_is_reachable_for_other_workers() {
        let at = |text: &str| text.parse().unwrap();
        let advertised = |more: &[&str], address| args(more).advertise(at(address));
        assert_eq!(advertised(&[], "127.0.0.1:41").unwrap(), "127.0.0.1:41");
        assert_eq!(advertised(&["--advertise", "w-0.tally"], "0.0.0.0:41").unwrap(), "w-0.tally:41");
        assert_eq!(advertised(&["--advertise", "w-0.tally:99"], "0.0.0.0:41").unwrap(), "w-0.tally:99");
        assert_eq!(advertised(&["--advertise", "fd00::1"], "[::]:41").unwrap(), "[fd00::1]:41");
        assert!(usage(advertised(&[], "0.0.0.0:41")).contains("--advertise"));
        assert!(usage(advertised(&["--advertise", "a b"], "0.0.0.0:41")).contains("\"a b\""));
    }

    #[test]
    fn the_spill_limit_is_the_option_or_most_of_the_free_space() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        assert_eq!(
            args(&["--spill-dir", path, "--spill-limit", "5GB"]).spill_limit().unwrap(),
            5_000_000_000
        );
        assert!(args(&["--spill-dir", path]).spill_limit().unwrap() > 0);
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = args(&["--spill-dir", file.to_str().unwrap()]).spill_limit().unwrap_err();
        assert!(matches!(error, CommandError::Failed(why) if why.contains("--spill-dir")));
    }
}
