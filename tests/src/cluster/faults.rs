//! Faults of a cluster, each injected at a moment of a job: every fault is bounded, and its moment is a condition of
//! the job, never a duration. Not here: what must hold afterwards.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::Cluster;
use super::client::{DEADLINE, Submitted};
use super::proxy::Proxy;
use super::server::Server;
use super::view::{JobView, WorkerView};
use crate::output::Place;
use crate::wait::{PATIENT, wait_every, wait_for};

/// A moment of a job.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Moment {
    /// This share of the tasks of this stage is done, but not all of them.
    Stage(&'static str, f64),
    /// The decision to publish is in the journal; the day is being exchanged, or was exchanged moments ago.
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

/// The phases of a job, in order.
const PHASES: [&str; 5] = ["plan", "map", "reduce", "write", "publish"];
/// How long the workers run between two polls while the moment is far, and while it may be near: less than a task
/// takes, so that no stage is missed, even on a fast machine.
const STRIDE: Duration = Duration::from_millis(5);
const STEP: Duration = Duration::from_millis(1);
/// A coordinator publishes the state of its jobs at least this often.
const SHOWN: Duration = Duration::from_millis(50);

/// How often a job is submitted until it is held.
const TRIES: usize = 20;
/// The exit codes of `tally submit` when its job is done, and when it was cancelled.
const DONE: i32 = 0;
const CANCELLED: i32 = 3;

/// A job whose workers are frozen.
enum Held {
    There(JobView),
    /// It went past the moment.
    Passed(JobView),
}
/// The bytes of a record before its message, and the first byte of a message that is a decision to publish.
const RECORD_HEAD: usize = 36;
const COMMITTED: u8 = 6 << 3 | 2;

fn place(phase: &str) -> usize {
    PHASES.iter().position(|name| *name == phase).unwrap_or(PHASES.len())
}

impl Moment {
    /// The stage of the moment, or the one before it.
    fn stage(self) -> &'static str {
        match self {
            Moment::Stage(name, _) => name,
            Moment::Committed => "write",
        }
    }

    /// Whether the job is at the moment, as far as this can be observed.
    fn is_now(self, job: &JobView) -> bool {
        match self {
            Moment::Stage(name, share) => job.stages.iter().any(|stage| {
                let there = stage.name == name && job.phase == name && stage.tasks > 0;
                there && stage.done as f64 >= share * stage.tasks as f64 && stage.done < stage.tasks
            }),
            Moment::Committed => job.phase == "write",
        }
    }
}

impl Cluster {
    /// Submits a job and lets it run, step by step, to the moment. All workers then stay frozen while the test acts;
    /// [`Cluster::release_but`] lets the job continue. Takes far less than any timeout of the cluster.
    ///
    /// A machine that does not run the test for a while lets the job pass the moment. It is then cancelled, and submitted
    /// again. If it was too late to cancel it, the day of the place is already published.
    ///
    /// # Errors
    /// The job fails, or passes the moment each time.
    pub fn submit_held(
        &mut self,
        root: &Path,
        place: &Place,
        flags: &[&str],
        moment: Moment,
    ) -> Result<(Submitted, JobView)> {
        let mut passed = Vec::new();
        while passed.len() < TRIES {
            self.freeze_workers()?;
            let job = self.client().submit(root, place, flags)?;
            match self.hold(&job.id, moment).with_context(|| format!("holding the job at {moment}"))? {
                Held::There(view) => return Ok((job, view)),
                Held::Passed(view) => passed.push(view),
            }
            self.give_up(job)?;
        }
        bail!("the job went past {moment} each time: {passed:?}")
    }

    /// Cancels a job, unless it is already being published, and waits until it is over.
    fn give_up(&mut self, job: Submitted) -> Result<()> {
        let cancelled = self.client().tally("cancel").args([&job.id]).run()?;
        self.release()?;
        let outcome = job.ended()?;
        let ended = matches!(outcome.code(), Some(DONE | CANCELLED));
        ensure!(ended, "the job could not be cancelled\n{cancelled}\n{outcome}");
        self.wait_empty()
    }

