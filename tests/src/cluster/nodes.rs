//! The two kinds of process that a cluster is made of, with the options that a test gives them: coordinators and
//! workers, each with its log and its folder. Both can be started again after their end, where they were.
//!
//! Not here: signals and ends (`server`), how many there are (`mod`).

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::Setup;
use super::client::DEADLINE;
use super::proxy::{Network, Proxy};
use super::server::Server;
use crate::consul::ConsulAgent;
use crate::process::{clean, tally_bin};
use crate::wait::wait_for;

/// How long a process that was told to go may take.
pub const LEAVES: Duration = Duration::from_secs(30);
/// What processes log.
const LOG: &str = "info";
/// Flags that make a coordinator give up on its workers, and a new leader begin, sooner than users want: short enough
/// for a test, long enough for a busy machine. In milliseconds.
pub const QUICK: &[&str] = &["--worker-timeout", "4000", "--worker-grace", "1000", "--settle", "1000"];

/// A program, its flags, and where it tells its port and logs.
#[derive(Debug)]
struct Program {
    name: String,
    bin: PathBuf,
    /// What the first life runs instead.
    before: Option<PathBuf>,
    flags: Vec<OsString>,
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
        Self { bin, before, flags, port_file, http_file, logs: dir.join("logs"), lives: 0, name }
    }

    /// Starts it listening at `listen`; gives the process and the address that it got.
    fn start(&mut self, listen: &str, more: &[OsString]) -> Result<(Server, SocketAddr)> {
        // A port of the life before is none.
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
            .env("TALLY_WORKER_LOG", LOG)
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
    /// Where its health and metrics are.
    fn http(&self) -> Result<SocketAddr> {
        wait_for(&format!("the HTTP address of {}", self.name), DEADLINE, || {
            Ok(std::fs::read_to_string(&self.http_file).ok().and_then(|text| text.trim().parse().ok()))
        })
    }
}

/// A `tally coordinator`.
pub struct Coordinator {
    pub process: Server,
    /// The way to Consul, where the cluster is proxied.
    pub consul: Option<Proxy>,
    address: SocketAddr,
    program: Program,
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
        flags.push(dir.join("state").into());
        let mut way = None;
        if let Some(consul) = consul {
            let mut address = consul.address();
            if setup.proxied {
                let to_consul = network.proxy()?;
                to_consul.lead_to(address.parse()?);
                address = to_consul.address().to_string();
                way = Some(to_consul);
            }
            flags.extend(consul_flags(&address));
        }
        flags.extend(setup.tls_flags("coordinator").into_iter().map(OsString::from));
        flags.extend(setup.coordinator_flags.iter().map(OsString::from));
        let mut program = Program::new(format!("coordinator-{at}"), tally_bin(), flags, dir, setup);
        let (process, address) = program.start("127.0.0.1:0", &[])?;
        Ok(Self { process, consul: way, address, program })
    }

    /// Where it listens, in all of its lives.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its health and metrics are, in this life.
    ///
    /// # Errors
    /// It does not tell.
    pub fn http(&self) -> Result<SocketAddr> {
        self.program.http()
    }

    /// Starts it again after its end, at the same address and with the same state.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&mut self) -> Result<()> {
        (self.process, self.address) = self.program.start(&self.address.to_string(), &[])?;
        Ok(())
    }
}

fn consul_flags(address: &str) -> Vec<OsString> {
    words(["--consul", &format!("http://{address}")])
}

/// A `tally-worker` with one slot.
pub struct Worker {
    pub process: Server,
    /// Its spill folder, the same in all of its lives.
    pub spill: PathBuf,
    /// Whether its last life ended by `kill -9`, so that it had no chance to clear up.
    pub killed: bool,
    /// The way to the coordinator, where the cluster is proxied.
    pub control: Option<Proxy>,
    /// The way of others to its outputs, where the cluster is proxied.
    pub data: Option<Proxy>,
    address: SocketAddr,
    program: Program,
}

impl Worker {
    /// Starts one for the coordinator at `leader`.
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
        let mut flags = words(["--slots", "1", "--memory-limit", setup.worker_memory, "--spill-dir"]);
        flags.push(spill.clone().into());
        match consul {
            Some(consul) => flags.extend(consul_flags(&consul.address())),
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
        let mut program = Program::new(format!("worker-{at}"), worker_bin(), flags, dir, setup);
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

    /// Where others reach its outputs, as `tally workers` shows it.
    pub fn address(&self) -> SocketAddr {
        self.data.as_ref().map_or(self.address, Proxy::address)
    }

    /// Where its health and metrics are, in this life.
    ///
    /// # Errors
    /// It does not tell.
    pub fn http(&self) -> Result<SocketAddr> {
        self.program.http()
    }

    /// kill -9.
    ///
    /// # Errors
    /// It has ended before.
    pub fn kill(&mut self) -> Result<()> {
        self.killed = true;
        self.process.kill()
    }

    /// Starts it again after its end, with the same spill folder, as a new worker.
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
