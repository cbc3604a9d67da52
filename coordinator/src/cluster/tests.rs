//! Which workers are accepted, by which stream each is reached, and which are refused.

use std::sync::Arc;

use tally_proto::dataset_options::DatasetOptions;
use tally_proto::dispatch::ReduceInputs;
use tally_proto::{AttemptId, JobId, MESSAGE_BYTES, StageId, TaskId};
use tokio::sync::mpsc;

use super::as_fleet::{EXPECTED_SLOTS, MIN_TABLE_BYTES};
use super::member::READS_FOOTERS;
use super::*;
use crate::dispatch::{SharedInputs, SharedOptions, TaskDispatch};
use crate::fleet::{Capacity, DispatchError, Fleet};

fn hello(worker: &str) -> v1::Hello {
    v1::Hello {
        protocol: tally_proto::PROTOCOL,
        worker: worker.into(),
        slots: 2,
        flight_address: "127.0.0.1:4000".into(),
        reduce_table_bytes: 100 << 20,
        ..v1::Hello::default()
    }
}

fn id(worker: &str) -> WorkerId {
    WorkerId::parse(worker).unwrap()
}

#[test]
fn invalid_hellos_are_refused_with_an_error_that_names_the_field() {
    let check = |change: fn(&mut v1::Hello), named: &str| {
        let mut hello = hello("w");
        change(&mut hello);
        let error = Hello::try_from(hello).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    };
    check(|hello| hello.protocol = 0, "version 0");
    check(|hello| hello.protocol = tally_proto::PROTOCOL + 1, "upgrade");
    check(|hello| hello.worker = "../w".into(), "../w");
    check(|hello| hello.slots = 0, "0 slots");
    check(|hello| hello.slots = 1 << 20, "slots");
    check(|hello| hello.flight_address = "nowhere".into(), "nowhere");
    check(|hello| hello.flight_address = "host:0".into(), "host:0");
    check(|hello| hello.flight_address = "a b:1".into(), "a b:1");
    check(|hello| hello.version = "x".repeat(1000), "longer");
    for address in ["host.name-1:80", "[::1]:80", "10.0.0.1:1"] {
        assert!(Hello::try_from(v1::Hello { flight_address: address.into(), ..hello("w") }).is_ok());
    }
}

fn attach(fleet: &mut RemoteFleet, hello: v1::Hello) -> Result<Attached, AttachError> {
    fleet.attach(Hello::try_from(hello).unwrap(), Duration::ZERO)
}

#[test]
fn a_newer_epoch_a_duplicate_id_and_a_lost_worker_are_refused() {
    let mut fleet = RemoteFleet::new(5);
    assert_eq!(
        attach(&mut fleet, v1::Hello { epoch: 6, ..hello("w") }).unwrap_err(),
        AttachError::NewerEpoch(6)
    );
    attach(&mut fleet, v1::Hello { epoch: 5, ..hello("w") }).unwrap();
    let duplicate = v1::Hello { flight_address: "127.0.0.1:4001".into(), ..hello("w") };
    assert_eq!(attach(&mut fleet, duplicate).unwrap_err(), AttachError::DuplicateId(id("w")));
    assert!(fleet.give_up(&id("w")));
    assert_eq!(attach(&mut fleet, hello("w")).unwrap_err(), AttachError::Removed(id("w")));
    assert!(attach(&mut fleet, hello("w2")).is_ok());
}

