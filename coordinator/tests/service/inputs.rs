//! Tasks whose inputs change before their message arrives: they read their original inputs, or are returned.

use std::collections::BTreeMap;
use std::time::Duration;

use tally_coordinator::journal::Journal;
use tally_coordinator::journal::log::{Claimant, EpochLog};
use tally_coordinator::journal::state_dir::StateDir;
use tally_coordinator::service::Timing;
use tally_proto::packed::unpack;
use tally_proto::v1;
use tally_proto::v1::coordinator_message::Message as Down;
use tally_proto::v1::journal_record::Record;
use tally_proto::v1::task_dispatch::Work;
use tonic::transport::Channel;

use crate::rig::{Coordinator, Place, Player, Scene, becomes, eventually, hello, submit, timing};
use v1::jobs_client::JobsClient;

/// The time for which a worker may stay away in these tests.
const GRACE: Duration = Duration::from_secs(2);

fn stage(dispatch: &v1::TaskDispatch) -> u32 {
    dispatch.attempt.as_ref().unwrap().stage
}

async fn stages(jobs: &mut JobsClient<Channel>, job: &str) -> Vec<v1::StageStatus> {
    jobs.get(v1::JobRequest { job: job.into() }).await.unwrap().into_inner().stages
}

/// The number of tasks of a stage, once it is shown.
async fn tasks(jobs: &mut JobsClient<Channel>, job: &str, stage: u32) -> u64 {
    let mut tasks = 0;
    eventually("the stage is shown", async || {
        tasks = stages(jobs, job).await.get(stage as usize).map_or(0, |stage| stage.tasks);
        tasks > 0
    })
    .await;
    tasks
}

/// Runs all tasks until the job ends, and checks that each task message names all inputs.
async fn work(player: &mut Player, tasks: u64, rows: u64) {
    loop {
        let dispatch = match player.next().await.unwrap() {
            Down::Start(dispatch) => dispatch,
            Down::Release(_) => return,
            other => panic!("{other:?}"),
        };
        match dispatch.work.as_ref().unwrap() {
            Work::Map(_) => {}
            Work::Reduce(work) => {
                let inputs = player.inputs.as_ref().unwrap();
                assert_eq!(work.inputs_version, inputs.version);
                let counts =
                    inputs.tables.iter().map(|table| unpack(table, inputs.stage).unwrap().outputs.len());
                let counts: Vec<_> = counts.map(|count| count as u32).collect();
                assert_eq!(counts, work.map_tasks);
                assert_eq!(u64::from(counts.iter().sum::<u32>()), tasks);
            }
            Work::Write(work) => {
                let promised: Vec<_> = work.pieces.iter().flat_map(|piece| piece.rows.clone()).collect();
                assert_eq!(promised.iter().sum::<u64>(), rows);
            }
        }
        player.finish(&dispatch).await;
    }
}

/// One worker holds nearly all outputs of a stage, and dies. Before it counts as lost the stage ends, and a task of the next
/// stage goes to another worker whose stream broke. That worker attaches again in time, while the lost outputs are made
/// again: its task cannot start.
async fn lost_task(after: u32) {
    let place = Place::new();
    let coordinator = Coordinator::start_with(&place, Timing { grace: GRACE, ..timing() }, 8).await;
    let mut jobs = coordinator.jobs().await;
    let mut dies = coordinator.worker("dies").await;
    // A part file for each reduce task.
    let spec = v1::JobSpec { target_file_size: 38, ..place.spec("out") };
    let job = submit(&mut jobs, spec).await.unwrap().job;
    let mut dispatch = dies.next_task().await;
    while stage(&dispatch) < after {
        dies.finish(&dispatch).await;
        dispatch = dies.next_task().await;
    }
    let mut last = coordinator.worker("last").await;
    let kept = last.next_task().await;
    let tasks = tasks(&mut jobs, &job, after).await;
    for _ in 2..tasks {
        dies.finish(&dispatch).await;
        dispatch = dies.next_task().await;
    }
    dies.finish(&dispatch).await;
    let back = coordinator.worker("back").await;
    eventually("one task is left", async || {
        stages(&mut jobs, &job).await.get(after as usize).is_some_and(|stage| stage.done == tasks - 1)
    })
    .await;
    drop(dies);
    tokio::time::sleep(GRACE * 2 / 3).await;
    let held = back.leave();
    last.finish(&kept).await;
    let next = after as usize + 1;
    eventually("both disconnected workers have tasks", async || {
        stages(&mut jobs, &job).await.get(next).is_some_and(|stage| stage.running == 2)
    })
    .await;
    eventually("the dead one is given up", async || {
        let workers = jobs.list_workers(v1::ListRequest::default()).await.unwrap().into_inner().workers;
        workers.iter().all(|worker| worker.worker != "dies")
    })
    .await;
    let mut back = Player::attach_with(&coordinator, hello("back"), held, vec![]).await.unwrap();
    let dispatch = back.next_task().await;
    assert!(stage(&dispatch) <= after, "its inputs do not exist: {dispatch:?}");
    back.finish(&dispatch).await;
    let maps = self::tasks(&mut jobs, &job, 0).await;
    tokio::join!(work(&mut back, maps, 1), work(&mut last, maps, 1));
    let status = becomes(&mut jobs, &job, v1::JobState::Done).await;
    // The attempt on the dead worker; the returned one is not a failure.
    assert_eq!(status.stages[next].failed_attempts, 1, "{status:?}");
    assert!(place.day("out").len() == 2 && place.is_clean());
}

