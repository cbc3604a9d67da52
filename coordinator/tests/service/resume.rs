//! Successive coordinators on one state directory.

use std::collections::BTreeSet;
use std::path::PathBuf;

use tally_coordinator::service::serve::Exit;
use tally_proto::v1;
use tally_proto::v1::coordinator_message::Message as Down;
use tally_proto::v1::worker_message::Message as Up;

use crate::rig::{Coordinator, DATE, Place, Player, Scene, becomes, hello, submit};

#[tokio::test]
async fn a_successor_continues_with_what_workers_have() {
    let Scene { place, coordinator, mut jobs } = Scene::new().await;
    let mut worker = coordinator.worker("w").await;
    let job = submit(&mut jobs, place.spec("out")).await.unwrap().job;
    let mut done = BTreeSet::new();
    let mut key = vec![];
    for _ in 0..3 {
        let dispatch = worker.next_task().await;
        worker.finish(&dispatch).await;
        key.clone_from(&dispatch.key);
        done.insert(dispatch.attempt.unwrap().index);
    }
    let running = worker.next_task().await;
    assert_eq!(coordinator.stop().await, Exit::Asked);
    assert!(worker.next().await.is_none(), "the stream ends with the coordinator");
    let epoch = worker.epoch;
    let held = worker.leave();

    let coordinator = Coordinator::start(&place).await;
    let mut jobs = coordinator.jobs().await;
    let again = v1::Hello { epoch, ..hello("w") };
    let runs = vec![running.attempt.clone().unwrap()];
    let mut worker = Player::attach_with(&coordinator, again, held, runs).await.unwrap();
    assert!(worker.epoch > epoch);
    let existing = submit(&mut jobs, place.spec("out")).await.unwrap();
    assert!(existing.existing && existing.job == job);
    worker.finish(&running).await;
    let mut stages = [0; 3];
    let mut first_attempts = vec![];
    loop {
        match worker.next().await.unwrap() {
            Down::Start(dispatch) => {
                assert_eq!(dispatch.key, key, "the job's key is kept");
                let attempt = dispatch.attempt.clone().unwrap();
                stages[attempt.stage as usize] += 1;
                if attempt.stage == 0 {
                    assert!(done.insert(attempt.index), "map task {} was done", attempt.index);
                }
                first_attempts.push(attempt.attempt);
                worker.finish(&dispatch).await;
            }
            Down::Release(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(!done.contains(&running.attempt.as_ref().unwrap().index));
    assert_eq!(stages[1..], [2, 1]);
    assert!(first_attempts.iter().all(|&number| u64::from(number >> 12) == worker.epoch));
    becomes(&mut jobs, &job, v1::JobState::Done).await;
    assert!(place.day("out").len() == 1 && place.is_clean());
}

/// An attempt of an earlier term that fails before its job continues is not waited for.
#[tokio::test]
async fn a_task_that_failed_before_its_job_continued_runs_again() {
    let Scene { place, coordinator, mut jobs } = Scene::new().await;
    let mut worker = coordinator.worker("w").await;
    let job = submit(&mut jobs, place.spec("out")).await.unwrap().job;
    let running = worker.next_task().await.attempt.unwrap();
    coordinator.stop().await;
    let coordinator = Coordinator::start(&place).await;
    let mut jobs = coordinator.jobs().await;
    let again = v1::Hello { epoch: worker.epoch, ..hello("w") };
    let mut worker =
        Player::attach_with(&coordinator, again, worker.leave(), vec![running.clone()]).await.unwrap();
    let failure = v1::Failure { kind: Some(v1::failure::Kind::Retryable("a disk".into())) };
    let (attempt, outcome) = (Some(running), Some(v1::ended::Outcome::Failure(failure)));
    worker.say(Up::Ended(v1::Ended { attempt, outcome })).await;
    let done = worker.work().await;
    let status = becomes(&mut jobs, &job, v1::JobState::Done).await;
    assert_eq!(done[0] as u64, status.stages[0].tasks, "{status:?}");
}

#[tokio::test]
async fn a_deposed_coordinator_stops() {
    let place = Place::new();
    let first = Coordinator::start(&place).await;
    let mut jobs = first.jobs().await;
    let job = submit(&mut jobs, place.spec("out")).await.unwrap().job;
    let second = Coordinator::start(&place).await;
    assert!(matches!(first.exit().await, Exit::Deposed(_)));
    let mut jobs = second.jobs().await;
    let mut worker = second.worker("w").await;
    worker.work().await;
    becomes(&mut jobs, &job, v1::JobState::Done).await;
    assert!(place.day("out").len() == 1 && place.is_clean());
}

#[tokio::test]
async fn history_survives_and_a_cancel_is_not_forgotten() {
    let Scene { place, coordinator, mut jobs } = Scene::new().await;
    let mut worker = coordinator.worker("w").await;
    let done = submit(&mut jobs, place.spec("out")).await.unwrap().job;
    worker.work().await;
    let before = becomes(&mut jobs, &done, v1::JobState::Done).await;
    let cancelled = submit(&mut jobs, place.spec("out2")).await.unwrap().job;
    worker.next_task().await;
    jobs.cancel(v1::JobRequest { job: cancelled.clone() }).await.unwrap();
    becomes(&mut jobs, &cancelled, v1::JobState::Cancelled).await;
    coordinator.stop().await;
    let coordinator = Coordinator::start(&place).await;
    let mut jobs = coordinator.jobs().await;
    assert_eq!(becomes(&mut jobs, &done, v1::JobState::Done).await, before);
    becomes(&mut jobs, &cancelled, v1::JobState::Cancelled).await;
}

/// The folder in which the recorded journal was made.
const MADE_IN: usize = 100;

/// Puts a journal of an earlier version into the state directory; returns the root of its paths.
fn put_journal(place: &Place, recorded: &str) -> PathBuf {
    let made_in = format!("/journal-fixture/{}", "x".repeat(MADE_IN - 17));
    let short = place.path("");
    let short = short.to_str().unwrap().trim_end_matches('/');
    let pad = MADE_IN.checked_sub(short.len() + 1).filter(|&pad| pad > 0).expect("a shorter TMPDIR");
    let root = format!("{short}/{}", "x".repeat(pad));
    std::fs::create_dir_all(place.path("state/log/1")).unwrap();
    for line in recorded.lines().filter(|line| !line.starts_with('#')) {
        let (number, hex) = line.split_once(' ').unwrap();
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let mut record: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        // Magic, writer and length, checksum; then the body.
        let (head, body) = record.split_at_mut(36);
        for at in 0..(body.len() + 1).saturating_sub(MADE_IN) {
            if body[at..].starts_with(made_in.as_bytes()) {
                body[at..at + MADE_IN].copy_from_slice(root.as_bytes());
            }
        }
        head[32..].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
        std::fs::write(place.path("state/log/1").join(number), record).unwrap();
    }
    root.into()
}

/// Journals of earlier versions stay readable. Each released format adds a line here.
#[tokio::test]
async fn a_journal_of_an_earlier_version_is_resumed() {
    let place = Place::new();
    let root = put_journal(&place, include_str!("journal-0.1.0.hex"));
    std::fs::create_dir(&root).unwrap();
    let coordinator = Coordinator::start(&place).await;
    let mut jobs = coordinator.jobs().await;
    let list = jobs.list(v1::ListRequest::default()).await.unwrap().into_inner();
    let states = list.jobs.iter().map(|job| (job.state(), job.job.clone()));
    let [(live, job), (cancelled, _), (done, _)] = states.collect::<Vec<_>>().try_into().unwrap();
    assert_eq!((cancelled, done), (v1::JobState::Cancelled, v1::JobState::Done));
    assert!(list.jobs[2].summary.contains("\"rows\":152"), "{:?}", list.jobs[2]);
    assert!(!matches!(live, v1::JobState::Done | v1::JobState::Failed | v1::JobState::Cancelled));
    let mut worker = coordinator.worker("w").await;
    let first = worker.next_task().await;
    // The plan is the recorded one: the inputs no longer exist, and were not read.
    assert!(matches!(&first.work, Some(v1::task_dispatch::Work::Map(map)) if map.partitions == 2));
    assert_eq!(first.attempt.as_ref().unwrap().attempt >> 12, 2, "attempts of the second epoch");
    worker.finish(&first).await;
    assert_eq!(worker.work().await, [3, 2, 1]);
    becomes(&mut jobs, &job, v1::JobState::Done).await;
    assert!(root.join(format!("live/submission_date_s3={DATE}")).is_dir());
}

/// A roll-back to a version that cannot read the journal: the older coordinator changes nothing, and the newer one continues.
#[tokio::test]
async fn a_coordinator_does_not_start_on_the_journal_of_a_newer_version() {
    let place = Place::new();
    let root = put_journal(&place, include_str!("journal-0.1.0.hex"));
    std::fs::create_dir(&root).unwrap();
    let last = place.path("state/log/1/11");
    let record = std::fs::read(&last).unwrap();
    let mut newer = record.clone();
    newer[7] = 2;
    std::fs::write(&last, &newer).unwrap();
    let records = || {
        let mut files: Vec<_> = std::fs::read_dir(place.path("state/log")).unwrap().flatten().collect();
        assert_eq!(files.len(), 1, "no epoch is claimed");
        let epoch = files.remove(0).path();
        std::fs::read_dir(epoch).unwrap().flatten().map(|entry| entry.path()).collect::<BTreeSet<_>>()
    };
    let before = records();
    for _ in 0..2 {
        let error = Coordinator::refused(&place).await.to_string();
        for part in ["log/1/11", "journal format 2", "version 0.1.0 wrote the journal"] {
            assert!(error.contains(part), "{error}");
        }
    }
    assert_eq!((records(), std::fs::read(&last).unwrap()), (before, newer));
    std::fs::write(&last, record).unwrap();
    let coordinator = Coordinator::start(&place).await;
    let mut jobs = coordinator.jobs().await;
    assert_eq!(jobs.list(v1::ListRequest::default()).await.unwrap().into_inner().jobs.len(), 3);
}
