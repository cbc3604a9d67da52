//! The sums of the stages are compared before a day is published: a simulated worker reports wrong sums, and the job fails
//! with an error that names the difference.

use tally_proto::v1;
use tally_proto::v1::task_result::Result as Done;

use crate::rig::{Player, Scene, becomes, submit};

/// For reduce tasks with two rows, each in its own row group.
const CHECKSUMS: [u64; 2] = [u64::MAX - 3, 11];

fn stage(dispatch: &v1::TaskDispatch) -> u32 {
    dispatch.attempt.as_ref().unwrap().stage
}

/// Sets correct sums.
fn honest(done: &mut Done) {
    match done {
        Done::Map(result) => {
            result.partials = 5;
            let all = vec![v1::Run { first: 0, count: 1 }];
            result.sums =
                Some(v1::PartitionSums { partitions: all, rows: vec![5], checksums: vec![u64::MAX / 3] });
        }
        Done::Reduce(result) => {
            result.checksums = CHECKSUMS.into();
            result.crc32s = vec![1, 2];
            result.footer_crc32 = 3;
            result.order = Some(4);
        }
        Done::Write(_) => {}
    }
}

/// One reduce task with two rows, and a part file for each row.
async fn begin(scene: &mut Scene) -> (Player, String) {
    let mut worker = scene.coordinator.worker("first").await;
    (worker.rows, worker.alter) = (2, honest);
    let spec = v1::JobSpec { target_file_size: 38, partitions: Some(1), ..scene.place.spec("out") };
    let job = submit(&mut scene.jobs, spec).await.unwrap().job;
    (worker, job)
}

/// Asserts that the job fails with a reason that contains all these parts, and that nothing is published.
async fn fails(mut scene: Scene, job: &str, parts: &[&str]) {
    let status = becomes(&mut scene.jobs, job, v1::JobState::Failed).await;
    assert!(parts.iter().all(|part| status.reason.contains(part)), "{}", status.reason);
    assert!(scene.place.day("out").is_empty() && scene.place.is_clean());
}

#[tokio::test]
async fn matching_sums_are_published_and_are_in_part_files_and_task_messages() {
    let mut scene = Scene::new().await;
    let (mut worker, job) = begin(&mut scene).await;
    let mut maps = 0;
    let reduce = loop {
        let dispatch = worker.next_task().await;
        if stage(&dispatch) == 1 {
            break dispatch;
        }
        maps += 1;
        worker.finish(&dispatch).await;
    };
    let Some(v1::task_dispatch::Work::Reduce(work)) = &reduce.work else { panic!("{reduce:?}") };
    let expected = v1::Sums { rows: 5 * maps, checksum: (u64::MAX / 3).wrapping_mul(maps) };
    assert_eq!(work.expected, Some(expected), "of {maps} map tasks");
    worker.finish(&reduce).await;
    for checksum in CHECKSUMS {
        let write = worker.next_task().await;
        let Some(v1::task_dispatch::Work::Write(work)) = &write.work else { panic!("{write:?}") };
        let [piece] = &work.pieces[..] else { panic!("{work:?}") };
        let at = piece.row_groups[0] as usize;
        assert_eq!(piece.checksums, [checksum]);
        assert_eq!((&piece.rows[..], &piece.crc32s[..]), (&[1][..], &[[1, 2][at]][..]));
        assert_eq!(piece.footer_crc32, Some(3));
        assert_eq!(work.metadata["tally.rows"], "1");
        assert_eq!(work.metadata["tally.checksum"], format!("{checksum:016x}"));
        assert_eq!(work.metadata["tally.total_rows"], "2");
        assert_eq!(work.metadata["tally.total_checksum"], format!("{:016x}", 7));
        worker.finish(&write).await;
    }
    becomes(&mut scene.jobs, &job, v1::JobState::Done).await;
    assert!(scene.place.day("out").len() == 2 && scene.place.is_clean());
}

#[tokio::test]
async fn a_shard_that_was_not_read_completely_is_not_published() {
    let mut scene = Scene::new().await;
    let (mut worker, job) = begin(&mut scene).await;
    worker.alter = |done| {
        honest(done);
        if let Done::Map(result) = done {
            result.rows += 1;
        }
    };
    // One task only.
    let first = worker.next_task().await;
    worker.finish(&first).await;
    worker.alter = honest;
    worker.work().await;
    fails(scene, &job, &[&format!("{job}-s0-t"), "rows of its shard", "the footers", "day/"]).await;
}

#[tokio::test]
async fn partials_that_were_not_all_read_are_not_published() {
    let mut scene = Scene::new().await;
    let (mut worker, job) = begin(&mut scene).await;
    worker.alter = |done| {
        honest(done);
        if let Done::Reduce(result) = done {
            result.read = Some(v1::Sums { rows: 4, checksum: 9 });
        }
    };
    worker.work().await;
    fails(scene, &job, &["worker first read 4 partials", "but the map tasks made"]).await;
}