#[tokio::test]
async fn a_reduce_task_does_not_begin_while_map_outputs_are_made_again() {
    lost_task(0).await;
}

#[tokio::test]
async fn a_write_task_does_not_begin_while_reduce_outputs_are_made_again() {
    lost_task(1).await;
}

/// A lost task message is sent again unchanged, with its inputs.
#[tokio::test]
async fn a_lost_task_message_with_unchanged_inputs_is_sent_again() {
    let Scene { place, coordinator, mut jobs } = Scene::new().await;
    let mut worker = coordinator.worker("w").await;
    let job = submit(&mut jobs, place.spec("out")).await.unwrap().job;
    let mut dispatch = worker.next_task().await;
    while stage(&dispatch) < 1 {
        worker.finish(&dispatch).await;
        dispatch = worker.next_task().await;
    }
    let inputs = worker.inputs.clone();
    let mut worker = Player::attach_with(&coordinator, hello("w"), worker.leave(), vec![]).await.unwrap();
    assert_eq!(worker.next_task().await, dispatch);
    assert!(inputs.is_some() && worker.inputs == inputs);
    worker.finish(&dispatch).await;
    let tasks = tasks(&mut jobs, &job, 0).await;
    work(&mut worker, tasks, 2).await;
    becomes(&mut jobs, &job, v1::JobState::Done).await;
}

/// If the recorded plan cannot be read, the job is planned again, and no outputs of the old plan are used.
#[tokio::test]
async fn outputs_of_an_unreadable_plan_are_not_used() {
    let place = Place::new();
    let dir = StateDir::open(&place.path("state").display().to_string()).unwrap();
    let claimant = Claimant { address: "127.0.0.1:1".into(), history: 9, compact_after: 99 };
    let mut log = EpochLog::claim(dir, &claimant).await.unwrap();
    let job = "20170227-1-1-1".to_string();
    let spec = Some(place.spec("out"));
    let submitted = v1::JobSubmitted { job: job.clone(), spec, key: vec![7; 16], submitted_at: 1 };
    log.append(Record::Submitted(submitted)).await.unwrap();
    let tasks = vec![v1::PlannedTask { bytes: 1, ..v1::PlannedTask::default() }; 9];
    let planned = v1::JobPlanned { job: job.clone(), partitions: 2, tasks, ..Default::default() };
    log.append(Record::Planned(planned)).await.unwrap();

    let coordinator = Coordinator::start(&place).await;
    let mut jobs = coordinator.jobs().await;
    let attempt = |index| v1::Attempt { job: job.clone(), stage: 0, index, attempt: 4096 };
    let result = v1::task_result::Result::Map(v1::MapResult { rows: 1, ..Default::default() });
    let result = v1::TaskResult { result: Some(result), usage: None };
    let held = v1::HeldOutput { attempt: Some(attempt(0)), result: Some(result) };
    let held = BTreeMap::from([((job.clone(), 0, 0, 4096), held)]);
    let mut worker = Player::attach_with(&coordinator, hello("w"), held, vec![attempt(1)]).await.unwrap();
    assert_eq!(worker.next().await, Some(Down::Stop(attempt(1))));
    let done = worker.work().await;
    let status = becomes(&mut jobs, &job, v1::JobState::Done).await;
    assert_eq!(done.map(|count| count as u64), [status.stages[0].tasks, 2, 1], "{status:?}");
}
