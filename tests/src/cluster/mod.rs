//! A whole cluster of real processes on loopback: coordinators, workers, Consul if a test needs it, and proxies between
//! them that a test can cut. All processes end with the test.
//!
//! Here: starting and stopping the cluster, and the check that nothing is left. `server` is one process, `proxy` a
//! connection that can be cut, `client` the cluster as its users see it, `view` what it reports, `truth` the expected
//! result, `faults` the faults that tests inject. Not here: any test.

pub mod client;
pub mod faults;
pub mod nodes;
pub mod proxy;
pub mod server;
pub mod truth;
pub mod view;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow, ensure};
use tempfile::TempDir;

use crate::consul::ConsulAgent;
use crate::harness::Missing;
use crate::output::snapshot;
use crate::pki::Pki;
use crate::secrets;
use client::{Client, DEADLINE};
use nodes::{Coordinator, QUICK, Worker};
use proxy::Network;
use server::tail;

/// Bytes that a worker without any job may use.
const IDLE_BYTES: u64 = 32 << 20;
/// Lines of each log that a failure shows.
const SHOWN: usize = 60;

/// The setup of a cluster.
#[derive(Clone, Debug)]
pub struct Setup {
    /// One, or several that elect a leader through Consul.
    pub coordinators: usize,
    pub workers: usize,
    /// Whether processes find each other through a real Consul.
    pub consul: bool,
    /// The kind of Consul agent.
    pub consul_setup: crate::consul::Setup,
    /// Flags that every client of Consul gets besides its address, including users' commands.
    pub consul_flags: Vec<String>,
    /// Whether there is a proxy between each worker and the coordinator, before each worker's outputs, and between each
    /// coordinator and Consul.
    pub proxied: bool,
    /// The slots of each worker.
    pub worker_slots: &'static str,
    /// The memory limit of each worker.
    pub worker_memory: &'static str,
    /// The binaries under test, if these are not Tally's own.
    pub bins: Option<Bins>,
    /// The folder of the binaries that first incarnations run, if these are not those under test.
    pub before: Option<PathBuf>,
    /// The certificates of all processes, if they use TLS.
    pub tls: Option<Arc<Mutex<Pki>>>,
    /// Flags that every coordinator gets besides the usual ones.
    pub coordinator_flags: Vec<&'static str>,
    /// Flags that every worker gets besides the usual ones.
    pub worker_flags: Vec<&'static str>,
    /// The environment of all processes.
    pub environment: Vec<(&'static str, String)>,
    /// The coordinators' state directory, if it is not a folder of the cluster.
    pub state_dir: Option<String>,
}

/// Binaries that take the arguments of `tally` and of `tally-worker`.
#[derive(Clone, Debug)]
pub struct Bins {
    pub tally: PathBuf,
    pub worker: PathBuf,
}

impl Setup {
    /// The default, with a coordinator that declares workers lost sooner; see [`QUICK`].
    pub fn quick() -> Self {
        Self { coordinator_flags: QUICK.to_vec(), ..Self::default() }
    }

    /// The flags of a process of that role.
    pub(super) fn tls_flags(&self, role: &str) -> Vec<String> {
        let pki = self.tls.as_ref().and_then(|pki| pki.lock().ok());
        let Some(pki) = pki else { return Vec::new() };
        let mut flags = pki.flags(role);
        if role == "coordinator" {
            flags.extend(["--tokens-file".into(), pki.tokens().to_string_lossy().into_owned()]);
        }
        flags
    }