#[test]
fn only_the_latest_stream_of_a_worker_counts() {
    let mut fleet = RemoteFleet::new(1);
    let worker = id("w");
    let first = attach(&mut fleet, hello("w")).unwrap().generation;
    let (channel, mut old) = mpsc::channel(4);
    assert!(fleet.open(&worker, first, channel));
    let second = attach(&mut fleet, hello("w")).unwrap().generation;
    // The old stream ends as soon as the new one says hello.
    assert!(matches!(old.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
    assert!(fleet.current(&worker, first).is_none() && fleet.current(&worker, second).is_some());
    let (channel, mut messages) = mpsc::channel(1);
    assert!(!fleet.open(&worker, first, channel.clone()) && fleet.open(&worker, second, channel));
    fleet.send(&worker, Message::Beat(v1::Beat {})).unwrap();
    assert!(fleet.send(&worker, Message::Beat(v1::Beat {})).is_err(), "it does not read");
    assert!(messages.try_recv().is_ok());
    drop(messages);
    // The watch of its stream reports the end; until then it counts as a member.
    assert!(fleet.send(&worker, Message::Beat(v1::Beat {})).is_ok());
    assert!(!fleet.members()[&worker].attached());
}

#[test]
fn plans_are_made_for_the_smallest_worker_that_does_not_drain() {
    let mut fleet = RemoteFleet::new(1);
    let capacity =
        |slots, reduce_table_bytes| Capacity { slots, reduce_table_bytes, reads_footers: true, apart: true };
    // Workers that attach later may be older.
    let empty = Capacity { reads_footers: false, ..capacity(EXPECTED_SLOTS, MIN_TABLE_BYTES) };
    assert_eq!(fleet.capacity(), empty);
    attach(&mut fleet, hello("w")).unwrap();
    assert!(!fleet.capacity().apart);
    attach(&mut fleet, v1::Hello { reduce_table_bytes: 50 << 20, ..hello("small") }).unwrap();
    attach(&mut fleet, v1::Hello { reduce_table_bytes: 1, draining: true, ..hello("going") }).unwrap();
    assert_eq!(fleet.capacity(), capacity(4, 50 << 20));
    attach(&mut fleet, v1::Hello { protocol: 2, ..hello("old") }).unwrap();
    assert!(!fleet.capacity().reads_footers);
}

#[test]
fn a_worker_whose_version_cannot_run_a_task_stays_and_does_not_count_as_running_it() {
    let mut fleet = RemoteFleet::new(1);
    let attached = attach(&mut fleet, v1::Hello { protocol: READS_FOOTERS - 1, ..hello("old") }).unwrap();
    let (channel, mut messages) = mpsc::channel(4);
    assert!(fleet.open(&id("old"), attached.generation, channel));
    let job = JobId::parse("j").unwrap();
    let task = tally_proto::TaskId { job, stage: tally_proto::StageId(0), index: 0 };
    let attempt = AttemptId { task, attempt: 0 };
    let dispatch = |row_groups: Vec<u32>| {
        let pieces = vec![v1::InputPiece { row_groups, ..Default::default() }];
        let work = v1::task_dispatch::Work::Map(v1::MapWork { pieces, ..Default::default() });
        let head = v1::TaskDispatch { work: Some(work), ..Default::default() };
        TaskDispatch { head, ..TaskDispatch::default() }
    };
    let unable = fleet.start(&id("old"), &attempt, dispatch(vec![tally_proto::ALL_ROW_GROUPS])).unwrap_err();
    assert!(
        matches!(&unable, DispatchError::Unsupported(reason) if reason.contains("upgrade it")),
        "{unable}"
    );
    assert!(fleet.members()[&id("old")].running.is_empty() && messages.try_recv().is_err());
    fleet.start(&id("old"), &attempt, dispatch(vec![0])).unwrap();
    assert!(fleet.members()[&id("old")].running.contains(&attempt) && messages.try_recv().is_ok());
    assert!(matches!(
        fleet.start(&id("none"), &attempt, dispatch(vec![0])),
        Err(DispatchError::WorkerLost(_))
    ));
}

fn attempt(stage: u32) -> AttemptId {
    let task = TaskId { job: JobId::parse("j").unwrap(), stage: StageId(stage), index: 0 };
    AttemptId { task, attempt: 0 }
}

/// A map task whose message is `bytes` larger than the most that a worker accepts.
fn map_task(excess: isize) -> TaskDispatch {
    let dispatch = |length: usize| {
        let pieces = vec![v1::InputPiece { url: "x".repeat(length), ..Default::default() }];
        let work = v1::task_dispatch::Work::Map(v1::MapWork { pieces, ..Default::default() });
        let head = v1::TaskDispatch { work: Some(work), ..Default::default() };
        TaskDispatch { head, ..TaskDispatch::default() }
    };
    let sized =
        |length| Outbound::Dispatch { epoch: 1, dispatch: Box::new(dispatch(length)) }.encoded_len() - length;
    // Lengths of four bytes each.
    let around = sized(MESSAGE_BYTES - 100);
    dispatch((MESSAGE_BYTES - around).checked_add_signed(excess).unwrap())
}

#[test]
fn a_task_message_above_the_limit_is_not_sent_and_the_worker_goes_on() {
    let mut fleet = RemoteFleet::new(1);
    let attached = attach(&mut fleet, hello("w")).unwrap();
    let (channel, mut sent) = mpsc::channel(8);
    assert!(fleet.open(&id("w"), attached.generation, channel));
    let mut sizes = vec![];
    for excess in [-1, 0] {
        fleet.start(&id("w"), &attempt(0), map_task(excess)).unwrap();
        sizes.push(sent.try_recv().unwrap().encoded_len());
    }
    assert_eq!(sizes, [MESSAGE_BYTES - 1, MESSAGE_BYTES]);
    fleet.member(&id("w")).unwrap().running.clear();
    let refused = fleet.start(&id("w"), &attempt(0), map_task(1)).unwrap_err();
    assert!(matches!(refused, DispatchError::TooLarge(_)), "{refused}");
    let member = &fleet.members()[&id("w")];
    assert!(member.attached() && member.running.is_empty() && sent.try_recv().is_err());
    fleet.start(&id("w"), &attempt(0), map_task(-1)).unwrap();
    assert!(sent.try_recv().is_ok());
}

#[test]
fn options_of_a_dataset_are_sent_once_per_job_and_stream_and_not_to_old_workers() {
    let given = DatasetOptions::new([("list".to_string(), b"a".to_vec())]).unwrap();
    let task = || TaskDispatch { options: SharedOptions::new(&given), ..TaskDispatch::default() };
    let mut fleet = RemoteFleet::new(1);
    let old = v1::Hello { protocol: tally_proto::PROTOCOL - 1, ..hello("old") };
    attach(&mut fleet, old).unwrap();
    let refused = fleet.start(&id("old"), &attempt(0), task()).unwrap_err();
    assert!(matches!(&refused, DispatchError::Unsupported(reason) if reason.contains("upgrade it")));
    for _ in 0..2 {
        let attached = attach(&mut fleet, hello("w")).unwrap();
        let (channel, mut sent) = mpsc::channel(8);
        assert!(fleet.open(&id("w"), attached.generation, channel));
        for _ in 0..2 {
            fleet.start(&id("w"), &attempt(0), task()).unwrap();
        }
        let order: Vec<bool> = std::iter::from_fn(|| sent.try_recv().ok())
            .map(|message| matches!(message, Outbound::Options { .. }))
            .collect();
        assert_eq!(order, [true, false, false]);
    }
}

#[test]
fn inputs_above_the_limit_are_not_sent_and_are_no_task_of_an_old_worker() {
    let location = |n: usize| v1::Location { worker: format!("w{n}"), address: "x".repeat(250) };
    let shared = |locations: usize| {
        let list = ReduceInputs { tables: vec![], locations: (0..locations).map(location).collect() };
        Arc::new(SharedInputs::new(4, list, None))
    };
    let task = |inputs| {
        let work = v1::task_dispatch::Work::Reduce(v1::ReduceWork::default());
        let head = v1::TaskDispatch { work: Some(work), ..Default::default() };
        TaskDispatch { head, inputs: Some(inputs), options: None }
    };
    let mut fleet = RemoteFleet::new(1);
    for (worker, protocol) in [("new", tally_proto::PROTOCOL), ("old", tally_proto::OLDEST_PROTOCOL)] {
        let attached = attach(&mut fleet, v1::Hello { protocol, ..hello(worker) }).unwrap();
        let (channel, mut sent) = mpsc::channel(8);
        assert!(fleet.open(&id(worker), attached.generation, channel));
        let refused = fleet.start(&id(worker), &attempt(1), task(shared(20_000))).unwrap_err();
        match worker {
            "new" => assert!(matches!(refused, DispatchError::TooLarge(_)), "{refused}"),
            // Workers of later versions can run the task.
            _ => assert!(
                matches!(&refused, DispatchError::Unsupported(reason) if reason.contains("upgrade it")),
                "{refused}"
            ),
        }
        assert!(sent.try_recv().is_err() && fleet.members()[&id(worker)].running.is_empty());
        // The inputs that were not sent are not taken for sent.
        fleet.start(&id(worker), &attempt(1), task(shared(3))).unwrap();
        let first = sent.try_recv().unwrap();
        assert_eq!(matches!(first, Outbound::Inputs { .. }), worker == "new");
    }
}

#[test]
fn a_page_of_workers_fits_into_a_message_whatever_they_are_named() {
    use prost::Message as _;
    let worker = v1::WorkerStatus {
        worker: "w".repeat(tally_proto::ids::MAX_ID_BYTES),
        flight_address: "x".repeat(256),
        version: "x".repeat(256),
        slots: u32::MAX,
        running: u32::MAX,
        memory_limit: u64::MAX,
        memory_used: u64::MAX,
        spilled_bytes: u64::MAX,
        state: "detached".into(),
        outputs: u64::MAX,
        heartbeat_age_millis: u64::MAX,
        silent: true,
        spill_limit: u64::MAX,
        spill_used: u64::MAX,
        resident_bytes: u64::MAX,
        waiting_for_memory: u32::MAX,
        waiting_for_store: u32::MAX,
        waiting_for_workers: u32::MAX,
    };
    let page = v1::WorkerPage { workers: vec![worker; 1000], next_page_token: "w".repeat(64) };
    assert!(page.encoded_len() < MESSAGE_BYTES / 4, "{}", page.encoded_len());
}
