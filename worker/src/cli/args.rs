//! Arguments of `tally-worker`, checked: what is wrong is said with the option and its value.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tokio::runtime::Handle;

use super::Stop;
use crate::agent::{self, Options, Seen};
use crate::consul::Consul;
use crate::leader::{Address, Source};
use crate::logging::LogFormat;
use crate::membership::MemberArgs;
use crate::runner::WorkerConfig;
use crate::security::{Security, ServerArgs};
use crate::traces::TraceArgs;
use crate::{duration, http, memory, port_file, size, spill};

const EXIT_CODES: &str = "Exit codes:
  0    drained: it left on request, and nothing that was needed was lost
  1    it could not start, or no coordinator takes it as it is
  2    wrong usage
  3    it left with something that may be needed: the drain timed out, or the
       coordinator had given it up; what was lost is made again elsewhere
  4    the coordinator speaks another version of the protocol
  130  it was told a second time to leave, and left at once

The first SIGTERM or SIGINT drains the worker, the second ends it at once.";

/// Runs Tally's tasks: attaches to the leading coordinator and does what it orders.
#[derive(Debug, Parser)]
#[command(name = "tally-worker", version, after_help = EXIT_CODES)]
pub(super) struct Args {
    /// Coordinators, any of which may lead; tried in turn until one does
    #[arg(long, value_name = "HOST:PORT", env = "TALLY_WORKER_COORDINATOR", value_delimiter = ',')]
    coordinator: Vec<Address>,
    /// Tasks at a time, each on a thread of its own [default: all cores that
    /// the memory limit has room for]
    #[arg(
        long, value_name = "N", env = "TALLY_WORKER_SLOTS",
        value_parser = clap::value_parser!(u16).range(1..=1024)
    )]
    slots: Option<u16>,
    /// Memory for tables, shuffle, reduce and writers; what does not fit goes to disk. The default
    /// is three quarters of what this machine or its cgroup allows
    #[arg(
        long, value_name = "SIZE", env = "TALLY_WORKER_MEMORY_LIMIT",
        default_value = default_memory(), value_parser = size::parse
    )]
    memory_limit: u64,
    /// Where data goes that memory has no room for
    #[arg(long, value_name = "DIR", env = "TALLY_WORKER_SPILL_DIR", default_value_os_t = spill::default_dir())]
    spill_dir: PathBuf,
    /// Bytes that may lie there; beyond, work is refused [default: 90 % of what
    /// is free there at the start]
    #[arg(long, value_name = "SIZE", env = "TALLY_WORKER_SPILL_LIMIT", value_parser = size::parse)]
    spill_limit: Option<u64>,
    /// Address where outputs are served to other workers; port 0 takes any that is free
    #[arg(long, value_name = "HOST:PORT", env = "TALLY_WORKER_LISTEN", default_value = "127.0.0.1:0")]
    listen: String,
    /// Where other workers reach that: HOST:PORT, or HOST for the port that it listens on
    /// [default: the address that it listens on]
    #[arg(long, value_name = "HOST[:PORT]", env = "TALLY_WORKER_ADVERTISE")]
    advertise: Option<String>,
    /// How long the worker tries to hand over what is needed, once it is told to leave: for
    /// example 60s, 5m
    #[arg(
        long, value_name = "TIME", env = "TALLY_WORKER_DRAIN_TIMEOUT", default_value = "60s",
        value_parser = duration::parse
    )]
    drain_timeout: Duration,
    /// File that the address is written to, once it listens
    #[arg(long, value_name = "FILE")]
    port_file: Option<PathBuf>,
    /// Address where /healthz, /readyz and /metrics are served over HTTP [default: nowhere]
    #[arg(long, value_name = "HOST:PORT", env = "TALLY_WORKER_HTTP_LISTEN")]
    http_listen: Option<String>,
    /// File that this address is written to
    #[arg(long, value_name = "FILE", requires = "http_listen")]
    http_port_file: Option<PathBuf>,
    /// What to log on standard error, for example `info` or `tally_worker=debug`
    #[arg(long, env = "TALLY_WORKER_LOG", default_value = "info")]
    pub(super) log: String,
    /// How log lines look
    #[arg(long, value_enum, env = "TALLY_WORKER_LOG_FORMAT", default_value_t = LogFormat::Auto)]
    pub(super) log_format: LogFormat,
    #[command(flatten)]
    member: MemberArgs,
    #[command(flatten)]
    security: ServerArgs,
    #[command(flatten)]
    pub(super) traces: TraceArgs,
}