    /// The file of tokens, if processes use TLS.
    pub(super) fn tokens_file(&self) -> Option<String> {
        let pki = self.tls.as_ref()?.lock().ok()?;
        Some(pki.tokens().to_string_lossy().into_owned())
    }
}

impl Default for Setup {
    /// One coordinator and three workers, with the default timeouts.
    fn default() -> Self {
        Self {
            coordinators: 1,
            workers: 3,
            consul: false,
            consul_setup: crate::consul::Setup { durable: true, ..Default::default() },
            consul_flags: Vec::new(),
            proxied: false,
            worker_slots: "1",
            worker_memory: "256MiB",
            bins: None,
            before: None,
            tls: None,
            coordinator_flags: Vec::new(),
            worker_flags: Vec::new(),
            environment: Vec::new(),
            state_dir: None,
        }
    }
}

/// A running cluster.
pub struct Cluster {
    pub coordinators: Vec<Coordinator>,
    pub workers: Vec<Worker>,
    pub consul: Option<ConsulAgent>,
    setup: Setup,
    network: Network,
    dir: TempDir,
}

/// Runs `scenario` on a cluster of its own and checks that nothing is left of it.
///
/// # Errors
/// [`Missing`] if the scenario needs Consul and it is not installed. Those of the scenario, with the ends of all logs.
pub fn with_cluster(setup: Setup, scenario: impl FnOnce(&mut Cluster) -> Result<()>) -> Result<()> {
    let mut cluster = Cluster::start(setup)?;
    let done = scenario(&mut cluster).and_then(|()| cluster.end());
    done.map_err(|error| match error.is::<Missing>() {
        true => error,
        false => anyhow!("{error:?}\n{}", cluster.logs()),
    })
}

impl Cluster {
    /// Starts all processes and waits until the workers are attached.
    ///
    /// # Errors
    /// [`Missing`] if Consul is needed and not installed. A process does not start; the message has the ends of all logs.
    pub fn start(setup: Setup) -> Result<Self> {
        let consul = setup.consul.then(|| ConsulAgent::start(setup.consul_setup.clone())).transpose()?;
        let dir = tempfile::Builder::new().prefix("tally cluster ").tempdir()?;
        for name in ["logs", "state"] {
            std::fs::create_dir(dir.path().join(name))?;
        }
        let (coordinators, workers) = (Vec::new(), Vec::new());
        let network = Network::new()?;
        let mut cluster = Self { coordinators, workers, consul, setup, network, dir };
        match cluster.start_all() {
            Ok(()) => Ok(cluster),
            Err(error) => Err(anyhow!("{error:?}\n{}", cluster.logs())),
        }
    }

    fn start_all(&mut self) -> Result<()> {
        for _ in 0..self.setup.coordinators {
            self.add_coordinator()?;
        }
        for _ in 0..self.setup.workers {
            self.add_worker()?;
        }
        self.wait_attached(self.setup.workers)
    }

    /// Adds a coordinator.
    ///
    /// # Errors
    /// It does not start.
    pub fn add_coordinator(&mut self) -> Result<&mut Coordinator> {
        let at = self.coordinators.len();
        let node = Coordinator::start(at, self.dir.path(), &self.setup, self.consul.as_ref(), &self.network)?;
        self.coordinators.push(node);
        Ok(&mut self.coordinators[at])
    }

    /// Adds a worker, without waiting for it.
    ///
    /// # Errors
    /// It does not start.
    pub fn add_worker(&mut self) -> Result<&mut Worker> {
        let at = self.workers.len();
        let leader = self.coordinators[0].address();
        let (dir, consul) = (self.dir.path(), self.consul.as_ref());
        self.workers.push(Worker::start(at, dir, &self.setup, consul, leader, &self.network)?);
        Ok(&mut self.workers[at])
    }

    /// What processes get that are started from now on.
    pub fn setup(&mut self) -> &mut Setup {
        &mut self.setup
    }

    /// The cluster as its users see it.
    pub fn client(&self) -> Client {
        match &self.consul {
            Some(consul) => {
                let mut flags = vec!["--consul".into(), consul.url()];
                flags.extend(self.setup.consul_flags.iter().cloned());
                flags.extend(self.setup.tls_flags("operator"));
                Client::new(flags)
            }
            None => self.direct_client(),
        }
    }

    /// A client that uses the coordinators' addresses, with or without Consul.
    pub fn direct_client(&self) -> Client {
        let known: Vec<_> = self.coordinators.iter().map(|node| node.address().to_string()).collect();
        let mut flags = vec!["--coordinator".into(), known.join(",")];
        flags.extend(self.setup.tls_flags("operator"));
        Client::new(flags)
    }