    /// The same for a running job; the workers are already frozen.
    fn hold(&mut self, job: &str, moment: Moment) -> Result<Held> {
        let client = self.client();
        let passed = wait_for(&moment.to_string(), DEADLINE, || {
            let seen = client.job(job)?;
            ensure!(!seen.is_over() || seen.state == "done", "the job is over: {seen:?}");
            if seen.is_over() || place(&seen.phase) > place(moment.stage()) {
                return Ok(Some(Some(seen)));
            }
            if moment.is_now(&seen) {
                return Ok(Some(None));
            }
            let near = place(&seen.phase) + 1 >= place(moment.stage());
            self.step(if near { STEP } else { STRIDE })?;
            Ok(None)
        })?;
        if let Some(seen) = passed {
            return Ok(Held::Passed(seen));
        }
        if moment == Moment::Committed {
            self.each_worker(Server::thaw)?;
            let record = self.wait_committed();
            self.freeze_workers()?;
            record?;
            return Ok(Held::There(client.job(job)?));
        }
        let held = self.settled(job)?;
        Ok(if moment.is_now(&held) { Held::There(held) } else { Held::Passed(held) })
    }

    /// Lets the workers run for a moment.
    fn step(&mut self, span: Duration) -> Result<()> {
        self.each_worker(Server::thaw)?;
        std::thread::sleep(span);
        self.freeze_workers()
    }

    /// Freezes all running workers.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn freeze_workers(&mut self) -> Result<()> {
        self.each_worker(Server::freeze)
    }

    fn each_worker(&mut self, act: impl Fn(&mut Server) -> Result<()>) -> Result<()> {
        for worker in &mut self.workers {
            if worker.process.ended()?.is_none() {
                act(&mut worker.process)?;
            }
        }
        Ok(())
    }

    /// The state of a job whose workers are frozen, after all their messages are processed and shown.
    fn settled(&self, job: &str) -> Result<JobView> {
        let client = self.client();
        let mut last = client.job(job)?;
        let mut since = Instant::now();
        wait_for("a job that stands still", DEADLINE, || {
            let seen = client.job(job)?;
            if seen.stages != last.stages || seen.phase != last.phase {
                (last, since) = (seen, Instant::now());
            }
            Ok((since.elapsed() > SHOWN).then(|| last.clone()))
        })
    }

    /// Lets all remaining workers continue, except one that the fault has frozen.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn release_but(&mut self, fault: Fault) -> Result<()> {
        for (at, worker) in self.workers.iter_mut().enumerate() {
            if fault != Fault::FreezeWorker(at) && worker.process.ended()?.is_none() {
                worker.process.thaw()?;
            }
        }
        Ok(())
    }

    /// Lets all remaining workers continue.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn release(&mut self) -> Result<()> {
        self.each_worker(Server::thaw)
    }

    /// Polls without a pause until the job's decision to publish is in the journal: the next record of that kind, because
    /// only this job runs and it is already in the write stage.
    fn wait_committed(&self) -> Result<()> {
        let mut seen = self.newest_record()?;
        wait_every(Duration::ZERO, "the commit record", DEADLINE, || {
            let newest = self.newest_record()?;
            if newest == seen {
                return Ok(None);
            }
            seen = newest;
            let Some((epoch, number)) = newest else { return Ok(None) };
            let record = std::fs::read(self.state().join(format!("log/{epoch}/{number}")))?;
            Ok((record.get(RECORD_HEAD) == Some(&COMMITTED)).then_some(()))
        })
    }

    /// The newest record of the journal: its epoch, and its number in that epoch.
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
    /// No coordinator did, or one that the test does not know.
    pub fn leader(&self) -> Result<usize> {
        let epochs = numbered(&self.state().join("log"))?;
        // The folder of an epoch exists before its claim is written.
        let claim =
            |(_, folder): &(u64, PathBuf)| Some((folder.clone(), std::fs::read(folder.join("0")).ok()?));
        let (folder, claim) = epochs.iter().rev().find_map(claim).context("no coordinator ever led")?;
        let is_in = |address: &str| claim.windows(address.len()).any(|bytes| bytes == address.as_bytes());
        let found = self.coordinators.iter().position(|node| is_in(&node.address().to_string()));
        found.with_context(|| format!("{} was claimed by an unknown coordinator", folder.display()))
    }
}

/// The entries of a folder whose names are numbers, in order.
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

/// How a worker is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Drain {
    /// SIGTERM to its process.
    Signal,
    /// `tally worker drain`.
    Command,
}