/// What a worker has where the system does not tell what it may have.
const UNKNOWN_MEMORY: u64 = 2 << 30;

fn default_memory() -> String {
    let whole = memory::available().map_or(UNKNOWN_MEMORY, |bytes| bytes / 4 * 3);
    format!("{}MiB", whole >> 20)
}

/// The least memory limit for so many slots, footers included, in bytes.
fn least_memory(slots: usize) -> u64 {
    WorkerConfig::least_memory(slots) * 32 / 31 + 1
}

impl Args {
    /// The Consul that was named.
    ///
    /// # Errors
    /// [`Stop::Usage`]: its settings make no sense.
    pub(super) fn consul(&self) -> Result<Option<Consul>, Stop> {
        self.member.consul.open().map_err(|e| Stop::Usage(e.to_string()))
    }

    /// Who may connect, and how others are connected to.
    ///
    /// # Errors
    /// [`Stop::Usage`], with the option or file that is wrong.
    pub(super) fn security(&self) -> Result<Arc<Security>, Stop> {
        Security::open(&self.security, None, None).map_err(|e| Stop::Usage(e.to_string()))
    }

    /// Where coordinators are looked for.
    ///
    /// # Errors
    /// [`Stop::Usage`]: nowhere, or in two places.
    pub(super) fn source(&self, consul: Option<Consul>) -> Result<Source, Stop> {
        match (self.coordinator.is_empty(), consul) {
            (false, _) if self.member.consul.consul.is_some() => {
                Err(Stop::Usage("give --coordinator or --consul, not both".into()))
            }
            (false, _) => Ok(Source::Listed(self.coordinator.clone())),
            (true, Some(consul)) => Ok(Source::Consul(consul)),
            (true, None) => Err(Stop::Usage("give --coordinator HOST:PORT, or --consul URL".into())),
        }
    }

    /// Serves health and metrics, if it is to.
    ///
    /// # Errors
    /// [`Stop::Failed`].
    pub(super) fn http(&self, seen: &Arc<Seen>) -> Result<Option<http::Server>, Stop> {
        let serve = |listen: &String| http::serve(listen, self.http_port_file.as_deref(), seen.clone());
        self.http_listen.as_ref().map(serve).transpose().map_err(Stop::Failed)
    }

    /// What the agent is given; the data plane runs on `io`.
    ///
    /// # Errors
    /// [`Stop`], with the option that is wrong.
    pub(super) fn options(
        &self,
        io: Handle,
        consul: Option<Consul>,
        seen: Arc<Seen>,
        security: Arc<Security>,
    ) -> Result<Options, Stop> {
        let slots = self.slots()?;
        let spill_limit = self.spill_limit()?;
        let (listener, address) = self.listen()?;
        let advertise = self.advertise(address)?;
        security.check(&self.listen, address).map_err(Stop::Usage)?;
        let host = rustix::system::uname();
        tracing::info!(
            slots,
            memory_limit = self.memory_limit,
            spill_dir = %self.spill_dir.display(),
            spill_limit,
            "tally-worker {}",
            env!("CARGO_PKG_VERSION")
        );
        Ok(Options {
            name: agent::name(&host.nodename().to_string_lossy()),
            slots,
            memory_limit: self.memory_limit,
            spill_dir: self.spill_dir.clone(),
            spill_limit,
            listener,
            advertise,
            drain_timeout: self.drain_timeout,
            consul: consul.map(|consul| (consul, self.member.consul_register)),
            security,
            seen,
            io,
        })
    }

