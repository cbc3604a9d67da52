//! The conformance suite for implementations of `Peers`, run in process and over Flight.

use tally_proto::AttemptId;
use tally_shuffle::error::TaskError;
use tally_shuffle::peers::Wanted;

use crate::rig::{Rig, attempt, put_file, put_map, read, run, thin_run, wait_for};

/// All outputs in memory; some; none.
const MEMORIES: [u64; 3] = [1 << 30, 200 << 10, 0];

fn wanted(table: usize, attempt: AttemptId) -> Wanted {
    Wanted { attempt, table }
}

fn all_implementations_give_the_same_rows_in_the_same_order() {
    for memory in MEMORIES {
        let rig = Rig::new(memory);
        let outputs: Vec<Wanted> = [5, 2, 9, 0, 7, 1]
            .map(|index| wanted(usize::from(index % 2 == 1), attempt(0, index, index * 3)))
            .into();
        for (at, output) in outputs.iter().enumerate() {
            let seed = at as u32 * 10 + 4;
            let make = if output.table == 0 { run } else { thin_run };
            let runs = match at {
                // No rows; one run; several runs with empty partitions.
                1 => vec![],
                2 => vec![make([1000, 0, 20, 0], seed)],
                _ => {
                    vec![make([300, 50, 0, 0], seed), make([0, 500, 0, 0], seed + 1), make([7; 4], seed + 3)]
                }
            };
            put_map(&rig.store, &output.attempt, runs);
        }
        for partition in 0..4 {
            let reading = rig.reading();
            let seen: Vec<_> = rig
                .implementations()
                .into_iter()
                .map(|(name, peers)| {
                    (name, read(&*peers, &rig.place, &outputs, partition, &reading).unwrap())
                })
                .collect();
            assert_eq!(seen[0].1, seen[1].1, "{} and {} differ", seen[0].0, seen[1].0);
            let rows: usize = seen[0].1.iter().map(|seen| seen.rows.num_rows()).sum();
            let counts = [1228 + 1000, 228 + 2000, 28 + 20, 28];
            assert_eq!(rows, counts[partition as usize], "partition {partition}");
            assert_eq!(reading.budget.used(), 0, "all reserved memory is released");
        }
    }
}

fn runs_larger_than_a_message_and_more_segments_than_one_arrive_whole() {
    for memory in [1 << 30, 0] {
        let rig = Rig::new(memory);
        let outputs: Vec<Wanted> = (0..3).map(|index| wanted(0, attempt(0, index, 0))).collect();
        for (output, seed) in outputs.iter().zip([14, 23, 34]) {
            put_map(&rig.store, &output.attempt, vec![run([400_000, 1, 0, 100_000], seed)]);
        }
        let mut reading = rig.reading();
        let inside = read(&*rig.implementations()[0].1, &rig.place, &outputs, 0, &reading).unwrap();
        // With room to fetch ahead, and without.
        for budget in [64 << 20, 0] {
            reading.budget = tally_common::budget::Budget::new(budget);
            let flight = read(&rig.client, &rig.place, &outputs, 0, &reading).unwrap();
            assert_eq!(flight, inside);
        }
        assert!(rig.received.received() > 10 << 20);
        assert!(rig.traffic.sent() >= rig.received.received());
    }
}

fn a_missing_output_is_a_loss_that_names_its_task() {
    let rig = Rig::new(1 << 20);
    put_map(&rig.store, &attempt(0, 0, 0), vec![run([1; 4], 9)]);
    put_file(&rig.store, &attempt(1, 0, 0), b"file");
    for (name, peers) in rig.implementations() {
        let reading = rig.reading();
        for missing in [attempt(0, 1, 0), attempt(0, 0, 1)] {
            let outputs = [wanted(0, attempt(0, 0, 0)), wanted(0, missing.clone())];
            let error = read(&*peers, &rig.place, &outputs, 0, &reading).unwrap_err();
            let TaskError::Lost { worker, task, .. } = &error else { panic!("{name}: {error}") };
            assert_eq!((worker, task), (&rig.place.worker, &missing.task), "{name}: {error}");
        }
        let missing = attempt(1, 1, 0);
        let error = peers.file(&rig.place, &missing, &reading).err().unwrap();
        assert!(matches!(&error, TaskError::Lost { task, .. } if *task == missing.task), "{name}: {error}");
    }
    // Removed between two passes: with the job, or with the worker.
    let outputs = [wanted(0, attempt(0, 0, 0))];
    let reading = rig.reading();
    let peers = rig.implementations().pop().unwrap().1;
    let mut reader = peers.maps(&rig.place, outputs.to_vec(), 0, &reading).unwrap();
    reader.sizes().unwrap();
    rig.store.release(&crate::rig::job());
    reader.rewind();
    let error = reader.read(0, 0, &mut |_| Ok(())).unwrap_err();
    assert!(matches!(&error, TaskError::Lost { .. }), "{error}");
}

