//! Stages become tasks: the map stage by a look at the inputs, which is put on record, or from
//! the record of an earlier leader; the others from results.

use std::sync::Arc;

use tally_dataset::Dataset;
use tally_proto::v1::journal_record::Record;
use tally_proto::{JobId, StageId};
use tally_scheduler::{Event, TaskPlan};
use tally_worker::scan::footer::Footers;
use tally_worker::traces;

use super::run::JobRun;
use super::{Driver, Input, Then};
use crate::fleet::Capacity;
use crate::job::{JobSpec, MAP, REDUCE};
use crate::plan::{self, InputPlan};
use crate::publish::stage::Stage;
use crate::results::winners;

/// A job whose inputs were looked at, and whose output can be staged.
#[derive(Debug)]
pub struct Planned {
    /// The map tasks.
    pub plan: InputPlan,
    /// Where part files go.
    pub staging: Stage,
    /// The plan is on record already.
    pub recorded: bool,
}

impl Driver {
    pub(super) fn plan_stage(&mut self, job: JobId, stage: StageId) -> Option<Event> {
        let capacity = self.fleet.capacity();
        let run = self.jobs.get_mut(&job)?;
        if stage.0 == MAP {
            let (spec, dataset, epoch) = (run.spec.clone(), run.dataset.clone(), self.epoch);
            let (recorded, adopted) = (run.recorded_plan.take(), run.staging.take());
            let (footers, sender) = (self.footers.clone(), self.sender.clone());
            tokio::spawn(async move {
                let planned = match recorded {
                    Some(plan) => Ok((plan, true)),
                    None => plan_inputs(&spec, &*dataset, &footers, capacity).await.map(|plan| (plan, false)),
                };
                let planned = match planned {
                    Ok((plan, recorded)) => stage_output(&spec, adopted, epoch)
                        .await
                        .map(|staging| Box::new(Planned { plan, staging, recorded })),
                    Err(reason) => Err(reason),
                };
                // The loop gone means that the process ends.
                let _ = sender.send(Input::Planned(spec.id, planned)).await;
            });
            return None;
        }
        run.stage_ended(&mut self.memory);
        let (tasks, found) = if stage.0 == REDUCE {
            (run.plan_reduce(), run.take_found(stage))
        } else {
            // What write tasks of an earlier term made was staged for it.
            run.take_found(stage);
            let reduced = winners(&self.scheduler, &job, REDUCE);
            match run.plan_write(&reduced) {
                Ok(tasks) => (tasks, vec![]),
                Err(reason) => return Some(Event::StagePlanFailed { job, stage, reason }),
            }
        };
        self.running_there(&job, stage, &found);
        Some(Event::StagePlanned { job, stage, tasks, found })
    }

    pub(super) fn planned(&mut self, job: JobId, planned: Result<Box<Planned>, String>) {
        let Some(run) = self.jobs.get_mut(&job) else {
            // The job ended meanwhile.
            if let Ok(planned) = planned {
                tokio::spawn(planned.staging.discard());
            }
            return;
        };
        // What is on record was looked at, and told, in an earlier term.
        if !planned.as_ref().is_ok_and(|planned| planned.recorded) {
            let outcome = planned.as_ref().map(|_| ()).map_err(String::as_str);
            traces::step(&job, "plan", run.stage_took(), outcome);
        }
        match planned {
            Err(reason) => self.step(Event::StagePlanFailed { job, stage: StageId(MAP), reason }),
            Ok(planned) => {
                let Planned { plan, staging, recorded } = *planned;
                let record = (!recorded).then(|| Record::Planned(plan.record(&job)));
                run.input_planned(plan, staging, &mut self.memory);
                match record {
                    Some(record) => self.write(record, Then::Planned(job)),
                    None => self.plan_recorded(&job),
                }
            }
        }
    }

    pub(super) fn plan_recorded(&mut self, job: &JobId) {
        let Some(run) = self.jobs.get_mut(job) else { return };
        let stage = StageId(MAP);
        let tasks = run.plan.tasks.iter().map(|t| TaskPlan { weight: t.bytes, preferred: None }).collect();
        let found = run.take_found(stage);
        self.running_there(job, stage, &found);
        self.step(Event::StagePlanned { job: job.clone(), stage, tasks, found });
        // What runs of stages that still wait for their inputs would only take slots.
        let early = self.jobs.get_mut(job).map(JobRun::take_found_running);
        for (worker, attempt) in early.into_iter().flatten() {
            self.fleet.stop(&worker, &attempt);
        }
    }
}

async fn plan_inputs(
    spec: &JobSpec,
    dataset: &dyn Dataset,
    footers: &Arc<Footers>,
    capacity: Capacity,
) -> Result<InputPlan, String> {
    let mut plan = plan::plan(spec, dataset, footers, capacity.slots).await.map_err(|e| e.to_string())?;
    plan.reduce_table_bytes = capacity.reduce_table_bytes;
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    Ok(plan)
}

async fn stage_output(spec: &JobSpec, adopted: Option<Stage>, epoch: u64) -> Result<Stage, String> {
    match adopted {
        Some(staging) => Ok(staging),
        None => Stage::prepare(spec, epoch).await,
    }
}