/// A fault. The numbers are indexes into the lists of [`Cluster`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// kill -9 of one worker.
    KillWorker(usize),
    /// kill -9 of all workers.
    KillAllWorkers,
    /// A worker is asked to stop.
    DrainWorker(usize, Drain),
    /// SIGSTOP of one worker.
    FreezeWorker(usize),
    /// No worker reaches this worker's outputs.
    CutData(usize),
    /// The worker and the coordinator do not reach each other.
    CutControl(usize),
    /// The connection of a worker and the coordinator breaks, and can be opened again.
    BreakControl(usize),
    /// A coordinator and Consul do not reach each other.
    CutConsul(usize),
    /// kill -9 of a coordinator.
    KillCoordinator(usize),
    /// SIGTERM of a coordinator.
    EndCoordinator(usize),
    /// SIGSTOP of a coordinator.
    FreezeCoordinator(usize),
}

impl Cluster {
    /// Injects the fault. Workers that are frozen by [`Cluster::submit_held`] stay frozen.
    ///
    /// # Errors
    /// The process is in the wrong state for it.
    pub fn inject(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::KillWorker(at) => self.workers[at].kill(),
            Fault::KillAllWorkers => self.workers.iter_mut().try_for_each(|worker| worker.kill()),
            Fault::DrainWorker(at, Drain::Signal) => self.workers[at].process.terminate(),
            Fault::DrainWorker(at, Drain::Command) => self.drain_by_command(at),
            Fault::FreezeWorker(at) => self.workers[at].process.freeze(),
            Fault::CutData(at) => self.ways(at).map(|(_, data)| data.cut()),
            Fault::CutControl(at) => self.ways(at).map(|(control, _)| control.cut()),
            Fault::BreakControl(at) => self.ways(at).map(|(control, _)| control.break_connections()),
            Fault::CutConsul(at) => self.to_consul(at).map(Proxy::cut),
            Fault::KillCoordinator(at) => self.coordinators[at].process.kill(),
            Fault::EndCoordinator(at) => self.coordinators[at].process.terminate(),
            Fault::FreezeCoordinator(at) => self.coordinators[at].process.freeze(),
        }
    }

    /// Ends the fault: a process that ended is started again in its old folder, a frozen one continues, and a cut
    /// connection is healed.
    ///
    /// # Errors
    /// A process does not start, or did not end as expected.
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
            Fault::CutConsul(at) => self.to_consul(at).map(Proxy::heal),
            Fault::KillCoordinator(at) => self.coordinators[at].restart(),
            Fault::EndCoordinator(at) => {
                self.coordinators[at].process.wait_done(DEADLINE)?;
                self.coordinators[at].restart()
            }
            Fault::FreezeCoordinator(at) => self.coordinators[at].process.thaw(),
        }
    }

    /// `tally worker drain`, as soon as the worker is attached: after an earlier fault, the coordinator may consider it
    /// lost, and it may be about to return under another id.
    fn drain_by_command(&self, at: usize) -> Result<()> {
        let mut last = None;
        let drained = wait_every(PATIENT, "a worker that is asked to go", DEADLINE, || {
            let Ok(view) = self.worker_view(at) else { return Ok(None) };
            if view.state != "attached" {
                return Ok(None);
            }
            let asked = self.client().drain_command(&view.worker_id).run()?;
            let done = asked.code() == Some(0);
            last = Some(asked.to_string());
            Ok(done.then_some(()))
        });
        drained.with_context(|| format!("the last answer was {last:?}"))
    }

    /// What the coordinator knows about a worker.
    ///
    /// # Errors
    /// It knows no worker at that address.
    pub fn worker_view(&self, at: usize) -> Result<WorkerView> {
        let address = self.workers[at].address().to_string();
        let workers = self.client().workers()?;
        let found = workers.iter().find(|worker| worker.flight_address == address).cloned();
        found.with_context(|| format!("worker {at} at {address} is not among {workers:?}"))
    }

    fn to_consul(&self, at: usize) -> Result<&Proxy> {
        self.coordinators[at].consul.as_ref().context("the cluster has no proxies or no Consul")
    }

    /// The proxies to the coordinator and to the outputs of a worker.
    fn ways(&self, at: usize) -> Result<(&Proxy, &Proxy)> {
        let worker = &self.workers[at];
        worker.control.as_ref().zip(worker.data.as_ref()).context("the cluster has no proxies")
    }
}
