//! The two kinds of process in a cluster, with the options that a test sets: coordinators and workers, each with its
//! log and its folder. Both can be restarted in place after their end.
//!
//! Not here: signals and ends (`server`), how many there are (`mod`).

use std::ffi::OsString;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Setup;
use super::client::DEADLINE;
use super::proxy::{Network, Proxy};
use super::server::Server;
use crate::consul::ConsulAgent;
use crate::ports::{self, Port};
use crate::process::{clean, tally_bin};
use crate::secrets;
use crate::wait::wait_for;

/// How long a process may take to stop after it is asked to.
pub const LEAVES: Duration = Duration::from_secs(30);
/// The log level of the processes.
const LOG: &str = "info";
/// Flags that make a coordinator declare workers lost, and a new leader start, sooner than users want: short enough for
/// a test, long enough for a busy machine. In milliseconds.
pub const QUICK: &[&str] = &["--worker-timeout", "4000", "--worker-grace", "1000", "--settle", "1000"];

/// A program, its flags, its log, and the file for its port.
#[derive(Debug)]
struct Program {
    name: String,
    bin: PathBuf,
    /// The binary of the first incarnation.
    before: Option<PathBuf>,
    flags: Vec<OsString>,
    environment: Vec<(&'static str, String)>,
    port_file: PathBuf,
    http_file: PathBuf,
    logs: PathBuf,
    lives: usize,
}

impl Program {
    fn new(name: String, bin: PathBuf, flags: Vec<OsString>, dir: &Path, setup: &Setup) -> Self {
        let before = setup.before.as_ref().zip(bin.file_name()).map(|(folder, name)| folder.join(name));
        let port_file = dir.join(format!("{name}.port"));
        let http_file = dir.join(format!("{name}.http"));
        let environment = setup.environment.clone();
        environment
            .iter()
            .for_each(|(name, value)| secrets::register_variable(name.as_ref(), value.as_ref()));
        Self { bin, before, flags, environment, port_file, http_file, logs: dir.join("logs"), lives: 0, name }
    }

    /// Starts it listening at `listen`; returns the process and its address.
    fn start(&mut self, listen: &str, more: &[OsString]) -> Result<(Server, SocketAddr)> {
        // Removes the port file of the previous incarnation.
        for file in [&self.port_file, &self.http_file] {
            if file.exists() {
                std::fs::remove_file(file)?;
            }
        }
        let before = self.before.take();
        let tells_health = before.is_none();
        let mut command = Command::new(before.unwrap_or_else(|| self.bin.clone()));
        clean(&mut command);
        command
            .env("TALLY_LOG", LOG)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .args(&self.flags)
            .args(more)
            .args(["--listen", listen]);
        command.arg("--port-file").arg(&self.port_file);
        // Early releases do not know these flags.
        if tells_health {
            command.args(["--http-listen", "127.0.0.1:0", "--http-port-file"]).arg(&self.http_file);
        }
        self.lives += 1;
        let log = self.logs.join(format!("{}.{}.log", self.name, self.lives));
        let mut server = Server::start(&self.name, command, &log)?;
        let address = wait_for(&format!("the address of {}", self.name), DEADLINE, || {
            if let Some(status) = server.ended()? {
                anyhow::bail!("{} ended before it listened: {status}\n{}", self.name, server.said());
            }
            // The file appears whole, by a rename.
            Ok(std::fs::read_to_string(&self.port_file).ok().and_then(|text| text.trim().parse().ok()))
        })?;
        Ok((server, address))
    }
}

impl Program {
    /// The address of its health and metrics.
    fn http(&self) -> Result<SocketAddr> {
        wait_for(&format!("the HTTP address of {}", self.name), DEADLINE, || {
            Ok(std::fs::read_to_string(&self.http_file).ok().and_then(|text| text.trim().parse().ok()))
        })
    }
}

/// A `tally coordinator`.
pub struct Coordinator {
    pub process: Server,
    /// The proxy to Consul, if the cluster has proxies.
    pub consul: Option<Proxy>,
    address: SocketAddr,
    program: Program,
    _port: Port,
}

fn words<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.map(OsString::from).to_vec()
}

impl Coordinator {
    /// Starts one that keeps its state in `dir/state`.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(
        at: usize,
        dir: &Path,
        setup: &Setup,
        consul: Option<&ConsulAgent>,
        network: &Network,
    ) -> Result<Self> {
        let mut flags = words(["coordinator", "--state-dir"]);
        flags.push(setup.state_dir.as_ref().map_or_else(|| dir.join("state").into(), OsString::from));
        let mut way = None;
        if let Some(consul) = consul {
            let mut url = consul.url();
            if setup.proxied {
                let to_consul = network.proxy()?;
                to_consul.lead_to(consul.address().parse()?);
                url = format!("http://{}", to_consul.address());
                way = Some(to_consul);
            }
            flags.extend(consul_flags(&url, setup));
        }
        flags.extend(setup.tls_flags("coordinator").into_iter().map(OsString::from));
        flags.extend(setup.coordinator_flags.iter().map(OsString::from));
        let bin = setup.bins.as_ref().map_or_else(tally_bin, |bins| bins.tally.clone());
        let mut program = Program::new(format!("coordinator-{at}"), bin, flags, dir, setup);
        // No other process takes this port while the coordinator is stopped.
        let [port] = ports::free(&[])?;
        let (process, address) = program.start(&format!("127.0.0.1:{}", port.number), &[])?;
        Ok(Self { process, consul: way, address, program, _port: port })
    }

    /// Its address, the same in all incarnations.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of its health and metrics, in this incarnation.
    ///
    /// # Errors
    /// It does not report the address.
    pub fn http(&self) -> Result<SocketAddr> {
        self.program.http()
    }

    /// Restarts it after its end, at the same address and with the same state.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&mut self) -> Result<()> {
        (self.process, self.address) = self.program.start(&self.address.to_string(), &[])?;
        Ok(())
    }
}

