//! The tasks of one incarnation: which attempts run, the inputs and options that they refer to, and the events to report.
//!
//! Not here: the run of a task and its output (the host).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tally_proto::convert::BadMessage;
use tally_proto::dataset_options::DatasetOptions;
use tally_proto::dispatch::{Dispatch, ReduceInputs};
use tally_proto::report::Report;
use tally_proto::{AttemptId, Failure, JobId, v1};
use tally_shuffle::error::TaskError;

use super::host::{HeldOutputs, TaskHost};
use super::inventory::{Pages, reportable};
use super::outbox::{Fact, Outbox};
use super::rules::Holdings;

/// See the module documentation.
pub struct Tasks {
    /// Started attempts whose end was not passed yet.
    running: BTreeSet<AttemptId>,
    /// Attempts that were running when an inventory listed their outputs. It reported their ends.
    listed: BTreeSet<AttemptId>,
    /// The inputs of reduce tasks by job, with their version: the latest ones received on this stream.
    inputs: HashMap<JobId, (u64, Arc<ReduceInputs>)>,
    /// The options of the datasets of jobs, received on this stream.
    options: HashMap<JobId, DatasetOptions>,
    /// Events that are not reported yet.
    pub outbox: Outbox,
}

impl Tasks {
    /// No task, and room for `max_unreported` events.
    pub fn new(max_unreported: usize) -> Self {
        Tasks {
            running: BTreeSet::new(),
            listed: BTreeSet::new(),
            inputs: HashMap::new(),
            options: HashMap::new(),
            outbox: Outbox::new(max_unreported),
        }
    }

    /// What would be lost if the worker exited now.
    pub fn holdings(&self, host: &dyn TaskHost) -> Holdings {
        let HeldOutputs { all, migrated } = host.held();
        Holdings {
            running: self.running.len(),
            outputs: all.saturating_sub(migrated),
            migrated,
            unreported: self.outbox.len(),
        }
    }

    /// A stream begins: the coordinator sends all inputs and options again. Returns the inventory, which lists each attempt as an
    /// output or as running. Attempts that have ended but are not reported yet are listed as running, and their report
    /// follows.
    ///
    /// Jobs without an entry are dropped. They may have ended under a leader that did not know this worker, and then no
    /// coordinator names them any more. Those that still run are announced again with the next task or migration.
    pub fn begin_stream(&mut self, host: &mut dyn TaskHost, page_bytes: usize) -> Pages {
        self.inputs.clear();
        self.options.clear();
        let outputs = reportable(host.inventory());
        let listed = |attempt: &AttemptId| outputs.binary_search_by(|(held, _)| held.cmp(attempt)).is_ok();
        self.listed.extend(self.running.extract_if(.., |attempt| listed(attempt)));
        let mut running = self.outbox.unreported(listed);
        running.extend(self.running.iter().cloned());
        running.retain(|attempt| !listed(attempt));
        let mut unlisted = host.jobs();
        for attempt in outputs.iter().map(|(held, _)| held).chain(&running) {
            unlisted.remove(&attempt.task.job);
        }
        unlisted.iter().for_each(|job| host.release(job));
        Pages::new(outputs, running, page_bytes)
    }

    /// Starts a task, or reports why it cannot be started.
    pub fn start(&mut self, dispatch: v1::TaskDispatch, host: &mut dyn TaskHost) {
        let attempt = match dispatch.attempt.as_ref().map(AttemptId::try_from) {
            Some(Ok(attempt)) => attempt,
            _ => {
                tracing::warn!(attempt = ?dispatch.attempt, "a task message without a valid attempt was ignored");
                return;
            }
        };
        if self.running.contains(&attempt) {
            tracing::info!(%attempt, "the task message was repeated while the attempt runs");
            return;
        }
        if let Some(result) = host.result(&attempt) {
            tracing::info!(%attempt, "the task message was repeated after the attempt ended");
            self.outbox.push(Fact::Ended(attempt, Ok(result)));
            return;
        }
        let job = &attempt.task.job;
        let started = self.inputs(&dispatch, job, host).and_then(|inputs| {
            let options = self.options(&dispatch, job, host)?;
            host.start(Dispatch { head: dispatch, inputs, options })
        });
        match started {
            Ok(()) => {
                self.running.insert(attempt);
            }
            Err(failure) => {
                tracing::warn!(%attempt, %failure, "a task was refused");
                self.outbox.push(Fact::Ended(attempt, Err(failure)));
            }
        }
    }

