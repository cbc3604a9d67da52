//! A whole cluster of real processes on loopback: coordinators, workers, Consul where a test wants it, and proxies
//! between them that a test can cut. Everything ends with the test.
//!
//! Here: starting and ending it, and what must be left of it: nothing. `server` is one process, `proxy` a way that can
//! be cut, `client` the cluster as its users see it, `view` what it says, `truth` what is right, `faults` what can be
//! done to it. Not here: any test.

pub mod client;
pub mod faults;
pub mod nodes;
pub mod proxy;
pub mod server;
pub mod truth;
pub mod view;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow, ensure};
use tempfile::TempDir;

use crate::consul::ConsulAgent;
use crate::harness::Missing;
use crate::output::snapshot;
use crate::pki::Pki;
use client::{Client, DEADLINE};
use nodes::{Coordinator, QUICK, Worker};
use proxy::Network;
use server::tail;

/// Bytes that a worker without any job may have in use.
const IDLE_BYTES: u64 = 32 << 20;
/// Lines of each log that a failure shows.
const SHOWN: usize = 60;

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// One, or several that elect a leader through Consul.
    pub coordinators: usize,
    pub workers: usize,
    /// Whether everybody meets through a real Consul.
    pub consul: bool,
    /// Whether there is a proxy on each worker's way to the coordinator, before each worker's outputs, and on each
    /// coordinator's way to Consul.
    pub proxied: bool,
    /// The memory limit of each worker.
    pub worker_memory: &'static str,
    /// The folder of the binaries that first lives run, where these are not those under test.
    pub before: Option<PathBuf>,
    /// The certificates that everybody has, where they speak TLS.
    pub tls: Option<Arc<Mutex<Pki>>>,
    /// Flags that every coordinator gets beside the usual.
    pub coordinator_flags: Vec<&'static str>,
    /// Flags that every worker gets beside the usual.
    pub worker_flags: Vec<&'static str>,
    /// What all processes find in their environment.
    pub environment: Vec<(&'static str, String)>,
    /// The coordinators' state directory, where it is not a folder of the cluster's.
    pub state_dir: Option<String>,
}

impl Setup {
    /// The default, with a coordinator that gives up on its workers sooner; see [`QUICK`].
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
}

impl Default for Setup {
    /// One coordinator and three workers, with the timeouts that users get.
    fn default() -> Self {
        Self {
            coordinators: 1,
            workers: 3,
            consul: false,
            proxied: false,
            worker_memory: "256MiB",
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

/// Runs `scenario` on a cluster of its own and checks that nothing of it is left.
///
/// # Errors
/// [`Missing`] where there is no Consul and the scenario needs one. Those of the scenario, with the ends of all logs.
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
    /// [`Missing`] where there is no Consul and it is wanted. A process does not start, with the ends of all logs.
    pub fn start(setup: Setup) -> Result<Self> {
        let durable = || crate::consul::Setup { durable: true, ..Default::default() };
        let consul = setup.consul.then(|| ConsulAgent::start(durable())).transpose()?;
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

    /// One coordinator more.
    ///
    /// # Errors
    /// It does not start.
    pub fn add_coordinator(&mut self) -> Result<&mut Coordinator> {
        let at = self.coordinators.len();
        let node = Coordinator::start(at, self.dir.path(), &self.setup, self.consul.as_ref(), &self.network)?;
        self.coordinators.push(node);
        Ok(&mut self.coordinators[at])
    }

    /// One worker more; it is not waited for.
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

    /// What processes are given that are started from now on.
    pub fn setup(&mut self) -> &mut Setup {
        &mut self.setup
    }

    /// The cluster as its users see it.
    pub fn client(&self) -> Client {
        match &self.consul {
            Some(consul) => {
                let mut flags = vec!["--consul".into(), format!("http://{}", consul.address())];
                flags.extend(self.setup.tls_flags("operator"));
                Client::new(flags)
            }
            None => self.direct_client(),
        }
    }

    /// A client that knows the coordinators' addresses, whether or not there is a Consul.
    pub fn direct_client(&self) -> Client {
        let known: Vec<_> = self.coordinators.iter().map(|node| node.address().to_string()).collect();
        let mut flags = vec!["--coordinator".into(), known.join(",")];
        flags.extend(self.setup.tls_flags("operator"));
        Client::new(flags)
    }

    /// What the coordinators count, summed up: only a leader tells of jobs and workers.
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
    /// They are not in time.
    pub fn wait_attached(&mut self, count: usize) -> Result<()> {
        self.check_no_crash()?;
        let attached = self.client().wait_for_workers(&format!("{count} attached workers"), |workers| {
            workers.len() == count && workers.iter().all(|worker| worker.state == "attached")
        });
        self.check_no_crash()?;
        attached.map(drop)
    }

    /// Checks that no process ended in any way but by the test's hand, and that none panicked.
    ///
    /// # Errors
    /// Names it.
    pub fn check_no_crash(&mut self) -> Result<()> {
        let coordinators = self.coordinators.iter_mut().map(|node| &mut node.process);
        for process in coordinators.chain(self.workers.iter_mut().map(|node| &mut node.process)) {
            process.check_no_crash()?;
        }
        for log in self.log_files()? {
            let said = std::fs::read_to_string(&log)?;
            ensure!(!said.contains("panicked at"), "a panic is in {}", log.display());
        }
        Ok(())
    }

    /// Waits until no worker keeps anything: no output, no file, and of its memory's limit no more than what slots keep
    /// for their next task.
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

    /// The files in the spill folders of workers that were not killed. What goes while it is looked at is not among them.
    ///
    /// # Errors
    /// A folder cannot be listed.
    pub fn spilled(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for worker in self.workers.iter().filter(|worker| !worker.killed) {
            let mut folders = vec![worker.spill.clone()];
            while let Some(folder) = folders.pop() {
                let entries = match std::fs::read_dir(&folder) {
                    Err(error) if error.kind() == ErrorKind::NotFound && folder != worker.spill => continue,
                    entries => entries.with_context(|| format!("listing {}", folder.display()))?,
                };
                for entry in entries {
                    let entry = entry?;
                    if entry.file_type()?.is_dir() {
                        folders.push(entry.path());
                    } else if entry.file_name() != ".lock" {
                        // A living worker's folder has its lock.
                        found.push(entry.path());
                    }
                }
            }
        }
        Ok(found)
    }

    /// Bytes in these files. One that goes meanwhile counts nothing.
    ///
    /// # Errors
    /// A folder cannot be listed.
    pub fn spilled_bytes(&self) -> Result<u64> {
        Ok(self.spilled()?.iter().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum())
    }

    /// Ends all processes as their users would, and checks that they go well and that nothing is left.
    ///
    /// # Errors
    /// Names what is.
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

    /// The ends of all logs, of processes that are gone too.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for file in self.log_files().unwrap_or_default() {
            let log = String::from_utf8_lossy(&std::fs::read(&file).unwrap_or_default()).into_owned();
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            text += &format!("--- {name}\n{}", tail(&log, SHOWN));
        }
        text
    }

    /// The folder under which everything of the cluster lies.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The coordinators' state folder.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }
}
