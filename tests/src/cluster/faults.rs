//! What can be done to a cluster, at which moment of a job: every fault is bounded, and its moment is a condition of
//! the job, never a span of time. Not here: what must hold afterwards.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Cluster;
use super::client::DEADLINE;
use super::proxy::Proxy;
use super::view::{JobView, WorkerView};
use crate::wait::wait_every;

/// A moment of a job.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Moment {
    /// This share of the tasks of this stage is done, and not all are.
    Stage(&'static str, f64),
    /// The decision to publish stands in the journal; the day is being exchanged, or just was.
    Committed,
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Moment::Stage(name, share) => write!(f, "{:.0} % of {name}", share * 100.0),
            Moment::Committed => write!(f, "the commit"),
        }
    }
}

/// Is this share of the tasks of stage `name` done, but not all?
fn within(job: &JobView, name: &str, share: f64) -> bool {
    let stage = job.stages.iter().find(|stage| stage.name == name);
    job.phase == name
        && stage.is_some_and(|stage| {
            stage.done as f64 >= share * stage.tasks as f64 && stage.done < stage.tasks && stage.tasks > 0
        })
}

impl Cluster {
    /// Waits for the moment and freezes all workers in it, so that the job stays there while the test does something
    /// to it; [`Cluster::release_but`] lets it go on. Takes far less time than any timeout of the cluster.
    ///
    /// # Errors
    /// The job went past the moment.
    pub fn hold(&mut self, job: &str, moment: Moment) -> Result<JobView> {
        let client = self.client();
        match moment {
            Moment::Stage(name, share) => {
                client.wait_for_job(job, &moment.to_string(), |job| within(job, name, share))?;
            }
            Moment::Committed => self.wait_committed(job)?,
        }
        for worker in &mut self.workers {
            if worker.process.ended()?.is_none() {
                worker.process.freeze()?;
            }
        }
        let held = client.job(job)?;
        if let Moment::Stage(name, _) = moment {
            let stage = held.stage(name)?;
            ensure!(stage.done < stage.tasks, "the job went past {moment}: {held:?}");
        }
        Ok(held)
    }

    /// Lets all workers that are left go on, but not one that the fault has frozen.
    ///
    /// # Errors
    /// The system refuses.
    pub fn release_but(&mut self, fault: Fault) -> Result<()> {
        for (at, worker) in self.workers.iter_mut().enumerate() {
            if fault != Fault::FreezeWorker(at) && worker.process.ended()?.is_none() {
                worker.process.thaw()?;
            }
        }
        Ok(())
    }

    /// Waits, as attentively as a process can, until the job's decision to publish lies in the journal.
    fn wait_committed(&self, job: &str) -> Result<()> {
        let client = self.client();
        client.wait_for_job(job, "the write stage", |job| job.phase == "write" || job.phase == "publish")?;
        let before = self.newest_record()?;
        wait_every(Duration::ZERO, "the commit record", DEADLINE, || {
            Ok((self.newest_record()? > before).then_some(()))
        })
    }

    /// The newest record of the journal: its epoch, and its number in it.
    fn newest_record(&self) -> Result<Option<(u64, u64)>> {
        let mut newest = None;
        for (epoch, folder) in numbered(&self.state().join("log"))? {
            newest = newest.max(numbered(&folder)?.last().map(|(number, _)| (epoch, *number)));
        }
        Ok(newest)
    }

    /// The coordinator that claimed the last epoch, according to the journal.
    ///
    /// # Errors
    /// None did, or one that the test does not know.
    pub fn leader(&self) -> Result<usize> {
        let epochs = numbered(&self.state().join("log"))?;
        let (_, folder) = epochs.last().context("no coordinator ever led")?;
        let claim = std::fs::read(folder.join("0"))?;
        let is_in = |address: &str| claim.windows(address.len()).any(|bytes| bytes == address.as_bytes());
        let found = self.coordinators.iter().position(|node| is_in(&node.address().to_string()));
        found.with_context(|| format!("{} was claimed by a stranger", folder.display()))
    }
}

/// The entries of a folder that are called by numbers, in their order.
fn numbered(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        found.extend(number.map(|number| (number, path)));
    }
    found.sort();
    Ok(found)
}

/// How a worker is asked to go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Drain {
    /// SIGTERM to its process.
    Signal,
    /// `tally worker drain`.
    Command,
}