    /// The sum of the coordinators' metrics: only a leader reports jobs and workers.
    ///
    /// # Errors
    /// One of them does not answer.
    pub fn metrics(&self) -> Result<BTreeMap<String, f64>> {
        let mut sum = BTreeMap::new();
        for node in &self.coordinators {
            for (name, value) in crate::http::metrics(node.http()?)? {
                *sum.entry(name).or_insert(0.0) += value;
            }
        }
        Ok(sum)
    }

    /// Waits until so many workers are attached, neither lost nor leaving, and no others are known.
    ///
    /// # Errors
    /// The workers are not attached in time.
    pub fn wait_attached(&mut self, count: usize) -> Result<()> {
        self.check_no_crash()?;
        let attached = self.client().wait_for_workers(&format!("{count} attached workers"), |workers| {
            workers.len() == count && workers.iter().all(|worker| worker.state == "attached")
        });
        self.check_no_crash()?;
        attached.map(drop)
    }

    /// Checks that every process still runs or was ended by the test, that none panicked, and that none logged a
    /// secret.
    ///
    /// # Errors
    /// Names the process.
    pub fn check_no_crash(&mut self) -> Result<()> {
        let coordinators = self.coordinators.iter_mut().map(|node| &mut node.process);
        for process in coordinators.chain(self.workers.iter_mut().map(|node| &mut node.process)) {
            process.check_no_crash()?;
        }
        for log in self.log_files()? {
            let said = std::fs::read_to_string(&log)?;
            ensure!(!said.contains("panicked at"), "a panic is in {}", log.display());
            secrets::check(&log.display().to_string(), &said)?;
        }
        Ok(())
    }

    /// Waits until no worker keeps anything: no output, no file, and at most the memory that slots keep for their next
    /// task.
    ///
    /// # Errors
    /// Something is left.
    pub fn wait_empty(&self) -> Result<()> {
        let client = self.client();
        client.wait_for_workers("workers without outputs", |workers| {
            workers.iter().all(|worker| worker.outputs == 0 && worker.running == 0)
        })?;
        client.wait_for_workers("workers that gave their memory back", |workers| {
            workers.iter().all(|worker| worker.memory_used <= IDLE_BYTES)
        })?;
        crate::wait::wait_for("empty spill folders", DEADLINE, || {
            Ok(self.spilled()?.is_empty().then_some(()))
        })
        .with_context(|| format!("these are left: {:?}", self.spilled()))
    }

    /// The files in the spill folders of workers that were not killed, without files that are removed during the listing.
    ///
    /// # Errors
    /// A folder cannot be listed.
    pub fn spilled(&self) -> Result<Vec<PathBuf>> {
        let live = self.workers.iter().filter(|worker| !worker.killed);
        Ok(live.map(Worker::spilled).collect::<Result<Vec<_>>>()?.concat())
    }

    /// Ends all processes as users do, and checks that they exit cleanly and that nothing is left.
    ///
    /// # Errors
    /// Names what is left.
    pub fn end(&mut self) -> Result<()> {
        self.check_no_crash()?;
        self.wait_empty()?;
        for worker in self.workers.iter_mut().filter(|worker| !worker.killed) {
            worker.process.ended()?.map_or_else(|| worker.process.terminate(), |_| Ok(()))?;
        }
        for worker in self.workers.iter_mut().filter(|worker| !worker.killed) {
            worker.process.wait_done(DEADLINE)?;
            let left: Vec<_> = snapshot(&worker.spill)?.into_keys().collect();
            ensure!(left.is_empty(), "{} left {left:?} in its spill folder", worker.process.name());
        }
        for node in &mut self.coordinators {
            if node.process.ended()?.is_none() {
                node.process.terminate()?;
                node.process.wait_done(DEADLINE)?;
            }
        }
        self.check_no_crash()
    }

    fn log_files(&self) -> Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(self.dir.path().join("logs"))?;
        let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        files.sort();
        Ok(files)
    }

    /// The ends of all logs, including those of ended processes.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for file in self.log_files().unwrap_or_default() {
            let log = String::from_utf8_lossy(&std::fs::read(&file).unwrap_or_default()).into_owned();
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            text += &format!("--- {name}\n{}", tail(&log, SHOWN));
        }
        text
    }

    /// The folder that contains all files of the cluster.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The coordinators' state folder.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }
}
