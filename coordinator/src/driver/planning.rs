//! Planning of stages: the map stage from the inputs, or from the plan that an earlier leader recorded; the others
//! from the results of the stage before.

use tally_common::traces;
use tally_proto::v1::EventKind;
use tally_proto::v1::journal_record::Record;
use tally_proto::{JobId, StageId};
use tally_scheduler::Event;

use super::job_run::notes::stage_event;
use super::work::{Planned, PlanningError, Work};
use super::{AfterRecord, Driver};
use crate::job::{MAP, REDUCE};
use crate::results::winners;

impl Driver {
    pub(super) fn plan_stage(&mut self, job: JobId, stage: StageId) -> Option<Event> {
        let capacity = self.workers.capacity();
        let run = self.jobs.get_mut(&job)?;
        if stage.0 == MAP {
            let (spec, dataset) = (run.submission.spec.clone(), run.submission.dataset.clone());
            let (recorded, adopted) = (run.takeover.take_plan(), run.state.take_staging());
            let (spec, epoch) = (Box::new(spec), self.epoch);
            self.note(&job, stage_event(EventKind::StageBegun, "plan", "the inputs are listed and planned"));
            self.outputs.work(Work::Plan { spec, dataset, capacity, recorded, adopted, epoch });
            return None;
        }
        run.end_stage(self.now, &mut self.metrics.memory);
        let found = run.take_found(stage);
        let planned = if stage.0 == REDUCE {
            let mapped = winners(&self.scheduler, &job, MAP);
            run.plan_reduce(&mapped).map(|tasks| (tasks, found))
        } else {
            // Part files of an earlier term were written to its own staging: they are not used.
            let reduced = winners(&self.scheduler, &job, REDUCE);
            run.plan_write(&reduced).map(|tasks| (tasks, vec![]))
        };
        match planned {
            Ok((tasks, found)) => {
                run.begin_stage(self.now, stage, tasks.len(), &found);
                self.workers.note_running(&job, stage, &found);
                Some(Event::StagePlanned { job, stage, tasks, found })
            }
            Err(error) => Some(Event::StagePlanFailed { job, stage, reason: error.to_string() }),
        }
    }

    pub(super) fn planned(&mut self, job: JobId, planned: Result<Box<Planned>, PlanningError>) {
        let Some(run) = self.jobs.get_mut(&job) else {
            // The job ended meanwhile.
            if let Ok(planned) = planned {
                self.outputs.work(Work::Discard { job, staging: planned.staging });
            }
            return;
        };
        // A recorded plan was traced in the term that made it.
        if !planned.as_ref().is_ok_and(|planned| planned.recorded) {
            let error = planned.as_ref().err().map(ToString::to_string);
            traces::step(
                &job,
                "plan",
                run.phases.elapsed(self.now.elapsed),
                error.as_deref().map_or(Ok(()), Err),
            );
        }
        match planned {
            Err(error) => {
                let reason = error.to_string();
                self.apply(Event::StagePlanFailed { job, stage: StageId(MAP), reason });
            }
            Ok(planned) => {
                let Planned { plan, staging, recorded } = *planned;
                let record = (!recorded).then(|| Record::Planned(plan.record(&job)));
                run.input_planned(plan, staging);
                run.end_stage(self.now, &mut self.metrics.memory);
                match record {
                    Some(record) => self.outputs.write(record, AfterRecord::Planned(job)),
                    None => self.plan_recorded(&job),
                }
            }
        }
    }

    /// The plan of the map stage is in the journal: its tasks may start.
    pub(super) fn plan_recorded(&mut self, job: &JobId) {
        let Some(run) = self.jobs.get_mut(job) else { return };
        let stage = StageId(MAP);
        let tasks = run.map_plans();
        let found = run.take_found(stage);
        run.begin_stage(self.now, stage, tasks.len(), &found);
        self.workers.note_running(job, stage, &found);
        self.apply(Event::StagePlanned { job: job.clone(), stage, tasks, found });
        // Attempts of later stages would only take slots while their stages wait for inputs.
        let early = self.jobs.get_mut(job).map(|run| run.takeover.take_running(job));
        for (worker, attempt) in early.into_iter().flatten() {
            self.workers.stop(&worker, &attempt);
        }
    }
}
