//! A real Consul agent on loopback, for a test: started, waited for, stopped, started again, killed at the end.
//!
//! Not here: a client of Consul. This module uses just enough HTTP to see that the agent is ready, so that the code
//! under test takes no part in the setup.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::Missing;
use crate::ports::{self, Port};
use crate::wait::wait_for;

/// Timeout until an agent has a leader and knows its own node.
const READY: Duration = Duration::from_secs(60);
/// How often other ports are tried when another process took ours between choosing and using them.
const TRIES: usize = 5;
const NODE: &str = "test-node";

/// The kind of agent. The default is `consul agent -dev`: everything in memory.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// A server that keeps its data across [`ConsulAgent::restart`]; a `-dev` agent restarts empty.
    pub durable: bool,
    /// Opens a port for HTTPS besides the one for HTTP; `config` names the certificates.
    pub https: bool,
    /// Configuration that is merged over the agent's own.
    pub config: Value,
    /// The token that can read the node, if ACLs are on.
    pub token: Option<String>,
}

/// The default policy in tests of ACLs: every request needs a token.
pub fn closed(master: &str) -> Value {
    crate::secrets::register(master);
    json!({ "acl": { "enabled": true, "default_policy": "deny", "tokens": { "master": master } } })
}

/// A token of Consul's ACLs.
#[derive(Clone, Debug)]
pub struct AclToken {
    accessor: String,
    /// The secret that is sent.
    pub secret: String,
}

/// An agent that runs or was stopped by a test. Dropping it kills the process and removes its folder.
#[derive(Debug)]
pub struct ConsulAgent {
    setup: Setup,
    bin: PathBuf,
    dir: TempDir,
    /// The ports for HTTP, HTTPS, the server and its gossip.
    ports: [Port; 4],
    child: Option<Child>,
}

impl ConsulAgent {
    /// Starts an agent and waits until it is ready.
    ///
    /// # Errors
    /// [`Missing`] if Consul is not installed. It does not start, or is not ready in time; the message holds the end of
    /// its log.
    pub fn start(setup: Setup) -> Result<Self> {
        let missing = "no consul on PATH and none in CONSUL_BIN; `tests/tools/consul` finds one";
        let bin = consul_bin().ok_or_else(|| Missing(missing.into()))?;
        let dir = TempDir::with_prefix("consul-")?;
        let ports = ports::free(&[])?;
        let mut agent = Self { setup, bin, dir, ports, child: None };
        for _ in 1..TRIES {
            match agent.run() {
                Err(_) if agent.log().contains("address already in use") => agent.ports = ports::free(&[])?,
                result => return result.map(|()| agent),
            }
        }
        agent.run().map(|()| agent)
    }

    /// `127.0.0.1:port` of the HTTP API.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0].number)
    }

    /// `localhost:port` of the HTTPS API, if [`Setup::https`] is set.
    pub fn https_address(&self) -> String {
        format!("localhost:{}", self.ports[1].number)
    }

    /// The URL of the API: HTTPS if [`Setup::https`] is set.
    pub fn url(&self) -> String {
        match self.setup.https {
            true => format!("https://{}", self.https_address()),
            false => format!("http://{}", self.address()),
        }
    }

    /// A request that changes something.
    ///
    /// # Errors
    /// The agent refuses it.
    pub fn put(&self, path: &str) -> Result<()> {
        ask(&self.address(), &format!("PUT {path}"), self.setup.token.as_deref(), "").map(drop)
    }

    /// A new token with these rules, if ACLs are on. Its policy is called `name`.
    ///
    /// # Errors
    /// The agent refuses it.
    pub fn make_token(&self, name: &str, rules: &str) -> Result<AclToken> {
        let put = |path: &str, body: Value| {
            let what = format!("PUT {path}");
            let answer = ask(&self.address(), &what, self.setup.token.as_deref(), &body.to_string())?;
            let (_, body) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
            Ok::<Value, anyhow::Error>(serde_json::from_str(body)?)
        };
        put("/v1/acl/policy", json!({ "Name": name, "Rules": rules }))?;
        let made = put("/v1/acl/token", json!({ "Policies": [{ "Name": name }] }))?;
        let text = |key: &str| made[key].as_str().map(str::to_owned).context("a token without ids");
        let token = AclToken { accessor: text("AccessorID")?, secret: text("SecretID")? };
        crate::secrets::register(&token.secret);
        Ok(token)
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// The agent refuses it.
    pub fn delete_token(&self, token: &AclToken) -> Result<()> {
        let what = format!("DELETE /v1/acl/token/{}", token.accessor);
        ask(&self.address(), &what, self.setup.token.as_deref(), "").map(drop)
    }

    /// Kills the process at once, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended on its own.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Restarts the agent, on its old ports and with its data if it is durable.
    ///
    /// # Errors
    /// As [`ConsulAgent::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        self.run()
    }

    /// Freezes the process: connections stay open, without answers.
    ///
    /// # Errors
    /// It does not run.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen process continue.
    ///
    /// # Errors
    /// It does not run.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// The agent's log since its last start.
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
        let [http, https, server, serf] = self.ports.each_ref().map(|port| port.number);
        let https = if self.setup.https { i32::from(https) } else { off };
        let mut config = json!({
            "node_name": NODE,
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "disable_update_check": true,
            "performance": { "raft_multiplier": 1 },
            "ports": {
                "http": http, "https": https, "server": server,
                "serf_lan": serf, "serf_wan": off, "dns": off, "grpc": off,
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
                ask(&address, &format!("GET {path}"), token.as_deref(), "")
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

fn ask(address: &str, what: &str, token: Option<&str>, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let token = token.map(|token| format!("X-Consul-Token: {token}\r\n")).unwrap_or_default();
    write!(stream, "{what} HTTP/1.0\r\n{token}Content-Length: {}\r\n\r\n{body}", body.len())?;
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