fn map_outputs_can_be_released_alone() {
    let rig = Rig::new(1 << 20);
    put_file(&rig.store, &attempt(1, 0, 0), b"file");
    put_map(&rig.store, &attempt(0, 0, 0), vec![run([1000; 4], 9)]);
    put_map(&rig.store, &attempt(0, 1, 0), vec![run([1_000_000, 1, 1, 1], 9)]);
    let (used, spilled) = (rig.store.budget().used(), rig.spilled_files());
    rig.store.release_maps(&crate::rig::job());
    let left: Vec<_> = rig.store.inventory().into_iter().map(|(attempt, _)| attempt).collect();
    assert_eq!(left, [attempt(1, 0, 0)]);
    assert!(rig.store.budget().used() < used);
    wait_for("files are removed", || rig.spilled_files() < spilled);
    assert!(rig.store.key(&crate::rig::job()).is_some());
}

fn a_stopped_worker_is_a_loss_and_a_cancelled_task_does_not_wait_for_it() {
    let mut rig = Rig::new(1 << 20);
    put_map(&rig.store, &attempt(0, 0, 0), vec![run([1; 4], 9)]);
    rig.stop();
    let outputs = [wanted(0, attempt(0, 0, 0))];
    let reading = rig.reading();
    let error = read(&rig.client, &rig.place, &outputs, 0, &reading).unwrap_err();
    assert!(matches!(&error, TaskError::Lost { .. }), "{error}");
    // A server that accepts connections and never responds.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut place = rig.place.clone();
    place.address = silent.local_addr().unwrap().to_string();
    let cancel = reading.cancelled.clone();
    let waiting = std::thread::spawn(move || {
        let accepted = silent.accept().unwrap();
        cancel.cancel();
        (silent, accepted)
    });
    let error = read(&rig.client, &place, &outputs, 0, &reading).unwrap_err();
    assert!(matches!(error, TaskError::Cancelled), "{error}");
    waiting.join().unwrap();
}

fn files_are_read_in_ranges_and_sequentially() {
    let bytes: Vec<u8> = (0..11_000_000u32).map(|at| (at % 251) as u8).collect();
    for memory in [1 << 30, 6 << 20, 0] {
        let rig = Rig::new(memory);
        put_file(&rig.store, &attempt(1, 3, 0), &bytes);
        put_file(&rig.store, &attempt(1, 4, 0), b"");
        for (name, peers) in rig.implementations() {
            let file = peers.file(&rig.place, &attempt(1, 3, 0), &rig.reading()).unwrap();
            assert_eq!(file.len(), bytes.len() as u64, "{name}");
            for (at, length) in [(0, 0), (0, 4), (10_999_992, 8), (123_456, 9_000_000)] {
                assert_eq!(file.exact(at as u64, length).unwrap(), bytes[at..at + length], "{name}");
            }
            // From the start to the end, then from some positions in between.
            for start in [0, 5_000_000, 4_999_999, 20] {
                let mut at = start;
                while at < bytes.len() {
                    let next = file.next(at as u64).unwrap();
                    assert!(!next.is_empty() && next == bytes[at..at + next.len()], "{name} at {at}");
                    at += next.len();
                }
                assert!(file.next(at as u64).unwrap().is_empty(), "{name}");
            }
            let empty = peers.file(&rig.place, &attempt(1, 4, 0), &rig.reading()).unwrap();
            assert!(empty.is_empty() && empty.next(0).unwrap().is_empty(), "{name}");
        }
    }
}

tally_tests::tests![
    mod:
    all_implementations_give_the_same_rows_in_the_same_order,
    runs_larger_than_a_message_and_more_segments_than_one_arrive_whole,
    a_missing_output_is_a_loss_that_names_its_task,
    map_outputs_can_be_released_alone,
    a_stopped_worker_is_a_loss_and_a_cancelled_task_does_not_wait_for_it,
    files_are_read_in_ranges_and_sequentially,
];