/// Something that happens to processes. Numbers are places in the lists of [`Cluster`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// kill -9 of one worker.
    KillWorker(usize),
    /// kill -9 of all workers.
    KillAllWorkers,
    /// A worker is asked to go.
    DrainWorker(usize, Drain),
    /// SIGSTOP of one worker.
    FreezeWorker(usize),
    /// Nobody reaches this worker's outputs any more.
    CutData(usize),
    /// The worker and the coordinator do not reach each other any more.
    CutControl(usize),
    /// The connection of a worker and the coordinator breaks, and can be made anew.
    BreakControl(usize),
    /// kill -9 of a coordinator.
    KillCoordinator(usize),
    /// SIGTERM of a coordinator.
    EndCoordinator(usize),
    /// SIGSTOP of a coordinator.
    FreezeCoordinator(usize),
}

impl Cluster {
    /// Makes it happen. Workers that are frozen by [`Cluster::hold`] stay so.
    ///
    /// # Errors
    /// The process is not in the state for it.
    pub fn strike(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::KillWorker(at) => self.workers[at].kill(),
            Fault::KillAllWorkers => self.workers.iter_mut().try_for_each(|worker| worker.kill()),
            Fault::DrainWorker(at, Drain::Signal) => self.workers[at].process.terminate(),
            Fault::DrainWorker(at, Drain::Command) => {
                let id = self.worker_id(at)?;
                self.client().tally("worker").args(["drain", &id]).run()?.expect_code(0).map(drop)
            }
            Fault::FreezeWorker(at) => self.workers[at].process.freeze(),
            Fault::CutData(at) => self.ways(at).map(|(_, data)| data.cut()),
            Fault::CutControl(at) => self.ways(at).map(|(control, _)| control.cut()),
            Fault::BreakControl(at) => self.ways(at).map(|(control, _)| control.break_connections()),
            Fault::KillCoordinator(at) => self.coordinators[at].process.kill(),
            Fault::EndCoordinator(at) => self.coordinators[at].process.terminate(),
            Fault::FreezeCoordinator(at) => self.coordinators[at].process.freeze(),
        }
    }

    /// Ends the fault: what died or left is started again, in its old folder; what was frozen goes on; what was cut is
    /// whole.
    ///
    /// # Errors
    /// A process does not start, or did not end as it should.
    pub fn mend(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::KillWorker(at) => self.workers[at].restart(),
            Fault::KillAllWorkers => self.workers.iter_mut().try_for_each(|worker| worker.restart()),
            Fault::DrainWorker(at, _) => {
                self.workers[at].process.wait_done(DEADLINE)?;
                self.workers[at].restart()
            }
            Fault::FreezeWorker(at) => self.workers[at].process.thaw(),
            Fault::CutData(at) => self.ways(at).map(|(_, data)| data.heal()),
            Fault::CutControl(at) => self.ways(at).map(|(control, _)| control.heal()),
            Fault::BreakControl(_) => Ok(()),
            Fault::KillCoordinator(at) => self.coordinators[at].restart(),
            Fault::EndCoordinator(at) => {
                self.coordinators[at].process.wait_done(DEADLINE)?;
                self.coordinators[at].restart()
            }
            Fault::FreezeCoordinator(at) => self.coordinators[at].process.thaw(),
        }
    }

    /// The id under which the coordinator knows a worker.
    ///
    /// # Errors
    /// It knows none at that address.
    pub fn worker_id(&self, at: usize) -> Result<String> {
        Ok(self.worker_view(at)?.worker_id)
    }

    /// What the coordinator knows of a worker.
    ///
    /// # Errors
    /// It knows none at that address.
    pub fn worker_view(&self, at: usize) -> Result<WorkerView> {
        let address = self.workers[at].address().to_string();
        let workers = self.client().workers()?;
        let found = workers.iter().find(|worker| worker.flight_address == address).cloned();
        found.with_context(|| format!("worker {at} at {address} is not among {workers:?}"))
    }

    /// The ways to the coordinator and to the outputs of a worker.
    fn ways(&self, at: usize) -> Result<(&Proxy, &Proxy)> {
        let worker = &self.workers[at];
        worker.control.as_ref().zip(worker.data.as_ref()).context("the cluster has no proxies")
    }
}