    /// The inputs that a task message refers to.
    fn inputs(
        &self,
        dispatch: &v1::TaskDispatch,
        job: &JobId,
        host: &dyn TaskHost,
    ) -> Result<Option<Arc<ReduceInputs>>, Failure> {
        let Some(v1::task_dispatch::Work::Reduce(work)) = &dispatch.work else { return Ok(None) };
        match self.inputs.get(job) {
            Some((version, inputs)) if *version == work.inputs_version => Ok(Some(inputs.clone())),
            _ => {
                let what = format!("version {} of its inputs was not received", work.inputs_version);
                Err(TaskError::NotBegun { worker: host.id().clone(), what }.into())
            }
        }
    }

    /// The options of the dataset that a task message refers to.
    fn options(
        &self,
        dispatch: &v1::TaskDispatch,
        job: &JobId,
        host: &dyn TaskHost,
    ) -> Result<DatasetOptions, Failure> {
        match (dispatch.has_options, self.options.get(job)) {
            (false, _) => Ok(DatasetOptions::default()),
            (true, Some(options)) => Ok(options.clone()),
            (true, None) => {
                let what = "the options of its dataset were not received".into();
                Err(TaskError::NotBegun { worker: host.id().clone(), what }.into())
            }
        }
    }

    /// Cancels an attempt, if it runs.
    pub fn stop(&self, attempt: &AttemptId, host: &mut dyn TaskHost) {
        if self.running.contains(attempt) {
            host.stop(attempt);
        }
    }

    /// Processes the end of an attempt.
    pub fn ended(&mut self, report: Report) {
        let Report { attempt, outcome, .. } = report;
        self.running.remove(&attempt);
        if self.listed.remove(&attempt) && outcome.is_ok() {
            return;
        }
        self.outbox.push(Fact::Ended(attempt, outcome));
    }

    /// Stores the inputs of reduce tasks that follow.
    pub fn take_inputs(&mut self, message: v1::ReduceInputs) {
        let version = message.version;
        match JobId::parse(&message.job).map_err(Into::into).and_then(|job| Ok((job, message.try_into()?))) {
            Ok((job, inputs)) => drop(self.inputs.insert(job, (version, Arc::new(inputs)))),
            // Tasks that read them are refused.
            Err::<_, BadMessage>(error) => tracing::warn!(%error, "invalid reduce inputs were ignored"),
        }
    }

    /// Stores the options of the dataset of a job whose tasks follow.
    pub fn take_options(&mut self, message: v1::JobOptions) {
        let job = JobId::parse(&message.job).map_err(|error| error.to_string());
        let taken = job.and_then(|job| {
            let options = DatasetOptions::try_from(message.options).map_err(|error| error.to_string())?;
            Ok((job, options))
        });
        match taken {
            Ok((job, options)) => drop(self.options.insert(job, options)),
            // Tasks that need them are refused.
            Err(error) => tracing::warn!(error, "invalid options of a dataset were ignored"),
        }
    }

    /// Drops the state of a job.
    pub fn release(&mut self, job: &JobId, host: &mut dyn TaskHost) {
        self.inputs.remove(job);
        self.options.remove(job);
        // A coordinator that took the job over, and ended it before it planned a stage, never asked to stop them.
        for attempt in self.running.iter().filter(|attempt| attempt.task.job == *job) {
            host.stop(attempt);
        }
        host.release(job);
        self.outbox.release(job);
    }
}