    fn slots(&self) -> Result<usize, Stop> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let fitting = usize::try_from(self.memory_limit / least_memory(1)).unwrap_or(cores);
        let slots = self.slots.map_or_else(|| cores.min(fitting).max(1), usize::from);
        let least = least_memory(slots);
        if self.memory_limit < least {
            return Err(Stop::Usage(format!(
                "--memory-limit {} is too little: {slots} slots need {}; give more, or fewer --slots",
                size::text(self.memory_limit),
                size::text(least)
            )));
        }
        Ok(slots)
    }

    fn spill_limit(&self) -> Result<u64, Stop> {
        let failed = |e: &dyn std::fmt::Display| {
            Stop::Failed(format!("--spill-dir {}: {e}; give a folder to write to", self.spill_dir.display()))
        };
        std::fs::create_dir_all(&self.spill_dir).map_err(|e| failed(&e))?;
        if let Some(limit) = self.spill_limit {
            return Ok(limit);
        }
        let disk = rustix::fs::statvfs(&self.spill_dir).map_err(|e| failed(&e))?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize) / 10 * 9)
    }

    fn listen(&self) -> Result<(TcpListener, SocketAddr), Stop> {
        let failed =
            |e| Stop::Failed(format!("--listen {}: {e}; give an address that is free here", self.listen));
        let listener = TcpListener::bind(&self.listen).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        if let Some(file) = &self.port_file {
            port_file::write(file, address).map_err(Stop::Failed)?;
        }
        Ok((listener, address))
    }

    fn advertise(&self, address: SocketAddr) -> Result<String, Stop> {
        let Some(given) = &self.advertise else {
            if address.ip().is_unspecified() {
                return Err(Stop::Usage(format!(
                    "--listen {}: other workers cannot reach that: say with --advertise HOST where they do",
                    self.listen
                )));
            }
            return Ok(address.to_string());
        };
        let whole = given.parse::<Address>().or_else(|_| format!("{given}:{}", address.port()).parse());
        whole.map(|address| address.to_string()).map_err(|_| {
            Stop::Usage(format!("--advertise {given:?} is no address: write HOST:PORT, or HOST alone"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(more: &[&str]) -> Args {
        let given = ["tally-worker", "--coordinator", "a:7070,b:7070"];
        Args::try_parse_from(given.iter().chain(more)).unwrap()
    }

    fn usage<T: std::fmt::Debug>(result: Result<T, Stop>) -> String {
        match result {
            Err(Stop::Usage(message)) => message,
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
        assert!(message.contains("--memory-limit 1.0 GiB") && message.contains("70 slots"), "{message}");
    }

    #[test]
    fn other_workers_are_told_an_address_that_they_can_reach() {
        let at = |text: &str| text.parse().unwrap();
        let told = |more: &[&str], address| args(more).advertise(at(address));
        assert_eq!(told(&[], "127.0.0.1:41").unwrap(), "127.0.0.1:41");
        assert_eq!(told(&["--advertise", "w-0.tally"], "0.0.0.0:41").unwrap(), "w-0.tally:41");
        assert_eq!(told(&["--advertise", "w-0.tally:99"], "0.0.0.0:41").unwrap(), "w-0.tally:99");
        assert_eq!(told(&["--advertise", "[::1]"], "[::]:41").unwrap(), "[::1]:41");
        assert!(usage(told(&[], "0.0.0.0:41")).contains("--advertise"));
        assert!(usage(told(&["--advertise", "a b"], "0.0.0.0:41")).contains("\"a b\""));
    }

    #[test]
    fn the_spill_limit_is_what_was_given_or_most_of_what_is_free() {
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
        assert!(matches!(error, Stop::Failed(why) if why.contains("--spill-dir")));
    }
}
