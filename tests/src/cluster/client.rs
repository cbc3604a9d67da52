//! A cluster as its users see it: through `tally submit`, `tally job` and their like, as processes of their own.
//!
//! Not here: what the answers look like (`view`), which processes serve them (`mod`).

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;

use super::view::{EventView, JobList, JobView, WorkerList, WorkerView};
use crate::golden::DATE;
use crate::output::Place;
use crate::process::{Outcome, Running, Summary, Tally};
use crate::wait::{PATIENT, wait_every, wait_for};

/// Exit code of commands that found no leader.
pub const NO_LEADER: i32 = 5;
/// Exit code of a coordinator that stopped because another leads.
pub const DEPOSED: i32 = 20;
/// Timeout after which any step of a test counts as hung.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// How the leader is found: `--coordinator ADDRESS,...` or `--consul URL`.
#[derive(Clone, Debug)]
pub struct Client {
    flags: Vec<String>,
}

/// A job whose `tally submit` waits for its end.
pub struct Submitted {
    pub id: String,
    running: Running,
}

impl Submitted {
    /// Waits for the end of `tally submit`, which must report a successful job.
    ///
    /// # Errors
    /// It ends otherwise, or does not end.
    pub fn done(self) -> Result<Summary> {
        self.running.wait()?.summary()
    }

    /// The same, and `check` holds until then.
    ///
    /// # Errors
    /// `check` fails, the job ends otherwise, or it does not end.
    pub fn done_while(mut self, mut check: impl FnMut() -> Result<()>) -> Result<Summary> {
        wait_for("the end of the job", DEADLINE, || {
            check()?;
            Ok(self.running.ended()?.then_some(()))
        })?;
        self.done()
    }

    /// Waits for the end of `tally submit`, whatever the result.
    ///
    /// # Errors
    /// It does not end.
    pub fn ended(self) -> Result<Outcome> {
        self.running.wait()
    }
}

impl Client {
    /// A client that passes these flags to every command.
    pub fn new(flags: Vec<String>) -> Self {
        Self { flags }
    }

    /// `tally SUBCOMMAND` for this cluster.
    pub fn tally(&self, subcommand: &str) -> Tally {
        Tally::new(subcommand).args(&self.flags)
    }

    /// `tally worker drain` of this worker.
    pub fn drain_command(&self, worker: &str) -> Tally {
        Tally::new("worker").args(["drain"]).args(&self.flags).args(["--", worker])
    }

    /// `tally submit` of the golden date of the day under `root` into `place`, with JSON output.
    pub fn submit_command(&self, root: &Path, place: &Place, flags: &[&str]) -> Tally {
        self.submit_undated(root, place, flags).date(DATE)
    }

    /// The same without a date.
    pub fn submit_undated(&self, root: &Path, place: &Place, flags: &[&str]) -> Tally {
        let tables = [("--addons", root.join("addons/v2")), ("--main-summary", root.join("main_summary/v3"))];
        let mut command = self.tally("submit").args(["--output-format", "json"]).args(flags);
        for (flag, path) in tables.into_iter().chain([("--output", place.output())]) {
            command = command.args([flag.as_ref(), path.as_os_str()]);
        }
        command
    }

    /// Starts `tally submit` and waits until its job is listed.
    ///
    /// # Errors
    /// It ends before that.
    pub fn submit(&self, root: &Path, place: &Place, flags: &[&str]) -> Result<Submitted> {
        let mut running = self.submit_command(root, place, flags).spawn()?;
        let output = place.output().to_string_lossy().into_owned();
        let found = wait_every(PATIENT, "the job's id", DEADLINE, || {
            if let Some(job) = self.jobs()?.into_iter().find(|job| job.output == output && !job.is_over()) {
                return Ok(Some(Some(job.job_id)));
            }
            Ok(running.ended()?.then_some(None))
        })?;
        match found {
            Some(id) => Ok(Submitted { id, running }),
            None => bail!("tally submit ended before its job was seen\n{}", running.wait()?),
        }
    }