#[tokio::test]
async fn sums_of_partitions_that_do_not_add_up_count_against_the_attempt() {
    let mut scene = Scene::new().await;
    let (mut worker, job) = begin(&mut scene).await;
    worker.alter = |done| {
        honest(done);
        if let Done::Map(result) = done {
            result.partials = 6;
        }
    };
    let first = worker.next_task().await;
    worker.finish(&first).await;
    worker.alter = honest;
    worker.work().await;
    let status = becomes(&mut scene.jobs, &job, v1::JobState::Done).await;
    assert_eq!(status.stages[0].failed_attempts, 1, "{status:?}");
}

/// Runs all tasks before the first write task, and returns that one.
async fn until_write(worker: &mut Player) -> v1::TaskDispatch {
    loop {
        let dispatch = worker.next_task().await;
        if stage(&dispatch) == 2 {
            return dispatch;
        }
        worker.finish(&dispatch).await;
    }
}

/// The first of two part files is reported with `first`, the second with `second`: the job fails and names the first.
async fn miswritten(first: fn(&mut Done), second: fn(&mut Done), parts: &[&str]) {
    let mut scene = Scene::new().await;
    let (mut worker, job) = begin(&mut scene).await;
    let dispatch = until_write(&mut worker).await;
    worker.alter = first;
    worker.finish(&dispatch).await;
    worker.alter = second;
    worker.work().await;
    fails(scene, &job, parts).await;
}

fn writes(done: &mut Done, rows: u64, checksum: Option<u64>) {
    if let Done::Write(result) = done {
        (result.rows, result.checksum) = (rows, checksum);
    }
}

#[tokio::test]
async fn part_files_of_other_rows_than_were_reduced_are_not_published() {
    // All rows are written, but to the wrong files.
    let parts = ["part file 0 has 2 rows instead of 1"];
    miswritten(|done| writes(done, 2, None), |done| writes(done, 0, None), &parts).await;
    let [one, two] = CHECKSUMS;
    let parts = [&format!("part file 0 has rows with the checksum {two:016x} instead of {one:016x}") as &str];
    let turned: [fn(&mut Done); 2] =
        [|done| writes(done, 1, Some(CHECKSUMS[1])), |done| writes(done, 1, Some(CHECKSUMS[0]))];
    miswritten(turned[0], turned[1], &parts).await;
}

/// The first worker dies after it wrote one of two part files; its outputs are made again, with results changed by `alter`.
async fn made_again(alter: fn(&mut Done)) -> (Scene, String) {
    let mut scene = Scene::new().await;
    let (mut first, job) = begin(&mut scene).await;
    let write = until_write(&mut first).await;
    first.finish(&write).await;
    assert_eq!(stage(&first.next_task().await), 2, "two part files");
    let mut second = scene.coordinator.worker("second").await;
    drop(first);
    (second.rows, second.alter) = (2, alter);
    second.work().await;
    (scene, job)
}

#[tokio::test]
async fn attempts_of_a_reduce_task_that_gave_different_rows_end_the_job_and_both_are_named() {
    let alters: [fn(&mut Done); 2] = [
        |done| {
            honest(done);
            if let Done::Reduce(result) = done {
                result.checksums[1] += 1;
            }
        },
        |done| {
            honest(done);
            if let Done::Reduce(result) = done {
                result.totals = Some(v1::Totals::new(2, &[2, 0]));
            }
        },
    ];
    for alter in alters {
        let (scene, job) = made_again(alter).await;
        let named = [4096, 4097].map(|attempt| format!("{job}-s1-t0-a{attempt}"));
        let named = [&named[0] as &str, &named[1], "gave different rows"];
        fails(scene, &job, &named).await;
    }
}

#[tokio::test]
async fn part_files_are_compatible_if_attempts_returned_the_same_rows_in_the_same_order() {
    let (mut scene, job) = made_again(honest).await;
    let status = becomes(&mut scene.jobs, &job, v1::JobState::Done).await;
    assert_eq!(status.stages[2].reruns, 0, "{status:?}");
    // Another order of the same rows, or an unreported one: the existing part file is written again.
    let alters: [fn(&mut Done); 2] = [
        |done| {
            honest(done);
            if let Done::Reduce(result) = done {
                result.order = Some(5);
            }
        },
        |_| (),
    ];
    for alter in alters {
        let (mut scene, job) = made_again(alter).await;
        let status = becomes(&mut scene.jobs, &job, v1::JobState::Done).await;
        assert_eq!(status.stages[2].reruns, 1, "{status:?}");
    }
}