fn consul_flags(url: &str, setup: &Setup) -> Vec<OsString> {
    let mut flags = words(["--consul", url]);
    flags.extend(setup.consul_flags.iter().map(OsString::from));
    flags
}

/// A `tally-worker` with one slot.
pub struct Worker {
    pub process: Server,
    /// Its spill folder, the same in all incarnations.
    pub spill: PathBuf,
    /// Whether its last incarnation ended by `kill -9`, and so without cleanup.
    pub killed: bool,
    /// The proxy to the coordinator, if the cluster has proxies.
    pub control: Option<Proxy>,
    /// The proxy before its outputs, if the cluster has proxies.
    pub data: Option<Proxy>,
    address: SocketAddr,
    program: Program,
}

impl Worker {
    /// The files in its spill folder.
    ///
    /// # Errors
    /// A folder cannot be listed.
    pub fn spilled(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let mut folders = vec![self.spill.clone()];
        while let Some(folder) = folders.pop() {
            let entries = match std::fs::read_dir(&folder) {
                Err(error) if error.kind() == ErrorKind::NotFound && folder != self.spill => continue,
                entries => entries.with_context(|| format!("listing {}", folder.display()))?,
            };
            for entry in entries {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                } else if entry.file_name() != ".lock" {
                    // The folder of a live worker contains its lock.
                    found.push(entry.path());
                }
            }
        }
        Ok(found)
    }

    /// Bytes in these files. A file that is removed meanwhile does not count.
    ///
    /// # Errors
    /// A folder cannot be listed.
    pub fn spilled_bytes(&self) -> Result<u64> {
        Ok(self.spilled()?.iter().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum())
    }

    /// Starts a worker for the coordinator at `leader`.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(
        at: usize,
        dir: &Path,
        setup: &Setup,
        consul: Option<&ConsulAgent>,
        leader: SocketAddr,
        network: &Network,
    ) -> Result<Self> {
        let spill = dir.join(format!("spill-{at}"));
        std::fs::create_dir_all(&spill)?;
        let mut control = None;
        let mut data = None;
        if setup.proxied {
            let to_leader = network.proxy()?;
            to_leader.lead_to(leader);
            (control, data) = (Some(to_leader), Some(network.proxy()?));
        }
        let mut flags =
            words(["--slots", setup.worker_slots, "--memory-limit", setup.worker_memory, "--spill-dir"]);
        flags.push(spill.clone().into());
        match consul {
            Some(consul) => flags.extend(consul_flags(&consul.url(), setup)),
            None => {
                let leader = control.as_ref().map_or(leader, Proxy::address);
                flags.extend(words(["--coordinator", &leader.to_string()]));
            }
        }
        if let Some(data) = &data {
            flags.extend(words(["--advertise", &data.address().to_string()]));
        }
        flags.extend(setup.tls_flags("worker").into_iter().map(OsString::from));
        flags.extend(setup.worker_flags.iter().map(OsString::from));
        let bin = setup.bins.as_ref().map_or_else(worker_bin, |bins| bins.worker.clone());
        let mut program = Program::new(format!("worker-{at}"), bin, flags, dir, setup);
        // Not as a flag: early releases do not know it.
        let tokens = setup.tokens_file().map(|file| ("TALLY_TOKENS_FILE", file));
        program.environment.extend(tokens);
        let (process, address) = program.start("127.0.0.1:0", &[])?;
        let mut worker = Self { process, spill, killed: false, control, data, address, program };
        worker.lead_data();
        Ok(worker)
    }

    fn lead_data(&mut self) {
        if let Some(data) = &self.data {
            data.lead_to(self.address);
        }
    }

    /// The address of its outputs, as `tally workers` shows it.
    pub fn address(&self) -> SocketAddr {
        self.data.as_ref().map_or(self.address, Proxy::address)
    }

    /// The address of its health and metrics, in this incarnation.
    ///
    /// # Errors
    /// It does not report the address.
    pub fn http(&self) -> Result<SocketAddr> {
        self.program.http()
    }

    /// kill -9.
    ///
    /// # Errors
    /// It had already ended.
    pub fn kill(&mut self) -> Result<()> {
        self.killed = true;
        self.process.kill()
    }

    /// Restarts it after its end, with the same spill folder, as a new worker.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&mut self) -> Result<()> {
        (self.process, self.address) = self.program.start("127.0.0.1:0", &[])?;
        self.killed = false;
        self.lead_data();
        Ok(())
    }
}

/// `TALLY_WORKER_BIN`, else the `tally-worker` beside the `tally` under test.
///
/// # Panics
/// Says how to build it when there is none.
pub fn worker_bin() -> PathBuf {
    let named = std::env::var_os("TALLY_WORKER_BIN").map(PathBuf::from);
    let path = named.unwrap_or_else(|| tally_bin().with_file_name("tally-worker"));
    assert!(
        path.is_file(),
        "no {}: build it with `cargo build --release --workspace --bins`",
        path.display()
    );
    path
}
