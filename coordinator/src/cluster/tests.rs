//! Who is let in, by which stream it is reached, and who stays out.

use tokio::sync::mpsc;

use super::*;

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
fn hellos_that_make_no_sense_are_refused_by_name() {
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

fn attach(fleet: &mut RemoteFleet, hello: v1::Hello) -> Result<Attached, Refused> {
    fleet.attach(Hello::try_from(hello).unwrap())
}

#[test]
fn a_newer_epoch_a_twin_and_a_lost_worker_are_not_let_in() {
    let mut fleet = RemoteFleet::new(5);
    assert_eq!(attach(&mut fleet, v1::Hello { epoch: 6, ..hello("w") }).unwrap_err(), Refused::NewerEpoch(6));
    attach(&mut fleet, v1::Hello { epoch: 5, ..hello("w") }).unwrap();
    let twin = v1::Hello { flight_address: "127.0.0.1:4001".into(), ..hello("w") };
    assert_eq!(attach(&mut fleet, twin).unwrap_err(), Refused::Twin(id("w")));
    assert!(fleet.give_up(&id("w")));
    assert_eq!(attach(&mut fleet, hello("w")).unwrap_err(), Refused::GivenUp(id("w")));
    assert!(attach(&mut fleet, hello("w2")).is_ok());
}

#[test]
fn only_the_latest_stream_of_a_worker_counts() {
    let mut fleet = RemoteFleet::new(1);
    let worker = id("w");
    let first = attach(&mut fleet, hello("w")).unwrap().generation;
    let (way, mut old) = mpsc::channel(4);
    assert!(fleet.open(&worker, first, way));
    let second = attach(&mut fleet, hello("w")).unwrap().generation;
    // The old stream ends as soon as the new one says hello.
    assert!(matches!(old.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
    assert!(fleet.current(&worker, first).is_none() && fleet.current(&worker, second).is_some());
    let (way, mut orders) = mpsc::channel(1);
    assert!(!fleet.open(&worker, first, way.clone()) && fleet.open(&worker, second, way));
    fleet.say(&worker, Message::Beat(v1::Beat {})).unwrap();
    assert!(fleet.say(&worker, Message::Beat(v1::Beat {})).is_err(), "it does not read");
    assert!(orders.try_recv().is_ok());
    drop(orders);
    // Its connection will say that it is away; until then nothing is wrong with it.
    assert!(fleet.say(&worker, Message::Beat(v1::Beat {})).is_ok());
    assert!(!fleet.members()[&worker].attached());
}

#[test]
fn plans_are_made_for_the_weakest_worker_that_stays() {
    let mut fleet = RemoteFleet::new(1);
    assert_eq!(fleet.capacity(), Capacity { slots: EXPECTED_SLOTS, reduce_table_bytes: LEAST_TABLE_BYTES });
    attach(&mut fleet, hello("w")).unwrap();
    attach(&mut fleet, v1::Hello { reduce_table_bytes: 50 << 20, ..hello("small") }).unwrap();
    attach(&mut fleet, v1::Hello { reduce_table_bytes: 1, draining: true, ..hello("going") }).unwrap();
    assert_eq!(fleet.capacity(), Capacity { slots: 4, reduce_table_bytes: 50 << 20 });
}
