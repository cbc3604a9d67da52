//! A real Consul agent on loopback, for a test: started, waited for, stopped, started again, killed at the end.
//!
//! Not here: a client of Consul. This room speaks just enough HTTP to see that the agent is ready, so that whatever is
//! tested against it has no part in the set-up.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::Missing;
use crate::wait::wait_for;

/// How long an agent may take until it has a leader and knows its own node.
const READY: Duration = Duration::from_secs(60);
/// How often other ports are tried when somebody took ours between choosing and using them.
const TRIES: usize = 5;
const NODE: &str = "test-node";

/// What kind of agent is wanted. The default is `consul agent -dev`: everything in memory.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// A server that keeps its data over [`ConsulAgent::restart`]; a `-dev` agent comes back empty.
    pub durable: bool,
    /// Opens a port for HTTPS besides the one for HTTP; the certificates stand in `config`.
    pub https: bool,
    /// What is merged over the agent's own configuration.
    pub config: Value,
    /// The token that sees the node, where ACLs are on.
    pub token: Option<String>,
}

/// A running agent, or one that a test stopped. Dropping it kills the process and removes its folder.
#[derive(Debug)]
pub struct ConsulAgent {
    setup: Setup,
    bin: PathBuf,
    dir: TempDir,
    ports: Ports,
    child: Option<Child>,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    http: u16,
    https: u16,
    server: u16,
    serf: u16,
}

impl ConsulAgent {
    /// Starts an agent and waits until it can be used.
    ///
    /// # Errors
    /// [`Missing`] where there is no Consul. It does not start, or is not ready in time; the message holds the end of
    /// its log.
    pub fn start(setup: Setup) -> Result<Self> {
        let missing = "no consul on PATH and none in CONSUL_BIN; `tests/tools/consul` finds one";
        let bin = consul_bin().ok_or_else(|| Missing(missing.into()))?;
        let dir = TempDir::with_prefix("consul-")?;
        let ports = free_ports()?;
        let mut agent = Self { setup, bin, dir, ports, child: None };
        for _ in 1..TRIES {
            match agent.run() {
                Err(_) if agent.log().contains("address already in use") => agent.ports = free_ports()?,
                result => return result.map(|()| agent),
            }
        }
        agent.run().map(|()| agent)
    }

    /// `127.0.0.1:port` of the HTTP API.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.http)
    }

    /// `localhost:port` of the HTTPS API, where [`Setup::https`] asked for it.
    pub fn https_address(&self) -> String {
        format!("localhost:{}", self.ports.https)
    }

    /// A request that changes something.
    ///
    /// # Errors
    /// The agent refuses it.
    pub fn put(&self, path: &str) -> Result<()> {
        ask(&self.address(), &format!("PUT {path}"), self.setup.token.as_deref()).map(drop)
    }

    /// Kills the process at once, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts the agent again, on its old ports and with its data if it is durable.
    ///
    /// # Errors
    /// As [`ConsulAgent::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        self.run()
    }

    /// Freezes the process: connections stay, answers don't come.
    ///
    /// # Errors
    /// It does not run.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen process go on.
    ///
    /// # Errors
    /// It does not run.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// What the agent logged since its last start.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("consul.log")
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().context("the agent does not run")?;
        kill_process(Pid::from_child(child), signal)?;
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        let result = self.spawn().and_then(|()| self.wait_until_ready());
        if result.is_err() {
            self.kill();
        }
        result
            .with_context(|| format!("starting {}; its log ends: {}", self.bin.display(), tail(&self.log())))
    }

    fn spawn(&mut self) -> Result<()> {
        let base = self.dir.path().join("base.json");
        let extra = self.dir.path().join("extra.json");
        std::fs::write(&base, self.base_config().to_string())?;
        let config = if self.setup.config.is_null() { json!({}) } else { self.setup.config.clone() };
        std::fs::write(&extra, config.to_string())?;
        let log = File::create(self.log_path())?;
        let mut command = Command::new(&self.bin);
        command.arg("agent");
        if !self.setup.durable {
            command.arg("-dev");
        }
        command.args([OsStr::new("-config-file"), base.as_os_str()]);
        command.args([OsStr::new("-config-file"), extra.as_os_str()]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn()?);
        Ok(())
    }

    fn base_config(&self) -> Value {
        let off = -1;
        let https = if self.setup.https { i32::from(self.ports.https) } else { off };
        let mut config = json!({
            "node_name": NODE,
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "disable_update_check": true,
            "performance": { "raft_multiplier": 1 },
            "ports": {
                "http": self.ports.http, "https": https, "server": self.ports.server,
                "serf_lan": self.ports.serf, "serf_wan": off, "dns": off, "grpc": off,
            },
        });
        if self.setup.durable {
            config["server"] = true.into();
            config["bootstrap_expect"] = 1.into();
            config["data_dir"] = self.dir.path().join("data").to_string_lossy().into();
        }
        config
    }

    /// A leader alone is not enough: sessions and services need the node in the catalog.
    fn wait_until_ready(&mut self) -> Result<()> {
        let address = self.address();
        let token = self.setup.token.clone();
        let child = self.child.as_mut().context("the agent does not run")?;
        wait_for("Consul's leader and node", READY, || {
            if let Some(status) = child.try_wait()? {
                bail!("it ended with {status}");
            }
            let ready = |path: &str, sign: &str| {
                ask(&address, &format!("GET {path}"), token.as_deref())
                    .is_ok_and(|answer| answer.contains(sign))
            };
            let leads = ready("/v1/status/leader", "\"127.0.0.1:");
            let known = leads && ready(&format!("/v1/health/node/{NODE}?consistent"), "\"serfHealth\"");
            Ok(known.then_some(()))
        })
    }
}

impl Drop for ConsulAgent {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The binary in `CONSUL_BIN`, else the `consul` on `PATH`.
///
/// # Panics
/// When `CONSUL_BIN` names no file.
pub fn consul_bin() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("CONSUL_BIN").filter(|named| !named.is_empty()) {
        let path = PathBuf::from(named);
        assert!(path.is_file(), "CONSUL_BIN is {}, which is no file", path.display());
        return Some(path);
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("consul")).find(|file| file.is_file())
}

/// Ports that nobody uses at the moment; those of the server and of its gossip, which also speaks UDP, too.
fn free_ports() -> Result<Ports> {
    let mut held = Vec::new();
    for _ in 0..64 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        if UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            held.push((listener, port));
        }
        if let [(_, http), (_, https), (_, server), (_, serf)] = held[..] {
            return Ok(Ports { http, https, server, serf });
        }
    }
    bail!("no four ports on loopback are free for TCP and UDP")
}

fn ask(address: &str, what: &str, token: Option<&str>) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let token = token.map(|token| format!("X-Consul-Token: {token}\r\n")).unwrap_or_default();
    write!(stream, "{what} HTTP/1.0\r\n{token}Content-Length: 0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    Ok(answer)
}

fn tail(log: &str) -> &str {
    let skip = log.lines().count().saturating_sub(12);
    let from = log.split_inclusive('\n').take(skip).map(str::len).sum();
    log.get(from..).unwrap_or_default()
}