    /// `tally submit --detach`: the job's id.
    ///
    /// # Errors
    /// The coordinator refuses.
    pub fn submit_detached(&self, root: &Path, place: &Place, flags: &[&str]) -> Result<String> {
        #[derive(serde::Deserialize)]
        struct Detached {
            job_id: String,
        }
        let done = self.submit_command(root, place, flags).args(["--detach"]).run()?;
        Ok(parsed::<Detached>(done)?.job_id)
    }

    /// All jobs, newest first.
    ///
    /// # Errors
    /// No coordinator answers.
    pub fn jobs(&self) -> Result<Vec<JobView>> {
        Ok(parsed::<JobList>(self.tally("jobs").args(["--output-format", "json"]).run()?)?.jobs)
    }

    /// One job.
    ///
    /// # Errors
    /// No coordinator answers, or the job is unknown.
    pub fn job(&self, id: &str) -> Result<JobView> {
        parsed(self.tally("job").args([id, "--output-format", "json"]).run()?)
    }

    /// The events of a job, as `tally logs` prints them.
    ///
    /// # Errors
    /// No coordinator answers, or the job is unknown.
    pub fn events(&self, id: &str) -> Result<Vec<EventView>> {
        let done = self.tally("logs").args([id, "--output-format", "json"]).run()?.expect_code(0)?;
        let events = done.stdout.lines().map(|line| Ok(serde_json::from_str(line)?)).collect::<Result<_>>();
        events.with_context(|| format!("no JSON of the agreed form\n{done}"))
    }

    /// One job, if a leader answers at once.
    ///
    /// # Errors
    /// The job is unknown.
    pub fn job_if_led(&self, id: &str) -> Result<Option<JobView>> {
        let flags = [id, "--output-format", "json", "--connect-timeout", "200ms"];
        let outcome = self.tally("job").args(flags).run()?;
        if outcome.code() == Some(NO_LEADER) { Ok(None) } else { parsed(outcome).map(Some) }
    }

    /// All workers.
    ///
    /// # Errors
    /// No coordinator answers.
    pub fn workers(&self) -> Result<Vec<WorkerView>> {
        Ok(parsed::<WorkerList>(self.tally("workers").args(["--output-format", "json"]).run()?)?.workers)
    }

    /// Polls the job until `condition` holds for it, while coordinators stop and start.
    ///
    /// # Errors
    /// The job ends first, or the time is up.
    pub fn wait_for_job(
        &self,
        id: &str,
        what: &str,
        mut condition: impl FnMut(&JobView) -> bool,
    ) -> Result<JobView> {
        let mut last = None;
        let found = wait_every(PATIENT, what, DEADLINE, || {
            let Some(job) = self.job_if_led(id)? else { return Ok(None) };
            let holds = condition(&job);
            ensure!(holds || !job.is_over(), "the job was over before {what}: {job:?}");
            last = Some(job.clone());
            Ok(holds.then_some(job))
        });
        found.with_context(|| format!("the job was last seen as {last:?}"))
    }

    /// Waits for the job's end, whatever the result.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn wait_over(&self, id: &str) -> Result<JobView> {
        self.wait_for_job(id, "the end of the job", JobView::is_over)
    }

    /// Polls the workers until `condition` holds for them.
    ///
    /// # Errors
    /// Shows the last answer when the time is up.
    pub fn wait_for_workers(
        &self,
        what: &str,
        mut condition: impl FnMut(&[WorkerView]) -> bool,
    ) -> Result<Vec<WorkerView>> {
        let mut last = Vec::new();
        let found = wait_every(PATIENT, what, DEADLINE, || {
            last = self.workers()?;
            Ok(condition(&last).then(|| last.clone()))
        });
        found.with_context(|| format!("the workers were last seen as {last:?}"))
    }
}

/// The output of a command that succeeded.
fn parsed<T: DeserializeOwned>(outcome: Outcome) -> Result<T> {
    let done = outcome.expect_code(0)?;
    serde_json::from_str(&done.stdout).with_context(|| format!("no JSON of the agreed form\n{done}"))
}
